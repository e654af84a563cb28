package admin

import (
	"net"
	"net/netip"
	"sync"

	"kingbus/internal/wire"
)

const (
	// maxConnections bounds how many clients are connected that are not on this machine.
	maxConnections = 256
	// maxOfAddress bounds those of one address, and likewise those that are on this machine:
	// whoever fills up the rest does not lock the operator out.
	maxOfAddress = 64
)

// bounded is a listener with room for so many connections; those beyond are closed at once. What
// counts as one address is wire.Origin's.
type bounded struct {
	net.Listener
	most, ofAddress int // see maxConnections, maxOfAddress
	refused         func(from string)

	mu   sync.Mutex
	all  int
	from map[netip.Prefix]int
}

func newBounded(l net.Listener, refused func(from string)) *bounded {
	return &bounded{Listener: l, most: maxConnections, ofAddress: maxOfAddress, refused: refused, from: map[netip.Prefix]int{}}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		key, local := wire.Origin(c.RemoteAddr())
		if local { // all of them are one
			key = netip.PrefixFrom(netip.IPv6Loopback(), 128)
		}
		if !b.enter(key, local) {
			_ = c.Close()
			b.refused(c.RemoteAddr().String())
			continue
		}
		return &leaving{Conn: c, left: sync.OnceFunc(func() { b.leave(key, local) })}, nil
	}
}

func (b *bounded) enter(key netip.Prefix, local bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.from[key] >= b.ofAddress || !local && b.all >= b.most {
		return false
	}
	b.from[key]++
	if !local {
		b.all++
	}
	return true
}

func (b *bounded) leave(key netip.Prefix, local bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.from[key]--; b.from[key] == 0 {
		delete(b.from, key)
	}
	if !local {
		b.all--
	}
}

// leaving makes room when it is closed.
type leaving struct {
	net.Conn
	left func()
}

// Close implements net.Conn.
func (l *leaving) Close() error {
	defer l.left()
	return l.Conn.Close()
}
