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
	// buffer makes a buffer of the usual size, with anything in it.
	buffer func() []byte
}

// empty tells whether nothing was collected.
func (r *run) empty() bool { return len(r.b) <= stream.RunHeader }

// full tells whether the run has its size.
func (r *run) full() bool { return len(r.b)-stream.RunHeader >= stream.MaxRun }

// extend makes room for n bytes and returns it, to be filled.
func (r *run) extend(n int) []byte {
	if r.b == nil {
		if r.b = r.buffer(); stream.RunHeader+n > cap(r.b) {
			r.b = make([]byte, stream.RunHeader+n)
		}
		r.b = r.b[:stream.RunHeader]
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
	case r.boundary == 0:
		return r.give(len(r.b))
	}
	return r.give(r.boundary)
}

// give returns the first n bytes, for good, and keeps the rest. The log keeps
// what it gets in memory for a while: the buffer itself if that is mostly used,
// else a copy, and then the buffer serves on.
func (r *run) give(n int) []byte {
	b, rest := r.b[:n], r.b[n:]
	if r.boundary = 0; n >= cap(r.b)*2/3 {
		r.b = nil
		if len(rest) > 0 {
			copy(r.extend(len(rest)), rest)
		}
		return b
	}
	b = slices.Clone(b)
	if cap(r.b) > 3*stream.MaxRun { // of a very large event
		rest = slices.Clone(rest)
		r.b = nil
		r.extend(0)
	}
	r.b = append(r.b[:stream.RunHeader], rest...)
	return b
}

// drop forgets what was collected.
func (r *run) drop() { *r = run{buffer: r.buffer} }

// cutTo takes back what was collected beyond length n of b.
func (r *run) cutTo(n int) {
	if n < len(r.b) {
		r.b = r.b[:n]
	}
	r.boundary = min(r.boundary, n)
}
