package server

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kingbus/internal/mysqltest"
	"kingbus/internal/stream"
)

// fitness is why a node is unfit.
type fitness struct{ reason atomic.Pointer[string] }

func (f *fitness) set(reason string) { f.reason.Store(&reason) }

func (f *fitness) unfit() string {
	if r := f.reason.Load(); r != nil {
		return *r
	}
	return ""
}

const (
	fetching     = "this node is fetching its log from the cluster"
	textFetching = "kingbus: no replicas are served here now: " + fetching + "; use another node"
	errFetching  = "MySQL error 1053 (08S01): " + textFetching
)

// TestUnfit: an unfit node refuses dumps without any event, which would make a
// replica forget its failed attempts, and without a 1236; its other answers tell
// whoever chooses a node not to take this one.
func TestUnfit(t *testing.T) {
	var f fitness
	r, _ := madeRig(t, 1, 2, 100, func(c *Config) { c.Unfit = f.unfit })
	conn := r.dial()
	play(t, conn, []step{{setCRC, "OK"}, {"SELECT 1", "1"}})
	f.set(fetching)
	play(t, conn, []step{
		{"SELECT 1", "1053: " + textFetching}, {"SELECT UNIX_TIMESTAMP()", "1053: " + textFetching}, {"SELECT @@GLOBAL.read_only", "1053: " + textFetching},
		{"SET @x = 1", "OK"}, {"SHOW BINARY LOG STATUS", "binlog.000001"}, {"SHOW VARIABLES LIKE 'server_uuid'", r.stream.Status().Identity.ServerUUID},
	})
	for name, payload := range map[string][]byte{
		"position": dumpPayload("binlog.000001", 4, 0, 9), "gtid": dumpGTIDPayload("", 4, 0, 9, encodeSet(t, "")),
		"ahead": dumpPayload("binlog.000001", 1<<20, 0, 9), "unknown file": dumpPayload("other.000001", 4, 0, 9), "position 3": dumpPayload("binlog.000001", 3, 0, 9),
	} {
		t.Run(name, func(t *testing.T) {
			conn := r.dial()
			play(t, conn, []step{{setCRC, "OK"}})
			compare(t, []string{errFetching, "closed"}, recordDump(t, conn, payload, nil).lines)
		})
	}
	f.set("")
	play(t, conn, []step{{"SELECT 1", "1"}})
	if lines := recordDump(t, conn, dumpPayload("binlog.000001", 4, flagNonBlock, 9), nil).lines; lines[len(lines)-2] != "EOF fe00000200" {
		t.Errorf("fit again: %q", lines)
	}
}

// TestBecomesUnfit: dumps that run when the node becomes unfit are sent away,
// those that wait for their place without an event.
func TestBecomesUnfit(t *testing.T) {
	var f fitness
	var seen tally
	r, _ := madeRig(t, 1, 2, 100, func(c *Config) { c.Unfit, c.CatchUp, c.Hooks = f.unfit, time.Hour, seen.hooks() })
	start := func(payload []byte) chan []string {
		conn := r.dial()
		play(t, conn, []step{{setCRC, "OK"}})
		out := make(chan []string, 1)
		go func() {
			tr, err := readDump(conn, payload, nil)
			if err != nil {
				tr.lines = append(tr.lines, err.Error())
			}
			out <- tr.lines
		}()
		return out
	}
	tail := start(dumpPayload("binlog.000001", 4, 0, 9))
	ahead := start(dumpPayload("binlog.000001", 1<<20, 0, 10))
	waitReplicas(t, r, 2)
	for deadline := time.Now().Add(20 * time.Second); seen.events.Load() < 11; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d events", seen.events.Load())
		}
	}
	f.set(fetching)
	lines := <-tail
	if n := len(lines); n < 3 || lines[n-2] != errFetching || lines[n-1] != "closed" {
		t.Errorf("at the tail: got %q", lines)
	}
	compare(t, []string{errFetching, "closed"}, <-ahead)
}

// replaced is a stream whose log is replaced by a snapshot while it is read.
type replaced struct {
	Stream
	f *fitness
}

func (s replaced) SeekPosition(file string, pos uint64) (Reader, error) {
	r, err := s.Stream.SeekPosition(file, pos)
	return &replacedReader{r, s.f, 1}, err
}

type replacedReader struct {
	Reader
	f    *fitness
	left int
}

func (r *replacedReader) Next() (stream.Chunk, error) {
	if r.left--; r.left < 0 {
		r.f.set(fetching)
		return stream.Chunk{}, fmt.Errorf("read: %w", stream.ErrPurgedAway)
	}
	return r.Reader.Next()
}

func TestReplacedLog(t *testing.T) {
	var f fitness
	r, _ := madeRig(t, 1, 1, 100, func(c *Config) { c.Unfit, c.Stream = f.unfit, replaced{c.Stream, &f} })
	conn := r.dial()
	play(t, conn, []step{{setCRC, "OK"}})
	if lines := recordDump(t, conn, dumpPayload("binlog.000001", 4, 0, 9), nil).lines; len(lines) < 3 || lines[len(lines)-2] != errFetching {
		t.Errorf("got %q", lines)
	}
}

// TestFailover: a MySQL 9.7 replica with asynchronous connection failover leaves
// a node that is unfit or dead for the next one in its list, does not come back
// before the node is fit, and loses nothing.
func TestFailover(t *testing.T) {
	rec := newRecording(t)
	r := newRig(t)
	rec.feed(r, 1<<16)
	spare, spareAddr := r.server, r.addr
	var f fitness
	r.serve(Config{Stream: Binlog(r.stream), Log: spare.log, Unfit: f.unfit})
	preferred, preferredAddr := r.server, r.addr
	replica := mysqltest.Start(t, mysqltest.Options{Name: "replica"})
	exec(t, replica, changeSource(r, ", SOURCE_AUTO_POSITION=1, SOURCE_RETRY_COUNT=2, SOURCE_CONNECTION_AUTO_FAILOVER=1"))
	for _, s := range []struct {
		addr   string
		weight int
	}{{preferredAddr, 80}, {spareAddr, 50}} {
		exec(t, replica, fmt.Sprintf("DO asynchronous_connection_failover_add_source('', '127.0.0.1', %s, '', %d)", portOf(s.addr), s.weight))
	}
	exec(t, replica, "START REPLICA")
	awaitGTIDs(t, replica, rec.executed(t))
	// goesOn writes and waits until the replica has that, by way of addr.
	goesOn := func(what, addr string) {
		t.Helper()
		rec.more(r, fmt.Sprintf("INSERT INTO d.t (b) VALUES ('%s')", what))
		awaitGTIDs(t, replica, rec.executed(t))
		if got := replicaStatus(t, replica, "Source_Port")[0]; got != portOf(addr) {
			t.Errorf("%s: the replica pulls from %s, want %s", what, got, portOf(addr))
		}
		equalTables(t, rec.inst, replica)
	}
	goesOn("fit", preferredAddr)

	f.set(fetching)
	awaitReplica(t, replica, "Source_Port", func(s string) bool { return s == portOf(spareAddr) })
	goesOn("unfit", spareAddr)
	// The replica's monitor asks every source of a greater weight SELECT 1 every few
	// seconds, and goes back to the first one that answers.
	asked := preferred.Counters()
	for deadline := time.Now().Add(60 * time.Second); preferred.Counters().Queries < asked.Queries+2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the monitor does not ask")
		}
	}
	goesOn("still unfit", spareAddr)
	if n := spare.Counters().Dumps; n != 1 {
		t.Errorf("%d dumps from the spare node: the replica left it", n)
	}

	f.set("")
	awaitReplica(t, replica, "Source_Port", func(s string) bool { return s == portOf(preferredAddr) })
	goesOn("fit again", preferredAddr)

	_ = preferred.Close()
	goesOn("dead", spareAddr)
}

// TestUnfit56: to an old replica the refusal is no reason to stop either.
func TestUnfit56(t *testing.T) {
	source := mysqltest.Start(t, mysqltest.Options{Name: "source", Flavour: mysqltest.MySQL56})
	exec(t, source, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY AUTO_INCREMENT, b TEXT); INSERT INTO d.t (b) VALUES ('x')")
	rec := &recording{inst: source}
	rec.reload(t)
	var f fitness
	f.set(fetching)
	r := newRig(t, func(c *Config) { c.Unfit = f.unfit })
	rec.feed(r, 1<<16)
	replica := mysqltest.Start(t, mysqltest.Options{Name: "replica", Flavour: mysqltest.MySQL56})
	exec(t, replica, fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%s, MASTER_USER='%s', MASTER_PASSWORD='%s', MASTER_CONNECT_RETRY=1, MASTER_LOG_FILE='%s', MASTER_LOG_POS=4; START SLAVE",
		portOf(r.addr), testUser, strings.ReplaceAll(testPassword, "'", "''"), rec.names[0]))
	refused := func() { // twice
		t.Helper()
		start := r.server.Counters().Queries
		for deadline := time.Now().Add(60 * time.Second); r.server.Counters().Queries < start+2; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the replica has given up: %q", replicaStatus(t, replica, "Slave_IO_Running", "Last_IO_Error"))
			}
		}
	}
	at := func() {
		t.Helper()
		awaitReplica(t, replica, "Exec_Master_Log_Pos", func(s string) bool { return s == fmt.Sprint(r.size) })
	}
	refused()
	f.set("")
	at()
	f.set(fetching)
	waitReplicas(t, r, 0)
	refused()
	rec.more(r, "INSERT INTO d.t (b) VALUES ('meanwhile')")
	f.set("")
	at()
	equalTables(t, source, replica)
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
