package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"strings"
)

// Version is the format version that is written. Reading knows versions up to it.
const Version = 1

const (
	headerSize   = 4096 // of a segment; a whole page, so that appending never rewrites its sector
	recordHeader = 40
	suffix       = ".seg"

	// MaxData and MaxPayload are the most bytes that an entry may have of each.
	MaxData    = 1<<16 - 1
	MaxPayload = 1 << 30
)

const magic = "KINGBSEG"

var le = binary.LittleEndian

// Header is the header of a segment file, little-endian:
//
//	off  size field
//	  0     8 magic "KINGBSEG"
//	  8     2 version      (checked before anything below)
//	 10     2 flags        (none yet; unknown bit: refuse)
//	 12     4 zero
//	 16     8 use id       random, for this use of the file; record checksums cover it
//	 24     8 first index  also in the file's name
//	 32     8 previous term: of the entry before the first; 0 if there is none
//	 40     8 first index of the previous segment   0: the log begins with this segment
//	 48     8 use id of the previous segment        0: dito
//	 56     8 end of the previous segment, offset in bytes   0: dito
//	 64     8 created, nanoseconds since 1970
//	 72  4020 zero
//	4092    4 crc32c over bytes [0,4092)
type Header struct {
	Version   uint16
	Use       uint64
	First     uint64
	PrevTerm  uint64
	PrevFirst uint64
	PrevUse   uint64
	PrevEnd   int64
	Created   int64 // nanoseconds since 1970
}

func (h *Header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, magic)
	le.PutUint16(b[8:], Version)
	le.PutUint64(b[16:], h.Use)
	le.PutUint64(b[24:], h.First)
	le.PutUint64(b[32:], h.PrevTerm)
	le.PutUint64(b[40:], h.PrevFirst)
	le.PutUint64(b[48:], h.PrevUse)
	le.PutUint64(b[56:], uint64(h.PrevEnd))
	le.PutUint64(b[64:], uint64(h.Created))
	le.PutUint32(b[headerSize-4:], checksum(b[:headerSize-4]))
	return b
}

// decodeHeader reads a segment header. Its errors tell apart what is no segment, an unknown version or flag, and a wrong checksum.
func decodeHeader(b []byte) (h Header, err error) {
	if len(b) < headerSize {
		return h, errShort
	}
	if string(b[:8]) != magic {
		return h, errMagic
	}
	if le.Uint16(b[8:]) == 0 {
		return h, errHeaderSum // there never was a version 0: the header was torn behind the magic
	}
	if h.Version = le.Uint16(b[8:]); h.Version != Version {
		return h, fmt.Errorf("%w %d (this kingbus knows version %d): use the kingbus that wrote it, or a newer one", ErrVersion, h.Version, Version)
	}
	if checksum(b[:headerSize-4]) != le.Uint32(b[headerSize-4:]) {
		return h, errHeaderSum
	}
	if le.Uint16(b[10:]) != 0 {
		return h, errFlags
	}
	h.Use = le.Uint64(b[16:])
	h.First = le.Uint64(b[24:])
	h.PrevTerm = le.Uint64(b[32:])
	h.PrevFirst = le.Uint64(b[40:])
	h.PrevUse = le.Uint64(b[48:])
	h.PrevEnd = int64(le.Uint64(b[56:]))
	h.Created = int64(le.Uint64(b[64:]))
	if h.First == 0 || h.PrevFirst > h.First {
		return h, fmt.Errorf("first index %d behind segment %d makes no sense", h.First, h.PrevFirst)
	}
	return h, nil
}

// record is the header of a record, little-endian:
//
//	off size field
//	  0    4 crc32c over use id (8 bytes), the record's offset in the file (8 bytes), bytes [4,40), and the data
//	  4    4 crc32c of the payload
//	  8    4 payload length
//	 12    2 data length
//	 14    1 type          the caller's
//	 15    1 flags         (none yet; unknown bit: refuse)
//	 16    8 index
//	 24    8 term
//	 32    8 synced        how far the file was synced when this was written, offset in bytes; at most the record's own
//	 40      data
//	         payload
//
// The next record follows without a gap. Zero bytes mean that the segment ends.
type record struct {
	payloadSum uint32
	payloadLen uint32
	dataLen    uint16
	typ        uint8
	index      uint64
	term       uint64
	synced     uint64
}

func (r *record) size() int64 { return recordHeader + int64(r.dataLen) + int64(r.payloadLen) }

// put encodes the header and data of a record that goes to offset off into b, which has room for exactly these.
func (r *record) put(b []byte, use uint64, off int64, data []byte) {
	le.PutUint32(b[4:], r.payloadSum)
	le.PutUint32(b[8:], r.payloadLen)
	le.PutUint16(b[12:], r.dataLen)
	b[14], b[15] = r.typ, 0
	le.PutUint64(b[16:], r.index)
	le.PutUint64(b[24:], r.term)
	le.PutUint64(b[32:], r.synced)
	copy(b[recordHeader:], data)
	le.PutUint32(b, recordSum(b, use, off))
}

// recordSum is the checksum of the header and data in b. The place goes in byte by byte, since a slice of it would escape.
func recordSum(b []byte, use uint64, off int64) uint32 {
	crc := ^uint32(0)
	for _, word := range [2]uint64{use, uint64(off)} {
		for range 8 {
			crc = castagnoli[byte(crc)^byte(word)] ^ crc>>8
			word >>= 8
		}
	}
	return crc32.Update(^crc, castagnoli, b[4:])
}

// plausible decodes the fixed part of a record at off without its checksum. False: this is no record, so spare the sum.
func plausible(b []byte, off int64) (r record, ok bool) {
	_ = b[recordHeader-1]
	r = record{
		payloadSum: le.Uint32(b[4:]),
		payloadLen: le.Uint32(b[8:]),
		dataLen:    le.Uint16(b[12:]),
		typ:        b[14],
		index:      le.Uint64(b[16:]),
		term:       le.Uint64(b[24:]),
		synced:     le.Uint64(b[32:]),
	}
	return r, r.index != 0 && r.payloadLen <= MaxPayload && r.synced >= headerSize && r.synced <= uint64(off)
}

// decodeRecord reads the header of the record at off from b, which also holds its data if it is complete. It checks everything
// but the payload. errShort means that b is too short.
func decodeRecord(b []byte, use uint64, off int64) (record, error) {
	if len(b) < recordHeader {
		return record{}, errShort
	}
	r, ok := plausible(b, off)
	if !ok {
		if allZero(b[:recordHeader]) {
			return r, errZero
		}
		return r, errRecord
	}
	n := recordHeader + int(r.dataLen)
	if len(b) < n {
		return r, errShort
	}
	if recordSum(b[:n], use, off) != le.Uint32(b) {
		return r, errRecordSum
	}
	if b[15] != 0 {
		return r, errFlags
	}
	return r, nil
}

// castagnoli is made once by the standard library; MakeTable returns the same table each time. It is never written.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if le.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func fileName(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", first, suffix))
}

// parseName returns the first index that a segment file's name tells.
func parseName(name string) (first uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil && first != 0
}
