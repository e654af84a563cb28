package semisync

import (
	"slices"

	"kingbus/internal/hook"
)

// acks decides what may be acknowledged to the source: which events asked, what has
// to be durable before each answer, and how far that is. It is pure.
//
// Requests are answered in order, and a newer answer stands for older ones, so of
// those that wait for the same boundary the newest is enough.
type acks struct {
	// files are those of this connection, in the order in which the source named them,
	// from the durable one on.
	files   []string
	durable hook.Position // in files[0]
	waiting []request     // oldest first
}

// request is an event that asked to be acknowledged.
type request struct {
	at   hook.Position // what the acknowledgement says
	file int           // index of need's file in files
	need uint64        // position in that file that has to be durable
}

// newAcks begins with what is durable already.
func newAcks(durable hook.Position) *acks {
	return &acks{files: []string{durable.File}, durable: durable}
}

// entered notes that the source is in a file now, and returns its index. It has to
// be told of each file, whether or not something in it asks.
func (a *acks) entered(file string) int {
	if n := len(a.files); n > 0 && a.files[n-1] == file {
		return n - 1
	}
	a.files = append(a.files, file)
	return len(a.files) - 1
}

// asked notes that the event that ends at a place asked, and that it is complete
// with the boundary.
func (a *acks) asked(at, boundary hook.Position) {
	r := request{at: at, file: a.entered(boundary.File), need: boundary.Pos}
	if n := len(a.waiting); n > 0 && a.waiting[n-1].file == r.file && a.waiting[n-1].need == r.need {
		a.waiting[n-1].at = at
		return
	}
	a.waiting = append(a.waiting, r)
}

// reached notes what is durable. It never lies before what was; so a file that is
// not known is behind all those that are.
func (a *acks) reached(durable hook.Position) {
	i := slices.Index(a.files, durable.File)
	if i < 0 {
		i = a.entered(durable.File)
	}
	a.durable = durable
	a.files = slices.Delete(a.files, 0, i)
	for n := range a.waiting {
		a.waiting[n].file -= i
	}
}

// due takes what can be acknowledged now: the newest of them; false: nothing.
func (a *acks) due() (hook.Position, bool) {
	n := 0
	for n < len(a.waiting) && a.holds(a.waiting[n]) {
		n++
	}
	if n == 0 {
		return hook.Position{}, false
	}
	at := a.waiting[n-1].at
	a.waiting = slices.Delete(a.waiting, 0, n)
	return at, true
}

// holds tells whether what a request needs is durable.
func (a *acks) holds(r request) bool {
	return r.file < 0 || r.file == 0 && r.need <= a.durable.Pos
}
