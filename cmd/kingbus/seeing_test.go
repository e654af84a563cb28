package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"kingbus/internal/admin"
	"kingbus/internal/hook"
	"kingbus/internal/mysqltest"
	"kingbus/internal/semisync"
)

// metrics returns what the node tells Prometheus, by name and labels.
func (d *daemon) metrics() map[string]float64 {
	d.t.Helper()
	_, body := d.get("/metrics")
	out := map[string]float64{}
	for line := range strings.Lines(body) {
		var value float64
		i := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		if _, err := fmt.Sscan(line[i:], &value); err == nil {
			out[strings.TrimPrefix(line[:i], "kingbus_")] = value
		}
	}
	return out
}

// logged returns the lines of the log with a message.
func (d *daemon) logged(message string) (out []map[string]any) {
	d.t.Helper()
	for line := range strings.Lines(d.log.String()) {
		var m map[string]any
		if json.Unmarshal([]byte(line), &m) == nil && m["msg"] == message {
			out = append(out, m)
		}
	}
	return out
}

// Transactions go all the way with real servers, semi-synchronous on both sides: each hop
// tells how far it is, what it has taken, and which transactions were slow.
func TestSeenWithMySQL(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db := mysqltest.Start(t, mysqltest.Options{Name: "source", Args: []string{"--plugin-load-add=semisync_source.so", "--rpl-semi-sync-source-timeout=60000"}})
	if err := db.CreateUser(ctx, mysqltest.User{Name: "repl", Password: secret, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}); err != nil {
		t.Fatal(err)
	}
	under := mysqltest.Start(t, mysqltest.Options{Name: "replica", Args: []string{"--plugin-load-add=semisync_replica.so", "--rpl-semi-sync-replica-enabled=1"}})
	d := serveNode(t, t.TempDir(), "--node-name", "n1", "--slow-commit", "1ns",
		"--source", "mysql://repl@"+db.Addr(), "--source-password-file", writeFile(t, "source.pw", secret+"\n"),
		"--replica-user", "replica", "--replica-password-file", writeFile(t, "replica.pw", secret+"\n"))
	if err := db.Exec(ctx, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); SET GLOBAL rpl_semi_sync_source_enabled = 1"); err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(d.mysql, ":")
	if err := under.Exec(ctx, fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='%s', SOURCE_PORT=%s, SOURCE_USER='replica', SOURCE_PASSWORD='%s', SOURCE_SSL=1, SOURCE_AUTO_POSITION=1; START REPLICA", host, port, secret)); err != nil {
		t.Fatal(err)
	}
	d.awaitStatus("both to wait", func(st admin.Status) bool {
		return st.Source.SemiSync.State == semisync.StateWaiting && st.SemiSync.Clients == 1
	})
	const rows = 20
	for i := range rows {
		if err := db.Exec(ctx, fmt.Sprintf("INSERT INTO d.t VALUES (%d)", i)); err != nil {
			t.Fatal(err)
		}
	}
	set, err := db.GTIDExecuted(ctx)
	if err != nil {
		t.Fatal(err)
	}
	st := d.awaitStatus("all to have all", func(st admin.Status) bool {
		return st.Stream.Executed.String() == set && len(st.Replicas) == 1 && st.Replicas[0].Acknowledged == hook.Position(st.Stream.End) &&
			st.Source.SemiSync.Last == hook.Position(st.Source.Coordinates) && st.Source.Behind != nil
	})

	got := d.metrics()
	at := float64(st.Source.Coordinates.Pos)
	for _, hop := range []string{"received", "proposed", "committed", "acknowledged", "served"} {
		if file, pos := got[`hop_file_number{hop="`+hop+`"}`], got[`hop_position_bytes{hop="`+hop+`"}`]; file != 1 || pos != at {
			t.Errorf("%s: position %v of file %v, want %v of the first", hop, pos, file, at)
		}
	}
	of := func(name string) string {
		return fmt.Sprintf(`%s{replica="%s",server_id="%s"}`, name, under.UUID, serverID(t, under))
	}
	for name, least := range map[string]float64{
		"acknowledge_seconds_count": rows, "send_seconds_count": 1, "log_sync_seconds_count": rows, "log_batch_entries_sum": rows, "raft_leaderships_total": 1,
		of("replica_sent_transactions_total"): rows, of("replica_sent_bytes_total"): 1000, of("replica_acknowledge_seconds_count"): rows,
		of("replica_acknowledged_position_bytes"): at, of("replica_sent_position_bytes"): at,
	} {
		if got[name] < least {
			t.Errorf("%s is %v, want %v at least", name, got[name], least)
		}
	}
	// Each is counted once, wherever one looks.
	want := float64(st.Source.Transactions)
	if got["source_transactions_total"] != want || got["commit_seconds_count"] != want || got["committed_transactions_total"] != want || want < rows+2 {
		t.Errorf("%v transactions in the status, and in the metrics %v received, %v timed, %v committed", want, got["source_transactions_total"], got["commit_seconds_count"], got["committed_transactions_total"])
	}
	for _, queue := range []string{`queue_length{queue="proposals"}`, `queue_bytes{queue="proposals"}`, "source_uncommitted_transactions", "source_unacknowledged_transactions"} {
		if v, there := got[queue]; !there || v != 0 {
			t.Errorf("%s is %v, %v", queue, v, there)
		}
	}

	for line := range strings.Lines(d.log.String()) {
		if strings.HasSuffix(line, "\n") && !strings.Contains(line, `"node":"n1"`) {
			t.Errorf("a line does not tell the node: %s", line)
		}
	}
	for message, carries := range map[string][]string{
		"asking the source for its binlog": {"source", "file", "pos", "part"},
		"the source waits for kingbus before it confirms commits (semi-synchronous replication)": {"source", "file", "pos"},
		"dump starts":                {"session", "user", "from", "replica", "server_id", "file", "pos"},
		"a semi-synchronous replica": {"session", "from", "replica", "server_id", "file", "pos"},
		"a transaction was slow":     {"source", "file", "pos", "gtid", "entry", "took", "propose", "sync", "quorum"},
	} {
		lines := d.logged(message)
		if len(lines) == 0 {
			t.Errorf("the log does not say %q", message)
			continue
		}
		for _, key := range carries {
			// Not each line has all: what was committed before its proposer heard of it tells no "propose".
			if !slices.ContainsFunc(lines, func(line map[string]any) bool { return line[key] != nil }) {
				t.Errorf("%q does not tell %s: %v", message, key, lines[0])
			}
		}
	}
}

func serverID(t *testing.T, i *mysqltest.Instance) string {
	t.Helper()
	id, err := i.QueryValue(t.Context(), "SELECT @@server_id")
	if err != nil {
		t.Fatal(err)
	}
	return id
}
