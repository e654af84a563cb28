package wire

import (
	"bytes"
	"encoding/binary"
)

// Cursor reads the protocol's primitives from a byte slice (manual page
// "Protocol Data Types"). It never panics: the first read past the end, or of a
// malformed number, makes it fail, and every later read gives a zero value. So
// a decoder reads field after field and asks Err once.
//
// Slices that it returns point into the slice that it reads.
type Cursor struct {
	b   []byte
	bad bool
}

// NewCursor reads from b.
func NewCursor(b []byte) Cursor { return Cursor{b: b} }

// Err is ErrMalformed if any read failed.
func (c *Cursor) Err() error {
	if c.bad {
		return ErrMalformed
	}
	return nil
}

// Len is the number of bytes not yet read.
func (c *Cursor) Len() int { return len(c.b) }

// Fail makes the cursor fail, for values that are well formed and yet wrong.
func (c *Cursor) Fail() { c.bad, c.b = true, nil }

// Bytes reads n bytes.
func (c *Cursor) Bytes(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.Fail()
		return nil
	}
	p := c.b[:n:n]
	c.b = c.b[n:]
	return p
}

// Rest reads all that is left.
func (c *Cursor) Rest() []byte { return c.Bytes(len(c.b)) }

// U8 reads one byte.
func (c *Cursor) U8() byte {
	if len(c.b) < 1 {
		c.Fail()
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

// U16 reads two bytes, little-endian, as all numbers of the protocol.
func (c *Cursor) U16() uint16 {
	if p := c.Bytes(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

// U24 reads three bytes.
func (c *Cursor) U24() uint32 {
	if p := c.Bytes(3); p != nil {
		return uint32(p[0]) | uint32(p[1])<<8 | uint32(p[2])<<16
	}
	return 0
}

// U32 reads four bytes.
func (c *Cursor) U32() uint32 {
	if p := c.Bytes(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

// U64 reads eight bytes.
func (c *Cursor) U64() uint64 {
	if p := c.Bytes(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

// LenEnc reads a length-encoded integer; null is true for the byte 0xfb, which
// stands for NULL in rows.
func (c *Cursor) LenEnc() (v uint64, null bool) {
	switch b := c.U8(); b {
	case 0xfb:
		return 0, true
	case 0xfc:
		return uint64(c.U16()), false
	case 0xfd:
		return uint64(c.U24()), false
	case 0xfe:
		return c.U64(), false
	case 0xff:
		c.Fail()
		return 0, false
	default:
		return uint64(b), false
	}
}

// LenEncBytes reads a length-encoded string. NULL gives nil, an empty string a
// slice that is not nil.
func (c *Cursor) LenEncBytes() []byte {
	n, null := c.LenEnc()
	if null || c.bad {
		return nil
	}
	if n > uint64(len(c.b)) {
		c.Fail()
		return nil
	}
	return c.Bytes(int(n))
}

// NulBytes reads up to the next NUL, which it also consumes.
func (c *Cursor) NulBytes() []byte {
	i := bytes.IndexByte(c.b, 0)
	if i < 0 {
		c.Fail()
		return nil
	}
	p := c.b[:i:i]
	c.b = c.b[i+1:]
	return p
}

// nulOrRest reads up to the next NUL, or all that is left if there is none.
func (c *Cursor) nulOrRest() []byte {
	if bytes.IndexByte(c.b, 0) < 0 {
		return c.Rest()
	}
	return c.NulBytes()
}

// AppendLenEnc appends a length-encoded integer.
func AppendLenEnc(b []byte, v uint64) []byte {
	switch {
	case v < 0xfb:
		return append(b, byte(v))
	case v <= 0xffff:
		return append(b, 0xfc, byte(v), byte(v>>8))
	case v <= 0xffffff:
		return append(b, 0xfd, byte(v), byte(v>>8), byte(v>>16))
	}
	return binary.LittleEndian.AppendUint64(append(b, 0xfe), v)
}

// AppendLenEncString appends a length-encoded string.
func AppendLenEncString[T string | []byte](b []byte, s T) []byte {
	return append(AppendLenEnc(b, uint64(len(s))), s...)
}
