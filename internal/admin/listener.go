package admin

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"time"

	"kingbus/internal/wire"
)

const (
	// maxConnections bounds how many clients are connected that are not on this machine.
	maxConnections = 256
	// maxOfAddress bounds those of one address, and likewise those that are on this machine:
	// whoever fills up the rest does not lock the operator out.
	maxOfAddress = 64
	// guestGrace is how long a connection whose client has not shown that it may is left alone by
	// those from elsewhere whose address has as many: TLS and a slow link, and longer than guessDelay.
	guestGrace = 3 * time.Second
)

// bounded is a listener with room for so many connections. One that is too many takes the place
// of one whose client has not shown yet that it may ask for anything, or is closed at once. What
// counts as one address is wire.Origin's.
type bounded struct {
	net.Listener
	most, ofAddress int // see maxConnections, maxOfAddress
	refused         func(from string)
	now             func() time.Time

	mu    sync.Mutex
	all   int
	from  map[netip.Prefix]int
	queue list.List // of *guest, those who have not shown that they may, the oldest first
}

func newBounded(l net.Listener, refused func(from string), now func() time.Time) *bounded {
	return &bounded{Listener: l, most: maxConnections, ofAddress: maxOfAddress, refused: refused, now: now, from: map[netip.Prefix]int{}}
}

// guest is a connection of a bounded listener; it makes room when it is closed.
type guest struct {
	net.Conn
	b     *bounded
	key   netip.Prefix
	local bool
	since time.Time
	in    bool          // it counts
	waits bool          // it has shown a wrong token, and does not know yet
	at    *list.Element // of the queue; nil: it is not in there
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g := &guest{Conn: c, b: b, since: b.now()}
		g.key, g.local = wire.Origin(c.RemoteAddr())
		if g.local { // all of them are one
			g.key = netip.PrefixFrom(netip.IPv6Loopback(), 128)
		}
		out := b.enter(g)
		if out != nil {
			_ = out.Conn.Close() // what the server does with it fails then, and it closes it, too
			b.refused(out.RemoteAddr().String())
		}
		if out != g {
			return g, nil
		}
	}
}

// enter lets one in, and returns the one that has to go for it: itself if nobody else has to.
func (b *bounded) enter(g *guest) (out *guest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	crowded := b.from[g.key] >= b.ofAddress
	if crowded || !g.local && b.all >= b.most {
		if out = b.victimLocked(g, crowded); out == nil {
			return g
		}
		b.leaveLocked(out)
	}
	g.in = true
	g.at = b.queue.PushBack(g)
	b.from[g.key]++
	if !g.local {
		b.all++
	}
	return out
}

// victimLocked finds who makes room, of those who have not shown that they may: the oldest of the
// address that has most of them, the new one counted; nobody of one that has fewer than the newcomer's,
// and with time where it has as many. If it is the newcomer's own address that has too many, its oldest
// goes at once: given time, a crowd that renews itself kept everybody else of that address out. But who
// waits for the answer to a wrong token keeps its place there, or one address could guess quickly. nil: nobody.
func (b *bounded) victimLocked(newcomer *guest, own bool) *guest {
	if own {
		for at := b.queue.Front(); at != nil; at = at.Next() {
			if g := at.Value.(*guest); g.key == newcomer.key && !g.waits {
				return g
			}
		}
		return nil
	}
	has := map[netip.Prefix]int{newcomer.key: 1}
	for at := b.queue.Front(); at != nil; at = at.Next() {
		has[at.Value.(*guest).key]++
	}
	var victim *guest
	mine, now := has[newcomer.key], b.now()
	for at := b.queue.Front(); at != nil; at = at.Next() {
		g := at.Value.(*guest)
		if g.local || has[g.key] < mine || has[g.key] == mine && now.Sub(g.since) < guestGrace {
			continue
		}
		if victim == nil || has[g.key] > has[victim.key] {
			victim = g
		}
	}
	return victim
}

func (b *bounded) leaveLocked(g *guest) {
	if !g.in {
		return
	}
	g.in = false
	b.dequeueLocked(g)
	if b.from[g.key]--; b.from[g.key] == 0 {
		delete(b.from, g.key)
	}
	if !g.local {
		b.all--
	}
}

func (b *bounded) dequeueLocked(g *guest) {
	if g.at != nil {
		b.queue.Remove(g.at)
		g.at = nil
	}
}

// authorized keeps its place for it as long as it is connected: who is not authorized any more
// keeps no connection.
func (g *guest) authorized() {
	g.b.mu.Lock()
	defer g.b.mu.Unlock()
	g.b.dequeueLocked(g)
}

// wait says whether it waits for the answer to a wrong token; false: it has been put out, and there
// will be none.
func (g *guest) wait(waits bool) bool {
	g.b.mu.Lock()
	defer g.b.mu.Unlock()
	g.waits = waits
	return g.in
}

// Close implements net.Conn.
func (g *guest) Close() error {
	defer func() {
		g.b.mu.Lock()
		defer g.b.mu.Unlock()
		g.b.leaveLocked(g)
	}()
	return g.Conn.Close()
}

type guestKey struct{}

// withGuest is the ConnContext of the server.
func withGuest(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	return context.WithValue(ctx, guestKey{}, c)
}

// guestOf returns the connection of a request; nil in tests without one.
func guestOf(ctx context.Context) *guest {
	g, _ := ctx.Value(guestKey{}).(*guest)
	return g
}
