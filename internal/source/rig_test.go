package source

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kingbus/internal/binlog"
	"kingbus/internal/cluster"
	"kingbus/internal/hook"
	"kingbus/internal/mysqltest"
	"kingbus/internal/stream"
	"kingbus/internal/vfs"
	"kingbus/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for something that has to happen.
const patience = 60 * time.Second

// testLog gives the Puller's log to the test.
func testLog(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t = nil
	})
	return slog.New(slog.NewTextHandler(w, nil))
}

var discard = slog.New(slog.DiscardHandler)

type testWriter struct {
	mu sync.Mutex
	t  testing.TB
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Logf("%s", bytes.TrimSpace(p))
	}
	return len(p), nil
}

// openStream makes a stream in memory.
func openStream(t testing.TB) *stream.Stream {
	t.Helper()
	st, err := stream.Open(stream.Config{FS: vfs.NewMem(1), Dir: "/kingbus", Log: testLog(t), Peering: cluster.Peering{Heartbeat: 10 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Errorf("close the stream: %v", err)
		}
	})
	return st
}

// start runs a Puller until the test ends or stop is called.
func start(t testing.TB, cfg Config) (p *Puller, stop func()) {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = testLog(t)
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 500 * time.Millisecond
	}
	if cfg.Watch == 0 {
		cfg.Watch = time.Second
	}
	if cfg.Retry == (Backoff{}) {
		cfg.Retry = Backoff{5 * time.Millisecond, 50 * time.Millisecond}
	}
	if cfg.Slow == (Backoff{}) {
		cfg.Slow = Backoff{20 * time.Millisecond, 100 * time.Millisecond}
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Run: got %v, want context canceled", err)
		}
	})
	t.Cleanup(stop)
	return p, stop
}

// await waits until ok holds, looking again at every change of the stream and
// every 10 ms.
func await(t testing.TB, what string, p *Puller, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s; status %+v", what, p.Status())
		}
	}
}

// awaitProblem waits for a problem of that kind and returns it.
func awaitProblem(t testing.TB, p *Puller, kind Kind) *Problem {
	t.Helper()
	await(t, "the problem "+string(kind), p, func() bool {
		pr := p.Status().Problem
		return pr != nil && pr.Kind == kind
	})
	pr := p.Status().Problem
	if pr.Reason == "" || pr.Action == "" {
		t.Errorf("problem without reason or action: %+v", pr)
	}
	t.Logf("problem: %v", pr)
	return pr
}

func export(t testing.TB, st *stream.Stream, file string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := st.Export(context.Background(), file, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rig is a real server and a Puller that follows it.
type rig struct {
	t    *testing.T
	inst *mysqltest.Instance
	st   *stream.Stream
	p    *Puller
	cfg  Config
	stop func()
	// encrypted: the binlog on the disk of the source is.
	encrypted bool
	tally
}

// tally observes connections and counts.
type tally struct {
	hook.NoRelayIO
	links, transactions atomic.Int64
}

func (y *tally) Start(*hook.Link) error {
	y.links.Add(1)
	return nil
}

func (y *tally) AfterQueue(_ *hook.Link, q *hook.Queued) {
	if q.Ended {
		y.transactions.Add(1)
	}
}

const replUser, replPassword = "repl", "it's secret"

func newRig(t *testing.T, opts mysqltest.Options, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, inst: mysqltest.Start(t, opts), st: openStream(t)}
	if err := r.inst.CreateUser(t.Context(), mysqltest.User{Name: replUser, Password: replPassword, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}); err != nil {
		t.Fatal(err)
	}
	r.cfg = configFor(r.inst, r.st)
	r.cfg.Hooks.RelayIO = []hook.RelayIO{&r.tally}
	if change != nil {
		change(&r.cfg)
	}
	return r
}

func configFor(inst *mysqltest.Instance, st *stream.Stream) Config {
	return Config{
		Stream: Adapt(st), Host: "127.0.0.1", Port: uint16(inst.Port), User: replUser,
		Password: func() ([]byte, error) { return []byte(replPassword), nil },
		TLSMode:  wire.TLSPreferred, GetServerPublicKey: true,
	}
}

func (r *rig) start() *rig {
	r.t.Helper()
	r.p, r.stop = start(r.t, r.cfg)
	return r
}

func (r *rig) exec(sql string) {
	r.t.Helper()
	if err := r.inst.Exec(r.t.Context(), sql); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) files() []mysqltest.BinlogFile {
	r.t.Helper()
	files, err := r.inst.BinlogFiles(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

// caughtUp waits until the stream ends where the source does.
func (r *rig) caughtUp() {
	r.t.Helper()
	await(r.t, "the end of the source", r.p, func() bool {
		// Looked up each time: MariaDB adds BINLOG_CHECKPOINT in its own time.
		files := r.files()
		last := files[len(files)-1]
		return r.st.Status().SourceEnd == stream.Coordinates{File: last.Name, Pos: uint64(last.Size)}
	})
}

// file returns a file of the source.
func (r *rig) file(name string) []byte {
	r.t.Helper()
	dir := r.inst.DataDir
	if r.encrypted { // what it sends of the file is what it says without that
		dir = r.t.TempDir()
		cmd := r.inst.Tool(r.t.Context(), "mysqlbinlog", "--raw", "--read-from-remote-server", "--host=127.0.0.1", fmt.Sprintf("--port=%d", r.inst.Port),
			"--user="+replUser, "--password="+replPassword, "--result-file="+dir+"/", name)
		if out, err := cmd.CombinedOutput(); err != nil {
			r.t.Fatalf("%v: %s", err, out)
		}
	}
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return content
}

// compare checks that every file of the stream has the bytes of the source's
// file, and that it has all of them from first on.
func (r *rig) compare(first string) {
	r.t.Helper()
	r.caughtUp()
	have := map[string]bool{}
	for _, f := range r.st.Status().Files {
		have[f.Name] = true
	}
	compared := 0
	for _, f := range r.files() {
		if f.Name < first {
			continue
		}
		if !have[f.Name] {
			r.t.Errorf("the stream has no file %s", f.Name)
			continue
		}
		want := r.file(f.Name)
		want[4+17] &^= binlog.FlagInUse
		// What a writer that was cut off leaves behind may still come.
		var got []byte
		await(r.t, "all of "+f.Name, r.p, func() bool {
			got = export(r.t, r.st, f.Name)
			return len(got) >= len(want)
		})
		if !bytes.Equal(got, want) {
			at := 0
			for at < min(len(got), len(want)) && got[at] == want[at] {
				at++
			}
			r.t.Errorf("file %s: got %d bytes, want %d, first difference at %d", f.Name, len(got), len(want), at)
		}
		compared++
	}
	if compared == 0 {
		r.t.Errorf("no file was compared")
	}
	set, err := r.inst.GTIDExecuted(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	if got := strings.ReplaceAll(r.st.Status().Executed.String(), "\n", ""); got != set && r.gtids() {
		r.t.Errorf("executed: got %s, want %s", got, set)
	}
}

func (r *rig) gtids() bool {
	r.t.Helper()
	if r.inst.Server.Flavour.MariaDB() {
		return false
	}
	mode, err := r.inst.QueryValue(r.t.Context(), "SELECT @@GLOBAL.gtid_mode")
	if err != nil {
		r.t.Fatal(err)
	}
	return mode == "ON"
}

// killDumps kills all dump threads on the source.
func (r *rig) killDumps(ctx context.Context) error {
	rows, err := r.inst.Query(ctx, "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'")
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := r.inst.Exec(ctx, "KILL "+row[0]); err != nil && !strings.Contains(err.Error(), "Unknown thread") {
			return fmt.Errorf("kill %s: %w", row[0], err)
		}
	}
	return nil
}
