package binlog

import (
	"encoding/binary"
	"fmt"

	"kingbus/internal/gtid"
)

// MaxWhole is how many bytes of an event the Tracker wants to see at once: the
// whole event if it is not longer, else at least so much of its beginning. It
// is enough to reach the statement of a QUERY event behind the longest status
// variables (64 KiB).
const MaxWhole = 128 << 10

// Tracker follows the events of a binlog one by one, and knows where
// transactions begin and end. It is how everything in kingbus finds
// boundaries: positions at which no transaction is open.
//
// A transaction is what a source commits, and a replica must get, as one:
//
//   - GTID event, BEGIN … XID or COMMIT or ROLLBACK
//   - GTID event, one statement (DDL, XA COMMIT, XA ROLLBACK), with the INTVAR,
//     RAND and USER_VAR events that belong to it in front
//   - GTID event, XA START … XA_PREPARE
//   - GTID event, TRANSACTION_PAYLOAD
//   - each but the last also without a GTID event (gtid_mode OFF up to 5.6)
//   - INCIDENT, with a GTID event or without
//   - with MariaDB: its own GTID event, which says whether one statement follows or
//     it stands for BEGIN
//
// MySQL's own rules for that are in sql/rpl_trx_boundary_parser.cc. Where that
// only warns, and no server can have written the events, Next returns an
// error: a stream that it did not understand would be stored under wrong
// coordinates.
//
// The zero value is at the start of a file. A Tracker is a plain value: a copy
// goes its own way. Trackers of equal state (AppendBinary) that see equal
// events have equal effects and equal states.
type Tracker struct {
	state     trackerState
	formatted bool     // the file's format description was seen
	checksum  Checksum // of the file, once formatted

	// The open transaction, zero if none is open.
	gtid   gtid.GTID
	length uint64 // of its events so far, bytes
	want   uint64 // its transaction_length, 0 if not known

	// tag is the last one seen, so that a stream with few of them costs no
	// allocation.
	tag string
}

type trackerState uint8

const (
	// stateNone: no transaction is open.
	stateNone trackerState = iota
	// stateContext: TRANSACTION_CONTEXT was seen, its GTID event must follow.
	stateContext
	// stateGTID: a GTID event was seen, and nothing after it.
	stateGTID
	// stateStatement: events were seen that belong to a statement, without
	// BEGIN; the statement ends the transaction.
	stateStatement
	// stateBegun: BEGIN or XA START was seen.
	stateBegun

	stateCount
)

func (s trackerState) String() string {
	return [stateCount]string{"outside a transaction", "after Transaction_context", "after a GTID", "within a statement", "within BEGIN"}[s]
}

// Effect is what one event did.
type Effect struct {
	Header Header

	// Boundary: no transaction is open after this event.
	Boundary bool

	// Began: this event is the first of a transaction.
	Began bool

	// Ended: this event is the last of a transaction. The fields below are
	// about that transaction, and zero otherwise.
	Ended bool

	// GTID is zero if the transaction is anonymous or has no GTID event.
	GTID gtid.GTID

	// Length counts its events in bytes. Announced is what its GTID event
	// said, 0 if that said nothing (before 8.0). They are equal in what a
	// server writes, but servers do not check it, and neither does Next.
	Length    uint64
	Announced uint64
}

// Next is told of every event in order. head is the whole event if that has at
// most MaxWhole bytes, else at least its first MaxWhole bytes; nothing of it is
// kept. An event that is passed on in pieces has its effect with the last one;
// the caller sees to that.
//
// What only exists on the wire may be left out or not, it changes nothing:
// heartbeats, and events with FlagArtificial. A format description in the
// middle of a file, as a source sends it again on resuming, is accepted
// outside transactions and gives the checksum algorithm.
//
// After an error, which wraps ErrMalformed or ErrUnsupported, the tracker is as
// it was before the call.
func (t *Tracker) Next(head []byte) (Effect, error) {
	h, err := ParseHeader(head)
	if err != nil {
		return Effect{}, err
	}
	if err := fits(h, head); err != nil {
		return Effect{}, err
	}
	e := Effect{Header: h}
	if h.Type.IsHeartbeat() || h.Artificial() {
		e.Boundary = !t.InTransaction()
		return e, nil
	}
	if t.inside(h) {
		t.length += uint64(h.Length)
		return e, nil
	}
	n := *t // so that an error changes nothing
	act, err := n.step(h, head)
	if err != nil {
		return Effect{}, err
	}
	was := t.InTransaction()
	switch {
	case act == actEnd:
		e.Began, e.Ended = !was, true
		e.GTID, e.Length, e.Announced = n.gtid, n.length+uint64(h.Length), n.want
		n.close()
	case n.InTransaction():
		e.Began = !was
		n.length += uint64(h.Length)
	}
	e.Boundary = !n.InTransaction()
	*t = n
	return e, nil
}

// inside tells whether the event does no more than make the open transaction
// longer. It is the short way for most events of a binlog: step would come to
// the same.
func (t *Tracker) inside(h Header) bool {
	switch h.Type {
	case TypeTableMap, TypeWriteRows, TypeUpdateRows, TypeDeleteRows, TypeWriteRowsV1, TypeUpdateRowsV1, TypeDeleteRowsV1:
		return t.state == stateBegun && int(h.Length) >= HeaderSize+rowsHead+t.checksum.Size()
	}
	return false
}

// action is what step leaves to Next.
type action int

const (
	actStay action = iota // in or out of a transaction, as the state says
	actEnd                // the event ends a transaction, maybe one that it began
)

// step changes the state, except for the end of a transaction.
func (t *Tracker) step(h Header, head []byte) (action, error) {
	if h.Type == TypeFormatDescription {
		return actStay, t.format(h, head)
	}
	if !t.formatted {
		return 0, malformed(h.Type, "the first event of a file must be a %s", TypeFormatDescription)
	}
	if int(h.Length) < HeaderSize+t.checksum.Size() {
		return 0, malformed(h.Type, "no room for a checksum in %d bytes", h.Length)
	}
	switch h.Type {
	case TypeGTID, TypeAnonymousGTID, TypeGTIDTagged:
		return actStay, t.begin(h, head)
	case TypeQuery:
		return t.query(h, head)

	case TypeXID, TypeXAPrepare:
		// A commit of what has not begun: events are missing.
		if t.state != stateBegun {
			return 0, t.unexpected(h)
		}
		return actEnd, nil

	case TypeTransactionPayload:
		// It has its own BEGIN and XID inside. Servers that compress always
		// write a GTID event, if only an anonymous one.
		if t.state != stateGTID {
			return 0, t.unexpected(h)
		}
		return actEnd, nil

	case TypeIntvar, TypeRand, TypeUserVar, TypeRowsQuery, TypeTableMap, TypeBeginLoadQuery, TypeAppendBlock:
		return t.part(h, false)
	case TypeWriteRowsV1, TypeUpdateRowsV1, TypeDeleteRowsV1,
		TypeWriteRows, TypeUpdateRows, TypeDeleteRows, TypePartialUpdateRows:
		return t.rows(h, head)
	case TypeExecuteLoadQuery, TypeDeleteFile, TypeViewChange:
		return t.part(h, true)

	case TypeIncident:
		// Always a transaction of its own, with a GTID event or without.
		// Should it ever come within BEGIN, then MySQL takes that for its end.
		return actEnd, nil

	case TypeTransactionContext:
		// Of group replication. It stands before its GTID event.
		if t.state == stateNone {
			t.state = stateContext
		}
		return actStay, nil

	case TypeRotate, TypeStop, TypePreviousGTIDs:
		// A server writes these between transactions, under the lock of the
		// log, and a transaction in one go.
		if t.InTransaction() {
			return 0, t.unexpected(h)
		}
		return actStay, nil
	}
	if h.Type.IsMariaDB() {
		return t.maria(h, head)
	}
	if h.Flags&FlagIgnorable != 0 {
		return actStay, nil
	}
	return 0, fmt.Errorf("%w: type %d (%s), and it must not be ignored", ErrUnsupported, uint8(h.Type), h.Type)
}

func (t *Tracker) unexpected(h Header) error {
	return malformed(h.Type, "not expected %s", t.state)
}

func (t *Tracker) format(h Header, head []byte) error {
	if t.InTransaction() {
		return t.unexpected(h)
	}
	f, err := ParseFormatDescription(head) // the one event that allocates
	if err != nil {
		return err
	}
	t.formatted, t.checksum = true, f.Checksum
	return nil
}

// begin takes a GTID event.
func (t *Tracker) begin(h Header, head []byte) error {
	// Two of them without an end between: events are missing.
	if t.InTransaction() && t.state != stateContext {
		return t.unexpected(h)
	}
	g, err := parseGTID(head, t.checksum, t.tag)
	if err != nil {
		return err
	}
	if tag := g.GTID.SID.Tag; tag != "" {
		t.tag = tag
	}
	t.state, t.gtid, t.want = stateGTID, g.GTID, g.TransactionLength
	return nil
}

// part takes an event that is part of a statement, or all or the end of it
// (last). Within BEGIN that does not matter. Elsewhere the end of the statement
// is the end of the transaction.
func (t *Tracker) part(h Header, last bool) (action, error) {
	switch t.state {
	case stateBegun:
		return actStay, nil
	case stateContext:
		return 0, t.unexpected(h)
	}
	if last {
		return actEnd, nil
	}
	t.state = stateStatement
	return actStay, nil
}

const (
	tableIDSize = 6               // before 5.1.16 it was 4
	rowsHead    = tableIDSize + 2 // and flags: with which a rows event begins
)

// rows takes an event with row images. The last of a statement has a flag.
func (t *Tracker) rows(h Header, head []byte) (action, error) {
	const stmtEnd = 1
	if len(head) < HeaderSize+rowsHead {
		return 0, malformed(h.Type, "%d bytes are too short", len(head))
	}
	flags := binary.LittleEndian.Uint16(head[HeaderSize+tableIDSize:])
	return t.part(h, flags&stmtEnd != 0)
}

func (t *Tracker) query(h Header, head []byte) (action, error) {
	q, err := ParseQuery(head, t.checksum)
	if err != nil {
		return 0, err
	}
	switch kind := statementKind(q); kind {
	case statementBegin:
		if t.state != stateNone && t.state != stateGTID {
			return 0, t.unexpected(h)
		}
		t.state = stateBegun
		return actStay, nil
	case statementEnd:
		if t.state != stateBegun {
			return 0, malformed(h.Type, "%q not expected %s", q.Text, t.state)
		}
		return actEnd, nil
	case statementXAEnd:
		if t.state == stateContext {
			return 0, t.unexpected(h)
		}
		return actEnd, nil
	}
	return t.part(h, true)
}

func (t *Tracker) close() {
	t.state, t.gtid, t.length, t.want = stateNone, gtid.GTID{}, 0, 0
}

// Abort drops the open transaction, if there is one: the link broke, or the
// file ended.
func (t *Tracker) Abort() { t.close() }

// NewFile drops the open transaction, if there is one, and expects the format
// description of another file.
func (t *Tracker) NewFile() {
	t.close()
	t.formatted, t.checksum = false, ChecksumNone
}

// InTransaction tells whether a transaction is open.
func (t *Tracker) InTransaction() bool { return t.state != stateNone }

// GTID returns that of the open transaction; zero if there is none.
func (t *Tracker) GTID() gtid.GTID { return t.gtid }

// Checksum returns the algorithm that holds for the next event. ok is false
// before the file's format description.
func (t *Tracker) Checksum() (c Checksum, ok bool) { return t.checksum, t.formatted }

// AppendBinary appends the state, for a checkpoint. It has no version of its
// own; that is the checkpoint's.
//
//	size field
//	   1 state
//	   1 1 once the format description was seen
//	   1 checksum algorithm
//	   8 length so far
//	   8 length announced
//	  16 UUID
//	   8 transaction number
//	   1 length of the tag, then the tag
func (t *Tracker) AppendBinary(dst []byte) []byte {
	dst = append(dst, byte(t.state), 0, byte(t.checksum))
	if t.formatted {
		dst[len(dst)-2] = 1
	}
	dst = binary.LittleEndian.AppendUint64(dst, t.length)
	dst = binary.LittleEndian.AppendUint64(dst, t.want)
	dst = append(dst, t.gtid.SID.UUID[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(t.gtid.GNO))
	dst = append(dst, byte(len(t.gtid.SID.Tag)))
	return append(dst, t.gtid.SID.Tag...)
}

// Decode sets t to the state at the start of b, and returns what follows it.
func (t *Tracker) Decode(b []byte) (rest []byte, err error) {
	r := reader{rest: b}
	var n Tracker
	n.state = trackerState(r.uint(1))
	formatted := r.uint(1)
	n.formatted = formatted == 1
	n.checksum = Checksum(r.uint(1))
	n.length = r.uint(8)
	n.want = r.uint(8)
	copy(n.gtid.SID.UUID[:], r.bytes(16))
	n.gtid.GNO = int64(r.uint(8))
	n.gtid.SID.Tag, err = gtid.ParseTag(string(r.bytes(r.uint(1))))
	if r.bad || err != nil || formatted > 1 || n.state >= stateCount || !n.InTransaction() && n.length|n.want|uint64(n.gtid.GNO) != 0 {
		return nil, fmt.Errorf("%w: not the state of a tracker", ErrMalformed)
	}
	n.tag = n.gtid.SID.Tag
	*t = n
	return r.rest, nil
}
