package admin

import (
	"cmp"
	"net"
	"strconv"
	"strings"

	"kingbus/internal/hook"
	"kingbus/internal/stream"
)

// This file has the metrics of how far the binlog has come, on this node and to each
// replica.

// hops adds how far each step of the way is.
func (c *collector) hops() {
	each := func(s *Status, give func(hop string, at stream.Coordinates)) {
		if s.Source.Connected {
			give("received", s.Source.Received)
			give("proposed", s.Source.Proposed)
			give("acknowledged", stream.Coordinates(s.Source.SemiSync.Last))
		}
		give("committed", s.Source.Coordinates)
		var first stream.Coordinates
		for _, r := range s.Replicas {
			if ahead(r.Sent, first) {
				first = r.Sent
			}
		}
		give("served", first)
	}
	const where = " up to which the binlog has come: received from the source, proposed to the log, committed, acknowledged to the source, served to the replica that is ahead of the others. Only what is known; only the node that follows the source knows all."
	c.family("hop_file_number", "Number of the binlog file"+where, []string{"hop"}, func(s *Status, give func(float64, ...string)) {
		each(s, func(hop string, at stream.Coordinates) {
			if n, ok := fileNumber(at.File); ok {
				give(n, hop)
			}
		})
	})
	c.family("hop_position_bytes", "Position in the binlog file"+where, []string{"hop"}, func(s *Status, give func(float64, ...string)) {
		each(s, func(hop string, at stream.Coordinates) {
			if at.File != "" {
				give(float64(at.Pos), hop)
			}
		})
	})
}

// fileNumber is the number at the end of a binlog file's name.
func fileNumber(name string) (float64, bool) {
	n, err := strconv.ParseUint(name[strings.LastIndexByte(name, '.')+1:], 10, 64)
	return float64(n), err == nil
}

// ahead tells whether a lies behind b in the binlog, as far as names of files tell.
func ahead(a, b stream.Coordinates) bool {
	an, _ := fileNumber(a.File)
	bn, _ := fileNumber(b.File)
	return an > bn || an == bn && a.Pos > b.Pos
}

// maxReplicas bounds the replicas of which each is told: a client says of itself who it is.
// All of them have logged in, and --max-connections bounds them, too.
const maxReplicas = 256

// replicas adds what is about each replica that is connected. One is told from others by
// the labels replica and server_id, as in package meter; where it has more than one
// connection, the one that is the farthest behind counts.
func (c *collector) replicas() {
	c.gauge("replicas", "Clients that pull the binlog now.", func(s *Status) float64 { return float64(len(s.Replicas)) })
	info := []string{"replica", "server_id", "user", "host", "name", "mode"}
	c.family("replica_info", "Always 1; the labels tell who the replica is: what tells it from others (its uuid, else its server id), its server id, with which user and from which host it has come, its report_host or program, and whether it goes by GTID or by position.", info,
		func(s *Status, give func(float64, ...string)) {
			seen := map[[6]string]bool{}
			for _, r := range s.Replicas {
				host, _, err := net.SplitHostPort(r.Address)
				if err != nil {
					host = r.Address
				}
				id := r.labels()
				labels := [6]string{id[0], id[1], valid(r.User), valid(host), valid(cmp.Or(r.ReportHost, r.Program)), valid(r.Mode)}
				if !seen[labels] && len(seen) < maxReplicas {
					seen[labels] = true
					give(1, labels[:]...)
				}
			}
		})
	each := func(name, help string, value func(*Replica) (float64, bool)) {
		c.family(name, help, []string{"replica", "server_id"}, func(s *Status, give func(float64, ...string)) {
			for id, r := range slowest(s.Replicas) {
				if v, known := value(r); known {
					give(v, id[:]...)
				}
			}
		})
	}
	sent := func(value func(*Replica) float64) func(*Replica) (float64, bool) {
		return func(r *Replica) (float64, bool) { return value(r), r.Sent.File != "" } // else it is not known yet
	}
	each("replica_lag_bytes", "Binlog that was not sent to the replica yet.", sent(func(r *Replica) float64 { return float64(r.LagBytes) }))
	each("replica_lag_seconds", "How far the event sent last is behind the newest one.", sent(func(r *Replica) float64 { return float64(r.LagSeconds) }))
	each("replica_sent_file_number", "Number of the binlog file up to which the replica was sent the binlog.", func(r *Replica) (float64, bool) { return fileNumber(r.Sent.File) })
	each("replica_sent_position_bytes", "Position in that file.", sent(func(r *Replica) float64 { return float64(r.Sent.Pos) }))
	each("replica_acknowledged_file_number", "Number of the binlog file up to which the replica has acknowledged the binlog, if it is semi-synchronous.", func(r *Replica) (float64, bool) { return fileNumber(r.Acknowledged.File) })
	each("replica_acknowledged_position_bytes", "Position in that file.", func(r *Replica) (float64, bool) { return float64(r.Acknowledged.Pos), r.Acknowledged.File != "" })
}

// labels are the replica's in all metrics.
func (r *Replica) labels() [2]string {
	return [2]string{hook.ReplicaName(r.UUID, r.ServerID), strconv.FormatUint(uint64(r.ServerID), 10)}
}

// slowest returns one connection of each replica.
func slowest(all []Replica) map[[2]string]*Replica {
	out := map[[2]string]*Replica{}
	for i := range all {
		r, id := &all[i], all[i].labels()
		switch other := out[id]; {
		case other == nil && len(out) < maxReplicas, other != nil && r.Sent.File != "" && (other.Sent.File == "" || ahead(other.Sent, r.Sent)):
			out[id] = r
		}
	}
	return out
}
