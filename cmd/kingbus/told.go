package main

import (
	"encoding/json"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/hook"
	"kingbus/internal/semisync"
	"kingbus/internal/server"
	"kingbus/internal/stream"
)

// nodeTold is what a node tells the others, twice a second.
type nodeTold struct {
	// Replicas are its semi-sync replicas, if the acknowledgement to the source waits for some:
	// the places that they have acknowledged, by name.
	Replicas map[string]hook.Position `json:"replicas,omitempty"`
	// Link is that to the source, of the node that leads.
	Link *linkTold `json:"link,omitempty"`
}

// linkTold is what the others show of the link to the source: see server.Replication.
type linkTold struct {
	Running     string             `json:"running"`
	State       string             `json:"state"`
	TLS         bool               `json:"tls"`
	ByGTID      bool               `json:"by_gtid"`
	Received    stream.Coordinates `json:"received"`
	Behind      time.Duration      `json:"behind"` // nanoseconds
	Known       bool               `json:"known"`
	Errno       uint16             `json:"errno"`
	Error       string             `json:"error"`
	ErrorAt     time.Time          `json:"error_at,omitzero"`
	NextStep    string             `json:"next_step,omitempty"`
	Heartbeats  uint64             `json:"heartbeats"`
	HeartbeatAt time.Time          `json:"heartbeat_at,omitzero"`
	SemiSync    *semisync.Status   `json:"semi_sync,omitempty"` // nil: it does not tell
}

// heardLink is what the node that leads has told; nil: it has no source.
type heardLink struct {
	node string
	at   time.Time
	*linkTold
}

// linkAge is how long what was told of the link counts.
const linkAge = 5 * time.Second

// linkEvery is how often the link is looked at for the others. Reports go to each of them, and when
// replicas of followers have acknowledged something.
const linkEvery = 400 * time.Millisecond

// toldReplicas is of how many replicas it is told what they have: as many as can be waited for.
const toldReplicas = 64

func (n *node) tell() json.RawMessage {
	b, _ := json.Marshal(nodeTold{Replicas: n.waits.Have(), Link: n.ownLink()}) // cannot fail
	return b
}

// ownLink is the link of the node that leads.
func (n *node) ownLink() *linkTold {
	st := n.served.stream.Load()
	if st == nil || n.source.Load() == nil || st.Cluster().Leading() == nil {
		return nil
	}
	if last := n.telling.Load(); last != nil && time.Since(last.at) < linkEvery {
		return last.linkTold
	}
	self := admin.Cluster{Role: admin.RoleLeader} // to ask for more would be to ask for what is told
	var l *linkTold
	if r := n.linkStatus(self); r != nil {
		next := n.sourceStatus(st.Status(), self).NextStep
		const most = 512 // bytes of text
		semi := n.semi.Status()
		if c := semi.Chain; c != nil {
			c.Have = c.Have[:min(len(c.Have), toldReplicas)]
		}
		l = &linkTold{r.Running, r.State, r.TLS, r.ByGTID, r.Received, r.Behind, r.Known, r.Errno, r.Error[:min(len(r.Error), most)], r.ErrorAt,
			next[:min(len(next), most)], r.Heartbeats, r.HeartbeatAt, &semi}
	}
	n.telling.Store(&heardLink{at: time.Now(), linkTold: l})
	return l
}

// told takes what another node tells.
func (n *node) told(node string, b json.RawMessage) {
	var t nodeTold
	if err := json.Unmarshal(b, &t); err != nil {
		n.log.Debug("what a node tells", "peer", node, "error", err)
		return
	}
	for name, at := range t.Replicas {
		n.semi.Has(name, node, at)
	}
	if t.Link != nil {
		n.link.Store(&heardLink{node, time.Now(), t.Link})
	}
}

// leaderLink is what the leader has told of its link lately; nil: nothing.
func (n *node) leaderLink(leader string) *linkTold {
	if heard := n.link.Load(); heard != nil && heard.node == leader && time.Since(heard.at) < linkAge {
		return heard.linkTold
	}
	return nil
}

// show puts it in the place of this node's own. What was committed meanwhile was received, too.
func (l *linkTold) show(r *server.Replication, committed stream.Coordinates) {
	r.Running, r.State, r.TLS, r.ByGTID, r.Received = l.Running, l.State, l.TLS, l.ByGTID, l.Received
	r.Behind, r.Known, r.Errno, r.Error, r.ErrorAt = l.Behind, l.Known, l.Errno, l.Error, l.ErrorAt
	r.Heartbeats, r.HeartbeatAt = l.Heartbeats, l.HeartbeatAt
	if r.Received.File < committed.File || r.Received.File == committed.File && r.Received.Pos < committed.Pos {
		r.Received = committed
	}
}
