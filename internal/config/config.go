// Package config is the one list of kingbus's settings. Flags, environment
// variables and the keys of the YAML file all come from it, so a setting has
// one name, one kind of value, one default and one help text everywhere:
//
//	flag         --mysql-listen 127.0.0.1:3307
//	environment  KINGBUS_MYSQL_LISTEN=127.0.0.1:3307
//	file         mysql-listen: 127.0.0.1:3307
//
// A flag wins over the environment, that over the file, that over the default.
// What is not in the list is an error, wherever it stands. Passwords come from
// files or from the environment, never from arguments or the YAML file, and no
// error and no String method of this package shows one.
package config

import (
	"fmt"
	"log/slog"
	"time"

	"kingbus/internal/semisync"
	"kingbus/internal/wire"
)

// Config is what the settings say. Its zero value is of no use; Load makes it.
type Config struct {
	DataDir     string
	MySQLListen string // host:port

	Admin   Admin
	Source  Source
	Replica Replica
	TLS     wire.TLSFiles // for replicas; no names = the keys of the data folder
	Peers   Peers

	Retain         Retain
	DiskReserve    uint64 // bytes
	MaxConnections int

	LogFormat       string // "text" or "json"
	LogLevel        slog.Level
	SlowCommit      time.Duration // 0: nobody is told of
	ShutdownTimeout time.Duration

	passwords map[string]setValue // settings that name a password or its file
}

// Source says where and how the binlog is pulled. Host is "" if there is no
// source: the node then serves what it has.
type Source struct {
	User, Host string
	Port       uint16
	Password   Secret
	TLS        wire.TLSMode
	TLSFiles   wire.TLSFiles
	// Start is where an empty stream begins, as source.ParseStart reads it.
	Start     string
	Heartbeat time.Duration
	SemiSync  semisync.Mode
	// Acknowledge is what an answer to the source waits for beside the quorum.
	Acknowledge semisync.ChainSettings
}

// Addr returns host:port, "" without a source. It never holds a password.
func (s Source) Addr() string {
	if s.Host == "" {
		return ""
	}
	return joinHostPort(s.Host, s.Port)
}

// Replica is the account with which replicas log in. User is "" if there is
// none: then nobody can.
type Replica struct {
	User     string
	Password Secret
	// SemiSync is what this node is as a semi-sync source.
	SemiSync semisync.WaitSettings
}

// Retain says what of the binlog is kept; zero values set no limit.
type Retain struct {
	Size  uint64 // bytes
	Age   time.Duration
	Force bool
}

// hidden is what a Secret shows of itself.
const hidden = "(hidden)"

// Secret is a password. It can be had with Reveal only, so that it does not get
// into a log, an error or a JSON text by accident.
type Secret struct{ text string }

// NewSecret wraps a password.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the password.
func (s Secret) Reveal() string { return s.text }

// IsZero tells whether there is no password.
func (s Secret) IsZero() bool { return s.text == "" }

// String hides the password.
func (s Secret) String() string { return hidden }

// GoString hides the password from %#v.
func (s Secret) GoString() string { return hidden }

// Format hides the password from every other verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// LogValue hides the password from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the password from JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
