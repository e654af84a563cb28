package binlog

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
)

const serverVersionSize = 50

// FormatDescription is the first event of every file.
//
//	off size field, after the header
//	  0    2 binlog version, 4
//	  2   50 server version, padded with NUL
//	 52    4 created: seconds since 1970 in the first file after a start, else 0
//	 56    1 header length, 19
//	 57    n post-header lengths of the event types 1 to n
//	57+n    1 checksum algorithm  } from MySQL 5.6.1 (MariaDB 5.3) on
//	58+n    4 CRC32, always there }
type FormatDescription struct {
	BinlogVersion uint16
	ServerVersion string
	Created       uint32
	HeaderLengths []byte // HeaderLengths[t-1] is that of event type t

	// Checksum holds for the events that follow. It is ChecksumNone for
	// servers that know no checksums; those have HasChecksum false, and no
	// checksum behind the format description either.
	Checksum    Checksum
	HasChecksum bool
}

// ParseFormatDescription reads a whole format description event, of any server
// from 5.0 on. Nothing of ev is kept.
func ParseFormatDescription(ev []byte) (FormatDescription, error) {
	const t = TypeFormatDescription
	_, body, err := event(ev, ChecksumNone, t)
	if err != nil {
		return FormatDescription{}, err
	}
	const fixed = 2 + serverVersionSize + 4 + 1
	if len(body) < fixed {
		return FormatDescription{}, malformed(t, "%d bytes are too short", len(ev))
	}
	version, _, _ := bytes.Cut(body[2:2+serverVersionSize], []byte{0})
	fd := FormatDescription{
		BinlogVersion: binary.LittleEndian.Uint16(body),
		ServerVersion: string(version),
		Created:       binary.LittleEndian.Uint32(body[2+serverVersionSize:]),
	}
	if fd.BinlogVersion != 4 {
		return FormatDescription{}, malformed(t, "binlog version %d instead of 4", fd.BinlogVersion)
	}
	if n := body[fixed-1]; n != HeaderSize {
		return FormatDescription{}, malformed(t, "event headers of %d bytes instead of %d", n, HeaderSize)
	}
	known, ok := knowsChecksums(fd.ServerVersion)
	if !ok {
		return FormatDescription{}, malformed(t, "server version %q", fd.ServerVersion)
	}
	lengths := body[fixed:]
	if known {
		at := len(lengths) - 1 - crcSize
		if at < 0 {
			return FormatDescription{}, malformed(t, "no checksum algorithm, which %s has", fd.ServerVersion)
		}
		fd.HasChecksum = true
		fd.Checksum = Checksum(lengths[at])
		lengths = lengths[:at]
		switch fd.Checksum {
		case ChecksumNone, ChecksumCRC32, ChecksumUndefined:
		default:
			return FormatDescription{}, malformed(t, "unknown checksum algorithm %d", fd.Checksum)
		}
	}
	// Every server has these two (5.0 and later), and the parsers of this
	// package build on them.
	if len(lengths) < int(TypeFormatDescription) || lengths[TypeQuery-1] != queryHeader || lengths[TypeRotate-1] != rotateHeader {
		return FormatDescription{}, malformed(t, "unexpected post-header lengths %x", lengths)
	}
	fd.HeaderLengths = bytes.Clone(lengths)
	return fd, nil
}

// Types returns the greatest event type that the server of this file knew.
// Old replicas reject events beyond it (protocol.md B3).
func (f FormatDescription) Types() int { return len(f.HeaderLengths) }

// AppendFormatDescription appends the event; h's Type and Length are ignored.
// ServerVersion longer than its field is cut.
func AppendFormatDescription(dst []byte, h Header, f FormatDescription) []byte {
	at := len(dst)
	h.Type = TypeFormatDescription
	dst = begin(dst)
	dst = binary.LittleEndian.AppendUint16(dst, f.BinlogVersion)
	var version [serverVersionSize]byte
	copy(version[:], f.ServerVersion)
	dst = append(dst, version[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, f.Created)
	dst = append(dst, HeaderSize)
	dst = append(dst, f.HeaderLengths...)
	if !f.HasChecksum {
		return finish(dst, at, h, ChecksumNone)
	}
	dst = append(dst, byte(f.Checksum))
	return finish(dst, at, h, ChecksumCRC32)
}

// knowsChecksums tells whether a server of this version writes the checksum
// algorithm into format descriptions: MySQL from 5.6.1 on, MariaDB from 5.3 on.
// ok is false if the text is no version.
func knowsChecksums(version string) (known, ok bool) {
	var v [3]int
	rest := version
	for i := range v {
		end := 0
		for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
			end++
		}
		n, err := strconv.ParseUint(rest[:end], 10, 16)
		if err != nil {
			return false, false
		}
		v[i] = int(n)
		rest = rest[end:]
		if i < len(v)-1 {
			if rest, ok = strings.CutPrefix(rest, "."); !ok {
				return false, false
			}
		}
	}
	least := [3]int{5, 6, 1}
	if IsMariaDB(version) {
		least = [3]int{5, 3, 0}
	}
	for i := range v {
		if v[i] != least[i] {
			return v[i] > least[i], true
		}
	}
	return true, true
}
