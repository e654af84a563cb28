package server

import (
	"fmt"
	"strings"
	"testing"

	"kingbus/internal/follow"
	"kingbus/internal/source"
	"kingbus/internal/wire"
)

// newFollowRig has an administrator, and a source that can be chosen. host is that of the
// node's own settings, "" if it has none.
func newFollowRig(t *testing.T, host string) (*rig, *follow.Store) {
	t.Helper()
	var store *follow.Store
	r := newUsersRigWith(t, func(c *Config) {
		b := c.Stream.(binlogStream).Stream
		store = follow.NewStore(b, host != "", func() bool { return len(b.Status().Files) > 0 })
		c.Follow = store
		c.Replication = func() *Replication {
			s, _, err := store.Setting()
			if err != nil || s.Host == "" && host == "" {
				return nil
			}
			until, err := source.ParseUntil(s.Until)
			if err != nil {
				t.Error(err)
			}
			return &Replication{Host: host, Until: until}
		}
	})
	return r, store
}

// TestChangeSourceSame: the statements end on kingbus as on a real 9.7.
func TestChangeSourceSame(t *testing.T) {
	rec := newRecording(t)
	r, _ := newFollowRig(t, "")
	exec(t, rec.inst, "CREATE USER root@'%' IDENTIFIED BY '"+strings.ReplaceAll(testPassword, "'", "''")+"'; GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION")
	a, b := dial(t, rec.inst.Addr(), "root", testPassword, wire.TLSRequired), dial(t, r.addr, "root", testPassword, wire.TLSRequired)
	defer a.Close()
	defer b.Close()
	for i, s := range []string{
		"START REPLICA", "STOP REPLICA", "START REPLICA FOR CHANNEL 'c'", "STOP REPLICA FOR CHANNEL 'c'", "RESET REPLICA ALL FOR CHANNEL 'c'",
		"CHANGE REPLICATION SOURCE TO", "CHANGE REPLICATION SOURCE TO SOURCE_HOST", "START REPLICA IO_THREAD,",
		"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=1, SOURCE_USER='u', SOURCE_PASSWORD='p', SOURCE_SSL=1, SOURCE_AUTO_POSITION=1",
		"START REPLICA", "START REPLICA", "START REPLICA UNTIL SQL_AFTER_GTIDS='3e11fa47-71ca-11e1-9e33-c80aa9429562:1'", "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.2'", "RESET REPLICA ALL",
		"STOP REPLICA", "STOP REPLICA",
		"START REPLICA UNTIL", "START REPLICA UNTIL SOURCE_LOG_POS=4", "START REPLICA UNTIL SOURCE_LOG_FILE='binlog.000001'",
		"START REPLICA UNTIL SQL_AFTER_GTIDS='rubbish'", "START REPLICA UNTIL SQL_BEFORE_GTIDS='3e11fa47-71ca-11e1-9e33-c80aa9429562:0'",
		"START REPLICA UNTIL SQL_AFTER_GTIDS='3e11fa47-71ca-11e1-9e33-c80aa9429562:1', SOURCE_LOG_FILE='x', SOURCE_LOG_POS=4",
		"START REPLICA UNTIL SOURCE_LOG_FILE='binlog.000009', SOURCE_LOG_POS=44", "STOP REPLICA",
		"START REPLICA UNTIL SQL_AFTER_GTIDS='3e11fa47-71ca-11e1-9e33-c80aa9429562:1'", "STOP REPLICA",
		"START REPLICA UNTIL SQL_BEFORE_GTIDS='3e11fa47-71ca-11e1-9e33-c80aa9429562:1'", "STOP REPLICA", "START REPLICA", "STOP REPLICA",
		"RESET REPLICA ALL", "START REPLICA",
	} {
		_, want := answerText(t, a, s)
		_, got := answerText(t, b, s)
		if got != want {
			t.Errorf("%s:\n kingbus %s\n 9.7     %s", s, got, want)
		}
		_, want2 := answerText(t, a, "SHOW WARNINGS")
		// MySQL warns of passwords in a table, of UNTIL without an option at its start, and of a STOP where
		// there is nothing to be stopped; here that is remembered.
		quiet := i == 1 || strings.HasPrefix(s, "CHANGE") || strings.Contains(s, "UNTIL") && !strings.Contains(want2, "runnning")
		if _, got := answerText(t, b, "SHOW WARNINGS"); got != want2 && !quiet {
			t.Errorf("%s warns:\n kingbus %s\n 9.7     %s", s, got, want2)
		}
		// MySQL remembers what it has refused, too.
		if wantUntil, until := untilText(t, a), untilText(t, b); want == "" && until != wantUntil {
			t.Errorf("%s: SHOW REPLICA STATUS\n kingbus %s\n 9.7     %s", s, until, wantUntil)
		}
	}
}

// untilText is what SHOW REPLICA STATUS says of UNTIL.
func untilText(t *testing.T, c *wire.Client) string {
	t.Helper()
	res, err := c.Query(t.Context(), "SHOW REPLICA STATUS")
	if err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, row := range res.Rows {
		for i, col := range res.Columns {
			if strings.HasPrefix(col.Name, "Until_") {
				out += fmt.Sprintf("%s=%s ", col.Name, row[i])
			}
		}
	}
	return out
}

// TestChangeSource is what the options do.
func TestChangeSource(t *testing.T) {
	r, store := newFollowRig(t, "own")
	root := dial(t, r.addr, "root", testPassword, wire.TLSRequired)
	defer root.Close()
	setting := func() follow.Setting {
		s, _, err := store.Setting()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, tc := range []struct {
		sql, refused string
		want         follow.Setting
	}{
		{"CHANGE REPLICATION SOURCE TO SOURCE_HOST='h'", "3021", follow.Setting{}}, // that of the node runs
		{"STOP REPLICA SQL_THREAD", "", follow.Setting{}},
		{"STOP SLAVE IO_THREAD", "", follow.Setting{Stopped: true}},
		{"CHANGE MASTER TO MASTER_HOST='h', MASTER_PORT=3307, MASTER_USER='u', MASTER_PASSWORD='secret', MASTER_HEARTBEAT_PERIOD=0.5, MASTER_AUTO_POSITION=1", "",
			follow.Setting{Stopped: true, Host: "h", Port: 3307, User: "u", Password: "secret", Heartbeat: 500e6}},
		{"CHANGE REPLICATION SOURCE TO SOURCE_SSL=1", "", follow.Setting{Stopped: true, Host: "h", Port: 3307, User: "u", Password: "secret", Heartbeat: 500e6, SSL: "1"}},
		{"CHANGE REPLICATION SOURCE TO SOURCE_SSL_CA='/ca.pem', GET_SOURCE_PUBLIC_KEY=0", "", follow.Setting{Stopped: true, Host: "h", Port: 3307, User: "u", Password: "secret", Heartbeat: 500e6, SSL: "1", CA: "/ca.pem", NoPublicKey: true}},
		{"CHANGE REPLICATION SOURCE TO SOURCE_SSL_VERIFY_SERVER_CERT=1, SOURCE_HEARTBEAT_PERIOD=2", "", follow.Setting{Stopped: true, Host: "h", Port: 3307, User: "u", Password: "secret", Heartbeat: 2e9, SSL: "1", Verify: "1", CA: "/ca.pem", NoPublicKey: true}},
		{"CHANGE REPLICATION SOURCE TO SOURCE_SSL=0, GET_SOURCE_PUBLIC_KEY=1", "", follow.Setting{Stopped: true, Host: "h", Port: 3307, User: "u", Password: "secret", Heartbeat: 2e9, SSL: "0", Verify: "1", CA: "/ca.pem", PublicKey: true}},
		{"CHANGE REPLICATION SOURCE TO SOURCE_HOST='x', SOURCE_PORT=0", "1210", setting()}, // all or none
		{"CHANGE REPLICATION SOURCE TO SOURCE_PORT=65536", "1210", follow.Setting{}},
		{"CHANGE REPLICATION SOURCE TO SOURCE_HOST=''", "1210", follow.Setting{}},
		{"CHANGE REPLICATION SOURCE TO SOURCE_HOST='" + strings.Repeat("h", 300) + "'", "1210", follow.Setting{}},
		{"CHANGE REPLICATION SOURCE TO SOURCE_HEARTBEAT_PERIOD=0", "1624", follow.Setting{}},
		{"CHANGE REPLICATION SOURCE TO SOURCE_DELAY=0, IGNORE_SERVER_IDS=(), PRIVILEGE_CHECKS_USER=NULL", "", follow.Setting{}},
		{"CHANGE REPLICATION SOURCE TO SOURCE_DELAY=60", "delay the replicas", follow.Setting{}},
		{"CHANGE REPLICATION SOURCE TO IGNORE_SERVER_IDS=(1,2)", "ignore them on the replicas", follow.Setting{}},
		{"CHANGE REPLICATION SOURCE TO SOURCE_RETRY_COUNT=3", "for ever", follow.Setting{}},
		{"CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='b.1', SOURCE_LOG_POS=4", "position 4", follow.Setting{}},
		{"CHANGE REPLICATION SOURCE TO NO_SUCH=3", "1064", follow.Setting{}},
		{"CHANGE MASTER TO MASTER_USE_GTID=slave_pos", "MariaDB", follow.Setting{}},
		{"RESET REPLICA", "RESET REPLICA ALL", follow.Setting{}},
		{"RESET REPLICA ALL", "", follow.Setting{Stopped: true}},
		{"START REPLICA UNTIL SOURCE_LOG_FILE='b.000001', SOURCE_LOG_POS=4 USER='u'", "USER", follow.Setting{}},
		{"START REPLICA UNTIL RELAY_LOG_FILE='b.000001', RELAY_LOG_POS=4", "RELAY_LOG_FILE", follow.Setting{}},
		{"START REPLICA UNTIL SOURCE_LOG_FILE='b.000001', SOURCE_LOG_POS=4", "", follow.Setting{Until: "b.000001:4"}},
		{"STOP REPLICA", "", follow.Setting{Stopped: true, Until: "b.000001:4"}},
		{"START REPLICA SQL_THREAD UNTIL SQL_AFTER_GTIDS='3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5'", "", follow.Setting{Until: "after:3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"}},
		{"STOP REPLICA", "", follow.Setting{Stopped: true, Until: "after:3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"}},
	} {
		before := setting()
		_, got := answerText(t, root, tc.sql)
		if (got == "") != (tc.refused == "") || !strings.Contains(got, tc.refused) {
			t.Errorf("%s: %s, want %q", tc.sql, got, tc.refused)
		}
		if strings.Contains(got, "secret") {
			t.Errorf("%s: the password is in %s", tc.sql, got)
		}
		want := tc.want
		if tc.refused != "" || want == (follow.Setting{}) {
			want = before
		}
		if now := setting(); now != want {
			t.Errorf("%s: %+v, want %+v", tc.sql, now, want)
		}
	}
	if _, got := answerText(t, root, "START REPLICA"); got != "" || setting().Stopped {
		t.Errorf("START REPLICA: %s, %+v", got, setting())
	}
	for _, s := range []string{"STOP REPLICA", "RESET REPLICA ALL"} {
		if _, got := answerText(t, root, s); got != "" {
			t.Errorf("%s: %s", s, got)
		}
	}
	if s := setting(); s != (follow.Setting{Stopped: true}) {
		t.Errorf("after RESET REPLICA ALL: %+v", s)
	}
	// Without the privilege.
	if _, got := answerText(t, root, "CREATE USER u IDENTIFIED BY 'u'"); got != "" {
		t.Fatal(got)
	}
	u := dial(t, r.addr, "u", "u", wire.TLSRequired)
	defer u.Close()
	for _, s := range []string{"STOP REPLICA", "START REPLICA", "RESET REPLICA ALL", "CHANGE REPLICATION SOURCE TO SOURCE_HOST='evil'"} {
		if _, got := answerText(t, u, s); !strings.Contains(got, "1227") {
			t.Errorf("%s without the privilege: %s", s, got)
		}
	}
}
