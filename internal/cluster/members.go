package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"kingbus/internal/peer"
)

var (
	// ErrNoLeader is returned while nobody leads, or the leader cannot be reached.
	ErrNoLeader = errors.New("the cluster has no leader at present: a majority of its voters must be up and reach each other")
	// ErrBehind is returned for a learner that has not caught up.
	ErrBehind = errors.New("it has not caught up yet")
	// ErrUnsafe is returned for a removal after which those that are up would be no
	// majority.
	ErrUnsafe = errors.New("too few voters would be left that are up")
)

// caughtUp is how many entries a learner may be behind and be made a voter.
const caughtUp = 1000

// changes lets proposers of changes of the membership wait for them.
type changes struct {
	mu      sync.Mutex
	waiters map[uint64]chan<- error
}

func (c *changes) wait(request uint64) <-chan error {
	done := make(chan error, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters[request] = done
	return done
}

func (c *changes) forget(request uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiters, request)
}

func (c *changes) done(request uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if done := c.waiters[request]; done != nil {
		delete(c.waiters, request)
		done <- err
	}
}

// MemberStatus is what a node knows of a member. What only the leader knows of
// others is missing elsewhere.
type MemberStatus struct {
	Member
	Self   bool `json:"self"`
	Leader bool `json:"leader"`
	// Up: it was heard from within the last seconds.
	Up bool `json:"up"`
	// Match is the last entry that it has acknowledged to the leader; State is how
	// the leader sends: "replicate", "probe", "snapshot". Leader only.
	Match uint64 `json:"match,omitempty"`
	State string `json:"state,omitempty"`
	// Inflight is how many messages with entries it has not answered yet. Leader only.
	Inflight int `json:"inflight,omitempty"`
	// Queued is how many messages wait in this node to be sent to it.
	Queued int `json:"queued,omitempty"`
	// Applied, First and Last are its own words.
	Applied    uint64    `json:"applied"`
	First      uint64    `json:"first"`
	Last       uint64    `json:"last"`
	MaxFormat  uint16    `json:"max_format"`
	Full       bool      `json:"full,omitempty"`
	Installing *Progress `json:"installing,omitempty"`
	// Error is why this node has no connection to it.
	Error string `json:"error,omitempty"`
}

// Members returns the members by name.
func (n *Node) Members() []MemberStatus {
	progress := map[uint64]tracker.Progress{}
	n.call(func() {
		if st := n.raw.Status(); st.RaftState == raft.StateLeader {
			progress = st.Progress
		}
	})
	leader := n.Leader()
	var out []MemberStatus
	for _, m := range n.group().members {
		s := MemberStatus{Member: m, Self: m.ID == n.id, Leader: m.ID == leader}
		r, up := n.peers.heardFrom(m.ID)
		if s.Self {
			r, up = heardReport{report: n.report()}, true
		}
		s.Up, s.Applied, s.First, s.Last, s.MaxFormat, s.Full = up, r.Applied, r.First, r.Last, r.MaxFormat, r.Full
		if up {
			s.Installing = r.Installing
		}
		if pr, ok := progress[m.ID]; ok {
			s.Match, s.Inflight = pr.Match, pr.Inflights.Count()
			s.State = map[tracker.StateType]string{
				tracker.StateProbe: "probe", tracker.StateReplicate: "replicate", tracker.StateSnapshot: "snapshot",
			}[pr.State]
		}
		s.Error, s.Queued = n.peers.linkTo(m.ID)
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b MemberStatus) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// CheckMembers tells whether Raft counts with the members that the applied entries say, which anything
// else would be a bug of kingbus. It waits for what is to be applied. While a snapshot is installed there is
// nothing to compare: Raft has its members already.
func (n *Node) CheckMembers() error {
	return n.inApplier(func(a *applier) error {
		var wrong error
		n.call(func() {
			if a.last.index < n.restored || n.installing.Load() {
				return
			}
			conf, want := n.raw.Status().Config, a.group.conf
			voters, learners := slices.Sorted(maps.Keys(conf.Voters.IDs())), slices.Sorted(maps.Keys(conf.Learners))
			if !slices.Equal(voters, slices.Sorted(slices.Values(want.GetVoters()))) || !slices.Equal(learners, slices.Sorted(slices.Values(want.GetLearners()))) {
				wrong = fmt.Errorf("the voters that Raft counts with are %x, learners %x; after entry %d they should be %x and %x", voters, learners, a.last.index, want.GetVoters(), want.GetLearners())
			}
		})
		return wrong
	})
}

// linkTo tells why there is no connection to a node, "" if there is one, and how many
// messages wait for it.
func (p *peers) linkTo(id uint64) (broken string, queued int) {
	p.mu.Lock()
	s := p.senders[id]
	p.mu.Unlock()
	if s == nil {
		return "", 0
	}
	queued = s.control.len() + s.data.len()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		broken = s.broken.Error()
	}
	return broken, queued
}

// Leader returns the Raft id of whom this node takes for the leader; 0: nobody.
func (n *Node) Leader() uint64 {
	if c := n.contact.Load(); c != nil {
		return c.leader
	}
	return 0
}

// Add takes the node at an address into the group, as a learner. It may be
// repeated. It is carried out by the leader, as all changes are.
func (n *Node) Add(ctx context.Context, name, address string) error {
	_, err := n.throughLeader(ctx, question{Do: "add", Name: name, Address: address})
	return err
}

// Promote makes a learner that has caught up a voter. It may be repeated.
func (n *Node) Promote(ctx context.Context, name string) error {
	_, err := n.throughLeader(ctx, question{Do: "promote", Name: name})
	return err
}

// Remove takes a member out of the group, for good: its folder never comes back.
// It may be repeated.
func (n *Node) Remove(ctx context.Context, name string) error {
	_, err := n.throughLeader(ctx, question{Do: "remove", Name: name})
	return err
}

// Transfer makes a voter the leader. It may be repeated.
func (n *Node) Transfer(ctx context.Context, name string) error {
	_, err := n.throughLeader(ctx, question{Do: "transfer", Name: name})
	return err
}

// AskLeader has Config.Answer of the node that leads do something, which may happen more
// than once: while leadership changes it is asked again.
func (n *Node) AskLeader(ctx context.Context, body json.RawMessage) (json.RawMessage, error) {
	r, err := n.throughLeader(ctx, question{Do: "ask", Body: body})
	return r.Body, err
}

// throughLeader carries a question out where the leader is. While leadership
// changes it tries again.
func (n *Node) throughLeader(ctx context.Context, q question) (reply, error) {
	lost := false // an answer: what was asked for may have been done
	for {
		var r reply
		var err error
		if n.Leading() != nil {
			r, err = n.answer(ctx, q)
		} else if m, ok := n.group().byID(n.Leader()); ok && m.ID != n.id {
			r, err = n.askNode(ctx, m, q)
		} else {
			err = ErrNoLeader
		}
		// What AskLeader asks for may be asked again, so that a leader that died with the answer
		// is not the end of it.
		var answered *remoteError
		died := q.Do == "ask" && err != nil && n.Leading() == nil && (!errors.As(err, &answered) || errors.Is(err, ErrClosed))
		if !died && !errors.Is(err, ErrNoLeader) && !errors.Is(err, ErrDropped) && !errors.Is(err, ErrDeposed) {
			return r, err
		}
		lost = lost || died || errors.Is(err, ErrDeposed)
		select {
		case <-ctx.Done():
			if lost {
				err = errors.Join(err, ErrDeposed)
			}
			return r, err
		case <-n.stopped:
			return r, ErrClosed
		case <-time.After(n.cfg.Heartbeat):
		}
	}
}

// errChanging: a change before this one is not applied yet.
var errChanging = errors.New("another change of the membership is on its way")

// propose proposes a change of one member and waits until it is applied.
func (n *Node) propose(ctx context.Context, kind pb.ConfChangeType, c change) error {
	select {
	case n.changing <- struct{}{}: // Raft takes one at a time
		defer func() { <-n.changing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		err := n.proposeOnce(ctx, kind, c)
		if !errors.Is(err, errChanging) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(n.cfg.Heartbeat / 10):
		}
	}
}

func (n *Node) proposeOnce(ctx context.Context, kind pb.ConfChangeType, c change) error {
	lead := n.Leading()
	if lead == nil {
		return ErrNoLeader
	}
	c.Request = randomUint64()
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	cc := &pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{{Type: kind.Enum(), NodeId: new(c.Member.ID)}}, Context: b}
	done := n.changes.wait(c.Request)
	defer n.changes.forget(c.Request)
	ok := n.call(func() {
		// Raft would make nothing of a change while one before it is not applied, and not
		// say so. It hears of the application only after the change's proposer.
		if n.raw.BasicStatus().Applied < n.lastChange {
			err = errChanging
			return
		}
		err = n.raw.ProposeConfChange(cc)
	})
	if !ok {
		return ErrClosed
	}
	if errors.Is(err, errChanging) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDropped, err)
	}
	select {
	case err := <-done:
		return err
	case <-lead.Done():
		return context.Cause(lead)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *Node) add(ctx context.Context, name, address string) error {
	switch {
	case name == "":
		return errors.New("a node needs a name")
	case n.cfg.Address == "" || n.cfg.Listener == nil:
		return fmt.Errorf("node %s listens for no peers: start it with --node-name and --peer-listen first", n.cfg.Name)
	}
	h, err := n.probe(ctx, address)
	var refusal *peer.Refusal
	if errors.As(err, &refusal) && refusal.Code == refusedCluster {
		return fmt.Errorf("node %s at %s: %w; to take it in, empty its data folder first", name, address, ErrOtherCluster)
	}
	if err != nil {
		return err
	}
	group := n.group()
	switch old, is := group.byName(name); {
	case h.Name != name:
		return fmt.Errorf("the node at %s calls itself %q, not %q: check the address, or its --node-name", address, h.Name, name)
	case is && old.ID == h.From:
		return nil // it is here
	case is:
		return fmt.Errorf("%s is a member with another data folder: `kingbus node remove %s` first, then add it again: %w", old, name, ErrNameTaken)
	case group.wasRemoved(h.From):
		return fmt.Errorf("node %s at %s was a member and was removed: empty its data folder first", name, address)
	case h.MaxFormat < group.format:
		return fmt.Errorf("node %s: %w", name, ErrFormat)
	}
	return n.propose(ctx, pb.ConfChangeAddLearnerNode, change{Member: Member{ID: h.From, Name: name, Address: address}})
}

func (n *Node) promote(ctx context.Context, name string) error {
	m, ok := n.group().byName(name)
	switch {
	case !ok:
		return fmt.Errorf("%q: %w", name, ErrNoMember)
	case !m.Learner:
		return nil
	}
	var behind uint64
	var active bool
	n.call(func() {
		st := n.raw.Status()
		if pr, ok := st.Progress[m.ID]; ok {
			active = pr.RecentActive && pr.State == tracker.StateReplicate
			behind = st.GetCommit() - min(st.GetCommit(), pr.Match)
		}
	})
	if !active || behind > caughtUp {
		return fmt.Errorf("node %s lacks %d entries: %w", name, behind, ErrBehind)
	}
	return n.propose(ctx, pb.ConfChangeAddNode, change{Member: Member{ID: m.ID}})
}

func (n *Node) remove(ctx context.Context, name string) error {
	group := n.group()
	m, ok := group.byName(name)
	if !ok {
		if slices.ContainsFunc(group.removed, func(m Member) bool { return m.Name == name }) {
			return n.awaitKnown(ctx, name)
		}
		return fmt.Errorf("%q: %w", name, ErrNoMember)
	}
	if !m.Learner {
		up, left := 0, 0
		for _, other := range n.Members() {
			if other.Learner || other.ID == m.ID {
				continue
			}
			left++
			if other.Up {
				up++
			}
		}
		switch {
		case left == 0:
			return ErrLastVoter
		case up <= left/2:
			return fmt.Errorf("of the %d voters left only %d are up: %w", left, up, ErrUnsafe)
		}
	}
	if m.ID == n.id { // whoever leads next does it
		if err := n.handOver(ctx); err != nil {
			return err
		}
		return ErrNoLeader
	}
	if err := n.propose(ctx, pb.ConfChangeRemoveNode, change{Member: Member{ID: m.ID}}); err != nil {
		return err
	}
	return n.awaitKnown(ctx, name)
}

// awaitKnown waits until a majority of the voters know that a node is removed, and will
// after a crash. Until then those that do not may want its vote: it must not go.
func (n *Node) awaitKnown(ctx context.Context, name string) error {
	last := n.segments.LastIndex() // the removal is not behind it
	tick := time.NewTicker(n.cfg.Heartbeat)
	defer tick.Stop()
	for {
		voters, know := 0, 0
		for _, m := range n.Members() {
			if m.Learner {
				continue
			}
			if voters++; m.Applied >= last {
				know++
			}
		}
		if know > voters/2 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("node %s is removed, but a majority of the others has not heard of it yet: let it run, and repeat the command: %w", name, ctx.Err())
		case <-tick.C:
		}
	}
}

func (n *Node) transfer(ctx context.Context, name string) error {
	m, ok := n.group().byName(name)
	switch {
	case !ok:
		return fmt.Errorf("%q: %w", name, ErrNoMember)
	case m.Learner:
		return fmt.Errorf("node %s does not vote: promote it first", name)
	}
	return n.transferTo(ctx, m)
}

// transferTo makes a voter the leader, and waits for it.
func (n *Node) transferTo(ctx context.Context, m Member) error {
	if m.ID == n.id {
		return nil
	}
	if n.Leading() == nil {
		return ErrNoLeader
	}
	n.call(func() { n.raw.TransferLeader(m.ID) })
	timeout := time.NewTimer(3 * n.cfg.Election)
	defer timeout.Stop()
	// Raft gives up after an election timeout. A voter that has just become one may
	// not know it yet, and so not take over when it is first asked.
	again := time.NewTicker(n.cfg.Election + n.cfg.Heartbeat)
	defer again.Stop()
	// Not before the other one leads: it may need this node's vote to do so.
	for {
		changed := n.leaderChanged()
		if leader := n.Leader(); leader != 0 && leader != n.id {
			return nil
		}
		select {
		case <-changed:
		case <-again.C:
			n.call(func() { n.raw.TransferLeader(m.ID) })
		case <-timeout.C:
			return fmt.Errorf("node %s did not take over within %s: it is down or behind", m.Name, 3*n.cfg.Election)
		case <-ctx.Done():
			return ctx.Err()
		case <-n.stopped:
			return ErrClosed
		}
	}
}

// leaderChanged returns a channel that is closed when Leader says something else.
func (n *Node) leaderChanged() <-chan struct{} {
	n.contactMu.Lock()
	defer n.contactMu.Unlock()
	if n.contactWake == nil {
		n.contactWake = make(chan struct{})
	}
	return n.contactWake
}

// handOver makes the voter the leader that has most of the log. It does nothing
// where this node does not lead, or is the only voter.
func (n *Node) handOver(ctx context.Context) error {
	var best, match uint64
	n.call(func() {
		st := n.raw.Status()
		if st.RaftState != raft.StateLeader {
			return
		}
		for id, pr := range st.Progress {
			r, heard := n.peers.heardFrom(id)
			if id != n.id && !pr.IsLearner && pr.RecentActive && heard && !r.Full && pr.Match >= match {
				best, match = id, pr.Match
			}
		}
	})
	if best == 0 {
		return nil
	}
	m, _ := n.group().byID(best)
	return n.transferTo(ctx, m)
}

// HandOver gives leadership away before this node stops, so that nobody has to
// wait for an election.
func (n *Node) HandOver(ctx context.Context) error { return n.handOver(ctx) }

// newSnapshot makes a snapshot that is newer than everything that any node has
// heard of: behind an entry that changes nothing.
func (n *Node) newSnapshot(ctx context.Context) (data []byte, term uint64, err error) {
	self, _ := n.group().byID(n.id)
	if err := n.propose(ctx, pb.ConfChangeUpdateNode, change{Member: self}); err != nil {
		return nil, 0, err
	}
	err = n.inApplier(func(a *applier) (err error) {
		data, err = a.encodeSnapshot()
		return err
	})
	return data, n.hard.raft().GetTerm(), err
}

// tend does, until ctx ends, what a leader owes the membership: names, addresses
// and formats as the nodes tell them, and a full disk.
func (n *Node) tend(ctx context.Context) error {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		n.noteMatches()
		if n.Leading() == nil {
			continue
		}
		if err := n.tendMembers(ctx); err != nil && ctx.Err() == nil {
			n.log.Debug("could not bring the membership up to date", "error", err)
		}
		if n.full.Load() {
			if err := n.handOver(ctx); err != nil {
				n.log.Debug("the disk is full, and leadership could not be handed over", "error", err)
			}
		}
	}
}

// noteMatches remembers what the nodes have acknowledged, as far as it is committed:
// what is not may rightly be cut off again. Of this node itself Raft takes all that it was
// elected with for written, which may still wait for room on a full disk, where it is to replace
// others; what is applied is there.
func (n *Node) noteMatches() {
	acked := map[uint64]uint64{}
	n.call(func() {
		if st := n.raw.Status(); st.RaftState == raft.StateLeader {
			for id, pr := range st.Progress {
				acked[id] = min(pr.Match, st.GetCommit())
			}
			acked[n.id] = min(acked[n.id], n.applied.Load())
			n.checkSnapshots()
		}
	})
	n.peers.had(acked)
	n.matches.Store(&acked)
}

func (n *Node) tendMembers(ctx context.Context) error {
	group := n.group()
	format := n.cfg.MaxFormat
	for _, m := range group.members {
		r, heard := n.peers.heardFrom(m.ID)
		if m.ID == n.id {
			r, heard = heardReport{report: n.report()}, true
		}
		if !heard {
			format = 0 // who knows what it runs
			continue
		}
		format = min(format, r.MaxFormat)
		if r.Name == m.Name && r.Address == m.Address || r.Name == "" || r.Address == "" {
			continue
		}
		now := Member{ID: m.ID, Name: r.Name, Address: r.Address}
		if err := n.propose(ctx, pb.ConfChangeUpdateNode, change{Member: now}); err != nil {
			return fmt.Errorf("%s is now %s: %w", m, now, err)
		}
		n.log.Info("a node has a new name or address", "was", m.String(), "is", now.String())
	}
	if format <= group.format {
		return nil
	}
	self, _ := n.group().byID(n.id)
	if err := n.propose(ctx, pb.ConfChangeUpdateNode, change{Member: self, Format: format}); err != nil {
		return fmt.Errorf("raise the format to %d: %w", format, err)
	}
	n.log.Info("every node knows a newer format, which the cluster writes from now on", "format", format)
	return nil
}
