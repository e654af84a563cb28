package admin

import (
	"net"
	"net/netip"
	"sync"
)

const (
	// maxConnections bounds how many clients are connected that are not on this machine.
	maxConnections = 256
	// maxOfAddress bounds those of one address, and likewise those that are on this machine:
	// whoever fills up the rest does not lock the operator out.
	maxOfAddress = 64
)

// bounded is a listener with room for so many connections; those beyond are closed at once. An
// address of IPv6 counts with its whole /64.
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
		key, local := origin(c.RemoteAddr())
		if !b.enter(key, local) {
			_ = c.Close()
			b.refused(c.RemoteAddr().String())
			continue
		}
		return &leaving{Conn: c, left: sync.OnceFunc(func() { b.leave(key, local) })}, nil
	}
}

// origin is under what an address counts, and whether it is one of this machine. What has none
// counts together.
func origin(a net.Addr) (key netip.Prefix, local bool) {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return key, false
	}
	addr := at.Addr().Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	if addr.IsLoopback() { // all of them are one
		addr, bits = netip.IPv6Loopback(), 128
	}
	key, _ = addr.Prefix(bits) // of so many bits every address has one
	return key, addr.IsLoopback()
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
