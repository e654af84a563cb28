package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

const keepBig = 1 << 20 // bytes: a larger assembly buffer is not kept for the next packet

// reader is the reading half of a Conn.
type reader struct {
	buf      []byte // buf[pos:end] is read from the socket and not yet consumed
	pos, end int
	size     int    // of buf, once it is allocated
	big      []byte // assembles payloads that do not fit buf
	seq      byte   // number of the next packet

	open bool // a payload is being streamed
	left int  // bytes of its current packet not yet consumed
	more bool // that packet is a full one: another follows

	exact    bool // never read further than asked: before TLS and login
	earlyErr bool // client: an error packet with number 0 may come out of turn
	timeout  time.Duration
	err      error // the stream is out of step; nothing more can be read
}

// Buffered is the number of bytes, packet headers included, that can be read
// without touching the socket.
func (c *Conn) Buffered() int { return c.r.end - c.r.pos }

// readSocket is the only place where the socket is read.
func (c *Conn) readSocket(p []byte) (int, error) {
	if c.r.timeout > 0 {
		if err := c.raw.SetReadDeadline(time.Now().Add(c.r.timeout)); err != nil {
			return 0, err
		}
	}
	return c.nc.Read(p)
}

// fill makes at least n bytes available in buf, n being at most its size. On
// error what has arrived stays, so that a timeout can be followed by another try.
func (c *Conn) fill(n int) error {
	if c.r.end-c.r.pos >= n {
		return nil
	}
	return c.fillSlow(n)
}

func (c *Conn) fillSlow(n int) error {
	r := &c.r
	if r.err != nil {
		return r.err
	}
	if r.buf == nil {
		r.buf = make([]byte, r.size)
	}
	if r.pos == r.end {
		r.pos, r.end = 0, 0
	} else if r.pos+n > len(r.buf) {
		r.end = copy(r.buf, r.buf[r.pos:r.end])
		r.pos = 0
	}
	for r.end-r.pos < n {
		limit := len(r.buf)
		if r.exact {
			limit = r.pos + n
		}
		m, err := c.readSocket(r.buf[r.end:limit])
		r.end += m
		if err != nil && r.end-r.pos < n {
			if err == io.EOF && (r.end > r.pos || r.open) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// fail makes the error stick, unless it is a timeout that may be tried again.
func (c *Conn) fail(err error) error {
	if !isTimeout(err) && c.r.err == nil {
		c.r.err = err
	}
	return err
}

func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// peekHeader waits for a packet header, checks its number, and gives the
// packet's length. Nothing is consumed.
func (c *Conn) peekHeader() (int, error) {
	if err := c.fill(headerSize); err != nil {
		return 0, c.fail(err)
	}
	h := c.r.buf[c.r.pos : c.r.pos+headerSize]
	n := int(h[0]) | int(h[1])<<8 | int(h[2])<<16
	if h[3] != c.r.seq {
		return n, c.outOfOrder(n, h[3])
	}
	return n, nil
}

// outOfOrder refuses a packet number, with one exception that net_serv.cc makes
// too: a server that is closing an idle connection, or shutting down, sends an
// error with number 0 before it has seen our command.
func (c *Conn) outOfOrder(n int, got byte) error {
	if c.r.earlyErr && !c.r.open && got == 0 && c.r.seq == 1 && n > 0 {
		if err := c.fill(headerSize + 1); err != nil {
			return c.fail(err)
		}
		if c.r.buf[c.r.pos+headerSize] == headerError {
			return nil
		}
	}
	return c.fail(&SequenceError{Got: got, Want: c.r.seq})
}

// took consumes n bytes that begin with a header, and counts its packet.
func (c *Conn) took(n int) {
	c.count(c.r.buf[c.r.pos+3])
	c.r.pos += n
}

// count notes that the packet with number seq has been read.
func (c *Conn) count(seq byte) {
	c.r.seq = seq + 1
	if !c.split {
		c.w.seq = c.r.seq
	}
}

// ReadPacket reads a whole payload of at most max bytes. The slice is valid
// until the next read. What is left of a streamed payload is discarded first.
// A longer payload is a *TooLargeError, and the connection cannot be read any
// more. io.EOF means that the peer closed between two packets.
func (c *Conn) ReadPacket(max int) ([]byte, error) {
	if c.r.open {
		if err := c.DiscardPayload(); err != nil {
			return nil, err
		}
	}
	n, err := c.peekHeader()
	if err != nil {
		return nil, err
	}
	if n > max {
		return nil, c.fail(&TooLargeError{Size: n, Max: max})
	}
	end := headerSize + n
	if n == MaxPacketPayload || end > len(c.r.buf) {
		return c.readBig(max)
	}
	if err := c.fill(end); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, c.fail(err)
	}
	p := c.r.buf[c.r.pos+headerSize : c.r.pos+end : c.r.pos+end]
	c.took(end)
	return p, nil
}

// readBig assembles a payload that does not fit the buffer. Memory follows what
// arrives, at most doubling, so that a header alone costs its sender nothing and
// us nothing either. A timeout in here loses the place in the stream for good.
func (c *Conn) readBig(max int) ([]byte, error) {
	if err := c.NextPayload(); err != nil {
		return nil, err
	}
	p := c.r.big[:0]
	c.r.big = nil
	for {
		if len(p)+c.r.left > max {
			return nil, c.fail(&TooLargeError{Size: len(p) + c.r.left, Max: max})
		}
		if len(p) == cap(p) {
			grown := make([]byte, len(p), len(p)+min(len(p)+len(c.r.buf), max-len(p)+1))
			copy(grown, p)
			p = grown
		}
		n, err := c.Read(p[len(p):cap(p)])
		p = p[:len(p)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			c.r.err = err
			return nil, err
		}
	}
	if cap(p) <= keepBig {
		c.r.big = p
	}
	return p, nil
}

// NextPayload waits for the next payload and opens it for Peek, Read and
// Discard. What is left of the one before is discarded. io.EOF means that the
// peer closed between two payloads.
func (c *Conn) NextPayload() error {
	if c.r.open {
		if err := c.DiscardPayload(); err != nil {
			return err
		}
	}
	return c.nextPacket()
}

func (c *Conn) nextPacket() error {
	n, err := c.peekHeader()
	if err != nil {
		return err
	}
	c.took(headerSize)
	c.r.open, c.r.left, c.r.more = true, n, n == MaxPacketPayload
	return nil
}

// PacketRemaining is what the current packet still holds of the open payload,
// in bytes; last is false if further packets follow, so that the payload is
// longer than that.
func (c *Conn) PacketRemaining() (n int, last bool) { return c.r.left, !c.r.more }

// Peek gives the next n bytes of the open payload without consuming them; they
// are valid until the next read. At the payload's end it gives fewer, with
// io.EOF. n must be well below the size of the read buffer.
func (c *Conn) Peek(n int) ([]byte, error) {
	r := &c.r
	for r.open && r.left < n && r.more {
		if err := c.mergeNext(); err != nil {
			return nil, err
		}
	}
	var short error
	if n > r.left || !r.open {
		n, short = r.left, io.EOF
	}
	if n > r.size {
		return nil, io.ErrShortBuffer
	}
	if err := c.fill(n); err != nil {
		return nil, c.fail(err)
	}
	return r.buf[r.pos : r.pos+n : r.pos+n], short
}

// mergeNext joins the little that is left of a full packet with the packet
// after it, by moving it over the header that lies between them.
func (c *Conn) mergeNext() error {
	r := &c.r
	rest := r.left
	if rest+headerSize > r.size {
		return io.ErrShortBuffer
	}
	if err := c.fill(rest + headerSize); err != nil {
		return c.fail(err)
	}
	h := r.buf[r.pos+rest : r.pos+rest+headerSize]
	n := int(h[0]) | int(h[1])<<8 | int(h[2])<<16
	if h[3] != r.seq {
		return c.fail(&SequenceError{Got: h[3], Want: r.seq})
	}
	c.count(h[3])
	copy(r.buf[r.pos+headerSize:], r.buf[r.pos:r.pos+rest])
	r.pos += headerSize
	r.left, r.more = rest+n, n == MaxPacketPayload
	return nil
}

// Read reads from the open payload; io.EOF is its end. Large reads go around
// the buffer.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := c.inPacket(); err != nil {
		return 0, err
	}
	r := &c.r
	p = p[:min(len(p), r.left)]
	if r.pos == r.end && len(p) >= r.size/2 {
		if r.err != nil {
			return 0, r.err
		}
		n, err := c.readSocket(p)
		r.left -= n
		if n > 0 {
			return n, nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, c.fail(err)
	}
	if err := c.fill(1); err != nil {
		return 0, c.fail(err)
	}
	n := copy(p, r.buf[r.pos:r.end])
	r.pos += n
	r.left -= n
	return n, nil
}

// inPacket makes sure that the current packet has bytes to read; io.EOF if the
// payload has none.
func (c *Conn) inPacket() error {
	for c.r.left == 0 {
		if !c.r.open {
			return io.EOF
		}
		if !c.r.more {
			c.r.open = false
			return io.EOF
		}
		if err := c.nextPacket(); err != nil {
			return err
		}
	}
	return nil
}

// Discard skips n bytes of the open payload; io.EOF if it has fewer.
func (c *Conn) Discard(n uint64) error {
	for n > 0 {
		if err := c.inPacket(); err != nil {
			return err
		}
		if err := c.fill(1); err != nil {
			return c.fail(err)
		}
		k := int(min(n, uint64(min(c.r.left, c.Buffered()))))
		c.r.pos += k
		c.r.left -= k
		n -= uint64(k)
	}
	return nil
}

// DiscardPayload skips what is left of the open payload.
func (c *Conn) DiscardPayload() error {
	if !c.r.more && c.r.left <= c.Buffered() { // the common case, without a loop
		c.r.pos += c.r.left
		c.r.left, c.r.open = 0, false
		return nil
	}
	for {
		err := c.Discard(1 << 62)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
