package server

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kingbus/internal/wire"
)

// door keeps one address from taking the room of all others before it has logged in, many
// addresses from taking it together, and all from guessing passwords quickly. What counts as one
// is wire.Origin's.
type door struct {
	most int // connections of an address that have not logged in yet
	now  func() time.Time

	mu      sync.Mutex
	visitor map[netip.Prefix]*visitor
	queue   list.List // of *entrant, those that have not logged in yet, the oldest first
}

// entrant is a connection from accept on.
type entrant struct {
	nc      net.Conn
	key     netip.Prefix
	since   time.Time
	spoke   atomic.Bool   // it has sent something
	changes bool          // it has logged in once; what it begins is a change of user
	at      *list.Element // of the queue; nil: it is not in there
	evicted bool          // it has made room; settled once it has left
	gone    chan struct{} // closed when it is evicted
}

func newEntrant(nc net.Conn, key netip.Prefix, now time.Time) *entrant {
	return &entrant{nc: nc, key: key, since: now, gone: make(chan struct{})}
}

// visitor is an address.
type visitor struct {
	waiting  int // connections that have not logged in yet
	changing int // those that have, and do so once more: each has a place in the house already
	queued   int // of waiting: those in the queue
	failures int // logins that were refused, until forgiven
	checking int // of waiting and changing: those whose login is looked at, or whose refusal has to wait
	last     time.Time
	// owed are the ends of the waits that were cut short, as their connection was evicted: it does
	// not wait, as it counts no more, but its place among those of checking is taken that long.
	owed []time.Time
}

// here tells whether any connection of it has entered and not left.
func (v *visitor) here() bool { return v.waiting+v.changing > 0 }

const (
	// freeFailures are answered at once: somebody mistypes, or a password was changed.
	freeFailures = 3
	firstDelay   = 250 * time.Millisecond
	// maxDelay is less than the time that a login may take.
	maxDelay = 5 * time.Second
	// forgiven is after what time without another one failures count no more.
	forgiven = 10 * time.Minute
	// maxVisitors bounds the addresses that are remembered for their failures.
	maxVisitors = 16 << 10
	// maxChecking logins of an address with failures are looked at at a time.
	maxChecking = 8
	// silentGrace is how long a connection that has sent nothing yet is left alone by those
	// whose address has as many, and loginGrace one that has: a login over TLS and a slow link.
	silentGrace = time.Second
	loginGrace  = 3 * time.Second
)

func newDoor(maxConnections int, now func() time.Time) *door {
	return &door{most: max(8, maxConnections/4), now: now, visitor: map[netip.Prefix]*visitor{}}
}

var (
	errCrowded        = wire.Errorf(wire.ErConCount, "Too many connections")
	errAddressCrowded = wire.Errorf(wire.ErConCount, "Too many connections from this address that have not logged in")
)

// enter lets one more connection begin to log in, which leaves when it has, or is gone; or it
// is refused. If the house is full, it takes the place of another one, which is evicted.
func (d *door) enter(e *entrant, full bool) (evicted bool, refusal *wire.Error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.visitor[e.key]
	if v != nil && v.waiting >= d.most {
		return false, errAddressCrowded
	}
	if full {
		victim := d.victimLocked(e.key)
		if victim == nil {
			return false, errCrowded
		}
		d.dequeueLocked(victim)
		victim.evicted = true
		close(victim.gone)
		_ = victim.nc.Close() // what its goroutine does with it fails then, and it leaves
	}
	v = d.visitorLocked(e.key)
	v.waiting++
	v.queued++
	e.at = d.queue.PushBack(e)
	return full, nil
}

// again has one that has logged in begin to do so once more. It keeps its place in the house
// meanwhile, nobody puts it out, and those of its address that have not logged in do not count
// against it; it leaves as at first.
func (d *door) again(e *entrant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e.changes = true
	d.visitorLocked(e.key).changing++
}

func (d *door) visitorLocked(key netip.Prefix) *visitor {
	v := d.visitor[key]
	if v == nil {
		if len(d.visitor) >= maxVisitors {
			d.forgetLocked()
		}
		v = &visitor{}
		d.visitor[key] = v
	}
	return v
}

// victimLocked finds the connection that makes room for one of an address; nil: none does. It is
// one of the address that has most of them, the new one counted: of those that have sent nothing
// if there are, the oldest. So a crowd takes the places of its own addresses, and who comes from
// elsewhere logs in undisturbed. Where all have as few, as when each of a crowd has an
// address of its own, time is left for a login.
func (d *door) victimLocked(newcomer netip.Prefix) *entrant {
	own := 1
	if v := d.visitor[newcomer]; v != nil {
		own += v.queued
	}
	var victim *entrant
	var most int
	var silent bool
	now := d.now()
	for at := d.queue.Front(); at != nil; at = at.Next() {
		e := at.Value.(*entrant)
		has, grace, quiet := d.visitor[e.key].queued, loginGrace, !e.spoke.Load()
		if quiet {
			grace = silentGrace
		}
		if e.key == newcomer {
			has = own
		}
		if has < own || has == own && now.Sub(e.since) < grace {
			continue
		}
		if victim == nil || has > most || has == most && quiet && !silent {
			victim, most, silent = e, has, quiet
		}
	}
	return victim
}

// loggedIn keeps a connection from being evicted; it leaves soon. It comes before the client
// hears that it has logged in, so nobody who has is put out.
func (d *door) loggedIn(e *entrant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dequeueLocked(e)
}

func (d *door) dequeueLocked(e *entrant) {
	if e.at != nil {
		d.queue.Remove(e.at)
		e.at = nil
		d.visitor[e.key].queued--
	}
}

// admit tells whether a login may be looked at. An address with failures may have few at a
// time, as each that fails keeps its place until it may hear so: that bounds how fast many
// connections can guess.
func (d *door) admit(key netip.Prefix) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.visitor[key]
	now := d.now()
	v.owed = slices.DeleteFunc(v.owed, func(until time.Time) bool { return !now.Before(until) })
	if v.failures > freeFailures && now.Sub(v.last) <= forgiven && v.checking+len(v.owed) >= maxChecking {
		return false
	}
	v.checking++
	return true
}

// leave is the end of a login, whether it was admitted or not.
func (d *door) leave(e *entrant, admitted bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dequeueLocked(e)
	v := d.visitor[e.key]
	if admitted {
		v.checking--
	}
	if e.changes {
		v.changing--
	} else {
		v.waiting--
	}
	if !v.here() && (v.failures == 0 || d.now().Sub(v.last) > forgiven) {
		delete(d.visitor, e.key)
	}
}

// failed notes a login that failed. The address has entered.
func (d *door) failed(key netip.Prefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.visitor[key]
	now := d.now()
	if now.Sub(v.last) > forgiven {
		v.failures = 0
	}
	v.failures++
	v.last = now
}

// delay waits as long as the answer to the last failure of its address has to, and to one that
// comes so many later; who is evicted waits no more. It has entered.
func (d *door) delay(ctx context.Context, e *entrant, more int) {
	wait := d.hold(e.key, more)
	if wait == 0 {
		return
	}
	until := d.now().Add(wait)
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-e.gone:
		d.owe(e.key, until)
	case <-ctx.Done():
	}
}

// owe notes a wait that was cut short. While an address owes, few of its logins are looked at, so that
// it owes for few more than it may have connections.
func (d *door) owe(key netip.Prefix, until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.visitor[key]
	v.owed = append(v.owed, until)
}

func (d *door) hold(key netip.Prefix, more int) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.visitor[key]
	if v.failures == 0 || d.now().Sub(v.last) > forgiven {
		return 0
	}
	return delayOf(v.failures + more)
}

// delayOf is that of the answer to the nth failure.
func delayOf(n int) time.Duration {
	if n <= freeFailures {
		return 0
	}
	return min(firstDelay<<min(n-freeFailures-1, 10), maxDelay)
}

// forgetLocked makes room: those who are not here now are forgotten, first whose failures
// count no more.
func (d *door) forgetLocked() {
	now := d.now()
	for key, v := range d.visitor {
		if !v.here() && now.Sub(v.last) > forgiven {
			delete(d.visitor, key)
		}
	}
	for key, v := range d.visitor {
		if len(d.visitor) < maxVisitors*3/4 {
			return
		}
		if !v.here() {
			delete(d.visitor, key)
		}
	}
}
