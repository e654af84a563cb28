package server

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"kingbus/internal/mysqltest"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// TestChangeUserSame: COM_CHANGE_USER ends on kingbus as on a real 9.7: who the client is then, what
// is left of its session, and who is refused, with the connection closed.
func TestChangeUserSame(t *testing.T) {
	inst := mysqltest.Start(t, mysqltest.Options{Name: "source"})
	exec(t, inst, "CREATE USER root@'%' IDENTIFIED BY '"+strings.ReplaceAll(testPassword, "'", "''")+"'; GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION")
	r := newUsersRig(t)
	addrs := []string{inst.Addr(), r.addr}
	for _, addr := range addrs {
		c := dial(t, addr, "root", testPassword, wire.TLSRequired)
		for _, s := range []string{"CREATE USER u IDENTIFIED BY 'one'", "CREATE USER s IDENTIFIED BY 'one' REQUIRE SSL", "CREATE USER n@'127.0.0.%' IDENTIFIED BY 'one'", "CREATE USER far@'10.1.1.1' IDENTIFIED BY 'one'", "GRANT REPLICATION SLAVE ON *.* TO u"} {
			if _, err := c.Query(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		_ = c.Close()
	}
	type change struct{ user, password, database string }
	for _, tc := range []struct {
		mode    wire.TLSMode
		changes []change // the last one may be refused
		raw     []byte   // in their place
	}{
		{wire.TLSRequired, []change{{"u", "one", ""}}, nil},
		{wire.TLSRequired, []change{{"u", "one", ""}, {"n", "one", "information_schema"}, {"root", testPassword, ""}, {"u", "one", ""}, {"u", "two", ""}}, nil},
		{wire.TLSRequired, []change{{"s", "one", ""}, {"s", "one", ""}}, nil},
		{wire.TLSRequired, []change{{"s", "", ""}}, nil},
		{wire.TLSRequired, []change{{"far", "one", ""}}, nil},
		{wire.TLSRequired, []change{{"nobody", "one", ""}}, nil},
		{wire.TLSRequired, []change{{"", "", ""}}, nil},
		{wire.TLSDisabled, []change{{"u", "one", ""}, {"s", "one", ""}}, nil},
		{wire.TLSRequired, nil, []byte{}},
		{wire.TLSRequired, nil, []byte("u")},
		{wire.TLSRequired, nil, []byte("u\x00\x20abc")},
		{wire.TLSRequired, nil, []byte("u\x00\x00\x00")},
		{wire.TLSRequired, nil, []byte("u\x00\x00\x00\x2d")},
	} {
		var story [2]string
		for i, addr := range addrs {
			say := func(format string, args ...any) { story[i] += fmt.Sprintf(format, args...) + "\n" }
			c, err := wire.Dial(t.Context(), wire.ClientConfig{Address: addr, User: "root", Password: []byte(testPassword), TLSMode: tc.mode, GetServerPublicKey: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			_, id := answerText(t, c, "SELECT CONNECTION_ID()")
			tell := func() {
				for _, s := range []string{
					"SELECT CURRENT_USER(), USER(), DATABASE(), @a, @rpl_semi_sync_replica, @source_binlog_checksum, @@character_set_client, @@collation_connection, @@sql_mode, @@warning_count, @@error_count",
					"SHOW WARNINGS",
				} {
					_, rows := answerText(t, c, s)
					say("%s", rows)
				}
				_, now := answerText(t, c, "SELECT CONNECTION_ID()")
				say("the same connection: %v", now == id)
			}
			for j, ch := range tc.changes {
				for _, s := range []string{"SET @a = 5, @rpl_semi_sync_replica = 1, @source_binlog_checksum = 'NONE', NAMES latin1, sql_mode = 'ANSI'", "SELEC"} {
					_, rows := answerText(t, c, s)
					say("%s", rows)
				}
				before, err := prepare(t, c, "SELECT 1")
				if err != nil {
					t.Fatal(err)
				}
				if j == 0 {
					if _, err := c.Do(t.Context(), []byte(register(7))); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.ChangeUser(t.Context(), ch.user, []byte(ch.password), ch.database); err != nil {
					say("%v", err)
					say("then it is closed: %v", c.Ping(t.Context()) != nil)
					break
				}
				tell()
				if _, _, err := before.execute(); err != nil {
					say("%v", err)
				}
				_, rows := answerText(t, c, "SHOW REPLICAS")
				fields := strings.Split(rows, "\t")
				say("replica %s", fields[0])
			}
			if tc.changes == nil {
				_, err := c.Do(t.Context(), append([]byte{wire.ComChangeUser}, tc.raw...))
				say("%v, then it is closed: %v", err, c.Ping(t.Context()) != nil)
			}
			_ = c.Close()
		}
		if story[0] != story[1] {
			t.Errorf("%v %v %q:\n kingbus %s\n 9.7     %s", tc.mode, tc.changes, tc.raw, story[1], story[0])
		}
	}
	r.await("an empty house", func(stream.Status) bool { return r.server.Counters().Open == 0 })
	if n := r.server.userVariables.Load() + r.server.prepared.bytes.Load(); n != 0 {
		t.Errorf("%d bytes are held by sessions that are over", n)
	}
}

// TestChangeUserGuesses: who guesses passwords by changing the user is counted, waits, and is one of
// few, like who guesses at logins.
func TestChangeUserGuesses(t *testing.T) {
	r := newRig(t)
	door, key := r.server.door, netip.MustParsePrefix("127.0.0.1/32")
	for i := range freeFailures + 1 {
		c := r.dial()
		if err := c.ChangeUser(t.Context(), testUser, []byte("wrong"), ""); !wire.IsCode(err, wire.ErAccessDenied) {
			t.Fatal(err)
		}
		r.await("the count", func(stream.Status) bool { return r.server.Counters().FailedLogins == uint64(i+1) })
	}
	if wait := door.hold(key, 0); wait != firstDelay {
		t.Errorf("the last of them has waited %v, want %v", wait, firstDelay)
	}
	crowded := r.dial()
	door.mu.Lock()
	door.visitor[key].checking += maxChecking
	door.mu.Unlock()
	if err := crowded.ChangeUser(t.Context(), testUser, []byte(testPassword), ""); !wire.IsCode(err, wire.ErConCount) {
		t.Errorf("one too many: %v", err)
	}
	door.mu.Lock()
	door.visitor[key].checking -= maxChecking
	door.mu.Unlock()
	if err := r.dial().ChangeUser(t.Context(), testUser, []byte(testPassword), ""); err != nil {
		t.Error(err)
	}
	r.await("the end of the logins", func(stream.Status) bool {
		door.mu.Lock()
		defer door.mu.Unlock()
		v := door.visitor[key]
		return v.waiting == 0 && v.changing == 0 && v.checking == 0 && v.queued == 0 && door.queue.Len() == 0
	})
}

// TestChangeUserCrowd: strangers of its address that have not logged in do not keep a session from
// changing its user.
func TestChangeUserCrowd(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = 40 })
	c := r.dial()
	door, key := r.server.door, netip.MustParsePrefix("127.0.0.1/32")
	for range door.most {
		silent, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	r.await("the crowd", func(stream.Status) bool {
		door.mu.Lock()
		defer door.mu.Unlock()
		return door.visitor[key] != nil && door.visitor[key].waiting == door.most
	})
	for range 2 {
		if err := c.ChangeUser(t.Context(), testUser, []byte(testPassword), ""); err != nil {
			t.Fatal(err)
		}
	}
}
