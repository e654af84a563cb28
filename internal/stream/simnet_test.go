package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// simNet is a network in memory, for a bubble of testing/synctest. Between any
// two nodes it can be cut in either direction, or slow; what is written into a
// cut is gone, and nobody is told.
type simNet struct {
	mu        sync.Mutex
	rng       *rand.Rand
	listeners map[string]*simListener // by address, which is the node's name
	cut       map[[2]string]bool
	slow      map[string]time.Duration // by node: what comes from it takes up to that long
	conns     map[*simConn]struct{}
}

func newSimNet(rng *rand.Rand) *simNet {
	return &simNet{
		rng: rng, listeners: map[string]*simListener{}, cut: map[[2]string]bool{},
		slow: map[string]time.Duration{}, conns: map[*simConn]struct{}{},
	}
}

func (w *simNet) isCut(from, to string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[[2]string{from, to}]
}

func (w *simNet) delay(from string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d := w.slow[from]; d > 0 {
		return time.Duration(w.rng.Int64N(int64(d)))
	}
	return 0
}

// set cuts one direction, or mends it. A connection that has lost bytes ends when
// it is mended.
func (w *simNet) set(from, to string, cut bool) {
	w.mu.Lock()
	was := w.cut[[2]string{from, to}]
	w.cut[[2]string{from, to}] = cut
	var broken []*simConn
	if was && !cut {
		for c := range w.conns {
			if c.from == from && c.to == to || c.from == to && c.to == from {
				broken = append(broken, c)
			}
		}
	}
	w.mu.Unlock()
	for _, c := range broken {
		_ = c.Close()
	}
}

// kill ends everything of a node at once.
func (w *simNet) kill(name string) {
	w.mu.Lock()
	delete(w.listeners, name) // nobody is let in any more; the node closes it
	var broken []*simConn
	for c := range w.conns {
		if c.from == name || c.to == name {
			broken = append(broken, c)
		}
	}
	w.mu.Unlock()
	for _, c := range broken {
		c.dead.Do(func() { close(c.killed) })
		_ = c.Conn.Close()
	}
}

func (w *simNet) listen(name string) *simListener {
	l := &simListener{w: w, name: name, conns: make(chan net.Conn), closed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listeners[name] = l
	return l
}

func (w *simNet) dialer(from string, alive func() bool) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, to string) (net.Conn, error) {
		w.mu.Lock()
		l := w.listeners[to]
		cut := w.cut[[2]string{from, to}] || w.cut[[2]string{to, from}]
		w.mu.Unlock()
		if l == nil || cut || !alive() {
			return nil, fmt.Errorf("no route from %s to %s", from, to)
		}
		a, b := net.Pipe()
		near, far := w.conn(a, from, to), w.conn(b, to, from)
		select {
		case l.conns <- far:
			return near, nil
		case <-l.closed:
		case <-ctx.Done():
		}
		_, _ = near.Close(), far.Close()
		return nil, errors.New("connection refused")
	}
}

func (w *simNet) conn(c net.Conn, from, to string) *simConn {
	sc := &simConn{Conn: c, w: w, from: from, to: to, killed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[sc] = struct{}{}
	return sc
}

type simConn struct {
	net.Conn
	w        *simNet
	from, to string
	dead     sync.Once
	killed   chan struct{}
}

func (c *simConn) Write(b []byte) (int, error) {
	if d := c.w.delay(c.from); d > 0 {
		select {
		case <-time.After(d):
		case <-c.killed:
		}
	}
	if c.w.isCut(c.from, c.to) {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *simConn) Close() error {
	c.w.mu.Lock()
	delete(c.w.conns, c)
	c.w.mu.Unlock()
	return c.Conn.Close()
}

type simListener struct {
	w      *simNet
	name   string
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *simListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *simListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *simListener) Addr() net.Addr { return simAddr(l.name) }

type simAddr string

func (a simAddr) Network() string { return "sim" }
func (a simAddr) String() string  { return string(a) }
