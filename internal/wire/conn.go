package wire

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"
)

// MaxPacketPayload is the most that one packet carries. A payload of that
// length or more goes on in further packets, the last of which is shorter,
// perhaps empty (manual page "MySQL Packets").
const MaxPacketPayload = 1<<24 - 1

const (
	headerSize      = 4        // u24 length, u8 sequence number
	defaultReadBuf  = 16 << 10 // bytes
	defaultWriteBuf = 64 << 10 // bytes
	minBuf          = 512      // bytes
)

// Conn frames payloads over a net.Conn.
//
// One goroutine may read while another writes; neither half may be used by two
// goroutines at once. Close may be called from anywhere, at any time.
//
// Sequence numbers: in an exchange of question and answer both directions share
// one counter, so reading packet n makes n+1 due in the other direction too.
// Once reads and writes go their own ways (semi-synchronous acknowledgements),
// SplitSequence gives each half its own.
type Conn struct {
	raw net.Conn // the socket
	nc  net.Conn // what is read from and written to: the socket, or TLS over it

	r     reader
	w     writer
	split bool // set before a second goroutine joins

	closeOnce sync.Once
	closeErr  error
}

// NewConn frames over nc, which it then owns. Buffer sizes are in bytes; zero
// means 16 KiB for reading and 64 KiB for writing. Buffers are allocated at
// first use.
func NewConn(nc net.Conn, readBuffer, writeBuffer int) *Conn {
	c := &Conn{raw: nc, nc: nc}
	c.r.size = max(orDefault(readBuffer, defaultReadBuf), minBuf)
	c.w.size = max(orDefault(writeBuffer, defaultWriteBuf), minBuf)
	return c
}

func orDefault(n, def int) int {
	if n <= 0 {
		return def
	}
	return n
}

// NetConn is the socket below the framing (and below TLS).
func (c *Conn) NetConn() net.Conn { return c.raw }

// TLSState is the state of TLS, nil on a plain connection.
func (c *Conn) TLSState() *tls.ConnectionState {
	if t, ok := c.nc.(*tls.Conn); ok {
		s := t.ConnectionState()
		return &s
	}
	return nil
}

// secure reports whether a clear password may cross this connection: TLS, or a
// socket that does not leave the machine.
func (c *Conn) secure() bool {
	if _, ok := c.nc.(*tls.Conn); ok {
		return true
	}
	a := c.raw.LocalAddr()
	return a != nil && a.Network() == "unix"
}

// Close closes the socket at once: no TLS farewell (MySQL sends none either),
// and buffered writes are lost. Blocked reads and writes return. Idempotent.
func (c *Conn) Close() error {
	c.closeOnce.Do(func() { c.closeErr = c.raw.Close() })
	return c.closeErr
}

// CloseOn closes the connection as soon as ctx is done, which ends reads and
// writes under way. The caller must call stop when it is through; stop reports
// false if the connection has been closed by ctx.
func (c *Conn) CloseOn(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = c.Close() })
}

// SetDeadline bounds all reads and writes until it is set anew; the zero time
// lifts it. Timeouts of SetTimeouts, where set, replace it at their next use.
func (c *Conn) SetDeadline(t time.Time) error { return c.raw.SetDeadline(t) }

// SetTimeouts bounds every single wait for the socket; zero means no bound. A
// read that timed out on a packet boundary, or within a packet that fits the
// read buffer, or within a streamed payload, may be repeated. A write that
// timed out may not.
//
// Call it while neither half is in use.
func (c *Conn) SetTimeouts(read, write time.Duration) {
	c.r.timeout, c.w.timeout = read, write
	if read == 0 {
		_ = c.raw.SetReadDeadline(time.Time{})
	}
	if write == 0 {
		_ = c.raw.SetWriteDeadline(time.Time{})
	}
}

// ResetSequence begins a new exchange: the next packet in either direction has
// the number 0.
func (c *Conn) ResetSequence() { c.r.seq, c.w.seq = 0, 0 }

// SplitSequence gives reading and writing counters of their own, from their
// present values on. Call it before a second goroutine uses the connection.
func (c *Conn) SplitSequence() { c.split = true }

// SetReadSequence sets the number that the next packet read must carry.
func (c *Conn) SetReadSequence(n byte) { c.r.seq = n }

// SetWriteSequence sets the number that the next packet written will carry.
func (c *Conn) SetWriteSequence(n byte) { c.w.seq = n }

// startTLS changes over to TLS as client or server and completes its
// handshake. Bytes of the peer that were already read in clear are refused:
// they would be taken for something that came under TLS's protection.
func (c *Conn) startTLS(ctx context.Context, cfg *tls.Config, server bool) error {
	if c.Buffered() > 0 || c.r.open {
		return ErrPipelined
	}
	if len(c.w.buf) > 0 || c.w.open {
		return fmt.Errorf("wire: start TLS: %w", ErrPayloadLength)
	}
	var t *tls.Conn
	below := newBelowTLS(c.raw, c.r.size)
	if server {
		t = tls.Server(below, cfg)
	} else {
		t = tls.Client(below, cfg)
	}
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("wire: TLS handshake: %w", err)
	}
	c.nc = t
	return nil
}
