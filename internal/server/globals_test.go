package server

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"kingbus/internal/semisync"
	"kingbus/internal/stream"
	"kingbus/internal/variable"
	"kingbus/internal/wire"
)

// globals are the variables of a rig, with a semi-sync source that they change.
type globals struct {
	*variable.Store
	waits *semisync.Source
}

// newGlobalsRig has an administrator, root, and variables that are as a fresh MySQL's.
func newGlobalsRig(t *testing.T) (*rig, *globals) {
	t.Helper()
	g := &globals{}
	r := newUsersRigWith(t, func(c *Config) {
		s := c.Stream.(binlogStream).Stream
		own := variable.Values{
			Retention: stream.Retention{Age: 2592000 * time.Second}, SemiSync: semisync.ModeOff, Acknowledge: semisync.ChainSettings{Timeout: time.Second, Policy: semisync.PolicyHold},
			Waits: semisync.WaitSettings{Timeout: 10 * time.Second, Replicas: 1, NoReplica: true},
		}
		g.Store, g.waits = variable.NewStore(s, own), semisync.NewSource(own.Waits, s, slog.New(slog.DiscardHandler))
		t.Cleanup(g.waits.Close)
		c.Globals, c.Status = g.Store, g.waits.StatusVariables
	})
	return r, g
}

// TestGlobalsSame: what sets variables and plugins ends on kingbus as on a real 9.7, and has
// the same effect.
func TestGlobalsSame(t *testing.T) {
	rec := newRecording(t)
	r, g := newGlobalsRig(t)
	rec.feed(r, 1<<16)
	exec(t, rec.inst, "CREATE USER root@'%' IDENTIFIED BY '"+strings.ReplaceAll(testPassword, "'", "''")+"'; GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION; CREATE USER u IDENTIFIED BY 'u'; GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO u")
	a, b := dial(t, rec.inst.Addr(), "root", testPassword, wire.TLSRequired), dial(t, r.addr, "root", testPassword, wire.TLSRequired)
	defer a.Close()
	defer b.Close()
	if _, got := answerText(t, b, "CREATE USER u IDENTIFIED BY 'u'"); got != "" {
		t.Fatal(got)
	}
	both := func(a, b *wire.Client, s string) {
		t.Helper()
		wantColumns, want := answerText(t, a, s)
		columns, got := answerText(t, b, s)
		v := g.Values()
		g.waits.Configure(v.Waits, v.Acknowledge.Replicas > 0)
		if got != want {
			t.Errorf("%s:\n kingbus %s\n 9.7     %s", s, got, want)
		}
		if columns != wantColumns {
			t.Errorf("%s: columns\n kingbus %s\n 9.7     %s", s, columns, wantColumns)
		}
	}
	plugins := "SHOW PLUGINS WHERE Name LIKE 'rpl%'"
	semi := "SHOW VARIABLES WHERE Variable_name IN ('rpl_semi_sync_source_enabled', 'rpl_semi_sync_source_timeout', 'rpl_semi_sync_source_wait_for_replica_count', 'rpl_semi_sync_source_wait_no_replica', 'rpl_semi_sync_source_wait_point', 'rpl_semi_sync_source_trace_level')"
	status := "SHOW STATUS WHERE Variable_name IN ('Rpl_semi_sync_source_status', 'Rpl_semi_sync_source_clients', 'Rpl_semi_sync_source_no_times', 'Rpl_semi_sync_source_no_tx')"
	for _, s := range []string{
		plugins,
		"INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_replica.so'",
		"UNINSTALL PLUGIN rpl_semi_sync_source", "UNINSTALL PLUGIN nosuch",
		"SELECT @@global.binlog_expire_logs_seconds, @@binlog_expire_logs_seconds",
		"SET GLOBAL binlog_expire_logs_seconds = 3600", "SELECT @@global.binlog_expire_logs_seconds", "SHOW GLOBAL VARIABLES LIKE 'binlog_expire_logs_seconds'",
		"SET PERSIST binlog_expire_logs_seconds = 7200", "SELECT @@binlog_expire_logs_seconds", "SET @@persist.binlog_expire_logs_seconds = 7201", "SELECT @@binlog_expire_logs_seconds",
		"SET binlog_expire_logs_seconds = 1", "SET SESSION binlog_expire_logs_seconds = 1", "SET GLOBAL binlog_expire_logs_seconds = 'x'", "SET GLOBAL binlog_expire_logs_seconds = 1.5",
		"SET GLOBAL binlog_expire_logs_seconds = 5, @a = 3, GLOBAL nosuch = 1", "SELECT @@binlog_expire_logs_seconds, @a",
		"SET @a = 4, GLOBAL binlog_expire_logs_seconds = @@binlog_expire_logs_seconds + 1, SESSION sql_mode = ''", "SELECT @@binlog_expire_logs_seconds, @a, @@sql_mode",
		"SET GLOBAL binlog_expire_logs_seconds = DEFAULT", "SELECT @@binlog_expire_logs_seconds",
		"RESET PERSIST nosuch", "RESET PERSIST IF EXISTS nosuch", "RESET PERSIST", "RESET PERSIST read_only now",
		"SET GLOBAL server_uuid = 'x'", "SET GLOBAL gtid_executed = ''", "SET PERSIST nosuch = 1",
		"INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'",
	} {
		both(a, b, s)
	}
	// What MySQL has switched off when it has just been installed.
	if _, got := answerText(t, a, "SET GLOBAL rpl_semi_sync_source_enabled = 1"); got != "" {
		t.Fatal(got)
	}
	for _, s := range []string{
		plugins, "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'", semi, status,
		"SET GLOBAL rpl_semi_sync_source_timeout = 250, GLOBAL rpl_semi_sync_source_wait_for_replica_count = 2", semi, status,
		"SET GLOBAL rpl_semi_sync_source_wait_for_replica_count = 0", "SHOW WARNINGS", "SELECT @@warning_count, @@error_count", "SHOW COUNT(*) WARNINGS",
		"SET GLOBAL rpl_semi_sync_source_wait_for_replica_count = 100000", "SHOW WARNINGS", "SHOW ERRORS", "DO 1", "SHOW WARNINGS", semi,
		"SET GLOBAL binlog_expire_logs_seconds = -1, GLOBAL rpl_semi_sync_source_timeout = 99999999999", "SHOW WARNINGS", "SHOW WARNINGS LIMIT 1, 1", "SET GLOBAL binlog_expire_logs_seconds = DEFAULT, GLOBAL rpl_semi_sync_source_timeout = 250",
		"SET GLOBAL nosuch = 1", "SHOW WARNINGS", "SHOW ERRORS",
		"SET GLOBAL rpl_semi_sync_source_wait_for_replica_count = 1", "SET GLOBAL rpl_semi_sync_source_wait_no_replica = OFF", status, "SET GLOBAL rpl_semi_sync_source_wait_no_replica = 0", status,
		"SET GLOBAL rpl_semi_sync_source_wait_no_replica = ON", status, "SET GLOBAL rpl_semi_sync_source_enabled = maybe", "SET GLOBAL rpl_semi_sync_source_enabled = OFF", status,
		"SET GLOBAL rpl_semi_sync_source_enabled = OFF", status, "SET GLOBAL rpl_semi_sync_source_enabled = TRUE", status, semi,
		"SET GLOBAL rpl_semi_sync_source_wait_no_replica = 0", status, "SET GLOBAL rpl_semi_sync_source_enabled = 0", status, "SET GLOBAL rpl_semi_sync_source_enabled = 1", status,
		"UNINSTALL PLUGIN RPL_semi_sync_source", plugins,
	} {
		both(a, b, s)
	}
	ua, ub := dial(t, rec.inst.Addr(), "u", "u", wire.TLSRequired), dial(t, r.addr, "u", "u", wire.TLSRequired)
	defer ua.Close()
	defer ub.Close()
	for _, s := range []string{
		"SET GLOBAL binlog_expire_logs_seconds = 1", "SET PERSIST binlog_expire_logs_seconds = 1", "SELECT @@global.binlog_expire_logs_seconds",
		"INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'", "UNINSTALL PLUGIN rpl_semi_sync_source",
	} {
		both(ua, ub, s)
	}
}
