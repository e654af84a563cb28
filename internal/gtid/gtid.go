// Package gtid holds MySQL's global transaction identifiers and sets of them:
// their text, their two binary encodings, and set arithmetic.
//
// The package is pure: no goroutines, no clock, no I/O, no state of its own.
// Everything that it parses may come from a hostile peer; it refuses what
// MySQL refuses, and never allocates more than a small multiple of its input.
//
// Formats are those of the MySQL manual, "GTID Format and Storage", and of
// sql/rpl_gtid_set.cc and libs/mysql/gtid (tags, MySQL 8.3 and later).
package gtid

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrMalformed is wrapped by every error of this package's parsers and
// decoders.
var ErrMalformed = errors.New("malformed GTID")

const (
	// MinGNO and MaxGNO bound the transaction number of a GTID, both
	// inclusive. MaxGNO is 2^63-2, since MySQL keeps intervals half-open in
	// signed 64-bit numbers.
	MinGNO = 1
	MaxGNO = 1<<63 - 2

	// MaxTag is the length limit of a tag in bytes.
	MaxTag = 32

	uuidTextSize = 36
)

// UUID identifies the server that a transaction was first committed on.
// Byte order is that of the text, so comparing bytes sorts like the text.
type UUID [16]byte

// ParseUUID reads the form 3e11fa47-71ca-11e1-9e33-c80aa9429562, of either
// case.
func ParseUUID(text string) (UUID, error) {
	var u UUID
	if len(text) != uuidTextSize || !u.parse(text) {
		return UUID{}, fmt.Errorf("%w: %q is not a UUID", ErrMalformed, clip(text))
	}
	return u, nil
}

// parse reads exactly uuidTextSize bytes from the start of text and tells
// whether they are a UUID.
func (u *UUID) parse(text string) bool {
	if len(text) < uuidTextSize {
		return false
	}
	n := 0
	for i := 0; i < uuidTextSize; {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if text[i] != '-' {
				return false
			}
			i++
			continue
		}
		hi, ok1 := unhex(text[i])
		lo, ok2 := unhex(text[i+1])
		if !ok1 || !ok2 {
			return false
		}
		u[n] = hi<<4 | lo
		n++
		i += 2
	}
	return true
}

// parseHex reads 32 digits without dashes.
func (u *UUID) parseHex(text string) bool {
	_, err := hex.Decode(u[:], []byte(text[:2*len(u)]))
	return err == nil
}

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// String returns the lower case text.
func (u UUID) String() string {
	return string(u.appendText(make([]byte, 0, uuidTextSize)))
}

func (u UUID) appendText(dst []byte) []byte {
	dst = hex.AppendEncode(dst, u[0:4])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, u[4:6])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, u[6:8])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, u[8:10])
	dst = append(dst, '-')
	return hex.AppendEncode(dst, u[10:16])
}

// IsZero tells whether u is the nil UUID, which no server has.
func (u UUID) IsZero() bool { return u == UUID{} }

// SID names a sequence of transaction numbers: a server, and possibly a tag
// (MySQL 8.3 and later). Tag is "" or lower case [a-z_][a-z0-9_]{0,31};
// whoever fills it by hand passes it through ParseTag.
type SID struct {
	UUID UUID
	Tag  string
}

// ParseTag checks a tag and folds it to lower case. The empty tag is valid.
func ParseTag(text string) (string, error) {
	if len(text) > MaxTag {
		return "", fmt.Errorf("%w: tag %q is longer than %d characters", ErrMalformed, clip(text), MaxTag)
	}
	for i := 0; i < len(text); i++ {
		if !isTagByte(text[i]) || i == 0 && isDigit(text[i]) {
			return "", fmt.Errorf("%w: %q is not a tag (letters, digits and _, not starting with a digit)", ErrMalformed, clip(text))
		}
	}
	return strings.ToLower(text), nil // no allocation if it is lower case already
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isTagByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || isDigit(c)
}

// String returns "uuid" or "uuid:tag".
func (s SID) String() string {
	if s.Tag == "" {
		return s.UUID.String()
	}
	return s.UUID.String() + ":" + s.Tag
}

// Compare orders by UUID, then tag, the untagged first: the order in which
// MySQL prints sets.
func (s SID) Compare(o SID) int {
	for i := range s.UUID {
		if s.UUID[i] != o.UUID[i] {
			return int(s.UUID[i]) - int(o.UUID[i])
		}
	}
	return cmp.Compare(s.Tag, o.Tag)
}

// GTID identifies one transaction. The zero value means none (an anonymous
// transaction).
type GTID struct {
	SID SID
	GNO int64 // MinGNO to MaxGNO
}

// ParseGTID reads "uuid:number" or "uuid:tag:number"; like MySQL it allows
// white space around each part.
func ParseGTID(text string) (GTID, error) {
	p := parser{text: text}
	g, err := p.gtid()
	if err != nil {
		return GTID{}, err
	}
	return g, nil
}

// String returns "uuid:number" or "uuid:tag:number"; "" for the zero value.
func (g GTID) String() string {
	if g.IsZero() {
		return ""
	}
	return g.SID.String() + ":" + strconv.FormatInt(g.GNO, 10)
}

// IsZero tells whether g is the zero value.
func (g GTID) IsZero() bool { return g.GNO == 0 && g.SID.Tag == "" && g.SID.UUID.IsZero() }

// Valid tells whether the number is within bounds.
func (g GTID) Valid() bool { return g.GNO >= MinGNO && g.GNO <= MaxGNO }

// clip shortens foreign text for error messages.
func clip(s string) string {
	const limit = 60
	if len(s) > limit {
		return s[:limit] + "..."
	}
	return s
}
