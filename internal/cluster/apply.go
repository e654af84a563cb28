package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"

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
	// Holders counts who else has the payload in his hands, sending it to a peer; nil:
	// nobody. It does not grow any more by then.
	Holders *atomic.Int32
}

// StateMachine is what committed entries are applied to. All its methods are
// called from one goroutine, in the order of the log.
type StateMachine interface {
	// Restore replaces the state with one that Checkpoint or Snapshot returned; index
	// is the last entry in it, and segments are those of the log that begin at or
	// before it, ascending. It is called before any Apply, and again if what was applied
	// after it turned out to be damaged; state is nil in a new log.
	Restore(index uint64, state []byte, segments []uint64) error
	// Apply folds entries in. The slice is the caller's. An error means that this
	// node cannot go on; what an entry says is never a reason for one.
	Apply(entries []Entry) error
	// Checkpoint returns the state as encoded bytes, which it does not touch
	// again. It is called when the last applied entry is in the given segment, as a
	// rule its last one. The log begins with segment first by now. When the disk is
	// full (ENOSPC) there is no checkpoint for this segment; any other error
	// means that this node cannot go on.
	Checkpoint(segment, first uint64) ([]byte, error)
	// Snapshot returns the state like Checkpoint, at any time. Equal states are
	// equal bytes, on every node.
	Snapshot() ([]byte, error)
	// Needs returns the first entry that has to be in the log for a state that Snapshot
	// returned; 0: none.
	Needs(state []byte) (uint64, error)
	// Replace begins a snapshot's way in: what was there is gone, and so is the log.
	// The entries that state is made of, as far as they are kept, come through
	// Review, and then Adopt puts a state into force, which may be a later one.
	// Checkpoint may be called in between; what it returns is not used.
	Replace(state []byte) error
	Review(entries []Entry) error
	Adopt(index uint64, state []byte) error
}

// applyBytes is how much payload is applied in one go. Entries that have to be
// read back from disk are in memory for so long only.
const applyBytes = 1 << 20

// applier is the apply goroutine's state.
type applier struct {
	n       *Node
	group   membership
	review  bool // the state of these entries is known already, see StateMachine.Review
	batch   []Entry
	bytes   int      // payload in batch
	done    []uint64 // numbers of own proposals in the message
	segment uint64   // of the last applied entry; 0 = none yet
	last    entryID

	disk *segment.Reader // behind the last entry that was read back; nil = none
	next uint64          // the entry that disk reads next
}

func (a *applier) run(ctx context.Context) error {
	defer close(a.n.applierEnded)
	defer a.closeDisk()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.n.applies.ready:
			for _, job := range a.n.applies.drain() {
				if ctx.Err() != nil {
					return nil
				}
				if err := job(a); errors.Is(err, ErrClosed) {
					return nil
				} else if err != nil {
					return err
				}
			}
		}
	}
}

// inApplier runs f in the apply goroutine, behind what was committed before, and
// waits for it. ErrClosed: that goroutine has ended, f may not have been run.
func (n *Node) inApplier(f func(*applier) error) error {
	done := make(chan error, 1)
	n.applies.push(func(a *applier) error {
		done <- f(a)
		return nil
	})
	select {
	case err := <-done:
		return err
	case <-n.applierEnded:
		return ErrClosed
	}
}

func (a *applier) applyMessage(m *pb.Message) error {
	ents := m.GetEntries()
	a.done = a.done[:0]
	for _, e := range ents {
		entry, err := a.load(e)
		if err != nil {
			return err
		}
		if err := a.add(entry); err != nil {
			return err
		}
		if e.GetType() != pb.EntryNormal {
			if err := a.changeMembership(e, true); err != nil {
				return err
			}
		} else if h, err := decodeHandle(e.GetData()); err == nil && h.proposer == a.n.id {
			a.done = append(a.done, h.number)
		}
	}
	if err := a.flush(); err != nil {
		return err
	}
	last := ents[len(ents)-1]
	a.n.staging.release(a.done...)
	a.n.setApplied(last.GetIndex())
	a.n.leadership.applied(last.GetTerm())
	a.n.deliver(m.GetResponses())
	return nil
}

// changeMembership folds an entry that changes the membership. live: Raft has to
// be told; it knows it already when a snapshot is installed, or a start replays.
func (a *applier) changeMembership(e *pb.Entry, live bool) error {
	cc, c, err := decodeChange(e)
	if err != nil {
		return fmt.Errorf("%w; run the version of kingbus that wrote it, or a newer one", err)
	}
	next, refused := a.group.apply(cc, c)
	if refused == nil {
		var wrong error
		if live && !a.n.call(func() { wrong = a.n.applyConfChange(e.GetIndex(), cc, next.conf) }) {
			return ErrClosed // nothing behind it may count without it, in a checkpoint above all
		}
		if wrong != nil {
			return fmt.Errorf("entry %d: %w", e.GetIndex(), wrong)
		}
		if live {
			// A node that forgot that the change is committed would want the votes of the old
			// members, of which one may be gone for good by then.
			if err := a.n.hard.saveCommitTo(e.GetIndex()); err != nil {
				return err
			}
		}
		a.group = next
		a.n.setGroup(next)
	}
	a.n.changes.done(c.Request, refused)
	return nil
}

// makeSnapshot answers the window's asking for one.
func (a *applier) makeSnapshot() error {
	data, err := a.encodeSnapshot()
	if err != nil {
		return err
	}
	a.n.window.offer(&pb.Snapshot{Data: data, Metadata: &pb.SnapshotMetadata{
		Index: new(a.last.index), Term: new(a.last.term), ConfState: a.group.conf,
	}})
	return nil
}

// encodeSnapshot returns the state after the last applied entry, as a checkpoint.
func (a *applier) encodeSnapshot() ([]byte, error) {
	state, err := a.n.machine.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("make a snapshot: %w", err)
	}
	data, err := checkpoint{index: a.last.index, term: a.last.term, group: a.group, state: state}.encode()
	if err != nil {
		return nil, fmt.Errorf("make a snapshot: %w", err)
	}
	return data, nil
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
	apply := a.n.machine.Apply
	if a.review {
		apply = a.n.machine.Review
	}
	err := apply(a.batch)
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
	if !a.review {
		a.n.saver.offer(checkpoint{index: a.last.index, term: a.last.term, group: a.group, state: state})
	}
	return nil
}

// load takes the payload of a committed entry: from the window, else from disk.
// Only what an earlier process has written is not in the window.
func (a *applier) load(e *pb.Entry) (Entry, error) {
	s, ok := a.n.window.take(e.GetIndex())
	if !ok {
		return Entry{}, fmt.Errorf("committed entry %d is outside the window", e.GetIndex())
	}
	out := Entry{Index: e.GetIndex(), Term: e.GetTerm(), Payload: s.payload, At: s.at, Holders: s.holders}
	if out.Payload != nil || e.GetType() != pb.EntryNormal || len(e.GetData()) == 0 {
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
