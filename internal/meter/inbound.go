package meter

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"kingbus/internal/gtid"
	"kingbus/internal/hook"
)

// inbound observes the way in, from the source to the commit, and the answer to the
// source. It follows each transaction that this node receives, by its end at the source.
type inbound struct {
	hook.NoRelayIO
	now  func() moment
	log  *raftLog
	slow *slowLog

	commit, acknowledge prometheus.Histogram
	numbers             numbers

	mu                 sync.Mutex
	source             string // host:port of the last link
	received, proposed hook.Position
	counts             Received
	committed, dropped uint64 // transactions, on this node, whoever received them
	flushed, synced    uint64 // times that something was proposed, and found durable

	uncommitted fifo[transaction] // the first flushing of them were proposed
	flushing    int
	unanswered  fifo[transaction] // committed, and the source is not told yet
}

// maxFollowed bounds each of the two lists of transactions: those beyond are counted, and
// not timed.
const maxFollowed = 64 << 10

// Received counts what came from the source since the process started, over all links.
type Received struct {
	Links        uint64 // connections that were logged in
	Events       uint64 // of the stream: what exists on the wire only is none
	Bytes        uint64 // of these events
	Transactions uint64 // that came whole
}

// transaction is one on its way, and when it was where; zero is not known, or not yet.
type transaction struct {
	at    hook.Position // its end, at the source
	asked bool          // the source wants to be told
	gtid  gtid.GTID     // zero: not known
	entry uint64        // of the log, that commits it

	received, proposed, synced, committed, answered moment

	during string // the step in which the link ended, for which its time is that of the end; "": it is done
}

func (t *transaction) end() hook.Position { return t.at }

// breakOff notes that the link has ended with it on its way.
func (t *transaction) breakOff(now moment) {
	switch {
	case t.committed != 0:
		t.answered, t.during = now, "acknowledge"
	case t.proposed != 0:
		t.committed, t.during = now, "quorum"
	default:
		t.proposed, t.during = now, "propose"
	}
}

// upTo counts those of an ascending list that end at or before a place. Files are in the
// order of their names only as long as the source was not reset, so it is the list's order
// that counts.
func upTo[T any](list []T, end func(*T) hook.Position, at hook.Position) (n int) {
	for k := range list {
		if e := end(&list[k]); e.File != at.File {
			continue
		} else if e.Pos > at.Pos {
			break
		}
		n = k + 1
	}
	return n
}

func newInbound(cfg Config, now func() moment, log *raftLog) *inbound {
	i := &inbound{
		now: now, log: log, slow: newSlowLog(cfg),
		commit:      histogram("commit_seconds", "From the receipt of a transaction's end to its commit by a quorum, on the node that follows the source.", durations()),
		acknowledge: histogram("acknowledge_seconds", "From the receipt of the end of a transaction that the source wants acknowledged to the acknowledgement that covers it.", durations()),
	}
	of := func(value func() uint64) func() float64 {
		return func() float64 {
			i.mu.Lock()
			defer i.mu.Unlock()
			return float64(value())
		}
	}
	n := &i.numbers
	n.counter("source_links_total", "Connections to the source that were logged in.", of(func() uint64 { return i.counts.Links }))
	n.counter("source_events_total", "Events received from the source for the stream.", of(func() uint64 { return i.counts.Events }))
	n.counter("source_bytes_total", "Bytes of events received from the source for the stream.", of(func() uint64 { return i.counts.Bytes }))
	n.counter("source_transactions_total", "Transactions received whole from the source.", of(func() uint64 { return i.counts.Transactions }))
	n.counter("source_proposals_total", "Runs of events that this node has proposed as the leader.", of(func() uint64 { return i.flushed }))
	n.gauge("source_uncommitted_transactions", "Transactions received and not committed yet.", of(func() uint64 { return uint64(i.uncommitted.len()) }))
	n.gauge("source_unacknowledged_transactions", "Transactions committed that the source wants acknowledged and is not told of yet.", of(func() uint64 { return uint64(i.unanswered.len()) }))
	n.gauge("source_unacknowledged_seconds", "How long the oldest transaction has been committed of those that the source wants acknowledged and is not told of yet; 0 if there is none.", func() float64 {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.unanswered.len() == 0 {
			return 0
		}
		return (i.now() - i.unanswered.all()[0].committed).seconds()
	})
	n.counter("committed_transactions_total", "Transactions committed while this process ran.", of(func() uint64 { return i.committed }))
	n.counter("dropped_transactions_total", "Transactions dropped because their source or leader died in the middle.", of(func() uint64 { return i.dropped }))
	n.counter("durable_boundaries_total", "Times that more of the log was found durable at a quorum.", of(func() uint64 { return i.synced }))
	return i
}

// Received returns what came from the source.
func (m *Meter) Received() Received {
	m.inbound.mu.Lock()
	defer m.inbound.mu.Unlock()
	return m.inbound.counts
}

// Hops returns up to where this node has received and proposed the source's binlog, in the
// source's coordinates; zero: nothing yet. They stay when the link ends.
func (m *Meter) Hops() (received, proposed hook.Position) {
	m.inbound.mu.Lock()
	defer m.inbound.mu.Unlock()
	return m.inbound.received, m.inbound.proposed
}

// Start implements hook.RelayIO.
func (i *inbound) Start(l *hook.Link) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.counts.Links++
	i.source = l.Source
	return nil
}

// AfterQueue implements hook.RelayIO.
func (i *inbound) AfterQueue(_ *hook.Link, q *hook.Queued) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.received = q.At; q.Stored == 0 {
		return
	}
	i.counts.Events++
	i.counts.Bytes += uint64(q.Stored)
	if !q.Ended {
		return
	}
	i.counts.Transactions++
	if i.uncommitted.len() < maxFollowed {
		i.uncommitted.push(transaction{at: q.At, asked: q.Asked, received: i.now()})
	}
}

// AfterFlush implements hook.Storage. It may be told of a run later than of its commit.
func (i *inbound) AfterFlush(source hook.Position) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.flushed++
	i.proposed = source
	now, waiting := i.now(), i.uncommitted.all()[i.flushing:]
	n := upTo(waiting, (*transaction).end, source)
	for k := range waiting[:n] {
		waiting[k].proposed = now
	}
	i.flushing += n
}

// AfterSync implements hook.Storage.
func (i *inbound) AfterSync(hook.Position) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.synced++
}

// AfterCommit implements hook.Transaction.
func (i *inbound) AfterCommit(c hook.Commit) {
	source, done := i.committedBy(c, i.now(), i.log.syncedAt(c.Entry))
	for n := range done {
		t := &done[n]
		i.commit.Observe((t.committed - t.received).seconds())
		if !t.asked {
			i.slow.note(source, t)
		}
	}
}

// committedBy takes out the transactions that an entry has committed; those that this node
// did not receive are not there.
func (i *inbound) committedBy(c hook.Commit, now, synced moment) (source string, done []transaction) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.committed += c.Count
	n := upTo(i.uncommitted.all(), (*transaction).end, c.Source)
	if n == 0 {
		return i.source, nil
	}
	done = slices.Clone(i.uncommitted.all()[:n])
	i.uncommitted.drop(n)
	i.flushing = max(0, i.flushing-n)
	for k := range done {
		t := &done[k]
		t.entry, t.synced, t.committed = c.Entry, synced, now
		if len(c.GTIDs) == n && c.Count == uint64(n) {
			t.gtid = c.GTIDs[k]
		}
		if t.asked && i.unanswered.len() < maxFollowed {
			i.unanswered.push(*t)
		}
	}
	return i.source, done
}

// AfterRollback implements hook.Transaction.
func (i *inbound) AfterRollback(hook.Rollback) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.dropped++
}

// AfterAnswer implements hook.RelayIO.
func (i *inbound) AfterAnswer(l *hook.Link, at hook.Position) {
	i.mu.Lock()
	n := upTo(i.unanswered.all(), (*transaction).end, at)
	done := slices.Clone(i.unanswered.all()[:n])
	i.unanswered.drop(n)
	i.mu.Unlock()
	now := i.now()
	for k := range done {
		t := &done[k]
		t.answered = now
		i.acknowledge.Observe((now - t.received).seconds())
		i.slow.note(l.Source, t)
	}
}

// AfterReset implements hook.RelayIO: what was received comes once more, and what is
// committed will not be acknowledged over this link. Both may have waited for long.
func (i *inbound) AfterReset(l *hook.Link) {
	i.mu.Lock()
	left := slices.Concat(i.unanswered.all(), i.uncommitted.all())
	i.uncommitted, i.flushing, i.unanswered = fifo[transaction]{}, 0, fifo[transaction]{}
	i.mu.Unlock()
	now := i.now()
	for k := range left {
		left[k].breakOff(now)
		i.slow.note(l.Source, &left[k])
	}
	i.slow.flush()
}

func (i *inbound) describe(out chan<- *prometheus.Desc) {
	i.numbers.describe(out)
	i.commit.Describe(out)
	i.acknowledge.Describe(out)
}

func (i *inbound) collect(out chan<- prometheus.Metric) {
	i.numbers.collect(out)
	i.commit.Collect(out)
	i.acknowledge.Collect(out)
}
