package stream

import (
	"kingbus/internal/cluster"
)

// tail keeps the newest applied entries in memory, so that any number of readers
// near the end cost no reading. It is guarded by Stream.mu; payloads are
// immutable and may be kept by whoever got them.
type tail struct {
	entries []cluster.Entry // consecutive indexes, oldest first
	bytes   int
	limit   int
}

// entryCost is what an entry costs beside its payload.
const entryCost = 64

func (t *tail) add(e cluster.Entry) {
	t.entries = append(t.entries, e)
	t.bytes += len(e.Payload) + entryCost
	n := 0
	for t.bytes > t.limit && n < len(t.entries)-1 {
		t.bytes -= len(t.entries[n].Payload) + entryCost
		t.entries[n] = cluster.Entry{}
		n++
	}
	t.entries = t.entries[n:]
}

// get returns the entry of that index, if it is in memory.
func (t *tail) get(index uint64) (cluster.Entry, bool) {
	if len(t.entries) == 0 {
		return cluster.Entry{}, false
	}
	first := t.entries[0].Index
	if index < first || index-first >= uint64(len(t.entries)) {
		return cluster.Entry{}, false
	}
	return t.entries[index-first], true
}
