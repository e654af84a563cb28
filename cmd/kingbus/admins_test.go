package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"kingbus/internal/wire"
)

// TestAdministrators: two of them at once, on two nodes, lose nothing of what the other one
// does; without a majority both are told that nothing can be done, and what to look at.
func TestAdministrators(t *testing.T) {
	n1 := newMember(t, "n1").start()
	n1.settled(1)
	n2 := newMember(t, "n2", "--join").start()
	n1.want(0, []string{"n2 is a voter now"}, "node", "add", "n2", n2.addr)
	n1.want(0, []string{"added"}, "user", "add", "dba", "--super", "--password-file", writeFile(t, "pw", secret))
	login := func(m *member) *wire.Client {
		t.Helper()
		c, err := wire.Dial(t.Context(), wire.ClientConfig{Address: m.mysql, User: "dba", Password: []byte(secret), TLSMode: wire.TLSRequired, ReadTimeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	const each = 15
	var both sync.WaitGroup
	for i, m := range []*member{n1, n2} {
		c := login(m)
		both.Go(func() {
			for k := range each {
				for _, s := range []string{
					fmt.Sprintf("CREATE USER u%d_%d IDENTIFIED BY 'p'", i, k),
					fmt.Sprintf("SET PERSIST kingbus_retain_size = %d, PERSIST binlog_expire_logs_seconds = %d", 1+i, 1+i),
					fmt.Sprintf("GRANT REPLICATION SLAVE ON *.* TO u%d_%d", i, k),
				} {
					if _, err := c.Exec(t.Context(), s); err != nil {
						t.Errorf("%s: %v", s, err)
					}
				}
			}
		})
	}
	both.Wait()
	users := n2.call("user", "list").stdout
	for i := range 2 {
		for k := range each {
			if name := fmt.Sprintf("u%d_%d ", i, k); !strings.Contains(users, name) {
				t.Errorf("%s is lost:\n%s", name, users)
			}
		}
	}
	c1, c2 := login(n1), login(n2)
	res, err := c1.Query(t.Context(), "SELECT @@kingbus_retain_size = @@binlog_expire_logs_seconds")
	if err != nil || string(res.Rows[0][0]) != "1" {
		t.Errorf("half of one statement and half of the other: %v, %v", res, err)
	}
	leader, c := n1, c1
	if n1.settled(2).Cluster.Leader == "n2" {
		leader, c = n2, c2
	}
	other := map[*member]*member{n1: n2, n2: n1}[leader]
	other.kill()
	_, err = c.Exec(t.Context(), "DROP USER u0_0")
	if err == nil || !strings.Contains(err.Error(), "a majority of the nodes has to be up") {
		t.Errorf("without a majority: %v", err)
	}
	if _, err := c.Query(t.Context(), "SHOW BINARY LOG STATUS"); err != nil {
		t.Errorf("reading without a majority: %v", err)
	}
}
