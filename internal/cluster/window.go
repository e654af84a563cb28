package cluster

import (
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/segment"
)

const (
	// windowEntries is how many applied entries stay in the window at least, for
	// followers that are a little behind; at most it is twice as many. A slot costs
	// some 200 bytes.
	windowEntries = 16 << 10
	// windowBytes is how much payload of entries on disk waits in memory to be
	// applied; the rest is read back.
	windowBytes = 32 << 20
)

// slot is one entry of the window: Raft's own entry (its Data is the handle),
// where it lies on disk, and its payload until the entry is applied (nil when
// it is not in memory, then it is read back from disk).
type slot struct {
	entry   *pb.Entry
	at      segment.Location
	payload []byte
	holders *atomic.Int32 // see Entry.Holders; nil without a payload
}

// window is the part of the log that the Raft library sees: handles, not
// payloads, always answered from memory because Storage is called inside the
// Raft loop. Entries below it exist on disk only. It implements raft.Storage.
//
// The loop goroutine reads it and stages what is on its way to the disk, the
// append goroutine adds to it after entries have reached the disk, the apply
// goroutine takes payloads out and moves its beginning, and the senders take
// payloads for the peers.
type window struct {
	mu       sync.Mutex
	hard     *pb.HardState
	conf     *pb.ConfState
	keep     uint64  // applied entries that stay
	gone     uint64  // the last entry that was purged from the disk
	prev     entryID // the entry before slots[0]; its term is kept for matching
	slots    []slot
	staged   map[uint64]slot // by index: given to the append goroutine, not on disk yet
	stagedTo uint64          // the greatest index that was staged
	bytes    int             // payload in slots
	snapshot *pb.Snapshot    // for the peer that asked last; nil = none is made
	ask      func()          // asks for one to be made
	asked    bool            // and it is not there yet
}

type entryID struct{ index, term uint64 }

var _ raft.Storage = (*window)(nil)

func newWindow(hard *pb.HardState, conf *pb.ConfState, prev entryID) *window {
	return &window{hard: hard, conf: conf, prev: prev, staged: map[uint64]slot{}, keep: windowEntries}
}

func (w *window) InitialState() (*pb.HardState, *pb.ConfState, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hard, w.conf, nil
}

// Entries counts the payloads into maxSize: what Raft puts into one message is
// bounded in bytes of the log.
func (w *window) Entries(lo, hi, maxSize uint64) ([]*pb.Entry, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if lo <= w.prev.index {
		return nil, raft.ErrCompacted
	}
	if hi > w.last()+1 {
		return nil, raft.ErrUnavailable
	}
	var size uint64
	ents := make([]*pb.Entry, 0, min(hi-lo, 1024))
	for i := lo; i < hi; i++ {
		e := w.slots[i-w.prev.index-1].entry
		size += uint64(len(e.GetData())) + 16
		if h, err := decodeHandle(e.GetData()); err == nil {
			size += uint64(h.length)
		}
		if len(ents) > 0 && size > maxSize {
			break
		}
		ents = append(ents, e)
	}
	return ents, nil
}

func (w *window) Term(i uint64) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case i < w.prev.index:
		return 0, raft.ErrCompacted
	case i == w.prev.index:
		return w.prev.term, nil
	case i > w.last():
		return 0, raft.ErrUnavailable
	}
	return w.slots[i-w.prev.index-1].entry.GetTerm(), nil
}

func (w *window) last() uint64 { return w.prev.index + uint64(len(w.slots)) }

func (w *window) LastIndex() (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last(), nil
}

func (w *window) FirstIndex() (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.prev.index + 1, nil
}

// Snapshot returns the snapshot that was made for this call, or has one made:
// Raft asks again soon. Each is given out once, so that it is a new one, with
// today's members in it.
func (w *window) Snapshot() (*pb.Snapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.snapshot; s != nil {
		w.snapshot = nil
		if s.GetMetadata().GetIndex() >= w.prev.index {
			return s, nil
		}
	}
	if !w.asked {
		w.asked = true
		w.ask()
	}
	return nil, raft.ErrSnapshotTemporarilyUnavailable
}

// offer gives the snapshot that was asked for.
func (w *window) offer(s *pb.Snapshot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.snapshot, w.asked = s, false
}

// dropSnapshot forgets one that was made before the membership changed: it does
// not name the receiver.
func (w *window) dropSnapshot() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.snapshot = nil
}

// stage makes slots known that are on their way to the disk, so that they can be
// sent to the peers at the same time. What was staged behind their first one is
// no longer part of the log.
func (w *window) stage(slots []slot) {
	if len(slots) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := slots[0].entry.GetIndex(); i <= w.stagedTo; i++ {
		delete(w.staged, i)
	}
	for _, s := range slots {
		if w.stagedTo = s.entry.GetIndex(); s.payload != nil {
			w.staged[w.stagedTo] = s
		}
	}
}

// append adds slots whose entries are on disk, replacing what they overwrite.
func (w *window) append(slots []slot) {
	if len(slots) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	first := slots[0].entry.GetIndex()
	for _, s := range w.slots[first-w.prev.index-1:] {
		w.bytes -= len(s.payload)
	}
	w.slots = append(w.slots[:first-w.prev.index-1], slots...)
	added := w.slots[first-w.prev.index-1:]
	for i := range added {
		s := &added[i]
		if staged, ok := w.staged[s.entry.GetIndex()]; ok && staged.entry.GetTerm() == s.entry.GetTerm() {
			delete(w.staged, s.entry.GetIndex())
		}
		if w.bytes += len(s.payload); w.bytes > windowBytes {
			w.bytes -= len(s.payload)
			s.payload = nil
		}
	}
}

// take returns the slot of entry i and takes the payload out of the window, so that
// nobody else gets it from now on; ok is false when i is outside.
func (w *window) take(i uint64) (slot, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i <= w.prev.index || i > w.last() {
		return slot{}, false
	}
	s := &w.slots[i-w.prev.index-1]
	taken := *s
	w.bytes -= len(s.payload)
	s.payload = nil
	return taken, true
}

// find returns the slot of an entry for a peer: on its way to the disk, or there.
// A payload that is in memory is held for the caller, until it calls release.
func (w *window) find(id entryID) (slot, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.staged[id.index]
	if ok && s.entry.GetTerm() != id.term {
		ok = false
	}
	if !ok && id.index > w.prev.index && id.index <= w.last() {
		s = w.slots[id.index-w.prev.index-1]
		ok = s.entry.GetTerm() == id.term
	}
	if ok && s.payload != nil {
		s.holders.Add(1)
	}
	return s, ok
}

// release gives back a payload that find has returned.
func (s slot) release() {
	if s.payload != nil {
		s.holders.Add(-1)
	}
}

// applied moves the window on behind entries that were taken and applied, up to i,
// so that not many of them stay in it, and none that was purged: a peer that needs one has to
// be given a snapshot.
func (w *window) applied(i uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	to := min(w.gone, i)
	// Cut only when half of the slots can go: each cut copies the rest.
	if keep := i - min(i, w.keep); keep > w.prev.index+w.keep {
		to = max(to, keep)
	}
	if to > w.prev.index {
		n := to - w.prev.index
		w.prev = entryID{index: to, term: w.slots[n-1].entry.GetTerm()}
		w.slots = append([]slot(nil), w.slots[n:]...)
	}
}

// purged notes the last entry that is not on disk any more; see applied.
func (w *window) purged(i uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = max(w.gone, i)
}

// held returns how many entries are in the window, and the bytes of their payloads.
func (w *window) held() (entries, bytes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.slots), w.bytes
}

// reset empties the window: its next entry is the one after prev.
func (w *window) reset(prev entryID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prev, w.slots, w.bytes, w.gone = prev, nil, 0, 0
	for i := range w.staged {
		if i <= prev.index {
			delete(w.staged, i)
		}
	}
}
