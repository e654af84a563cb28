package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

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

// follow carries out a change of what the cluster follows. running is MySQL's refusal of it
// while the source is followed.
func (c *session) follow(ctx context.Context, what string, running error, change func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	err := change(ctx)
	var value *follow.ValueError
	switch {
	case err == nil:
		c.log.Info("the source is what a statement says", "statement", what)
	case errors.Is(err, follow.ErrFollowed): // as it stands in MySQL
		c.sql.Note(sql.Errorf(3083, "HY000", "Replication thread(s) for channel '' are already runnning."))
		return nil
	case errors.Is(err, follow.ErrStopped):
		c.sql.Note(sql.Errorf(3084, "HY000", "Replication thread(s) for channel '' are already stopped."))
		return nil
	case errors.Is(err, follow.ErrRunning):
		return running
	case errors.Is(err, follow.ErrNoSource):
		return errNoSource
	case errors.Is(err, follow.ErrBegun):
		return wire.Errorf(wire.ErNotSupportedYet, "kingbus goes on where its binlog ends: leave SOURCE_LOG_FILE out")
	case errors.As(err, &value):
		return wire.Errorf(errWrongValueForOption, "%v", value)
	}
	return c.changed(err)
}

var (
	errNoSource     = wire.Errorf(errBadReplica, "The server is not configured as replica; fix in config file or with CHANGE REPLICATION SOURCE TO")
	errFollows      = wire.Errorf(errIOThreadMustStop, "This operation cannot be performed with a running replica io thread; run STOP REPLICA IO_THREAD FOR CHANNEL '' first.")
	errFollowsReset = wire.Errorf(errReplicaMustStop, "This operation cannot be performed with running replication threads; run STOP REPLICA FOR CHANNEL '' first")
)

// replicaThreads is START REPLICA and STOP REPLICA. There is one thread: what comes is
// stored, and nothing is executed.
func (c *session) replicaThreads(ctx context.Context, st *sql.ReplicaThreads) error {
	if err := c.mayChangeSource(st.Channel); err != nil {
		return err
	}
	what, change := "START REPLICA", c.server.cfg.Follow.Stop
	if st.Stop {
		what = "STOP REPLICA"
	}
	if st.Login {
		return notSupported(what + " with USER and PASSWORD: say them with CHANGE REPLICATION SOURCE TO")
	}
	until, err := untilOf(st.Until)
	if err != nil {
		return err
	}
	if st.SQL && !st.IO && until == "" { // the thread that there is not
		if configured, err := c.server.cfg.Follow.Configured(); err != nil || configured || st.Stop {
			return err
		}
		return errNoSource
	}
	if !st.Stop {
		change = func(ctx context.Context) error { return c.server.cfg.Follow.Start(ctx, until) }
	}
	return c.follow(ctx, what, nil, change)
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

// resetReplica is RESET REPLICA ALL.
func (c *session) resetReplica(ctx context.Context, st *sql.ResetReplica) error {
	if err := c.mayChangeSource(st.Channel); err != nil {
		return err
	}
	if !st.All {
		return wire.Errorf(wire.ErNotSupportedYet, "kingbus does not forget where it is: its binlog is what it has received. RESET REPLICA ALL forgets what CHANGE REPLICATION SOURCE has said")
	}
	return c.follow(ctx, "RESET REPLICA ALL", errFollowsReset, c.server.cfg.Follow.Reset)
}

// changeSource is CHANGE REPLICATION SOURCE TO.
func (c *session) changeSource(ctx context.Context, st *sql.ChangeSource) error {
	if err := c.mayChangeSource(st.Channel); err != nil {
		return err
	}
	var ch follow.Change
	for _, o := range st.Options {
		if err := takeOption(&ch, o); err != nil {
			return err
		}
	}
	return c.follow(ctx, "CHANGE REPLICATION SOURCE TO", errFollows, func(ctx context.Context) error { return c.server.cfg.Follow.Change(ctx, ch) })
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

// takeOption reads an option.
func takeOption(ch *follow.Change, o sql.SourceOption) error {
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
	flag := func(to **bool) error {
		if text != "0" && text != "1" {
			return wrong()
		}
		is := text == "1"
		*to = &is
		return nil
	}
	switch o.Name {
	case "SOURCE_HOST":
		if text == "" {
			return wrong()
		}
		ch.Host = &text
	case "SOURCE_PORT":
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return wrong()
		}
		port := uint16(n)
		ch.Port = &port
	case "SOURCE_USER":
		ch.User = &text
	case "SOURCE_PASSWORD":
		ch.Password = &text
	case "SOURCE_HEARTBEAT_PERIOD":
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || seconds < 0.001 || seconds > 3600 {
			return wire.Errorf(errHeartbeatRange, "The requested value for the heartbeat period is either negative or exceeds the maximum allowed (3600 seconds), or is 0: kingbus needs heartbeats.")
		}
		ch.HeartbeatSeconds = &seconds
	case "SOURCE_LOG_FILE":
		ch.Start = &text
	case "SOURCE_SSL":
		return flag(&ch.SSL)
	case "SOURCE_SSL_VERIFY_SERVER_CERT":
		return flag(&ch.SSLVerify)
	case "SOURCE_SSL_CA":
		ch.SSLCA = &text
	case "SOURCE_SSL_CERT":
		ch.SSLCert = &text
	case "SOURCE_SSL_KEY":
		ch.SSLKey = &text
	case "GET_SOURCE_PUBLIC_KEY":
		return flag(&ch.GetPublicKey)
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
