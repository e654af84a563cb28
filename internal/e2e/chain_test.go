package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/gtid"
	"kingbus/internal/mysqltest"
	"kingbus/internal/semisync"
	protocol "kingbus/internal/wire"
)

// waitingSource is a source that waits for kingbus without a time limit.
func waitingSource(t *testing.T, dir string) *mysqltest.Instance {
	t.Helper()
	return startSource(t, dir, mysqltest.Options{Name: "source", Args: []string{
		"--plugin-load-add=semisync_source.so", "--rpl-semi-sync-source-enabled=1", "--rpl-semi-sync-source-timeout=4294967295", "--sync-binlog=1",
	}})
}

func semiSyncReplica(t *testing.T, name string) *mysqltest.Instance {
	t.Helper()
	return mysqltest.Start(t, mysqltest.Options{Name: name, Args: []string{"--plugin-load-add=semisync_replica.so", "--rpl-semi-sync-replica-enabled=1"}})
}

// commit runs a statement that may have to wait.
func commit(src *mysqltest.Instance, sql string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- src.Exec(context.Background(), sql) }()
	return done
}

// chained tells whether the acknowledgement is in a state, and how many wait.
func chained(state semisync.ChainState, waiting int) func(admin.Status) bool {
	return func(s admin.Status) bool {
		c := s.Source.SemiSync.Chain
		return c != nil && c.State == state && (c.Waiting > 0) == (waiting > 0)
	}
}

// TestChained: the source is answered when a quorum of the nodes and two replicas have a
// transaction. They hang on followers, one of them hangs for a while, the leader is killed
// while a commit waits for it, one moves to another node, where it counts no more than
// once.
func TestChained(t *testing.T) {
	ctx := context.Background()
	dir := evidence(t)
	src := waitingSource(t, dir)
	c := newCluster(t, dir, src, 3, "--semi-sync=on", "--heartbeat=50ms", "--election-timeout=500ms", "--acknowledge=quorum+2", "--acknowledge-timeout=500ms", "--acknowledge-on-timeout=hold")
	leader := c.awaitLeader()
	var followers []*node
	for _, name := range c.names {
		if c.nodes[name] != leader {
			followers = append(followers, c.nodes[name])
		}
	}
	a, b := semiSyncReplica(t, "replica-a"), semiSyncReplica(t, "replica-b")
	followers[0].follow(ctx, a, "SOURCE_AUTO_POSITION=1")
	finish := func(what string, done <-chan error) {
		t.Helper()
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		case <-afterPatience():
			t.Fatalf("%s hangs", what)
		}
	}
	hangs := func(what string, done <-chan error) {
		t.Helper()
		c.awaitLeader().await("a commit to wait for replicas: "+what, chained(semisync.ChainHolds, 1))
		select {
		case err := <-done:
			t.Fatalf("%s was confirmed too early: %v", what, err)
		default:
		}
	}
	first := commit(src, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY AUTO_INCREMENT, b TEXT)")
	hangs("with one replica", first)
	followers[1].follow(ctx, b, "SOURCE_AUTO_POSITION=1")
	finish("the first transactions", first)
	for i := range 30 {
		finish("a commit", commit(src, fmt.Sprintf("INSERT INTO d.t (b) VALUES ('%d')", i)))
	}
	leader.await("nothing to wait", chained(semisync.ChainWaits, 0))
	st, err := leader.status()
	if err != nil || len(st.Source.SemiSync.Chain.Have) != 2 {
		t.Errorf("replicas: %+v, %v", st.Source.SemiSync.Chain, err)
	}

	// One hangs, and the leader dies while a commit waits for it.
	b.Pause()
	waits := commit(src, "INSERT INTO d.t (b) VALUES ('waits')")
	hangs("while a replica hangs", waits)
	leader.kill()
	hangs("after the leader's death", waits)
	b.Resume()
	finish("the commit that waited", waits)
	leader.start()

	// It moves to the other one's node.
	if err := b.Exec(ctx, "STOP REPLICA"); err != nil {
		t.Fatal(err)
	}
	waits = commit(src, "INSERT INTO d.t (b) VALUES ('while it moves')")
	hangs("without the second replica", waits)
	followers[0].follow(ctx, b, "SOURCE_AUTO_POSITION=1")
	finish("the commit that waited for it to move", waits)
	for i := range 10 {
		finish("a commit", commit(src, fmt.Sprintf("INSERT INTO d.t (b) VALUES ('moved %d')", i)))
	}
	// The first one goes: the second, known from two nodes, is one.
	if err := a.Exec(ctx, "STOP REPLICA"); err != nil {
		t.Fatal(err)
	}
	waits = commit(src, "INSERT INTO d.t (b) VALUES ('one replica')")
	hangs("with one replica again", waits)
	if err := a.Exec(ctx, "START REPLICA"); err != nil {
		t.Fatal(err)
	}
	finish("the last commit", waits)
	for _, rep := range []*mysqltest.Instance{a, b} {
		limit, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if _, err := rep.Await(limit, "SELECT COUNT(*) FROM d.t", func(rows [][]string) bool { return rows[0][0] == "43" }); err != nil {
			t.Error(err)
		}
	}
}

// TestChainedDegrade: a replica that takes too long is waited for no more, until it has
// caught up.
func TestChainedDegrade(t *testing.T) {
	ctx := context.Background()
	dir := evidence(t)
	src := waitingSource(t, dir)
	p := newProcess(t, dir, "kingbus", src, "--semi-sync=on", "--acknowledge=quorum+1", "--acknowledge-timeout=300ms")
	p.start()
	rep := semiSyncReplica(t, "replica")
	p.follow(ctx, rep, "SOURCE_AUTO_POSITION=1")
	p.await("the replica", func(s admin.Status) bool { return s.SemiSync.Clients == 1 })
	exec := func(sql string) {
		t.Helper()
		if err := src.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY AUTO_INCREMENT, b TEXT)")
	p.await("nothing to wait", chained(semisync.ChainWaits, 0))
	rep.Pause()
	for i := range 5 {
		exec(fmt.Sprintf("INSERT INTO d.t (b) VALUES ('%d')", i))
	}
	st := p.await("the quorum alone", chained(semisync.ChainDegraded, 0))
	if c := st.Source.SemiSync.Chain; c.Degraded < 1 {
		t.Errorf("%+v", c)
	}
	rep.Resume()
	p.await("the replica to have caught up", chained(semisync.ChainWaits, 0))
	exec("INSERT INTO d.t (b) VALUES ('again')")
}

// afterPatience is when a test has waited long enough.
func afterPatience() <-chan time.Time { return time.After(patience) }

// TestChainedByStatement: what the acknowledgement waits for is changed while commits go on,
// on any node, and holds for whoever leads, after a restart, too.
func TestChainedByStatement(t *testing.T) {
	ctx := context.Background()
	dir := evidence(t)
	src := waitingSource(t, dir)
	c := newCluster(t, dir, src, 3, "--semi-sync=on", "--heartbeat=50ms", "--election-timeout=500ms")
	leader := c.awaitLeader()
	var follower *node
	for _, name := range c.names {
		if c.nodes[name] != leader {
			follower = c.nodes[name]
		}
	}
	pw := filepath.Join(dir, "dba.password")
	if err := os.WriteFile(pw, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	leader.insist("user", "add", "dba", "--super", "--password-file", pw)
	say := func(n *node, sql string) string {
		t.Helper()
		limit, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		conn, err := protocol.Dial(limit, protocol.ClientConfig{Address: fmt.Sprintf("127.0.0.1:%d", n.mysqlPort), User: "dba", Password: []byte(password), TLSMode: protocol.TLSRequired})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		res, err := conn.Query(limit, sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if len(res.Rows) == 0 {
			return ""
		}
		return string(res.Rows[0][0])
	}
	finish := func(what string, done <-chan error) {
		t.Helper()
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		case <-afterPatience():
			t.Fatalf("%s hangs", what)
		}
	}
	hangs := func(what string, done <-chan error) {
		t.Helper()
		c.awaitLeader().await("a commit to wait for replicas: "+what, chained(semisync.ChainHolds, 1))
		select {
		case err := <-done:
			t.Fatalf("%s was confirmed too early: %v", what, err)
		default:
		}
	}
	a := semiSyncReplica(t, "replica-a")
	follower.follow(ctx, a, "SOURCE_AUTO_POSITION=1")
	finish("a commit with the quorum", commit(src, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY AUTO_INCREMENT, b TEXT)"))

	say(follower, "SET PERSIST kingbus_acknowledge = 'quorum+1', PERSIST kingbus_acknowledge_timeout = 300, PERSIST kingbus_acknowledge_on_timeout = 'hold'")
	for i := range 20 {
		finish("a commit", commit(src, fmt.Sprintf("INSERT INTO d.t (b) VALUES ('%d')", i)))
	}
	leader.await("replicas to be waited for", chained(semisync.ChainWaits, 0))
	a.Pause()
	waits := commit(src, "INSERT INTO d.t (b) VALUES ('waits')")
	hangs("while the replica hangs", waits)
	say(follower, "SET GLOBAL kingbus_acknowledge = 'quorum'")
	finish("the commit that waited for nothing any more", waits)
	finish("a commit with the quorum", commit(src, "INSERT INTO d.t (b) VALUES ('quorum')"))
	say(leader, "SET GLOBAL kingbus_acknowledge = 'quorum+1'")
	waits = commit(src, "INSERT INTO d.t (b) VALUES ('waits again')")
	hangs("while the replica hangs", waits)
	leader.kill()
	hangs("under another leader", waits)
	leader.start()
	hangs("with all nodes", waits)
	if got := say(leader, "SELECT @@global.kingbus_acknowledge"); got != "quorum+1" {
		t.Errorf("the node that was started again says %q", got)
	}
	say(follower, "SET GLOBAL kingbus_acknowledge_on_timeout = 'degrade'")
	finish("the commit that waited too long", waits)
	a.Resume()
	say(follower, "SET GLOBAL kingbus_acknowledge_on_timeout = 'hold'")
	for i := range 20 {
		finish("a commit", commit(src, fmt.Sprintf("INSERT INTO d.t (b) VALUES ('%d')", i)))
	}
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := a.Await(limit, "SELECT COUNT(*) FROM d.t", func(rows [][]string) bool { return rows[0][0] == "43" }); err != nil {
		t.Error(err)
	}
}

// TestUntilWaited: the transaction at which START REPLICA UNTIL stops is acknowledged to a source
// that waits for it without end.
func TestUntilWaited(t *testing.T) {
	ctx := context.Background()
	dir := evidence(t)
	src := waitingSource(t, dir)
	p := newProcess(t, dir, "kingbus", src, "--semi-sync=on")
	p.start()
	finish := func(what string, done <-chan error) {
		t.Helper()
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		case <-afterPatience():
			t.Fatalf("%s hangs", what)
		}
	}
	finish("the first commit", commit(src, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY)"))
	for i := range 5 {
		if out, err := p.run("source", "stop"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		p.await("the stop", func(st admin.Status) bool { return st.Source.State == admin.SourceStopped })
		set, err := src.GTIDExecuted(ctx)
		if err != nil {
			t.Fatal(err)
		}
		have, err := gtid.ParseSet(set)
		if err != nil {
			t.Fatal(err)
		}
		next := have.Last(have.SIDs()[0])
		next.GNO++
		if out, err := p.run("source", "start", "--until", "after:"+next.String()); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		finish("the last commit that was wanted", commit(src, fmt.Sprintf("INSERT INTO d.t VALUES (%d)", i)))
		have.Add(next)
		st := p.await("the end", func(st admin.Status) bool { return st.Source.State == admin.SourceStopped })
		if !st.Stream.Executed.Equal(have) {
			t.Errorf("it has %s, want %s", st.Stream.Executed, have)
		}
	}
}
