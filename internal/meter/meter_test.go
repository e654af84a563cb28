package meter_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kingbus/internal/gtid"
	"kingbus/internal/hook"
	"kingbus/internal/meter"
)

// scrape returns the values of all metrics, by name and labels.
func scrape(t *testing.T, m *meter.Meter) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(m); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	body, err := io.ReadAll(w.Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("scrape: %d, %v: %s", w.Code, err, body)
	}
	out := map[string]float64{}
	for line := range strings.SplitSeq(string(body), "\n") {
		var value float64
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if _, err := fmt.Sscan(line[i+1:], &value); err == nil {
			out[strings.TrimPrefix(line[:i], "kingbus_")] = value
		}
	}
	return out
}

// expect compares some metrics.
func expect(t *testing.T, m *meter.Meter, want map[string]float64) {
	t.Helper()
	all := scrape(t, m)
	for name, value := range want {
		if got, there := all[name]; !there || got != value {
			t.Errorf("%s is %v, %v; want %v", name, got, there, value)
		}
	}
}

func at(pos uint64) hook.Position { return hook.Position{File: "b.000001", Pos: pos} }

// clock goes when it is told to.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func (c *clock) pass(d time.Duration) { c.Time = c.Add(d) }

// rig is a Meter on hooks, with a clock of its own that has begun.
type rig struct {
	*meter.Meter
	hook.Set
	clock clock
	log   logged
	l     *hook.Link
}

// logged is a log, which the timer of the slow ones writes, too.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func newRig(slow time.Duration) *rig {
	r := &rig{clock: clock{time.Unix(1000, 0)}, l: &hook.Link{Source: "db:3306"}}
	r.Meter = meter.New(meter.Config{Slow: slow, Log: slog.New(slog.NewJSONHandler(&r.log, nil)), Now: r.clock.now})
	r.Observe(&r.Set)
	r.clock.pass(time.Second)
	return r
}

// receive takes a transaction of two events that ends at pos.
func (r *rig) receive(pos uint64, asked bool) {
	r.RelayIO[0].AfterQueue(r.l, &hook.Queued{At: at(pos - 50), Stored: 50})
	r.RelayIO[0].AfterQueue(r.l, &hook.Queued{At: at(pos), Stored: 50, Ended: true, Asked: asked})
}

func (r *rig) commit(c hook.Commit) {
	for _, o := range r.Transaction {
		o.AfterCommit(c)
	}
}

// lines are what was logged since the last call.
func (r *rig) lines(t *testing.T) (out []map[string]any) {
	t.Helper()
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	for line := range strings.Lines(r.log.b.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	r.log.b.Reset()
	return out
}

// TestInbound plays the hooks of a link.
func TestInbound(t *testing.T) {
	r := newRig(0)
	link := r.RelayIO[0]
	if err := link.Start(r.l); err != nil {
		t.Fatal(err)
	}
	link.AfterQueue(r.l, &hook.Queued{At: at(4)}) // a fake ROTATE
	for pos := uint64(100); pos <= 500; pos += 100 {
		r.receive(pos, pos != 200)
		r.clock.pass(time.Second)
	}
	r.Storage[0].AfterFlush(at(300))
	if received, proposed := r.Hops(); received != at(500) || proposed != at(300) {
		t.Errorf("received up to %v, proposed up to %v", received, proposed)
	}
	r.commit(hook.Commit{Count: 3, Source: at(300)}) // received 5, 4 and 3 s ago
	r.Storage[0].AfterSync(at(300))
	r.Transaction[0].AfterRollback(hook.Rollback{})
	r.commit(hook.Commit{Count: 7, Source: hook.Position{File: "other", Pos: 9999}}) // of another node's link
	r.clock.pass(time.Second)
	link.AfterAnswer(r.l, at(300)) // stands for both that asked
	expect(t, r.Meter, map[string]float64{
		"source_links_total": 1, "source_events_total": 10, "source_bytes_total": 500, "source_transactions_total": 5, "source_proposals_total": 1,
		"source_uncommitted_transactions": 2, "committed_transactions_total": 10, "dropped_transactions_total": 1, "durable_boundaries_total": 1,
		"commit_seconds_count": 3, "commit_seconds_sum": 12, "acknowledge_seconds_count": 2, "acknowledge_seconds_sum": 10, "source_unacknowledged_transactions": 0,
	})
	if got := r.Received(); got != (meter.Received{Links: 1, Events: 10, Bytes: 500, Transactions: 5}) {
		t.Errorf("received: %+v", got)
	}
	r.commit(hook.Commit{Count: 1, Source: at(400)})
	expect(t, r.Meter, map[string]float64{"source_uncommitted_transactions": 1, "source_unacknowledged_transactions": 1})
	r.clock.pass(7 * time.Second)
	r.commit(hook.Commit{Count: 1, Source: at(500)})
	expect(t, r.Meter, map[string]float64{"source_unacknowledged_transactions": 2, "source_unacknowledged_seconds": 7})
	r.receive(600, true)
	link.AfterReset(r.l)
	expect(t, r.Meter, map[string]float64{"source_uncommitted_transactions": 0, "source_unacknowledged_transactions": 0, "source_unacknowledged_seconds": 0, "acknowledge_seconds_count": 2})
	if len(r.lines(t)) > 0 {
		t.Error("nobody wanted to be told of slow transactions")
	}
}

// TestFollowed: a transaction of which too many are on their way is counted and not timed,
// and those before it do not stay for ever.
func TestFollowed(t *testing.T) {
	r := newRig(0)
	const n = 200_000
	for k := range uint64(n) {
		r.RelayIO[0].AfterQueue(r.l, &hook.Queued{At: at(k), Stored: 1, Ended: true})
	}
	if got := scrape(t, r.Meter)["source_uncommitted_transactions"]; got > 100_000 {
		t.Errorf("%v are remembered", got)
	}
	r.Storage[0].AfterFlush(at(n - 1))
	for k := uint64(0); k < n; k += 1000 {
		r.commit(hook.Commit{Count: 1000, Source: at(k + 999)})
	}
	expect(t, r.Meter, map[string]float64{"source_uncommitted_transactions": 0, "committed_transactions_total": n})
	r.receive(n+100, false)
	r.commit(hook.Commit{Count: 1, Source: at(n + 100)})
	if got := scrape(t, r.Meter)["commit_seconds_count"]; got < 60_000 || got > 100_000 {
		t.Errorf("%v were timed", got)
	}
}

// TestRaft plays the hooks of the log.
func TestRaft(t *testing.T) {
	r := newRig(0)
	raft := r.Raft[0]
	raft.AfterAppend(hook.Appended{Last: 7, Entries: 3, Bytes: 1000, Write: time.Second, Sync: 2 * time.Second})
	raft.AfterAppend(hook.Appended{Last: 8, Entries: 1, Bytes: 10, Write: time.Second, Sync: 3 * time.Second})
	for _, e := range []hook.Election{
		{Term: 5, Leader: 1},             // as the node finds it
		{Term: 5},                        // lost
		{Term: 5, Leader: 1},             // the same again: no change
		{Term: 6},                        // an election
		{Term: 6, Leader: 2, Self: true}, // which this node wins
		{Term: 9, Leader: 3},             // others, of which it did not see all
	} {
		raft.AfterElection(e)
	}
	expect(t, r.Meter, map[string]float64{
		"log_write_seconds_sum": 2, "log_sync_seconds_count": 2, "log_sync_seconds_sum": 5, "log_batch_entries_sum": 4, "log_batch_bytes_sum": 1010,
		"raft_elections_total": 4, "raft_leader_changes_total": 2, "raft_leaderships_total": 1,
	})
}

// TestElectionsBefore: the terms that have passed while the process was down did not begin
// while it ran, even if it hears of them only after it has begun.
func TestElectionsBefore(t *testing.T) {
	r := newRig(0)
	for _, e := range []hook.Election{{Term: 40}, {Term: 57, Leader: 2}, {Term: 58}, {Term: 58, Leader: 3}} {
		r.Raft[0].AfterElection(e)
	}
	expect(t, r.Meter, map[string]float64{"raft_elections_total": 1, "raft_leader_changes_total": 1})
}

func send(t *testing.T, d hook.Transmission, e hook.Sending) {
	t.Helper()
	if err := d.AfterSend(nil, &e); err != nil {
		t.Fatal(err)
	}
}

func dump(t testing.TB, set hook.Set, d *hook.Dump) hook.Transmission {
	t.Helper()
	out, err := set.Transmit[0].Start(d)
	if out == nil || err != nil {
		t.Fatal(out, err)
	}
	return out
}

// TestOutbound plays the hooks of dumps.
func TestOutbound(t *testing.T) {
	r := newRig(0)
	const uuid = "AAAAAAAA-1111-2222-3333-444444444444"
	d := dump(t, r.Set, &hook.Dump{Session: 4, ServerID: 9, UUID: uuid})
	send(t, d, hook.Sending{At: at(100), Length: 30, Stored: true, Begins: true})
	r.commit(hook.Commit{Count: 1, At: at(200), Source: at(200)})
	r.clock.pass(time.Second)
	send(t, d, hook.Sending{At: at(200), Length: 30}) // a heartbeat says where the binlog ends
	send(t, d, hook.Sending{At: at(200), Length: 30, Stored: true, Asked: true})
	r.clock.pass(2 * time.Second)
	send(t, d, hook.Sending{At: at(300), Length: 30, Stored: true, Asked: true})
	r.clock.pass(time.Second)
	d.Received(nil, []byte{0xef})
	d.AfterAck(nil, at(300)) // stands for the one before: 3 s and 1 s
	d.AfterAck(nil, at(300)) // once more says nothing new
	labels := `{replica="` + strings.ToLower(uuid) + `",server_id="9"}`
	expect(t, r.Meter, map[string]float64{
		"client_sent_events_total": 4, "client_sent_bytes_total": 120, "client_sent_transactions_total": 1, "client_answers_total": 1,
		"replica_sent_events_total" + labels: 4, "replica_sent_bytes_total" + labels: 120, "replica_sent_transactions_total" + labels: 1,
		"replica_acknowledge_seconds_count" + labels: 2, "replica_acknowledge_seconds_sum" + labels: 4,
		"send_seconds_count": 1, "send_seconds_sum": 1,
	})
	want := meter.Traffic{Events: 4, Bytes: 120, Transactions: 1, Answers: 1, Acknowledged: at(300)}
	if got := r.Dumps(); len(got) != 1 || got[4] != want {
		t.Errorf("dumps: %+v", got)
	}
	// Who begins long after the commit was not waiting for it, whoever else was.
	r.clock.pass(3 * time.Hour)
	late := dump(t, r.Set, &hook.Dump{Session: 7, ServerID: 8})
	send(t, late, hook.Sending{At: at(200), Length: 30, Stored: true})
	late.Stop(nil)
	expect(t, r.Meter, map[string]float64{"send_seconds_count": 1, "send_seconds_sum": 1, "client_sent_events_total": 5})
	for name := range scrape(t, r.Meter) {
		if strings.HasPrefix(name, "replica_acknowledge_seconds") && strings.Contains(name, `server_id="8"`) {
			t.Errorf("there is %s, and it has acknowledged nothing", name)
		}
	}
	// It comes again: a session begins anew, the replica goes on. Another one says no uuid.
	d.Stop(nil)
	again, other := dump(t, r.Set, &hook.Dump{Session: 5, ServerID: 9, UUID: uuid}), dump(t, r.Set, &hook.Dump{Session: 6, ServerID: 77})
	send(t, again, hook.Sending{At: at(400), Length: 5, Stored: true})
	if got := r.Dumps(); len(got) != 2 || got[5].Events != 1 || got[6].Events != 0 {
		t.Errorf("dumps: %+v", got)
	}
	expect(t, r.Meter, map[string]float64{"replica_sent_events_total" + labels: 5, `replica_sent_events_total{replica="server id 77",server_id="77"}`: 0, "client_sent_events_total": 6})
	again.Stop(nil)
	other.Stop(nil)
	if got := r.Dumps(); len(got) != 0 || r.Sent().Bytes != 155 {
		t.Errorf("after the end: %+v, %+v", got, r.Sent())
	}
}

// TestAsked: who acknowledges the newest only, or what it was never asked for, is timed, however
// much it was asked for at once.
func TestAsked(t *testing.T) {
	r := newRig(0)
	d := dump(t, r.Set, &hook.Dump{ServerID: 9})
	const n = 100_000
	for k := range uint64(n) {
		send(t, d, hook.Sending{At: at(10 * k), Asked: true})
	}
	count := func() float64 {
		return scrape(t, r.Meter)[`replica_acknowledge_seconds_count{replica="server id 9",server_id="9"}`]
	}
	d.AfterAck(nil, at(10*(n-2)+5)) // between the last two
	before := count()
	if before == 0 || before > 10_000 {
		t.Errorf("%v of %d were timed", before, n)
	}
	d.AfterAck(nil, at(10*n))
	for k := range uint64(100) {
		send(t, d, hook.Sending{At: at(10 * (n + k + 1)), Asked: true})
		d.AfterAck(nil, at(10*(n+k+1)))
	}
	if got := count() - before; got != 101 {
		t.Errorf("then %v of 101 were timed", got)
	}
}

// TestNames: who says another name each time, or one that is no text, fills no memory and
// spoils no scrape; and what all were sent does not shrink when one is forgotten.
func TestNames(t *testing.T) {
	r := newRig(0)
	const n = 1000
	for k := range n {
		d := dump(t, r.Set, &hook.Dump{Session: uint32(k), ServerID: uint32(k), UUID: fmt.Sprintf("\xff%d", k)})
		send(t, d, hook.Sending{Length: 10})
		d.Stop(nil)
	}
	for k := range n { // none of whom goes
		send(t, dump(t, r.Set, &hook.Dump{Session: uint32(k), ServerID: n + uint32(k), UUID: strings.Repeat("u", k)}), hook.Sending{Length: 10})
	}
	all, names, sum := scrape(t, r.Meter), 0, 0.0
	for name, v := range all {
		if strings.HasPrefix(name, "replica_sent_bytes_total{") {
			names++
			sum += v
		}
	}
	if names < 200 || names > 300 {
		t.Errorf("%d replicas are told of", names)
	}
	if all["client_sent_bytes_total"] != 2*n*10 || sum != n*10 {
		t.Errorf("sent were %v bytes to all, %v to those who are connected", all["client_sent_bytes_total"], sum)
	}
}

// TestSlow: what took long is told, with where the time went.
func TestSlow(t *testing.T) {
	r := newRig(time.Second)
	g, err := gtid.ParseGTID("aaaaaaaa-1111-2222-3333-444444444444:7")
	if err != nil {
		t.Fatal(err)
	}
	pass := func(ms time.Duration) { r.clock.pass(ms * time.Millisecond) }
	_ = r.RelayIO[0].Start(r.l)
	r.receive(100, false)
	pass(100)
	r.Storage[0].AfterFlush(at(100))
	pass(300)
	r.Raft[0].AfterAppend(hook.Appended{Last: 11})
	pass(599) // 999 ms: in time
	r.commit(hook.Commit{Entry: 11, Count: 1, Source: at(100), GTIDs: []gtid.GTID{g}})
	if lines := r.lines(t); len(lines) != 0 {
		t.Fatalf("told: %v", lines)
	}
	r.receive(200, false)
	pass(100)
	r.Storage[0].AfterFlush(at(200))
	pass(300)
	r.Raft[0].AfterAppend(hook.Appended{Last: 12})
	pass(600)
	r.commit(hook.Commit{Entry: 12, Count: 1, Source: at(200), GTIDs: []gtid.GTID{g}})
	r.receive(300, true)
	pass(500)
	r.Raft[0].AfterAppend(hook.Appended{Last: 13})
	r.commit(hook.Commit{Entry: 13, Count: 1, Source: at(300)}) // before its AfterFlush, and in time; but the source waits
	r.Storage[0].AfterFlush(at(300))
	pass(700)
	r.RelayIO[0].AfterAnswer(r.l, at(300))
	ms := func(n time.Duration) float64 { return float64(n * time.Millisecond) }
	for n, want := range []map[string]any{
		{"source": "db:3306", "file": "b.000001", "pos": 200.0, "gtid": g.String(), "entry": 12.0, "took": ms(1000), "propose": ms(100), "sync": ms(300), "quorum": ms(600)},
		{"source": "db:3306", "file": "b.000001", "pos": 300.0, "entry": 13.0, "took": ms(1200), "sync": ms(500), "quorum": 0.0, "acknowledge": ms(700)},
	} {
		lines := r.lines(t)
		if n == 0 {
			if len(lines) != 2 {
				t.Fatalf("told: %v", lines)
			}
			_, _ = r.log.Write([]byte(encode(t, lines[1]))) // for the next round
		}
		for _, key := range []string{"time", "level", "msg"} {
			delete(lines[0], key)
		}
		if encode(t, lines[0]) != encode(t, want) {
			t.Errorf("told was\n%swant\n%s", encode(t, lines[0]), encode(t, want))
		}
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

// TestSlowMany: when all is slow the log tells of some, and how many the others were, also
// when nothing comes any more.
func TestSlowMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(time.Second)
		r.Meter = meter.New(meter.Config{Slow: time.Second, Log: slog.New(slog.NewJSONHandler(&r.log, nil))})
		r.Set = hook.Set{}
		r.Observe(&r.Set)
		defer r.Close()
		pass := func(d time.Duration) {
			time.Sleep(d) // of the bubble: it takes no time
			synctest.Wait()
		}
		slow := func(pos uint64, took time.Duration) {
			r.receive(pos, false)
			pass(took)
			r.commit(hook.Commit{Count: 1, Source: at(pos)})
		}
		const n = 1000
		for k := range uint64(n) {
			r.receive(100*(k+1), false)
		}
		pass(2 * time.Second)
		r.commit(hook.Commit{Count: n, Source: at(100 * n)})
		if lines := r.lines(t); len(lines) != 10 {
			t.Errorf("%d lines for %d transactions at once", len(lines), n)
		}
		slow(200_000, 5*time.Second) // still the same ten seconds
		if lines := r.lines(t); len(lines) != 0 {
			t.Errorf("told: %v", lines)
		}
		pass(10 * time.Second)
		lines := r.lines(t)
		if len(lines) != 1 || lines[0]["count"] != n-10+1.0 || lines[0]["pos"] != 200_000.0 || lines[0]["first_pos"] != 1100.0 || lines[0]["took"] != float64(5*time.Second) {
			t.Errorf("told: %v", lines)
		}
		slow(400_000, 2*time.Second)
		if lines := r.lines(t); len(lines) != 1 || lines[0]["pos"] != 400_000.0 {
			t.Errorf("told: %v", lines)
		}
		for _, end := range []func(){func() { r.RelayIO[0].AfterReset(r.l) }, r.Close} { // both bring the rest
			pass(20 * time.Second)
			for k := range uint64(20) {
				r.receive(500_000+1000*k, false)
			}
			pass(2 * time.Second)
			r.commit(hook.Commit{Count: 20, Source: at(600_000)})
			if lines := r.lines(t); len(lines) != 10 {
				t.Errorf("%d lines before the end", len(lines))
			}
			end()
			if lines := r.lines(t); len(lines) != 1 || lines[0]["count"] != 10.0 {
				t.Errorf("told in the end: %v", lines)
			}
		}
	})
}

// TestSlowBrokenOff: what has waited for long when the link ends is told, too, and in which
// step it was.
func TestSlowBrokenOff(t *testing.T) {
	r := newRig(time.Second)
	_ = r.RelayIO[0].Start(r.l)
	for pos := uint64(100); pos <= 300; pos += 100 {
		r.receive(pos, true)
	}
	r.clock.pass(10 * time.Millisecond)
	r.Storage[0].AfterFlush(at(200))
	r.clock.pass(10 * time.Millisecond)
	r.commit(hook.Commit{Entry: 11, Count: 1, Source: at(100)})
	r.clock.pass(20 * time.Minute)
	r.receive(400, true) // has not waited
	r.RelayIO[0].AfterReset(r.l)
	const ms = float64(time.Millisecond)
	whole, since := float64(20*time.Minute)+20*ms, float64(20*time.Minute)
	lines := r.lines(t)
	for n, want := range []map[string]any{
		{"pos": 100.0, "entry": 11.0, "took": whole, "propose": 10 * ms, "quorum": 10 * ms, "acknowledge": since, "broken_off": "acknowledge"},
		{"pos": 200.0, "took": whole, "propose": 10 * ms, "quorum": since + 10*ms, "broken_off": "quorum"},
		{"pos": 300.0, "took": whole, "propose": whole, "broken_off": "propose"},
	} {
		if len(lines) != 3 {
			t.Fatalf("told: %v", lines)
		}
		for _, key := range []string{"time", "level", "msg", "source", "file"} {
			delete(lines[n], key)
		}
		if encode(t, lines[n]) != encode(t, want) {
			t.Errorf("told was\n%swant\n%s", encode(t, lines[n]), encode(t, want))
		}
	}
}

// TestCost: what is observed costs no allocation for each event.
func TestCost(t *testing.T) {
	r := newRig(time.Second)
	d := dump(t, r.Set, &hook.Dump{ServerID: 9})
	q, e := &hook.Queued{Stored: 50}, &hook.Sending{Length: 30, Stored: true}
	if n := testing.AllocsPerRun(1000, func() {
		r.RelayIO[0].AfterQueue(r.l, q)
		_ = d.AfterSend(nil, e)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkEvent is an event on its way in and out, as the event before it was.
func BenchmarkEvent(b *testing.B) {
	m := meter.New(meter.Config{Slow: time.Second})
	var set hook.Set
	m.Observe(&set)
	d := dump(b, set, &hook.Dump{ServerID: 9})
	q, e := &hook.Queued{At: at(100), Stored: 50}, &hook.Sending{At: at(100), Length: 30, Stored: true}
	for b.Loop() {
		set.RelayIO[0].AfterQueue(nil, q)
		_ = d.AfterSend(nil, e)
	}
}

// BenchmarkDumps is an event for each of many dumps at once.
func BenchmarkDumps(b *testing.B) {
	m := meter.New(meter.Config{})
	var set hook.Set
	m.Observe(&set)
	b.RunParallel(func(pb *testing.PB) {
		d, e := dump(b, set, &hook.Dump{ServerID: 9}), &hook.Sending{At: at(100), Length: 30, Stored: true}
		for pb.Next() {
			_ = d.AfterSend(nil, e)
		}
	})
}

// BenchmarkTransaction is one on its whole way in: received, proposed, committed.
func BenchmarkTransaction(b *testing.B) {
	m := meter.New(meter.Config{Slow: time.Second})
	var set hook.Set
	m.Observe(&set)
	q, c := &hook.Queued{At: at(100), Stored: 50, Ended: true}, hook.Commit{Count: 1, Source: at(100)}
	for b.Loop() {
		set.RelayIO[0].AfterQueue(nil, q)
		set.Storage[0].AfterFlush(at(100))
		set.Transaction[0].AfterCommit(c)
	}
}
