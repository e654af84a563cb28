package main

import (
	"context"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/cluster"
)

// peering is this node's part in the cluster. Its listener is the stream's, which
// closes it also when it cannot be opened. A node that listens for nobody says no
// name either: else the others would note that it has no address any more.
func (n *node) peering() (cluster.Peering, error) {
	p := n.cfg.Peers
	out := cluster.Peering{Heartbeat: p.Heartbeat, Election: p.Election}
	if p.Listen == "" {
		return out, nil
	}
	l, err := listen("peer-listen", p.Listen)
	if err != nil {
		return cluster.Peering{}, err
	}
	out.Name, out.Address, out.Listener, out.PeerTLS, out.Initial, out.Join = p.Name, p.Advertise, l, n.peerTLS, p.Initial, p.Join
	return out, nil
}

// leaderEvery is how often it is looked who leads, for the log.
const leaderEvery = 500 * time.Millisecond

// watchLeader logs who leads, when that changes.
func (n *node) watchLeader(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	ended := n.run("watch of the leader", func() error {
		tick := time.NewTicker(leaderEvery)
		defer tick.Stop()
		for last := uint64(0); ; {
			if n.stream.Cluster().Leader() != last {
				last = n.logLeader(last)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
	n.stops = append(n.stops, stage{"watch of the leader", func(context.Context) error {
		cancel()
		<-ended
		return nil
	}})
	return nil
}

// logLeader logs who leads and returns the leader's Raft id; last is who led before. A node
// that is just being taken in does not know the leader's name yet.
func (n *node) logLeader(last uint64) uint64 {
	c, st := n.clusterStatus(), n.stream.Status()
	end := []any{"file", st.End.File, "pos", st.End.Pos}
	switch {
	case c.LeaderID == last || c.LeaderID != 0 && c.Leader == "":
		return last
	case c.LeaderID == 0:
		n.log.Info("no leader is known: serving what is known to be committed", append([]any{"term", st.Node.Term}, end...)...)
	case c.Role == admin.RoleLeader:
		n.log.Info("this node leads", append([]any{"term", st.Node.Term}, end...)...)
	default:
		n.log.Info("following the leader", append([]any{"peer", c.Leader, "role", string(c.Role), "term", st.Node.Term}, end...)...)
	}
	return c.LeaderID
}

// handOverFirst lets the stop begin with giving leadership away, so that nobody
// has to wait for an election.
func (n *node) handOverFirst(context.Context) error {
	n.stops = append(n.stops, stage{"leadership", func(ctx context.Context) error {
		// It is only a courtesy: the rest of the stop needs time, too.
		ctx, cancel := context.WithTimeout(ctx, min(2*n.cfg.Peers.Election, n.cfg.ShutdownTimeout/2))
		defer cancel()
		group := n.stream.Cluster()
		if group.Leading() == nil {
			return nil
		}
		err := group.HandOver(ctx)
		// This node no longer leads as soon as it has voted for the other one, who may
		// be waiting for just that vote: it has to get out.
		for err == nil && group.Leader() == 0 && n.stream.Err() == nil {
			select {
			case <-ctx.Done():
				err = context.Cause(ctx)
			case <-time.After(10 * time.Millisecond):
			}
		}
		if err != nil { // no reason for a stop to fail
			n.log.Warn("could not hand leadership over; the other nodes elect a new leader by themselves", "error", err)
		}
		return nil
	}})
	return nil
}

// unfit tells why replicas should use another node; "" if they need not. A node that
// only lacks a majority serves what it knows to be committed.
func (n *node) unfit() string {
	c := n.stream.Cluster()
	switch {
	case n.stream.Err() != nil:
		return "this node has failed"
	case c.Waiting():
		return "this node waits to be taken into a cluster"
	case c.Installing():
		return "this node is fetching its log from the cluster"
	}
	return ""
}
