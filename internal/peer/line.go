package peer

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// line is a socket whose timeouts count silence: a peer that is slow may go on, one that hangs may not. It stands below TLS, which
// could not go on with a write that was broken off, and counts whole records only.
//
// Without timeouts it leaves the socket's deadlines alone, so that a handshake can have one of its own.
type line struct {
	net.Conn
	readTimeout  atomic.Int64 // nanoseconds
	writeTimeout atomic.Int64 // nanoseconds

	reads struct { // the reader's
		each  bool // every read has the whole time, else all those of one call together
		armed bool // the deadline of the call stands
		set   bool // the socket has a deadline of ours
	}
	writes struct { // the writer's; under TLS its lock guards it
		set bool // as above
	}
}

// begin starts a call of the reader.
func (l *line) begin(each bool) { l.reads.each, l.reads.armed = each, false }

// Read implements net.Conn.
func (l *line) Read(p []byte) (int, error) {
	r := &l.reads
	switch d := time.Duration(l.readTimeout.Load()); {
	case d > 0 && (r.each || !r.armed):
		r.armed, r.set = true, true
		_ = l.SetReadDeadline(time.Now().Add(d)) // fails on a closed socket, as the read will
	case d <= 0 && r.set:
		r.set = false
		_ = l.SetReadDeadline(time.Time{})
	}
	return l.Conn.Read(p)
}

// Write implements net.Conn.
func (l *line) Write(p []byte) (int, error) {
	total := 0
	for {
		l.extend()
		n, err := l.Conn.Write(p[total:])
		total += n
		if !l.goesOn(int64(n), err) {
			return total, err
		}
	}
}

// writev writes and consumes b, with one system call where the socket has one.
func (l *line) writev(b *net.Buffers) error {
	for {
		l.extend()
		n, err := b.WriteTo(l.Conn) // consumes what was written, also if it fails
		if !l.goesOn(n, err) {
			return err
		}
	}
}

func (l *line) extend() {
	switch d := time.Duration(l.writeTimeout.Load()); {
	case d > 0:
		l.writes.set = true
		_ = l.SetWriteDeadline(time.Now().Add(d)) // fails on a closed socket, as the write will
	case l.writes.set:
		l.writes.set = false
		_ = l.SetWriteDeadline(time.Time{})
	}
}

// goesOn reports whether a write that returned n and err ran out of time although the peer took something.
func (l *line) goesOn(n int64, err error) bool {
	return n > 0 && err != nil && l.writes.set && errors.Is(err, os.ErrDeadlineExceeded)
}
