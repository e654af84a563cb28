package server

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"kingbus/internal/hook"
	"kingbus/internal/stream"
)

// ReplicaStatus is one client that pulls the stream.
type ReplicaStatus struct {
	Session     uint32             `json:"session"` // connection id, for KILL
	ServerID    uint32             `json:"server_id"`
	UUID        string             `json:"uuid"` // as the replica says; "" if it says none
	User        string             `json:"user"`
	Address     string             `json:"address"`
	Program     string             `json:"program"`     // connect attribute program_name
	ReportHost  string             `json:"report_host"` // report_host and report_port of its registration
	ReportPort  uint16             `json:"report_port"`
	TLS         bool               `json:"tls"`
	Since       time.Time          `json:"since"`        // when the dump began
	Mode        string             `json:"mode"`         // "gtid" or "position"
	State       string             `json:"state"`        // "waiting for more", "sending", or "finding its place"
	Sent        stream.Coordinates `json:"sent"`         // end of what was sent, in the stream's coordinates
	LagBytes    uint64             `json:"lag_bytes"`    // from Sent to the stream's last boundary
	LagSeconds  uint32             `json:"lag_seconds"`  // between the newest event of the stream and the newest one sent
	Heartbeat   time.Duration      `json:"heartbeat"`    // period asked for, 0 for none
	NonBlocking bool               `json:"non_blocking"` // ends at the end of the binlog
}

// Replicas lists the clients that pull, by connection id.
func (s *Server) Replicas() []ReplicaStatus {
	st := s.cfg.Stream.Status()
	var out []ReplicaStatus
	for _, c := range s.list() {
		if r := c.status(); r.Mode != "" {
			lag(&r, st)
			out = append(out, r)
		}
	}
	return out
}

// ErrNoReplica is returned for a session that is not there, or pulls nothing.
var ErrNoReplica = errors.New("no client that pulls from this node has that session")

// KillReplica ends the session of a client that pulls, as KILL does. A replica comes back by
// itself. Its error is ErrNoReplica.
func (s *Server) KillReplica(session uint32) error {
	s.mu.Lock()
	c := s.mu.sessions[session]
	s.mu.Unlock()
	if c == nil || c.status().Mode == "" {
		return ErrNoReplica
	}
	c.kill(false)
	return nil
}

// list returns all sessions by connection id.
func (s *Server) list() []*session {
	s.mu.Lock()
	out := make([]*session, 0, len(s.mu.sessions))
	for _, c := range s.mu.sessions {
		out = append(out, c)
	}
	s.mu.Unlock()
	slices.SortFunc(out, func(a, b *session) int { return cmp.Compare(a.ws.ID, b.ws.ID) })
	return out
}

// lag fills in how far a replica is behind the stream's end.
func lag(r *ReplicaStatus, st stream.Status) {
	if r.Sent.File == "" {
		r.State = "finding its place"
		return
	}
	behind := false
	for _, f := range st.Files {
		switch {
		case f.Name == r.Sent.File:
			behind = true
			if f.Size > r.Sent.Pos {
				r.LagBytes += f.Size - r.Sent.Pos
			}
		case behind:
			r.LagBytes += f.Size
		}
	}
	r.State = "waiting for more"
	if r.LagBytes > 0 {
		r.State = "sending"
	}
	if sent := r.LagSeconds; r.LagBytes > 0 && sent > 0 && st.LastEventTime > sent {
		r.LagSeconds = st.LastEventTime - sent
	} else {
		r.LagSeconds = 0
	}
}

// status is what others may know of the session. Mode is "" if it does not dump;
// LagSeconds holds the timestamp of the newest event sent, for lag.
func (c *session) status() ReplicaStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := ReplicaStatus{
		Session: c.ws.ID, User: c.ws.User, Address: c.pc.RemoteAddr().String(), Program: c.ws.Attribute("program_name"),
		TLS: c.ws.TLSState() != nil, UUID: c.mu.uuid, Since: c.mu.dumpFrom, Heartbeat: c.mu.period,
		Sent: c.mu.sent.at, LagSeconds: c.mu.sent.timestamp,
	}
	if reg := c.mu.reg; reg != nil {
		r.ServerID, r.ReportHost, r.ReportPort = reg.serverID, reg.host, reg.port
	}
	if req := c.mu.dump; req != nil {
		r.ServerID, r.Mode, r.NonBlocking = req.serverID, "position", req.flags&flagNonBlock != 0 || req.serverID == 0
		if req.gtidMode {
			r.Mode = "gtid"
		}
	}
	return r
}

// beginDump makes the session a replica in the eyes of others.
func (c *session) beginDump(req dumpRequest, stop context.CancelCauseFunc) {
	uuid, period, now := c.replicaUUID(), c.heartbeatPeriod(), c.server.cfg.Now()
	command := "Binlog Dump"
	if req.gtidMode {
		command = "Binlog Dump GTID"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.dump, c.mu.uuid, c.mu.stop, c.mu.period = &req, uuid, stop, period
	c.mu.dumpFrom, c.mu.changed, c.mu.command, c.mu.info = now, now, command, ""
	if c.mu.closing {
		stop(errShutdown)
	}
}

// report takes the sender's progress.
func (c *session) report(p progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.sent = p
}

// kick ends other dumps of the same replica: the one whose connection it has
// given up, and whose end this server may not have noticed. Same means the same
// uuid, or, if this one names none, the same server id among those that name
// none (rpl_source.cc, kill_zombie_dump_threads).
func (s *Server) kick(c *session) {
	me := c.status()
	if me.UUID == "" && me.ServerID == 0 {
		return
	}
	for _, other := range s.list() {
		o := other.status()
		if other == c || o.Mode == "" || o.UUID != me.UUID || me.UUID == "" && o.ServerID != me.ServerID {
			continue
		}
		other.log.Warn("a replica with the same identity has connected; the older dump ends", "replica", hook.ReplicaName(me.UUID, me.ServerID), "server_id", me.ServerID,
			"file", o.Sent.File, "pos", o.Sent.Pos, "by", me.Address)
		other.endDump(errKicked)
	}
}
