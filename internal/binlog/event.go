// Package binlog knows MySQL's binary log, version 4: event headers and
// checksums, the events that kingbus must understand or make itself, and the
// Tracker, which finds where transactions begin and end. Row images and
// statements are opaque to it.
//
// The package is pure: no goroutines, no clock, no I/O, no state of its own.
// Events may come from a hostile peer: every length is checked, nothing panics,
// and no decoder allocates more than a small multiple of what it was given.
// Decoders take the whole event, header and checksum included, as it stands in
// the file and on the wire after the packet's 00 byte (protocol.md A5), unless
// they say that they are content with its beginning.
//
// Formats come from the MySQL manual, "The Binary Log", and from MySQL's
// libs/mysql/binlog/event and sql/log_event.cc. All numbers are little-endian.
package binlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
)

const (
	// HeaderSize is the length of every event's header in bytes.
	HeaderSize = 19

	// Magic is what every binlog file starts with; MagicSize is its length,
	// and so the position of a file's first event.
	Magic     = "\xfebin"
	MagicSize = 4

	// MaxEventSize bounds the length of an event in bytes. MySQL's dump thread
	// refuses to send more than 1 GiB (the greatest max_allowed_packet) plus
	// room for the headers of the statement.
	MaxEventSize = 1<<30 + 1<<20
)

var (
	// ErrMalformed is wrapped by the errors for bytes that no server writes.
	ErrMalformed = errors.New("malformed binlog event")

	// ErrUnsupported is wrapped by the errors for events that this version of
	// kingbus does not know and may not ignore.
	ErrUnsupported = errors.New("unsupported binlog event")
)

// EventType is the type byte of an event header.
type EventType uint8

// Event types, protocol.md D1. Types that only servers before 5.1 wrote have
// no name here.
const (
	TypeQuery              EventType = 2
	TypeStop               EventType = 3
	TypeRotate             EventType = 4
	TypeIntvar             EventType = 5
	TypeAppendBlock        EventType = 9
	TypeDeleteFile         EventType = 11
	TypeRand               EventType = 13
	TypeUserVar            EventType = 14
	TypeFormatDescription  EventType = 15
	TypeXID                EventType = 16
	TypeBeginLoadQuery     EventType = 17
	TypeExecuteLoadQuery   EventType = 18
	TypeTableMap           EventType = 19
	TypeWriteRowsV1        EventType = 23
	TypeUpdateRowsV1       EventType = 24
	TypeDeleteRowsV1       EventType = 25
	TypeIncident           EventType = 26
	TypeHeartbeat          EventType = 27
	TypeIgnorable          EventType = 28
	TypeRowsQuery          EventType = 29
	TypeWriteRows          EventType = 30
	TypeUpdateRows         EventType = 31
	TypeDeleteRows         EventType = 32
	TypeGTID               EventType = 33
	TypeAnonymousGTID      EventType = 34
	TypePreviousGTIDs      EventType = 35
	TypeTransactionContext EventType = 36
	TypeViewChange         EventType = 37
	TypeXAPrepare          EventType = 38
	TypePartialUpdateRows  EventType = 39
	TypeTransactionPayload EventType = 40
	TypeHeartbeatV2        EventType = 41
	TypeGTIDTagged         EventType = 42

	TypeMariaAnnotateRows           EventType = 160
	TypeMariaBinlogCheckpoint       EventType = 161
	TypeMariaGTID                   EventType = 162
	TypeMariaGTIDList               EventType = 163
	TypeMariaStartEncryption        EventType = 164
	TypeMariaQueryCompressed        EventType = 165
	TypeMariaWriteRowsCompressedV1  EventType = 166
	TypeMariaUpdateRowsCompressedV1 EventType = 167
	TypeMariaDeleteRowsCompressedV1 EventType = 168
	TypeMariaWriteRowsCompressed    EventType = 169
	TypeMariaUpdateRowsCompressed   EventType = 170
	TypeMariaDeleteRowsCompressed   EventType = 171
)

// String returns the name that SHOW BINLOG EVENTS prints, "Type_99" for types
// that have none.
func (t EventType) String() string {
	switch t {
	case 1:
		return "Start_v3"
	case TypeQuery:
		return "Query"
	case TypeStop:
		return "Stop"
	case TypeRotate:
		return "Rotate"
	case TypeIntvar:
		return "Intvar"
	case 6:
		return "Load"
	case 8:
		return "Create_file"
	case TypeAppendBlock:
		return "Append_block"
	case 10:
		return "Exec_load"
	case TypeDeleteFile:
		return "Delete_file"
	case 12:
		return "New_load"
	case TypeRand:
		return "RAND"
	case TypeUserVar:
		return "User var"
	case TypeFormatDescription:
		return "Format_desc"
	case TypeXID:
		return "Xid"
	case TypeBeginLoadQuery:
		return "Begin_load_query"
	case TypeExecuteLoadQuery:
		return "Execute_load_query"
	case TypeTableMap:
		return "Table_map"
	case 20:
		return "Write_rows_event_old"
	case 21:
		return "Update_rows_event_old"
	case 22:
		return "Delete_rows_event_old"
	case TypeWriteRowsV1:
		return "Write_rows_v1"
	case TypeUpdateRowsV1:
		return "Update_rows_v1"
	case TypeDeleteRowsV1:
		return "Delete_rows_v1"
	case TypeIncident:
		return "Incident"
	case TypeHeartbeat, TypeHeartbeatV2:
		return "Heartbeat"
	case TypeIgnorable:
		return "Ignorable"
	case TypeRowsQuery:
		return "Rows_query"
	case TypeWriteRows:
		return "Write_rows"
	case TypeUpdateRows:
		return "Update_rows"
	case TypeDeleteRows:
		return "Delete_rows"
	case TypeGTID, TypeMariaGTID:
		return "Gtid"
	case TypeAnonymousGTID:
		return "Anonymous_Gtid"
	case TypePreviousGTIDs:
		return "Previous_gtids"
	case TypeTransactionContext:
		return "Transaction_context"
	case TypeViewChange:
		return "View_change"
	case TypeXAPrepare:
		return "XA_prepare"
	case TypePartialUpdateRows:
		return "Update_rows_partial"
	case TypeTransactionPayload:
		return "Transaction_payload"
	case TypeGTIDTagged:
		return "Gtid_tagged_log_event"
	case TypeMariaAnnotateRows:
		return "Annotate_rows"
	case TypeMariaBinlogCheckpoint:
		return "Binlog_checkpoint"
	case TypeMariaGTIDList:
		return "Gtid_list"
	case TypeMariaStartEncryption:
		return "Start_encryption"
	case TypeMariaQueryCompressed:
		return "Query_compressed"
	case TypeMariaWriteRowsCompressedV1:
		return "Write_rows_compressed_v1"
	case TypeMariaUpdateRowsCompressedV1:
		return "Update_rows_compressed_v1"
	case TypeMariaDeleteRowsCompressedV1:
		return "Delete_rows_compressed_v1"
	case TypeMariaWriteRowsCompressed:
		return "Write_rows_compressed"
	case TypeMariaUpdateRowsCompressed:
		return "Update_rows_compressed"
	case TypeMariaDeleteRowsCompressed:
		return "Delete_rows_compressed"
	}
	return "Type_" + strconv.Itoa(int(t))
}

// IsMariaDB tells whether only MariaDB writes events of this type.
func (t EventType) IsMariaDB() bool { return t >= TypeMariaAnnotateRows }

// IsGTID tells whether the event opens a transaction and names its GTID, or
// says that it has none.
func (t EventType) IsGTID() bool {
	return t == TypeGTID || t == TypeAnonymousGTID || t == TypeGTIDTagged
}

// IsHeartbeat tells whether the event is a heartbeat of either version. Those
// exist on the wire only.
func (t EventType) IsHeartbeat() bool { return t == TypeHeartbeat || t == TypeHeartbeatV2 }

// Flags of an event header.
const (
	FlagInUse          = 0x01  // FDE in a file that is open or was not closed
	FlagThreadSpecific = 0x04  // the statement uses temporary tables
	FlagSuppressUse    = 0x08  // no USE before the statement
	FlagArtificial     = 0x20  // made for the wire, not in a file
	FlagRelayLog       = 0x40  // written by a replica into its relay log
	FlagIgnorable      = 0x80  // who does not know the type may skip the event
	FlagNoFilter       = 0x100 // replication filters do not apply
	FlagMTSIsolate     = 0x200 // not to be applied in parallel with others
)

// Header is the fixed start of every event:
//
//	off size field
//	  0    4 timestamp, seconds since 1970
//	  4    1 type
//	  5    4 server id
//	  9    4 length of the event in bytes, header and checksum included
//	 13    4 end_log_pos: position after the event, modulo 2^32
//	 17    2 flags
type Header struct {
	Timestamp uint32
	Type      EventType
	ServerID  uint32
	Length    uint32
	LogPos    uint32
	Flags     uint16
}

// ParseHeader reads the header at the start of b. It checks that the length is
// one that an event can have, not that b holds so much.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes are no header", ErrMalformed, len(b))
	}
	h := Header{
		Timestamp: binary.LittleEndian.Uint32(b),
		Type:      EventType(b[4]),
		ServerID:  binary.LittleEndian.Uint32(b[5:]),
		Length:    binary.LittleEndian.Uint32(b[9:]),
		LogPos:    binary.LittleEndian.Uint32(b[13:]),
		Flags:     binary.LittleEndian.Uint16(b[17:]),
	}
	if h.Length < HeaderSize || h.Length > MaxEventSize {
		return Header{}, fmt.Errorf("%w: %s event of %d bytes", ErrMalformed, h.Type, h.Length)
	}
	return h, nil
}

// Put writes the header into b, which must have HeaderSize bytes.
func (h Header) Put(b []byte) {
	_ = b[HeaderSize-1]
	binary.LittleEndian.PutUint32(b, h.Timestamp)
	b[4] = byte(h.Type)
	binary.LittleEndian.PutUint32(b[5:], h.ServerID)
	binary.LittleEndian.PutUint32(b[9:], h.Length)
	binary.LittleEndian.PutUint32(b[13:], h.LogPos)
	binary.LittleEndian.PutUint16(b[17:], h.Flags)
}

// Artificial tells whether the event was made for the wire and is in no file.
func (h Header) Artificial() bool { return h.Flags&FlagArtificial != 0 }

// event checks the header of a whole event of one of the given types, and that
// ev is exactly as long as it says. It returns the header and the body without
// the checksum.
func event(ev []byte, c Checksum, types ...EventType) (Header, []byte, error) {
	h, err := ParseHeader(ev)
	if err != nil {
		return Header{}, nil, err
	}
	if uint64(h.Length) != uint64(len(ev)) {
		return Header{}, nil, fmt.Errorf("%w: %s event of %d bytes says that it has %d", ErrMalformed, h.Type, len(ev), h.Length)
	}
	if len(ev) < HeaderSize+c.Size() {
		return Header{}, nil, malformed(h.Type, "no room for a checksum")
	}
	for _, t := range types {
		if h.Type == t {
			return h, ev[HeaderSize : len(ev)-c.Size()], nil
		}
	}
	return Header{}, nil, fmt.Errorf("%w: a %s event instead of %s", ErrMalformed, h.Type, types[0])
}

func malformed(t EventType, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrMalformed, t, fmt.Sprintf(format, args...))
}

// begin appends room for a header to dst; finish fills it in, once the body is
// complete, appends the checksum, and returns dst. h's Length is ignored.
func begin(dst []byte) []byte { return append(dst, make([]byte, HeaderSize)...) }

func finish(dst []byte, at int, h Header, c Checksum) []byte {
	dst = append(dst, make([]byte, c.Size())...)
	h.Length = uint32(len(dst) - at)
	h.Put(dst[at:])
	if c == ChecksumCRC32 {
		UpdateChecksum(dst[at:])
	}
	return dst
}
