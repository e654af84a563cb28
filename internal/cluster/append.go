package cluster

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/segment"
)

// commitEvery is how often, at the most, the commit index is persisted. It is
// lazy because Raft does not need it; a restarted node serves up to it at once,
// and recovery tells damage from a torn write by it.
const commitEvery = time.Second

// fullRetry is how often a full disk is tried again.
const fullRetry = time.Second

// writer is the append goroutine's state: it makes entries, term and vote
// durable, in the order in which the loop asks, and answers only after that.
type writer struct {
	n     *Node
	batch []segment.Entry
	slots []slot
}

// run writes whatever has come in since the last fsync as one batch: many small
// proposals share one fsync, and batches never overlap one.
func (w *writer) run(ctx context.Context) error {
	lazy := time.NewTicker(commitEvery)
	defer lazy.Stop()
	for {
		select {
		case <-ctx.Done():
			// The commit index is saved so that the next start serves at once.
			return w.n.hard.saveCommit()
		case <-lazy.C:
			if err := w.n.hard.saveCommit(); err != nil {
				return err
			}
		case <-w.n.appends.ready:
			err := w.write(ctx, w.n.appends.drain())
			if err != nil && errors.Is(err, ctx.Err()) {
				return nil // stopped while the disk was full
			}
			if err != nil {
				return err
			}
		}
	}
}

func (w *writer) write(ctx context.Context, msgs []*pb.Message) error {
	clear(w.batch)
	clear(w.slots)
	w.batch, w.slots = w.batch[:0], w.slots[:0]
	responses := 0
	for _, m := range msgs {
		responses += len(m.GetResponses())
		if err := w.n.hard.observe(m); err != nil {
			return err
		}
		for _, e := range m.GetEntries() {
			if err := w.add(e); err != nil {
				return err
			}
		}
	}
	if len(w.batch) > 0 {
		at, err := w.append(ctx)
		if err != nil {
			return fmt.Errorf("append entries: %w", err)
		}
		if err := w.n.segments.Sync(); err != nil {
			return fmt.Errorf("sync log: %w", err)
		}
		for i := range at {
			w.slots[i].at = at[i]
		}
		w.n.window.append(w.slots)
	}
	for _, m := range msgs {
		w.n.deliver(m.GetResponses())
	}
	return nil
}

// append appends the batch. While the disk is full it waits for room: what is not
// written is not acknowledged, and nothing is lost by waiting. Events stop at the
// reserve long before, so this takes somebody else who fills the disk.
func (w *writer) append(ctx context.Context) ([]segment.Location, error) {
	for {
		at, err := w.n.segments.Append(w.batch)
		if !noSpace(err) {
			return at, err
		}
		w.n.log.Error("the disk is full, nothing is acknowledged: free space, kingbus goes on by itself", "dir", w.n.dir, "error", err)
		select {
		case <-time.After(fullRetry):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// noSpace tells whether the disk is full, which is no reason to stop.
func noSpace(err error) bool {
	return errors.Is(err, segment.ErrNoSpace) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// add puts an entry into the batch. An entry that overwrites one of the same
// batch (the leader changed in between) replaces it and all behind it.
func (w *writer) add(e *pb.Entry) error {
	if len(w.batch) > 0 {
		if first := w.batch[0].Index; e.GetIndex() <= w.batch[len(w.batch)-1].Index {
			keep := e.GetIndex() - min(e.GetIndex(), first)
			w.batch, w.slots = w.batch[:keep], w.slots[:keep]
		}
	}
	var payload []byte
	var h handle
	if e.GetType() == pb.EntryNormal && len(e.GetData()) > 0 {
		var err error
		if h, err = decodeHandle(e.GetData()); err != nil {
			return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		if payload = w.n.staging.take(h.number); payload == nil {
			return fmt.Errorf("entry %d: its payload is not staged", e.GetIndex())
		}
	}
	w.batch = append(w.batch, segment.Entry{
		Index: e.GetIndex(), Term: e.GetTerm(), Type: uint8(e.GetType()), Data: e.GetData(), Payload: payload,
		Sum: h.crc, Summed: payload != nil,
	})
	w.slots = append(w.slots, slot{entry: e, payload: payload})
	return nil
}
