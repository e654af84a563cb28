package source

import (
	"fmt"
	"strings"

	"kingbus/internal/stream"
)

// Kind tells problems apart, for metrics and tests.
type Kind string

// The kinds of problems.
const (
	KindLogin        Kind = "login"         // wrong password, TLS, authentication method
	KindPrivilege    Kind = "privilege"     // the account lacks one
	KindVersion      Kind = "version"       // too old
	KindBinlogOff    Kind = "binlog-off"    // the source writes no binlog
	KindServerID     Kind = "server-id"     // same as ours, or 0
	KindServerUUID   Kind = "server-uuid"   // same as ours
	KindOtherSource  Kind = "other-source"  // not the server that was followed before
	KindBehind       Kind = "behind"        // the source lacks what the stream has
	KindLostHistory  Kind = "lost-history"  // the source purged what the stream lacks
	KindReset        Kind = "reset"         // the source's files are not those of before
	KindStart        Kind = "start"         // the start that was asked for is not there
	KindIdentityUsed Kind = "identity-used" // somebody else has our server id or uuid
	KindRefused      Kind = "refused"       // the source refuses to send, error 1236
	KindMalformed    Kind = "malformed"     // an event that must not be stored
	KindDiskFull     Kind = "disk-full"     // no room in the store
	KindSemiSync     Kind = "semi-sync"     // the source has none, and has to
)

// Problem is why the source cannot be followed, when that does not pass by
// itself. It is tried again, slowly, for as long as it lasts.
type Problem struct {
	Kind   Kind
	Reason string // what is wrong
	Action string // what to do
	// At are the source's coordinates that it is about; zero if there are none.
	At  stream.Coordinates
	Err error // what it came from, nil if our own finding
}

// Error gives reason, cause and action.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Reason)
	if p.At.File != "" {
		fmt.Fprintf(&b, " (at %s of the source)", p.At)
	}
	if p.Err != nil {
		fmt.Fprintf(&b, ": %v", p.Err)
	}
	if p.Action != "" {
		b.WriteString("; ")
		b.WriteString(p.Action)
	}
	return b.String()
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }
