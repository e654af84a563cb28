package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
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
		{wire.TLSRequired, []change{{"u", "one", "INFORMATION_SCHEMA"}, {"u", "one", "nosuch"}}, nil},
		{wire.TLSRequired, []change{{"root", testPassword, "mysql"}, {"root", testPassword, "Mysql"}}, nil},
		{wire.TLSRequired, []change{{"u", "two", "nosuch"}}, nil},
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

// TestLoginSame: what a login or a change of user says of database and collation is taken, or refused,
// as by a real 9.7.
func TestLoginSame(t *testing.T) {
	inst := mysqltest.Start(t, mysqltest.Options{Name: "source"})
	exec(t, inst, "CREATE USER root@'%' IDENTIFIED BY '"+strings.ReplaceAll(testPassword, "'", "''")+"'; GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION")
	r := newUsersRig(t)
	addrs := []string{inst.Addr(), r.addr}
	for _, addr := range addrs {
		c := dial(t, addr, "root", testPassword, wire.TLSRequired)
		if _, err := c.Query(t.Context(), "CREATE USER u IDENTIFIED BY 'one'"); err != nil {
			t.Fatal(err)
		}
	}
	// log is one login, and a change of user after it if it is said: what the client hears, and has then.
	log := func(addr, user, database string, collation uint16, change bool) string {
		cfg := wire.ClientConfig{Address: addr, User: user, Password: []byte("one"), Database: database, Collation: collation, TLSMode: wire.TLSDisabled, GetServerPublicKey: true}
		if user == "root" {
			cfg.Password = []byte(testPassword)
		}
		if change {
			cfg.Database = ""
			cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				nc, err := new(net.Dialer).DialContext(ctx, network, address)
				return &anyCollation{Conn: nc}, err
			}
		}
		c, err := wire.Dial(t.Context(), cfg)
		if err == nil {
			defer c.Close()
			if change {
				err = c.ChangeUser(t.Context(), user, cfg.Password, database)
			}
		}
		var refusal *wire.Error
		if errors.As(err, &refusal) {
			return refusal.Error()
		} else if err != nil {
			t.Fatal(err)
		}
		_, rows := answerText(t, c, "SELECT DATABASE(), @@character_set_client, @@character_set_results, @@character_set_connection, @@collation_connection")
		return rows
	}
	same := func(user, database string, collation uint16) {
		t.Helper()
		for _, change := range []bool{false, true} {
			if want, got := log(addrs[0], user, database, collation, change), log(addrs[1], user, database, collation, change); got != want {
				t.Errorf("%s, database %q, collation %d, change %v:\n kingbus %s\n 9.7     %s", user, database, collation, change, got, want)
			}
		}
	}
	for _, database := range []string{"nosuch", "information_schema", "INFORMATION_SCHEMA", "Mysql", "SYS", "a/b"} {
		same("root", database, 45)
		same("u", database, 45)
	}
	for id := range uint16(350) {
		same("u", "", id)
	}
	same("u", "", 9999)
	r.await("an empty house", func(stream.Status) bool { return r.server.Counters().Open == len(addrs)-1 })
}

// anyCollation says in the login that its client has a collation that every client may have.
type anyCollation struct {
	net.Conn
	said bool
}

func (c *anyCollation) Write(p []byte) (int, error) {
	if !c.said {
		c.said = true
		p = slices.Clone(p)
		p[4+8] = byte(wire.CollationUTF8MB4) // behind the packet's head, capabilities and largest packet
	}
	return c.Conn.Write(p)
}
