package server

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"kingbus/internal/binlog"
	"kingbus/internal/mysqltest"
)

// MariaDB by file and position, as source and as replica.

// newMariaRecording is a MariaDB with some files.
func newMariaRecording(t *testing.T, flavour mysqltest.Flavour, args ...string) *recording {
	t.Helper()
	rec := &recording{inst: mysqltest.Start(t, mysqltest.Options{Name: "source", Flavour: flavour, Args: args})}
	if err := rec.inst.CreateUser(t.Context(), mysqltest.User{Name: testUser, Password: testPassword, Grants: "REPLICATION SLAVE, REPLICATION CLIENT, BINLOG MONITOR"}); err != nil {
		t.Fatal(err)
	}
	exec(t, rec.inst, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY AUTO_INCREMENT, b LONGTEXT); CREATE TABLE d.m (a INT) ENGINE=MyISAM")
	exec(t, rec.inst, "INSERT INTO d.t (b) VALUES ('x'); INSERT INTO d.m VALUES (1); FLUSH BINARY LOGS")
	exec(t, rec.inst, "BEGIN; INSERT INTO d.t (b) VALUES ('one'); INSERT INTO d.t (b) VALUES (REPEAT('y', 300000)); INSERT INTO d.t (b) VALUES ('three'); COMMIT; SET binlog_format=STATEMENT; INSERT INTO d.t (b) VALUES ('s'); CREATE TABLE d.u (a INT)")
	exec(t, rec.inst, "BEGIN; INSERT INTO d.t (b) VALUES ('"+strings.Repeat("annotated ", 30000)+"'); INSERT INTO d.t (b) VALUES ('four'); COMMIT; FLUSH BINARY LOGS")
	exec(t, rec.inst, "INSERT INTO d.t (b) VALUES ('x')")
	if flavour == mysqltest.MariaDB118 { // older ones have no BEGIN of these lengths
		exec(t, rec.inst, "USE d; XA START 'a'; INSERT INTO d.t (b) VALUES ('x'); XA END 'a'; XA PREPARE 'a'; XA COMMIT 'a'")
		exec(t, rec.inst, "USE d; XA START 'much longer', 'b'; INSERT INTO d.t (b) VALUES ('x'); XA END 'much longer', 'b'; XA PREPARE 'much longer', 'b'; XA COMMIT 'much longer', 'b'")
	}
	if err := rec.inst.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, rec.inst, "INSERT INTO d.t (b) VALUES ('last')")
	// A checkpoint is written in its own time.
	rec.settle(t)
	return rec
}

// settle reads the files once they do not grow any more.
func (rec *recording) settle(t *testing.T) {
	t.Helper()
	for last := -1; ; {
		rec.reload(t)
		content := rec.files[rec.names[len(rec.names)-1]]
		if len(content) == last && len(positions(t, content, binlog.TypeMariaBinlogCheckpoint)) > 0 {
			return
		}
		last = len(content)
	}
}

// TestMariaConformance compares kingbus with the MariaDB that it has the binlog of.
func TestMariaConformance(t *testing.T) {
	for _, flavour := range []mysqltest.Flavour{mysqltest.MariaDB1011, mysqltest.MariaDB118} {
		for _, checksum := range []string{"CRC32", "NONE"} {
			t.Run(string(flavour)+" "+checksum, func(t *testing.T) {
				rec := newMariaRecording(t, flavour, "--binlog-checksum="+checksum)
				r := newRig(t)
				rec.feed(r, 1<<16)
				for _, c := range rec.mariaCases(t) {
					t.Run(c.name, func(t *testing.T) {
						want := ask(t, rec.inst.Addr(), c)
						if os.Getenv("SHOW") != "" {
							t.Logf("%s", strings.Join(want, "\n"))
						}
						compare(t, want, ask(t, r.addr, c))
					})
				}
			})
		}
	}
}

func (rec *recording) mariaCases(t *testing.T) []conformanceCase {
	t.Helper()
	const nb, annotate = flagNonBlock, flagHeartbeatV2
	n := rec.names
	first, second, last := n[0], n[1], n[len(n)-1]
	gtids2, rows2 := positions(t, rec.files[second], binlog.TypeMariaGTID), positions(t, rec.files[second], binlog.TypeWriteRowsV1)
	const sum = "SET @master_binlog_checksum = @@global.binlog_checksum"
	able := []string{sum, "SET @mariadb_slave_capability = 4"}
	beat := append(able[:2:2], "SET @master_heartbeat_period = 20000000")
	pos := func(name, file string, at int, flags uint16) conformanceCase {
		return conformanceCase{name: name, set: able, payload: dumpPayload(file, uint32(at), nb|flags, 77)}
	}
	return []conformanceCase{
		pos("first file", first, 4, annotate),
		pos("no name", "", 4, annotate),
		pos("without annotations", first, 4, 0),
		pos("boundary", second, int(gtids2[1]), annotate),
		pos("boundary without annotations", second, int(gtids2[1]), 0),
		pos("in a transaction", second, int(rows2[1]), annotate),
		pos("end of a finished file", second, len(rec.files[second]), annotate),
		pos("beyond a finished file", second, len(rec.files[second])+1, annotate),
		pos("inside/1 byte", second, int(gtids2[1])+1, annotate),
		pos("inside/header", second, int(gtids2[1])+10, annotate),
		pos("inside/body", second, int(gtids2[1])+25, annotate),
		pos("inside/large row", second, int(rows2[1])+100000, annotate),
		pos("unknown base", "nosuch.000001", 4, annotate),
		pos("0", second, 0, annotate),
		pos("last file", last, 4, annotate),
		pos("end of the last file", last, len(rec.files[last]), annotate),
		{name: "heartbeats", set: beat, payload: dumpPayload(last, 4, annotate, 77), beats: 2},
		{name: "heartbeats behind a jump", set: beat, payload: dumpPayload(last, uint32(positions(t, rec.files[last], binlog.TypeMariaGTID)[0]), annotate, 77), beats: 2},
		{name: "no capability", set: able[:1], payload: dumpPayload(second, 4, nb, 77)},
		{name: "no capability, annotations", set: able[:1], payload: dumpPayload(second, 4, nb|annotate, 77)},
		{name: "capability 1", set: append(able[:1:1], "SET @mariadb_slave_capability = 1"), payload: dumpPayload(second, 4, nb, 77)},
		{name: "capability 2", set: append(able[:1:1], "SET @mariadb_slave_capability = 2"), payload: dumpPayload(second, 4, nb, 77)},
		{name: "capability 3", set: append(able[:1:1], "SET @mariadb_slave_capability = 3"), payload: dumpPayload(second, 4, nb, 77)},
		{name: "no checksum", set: append(able[1:2:2], "SET @master_binlog_checksum = 'NONE'"), payload: dumpPayload(second, 4, nb|annotate, 77)},
	}
}

// TestMariaReplica: MariaDB replicas of a MariaDB source, stopped (with KILL over a second
// connection), started, restarted, and ending up with the source's tables.
func TestMariaReplica(t *testing.T) {
	for _, source := range []mysqltest.Flavour{mysqltest.MariaDB1011, mysqltest.MariaDB118} {
		for _, flavour := range []mysqltest.Flavour{mysqltest.MariaDB1011, mysqltest.MariaDB118} {
			t.Run(fmt.Sprint(flavour, " under ", source), func(t *testing.T) {
				testMariaReplica(t, newMariaRecording(t, source), flavour)
			})
		}
	}
	t.Run("under MySQL 5.6", func(t *testing.T) {
		source := mysqltest.Start(t, mysqltest.Options{Name: "source", Flavour: mysqltest.MySQL56})
		exec(t, source, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY AUTO_INCREMENT, b TEXT); INSERT INTO d.t (b) VALUES ('x'); FLUSH LOGS; INSERT INTO d.t (b) VALUES ('y')")
		rec := &recording{inst: source}
		rec.reload(t)
		testMariaReplica(t, rec, mysqltest.MariaDB1011)
	})
}

func testMariaReplica(t *testing.T, rec *recording, flavour mysqltest.Flavour) {
	r := newRig(t)
	rec.feed(r, 1<<16)
	replica := mysqltest.Start(t, mysqltest.Options{Name: "replica", Flavour: flavour, Args: []string{"--log-slave-updates"}})
	exec(t, replica, r.changeMaster(fmt.Sprintf("MASTER_LOG_FILE='%s', MASTER_LOG_POS=4, MASTER_HEARTBEAT_PERIOD=0.2", rec.names[0]))+"; START SLAVE")
	at := func() {
		t.Helper()
		awaitReplica(t, replica, "Exec_Master_Log_Pos", func(s string) bool { return s == fmt.Sprint(r.size) })
	}
	at()
	equalTables(t, rec.inst, replica)
	if st := r.server.Replicas(); len(st) != 1 || st[0].UUID != "" || st[0].ServerID != replica.ServerID || st[0].Mode != "position" {
		t.Errorf("Replicas: %+v", st)
	}
	exec(t, replica, "STOP SLAVE")
	waitReplicas(t, r, 0)
	rec.more(r, "INSERT INTO d.t (b) VALUES ('while stopped')")
	exec(t, replica, "START SLAVE")
	at()
	rec.more(r, "INSERT INTO d.t (b) VALUES ('live')")
	at()
	if err := replica.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, replica, "START SLAVE") // does nothing if it runs already
	rec.more(r, "INSERT INTO d.t (b) VALUES ('after a restart')")
	at()
	equalTables(t, rec.inst, replica)
	want := r.stream.Status().End
	if got := replicaStatus(t, replica, "Master_Log_File", "Read_Master_Log_Pos", "Slave_IO_Running", "Last_IO_Error"); got[0] != want.File || got[1] != fmt.Sprint(want.Pos) || got[2] != "Yes" || got[3] != "" {
		t.Errorf("replica status: %q, want %v", got, want)
	}
}

// changeMaster is CHANGE MASTER TO in the words of old servers.
func (r *rig) changeMaster(more string) string {
	host, port, _ := net.SplitHostPort(r.addr)
	return fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='%s', MASTER_PORT=%s, MASTER_USER='%s', MASTER_PASSWORD='%s', MASTER_CONNECT_RETRY=1, %s",
		host, port, testUser, strings.ReplaceAll(testPassword, "'", "''"), more)
}

// TestMariaTools: mariadb-binlog, and who asks by MariaDB's GTIDs.
func TestMariaTools(t *testing.T) {
	for _, flavour := range []mysqltest.Flavour{mysqltest.MariaDB1011, mysqltest.MariaDB118} {
		t.Run(string(flavour), func(t *testing.T) {
			rec := newMariaRecording(t, flavour)
			r := newRig(t)
			rec.feed(r, 1<<16)
			host, port, _ := net.SplitHostPort(r.addr)
			login := []string{"--host=" + host, "--port=" + port, "--user=" + testUser, "--password=" + testPassword}
			if flavour == mysqltest.MariaDB118 {
				login = append(login, "--disable-ssl-verify-server-cert")
			}
			run := func(tool string, args ...string) string {
				t.Helper()
				cmd := rec.inst.Tool(t.Context(), tool, append(login[:len(login):len(login)], args...)...)
				cmd.Dir = t.TempDir()
				out, err := cmd.CombinedOutput()
				if err != nil {
					out = append(out, " "+err.Error()...)
				}
				if raw, err := os.ReadFile(cmd.Dir + "/" + rec.names[1]); err == nil {
					return string(raw)
				}
				return string(out)
			}
			if got := run("mysqlbinlog", "--read-from-remote-server", "--raw", "--to-last-log", rec.names[0]); got != string(rec.files[rec.names[1]]) {
				t.Errorf("raw: %d bytes, want %d: %.500s", len(got), len(rec.files[rec.names[1]]), got)
			}
			text, err := mysqlbinlogOf(t, rec, "--read-from-remote-server", "--verify-binlog-checksum", rec.names[1])
			if got := run("mysqlbinlog", "--read-from-remote-server", "--verify-binlog-checksum", rec.names[1]); err != nil || neutral(got, r) != neutral(text, r) {
				t.Errorf("text: %v: %.2000s\nwant %.2000s", err, got, text)
			}
			if got := run("mysql", "--batch", "-e", "SELECT VERSION(); SHOW MASTER STATUS; SHOW BINARY LOGS"); !strings.Contains(got, rec.source(t).Version) || !strings.Contains(got, rec.names[1]) {
				t.Errorf("the client: %s", got)
			}
			got := ask(t, r.addr, conformanceCase{set: []string{"SET @mariadb_slave_capability = 4", "SET @slave_connect_state = '0-1-1'"}, payload: dumpPayload("", 4, flagNonBlock, 77)})
			if len(got) != 2 || !strings.Contains(got[0], "1236") || !strings.Contains(got[0], "MASTER_USE_GTID=no") {
				t.Errorf("by GTID: %q", got)
			}
			got = ask(t, r.addr, conformanceCase{payload: dumpGTIDPayload("", 4, flagNonBlock, 77, encodeSet(t, ""))})
			if len(got) != 2 || !strings.Contains(got[0], "1047") {
				t.Errorf("by GTIDs of MySQL: %q", got)
			}
			conn := dial(t, r.addr, testUser, testPassword, 0)
			defer conn.Close()
			if _, err := conn.Query(t.Context(), "SELECT @@GLOBAL.gtid_domain_id"); err == nil {
				t.Error("gtid_domain_id is there: replicas would ask by GTID")
			}
		})
	}
}
