package wire

import (
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// bypassMin is the number of bytes from which on a write is handed to the
// socket as it is, together with what is buffered, instead of being copied.
const bypassMin = 32 << 10

// writer is the writing half of a Conn.
type writer struct {
	buf  []byte // not yet sent; its capacity is fixed once allocated
	size int    // that capacity
	seq  byte   // number of the next packet

	open bool   // a payload is begun and not complete
	left uint64 // bytes of it still to come
	room int    // bytes that its current packet still takes
	full bool   // that packet is a full one: another must follow

	vec     net.Buffers // for writev
	pair    [2][]byte
	timeout time.Duration
	err     error // a write failed: the peer cannot make sense of any further byte
}

// SetWriteBuffer changes the size of the write buffer, in bytes. What is
// buffered is flushed.
func (c *Conn) SetWriteBuffer(size int) error {
	if len(c.w.buf) > 0 {
		if err := c.writeOut(nil); err != nil {
			return err
		}
	}
	c.w.buf, c.w.size = nil, max(size, minBuf)
	return nil
}

// WritePacket writes a whole payload, of any length. It is buffered: see Flush.
// The payload may be reused as soon as WritePacket returns.
func (c *Conn) WritePacket(payload []byte) error {
	w := &c.w
	if w.err == nil && !w.open && len(payload) < MaxPacketPayload && len(w.buf)+headerSize+len(payload) <= cap(w.buf) {
		n := len(payload)
		w.buf = append(w.buf, byte(n), byte(n>>8), byte(n>>16), w.seq)
		w.buf = append(w.buf, payload...)
		c.wrote()
		return nil
	}
	if err := c.BeginPayload(uint64(len(payload))); err != nil {
		return err
	}
	_, err := c.Write(payload)
	return err
}

// BeginPayload announces a payload of exactly length bytes, to be given to
// Write in pieces. The next BeginPayload, WritePacket or Flush before all of
// them were written is ErrPayloadLength.
func (c *Conn) BeginPayload(length uint64) error {
	if c.w.err != nil {
		return c.w.err
	}
	if c.w.open {
		return c.misuse()
	}
	c.w.open, c.w.left = true, length
	return c.startPacket()
}

// startPacket writes the header of the next packet of the open payload.
func (c *Conn) startPacket() error {
	w := &c.w
	if w.buf == nil {
		w.buf = make([]byte, 0, w.size)
	}
	if len(w.buf)+headerSize > cap(w.buf) {
		if err := c.writeOut(nil); err != nil {
			return err
		}
	}
	n := int(min(w.left, MaxPacketPayload))
	w.buf = append(w.buf, byte(n), byte(n>>8), byte(n>>16), w.seq)
	c.wrote()
	w.room, w.full = n, n == MaxPacketPayload
	w.open = n > 0
	return nil
}

// wrote counts a packet.
func (c *Conn) wrote() {
	c.w.seq++
	if !c.split {
		c.r.seq = c.w.seq
	}
}

// Write writes the next piece of the payload that was begun, splitting packets
// where need be. It may be reused when Write returns.
func (c *Conn) Write(p []byte) (int, error) {
	w := &c.w
	if w.err != nil {
		return 0, w.err
	}
	if uint64(len(p)) > w.left {
		return 0, c.misuse()
	}
	total := len(p)
	for len(p) > 0 {
		n := min(len(p), w.room)
		if err := c.emit(p[:n]); err != nil {
			return total - len(p), err
		}
		p = p[n:]
		w.room -= n
		w.left -= uint64(n)
		if w.room > 0 {
			continue
		}
		if !w.full {
			w.open = false
		} else if err := c.startPacket(); err != nil {
			return total - len(p), err
		}
	}
	return total, nil
}

// emit buffers p, or sends it along with the buffer if it is large.
func (c *Conn) emit(p []byte) error {
	w := &c.w
	if len(p) >= bypassMin && len(w.buf)+len(p) > cap(w.buf) {
		return c.writeOut(p)
	}
	for {
		n := min(len(p), cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, p[:n]...)
		p = p[n:]
		if len(p) == 0 {
			return nil
		}
		if err := c.writeOut(nil); err != nil {
			return err
		}
	}
}

// Flush sends what is buffered.
func (c *Conn) Flush() error {
	if c.w.err != nil {
		return c.w.err
	}
	if c.w.open {
		return c.misuse()
	}
	if len(c.w.buf) == 0 {
		return nil
	}
	return c.writeOut(nil)
}

// Unflushed is the number of bytes that wait for Flush.
func (c *Conn) Unflushed() int { return len(c.w.buf) }

// writeOut sends the buffer and then p. It is the only place where the socket
// is written.
func (c *Conn) writeOut(p []byte) error {
	w := &c.w
	if w.timeout > 0 {
		if err := c.raw.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
			return c.failWrite(err)
		}
	}
	var err error
	_, isTLS := c.nc.(*tls.Conn)
	switch {
	case len(p) == 0:
		_, err = c.nc.Write(w.buf)
	case isTLS || len(w.buf) == 0:
		if len(w.buf) > 0 {
			_, err = c.nc.Write(w.buf)
		}
		if err == nil {
			_, err = c.nc.Write(p)
		}
	default: // one system call for both
		w.pair = [2][]byte{w.buf, p}
		w.vec = w.pair[:]
		_, err = w.vec.WriteTo(c.nc)
		w.pair = [2][]byte{}
	}
	w.buf = w.buf[:0]
	if err != nil {
		return c.failWrite(err)
	}
	return nil
}

func (c *Conn) failWrite(err error) error {
	if c.w.err == nil {
		c.w.err = fmt.Errorf("wire: write: %w", err)
	}
	return c.w.err
}

func (c *Conn) misuse() error {
	c.w.err = ErrPayloadLength
	return c.w.err
}
