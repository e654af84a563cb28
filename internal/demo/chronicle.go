package demo

import (
	"fmt"
	"slices"
)

// chronicle tells what has become of nodes and replicas, from one sample to the next. That a node has died it leaves to
// whoever runs it.
type chronicle struct {
	leader tenure
	lost   bool // nobody leads
	back   []comeback
	on     []string // where each replica was last connected
}

// tenure is the time in which a process leads; the node is -1 before anybody did.
type tenure struct{ node, start int }

// comeback is what a node has to do that was started again. It is done once it has applied what the others had committed
// when it first answered.
type comeback struct {
	start  int // of which start
	target uint64
	done   bool
}

func newChronicle(nodes, replicas int) *chronicle {
	return &chronicle{leader: tenure{node: -1}, back: slices.Repeat([]comeback{{start: 1, done: true}}, nodes), on: make([]string, replicas)}
}

// follow returns a line for everything that has happened since the last sample.
func (c *chronicle) follow(s *sample) []string {
	lines := c.followLeader(s)
	for i := range s.nodes {
		lines = append(lines, c.followNode(s, i)...)
	}
	for i, r := range s.replicas {
		if r.node == "" || !r.connected {
			continue
		}
		if c.on[i] != "" && c.on[i] != r.node {
			lines = append(lines, fmt.Sprintf("%s has moved from %s to %s by itself", r.name, c.on[i], r.node))
		}
		c.on[i] = r.node
	}
	return lines
}

func (c *chronicle) followLeader(s *sample) []string {
	node := s.leader()
	c.lost = node < 0
	if c.lost {
		return nil
	}
	before, now := c.leader, tenure{node, s.nodes[node].process.starts}
	c.leader = now
	if before.node < 0 || before == now || len(s.nodes) == 1 {
		return nil
	}
	old, p := s.nodes[before.node].name, s.nodes[before.node].process
	if p.alive && p.starts == before.start {
		return []string{fmt.Sprintf("%s leads now, instead of %s", s.nodes[node].name, old)}
	}
	return []string{fmt.Sprintf("%s leads now, %s after the end of %s", s.nodes[node].name, milliseconds(s.when.Sub(p.ended)), old)}
}

func (c *chronicle) followNode(s *sample, i int) []string {
	n, b := &s.nodes[i], &c.back[i]
	if n.process.starts != b.start {
		*b = comeback{start: n.process.starts}
	}
	if b.done || !n.answers() || c.lost {
		return nil
	}
	if b.target == 0 {
		b.target = s.committed()
	}
	if n.status.Node.Applied < b.target || !n.status.Ready {
		return nil
	}
	b.done = true
	return []string{fmt.Sprintf("%s is back (pid %d) and has caught up, %s after its start", n.name, n.process.pid, milliseconds(s.when.Sub(n.process.began)))}
}

// open says what has yet to happen until all is quiet, "" if it is.
func (c *chronicle) open() string {
	switch {
	case c.lost:
		return "no node leads"
	case slices.ContainsFunc(c.back, func(b comeback) bool { return !b.done }):
		return "a node that was started again has not caught up"
	}
	return ""
}
