package binlog

import "kingbus/internal/gtid"

// ParsePreviousGTIDs reads a whole PREVIOUS_GTIDS event: the GTIDs of all
// files before this one. Its body is a set in either binary encoding.
func ParsePreviousGTIDs(ev []byte, c Checksum) (gtid.Set, error) {
	_, body, err := event(ev, c, TypePreviousGTIDs)
	if err != nil {
		return gtid.Set{}, err
	}
	return gtid.DecodeSet(body)
}

// AppendPreviousGTIDs appends the event; h's Type and Length are ignored.
// Servers set FlagIgnorable. tagged chooses the encoding: a server uses the
// tagged one from the first tagged GTID on that it has seen, even for a set
// that is empty.
func AppendPreviousGTIDs(dst []byte, h Header, set gtid.Set, tagged bool, c Checksum) []byte {
	at := len(dst)
	h.Type = TypePreviousGTIDs
	dst = begin(dst)
	if tagged {
		dst = set.AppendTagged(dst)
	} else {
		dst = set.AppendUntagged(dst)
	}
	return finish(dst, at, h, c)
}

// GTIDEvent opens a transaction. Fields that the server's version does not
// know are zero. Times are microseconds since 1970.
type GTIDEvent struct {
	GTID           gtid.GTID // zero: anonymous
	Flags          uint8     // bit 0: may hold statements, not only rows
	LastCommitted  int64     // with SequenceNumber: what may be applied in parallel; 5.7
	SequenceNumber int64

	ImmediateCommitTime uint64 // at the server whose binlog this is; 8.0
	OriginalCommitTime  uint64 // at the server that the transaction is from; 8.0
	TransactionLength   uint64 // of all its events in bytes, this one included; 8.0

	ImmediateServerVersion uint32 // 80046 is 8.0.46
	OriginalServerVersion  uint32
	CommitGroupTicket      uint64
}

// ParseGTID reads a whole GTID, ANONYMOUS_GTID or GTID_TAGGED event.
func ParseGTID(ev []byte, c Checksum) (GTIDEvent, error) {
	return parseGTID(ev, c, "")
}

// parseGTID is ParseGTID. If the tag is the one given, that string is used, so
// that a stream with few tags costs no allocations.
func parseGTID(ev []byte, c Checksum, tag string) (GTIDEvent, error) {
	h, body, err := event(ev, c, TypeGTID, TypeAnonymousGTID, TypeGTIDTagged)
	if err != nil {
		return GTIDEvent{}, err
	}
	var g GTIDEvent
	var ok bool
	if h.Type == TypeGTIDTagged {
		g, ok = parseTagged(body, tag)
	} else {
		g, ok = parseUntagged(body)
	}
	if !ok {
		return GTIDEvent{}, malformed(h.Type, "%x", body[:min(len(body), 200)])
	}
	if h.Type == TypeAnonymousGTID {
		g.GTID = gtid.GTID{}
	} else if !g.GTID.Valid() {
		return GTIDEvent{}, malformed(h.Type, "transaction number %d", g.GTID.GNO)
	}
	return g, nil
}

// parseUntagged reads the body of types 33 and 34:
//
//	off size field
//	  0    1 flags
//	  1   16 UUID
//	 17    8 transaction number
//	 25    1 2: logical clock follows     } from 5.7 on
//	 26    8 last committed               }
//	 34    8 sequence number              }
//	 42    7 immediate commit time, bit 55: the original one follows
//	       7 original commit time
//	  lenenc transaction length
//	       4 immediate server version, bit 31: the original one follows
//	       4 original server version
//	       8 commit group ticket, optional
//
// from 8.0 on (some from later ones of 8.0). What may follow belongs to later
// versions and is skipped.
func parseUntagged(body []byte) (g GTIDEvent, ok bool) {
	const (
		logicalClock   = 2
		followTime     = 1 << 55
		followVersion  = 1 << 31
		unknownVersion = 999999 // UNDEFINED_SERVER_VERSION
	)
	r := reader{rest: body}
	g.Flags = uint8(r.uint(1))
	copy(g.GTID.SID.UUID[:], r.bytes(16))
	g.GTID.GNO = int64(r.uint(8))
	if r.bad {
		return GTIDEvent{}, false
	}
	if len(r.rest) == 0 || r.uint(1) != logicalClock {
		return g, true
	}
	g.LastCommitted = int64(r.uint(8))
	g.SequenceNumber = int64(r.uint(8))
	if len(r.rest) == 0 {
		return g, !r.bad
	}
	t := r.uint(7)
	g.ImmediateCommitTime = t &^ followTime
	g.OriginalCommitTime = g.ImmediateCommitTime
	if t&followTime != 0 {
		g.OriginalCommitTime = r.uint(7)
	}
	if len(r.rest) > 0 {
		g.TransactionLength = r.lenenc()
	}
	if len(r.rest) > 0 {
		v := uint32(r.uint(4))
		g.ImmediateServerVersion = v &^ followVersion
		g.OriginalServerVersion = g.ImmediateServerVersion
		if v&followVersion != 0 {
			g.OriginalServerVersion = uint32(r.uint(4))
		}
		if g.OriginalServerVersion == unknownVersion {
			g.OriginalServerVersion = 0
		}
	}
	if len(r.rest) >= 8 {
		g.CommitGroupTicket = r.uint(8)
	}
	return g, !r.bad
}

// Fields of a GTID_TAGGED event, in the order in which they come.
const (
	fieldFlags = iota
	fieldUUID
	fieldGNO
	fieldTag
	fieldLastCommitted
	fieldSequenceNumber
	fieldImmediateCommitTime
	fieldOriginalCommitTime
	fieldTransactionLength
	fieldImmediateServerVersion
	fieldOriginalServerVersion
	fieldCommitGroupTicket
)

// parseTagged reads the body of type 42, a message of MySQL's serialization
// library: version (1), size of the body, last field that may not be ignored,
// then pairs of field number and value, all variable-length numbers. Fields
// come in ascending order and may be left out; those unknown here come last.
func parseTagged(body []byte, tag string) (g GTIDEvent, ok bool) {
	r := reader{rest: body}
	if version := r.varlen(); version != 1 {
		return GTIDEvent{}, false
	}
	if size := r.varlen(); r.bad || size != uint64(len(body)) {
		return GTIDEvent{}, false
	}
	mustKnow := r.varlen()
	const must = 1<<fieldUUID | 1<<fieldGNO
	var seen uint16
	for len(r.rest) > 0 {
		field := r.varlen()
		if r.bad || field <= fieldCommitGroupTicket && seen>>field != 0 {
			return GTIDEvent{}, false // cut off, or out of order
		}
		switch field {
		case fieldFlags:
			g.Flags = uint8(r.varlen())
		case fieldUUID:
			for i := range g.GTID.SID.UUID {
				b := r.varlen()
				if b > 255 {
					return GTIDEvent{}, false
				}
				g.GTID.SID.UUID[i] = byte(b)
			}
		case fieldGNO:
			g.GTID.GNO = r.varlenSigned()
		case fieldTag:
			text := r.bytes(r.varlen())
			if string(text) == tag {
				g.GTID.SID.Tag = tag
				break
			}
			if len(text) > gtid.MaxTag {
				return GTIDEvent{}, false
			}
			var err error
			if g.GTID.SID.Tag, err = gtid.ParseTag(string(text)); err != nil {
				return GTIDEvent{}, false
			}
		case fieldLastCommitted:
			g.LastCommitted = r.varlenSigned()
		case fieldSequenceNumber:
			g.SequenceNumber = r.varlenSigned()
		case fieldImmediateCommitTime:
			g.ImmediateCommitTime = r.varlen()
			g.OriginalCommitTime = g.ImmediateCommitTime
		case fieldOriginalCommitTime:
			g.OriginalCommitTime = r.varlen()
		case fieldTransactionLength:
			g.TransactionLength = r.varlen()
		case fieldImmediateServerVersion:
			g.ImmediateServerVersion = uint32(r.varlen())
			g.OriginalServerVersion = g.ImmediateServerVersion
		case fieldOriginalServerVersion:
			g.OriginalServerVersion = uint32(r.varlen())
		case fieldCommitGroupTicket:
			g.CommitGroupTicket = r.varlen()
		default:
			// A later version's field. Its size is not known, so what
			// follows cannot be read; it is ignorable or we must stop.
			return g, field > mustKnow && seen&must == must
		}
		seen |= 1 << field
	}
	return g, !r.bad && seen&must == must
}
