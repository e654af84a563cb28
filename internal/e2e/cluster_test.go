package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/gtid"
	"kingbus/internal/mysqltest"
)

var (
	chaosTime = flag.Duration("chaos", 40*time.Second, "how long TestChaos does harm")
	chaosSeed = flag.Uint64("chaos-seed", 0, "seed of TestChaos; 0 = the clock's")
)

// nodes are the processes of a cluster, by name.
type nodes struct {
	t     *testing.T
	names []string
	procs map[string]*process
	links *links
	peers map[string]string // addresses that the others dial
}

// newNodes prepares a cluster that follows src, and starts it.
func newNodes(t *testing.T, src *mysqltest.Instance, n int) *nodes {
	t.Helper()
	c := &nodes{t: t, procs: map[string]*process{}, links: newLinks(t), peers: map[string]string{}}
	listen := map[string]string{}
	var initial []string
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		c.names = append(c.names, name)
		listen[name] = fmt.Sprintf("127.0.0.1:%d", freePort(t))
		c.peers[name] = c.links.front(t, name, listen[name])
		initial = append(initial, name+"="+c.peers[name])
	}
	for _, name := range c.names {
		c.procs[name] = newProcess(t, src, "--node-name", name, "--peer-listen", listen[name], "--peer-advertise", c.peers[name],
			"--initial-cluster", strings.Join(initial, ","), "--heartbeat", "50ms", "--election-timeout", "500ms")
		c.procs[name].start()
	}
	for _, name := range c.names {
		c.procs[name].await(name+" is ready", func(s admin.Status) bool { return s.Ready })
	}
	return c
}

// leader returns which of some nodes leads, "" if none says so.
func (c *nodes) leader(names []string) string {
	for _, name := range names {
		if s, err := c.procs[name].status(); err == nil && s.Node.Leader {
			return name
		}
	}
	return ""
}

// run runs the program's command line against a node, and returns what it prints.
func (c *nodes) run(node string, args ...string) (string, error) {
	args = append(args, "--admin-listen", fmt.Sprintf("127.0.0.1:%d", c.procs[node].adminPort))
	out, err := exec.Command(binary(c.t), args...).CombinedOutput()
	return string(out), err
}

// follow makes rep a replica of a node, with all nodes in the server's own failover
// list.
func (c *nodes) follow(ctx context.Context, rep *mysqltest.Instance, node string) {
	c.t.Helper()
	var list strings.Builder
	for _, name := range c.names {
		fmt.Fprintf(&list, "DO asynchronous_connection_failover_add_source('', '127.0.0.1', %d, '', 50); ", c.procs[name].mysqlPort)
	}
	err := rep.Exec(ctx, fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='replica', SOURCE_PASSWORD='%s', "+
		"SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=2, SOURCE_AUTO_POSITION=1, SOURCE_CONNECTION_AUTO_FAILOVER=1; %sSTART REPLICA",
		c.procs[node].mysqlPort, password, list.String()))
	if err != nil {
		c.t.Fatal(err)
	}
}

// ledger writes transactions with numbers of their own, and remembers which of them
// the source has called committed.
type ledger struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	acked  map[string]bool
}

func startLedger(t *testing.T, src *mysqltest.Instance, n int) *ledger {
	t.Helper()
	if err := src.Exec(context.Background(), `CREATE DATABASE IF NOT EXISTS book;
		CREATE TABLE book.tx (id BIGINT PRIMARY KEY, pad LONGBLOB)`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &ledger{cancel: cancel, acked: map[string]bool{}}
	for i := range n {
		l.wg.Go(func() { l.write(ctx, src, i) })
	}
	return l
}

func (l *ledger) write(ctx context.Context, src *mysqltest.Instance, writer int) {
	rng := rand.New(rand.NewPCG(uint64(writer), 11))
	var s *mysqltest.Session
	for n := 1; ctx.Err() == nil; n++ {
		if s == nil {
			var err error
			if s, err = src.Session(ctx); err != nil {
				s = nil
				continue
			}
		}
		size := rng.IntN(2000)
		if rng.IntN(100) == 0 {
			size = rng.IntN(700_000)
		}
		id := strconv.Itoa(writer*10_000_000 + n)
		if err := s.Exec(ctx, fmt.Sprintf("INSERT INTO book.tx VALUES (%s, REPEAT('z', %d))", id, size)); err != nil {
			_ = s.Close()
			s = nil
			continue
		}
		l.mu.Lock()
		l.acked[id] = true
		l.mu.Unlock()
	}
	if s != nil {
		_ = s.Close()
	}
}

func (l *ledger) stop() {
	l.cancel()
	l.wg.Wait()
}

// check finds every transaction that was called committed on a server.
func (l *ledger) check(t *testing.T, inst *mysqltest.Instance) {
	t.Helper()
	rows, err := inst.Query(context.Background(), "SELECT id FROM book.tx")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]int{}
	for _, row := range rows {
		there[row[0]]++
	}
	for id := range l.acked {
		if there[id] != 1 {
			t.Errorf("%s: transaction %s, which the source called committed, is there %d times", inst.Name, id, there[id])
		}
	}
	t.Logf("%s: %d transactions, of which %d were acknowledged to writers", inst.Name, len(rows), len(l.acked))
}

// TestChaos does at random to a cluster, its network and its source what happens to
// them, while writers write and two replicas read. Then all is quiet, and everything
// must be everywhere, once.
func TestChaos(t *testing.T) {
	ctx := context.Background()
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	src := startSource(t, mysqltest.Options{Name: "source", Args: []string{"--log-bin=binlog", "--max-binlog-size=8M"}})
	c := newNodes(t, src, 3)
	replicas := []*mysqltest.Instance{mysqltest.Start(t, mysqltest.Options{Name: "replica1"}), mysqltest.Start(t, mysqltest.Options{Name: "replica2"})}
	for i, rep := range replicas {
		c.follow(ctx, rep, c.names[i+1])
	}
	l := startLedger(t, src, 4)
	x := &chaos{c: c, src: src, rng: rng}
	began := time.Now()
	for time.Since(began) < *chaosTime {
		what := x.act(ctx)
		t.Logf("%6.1fs %s", time.Since(began).Seconds(), what)
		time.Sleep(time.Duration(200+rng.IntN(3000)) * time.Millisecond) // a random moment
	}
	x.mend()
	l.stop()
	everywhere(t, c, src, replicas)
	for _, rep := range replicas {
		l.check(t, rep)
	}
}

// chaos does harm.
type chaos struct {
	c      *nodes
	src    *mysqltest.Instance
	rng    *rand.Rand
	frozen string // a node that is stopped by SIGSTOP
}

func (x *chaos) act(ctx context.Context) string {
	c := x.c
	var up, down []string
	for _, name := range c.names {
		switch {
		case name == x.frozen:
		case c.procs[name].cmd == nil:
			down = append(down, name)
		default:
			up = append(up, name)
		}
	}
	// Somebody comes back more often than somebody goes.
	if x.frozen != "" && x.rng.IntN(2) == 0 {
		name := x.frozen
		x.thaw()
		return "SIGCONT " + name
	}
	if len(down) > 0 && x.rng.IntN(3) > 0 {
		c.procs[down[0]].start()
		return "start " + down[0]
	}
	name := ""
	if len(up) > 0 {
		name = up[x.rng.IntN(len(up))]
		if leader := c.leader(up); leader != "" && x.rng.IntN(2) == 0 {
			name = leader
		}
	}
	switch n := x.rng.IntN(100); {
	case n < 30 && len(up) > 1:
		c.procs[name].kill()
		return "kill -9 " + name
	case n < 40 && len(up) > 1:
		c.procs[name].stop()
		return "SIGTERM " + name
	case n < 52 && x.frozen == "" && len(up) > 1:
		x.frozen = name
		_ = c.procs[name].cmd.Process.Signal(syscall.SIGSTOP)
		return "SIGSTOP " + name
	case n < 60 && len(up) > 1:
		to := up[x.rng.IntN(len(up))]
		_, err := c.run(up[0], "node", "transfer", to)
		return fmt.Sprintf("transfer to %s: %v", to, err)
	case n < 78:
		a, b := c.names[x.rng.IntN(len(c.names))], c.names[x.rng.IntN(len(c.names))]
		if a != b {
			c.links.set(a, b)
			if x.rng.IntN(2) == 0 {
				c.links.set(b, a)
			}
			return "cut " + a + " → " + b
		}
		for _, other := range c.names {
			if other != a {
				c.links.set(a, other)
				c.links.set(other, a)
			}
		}
		return "isolate " + a
	case n < 90:
		c.links.mend()
		return "mend the network"
	case n < 95:
		x.src.Kill()
		if err := x.src.Start(ctx); err != nil {
			c.t.Fatal(err)
		}
		return "kill -9 and start the source"
	default:
		if err := x.src.Restart(ctx); err != nil {
			c.t.Fatal(err)
		}
		return "restart the source"
	}
}

func (x *chaos) thaw() {
	if x.frozen != "" {
		if p := x.c.procs[x.frozen]; p.cmd != nil {
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
		}
		x.frozen = ""
	}
}

// mend makes everything well.
func (x *chaos) mend() {
	x.thaw()
	x.c.links.mend()
	for _, name := range x.c.names {
		if x.c.procs[name].cmd == nil {
			x.c.procs[name].start()
		}
	}
}

// everywhere waits until all nodes and replicas have what the source has, and
// compares everything: tables, files byte by byte, the logs of the nodes.
func everywhere(t *testing.T, c *nodes, src *mysqltest.Instance, replicas []*mysqltest.Instance) {
	t.Helper()
	ctx := context.Background()
	if err := src.Exec(ctx, "FLUSH BINARY LOGS"); err != nil {
		t.Fatal(err)
	}
	end, err := src.Query(ctx, "SHOW BINARY LOG STATUS")
	if err != nil {
		t.Fatal(err)
	}
	executed, err := gtid.ParseSet(end[0][4])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range c.names {
		s := c.procs[name].await("everything in "+name, func(s admin.Status) bool {
			return s.Ready && s.Stream.End.File == end[0][0] && fmt.Sprint(s.Stream.End.Pos) == end[0][1]
		})
		if !s.Stream.Executed.Equal(executed) {
			t.Errorf("%s has %v, the source %v", name, s.Stream.Executed, executed)
		}
	}
	for _, rep := range replicas {
		n, err := rep.QueryValue(ctx, fmt.Sprintf("SELECT WAIT_FOR_EXECUTED_GTID_SET('%s', 180)", executed))
		if err != nil || n != "0" {
			rows, _ := rep.Query(ctx, "SELECT * FROM performance_schema.replication_connection_status; SELECT * FROM performance_schema.replication_applier_status_by_worker")
			t.Fatalf("%s did not get everything: %v %v\n%v", rep.Name, n, err, rows)
		}
		if diff, err := mysqltest.CompareTables(ctx, src, rep); err != nil || diff != "" {
			t.Errorf("source and %s differ: %s %v", rep.Name, diff, err)
		}
	}
	files, err := src.BinlogFiles(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files[:len(files)-1] {
		disk, err := os.ReadFile(filepath.Join(src.DataDir, f.Name))
		if err != nil {
			t.Fatal(err)
		}
		disk[4+17] &^= 1 // IN_USE, see same
		for _, name := range c.names {
			var got bytes.Buffer
			if err := c.procs[name].get("/api/v1/binlog/"+f.Name, &got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), disk) {
				t.Errorf("%s: %d bytes in %s, %d at the source, not equal", f.Name, got.Len(), name, len(disk))
			}
		}
	}
	if out, err := c.run(c.names[0], "verify"); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
	t.Logf("%d files, end %s:%s", len(files), end[0][0], end[0][1])
}

// TestReadingAnywhere: a replica that is moved from one node to another goes on
// without a gap, by position and with GTIDs; with the majority lost what is committed
// is still served, by a node that says that it is stale.
func TestReadingAnywhere(t *testing.T) {
	ctx := context.Background()
	src := startSource(t, mysqltest.Options{Name: "source", Args: []string{"--log-bin=binlog", "--max-binlog-size=1M"}})
	c := newNodes(t, src, 3)
	byGTID, byPosition := mysqltest.Start(t, mysqltest.Options{Name: "gtid"}), mysqltest.Start(t, mysqltest.Options{Name: "position"})
	l := startLedger(t, src, 2)
	replicas := []*mysqltest.Instance{byGTID, byPosition}
	for round := range 4 {
		p := c.procs[c.names[round%len(c.names)]]
		for _, rep := range replicas {
			if round > 0 {
				if err := rep.Exec(ctx, "STOP REPLICA"); err != nil {
					t.Fatal(err)
				}
			}
		}
		p.follow(ctx, byGTID, "SOURCE_AUTO_POSITION=1")
		position := "SOURCE_LOG_FILE='binlog.000001', SOURCE_LOG_POS=4"
		if round > 0 {
			rows, err := byPosition.Query(ctx, "SHOW REPLICA STATUS")
			if err != nil {
				t.Fatal(err)
			}
			position = fmt.Sprintf("SOURCE_LOG_FILE='%s', SOURCE_LOG_POS=%s", rows[0][9], rows[0][21]) // Relay_Source_Log_File, Exec_Source_Log_Pos
		}
		p.follow(ctx, byPosition, position)
		for _, rep := range replicas {
			least := 100 * (round + 1)
			if _, err := rep.Await(ctx, "SELECT COUNT(*) FROM book.tx", func(rows [][]string) bool {
				n, _ := strconv.Atoi(rows[0][0])
				return n >= least
			}); err != nil {
				t.Fatalf("round %d: %s did not get %d transactions: %v", round, rep.Name, least, err)
			}
		}
	}
	l.stop()
	everywhere(t, c, src, replicas)

	survivor := c.names[0]
	for _, name := range c.names[1:] {
		c.procs[name].kill()
	}
	p := c.procs[survivor]
	p.await("stale", func(s admin.Status) bool { return !s.Ready && s.Cluster.Stale })
	if err := p.get("/readyz", &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("/readyz without a majority: %v", err)
	}
	dir := t.TempDir()
	host, port, _ := net.SplitHostPort(fmt.Sprintf("127.0.0.1:%d", p.mysqlPort))
	cmd := src.Tool(ctx, "mysqlbinlog", "--read-from-remote-server", "--raw", "--host="+host, "--port="+port, "--user=replica", "binlog.000001")
	cmd.Env = append(cmd.Environ(), "MYSQL_PWD="+password)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mysqlbinlog from a node without a majority: %v\n%s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(dir, "binlog.000001"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(src.DataDir, "binlog.000001"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("mysqlbinlog got %d bytes, the source has %d, not equal", len(got), len(want))
	}
}
