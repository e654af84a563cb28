package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/vfs"
)

// others returns the members but one.
func (g *group) others(m *member) (out []*member) {
	for _, other := range g.nodes {
		if other != m {
			out = append(out, other)
		}
	}
	slices.SortFunc(out, func(a, b *member) int { return strings.Compare(a.name, b.name) })
	return out
}

// TestLeaderCutOff: a leader that reaches nobody, or is heard by nobody, or hears
// nobody, is deposed by itself; what it took meanwhile counts for nothing, and when
// it is back it has what the others have.
func TestLeaderCutOff(t *testing.T) {
	for name, cut := range map[string]struct{ out, in bool }{
		"both": {true, true}, "is not heard": {true, false}, "hears nobody": {false, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, "n1", "n2", "n3").start()
			for i := range 10 {
				g.propose(numbered(i, 100))
			}
			g.converge(10)
			old := g.leader()
			lead := old.node.Leading()
			for _, other := range g.others(old) {
				g.net.set(old.name, other.name, cut.out)
				g.net.set(other.name, old.name, cut.in)
			}
			lost := 0
			for lead.Err() == nil && lost < 5 && (cut.out || cut.in) {
				if err := old.node.Propose(context.Background(), numbered(1000+lost, 100)); err != nil {
					break
				}
				lost++
			}
			<-lead.Done()
			if cause := context.Cause(lead); !errors.Is(cause, ErrDeposed) {
				t.Errorf("leadership ended with %v", cause)
			}
			g.await("another one leads", func() bool {
				for _, other := range g.others(old) {
					if other.node.Leading() != nil {
						return true
					}
				}
				return false
			})
			for _, other := range g.others(old) {
				g.net.set(old.name, other.name, false)
				g.net.set(other.name, old.name, false)
			}
			g.propose(numbered(500, 100))
			g.await("all agree", func() bool {
				var want []byte
				for _, m := range g.nodes {
					got := bytes.Join(m.machine.all(), nil)
					if want == nil {
						want = got
					}
					if !bytes.Equal(got, want) || !bytes.Contains(got, numbered(500, 100)) {
						return false
					}
				}
				return true
			})
		})
	}
}

// TestCatchUp: a follower finds out what is committed, as often as it wants, and
// nobody is deposed by that.
func TestCatchUp(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3").start()
	leader := g.leader()
	lead := leader.node.Leading()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := range 30 {
		g.propose(numbered(i, 10))
		for _, m := range g.nodes {
			if err := m.node.CatchUp(ctx); err != nil {
				t.Fatalf("%s: %v", m.name, err)
			}
		}
	}
	if lead.Err() != nil {
		t.Errorf("the leader was deposed: %v", context.Cause(lead))
	}
}

// TestMajorityLost: what is committed stays readable, and nothing more is.
func TestMajorityLost(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3").start()
	g.propose(numbered(0, 10))
	g.converge(1)
	m := g.leader()
	for _, other := range g.others(m) {
		other.close()
	}
	<-m.node.Leading().Done()
	g.await("it knows of no leader", func() bool { return m.node.Status().LeaderID == 0 })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.node.CatchUp(ctx); err == nil {
		t.Error("it says that it has everything, without a majority")
	}
	if err := m.node.Propose(context.Background(), numbered(1, 10)); !errors.Is(err, ErrDropped) {
		t.Errorf("propose without a majority: %v", err)
	}
	if got, _ := m.machine.count(); got != 1 {
		t.Errorf("%d payloads are there, want 1", got)
	}
}

// TestInstallBrokenOff: a node that is far behind is killed while it fetches its
// log, again and again, and gets there.
func TestInstallBrokenOff(t *testing.T) {
	g := newGroup(t)
	one := g.member("n1")
	one.initial = []Member{{Name: "n1", Address: one.address}}
	one.change = func(c *Config) { c.Window, c.SegmentBytes = 10, 2<<20 }
	one.start()
	const total = 130
	for i := range total {
		g.propose(numbered(i, 100<<10)) // three batches
	}
	g.converge(total)
	g.member("n2").change = one.change
	two := g.add("n2")
	seen := false
	for seed := range uint64(6) {
		last := two.node.segments.LastIndex()
		g.await("it has got more", func() bool { return two.node.segments.LastIndex() > last || two.node.Status().Applied > total })
		two.crash(seed)
		if b, err := vfs.ReadFile(two.fs, filepath.Join("d", installFile), 1<<30); err == nil && len(b) > 0 {
			seen = true
		}
		two.start()
	}
	g.promote("n2")
	g.converge(total)
	if !seen {
		t.Error("no crash came in the middle")
	}
	if _, err := vfs.ReadFile(two.fs, filepath.Join("d", installFile), 1<<30); err == nil {
		t.Error("the file of the installation is still there")
	}
}

// TestRepair: a damaged entry is fetched from a peer, whoever stumbles over it.
func TestRepair(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3").start()
	for i := range 100 {
		g.propose(numbered(i, 5000))
	}
	g.converge(100)
	m := g.leader()
	names, err := m.fs.ReadDir("d/log")
	if err != nil {
		t.Fatal(err)
	}
	flipped := ""
	for _, name := range names {
		if strings.HasSuffix(name, ".seg") && m.fs.Flip(filepath.Join("d/log", name), 20_000*8) {
			flipped = name
			break
		}
	}
	if flipped == "" {
		t.Fatal("nothing to flip")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	v, err := m.node.Verify(ctx, func(_, _ uint64) {})
	if err != nil || len(v.Differences) != 1 || v.Differences[0].Node != m.name {
		t.Fatalf("verify of a damaged log: %+v, %v", v, err)
	}
	g.await("it is repaired", func() bool { return m.node.Status().Damaged == 0 })
	if v, err = m.node.Verify(ctx, func(_, _ uint64) {}); err != nil || len(v.Differences) != 0 || len(v.Nodes) != 2 {
		t.Errorf("verify after the repair: %+v, %v", v, err)
	}
}

// TestMend: a node whose log is damaged at its end, or in what it has to replay,
// takes no part until it has fetched what is lost, and then has all.
func TestMend(t *testing.T) {
	for _, where := range []string{"the last segment", "a sealed segment", "the end is gone"} {
		t.Run(where, func(t *testing.T) {
			g := newGroup(t, "n1", "n2", "n3").start()
			leader := g.leader()
			for i := range 60 {
				g.propose(numbered(i, 3000))
			}
			g.converge(60)
			m := g.others(leader)[0]
			m.close()
			names, err := m.fs.ReadDir("d/log")
			if err != nil {
				t.Fatal(err)
			}
			var segments []string
			for _, name := range names {
				if strings.HasSuffix(name, ".seg") {
					segments = append(segments, filepath.Join("d/log", name))
				}
			}
			last := len(segments) - 1
			switch where {
			case "the last segment":
				if !m.fs.Flip(segments[last], 5000*8) {
					t.Fatal("nothing to flip")
				}
			case "a sealed segment": // as it was before any checkpoint, so that it is replayed
				for _, name := range []string{segments[last-1]} {
					if !m.fs.Flip(name, 5000*8) {
						t.Fatal("nothing to flip")
					}
				}
				found, err := listCheckpoints(m.fs, "d")
				if err != nil {
					t.Fatal(err)
				}
				for _, index := range found[1:] {
					if err := m.fs.Remove(checkpointName("d", index)); err != nil {
						t.Fatal(err)
					}
				}
			case "the end is gone":
				if err := m.fs.Remove(segments[last]); err != nil {
					t.Fatal(err)
				}
			}
			m.start()
			g.propose(numbered(60, 10))
			g.converge(61)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if v, err := g.leader().node.Verify(ctx, func(_, _ uint64) {}); err != nil || len(v.Differences) != 0 {
				t.Errorf("verify: %+v, %v", v, err)
			}
			if _, err := vfs.ReadFile(m.fs, filepath.Join("d", mendFile), 1<<10); err == nil {
				t.Error("the file of the mending is still there")
			}
		})
	}
}

// TestRecover: a survivor goes on alone, with everything that it has, and the
// others never come back into it.
func TestRecover(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3").start()
	for i := range 50 {
		g.propose(numbered(i, 3000))
	}
	g.converge(50)
	for _, m := range g.nodes {
		m.close()
	}
	m := g.nodes["n2"]
	c := m.config()
	_ = c.Listener.Close()
	var plan RecoverPlan
	if done, err := Recover(c, func(p RecoverPlan) bool { plan = p; return false }); done || err != nil {
		t.Fatalf("asked and not confirmed: %v, %v", done, err)
	}
	if len(plan.Members) != 3 || plan.Last < 50 || plan.LastTerm == 0 {
		t.Errorf("plan %+v", plan)
	}
	m.start()
	if st := m.node.Status(); st.ClusterID != plan.ClusterID {
		t.Errorf("after a plan that was not confirmed: %+v", st)
	}
	m.close()
	c = m.config()
	_ = c.Listener.Close()
	if done, err := Recover(c, func(p RecoverPlan) bool { plan = p; return true }); !done || err != nil {
		t.Fatal(err)
	}
	m.start()
	g.propose(numbered(50, 10))
	g.await("all is there", func() bool { got, _ := m.machine.count(); return got == 51 })
	if st := m.node.Status(); st.ClusterID != plan.NewClusterID || len(m.node.Members()) != 1 {
		t.Errorf("%+v, members %+v", st, m.node.Members())
	}
	old := g.nodes["n1"].start()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := m.node.Add(ctx, "n1", old.address); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("add a node of the old cluster: %v", err)
	}
	old.close()
	old.fs, old.initial = vfs.NewMem(5), nil
	g.add("n1")
	g.promote("n1")
	g.await("it has all", func() bool { got, _ := g.nodes["n1"].machine.count(); return got == 51 })
}

// slowMachine applies entries behind after only when its gate opens.
type slowMachine struct {
	*counter
	after uint64
	gate  chan struct{}
}

func (m slowMachine) Apply(entries []Entry) error {
	if entries[len(entries)-1].Index > m.after {
		<-m.gate
	}
	return m.counter.Apply(entries)
}

// TestVoteWhileInstalling: a node that is taking in a snapshot gives its vote when
// the leader dies; with one node down there is no other.
func TestVoteWhileInstalling(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3")
	for _, m := range g.nodes {
		m.change = func(c *Config) { c.Window = 10 }
	}
	g.start()
	for i := range 50 {
		g.propose(numbered(i, 100))
	}
	g.converge(50)
	leader := g.leader()
	far, other := g.others(leader)[0], g.others(leader)[1]
	after := far.node.Status().LastIndex
	far.close()
	for i := range 200 {
		g.propose(numbered(50+i, 100))
	}
	g.await("the other one has it", func() bool { n, _ := other.machine.count(); return n == 250 })
	gate := make(chan struct{})
	far.change = func(c *Config) {
		c.Window, c.Machine = 10, slowMachine{c.Machine.(*counter), after, gate}
	}
	far.start()
	g.await("it is taking in a snapshot", far.node.Installing)
	leader.crash(1)
	g.await("the other one is elected", func() bool { return other.node.Leader() == other.node.Status().RaftID })
	close(gate)
	g.await("it leads", func() bool { return other.node.Leading() != nil })
	leader.start()
	g.converge(250)
}

// TestFullDisks: a follower whose disk is full acknowledges nothing, and still
// votes; a leader's hands over to one with room. All go on when there is room again.
func TestFullDisks(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3").start()
	for i := range 10 {
		g.propose(numbered(i, 1000))
	}
	g.converge(10)
	leader := g.leader()
	full, third := g.others(leader)[0], g.others(leader)[1]
	full.fs.SetLimit(0)
	for i := range 50 {
		g.propose(numbered(10+i, 5000))
	}
	g.await("the other two go on", func() bool { got, _ := third.machine.count(); return got == 60 })
	if got, _ := full.machine.count(); got == 60 {
		t.Error("a node without room has taken entries")
	}
	// Without the third one the vote of the full one is needed, and it cannot lead
	// with less than the others have.
	leader.node.SetFull(true)
	g.await("a node with room leads", func() bool { return third.node.Leading() != nil })
	leader.node.SetFull(false)
	full.fs.SetLimit(-1)
	g.converge(60)
	third.close()
	g.propose(numbered(60, 10))
	third.start()
	g.converge(61)
}

// TestElectedWithFullDisk: who is elected while his disk is full does not say that he has what is
// not written yet; he would be taken for one that has lost it.
func TestElectedWithFullDisk(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3").start()
	g.propose(numbered(0, 1000))
	g.converge(1)
	leader := g.leader()
	full := g.others(leader)[0]
	full.fs.SetLimit(0)
	for i := range 20 {
		g.propose(numbered(1+i, 5000))
	}
	full.awaitMemory(leader)
	g.cut(leader, true)
	id := full.node.Status().RaftID
	full.elect()
	full.node.noteMatches()
	if has, had := full.node.segments.LastIndex(), full.node.peers.hadEntry(id); had > has {
		t.Errorf("its log ends with entry %d, and it says that it had entry %d", has, had)
	}
	full.fs.SetLimit(-1)
	g.cut(leader, false)
	g.converge(21)
}

// TestFullDiskWhileInstalling: a node whose disk is full while it takes in what it
// lacks waits for room, and goes on.
func TestFullDiskWhileInstalling(t *testing.T) {
	for _, size := range []int64{0, 200 << 10, 3 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			g := newGroup(t)
			one := g.member("n1")
			one.initial = []Member{{Name: "n1", Address: one.address}}
			one.change = func(c *Config) { c.Window, c.SegmentBytes = 10, 2<<20 }
			one.start()
			for i := range 60 {
				g.propose(numbered(i, 100<<10))
			}
			g.converge(60)
			two := g.member("n2")
			log, full := told("no space left")
			two.change = func(c *Config) { one.change(c); c.Log = log }
			two.start()
			two.fs.SetLimit(size)
			g.do(func(ctx context.Context, n *Node) error { return n.Add(ctx, "n2", two.address) })
			select {
			case <-full:
			case <-time.After(patience):
				t.Fatal("it never said that the disk is full")
			}
			two.fs.SetLimit(-1)
			g.promote("n2")
			g.converge(60)
		})
	}
}

// TestHeldWorks: what waits while the disk is full does not grow by what only says
// how far others are.
func TestHeldWorks(t *testing.T) {
	g := newGroup(t, "n1", "n2").start()
	g.propose(numbered(0, 10))
	w := &writer{n: g.leader().node, full: true}
	entry := work{m: &pb.Message{}, slots: []slot{{entry: &pb.Entry{Index: new(uint64(1 << 40))}}}}
	var works []work
	for i := range uint64(100) {
		m := &pb.Message{}
		if i < 50 {
			m.Term, m.Vote, m.Commit = new(uint64(1)), new(uint64(0)), new(100+i)
		}
		works = append(works, work{m: m})
	}
	if err := w.hold(slices.Concat(works, []work{entry}, works, []work{entry}, works[:1])); err != nil {
		t.Fatal(err)
	}
	// The answer that a snapshot is installed is given once, and by nobody else.
	installed := work{m: &pb.Message{Responses: []*pb.Message{{Type: pb.MsgStorageAppendResp.Enum(), Snapshot: &pb.Snapshot{Metadata: &pb.SnapshotMetadata{Index: new(uint64(7))}}}}}}
	full := &writer{n: g.leader().node, full: true}
	if err := full.hold([]work{installed, {m: &pb.Message{}}}); err != nil || len(full.held) != 2 || len(full.held[0].m.GetResponses()) != 1 {
		t.Errorf("what was installed is not told: %+v, %v", full.held, err)
	}
	if len(w.held) != 5 || w.held[0].m.GetCommit() != 149 || w.held[2].m.GetCommit() != 149 || w.held[1].slots == nil || w.held[3].slots == nil {
		t.Errorf("%d works are held: %+v", len(w.held), w.held)
	}
}

// TestDamageWhileInstalling: damage in what a broken-off installation has left in
// the log is repaired when it goes on.
func TestDamageWhileInstalling(t *testing.T) {
	g := newGroup(t)
	one := g.member("n1")
	one.initial = []Member{{Name: "n1", Address: one.address}}
	one.change = func(c *Config) { c.Window, c.SegmentBytes = 10, 1<<20 }
	one.start()
	const total = 200
	for i := range total {
		g.propose(numbered(i, 100<<10))
	}
	g.converge(total)
	g.member("n2").change = one.change
	two := g.add("n2")
	g.await("it has got something", func() bool { return two.node.segments.LastIndex() > 50 })
	two.crash(1)
	if _, err := vfs.ReadFile(two.fs, filepath.Join("d", installFile), 1<<30); err != nil {
		t.Fatalf("it had got everything: %v", err)
	}
	names, err := two.fs.ReadDir("d/log")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	i := slices.IndexFunc(names, func(name string) bool { return strings.HasSuffix(name, ".seg") })
	if !two.fs.Flip(filepath.Join("d/log", names[i]), 300_000*8) {
		t.Fatal("nothing to flip")
	}
	two.start()
	g.promote("n2")
	g.converge(total)
	g.await("the logs are equal", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		v, err := g.leader().node.Verify(ctx, func(_, _ uint64) {})
		return err == nil && len(v.Differences) == 0 && len(v.Nodes) == 1
	})
}

// TestInstalledWithEntries: entries that come in one work with a snapshot are written before
// anybody hears that they are.
func TestInstalledWithEntries(t *testing.T) {
	g := newGroup(t, "n1", "n2").start()
	g.propose(numbered(0, 10))
	g.converge(1)
	n := g.leader().node
	last := n.segments.LastIndex()
	term, err := n.segments.Term(last)
	if err != nil {
		t.Fatal(err)
	}
	n.installing.Store(true)             // the node's own writer stands still
	if err := n.endTurns(); err != nil { // and Raft, which knows nothing of what comes into its log here
		t.Fatal(err)
	}
	w := &writer{n: n}
	w.held = []work{
		{m: &pb.Message{}, slots: []slot{{entry: &pb.Entry{Index: new(last), Term: new(term + 1)}}}}, // of a log that is replaced
		{
			m:     &pb.Message{Snapshot: &pb.Snapshot{Metadata: &pb.SnapshotMetadata{Index: new(last), Term: new(term)}}},
			slots: []slot{{entry: &pb.Entry{Index: new(last + 1), Term: new(term)}}},
		},
		{m: &pb.Message{}, slots: []slot{{entry: &pb.Entry{Index: new(last + 2), Term: new(term)}}}},
	}
	if err := w.installed(last); err != nil {
		t.Fatal(err)
	}
	if got := n.segments.LastIndex(); got != last+2 {
		t.Errorf("the log ends with entry %d, want %d", got, last+2)
	}
	if got, err := n.segments.Term(last); got != term || err != nil {
		t.Errorf("entry %d has term %d, %v", last, got, err)
	}
	if got, _ := n.window.LastIndex(); got != last+2 {
		t.Errorf("Raft is shown a log that ends with entry %d, want %d", got, last+2)
	}
}
