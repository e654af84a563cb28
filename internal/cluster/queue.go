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
	ready signal // set while there may be items
}

// signal wakes one goroutine; it may belong to several queues.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

func newQueue[T any](ready signal) *queue[T] { return &queue[T]{ready: ready} }

// push adds items and wakes who empties the queue.
func (q *queue[T]) push(items ...T) {
	q.put(items...)
	q.ready.set()
}

// put adds items and wakes nobody: the caller sees to it that the queue is emptied.
func (q *queue[T]) put(items ...T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = append(q.items, items...)
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
