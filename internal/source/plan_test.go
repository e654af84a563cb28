package source

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"kingbus/internal/gtid"
	"kingbus/internal/stream"
)

func TestStart(t *testing.T) {
	files := []logFile{{"binlog.000007", 500}, {"binlog.000008", 600}, {"binlog.000009", 700}}
	previous := map[string]string{"binlog.000007": fakeUUID + ":1-10", "binlog.000008": fakeUUID + ":1-20", "binlog.000009": fakeUUID + ":1-30"}
	tests := []struct{ text, want string }{
		{"", "binlog.000007"}, {"oldest", "binlog.000007"}, {"current", "binlog.000009"}, {"binlog.000008", "binlog.000008"},
		{"binlog.000001", ""},
		{"gtid:" + fakeUUID + ":1-10", "binlog.000007"}, {"gtid:" + fakeUUID + ":1-29", "binlog.000008"},
		{"gtid:" + fakeUUID + ":1-30", "binlog.000009"}, {"gtid:" + fakeUUID + ":1-300", "binlog.000009"}, {"gtid:" + fakeUUID + ":2-300", ""}, {"gtid:", ""},
	}
	for _, tt := range tests {
		start, err := ParseStart(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseStart(start.String()); err != nil || again.String() != start.String() {
			t.Errorf("%q: String gives %q, which parses as %v, %v", tt.text, start, again, err)
		}
		f := sane()
		f.files = files
		f.previous = func(file string) (gtid.Set, bool, error) { return mustSet(previous[file]), true, nil }
		p, err := makePlan(f, standing{fresh: true}, start, 1<<32-1)
		if p.at.File != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("start %q: got %v, %v, want %q", tt.text, p.at, err, tt.want)
		}
		if err != nil && kindOf(err) != KindStart {
			t.Errorf("start %q: got %v", tt.text, err)
		}
	}
	for _, bad := range []string{"newest", "gtid:x", "../binlog.000001", "binlog"} {
		if s, err := ParseStart(bad); err == nil {
			t.Errorf("ParseStart(%q): got %v, want an error", bad, s)
		}
	}
}

func mustSet(text string) gtid.Set {
	s, err := gtid.ParseSet(text)
	if err != nil {
		panic(err)
	}
	return s
}

func kindOf(err error) Kind {
	var p *Problem
	if errors.As(err, &p) {
		return p.Kind
	}
	return ""
}

func sane() *facts {
	return &facts{
		version: "9.7.4", uuid: fakeUUID, serverID: 11, logBin: true, gtidMode: "ON",
		executed: mustSet(fakeUUID + ":1-100"), purged: mustSet(fakeUUID + ":1-10"),
		files: []logFile{{"binlog.000007", 500}, {"binlog.000008", 600}},
	}
}

func TestResumePlan(t *testing.T) {
	const other = "cccccccc-1111-2222-3333-444444444444"
	tests := []struct {
		name   string
		change func(f *facts, s *standing)
		kind   Kind // or a plan:
		at     string
		ask    uint64
		byGTID bool
	}{
		{"as ever", func(*facts, *standing) {}, "", "binlog.000008:550", 550, true},
		{"5.6", func(f *facts, s *standing) { f.version = "5.6.22-log" }, "", "binlog.000008:550", 550, false},
		{"5.7", func(f *facts, s *standing) { f.version = "5.7.42" }, "", "binlog.000008:550", 550, true},
		{"no GTIDs", func(f *facts, s *standing) { f.gtidMode, f.executed = "OFF", gtid.Set{} }, "", "binlog.000008:550", 550, false},
		{"permissive", func(f *facts, s *standing) { f.gtidMode = "ON_PERMISSIVE" }, "", "binlog.000008:550", 550, false},
		{"at the end", func(f *facts, s *standing) { s.at.Pos = 600 }, "", "binlog.000008:600", 600, true},
		{"beyond 4 GiB", func(f *facts, s *standing) { s.at.Pos = 1 << 33; f.files[1].size = 1 << 34 }, "", "binlog.000008:8589934592", 1 << 33, true},
		{"beyond 4 GiB without GTIDs", func(f *facts, s *standing) { s.at.Pos = 1 << 33; f.files[1].size = 1 << 34; f.gtidMode = "OFF" }, "", "binlog.000008:8589934592", 4, false},
		{"beyond the end", func(f *facts, s *standing) { s.at.Pos = 601 }, KindReset, "", 0, false},
		{"behind", func(f *facts, s *standing) { s.executed = mustSet(fakeUUID + ":1-101") }, KindBehind, "", 0, false},
		{"behind, but it waits for us", func(f *facts, s *standing) {
			s.executed = mustSet(fakeUUID + ":1-102")
			f.owned = mustSet(fakeUUID + ":101-103")
		}, "", "binlog.000008:550", 550, true},
		{"the list is locked", func(f *facts, s *standing) { f.files, f.locked = nil, true }, "", "binlog.000008:550", 550, true},
		{"behind in another uuid", func(f *facts, s *standing) { s.executed.AddSet(mustSet(other + ":1")) }, KindBehind, "", 0, false},
		{"behind by a tag", func(f *facts, s *standing) { s.executed.AddSet(mustSet(fakeUUID + ":foo:1")) }, KindBehind, "", 0, false},
		{"lost history", func(f *facts, s *standing) { f.purged = mustSet(fakeUUID + ":1-61") }, KindLostHistory, "", 0, false},
		{"another server", func(f *facts, s *standing) { f.uuid = other }, KindOtherSource, "", 0, false},
		{"reset", func(f *facts, s *standing) { f.files = []logFile{{"binlog.000001", 1000}} }, KindReset, "", 0, false},
		{"other names", func(f *facts, s *standing) { f.files = []logFile{{"mysql-bin.000100", 1000}} }, KindReset, "", 0, false},
		{"purged, nothing missing", func(f *facts, s *standing) {
			f.files = []logFile{{"binlog.000010", 1000}}
			f.purged = mustSet(fakeUUID + ":1-60")
		}, "", "binlog.000010:4", 4, true},
		{"purged, something missing", func(f *facts, s *standing) {
			f.files = []logFile{{"binlog.000010", 1000}}
			f.purged = mustSet(fakeUUID + ":1-61")
		}, KindLostHistory, "", 0, false},
		{"purged, no GTIDs", func(f *facts, s *standing) { f.files, f.gtidMode = []logFile{{"binlog.000010", 1000}}, "OFF" }, KindLostHistory, "", 0, false},
		{"purged, no GTIDs before", func(f *facts, s *standing) {
			f.files = []logFile{{"binlog.000010", 1000}}
			s.source.Variables = map[string]string{"gtid_mode": "OFF"}
		}, KindLostHistory, "", 0, false},
		{"nothing stored yet", func(f *facts, s *standing) {
			*s = standing{fresh: true, at: stream.Coordinates{File: "binlog.000008", Pos: 4}, source: stream.Source{UUID: other}}
		}, "", "binlog.000008:4", 4, true},
		{"nothing stored yet, and the file gone", func(f *facts, s *standing) {
			*s = standing{fresh: true, at: stream.Coordinates{File: "binlog.000003", Pos: 4}}
		}, "", "binlog.000007:4", 4, true},
	}
	for _, tt := range tests {
		f := sane()
		s := standing{
			source: stream.Source{UUID: fakeUUID, Variables: map[string]string{"gtid_mode": "ON"}},
			at:     stream.Coordinates{File: "binlog.000008", Pos: 550}, executed: mustSet(fakeUUID + ":1-60"),
		}
		tt.change(f, &s)
		p, err := makePlan(f, s, Start{}, 1<<32-1)
		if kindOf(err) != tt.kind || err == nil && (p.at.String() != tt.at || p.ask != tt.ask || p.byGTID != tt.byGTID) {
			t.Errorf("%s: got %+v, %v, want %q at %s ask %d by GTID %v", tt.name, p, err, tt.kind, tt.at, tt.ask, tt.byGTID)
		}
		if err == nil && !s.fresh && !p.set.Equal(s.executed) || s.fresh && !p.set.IsEmpty() {
			t.Errorf("%s: set %v", tt.name, p.set)
		}
		if err != nil {
			t.Logf("%s: %v", tt.name, err)
		}
	}
}

func TestBackoff(t *testing.T) {
	b := Backoff{time.Second, 5 * time.Second}
	var got []time.Duration
	for n := range 5 {
		got = append(got, b.delay(n, 0))
	}
	if want := []time.Duration{1e9, 2e9, 4e9, 5e9, 5e9}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := b.delay(1<<40, 0.5); got != 5*time.Second*3/4 {
		t.Errorf("with chance: got %v", got)
	}
}

func TestNew(t *testing.T) {
	m := newModel(t)
	for name, cfg := range map[string]Config{
		"no stream": {Host: "h", User: "u"}, "no host": {Stream: m, User: "u"}, "no user": {Stream: m, Host: "h"},
		"long report host": {Stream: m, Host: "h", User: "u", ReportHost: strings.Repeat("x", 61)},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	p, err := New(Config{Stream: m, Host: "h", User: "u"})
	if err != nil || p.cfg.Port != 3306 || p.cfg.Heartbeat == 0 || p.cfg.Retry.Min == 0 {
		t.Errorf("defaults: %+v, %v", p, err)
	}
}

func TestParseOwned(t *testing.T) {
	const a, b = "345c952a-511b-4674-a043-afb1963e941d", "3e11fa47-71ca-11e1-9e33-c80aa9429562"
	for text, want := range map[string]string{
		"":                               "",
		a + ":452#18":                    a + ":452",
		a + ":452#18:453#18:460#9":       a + ":452-453:460",
		a + ":1#2," + b + ":7#3":         a + ":1," + b + ":7",
		a + ":tag:5#1":                   a + ":tag:5",
		"ANONYMOUS":                      "",
		a + ":0#1:x#1":                   "",
		a + ":99999999999999999999999#1": "",
	} {
		if got := parseOwned(text); !got.Equal(mustSet(want)) {
			t.Errorf("%q: got %v, want %s", text, got, want)
		}
	}
}
