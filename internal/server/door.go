package server

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// door keeps one address from taking the room of all others before it has logged in, many
// addresses from taking it together, and all from guessing passwords quickly. An address of
// IPv6 counts with its whole /64.
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
	at      *list.Element // of the queue; nil: it is not in there
	evicted bool          // it has made room; settled once it has left
}

type visitor struct {
	waiting  int // connections that have not logged in yet
	failures int // logins that were refused, until forgiven
	checking int // of waiting: those whose login is looked at, or whose refusal has to wait
	last     time.Time
}

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
)

func newDoor(maxConnections int, now func() time.Time) *door {
	return &door{most: max(8, maxConnections/4), now: now, visitor: map[netip.Prefix]*visitor{}}
}

// doorKey is under what an address counts; what has none counts together.
func doorKey(a net.Addr) netip.Prefix {
	if a == nil {
		return netip.Prefix{}
	}
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{}
	}
	addr := at.Addr().Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	key, _ := addr.Prefix(bits) // of so many bits every address has one
	return key
}

// enter tells whether one more connection of an address may begin to log in; it leaves when
// it has, or is gone.
func (d *door) enter(key netip.Prefix, e *entrant) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.visitor[key]
	if v == nil {
		if len(d.visitor) >= maxVisitors {
			d.forgetLocked()
		}
		v = &visitor{}
		d.visitor[key] = v
	}
	if v.waiting >= d.most {
		return false
	}
	v.waiting++
	e.at = d.queue.PushBack(e)
	return true
}

// evict closes the connection that has had the most time to log in and has not, for one that
// comes from an address when there is no room; false if all have, or if the address has as many
// as it may have anyway. A login takes milliseconds, so who is in
// earnest has done it before the others of a crowd have come after him.
func (d *door) evict(key netip.Prefix) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	front := d.queue.Front()
	if v := d.visitor[key]; front == nil || v != nil && v.waiting >= d.most {
		return false
	}
	e := front.Value.(*entrant)
	d.dequeueLocked(e)
	e.evicted = true
	_ = e.nc.Close() // what its goroutine does with it fails then, and it leaves
	return true
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
	}
}

// admit tells whether a login may be looked at. An address with failures may have few at a
// time, as each that fails keeps its place until it may hear so: that bounds how fast many
// connections can guess.
func (d *door) admit(key netip.Prefix) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.visitor[key]
	if v.failures > freeFailures && d.now().Sub(v.last) <= forgiven && v.checking >= maxChecking {
		return false
	}
	v.checking++
	return true
}

// leave is the end of a login, whether it was admitted or not.
func (d *door) leave(key netip.Prefix, e *entrant, admitted bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dequeueLocked(e)
	v := d.visitor[key]
	if admitted {
		v.checking--
	}
	if v.waiting--; v.waiting == 0 && (v.failures == 0 || d.now().Sub(v.last) > forgiven) {
		delete(d.visitor, key)
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

// delay waits as long as the answer to the last failure of an address has to, and to one that
// comes so many later. The address has entered.
func (d *door) delay(ctx context.Context, key netip.Prefix, more int) {
	wait := d.hold(key, more)
	if wait == 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
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
		if v.waiting == 0 && now.Sub(v.last) > forgiven {
			delete(d.visitor, key)
		}
	}
	for key, v := range d.visitor {
		if len(d.visitor) < maxVisitors*3/4 {
			return
		}
		if v.waiting == 0 {
			delete(d.visitor, key)
		}
	}
}
