package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/cluster"
	"kingbus/internal/semisync"
	"kingbus/internal/vfs"
)

// status returns what a member of a sample cluster says of itself.
func memberStatus(name string, change func(*cluster.MemberStatus)) cluster.MemberStatus {
	m := cluster.MemberStatus{Member: cluster.Member{ID: uint64(len(name) + int(name[len(name)-1])), Name: name, Address: name + ":8407"}, Up: true, Last: 100}
	if change != nil {
		change(&m)
	}
	return m
}

func TestMembersTable(t *testing.T) {
	c := admin.Cluster{Name: "n1", Role: admin.RoleLeader, Leader: "n1", LeaderID: 1, Members: []cluster.MemberStatus{
		memberStatus("n1", func(m *cluster.MemberStatus) { m.Self, m.Leader, m.Match, m.State = true, true, 100, "replicate" }),
		memberStatus("n2", func(m *cluster.MemberStatus) { m.Match, m.Last, m.State = 90, 93, "replicate" }),
		memberStatus("n3", func(m *cluster.MemberStatus) {
			m.Up, m.Match, m.Last, m.Error, m.State = false, 40, 41, "dial: \x1b[31mrefused", "probe"
		}),
		memberStatus("n4", func(m *cluster.MemberStatus) {
			m.Learner, m.Installing, m.Last = true, &cluster.Progress{Done: 3 << 30, Total: 10 << 30}, 0
		}),
		memberStatus("n5", func(m *cluster.MemberStatus) { m.Up, m.Last = false, 0 }),
		memberStatus("n6", func(m *cluster.MemberStatus) { m.Full, m.Last = true, 120 }),
		memberStatus("n7", func(m *cluster.MemberStatus) { m.State = "snapshot"; m.Last, m.Match = 0, 7 }),
	}}
	var b bytes.Buffer
	if err := writeMembers(&b, c); err != nil {
		t.Fatal(err)
	}
	want := `  NAME  ADDRESS  ROLE     UP   LAG  STATE
  n1    n1:8407  leader   yes  0    -
  n2    n2:8407  voter    yes  7    replicates
  n3    n3:8407  voter    NO   60   down: dial: ?[31mrefused
  n4    n4:8407  learner  yes  100  fetches the log, 3.0 GiB of 10.0 GiB
  n5    n5:8407  voter    NO   -    not heard from
  n6    n6:8407  voter    yes  0    DISK FULL
  n7    n7:8407  voter    yes  93   gets a snapshot
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	now := time.Unix(1000, 0)
	for _, tc := range []struct {
		change func(*admin.Cluster)
		want   string
	}{
		{func(*admin.Cluster) {}, "7 nodes, 6 of which vote; this node, n1, leads"},
		{func(c *admin.Cluster) { c.Role, c.Leader = admin.RoleFollower, "n2" }, "7 nodes, 6 of which vote; n2 leads, this node, n1, is a follower"},
		{func(c *admin.Cluster) {
			c.Role, c.Stale, c.StaleSince = admin.RoleFollower, true, now.Add(-90*time.Second)
		}, "7 nodes, 6 of which vote; NO LEADER is known to this node, n1, for 2m"},
		{func(c *admin.Cluster) {
			*c = admin.Cluster{Name: "n1", Role: admin.RoleWaiting, Address: "h:1", Stale: true}
		}, "this node, n1, belongs to none yet and waits to be taken in; others reach it at h:1"},
		{func(c *admin.Cluster) { *c = admin.Cluster{Name: "n1", Role: admin.RoleLearner, ID: 7, LeaderID: 2} }, "this node, n1, is being taken into cluster 7"},
	} {
		c := c
		tc.change(&c)
		if got := clusterText(c, now); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

// What a follower says of the source is no error, and a node for itself says
// nothing of a cluster.
func TestStatusText(t *testing.T) {
	st := admin.Status{
		Ready: true, Now: time.Unix(5000, 0),
		Node:    admin.Node{Term: 3},
		Cluster: admin.Cluster{Name: "n1", Role: admin.RoleFollower, Leader: "n2", LeaderID: 2, Members: []cluster.MemberStatus{memberStatus("n1", nil), memberStatus("n2", nil)}},
		Source: admin.Source{Address: "db:3306", State: admin.SourceFollowed, Error: "this is old", ErrorAt: time.Unix(4000, 0),
			LeaderSemiSync: &semisync.Status{Mode: semisync.ModeAuto, State: semisync.StateWaiting, Since: time.Unix(4990, 0), Acknowledged: 7}},
	}
	var b bytes.Buffer
	if err := printStatus(&b, st); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"follower in term 3", "followed by the leader, n2, at db:3306", "  last error   this is old", "  semi-sync    the source waits for kingbus, since 10s ago; 7 acknowledgements", "2 nodes, 2 of which vote", "NAME  ADDRESS"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "ERROR") {
		t.Errorf("an error in\n%s", b.String())
	}
	st.Cluster.Members, st.Cluster.Role, st.Source.State = st.Cluster.Members[:1], admin.RoleLeader, "waiting to connect again"
	b.Reset()
	if err := printStatus(&b, st); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "cluster") || strings.Contains(b.String(), "NAME") || !strings.Contains(b.String(), "leader in term 3") || !strings.Contains(b.String(), "  ERROR") {
		t.Errorf("a node for itself:\n%s", b.String())
	}
}

func TestNotReady(t *testing.T) {
	at := time.Unix(1000, 0).UTC()
	for _, tc := range []struct {
		c    admin.Cluster
		want string
	}{
		{admin.Cluster{Role: admin.RoleLeader}, ""},
		{admin.Cluster{Role: admin.RoleFollower, LeaderID: 1}, ""},
		{admin.Cluster{Role: admin.RoleFollower, Stale: true, StaleSince: at}, "no leader is known since 1970-01-01T00:16:40Z"},
		{admin.Cluster{Role: admin.RoleWaiting, Stale: true, Name: "n4", Address: "h:1"}, "`kingbus node add n4 h:1`"},
		{admin.Cluster{Role: admin.RoleWaiting, Stale: true, Installing: &cluster.Progress{Done: 1 << 20, Total: 1 << 30}}, "1.0 MiB of 1.0 GiB"},
		{admin.Cluster{Role: admin.RoleLearner, LeaderID: 1, Installing: &cluster.Progress{}}, "just begun"},
	} {
		if got := notReady(tc.c); !strings.Contains(got, tc.want) || (tc.want == "") != (got == "") {
			t.Errorf("%+v: got %q, want %q", tc.c, got, tc.want)
		}
	}
}

func TestStoreFailure(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code int
	}{
		{fmt.Errorf("%w (says n2: x)", cluster.ErrRemoved), exitRefused},
		{fmt.Errorf("%w: it ends early", cluster.ErrStale), exitRefused},
		{cluster.ErrFormat, exitRefused},
		{errors.New("fsync: input/output error"), exitStore},
	} {
		err := storeFailure(tc.err)
		var e *exitError
		if !errors.As(err, &e) || e.code != tc.code || !errors.Is(err, tc.err) {
			t.Errorf("%v: got %v", tc.err, err)
		}
		if unknown := strings.Contains(err.Error(), "nobody can know what is on disk"); unknown != (tc.code == exitStore) {
			t.Errorf("%v: says %q", tc.err, err)
		}
		if again := withCode(exitFailed, err); again != err {
			t.Errorf("%v: the code is lost: %v", tc.err, again)
		}
	}
}

func TestVotersText(t *testing.T) {
	for n, want := range map[int]string{
		1: "has one voter.", 2: "2 voters and needs all of them", 3: "3 voters and can lose 1 of them.", 4: "can lose 1 of them, no more than with 3.", 5: "5 voters and can lose 2 of them.",
	} {
		if got := votersText(n); !strings.Contains(got, want) {
			t.Errorf("%d: got %q", n, got)
		}
	}
}

func TestVerdict(t *testing.T) {
	different := cluster.Difference{Node: "n2", From: 3, To: 5, Error: "its entries are not those"}
	missing := cluster.Difference{Node: "n3", Error: "it is not up"}
	for _, tc := range []struct {
		v    cluster.Verified
		code int
		want []string
	}{
		{cluster.Verified{From: 2, To: 9, Nodes: []string{"n2", "n3"}}, 0, []string{"compared this node with n2, n3: 8 entries, 2 to 9", "no difference"}},
		{cluster.Verified{From: 2, To: 9}, 0, []string{"no other node was compared; read 8 entries, 2 to 9", "no difference"}},
		{cluster.Verified{From: 9, To: 3, Nodes: []string{"n2"}}, 0, []string{"no entries"}},
		{cluster.Verified{From: 2, To: 9, Differences: []cluster.Difference{missing}}, exitFailed, []string{"not compared: n3: it is not up"}},
		{cluster.Verified{From: 2, To: 9, Differences: []cluster.Difference{missing, different}}, exitDamage, []string{"DIFFERENT: n2, entries 3 to 5: its entries"}},
	} {
		var b bytes.Buffer
		if err := printVerified(&b, tc.v); err != nil {
			t.Fatal(err)
		}
		for _, want := range tc.want {
			if !strings.Contains(b.String(), want) {
				t.Errorf("no %q in\n%s", want, b.String())
			}
		}
		code := 0
		var e *exitError
		if errors.As(verdict(tc.v), &e) {
			code = e.code
		}
		if code != tc.code || (code == 0) != strings.Contains(b.String(), "no difference") {
			t.Errorf("exit code %d, want %d, of\n%s", code, tc.code, b.String())
		}
	}
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b, "")
	for done := range uint64(100) {
		p.show("n4 fetches the log", done<<20, 100<<20)
	}
	p.end()
	if got := b.String(); got != "n4 fetches the log: 0 B of 100.0 MiB, 0%\n" {
		t.Errorf("not on a terminal: got %q", got)
	}
	b.Reset()
	p = &progress{out: &b, live: true}
	p.show("waiting for n4", 0, 0)
	p.show("waiting for n4", 0, 0)
	for done := range uint64(101) {
		p.show("n4 fetches the log", done<<20, 200<<20)
	}
	p.show("n4 fetches the log", 300<<20, 400<<20) // there was more than it seemed
	p.show("n4 is 5 entries behind", 0, 0)
	p.end()
	got := b.String()
	if strings.Count(got, "waiting for n4") != 1 || strings.Contains(got, "\n") || !strings.HasSuffix(got, "n4 is 5 entries behind\r\x1b[K") {
		t.Errorf("on a terminal: got %q", got)
	}
	for _, want := range []string{"n4 fetches the log", "200 MiB", "%"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q on a terminal: %q", want, got)
		}
	}
}

// TestWatched: who watches an export, or an inspection, sees how far it is.
func TestWatched(t *testing.T) {
	dir, files := makeFolder(t)
	var b, out bytes.Buffer
	shown := &progress{out: &b, live: true}
	if err := exportFolder(t.Context(), dir, currentFile, &out, shown); err != nil || out.Len() != len(files["binlog.000002"]) {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
	shown.end()
	size := fmt.Sprintf("/%.0f KiB", float64(out.Len())/1024) // as the bar writes it
	if got := b.String(); !strings.Contains(got, "binlog.000002") || !strings.Contains(got, size) {
		t.Errorf("an export of %s shows %q", size, got)
	}
	b.Reset()
	in := inspection{out: &out, dir: dir, shown: &progress{out: &b, live: true}}
	if err := in.run(vfs.OS{}); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); !strings.Contains(got, "reading the log") || !strings.Contains(got, " KiB") || strings.Contains(got, "\n") {
		t.Errorf("an inspection shows %q", got)
	}
}

// fakeNode answers as a node whose cluster takes one step each time that it is
// looked at.
type fakeNode struct {
	mu       sync.Mutex
	steps    []func(c *admin.Cluster)
	at       int
	promotes []admin.Code // what promoting answers, in turn; then 204
	asked    []string
}

func (f *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	code, body := http.StatusOK, "{}"
	switch {
	case r.Method == http.MethodGet:
		c := admin.Cluster{Leader: "n1", Members: []cluster.MemberStatus{memberStatus("n1", func(m *cluster.MemberStatus) { m.Leader, m.Last = true, 5000 })}}
		f.steps[min(f.at, len(f.steps)-1)](&c)
		f.at++
		b, err := json.Marshal(c)
		if err != nil {
			panic(err)
		}
		body = string(b)
	case strings.HasSuffix(r.URL.Path, "/promote") && len(f.promotes) > 0:
		code, body = http.StatusTeapot, fmt.Sprintf(`{"error": "not yet", "code": %q}`, f.promotes[0])
		f.promotes = f.promotes[1:]
	default:
		code, body = http.StatusNoContent, ""
	}
	if r.Method != http.MethodGet {
		f.asked = append(f.asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type"))
	}
	w.WriteHeader(code)
	_, _ = w.Write([]byte(body))
}

func TestAddWaits(t *testing.T) {
	n4 := func(change func(*cluster.MemberStatus)) func(*admin.Cluster) {
		return func(c *admin.Cluster) {
			c.Members = append(c.Members, memberStatus("n4", func(m *cluster.MemberStatus) { m.Learner = true; change(m) }))
		}
	}
	nothing := func(*admin.Cluster) {}
	down := n4(func(m *cluster.MemberStatus) { m.Up, m.Error = false, "refused" })
	fetches := n4(func(m *cluster.MemberStatus) { m.Installing = &cluster.Progress{Done: 1 << 20, Total: 4 << 20} })
	behind := n4(func(m *cluster.MemberStatus) { m.Last = 3999 })
	close := n4(func(m *cluster.MemberStatus) { m.Last = 4000 })
	voter := n4(func(m *cluster.MemberStatus) { m.Learner = false })
	for _, tc := range []struct {
		name     string
		steps    []func(*admin.Cluster)
		promotes []admin.Code
		learner  bool
		out      string // what is said in the end
		err      string
		asked    int // for a promotion
	}{
		{"all the way", []func(*admin.Cluster){nothing, down, fetches, behind, close, close, close, voter}, []admin.Code{admin.CodeConflict, admin.CodeNoLeader}, false, "n4 is a voter now. The cluster has 2 voters", "", 3},
		{"as a learner", []func(*admin.Cluster){behind, close}, nil, true, "stays a learner", "", 0},
		{"it was a voter already", []func(*admin.Cluster){voter}, nil, false, "n4 is a voter now", "", 0},
		{"somebody removes it", []func(*admin.Cluster){fetches, nothing}, nil, false, "", "somebody has removed it", 0},
		{"refused for good", []func(*admin.Cluster){close}, []admin.Code{admin.CodeInternal}, false, "", "not yet", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fakeNode{steps: tc.steps, promotes: tc.promotes}
			server := httptest.NewServer(f)
			defer server.Close()
			var out, errs bytes.Buffer
			a := addition{c: newClient(server.URL, "", nil), name: "n4", out: &out, shown: newProgress(&errs, "")}
			err := a.wait(t.Context(), !tc.learner)
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("got %v, want %q", err, tc.err)
			}
			if !strings.Contains(out.String(), tc.out) || len(f.asked) != tc.asked {
				t.Errorf("said %q, asked %q", out.String(), f.asked)
			}
			for _, asked := range f.asked {
				if asked != "POST /api/v1/cluster/nodes/n4/promote application/json" {
					t.Errorf("asked %q", asked)
				}
			}
		})
	}
}
