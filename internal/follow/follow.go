// Package follow is about which source the cluster follows, and how: what CHANGE REPLICATION
// SOURCE, START REPLICA and STOP REPLICA say, kept in the settings of the cluster, on top of
// what each node has in its own.
package follow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// Key is that of the setting among the settings of the cluster.
const Key = "source"

// Setting is what the cluster has to say of its source. What is zero is as in the settings
// of each node.
type Setting struct {
	// Stopped: nobody follows the source.
	Stopped bool `json:"stopped,omitempty"`

	Host string `json:"host,omitempty"`
	Port uint16 `json:"port,omitempty"`
	User string `json:"user,omitempty"`
	// Password is kept as it is: it is needed to log in. MySQL does the same.
	Password  string        `json:"password,omitempty"`
	Heartbeat time.Duration `json:"heartbeat,omitempty"`
	// SSL and Verify are SOURCE_SSL and SOURCE_SSL_VERIFY_SERVER_CERT, "0" or "1", if they were
	// said: see TLSMode. CA, Cert and Key are files on each node.
	SSL    string `json:"ssl,omitempty"`
	Verify string `json:"verify,omitempty"`
	CA     string `json:"ca,omitempty"`
	Cert   string `json:"cert,omitempty"`
	Key    string `json:"key,omitempty"`
	// PublicKey: take the source's RSA key from itself, where there is no TLS; NoPublicKey:
	// do not. Neither: where that is not to be feared.
	PublicKey   bool `json:"public_key,omitempty"`
	NoPublicKey bool `json:"no_public_key,omitempty"`
	// Start is where an empty stream begins, as in source.ParseStart.
	Start string `json:"start,omitempty"`
	// Until is where to stop, as in source.ParseUntil; it stays when that was reached, and
	// Stopped is set.
	Until string `json:"until,omitempty"`
}

// Check tells what of it makes no sense.
func (s Setting) Check() error {
	const maxName, maxUser, maxPassword = 255, 96, 256
	for _, flag := range []string{s.SSL, s.Verify} {
		if flag != "" && flag != "0" && flag != "1" {
			return fmt.Errorf("%.16q is neither 0 nor 1", flag)
		}
	}
	for what, n := range map[string][2]int{"condition of UNTIL": {len(s.Until), 64 << 10}, "host": {len(s.Host), maxName}, "user": {len(s.User), maxUser}, "password": {len(s.Password), maxPassword},
		"name of a file": {max(len(s.CA), len(s.Cert), len(s.Key)), 1024}} {
		if n[0] > n[1] {
			return fmt.Errorf("the %s has %d bytes; %d are possible", what, n[0], n[1])
		}
	}
	for _, text := range []string{s.Host, s.User, s.Password, s.CA, s.Cert, s.Key, s.Start, s.Until} {
		if !utf8.ValidString(text) {
			return errors.New("it is not UTF-8: SET NAMES utf8mb4")
		}
	}
	if s.Heartbeat != 0 && (s.Heartbeat < time.Millisecond || s.Heartbeat > time.Hour) {
		return fmt.Errorf("a heartbeat period of %s: it is from 1ms to 1h", s.Heartbeat)
	}
	return nil
}

// TLSMode is that towards the source, on a node with a mode in its own settings, and perhaps a
// CA. That is only lowered by what says so: SSL = 0, or Verify = 0.
func (s Setting) TLSMode(node wire.TLSMode, hasCA bool) wire.TLSMode {
	hasCA = hasCA || s.CA != ""
	mode := node
	switch s.SSL {
	case "0":
		return wire.TLSDisabled
	case "1":
		if mode < wire.TLSRequired { // disabled comes after preferred
			mode = wire.TLSRequired
		}
	}
	if mode < wire.TLSRequired {
		return mode
	}
	if s.CA != "" {
		mode = max(mode, wire.TLSVerifyCA)
	}
	switch {
	case s.Verify == "1":
		mode = wire.TLSVerifyIdentity
	case s.Verify == "0" && mode == wire.TLSVerifyIdentity && hasCA:
		mode = wire.TLSVerifyCA
	case s.Verify == "0" && mode == wire.TLSVerifyIdentity:
		mode = wire.TLSRequired
	}
	return mode
}

// Decode reads a value of the settings; none is the zero Setting.
func Decode(b json.RawMessage) (Setting, error) {
	var s Setting
	if len(b) == 0 {
		return s, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("the source in the settings of the cluster: %w", err)
	}
	return s, s.Check()
}

// Encode returns the value for the settings; nothing to say is nil.
func (s Setting) Encode() json.RawMessage {
	if s == (Setting{}) {
		return nil
	}
	b, _ := json.Marshal(s) // cannot fail
	return b
}

// Store is the setting of the cluster as this node has it. It is safe for concurrent use.
type Store struct {
	settings stream.Keeper
	own      bool
	begun    func() bool
}

// NewStore returns one. own: this node's settings name a source; begun tells whether the
// binlog has files already.
func NewStore(settings stream.Keeper, own bool, begun func() bool) *Store {
	return &Store{settings, own, begun}
}

// Setting returns what holds at present, with the revision of the settings.
func (s *Store) Setting() (Setting, uint64, error) {
	now := s.settings.Settings()
	out, err := Decode(now.Values[Key])
	return out, now.Revision, err
}

// Await waits until the settings of the cluster have another revision.
func (s *Store) Await(ctx context.Context, after uint64) error {
	_, err := s.settings.AwaitSettings(ctx, after)
	return err
}

// decide changes the setting: once more, if somebody else does so at the same time. An error
// of decide is returned as it is.
func (s *Store) decide(ctx context.Context, decide func(Setting) (Setting, error)) error {
	return stream.Decide(ctx, s.settings, func(now stream.Settings) (map[string]json.RawMessage, error) {
		old, err := Decode(now.Values[Key])
		if err != nil {
			return nil, err
		}
		next, err := decide(old)
		if err != nil || next == old {
			return nil, err
		}
		return map[string]json.RawMessage{Key: next.Encode()}, next.Check()
	})
}
