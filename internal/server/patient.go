package server

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// patientConn is a socket whose writes time out only when the peer takes
// nothing at all for a while: a replica that reads slowly may go on, one that
// hangs may not. It stands below TLS and framing, where a write that was broken
// off can be continued.
type patientConn struct {
	net.Conn
	patience time.Duration
	// See door.
	entrant *entrant // set before it is read from; nil: none
	// Of the goroutine that logs it in.
	checking bool     // its login is looked at
	opened   *session // what its last login has made

	mu    sync.Mutex
	hurry bool // the deadline stands, and moves no more
}

func newPatientConn(nc net.Conn, patience time.Duration) *patientConn {
	return &patientConn{Conn: nc, patience: patience}
}

// SyscallConn implements syscall.Conn, for wire.Conn.Ready.
func (c *patientConn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// Read implements net.Conn; the door is to know who has sent something.
func (c *patientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.entrant != nil && !c.entrant.spoke.Load() {
		c.entrant.spoke.Store(true)
	}
	return n, err
}

// Write implements net.Conn.
func (c *patientConn) Write(p []byte) (int, error) {
	total := 0
	for {
		c.extend()
		n, err := c.Conn.Write(p[total:])
		total += n
		if err == nil || n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) || c.hurried() {
			return total, err
		}
	}
}

func (c *patientConn) extend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hurry {
		_ = c.SetWriteDeadline(time.Now().Add(c.patience)) // fails on a closed socket, as the write will
	}
}

func (c *patientConn) hurried() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hurry
}

// finishWithin leaves this much time for all further writes together.
func (c *patientConn) finishWithin(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hurry {
		c.hurry = true
		_ = c.SetWriteDeadline(time.Now().Add(d))
	}
}

// SetDeadline implements net.Conn; writes keep their own deadline.
func (c *patientConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }
