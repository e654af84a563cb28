package meter

// fifo is a queue, oldest first, in one piece of memory that it uses again.
type fifo[T any] struct {
	items []T
	head  int // of those that are there still
}

// fifoKept is how many items' room an empty fifo keeps.
const fifoKept = 1024

func (q *fifo[T]) len() int { return len(q.items) - q.head }

// all is valid until the next push or drop.
func (q *fifo[T]) all() []T { return q.items[q.head:] }

func (q *fifo[T]) push(v T) { q.items = append(q.items, v) }

// drop takes the n oldest out. What stays is moved only when it is less than what went.
func (q *fifo[T]) drop(n int) {
	if q.head += n; 2*q.head < len(q.items) {
		return
	}
	left := copy(q.items, q.items[q.head:])
	clear(q.items[left:])
	q.items, q.head = q.items[:left], 0
	if left == 0 && cap(q.items) > fifoKept {
		q.items = nil
	}
}
