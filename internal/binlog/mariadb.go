package binlog

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// What only MariaDB writes (sql/log_event.h there, and its knowledge base under "Replication
// Protocol"). Its transactions all begin with a GTID event of its own kind, which also
// stands for BEGIN.

// IsMariaDB tells whether a server's version, as in @@version, is that of a MariaDB.
func IsMariaDB(version string) bool { return strings.Contains(version, "MariaDB") }

// MariaGTID is what MariaDB calls a GTID: domain, server, number.
type MariaGTID struct {
	Domain   uint32
	Server   uint32
	Sequence uint64
}

// String returns the form domain-server-number.
func (g MariaGTID) String() string {
	return strconv.FormatUint(uint64(g.Domain), 10) + "-" + strconv.FormatUint(uint64(g.Server), 10) + "-" + strconv.FormatUint(g.Sequence, 10)
}

// MariaGTIDEvent opens a transaction in MariaDB's binlog.
type MariaGTIDEvent struct {
	GTID MariaGTID
	// Standalone: one statement follows, which is the whole transaction; else the event
	// is also BEGIN, and XID, COMMIT, ROLLBACK or XA PREPARE will end what follows.
	Standalone bool
}

// mariaStandalone is FL_STANDALONE of flags2.
const mariaStandalone = 1

// ParseMariaGTID reads a whole GTID event of MariaDB; of what follows the flags nothing
// is needed:
//
//	off size field
//	  0    8 number
//	  8    4 domain
//	 12    1 flags2: bit 0 standalone
//
// The server is that of the header.
func ParseMariaGTID(ev []byte, c Checksum) (MariaGTIDEvent, error) {
	h, body, err := event(ev, c, TypeMariaGTID)
	if err != nil {
		return MariaGTIDEvent{}, err
	}
	if len(body) < 13 {
		return MariaGTIDEvent{}, malformed(h.Type, "%x", body)
	}
	return MariaGTIDEvent{
		GTID:       MariaGTID{Domain: binary.LittleEndian.Uint32(body[8:]), Server: h.ServerID, Sequence: binary.LittleEndian.Uint64(body)},
		Standalone: body[12]&mariaStandalone != 0,
	}, nil
}

// maria is step for the events that only MariaDB writes.
func (t *Tracker) maria(h Header, head []byte) (action, error) {
	switch h.Type {
	case TypeMariaGTID:
		if t.InTransaction() {
			return 0, t.unexpected(h)
		}
		g, err := ParseMariaGTID(head, t.checksum)
		if err != nil {
			return 0, err
		}
		if t.state = stateBegun; g.Standalone {
			t.state = stateGTID
		}
		return actStay, nil

	case TypeMariaAnnotateRows:
		return t.part(h, false)
	case TypeMariaQueryCompressed:
		// COMMIT and the like are too short to be compressed.
		return t.part(h, true)
	case TypeMariaWriteRowsCompressedV1, TypeMariaUpdateRowsCompressedV1, TypeMariaDeleteRowsCompressedV1,
		TypeMariaWriteRowsCompressed, TypeMariaUpdateRowsCompressed, TypeMariaDeleteRowsCompressed:
		return t.rows(h, head)

	case TypeMariaGTIDList, TypeMariaBinlogCheckpoint, TypeMariaStartEncryption:
		if t.InTransaction() {
			return 0, t.unexpected(h)
		}
		return actStay, nil
	}
	if h.Flags&FlagIgnorable != 0 {
		return actStay, nil
	}
	return 0, fmt.Errorf("%w: type %d of MariaDB", ErrUnsupported, uint8(h.Type))
}

// What a replica of MariaDB says that it understands (@mariadb_slave_capability); others
// say nothing, which is 0 (MARIA_SLAVE_CAPABILITY_… in sql/log_event.h of MariaDB).
const (
	MariaAnnotate   = 1 // ANNOTATE_ROWS, also if it did not ask for them
	MariaHoles      = 2 // positions may jump
	MariaCheckpoint = 3 // BINLOG_CHECKPOINT
	MariaAll        = 4 // GTID and GTID_LIST
)

// mariaNeeds returns the capability that a replica needs for events of a type.
func mariaNeeds(t EventType) int {
	switch t {
	case TypeMariaAnnotateRows:
		return MariaAnnotate
	case TypeMariaBinlogCheckpoint:
		return MariaCheckpoint
	case TypeMariaGTID, TypeMariaGTIDList:
		return MariaAll
	}
	return 0
}

// MariaFor tells how an event goes to a replica of a capability: as it is, not at all,
// or as another one, made by AppendMariaSubstitute. annotate: the replica has asked for
// ANNOTATE_ROWS events. Standalone is that of a GTID event (send_event_to_slave in
// sql/sql_repl.cc of MariaDB).
func MariaFor(t EventType, capability int, annotate, standalone bool) (send, substitute bool) {
	if needs := mariaNeeds(t); capability >= needs && !(t == TypeMariaAnnotateRows && !annotate && capability >= MariaHoles) ||
		t == TypeMariaAnnotateRows && annotate {
		return true, false
	}
	if t == TypeMariaGTID && !standalone { // that stands for BEGIN
		return true, true
	}
	return capability < MariaHoles, true
}

// AppendMariaSubstitute appends an event that any replica since MySQL 5.0 understands, in
// the place and with the length of a whole GTID, GTID_LIST, BINLOG_CHECKPOINT or
// ANNOTATE_ROWS event: BEGIN for a GTID that stands for it, else nothing but a comment
// (Query_log_event::begin_event and dummy_event in sql/log_event.cc of MariaDB).
func AppendMariaSubstitute(dst, ev []byte, c Checksum) ([]byte, error) {
	h, body, err := event(ev, c, TypeMariaGTID, TypeMariaGTIDList, TypeMariaBinlogCheckpoint, TypeMariaAnnotateRows)
	if err != nil {
		return nil, err
	}
	begins := false
	if h.Type == TypeMariaGTID {
		g, err := ParseMariaGTID(ev, c)
		if err != nil {
			return nil, err
		}
		begins = !g.Standalone
	}
	const (
		dummy   = 255 // Q_DUMMY
		userVar = 4 + 1
	)
	at := len(dst)
	h.Flags = h.Flags&^FlagThreadSpecific | FlagSuppressUse
	dst = begin(dst)
	switch room := len(body) - queryHeader - 1; {
	case begins && (room < len("BEGIN") || room > len("BEGIN")+math.MaxUint16):
		return nil, malformed(h.Type, "no BEGIN has %d bytes", h.Length)
	case begins:
		// Status variables that nobody knows take up the rest. Older ones than 11 write
		// an empty time zone for two bytes, and cannot do all lengths.
		var head [queryHeader]byte
		rest := room - len("BEGIN")
		binary.LittleEndian.PutUint16(head[queryHeader-2:], uint16(rest))
		dst = append(dst, head[:]...)
		for range rest {
			dst = append(dst, dummy)
		}
		dst = append(dst, 0)
		dst = append(dst, "BEGIN"...)
	case room >= 1:
		dst = appendComment(dst, h.Type, len(body))
	case len(body) > userVar:
		name := "!dummyvar"[:min(len("!dummyvar"), len(body)-userVar)]
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(name)))
		dst = append(dst, name...)
		dst = append(dst, 1) // NULL
		h.Type = TypeUserVar
		return finish(dst, at, h, c), nil
	default:
		return nil, malformed(h.Type, "no event is as short as %d bytes", h.Length)
	}
	h.Type = TypeQuery
	return finish(dst, at, h, c), nil
}

// appendComment appends the body of a query that does nothing, of a size in bytes.
func appendComment(dst []byte, old EventType, size int) []byte {
	end := len(dst) + size
	dst = append(dst, make([]byte, queryHeader+1)...)
	dst = fmt.Appendf(dst, "# Dummy event replacing event type %d that slave cannot handle.", uint8(old))
	if len(dst) > end {
		return dst[:end]
	}
	return appendSpaces(dst, end-len(dst))
}

func appendSpaces(dst []byte, n int) []byte {
	const spaces = "                                                                "
	for ; n > len(spaces); n -= len(spaces) {
		dst = append(dst, spaces...)
	}
	return append(dst, spaces[:n]...)
}

// MariaDummy makes what AppendMariaSubstitute does, for an event that comes in pieces.
// Begin, then Next for each piece that follows.
type MariaDummy struct {
	length, at uint64        // of the event, and what is made of it
	end        [crcSize]byte // its last bytes
}

// Begin appends what goes out for the first piece of an event, which has more than its
// header and the text of the comment.
func (m *MariaDummy) Begin(dst, piece []byte, c Checksum) ([]byte, error) {
	h, err := ParseHeader(piece)
	if err != nil {
		return nil, err
	}
	if h.Type == TypeMariaGTID || len(piece) < 2*HeaderSize+queryHeader+64 || int(h.Length) <= len(piece) {
		return nil, malformed(h.Type, "%d bytes come in pieces, the first of %d", h.Length, len(piece))
	}
	at, old := len(dst), h.Type
	h.Type, h.Flags = TypeQuery, h.Flags&^FlagThreadSpecific|FlagSuppressUse
	dst = appendComment(begin(dst), old, len(piece)-HeaderSize)
	h.Put(dst[at:])
	*m = MariaDummy{length: uint64(h.Length), end: [crcSize]byte{' ', ' ', ' ', ' '}}
	if c == ChecksumCRC32 {
		var sum Hash
		sum.Reset(h.Length)
		_, _ = sum.Write(dst[at:min(len(dst), at+int(h.Length)-crcSize)])
		var spaces [4096]byte
		appendSpaces(spaces[:0], len(spaces))
		for left := int(h.Length) - crcSize - len(piece); left > 0; left -= len(spaces) {
			_, _ = sum.Write(spaces[:min(left, len(spaces))])
		}
		binary.LittleEndian.PutUint32(m.end[:], sum.sum)
	}
	m.finish(dst[at:])
	return dst, nil
}

// Next appends what goes out for the next n bytes.
func (m *MariaDummy) Next(dst []byte, n int) []byte {
	at := len(dst)
	dst = appendSpaces(dst, n)
	m.finish(dst[at:])
	return dst
}

// finish puts in what of the event's last bytes is in a piece.
func (m *MariaDummy) finish(piece []byte) {
	for i := range m.end {
		if at := m.length - crcSize + uint64(i); at >= m.at && at < m.at+uint64(len(piece)) {
			piece[at-m.at] = m.end[i]
		}
	}
	m.at += uint64(len(piece))
}
