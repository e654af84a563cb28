package stream

import (
	"sync"
	"sync/atomic"

	"kingbus/internal/cluster"
)

// tail keeps the newest applied entries in memory, so that any number of readers
// near the end cost no reading. It is guarded by Stream.mu; payloads are
// immutable and may be kept by whoever got them from get.
type tail struct {
	entries []tailEntry // consecutive indexes, oldest first
	bytes   int
	limit   int
	// spare gets the payloads that leave and that nobody got.
	spare *buffers
}

type tailEntry struct {
	cluster.Entry
	holders *atomic.Int32 // who else has the payload; nil: it is not one to be used again
}

// entryCost is what an entry costs beside its payload.
const entryCost = 80

func (t *tail) add(e cluster.Entry) {
	entry := tailEntry{Entry: e}
	if c := cap(e.Payload); c >= runBuffer && c <= 2*runBuffer {
		if entry.holders = e.Holders; entry.holders == nil {
			entry.holders = new(atomic.Int32)
		}
	}
	t.entries = append(t.entries, entry)
	t.bytes += len(e.Payload) + entryCost
	n := 0
	for t.bytes > t.limit && n < len(t.entries)-1 {
		old := t.entries[n]
		t.bytes -= len(old.Payload) + entryCost
		if old.holders != nil && old.holders.Load() == 0 && t.spare != nil {
			t.spare.put(old.Payload)
		}
		t.entries[n] = tailEntry{}
		n++
	}
	t.entries = t.entries[n:]
}

// clear forgets all.
func (t *tail) clear() { t.entries, t.bytes = nil, 0 }

// get returns the entry of that index, if it is in memory. It may be called with
// Stream.mu held for reading: add, which decides what is spare, holds it alone.
func (t *tail) get(index uint64) (cluster.Entry, bool) {
	if len(t.entries) == 0 {
		return cluster.Entry{}, false
	}
	first := t.entries[0].Index
	if index < first || index-first >= uint64(len(t.entries)) {
		return cluster.Entry{}, false
	}
	e := t.entries[index-first]
	if e.holders != nil {
		e.holders.Add(1) // for good
	}
	return e.Entry, true
}

// peek is get for who keeps nothing of the payload when Stream.mu is let go; nil: it is not in memory.
func (t *tail) peek(index uint64) []byte {
	if len(t.entries) == 0 || index < t.entries[0].Index || index-t.entries[0].Index >= uint64(len(t.entries)) {
		return nil
	}
	return t.entries[index-t.entries[0].Index].Payload
}

const (
	// runBuffer is the capacity of a run's buffer in bytes: the event with which
	// a run becomes full may stand out a little.
	runBuffer = RunHeader + MaxRun + 16<<10
	// maxSpare bounds the buffers that wait for use.
	maxSpare = 16
)

// buffers are run buffers to be used again: making one costs more than all else
// that is done with a large run, because the runtime clears it first.
type buffers struct {
	mu   sync.Mutex
	free [][]byte
}

func (b *buffers) put(p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.free) < maxSpare {
		b.free = append(b.free, p[:0])
	}
}

// get returns a buffer of runBuffer bytes with anything in them.
func (b *buffers) get() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.free); n > 0 {
		p := b.free[n-1]
		b.free = b.free[:n-1]
		return p[:runBuffer]
	}
	return make([]byte, runBuffer)
}

// sized returns n bytes with anything in them, in a run's buffer if that is not too
// large for them.
func (b *buffers) sized(n int) []byte {
	if n > runBuffer/2 && n <= runBuffer {
		return b.get()[:n]
	}
	return make([]byte, n)
}
