package binlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
)

const (
	rotateHeader = 8

	// MaxName is the greatest length of a binlog file name in bytes.
	MaxName = 255
)

// ErrName is wrapped by the errors for file names that are not taken.
var ErrName = errors.New("bad binlog file name")

// ValidName checks the name of a binlog file that a peer gave: a plain file
// name as MySQL makes it, a base, a dot, and a number of at least six digits.
func ValidName(name string) error {
	_, _, err := splitName(name)
	return err
}

func splitName(name string) (base, digits string, err error) {
	bad := func(why string) (string, string, error) {
		return "", "", fmt.Errorf("%w %q: %s", ErrName, name[:min(len(name), MaxName)], why)
	}
	if len(name) > MaxName {
		return bad(fmt.Sprintf("longer than %d bytes", MaxName))
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; c < ' ' || c == 0x7f || c == '/' || c == '\\' {
			return bad("it has a character that cannot be in a file name")
		}
	}
	if strings.Contains(name, "..") {
		return bad(`it contains ".."`)
	}
	dot := strings.LastIndexByte(name, '.')
	if dot < 1 {
		return bad("expected a name like binlog.000001")
	}
	base, digits = name[:dot], name[dot+1:]
	if len(digits) < 6 || strings.Trim(digits, "0123456789") != "" {
		return bad("it does not end in a dot and at least six digits")
	}
	return base, digits, nil
}

// NextName returns the name of the file after name, as MySQL counts: at least
// six digits, more after 999999.
func NextName(name string) (string, error) {
	base, digits, err := splitName(name)
	if err != nil {
		return "", err
	}
	// MySQL's numbers end at 2^31-1 (MAX_LOG_UNIQUE_FN_EXT).
	n := uint64(0)
	for _, d := range digits {
		if n = n*10 + uint64(d-'0'); n >= math.MaxInt32 {
			return "", fmt.Errorf("%w %q: no number left after it", ErrName, name)
		}
	}
	return fmt.Sprintf("%s.%06d", base, n+1), nil
}

// Rotate says that the stream goes on in the named file at Position. In the
// body: u64 position, then the name up to the end.
type Rotate struct {
	Position uint64
	Name     string // not checked; see ValidName
}

// ParseRotate reads a whole ROTATE event. For the fake ones at the start and
// at file switches, c is the algorithm that was in force before (protocol.md
// A5).
func ParseRotate(ev []byte, c Checksum) (Rotate, error) {
	_, body, err := event(ev, c, TypeRotate)
	if err != nil {
		return Rotate{}, err
	}
	if len(body) <= rotateHeader {
		return Rotate{}, malformed(TypeRotate, "no file name")
	}
	return Rotate{binary.LittleEndian.Uint64(body), string(body[rotateHeader:])}, nil
}

// AppendRotate appends the event; h's Type and Length are ignored. The fake
// ROTATE that a source sends has Timestamp and LogPos 0 and FlagArtificial.
func AppendRotate(dst []byte, h Header, r Rotate, c Checksum) []byte {
	at := len(dst)
	h.Type = TypeRotate
	dst = begin(dst)
	dst = binary.LittleEndian.AppendUint64(dst, r.Position)
	dst = append(dst, r.Name...)
	return finish(dst, at, h, c)
}

// Heartbeat tells a replica where the source stands while it has nothing to
// send. Version 1 (type 27): LogPos is the position, the body the file name.
// Version 2 (type 41, MySQL 8.0.28 and later): the body is a list of fields,
// each one byte type, length as a length-encoded integer, value: 1 the name, 2
// the position as a length-encoded integer, 0 the end (no length).
type Heartbeat struct {
	Name     string // not checked; see ValidName
	Position uint64
}

const (
	heartbeatEnd      = 0
	heartbeatName     = 1
	heartbeatPosition = 2
)

// AppendHeartbeat appends a heartbeat of version 1. It has 32 bits for the
// position: beyond them nothing is appended and ok is false, since replicas
// stop at a position behind their own. They can do without it.
func AppendHeartbeat(dst []byte, serverID uint32, hb Heartbeat, c Checksum) (_ []byte, ok bool) {
	if hb.Position > math.MaxUint32 {
		return dst, false
	}
	at := len(dst)
	dst = append(begin(dst), hb.Name...)
	return finish(dst, at, Header{Type: TypeHeartbeat, ServerID: serverID, LogPos: uint32(hb.Position)}, c), true
}

// AppendHeartbeatV2 appends a heartbeat of version 2, for replicas that asked
// for it and know type 41 (protocol.md B3 and E). Name must be at most MaxName
// bytes.
func AppendHeartbeatV2(dst []byte, serverID uint32, hb Heartbeat, c Checksum) []byte {
	at := len(dst)
	dst = begin(dst)
	dst = append(dst, heartbeatName)
	dst = appendLenenc(dst, uint64(len(hb.Name)))
	dst = append(dst, hb.Name...)
	dst = append(dst, heartbeatPosition)
	dst = append(dst, byte(len(appendLenenc(nil, hb.Position))))
	dst = appendLenenc(dst, hb.Position)
	dst = append(dst, heartbeatEnd)
	// Replicas take the position from the body, but stop at a LogPos below 4.
	// Just behind a multiple of 4 GiB that would happen.
	logPos := max(uint32(hb.Position), MagicSize)
	return finish(dst, at, Header{Type: TypeHeartbeatV2, ServerID: serverID, LogPos: logPos}, c)
}

// ParseHeartbeat reads a whole heartbeat of either version.
func ParseHeartbeat(ev []byte, c Checksum) (Heartbeat, error) {
	h, body, err := event(ev, c, TypeHeartbeat, TypeHeartbeatV2)
	if err != nil {
		return Heartbeat{}, err
	}
	if h.Type == TypeHeartbeat {
		if len(body) == 0 {
			return Heartbeat{}, malformed(h.Type, "no file name")
		}
		return Heartbeat{string(body), uint64(h.LogPos)}, nil
	}
	var hb Heartbeat
	r := reader{rest: body}
	for {
		kind := r.lenenc()
		if r.bad || kind == heartbeatEnd {
			break
		}
		value := reader{rest: r.bytes(r.lenenc())}
		switch kind {
		case heartbeatName:
			hb.Name = string(value.rest)
		case heartbeatPosition:
			hb.Position = value.lenenc()
			r.bad = r.bad || value.bad
		}
	}
	if r.bad || hb.Name == "" {
		return Heartbeat{}, malformed(h.Type, "%x", body)
	}
	return hb, nil
}
