package bench

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/binlog"
)

// Every node has the same list, with the name and the address of each.
func TestNewCluster(t *testing.T) {
	b := &bench{folder: &folder{path: t.TempDir()}}
	c, err := b.newCluster(3, "--heartbeat", "50ms")
	if err != nil {
		t.Fatal(err)
	}
	list := "n1=" + c[0].peer + ",n2=" + c[1].peer + ",n3=" + c[2].peer
	for i, k := range c {
		want := []string{"--node-name", k.name, "--peer-listen", k.peer, "--heartbeat", "50ms", "--initial-cluster", list}
		if !slices.Equal(k.args, want) {
			t.Errorf("got %q, want %q", k.args, want)
		}
		if next := c[(i+1)%3]; c.after(k) != next {
			t.Errorf("%s comes after %s, want %s", c.after(k).name, k.name, next.name)
		}
		if slices.ContainsFunc(c[:i], func(o *kingbus) bool { return o.dir == k.dir || o.peer == k.peer }) {
			t.Errorf("%s shares a folder or an address", k.name)
		}
	}
}

// answering is a node of which only the HTTP API exists.
func answering(t *testing.T, h http.HandlerFunc) *kingbus {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return &kingbus{name: "n", admin: s.Listener.Addr().String(), log: filepath.Join(t.TempDir(), "log"), client: s.Client(), proc: &process{}}
}

// One that does not answer keeps nobody from seeing what another one says; one that does not run is not asked.
func TestFirst(t *testing.T) {
	mute := answering(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	var asked atomic.Int32
	good := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		n := asked.Add(1)
		var st admin.Status
		st.Node.Leader = n > 3
		_ = json.NewEncoder(w).Encode(st) // the test fails then
	})
	dead := answering(t, func(http.ResponseWriter, *http.Request) { t.Error("a node that does not run was asked") })
	dead.proc = nil
	leader, err := cluster{mute, dead, good}.leader(t.Context())
	if err != nil || leader != good || asked.Load() != 4 {
		t.Errorf("got %v, %v after %d answers, want the third node after 4", leader, err, asked.Load())
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("no more")
	cancel(why)
	if _, err := (cluster{mute}).leader(ctx); !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
}

func TestChange(t *testing.T) {
	var got string
	k := answering(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.URL.Path + " " + r.Header.Get("Content-Type")
		if r.Method == http.MethodDelete {
			http.Error(w, "not now", http.StatusConflict)
		}
	})
	if err := k.transfer(t.Context(), &kingbus{name: "n2"}); err != nil {
		t.Fatal(err)
	}
	if want := "POST /api/v1/cluster/nodes/n2/lead application/json"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := k.remove(t.Context(), &kingbus{name: "n2"}); err == nil || !strings.Contains(err.Error(), "not now") {
		t.Errorf("got %v, want what the node said", err)
	}
}

func TestMark(t *testing.T) {
	w := writer{before: 40}
	if got := w.mark(); got != 40 {
		t.Errorf("got %d, want 40", got)
	}
	w.begun.Add(2)
	if got := w.mark(); got != 42 {
		t.Errorf("got %d, want 42: one that has begun counts", got)
	}
}

// gtidEvent makes a GTID event with a commit time in µs; 0 is that of a server which tells none.
func gtidEvent(micros uint64) (binlog.Header, []byte) {
	body := append([]byte{0}, make([]byte, 16)...)
	body[1] = 7 // of the uuid
	body = binary.LittleEndian.AppendUint64(body, 5)
	body = append(body, 2)
	body = append(body, make([]byte, 16)...) // logical clock
	if micros > 0 {
		body = append(body, binary.LittleEndian.AppendUint64(nil, micros)[:7]...)
		body = append(body, 200)                              // length of the transaction
		body = binary.LittleEndian.AppendUint32(body, 90_704) // version
	}
	h := binlog.Header{Type: binlog.TypeGTID, Length: uint32(binlog.HeaderSize + len(body) + 4)}
	ev := make([]byte, binlog.HeaderSize, h.Length)
	h.Put(ev)
	ev = append(append(ev, body...), 0, 0, 0, 0)
	binlog.UpdateChecksum(ev)
	return h, ev
}

func TestCommitTimer(t *testing.T) {
	written := time.UnixMicro(1_700_000_000_123_456)
	h, ev := gtidEvent(uint64(written.UnixMicro()))
	var timer commitTimer
	xid := binlog.Header{Type: binlog.TypeXID}
	for i, c := range []struct {
		h    binlog.Header
		ev   []byte
		took time.Duration // -1: no transaction ends
	}{
		{xid, nil, -1}, // of a transaction whose begin was not seen
		{h, ev, -1},
		{binlog.Header{Type: binlog.TypeTableMap}, nil, -1},
		{xid, nil, 3 * time.Millisecond},
		{xid, nil, -1},
		{h, ev, -1}, // a statement, which has no XID
		{h, ev, -1},
		{xid, nil, 7 * time.Millisecond},
	} {
		got, ok, err := timer.event(c.h, c.ev, written.Add(max(c.took, time.Millisecond)))
		if err != nil || ok != (c.took >= 0) || ok && got != (commit{written, c.took}) {
			t.Errorf("event %d: got %v, %v, %v, want %v", i, got, ok, err, c.took)
		}
	}
	h, ev = gtidEvent(0)
	if _, _, err := timer.event(h, ev, written); err == nil {
		t.Error("a GTID event without a commit time: want an error")
	}
}

func TestLatencies(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	all := []commit{{at(9), time.Second}, {at(10), 2 * time.Millisecond}, {at(19), 40 * time.Second}, {at(20), time.Second}}
	got := latencies(all, span{at(10), at(20)})
	if want := (series{2, 40_000}); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: what was written in the span, whenever it came", got, want)
	}
}

func TestJoined(t *testing.T) {
	j := joined{span{time.Unix(0, 0), time.Unix(4, 0)}, 1e9}
	if got := j.rate(); got != 250 {
		t.Errorf("got %v MB/s, want 250", got)
	}
}

func TestDiskRate(t *testing.T) {
	b := &bench{folder: &folder{path: t.TempDir()}}
	rate, err := b.diskRate(t.Context(), sequential{files: 2, bytes: 100_001, piece: 4096})
	if err != nil || rate <= 0 {
		t.Errorf("got %v MB/s, %v", rate, err)
	}
	if left, err := os.ReadDir(b.folder.path); err != nil || len(left) > 0 {
		t.Errorf("%d files are left, %v", len(left), err)
	}
	dir := t.TempDir()
	if err := writeSynced(t.Context(), dir, 100_001, make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("got %v, %v, want one file", files, err)
	}
	if st, err := os.Stat(files[0]); err != nil || st.Size() != 100_001 {
		t.Errorf("got %v, %v, want 100001 bytes", st, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.diskRate(ctx, sequential{files: 1, bytes: 1, piece: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was interrupted", err)
	}
}

func TestKeepLogs(t *testing.T) {
	f, keep := &folder{path: t.TempDir()}, t.TempDir()
	if err := f.keepLogs(keep); err != nil {
		t.Errorf("got %v where there are no logs", err)
	}
	if err := os.WriteFile(f.file("kingbus-1.log"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := f.keepLogs(keep)
	kept, gerr := filepath.Glob(filepath.Join(keep, "*", "kingbus-1.log"))
	if gerr != nil || len(kept) != 1 {
		t.Fatalf("got %v, %v, want one log", kept, gerr)
	}
	if text, rerr := os.ReadFile(kept[0]); rerr != nil || string(text) != "hello" {
		t.Errorf("got %q, %v", text, rerr)
	}
	if err == nil || !strings.Contains(err.Error(), filepath.Dir(kept[0])) {
		t.Errorf("got %v, want where the logs are", err)
	}
}

func TestQuantile(t *testing.T) {
	hundred := make(series, 100)
	for i := range hundred {
		hundred[i] = float64(99 - i)
	}
	for _, c := range []struct {
		in   series
		q    float64
		want float64
	}{
		{nil, 0.5, 0},
		{series{3}, 0.99, 3},
		{series{9, 1, 5}, 0.5, 5},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 99},
	} {
		if got := c.in.quantile(c.q); got != c.want {
			t.Errorf("quantile %g of %d values: got %v, want %v", c.q, len(c.in), got, c.want)
		}
	}
}

func TestGoal(t *testing.T) {
	tenTimes, half := atLeast.times(10), atMost.times(0.5)
	for _, c := range []struct {
		g     goal
		ratio float64
		want  bool
	}{
		{tenTimes, 10, true}, {tenTimes, 9.99, false}, {half, 0.5, true}, {half, 0.51, false}, {atLeast, 1, true}, {atMost, 1, true},
	} {
		if got := c.g.reached(c.ratio); got != c.want {
			t.Errorf("%v with %v: got %v, want %v", c.g, c.ratio, got, c.want)
		}
	}
}
