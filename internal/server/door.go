package server

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// door keeps one address from taking the room of all others before it has logged in, and
// from guessing passwords quickly. An address of IPv6 counts with its whole /64.
type door struct {
	most int // connections of an address that have not logged in yet
	now  func() time.Time

	mu      sync.Mutex
	visitor map[netip.Prefix]*visitor
}

type visitor struct {
	waiting  int // connections that have not logged in yet
	failures int // logins that were refused, until forgiven
	delayed  int // of waiting: those whose refusal has to wait
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
	// maxDelayed refusals of an address wait at a time; meanwhile it is told nothing more.
	maxDelayed = 8
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
func (d *door) enter(key netip.Prefix) bool {
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
	if v.waiting >= d.most || v.delayed >= maxDelayed {
		return false
	}
	v.waiting++
	return true
}

func (d *door) leave(key netip.Prefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.visitor[key]
	if v.waiting--; v.waiting == 0 && (v.failures == 0 || d.now().Sub(v.last) > forgiven) {
		delete(d.visitor, key)
	}
}

// refused notes a login that was refused, and waits until the client may hear of it, or ctx
// ends. The address has entered.
func (d *door) refused(ctx context.Context, key netip.Prefix) {
	wait := d.note(key)
	if wait == 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.visitor[key].delayed--
}

// note counts a failure; what waits for it is counted, too.
func (d *door) note(key netip.Prefix) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.visitor[key]
	now := d.now()
	if now.Sub(v.last) > forgiven {
		v.failures = 0
	}
	v.failures++
	v.last = now
	wait := delay(v.failures)
	if wait > 0 {
		v.delayed++
	}
	return wait
}

// pardoned takes a failure back that was none.
func (d *door) pardoned(key netip.Prefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.visitor[key]
	v.failures = max(0, v.failures-1)
}

// delay is that of the answer to the nth failure.
func delay(n int) time.Duration {
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
