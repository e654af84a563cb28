package semisync

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kingbus/internal/cluster"
	"kingbus/internal/hook"
	"kingbus/internal/mysqltest"
	"kingbus/internal/source"
	"kingbus/internal/stream"
	"kingbus/internal/vfs"
	"kingbus/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for something that has to happen.
const patience = 60 * time.Second

// rig is a real source and a kingbus of one node that follows it.
type rig struct {
	t       *testing.T
	src     *mysqltest.Instance
	prefix  string // of the source's variables
	replica *Replica
	stop    func()
	st      *stream.Stream
}

// install gives a source semi-sync, which ~ stands for in statements.
const install = "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'"

func newRig(t *testing.T, mode Mode, pause func()) *rig {
	t.Helper()
	return newRigOf(t, mysqltest.MySQL97, mode, pause)
}

func newRigOf(t *testing.T, flavour mysqltest.Flavour, mode Mode, pause func()) *rig {
	t.Helper()
	r := &rig{t: t, prefix: "rpl_semi_sync_source_", src: mysqltest.Start(t, mysqltest.Options{Flavour: flavour, Args: []string{"--sync-binlog=1"}})}
	if flavour.MariaDB() {
		r.prefix = "rpl_semi_sync_master_"
	}
	if err := r.src.CreateUser(t.Context(), mysqltest.User{Name: "repl", Password: "p", Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}); err != nil {
		t.Fatal(err)
	}
	r.replica = NewReplica(mode, ChainSettings{}, files{}, slog.New(slog.DiscardHandler))
	hooks := hook.Set{Storage: []hook.Storage{r.replica}, RelayIO: []hook.RelayIO{r.replica}}
	st, err := stream.Open(stream.Config{FS: vfs.NewMem(1), Dir: "/kingbus", Hooks: hooks, Pause: pause, Peering: cluster.Peering{Heartbeat: 10 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	r.st = st
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Errorf("close the stream: %v", err)
		}
	})
	r.follow(hooks)
	return r
}

// follow runs a link until stop, or the test's end.
func (r *rig) follow(hooks hook.Set) {
	r.t.Helper()
	p, err := source.New(source.Config{
		Stream: source.Adapt(r.st), Host: "127.0.0.1", Port: uint16(r.src.Port), User: "repl", Hooks: hooks,
		Password: func() ([]byte, error) { return []byte("p"), nil }, TLSMode: wire.TLSPreferred, GetServerPublicKey: true,
		Heartbeat: 500 * time.Millisecond, Retry: source.Backoff{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond}, Slow: source.Backoff{Min: 20 * time.Millisecond, Max: 100 * time.Millisecond},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	r.stop = sync.OnceFunc(func() { cancel(); <-done })
	r.t.Cleanup(r.stop)
}

func (r *rig) exec(sql string) {
	r.t.Helper()
	if err := r.src.Exec(r.t.Context(), strings.ReplaceAll(sql, "~", r.prefix)); err != nil {
		r.t.Fatal(err)
	}
}

// count returns a status variable of the source.
func (r *rig) count(name string) string {
	r.t.Helper()
	rows, err := r.src.Query(r.t.Context(), "SHOW GLOBAL STATUS LIKE '"+r.prefix+name+"'")
	if err != nil || len(rows) != 1 {
		r.t.Fatalf("%s: %v, %v", name, rows, err)
	}
	return rows[0][1]
}

func (r *rig) await(what string, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-late:
			r.t.Fatalf("waited in vain: %s; %+v", what, r.replica.Status())
		}
	}
}

// TestRealSource: a source that waits for ever for its semi-sync replica gets its
// answers from kingbus, for everything that a binlog has, over restarts of either;
// and what it was answered is in the stream.
func TestRealSource(t *testing.T) {
	t.Parallel()
	r := newRig(t, ModeAuto, nil)
	r.await("the link is up without semi-sync", func() bool { return r.replica.Status().State == StateOff && r.st.Status().End.File != "" })
	if r.replica.Status().Offered {
		t.Error("semi-sync is offered, but there is no plugin")
	}
	r.exec(install)
	r.exec("SET GLOBAL ~enabled = 1; SET GLOBAL ~timeout = 4294967295")
	hooks := hook.Set{Storage: []hook.Storage{r.replica}, RelayIO: []hook.RelayIO{r.replica}}
	r.stop()
	r.follow(hooks)
	r.await("a semi-sync replica", func() bool { return r.count("clients") == "1" })
	r.exec("CREATE DATABASE d; CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB) ENGINE=InnoDB; CREATE TABLE d.m (a INT) ENGINE=MyISAM")
	for i := range 20 {
		r.exec(fmt.Sprintf("INSERT INTO d.t (b) VALUES ('%d'); INSERT INTO d.m VALUES (%d)", i, i))
	}
	r.exec("INSERT INTO d.t (b) VALUES (REPEAT('x', 300000)); FLUSH LOGS; INSERT INTO d.t (b) VALUES ('behind'); ALTER TABLE d.t ADD c INT; XA START 'x'; INSERT INTO d.t (b) VALUES ('xa'); XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'; FLUSH LOGS")
	r.concurrently(8, 25)
	if yes, no := r.count("yes_tx"), r.count("no_tx"); no != "0" || yes == "0" {
		t.Errorf("yes_tx %s, no_tx %s", yes, no)
	}
	if r.count("status") != "ON" {
		t.Error("the source has fallen back")
	}
	st := r.replica.Status()
	if st.State != StateWaiting || !st.Offered || !st.Enabled || st.FellBack != 0 || st.Acknowledged == 0 {
		t.Errorf("status: %+v", st)
	}
	// All that the source was answered is in the stream, which nobody waited for.
	r.sameEnd("SHOW BINARY LOG STATUS")

	// A new connection goes on, and so does a restarted source.
	r.stop()
	committed := make(chan error, 1)
	go func() { committed <- r.src.Exec(context.Background(), "INSERT INTO d.t (b) VALUES ('waits')") }()
	r.await("a commit waits", func() bool { return r.count("wait_sessions") == "1" })
	select {
	case err := <-committed:
		t.Errorf("a commit was confirmed while kingbus was away: %v", err)
	default:
	}
	r.follow(hooks)
	if err := <-committed; err != nil {
		t.Error(err)
	}
	if err := r.src.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.exec("SET GLOBAL ~enabled = 1; SET GLOBAL ~timeout = 4294967295")
	r.await("a semi-sync replica again", func() bool { return r.count("clients") == "1" })
	r.concurrently(4, 10)
	if no := r.count("no_tx"); no != "0" {
		t.Errorf("no_tx is %s after a restart", no)
	}
}

// sameEnd checks that the stream ends where the source does, now.
func (r *rig) sameEnd(statement string) {
	r.t.Helper()
	rows, err := r.src.Query(r.t.Context(), statement)
	if err != nil {
		r.t.Fatal(err)
	}
	if end := r.st.Status().End; end.File != rows[0][0] || fmt.Sprint(end.Pos) != rows[0][1] {
		r.t.Errorf("the stream ends at %v, the source at %v", end, rows[0])
	}
}

// concurrently has writers commit, each waiting for its own.
func (r *rig) concurrently(writers, each int) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range writers {
		wg.Go(func() {
			s, err := r.src.Session(r.t.Context())
			if err != nil {
				r.t.Error(err)
				return
			}
			defer s.Close()
			for i := range each {
				if err := s.Exec(r.t.Context(), fmt.Sprintf("INSERT INTO d.t (b) VALUES ('%d')", i)); err != nil {
					r.t.Error(err)
					return
				}
			}
		})
	}
}

// TestFallBack: a source that does not get its answer in time falls back, is told so
// by no one, and waits again when kingbus has caught up.
func TestFallBack(t *testing.T) {
	t.Parallel()
	var disk sync.RWMutex // locked: the disk hangs
	r := newRig(t, ModeAuto, func() { disk.RLock(); defer disk.RUnlock() })
	r.stop()
	r.exec(install)
	r.exec("SET GLOBAL ~enabled = 1; SET GLOBAL ~timeout = 300")
	r.follow(hook.Set{Storage: []hook.Storage{r.replica}, RelayIO: []hook.RelayIO{r.replica}})
	r.await("a semi-sync replica", func() bool { return r.count("clients") == "1" })
	r.exec("CREATE DATABASE d; CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB) ENGINE=InnoDB")
	r.await("the source waits", func() bool { return r.replica.Status().State == StateWaiting })
	asked := r.replica.Status().Acknowledged
	disk.Lock()
	for i := range 5 {
		r.exec(fmt.Sprintf("INSERT INTO d.t (b) VALUES ('%d')", i))
	}
	if got := r.count("status"); got != "OFF" {
		t.Errorf("the source's status is %s while the disk hangs", got)
	}
	r.await("it is seen that the source has fallen back", func() bool { return r.replica.Status().State == StateAsync })
	if got := r.replica.Status().Acknowledged; got != asked {
		t.Errorf("%d answers were given while nothing reached the disk", got-asked)
	}
	disk.Unlock()
	r.await("the source waits again", func() bool { return r.count("status") == "ON" })
	r.exec("INSERT INTO d.t (b) VALUES ('again')")
	r.await("it is seen that the source waits", func() bool { return r.replica.Status().State == StateWaiting })
	if got := r.replica.Status().FellBack; got != 1 {
		t.Errorf("it fell back %d times", got)
	}
}

// TestModes: off announces nothing; on refuses a source without semi-sync.
func TestModes(t *testing.T) {
	r := newRig(t, ModeOff, nil)
	r.exec(install)
	r.exec("SET GLOBAL ~enabled = 1; SET GLOBAL ~timeout = 100")
	r.await("the link is up", func() bool { return r.st.Status().End.File != "" })
	if got := r.count("clients"); got != "0" {
		t.Errorf("mode off: the source has %s semi-sync clients", got)
	}
	r.stop()
	r.exec("UNINSTALL PLUGIN rpl_semi_sync_source")
	r.replica.mode = ModeOn
	p, err := source.New(source.Config{
		Stream: source.Adapt(r.st), Host: "127.0.0.1", Port: uint16(r.src.Port), User: "repl", Hooks: hook.Set{RelayIO: []hook.RelayIO{r.replica}},
		Password: func() ([]byte, error) { return []byte("p"), nil }, TLSMode: wire.TLSPreferred, GetServerPublicKey: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	defer func() { cancel(); <-done }()
	r.await("it is a problem", func() bool { return p.Status().Problem != nil })
	if p := p.Status().Problem; p.Kind != source.KindSemiSync || !strings.Contains(p.Action, "INSTALL PLUGIN") {
		t.Errorf("mode on: %v", p)
	}
}

// mute is a semi-sync replica that never answers.
type mute struct{ hook.NoRelayIO }

func (mute) BeforeRequest(ctx context.Context, l *hook.Link) error {
	_, err := l.Query(ctx, "SET @rpl_semi_sync_replica = 1, @rpl_semi_sync_slave = 1")
	return err
}

func (mute) AfterRead(_ *hook.Link, p *hook.Packet) error {
	p.Skip, p.Restart = p.Skip+headerSize, p.Head[1]&flagAsk != 0
	return nil
}

// TestUnanswered: the leader dies between storing a transaction and answering. The
// source still waits, and its gtid_executed lacks what kingbus has; the next link gives
// the answer.
func TestUnanswered(t *testing.T) {
	t.Parallel()
	r := newRig(t, ModeAuto, nil)
	r.stop()
	r.exec(install)
	r.exec("CREATE DATABASE d; CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB) ENGINE=InnoDB")
	r.exec("SET GLOBAL ~enabled = 1; SET GLOBAL ~timeout = 4294967295")
	r.follow(hook.Set{RelayIO: []hook.RelayIO{mute{}}})
	r.await("a semi-sync replica", func() bool { return r.count("clients") == "1" })
	const writers = 3
	committed := make(chan error, writers)
	for i := range writers {
		go func() {
			committed <- r.src.Exec(context.Background(), fmt.Sprintf("INSERT INTO d.t (b) VALUES ('%d')", i))
		}()
	}
	r.await("a commit waits", func() bool { return r.count("wait_sessions") != "0" }) // the others may stand behind it
	rows, err := r.src.Query(t.Context(), "SELECT @@GLOBAL.GTID_OWNED, @@GLOBAL.GTID_EXECUTED")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("owned and executed: %v", rows)
	r.await("kingbus has it", func() bool { return r.st.Status().Executed.Count() > 2 })
	r.stop()
	if len(committed) > 0 {
		t.Fatalf("a commit was confirmed: %v", <-committed)
	}
	r.follow(hook.Set{Storage: []hook.Storage{r.replica}, RelayIO: []hook.RelayIO{r.replica}})
	for range writers {
		select {
		case err := <-committed:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatalf("the commits still wait: %+v", r.replica.Status())
		}
	}
}

// TestRotationWaits: while a commit waits for its answer somebody has the source rotate
// its binlog, which waits for the commit and holds locks meanwhile. kingbus comes back
// all the same, and answers.
func TestRotationWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t, ModeAuto, nil)
	r.exec(install)
	r.exec("CREATE DATABASE d; CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB) ENGINE=InnoDB")
	r.await("kingbus has that", func() bool { return r.st.Status().Executed.Count() == 2 })
	r.stop()
	r.exec("SET GLOBAL ~enabled = 1; SET GLOBAL ~timeout = 4294967295")
	done := make(chan error, 2)
	go func() { done <- r.src.Exec(context.Background(), "INSERT INTO d.t (b) VALUES ('waits')") }()
	r.await("a commit waits", func() bool { return r.count("wait_sessions") == "1" })
	go func() { done <- r.src.Exec(context.Background(), "FLUSH BINARY LOGS") }()
	r.await("the rotation waits, too", func() bool {
		rows, err := r.src.Query(t.Context(), "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'FLUSH%'")
		return err == nil && rows[0][0] == "1"
	})
	r.follow(hook.Set{Storage: []hook.Storage{r.replica}, RelayIO: []hook.RelayIO{r.replica}})
	for range cap(done) {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatalf("it still waits: %+v", r.replica.Status())
		}
	}
}
