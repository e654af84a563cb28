package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"kingbus/internal/wire"
)

// TestWaitExecuted: WAIT_FOR_EXECUTED_GTID_SET answers as a real 9.7 does, and whoever waits
// for what never comes can be killed, and leaves nothing behind when it is gone.
func TestWaitExecuted(t *testing.T) {
	rec := newRecording(t)
	r := newRig(t)
	rec.feed(r, 1<<16)
	a, b := dial(t, rec.inst.Addr(), testUser, testPassword, wire.TLSRequired), dial(t, r.addr, testUser, testPassword, wire.TLSDisabled)
	defer a.Close()
	defer b.Close()
	for _, args := range []string{
		"'" + rec.uuid + ":1'", "'" + rec.uuid + ":1', 0.1", "''", "'', 0", "'" + rec.uuid + ":1-1000000', 0.1", "'" + rec.uuid + ":1-1000000', 1e-9", "'rubbish'", "NULL", "NULL, 1",
		"'" + rec.uuid + ":1', -1", "'" + rec.uuid + ":1', NULL", "", "'', 1, 2", "'" + rec.uuid + ":1', 'x'",
	} {
		s := "SELECT WAIT_FOR_EXECUTED_GTID_SET(" + args + ") AS w"
		wantColumns, want := answerText(t, a, s)
		columns, got := answerText(t, b, s)
		if got != want || columns != wantColumns {
			t.Errorf("%s:\n kingbus %s%s\n 9.7     %s%s", s, columns, got, wantColumns, want)
		}
	}

	waiting := func() *wire.Client {
		t.Helper()
		c := dial(t, r.addr, testUser, testPassword, wire.TLSRequired)
		go func() { _, _ = c.Query(t.Context(), "SELECT WAIT_FOR_EXECUTED_GTID_SET('"+rec.uuid+":1-1000000')") }()
		for late := time.Now().Add(30 * time.Second); ; {
			if _, list := answerText(t, b, "SHOW PROCESSLIST"); strings.Contains(list, "WAIT_FOR") {
				return c
			}
			if time.Now().After(late) {
				t.Fatal("it does not wait")
			}
		}
	}
	gone := func(what string) {
		t.Helper()
		for late := time.Now().Add(30 * time.Second); ; {
			if _, list := answerText(t, b, "SHOW PROCESSLIST"); !strings.Contains(list, "WAIT_FOR") {
				return
			}
			if time.Now().After(late) {
				t.Fatalf("%s, and it waits", what)
			}
		}
	}
	c := waiting()
	if _, got := answerText(t, b, fmt.Sprintf("KILL QUERY %d", c.Greeting().ConnectionID)); got != "" {
		t.Error(got)
	}
	gone("killed the query")
	_ = c.Close()
	c = waiting()
	if _, got := answerText(t, b, fmt.Sprintf("KILL %d", c.Greeting().ConnectionID)); got != "" {
		t.Error(got)
	}
	gone("killed the session")
	c = waiting()
	_ = c.Close()
	gone("the client has left")
}
