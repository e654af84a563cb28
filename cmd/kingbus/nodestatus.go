package main

import (
	"fmt"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/server"
	"kingbus/internal/source"
	"kingbus/internal/stream"
	"kingbus/internal/vfs"
	"kingbus/internal/wire"
)

// status collects what the parts say, for the admin server.
func (n *node) status() admin.Status {
	st := n.stream.Status()
	group := n.clusterStatus()
	out := admin.Status{
		Started: n.started.UTC(),
		Node: admin.Node{
			ServerID: st.Identity.ServerID, ServerUUID: st.Identity.ServerUUID, RaftID: st.Node.RaftID, Leader: st.Node.Leader, Term: st.Node.Term,
			Applied: st.Node.Applied, Committed: st.Node.Committed, FirstIndex: st.Node.FirstIndex, LastIndex: st.Node.LastIndex, Epoch: st.Epoch, Queues: st.Node.Queues,
		},
		Stream: admin.Stream{
			End: st.End, Executed: st.Executed, Purged: st.Purged, Transactions: st.Transactions,
			LastEvent: fromUnix(st.LastEventTime), Files: st.Files, Followed: st.Followed,
		},
		Certificates: n.certificates(),
		Disk:         admin.Disk{Dir: n.cfg.DataDir, Used: st.Node.Bytes, Segments: st.Node.Segments, Reserve: n.cfg.DiskReserve},
		Cluster:      group,
		Source:       n.sourceStatus(st, group),
	}
	sent := n.meter.Dumps()
	for _, r := range n.server.Replicas() {
		out.Replicas = append(out.Replicas, admin.Replica{ReplicaStatus: r, Traffic: sent[r.Session]})
	}
	for _, f := range st.Files {
		out.Stream.Bytes += f.Size
	}
	if space, err := (vfs.OS{}).Space(n.cfg.DataDir); err != nil {
		out.Disk.Error = err.Error()
	} else {
		out.Disk.Free, out.Disk.Total = space.Free, space.Total
	}
	c, all := n.server.Counters(), n.meter.Sent()
	out.SemiSync = n.waits.Status()
	out.Clients = admin.Clients{
		Connections: c.Open, Accepted: c.Connections, Refused: c.Refused, FailedLogins: c.FailedLogins,
		Dumps: c.Dumps, Queries: c.Queries, EventsSent: all.Events, BytesSent: all.Bytes,
	}
	if err := n.stream.Err(); err != nil {
		out.Reasons = append(out.Reasons, fmt.Sprintf("the store has failed: %v", err))
	}
	if reason := notReady(group); reason != "" {
		out.Reasons = append(out.Reasons, reason)
	}
	return out
}

// clusterStatus is this node's view of its cluster.
func (n *node) clusterStatus() admin.Cluster {
	node := n.stream.Cluster()
	st := node.Status()
	out := admin.Cluster{
		ID: st.ClusterID, Name: n.cfg.Peers.Name, Address: st.Address, Role: admin.RoleWaiting, LeaderID: st.LeaderID,
		Format: st.Format, Installing: st.Installing, Damaged: st.Damaged, Members: node.Members(),
	}
	if out.ID != 0 && out.Installing != nil { // who is taken in learns only at the end that it is a member
		out.Role = admin.RoleLearner
	}
	for i, m := range out.Members {
		switch {
		case m.Self && m.Leader:
			out.Role = admin.RoleLeader
		case m.Self && m.Learner:
			out.Role = admin.RoleLearner
		case m.Self:
			out.Role = admin.RoleFollower
		}
		if m.Self && m.Name == "" { // a node without peers does not tell the cluster its name
			out.Members[i].Name = out.Name
		}
		if m.ID == out.LeaderID {
			out.Leader = out.Members[i].Name
		}
	}
	if out.LeaderID == 0 && (len(out.Members) > 1 || out.Role == admin.RoleWaiting) {
		out.Stale, out.StaleSince = true, n.started.UTC()
		if !st.Since.IsZero() {
			out.StaleSince = st.Since.UTC()
		}
	}
	return out
}

// notReady tells why a node is not fit to serve as a member of its cluster.
func notReady(c admin.Cluster) string {
	switch {
	case c.Installing != nil:
		return "it lacks a part of the log and fetches it from another node: " + progressText(*c.Installing)
	case c.Role == admin.RoleWaiting:
		return "it belongs to no cluster yet: it waits for the other nodes of --initial-cluster, or for `kingbus node add " + c.Name + " " + c.Address + "` on a member"
	case c.Stale:
		return fmt.Sprintf("no leader is known since %s: this node serves what it knows to be committed", c.StaleSince.Format(time.RFC3339))
	}
	return ""
}

func (n *node) sourceStatus(st stream.Status, group admin.Cluster) admin.Source {
	out := admin.Source{
		State: admin.SourceNone, Coordinates: st.SourceEnd,
		ServerID: st.Source.ServerID, ServerUUID: st.Source.UUID, Version: st.Source.Version, SemiSync: n.semi.Status(),
	}
	f := n.source.Load()
	if f == nil || f.source.Host == "" {
		return out
	}
	out.Address = f.source.Addr()
	switch {
	case f.setting.Stopped:
		out.State = admin.SourceStopped
		out.NextStep = "`kingbus source start`, or START REPLICA, follows it again"
		return out
	case f.problem != nil:
		out.State, out.Error = admin.SourceRefused, f.problem.Error()
		out.NextStep = "mend that on this node and restart it, or say with `kingbus source change`, or CHANGE REPLICATION SOURCE TO, what all nodes can do"
		return out
	}
	s := f.puller.Status()
	out.State = string(s.State)
	out.Since, out.Connected = utc(s.ConnectedSince), !s.ConnectedSince.IsZero()
	out.TLS, out.Received = s.TLS, s.Received
	out.LastEvent, out.LastHeard, out.NextTry = fromUnix(s.LastEventTime), utc(s.LastHeard), utc(s.NextTry)
	in := n.meter.Received()
	out.Connects, out.Events, out.Bytes, out.Transactions = in.Links, in.Events, in.Bytes, in.Transactions
	if out.Connected {
		received, proposed := n.meter.Hops()
		out.Received, out.Proposed = stream.Coordinates(received), stream.Coordinates(proposed)
		behind := s.LastEventAge
		if s.Received != st.SourceEnd && s.LastEventTime > 0 {
			behind = time.Since(fromUnix(s.LastEventTime))
		}
		out.Behind = new(max(0, behind.Seconds()))
	}
	out.Error, out.ErrorAt = s.LastError, utc(s.LastErrorAt)
	if s.Problem != nil {
		plain := *s.Problem
		out.NextStep, plain.Action = plain.Action, ""
		out.Error = plain.Error()
	}
	switch {
	case s.State == source.StateWaiting: // what went wrong while this node led is no longer its business
		out.NextStep = ""
		if group.LeaderID != 0 && group.Role != admin.RoleLeader {
			out.State, out.Error, out.ErrorAt = admin.SourceFollowed, "", time.Time{}
			if l := n.leaderLink(group.Leader); l != nil {
				out.Error, out.ErrorAt, out.NextStep, out.Received = l.Error, utc(l.ErrorAt), l.NextStep, l.Received
				if l.Running == "Yes" {
					out.LeaderSemiSync = l.SemiSync
				}
			}
		}
	case s.Problem == nil && s.LastError != "" && !out.Connected:
		out.NextStep = "nothing yet: it is tried again by itself; if it lasts, check that the source runs and can be reached from here"
	}
	if s.Version != "" {
		out.ServerUUID, out.Version = s.UUID, s.Version
	}
	return out
}

const errReplicaFatal = 13117 // ER_REPLICA_FATAL_ERROR

// replication is the link to the source in MySQL's words. A node that follows a leader
// tells of the cluster's link what the leader says of it, or at least that there is one.
func (n *node) replication() *server.Replication { return n.linkStatus(n.clusterStatus()) }

// linkStatus looks at nothing of the cluster but this node's role and who leads.
func (n *node) linkStatus(group admin.Cluster) *server.Replication {
	f := n.source.Load()
	if f == nil || f.source.Host == "" {
		return nil
	}
	st := n.stream.Status()
	out := n.sourceStatus(st, group)
	src := f.source
	until, _ := source.ParseUntil(f.setting.Until) // newFollowing tells of it
	r := &server.Replication{
		Host: src.Host, Port: src.Port, User: src.User, Until: until, HeartbeatEvery: src.Heartbeat,
		CA: src.TLSFiles.CA, Cert: src.TLSFiles.Cert, Key: src.TLSFiles.Key, Verify: src.TLS == wire.TLSVerifyIdentity, GetPublicKey: f.getPublicKey(),
	}
	if f.puller == nil {
		r.Running, r.Received = "No", st.SourceEnd
		if f.problem != nil {
			r.Errno, r.Error = errReplicaFatal, f.problem.Error()
		}
		return r
	}
	s := f.puller.Status()
	r.Running, r.State, r.TLS, r.ByGTID, r.Received = "Connecting", "Connecting to source", s.TLS != "", s.GTIDs, s.Received
	r.ErrorAt, r.Heartbeats, r.HeartbeatAt = s.LastErrorAt, s.Heartbeats, s.HeartbeatAt
	if l := n.leaderLink(group.Leader); l != nil && out.State == admin.SourceFollowed {
		l.show(r, st.SourceEnd)
		return r
	}
	switch {
	case out.Connected:
		r.Running, r.State = "Yes", "Waiting for source to send event"
	case out.State == admin.SourceFollowed:
		r.State, r.Received = "Waiting to hear from the leader of the cluster", st.SourceEnd
		r.ByGTID = st.Source.Variables["gtid_mode"] == "ON"
	case s.Problem != nil:
		r.Running, r.State = "No", ""
	}
	if out.Error != "" && r.Running != "Yes" {
		const noConnection = 2003 // CR_CONN_HOST_ERROR
		if r.Errno, r.Error = noConnection, out.Error; s.Problem != nil {
			r.Errno, r.Error = errReplicaFatal, out.Error+"; "+out.NextStep
		}
	} else {
		r.ErrorAt = time.Time{}
	}
	r.Known = r.Running == "Yes"
	if out.Behind != nil && s.Received != st.SourceEnd { // MySQL says 0 when all that has come is executed
		r.Behind = time.Duration(*out.Behind * float64(time.Second))
	}
	return r
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}

func fromUnix(seconds uint32) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0).UTC()
}
