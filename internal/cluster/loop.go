package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/hook"
)

// proposal is one entry on its way into Raft.
type proposal struct {
	data []byte
	done chan error // takes one value: nil when the leader's log has it
}

// incoming is a message for Raft: of a peer, or the answer of finished storage
// work.
type incoming struct {
	m        *pb.Message
	payloads map[handle][]byte // of its entries
	bytes    int               // of the payloads, reserved in the intake
}

// work is what the append goroutine has to make durable, in one piece.
type work struct {
	m     *pb.Message
	slots []slot // of its entries
	bytes int    // payload that came from a peer, reserved in the intake
}

// loop is Raft's clock, and does what nobody else does: see drive.
func (n *Node) loop(ctx context.Context) error {
	defer close(n.loopEnded)
	defer n.refuseCalls()
	defer n.leadership.close() // who waits for what he proposed as a leader waits no more
	tick := time.NewTicker(n.cfg.Heartbeat)
	defer tick.Stop()
	for {
		if n.cfg.Stall != nil {
			n.cfg.Stall()
		}
		var err error
		select {
		case <-ctx.Done():
			err = n.endTurns()
			n.refuseProposals()
			return err
		case <-tick.C:
			err = n.takeTurn(n.tick)
		case <-n.waits:
			err = n.takeTurn(nil)
		}
		if err != nil {
			return err
		}
	}
}

// drive has Raft take what waits for it. Who has something for Raft does that himself if
// nobody is at it, since to hand it to another goroutine costs more than the work; else the
// loop does it as soon as that one is done.
func (n *Node) drive() {
	if n.cfg.Stall != nil || !n.turn.TryLock() {
		n.waits.set()
		return
	}
	defer n.turn.Unlock()
	if n.over {
		return
	}
	_ = n.work(n.pass) // the loop tells
}

// takeTurn is drive for the loop, which has to be told what is wrong. It begins with first.
func (n *Node) takeTurn(first func() error) error {
	n.turn.Lock()
	defer n.turn.Unlock()
	if n.over {
		return n.broken
	}
	return n.work(func() error {
		if first != nil {
			if err := first(); err != nil {
				return err
			}
		}
		return n.pass()
	})
}

// errPanicked is why there are no more turns after one that did not come back.
var errPanicked = errors.New("a panic in the middle of what Raft has to do, which is a bug of kingbus; it was the last that was done, start the node again")

// work is one turn. Where that panics, and the one whose turn it is goes on nevertheless, as the
// servers of HTTP and of SQL do, Raft must not: what it had begun is half done.
func (n *Node) work(f func() error) error {
	n.over, n.broken = true, errPanicked
	defer func() {
		if n.over {
			n.waits.set() // for the loop to say so
		}
	}()
	err := f()
	n.over, n.broken = err != nil, err
	return err
}

// endTurns lets nobody have a turn any more. Its error is that of the last one.
func (n *Node) endTurns() error {
	n.turn.Lock()
	defer n.turn.Unlock()
	n.over = true
	return n.broken
}

// pass is one turn. It never waits for a disk or a socket: storage work goes to the append
// and apply goroutines, whose answers come back as messages, and what is for peers to their
// senders.
func (n *Node) pass() error {
	for _, call := range n.calls.drain() {
		call()
	}
	in := n.inbox.drain()
	for _, i := range in {
		if err := n.check(i.m); err != nil {
			return err
		}
		if t := i.m.GetType(); t == pb.MsgHeartbeat || t == pb.MsgApp || t == pb.MsgSnap {
			n.silent = 0
		}
		if err := n.raw.Step(i.m); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) && !errors.Is(err, raft.ErrProposalDropped) {
			return fmt.Errorf("raft step %v: %w", i.m.GetType(), err)
		}
		n.noteApplied(i.m)
		n.noteInstalled(i.m)
	}
	for _, p := range n.proposals.drain() {
		p.done <- n.step(p.data)
	}
	n.handleReady(in)
	return nil
}

// tick is Raft's clock. It stands still while a snapshot is installed, since this
// node has nothing to lead with then; but a leader of whom nothing is heard must
// not have its vote for ever, so it is forgotten in time.
func (n *Node) tick() error {
	if !n.installing.Load() {
		n.raw.Tick()
		return nil
	}
	if n.silent += n.cfg.Heartbeat; n.silent >= n.cfg.Election && n.raw.BasicStatus().Lead != raft.None {
		if err := n.raw.ForgetLeader(); err != nil {
			return fmt.Errorf("raft: forget the leader: %w", err)
		}
	}
	return nil
}

func (n *Node) step(data []byte) error {
	err := n.raw.Propose(data)
	if errors.Is(err, raft.ErrProposalDropped) {
		return ErrDropped
	}
	return err
}

// refuseProposals answers everybody who still waits; none is accepted after it.
func (n *Node) refuseProposals() {
	for _, p := range n.proposals.drain() {
		p.done <- ErrClosed
	}
}

// call runs f in a turn and waits for it; false: there are no more.
func (n *Node) call(f func()) bool {
	done := make(chan struct{})
	n.calls.put(func() { f(); close(done) })
	n.drive()
	select {
	case <-done:
		return true
	case <-n.loopEnded:
		return false
	}
}

// applyConfChange, in a turn, has Raft count with the members after entry index, which are want. It
// does so already if it has taken a snapshot of behind that entry while the apply goroutine was not
// there yet: then the change must not be put on top of what it has become since.
func (n *Node) applyConfChange(index uint64, cc *pb.ConfChangeV2, want *pb.ConfState) error {
	if index <= n.restored {
		return nil
	}
	if err := n.raw.ApplyConfChange(cc).Equivalent(want); err != nil {
		return fmt.Errorf("the members with which Raft counts are not those of the log, which is a bug of kingbus: %w", err)
	}
	return nil
}

// refuseCalls lets nobody's call be kept: call has seen that the loop ended.
func (n *Node) refuseCalls() { n.calls.drain() }

// check refuses what the library would take for a bug of its own: a leader that
// knows more of this node's log than is there. It was there once, and what a
// quorum relied on is gone.
func (n *Node) check(m *pb.Message) error {
	if m.GetType() == pb.MsgHeartbeat && m.GetCommit() > n.last && m.GetTerm() >= n.term {
		return fmt.Errorf("%w: it ends with entry %d, but this node has acknowledged entry %d", ErrStale, n.last, m.GetCommit())
	}
	return nil
}

// noteApplied moves the window's beginning on, behind what Raft has taken note of as applied. It
// looks at all that is behind that, when it is asked to take over the leadership for example; the
// apply goroutine may be far ahead of it.
func (n *Node) noteApplied(m *pb.Message) {
	if ents := m.GetEntries(); m.GetType() == pb.MsgStorageApplyResp && len(ents) > 0 {
		n.window.applied(ents[len(ents)-1].GetIndex())
	}
}

// noteInstalled tells Raft that a peer has a snapshot. It finds out by itself only
// if its log still has what follows, which may not be so when that took long: then
// the peer needs another one.
func (n *Node) noteInstalled(m *pb.Message) {
	if m.GetType() != pb.MsgAppResp || m.GetReject() {
		return
	}
	if s, sent := n.snapshots[m.GetFrom()]; sent && m.GetIndex() >= s.index {
		delete(n.snapshots, m.GetFrom())
		n.raw.ReportSnapshot(m.GetFrom(), raft.SnapshotFinish)
	}
}

// sentSnapshot is one that a peer was sent and has not acknowledged.
type sentSnapshot struct {
	index uint64
	at    time.Time
}

// checkSnapshots, in a turn, looks after peers from which Raft waits for the
// acknowledgement of a snapshot, without sending them anything: either message may
// be lost. Who does not install one by his own words is asked again.
func (n *Node) checkSnapshots() {
	for id, s := range n.snapshots {
		r, heard := n.peers.heardFrom(id)
		if heard && r.Installing == nil && r.at.Sub(s.at) > peerSilence {
			delete(n.snapshots, id)
			n.raw.ReportSnapshot(id, raft.SnapshotFailure)
		}
	}
}

// handleReady passes on what Raft wants done. in are the messages since the last
// time: payloads of theirs that Raft did not take into its log are let go.
func (n *Node) handleReady(in []incoming) {
	reserved := 0
	for _, i := range in {
		reserved += i.bytes
	}
	for n.raw.HasReady() {
		rd := n.raw.Ready()
		if rd.SoftState != nil || rd.HardState != nil && rd.HardState.GetTerm() != n.term {
			n.observeRole()
		}
		for _, rs := range rd.ReadStates {
			n.reads.done(rs)
		}
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				w := n.newWork(m, in)
				reserved -= w.bytes
				n.appends.push(w)
			case raft.LocalApplyThread:
				n.applies.push(func(a *applier) error { return a.applyMessage(m) })
			default:
				if m.GetType() == pb.MsgSnap {
					n.snapshots[m.GetTo()] = sentSnapshot{m.GetSnapshot().GetMetadata().GetIndex(), time.Now()}
				}
				n.peers.send(m)
			}
		}
	}
	n.intake.release(reserved)
}

// observeRole notes who leads. A leader that lost one term and won another in
// between has the same role.
func (n *Node) observeRole() {
	st := n.raw.BasicStatus()
	leads := st.RaftState == raft.StateLeader
	if n.term != st.GetTerm() || !leads {
		n.staging.forget()
	}
	old := n.contact.Load()
	changed := old == nil || old.leader != st.Lead
	if changed || n.term != st.GetTerm() {
		for _, o := range n.cfg.Hooks {
			o.AfterElection(hook.Election{Term: st.GetTerm(), Leader: st.Lead, Self: leads})
		}
	}
	n.term = st.GetTerm()
	if changed {
		n.contactMu.Lock()
		n.contact.Store(&contact{leader: st.Lead, since: time.Now()})
		if n.contactWake != nil {
			close(n.contactWake)
			n.contactWake = nil
		}
		n.contactMu.Unlock()
		n.ReportNow()
		n.log.Debug("who leads has changed", "leader", st.Lead, "term", n.term, "role", st.RaftState.String())
	}
	n.leadership.observe(leads, n.term)
}

// contact is whom this node takes for the leader, 0 = nobody.
type contact struct {
	leader uint64
	since  time.Time
}

// newWork puts the payloads to the entries that go to the disk, and makes them
// known to the senders.
func (n *Node) newWork(m *pb.Message, in []incoming) work {
	w := work{m: m}
	if snap := m.GetSnapshot(); !raft.IsEmptySnap(snap) {
		n.last = snap.GetMetadata().GetIndex()
		n.restored = n.last
	}
	ents := m.GetEntries()
	if len(ents) == 0 {
		return w
	}
	n.last = ents[len(ents)-1].GetIndex()
	w.slots = make([]slot, len(ents))
	near := 0 // the message that had the last payload: the next one is in it, or in the one behind
	for i, e := range ents {
		w.slots[i].entry = e
		if e.GetType() != pb.EntryNormal || len(e.GetData()) == 0 { // a change, or the first of a leader
			n.lastChange = e.GetIndex()
		}
		h, err := decodeHandle(e.GetData())
		if err != nil || e.GetType() != pb.EntryNormal {
			continue
		}
		s := &w.slots[i]
		s.holders = new(atomic.Int32)
		for k := range in {
			j := (near + k) % len(in)
			if p, ok := in[j].payloads[h]; ok {
				s.payload = p
				w.bytes += len(p)
				delete(in[j].payloads, h)
				near = j
				break
			}
		}
		if s.payload == nil && h.proposer == n.id {
			s.payload = n.staging.take(h.number)
		}
	}
	n.window.stage(w.slots)
	return w
}

// deliver hands the responses of finished storage work on.
func (n *Node) deliver(responses []*pb.Message) {
	own := false
	for _, m := range responses {
		if m.GetTo() == n.id {
			n.inbox.put(incoming{m: m})
			own = true
		} else {
			n.peers.send(m)
		}
	}
	if own {
		n.drive()
	}
}
