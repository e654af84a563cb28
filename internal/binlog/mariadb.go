package binlog

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// What only MariaDB writes (sql/log_event.h there, and its knowledge base under "Replication
// Protocol"). Its transactions all begin with a GTID event of its own kind, which also
// stands for BEGIN.

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
		timeZone = 5 // Q_TIME_ZONE_CODE
		userVar  = 4 + 1
	)
	at, old := len(dst), h.Type
	h.Flags = h.Flags&^FlagThreadSpecific | FlagSuppressUse
	dst = begin(dst)
	switch room := len(body) - queryHeader - 1; {
	case begins && room == len("BEGIN"):
		dst = append(dst, make([]byte, queryHeader+1)...)
		dst = append(dst, "BEGIN"...)
	case begins && room >= len("BEGIN")+2: // an empty time zone takes up the rest
		var head [queryHeader]byte
		rest := room - len("BEGIN")
		binary.LittleEndian.PutUint16(head[queryHeader-2:], uint16(rest))
		dst = append(dst, head[:]...)
		dst = append(dst, timeZone, byte(rest-2))
		dst = append(dst, make([]byte, rest-2+1)...)
		dst = append(dst, "BEGIN"...)
	case room >= 1:
		text := fmt.Sprintf("# Dummy event replacing event type %d that slave cannot handle.", uint8(old))
		dst = append(dst, make([]byte, queryHeader+1)...)
		for i := range room {
			if i < len(text) {
				dst = append(dst, text[i])
			} else {
				dst = append(dst, ' ')
			}
		}
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
