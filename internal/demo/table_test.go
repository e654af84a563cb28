package demo

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/cluster"
	"kingbus/internal/stream"
)

// threeNodes is a quiet cluster: n1 leads, replica1 is on it, replica2 on n2.
func threeNodes(t *testing.T) sample {
	all := place{at: stream.Coordinates{File: "binlog.000002", Pos: 900}, set: set(t, uuidA+":1-9")}
	s := sample{
		when: time.Unix(1000, 0), source: all,
		replicas: []replicaSample{{place: all, name: "replica1", node: "n1", connected: true}, {place: all, name: "replica2", node: "n2", connected: true}},
	}
	for i, name := range []string{"n1", "n2", "n3"} {
		n := nodeSample{place: all, name: name, process: process{alive: true, pid: 101 + i, starts: 1, began: s.when}, heard: 1}
		n.status = admin.Status{
			Ready:   true,
			Node:    admin.Node{Leader: i == 0, Term: 3, Applied: 70, Committed: 70, LastIndex: 70},
			Cluster: admin.Cluster{Role: admin.RoleFollower, Leader: "n1", Members: make([]cluster.MemberStatus, 3)},
			Source:  admin.Source{Connected: i == 0},
		}
		s.nodes = append(s.nodes, n)
	}
	return s
}

// later returns a copy of a sample that is some milliseconds younger.
func later(s sample, milliseconds int, change func(*sample)) sample {
	s.when = s.when.Add(time.Duration(milliseconds) * time.Millisecond)
	s.nodes, s.replicas = slices.Clone(s.nodes), slices.Clone(s.replicas)
	change(&s)
	return s
}

func kill(i int) func(*sample) {
	return func(s *sample) {
		n := &s.nodes[i]
		n.process.alive, n.process.ended, n.err = false, s.when, errors.New("refused")
	}
}

func start(i, pid int) func(*sample) {
	return func(s *sample) {
		n := &s.nodes[i]
		n.process.alive, n.process.pid, n.process.began = true, pid, s.when
		n.process.starts++
	}
}

func lead(i int) func(*sample) {
	return func(s *sample) {
		term := uint64(0)
		for _, n := range s.nodes {
			term = max(term, n.status.Node.Term)
		}
		s.nodes[i].status.Node = admin.Node{Leader: true, Term: term + 1, Applied: 80, Committed: 80, LastIndex: 80}
	}
}

func answer(i int, applied uint64) func(*sample) {
	return func(s *sample) {
		n := &s.nodes[i]
		n.err, n.heard = nil, n.process.starts
		n.status.Node = admin.Node{Term: 4, Applied: applied, Committed: applied, LastIndex: applied}
	}
}

// A leader dies, another one takes over, a replica moves, and the node comes back.
func TestChronicle(t *testing.T) {
	s := threeNodes(t)
	c := newChronicle(3, 2)
	for _, tc := range []struct {
		name   string
		after  int // milliseconds
		change func(*sample)
		want   string
		quiet  bool
	}{
		{"the beginning", 0, func(*sample) {}, "", true},
		{"nothing", 250, func(*sample) {}, "", true},
		{"the leader dies", 250, kill(0), "", false},
		{"replica1 looks for a node", 500, func(s *sample) { s.replicas[0].connected = false }, "", false},
		{"n3 is elected", 543, lead(2), "n3 leads now, 1,043 ms after the end of n1", true},
		{"replica1 tries the next one", 100, func(s *sample) { s.replicas[0].node = "n2" }, "", true},
		{"and gets there", 100, func(s *sample) { s.replicas[0].connected = true }, "replica1 has moved from n1 to n2 by itself", true},
		{"n1 is started", 4000, start(0, 111), "", false},
		{"n1 answers", 250, answer(0, 70), "", false},
		{"n1 has nearly all", 250, answer(0, 79), "", false},
		{"n1 has all", 250, answer(0, 80), "n1 is back (pid 111) and has caught up, 750 ms after its start", true},
		{"leadership is handed over", 250, lead(1), "n2 leads now, instead of n3", true},
		{"a follower dies", 250, kill(0), "", true},
	} {
		s = later(s, tc.after, tc.change)
		if got := strings.Join(c.follow(&s), "; "); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
		if got := c.open(); (got == "") != tc.quiet {
			t.Errorf("%s: got open %q, want quiet %v", tc.name, got, tc.quiet)
		}
	}
}

// tableOf returns what a terminal of a width shows of a sample.
func tableOf(s sample, columns int) []string {
	d := &demo{
		cfg: Config{Rate: 300, Writers: 4, Replicas: len(s.replicas)}, watch: &watcher{history: []sample{s}}, folder: &folder{path: "/tmp/kingbus-demo-1234567890"},
	}
	for _, n := range s.nodes {
		d.nodes = append(d.nodes, &kingbus{name: n.name, mysql: "127.0.0.1:23456", delay: 5 * time.Second})
	}
	lines := d.table(12*time.Second, "", columns)
	return append(lines, d.oneLine(12*time.Second, "waiting"))
}

func TestTable(t *testing.T) {
	quiet := threeNodes(t)
	killed := later(quiet, 0, kill(0))
	killed = later(killed, 2000, lead(1))
	for _, tc := range []struct {
		name string
		s    sample
		want []string // parts of lines, spaces do not count
	}{
		{"quiet", quiet, []string{
			"source binlog.000002:900 0 0.00 3e11fa47…:1-9", "n1 binlog.000002:900 0 0.00 0 LEADER kill -9 101",
			"n3 binlog.000002:900 0 0.00 0 follower kill -9 103", "replica1 binlog.000002:900 0 0.00 0 on n1", "replica2 on n2 lag 0",
		}},
		{"the leader was killed", killed, []string{"n1 binlog.000002:900 0 0.00 10 DOWN back in 3s", "LEADER kill -9 102", "n1 DOWN lag 10, n2 LEADER lag 0"}},
		{"it is started", later(killed, 3000, start(0, 111)), []string{"starting kill -9 111"}},
		{"one is frozen", later(quiet, 0, func(s *sample) { s.nodes[1].err = errors.New("timeout") }), []string{"SILENT kill -9 102"}},
		{"one knows no leader", later(quiet, 0, func(s *sample) { s.nodes[2].status.Cluster.Stale, s.nodes[2].status.Ready = true, false }), []string{"stale kill -9 103"}},
		{"the source is away", later(quiet, 0, func(s *sample) { s.nodes[0].status.Source = admin.Source{State: "waiting", Error: "refused"} }), []string{"n1: waiting: refused"}},
		{"a replica lacks some", later(quiet, 0, func(s *sample) {
			r := &s.replicas[1]
			r.set, r.connected, r.error = set(t, uuidA+":1-3"), false, "duplicate key"
		}), []string{"900 0 0.00 6 connecting to n2", "replica2: duplicate key"}},
	} {
		for _, columns := range []int{80, 120} {
			lines := tableOf(tc.s, columns)
			if got := strings.Join(strings.Fields(strings.Join(lines, "\n")), " "); !containsAll(got, tc.want) {
				t.Errorf("%s, %d columns: got\n%s\nwant %q", tc.name, columns, strings.Join(lines, "\n"), tc.want)
			}
			for _, line := range lines[:len(lines)-1] {
				if n := len([]rune(line)); n >= columns {
					t.Errorf("%s: a line of %d columns of %d: %s", tc.name, n, columns, line)
				}
			}
		}
	}
}

func containsAll(text string, parts []string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) })
}
