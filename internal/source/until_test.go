package source

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/hook"
	"kingbus/internal/mysqltest"
	"kingbus/internal/stream"
)

const untilUUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"

func TestParseUntil(t *testing.T) {
	for _, text := range []string{"", "b.000001:4", "with:colon.000001:77", "after:" + untilUUID + ":1-5", "before:" + untilUUID + ":7"} {
		if u, err := ParseUntil(text); err != nil || u.String() != text {
			t.Errorf("%q became %q, %v", text, u, err)
		}
	}
	for _, text := range []string{"b.000001", ":4", "b.000001:", "b.000001:-1", "b.000001:x", "after:", "before:", "after:x", "a/b:4", "after:" + untilUUID + ":0"} {
		if u, err := ParseUntil(text); err == nil {
			t.Errorf("%q became %q", text, u)
		}
	}
}

func FuzzParseUntil(f *testing.F) {
	f.Add("b.000001:4")
	f.Add("after:" + untilUUID + ":1-5")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseUntil(text)
		if err != nil {
			return
		}
		if again, err := ParseUntil(u.String()); err != nil || again.String() != u.String() {
			t.Errorf("%q: %q, %q, %v", text, u, again, err)
		}
	})
}

func TestUntilWatch(t *testing.T) {
	at := func(file string, pos uint64) stream.Coordinates { return stream.Coordinates{File: file, Pos: pos} }
	have := mustSet(untilUUID + ":1-5")
	for _, tc := range []struct {
		until   string
		at      stream.Coordinates
		reached bool
	}{
		{"", at("b.000002", 100), false},
		{"b.000002:101", at("b.000002", 100), false}, {"b.000002:100", at("b.000002", 100), true}, {"b.000002:99", at("b.000002", 100), true},
		{"b.000003:4", at("b.000002", 100), false}, {"b.000001:400", at("b.000002", 100), true},
		{"b.999999:4", at("b.1000000", 4), true}, {"b.1000000:4", at("b.999999", 400), false},
		{"other.000001:4", at("b.000002", 100), false}, {"b.000002:4", stream.Coordinates{}, false},
		{"after:" + untilUUID + ":3-5", at("b.000002", 100), true}, {"after:" + untilUUID + ":5-6", at("b.000002", 100), false},
		{"before:" + untilUUID + ":5-6", at("b.000002", 100), true}, {"before:" + untilUUID + ":6", at("b.000002", 100), false},
	} {
		u, err := ParseUntil(tc.until)
		if err != nil {
			t.Fatal(err)
		}
		if _, reached := u.watch(tc.at, have); reached != tc.reached {
			t.Errorf("%q at %s: reached %v", tc.until, tc.at, reached)
		}
	}

	// A set is reached with the last of it, in whatever order; a position only at a boundary.
	u, _ := ParseUntil("after:" + untilUUID + ":4-7")
	w, _ := u.watch(at("b.000002", 100), have)
	ended := func(n string) binlog.Effect {
		s := mustSet(untilUUID + ":" + n)
		return binlog.Effect{Ended: true, Boundary: true, GTID: s.Last(s.SIDs()[0])}
	}
	for _, n := range []string{"9", "7", "8", "6"} {
		if got := w.reached(at("b.000002", 200), ended(n)); got != (n == "6") {
			t.Errorf("with %s: reached %v", n, got)
		}
	}
	u, _ = ParseUntil("b.000002:150")
	w, _ = u.watch(at("b.000002", 100), have)
	if w.reached(at("b.000002", 200), binlog.Effect{}) || !w.reached(at("b.000002", 300), ended("6")) {
		t.Error("a position is reached at the first boundary behind it, and not before")
	}
}

// slowLink is a link whose stream applies when it is told to.
type slowLink struct {
	Link
	mu      sync.Mutex
	at      stream.Coordinates
	changed chan struct{}
	lost    chan struct{}
}

func (l *slowLink) Applied() (stream.Coordinates, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at, l.changed
}

func (l *slowLink) Lost() <-chan struct{} { return l.lost }

func (l *slowLink) Err() error {
	select {
	case <-l.lost:
		return stream.ErrLinkLost
	default:
		return nil
	}
}

func (l *slowLink) apply(at stream.Coordinates) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = at
	close(l.changed)
	l.changed = make(chan struct{})
}

// TestFinish: what UNTIL wanted is reached when it is committed and the source knows, and not
// when the link is lost before.
func TestFinish(t *testing.T) {
	end := hook.Position{File: "b.000001", Pos: 300}
	begin := func(asked hook.Position) (*receiver, *slowLink, chan time.Time, <-chan error) {
		l := &slowLink{changed: make(chan struct{}), lost: make(chan struct{})}
		late := make(chan time.Time)
		r := &receiver{
			s: &session{cfg: &Config{After: func(time.Duration) <-chan time.Time { return late }}, answers: make(chan hook.Position, 1)}, link: l,
			file: end.File, pos: 350, boundary: end.Pos, asked: asked,
		}
		done := make(chan error)
		go func() { done <- r.finish(t.Context()) }()
		return r, l, late, done
	}
	early := func(what string, done <-chan error) {
		t.Helper()
		select {
		case err := <-done:
			t.Errorf("%s: %v", what, err)
		default:
		}
	}
	reached := stream.Coordinates{File: "b.000001", Pos: 300}

	_, l, _, done := begin(hook.Position{})
	l.apply(stream.Coordinates{File: "b.000001", Pos: 299})
	early("before it is committed", done)
	l.apply(reached)
	if err := <-done; err != ErrUntilReached {
		t.Error(err)
	}

	_, l, _, done = begin(end)
	close(l.lost)
	if err := <-done; !errors.Is(err, stream.ErrLinkLost) {
		t.Errorf("lost before it was committed: %v", err)
	}

	r, l, _, done := begin(end)
	l.apply(reached)
	r.s.answers <- hook.Position{File: "b.000001", Pos: 200}
	early("before the source knows", done)
	r.s.answers <- end
	if err := <-done; err != ErrUntilReached {
		t.Error(err)
	}

	_, l, late, done := begin(end)
	l.apply(reached)
	early("before the source knows", done)
	late <- time.Time{}
	if err := <-done; err != ErrUntilReached {
		t.Error(err)
	}
}

// TestRealUntil: a stop at a position, also one inside of the events at the head of a file, is
// where a replica of MySQL has the same transactions, and never before what was asked for. (Inside of
// the format description MySQL stops behind that, and kingbus behind the PREVIOUS_GTIDS.)
func TestRealUntil(t *testing.T) {
	r := newRig(t, mysqltest.Options{}, nil)
	r.exec("RESET BINARY LOGS AND GTIDS; CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); FLUSH BINARY LOGS; INSERT INTO d.t VALUES (1); INSERT INTO d.t VALUES (2)")
	files := r.files()
	const head = binlog.MagicSize + 123 // behind the format description
	replica := mysqltest.Start(t, mysqltest.Options{Name: "replica"})
	for _, at := range []stream.Coordinates{
		{File: files[0].Name, Pos: 4}, {File: files[0].Name, Pos: 50}, {File: files[0].Name, Pos: head}, {File: files[0].Name, Pos: head + 1}, {File: files[0].Name, Pos: 300},
		{File: files[1].Name, Pos: 4}, {File: files[1].Name, Pos: 50}, {File: files[1].Name, Pos: head}, {File: files[1].Name, Pos: head + 1}, {File: files[1].Name, Pos: 300},
	} {
		if err := replica.Exec(t.Context(), fmt.Sprintf("STOP REPLICA; DROP DATABASE IF EXISTS d; RESET REPLICA ALL; RESET BINARY LOGS AND GTIDS; CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='%s', SOURCE_PASSWORD=%q, GET_SOURCE_PUBLIC_KEY=1;"+
			"START REPLICA UNTIL SOURCE_LOG_FILE='%s', SOURCE_LOG_POS=%d", r.inst.Port, replUser, replPassword, at.File, at.Pos)); err != nil {
			t.Fatal(err)
		}
		if _, err := replica.Await(t.Context(), "SELECT SERVICE_STATE FROM performance_schema.replication_applier_status", func(rows [][]string) bool { return rows[0][0] == "OFF" }); err != nil {
			t.Fatal(err)
		}
		want, err := replica.GTIDExecuted(t.Context())
		if err != nil {
			t.Fatal(err)
		}

		cfg := r.cfg
		st := openStream(t)
		cfg.Stream, cfg.Log = Adapt(st), testLog(t)
		cfg.Hooks.RelayIO = nil
		if cfg.Until, err = ParseUntil(at.String()); err != nil {
			t.Fatal(err)
		}
		p, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := p.Run(ctx); err != ErrUntilReached {
			t.Errorf("%s: %v", at, err)
		}
		cancel()
		end, got := st.Status().SourceEnd, st.Status().Executed.String()
		if got != want || end.File == at.File && end.Pos < at.Pos || end.File < at.File {
			t.Errorf("until %s: it stopped at %s with %q, MySQL with %q", at, end, got, want)
		}
	}
}
