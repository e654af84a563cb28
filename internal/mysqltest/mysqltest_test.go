package mysqltest

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
	inst := Start(t, Options{})
	mustExec(t, inst, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT); INSERT INTO d.t VALUES (1, 'one'), (2, NULL)")
	inst.Kill()
	if inst.Running() {
		t.Fatal("running after Kill")
	}
	if err := inst.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows := mustQuery(t, inst, "SELECT a, QUOTE(b) FROM d.t ORDER BY a")
	if len(rows) != 2 || rows[0][1] != "'one'" || rows[1][1] != "NULL" {
		t.Fatalf("after a crash: got %q", rows)
	}
	if err := inst.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := mustQuery(t, inst, "SELECT @@server_uuid, @@port, @@server_id"); got[0][0] != inst.UUID {
		t.Fatalf("uuid after a restart: got %q, want %s", got, inst.UUID)
	}
}
