package mysqltest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// TestMain doubles as the process that TestOwnerKilled kills.
func TestMain(m *testing.M) {
	if os.Getenv("KINGBUS_TEST_OWNER") != "" {
		if err := ownInstance(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// ownInstance starts a server, prints its process id and folder, and waits to be killed.
func ownInstance() error {
	inst, err := Launch(context.Background(), Options{})
	if err != nil {
		return err
	}
	fmt.Println(inst.proc.cmd.Process.Pid, inst.Dir)
	_, err = os.Stdin.Read(make([]byte, 1)) // the pipe's other end is held by who kills us
	return err
}

func mustExec(t *testing.T, i *Instance, sql string) {
	t.Helper()
	if err := i.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func mustQuery(t *testing.T, i *Instance, sql string) [][]string {
	t.Helper()
	rows, err := i.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestCrashAndRestart(t *testing.T) {
	inst := Start(t, Options{Args: []string{"--server-id=7", "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"}})
	mustExec(t, inst, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT); INSERT INTO d.t VALUES (1, 'one'), (2, NULL)")
	inst.Kill()
	inst.Kill() // nothing to do
	if inst.Running() {
		t.Fatal("running after Kill")
	}
	if err := inst.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows := mustQuery(t, inst, "SELECT a, QUOTE(b) FROM d.t ORDER BY a")
	if want := [][]string{{"1", "'one'"}, {"2", "NULL"}}; !reflect.DeepEqual(rows, want) {
		t.Fatalf("after a crash: got %q, want %q", rows, want)
	}
	if set, err := inst.GTIDExecuted(t.Context()); err != nil || set != "" {
		t.Errorf("GTIDExecuted: got %q, %v, want none, since gtid_mode is OFF", set, err)
	}
	inst.SetArgs("--server-id=8")
	if err := inst.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := mustQuery(t, inst, "SELECT @@server_uuid, @@port, @@server_id, @@gtid_mode")
	if want := [][]string{{inst.UUID, strconv.Itoa(inst.Port), "8", "ON"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("after a restart with other options: got %q, want %q", got, want)
	}
	mustExec(t, inst, "INSERT INTO d.t VALUES (3, NULL)")
	if set, err := inst.GTIDExecuted(t.Context()); err != nil || set != inst.UUID+":1" {
		t.Errorf("GTIDExecuted: got %q, %v, want %s:1", set, err, inst.UUID)
	}
	files, err := inst.BinlogFiles(t.Context())
	if err != nil || len(files) != 3 { // one for each start
		t.Fatalf("BinlogFiles: got %v, %v, want 3 files", files, err)
	}
	for _, f := range files {
		if st, err := os.Stat(filepath.Join(inst.DataDir, f.Name)); err != nil || st.Size() != f.Size {
			t.Errorf("%v on disk: %v, %v", f, st, err)
		}
	}
}

// TestReplication runs two servers at once, with semi-synchronous replication between them, and compares them.
func TestReplication(t *testing.T) {
	source := Start(t, Options{Name: "source"})
	replica := Start(t, Options{Name: "replica"})
	if source.UUID == replica.UUID || source.ServerID == replica.ServerID || source.Port == replica.Port {
		t.Fatalf("instances share an identity: %+v, %+v", source, replica)
	}
	mustExec(t, source, "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'; SET GLOBAL rpl_semi_sync_source_enabled = ON")
	mustExec(t, replica, "INSTALL PLUGIN rpl_semi_sync_replica SONAME 'semisync_replica.so'; SET GLOBAL rpl_semi_sync_replica_enabled = ON")
	if err := source.CreateUser(t.Context(), User{Name: "repl", Password: "secret", Plugin: "caching_sha2_password", Grants: "REPLICATION SLAVE"}); err != nil {
		t.Fatal(err)
	}
	mustExec(t, replica, fmt.Sprintf("RESET BINARY LOGS AND GTIDS; CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d,"+
		" SOURCE_USER='repl', SOURCE_PASSWORD='secret', SOURCE_AUTO_POSITION=1; START REPLICA", source.Port))
	mustExec(t, source, `CREATE DATABASE d; USE d;
		CREATE TABLE a (id INT AUTO_INCREMENT PRIMARY KEY, t TEXT, b BLOB, j JSON, n DECIMAL(10,3), f DOUBLE, g GEOMETRY, d DATETIME(6), e ENUM('x','y'), i BIT(9));
		INSERT INTO a VALUES (1, 'x', x'00ff', '{"a": 1}', 1.5, 0.1, ST_GeomFromText('POINT(1 2)'), NOW(6), 'y', b'101'), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
		CREATE TABLE nokey (v VARCHAR(10)); INSERT INTO nokey VALUES ('same'), ('same'), (NULL);
		CREATE VIEW w AS SELECT v FROM nokey`)
	set, err := source.GTIDExecuted(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := func(rows [][]string) bool { return rows[0][0] == "1" }
	if _, err := replica.Await(ctx, "SELECT GTID_SUBSET('"+set+"', @@GLOBAL.gtid_executed)", done); err != nil {
		t.Fatal(err)
	}
	if _, err := source.Await(ctx, "SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Rpl_semi_sync_source_clients'", done); err != nil {
		t.Error(err)
	}
	compare := func(wants ...string) {
		t.Helper()
		diff, err := CompareTables(t.Context(), source, replica)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(diff, want) {
				t.Errorf("CompareTables: got %q, want it to have %q", diff, want)
			}
		}
		if len(wants) == 0 && diff != "" {
			t.Errorf("CompareTables: got %q, want no difference", diff)
		}
	}
	compare()
	mustExec(t, replica, "UPDATE d.a SET b = x'00fe' WHERE id = 1")
	compare("`d`.`a`: 2 rows on source, 2 rows on replica", "only on source: ('1'", "only on replica: ('1'")
	mustExec(t, replica, "UPDATE d.a SET b = x'00ff' WHERE id = 1; INSERT INTO d.nokey VALUES ('extra'), ('extra')")
	compare("`d`.`nokey`: 3 rows on source, 5 rows on replica", "only on replica: ('extra')")
	mustExec(t, replica, "DELETE FROM d.nokey WHERE v = 'extra'; ALTER TABLE d.nokey ADD INDEX (v); DROP VIEW d.w; CREATE DATABASE e")
	compare("`d`.`nokey` is defined differently", "`d`.`w` is only on source", "schema `e` is only on replica")
}

func TestSession(t *testing.T) {
	inst := Start(t, Options{})
	s, err := inst.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	exec := func(sql string) {
		t.Helper()
		if err := s.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE DATABASE d; USE d; CREATE TABLE t (a INT PRIMARY KEY, b LONGTEXT)")
	exec("BEGIN")
	exec("INSERT INTO t VALUES (1, 'delimiter\nERROR')")
	if got := mustQuery(t, inst, "SELECT COUNT(*) FROM d.t"); got[0][0] != "0" {
		t.Errorf("seen before COMMIT: %q", got)
	}
	exec("COMMIT; -- with a comment at the end")
	var serr *SQLError
	if err := s.Exec(t.Context(), "INSERT INTO t VALUES (1, NULL); INSERT INTO t VALUES (2, NULL)"); !errors.As(err, &serr) || serr.Code != 1062 || serr.State != "23000" {
		t.Errorf("duplicate key: got %v", err)
	}
	rows, err := s.Query(t.Context(), "SELECT * FROM t ORDER BY a")
	if want := [][]string{{"1", "delimiter\nERROR"}, {"2", "NULL"}}; err != nil || !reflect.DeepEqual(rows, want) {
		t.Errorf("got %q, %v, want %q", rows, err, want)
	}
	// More in both directions than pipes hold.
	big := strings.Repeat("SELECT REPEAT('x', 100000);\n", 100)
	if rows, err = s.Query(t.Context(), big+big+"/*"+strings.Repeat("y", 1<<20)+"*/ SELECT 1"); err != nil || len(rows) != 201 || len(rows[0][0]) != 100000 {
		t.Errorf("big results: got %d rows, %v", len(rows), err)
	}
	exec("XA START 'x'; INSERT INTO t VALUES (3, NULL); XA END 'x'") // now the server refuses SELECT
	exec("XA ROLLBACK 'x'")

	inst.Kill()
	if err := s.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("no error after the server was killed")
	}
	if err := s.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("no error in a session whose connection was lost")
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, err := inst.Session(t.Context()); err == nil {
		t.Error("a session on a killed server: got no error")
	}
	if err := inst.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, err = inst.Session(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = inst.Await(t.Context(), "SELECT COUNT(*) FROM performance_schema.processlist WHERE INFO LIKE 'SELECT SLEEP%'",
			func(rows [][]string) bool { return rows[0][0] == "1" })
		cancel()
	}()
	if err := s.Exec(ctx, "SELECT SLEEP(1000)"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestStartFails(t *testing.T) {
	_, err := Launch(t.Context(), Options{Args: []string{"--no-such-option"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-option") || !strings.Contains(err.Error(), "server ended") {
		t.Errorf("unknown option: got %v", err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Launch(t.Context(), Options{Port: l.Addr().(*net.TCPAddr).Port}); err == nil || !strings.Contains(err.Error(), "Address already in use") {
		t.Errorf("taken port: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Launch(ctx, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestCloseRemoves(t *testing.T) {
	inst := Start(t, Options{})
	if err := inst.Stop(); err != nil {
		t.Fatal(err)
	}
	path, err := inst.KeepLog()
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), "ready for connections") {
		t.Errorf("kept log: %v: %s", err, text)
	}
	if err := errors.Join(inst.Close(), inst.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(inst.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s after Close: %v", inst.Dir, err)
	}
	if err := inst.Start(t.Context()); err == nil {
		t.Error("Start after Close: got no error")
	}
}

// TestOwnerKilled kills a process that owns an instance: the server must end and its folder go.
func TestOwnerKilled(t *testing.T) {
	if _, err := Find(t.Context(), MySQL97, nil); err != nil { // the process below prints no progress
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "KINGBUS_TEST_OWNER=1")
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	var dir string
	if _, err := fmt.Sscan(line, &pid, &dir); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	server, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(server)
	if _, err := os.Stat(filepath.Join(dir, "data")); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	fds := []unix.PollFd{{Fd: int32(server), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 30_000); n != 1 {
		t.Errorf("the server did not end: %d, %v", n, err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%s is still there", dir)
		}
	}
}
