package cluster

import (
	"context"
	"sync"
)

// intake bounds the payloads that came from peers and are not on disk yet. Who
// reads a connection waits in it, and so the peer does: votes and heartbeats
// come over another one.
type intake struct {
	mu    sync.Mutex
	used  int
	limit int
	room  chan struct{} // closed when used shrinks; nil while nobody waits
}

// reserve takes room for n bytes, or waits for it. More than the limit passes
// alone.
func (q *intake) reserve(ctx context.Context, n int) error {
	for {
		q.mu.Lock()
		if n == 0 || q.used == 0 || q.used+n <= q.limit {
			q.used += n
			q.mu.Unlock()
			return nil
		}
		if q.room == nil {
			q.room = make(chan struct{})
		}
		room := q.room
		q.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// held returns how many bytes are reserved.
func (q *intake) held() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.used
}

func (q *intake) release(n int) {
	if n == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used -= n
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}
