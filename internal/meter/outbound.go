package meter

import (
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"kingbus/internal/hook"
)

// outbound observes the way out, from the commit to the replicas. What was sent is counted
// for each dump, by its goroutine alone, and added up when somebody looks.
type outbound struct {
	hook.NoTransaction
	now func() moment

	send        prometheus.Histogram
	acknowledge *prometheus.HistogramVec
	answers     *prometheus.Desc
	all, each   traffic

	newest atomic.Pointer[served]

	mu       sync.Mutex
	dumps    map[*dump]struct{} // those that go on
	replicas map[replica]*total
	gone     Traffic // of replicas that were forgotten
}

// replica tells one from others, over all its connections.
type replica struct {
	name     string // hook.Dump.Name
	serverID uint32
}

// maxReplicas bounds those of whom is kept what they were sent: a client says of itself who
// it is. Beyond, those that have gone are forgotten; if none has, they share one name.
const maxReplicas = 256

// otherReplicas is that name.
const otherReplicas = "others"

// served is where the newest transaction ends in the served binlog, and since when it can be
// read. A dump that sends it before the news of the commit is here is not timed.
type served struct {
	at    hook.Position
	since moment
}

// total is what a replica was sent in dumps that have ended, and how many have not.
type total struct {
	Traffic
	open int
}

// dump observes one dump.
type dump struct {
	hook.NoTransmission
	o                                     *outbound
	session                               uint32
	of                                    replica
	began                                 moment
	events, bytes, transactions, received atomic.Uint64

	mu    sync.Mutex
	asked fifo[asked] // that were not acknowledged
	acked hook.Position
	wait  prometheus.Observer // nil until something was acknowledged: few who dump do that
}

// asked is an event that the replica was asked to acknowledge.
type asked struct {
	at   hook.Position
	sent moment
}

func (a *asked) end() hook.Position { return a.at }

// maxAsked bounds the events of a dump whose acknowledgement is timed: the newest.
const maxAsked = 4096

// Traffic counts what was sent to a replica.
type Traffic struct {
	Events uint64 `json:"events"` // artificial ones and heartbeats, too
	Bytes  uint64 `json:"bytes"`  // of these events
	// Transactions are those whose beginning an event tells: all but those of MySQL before
	// 5.7 without GTIDs.
	Transactions uint64 `json:"transactions"`
	// Answers are packets that it has sent in the middle of a dump, acknowledgements among
	// them; Acknowledged is what the last of these said, zero if there was none.
	Answers      uint64        `json:"answers"`
	Acknowledged hook.Position `json:"acknowledged,omitzero"`
}

func (t *Traffic) add(o Traffic) {
	t.Events += o.Events
	t.Bytes += o.Bytes
	t.Transactions += o.Transactions
	t.Answers += o.Answers
}

// traffic describes what is told of a Traffic.
type traffic struct{ events, bytes, transactions *prometheus.Desc }

func newTraffic(prefix, whom string, labels ...string) traffic {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("kingbus_"+prefix+name, help+" sent to "+whom+".", labels, nil)
	}
	return traffic{
		events: desc("sent_events_total", "Events, artificial ones and heartbeats among them,"), bytes: desc("sent_bytes_total", "Bytes of events"),
		transactions: desc("sent_transactions_total", "Transactions, as far as an event tells that one begins (not so with MySQL before 5.7 without GTIDs),"),
	}
}

func newOutbound(now func() moment) *outbound {
	return &outbound{
		now:  now,
		send: histogram("send_seconds", "From the commit of a transaction on this node until it was written to a replica that was waiting for it.", durations()),
		acknowledge: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kingbus_replica_acknowledge_seconds", Help: "From the moment in which a semi-synchronous replica was sent the end of a transaction to its acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.0002, 4, 9),
		}, []string{"replica", "server_id"}),
		answers:  prometheus.NewDesc("kingbus_client_answers_total", "Packets that clients have sent during a dump, acknowledgements among them.", nil, nil),
		all:      newTraffic("client_", "clients"),
		each:     newTraffic("replica_", "the replica", "replica", "server_id"),
		dumps:    map[*dump]struct{}{},
		replicas: map[replica]*total{},
	}
}

// AfterCommit implements hook.Transaction.
func (o *outbound) AfterCommit(c hook.Commit) { o.newest.Store(&served{c.At, o.now()}) }

// Start implements hook.Transmit.
func (o *outbound) Start(d *hook.Dump) (hook.Transmission, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := replica{d.Name(), d.ServerID}
	if o.replicas[r] == nil && len(o.replicas) >= maxReplicas && !o.forgetLocked() {
		r = replica{name: otherReplicas}
	}
	t := o.replicas[r]
	if t == nil {
		t = &total{}
		o.replicas[r] = t
	}
	t.open++
	mine := &dump{o: o, session: d.Session, of: r, began: o.now()}
	o.dumps[mine] = struct{}{}
	return mine, nil
}

// forgetLocked makes room for a replica: one that has gone is counted with all others only.
func (o *outbound) forgetLocked() bool {
	for r, t := range o.replicas {
		if t.open > 0 || r.name == otherReplicas {
			continue
		}
		o.gone.add(t.Traffic)
		o.acknowledge.DeleteLabelValues(r.labels()...)
		delete(o.replicas, r)
		return true
	}
	return false
}

func (r replica) labels() []string {
	return []string{r.name, strconv.FormatUint(uint64(r.serverID), 10)}
}

// AfterSend implements hook.Transmission.
func (d *dump) AfterSend(_ *hook.Dump, e *hook.Sending) error {
	d.events.Add(1)
	d.bytes.Add(e.Length)
	if e.Begins {
		d.transactions.Add(1)
	}
	// Who has come after the commit was not waiting for it.
	if n := d.o.newest.Load(); e.Stored && n != nil && n.since >= d.began && n.at.Pos == e.At.Pos && n.at.File == e.At.File {
		d.o.send.Observe((d.o.now() - n.since).seconds())
	}
	if !e.Asked {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asked.len() == maxAsked {
		d.asked.drop(1)
	}
	d.asked.push(asked{e.At, d.o.now()})
	return nil
}

// Received implements hook.Transmission.
func (d *dump) Received(*hook.Dump, []byte) { d.received.Add(1) }

// AfterAck implements hook.Transmission. It stands for all that was sent up to there.
func (d *dump) AfterAck(_ *hook.Dump, at hook.Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.acked = at
	n := upTo(d.asked.all(), (*asked).end, at)
	if n > 0 && d.wait == nil {
		d.wait = d.o.acknowledge.WithLabelValues(d.of.labels()...)
	}
	now := d.o.now()
	for _, a := range d.asked.all()[:n] {
		d.wait.Observe((now - a.sent).seconds())
	}
	d.asked.drop(n)
}

// Stop implements hook.Transmission.
func (d *dump) Stop(*hook.Dump) {
	o := d.o
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.dumps, d)
	t := o.replicas[d.of]
	t.add(d.traffic())
	t.open--
}

func (d *dump) traffic() Traffic {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Traffic{Events: d.events.Load(), Bytes: d.bytes.Load(), Transactions: d.transactions.Load(), Answers: d.received.Load(), Acknowledged: d.acked}
}

// Dumps returns what was sent in the dumps that go on, by session.
func (m *Meter) Dumps() map[uint32]Traffic {
	o := m.outbound
	o.mu.Lock()
	defer o.mu.Unlock()
	out := map[uint32]Traffic{}
	for d := range o.dumps {
		out[d.session] = d.traffic()
	}
	return out
}

// Sent returns what was sent to all clients since the process started.
func (m *Meter) Sent() Traffic {
	_, all := m.outbound.totals()
	return all
}

// totals adds up what was sent to each replica, and to all of them.
func (o *outbound) totals() (each map[replica]Traffic, all Traffic) {
	o.mu.Lock()
	defer o.mu.Unlock()
	each, all = map[replica]Traffic{}, o.gone
	for r, t := range o.replicas {
		each[r] = t.Traffic
		all.add(t.Traffic)
	}
	for d := range o.dumps {
		sent, t := d.traffic(), each[d.of]
		t.add(sent)
		each[d.of] = t
		all.add(sent)
	}
	return each, all
}

func (o *outbound) describe(out chan<- *prometheus.Desc) {
	o.send.Describe(out)
	o.acknowledge.Describe(out)
	out <- o.answers
	for _, t := range []traffic{o.all, o.each} {
		out <- t.events
		out <- t.bytes
		out <- t.transactions
	}
}

func (o *outbound) collect(out chan<- prometheus.Metric) {
	o.send.Collect(out)
	o.acknowledge.Collect(out)
	each, all := o.totals()
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...) // labels are UTF-8, see Name
	}
	count(o.answers, all.Answers)
	count(o.all.events, all.Events)
	count(o.all.bytes, all.Bytes)
	count(o.all.transactions, all.Transactions)
	for r, t := range each {
		labels := r.labels()
		count(o.each.events, t.Events, labels...)
		count(o.each.bytes, t.Bytes, labels...)
		count(o.each.transactions, t.Transactions, labels...)
	}
}
