package server

import (
	"strings"
	"testing"
	"time"

	"kingbus/internal/wire"
)

// TestLastTransaction: performance_schema names the last transaction, and when it was committed
// at the source and stored here, in the session's time zone.
func TestLastTransaction(t *testing.T) {
	rec := newRecording(t)
	r := newRig(t, func(c *Config) {
		c.Replication = func() *Replication { return &Replication{Host: "h", Running: "Yes", ByGTID: true} }
	})
	c := dial(t, r.addr, testUser, testPassword, wire.TLSRequired)
	defer c.Close()
	const columns = "last_queued_transaction, last_queued_transaction_original_commit_timestamp, last_queued_transaction_immediate_commit_timestamp, last_queued_transaction_start_queue_timestamp, last_queued_transaction_end_queue_timestamp"
	const never = "0000-00-00 00:00:00.000000"
	row := func(sql string) []string {
		t.Helper()
		_, rows := answerText(t, c, sql)
		return strings.Split(strings.TrimSuffix(rows, "\n"), "\t")
	}
	const queued = "SELECT " + columns + " FROM performance_schema.replication_connection_status"
	if got := row(queued); strings.Join(got, " ") != " "+never+" "+never+" "+never+" "+never {
		t.Errorf("before the first: %q", got)
	}
	rec.feed(r, 1<<16)
	st := r.stream.Status()
	last := ""
	for _, sid := range st.Executed.SIDs() {
		if sid.UUID.String() == rec.uuid {
			last = st.Executed.Last(sid).String()
		}
	}
	got := row(queued)
	if got[0] != last {
		t.Errorf("the last one is %q, want %q", got[0], last)
	}
	for i, text := range got[1:] {
		at, err := time.ParseInLocation("2006-01-02 15:04:05.000000", text, time.Local)
		if age := time.Since(at); err != nil || age < 0 || age > time.Hour {
			t.Errorf("time %d is %s, %v", i, text, err)
		}
	}
	if got[1] != got[2] || got[2] > got[3] || got[3] != got[4] {
		t.Errorf("the times are in no order: %q", got)
	}
	if _, err := c.Exec(t.Context(), "SET time_zone = '+13:00'"); err != nil {
		t.Fatal(err)
	}
	there := row("SELECT last_applied_transaction, last_applied_transaction_original_commit_timestamp FROM performance_schema.replication_applier_status_by_worker")
	here, _ := time.ParseInLocation("2006-01-02 15:04:05.000000", got[1], time.Local)
	if want := here.In(time.FixedZone("", 13*3600)).Format("2006-01-02 15:04:05.000000"); there[0] != last || there[1] != want {
		t.Errorf("in another time zone: %q, want %s", there, want)
	}
}
