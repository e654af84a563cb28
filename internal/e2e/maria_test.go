package e2e

import (
	"context"
	"fmt"
	"testing"

	"kingbus/internal/admin"
	"kingbus/internal/mysqltest"
)

// TestMariaDB: a MariaDB that waits for kingbus with every commit, and MariaDB replicas
// that are semi-synchronous, one under it and one under kingbus. Both count the same:
// with one writer, when the replicas hang and when they are back. Files and tables are
// equal in the end.
func TestMariaDB(t *testing.T) {
	for _, flavour := range []mysqltest.Flavour{mysqltest.MariaDB1011, mysqltest.MariaDB118} {
		t.Run(string(flavour), func(t *testing.T) { testMariaDB(t, flavour) })
	}
}

func testMariaDB(t *testing.T, flavour mysqltest.Flavour) {
	ctx := context.Background()
	dir := evidence(t)
	src := startSource(t, dir, mysqltest.Options{Name: "source", Flavour: flavour, Args: []string{
		"--rpl-semi-sync-master-enabled=1", "--rpl-semi-sync-master-timeout=1000", "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
	}})
	p := newProcess(t, dir, "kingbus", src, "--semi-sync=off", "--replica-semi-sync-timeout=1s")
	p.start()
	follow := func(rep *mysqltest.Instance, port int, user string) {
		t.Helper()
		if err := rep.Exec(ctx, fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%d, MASTER_USER='%s', MASTER_PASSWORD='%s', MASTER_CONNECT_RETRY=1, "+
			"MASTER_LOG_FILE='binlog.000001', MASTER_LOG_POS=4; START SLAVE", port, user, password)); err != nil {
			t.Fatal(err)
		}
	}
	replica := func(name string) *mysqltest.Instance {
		return mysqltest.Start(t, mysqltest.Options{Name: name, Flavour: flavour, Args: []string{"--rpl-semi-sync-slave-enabled=1"}})
	}
	under, direct := replica("under-kingbus"), replica("under-source")
	p.await("the first file", func(s admin.Status) bool { return s.Stream.End.File != "" })
	follow(under, p.mysqlPort, "replica")
	follow(direct, src.Port, "repl")
	same := func(when string, want map[string]string) {
		t.Helper()
		agree(t, src, p, when, want)
	}
	exec := func(sql string) {
		t.Helper()
		if err := src.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	same("before", map[string]string{"clients": "1", "status": "ON", "no_times": "0"})
	exec("CREATE DATABASE d; CREATE TABLE d.t (a INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)")
	for i := range 50 {
		exec(fmt.Sprintf("INSERT INTO d.t (b) VALUES (REPEAT('x', %d))", i*i*100))
	}
	same("with one writer", map[string]string{"yes_tx": "52", "no_tx": "0", "no_times": "0", "status": "ON", "wait_sessions": "0"})
	for i := range 3 {
		exec(fmt.Sprintf("INSERT INTO d.t (b) VALUES ('rotates %d'); FLUSH BINARY LOGS", i))
	}
	same("with rotations", map[string]string{"yes_tx": "55", "no_tx": "0", "no_times": "0", "status": "ON", "wait_sessions": "0"})
	if out, err := under.Query(ctx, "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_slave_status'"); err != nil || out[0][1] != "ON" {
		t.Errorf("the replica's own status: %v, %v", out, err)
	}
	under.Pause()
	direct.Pause()
	for i := range 3 {
		exec(fmt.Sprintf("INSERT INTO d.t (b) VALUES ('hangs %d')", i))
	}
	same("the replicas hang", map[string]string{"status": "OFF", "no_tx": "3", "no_times": "1", "yes_tx": "55"})
	under.Resume()
	direct.Resume()
	same("they are back", map[string]string{"status": "ON", "no_tx": "3"})
	exec("INSERT INTO d.t (b) VALUES ('again')")
	same("again with one writer", map[string]string{"yes_tx": "56", "no_tx": "3", "status": "ON"})

	// The replica goes, and comes back to what it has missed.
	if err := under.Exec(ctx, "STOP SLAVE"); err != nil {
		t.Fatal(err)
	}
	exec("INSERT INTO d.t (b) VALUES ('while it is away')")
	if err := under.Exec(ctx, "START SLAVE"); err != nil {
		t.Fatal(err)
	}
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := under.Await(limit, "SELECT COUNT(*) FROM d.t", func(rows [][]string) bool { return rows[0][0] == "58" }); err != nil {
		t.Fatal(err)
	}
	if diff, err := mysqltest.CompareTables(ctx, src, under); err != nil || diff != "" {
		t.Errorf("source and replica differ: %s %v", diff, err)
	}
	sameFiles(t, &cluster{src: src, dir: dir, names: []string{"kingbus"}, nodes: map[string]*node{"kingbus": {process: p}}})
}
