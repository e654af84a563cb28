package cluster

import (
	"bytes"
	"context"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/segment"
)

// Entry is one committed entry as the state machine sees it.
type Entry struct {
	Index, Term uint64
	// Payload is what was proposed; nil for an entry that is Raft's own business
	// (a leader's first entry, a change of membership). It is immutable and
	// shared: the state machine may keep it.
	Payload []byte
	// At is where this node keeps the entry.
	At segment.Location
}

// StateMachine is what committed entries are applied to. All its methods are
// called from one goroutine, in the order of the log.
type StateMachine interface {
	// Restore replaces the state with one that Checkpoint returned; index is the
	// last entry in it, and segments are those of the log that begin at or before
	// it, ascending. It is called once, before any Apply; state is nil in a new
	// log.
	Restore(index uint64, state []byte, segments []uint64) error
	// Apply folds entries in. The slice is the caller's. An error means that this
	// node cannot go on; what an entry says is never a reason for one.
	Apply(entries []Entry) error
	// Checkpoint returns the state as encoded bytes, which it does not touch
	// again. It is called when the last applied entry is the last one of the
	// given segment. The log begins with segment first by now. When the disk is
	// full (ENOSPC) there is no checkpoint for this segment; any other error
	// means that this node cannot go on.
	Checkpoint(segment, first uint64) ([]byte, error)
}

// applyBytes is how much payload is applied in one go. Entries that have to be
// read back from disk are in memory for so long only.
const applyBytes = 1 << 20

// applier is the apply goroutine's state.
type applier struct {
	n       *Node
	batch   []Entry
	bytes   int      // payload in batch
	done    []uint64 // numbers of own proposals in the message
	segment uint64   // of the last applied entry; 0 = none yet
	last    entryID

	disk *segment.Reader // behind the last entry that was read back; nil = none
	next uint64          // the entry that disk reads next
}

func (a *applier) run(ctx context.Context) error {
	defer a.closeDisk()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.n.applies.ready:
			for _, m := range a.n.applies.drain() {
				if ctx.Err() != nil {
					return nil
				}
				if err := a.applyMessage(m); err != nil {
					return err
				}
			}
		}
	}
}

func (a *applier) applyMessage(m *pb.Message) error {
	ents := m.GetEntries()
	a.done = a.done[:0]
	for _, e := range ents {
		if e.GetType() != pb.EntryNormal {
			return fmt.Errorf("entry %d changes the membership, which this version does not do", e.GetIndex())
		}
		entry, err := a.load(e)
		if err != nil {
			return err
		}
		if err := a.add(entry); err != nil {
			return err
		}
		if h, err := decodeHandle(e.GetData()); err == nil && h.proposer == a.n.id {
			a.done = append(a.done, h.number)
		}
	}
	if err := a.flush(); err != nil {
		return err
	}
	first, last := ents[0].GetIndex(), ents[len(ents)-1]
	a.n.window.applied(first, last.GetIndex())
	a.n.staging.release(a.done...)
	a.n.applied.Store(last.GetIndex())
	a.n.leadership.applied(last.GetTerm())
	a.n.deliver(m.GetResponses())
	return nil
}

// add collects an entry for the state machine, and takes a checkpoint when the
// entry is the first of another segment.
func (a *applier) add(e Entry) error {
	if a.segment != 0 && e.At.Segment != a.segment {
		if err := a.flush(); err != nil {
			return err
		}
		if err := a.checkpoint(); err != nil {
			return err
		}
	}
	a.segment, a.last = e.At.Segment, entryID{index: e.Index, term: e.Term}
	a.batch = append(a.batch, e)
	if a.bytes += len(e.Payload); a.bytes < applyBytes {
		return nil
	}
	return a.flush()
}

func (a *applier) flush() error {
	if len(a.batch) == 0 {
		return nil
	}
	err := a.n.machine.Apply(a.batch)
	clear(a.batch)
	a.batch, a.bytes = a.batch[:0], 0
	return err
}

func (a *applier) checkpoint() error {
	state, err := a.n.machine.Checkpoint(a.segment, a.n.segments.FirstIndex())
	if noSpace(err) {
		a.n.log.Warn("the disk is full: no checkpoint for this segment, the next start replays more", "segment", a.segment, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("checkpoint at entry %d: %w", a.last.index, err)
	}
	a.n.saver.offer(checkpoint{index: a.last.index, term: a.last.term, conf: a.n.conf, state: state})
	return nil
}

// load finds the payload of a committed entry: in the window, else on disk. Only
// what an earlier process has written is not in the window.
func (a *applier) load(e *pb.Entry) (Entry, error) {
	s, ok := a.n.window.get(e.GetIndex())
	if !ok {
		return Entry{}, fmt.Errorf("committed entry %d is outside the window", e.GetIndex())
	}
	out := Entry{Index: e.GetIndex(), Term: e.GetTerm(), Payload: s.payload, At: s.at}
	if out.Payload != nil || len(e.GetData()) == 0 {
		a.closeDisk()
		return out, nil
	}
	if a.disk == nil || a.next != out.Index {
		a.closeDisk()
		r, err := a.n.segments.NewReader(s.at)
		if err != nil {
			return Entry{}, fmt.Errorf("read entry %d: %w", out.Index, err)
		}
		a.disk = r
	}
	stored, _, err := a.disk.Next()
	if err != nil {
		return Entry{}, fmt.Errorf("read entry %d: %w", out.Index, err)
	}
	if stored.Index != out.Index || stored.Term != out.Term {
		return Entry{}, fmt.Errorf("read entry %d of term %d: found entry %d of term %d", out.Index, out.Term, stored.Index, stored.Term)
	}
	a.next = stored.Index + 1
	out.Payload = bytes.Clone(stored.Payload)
	return out, nil
}

func (a *applier) closeDisk() {
	if a.disk != nil {
		_ = a.disk.Close() // only gives buffers and a file back
		a.disk = nil
	}
}
