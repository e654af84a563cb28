package meter

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"kingbus/internal/hook"
)

// raftLog observes the log on this node's disk, and the elections.
type raftLog struct {
	now     func() moment
	numbers numbers

	write, sync, entries, bytes prometheus.Histogram

	mu    sync.Mutex
	syncs fifo[syncedTo] // that no commit has asked for yet, by ascending entries
	last  hook.Election
	known uint64 // the leader before nobody was known; 0: none ever was
	// elections counts terms, changes leaders, led how often that was this node.
	elections, changes, led uint64
}

// syncedTo is when the log was durable on this node up to an entry.
type syncedTo struct {
	entry uint64
	at    moment
}

// maxSyncs bounds what is remembered of syncs while nothing is committed.
const maxSyncs = 4096

func newRaftLog(now func() moment) *raftLog {
	l := &raftLog{
		now:     now,
		write:   histogram("log_write_seconds", "How long it took to write a batch of entries to the log, before its sync.", durations()),
		sync:    histogram("log_sync_seconds", "How long it took to sync the log (fsync), once for each batch.", durations()),
		entries: histogram("log_batch_entries", "Entries that were made durable with one sync.", prometheus.ExponentialBuckets(1, 2, 12)),
		bytes:   histogram("log_batch_bytes", "Bytes of payload that were made durable with one sync.", prometheus.ExponentialBuckets(256, 4, 10)),
	}
	of := func(v *uint64) func() float64 {
		return func() float64 {
			l.mu.Lock()
			defer l.mu.Unlock()
			return float64(*v)
		}
	}
	l.numbers.counter("raft_elections_total", "Terms of the Raft group that began after this process had first known a leader.", of(&l.elections))
	l.numbers.counter("raft_leader_changes_total", "How often this node came to know another leader than the one before.", of(&l.changes))
	l.numbers.counter("raft_leaderships_total", "How often this node was elected.", of(&l.led))
	return l
}

// AfterAppend implements hook.Raft.
func (l *raftLog) AfterAppend(a hook.Appended) {
	l.write.Observe(a.Write.Seconds())
	l.sync.Observe(a.Sync.Seconds())
	l.entries.Observe(float64(a.Entries))
	l.bytes.Observe(float64(a.Bytes))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.syncs.len() == maxSyncs {
		l.syncs.drop(1)
	}
	if all := l.syncs.all(); len(all) > 0 && all[len(all)-1].entry >= a.Last {
		l.syncs = fifo[syncedTo]{} // another leader has overwritten what was there
	}
	l.syncs.push(syncedTo{a.Last, l.now()})
}

// syncedAt returns when an entry was durable on this node; zero: that is not known. Entries
// are asked for in ascending order.
func (l *raftLog) syncedAt(entry uint64) moment {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.syncs.all()
	n := 0
	for n < len(all) && all[n].entry < entry {
		n++
	}
	var at moment
	if n < len(all) {
		at = all[n].at
	}
	l.syncs.drop(n)
	return at
}

// AfterElection implements hook.Raft.
func (l *raftLog) AfterElection(e hook.Election) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Before it has heard of a leader a node catches up with the terms that began without it.
	if l.known != 0 && e.Term > l.last.Term {
		l.elections += e.Term - l.last.Term
	}
	if e.Leader != 0 && e.Leader != l.known {
		if l.known != 0 {
			l.changes++
		}
		l.known = e.Leader
	}
	if e.Self && (!l.last.Self || e.Term != l.last.Term) {
		l.led++
	}
	l.last = e
}

func (l *raftLog) describe(out chan<- *prometheus.Desc) {
	l.numbers.describe(out)
	for _, h := range []prometheus.Histogram{l.write, l.sync, l.entries, l.bytes} {
		h.Describe(out)
	}
}

func (l *raftLog) collect(out chan<- prometheus.Metric) {
	l.numbers.collect(out)
	for _, h := range []prometheus.Histogram{l.write, l.sync, l.entries, l.bytes} {
		h.Collect(out)
	}
}
