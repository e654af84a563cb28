package admin

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kingbus/internal/semisync"
)

// collector makes metrics of one Status per scrape, so that what belongs together is of
// one moment. What is counted and timed on the way is the business of package meter.
type collector struct {
	s        *Server
	numbers  []number
	families []family
}

// number is a metric without labels.
type number struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*Status) float64
}

// family is a metric with labels: collect gives out its samples, of which no two have the
// same labels.
type family struct {
	desc    *prometheus.Desc
	kind    prometheus.ValueType
	collect func(st *Status, give func(value float64, labels ...string))
}

func newCollector(s *Server) *collector {
	c := &collector{s: s}
	c.node()
	c.source()
	c.stores()
	c.clients()
	c.replicas()
	return c
}

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("kingbus_"+name, help, labels, nil)
}

func (c *collector) gauge(name, help string, value func(*Status) float64) {
	c.numbers = append(c.numbers, number{newDesc(name, help), prometheus.GaugeValue, value})
}

func (c *collector) counter(name, help string, value func(*Status) float64) {
	c.numbers = append(c.numbers, number{newDesc(name, help), prometheus.CounterValue, value})
}

// family adds gauges with labels.
func (c *collector) family(name, help string, labels []string, collect func(*Status, func(float64, ...string))) {
	c.families = append(c.families, family{newDesc(name, help, labels...), prometheus.GaugeValue, collect})
}

// node adds what is about the node and its cluster.
func (c *collector) node() {
	c.family("build_info", "Always 1; the labels tell the version.", []string{"version", "go_version"}, func(_ *Status, give func(float64, ...string)) {
		give(1, c.s.cfg.Version, c.s.cfg.GoVersion)
	})
	c.gauge("ready", "1 if the node is fit to serve.", func(s *Status) float64 { return truth(s.Ready) })
	refused := newDesc("api_refused_total", "What the HTTP API has refused before it looked at what is asked for: connections for which there was no room, requests with a wrong token, with a certificate that is trusted no more, and with nothing of both.", "reason")
	c.families = append(c.families, family{refused, prometheus.CounterValue, func(_ *Status, give func(float64, ...string)) { c.s.refused.each(give) }})
	c.family("certificate_end_timestamp_seconds", "When a certificate ends that the node shows: to replicas, other nodes or clients of the HTTP API.", []string{"to"}, func(s *Status, give func(float64, ...string)) {
		for _, shown := range s.Certificates {
			give(float64(shown.NotAfter.Unix()), shown.To)
		}
	})

	c.gauge("raft_leader", "1 if this node leads.", func(s *Status) float64 { return truth(s.Node.Leader) })
	c.gauge("raft_term", "Term of the Raft group.", func(s *Status) float64 { return float64(s.Node.Term) })
	c.gauge("raft_applied_index", "Last log entry folded into the stream.", func(s *Status) float64 { return float64(s.Node.Applied) })
	c.gauge("raft_last_index", "Last entry of the log.", func(s *Status) float64 { return float64(s.Node.LastIndex) })
	c.gauge("raft_first_index", "First entry of the log that is still there.", func(s *Status) float64 { return float64(s.Node.FirstIndex) })

	c.gauge("cluster_members", "Nodes of the cluster, as far as this node knows.", func(s *Status) float64 { return float64(len(s.Cluster.Members)) })
	c.gauge("cluster_voters", "Nodes of the cluster that vote.", func(s *Status) float64 { return float64(s.Cluster.Voters()) })
	c.gauge("cluster_has_leader", "1 if this node knows who leads.", func(s *Status) float64 { return truth(s.Cluster.LeaderID != 0) })
	c.gauge("cluster_damaged_entries", "Entries that are being fetched again because this node's disk has damaged them.", func(s *Status) float64 { return float64(s.Cluster.Damaged) })
	c.gauge("cluster_installing_fetched_bytes", "Bytes fetched of what this node lacks; 0 if it lacks nothing.", func(s *Status) float64 {
		if p := s.Cluster.Installing; p != nil {
			return float64(p.Done)
		}
		return 0
	})
	c.gauge("cluster_installing_size_bytes", "Bytes that this node lacks and fetches from others; 0 if it lacks nothing.", func(s *Status) float64 {
		if p := s.Cluster.Installing; p != nil {
			return float64(p.Total)
		}
		return 0
	})
	peers := func(name, help string, leader bool, value func(*Status, int) float64) {
		c.family(name, help, []string{"peer"}, func(st *Status, give func(float64, ...string)) {
			for i, m := range st.Cluster.Members {
				if !m.Self && (!leader || st.Cluster.Role == RoleLeader) {
					give(value(st, i), valid(m.Name))
				}
			}
		})
	}
	peers("cluster_peer_up", "1 if the peer was heard from within the last seconds.", false, func(s *Status, i int) float64 { return truth(s.Cluster.Members[i].Up) })
	peers("cluster_peer_match_index", "Last log entry that the peer has acknowledged to this node, which leads.", true, func(s *Status, i int) float64 { return float64(s.Cluster.Members[i].Match) })
	peers("cluster_peer_inflight_messages", "Messages with entries that the peer has not answered yet to this node, which leads.", true, func(s *Status, i int) float64 { return float64(s.Cluster.Members[i].Inflight) })
	peers("cluster_peer_queued_messages", "Messages that wait in this node to be sent to the peer.", false, func(s *Status, i int) float64 { return float64(s.Cluster.Members[i].Queued) })

	c.family("queue_length", "What waits in this node: proposals that are not applied, pieces of work before the goroutines that append and apply, and entries kept for peers that are behind (window).", []string{"queue"},
		func(s *Status, give func(float64, ...string)) {
			q := s.Node.Queues
			give(float64(q.Proposals), "proposals")
			give(float64(q.Appends), "appends")
			give(float64(q.Applies), "applies")
			give(float64(q.Window), "window")
		})
	c.family("queue_bytes", "Bytes of payload that wait in this node: proposals that are not applied (the source waits at 16 MiB), what peers have sent and is not on disk (intake, 32 MiB), and what is in memory to be applied (window, 32 MiB).", []string{"queue"},
		func(s *Status, give func(float64, ...string)) {
			q := s.Node.Queues
			give(float64(q.ProposalBytes), "proposals")
			give(float64(q.Intake), "intake")
			give(float64(q.WindowBytes), "window")
		})
}

// source adds what is about the link to the source.
func (c *collector) source() {
	c.family("source_info", "Always 1; the labels tell which source is followed and how it is.", []string{"address", "state", "server_uuid", "version"}, func(s *Status, give func(float64, ...string)) {
		give(1, valid(s.Source.Address), valid(s.Source.State), valid(s.Source.ServerUUID), valid(s.Source.Version))
	})
	c.gauge("source_connected", "1 if the binlog flows from the source.", func(s *Status) float64 { return truth(s.Source.Connected) })
	c.family("source_behind_seconds", "How far what is committed is behind the source: the age of the newest event when it came or, until it is committed, now; 0 when the source has no more. Only on the node that follows it.", nil,
		func(s *Status, give func(float64, ...string)) {
			if s.Source.Behind != nil {
				give(*s.Source.Behind)
			}
		})
	c.gauge("source_last_event_timestamp_seconds", "When the newest event received was made, by the source's clock; 0 if there is none.", func(s *Status) float64 { return unix(s.Source.LastEvent) })
	c.gauge("source_last_heard_timestamp_seconds", "When the source last sent anything, heartbeats too; 0 if never.", func(s *Status) float64 { return unix(s.Source.LastHeard) })
	c.gauge("source_semi_sync_waiting", "1 if commits at the source wait for kingbus (semi-synchronous replication).", func(s *Status) float64 { return truth(s.Source.SemiSync.State == semisync.StateWaiting) })
	c.counter("source_semi_sync_asked_total", "Events of the source that asked to be acknowledged.", func(s *Status) float64 { return float64(s.Source.SemiSync.Asked) })
	c.counter("source_semi_sync_acknowledged_total", "Acknowledgements sent to the source, each of which may be for many events.", func(s *Status) float64 { return float64(s.Source.SemiSync.Acknowledged) })
	c.counter("source_semi_sync_fallbacks_total", "How often the source has fallen back to asynchronous replication while this node followed it.", func(s *Status) float64 { return float64(s.Source.SemiSync.FellBack) })
	chain := func(value func(*semisync.ChainStatus) float64) func(*Status) float64 {
		return func(s *Status) float64 {
			if s.Source.SemiSync.Chain == nil {
				return 0
			}
			return value(s.Source.SemiSync.Chain)
		}
	}
	c.gauge("source_semi_sync_replicas_wanted", "Replicas that have to have a transaction before it is acknowledged to the source, beside the quorum (--acknowledge).", chain(func(c *semisync.ChainStatus) float64 { return float64(c.Replicas) }))
	c.gauge("source_semi_sync_replicas_waiting", "Acknowledgements that are durable and wait for replicas.", chain(func(c *semisync.ChainStatus) float64 { return float64(c.Waiting) }))
	c.gauge("source_semi_sync_replicas_degraded", "1 while the quorum is enough because replicas took too long.", chain(func(c *semisync.ChainStatus) float64 { return truth(c.State == semisync.ChainDegraded) }))
	c.counter("source_semi_sync_replicas_late_total", "How often replicas took too long.", chain(func(c *semisync.ChainStatus) float64 { return float64(c.Degraded) }))

	c.hops()
}

// stores adds what is about the stream and the disk.
func (c *collector) stores() {
	c.counter("stream_transactions_total", "Transactions committed since the stream began.", func(s *Status) float64 { return float64(s.Stream.Transactions) })
	c.gauge("stream_end_position_bytes", "Position of the last boundary in the current binlog file.", func(s *Status) float64 { return float64(s.Stream.End.Pos) })
	c.gauge("stream_files", "Binlog files kept.", func(s *Status) float64 { return float64(len(s.Stream.Files)) })
	c.gauge("stream_bytes", "Size of all binlog files kept.", func(s *Status) float64 { return float64(s.Stream.Bytes) })
	c.gauge("stream_last_event_timestamp_seconds", "When the newest event was made, by the source's clock; 0 if there is none.", func(s *Status) float64 { return unix(s.Stream.LastEvent) })

	c.gauge("log_bytes", "Size of the log on disk.", func(s *Status) float64 { return float64(s.Disk.Used) })
	c.gauge("log_segments", "Segment files of the log.", func(s *Status) float64 { return float64(s.Disk.Segments) })
	c.gauge("disk_free_bytes", "Free space on the disk of the data folder.", func(s *Status) float64 { return float64(s.Disk.Free) })
	c.gauge("disk_size_bytes", "Size of the disk of the data folder.", func(s *Status) float64 { return float64(s.Disk.Total) })
	c.gauge("disk_reserve_bytes", "Free space that events must leave.", func(s *Status) float64 { return float64(s.Disk.Reserve) })
}

// clients adds what is about all clients together.
func (c *collector) clients() {
	c.gauge("client_connections", "Connections of replicas and clients that are open.", func(s *Status) float64 { return float64(s.Clients.Connections) })
	c.counter("client_connections_accepted_total", "Connections accepted.", func(s *Status) float64 { return float64(s.Clients.Accepted) })
	c.counter("client_connections_refused_total", "Connections refused because there were too many.", func(s *Status) float64 { return float64(s.Clients.Refused) })
	c.counter("client_failed_logins_total", "Logins that failed.", func(s *Status) float64 { return float64(s.Clients.FailedLogins) })
	c.counter("client_queries_total", "Statements of clients.", func(s *Status) float64 { return float64(s.Clients.Queries) })
	c.counter("client_dumps_total", "Requests for the binlog, refused ones among them.", func(s *Status) float64 { return float64(s.Clients.Dumps) })

	c.gauge("semi_sync_clients", "Semi-synchronous replicas of this node (rpl_semi_sync_source_clients).", func(s *Status) float64 { return float64(s.SemiSync.Clients) })
	c.gauge("semi_sync_on", "1 if transactions wait for semi-synchronous replicas of this node (rpl_semi_sync_source_status).", func(s *Status) float64 { return truth(s.SemiSync.On) })
	c.gauge("semi_sync_waiting", "Transactions that wait for semi-synchronous replicas now (rpl_semi_sync_source_wait_sessions).", func(s *Status) float64 { return float64(s.SemiSync.Waiting) })
	c.counter("semi_sync_acknowledged_transactions_total", "Transactions that semi-synchronous replicas have acknowledged in time (rpl_semi_sync_source_yes_tx).", func(s *Status) float64 { return float64(s.SemiSync.YesTx) })
	c.counter("semi_sync_unacknowledged_transactions_total", "Transactions that they have not (rpl_semi_sync_source_no_tx).", func(s *Status) float64 { return float64(s.SemiSync.NoTx) })
	c.counter("semi_sync_fallbacks_total", "How often this node has fallen back to asynchronous replication (rpl_semi_sync_source_no_times).", func(s *Status) float64 { return float64(s.SemiSync.NoTimes) })
	c.counter("semi_sync_waits_total", "Transactions that had to wait for a semi-synchronous replica (rpl_semi_sync_source_tx_waits).", func(s *Status) float64 { return float64(s.SemiSync.TxWaits) })
	c.counter("semi_sync_wait_seconds_total", "Time that these waited, all together (rpl_semi_sync_source_tx_wait_time).", func(s *Status) float64 { return s.SemiSync.TxWaitTime.Seconds() })
	c.counter("semi_sync_refused_acknowledgements_total", "Acknowledgements of replicas that were refused: malformed, or for what was never sent.", func(s *Status) float64 { return float64(s.SemiSync.Refused) })
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range c.numbers {
		out <- m.desc
	}
	for _, f := range c.families {
		out <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	st := c.s.snapshot()
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, value, labels...) // panics only if the number of labels is wrong
	}
	for _, m := range c.numbers {
		send(m.desc, m.kind, m.value(&st))
	}
	for _, f := range c.families {
		f.collect(&st, func(value float64, labels ...string) { send(f.desc, f.kind, value, labels...) })
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
