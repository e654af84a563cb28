package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kingbus/internal/binlog"
	"kingbus/internal/binlogtest"
	"kingbus/internal/gtid"
	"kingbus/internal/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSeries(t *testing.T) {
	for _, c := range []struct {
		in          series
		median, max float64
	}{
		{nil, 0, 0},
		{series{3}, 3, 3},
		{series{5, 1, 9}, 5, 9},
		{series{4, 1, 2, 9}, 3, 9},
	} {
		if got := c.in.median(); got != c.median {
			t.Errorf("median of %v: got %v, want %v", c.in, got, c.median)
		}
		if got := c.in.max(); got != c.max {
			t.Errorf("max of %v: got %v, want %v", c.in, got, c.max)
		}
	}
}

func TestReport(t *testing.T) {
	var r report
	r.compare("a", "s", "faster", "MB/s", series{200}, series{100}, atLeast)
	r.compare("a", "s", "slower", "MB/s", series{99}, series{100}, atLeast)
	r.compare("a", "s", "cheaper", "s/GB", series{1}, series{1}, atMost)
	r.compare("a", "s", "dearer", "s/GB", series{2}, series{1}, atMost)
	r.compare("a", "s", "told", "MB/s", series{1}, series{4}, noGoal)
	r.compare("a", "s", "ten times", "MB/s", series{141}, series{14}, atLeast.times(10))
	r.limit("b", "s", "below", "ms", series{4.9}, series{49}, 5)
	r.limit("b", "s", "above", "ms", series{5}, nil, 5)
	r.info("b", "s", "by the way", "ms", series{12.34})
	r.memory([]peak{{"p", 199e6}, {"q", 200e6}})
	want := []row{
		{"a", "s", "faster", "200 MB/s", "100 MB/s", "2.00", "≥ 1", "PASS"},
		{"a", "s", "slower", "99.0 MB/s", "100 MB/s", "0.99", "≥ 1", "MISS"},
		{"a", "s", "cheaper", "1.00 s/GB", "1.00 s/GB", "1.00", "≤ 1", "PASS"},
		{"a", "s", "dearer", "2.00 s/GB", "1.00 s/GB", "2.00", "≤ 1", "MISS"},
		{"a", "s", "told", "1.00 MB/s", "4.00 MB/s", "0.25", "", ""},
		{"a", "s", "ten times", "141 MB/s", "14.0 MB/s", "10.07", "≥ 10", "PASS"},
		{"b", "s", "below", "4.90 ms", "49.0 ms", "0.100", "< 5 ms", "PASS"},
		{"b", "s", "above", "5.00 ms", "", "", "< 5 ms", "MISS"},
		{"b", "s", "by the way", "12.3 ms", "", "", "", ""},
		{"memory", "", "peak RssAnon, p", "199 MB", "", "", "< 200 MB", "PASS"},
		{"memory", "", "peak RssAnon, q", "200 MB", "", "", "< 200 MB", "MISS"},
	}
	for i, got := range r.rows {
		if got != want[i] {
			t.Errorf("row %d:\n got %+v\nwant %+v", i, got, want[i])
		}
	}
	if text := r.String(); !strings.Contains(text, "5 of 9 goals reached") {
		t.Errorf("got\n%s\nwant 5 of 9 goals reached", text)
	}
}

func TestWithoutLast(t *testing.T) {
	const a = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
	for _, c := range []struct{ in, want string }{
		{a + ":1-100", a + ":1-90"},
		{a + ":5-15", a + ":5"},
		{a + ":1-10", ""}, // nothing would be left to seek by
		{"", ""},
		{a + ":1-100,4e11fa47-71ca-11e1-9e33-c80aa9429562:1-100", ""},
	} {
		got, err := withoutLast(c.in, 10)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: got %s, want an error", c.in, got)
			}
			continue
		}
		if err != nil || got.String() != c.want {
			t.Errorf("%s: got %s, %v, want %s", c.in, got, err, c.want)
		}
	}
}

func TestMemoryPeaks(t *testing.T) {
	m := newMemory()
	m.enter("one")
	m.saw(5)
	m.saw(7)
	m.saw(6)
	m.enter("none")
	m.enter("two")
	m.saw(3)
	m.enter("one")
	m.saw(8)
	if got, want := fmt.Sprint(m.peaks()), "[{one 8} {two 3}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The figures of our own process: what is read from /proc and the kernel is there and in the right unit.
func TestOwnProcess(t *testing.T) {
	pid := os.Getpid()
	if size, ok := anonymous(pid); !ok || size < 1<<20 || size > 1<<34 {
		t.Errorf("anonymous memory: got %d, %v, want some MB", size, ok)
	}
	before, err := cpuTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(time.Minute); ; {
		now, err := cpuTime(pid)
		if err != nil || time.Now().After(late) {
			t.Fatalf("the CPU time does not grow from %v: %v, %v", before, now, err)
		}
		if now > before {
			break
		}
	}
	if _, err := cpuTime(1 << 22); err == nil {
		t.Error("CPU time of a process that does not exist: want an error")
	}
}

// fakeLink collects what is fed.
type fakeLink struct {
	names []string
	files map[string]*bytes.Buffer
	runs  int
}

func (l *fakeLink) Rotate(_ context.Context, name string) error {
	l.names = append(l.names, name)
	l.files[name] = &bytes.Buffer{}
	return nil
}

func (l *fakeLink) Append(_ context.Context, run []byte) error {
	l.runs++
	l.files[l.names[len(l.names)-1]].Write(run[stream.RunHeader:])
	return nil
}

// Each feeding of a file is one whose every event is right: position, checksum, GTIDs that go on.
func TestFeeder(t *testing.T) {
	w := binlogtest.Writer{UUID: gtid.UUID{1}, Checksum: binlog.ChecksumCRC32}
	events := w.Begin(nil)
	for range 100 {
		events = w.Transaction(events, 10_000)
	}
	link := &fakeLink{files: map[string]*bytes.Buffer{}}
	f, err := newFeeder(link, w.Executed)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b.000002", "b.000003"} {
		if err := f.file(t.Context(), name, events); err != nil {
			t.Fatal(err)
		}
	}
	// Each run but a file's last one holds MaxRun and at the most one transaction more.
	if least := 2 * (len(events) / (stream.MaxRun + 20_000)); link.runs < least || least < 2 {
		t.Errorf("2 files of %d bytes came in %d runs, want at least %d", len(events), link.runs, least)
	}
	next := w.GNO + 1
	for _, name := range link.names {
		data, pos := link.files[name].Bytes(), uint64(binlog.MagicSize)
		for len(data) > 0 {
			h, err := binlog.ParseHeader(data)
			if err != nil {
				t.Fatal(err)
			}
			ev := data[:h.Length]
			data, pos = data[h.Length:], pos+uint64(h.Length)
			if uint64(h.LogPos) != pos || !binlog.VerifyChecksum(ev) {
				t.Fatalf("%s: %s event ends at %d, says %d, checksum right: %v", name, h.Type, pos, h.LogPos, binlog.VerifyChecksum(ev))
			}
			switch h.Type {
			case binlog.TypeGTID:
				if g, err := binlog.ParseGTID(ev, binlog.ChecksumCRC32); err != nil || g.GTID.GNO != next {
					t.Fatalf("%s: got %v, %v, want number %d", name, g.GTID, err, next)
				}
				next++
			case binlog.TypePreviousGTIDs:
				if set, err := binlog.ParsePreviousGTIDs(ev, binlog.ChecksumCRC32); err != nil || int64(set.Count()) != next-1 {
					t.Fatalf("%s: PREVIOUS_GTIDS %s, %v, want %d of them", name, set, err, next-1)
				}
			}
		}
	}
	if want := w.GNO*3 + 1; next != want {
		t.Errorf("the next number is %d, want %d", next, want)
	}
}

func TestConfigCheck(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	good := Config{Kingbus: self, Runs: 1, Rounds: 1, RestartGB: 1, JoinGB: 1, Out: io.Discard}
	for _, c := range []struct {
		what   string
		change func(*Config)
		want   string // in the error; "" is none
	}{
		{"nothing", func(*Config) {}, ""},
		{"a phase", func(c *Config) { c.Only = []string{"serve"} }, ""},
		{"an unknown phase", func(c *Config) { c.Only = []string{"serf"} }, "no phase"},
		{"no runs", func(c *Config) { c.Runs = 0 }, "runs"},
		{"no rounds", func(c *Config) { c.Rounds = 0 }, "rounds"},
		{"no log", func(c *Config) { c.RestartGB = 0 }, "log of"},
		{"no log to join", func(c *Config) { c.JoinGB = 0 }, "to take in"},
		{"no program", func(c *Config) { c.Kingbus = "/does/not/exist" }, "make build"},
	} {
		cfg := good
		c.change(&cfg)
		err := cfg.check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.what, err, c.want)
		}
	}
}

func TestFolderIsRemoved(t *testing.T) {
	f, err := newFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.file("x"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.remove(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(f.path); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", f.path, err)
	}
}

func TestProcess(t *testing.T) {
	for _, grace := range []time.Duration{0, time.Minute} {
		p, err := startProcess(exec.Command("sleep", "1000"))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := anonymous(p.cmd.Process.Pid); !ok {
			t.Error("a running process has no memory")
		}
		_ = p.stop(grace) // a sleep that is stopped fails
		select {
		case <-p.done:
		default:
			t.Fatal("the process was not waited for")
		}
	}
	if _, err := startProcess(exec.Command(filepath.Join(t.TempDir(), "none"))); err == nil {
		t.Error("a program that does not exist was started")
	}
}
