package server

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/mysqltest"
)

// replicaStatus reads a column of SHOW REPLICA STATUS.
func replicaStatus(t *testing.T, inst *mysqltest.Instance, columns ...string) []string {
	t.Helper()
	statement := "SHOW REPLICA STATUS"
	if inst.Server.Flavour == mysqltest.MySQL56 {
		statement = "SHOW SLAVE STATUS"
	}
	cmd := inst.Tool(t.Context(), "mysql", "--socket="+inst.Socket, "--user=root", "--vertical", "--execute="+statement)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	values := map[string]string{}
	for line := range strings.SplitSeq(string(out), "\n") {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			values[name] = value
		}
	}
	var got []string
	for _, c := range columns {
		got = append(got, values[c])
	}
	return got
}

// awaitReplica waits until a status column satisfies ok.
func awaitReplica(t *testing.T, inst *mysqltest.Instance, column string, ok func(string) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		got := replicaStatus(t, inst, column)[0]
		if ok(got) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			all := replicaStatus(t, inst, "Replica_IO_Running", "Replica_SQL_Running", "Last_IO_Error", "Last_SQL_Error", "Source_Log_File", "Read_Source_Log_Pos", "Executed_Gtid_Set", "Slave_IO_Running", "Master_Log_File", "Read_Master_Log_Pos")
			t.Fatalf("%s is %q; status %q", column, got, all)
		}
	}
}

// awaitGTIDs waits until the replica has executed what the source has.
func awaitGTIDs(t *testing.T, inst *mysqltest.Instance, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if _, err := inst.Await(ctx, fmt.Sprintf("SELECT GTID_SUBSET('%s', @@GLOBAL.gtid_executed)", want), func(rows [][]string) bool { return rows[0][0] == "1" }); err != nil {
		t.Fatalf("%v; status %q", err, replicaStatus(t, inst, "Replica_IO_Running", "Replica_SQL_Running", "Last_IO_Error", "Last_SQL_Error"))
	}
}

func changeSource(r *rig, more string) string {
	host, port, _ := net.SplitHostPort(r.addr)
	return fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='%s', SOURCE_PORT=%s, SOURCE_USER='%s', SOURCE_PASSWORD='%s', SOURCE_CONNECT_RETRY=1%s",
		host, port, testUser, strings.ReplaceAll(testPassword, "'", "''"), more)
}

func equalTables(t *testing.T, a, b *mysqltest.Instance) {
	t.Helper()
	diff, err := mysqltest.CompareTables(t.Context(), a, b)
	if err != nil {
		t.Fatal(err)
	}
	if diff != "" {
		t.Error(diff)
	}
}

// more writes on the source and brings what is new into the stream.
func (rec *recording) more(r *rig, statements string) {
	r.t.Helper()
	exec(r.t, rec.inst, statements)
	name, size := r.name, r.size
	rec.reload(r.t)
	r.append(rec.files[name][size:], resumed(r.t, rec.files[name][:size]), 1<<16)
}

// resumed is a tracker that has seen the file's first bytes.
func resumed(t *testing.T, content []byte) *binlog.Tracker {
	t.Helper()
	tracker := &binlog.Tracker{}
	for at := binlog.MagicSize; at < len(content); {
		h, err := binlog.ParseHeader(content[at:])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tracker.Next(content[at : at+int(h.Length)]); err != nil {
			t.Fatal(err)
		}
		at += int(h.Length)
	}
	return tracker
}

func (rec *recording) executed(t *testing.T) string {
	t.Helper()
	set, err := rec.inst.GTIDExecuted(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestReplica97GTID: a MySQL 9.7 replica with auto-position pulls over TLS, is
// stopped, started and restarted, and ends up with the source's tables.
func TestReplica97GTID(t *testing.T) {
	rec := newRecording(t)
	r := newRig(t)
	rec.feed(r, 1<<16)
	replica := mysqltest.Start(t, mysqltest.Options{Name: "replica"})
	exec(t, replica, changeSource(r, ", SOURCE_AUTO_POSITION=1, SOURCE_HEARTBEAT_PERIOD=0.2")+"; START REPLICA")
	awaitGTIDs(t, replica, rec.executed(t))
	equalTables(t, rec.inst, replica)

	rec.more(r, "INSERT INTO d.t (b) VALUES ('live')")
	awaitGTIDs(t, replica, rec.executed(t))

	st := r.server.Replicas()
	if len(st) != 1 || st[0].UUID != replica.UUID || st[0].Mode != "gtid" || !st[0].TLS || st[0].ServerID != replica.ServerID || st[0].LagBytes != 0 {
		t.Errorf("Replicas: %+v", st)
	}
	exec(t, replica, "STOP REPLICA")
	rec.more(r, "INSERT INTO d.t (b) VALUES ('while stopped')")
	exec(t, replica, "START REPLICA")
	awaitGTIDs(t, replica, rec.executed(t))
	rec.more(r, "INSERT INTO d.t (b) VALUES ('before the restart')")
	awaitGTIDs(t, replica, rec.executed(t)) // one that stops in the middle of applying calls that an error
	if err := replica.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	// It starts pulling by itself. START REPLICA while it does so gives a channel of
	// 9.7.4 two receivers, and then crashes it.
	rec.more(r, "INSERT INTO d.t (b) VALUES ('after the restart')")
	awaitGTIDs(t, replica, rec.executed(t))
	equalTables(t, rec.inst, replica)

	want := r.stream.Status().End
	awaitReplica(t, replica, "Read_Source_Log_Pos", func(s string) bool { return s == fmt.Sprint(want.Pos) })
	if got := replicaStatus(t, replica, "Source_Log_File", "Source_UUID", "Source_Server_Id"); got[0] != want.File ||
		got[1] != r.stream.Status().Identity.ServerUUID || got[2] != fmt.Sprint(r.stream.Status().Identity.ServerID) {
		t.Errorf("replica status: %q", got)
	}
	checkLog(t, replica)
}

// checkLog looks for what a replica says of heartbeats and events that it does
// not like.
func checkLog(t *testing.T, inst *mysqltest.Instance) {
	t.Helper()
	b, err := os.ReadFile(inst.ErrorLog)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		for _, bad := range []string{"eartbeat", "[ERROR]"} {
			if strings.Contains(line, bad) {
				t.Errorf("log of %s: %s", inst.Name, line)
			}
		}
	}
}

// TestReplica97Position: the same by file and position, without TLS and with the
// RSA key, reconnecting in the middle of transactions.
func TestReplica97Position(t *testing.T) {
	rec := newRecording(t)
	r := newRig(t)
	rec.feed(r, 1<<16)
	replica := mysqltest.Start(t, mysqltest.Options{Name: "replica"})
	exec(t, replica, changeSource(r, fmt.Sprintf(", SOURCE_AUTO_POSITION=0, SOURCE_LOG_FILE='%s', SOURCE_LOG_POS=4, SOURCE_SSL=0, GET_SOURCE_PUBLIC_KEY=1, SOURCE_HEARTBEAT_PERIOD=0.2", rec.names[0]))+
		"; START REPLICA")
	awaitGTIDs(t, replica, rec.executed(t))
	equalTables(t, rec.inst, replica)
	if st := r.server.Replicas(); len(st) != 1 || st[0].Mode != "position" || st[0].TLS {
		t.Errorf("Replicas: %+v", st)
	}
	// A transaction of which the replica has got a part when the node goes away.
	file := r.name
	size := r.size
	exec(t, rec.inst, "BEGIN; INSERT INTO d.t (b) VALUES ('one'); INSERT INTO d.t (b) VALUES ('two'); COMMIT; INSERT INTO d.t (b) VALUES ('three')")
	rec.reload(t)
	rows := positions(t, rec.files[file], binlog.TypeWriteRows)
	mid := rows[len(rows)-2] // between the rows of the first transaction
	exec(t, replica, "STOP REPLICA; "+fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='%s', SOURCE_LOG_POS=%d; START REPLICA IO_THREAD", file, size))
	r.append(rec.files[file][size:], resumed(t, rec.files[file][:size]), 1)
	awaitReplica(t, replica, "Read_Source_Log_Pos", func(s string) bool { return s == fmt.Sprint(r.size) })
	if mid <= size {
		t.Fatalf("rows at %d, transaction from %d", mid, size)
	}
	exec(t, replica, "START REPLICA SQL_THREAD")
	awaitGTIDs(t, replica, rec.executed(t))
	equalTables(t, rec.inst, replica)
	checkLog(t, replica)
}

// TestReplicaPurged: a replica that lacks what was purged stops with 1236.
func TestReplicaPurged(t *testing.T) {
	rec := newRecording(t)
	exec(t, rec.inst, fmt.Sprintf("PURGE BINARY LOGS TO '%s'", rec.names[1]))
	rec.reload(t)
	r := newRig(t)
	rec.feed(r, 1<<16)
	for _, c := range []conformanceCase{
		{name: "empty", set: []string{setCRC}, payload: dumpGTIDPayload("", 4, flagNonBlock, 77, encodeSet(t, ""))},
		{name: "part", set: []string{setCRC}, payload: dumpGTIDPayload("", 4, flagNonBlock, 77, encodeSet(t, rec.uuid+":1-3"))},
		{name: "all of it", set: []string{setCRC}, payload: dumpGTIDPayload("", 4, flagNonBlock, 77, encodeSet(t, rec.uuid+":1-5"))},
		{name: "others too", set: []string{setCRC}, payload: dumpGTIDPayload("", 4, flagNonBlock, 77, encodeSet(t, rec.uuid+":2-3,99999999-1111-1111-1111-111111111111:1-5"))},
		{name: "purged file", set: []string{setCRC}, payload: dumpPayload("binlog.000001", 4, flagNonBlock, 77)},
	} {
		t.Run(c.name, func(t *testing.T) { compare(t, ask(t, rec.inst.Addr(), c), ask(t, r.addr, c)) })
	}
	// Where the details become too long to print.
	for n := range 24 {
		sets := manyUUIDs(4) + strings.Repeat(":8", n&1)
		for i := range n / 2 {
			sets += fmt.Sprintf(":%d", 10+2*i)
		}
		c := conformanceCase{set: []string{setCRC}, payload: dumpGTIDPayload("", 4, flagNonBlock, 77, encodeSet(t, sets))}
		t.Run(fmt.Sprint(n, " more"), func(t *testing.T) { compare(t, ask(t, rec.inst.Addr(), c), ask(t, r.addr, c)) })
	}
	replica := mysqltest.Start(t, mysqltest.Options{Name: "replica"})
	exec(t, replica, changeSource(r, ", SOURCE_AUTO_POSITION=1")+"; START REPLICA")
	awaitReplica(t, replica, "Last_IO_Errno", func(s string) bool { return s == "13114" })
	if got := replicaStatus(t, replica, "Replica_IO_Running", "Last_IO_Error"); got[0] != "No" || !strings.Contains(got[1], "purged required binary logs") {
		t.Errorf("replica status: %q", got)
	}
}

func manyUUIDs(n int) string {
	var sets []string
	for i := range n {
		sets = append(sets, fmt.Sprintf("%08x-1111-1111-1111-111111111111:1-5", i))
	}
	return strings.Join(sets, ",")
}

// TestReplicaAhead: a replica that has more than this node comes back until it
// is served, however few retries it is allowed.
func TestReplicaAhead(t *testing.T) {
	rec := newRecording(t)
	r := newRig(t)
	rec.follow(r)
	for _, name := range rec.names[:2] {
		r.addFile(name, rec.files[name], 1<<16)
	}
	replica := mysqltest.Start(t, mysqltest.Options{Name: "replica"})
	exec(t, replica, fmt.Sprintf("SET GLOBAL gtid_purged='%s:1-14'", rec.uuid)) // as if the source itself had brought it there
	exec(t, replica, changeSource(r, ", SOURCE_AUTO_POSITION=1, SOURCE_RETRY_COUNT=2")+"; START REPLICA IO_THREAD")
	dumps := func() uint64 { return r.server.Counters().Dumps }
	for start := dumps(); dumps() < start+6; {
		time.Sleep(10 * time.Millisecond)
	}
	if got := replicaStatus(t, replica, "Replica_IO_Running"); got[0] == "No" {
		t.Fatalf("the replica has stopped: %q", replicaStatus(t, replica, "Last_IO_Error"))
	}
	for _, name := range rec.names[2:] {
		r.addFile(name, rec.files[name], 1<<16)
	}
	awaitReplica(t, replica, "Retrieved_Gtid_Set", func(s string) bool { return s == rec.uuid+":15-18" })
	if got := replicaStatus(t, replica, "Replica_IO_Running"); got[0] != "Yes" {
		t.Errorf("replica: %q", got)
	}
}

func (rec *recording) follow(r *rig) { r.follow(rec.source(r.t)) }

// TestReplica56: a MySQL 5.6 replica of a 5.6 source, by position and by GTID.
func TestReplica56(t *testing.T) {
	for _, gtids := range []bool{false, true} {
		t.Run(fmt.Sprintf("gtids=%v", gtids), func(t *testing.T) {
			var args []string
			if gtids {
				args = []string{"--gtid-mode=ON", "--enforce-gtid-consistency", "--log-slave-updates"}
			}
			source := mysqltest.Start(t, mysqltest.Options{Name: "source", Flavour: mysqltest.MySQL56, Args: args})
			exec(t, source, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY AUTO_INCREMENT, b TEXT); INSERT INTO d.t (b) VALUES ('x'); FLUSH LOGS; INSERT INTO d.t (b) VALUES ('y')")
			rec := &recording{inst: source}
			rec.reload(t)
			r := newRig(t)
			rec.feed(r, 1<<16)
			replica := mysqltest.Start(t, mysqltest.Options{Name: "replica", Flavour: mysqltest.MySQL56, Args: args})
			host, port, _ := net.SplitHostPort(r.addr)
			where := fmt.Sprintf("MASTER_LOG_FILE='%s', MASTER_LOG_POS=4", rec.names[0])
			if gtids {
				where = "MASTER_AUTO_POSITION=1"
			}
			exec(t, replica, fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='%s', MASTER_PORT=%s, MASTER_USER='%s', MASTER_PASSWORD='%s', MASTER_CONNECT_RETRY=1, MASTER_HEARTBEAT_PERIOD=0.2, %s; START SLAVE",
				host, port, testUser, strings.ReplaceAll(testPassword, "'", "''"), where))
			at := func() {
				t.Helper()
				awaitReplica(t, replica, "Exec_Master_Log_Pos", func(s string) bool { return s == fmt.Sprint(r.size) })
			}
			at()
			equalTables(t, source, replica)
			exec(t, replica, "STOP SLAVE")
			rec.more(r, "INSERT INTO d.t (b) VALUES ('z')")
			exec(t, replica, "START SLAVE")
			at()
			rec.more(r, "INSERT INTO d.t (b) VALUES ('live')")
			at()
			equalTables(t, source, replica)
			want := r.stream.Status().End
			if got := replicaStatus(t, replica, "Master_Log_File", "Slave_IO_Running", "Master_UUID"); got[0] != want.File || got[1] != "Yes" || got[2] != r.stream.Status().Identity.ServerUUID {
				t.Errorf("replica status: %q", got)
			}
		})
	}
}

// mysqlbinlog runs the real tool against the rig.
func mysqlbinlog(r *rig, inst *mysqltest.Instance, dir string, args ...string) (string, error) {
	host, port, _ := net.SplitHostPort(r.addr)
	cmd := inst.Tool(r.t.Context(), "mysqlbinlog", append([]string{"--host=" + host, "--port=" + port, "--user=" + testUser, "--password=" + testPassword}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestMysqlbinlog(t *testing.T) {
	rec := newRecording(t)
	r := newRig(t)
	rec.feed(r, 1<<16)
	t.Run("raw", func(t *testing.T) {
		dir := t.TempDir()
		if out, err := mysqlbinlog(r, rec.inst, dir, "--read-from-remote-server", "--raw", "--to-last-log", rec.names[0]); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, name := range rec.names {
			got, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			want := append([]byte(nil), rec.files[name]...)
			want[binlog.MagicSize+17] &^= binlog.FlagInUse
			if string(got) != string(want) {
				t.Errorf("%s: %d bytes differ from the source's %d", name, len(got), len(want))
			}
		}
	})
	t.Run("verified text", func(t *testing.T) {
		want, err := mysqlbinlogOf(t, rec, "--read-from-remote-server", "--verify-binlog-checksum", rec.names[1])
		if err != nil {
			t.Fatalf("%v: %s", err, want)
		}
		got, err := mysqlbinlog(r, rec.inst, "", "--read-from-remote-server", "--verify-binlog-checksum", rec.names[1])
		if err != nil {
			t.Fatalf("%v: %s", err, got)
		}
		if neutral(got, r) != neutral(want, r) {
			t.Errorf("mysqlbinlog prints another text:\n%s\nwant\n%s", got, want)
		}
	})
	const other = "aaaaaaaa-2222-3333-4444-555555555555"
	for name, args := range map[string][]string{
		"gtids":             {"--read-from-remote-source=BINLOG-DUMP-GTIDS", "--exclude-gtids=" + rec.uuid + ":1-7:9", rec.names[1]},
		"of all files":      {"--read-from-remote-source=BINLOG-DUMP-GTIDS", "--exclude-gtids=" + rec.uuid + ":1-3," + other + ":1-9", "--to-last-log", rec.names[0]},
		"some gtids":        {"--read-from-remote-source=BINLOG-DUMP-GTIDS", "--include-gtids=" + rec.uuid + ":2-4:8-9," + other + ":1", "--to-last-log", rec.names[0]},
		"some, and not":     {"--read-from-remote-server", "--include-gtids=" + rec.uuid + ":1-9", "--exclude-gtids=" + rec.uuid + ":3-8", "--to-last-log", rec.names[0]},
		"no gtids":          {"--read-from-remote-source=BINLOG-DUMP-NON-GTIDS", "--skip-gtids", rec.names[1]},
		"all are excluded":  {"--read-from-remote-source=BINLOG-DUMP-GTIDS", "--exclude-gtids=" + rec.uuid + ":1-1000", "--to-last-log", rec.names[0]},
		"from a position":   {"--read-from-remote-server", "--start-position=127", rec.names[1]},
		"of one server":     {"--read-from-remote-server", "--server-id=4711", rec.names[1]},
		"rows, as comments": {"--read-from-remote-server", "--verbose", "--base64-output=DECODE-ROWS", "--to-last-log", rec.names[0]},
	} {
		t.Run(name, func(t *testing.T) {
			want, err := mysqlbinlogOf(t, rec, args...)
			if err != nil {
				t.Fatalf("%v: %s", err, want)
			}
			got, err := mysqlbinlog(r, rec.inst, "", args...)
			if err != nil {
				t.Fatalf("%v: %s", err, got)
			}
			if neutral(got, r) != neutral(want, r) {
				t.Errorf("mysqlbinlog prints another text:\n%s\nwant\n%s", got, want)
			}
		})
	}
	t.Run("missing file", func(t *testing.T) {
		out, err := mysqlbinlog(r, rec.inst, "", "--read-from-remote-server", "nosuch.000001")
		if err == nil || !strings.Contains(out, textNoFile) {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("never stops", func(t *testing.T) {
		dir := t.TempDir()
		host, port, _ := net.SplitHostPort(r.addr)
		ctx, cancel := context.WithCancel(t.Context())
		cmd := rec.inst.Tool(ctx, "mysqlbinlog", "--host="+host, "--port="+port, "--user="+testUser, "--password="+testPassword,
			"--read-from-remote-server", "--raw", "--stop-never", rec.names[len(rec.names)-1])
		cmd.Dir = dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		rec.more(r, "INSERT INTO d.t (b) VALUES ('live')")
		last := filepath.Join(dir, r.name)
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if info, err := os.Stat(last); err == nil && info.Size() == int64(r.size) {
				break
			}
			if time.Now().After(deadline) {
				t.Error("the tool did not get what was written later")
				break
			}
		}
		cancel()
		_ = cmd.Wait()
	})
}

func mysqlbinlogOf(t *testing.T, rec *recording, args ...string) (string, error) {
	cmd := rec.inst.Tool(t.Context(), "mysqlbinlog", append([]string{"--host=127.0.0.1", fmt.Sprintf("--port=%d", rec.inst.Port), "--user=" + testUser, "--password=" + testPassword}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// neutral drops the lines that name the sender of events which are in no file.
func neutral(out string, r *rig) string {
	var keep []string
	for line := range strings.SplitSeq(out, "\n") {
		if !strings.Contains(line, "Rotate to") && !strings.Contains(line, "password on the command line") {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "\n")
}

// TestMysqlClient: what the mysql client asks, and some that people ask.
func TestMysqlClient(t *testing.T) {
	rec := newRecording(t)
	r := newRig(t)
	rec.feed(r, 1<<16)
	host, port, _ := net.SplitHostPort(r.addr)
	run := func(args ...string) string {
		t.Helper()
		cmd := rec.inst.Tool(t.Context(), "mysql", append([]string{"--host=" + host, "--port=" + port, "--user=" + testUser, "--password=" + testPassword, "--batch"}, args...)...)
		out, _ := cmd.CombinedOutput()
		return strings.ReplaceAll(string(out), "mysql: [Warning] Using a password on the command line interface can be insecure.\n", "")
	}
	if got := run("-e", "SELECT VERSION(), @@version"); !strings.Contains(got, r.stream.Status().Source.Version) {
		t.Errorf("version: %s", got)
	}
	if got := run("-e", "SHOW BINARY LOGS"); !strings.Contains(got, "Log_name\tFile_size\tEncrypted\nbinlog.000001\t") || strings.Count(got, "\n") != 5 {
		t.Errorf("SHOW BINARY LOGS: %s", got)
	}
	if got, want := run("-e", "SHOW BINARY LOG STATUS"), fmt.Sprintf("%s\t%d\t\t\t%s:1-18\n", r.name, r.size, rec.uuid); !strings.HasSuffix(got, want) {
		t.Errorf("SHOW BINARY LOG STATUS: %s, want %s", got, want)
	}
	for _, s := range []string{"SHOW PROCESSLIST", "SHOW REPLICAS", "SHOW SLAVE HOSTS", "SHOW MASTER STATUS", "SHOW MASTER LOGS", "SHOW GRANTS", "SHOW DATABASES",
		"SHOW VARIABLES", "SHOW GLOBAL STATUS", "SHOW WARNINGS", "USE mysql"} {
		if got := run("-e", s); strings.HasPrefix(got, "ERROR") {
			t.Errorf("%s: %s", s, got)
		}
	}
	cmd := rec.inst.Tool(t.Context(), "mysql", "--host="+host, "--port="+port, "--user="+testUser, "--password="+testPassword, "--batch", "--force")
	cmd.Stdin = strings.NewReader("INSERT INTO t VALUES (1);\nSHOW REPLICA STATUS;\nnonsense;\nSELECT 1;\n")
	if out, _ := cmd.CombinedOutput(); strings.Count(string(out), "ERROR") != 2 || !strings.HasSuffix(string(out), "1\n1\n") {
		t.Errorf("errors: %s", out)
	}
	if got := run("--password=wrong", "-e", "SELECT 1"); !strings.Contains(got, "ERROR 1045 (28000): Access denied for user 'repl'@") {
		t.Errorf("wrong password: %s", got)
	}
	if got := run("--ssl-mode=DISABLED", "--get-server-public-key", "-e", "SHOW STATUS LIKE 'ssl_cipher'"); got != "Variable_name\tValue\nSsl_cipher\t\n" {
		t.Errorf("without TLS: %q", got)
	}
}
