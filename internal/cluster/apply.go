package cluster

import (
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
	// last entry in it. It is called once, before any Apply; state is nil in a
	// new log.
	Restore(index uint64, state []byte) error
	// Apply folds entries in. The slice is the caller's. An error means that this
	// node cannot go on; what an entry says is never a reason for one.
	Apply(entries []Entry) error
	// Checkpoint returns the state as encoded bytes, which it does not touch
	// again. It is called when the last applied entry is the last one of the
	// given segment.
	Checkpoint(segment uint64) ([]byte, error)
}

// applier is the apply goroutine's state.
type applier struct {
	n       *Node
	batch   []Entry
	segment uint64 // of the last applied entry; 0 = none yet
	last    entryID
}

func (a *applier) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.n.applies.ready:
			for _, m := range a.n.applies.drain() {
				if err := a.applyMessage(m); err != nil {
					return err
				}
			}
		}
	}
}

func (a *applier) applyMessage(m *pb.Message) error {
	ents := m.GetEntries()
	released := 0
	for _, e := range ents {
		entry, err := a.n.load(e)
		if err != nil {
			return err
		}
		if e.GetType() != pb.EntryNormal {
			return fmt.Errorf("entry %d changes the membership, which this version does not do", e.GetIndex())
		}
		if err := a.add(entry); err != nil {
			return err
		}
		if h, err := decodeHandle(e.GetData()); err == nil && h.proposer == a.n.id {
			released += int(h.length)
		}
	}
	if err := a.flush(); err != nil {
		return err
	}
	first, last := ents[0].GetIndex(), ents[len(ents)-1]
	a.n.window.applied(first, last.GetIndex())
	a.n.staging.release(released)
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
	return nil
}

func (a *applier) flush() error {
	if len(a.batch) == 0 {
		return nil
	}
	err := a.n.machine.Apply(a.batch)
	clear(a.batch)
	a.batch = a.batch[:0]
	return err
}

func (a *applier) checkpoint() error {
	state, err := a.n.machine.Checkpoint(a.segment)
	if err != nil {
		return fmt.Errorf("checkpoint at entry %d: %w", a.last.index, err)
	}
	a.n.saver.offer(checkpoint{index: a.last.index, term: a.last.term, conf: a.n.conf, state: state})
	return nil
}

// load finds the payload of a committed entry: in the window, else on disk.
func (n *Node) load(e *pb.Entry) (Entry, error) {
	s, ok := n.window.get(e.GetIndex())
	if !ok {
		return Entry{}, fmt.Errorf("committed entry %d is outside the window", e.GetIndex())
	}
	out := Entry{Index: e.GetIndex(), Term: e.GetTerm(), Payload: s.payload, At: s.at}
	if out.Payload != nil || e.GetType() != pb.EntryNormal || len(e.GetData()) == 0 {
		return out, nil
	}
	r, err := n.segments.NewReader(s.at)
	if err != nil {
		return Entry{}, fmt.Errorf("read entry %d: %w", e.GetIndex(), err)
	}
	defer r.Close()
	stored, _, err := r.Next()
	if err != nil {
		return Entry{}, fmt.Errorf("read entry %d: %w", e.GetIndex(), err)
	}
	out.Payload = append([]byte{}, stored.Payload...)
	return out, nil
}
