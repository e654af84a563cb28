package cluster

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// loseTail takes the segments behind the first ones away, as a disk does that lies about syncs.
func (m *member) loseTail(keep int) {
	m.g.t.Helper()
	names, err := m.fs.ReadDir("d/log")
	if err != nil {
		m.g.t.Fatal(err)
	}
	slices.Sort(names)
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".seg") })
	if len(names) <= keep {
		m.g.t.Fatalf("there are %d segments only", len(names))
	}
	for _, name := range names[keep:] {
		if err := m.fs.Remove(filepath.Join("d/log", name)); err != nil {
			m.g.t.Fatal(err)
		}
	}
	if err := m.fs.SyncDir("d/log"); err != nil {
		m.g.t.Fatal(err)
	}
}

// TestMendAll: a node that has lost the end of its log gets all back that it may have acknowledged, not
// only what the damage shows to be lost. If the leader dies then, what the two had alone is still there.
func TestMendAll(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3")
	var mu sync.Mutex
	gates := map[string]chan struct{}{}
	for _, m := range g.nodes {
		m.change = func(c *Config) {
			c.Pause = func() {
				mu.Lock()
				gate := gates[m.name]
				mu.Unlock()
				if gate != nil {
					<-gate
				}
			}
		}
	}
	g.start()
	for i := range 60 {
		g.propose(numbered(i, 5000))
	}
	g.converge(60)
	leader := g.leader()
	lost, slow := g.others(leader)[0], g.others(leader)[1]
	g.await("so much is known to be committed at the next start", func() bool {
		written, _ := lost.node.hard.committed()
		return written == lost.node.applied.Load()
	})
	gate := make(chan struct{})
	mu.Lock()
	gates[slow.name] = gate // its disk hangs
	mu.Unlock()
	for i := range 40 {
		g.propose(numbered(60+i, 5000))
	}
	g.await("two of three have all", func() bool {
		n, _ := leader.machine.count()
		k, _ := lost.machine.count()
		return n == 100 && k == 100
	})
	lost.crash(1)
	lost.loseTail(3)
	gated := lost.change
	lost.change = func(c *Config) {
		gated(c)
		c.Log = slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
			if strings.Contains(string(p), "the log is whole again") { // the leader dies now, and the slow one loses what it has not written
				leader.crash(2)
				fs := slow.fs.Crash(2)
				mu.Lock()
				gates[slow.name] = nil
				mu.Unlock()
				close(gate)
				slow.node.stop()
				slow.close()
				slow.fs = fs
			}
			return len(p), nil
		}), nil))
	}
	lost.start()
	slow.start()
	g.propose(numbered(100, 10))
	g.converge(101)
	leader.start()
	g.converge(101)
}

// TestRecoverWhileMending: the last one that is left can be made a cluster of its own though its log was
// damaged, and says how much it has lost.
func TestRecoverWhileMending(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3").start()
	for i := range 60 {
		g.propose(numbered(i, 5000))
	}
	g.converge(60)
	lost := g.others(g.leader())[0]
	var committed uint64
	g.await("all is known to be committed at the next start", func() bool {
		committed, _ = lost.node.hard.committed()
		return committed == lost.node.applied.Load()
	})
	lost.crash(1)
	lost.loseTail(3)
	for _, m := range g.nodes {
		m.close()
	}
	log, asks := told("nobody has what the log lacks")
	interrupt := make(chan struct{})
	go func() {
		<-asks
		close(interrupt)
	}()
	c := lost.config()
	c.Log, c.Interrupt = log, interrupt
	if n, err := Open(c); err == nil {
		t.Errorf("it has opened a log that lacks something: %v", n.Close())
	}
	var plan RecoverPlan
	c = lost.config()
	if err := c.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	c.Listener = nil
	done, err := Recover(c, func(p RecoverPlan) bool {
		plan = p
		return true
	})
	if !done || err != nil || plan.LostTo < committed || plan.Last >= committed {
		t.Fatalf("%v, %v: %+v of %d entries", done, err, plan, committed)
	}
	lost.start()
	g.await("it leads itself", func() bool { return lost.node.Leading() != nil })
	if last := lost.node.segments.LastIndex(); last < plan.Last {
		t.Errorf("its log ends with entry %d, it had %d", last, plan.Last)
	}
	lost.close()
}

// TestFetchBeyondApplied: a node that has the entry which the asker knows to be committed sends all up to it,
// though it does not know so much itself; nobody else may be left who does.
func TestFetchBeyondApplied(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3").start()
	for i := range 5 {
		g.propose(numbered(i, 100))
	}
	g.converge(5)
	n := g.others(g.leader())[0].node
	last := n.segments.LastIndex()
	term, err := n.segments.Term(last)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.endTurns(); err != nil {
		t.Fatal(err)
	}
	n.applied.Store(last - 2) // as behind a start
	for _, c := range []struct {
		term uint64
		ok   bool
	}{{0, false}, {term, true}, {term + 1, false}} {
		if a := n.answerFetch(fetchRequest{Last: 1, LastTerm: 1, Applied: 1, To: last, ToTerm: c.term}); (a.Error == "") != c.ok {
			t.Errorf("term %d: %+v", c.term, a)
		}
	}
}
