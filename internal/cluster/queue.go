package cluster

import "sync"

// queue hands values from one goroutine to another without ever blocking the
// sender: the Raft loop and its append and apply goroutines send to each other
// in both directions, and a bounded channel between them could deadlock. What
// bounds it is the quota of bytes in flight (staging).
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	spare []T
	ready chan struct{} // holds a token while there may be items
}

func newQueue[T any]() *queue[T] {
	return &queue[T]{ready: make(chan struct{}, 1)}
}

func (q *queue[T]) push(items ...T) {
	q.mu.Lock()
	q.items = append(q.items, items...)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

func (q *queue[T]) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// drain returns all items. The slice is the caller's until its next drain.
func (q *queue[T]) drain() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	clear(q.spare) // what the last drain returned
	q.items, q.spare = q.spare[:0], items
	return items
}
