package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/mysqltest"
	"kingbus/internal/wire"
)

// TestFollowByStatement: nodes that know no source are told of one with MySQL's statements,
// on whichever node, and follow it through stops, starts, another leader and a restart.
func TestFollowByStatement(t *testing.T) {
	ctx := t.Context()
	db := mysqltest.Start(t, mysqltest.Options{})
	if err := db.CreateUser(ctx, mysqltest.User{Name: "repl", Password: secret, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}); err != nil {
		t.Fatal(err)
	}
	if err := db.Exec(ctx, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	n1 := newMember(t, "n1").start()
	n1.settled(1)
	n2 := newMember(t, "n2", "--join").start()
	n1.want(0, []string{"n2 is a voter now"}, "node", "add", "n2", n2.addr)
	n1.want(0, []string{"added"}, "user", "add", "dba", "--super", "--password-file", writeFile(t, "pw", secret))
	say := func(m *member, s string) {
		t.Helper()
		c, err := wire.Dial(ctx, wire.ClientConfig{Address: m.mysql, User: "dba", Password: []byte(secret), TLSMode: wire.TLSRequired, ReadTimeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Exec(ctx, s); err != nil {
			t.Errorf("%s, on %s: %v", s, m.name, err)
		}
	}
	// tells waits until every node answers a SELECT so.
	tells := func(sql, want string) {
		t.Helper()
		for _, m := range []*member{n1, n2} {
			c, err := wire.Dial(ctx, wire.ClientConfig{Address: m.mysql, User: "dba", Password: []byte(secret), TLSMode: wire.TLSRequired, ReadTimeout: patience})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got := ""
			for late := time.Now().Add(patience); !strings.HasPrefix(got, want) || got == ""; time.Sleep(20 * time.Millisecond) {
				res, err := c.Query(ctx, sql)
				if err != nil || time.Now().After(late) {
					t.Fatalf("%s, on %s: %q, %v, want %q", sql, m.name, got, err, want)
				}
				if len(res.Rows) == 1 {
					got = string(res.Rows[0][0])
				}
			}
		}
	}
	const service = "SELECT service_state FROM performance_schema.replication_connection_status"
	rows := 0
	insert := func() {
		t.Helper()
		rows++
		if err := db.Exec(ctx, fmt.Sprintf("INSERT INTO d.t VALUES (%d)", rows)); err != nil {
			t.Fatal(err)
		}
	}
	followed := func() {
		t.Helper()
		insert()
		want, err := db.GTIDExecuted(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []*member{n1, n2} {
			m.awaitStatus("the source's transactions", func(st admin.Status) bool { return st.Stream.Executed.String() == strings.ReplaceAll(want, "\n", "") })
		}
	}
	state := func(want string) {
		t.Helper()
		for _, m := range []*member{n1, n2} {
			m.awaitStatus(want, func(st admin.Status) bool { return st.Source.State == want })
		}
	}

	state(admin.SourceNone)
	host, port, _ := strings.Cut(db.Addr(), ":")
	say(n2, fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='%s', SOURCE_PORT=%s, SOURCE_USER='repl', SOURCE_PASSWORD='wrong', SOURCE_SSL=1", host, port))
	state(admin.SourceStopped)
	say(n2, "START REPLICA")
	leader, other := n1, n2
	if n1.settled(2).Cluster.Leader == "n2" {
		leader, other = n2, n1
	}
	leader.awaitStatus("the refused login", func(st admin.Status) bool {
		return strings.Contains(st.Source.NextStep, "grant") || st.Source.Error != ""
	})
	// What only the leader sees, all nodes tell.
	tells("SELECT last_error_message FROM performance_schema.replication_connection_status WHERE last_error_number <> 0", "the source refuses")
	tells(service, "OFF")
	say(other, "STOP REPLICA")
	say(other, "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD='"+secret+"'")
	say(other, "START REPLICA")
	followed()
	leader.want(0, []string{db.Addr(), "streaming"}, "status")
	tells(service, "ON")
	tells("SELECT IF(received_transaction_set = @@global.gtid_executed, 'all', received_transaction_set) FROM performance_schema.replication_connection_status", "all")

	// UNTIL: neither less nor more, with whatever the source has.
	say(other, "STOP REPLICA")
	state(admin.SourceStopped)
	executed := func() string {
		t.Helper()
		set, err := db.GTIDExecuted(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(set, "\n", "")
	}
	var sets []string
	var files, positions []string
	for range 4 {
		insert()
		sets = append(sets, executed())
		at, err := db.Query(ctx, "SHOW BINARY LOG STATUS")
		if err != nil {
			t.Fatal(err)
		}
		files, positions = append(files, at[0][0]), append(positions, at[0][1])
	}
	if err := db.Exec(ctx, "FLUSH BINARY LOGS"); err != nil {
		t.Fatal(err)
	}
	insert()
	until := func(condition, want string) {
		t.Helper()
		say(other, "START REPLICA UNTIL "+condition)
		for _, m := range []*member{n1, n2} {
			m.awaitStatus(condition, func(st admin.Status) bool {
				return st.Stream.Executed.String() == want && st.Source.State == admin.SourceStopped
			})
		}
		for _, m := range []*member{n1, n2} {
			if st := m.settled(2); st.Stream.Executed.String() != want {
				t.Errorf("until %s %s has %s, want %s", condition, m.name, st.Stream.Executed, want)
			}
		}
	}
	last := func(set string) string {
		return set[:strings.IndexByte(set, ':')+1] + set[strings.LastIndexByte(set, '-')+1:]
	}
	until("SQL_AFTER_GTIDS='"+last(sets[0])+"'", sets[0])
	until("SQL_AFTER_GTIDS='"+last(sets[0])+"'", sets[0]) // it is there
	until("SQL_BEFORE_GTIDS='"+last(sets[2])+"'", sets[1])
	until("SOURCE_LOG_FILE='"+files[2]+"', SOURCE_LOG_POS="+positions[2], sets[2])
	until("SOURCE_LOG_FILE='"+files[1]+"', SOURCE_LOG_POS=4", sets[2]) // it is behind
	until("SOURCE_LOG_FILE='"+files[3]+"', SOURCE_LOG_POS=4294967295", sets[3])
	say(other, "START REPLICA")
	followed()

	// The source's files are its own to end.
	flush := func() error {
		c, err := wire.Dial(ctx, wire.ClientConfig{Address: other.mysql, User: "dba", Password: []byte(secret), TLSMode: wire.TLSRequired, ReadTimeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Exec(ctx, "FLUSH BINARY LOGS")
		return err
	}
	if err := flush(); err == nil || !strings.Contains(err.Error(), "GRANT RELOAD") {
		t.Errorf("without the privilege: %v", err)
	}
	if err := db.Exec(ctx, "GRANT RELOAD ON *.* TO repl@'%'"); err != nil {
		t.Fatal(err)
	}
	begun := other.settled(2).Stream.End.File
	if err := flush(); err != nil {
		t.Error(err)
	}
	if now := other.settled(2).Stream.End.File; now <= begun {
		t.Errorf("behind FLUSH BINARY LOGS the file is %s, it was %s", now, begun)
	}

	say(other, "STOP REPLICA IO_THREAD")
	state(admin.SourceStopped)
	insert()
	// Another leader does not follow it either, nor does one that was started anew.
	leader.want(0, nil, "node", "transfer", other.name)
	leader, other = other, leader
	leader.awaitStatus("leadership", func(st admin.Status) bool { return st.Cluster.Leader == leader.name })
	if code := other.stop(); code != 0 {
		t.Errorf("stopped with code %d", code)
	}
	other.start()
	other.settled(2)
	state(admin.SourceStopped)
	other.want(0, []string{"stopped at ", "kingbus source start"}, "status")
	// What comes after START, at the latest, has all before it: until then nothing has come.
	stopped := leader.settled(2).Stream.Executed.String()
	if now, err := db.GTIDExecuted(ctx); err != nil || strings.ReplaceAll(now, "\n", "") == stopped {
		t.Errorf("it was stopped, and has %s, %v", stopped, err)
	}
	say(leader, "START REPLICA")
	followed()
	leader.want(0, nil, "node", "transfer", other.name)
	followed()

	// The commands do the same. A file that this node does not have:
	ca := "/no/such/file"
	leader.want(exitFailed, []string{"stop that first", "what to do: `kingbus source stop`"}, "source", "change", "--ssl-ca", ca)
	leader.want(0, []string{"nobody follows"}, "source", "stop")
	leader.want(exitUsage, []string{"nothing is said"}, "source", "change")
	leader.want(exitFailed, []string{"port is 0"}, "source", "change", "--port", "0")
	leader.want(exitFailed, []string{"has begun"}, "source", "change", "--start", "current")
	other.want(0, []string{"kingbus source start"}, "source", "change", "--ssl-ca", ca, "--password-file", writeFile(t, "pw", secret))
	other.want(0, []string{"follows the source"}, "source", "start")
	state(admin.SourceRefused)
	leader.want(0, []string{ca, "CHANGE REPLICATION SOURCE TO"}, "status")
	leader.want(0, []string{ca, "said", "user repl", "a password", "port " + port}, "source", "show")
	leader.want(0, []string{`"ssl_ca": "/no/such/file"`, `"has_password": true`}, "source", "show", "--json")
	other.want(0, nil, "source", "stop")
	other.want(0, nil, "source", "change", "--ssl-ca", "")
	other.want(0, nil, "source", "start")
	followed()
	leader.want(0, nil, "source", "stop")
	leader.want(0, []string{"forgotten"}, "source", "reset")
	state(admin.SourceNone)
	leader.want(exitFailed, []string{"no source is configured", "kingbus source change"}, "source", "start")
	if r := leader.want(0, []string{"nothing: it is as in the settings"}, "source", "show"); strings.Contains(r.stdout, " \n") {
		t.Errorf("blanks at the end of a line: %q", r.stdout)
	}
}
