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
