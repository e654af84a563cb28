package server

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"kingbus/internal/account"
	"kingbus/internal/follow"
	"kingbus/internal/source"
	"kingbus/internal/sql"
	"kingbus/internal/wire"
)

// The statements about the link to the source.

// Error codes of MySQL's about replication (ER_…).
const (
	errBadReplica          = 1200
	errBadReplicaUntil     = 1277
	errMalformedGTIDSet    = 1772
	errHeartbeatRange      = 1624
	errIOThreadMustStop    = 3021
	errNoSuchChannel       = 3074
	errReplicaMustStop     = 3081
	errWrongValueForOption = 1210
)

// mayChangeSource checks what all of these statements need.
func (c *session) mayChangeSource(channel string) error {
	if err := c.may(account.Super); err != nil {
		return err
	}
	if c.server.cfg.Follow == nil {
		return wire.Errorf(wire.ErNotSupportedYet, "this kingbus cannot be told whom to follow")
	}
	if channel != "" {
		return wire.Errorf(errNoSuchChannel, "Replica channel '%s' does not exist.", clip(channel, 64))
	}
	return nil
}

// configured tells whether there is a source at all, of the cluster or of this node.
func (c *session) configured(s follow.Setting) bool {
	return s.Host != "" || c.server.cfg.Replication != nil && c.server.cfg.Replication() != nil
}

// follow carries out a change of what the cluster follows.
func (c *session) follow(ctx context.Context, what string, decide func(follow.Setting) (follow.Setting, error)) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	err := c.server.cfg.Follow.Change(ctx, decide)
	if err == nil {
		c.log.Info("the source is what a statement says", "statement", what)
	}
	return c.changed(err)
}

// replicaThreads is START REPLICA and STOP REPLICA. There is one thread: what comes is
// stored, and nothing is executed.
func (c *session) replicaThreads(ctx context.Context, st *sql.ReplicaThreads) error {
	if err := c.mayChangeSource(st.Channel); err != nil {
		return err
	}
	what := map[bool]string{false: "START REPLICA", true: "STOP REPLICA"}[st.Stop]
	if st.Login {
		return notSupported(what + " with USER and PASSWORD: say them with CHANGE REPLICATION SOURCE TO")
	}
	until, err := untilOf(st.Until)
	if err != nil {
		return err
	}
	return c.follow(ctx, what, func(s follow.Setting) (follow.Setting, error) {
		switch {
		case !st.Stop && !c.configured(s):
			return s, wire.Errorf(errBadReplica, "The server is not configured as replica; fix in config file or with CHANGE REPLICATION SOURCE TO")
		case !st.SQL || st.IO || until != "":
			s.Stopped = st.Stop
			if !st.Stop {
				s.Until = until
			}
		}
		return s, nil
	})
}

// untilOf reads UNTIL.
func untilOf(options []sql.SourceOption) (string, error) {
	bad := wire.Errorf(errBadReplicaUntil, "Incorrect parameter or combination of parameters for START REPLICA UNTIL")
	values := map[string]sql.Value{}
	for _, o := range options {
		if _, twice := values[o.Name]; twice {
			return "", bad
		}
		values[o.Name] = o.Value
	}
	var text string
	file, named := values["SOURCE_LOG_FILE"]
	pos, placed := values["SOURCE_LOG_POS"]
	n, number := pos.Uint64()
	after, isAfter := values["SQL_AFTER_GTIDS"]
	before, isBefore := values["SQL_BEFORE_GTIDS"]
	switch {
	case len(options) == 0:
		return "", nil
	case len(options) == 2 && named && placed && number:
		text = file.Text() + ":" + strconv.FormatUint(n, 10)
	case len(options) == 1 && isAfter:
		text = "after:" + after.Text()
	case len(options) == 1 && isBefore:
		text = "before:" + before.Text()
	case len(options) == 1 && options[0].Name == "SQL_AFTER_MTS_GAPS", strings.HasPrefix(options[0].Name, "RELAY_LOG_"):
		return "", notSupported("START REPLICA UNTIL " + options[0].Name)
	default:
		return "", bad
	}
	until, err := source.ParseUntil(text)
	if err != nil && (isAfter || isBefore) {
		return "", wire.Errorf(errMalformedGTIDSet, "Malformed GTID set specification '%s'.", clip(text[strings.IndexByte(text, ':')+1:], 128))
	}
	if err != nil {
		return "", bad
	}
	return until.String(), nil
}

// resetReplica is RESET REPLICA ALL: from then on each node's own settings say whom to
// follow, once somebody says START REPLICA.
func (c *session) resetReplica(ctx context.Context, st *sql.ResetReplica) error {
	if err := c.mayChangeSource(st.Channel); err != nil {
		return err
	}
	if !st.All {
		return wire.Errorf(wire.ErNotSupportedYet, "kingbus does not forget where it is: its binlog is what it has received. RESET REPLICA ALL forgets what CHANGE REPLICATION SOURCE has said")
	}
	return c.follow(ctx, "RESET REPLICA ALL", func(s follow.Setting) (follow.Setting, error) {
		if !s.Stopped && c.configured(s) {
			return s, wire.Errorf(errReplicaMustStop, "This operation cannot be performed with running replication threads; run STOP REPLICA FOR CHANNEL '' first")
		}
		return follow.Setting{Stopped: s.Stopped}, nil
	})
}

// changeSource is CHANGE REPLICATION SOURCE TO.
func (c *session) changeSource(ctx context.Context, st *sql.ChangeSource) error {
	if err := c.mayChangeSource(st.Channel); err != nil {
		return err
	}
	ch := sourceChange{begun: len(c.server.cfg.Stream.Status().Files) > 0}
	for _, o := range st.Options {
		if err := ch.take(o); err != nil {
			return err
		}
	}
	return c.follow(ctx, "CHANGE REPLICATION SOURCE TO", func(s follow.Setting) (follow.Setting, error) {
		if !s.Stopped && c.configured(s) {
			return s, wire.Errorf(errIOThreadMustStop, "This operation cannot be performed with a running replica io thread; run STOP REPLICA IO_THREAD FOR CHANNEL '' first.")
		}
		next := ch.on(s)
		if err := next.Check(); err != nil {
			return s, wire.Errorf(errWrongValueForOption, "%v", err)
		}
		return next, nil
	})
}

// sourceChange is what the options of CHANGE REPLICATION SOURCE say.
type sourceChange struct {
	begun   bool // there are binlog files already
	changes []func(*follow.Setting)
}

func (ch *sourceChange) do(f func(*follow.Setting)) { ch.changes = append(ch.changes, f) }

// on applies it.
func (ch *sourceChange) on(s follow.Setting) follow.Setting {
	for _, f := range ch.changes {
		f(&s)
	}
	s.Stopped = true // as with MySQL somebody has to say START REPLICA
	return s
}

// harmless are options that change nothing here, with the values that mean just that.
var harmless = map[string][]string{
	"SOURCE_AUTO_POSITION": {"0", "1"}, // it asks by GTID where it can
	"SOURCE_DELAY":         {"0"}, "IGNORE_SERVER_IDS": {"()"}, "SOURCE_BIND": {""}, "NETWORK_NAMESPACE": {""}, "PRIVILEGE_CHECKS_USER": {"NULL"},
	"REQUIRE_ROW_FORMAT": {"0"}, "SOURCE_CONNECTION_AUTO_FAILOVER": {"0"}, "GTID_ONLY": {"0", "1"}, "ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS": {"OFF"},
	"SOURCE_COMPRESSION_ALGORITHMS": {"uncompressed"}, "REQUIRE_TABLE_PRIMARY_KEY_CHECK": {"STREAM", "ON", "OFF", "GENERATE"}, "SOURCE_USE_GTID": {"NO"},
	"SOURCE_SSL_CAPATH": {""}, "SOURCE_SSL_CIPHER": {""}, "SOURCE_SSL_CRL": {""}, "SOURCE_SSL_CRLPATH": {""}, "SOURCE_TLS_CIPHERSUITES": {"NULL", ""}, "SOURCE_PUBLIC_KEY_PATH": {""},
}

// refusedOptions are options of MySQL's that cannot be honoured, with the reason.
var refusedOptions = map[string]string{
	"SOURCE_CONNECT_RETRY": "it tries again by itself, for ever", "SOURCE_RETRY_COUNT": "it tries again by itself, for ever",
	"SOURCE_LOG_POS": "files are kept whole, so it begins at position 4 of SOURCE_LOG_FILE, and goes on where it is", "RELAY_LOG_FILE": "it has no relay log beside its binlog", "RELAY_LOG_POS": "it has no relay log beside its binlog",
	"SOURCE_TLS_VERSION": "--source-tls-min-version of each node says it", "SOURCE_ZSTD_COMPRESSION_LEVEL": "it does not compress the connection",
	"SOURCE_DELAY": "it stores what comes at once; delay the replicas", "IGNORE_SERVER_IDS": "it keeps the binlog whole; ignore them on the replicas", "SOURCE_USE_GTID": "it follows MariaDB by file and position",
}

// take reads an option.
func (ch *sourceChange) take(o sql.SourceOption) error {
	text := strings.Clone(o.Value.Text())
	if o.Value.IsNull() {
		text = "NULL"
	}
	for _, value := range harmless[o.Name] {
		if text == value {
			return nil
		}
	}
	wrong := func() error {
		return wire.Errorf(errWrongValueForOption, "Incorrect arguments to %s: '%s'", o.Name, clip(text, 64))
	}
	flag := func(set func(s *follow.Setting)) error {
		if text != "0" && text != "1" {
			return wrong()
		}
		ch.do(set)
		return nil
	}
	switch o.Name {
	case "SOURCE_HOST":
		if text == "" {
			return wrong()
		}
		ch.do(func(s *follow.Setting) { s.Host = text })
	case "SOURCE_PORT":
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return wrong()
		}
		ch.do(func(s *follow.Setting) { s.Port = uint16(n) })
	case "SOURCE_USER":
		ch.do(func(s *follow.Setting) { s.User = text })
	case "SOURCE_PASSWORD":
		ch.do(func(s *follow.Setting) { s.Password = text })
	case "SOURCE_HEARTBEAT_PERIOD":
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || seconds < 0.001 || seconds > 3600 {
			return wire.Errorf(errHeartbeatRange, "The requested value for the heartbeat period is either negative or exceeds the maximum allowed (3600 seconds), or is 0: kingbus needs heartbeats.")
		}
		ch.do(func(s *follow.Setting) { s.Heartbeat = time.Duration(seconds * float64(time.Second)) })
	case "SOURCE_LOG_FILE":
		if ch.begun {
			return wire.Errorf(wire.ErNotSupportedYet, "kingbus goes on where its binlog ends: leave SOURCE_LOG_FILE out")
		}
		ch.do(func(s *follow.Setting) { s.Start = text })
	case "SOURCE_SSL":
		return flag(func(s *follow.Setting) { s.SSL = text })
	case "SOURCE_SSL_VERIFY_SERVER_CERT":
		return flag(func(s *follow.Setting) { s.Verify = text })
	case "SOURCE_SSL_CA":
		ch.do(func(s *follow.Setting) { s.CA = text })
	case "SOURCE_SSL_CERT":
		ch.do(func(s *follow.Setting) { s.Cert = text })
	case "SOURCE_SSL_KEY":
		ch.do(func(s *follow.Setting) { s.Key = text })
	case "GET_SOURCE_PUBLIC_KEY":
		return flag(func(s *follow.Setting) { s.PublicKey, s.NoPublicKey = text == "1", text == "0" })
	default:
		if why := refusedOptions[o.Name]; why != "" {
			return wire.Errorf(wire.ErNotSupportedYet, "kingbus does not support %s: %s", o.Name, why)
		}
		if _, known := harmless[o.Name]; known {
			return wire.Errorf(wire.ErNotSupportedYet, "kingbus does not support %s", fmt.Sprintf("%s = %s", o.Name, clip(text, 64)))
		}
		return wire.Errorf(wire.ErParse, "You have an error in your SQL syntax: there is no option %s", clip(o.Name, 64))
	}
	return nil
}
