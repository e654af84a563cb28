package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/mysqltest"
)

// awaitStatus asks the node until the condition holds.
func (d *daemon) awaitStatus(what string, condition func(admin.Status) bool) admin.Status {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	for {
		var st admin.Status
		text, err := d.client().read(ctx, statusPath, &st)
		if err != nil {
			d.t.Fatalf("waiting for %s: %v", what, err)
		}
		if strings.Contains(string(text), secret) {
			d.t.Fatal("the status shows a password")
		}
		if condition(st) {
			return st
		}
		select {
		case <-ctx.Done():
			d.t.Fatalf("waiting for %s in vain: %s", what, text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *daemon) get(path string) (int, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, "http://"+d.admin+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	admin.Authorize(req, d.client().token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// The whole way with real servers: a source, kingbus, mysqlbinlog; a restart in
// between; and what a wrong password looks like.
func TestWithMySQL(t *testing.T) {
	ctx := t.Context()
	db := mysqltest.Start(t, mysqltest.Options{})
	if err := db.CreateUser(ctx, mysqltest.User{Name: "repl", Password: secret, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}); err != nil {
		t.Fatal(err)
	}
	if err := db.Exec(ctx, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT); INSERT INTO d.t VALUES (1, 'one'), (2, 'two'); FLUSH BINARY LOGS; INSERT INTO d.t VALUES (3, 'three')"); err != nil {
		t.Fatal(err)
	}
	dir, pw := t.TempDir(), writeFile(t, "source.pw", "wrong\n")
	args := []string{
		"--source", "mysql://repl@" + db.Addr(), "--source-password-file", pw,
		"--replica-user", "replica", "--replica-password-file", writeFile(t, "replica.pw", secret+"\n"),
	}
	d := serveNode(t, dir, args...)
	d.awaitStatus("the refused login", func(st admin.Status) bool { return st.Source.Error != "" && st.Source.NextStep != "" })
	r := call(t, d.env(), "status")
	for _, want := range []string{"ERROR", "what to do", "repl"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in\n%s", want, r.stdout)
		}
	}
	// The file is read again at every login.
	if err := os.WriteFile(pw, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	caughtUp := func(st admin.Status) bool {
		set, err := db.GTIDExecuted(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return st.Source.Connected && st.Stream.Executed.String() == strings.ReplaceAll(set, "\n", "")
	}
	st := d.awaitStatus("the source's transactions", caughtUp)
	if st.Source.TLS == "" || st.Source.ServerUUID != db.UUID || len(st.Stream.Files) < 2 {
		t.Errorf("status %+v", st)
	}
	if code, body := d.get("/readyz"); code != 200 {
		t.Errorf("not ready: %d %s", code, body)
	}
	if _, body := d.get("/metrics"); !strings.Contains(body, "kingbus_source_connected 1") || !strings.Contains(body, "kingbus_stream_files ") {
		t.Errorf("metrics:\n%s", body)
	}
	d.compareFiles(db)

	if code := d.stop(); code != 0 {
		t.Errorf("stopped with code %d", code)
	}
	if err := db.Exec(ctx, "FLUSH BINARY LOGS; INSERT INTO d.t VALUES (4, 'four'); DELETE FROM d.t WHERE a < 3"); err != nil {
		t.Fatal(err)
	}
	d = serveNode(t, dir, args...)
	st = d.awaitStatus("what was written meanwhile", caughtUp)
	d.compareFiles(db)

	// mysqlbinlog pulls the current file; as it never ends, it is a replica.
	host, port, _ := strings.Cut(d.mysql, ":")
	dump := db.Server.Tool(ctx, "mysqlbinlog", "--read-from-remote-server", "--host="+host, "--port="+port, "--user=replica", "--raw", "--stop-never",
		"--connection-server-id=4711", "--result-file="+t.TempDir()+"/", st.Stream.Files[0].Name)
	dump.Env = append(dump.Env, "MYSQL_PWD="+secret)
	var messages output
	dump.Stdout, dump.Stderr = &messages, &messages
	if err := dump.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- dump.Wait() }()
	defer func() { _ = dump.Process.Kill() }()
	d.awaitStatus("mysqlbinlog", func(st admin.Status) bool {
		select {
		case err := <-ended:
			t.Fatalf("mysqlbinlog: %v, %s", err, messages.String())
		default:
		}
		return len(st.Replicas) == 1 && st.Replicas[0].LagBytes == 0 && st.Replicas[0].Sent == st.Stream.End
	})
	r = call(t, d.env(), "status")
	for _, want := range []string{"streaming at " + db.Addr(), "4711", "mysqlbinlog", st.Stream.End.String(), "TLS 1."} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in\n%s", want, r.stdout)
		}
	}
	t.Logf("status:\n%s", r.stdout)
	if code := d.stop(); code != 0 { // with the dump open: it gets EOF
		t.Errorf("stopped with code %d", code)
	}
	<-ended
	if r := call(t, nil, "inspect", dir); r.code != 0 {
		t.Errorf("inspect: %+v", r)
	}
}

// One node of three follows the source, and the others say so; another one goes on
// where it was, with the same files.
func TestClusterWithMySQL(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db := mysqltest.Start(t, mysqltest.Options{})
	if err := db.CreateUser(ctx, mysqltest.User{Name: "repl", Password: secret, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}); err != nil {
		t.Fatal(err)
	}
	if err := db.Exec(ctx, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT)"); err != nil {
		t.Fatal(err)
	}
	all := three(t, "--source", "mysql://repl@"+db.Addr(), "--source-password-file", writeFile(t, "source.pw", secret+"\n"))
	// write gets a row through the cluster; every node is to have it.
	write := func(i int) {
		t.Helper()
		if err := db.Exec(ctx, fmt.Sprintf("INSERT INTO d.t VALUES (%d, 'x'); FLUSH BINARY LOGS", i)); err != nil {
			t.Fatal(err)
		}
		want, err := db.GTIDExecuted(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			m.awaitStatus("the source's transactions", func(st admin.Status) bool {
				return st.Stream.Executed.String() == strings.ReplaceAll(want, "\n", "") && len(st.Stream.Files) > i+1
			})
		}
	}
	for i, m := range all {
		if r := m.call("node", "transfer", m.name); r.code != 0 {
			t.Logf("transfer to %s: %+v", m.name, r) // an election came in between
		}
		leader := find(all, m.settled(3).Cluster.Leader)
		leader.awaitStatus("the link to the source", func(st admin.Status) bool { return st.Source.Connected })
		write(i)
		for _, follower := range others(all, leader.name) {
			st := follower.awaitStatus("the state of a follower", func(st admin.Status) bool { return st.Source.State == admin.SourceFollowed })
			if st.Source.Connected || st.Source.NextStep != "" {
				t.Errorf("a follower says %+v", st.Source)
			}
			if r := follower.want(0, []string{"followed by the leader, "}, "status"); strings.Contains(r.stdout, "ERROR") {
				t.Errorf("a follower shows an error:\n%s", r.stdout)
			}
		}
	}
	for _, m := range all {
		m.compareFiles(db)
	}
	all[0].want(0, []string{"no difference"}, "verify")
}

// compareFiles exports every file and compares it with the source's own; the
// current one differs by the flag that says it is open.
func (d *daemon) compareFiles(db *mysqltest.Instance) {
	d.t.Helper()
	files, err := db.BinlogFiles(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	for _, f := range files {
		out := filepath.Join(d.t.TempDir(), f.Name)
		if r := call(d.t, d.env(), "export", "--file", f.Name, "--out", out); r.code != 0 {
			d.t.Fatalf("export %s: %+v", f.Name, r)
		}
		got, want := read(d.t, out), read(d.t, filepath.Join(db.DataDir, f.Name))
		const flags = 4 + 17 // of the format description's header
		got[flags], want[flags] = 0, 0
		if !bytes.Equal(got, want) {
			d.t.Errorf("%s: %d bytes differ from the source's %d", f.Name, len(got), len(want))
		}
	}
}

// Logs as JSON are JSON, whatever happens.
func TestJSONLogs(t *testing.T) {
	d := serveNode(t, t.TempDir(), "--source", "mysql://repl@"+freeAddress(t), "--source-password-file", writeFile(t, "pw", secret))
	d.awaitStatus("a failed connection", func(st admin.Status) bool { return st.Source.Error != "" })
	if code := d.stop(); code != 0 {
		t.Errorf("stopped with code %d", code)
	}
	// The last word of a node that cannot start, too.
	r := call(t, nil, "serve", "--log-format", "json", "--data-dir", t.TempDir(), "--mysql-listen", "127.0.0.1:0", "--admin-listen", "127.99.99.99:0", "--tls-cert", "/nonexistent", "--tls-key", "/nonexistent")
	if r.code != exitUsage || !strings.Contains(r.stderr, "/nonexistent: no such file") {
		t.Errorf("a start that fails: %+v", r)
	}
	_, _ = d.log.Write([]byte(r.stderr))
	for line := range strings.Lines(d.log.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		for _, key := range []string{"time", "level", "msg"} {
			if fmt.Sprint(fields[key]) == "" {
				t.Errorf("no %s in %s", key, line)
			}
		}
	}
}
