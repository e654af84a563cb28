package source

import (
	"errors"
	"sync"
	"testing"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/hook"
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
