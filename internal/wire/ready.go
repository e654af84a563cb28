package wire

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// belowTLS buffers the socket's bytes below a tls.Conn. TLS asks for one record
// at a time; with many small records this saves system calls, and it lets Ready
// see that more is waiting.
//
// Only Read is buffered, and only TLS reads, so no lock is needed.
type belowTLS struct {
	net.Conn
	buf      []byte
	pos, end int
	size     int
}

func newBelowTLS(nc net.Conn, size int) *belowTLS { return &belowTLS{Conn: nc, size: size} }

func (b *belowTLS) Read(p []byte) (int, error) {
	if b.pos == b.end {
		if len(p) >= b.size {
			return b.Conn.Read(p)
		}
		if b.buf == nil {
			b.buf = make([]byte, b.size)
		}
		n, err := b.Conn.Read(b.buf)
		b.pos, b.end = 0, n
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, b.buf[b.pos:b.end])
	b.pos += n
	return n, nil
}

// Ready reports, without blocking, whether a read would find something: bytes
// in the buffer, bytes below TLS, or bytes (or an end) at the socket. It costs a
// system call when the buffers are empty. False is certain only for plain
// connections; under TLS up to one record may hide.
func (c *Conn) Ready() bool {
	if c.Buffered() > 0 {
		return true
	}
	if t, ok := c.nc.(interface{ NetConn() net.Conn }); ok {
		if b, ok := t.NetConn().(*belowTLS); ok && b.pos < b.end {
			return true
		}
	}
	sc, ok := c.raw.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return true // closed: a read returns at once
	}
	ready := true
	_ = rc.Control(func(fd uintptr) {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds[:], 0)
		ready = err != nil || n > 0
	})
	return ready
}
