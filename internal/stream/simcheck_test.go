package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/cluster"
)

// mend makes everything well, and then all nodes must agree.
func (m *sim) mend() {
	m.mu.Lock()
	m.mended = true
	m.mu.Unlock()
	close(m.calm)
	for _, n := range m.nodes {
		if n.stream() == nil && n.opening == nil {
			continue
		}
		n.disk.failed() // or not, and then it does not any more
		n.disk.SetLimit(-1)
		n.disk.heal()
	}
	m.bury()
	m.mendNet()
	m.net.weather(0, 0, 0)
	for _, n := range m.nodes {
		n.slow.Store(0)
		n.busy.Store(0)
		n.hangs.Store(0)
		n.frozen.Store(0)
		n.hung.Store(0)
	}
	m.startMembers()
	// What was asked for while links were cut may still come: a purge, a change of the
	// members. It comes as soon as the nodes have found each other again.
	time.Sleep(15 * time.Second)
	late := time.Now().Add(10 * time.Minute)
	var problem string
	for {
		if problem = m.agree(); problem == "" {
			break
		}
		if time.Now().After(late) {
			m.fatalf("after ten quiet minutes: %s", problem)
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.verify()
}

// startMembers starts the members that do not run.
func (m *sim) startMembers() {
	for _, n := range m.nodes {
		if n.member && n.stream() == nil && n.opening == nil {
			m.start(n)
		}
	}
}

// agree tells what is missing until all members have the whole script and the
// same state.
func (m *sim) agree() string {
	m.mu.Lock()
	finished := m.finished
	m.mu.Unlock()
	m.bury()
	m.startMembers()
	for _, n := range m.nodes {
		s := n.stream()
		if s == nil || s.Err() == nil {
			continue
		}
		if !errors.Is(s.Err(), cluster.ErrRemoved) || !n.removing {
			m.fatalf("%s failed: %v", n.name, s.Err())
		}
		n.member = false // nobody answered the operator, but it was done
	}
	if !finished {
		return m.describe("the script is not finished")
	}
	m.noteRemoved()
	last := len(m.s.names) - 1
	end := Coordinates{m.s.names[last], uint64(len(m.s.files[last]))}
	var first *simNode
	var want []byte
	for _, n := range m.nodes {
		if !n.member {
			continue
		}
		if n.stream() == nil {
			return m.describe(n.name + " does not run")
		}
		if n.stream().node.Status().Installing != nil {
			return m.describe(n.name + " is installing")
		}
		if n.stream().Status().End != end {
			return m.describe(fmt.Sprintf("%s does not end at %v", n.name, end))
		}
		got := stateOf(n.stream())
		if first == nil {
			first, want = n, got
		} else if !slices.Equal(got, want) {
			return m.describe(fmt.Sprintf("the states of %s and %s differ:\n%s\n%s", first.name, n.name, want, got))
		}
		if a, b := membersOf(first.stream()), membersOf(n.stream()); !slices.Equal(a, b) {
			return m.describe(fmt.Sprintf("the members of %s and %s differ:\n%+v\n%+v", first.name, n.name, a, b))
		}
		if err := n.stream().node.CheckMembers(); err != nil {
			return m.describe(fmt.Sprintf("%s: %v", n.name, err))
		}
	}
	return ""
}

// checkMembers looks, when nothing has to agree yet, whether Raft on a node counts with the members that
// it should.
func (m *sim) checkMembers(n *simNode) {
	if s := n.stream(); s != nil {
		m.wg.Go(func() { // applying may hang
			if err := s.node.CheckMembers(); err != nil && !errors.Is(err, cluster.ErrClosed) && n.alive.Load() {
				m.t.Errorf("seed %d: %s: %v", m.seed, n.name, err)
			}
		})
	}
}

// noteRemoved takes note of removals that were done though nobody answered the
// operator. A node that was removed before it knew anybody never hears of it.
func (m *sim) noteRemoved() {
	for _, n := range m.nodes {
		s := n.stream()
		if s == nil || s.node.Leading() == nil {
			continue
		}
		members := s.node.Members()
		for _, other := range m.nodes {
			if other.removing && !slices.ContainsFunc(members, func(c cluster.MemberStatus) bool { return c.Name == other.name }) {
				other.member = false
			}
		}
	}
}

func stateOf(s *Stream) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, _ := s.state.encode()
	return b
}

func (m *sim) describe(text string) string {
	var b strings.Builder
	b.WriteString(text)
	for _, n := range m.nodes {
		if s := n.stream(); s != nil {
			st := s.Status()
			fmt.Fprintf(&b, "\n%s member %v: end %v, %+v, err %v", n.name, n.member, st.End, st.Node, s.Err())
		} else {
			fmt.Fprintf(&b, "\n%s member %v: down", n.name, n.member)
		}
	}
	return b.String()
}

// verify compares what the nodes serve with the script, and their logs.
func (m *sim) verify() {
	m.mu.Lock()
	acknowledged := m.acknowledged
	m.mu.Unlock()
	if err := m.net.violation(); err != nil {
		m.fatalf("%v", err)
	}
	var leader *simNode
	for _, n := range m.nodes {
		if !n.member {
			continue
		}
		checkPrefix(m.t, n.stream(), m.s, acknowledged)
		if end := n.stream().Status().End; end.Pos < binlog.MagicSize {
			m.fatalf("%s ends at %v", n.name, end)
		}
		if n.stream().node.Leading() != nil {
			leader = n
		}
	}
	if leader == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	v, err := leader.stream().node.Verify(ctx, func(_, _ uint64) {})
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		m.fatalf("verify: %v", err)
	}
	for _, d := range v.Differences {
		// One that was added without the operator hearing so may be down.
		down := slices.ContainsFunc(m.nodes, func(n *simNode) bool { return n.name == d.Node && n.stream() == nil })
		if d.To != 0 && !down {
			m.fatalf("verify: %+v", v)
		}
	}
}
