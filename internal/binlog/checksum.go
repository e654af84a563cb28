package binlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Checksum is the algorithm byte of a format description event. It holds for
// every event after it; the format description event itself has four bytes of
// checksum whatever the algorithm (from MySQL 5.6.1 on).
type Checksum uint8

// The algorithms. Undefined is what a server writes whose events have none
// because it got them from one that knew no checksums.
const (
	ChecksumNone      Checksum = 0
	ChecksumCRC32     Checksum = 1
	ChecksumUndefined Checksum = 255
)

const crcSize = 4

// Size returns how many bytes at the end of an event the checksum takes.
func (c Checksum) Size() int {
	if c == ChecksumCRC32 {
		return crcSize
	}
	return 0
}

// String returns MySQL's name, as in @@global.binlog_checksum.
func (c Checksum) String() string {
	switch c {
	case ChecksumNone:
		return "NONE"
	case ChecksumCRC32:
		return "CRC32"
	case ChecksumUndefined:
		return "UNDEFINED"
	}
	return fmt.Sprintf("Checksum_%d", uint8(c))
}

// crc computes the checksum of an event without its last four bytes. The
// IN_USE flag of a format description event counts as 0, since the server
// changes it in place when it closes the file.
func crc(ev []byte) uint32 {
	if EventType(ev[4]) != TypeFormatDescription {
		return crc32.ChecksumIEEE(ev[:len(ev)-crcSize]) // in one go: no copy, and as few short ends as can be
	}
	var head [HeaderSize]byte
	copy(head[:], ev)
	sum := crc32.Update(0, crc32.IEEETable, clearInUse(&head))
	return crc32.Update(sum, crc32.IEEETable, ev[HeaderSize:len(ev)-crcSize])
}

func clearInUse(head *[HeaderSize]byte) []byte {
	if EventType(head[4]) == TypeFormatDescription {
		head[17] &^= FlagInUse
	}
	return head[:]
}

// VerifyChecksum tells whether the last four bytes of the whole event ev are
// the CRC32 of the rest. Whether the event has a checksum at all is for the
// caller to know.
func VerifyChecksum(ev []byte) bool {
	return len(ev) >= HeaderSize+crcSize && crc(ev) == binary.LittleEndian.Uint32(ev[len(ev)-crcSize:])
}

// UpdateChecksum writes the CRC32 into the last four bytes of the whole event
// ev, after a change to its other bytes. It does nothing to what is too short
// to be an event with a checksum.
func UpdateChecksum(ev []byte) {
	if len(ev) >= HeaderSize+crcSize {
		binary.LittleEndian.PutUint32(ev[len(ev)-crcSize:], crc(ev))
	}
}

// Hash checks the CRC32 of one event that comes in pieces. Reset, then Write
// all pieces in order, then Valid. It allocates nothing.
type Hash struct {
	length uint32 // of the event
	seen   uint32 // bytes written so far
	sum    uint32 // of what is before the checksum, the header from its end on
	want   uint32 // the checksum, as far as it was written
	excess bool
	head   [HeaderSize]byte
}

// Reset prepares for an event of the given length in bytes, as its header
// says it.
func (h *Hash) Reset(length uint32) { *h = Hash{length: length} }

// Write adds the next piece, of any size. The error is always nil.
func (h *Hash) Write(p []byte) (int, error) {
	n := len(p)
	if uint64(h.seen)+uint64(len(p)) > uint64(h.length) || h.length < HeaderSize+crcSize {
		h.excess = true
		return n, nil
	}
	if h.seen < HeaderSize {
		took := copy(h.head[h.seen:], p)
		p = p[took:]
		if h.seen += uint32(took); h.seen == HeaderSize {
			h.sum = crc32.Update(0, crc32.IEEETable, clearInUse(&h.head))
		}
	}
	if body := h.length - crcSize; h.seen < body && len(p) > 0 {
		took := min(uint32(len(p)), body-h.seen)
		h.sum = crc32.Update(h.sum, crc32.IEEETable, p[:took])
		h.seen += took
		p = p[took:]
	}
	for _, b := range p {
		h.want |= uint32(b) << (8 * (h.seen - (h.length - crcSize)))
		h.seen++
	}
	return n, nil
}

// Valid tells whether the whole event was written, no byte more, and its
// checksum is right.
func (h *Hash) Valid() bool {
	return !h.excess && h.length > 0 && h.seen == h.length && h.sum == h.want
}
