package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// proposal is one entry on its way into the Raft loop.
type proposal struct {
	data []byte
	done chan error // takes one value: nil when the leader's log has it
}

// loop is the only goroutine that touches the RawNode. It never waits for a
// disk or a socket: storage work goes to the append and apply goroutines, whose
// answers come back as messages.
func (n *Node) loop(ctx context.Context) error {
	tick := time.NewTicker(n.cfg.Tick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			n.refuseProposals()
			return nil
		case <-tick.C:
			n.raw.Tick()
		case <-n.inbox.ready:
			for _, m := range n.inbox.drain() {
				if err := n.raw.Step(m); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) {
					return fmt.Errorf("raft step %v: %w", m.GetType(), err)
				}
			}
		case <-n.proposals.ready:
			for _, p := range n.proposals.drain() {
				p.done <- n.step(p.data)
			}
		}
		n.handleReady()
	}
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

func (n *Node) handleReady() {
	for n.raw.HasReady() {
		rd := n.raw.Ready()
		// A leader that lost one term and won another in between has the same role.
		if rd.SoftState != nil || rd.HardState != nil && rd.HardState.GetTerm() != n.term {
			st := n.raw.BasicStatus()
			n.term = st.GetTerm()
			n.leadership.observe(st.RaftState == raft.StateLeader, n.term)
		}
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				n.appends.push(m)
			case raft.LocalApplyThread:
				n.applies.push(m)
			default:
				// A group of one voter has no peers; what Raft addresses to
				// itself comes as a response of the append goroutine.
				n.log.Debug("raft message without a peer", "to", m.GetTo(), "type", m.GetType())
			}
		}
	}
}

// deliver hands the responses of finished storage work back to the loop.
func (n *Node) deliver(responses []*pb.Message) {
	for _, m := range responses {
		if m.GetTo() == n.id {
			n.inbox.push(m)
		}
	}
}
