package cluster

import (
	"sync"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/segment"
)

// windowEntries is how many applied entries stay in the window for followers
// that are a little behind. A slot costs some 200 bytes, so the window is
// bounded by about 3 MiB beside what is not applied yet.
const windowEntries = 16 << 10

// slot is one entry of the window: Raft's own entry (its Data is the handle),
// where it lies on disk, and its payload until the entry is applied (nil when
// it is not in memory, then it is read back from disk).
type slot struct {
	entry   *pb.Entry
	at      segment.Location
	payload []byte
}

// window is the part of the log that the Raft library sees: handles, not
// payloads, always answered from memory because Storage is called inside the
// Raft loop. Entries below it exist on disk only. It implements raft.Storage.
//
// The loop goroutine reads it, the append goroutine adds to it after entries
// have reached the disk, the apply goroutine takes payloads out and moves its
// beginning.
type window struct {
	mu    sync.Mutex
	hard  *pb.HardState
	conf  *pb.ConfState
	prev  entryID // the entry before slots[0]; its term is kept for matching
	slots []slot
}

type entryID struct{ index, term uint64 }

var _ raft.Storage = (*window)(nil)

func newWindow(hard *pb.HardState, conf *pb.ConfState, prev entryID) *window {
	return &window{hard: hard, conf: conf, prev: prev}
}

func (w *window) InitialState() (*pb.HardState, *pb.ConfState, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hard, w.conf, nil
}

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

// Snapshot names the beginning of the window. A group of one voter has nobody
// to send it to.
func (w *window) Snapshot() (*pb.Snapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &pb.Snapshot{Metadata: &pb.SnapshotMetadata{
		Index: new(w.prev.index), Term: new(w.prev.term), ConfState: w.conf,
	}}, nil
}

// append adds slots whose entries are on disk, replacing what they overwrite.
func (w *window) append(slots []slot) {
	if len(slots) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	first := slots[0].entry.GetIndex()
	w.slots = append(w.slots[:first-w.prev.index-1], slots...)
}

// get returns the slot of entry i; ok is false when i is outside the window.
func (w *window) get(i uint64) (slot, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i <= w.prev.index || i > w.last() {
		return slot{}, false
	}
	return w.slots[i-w.prev.index-1], true
}

// applied frees the payloads of entries up to i and moves the window on, so
// that at most windowEntries applied entries stay in it.
func (w *window) applied(from, i uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := max(from, w.prev.index+1); n <= i; n++ {
		w.slots[n-w.prev.index-1].payload = nil
	}
	// Cut only when half of the slots can go: each cut copies the rest.
	if keep := i - min(i, windowEntries); keep > w.prev.index+windowEntries {
		n := keep - w.prev.index
		w.prev = entryID{index: keep, term: w.slots[n-1].entry.GetTerm()}
		w.slots = append([]slot(nil), w.slots[n:]...)
	}
}

// reset empties the window: its next entry is the one after prev.
func (w *window) reset(prev entryID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prev, w.slots = prev, nil
}
