package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/hook"
	"kingbus/internal/segment"
)

// commitEvery is how often, at the most, the commit index is persisted. It is
// lazy because Raft does not need it; a restarted node serves up to it at once,
// and recovery tells damage from a torn write by it.
const commitEvery = time.Second

// fullRetry is how often a full disk is tried again.
const fullRetry = time.Second

// writer is the append goroutine's state: it makes entries, term and vote
// durable, in the order in which Raft asks, and answers only after that.
//
// It stands still while a snapshot is installed, and while the disk is full.
// Then term and vote of what waits are saved nevertheless, and votes are given:
// an election does not need the log.
type writer struct {
	n     *Node
	batch []segment.Entry
	slots []slot
	held  []work // waits
	full  bool

	answers []*pb.Message // of a batch
}

// run writes whatever has come in since the last fsync as one batch: many small
// proposals share one fsync, and batches never overlap one.
func (w *writer) run(ctx context.Context) error {
	lazy := time.NewTicker(commitEvery)
	defer lazy.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			if w.blocked() {
				return nil
			}
			// The commit index is saved so that the next start serves at once.
			return w.n.hard.saveCommit()
		case <-lazy.C:
			if w.full {
				w.full = false
				err = w.write(w.take())
			} else if !w.blocked() {
				err = w.n.hard.saveCommit()
			}
		case <-w.n.appends.ready:
			err = w.write(w.n.appends.drain())
		case index := <-w.n.installer.finished:
			err = w.installed(index)
		}
		if err != nil {
			return err
		}
	}
}

func (w *writer) blocked() bool { return w.full || w.n.installing.Load() }

// take empties what waits.
func (w *writer) take() []work {
	held := w.held
	w.held = nil
	return held
}

// write makes works durable, up to a snapshot or to where the disk is full.
func (w *writer) write(works []work) error {
	if w.blocked() {
		return w.hold(works)
	}
	n := slices.IndexFunc(works, func(wk work) bool { return !raft.IsEmptySnap(wk.m.GetSnapshot()) })
	if n < 0 {
		n = len(works)
	}
	if err := w.flush(works[:n]); err != nil || w.full {
		if noSpace(err) {
			w.full = true
			w.n.log.Error("the disk is full, nothing is acknowledged: free space, kingbus goes on by itself", "dir", w.n.dir, "error", err)
			err = w.hold(works)
		}
		return err
	}
	if n == len(works) {
		return nil
	}
	w.n.installing.Store(true)
	return w.hold(works[n:])
}

// hold keeps works for later. Only term and vote are saved, and votes given.
func (w *writer) hold(works []work) error {
	for _, wk := range works {
		if err := w.n.hard.promise(wk.m); err != nil {
			return err
		}
		var votes, rest []*pb.Message
		for _, r := range wk.m.GetResponses() {
			if t := r.GetType(); t == pb.MsgVoteResp || t == pb.MsgPreVoteResp {
				votes = append(votes, r)
			} else {
				rest = append(rest, r)
			}
		}
		wk.m.Responses = rest
		w.n.deliver(votes)
		if snap := wk.m.GetSnapshot(); !raft.IsEmptySnap(snap) && w.n.installing.Load() {
			if err := w.n.installer.begin(snap); err != nil {
				return err
			}
		}
		if last := len(w.held) - 1; last >= 0 && w.held[last].bare() && wk.bare() {
			w.held[last] = newer(w.held[last], wk)
			continue
		}
		w.held = append(w.held, wk)
	}
	return nil
}

// bare tells whether there is nothing in it to write but a hard state, and nothing that only
// its own answers tell.
func (wk work) bare() bool {
	return len(wk.slots) == 0 && raft.IsEmptySnap(wk.m.GetSnapshot()) && !slices.ContainsFunc(wk.m.GetResponses(), func(r *pb.Message) bool { return !raft.IsEmptySnap(r.GetSnapshot()) })
}

// newer returns the second of two bare works, with what only the first one says: its
// answers tell of the same log, and more of it. Nodes that stand still for days
// would collect them without end.
func newer(first, second work) work {
	if m := second.m; m.Term == nil && m.Vote == nil && m.Commit == nil {
		m.Term, m.Vote, m.Commit = first.m.Term, first.m.Vote, first.m.Commit
	}
	return second
}

// installed goes on behind the snapshot of entry index: it is on disk. What waited
// before it is of a log that the snapshot has replaced, and is answered by nobody. Entries
// that came in one work with it are not on disk yet, and the work's answers are of them, too.
func (w *writer) installed(index uint64) error {
	isSnapshot := func(wk work) bool { return !raft.IsEmptySnap(wk.m.GetSnapshot()) }
	held := w.held
	for i := len(held) - 1; i >= 0; i-- {
		if !isSnapshot(held[i]) {
			continue
		}
		if held[i].m.GetSnapshot().GetMetadata().GetIndex() != index {
			return nil // a newer one has come meanwhile
		}
		for _, wk := range held[:i] {
			w.n.intake.release(wk.bytes)
		}
		w.n.hard.commitTo(index)
		held = held[i:]
		held[0].m.Snapshot = nil
		break
	}
	w.held = nil
	w.n.installing.Store(false)
	return w.write(held)
}

// flush writes works as one batch.
func (w *writer) flush(works []work) error {
	clear(w.batch)
	clear(w.slots)
	w.batch, w.slots = w.batch[:0], w.slots[:0]
	for _, wk := range works {
		if err := w.n.hard.observe(wk.m); err != nil {
			return err
		}
		for _, s := range wk.slots {
			if err := w.add(s); err != nil {
				return err
			}
		}
	}
	if len(w.batch) > 0 {
		if w.n.cfg.Pause != nil {
			w.n.cfg.Pause()
		}
		began := time.Now()
		at, err := w.n.segments.Append(w.batch)
		if err != nil {
			return fmt.Errorf("append entries: %w", err)
		}
		written := time.Now()
		if err := w.n.segments.Sync(); err != nil {
			return fmt.Errorf("sync log: %w", err)
		}
		w.observe(written.Sub(began), time.Since(written))
		for i := range at {
			w.slots[i].at = at[i]
		}
		w.n.window.append(w.slots)
	}
	w.answers = w.answers[:0]
	for _, wk := range works {
		w.n.intake.release(wk.bytes)
		w.answers = append(w.answers, wk.m.GetResponses()...)
	}
	w.n.deliver(w.answers)
	clear(w.answers)
	return nil
}

// observe tells of a batch that is durable.
func (w *writer) observe(write, sync time.Duration) {
	if len(w.n.cfg.Hooks) == 0 {
		return
	}
	a := hook.Appended{Last: w.batch[len(w.batch)-1].Index, Entries: len(w.batch), Write: write, Sync: sync}
	for _, e := range w.batch {
		a.Bytes += len(e.Payload)
	}
	for _, o := range w.n.cfg.Hooks {
		o.AfterAppend(a)
	}
}

// noSpace tells whether the disk is full, which is no reason to stop.
func noSpace(err error) bool {
	return errors.Is(err, segment.ErrNoSpace) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// add puts an entry into the batch. An entry that overwrites one of the same
// batch (the leader changed in between) replaces it and all behind it.
func (w *writer) add(s slot) error {
	e := s.entry
	if len(w.batch) > 0 {
		if first := w.batch[0].Index; e.GetIndex() <= w.batch[len(w.batch)-1].Index {
			keep := e.GetIndex() - min(e.GetIndex(), first)
			w.batch, w.slots = w.batch[:keep], w.slots[:keep]
		}
	}
	out := segment.Entry{Index: e.GetIndex(), Term: e.GetTerm(), Type: uint8(e.GetType()), Data: e.GetData(), Payload: s.payload}
	if e.GetType() == pb.EntryNormal && len(e.GetData()) > 0 {
		h, err := decodeHandle(e.GetData())
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		if s.payload == nil {
			return fmt.Errorf("entry %d: its payload did not come with it", e.GetIndex())
		}
		out.Sum, out.Summed = h.crc, true
	}
	w.batch = append(w.batch, out)
	w.slots = append(w.slots, s)
	return nil
}
