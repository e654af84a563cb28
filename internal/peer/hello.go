package peer

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Kind is what a connection is for. Each kind has its own, so that what is urgent never waits behind what is large.
type Kind uint8

const (
	KindControl Kind = iota + 1 // votes, heartbeats, status: small, never behind bulk data
	KindData                    // appends with payloads
	KindFetch                   // bulk: entries of the log
	KindCall                    // one question, one answer
)

func (k Kind) String() string {
	switch k {
	case KindControl:
		return "control"
	case KindData:
		return "data"
	case KindFetch:
		return "fetch"
	case KindCall:
		return "call"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Hello is what each end says of itself first.
type Hello struct {
	Kind      Kind   `json:"kind"`
	Cluster   uint64 `json:"cluster,string"` // 0: belongs to none yet
	From      uint64 `json:"from,string"`    // Raft id of who says it
	To        uint64 `json:"to,string"`      // Raft id of whom it means; 0: whoever is there
	Name      string `json:"name"`           // of who says it; at most 255 bytes
	Address   string `json:"address"`        // where who says it can be dialled; at most 255 bytes
	MinFormat uint16 `json:"min_format"`     // formats of log and folder that it can work with
	MaxFormat uint16 `json:"max_format"`
	Last      uint64 `json:"last,string"` // last index of its log
	Member    bool   `json:"member"`      // it belongs to a group already
}

// Refusal is an answer of No; it crosses the wire, cut to 64 bytes of Code and 1024 of Text.
type Refusal struct {
	Code string `json:"code"` // for programs
	Text string `json:"text"` // for operators
	// Had is the last entry that whoever is refused is known to have had, if that is why.
	Had uint64 `json:"had,string,omitempty"`
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s (%s)", r.Text, r.Code) }

// codeError is the code of refusals that are not the Handler's own.
const codeError = "error"

const (
	maxHello  = 64 << 10 // bytes of a frame of the handshake
	maxString = 255      // bytes of a name or address
	maxCode   = 64
	maxText   = 1024

	sayYes = 0 // a Hello follows
	sayNo  = 1 // a Refusal follows
)

const (
	magic        = "KBPEER"
	version      = 1
	preambleSize = len(magic) + 2
)

// What each end says first, little-endian; the client at once, the server when it has heard the client:
//
//	off size field
//	  0    6 magic "KBPEER"
//	  6    2 version         (checked before anything below)
//	  8      a frame, of at most 64 KiB:
//	         of the client:  Hello, JSON
//	         of the server:  1 byte, and Hello as JSON if it is 0, Refusal as JSON if it is 1
//
// Fields of JSON that are not known are passed over, since nodes of two releases must understand each other during an upgrade.
// What they must not pass over needs a new version.
//
// appendPreamble writes the first 8 bytes.
func appendPreamble(b []byte) []byte { return le.AppendUint16(append(b, magic...), version) }

// introduction is all of the above around a body.
func introduction(body []byte) []byte {
	b := append(appendPreamble(nil), make([]byte, frameHeader)...)
	putFrameHeader(b[preambleSize:], body)
	return append(b, body...)
}

// checkPreamble looks at the first bytes of a peer, of which there are less than preambleSize if it said no more.
func checkPreamble(b []byte) error {
	// A TLS record begins with its type, 20 to 23, and the major version, 3.
	if len(b) >= 2 && b[0] >= 20 && b[0] <= 23 && b[1] == 3 {
		return ErrPeerTLS
	}
	if n := min(len(b), len(magic)); string(b[:n]) != magic[:n] {
		return fmt.Errorf("%w: its first bytes are %q: check the address", ErrNotPeer, b)
	}
	if len(b) < preambleSize {
		return nil
	}
	if v := le.Uint16(b[len(magic):]); v != version {
		return fmt.Errorf("%w: the peer speaks version %d, this node version %d: upgrade the older one", ErrVersion, v, version)
	}
	return nil
}

func encodeHello(h Hello) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	return json.Marshal(h)
}

func parseHello(b []byte) (Hello, error) {
	var h Hello
	if err := json.Unmarshal(b, &h); err != nil {
		return Hello{}, fmt.Errorf("malformed hello: %w", err)
	}
	if err := h.check(); err != nil {
		return Hello{}, fmt.Errorf("malformed hello: %w", err)
	}
	return h, nil
}

func (h *Hello) check() error {
	if len(h.Name) > maxString || len(h.Address) > maxString {
		return fmt.Errorf("a name of %d and an address of %d bytes: at most %d each", len(h.Name), len(h.Address), maxString)
	}
	return nil
}

func encodeAnswer(h Hello) ([]byte, error) {
	text, err := encodeHello(h)
	return append([]byte{sayYes}, text...), err
}

func encodeRefusal(r *Refusal) ([]byte, error) {
	text, err := json.Marshal(r.bounded())
	return append([]byte{sayNo}, text...), err
}

// parseAnswer reads the server's frame. Its error is a *Refusal if that is what the server said.
func parseAnswer(b []byte) (Hello, error) {
	switch {
	case len(b) == 0:
		return Hello{}, errors.New("malformed answer: it is empty")
	case b[0] == sayYes:
		return parseHello(b[1:])
	case b[0] != sayNo:
		return Hello{}, fmt.Errorf("malformed answer: it is neither yes nor no, but %d", b[0])
	}
	var r Refusal
	if err := json.Unmarshal(b[1:], &r); err != nil {
		return Hello{}, fmt.Errorf("malformed refusal: %w", err)
	}
	r = r.bounded()
	return Hello{}, &r
}

// bounded makes a refusal fit for the wire, and for the operator's terminal: it may come from anybody.
func (r *Refusal) bounded() Refusal {
	clean := func(s string, most int) string {
		s = strings.ToValidUTF8(s[:min(len(s), most)], "")
		return strings.Map(func(c rune) rune {
			if !unicode.IsPrint(c) {
				return ' '
			}
			return c
		}, s)
	}
	return Refusal{Code: clean(r.Code, maxCode), Text: clean(r.Text, maxText), Had: r.Had}
}
