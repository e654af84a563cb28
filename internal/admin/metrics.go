package admin

import (
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kingbus/internal/semisync"
)

// collector makes metrics of one Status per scrape, so that what belongs
// together is of one moment, and nothing has to be counted twice.
type collector struct {
	s       *Server
	metrics []metric
	build   *prometheus.Desc
	source  *prometheus.Desc
	peer    struct{ up, match *prometheus.Desc }
	replica struct{ bytes, seconds, sent, info *prometheus.Desc }
}

// metric is one without labels.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*Status) float64
}

func newCollector(s *Server) *collector {
	c := &collector{s: s}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("kingbus_"+name, help, labels, nil)
	}
	gauge := func(name, help string, value func(*Status) float64) {
		c.metrics = append(c.metrics, metric{desc(name, help), prometheus.GaugeValue, value})
	}
	counter := func(name, help string, value func(*Status) float64) {
		c.metrics = append(c.metrics, metric{desc(name, help), prometheus.CounterValue, value})
	}
	c.build = desc("build_info", "Always 1; the labels tell the version.", "version", "go_version")
	gauge("ready", "1 if the node is fit to serve.", func(s *Status) float64 { return truth(s.Ready) })

	gauge("raft_leader", "1 if this node leads.", func(s *Status) float64 { return truth(s.Node.Leader) })
	gauge("raft_term", "Term of the Raft group.", func(s *Status) float64 { return float64(s.Node.Term) })
	gauge("raft_applied_index", "Last log entry folded into the stream.", func(s *Status) float64 { return float64(s.Node.Applied) })
	gauge("raft_last_index", "Last entry of the log.", func(s *Status) float64 { return float64(s.Node.LastIndex) })
	gauge("raft_first_index", "First entry of the log that is still there.", func(s *Status) float64 { return float64(s.Node.FirstIndex) })

	gauge("cluster_members", "Nodes of the cluster, as far as this node knows.", func(s *Status) float64 { return float64(len(s.Cluster.Members)) })
	gauge("cluster_voters", "Nodes of the cluster that vote.", func(s *Status) float64 { return float64(s.Cluster.Voters()) })
	gauge("cluster_has_leader", "1 if this node knows who leads.", func(s *Status) float64 { return truth(s.Cluster.LeaderID != 0) })
	gauge("cluster_damaged_entries", "Entries that are being fetched again because this node's disk has damaged them.", func(s *Status) float64 { return float64(s.Cluster.Damaged) })
	gauge("cluster_installing_fetched_bytes", "Bytes fetched of what this node lacks; 0 if it lacks nothing.", func(s *Status) float64 {
		if p := s.Cluster.Installing; p != nil {
			return float64(p.Done)
		}
		return 0
	})
	gauge("cluster_installing_size_bytes", "Bytes that this node lacks and fetches from others; 0 if it lacks nothing.", func(s *Status) float64 {
		if p := s.Cluster.Installing; p != nil {
			return float64(p.Total)
		}
		return 0
	})
	c.peer.up = desc("cluster_peer_up", "1 if the peer was heard from within the last seconds.", "peer")
	c.peer.match = desc("cluster_peer_match_index", "Last log entry that the peer has acknowledged to this node, which leads.", "peer")

	c.source = desc("source_info", "Always 1; the labels tell which source is followed and how it is.", "address", "state", "server_uuid", "version")
	gauge("source_connected", "1 if the binlog flows from the source.", func(s *Status) float64 { return truth(s.Source.Connected) })
	gauge("source_last_event_timestamp_seconds", "When the newest event received was made, by the source's clock; 0 if there is none.", func(s *Status) float64 { return unix(s.Source.LastEvent) })
	gauge("source_last_heard_timestamp_seconds", "When the source last sent anything, heartbeats too; 0 if never.", func(s *Status) float64 { return unix(s.Source.LastHeard) })
	gauge("source_semi_sync_waiting", "1 if commits at the source wait for kingbus (semi-synchronous replication).", func(s *Status) float64 { return truth(s.Source.SemiSync.State == semisync.StateWaiting) })
	counter("source_semi_sync_asked_total", "Events of the source that asked to be acknowledged.", func(s *Status) float64 { return float64(s.Source.SemiSync.Asked) })
	counter("source_semi_sync_acknowledged_total", "Acknowledgements sent to the source, each of which may be for many events.", func(s *Status) float64 { return float64(s.Source.SemiSync.Acknowledged) })
	counter("source_semi_sync_fallbacks_total", "How often the source has fallen back to asynchronous replication while this node followed it.", func(s *Status) float64 { return float64(s.Source.SemiSync.FellBack) })
	gauge("source_semi_sync_replicas_wanted", "Replicas that have to have a transaction before it is acknowledged to the source, beside the quorum (--acknowledge).", func(s *Status) float64 {
		if c := s.Source.SemiSync.Chain; c != nil {
			return float64(c.Replicas)
		}
		return 0
	})
	gauge("source_semi_sync_replicas_waiting", "Acknowledgements that are durable and wait for replicas.", func(s *Status) float64 {
		if c := s.Source.SemiSync.Chain; c != nil {
			return float64(c.Waiting)
		}
		return 0
	})
	gauge("source_semi_sync_replicas_degraded", "1 while the quorum is enough because replicas took too long.", func(s *Status) float64 {
		c := s.Source.SemiSync.Chain
		return truth(c != nil && c.State == semisync.ChainDegraded)
	})
	counter("source_semi_sync_replicas_late_total", "How often replicas took too long.", func(s *Status) float64 {
		if c := s.Source.SemiSync.Chain; c != nil {
			return float64(c.Degraded)
		}
		return 0
	})

	counter("stream_transactions_total", "Transactions committed since the stream began.", func(s *Status) float64 { return float64(s.Stream.Transactions) })
	gauge("stream_end_position_bytes", "Position of the last boundary in the current binlog file.", func(s *Status) float64 { return float64(s.Stream.End.Pos) })
	gauge("stream_files", "Binlog files kept.", func(s *Status) float64 { return float64(len(s.Stream.Files)) })
	gauge("stream_bytes", "Size of all binlog files kept.", func(s *Status) float64 { return float64(s.Stream.Bytes) })
	gauge("stream_last_event_timestamp_seconds", "When the newest event was made, by the source's clock; 0 if there is none.", func(s *Status) float64 { return unix(s.Stream.LastEvent) })

	gauge("log_bytes", "Size of the log on disk.", func(s *Status) float64 { return float64(s.Disk.Used) })
	gauge("log_segments", "Segment files of the log.", func(s *Status) float64 { return float64(s.Disk.Segments) })
	gauge("disk_free_bytes", "Free space on the disk of the data folder.", func(s *Status) float64 { return float64(s.Disk.Free) })
	gauge("disk_size_bytes", "Size of the disk of the data folder.", func(s *Status) float64 { return float64(s.Disk.Total) })
	gauge("disk_reserve_bytes", "Free space that events must leave.", func(s *Status) float64 { return float64(s.Disk.Reserve) })

	gauge("client_connections", "Connections of replicas and clients that are open.", func(s *Status) float64 { return float64(s.Clients.Connections) })
	counter("client_connections_accepted_total", "Connections accepted.", func(s *Status) float64 { return float64(s.Clients.Accepted) })
	counter("client_connections_refused_total", "Connections refused because there were too many.", func(s *Status) float64 { return float64(s.Clients.Refused) })
	counter("client_failed_logins_total", "Logins that failed.", func(s *Status) float64 { return float64(s.Clients.FailedLogins) })
	counter("client_queries_total", "Statements of clients.", func(s *Status) float64 { return float64(s.Clients.Queries) })

	gauge("semi_sync_clients", "Semi-synchronous replicas of this node (rpl_semi_sync_source_clients).", func(s *Status) float64 { return float64(s.SemiSync.Clients) })
	gauge("semi_sync_on", "1 if transactions wait for semi-synchronous replicas of this node (rpl_semi_sync_source_status).", func(s *Status) float64 { return truth(s.SemiSync.On) })
	gauge("semi_sync_waiting", "Transactions that wait for semi-synchronous replicas now (rpl_semi_sync_source_wait_sessions).", func(s *Status) float64 { return float64(s.SemiSync.Waiting) })
	counter("semi_sync_acknowledged_transactions_total", "Transactions that semi-synchronous replicas have acknowledged in time (rpl_semi_sync_source_yes_tx).", func(s *Status) float64 { return float64(s.SemiSync.YesTx) })
	counter("semi_sync_unacknowledged_transactions_total", "Transactions that they have not (rpl_semi_sync_source_no_tx).", func(s *Status) float64 { return float64(s.SemiSync.NoTx) })
	counter("semi_sync_fallbacks_total", "How often this node has fallen back to asynchronous replication (rpl_semi_sync_source_no_times).", func(s *Status) float64 { return float64(s.SemiSync.NoTimes) })
	counter("semi_sync_waits_total", "Transactions that had to wait for a semi-synchronous replica (rpl_semi_sync_source_tx_waits).", func(s *Status) float64 { return float64(s.SemiSync.TxWaits) })
	counter("semi_sync_wait_seconds_total", "Time that these waited, all together (rpl_semi_sync_source_tx_wait_time).", func(s *Status) float64 { return s.SemiSync.TxWaitTime.Seconds() })
	counter("semi_sync_refused_acknowledgements_total", "Acknowledgements of replicas that were refused: malformed, or for what was never sent.", func(s *Status) float64 { return float64(s.SemiSync.Refused) })
	gauge("replicas", "Clients that pull the binlog now.", func(s *Status) float64 { return float64(len(s.Replicas)) })
	c.replica.info = desc("replica_info", "Always 1; the labels tell who the replica of a session is.", "session", "user", "address", "server_id", "server_uuid", "mode")
	c.replica.bytes = desc("replica_lag_bytes", "Binlog that was not sent to the replica yet.", "session")
	c.replica.seconds = desc("replica_lag_seconds", "How far the event sent last is behind the newest one.", "session")
	c.replica.sent = desc("replica_sent_bytes_total", "Bytes of events sent to the replica in this session.", "session")
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		out <- m.desc
	}
	for _, d := range []*prometheus.Desc{c.build, c.source, c.peer.up, c.peer.match, c.replica.info, c.replica.bytes, c.replica.seconds, c.replica.sent} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	st := c.s.snapshot()
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, value, labels...) // panics only if the number of labels is wrong
	}
	for _, m := range c.metrics {
		send(m.desc, m.kind, m.value(&st))
	}
	send(c.build, prometheus.GaugeValue, 1, c.s.cfg.Version, c.s.cfg.GoVersion)
	send(c.source, prometheus.GaugeValue, 1, valid(st.Source.Address), valid(st.Source.State), valid(st.Source.ServerUUID), valid(st.Source.Version))
	for _, m := range st.Cluster.Members {
		if m.Self {
			continue
		}
		send(c.peer.up, prometheus.GaugeValue, truth(m.Up), valid(m.Name))
		if st.Cluster.Role == RoleLeader {
			send(c.peer.match, prometheus.GaugeValue, float64(m.Match), valid(m.Name))
		}
	}
	for _, r := range st.Replicas {
		id := strconv.FormatUint(uint64(r.Session), 10)
		send(c.replica.info, prometheus.GaugeValue, 1, id, valid(r.User), valid(r.Address), strconv.FormatUint(uint64(r.ServerID), 10), valid(r.UUID), valid(r.Mode))
		if r.Sent.File != "" { // else it is not known yet
			send(c.replica.bytes, prometheus.GaugeValue, float64(r.LagBytes), id)
			send(c.replica.seconds, prometheus.GaugeValue, float64(r.LagSeconds), id)
		}
		send(c.replica.sent, prometheus.CounterValue, float64(r.Bytes), id)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}

// valid makes a label of what a client sent: Prometheus takes UTF-8 only, and
// one bad label would spoil the whole scrape.
func valid(s string) string {
	const most = 128
	return strings.ToValidUTF8(s[:min(len(s), most)], "\uFFFD")
}
