package cluster

import (
	"context"
	"sync"
	"testing"

	"kingbus/internal/hook"
)

// observed is what a node has told its observer.
type observed struct {
	mu        sync.Mutex
	entries   int
	bytes     int
	last      uint64
	elections []hook.Election
}

func (o *observed) AfterAppend(a hook.Appended) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.entries += a.Entries
	o.bytes += a.Bytes
	o.last = a.Last
}

func (o *observed) AfterElection(e hook.Election) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.elections = append(o.elections, e)
}

// TestHooks: every node tells what it has made durable, and whom it takes for the leader.
func TestHooks(t *testing.T) {
	g := newGroup(t, "a", "b", "c")
	seen := map[string]*observed{}
	for name, m := range g.nodes {
		o := &observed{}
		seen[name] = o
		m.change = func(c *Config) { c.Hooks = []hook.Raft{o} }
	}
	g.start()
	const payloads, size = 20, 1000
	for range payloads {
		g.propose(make([]byte, size))
	}
	for name, m := range g.nodes {
		o := seen[name]
		g.await("the log of "+name, func() bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.bytes >= payloads*size && o.last == m.node.Status().LastIndex
		})
		g.await("the election seen by "+name, func() bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			n, leader := len(o.elections), g.leader()
			return n > 0 && o.elections[n-1] == hook.Election{Term: leader.node.Status().Term, Leader: leader.node.id, Self: m == leader}
		})
	}
	// What has been done waits no longer, but for what peers may still ask for.
	g.await("the queues", func() bool {
		q := g.leader().node.Status().Queues
		return q.Proposals == 0 && q.ProposalBytes == 0 && q.Appends == 0 && q.Applies == 0 && q.Intake == 0 && q.WindowBytes == 0 && q.Window >= payloads
	})
}

// TestQueues: what waits for a disk, and what waits for a peer, is told.
func TestQueues(t *testing.T) {
	g := newGroup(t, "a", "b", "c")
	var stuck sync.RWMutex // held: no node writes
	for _, m := range g.nodes {
		m.change = func(c *Config) {
			c.Pause = func() {
				stuck.RLock()
				defer stuck.RUnlock()
			}
		}
	}
	g.start()
	leader := g.leader()
	g.await("all voters", func() bool { return leader.node.Status().Queues.Proposals == 0 && len(leader.node.Members()) == 3 })
	stuck.Lock()
	const payloads, size = 5, 1000
	for range payloads {
		if err := leader.node.Propose(context.Background(), make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	if q := leader.node.Status().Queues; q.Proposals != payloads || q.ProposalBytes != payloads*size {
		t.Errorf("what is in flight: %+v", q)
	}
	g.await("messages without an answer", func() bool {
		for _, m := range leader.node.Members() {
			if !m.Self && m.Inflight == 0 {
				return false
			}
		}
		return true
	})
	stuck.Unlock()
	g.await("what was stuck", func() bool { return leader.node.Status().Queues.Proposals == 0 })
}
