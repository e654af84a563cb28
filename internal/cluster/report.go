package cluster

import (
	"encoding/json"
	"time"
)

// report is what a node tells all others of itself, twice a second.
type report struct {
	Name      string `json:"name"`
	Address   string `json:"address"`
	MaxFormat uint16 `json:"max_format"`
	Leader    uint64 `json:"leader,string"` // whom it takes for it
	First     uint64 `json:"first"`
	Last      uint64 `json:"last"`
	Applied   uint64 `json:"applied"`
	// Full: the disk has no room for events.
	Full       bool      `json:"full,omitempty"`
	Installing *Progress `json:"installing,omitempty"`
	// Acked are the last committed entries that nodes have acknowledged, by Raft id: of
	// a leader, who knows it.
	Acked map[uint64]uint64 `json:"acked,omitempty"`
	// Extra is what the user of the cluster tells.
	Extra json.RawMessage `json:"extra,omitempty"`
}

type heardReport struct {
	report
	at time.Time
}

// report returns what this node says at present.
func (n *Node) report() report {
	r := report{
		Name: n.cfg.Name, Address: n.cfg.Address, MaxFormat: n.cfg.MaxFormat, Leader: n.Leader(),
		First: n.segments.FirstIndex(), Last: n.segments.LastIndex(), Applied: n.applied.Load(),
		Full: n.full.Load(), Installing: n.installer.progress(),
	}
	if acked := n.matches.Load(); acked != nil {
		r.Acked = *acked
	}
	if n.cfg.Extra != nil {
		r.Extra = n.cfg.Extra()
	}
	return r
}

// ReportNow tells the leader at once how this node is, its Extra included: what changes
// before one report is answered goes with the next one. Without a leader, and on the
// leader itself, it does nothing; a new leader is told by itself.
func (n *Node) ReportNow() {
	n.peers.mu.Lock()
	s := n.peers.senders[n.Leader()]
	n.peers.mu.Unlock()
	if s != nil {
		select {
		case s.urgent <- struct{}{}:
		default:
		}
	}
}

func (p *peers) takeReport(from uint64, r report) {
	p.had(r.Acked)
	if p.n.cfg.Heard != nil && len(r.Extra) > 0 {
		p.n.cfg.Heard(r.Name, r.Extra)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reports[from] = heardReport{r, time.Now()}
}

// heardFrom returns the last report of a node; ok is false if there is none, or it
// is old.
func (p *peers) heardFrom(id uint64) (heardReport, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.reports[id]
	return r, ok && time.Since(r.at) < peerSilence
}

// PeerExtras returns what the other nodes last told of themselves (Config.Extra),
// as far as it is not older than age.
func (n *Node) PeerExtras(age time.Duration) []json.RawMessage {
	n.peers.mu.Lock()
	defer n.peers.mu.Unlock()
	var out []json.RawMessage
	for _, r := range n.peers.reports {
		if time.Since(r.at) <= age && len(r.Extra) > 0 {
			out = append(out, r.Extra)
		}
	}
	return out
}

// SetFull tells that the disk has no room for events: a leader then hands over to
// a node that has.
func (n *Node) SetFull(full bool) { n.full.Store(full) }
