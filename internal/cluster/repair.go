package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kingbus/internal/segment"
)

// repairer fetches again from the peers what this node can no longer read. The
// entry is committed and the others have it, so nothing is lost; who wanted it
// tries again.
type repairer struct {
	n    *Node
	mu   sync.Mutex
	todo []*segment.CorruptError
	wake chan struct{}
}

func newRepairer(n *Node) *repairer { return &repairer{n: n, wake: make(chan struct{}, 1)} }

// damaged has an entry repaired if err says that it is damaged; true: it will be,
// if a peer has it.
func (n *Node) damaged(err error) bool {
	var corrupt *segment.CorruptError
	if !errors.As(err, &corrupt) || corrupt.Index == 0 || corrupt.Index > n.applied.Load() || len(n.group().members) < 2 {
		return false
	}
	r := n.repairer
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.todo {
		if c.Index == corrupt.Index {
			return true
		}
	}
	r.todo = append(r.todo, corrupt)
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return true
}

// Damaged is how users of the cluster tell what they could not read; true: it is
// being fetched from a peer, so that it is worth trying again.
func (n *Node) Damaged(err error) bool { return n.damaged(err) }

func (r *repairer) run(ctx context.Context) error {
	for {
		r.mu.Lock()
		var next *segment.CorruptError
		if len(r.todo) > 0 {
			next = r.todo[0]
		}
		r.mu.Unlock()
		if next == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-r.wake:
				continue
			}
		}
		err := r.repair(ctx, next)
		switch {
		case err == nil:
			r.n.log.Warn("a damaged entry of the log was fetched from another node and written again; look at this disk", "entry", next.Index, "path", next.File, "offset", next.Offset)
		case errors.Is(err, segment.ErrDropped), errors.Is(err, segment.ErrRange): // it was purged, or is sound
			r.n.log.Info("a damaged entry of the log was not repaired", "entry", next.Index, "error", err)
			err = nil
		case errors.Is(err, segment.ErrPoisoned):
			return err
		default:
			r.n.log.Error("a damaged entry of the log cannot be repaired yet; trying again", "entry", next.Index, "path", next.File, "offset", next.Offset, "error", err)
		}
		if err != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(installRetry):
			}
			continue
		}
		r.mu.Lock()
		r.todo = r.todo[1:]
		r.mu.Unlock()
	}
}

func (r *repairer) repair(ctx context.Context, c *segment.CorruptError) error {
	n := r.n
	var failed error = errors.New("there is no peer to fetch it from")
	for _, m := range n.fetchOrder(n.group()) {
		e, err := n.fetchEntry(ctx, m, c.Index)
		if err != nil {
			failed = fmt.Errorf("fetch it from %s: %w", m.Name, err)
			continue
		}
		return n.segments.Repair(c.At, e)
	}
	return failed
}

// fetchEntry gets one committed entry from a peer.
func (n *Node) fetchEntry(ctx context.Context, m Member, index uint64) (segment.Entry, error) {
	c, _, err := n.ask(ctx, m, fetchRequest{Applied: index - 1, To: index, Exactly: true})
	if err != nil {
		return segment.Entry{}, err
	}
	defer c.Close()
	entries, err := readEntries(c, index)
	if err != nil {
		return segment.Entry{}, err
	}
	if len(entries) != 1 {
		return segment.Entry{}, fmt.Errorf("%d entries came for one", len(entries))
	}
	return entries[0], nil
}
