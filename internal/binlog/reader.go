package binlog

import (
	"encoding/binary"
	"math/bits"
)

// reader takes numbers from the front of rest. After a read beyond the end bad
// is true, and everything read is zero.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) bytes(n uint64) []byte {
	if r.bad || n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// uint reads a number of n bytes, at most 8.
func (r *reader) uint(n uint64) uint64 {
	var b [8]byte
	copy(b[:], r.bytes(n))
	return binary.LittleEndian.Uint64(b[:])
}

// lenenc reads MySQL's length-encoded integer: one byte up to 250, or 252, 253,
// 254 and 2, 3, 8 bytes.
func (r *reader) lenenc() uint64 {
	switch first := r.uint(1); first {
	case 251, 255:
		r.bad = true
		return 0
	case 252:
		return r.uint(2)
	case 253:
		return r.uint(3)
	case 254:
		return r.uint(8)
	default:
		return first
	}
}

func appendLenenc(dst []byte, n uint64) []byte {
	switch {
	case n < 251:
		return append(dst, byte(n))
	case n < 1<<16:
		return append(dst, 252, byte(n), byte(n>>8))
	case n < 1<<24:
		return append(dst, 253, byte(n), byte(n>>8), byte(n>>16))
	}
	return binary.LittleEndian.AppendUint64(append(dst, 254), n)
}

// varlen reads an unsigned number of MySQL's serialization library
// (libs/mysql/serialization): the n 1-bits at the low end of the first byte
// tell how many bytes follow; the number is what is above them and the 0-bit.
// With eight 1-bits the number is the next eight bytes.
func (r *reader) varlen() uint64 {
	first := r.uint(1)
	n := bits.TrailingZeros8(^uint8(first))
	if n == 8 {
		return r.uint(8)
	}
	more := r.uint(uint64(n)) // at most 7 bytes
	return first>>(n+1) | more<<(7-n)
}

// varlenSigned reads a signed one: the lowest bit is the sign, 1 for -(v+1).
func (r *reader) varlenSigned() int64 {
	v := r.varlen()
	if v&1 != 0 {
		return -int64(v>>1) - 1
	}
	return int64(v >> 1)
}
