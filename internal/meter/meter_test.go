package meter_test

import (
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kingbus/internal/hook"
	"kingbus/internal/meter"
)

// scrape returns the values of all metrics without labels.
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
		name, text, ok := strings.Cut(line, " ")
		if _, err := fmt.Sscan(text, &value); ok && err == nil && !strings.HasPrefix(line, "#") {
			out[strings.TrimPrefix(name, "kingbus_")] = value
		}
	}
	return out
}

// TestMeter plays the hooks of a link and a dump.
func TestMeter(t *testing.T) {
	m := meter.New()
	var set hook.Set
	m.Observe(&set)
	at := func(pos uint64) hook.Position { return hook.Position{File: "b.000001", Pos: pos} }
	l := &hook.Link{}
	link := set.RelayIO[0]
	if err := link.Start(l); err != nil {
		t.Fatal(err)
	}
	link.AfterQueue(l, &hook.Queued{At: at(4)}) // a fake ROTATE
	for pos := uint64(100); pos <= 500; pos += 100 {
		link.AfterQueue(l, &hook.Queued{At: at(pos - 50), Stored: 50})
		link.AfterQueue(l, &hook.Queued{At: at(pos), Stored: 50, Ended: true})
	}
	set.Storage[0].AfterFlush(at(300))
	set.Transaction[0].AfterCommit(hook.Commit{Count: 3, Source: at(300)})
	set.Storage[0].AfterSync(at(300))
	set.Transaction[0].AfterRollback(hook.Rollback{})
	set.Transaction[0].AfterCommit(hook.Commit{Count: 7, Source: at(9999)}) // of another node's link
	d := &hook.Dump{}
	if observe, err := set.Transmit[0].Start(d); !observe || err != nil {
		t.Fatal(observe, err)
	}
	for range 4 {
		if err := set.Transmit[0].AfterSend(d, &hook.Sending{Length: 30}); err != nil {
			t.Fatal(err)
		}
	}
	set.Transmit[0].Received(d, []byte{0xef})
	for name, want := range map[string]float64{
		"source_links_total": 1, "source_events_total": 10, "source_bytes_total": 500, "source_transactions_total": 5, "source_proposals_total": 1,
		"source_uncommitted_transactions": 2, "committed_transactions_total": 10, "dropped_transactions_total": 1, "durable_boundaries_total": 1,
		"client_dumps_total": 1, "client_dumps": 1, "client_sent_events_total": 4, "client_sent_bytes_total": 120, "client_answers_total": 1, "commit_seconds_count": 3,
	} {
		if got, there := scrape(t, m)[name]; !there || got != want {
			t.Errorf("%s is %v, %v; want %v", name, got, there, want)
		}
	}
	link.AfterReset(l)
	set.Transmit[0].Stop(d)
	if got := scrape(t, m); got["source_uncommitted_transactions"] != 0 || got["client_dumps"] != 0 {
		t.Errorf("after the end: %v", got)
	}
}

// TestCost: what is observed costs no allocation for each event.
func TestCost(t *testing.T) {
	m := meter.New()
	var set hook.Set
	m.Observe(&set)
	q, e := &hook.Queued{Stored: 50}, &hook.Sending{Length: 30}
	if n := testing.AllocsPerRun(1000, func() {
		set.RelayIO[0].AfterQueue(nil, q)
		_ = set.Transmit[0].AfterSend(nil, e)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEvent(b *testing.B) {
	m := meter.New()
	var set hook.Set
	m.Observe(&set)
	q, e := &hook.Queued{Stored: 50}, &hook.Sending{Length: 30}
	for b.Loop() {
		set.RelayIO[0].AfterQueue(nil, q)
		_ = set.Transmit[0].AfterSend(nil, e)
	}
}

// TestPendingBounded: what is never committed is not remembered for ever.
func TestPendingBounded(t *testing.T) {
	m := meter.New()
	var set hook.Set
	m.Observe(&set)
	for i := range 200_000 {
		set.RelayIO[0].AfterQueue(nil, &hook.Queued{At: hook.Position{Pos: uint64(i)}, Stored: 1, Ended: true})
	}
	if got := scrape(t, m)["source_uncommitted_transactions"]; got > 100_000 {
		t.Errorf("%v are remembered", got)
	}
}
