// Package meter counts what goes through the replication path, for Prometheus. A Meter
// is an observer on the hooks, as anybody could write one: the path itself counts
// nothing for it.
package meter

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kingbus/internal/hook"
)

// Meter observes all hooks and is a prometheus.Collector. It is safe for concurrent use.
type Meter struct {
	now func() time.Time

	links, events, bytes, transactions atomic.Uint64 // of the source
	committed, rolledBack              atomic.Uint64
	dumps, sentEvents, sentBytes       atomic.Uint64
	open                               atomic.Int64 // dumps
	answers                            atomic.Uint64
	flushed, synced                    atomic.Uint64 // times that something was proposed, and found durable
	commit                             prometheus.Histogram

	mu      sync.Mutex
	pending []received // transactions that have come and are not committed, oldest first

	descs []counter
}

// received is when the end of a transaction came, and where that is at the source.
type received struct {
	at   hook.Position
	when time.Time
}

// maxPending bounds the transactions whose time is taken.
const maxPending = 64 << 10

type counter struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*Meter) float64
}

// New returns a Meter.
func New() *Meter {
	m := &Meter{now: time.Now, commit: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "kingbus_commit_seconds", Help: "From the receipt of a transaction's end to its commit by a quorum, on the node that follows the source.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 18),
	})}
	add := func(kind prometheus.ValueType, name, help string, value func(*Meter) float64) {
		m.descs = append(m.descs, counter{prometheus.NewDesc("kingbus_"+name, help, nil, nil), kind, value})
	}
	count := func(name, help string, of *atomic.Uint64) {
		add(prometheus.CounterValue, name, help, func(*Meter) float64 { return float64(of.Load()) })
	}
	count("source_links_total", "Connections to the source that were logged in.", &m.links)
	count("source_events_total", "Events received from the source for the stream.", &m.events)
	count("source_bytes_total", "Bytes of events received from the source for the stream.", &m.bytes)
	count("source_transactions_total", "Transactions received whole from the source.", &m.transactions)
	count("source_proposals_total", "Runs of events that this node has proposed as the leader.", &m.flushed)
	add(prometheus.GaugeValue, "source_uncommitted_transactions", "Transactions received and not committed yet.", func(m *Meter) float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		return float64(len(m.pending))
	})
	count("committed_transactions_total", "Transactions committed while this process ran.", &m.committed)
	count("dropped_transactions_total", "Transactions dropped because their source or leader died in the middle.", &m.rolledBack)
	count("durable_boundaries_total", "Times that more of the log was found durable at a quorum.", &m.synced)
	count("client_dumps_total", "Dumps of the binlog that have begun.", &m.dumps)
	add(prometheus.GaugeValue, "client_dumps", "Dumps of the binlog that go on.", func(m *Meter) float64 { return float64(m.open.Load()) })
	count("client_sent_events_total", "Events sent to clients.", &m.sentEvents)
	count("client_sent_bytes_total", "Bytes of events sent to clients.", &m.sentBytes)
	count("client_answers_total", "Packets that clients have sent during a dump, acknowledgements among them.", &m.answers)
	return m
}

// Observe registers it with all hooks.
func (m *Meter) Observe(s *hook.Set) {
	s.Transaction = append(s.Transaction, m)
	s.Storage = append(s.Storage, m)
	s.RelayIO = append(s.RelayIO, linkMeter{m: m})
	s.Transmit = append(s.Transmit, dumpMeter{m: m})
}

// Describe implements prometheus.Collector.
func (m *Meter) Describe(out chan<- *prometheus.Desc) {
	for _, c := range m.descs {
		out <- c.desc
	}
	m.commit.Describe(out)
}

// Collect implements prometheus.Collector.
func (m *Meter) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.descs {
		out <- prometheus.MustNewConstMetric(c.desc, c.kind, c.value(m)) // panics only for labels, and there are none
	}
	m.commit.Collect(out)
}

// AfterCommit implements hook.Transaction.
func (m *Meter) AfterCommit(c hook.Commit) {
	m.committed.Add(c.Count)
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for n < len(m.pending) && m.pending[n].at != c.Source {
		n++
	}
	if n == len(m.pending) {
		return // this node did not receive it
	}
	now := m.now()
	for _, r := range m.pending[:n+1] {
		m.commit.Observe(now.Sub(r.when).Seconds())
	}
	m.pending = m.pending[n+1:] // append makes another array when it comes to its end
}

// AfterRollback implements hook.Transaction.
func (m *Meter) AfterRollback(hook.Rollback) { m.rolledBack.Add(1) }

// AfterFlush implements hook.Storage.
func (m *Meter) AfterFlush(hook.Position) { m.flushed.Add(1) }

// AfterSync implements hook.Storage.
func (m *Meter) AfterSync(hook.Position) { m.synced.Add(1) }

// linkMeter observes connections to the source.
type linkMeter struct {
	hook.NoRelayIO
	m *Meter
}

// Start implements hook.RelayIO.
func (l linkMeter) Start(*hook.Link) error {
	l.m.links.Add(1)
	return nil
}

// AfterQueue implements hook.RelayIO.
func (l linkMeter) AfterQueue(_ *hook.Link, q *hook.Queued) {
	m := l.m
	if q.Stored == 0 {
		return
	}
	m.events.Add(1)
	m.bytes.Add(uint64(q.Stored))
	if !q.Ended {
		return
	}
	m.transactions.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.pending) < maxPending {
		m.pending = append(m.pending, received{q.At, m.now()})
	}
}

// AfterReset implements hook.RelayIO: what was received comes once more.
func (l linkMeter) AfterReset(*hook.Link) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.m.pending = nil
}

// dumpMeter observes dumps.
type dumpMeter struct {
	hook.NoTransmit
	m *Meter
}

// Start implements hook.Transmit.
func (d dumpMeter) Start(*hook.Dump) (bool, error) {
	d.m.dumps.Add(1)
	d.m.open.Add(1)
	return true, nil
}

// AfterSend implements hook.Transmit.
func (d dumpMeter) AfterSend(_ *hook.Dump, e *hook.Sending) error {
	d.m.sentEvents.Add(1)
	d.m.sentBytes.Add(e.Length)
	return nil
}

// Received implements hook.Transmit.
func (d dumpMeter) Received(*hook.Dump, []byte) { d.m.answers.Add(1) }

// Stop implements hook.Transmit.
func (d dumpMeter) Stop(*hook.Dump) { d.m.open.Add(-1) }
