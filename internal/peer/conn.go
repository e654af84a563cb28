package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync"
	"time"
)

const (
	frameHeader = 8
	readBuffer  = 64 << 10
	tlsRecord   = 16 << 10 // the most that a TLS record carries
	minBody     = 4 << 10  // the least room that is made for a body
	keepBody    = 1 << 20  // more than this is not kept for the next one
)

var le = binary.LittleEndian

// castagnoli is made once by the standard library; MakeTable returns the same table each time. It is never written.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A frame, little-endian:
//
//	off size field
//	  0    4 length of the body
//	  4    4 crc32c of the body
//	  8      body
//	         payload bytes, without a length or checksum of their own: the body tells them
//
// putFrameHeader writes the first 8 bytes to b.
func putFrameHeader(b, body []byte) {
	le.PutUint32(b, uint32(len(body)))
	le.PutUint32(b[4:], crc32.Checksum(body, castagnoli))
}

// Conn exchanges frames with a peer after both have said Hello.
//
// One goroutine may read while another writes; neither half may be used by two goroutines at once. SetReadTimeout, SetWriteTimeout
// and Close may be called from anywhere, at any time. Errors are final for their half, but for ErrTooLarge of WriteFrame: the place in
// the stream is lost.
type Conn struct {
	line     *line
	maxFrame int
	close    func() error

	in      *bufio.Reader // of line, or of TLS over it
	body    []byte        // of the frame that was read last
	readErr error

	out      *bufio.Writer // TLS only: to fill its records
	head     [frameHeader]byte
	vec      net.Buffers // backing of what is written in one go
	rest     net.Buffers // the part of vec that is still to be written; a field, so that it need not be allocated each time
	writeErr error
}

// newConn owns nc from now on. cfg has its defaults.
func newConn(cfg Config, nc net.Conn) *Conn {
	tune(nc)
	l := &line{Conn: nc}
	return &Conn{line: l, maxFrame: cfg.MaxFrame, in: bufio.NewReaderSize(l, readBuffer), close: sync.OnceValue(nc.Close)}
}

// overTLS puts t, which runs over the line, between line and frames. Nothing may have been read in clear: it would be taken for
// something that came under TLS's protection.
func (c *Conn) overTLS(t *tls.Conn) {
	c.in.Reset(t)
	c.out = bufio.NewWriterSize(t, tlsRecord)
}

// WriteFrame writes a frame and the payloads that belong to it, of which the body must tell the total length. In clear it is one
// writev. Everything may be reused when it returns.
func (c *Conn) WriteFrame(body []byte, payloads ...[]byte) error {
	if c.writeErr != nil {
		return c.writeErr
	}
	if len(body) > c.maxFrame {
		return fmt.Errorf("write a frame of %d bytes: %w: at most %d", len(body), ErrTooLarge, c.maxFrame)
	}
	putFrameHeader(c.head[:], body)
	c.vec = append(c.vec[:0], c.head[:])
	if len(body) > 0 { // to write nothing is not nothing to every socket
		c.vec = append(c.vec, body)
	}
	for _, p := range payloads {
		if len(p) > 0 {
			c.vec = append(c.vec, p)
		}
	}
	err := c.send()
	clear(c.vec) // it would keep the payloads alive
	if err != nil {
		c.writeErr = fmt.Errorf("write to peer: %w", err)
	}
	return c.writeErr
}

func (c *Conn) send() error {
	if c.out == nil {
		c.rest = c.vec
		return c.line.writev(&c.rest)
	}
	for _, b := range c.vec {
		if _, err := c.out.Write(b); err != nil {
			return err
		}
	}
	return c.out.Flush()
}

// ReadFrame reads the next frame. Its body is valid until the next ReadFrame. If the body tells of payload bytes, ReadPayload must
// take them all before. io.EOF means that the peer closed between two frames.
func (c *Conn) ReadFrame() ([]byte, error) { return c.readFrame(c.maxFrame) }

func (c *Conn) readFrame(most int) ([]byte, error) {
	if c.readErr != nil {
		return nil, c.readErr
	}
	if cap(c.body) > keepBody {
		c.body = nil
	}
	c.line.begin(false)
	head, err := c.in.Peek(frameHeader)
	if err == io.EOF && len(head) == 0 {
		c.readErr = err
		return nil, err
	}
	if err != nil {
		return nil, c.failRead(err)
	}
	n, sum := int64(le.Uint32(head)), le.Uint32(head[4:])
	if n > int64(most) {
		return nil, c.failRead(fmt.Errorf("a frame of %d bytes: %w: at most %d", n, ErrTooLarge, most))
	}
	_, _ = c.in.Discard(frameHeader) // what was peeked at is there
	if err := c.readBody(int(n)); err != nil {
		return nil, c.failRead(err)
	}
	if crc32.Checksum(c.body, castagnoli) != sum {
		return nil, c.failRead(ErrChecksum)
	}
	return c.body, nil
}

// readBody reads n bytes into c.body. Memory follows what arrives, at most doubling, so that a length alone costs its sender
// nothing and us nothing either.
func (c *Conn) readBody(n int) error {
	b := c.body[:0]
	for len(b) < n {
		have := len(b)
		step := min(n, max(cap(b), 2*have, readBuffer))
		if cap(b) < step {
			b = append(make([]byte, 0, max(step, minBody)), b...)
		}
		b = b[:step]
		if _, err := io.ReadFull(c.in, b[have:]); err != nil {
			return err
		}
	}
	c.body = b
	return nil
}

// ReadPayload fills p with the raw bytes behind a frame. All payload bytes of a frame may be read in several pieces.
func (c *Conn) ReadPayload(p []byte) error {
	if c.readErr != nil {
		return c.readErr
	}
	c.line.begin(true)
	// bufio reads past its buffer where p still takes as much as that.
	if _, err := io.ReadFull(c.in, p); err != nil {
		return c.failRead(err)
	}
	return nil
}

// failRead makes the error final.
func (c *Conn) failRead(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	c.readErr = fmt.Errorf("read from peer: %w", err)
	return c.readErr
}

// SetReadTimeout bounds each ReadFrame, the wait for the frame included. In ReadPayload it bounds the time in which no byte comes.
// 0 is no bound. It counts from the next time that the socket is read.
func (c *Conn) SetReadTimeout(d time.Duration) { c.line.readTimeout.Store(int64(d)) }

// SetWriteTimeout bounds the time in which the peer takes no byte at all of a WriteFrame; 0 is no bound. It may be noticed after
// twice that time. TCP itself gives up after userTimeout, or after d if that is more.
func (c *Conn) SetWriteTimeout(d time.Duration) {
	c.line.writeTimeout.Store(int64(d))
	if tcp, ok := c.line.Conn.(*net.TCPConn); ok {
		_ = setUserTimeout(tcp, max(d, userTimeout)) // see tune
	}
}

// RemoteAddr is the address of the peer's socket.
func (c *Conn) RemoteAddr() string { return c.line.RemoteAddr().String() }

// Close closes the socket at once, without TLS's farewell, which could wait for a peer that hangs: frames tell by themselves
// whether they are whole. Reads and writes under way return. It is idempotent.
func (c *Conn) Close() error { return c.close() }

// CloseWith closes the connection when ctx ends, if Close does not do so before. It is called once at the most.
func (c *Conn) CloseWith(ctx context.Context) {
	closeOnce := c.close
	stop := context.AfterFunc(ctx, func() { _ = closeOnce() })
	c.close = func() error {
		stop()
		return closeOnce()
	}
}
