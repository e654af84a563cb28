package source

import (
	"slices"

	"kingbus/internal/stream"
)

// run collects the events of the next proposal: stream.RunHeader free bytes,
// then events. Where it may be cut is the stream's rule: at a boundary, or
// anywhere between events inside a transaction if there is no boundary before.
type run struct {
	b []byte
	// boundary is the length of b up to the last boundary in it, 0 if none.
	boundary int
}

// empty tells whether nothing was collected.
func (r *run) empty() bool { return len(r.b) <= stream.RunHeader }

// full tells whether the run has its size.
func (r *run) full() bool { return len(r.b)-stream.RunHeader >= stream.MaxRun }

// extend makes room for n bytes and returns it, to be filled. expect is how many
// are likely to follow in this run.
func (r *run) extend(n, expect int) []byte {
	if r.b == nil {
		r.b = make([]byte, stream.RunHeader, stream.RunHeader+n+max(expect, 0))
	}
	at := len(r.b)
	r.b = slices.Grow(r.b, n)[:at+n]
	return r.b[at:]
}

// mark notes that the run ends at a boundary now.
func (r *run) mark() { r.boundary = len(r.b) }

// take returns what can be proposed, nil if there is nothing, and keeps the
// rest: everything up to the last boundary, or, with inside, all of a run
// without one.
func (r *run) take(inside bool) []byte {
	switch {
	case r.empty() || r.boundary == 0 && !inside:
		return nil
	case r.boundary == 0 || r.boundary == len(r.b):
		b := r.b
		*r = run{}
		if cap(b)-len(b) > len(b)/2 {
			b = slices.Clone(b) // the log keeps it in memory for a while
		}
		return b
	}
	b, rest := r.b[:r.boundary:r.boundary], r.b[r.boundary:]
	*r = run{}
	copy(r.extend(len(rest), stream.MaxRun-len(rest)), rest)
	return slices.Clone(b)
}

// drop forgets what was collected.
func (r *run) drop() { *r = run{} }

// cutTo takes back what was collected beyond length n of b.
func (r *run) cutTo(n int) {
	if n < len(r.b) {
		r.b = r.b[:n]
	}
	r.boundary = min(r.boundary, n)
}
