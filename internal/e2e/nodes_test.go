package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/mysqltest"
)

// TestLeaderStops: when the leader is stopped, the next one is there without an
// election. The election timeout is longer than the test waits, so if it took one,
// nobody would lead.
func TestLeaderStops(t *testing.T) {
	ctx := context.Background()
	dir := evidence(t)
	src := startSource(t, dir, mysqltest.Options{Name: "source"})
	const wait = 2 * patience                                            // the longest that there is
	c := newCluster(t, dir, src, 1, "--election-timeout", wait.String()) // alone, as the members of a list begin with an election
	c.add("n2", c.nodes["n1"])
	c.add("n3", c.nodes["n2"])
	if err := src.Exec(ctx, "CREATE DATABASE e2e; CREATE TABLE e2e.t (a INT PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		old := c.awaitLeader()
		began := time.Now()
		old.stop()
		stopped := time.Since(began)
		leader := c.awaitLeader()
		t.Logf("%s stopped within %v; %s leads and follows the source %v after SIGTERM, with an election timeout of %v",
			old.name, stopped.Round(time.Millisecond), leader.name, time.Since(began).Round(time.Millisecond), wait)
		if err := src.Exec(ctx, fmt.Sprintf("INSERT INTO e2e.t VALUES (%d)", round)); err != nil {
			t.Fatal(err)
		}
		old.start()
		everywhere(t, c)
	}
}

// TestReplicaMoves: a replica that is moved from one node to another goes on without
// a gap, by position and with GTIDs, while writers write.
func TestReplicaMoves(t *testing.T) {
	ctx := context.Background()
	dir := evidence(t)
	src := startSource(t, dir, mysqltest.Options{Name: "source", Args: []string{"--max-binlog-size=1M"}})
	c := newCluster(t, dir, src, 3)
	byGTID, byPosition := mysqltest.Start(t, mysqltest.Options{Name: "by-gtid"}), mysqltest.Start(t, mysqltest.Options{Name: "by-position"})
	replicas := []*mysqltest.Instance{byGTID, byPosition}
	l := startLedger(t, src, 2)
	position := "SOURCE_LOG_FILE='binlog.000001', SOURCE_LOG_POS=4"
	for round := range 4 {
		n := c.nodes[c.names[round%len(c.names)]]
		n.follow(ctx, byGTID, "SOURCE_AUTO_POSITION=1")
		n.follow(ctx, byPosition, position)
		for _, rep := range replicas {
			awaitRows(t, rep, 100*(round+1))
			if err := rep.Exec(ctx, "STOP REPLICA"); err != nil {
				t.Fatal(err)
			}
		}
		position = applied(t, byPosition)
	}
	for _, rep := range replicas {
		if err := rep.Exec(ctx, "START REPLICA"); err != nil {
			t.Fatal(err)
		}
	}
	l.stop()
	everywhere(t, c, replicas...)
	for _, rep := range replicas {
		l.check(t, rep)
	}
}

// awaitRows waits until a replica has some transactions of the ledger.
func awaitRows(t *testing.T, rep *mysqltest.Instance, least int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// While the table has not come there is none in tables.
	if _, err := rep.Await(ctx, "SELECT 1 FROM information_schema.tables WHERE table_schema = 'book' AND table_name = 'tx'",
		func(rows [][]string) bool { return len(rows) == 1 }); err != nil {
		t.Fatal(err)
	}
	if _, err := rep.Await(ctx, "SELECT COUNT(*) FROM book.tx", func(rows [][]string) bool {
		n, _ := strconv.Atoi(rows[0][0])
		return n >= least
	}); err != nil {
		t.Fatal(err)
	}
}

// applied returns up to where a replica has applied, as CHANGE REPLICATION SOURCE
// wants it.
func applied(t *testing.T, rep *mysqltest.Instance) string {
	t.Helper()
	rows, err := rep.Query(context.Background(), "SHOW REPLICA STATUS")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("SOURCE_LOG_FILE='%s', SOURCE_LOG_POS=%s", rows[0][9], rows[0][21]) // Relay_Source_Log_File, Exec_Source_Log_Pos
}

// TestMajorityLost: a node that is left alone serves what is committed to who asks
// for the first time, and says that it is stale; when the others are back it goes on.
func TestMajorityLost(t *testing.T) {
	ctx := context.Background()
	dir := evidence(t)
	src := startSource(t, dir, mysqltest.Options{Name: "source"})
	c := newCluster(t, dir, src, 3)
	l := startLedger(t, src, 2)
	awaitRows(t, src, 200)
	l.stop()
	everywhere(t, c)
	left := c.nodes["n1"]
	for _, name := range c.names[1:] {
		c.nodes[name].kill()
	}
	left.await("stale", func(s admin.Status) bool { return !s.Ready && s.Cluster.Stale })
	if err := left.get("/readyz", &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("/readyz without a majority: %v", err)
	}
	if out, err := left.run("status"); err != nil || !strings.Contains(out, "NO LEADER") || !strings.Contains(out, "NOT READY") {
		t.Errorf("status without a majority: %v\n%s", err, out)
	}
	host, port, _ := net.SplitHostPort(fmt.Sprintf("127.0.0.1:%d", left.mysqlPort))
	cmd := src.Tool(ctx, "mysqlbinlog", "--read-from-remote-server", "--raw", "--host="+host, "--port="+port, "--user=replica", "binlog.000001")
	cmd.Env = append(cmd.Environ(), "MYSQL_PWD="+password)
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mysqlbinlog from a node without a majority: %v\n%s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(cmd.Dir, "binlog.000001"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(src.DataDir, "binlog.000001"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("mysqlbinlog got %d bytes, the source has %d, different from byte %d on", len(got), len(want), differAt(got, want))
	}
	if err := src.Exec(ctx, "INSERT INTO book.tx VALUES (1, 2, 'is not taken yet')"); err != nil {
		t.Fatal(err)
	}
	for _, name := range c.names[1:] {
		c.nodes[name].start()
	}
	everywhere(t, c)
}

// TestOneMoreOneLess: a fourth node comes while writers write, then the first one goes,
// whether it leads or not, and its process ends by itself.
func TestOneMoreOneLess(t *testing.T) {
	dir := evidence(t)
	src := startSource(t, dir, mysqltest.Options{Name: "source", Args: []string{"--max-binlog-size=1M"}})
	c := newCluster(t, dir, src, 3)
	l := startLedger(t, src, 2)
	awaitRows(t, src, 200)
	c.add("n4", c.nodes["n2"])
	first := c.nodes["n1"]
	t.Logf("%s leads, n1 is removed", c.awaitLeader().name)
	t.Log(c.nodes["n3"].insist("node", "remove", "n1"))
	const refused = 6 // the exit code, see cmd/kingbus
	var exit *exec.ExitError
	if err := first.awaitEnd(); !errors.As(err, &exit) || exit.ExitCode() != refused {
		t.Errorf("the node that was removed ended with %v, not with exit code %d", err, refused)
	}
	c.names = c.names[1:]
	leader := c.awaitLeader()
	if s, err := leader.status(); err != nil || s.Cluster.Voters() != 3 || len(s.Cluster.Members) != 3 {
		t.Errorf("members after one came and one went: %+v, %v", s.Cluster.Members, err)
	}
	n, err := src.QueryValue(context.Background(), "SELECT COUNT(*) FROM book.tx")
	if err != nil {
		t.Fatal(err)
	}
	rows, _ := strconv.Atoi(n)
	awaitRows(t, src, rows+200) // some come when it is gone
	l.stop()
	everywhere(t, c)
	inspect(t, c)
}

// TestLateHello: what a node says first when it calls another one may come late, as
// packets are lost and sent again; it has got more entries meanwhile. Nobody may take
// its data folder for an old copy because of that, and nobody ends.
func TestLateHello(t *testing.T) {
	dir := evidence(t)
	src := startSource(t, dir, mysqltest.Options{Name: "source"})
	c := newCluster(t, dir, src, 3)
	l := startLedger(t, src, 2)
	for range 2 {
		leader := c.awaitLeader().name
		var others []string
		for _, name := range c.names {
			if name != leader {
				others = append(others, name)
			}
		}
		caller, called := c.nodes[others[0]], c.nodes[others[1]]
		// The two have to connect anew, and the words of the caller are on their way
		// for a while.
		end := c.net.cut(refuse, way{caller.name, called.name}, way{called.name, caller.name})
		heal := c.net.cut(stall, way{caller.name, called.name})
		end()
		time.Sleep(3 * time.Second) // more than a wait before a call, less than an end waits for the answer
		heal()
		called.await(caller.name+" is connected again", func(s admin.Status) bool {
			m, is := s.Cluster.Member(caller.name)
			return caller.died() || is && m.Up
		})
		if caller.died() {
			t.Fatalf("%s ended by itself: %v", caller.name, caller.err)
		}
	}
	l.stop()
	everywhere(t, c)
}
