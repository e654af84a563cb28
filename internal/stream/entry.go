package stream

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"kingbus/internal/binlog"
)

// The payload of a log entry of the stream, little-endian (docs/format/entry.md):
//
//	off size field
//	  0    1 kind: 1 events, 2 rotate, 3 link started, 4 identity, 5 purge, 6 settings
//	  1    1 version of this kind, 1
//	  2    2 zero
//
// followed for events by
//
//	 4    4 number of the binlog file in the stream, counted from 1
//	 8    8 epoch: the log index of the "link started" entry under which it was proposed
//	16    8 position in the stream's file at which the bytes begin
//	24    8 position in the source's file at which they begin
//	32      raw binlog events
//
// and for the others (commands) by
//
//	 4    4 zero
//	 8    8 request: a number by which the proposer knows its command again
//	16      the command as JSON
type kind uint8

const (
	kindEvents kind = iota + 1
	kindRotate
	kindLink
	kindIdentity
	kindPurge
	kindSettings // from settingsFormat on
)

const (
	entryVersion      = 1
	eventsHeaderSize  = 32
	commandHeaderSize = 16
	// maxCommand bounds a command; the largest is a link's start, which carries
	// GTID sets.
	maxCommand = 64 << 20
)

// eventsHeader is the fixed part of an events entry.
type eventsHeader struct {
	file      uint32
	epoch     uint64
	pos       uint64
	sourcePos uint64
}

func (h eventsHeader) put(b []byte) {
	b[0], b[1], b[2], b[3] = byte(kindEvents), entryVersion, 0, 0
	binary.LittleEndian.PutUint32(b[4:], h.file)
	binary.LittleEndian.PutUint64(b[8:], h.epoch)
	binary.LittleEndian.PutUint64(b[16:], h.pos)
	binary.LittleEndian.PutUint64(b[24:], h.sourcePos)
}

// parseKind checks what all kinds share. A kind or version that is not known
// was written by a newer kingbus: going on without understanding it would make
// this node's state differ from the others'.
func parseKind(p []byte) (kind, error) {
	if len(p) < commandHeaderSize {
		return 0, fmt.Errorf("entry of %d bytes is too short", len(p))
	}
	k := kind(p[0])
	if k < kindEvents || k > kindSettings || p[1] != entryVersion || p[2] != 0 || p[3] != 0 {
		return 0, fmt.Errorf("entry of kind %d version %d is not known to this kingbus; run the version that wrote it, or a newer one", p[0], p[1])
	}
	return k, nil
}

// parseEvents splits an events entry; the events alias p.
func parseEvents(p []byte) (eventsHeader, []byte, error) {
	if len(p) < eventsHeaderSize {
		return eventsHeader{}, nil, fmt.Errorf("events entry of %d bytes is too short", len(p))
	}
	return eventsHeader{
		file:      binary.LittleEndian.Uint32(p[4:]),
		epoch:     binary.LittleEndian.Uint64(p[8:]),
		pos:       binary.LittleEndian.Uint64(p[16:]),
		sourcePos: binary.LittleEndian.Uint64(p[24:]),
	}, p[eventsHeaderSize:], nil
}

// rotateCommand ends the current file and begins the next one at position 4.
type rotateCommand struct {
	Epoch uint64 `json:"epoch"`
	// File and Pos are where the stream has to end for the command to count
	// (0, 0 before the first file).
	File       uint32 `json:"file"`
	Pos        uint64 `json:"pos"`
	Name       string `json:"name"`
	SourceName string `json:"source_name"`
}

// linkCommand opens an epoch, named by the index of its entry.
type linkCommand struct {
	Source Source `json:"source"`
}

// identityCommand gives the cluster its identity; the first one counts.
type identityCommand struct {
	Identity Identity `json:"identity"`
}

// purgeCommand removes all files before Before.
type purgeCommand struct {
	Before string `json:"before"`
}

func encodeCommand(k kind, request uint64, command any) ([]byte, error) {
	body, err := json.Marshal(command)
	if err != nil {
		return nil, fmt.Errorf("encode command %d: %w", k, err)
	}
	if len(body) > maxCommand {
		return nil, fmt.Errorf("command %d has %d bytes, more than %d", k, len(body), maxCommand)
	}
	b := make([]byte, commandHeaderSize, commandHeaderSize+len(body))
	b[0], b[1] = byte(k), entryVersion
	binary.LittleEndian.PutUint64(b[8:], request)
	return append(b, body...), nil
}

// parseCommand decodes the JSON of a command strictly: a field that is not
// known is one that this version would silently ignore.
func parseCommand(p []byte, into any) (request uint64, err error) {
	d := json.NewDecoder(bytes.NewReader(p[commandHeaderSize:]))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return 0, fmt.Errorf("command of kind %d: %w", p[0], err)
	}
	return binary.LittleEndian.Uint64(p[8:]), nil
}

// checkName refuses a binlog file name that could not be served or exported.
func checkName(name string) error {
	if err := binlog.ValidName(name); err != nil {
		return fmt.Errorf("binlog file name %q: %w", name, err)
	}
	return nil
}
