package demo

import (
	"errors"
	"strings"
	"testing"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/gtid"
	"kingbus/internal/stream"
)

const (
	uuidA = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
	uuidB = "4e11fa47-71ca-11e1-9e33-c80aa9429562"
)

func set(t *testing.T, text string) gtid.Set {
	t.Helper()
	s, err := gtid.ParseSet(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTexts(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{number(0), "0"}, {number(999), "999"}, {number(1000), "1,000"}, {number(12345678), "12,345,678"},
		{clock(0), "0:00"}, {clock(61 * time.Second), "1:01"}, {clock(3 * time.Hour), "180:00"},
		{cut("abc", 3), "abc"}, {cut("äöüß", 3), "äö…"}, {cut("abc", 0), "…"},
		{transactions(1), "1 transaction"}, {transactions(0), "0 transactions"},
		{shortSet(set(t, uuidA+":1-5:8,"+uuidB+":3")), "3e11fa47…:1-5:8, 4e11fa47…:3"}, {shortSet(gtid.Set{}), ""},
	} {
		if tc.got != tc.want {
			t.Errorf("got %q, want %q", tc.got, tc.want)
		}
	}
}

func TestBytesUpTo(t *testing.T) {
	w := &watcher{sizes: map[string]uint64{"b.000001": 1000, "b.000002": 500, "b.000003": 7}}
	for _, tc := range []struct {
		at   stream.Coordinates
		want uint64
	}{
		{stream.Coordinates{}, 0},
		{stream.Coordinates{File: "b.000001", Pos: 4}, 4},
		{stream.Coordinates{File: "b.000002", Pos: 4}, 1004},
		{stream.Coordinates{File: "b.000004", Pos: 4}, 1511},
	} {
		if got := w.bytesUpTo(tc.at); got != tc.want {
			t.Errorf("%v: got %d, want %d", tc.at, got, tc.want)
		}
	}
}

func TestMissing(t *testing.T) {
	end := stream.Coordinates{File: "b.000001", Pos: 900}
	all := place{at: end, set: set(t, uuidA+":1-9")}
	for _, tc := range []struct {
		name   string
		change func(*sample)
		want   []string // parts of what is said; none = nothing is missing
	}{
		{"nothing", func(*sample) {}, nil},
		{"kingbus lacks a transaction", func(s *sample) { s.nodes[0].set = set(t, uuidA+":1-8") }, []string{"kingbus lacks 1 transaction"}},
		{"kingbus ends before the source", func(s *sample) { s.nodes[0].at.Pos = 800 }, []string{"kingbus lacks 0 transactions", "b.000001:800", "b.000001:900"}},
		{"kingbus is dead", func(s *sample) { s.nodes[0].err = errors.New("refused") }, []string{"does not answer", "refused"}},
		{"nobody leads", func(s *sample) { s.nodes[0].status.Node.Leader = false }, []string{"no node leads"}},
		{"it was started again, and has not applied all", func(s *sample) {
			s.nodes[0].process.starts, s.nodes[0].status.Node = 2, admin.Node{Leader: true, Committed: 9, Applied: 8}
		}, []string{"has not caught up"}},
		{"the replica lacks some", func(s *sample) { s.replicas[0].set, s.replicas[0].error = set(t, uuidA+":1-3:7-9"), "duplicate key" },
			[]string{"replica lacks 3 transactions (3e11fa47…:4-6)", "duplicate key"}},
	} {
		s := sample{
			source:   all,
			nodes:    []nodeSample{{place: all, name: "kingbus", process: process{alive: true, starts: 1}, status: admin.Status{Node: admin.Node{Leader: true}}}},
			replicas: []replicaSample{{place: all, name: "replica"}},
		}
		tc.change(&s)
		c := newChronicle(1, 1)
		c.follow(&s)
		got := (&demo{watch: &watcher{history: []sample{s}}, chronicle: c}).missing()
		if (got == "") != (len(tc.want) == 0) {
			t.Errorf("%s: got %q", tc.name, got)
		}
		for _, part := range tc.want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: got %q, want it to have %q", tc.name, got, part)
			}
		}
	}
}

func TestBetween(t *testing.T) {
	now := time.Unix(1000, 0)
	a := sample{when: now, source: place{set: set(t, uuidA+":1-10"), bytes: 100}}
	b := sample{when: now.Add(2 * time.Second), source: place{set: set(t, uuidA+":1-30"), bytes: 700}}
	if got, want := between(a, b, atSource), (rate{10, 300}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := between(a, a, atSource); got != (rate{}) {
		t.Errorf("no time between: got %v", got)
	}
}

// Without a terminal, progress is told step by step, and each line once.
func TestPlainProgress(t *testing.T) {
	var out output
	v := newView(&out)
	for _, message := range []string{"starting replica1", "starting replica2", "downloading package 1 of 9", "downloading package 2 of 9", "unpacking package 1 of 9", "unpacking package 2 of 9"} {
		v.progress(message)
	}
	v.clear()
	if got, want := out.String(), "… starting replica1\n… starting replica2\n… downloading package 1 of 9\n… unpacking package 1 of 9\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The transactions of a writer keep to its own orders, and tables stop growing.
func TestWorkloadIsBounded(t *testing.T) {
	w := newWriter(3)
	for range 100_000 {
		if sql := w.next(); strings.Contains(sql, "%!") || strings.ContainsAny(sql, "\n\\") {
			t.Fatalf("bad statement: %s", sql)
		}
		if orders, docs := w.order-w.firstOrder, w.doc-w.firstDoc; orders < 0 || orders > maxOrders+1 || docs > maxDocs+1 || w.ledger > maxLedger+1 {
			t.Fatalf("%d orders, %d documents, %d rows of the ledger", orders, docs, w.ledger)
		}
	}
	for n := range 30 {
		if sql := ddl(n); strings.Contains(sql, "%!") {
			t.Errorf("bad statement: %s", sql)
		}
	}
}
