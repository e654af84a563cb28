package main

import (
	"encoding/json"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/hook"
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
}

// heardLink is what the node that leads has told.
type heardLink struct {
	node string
	at   time.Time
	linkTold
}

// linkAge is how long what was told of the link counts.
const linkAge = 5 * time.Second

func (n *node) tell() json.RawMessage {
	t := nodeTold{Replicas: n.waits.Have()}
	if st := n.served.stream.Load(); st != nil && n.source.Load() != nil && st.Cluster().Status().Leader {
		self := admin.Cluster{Role: admin.RoleLeader} // to ask for more would be to ask for what is told
		if r := n.linkStatus(self); r != nil {
			next := n.sourceStatus(st.Status(), self).NextStep
			const most = 512 // bytes of text
			t.Link = &linkTold{r.Running, r.State, r.TLS, r.ByGTID, r.Received, r.Behind, r.Known, r.Errno, r.Error[:min(len(r.Error), most)], r.ErrorAt,
				next[:min(len(next), most)], r.Heartbeats, r.HeartbeatAt}
		}
	}
	b, _ := json.Marshal(t) // cannot fail
	return b
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
		n.link.Store(&heardLink{node, time.Now(), *t.Link})
	}
}

// leaderLink is what the leader has told of its link lately; nil: nothing.
func (n *node) leaderLink(leader string) *linkTold {
	if heard := n.link.Load(); heard != nil && heard.node == leader && time.Since(heard.at) < linkAge {
		return &heard.linkTold
	}
	return nil
}

// show puts it in the place of this node's own.
func (l *linkTold) show(r *server.Replication) {
	r.Running, r.State, r.TLS, r.ByGTID, r.Received = l.Running, l.State, l.TLS, l.ByGTID, l.Received
	r.Behind, r.Known, r.Errno, r.Error, r.ErrorAt = l.Behind, l.Known, l.Errno, l.Error, l.ErrorAt
	r.Heartbeats, r.HeartbeatAt = l.Heartbeats, l.HeartbeatAt
}
