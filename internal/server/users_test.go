package server

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"kingbus/internal/account"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// newUsersRig has an administrator, root.
func newUsersRig(t *testing.T) *rig {
	t.Helper()
	return newUsersRigWith(t, func(*Config) {})
}

func newUsersRigWith(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	var users *account.Store
	return newRig(t, func(c *Config) {
		s := c.Stream.(binlogStream).Stream
		v, err := wire.NewVerifier([]byte(testPassword), wire.VerifierForms{})
		if err != nil {
			t.Fatal(err)
		}
		root := account.Account{User: "root", Host: "%", Plugin: wire.PluginCachingSHA2, Verifier: v, Privileges: account.All}
		if err := s.ChangeSettings(t.Context(), 0, map[string]json.RawMessage{account.Key("root", "%"): root.Encode()}); err != nil {
			t.Fatal(err)
		}
		users = account.NewStore(s, slog.New(slog.DiscardHandler))
		c.Accounts, c.Users = users, users
	}, change)
}

// TestUsersSame: the statements about accounts end on kingbus as on a real 9.7.
func TestUsersSame(t *testing.T) {
	rec := newRecording(t)
	r := newUsersRig(t)
	rec.feed(r, 1<<16)
	exec(t, rec.inst, "CREATE USER root@'%' IDENTIFIED BY '"+strings.ReplaceAll(testPassword, "'", "''")+"'; GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION")
	login := func(user, password string) [2]string {
		var out [2]string
		for i, addr := range []string{rec.inst.Addr(), r.addr} {
			c, err := wire.Dial(t.Context(), wire.ClientConfig{Address: addr, User: user, Password: []byte(password), TLSMode: wire.TLSRequired})
			if err != nil {
				_, out[i], _ = strings.Cut(err.Error(), "MySQL error")
				continue
			}
			_, out[i] = answerText(t, c, "SELECT CURRENT_USER()")
			_ = c.Close()
		}
		return out
	}
	a, b := dial(t, rec.inst.Addr(), "root", testPassword, wire.TLSRequired), dial(t, r.addr, "root", testPassword, wire.TLSRequired)
	defer a.Close()
	defer b.Close()
	for _, s := range []string{
		"CREATE USER u IDENTIFIED BY 'one'", "CREATE USER u IDENTIFIED BY 'two'", "CREATE USER IF NOT EXISTS u IDENTIFIED BY 'two'",
		"CREATE USER v@'127.0.0.%' IDENTIFIED BY 'v', u IDENTIFIED BY 'x'", // all or none
		"CREATE USER v@'127.0.0.%' IDENTIFIED BY 'v', v@'10.1.1.1' IDENTIFIED BY 'x'", "DROP USER nobody, u, nothing",
		"CREATE USER w IDENTIFIED BY 'w', w IDENTIFIED BY 'w'",
		"CREATE USER w IDENTIFIED WITH nosuch BY 'w'", "CREATE USER w IDENTIFIED WITH caching_sha2_password AS 'rubbish'",
		"CREATE USER " + strings.Repeat("w", 33) + " IDENTIFIED BY 'w'",
		"ALTER USER nobody IDENTIFIED BY 'x'", "ALTER USER IF EXISTS nobody IDENTIFIED BY 'x'", "DROP USER nobody", "DROP USER IF EXISTS nobody", "DROP USER u, nobody",
		"GRANT REPLICATION SLAVE ON *.* TO nobody", "REVOKE REPLICATION SLAVE ON *.* FROM nobody", "SHOW GRANTS FOR nobody",
		"SHOW GRANTS FOR u", "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO u, v@'10.1.1.1'", "SHOW GRANTS FOR u",
		"REVOKE REPLICATION CLIENT ON *.* FROM u", "SHOW GRANTS FOR u", "GRANT USAGE ON *.* TO u", "SHOW GRANTS FOR v@'127.0.0.%'",
		"CREATE USER 'l' IDENTIFIED BY 'l' ACCOUNT LOCK", "CREATE USER s IDENTIFIED BY 's' REQUIRE SSL",
		"GRANT REPLICATION SLAVE ON *.* u", "CREATE USER u IDENTIFIED", "ALTER USER u REQUIRE", "DROP USER",
		"PURGE BINARY LOGS TO 'nosuch.000001'", "PURGE BINARY LOGS BEFORE '1999-01-01'", "PURGE BINARY LOGS",
		"SELECT CURRENT_USER(), USER()", "FLUSH PRIVILEGES", "FLUSH STATUS, ERROR LOGS", "FLUSH LOCAL RELAY LOGS",
	} {
		_, want := answerText(t, a, s)
		_, got := answerText(t, b, s)
		if got != want {
			t.Errorf("%s:\n kingbus %s\n 9.7     %s", s, got, want)
		}
	}
	for _, tc := range [][2]string{{"u", "one"}, {"u", "two"}, {"v", "v"}, {"v", "x"}, {"l", "l"}, {"s", "s"}, {"nobody", "x"}} {
		got := login(tc[0], tc[1])
		// A locked account is like none: nobody is told what there is.
		if tc[0] != "l" && got[0] != got[1] {
			t.Errorf("%v:\n kingbus %s\n 9.7     %s", tc, got[1], got[0])
		}
	}
	// Changed by itself, and by the administrator.
	for _, s := range []string{"SET PASSWORD = 'three'", "ALTER USER USER() IDENTIFIED BY 'three'", "CREATE USER x IDENTIFIED BY 'x'",
		"DROP USER u", "SHOW GRANTS", "SHOW BINARY LOGS", "SHOW BINARY LOG STATUS", "SHOW REPLICA STATUS", "PURGE BINARY LOGS TO 'x'", "KILL 999999", "FLUSH BINARY LOGS", "FLUSH STATUS"} {
		var out [2]string
		for i, addr := range []string{rec.inst.Addr(), r.addr} {
			password := "one"
			if c, err := wire.Dial(t.Context(), wire.ClientConfig{Address: addr, User: "u", Password: []byte("three"), TLSMode: wire.TLSRequired}); err == nil {
				password = "three"
				_ = c.Close()
			}
			c := dial(t, addr, "u", password, wire.TLSRequired)
			_, out[i] = answerText(t, c, s)
			_ = c.Close()
		}
		cut := func(s string) string { s, _, _ = strings.Cut(s, "need (at least"); return s } // SUPER is several there
		if cut(out[0]) != cut(out[1]) {
			t.Errorf("%s by u:\n kingbus %s\n 9.7     %s", s, out[1], out[0])
		}
	}
	if got := login("u", "three"); got != [2]string{"u@%\n", "u@%\n"} {
		t.Errorf("with the new password: %q", got)
	}
}

// TestOwnPassword: an account without SUPER cannot fill the log with passwords.
func TestOwnPassword(t *testing.T) {
	r := newUsersRig(t)
	root := dial(t, r.addr, "root", testPassword, wire.TLSRequired)
	defer root.Close()
	if _, got := answerText(t, root, "CREATE USER u IDENTIFIED BY 'u'"); got != "" {
		t.Fatal(got)
	}
	u := dial(t, r.addr, "u", "u", wire.TLSRequired)
	defer u.Close()
	for i := range ownPasswordTimes + 1 {
		_, got := answerText(t, u, fmt.Sprintf("SET PASSWORD = 'p%d'", i))
		if refused := strings.Contains(got, "times within"); refused != (i == ownPasswordTimes) {
			t.Errorf("change %d: %s", i, got)
		}
		if _, got := answerText(t, root, fmt.Sprintf("SET PASSWORD FOR u = 'p%d'", i)); got != "" {
			t.Errorf("by the administrator: %s", got)
		}
	}
}

// TestUsers is what only kingbus has an answer for, and what accounts may do.
func TestUsers(t *testing.T) {
	r := newUsersRig(t)
	r.follow(stream.Source{UUID: "aaaaaaaa-1111-2222-3333-444444444444", Version: "9.7.0"})
	root := dial(t, r.addr, "root", testPassword, wire.TLSRequired)
	defer root.Close()
	say := func(c *wire.Client, s string) string {
		_, out := answerText(t, c, s)
		return out
	}
	for s, want := range map[string]string{
		"CREATE USER '' IDENTIFIED BY 'x'":                               "no anonymous accounts",
		"CREATE USER x":                                                  "no accounts without password",
		"CREATE USER x IDENTIFIED BY ''":                                 "no accounts without password",
		"CREATE USER x@'10.0.0.1/8' IDENTIFIED BY 'x'":                   "is no network",
		"GRANT SELECT ON *.* TO root":                                    "there is no privilege SELECT",
		"GRANT REPLICATION SLAVE ON d.* TO root":                         "single databases",
		"CREATE USER x IDENTIFIED BY 'x' PASSWORD EXPIRE INTERVAL 9 DAY": "users with PASSWORD",
		"ALTER USER root IDENTIFIED BY RANDOM PASSWORD":                  "RANDOM PASSWORD",
	} {
		if got := say(root, s); !strings.Contains(got, want) {
			t.Errorf("%s: %s", s, got)
		}
	}
	for _, s := range []string{"CREATE USER plain IDENTIFIED BY 'p'", "CREATE USER old IDENTIFIED WITH mysql_native_password BY 'p'", "GRANT REPLICATION SLAVE ON *.* TO old",
		"CREATE USER 'taken' IDENTIFIED WITH mysql_native_password AS '*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19'"} {
		if got := say(root, s); got != "" {
			t.Errorf("%s: %s", s, got)
		}
	}
	// Hashes only: neither the log nor the list of sessions has a password.
	for key, v := range r.stream.Settings().Values {
		if strings.Contains(string(v), `"p"`) || strings.Contains(string(v), testPassword) {
			t.Errorf("%s: %s", key, v)
		}
	}
	taken := dial(t, r.addr, "taken", "password", wire.TLSDisabled)
	_ = taken.Close()
	plain := dial(t, r.addr, "plain", "p", wire.TLSRequired)
	defer plain.Close()
	for _, s := range []string{"SHOW BINARY LOGS", "SHOW BINLOG EVENTS", "SHOW REPLICAS", "SHOW REPLICA STATUS", "SHOW BINARY LOG STATUS", "SHOW GRANTS FOR root", "DROP USER root", "PURGE BINARY LOGS TO 'x'",
		fmt.Sprintf("KILL %d", root.Greeting().ConnectionID)} {
		if got := say(plain, s); !strings.Contains(got, "enied") && !strings.Contains(got, "not owner") {
			t.Errorf("%s: %s", s, got)
		}
	}
	for _, c := range []*wire.Client{root, plain} {
		if got := say(c, "SHOW FULL PROCESSLIST"); strings.Contains(got, "IDENTIFIED") || strings.Contains(got, "'p'") {
			t.Errorf("the list of sessions has %s", got)
		}
	}
	if got := say(plain, "SHOW PROCESSLIST"); strings.Contains(got, "root") || !strings.Contains(got, "plain") {
		t.Errorf("it sees %s", got)
	}
	for _, payload := range [][]byte{dumpPayload("x", 4, 0, 7), append([]byte{wire.ComRegisterReplica}, make([]byte, 17)...)} {
		if _, err := plain.Do(t.Context(), payload); !wire.IsCode(err, wire.ErSpecificAccessDenied) {
			t.Errorf("command %d without the privilege: %v", payload[0], err)
		}
	}
	// A privilege counts from the next statement on.
	if got := say(root, "GRANT REPLICATION CLIENT ON *.* TO plain"); got != "" {
		t.Error(got)
	}
	if got := say(plain, "SHOW BINARY LOGS"); got != "" {
		t.Errorf("with the privilege: %s", got)
	}
	// Another account of the name is not the one of this session.
	for _, s := range []string{"DROP USER plain", "CREATE USER plain IDENTIFIED BY 'q'", "GRANT ALL ON *.* TO plain"} {
		if got := say(root, s); got != "" {
			t.Errorf("%s: %s", s, got)
		}
	}
	for _, s := range []string{"SHOW BINARY LOGS", "SET PASSWORD = 'stolen'", "DROP USER root"} {
		if got := say(plain, s); !strings.Contains(got, "1227") {
			t.Errorf("%s by who was dropped: %s", s, got)
		}
	}
	if got := say(root, fmt.Sprintf("KILL %d", plain.Greeting().ConnectionID)); got != "" {
		t.Errorf("KILL by the administrator: %s", got)
	}
}
