package cluster

import (
	"context"
	"sync"
)

// leadership tells when this node leads and has applied an entry of its own
// term: only then does it know everything that was committed before it.
type leadership struct {
	mu      sync.Mutex
	term    uint64 // the term that this node leads, 0 = it does not
	last    uint64 // term of the last applied entry
	lead    context.Context
	depose  context.CancelCauseFunc
	changed chan struct{}
}

func newLeadership() *leadership { return &leadership{changed: make(chan struct{})} }

// observe is told of each change of role in the turn.
func (l *leadership) observe(leader bool, term uint64) {
	l.set(leader, term, ErrDeposed)
}

// close ends the leader's context for good.
func (l *leadership) close() { l.set(false, 0, ErrClosed) }

func (l *leadership) set(leader bool, term uint64, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if leader && term == l.term {
		return
	}
	if l.depose != nil {
		l.depose(cause)
		l.lead, l.depose = nil, nil
	}
	l.term = 0
	if leader {
		l.term = term
	}
	l.update()
}

// applied is told the term of the last applied entry.
func (l *leadership) applied(term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if term == l.last {
		return
	}
	l.last = term
	l.update()
}

func (l *leadership) update() {
	if l.term != 0 && l.last == l.term && l.lead == nil {
		l.lead, l.depose = context.WithCancelCause(context.Background())
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// current returns the leader's context, or nil, and a channel for its change.
func (l *leadership) current() (context.Context, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lead, l.changed
}
