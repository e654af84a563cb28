package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/gtid"
	"kingbus/internal/mysqltest"
	"kingbus/internal/semisync"
	mysql "kingbus/internal/wire"
)

var semiSyncKills = flag.Int("semi-sync-kills", 12, "how many times TestConfirmed kills something; with many of them -timeout has to be long as well")

// TestConfirmed: a source that waits for its semi-sync replica without a time limit has
// three nodes of kingbus for it. Nodes, their leader and the source are killed at
// random while writers write; in the end the source is lost with its disk. Everything
// that it had confirmed to a writer is in a fresh replica, which has it from kingbus,
// and nothing is that no writer has written.
func TestConfirmed(t *testing.T) {
	ctx := context.Background()
	kills := *semiSyncKills
	if testing.Short() {
		kills = 4
	}
	dir := evidence(t)
	src := startSource(t, dir, mysqltest.Options{Name: "source", Args: []string{
		"--plugin-load-add=semisync_source.so", "--rpl-semi-sync-source-enabled=1", "--rpl-semi-sync-source-timeout=4294967295",
		"--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1", "--max-binlog-size=4M",
	}})
	c := newCluster(t, dir, src, 3, "--semi-sync=on", "--heartbeat=50ms", "--election-timeout=500ms")
	c.awaitLeader()
	l := startLedger(t, src, 8)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	of := map[string]int{}
	for range kills {
		confirmed := l.confirmed()
		time.Sleep(between(rng, 0, 700*time.Millisecond)) // a random moment
		switch n := rng.IntN(10); {
		case n == 0:
			of["the source"]++
			src.Kill()
			time.Sleep(between(rng, 0, 500*time.Millisecond))
			if err := src.Start(ctx); err != nil {
				t.Fatal(err)
			}
		case n < 7:
			leader := c.leader()
			if leader == nil {
				continue
			}
			of["the leader"]++
			leader.kill()
			time.Sleep(between(rng, 0, 1500*time.Millisecond))
			leader.start()
		default:
			any := c.nodes[c.names[rng.IntN(len(c.names))]]
			of["any node"]++
			any.kill()
			time.Sleep(between(rng, 0, 500*time.Millisecond))
			any.start()
		}
		for late := time.Now().Add(patience); l.confirmed() == confirmed; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(late) {
				t.Fatal("the source confirms nothing any more")
			}
		}
	}
	t.Logf("killed %v", of)
	leader := c.awaitLeader()
	leader.await("the source to wait for kingbus", func(s admin.Status) bool { return s.Source.SemiSync.State == semisync.StateWaiting })
	for _, p := range c.nodes {
		if p != leader {
			p.await("the leader to tell so", func(s admin.Status) bool {
				return s.Source.LeaderSemiSync != nil && s.Source.LeaderSemiSync.State == semisync.StateWaiting
			})
		}
	}
	if no, err := src.QueryValue(ctx, "SELECT variable_value FROM performance_schema.global_status WHERE variable_name = 'Rpl_semi_sync_source_no_tx'"); err != nil || no != "0" {
		t.Errorf("the source has confirmed %s transactions without kingbus, %v", no, err)
	}
	time.Sleep(between(rng, 0, time.Second))
	src.Kill()
	l.stop()
	if err := src.Close(); err != nil { // its disk is gone
		t.Fatal(err)
	}
	var end gtid.Set
	for _, name := range c.names {
		c.nodes[name].await("the same as on the leader", func(s admin.Status) bool {
			leader := c.leader()
			if leader == nil {
				return false
			}
			lead, err := leader.status()
			end = lead.Stream.Executed
			return err == nil && s.Stream.Executed.Equal(end)
		})
	}
	fresh := mysqltest.Start(t, mysqltest.Options{Name: "fresh"})
	c.nodes["n2"].follow(ctx, fresh, "SOURCE_AUTO_POSITION=1")
	awaitReplica(t, fresh, end)
	l.check(t, fresh)
	inspect(t, c)
}

// confirmed returns how many transactions were.
func (l *ledger) confirmed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// counters returns what a server says of its semi-sync replicas: the status variables
// that have to agree, without their prefix.
func counters(t *testing.T, prefix string, query func(sql string) ([][]string, error)) map[string]string {
	t.Helper()
	rows, err := query("SHOW GLOBAL STATUS LIKE '" + prefix + "%'")
	if err != nil || len(rows) == 0 {
		t.Fatalf("semi-sync status: %v, %v", rows, err)
	}
	out := map[string]string{}
	for _, row := range rows {
		switch name := strings.TrimPrefix(row[0], prefix); name {
		case "clients", "status", "yes_tx", "no_tx", "no_times", "wait_sessions":
			out[name] = row[1]
		}
	}
	return out
}

// agree waits until a source and kingbus count the same, with the values wanted.
func agree(t *testing.T, src *mysqltest.Instance, p *process, when string, want map[string]string) {
	t.Helper()
	ask := func(sql string) ([][]string, error) { return src.Query(context.Background(), sql) }
	prefix := "Rpl_semi_sync_source_"
	if src.Server.Flavour.MariaDB() {
		prefix = "Rpl_semi_sync_master_"
	}
	var a, b map[string]string
	for late := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		a, b = counters(t, prefix, ask), counters(t, prefix, p.query)
		ok := fmt.Sprint(a) == fmt.Sprint(b)
		for name, value := range want {
			ok = ok && a[name] == value
		}
		if ok {
			t.Logf("%s: %v", when, a)
			return
		}
		if time.Now().After(late) {
			t.Fatalf("%s: the source counts %v, kingbus %v; both should have %v", when, a, b, want)
		}
	}
}

// query asks a node as a client would.
func (p *process) query(sql string) ([][]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := mysql.Dial(ctx, mysql.ClientConfig{
		Address: fmt.Sprintf("127.0.0.1:%d", p.mysqlPort), User: "replica", Password: []byte(password), TLSMode: mysql.TLSPreferred,
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	res, err := c.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	var out [][]string
	for _, row := range res.Rows {
		var line []string
		for _, v := range row {
			line = append(line, string(v))
		}
		out = append(out, line)
	}
	return out, nil
}

// TestSemiSyncSource: a real semi-sync replica finds in kingbus what it finds in a real
// source, and both count the same: with one writer, when the replica hangs and when it
// is back.
func TestSemiSyncSource(t *testing.T) {
	ctx := context.Background()
	dir := evidence(t)
	src := startSource(t, dir, mysqltest.Options{Name: "source", Args: []string{
		"--plugin-load-add=semisync_source.so", "--rpl-semi-sync-source-enabled=1", "--rpl-semi-sync-source-timeout=1000",
	}})
	p := newProcess(t, dir, "kingbus", src, "--semi-sync=off", "--replica-semi-sync-timeout=1s")
	p.start()
	replica := func(name string) *mysqltest.Instance {
		return mysqltest.Start(t, mysqltest.Options{Name: name, Args: []string{"--plugin-load-add=semisync_replica.so", "--rpl-semi-sync-replica-enabled=1"}})
	}
	under, direct := replica("under-kingbus"), replica("under-source")
	p.follow(ctx, under, "SOURCE_AUTO_POSITION=1")
	err := direct.Exec(ctx, fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='repl', SOURCE_PASSWORD='%s', "+
		"SOURCE_SSL=1, SOURCE_AUTO_POSITION=1; START REPLICA", src.Port, password))
	if err != nil {
		t.Fatal(err)
	}
	agree := func(when string, want map[string]string) {
		t.Helper()
		agree(t, src, p, when, want)
	}
	agree("before", map[string]string{"clients": "1", "status": "ON", "no_times": "0"})
	if err := src.Exec(ctx, "CREATE DATABASE d; CREATE TABLE d.t (a INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)"); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if err := src.Exec(ctx, fmt.Sprintf("INSERT INTO d.t (b) VALUES (REPEAT('x', %d))", i*i*100)); err != nil {
			t.Fatal(err)
		}
	}
	agree("with one writer", map[string]string{"yes_tx": "52", "no_tx": "0", "no_times": "0", "status": "ON", "wait_sessions": "0"})
	// A ROTATE comes right behind the transaction.
	for i := range 3 {
		if err := src.Exec(ctx, fmt.Sprintf("INSERT INTO d.t (b) VALUES ('rotates %d'); FLUSH BINARY LOGS", i)); err != nil {
			t.Fatal(err)
		}
	}
	agree("with rotations", map[string]string{"yes_tx": "55", "no_tx": "0", "no_times": "0", "status": "ON", "wait_sessions": "0"})
	if out, err := under.Query(ctx, "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_replica_status'"); err != nil || out[0][1] != "ON" {
		t.Errorf("the replica's own status: %v, %v", out, err)
	}
	under.Pause()
	direct.Pause()
	for i := range 3 {
		if err := src.Exec(ctx, fmt.Sprintf("INSERT INTO d.t (b) VALUES ('hangs %d')", i)); err != nil {
			t.Fatal(err)
		}
	}
	agree("the replicas hang", map[string]string{"status": "OFF", "no_tx": "3", "no_times": "1", "yes_tx": "55"})
	under.Resume()
	direct.Resume()
	agree("they are back", map[string]string{"status": "ON", "no_tx": "3"})
	if err := src.Exec(ctx, "INSERT INTO d.t (b) VALUES ('again')"); err != nil {
		t.Fatal(err)
	}
	agree("again with one writer", map[string]string{"yes_tx": "56", "no_tx": "3", "status": "ON"})
	if diff, err := mysqltest.CompareTables(ctx, src, under); err != nil || diff != "" {
		t.Errorf("source and replica differ: %s %v", diff, err)
	}
}
