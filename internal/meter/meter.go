// Package meter counts and times what goes through the replication path, for Prometheus,
// for the status, and for the log of slow commits. A Meter is an observer on the hooks, as
// anybody could write one: the path itself counts nothing for it, and nothing is counted
// twice.
package meter

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kingbus/internal/hook"
)

// Config says what a Meter does beside counting. The zero value is of use.
type Config struct {
	// Slow is how long a transaction may take, from its receipt until it is committed, or
	// acknowledged if the source asked for that, without being told in Log; 0 = for ever.
	Slow time.Duration
	Log  *slog.Logger     // nil = no logs
	Now  func() time.Time // nil = time.Now
}

// Meter observes all hooks and is a prometheus.Collector. It is safe for concurrent use. One
// that is given a Log is closed in the end.
type Meter struct {
	inbound  *inbound
	log      *raftLog
	outbound *outbound
}

// New returns a Meter.
func New(cfg Config) *Meter {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	began := cfg.Now()
	now := func() moment { return moment(cfg.Now().Sub(began)) }
	l := newRaftLog(now)
	return &Meter{inbound: newInbound(cfg, now, l), log: l, outbound: newOutbound(now)}
}

// moment is a time since the Meter was made; zero is none.
type moment time.Duration

func (m moment) seconds() float64 { return time.Duration(m).Seconds() }

// Observe registers it with all hooks.
func (m *Meter) Observe(s *hook.Set) {
	s.Transaction = append(s.Transaction, m.inbound, m.outbound)
	s.Storage = append(s.Storage, m.inbound)
	s.RelayIO = append(s.RelayIO, m.inbound)
	s.Transmit = append(s.Transmit, m.outbound)
	s.Raft = append(s.Raft, m.log)
}

// Close tells of the slow transactions that were not told of yet. It may be called again.
func (m *Meter) Close() { m.inbound.slow.close() }

// Describe implements prometheus.Collector.
func (m *Meter) Describe(out chan<- *prometheus.Desc) {
	m.inbound.describe(out)
	m.log.describe(out)
	m.outbound.describe(out)
}

// Collect implements prometheus.Collector.
func (m *Meter) Collect(out chan<- prometheus.Metric) {
	m.inbound.collect(out)
	m.log.collect(out)
	m.outbound.collect(out)
}

// numbers are metrics without labels, read when they are collected.
type numbers []number

type number struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func() float64
}

func (n *numbers) add(kind prometheus.ValueType, name, help string, value func() float64) {
	*n = append(*n, number{prometheus.NewDesc("kingbus_"+name, help, nil, nil), kind, value})
}

// counter and gauge add one whose value the function returns.
func (n *numbers) counter(name, help string, value func() float64) {
	n.add(prometheus.CounterValue, name, help, value)
}

func (n *numbers) gauge(name, help string, value func() float64) {
	n.add(prometheus.GaugeValue, name, help, value)
}

func (n numbers) describe(out chan<- *prometheus.Desc) {
	for _, c := range n {
		out <- c.desc
	}
}

func (n numbers) collect(out chan<- prometheus.Metric) {
	for _, c := range n {
		out <- prometheus.MustNewConstMetric(c.desc, c.kind, c.value()) // panics only for labels, and there are none
	}
}

// histogram returns one without labels.
func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kingbus_" + name, Help: help, Buckets: buckets})
}

// durations are bucket bounds in seconds, from 100 µs to 13 s: a sync takes as little, and
// what takes longer is a fault.
func durations() []float64 { return prometheus.ExponentialBuckets(0.0001, 2, 18) }
