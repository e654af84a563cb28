package config

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"kingbus/internal/semisync"
	"kingbus/internal/wire"
)

// Setting is one entry of the list.
type Setting struct {
	// Key is the name: --key, KINGBUS_KEY with '_' for '-', and key in the file.
	Key string
	// Value names the kind of value, for help texts: ADDR, FILE, SIZE …
	Value string
	// Default is the text form of the default.
	Default string
	Help    string
	// Switch settings need no value as a flag.
	Switch bool
	// Secret settings exist in the environment only.
	Secret bool
	// Command settings mean nothing to a node, only to the commands that ask one.
	Command bool

	set func(c *Config, v setValue) error
}

// Env returns the name of the environment variable.
func (s Setting) Env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.Key, "-", "_"))
}

const envPrefix = "KINGBUS_"

// Settings returns the list, in the order of the help text.
func Settings() []Setting {
	return []Setting{
		{Key: "data-dir", Value: "DIR", Help: "folder that holds everything kingbus keeps; made if it is not there",
			set: text(func(c *Config) *string { return &c.DataDir })},
		{Key: "mysql-listen", Value: "ADDR", Default: "127.0.0.1:3307", Help: "address for replicas, mysqlbinlog and CDC clients",
			set: address(func(c *Config) *string { return &c.MySQLListen })},
		{Key: "admin-listen", Value: "ADDR", Default: "127.0.0.1:8307", Help: "address of the HTTP API, metrics and health checks; without --admin-tls-cert it must be a loopback address",
			set: address(func(c *Config) *string { return &c.Admin.Listen })},
		{Key: "admin-token-file", Value: "FILE", Help: "file with the token that the HTTP API asks for; if not given, one is made at the first start, DIR/keys/admin-token",
			set: text(func(c *Config) *string { return &c.Admin.TokenFile })},
		{Key: "admin-tls-cert", Value: "FILE", Help: "certificate (PEM) of the HTTP API, which speaks TLS then; a command that is given --admin shows it to the node",
			set: text(func(c *Config) *string { return &c.Admin.TLS.Cert })},
		{Key: "admin-tls-key", Value: "FILE", Help: "key (PEM) of that certificate",
			set: text(func(c *Config) *string { return &c.Admin.TLS.Key })},
		{Key: "admin-tls-ca", Value: "FILE", Help: "certificates (PEM) of an authority: who shows the HTTP API a certificate of it needs no token, so it signs those of administrators only; a command that is given --admin trusts nodes with a certificate of it, or without this setting, of the authorities of the machine",
			set: text(func(c *Config) *string { return &c.Admin.TLS.CA })},
		{Key: "admin", Value: "URL", Command: true, Help: "HTTP API that a command asks: https://HOST:PORT, or with http a loopback address; if not given, that of the node that runs here, --admin-listen",
			set: optional(adminURL)},

		{Key: "node-name", Value: "NAME", Help: "name of this node in its cluster: 1 to 64 letters, digits, dots, underscores and dashes; if not given, the host's name up to the first dot",
			set: nodeName},
		{Key: "peer-listen", Value: "ADDR", Help: "address for the other nodes of the cluster, like 10.0.0.1:8407; without one, this node has none",
			set: optional(address(func(c *Config) *string { return &c.Peers.Listen }))},
		{Key: "peer-advertise", Value: "HOST:PORT", Help: "where the other nodes reach this one; if not given, what --initial-cluster says of it, or the --peer-listen address",
			set: optional(peerAddress)},
		{Key: "initial-cluster", Value: "NAME=HOST:PORT,…", Help: "all nodes with which a new cluster begins, this one among them, the same list on each; it means nothing to a folder that belongs to a cluster, so it can stay",
			set: optional(initialCluster)},
		{Key: "join", Default: "false", Switch: true, Help: "an empty data folder waits until \"kingbus node add\" takes it into a cluster; it means nothing to a folder that belongs to one, so it can stay",
			set: boolean(func(c *Config) *bool { return &c.Peers.Join })},
		{Key: "peer-cert", Value: "FILE", Help: "certificate (PEM) to show to other nodes, as a server and as a client; with it, peers are authenticated and encrypted",
			set: text(func(c *Config) *string { return &c.Peers.TLS.Cert })},
		{Key: "peer-key", Value: "FILE", Help: "key (PEM) of that certificate",
			set: text(func(c *Config) *string { return &c.Peers.TLS.Key })},
		{Key: "peer-ca", Value: "FILE", Help: "certificates (PEM) of the authority that signs those of all nodes, and of nobody else",
			set: text(func(c *Config) *string { return &c.Peers.TLS.CA })},
		{Key: "heartbeat", Value: "DURATION", Default: "100ms", Help: "how often the leader shows the other nodes that it is there; the same on all nodes",
			set: duration(func(c *Config) *time.Duration { return &c.Peers.Heartbeat }, 5*time.Millisecond, time.Minute)},
		{Key: "election-timeout", Value: "DURATION", Default: "1s", Help: "how long the leader may be silent before the others elect a new one; at least five times the heartbeat, more in a slow network",
			set: duration(func(c *Config) *time.Duration { return &c.Peers.Election }, 10*time.Millisecond, 10*time.Minute)},

		{Key: "source", Value: "URL", Help: "server to pull the binlog from: mysql://USER@HOST:PORT; without one, kingbus serves what it has",
			set: setSource},
		{Key: "source-password-file", Value: "FILE", Help: "file with the password of the source's user (or set KINGBUS_SOURCE_PASSWORD)", set: password},
		{Key: "source-password", Secret: true, Help: "password of the source's user", set: password},
		{Key: "source-tls", Value: "MODE", Default: "preferred", Help: "disabled, preferred, required, verify-ca or verify-identity; \"preferred\" works with every server and uses TLS where the server has it, only the verify modes keep off an attacker on the way",
			set: func(c *Config, v setValue) (err error) {
				c.Source.TLS, err = wire.ParseTLSMode(v.text)
				return unwire(err)
			}},
		{Key: "source-tls-ca", Value: "FILE", Help: "certificates (PEM) of the authorities that may sign the source's",
			set: text(func(c *Config) *string { return &c.Source.TLSFiles.CA })},
		{Key: "source-tls-cert", Value: "FILE", Help: "certificate (PEM) to show to the source",
			set: text(func(c *Config) *string { return &c.Source.TLSFiles.Cert })},
		{Key: "source-tls-key", Value: "FILE", Help: "key (PEM) of that certificate",
			set: text(func(c *Config) *string { return &c.Source.TLSFiles.Key })},
		{Key: "source-tls-min-version", Value: "VERSION", Default: "1.2", Help: "oldest TLS version to speak with the source: 1.0, 1.1, 1.2 or 1.3; MySQL 5.5 and 5.6 may need 1.0",
			set: func(c *Config, v setValue) (err error) {
				c.Source.TLSFiles.MinVersion, err = parseTLSVersion(v.text)
				return err
			}},
		{Key: "source-heartbeat", Value: "DURATION", Default: "5s", Help: "how long the source may be silent before it has to send a heartbeat; after four times that the connection is renewed",
			set: duration(func(c *Config) *time.Duration { return &c.Source.Heartbeat }, time.Millisecond*100, time.Hour)},
		{Key: "semi-sync", Value: "MODE", Default: "auto", Help: "whether to acknowledge to the source what a quorum of nodes has on stable storage (semi-synchronous replication): auto (if the source offers it), on (a source without it is not followed) or off",
			set: func(c *Config, v setValue) (err error) {
				c.Source.SemiSync, err = semisync.ParseMode(v.text)
				return err
			}},
		{Key: "start", Value: "WHERE", Default: "oldest", Help: "where an empty data folder begins: oldest, current, the name of a binlog file, or gtid:SET (behind these transactions); one that has begun goes on where it was",
			set: text(func(c *Config) *string { return &c.Source.Start })},

		{Key: "replica-user", Value: "NAME", Help: "user with which replicas log in",
			set: func(c *Config, v setValue) error {
				if strings.IndexByte(v.text, 0) >= 0 || len(v.text) > 96 {
					return fmt.Errorf("a user name has at most 96 bytes, and no NUL")
				}
				c.Replica.User = v.text
				return nil
			}},
		{Key: "acknowledge", Value: "WHAT", Default: "quorum", Help: "what an acknowledgement to the source means: quorum (a majority of the nodes has it on stable storage), or quorum+N (and N semi-synchronous replicas of kingbus, on whichever nodes, have received it); the same on all nodes",
			set: func(c *Config, v setValue) (err error) {
				c.Source.Acknowledge.Replicas, err = semisync.ParseAcknowledge(v.text)
				return err
			}},
		{Key: "acknowledge-timeout", Value: "DURATION", Default: "10s", Help: "how long these replicas may take",
			set: duration(func(c *Config) *time.Duration { return &c.Source.Acknowledge.Timeout }, time.Millisecond, 100*24*time.Hour)},
		{Key: "acknowledge-on-timeout", Value: "POLICY", Default: "degrade", Help: "what happens when they take longer: degrade (the quorum is enough until they have caught up) or hold (the source waits for them, for ever)",
			set: func(c *Config, v setValue) (err error) {
				c.Source.Acknowledge.Policy, err = semisync.ParsePolicy(v.text)
				return err
			}},
		{Key: "replica-semi-sync", Default: "true", Switch: true, Help: "whether semi-synchronous replicas find a semi-sync source here: whether what they acknowledge is waited for and counted",
			set: boolean(func(c *Config) *bool { return &c.Replica.SemiSync.Enabled })},
		{Key: "replica-semi-sync-timeout", Value: "DURATION", Default: "10s", Help: "after what time without an acknowledgement of its replicas this node falls back to asynchronous replication (rpl_semi_sync_source_timeout)",
			set: duration(func(c *Config) *time.Duration { return &c.Replica.SemiSync.Timeout }, time.Millisecond, 100*24*time.Hour)},
		{Key: "replica-semi-sync-count", Value: "N", Default: "1", Help: "how many replicas have to acknowledge (rpl_semi_sync_source_wait_for_replica_count)",
			set: number(func(c *Config) *int { return &c.Replica.SemiSync.Replicas }, 1, 65535)},
		{Key: "replica-semi-sync-no-replica", Default: "true", Switch: true, Help: "whether to wait for the timeout although fewer replicas than that are connected (rpl_semi_sync_source_wait_no_replica)",
			set: boolean(func(c *Config) *bool { return &c.Replica.SemiSync.NoReplica })},
		{Key: "replica-password-file", Value: "FILE", Help: "file with that user's password (or set KINGBUS_REPLICA_PASSWORD)", set: password},
		{Key: "replica-password", Secret: true, Help: "password with which replicas log in", set: password},
		{Key: "tls-cert", Value: "FILE", Help: "certificate (PEM) to show to replicas; if not given, one is made at the first start, in DIR/keys",
			set: text(func(c *Config) *string { return &c.TLS.Cert })},
		{Key: "tls-key", Value: "FILE", Help: "key (PEM) of that certificate",
			set: text(func(c *Config) *string { return &c.TLS.Key })},
		{Key: "max-connections", Value: "N", Default: "1000", Help: "connections of replicas and clients at the same time",
			set: number(func(c *Config) *int { return &c.MaxConnections }, 1, 1_000_000)},

		{Key: "retain-size", Value: "SIZE", Default: "0", Help: "how much binlog to keep, like 500GB or 64MiB; whole files are removed while at least that much stays; 0 = no limit",
			set: size(func(c *Config) *uint64 { return &c.Retain.Size })},
		{Key: "retain-age", Value: "DURATION", Default: "0", Help: "how long to keep a binlog file after its last event, like 168h; 0 = for ever",
			set: duration(func(c *Config) *time.Duration { return &c.Retain.Age }, 0, 1<<62)},
		{Key: "retain-force", Default: "false", Switch: true, Help: "remove files also while a connected replica still needs them",
			set: boolean(func(c *Config) *bool { return &c.Retain.Force })},
		{Key: "disk-reserve", Value: "SIZE", Default: "64MiB", Help: "free disk space that events must leave; kingbus pauses the source when it is reached, and goes on by itself when there is room",
			set: size(func(c *Config) *uint64 { return &c.DiskReserve })},

		{Key: "log-format", Value: "FORMAT", Default: "text", Help: "text or json",
			set: func(c *Config, v setValue) error {
				if v.text != "text" && v.text != "json" {
					return fmt.Errorf("%q is neither text nor json", v.text)
				}
				c.LogFormat = v.text
				return nil
			}},
		{Key: "log-level", Value: "LEVEL", Default: "info", Help: "debug, info, warn or error",
			set: func(c *Config, v setValue) (err error) { c.LogLevel, err = parseLevel(v.text); return err }},
		{Key: "slow-commit", Value: "DURATION", Default: "1s", Help: "the log tells of transactions that take longer from their receipt until a quorum has them, or until they are acknowledged to the source, with where the time went; 0 = of none",
			set: duration(func(c *Config) *time.Duration { return &c.SlowCommit }, 0, 24*time.Hour)},
		{Key: "shutdown-timeout", Value: "DURATION", Default: "10s", Help: "how long a stop may take before it is enforced",
			set: duration(func(c *Config) *time.Duration { return &c.ShutdownTimeout }, time.Second, time.Hour)},
	}
}

// unwire takes the package name off an error that an operator reads.
func unwire(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "wire: "))
}

func parseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("%q is not one of debug, info, warn, error", s)
}
