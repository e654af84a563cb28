package cluster

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/vfs"
)

// gated is a state machine that can be made to stand still, as on a disk that hangs.
type gated struct {
	*counter
	still atomic.Bool
	least int // so many entries at once, or it does not stand still
	gate  chan struct{}
}

func (g *gated) Apply(entries []Entry) error {
	if len(entries) >= g.least && g.still.Load() {
		<-g.gate
	}
	return g.counter.Apply(entries)
}

// cut cuts a member off from all others, or connects it again.
func (g *group) cut(m *member, off bool) {
	for _, other := range g.nodes {
		if other != m {
			g.net.set(m.name, other.name, off)
			g.net.set(other.name, m.name, off)
		}
	}
}

// lastEntry is the last one that Raft has, on disk or not.
func (m *member) lastEntry() (last uint64) {
	m.node.call(func() { last = m.node.last })
	return last
}

// awaitMemory waits until Raft on a member whose disk is full has all that the leader has committed, and
// knows that; one more payload, that of number 1000, tells it, and may be lost.
func (m *member) awaitMemory(leader *member) {
	m.g.t.Helper()
	last := leader.lastEntry()
	m.g.await("the leader has committed all", func() bool { return leader.node.applied.Load() >= last })
	m.g.propose(numbered(1000, 10))
	m.g.await("Raft has what the disk has no room for", func() (has bool) {
		m.node.call(func() { has = m.node.raw.BasicStatus().GetCommit() >= last })
		return has && m.node.segments.LastIndex() < last
	})
}

// elect has a member elected, before another one comes to think of it.
func (m *member) elect() {
	m.g.t.Helper()
	id := m.node.Status().RaftID
	m.g.await(m.name+" is elected", func() bool {
		for _, other := range m.g.others(m) {
			if other.node != nil {
				other.node.call(func() { _ = other.node.raw.ForgetLeader() }) // so that it votes at once
			}
		}
		m.node.call(func() { _ = m.node.raw.Campaign() }) // not while it leads
		return m.node.Leader() == id
	})
}

// TestChangeBehindSnapshot: a change of the members that waits to be applied, while Raft takes a snapshot
// of behind it, is not put on top of the members of the snapshot.
func TestChangeBehindSnapshot(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3")
	machines := map[string]*gated{}
	for _, m := range g.nodes {
		m.change = func(c *Config) {
			machines[m.name] = &gated{counter: c.Machine.(*counter), gate: make(chan struct{})}
			c.Window, c.Machine = 10, machines[m.name]
		}
	}
	g.start()
	for i := range 20 {
		g.propose(numbered(i, 100))
	}
	g.converge(20)
	leader := g.leader()
	far, third := g.others(leader)[0], g.others(leader)[1]
	for _, name := range []string{"n4", "n5"} {
		g.member(name).change = func(c *Config) { c.Window = 10 }
		g.nodes[name].start()
	}
	machines[far.name].still.Store(true)
	g.propose(numbered(20, 100)) // it stands still in this one
	for _, name := range []string{"n4", "n5"} {
		g.do(func(ctx context.Context, n *Node) error { return n.Add(ctx, name, g.nodes[name].address) })
	}
	last := leader.lastEntry()
	g.await("it has both changes, and knows that they are committed", func() (has bool) {
		far.node.call(func() { has = far.node.raw.BasicStatus().GetCommit() >= last })
		return has && far.node.applies.len() > 0
	})
	g.cut(far, true)
	g.promote("n4")
	g.promote("n5")
	for i := range 100 {
		g.propose(numbered(21+i, 100))
	}
	g.await("the others go on", func() bool { n, _ := third.machine.count(); return n == 121 })
	g.cut(far, false)
	g.await("it is given a snapshot", far.node.Installing)
	machines[far.name].still.Store(false)
	close(machines[far.name].gate)
	g.await("it has what it lacked", func() bool { n, _ := far.machine.count(); return n == 121 && !far.node.Installing() })
	if voters := far.node.group().conf.GetVoters(); len(voters) != 5 {
		t.Errorf("the group has the voters %d", voters)
	}
	if err := far.node.CheckMembers(); err != nil {
		t.Error(err)
	}
	far.node.call(func() {
		far.node.raw.ApplyConfChange(&pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{{Type: pb.ConfChangeAddLearnerNode.Enum(), NodeId: new(far.node.id)}}})
	})
	if far.node.CheckMembers() == nil {
		t.Error("Raft counts with one voter less, and nobody sees it")
	}
}

// TestVoteNotWritten: a vote that cannot be written is not given, also where the disk says that it is full
// when what is there is overwritten.
func TestVoteNotWritten(t *testing.T) {
	for op, name := range map[vfs.Op]string{vfs.OpSync: "sync", vfs.OpWrite: "write"} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, "n1", "n2", "n3").start()
			g.propose(numbered(0, 1000))
			g.converge(1)
			leader := g.leader()
			full, third := g.others(leader)[0], g.others(leader)[1]
			g.await("there is nothing more to write", func() bool {
				written, _ := full.node.hard.committed()
				return written == full.node.applied.Load()
			})
			leader.close()
			full.fs.Fail(op, 1, syscall.ENOSPC)
			g.await("it stops", func() bool {
				third.node.call(func() {
					_ = third.node.raw.ForgetLeader()
					_ = third.node.raw.Campaign()
				})
				return full.node.Err() != nil
			})
			if third.node.Leading() != nil {
				t.Error("the other one leads by the vote of one that has not written it")
			}
			full.fs.ClearFaults()
		})
	}
}

// TestNoSpaceAtSync: a sync that fails is the end, whatever it says.
func TestNoSpaceAtSync(t *testing.T) {
	fs := vfs.NewMem(1)
	log, full := told("disk is full")
	n, err := Open(Config{FS: fs, Dir: "d", Machine: &counter{}, Log: log, SegmentBytes: 1 << 20, Peering: Peering{Heartbeat: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := n.Lead(t.Context()); err != nil {
		t.Fatal(err)
	}
	for written, grown := n.hard.committed(); written < n.applied.Load(); written, grown = n.hard.committed() {
		<-grown // nothing else is to be synced
	}
	fs.Fail(vfs.OpSync, 1, syscall.ENOSPC)
	if err := n.Propose(t.Context(), make([]byte, 100<<10)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-full:
		t.Error("it waits for room")
	case <-n.Failed():
	}
}

// TestFullWithConflict: who is elected with a full disk, on which another tail was to be replaced, does
// not say that he has what he had of that.
func TestFullWithConflict(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3").start()
	g.propose(numbered(0, 1000))
	g.converge(1)
	full := g.leader()
	others := g.others(full)
	g.cut(full, true)
	before := full.node.segments.LastIndex()
	for i := range 15 { // nobody else gets these
		if err := full.node.Propose(t.Context(), numbered(100+i, 2000)); err != nil {
			t.Fatal(err)
		}
	}
	g.await("they are on its disk", func() bool { return full.node.segments.LastIndex() >= before+15 })
	g.await("another one leads, and it no more", func() bool {
		return (others[0].node.Leading() != nil || others[1].node.Leading() != nil) && full.node.Leading() == nil
	})
	for i := range 30 {
		g.propose(numbered(1+i, 5000))
	}
	leader := g.leader()
	full.fs.SetLimit(0)
	g.cut(full, false)
	full.awaitMemory(leader)
	g.cut(leader, true)
	id := full.node.Status().RaftID
	full.elect()
	full.node.noteMatches()
	if has, had := full.node.segments.LastIndex(), full.node.peers.hadEntry(id); has > before || had > has {
		t.Errorf("its log ends with entry %d, and it says that it had entry %d", has, had)
	}
	full.fs.SetLimit(-1)
	g.cut(leader, false)
	g.converge(31)
}

// TestStopsWhileApplying: a node that is stopped between a change of the members and what is behind it
// in the same batch does not take a checkpoint of behind the change that lacks it.
func TestStopsWhileApplying(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3")
	machines := map[string]*gated{}
	for _, m := range g.nodes {
		m.change = func(c *Config) {
			machines[m.name] = &gated{counter: c.Machine.(*counter), least: 5, gate: make(chan struct{})}
			c.Machine = machines[m.name]
		}
	}
	g.start()
	g.propose(numbered(0, 100))
	g.converge(1)
	leader := g.leader()
	far, third := g.others(leader)[0], g.others(leader)[1]
	far.node.turn.Lock() // what comes for it gathers, and is applied in one batch
	unlock := sync.OnceFunc(func() {
		far.node.turn.Unlock()
		far.node.waits.set()
	})
	defer unlock()
	for i := range 20 {
		g.propose(numbered(1+i, 5000))
	}
	g.member("n4").start()
	g.do(func(ctx context.Context, n *Node) error { return n.Add(ctx, "n4", g.nodes["n4"].address) })
	for i := range 40 {
		g.propose(numbered(21+i, 5000))
	}
	g.await("the others have it", func() bool { n, _ := third.machine.count(); return n == 61 })
	last := leader.lastEntry()
	machines[far.name].still.Store(true)
	unlock()
	g.await("it is all on far's disk, and to be applied", func() bool {
		far.node.hard.mu.Lock()
		defer far.node.hard.mu.Unlock()
		return far.node.segments.LastIndex() >= last && far.node.hard.commit >= last
	})
	far.node.stop()
	<-far.node.loopEnded
	machines[far.name].still.Store(false)
	close(machines[far.name].gate)
	far.close()
	far.start()
	g.converge(61)
	if has, want := len(far.node.group().members), len(leader.node.group().members); has != want {
		t.Errorf("%s knows of %d members, the leader of %d", far.name, has, want)
	}
}

// TestInstallKeepsWhatAgrees: what a node may have acknowledged stays on its disk while it takes in what it
// lacks, also where the end of its log is another one and it does not know what of it is committed.
func TestInstallKeepsWhatAgrees(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3")
	for _, m := range g.nodes {
		m.change = func(c *Config) { c.Window = 10 }
	}
	g.start()
	for i := range 40 {
		g.propose(numbered(i, 1000))
	}
	g.converge(40)
	behind := g.leader()
	others := g.others(behind)
	common := behind.node.segments.LastIndex()
	g.cut(behind, true)
	for i := range 15 { // nobody else gets these
		if err := behind.node.Propose(t.Context(), numbered(200+i, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	g.await("they are on its disk", func() bool { return behind.node.segments.LastIndex() >= common+15 })
	g.await("another one leads", func() bool { return others[0].node.Leading() != nil || others[1].node.Leading() != nil })
	behind.crash(1)
	for i := range 100 {
		g.propose(numbered(40+i, 1000))
	}
	g.await("the others have it", func() bool { n, _ := others[0].machine.count(); return n == 140 })
	g.cut(behind, false)
	behind.start()
	g.converge(140)
	if wrote, lacked := behind.node.segments.Stats().Appended, behind.node.segments.LastIndex()-common; wrote > lacked {
		t.Errorf("it has written %d entries, though it lacked %d only", wrote, lacked)
	}
}
