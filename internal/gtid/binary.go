package gtid

import (
	"encoding/binary"
	"fmt"
)

// Binary encodings of a set, used by COM_BINLOG_DUMP_GTID, by the
// PREVIOUS_GTIDS event, and by our own checkpoints. Little-endian.
//
// Untagged (MySQL 5.6 and later, Gtid_set::encode):
//
//	off size field
//	  0    8 number of entries; byte 7 is the format and 0
//	then per entry
//	      16 UUID
//	       8 number of intervals
//	     16n first and last+1 of each interval
//
// Tagged (MySQL 8.3 and later): the same, but
//
//	0    1 1 (MySQL writes the format here too, and reads only byte 7)
//	1    6 number of entries
//	7    1 format, 1
//
// and between UUID and the number of intervals the tag: its length as a
// variable-length number (one byte, length<<1, for everything that is valid),
// then its bytes.
const (
	formatUntagged = 0
	formatTagged   = 1
)

// AppendBinary appends the tagged encoding if the set has tags, else the
// untagged one. That is what MySQL's replicas send.
func (s Set) AppendBinary(dst []byte) []byte {
	if s.HasTags() {
		return s.AppendTagged(dst)
	}
	return s.AppendUntagged(dst)
}

// AppendUntagged appends the untagged encoding; GTIDs with a tag are left out.
func (s Set) AppendUntagged(dst []byte) []byte {
	at, n := len(dst), uint64(0)
	dst = binary.LittleEndian.AppendUint64(dst, 0)
	for _, e := range s.sids {
		if e.sid.Tag != "" {
			continue
		}
		n++
		dst = append(dst, e.sid.UUID[:]...)
		dst = e.list.appendBinary(dst)
	}
	binary.LittleEndian.PutUint64(dst[at:], n)
	return dst
}

// AppendTagged appends the tagged encoding, whether the set has tags or not.
func (s Set) AppendTagged(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, formatTagged<<56|uint64(len(s.sids))<<8|formatTagged)
	for _, e := range s.sids {
		dst = append(dst, e.sid.UUID[:]...)
		dst = append(dst, byte(len(e.sid.Tag)<<1))
		dst = append(dst, e.sid.Tag...)
		dst = e.list.appendBinary(dst)
	}
	return dst
}

func (v intervals) appendBinary(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(v)))
	for _, iv := range v {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(iv.start))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(iv.end))
	}
	return dst
}

// DecodeSet reads either encoding; b must hold it and nothing more. It is as
// strict as MySQL (error 1773): the intervals of an entry are sorted, neither
// empty nor overlapping nor adjacent, and within bounds. Entries may come in
// any order, be empty, and repeat a SID. Nothing of b is kept.
func DecodeSet(b []byte) (Set, error) {
	d := decoder{rest: b}
	head, err := d.uint64("number of entries")
	if err != nil {
		return Set{}, err
	}
	n, tagged := head, false
	switch head >> 56 {
	case formatUntagged:
	case formatTagged:
		n, tagged = head<<8>>16, true
	default:
		return Set{}, fmt.Errorf("%w set encoding: unknown format %d", ErrMalformed, head>>56)
	}
	var out builder
	for ; n > 0; n-- {
		if err := d.entry(&out, tagged); err != nil {
			return Set{}, err
		}
	}
	if len(d.rest) > 0 {
		return Set{}, fmt.Errorf("%w set encoding: %d bytes too many", ErrMalformed, len(d.rest))
	}
	return out.set(), nil
}

// decoder reads from the front of rest.
type decoder struct{ rest []byte }

func (d *decoder) bytes(n int, what string) ([]byte, error) {
	if len(d.rest) < n {
		return nil, fmt.Errorf("%w set encoding: it ends within the %s", ErrMalformed, what)
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b, nil
}

func (d *decoder) uint64(what string) (uint64, error) {
	b, err := d.bytes(8, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

func (d *decoder) entry(out *builder, tagged bool) error {
	var sid SID
	u, err := d.bytes(len(sid.UUID), "UUID")
	if err != nil {
		return err
	}
	copy(sid.UUID[:], u)
	if tagged {
		// Longer forms of the length could only say more than MaxTag.
		size, err := d.bytes(1, "tag length")
		if err != nil {
			return err
		}
		if size[0]&1 != 0 || size[0]>>1 > MaxTag {
			return fmt.Errorf("%w set encoding: tag too long", ErrMalformed)
		}
		tag, err := d.bytes(int(size[0]>>1), "tag")
		if err != nil {
			return err
		}
		if sid.Tag, err = ParseTag(string(tag)); err != nil {
			return err
		}
	}
	n, err := d.uint64("number of intervals")
	if err != nil {
		return err
	}
	// Compared this way round, since 16*n may overflow. After this check the
	// claim is backed by input and may be allocated.
	if n > uint64(len(d.rest))/16 {
		return fmt.Errorf("%w set encoding: %d intervals in %d bytes", ErrMalformed, n, len(d.rest))
	}
	if n == 0 {
		return nil
	}
	at := out.sid(sid)
	if out.sids[at].list == nil {
		out.sids[at].list = make(intervals, 0, n)
	}
	last := int64(0)
	for ; n > 0; n-- {
		start := int64(binary.LittleEndian.Uint64(d.rest))
		end := int64(binary.LittleEndian.Uint64(d.rest[8:]))
		d.rest = d.rest[16:]
		// Negative numbers, that is 2^63 and more, fail here too.
		if start <= last || end <= start {
			return fmt.Errorf("%w set encoding: interval [%d,%d) after %d", ErrMalformed, start, end, last)
		}
		last = end
		out.add(at, interval{start, end})
	}
	return nil
}
