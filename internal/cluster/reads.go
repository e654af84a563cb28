package cluster

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
)

// reads are those who wait for a read index.
type reads struct {
	mu      sync.Mutex
	waiters map[uint64]chan<- uint64
}

func (r *reads) done(rs raft.ReadState) {
	if len(rs.RequestCtx) != 8 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	id := binary.LittleEndian.Uint64(rs.RequestCtx)
	if done := r.waiters[id]; done != nil {
		delete(r.waiters, id)
		done <- rs.Index
	}
}

// CatchUp waits until this node has applied everything that was committed when it
// was called, anywhere in the cluster. It fails when ctx ends, which it does
// where no majority is to be had.
func (n *Node) CatchUp(ctx context.Context) error {
	index, err := n.readIndex(ctx)
	if err != nil {
		return err
	}
	for {
		changed := n.appliedChanged()
		if n.applied.Load() >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-n.stopped:
			return ErrClosed
		}
	}
}

// readIndex asks again as long as nobody answers: messages may be lost.
func (n *Node) readIndex(ctx context.Context) (uint64, error) {
	for {
		id := randomUint64()
		done := make(chan uint64, 1)
		n.reads.mu.Lock()
		n.reads.waiters[id] = done
		n.reads.mu.Unlock()
		n.call(func() { n.raw.ReadIndex(binary.LittleEndian.AppendUint64(nil, id)) })
		again := time.NewTimer(n.cfg.Election)
		var index uint64
		var err error
		select {
		case index = <-done:
		case <-again.C:
		case <-ctx.Done():
			err = ctx.Err()
		case <-n.stopped:
			err = ErrClosed
		}
		again.Stop()
		n.reads.mu.Lock()
		delete(n.reads.waiters, id)
		n.reads.mu.Unlock()
		if index != 0 || err != nil {
			return index, err
		}
	}
}

// setApplied notes up to where the log is applied.
func (n *Node) setApplied(index uint64) {
	n.appliedMu.Lock()
	defer n.appliedMu.Unlock()
	n.applied.Store(index)
	if n.appliedWake != nil {
		close(n.appliedWake)
		n.appliedWake = nil
	}
}

// appliedChanged returns a channel that is closed when more is applied.
func (n *Node) appliedChanged() <-chan struct{} {
	n.appliedMu.Lock()
	defer n.appliedMu.Unlock()
	if n.appliedWake == nil {
		n.appliedWake = make(chan struct{})
	}
	return n.appliedWake
}
