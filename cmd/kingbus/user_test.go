package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kingbus/internal/wire"
)

// TestUserCommands: accounts are made on one node and can log in on another, over the
// command line and by statements.
func TestUserCommands(t *testing.T) {
	n1 := newMember(t, "n1").start()
	n1.settled(1)
	n2 := newMember(t, "n2", "--join").start()
	n1.want(0, []string{"n2 is a voter now"}, "node", "add", "n2", n2.addr)
	password := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(password, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	login := func(m *member, user, password string) (*wire.Client, error) {
		return wire.Dial(t.Context(), wire.ClientConfig{Address: m.mysql, User: user, Password: []byte(password), TLSMode: wire.TLSRequired, ReadTimeout: patience})
	}

	n2.want(0, []string{"account dba@% added"}, "user", "add", "dba", "--super", "--password-file", password)
	n1.want(exitFailed, []string{"there is an account 'dba'@'%' already", "what to do: "}, "user", "add", "dba", "--password-file", password)
	n1.want(exitUsage, []string{"no terminal to ask"}, "user", "add", "x")
	n1.want(exitFailed, []string{"there is no account 'x'@'10.%'"}, "user", "drop", "x@10.%")
	n1.want(0, []string{"dba   %     REPLICATION SLAVE, REPLICATION CLIENT, SUPER"}, "user", "list")
	if r := call(t, []string{"KINGBUS_ADMIN_LISTEN=" + n1.admin}, "user", "list"); r.code != exitFailed || !strings.Contains(r.stderr, "--admin-token-file") {
		t.Errorf("without the token: %+v", r)
	}
	if r := call(t, []string{"KINGBUS_ADMIN_LISTEN=" + n1.admin, "KINGBUS_ADMIN_TOKEN_FILE=" + n2.tokenFile()}, "user", "list"); r.code != exitFailed {
		t.Errorf("with the token of another node: %+v", r)
	}
	for _, m := range []*member{n1, n2} { // the leader, and who is not
		c, err := login(m, "dba", secret)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{"CREATE USER u@localhost IDENTIFIED BY '" + secret + "'", "GRANT REPLICATION SLAVE ON *.* TO u@localhost"} {
			if _, err := c.Exec(t.Context(), s); err != nil {
				t.Errorf("%s, on %s: %v", s, m.name, err)
			}
		}
		_ = c.Close()
		// Whoever is told that it is done finds it there.
		if c, err = login(m, "u", secret); err != nil {
			t.Errorf("on %s: %v", m.name, err)
		} else {
			_ = c.Close()
		}
		m.want(0, []string{"account u@localhost changed"}, "user", "alter", "u@localhost", "--locked")
		if c, err = login(m, "u", secret); err == nil {
			_ = c.Close()
			t.Errorf("locked on %s, and logged in", m.name)
		}
		m.want(0, []string{"account u@localhost dropped"}, "user", "drop", "u@localhost")
	}

	// Without a majority nobody changes anything, and everybody can still log in.
	n2.kill()
	c, err := login(n1, "dba", secret)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := c.Exec(ctx, "DROP USER dba"); err == nil || !strings.Contains(err.Error(), "a majority of") {
		t.Errorf("without a majority: %v", err)
	}
	n1.want(exitFailed, []string{"what to do: "}, "user", "drop", "dba")
}
