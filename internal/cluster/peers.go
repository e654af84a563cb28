package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/peer"
)

// Why a peer refuses a node, or a node stops.
var (
	// ErrRemoved is why a node stops that an operator has removed.
	ErrRemoved = errors.New("this node was removed from the cluster; to take it in again, empty its data folder and add it")
	// ErrStale is why a node stops whose folder has lost what it acknowledged.
	ErrStale = errors.New("the data folder holds less than this node once had, so it is an old copy, or its disk lost writes: a quorum may rely on what is missing. Remove this node from the cluster, empty its data folder and add it again")
	// ErrOtherCluster is why a node is not let in that belongs to another cluster.
	ErrOtherCluster = errors.New("it belongs to another cluster")
	// ErrFormat is why a node stops that does not know the format that the cluster
	// writes.
	ErrFormat = errors.New("the cluster writes a newer format than this kingbus knows: run the version that the other nodes run")
)

// Codes of refusals.
const (
	refusedRemoved = "removed"
	refusedStale   = "stale"
	refusedCluster = "wrong-cluster"
	refusedNode    = "wrong-node"
	refusedFormat  = "format"
)

// peers are this node's connections to others: one sender for each, and the
// server for those that call.
//
// A node sends over connections that it has made itself, one for what is small
// and urgent and one for entries, and receives over those that others have made.
type peers struct {
	n      *Node
	config peer.Config
	server *peer.Server
	group  *errgroup.Group // of the senders
	ctx    context.Context

	mu      sync.Mutex
	senders map[uint64]*sender
	heard   map[uint64]Member // who has called, and is not known to the group yet
	reports map[uint64]heardReport
	acked   map[uint64]uint64 // last committed entry that a node is known to have had
}

func newPeers(n *Node) *peers {
	p := &peers{
		n: n, config: peer.Config{TLS: n.cfg.PeerTLS, Dial: n.cfg.Dial, Log: n.log},
		senders: map[uint64]*sender{}, heard: map[uint64]Member{}, reports: map[uint64]heardReport{}, acked: map[uint64]uint64{},
	}
	p.server = peer.NewServer(p.config, p)
	return p
}

// run serves and sends until ctx ends.
func (p *peers) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	p.mu.Lock()
	p.group, p.ctx = g, ctx
	p.mu.Unlock()
	p.update(p.n.group())
	if l := p.n.cfg.Listener; l != nil {
		g.Go(func() error {
			if err := p.server.Serve(l); err != nil {
				return fmt.Errorf("listen for peers: %w", err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		p.mu.Lock()
		p.ctx = nil // no sender begins any more
		p.mu.Unlock()
		return p.server.Close()
	})
	return g.Wait()
}

// send hands a message to the sender of its receiver. It never blocks.
func (p *peers) send(m *pb.Message) {
	p.mu.Lock()
	s := p.senders[m.GetTo()]
	p.mu.Unlock()
	if s != nil {
		s.send(m)
	}
}

// update lets senders begin and end as the membership says. Who has called and
// is not in it keeps one: it may be a leader of whom this node has not heard yet.
func (p *peers) update(group membership) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx == nil {
		return
	}
	for _, m := range group.members {
		delete(p.heard, m.ID)
		if m.ID != p.n.id && m.Address != "" {
			p.startLocked(m)
		}
	}
	for id, s := range p.senders {
		_, is := group.byID(id)
		_, heard := p.heard[id]
		if !is && !heard || group.wasRemoved(id) {
			s.stop()
			delete(p.senders, id)
			delete(p.heard, id)
			delete(p.reports, id)
		}
	}
}

func (p *peers) startLocked(m Member) {
	if s := p.senders[m.ID]; s != nil {
		if s.to.Address == m.Address {
			return
		}
		s.stop()
	}
	s := newSender(p, m)
	p.senders[m.ID] = s
	ctx, cancel := context.WithCancel(p.ctx)
	s.stop = cancel
	p.group.Go(func() error { return s.run(ctx) })
}

// known returns whom this node could ask: members, and who has called.
func (p *peers) known(group membership) []Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Member
	for id, s := range p.senders {
		if !group.wasRemoved(id) {
			out = append(out, s.to)
		}
	}
	slices.SortFunc(out, byID)
	return out
}

// Welcome implements peer.Handler.
func (p *peers) Welcome(h peer.Hello) (peer.Hello, error) {
	n := p.n
	answer := n.hello(h.Kind, h.From)
	log := n.log.With("peer", h.Name, "address", h.Address, "raft_id", h.From, "last_entry", h.Last)
	refuse := func(code, format string, args ...any) (peer.Hello, error) {
		r := &peer.Refusal{Code: code, Text: fmt.Sprintf(format, args...)}
		log.Warn("refused a peer", "reason", r.Text)
		return peer.Hello{}, r
	}
	group := n.group()
	own := n.clusterID.Load()
	switch {
	case own != 0 && h.Cluster != 0 && h.Cluster != own:
		return refuse(refusedCluster, "node %s belongs to cluster %d, node %s to cluster %d: check the addresses of the peers", n.cfg.Name, own, h.Name, h.Cluster)
	case h.To != 0 && h.To != n.id:
		return refuse(refusedNode, "the node at this address is %d, not %d: its data folder was replaced. Remove the old member and add this node", n.id, h.To)
	case group.wasRemoved(h.From):
		return refuse(refusedRemoved, "node %s was removed from the cluster", h.Name)
	case h.MaxFormat < group.format:
		return refuse(refusedFormat, "node %s knows formats up to %d, the cluster writes %d", h.Name, h.MaxFormat, group.format)
	case h.MinFormat > n.cfg.MaxFormat:
		return refuse(refusedFormat, "node %s reads formats from %d on, node %s writes up to %d", h.Name, h.MinFormat, n.cfg.Name, n.cfg.MaxFormat)
	case h.To == 0 || h.Kind == peer.KindCall || h.Kind == peer.KindFetch:
		return answer, nil
	}
	if had := p.hadEntry(h.From); h.Last < had {
		r := &peer.Refusal{Code: refusedStale, Had: had,
			Text: fmt.Sprintf("node %s has entries up to %d, but had up to %d before: its data folder is an old copy, or lost writes", h.Name, h.Last, had)}
		log.Warn("refused a peer", "reason", r.Text)
		return peer.Hello{}, r
	}
	if own == 0 && h.Member {
		if err := n.adopt(h.Cluster); err != nil {
			log.Error("this data folder cannot be made one of the cluster; trying again when a member calls", "cluster_id", h.Cluster, "error", err)
			return peer.Hello{}, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, is := group.byID(h.From); !is && h.Address != "" && p.ctx != nil {
		m := Member{ID: h.From, Name: h.Name, Address: h.Address}
		p.heard[h.From] = m
		p.startLocked(m)
	}
	return answer, nil
}

// Serve implements peer.Handler.
func (p *peers) Serve(ctx context.Context, c *peer.Conn, h peer.Hello) {
	var err error
	switch h.Kind {
	case peer.KindControl:
		err = p.readControl(c, h)
	case peer.KindData:
		err = p.readData(ctx, c, h)
	case peer.KindFetch:
		err = p.n.serveFetch(ctx, c, h.From)
	case peer.KindCall:
		err = p.n.serveCall(ctx, c, h.From)
	}
	if err != nil && ctx.Err() == nil {
		p.n.log.Debug("a connection of a peer ended", "peer", h.Name, "address", h.Address, "kind", h.Kind, "last_entry", p.n.segments.LastIndex(), "error", err)
	}
}

// hadEntry returns the last entry that a node is known to have had on disk.
func (p *peers) hadEntry(id uint64) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked[id]
}

// had notes that nodes have had entries on disk.
func (p *peers) had(entries map[uint64]uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, index := range entries {
		p.acked[id] = max(p.acked[id], index)
	}
}

// hello is what this node says of itself first.
func (n *Node) hello(kind peer.Kind, to uint64) peer.Hello {
	cluster := n.clusterID.Load()
	return peer.Hello{
		Kind: kind, Cluster: cluster, From: n.id, To: to, Name: n.cfg.Name, Address: n.cfg.Address,
		MinFormat: n.cfg.MinFormat, MaxFormat: n.cfg.MaxFormat, Last: n.has(), Member: cluster != 0,
	}
}

// has is up to where this node has the log, or has it again when the snapshot is whole for which
// it was begun anew: what it once acknowledged lies before the end of that.
func (n *Node) has() uint64 { return max(n.segments.LastIndex(), n.replacedBy.Load()) }

// refused tells what a refusal means for this node: an error if it cannot go on.
func (n *Node) refused(by string, err error) error {
	var r *peer.Refusal
	if !errors.As(err, &r) {
		return nil
	}
	var why error
	switch r.Code {
	case refusedRemoved:
		why = ErrRemoved
	case refusedStale:
		// The hello may have been on its way for seconds, while entries went another way.
		if n.has() >= r.Had {
			return nil
		}
		why = ErrStale
	case refusedFormat:
		why = ErrFormat
	default:
		return nil
	}
	return fmt.Errorf("%w (says %s: %s)", why, by, r.Text)
}

const (
	// reportEvery is how often nodes tell each other how they are.
	reportEvery = 500 * time.Millisecond
	// peerSilence is after what time without an answer a connection is given up.
	peerSilence = 4 * reportEvery
	// redial are the least and the longest wait before a peer is called again.
	redialMin, redialMax = 50 * time.Millisecond, time.Second
)

// unreachable tells Raft that messages to a peer were lost.
func (n *Node) unreachable(id uint64, snapshot bool) {
	n.calls.push(func() {
		n.raw.ReportUnreachable(id)
		if snapshot {
			n.raw.ReportSnapshot(id, raft.SnapshotFailure)
		}
	})
}
