package server

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/binlogtest"
	"kingbus/internal/gtid"
	"kingbus/internal/hook"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// sink is a connection that takes everything.
type sink struct{ net.Conn }

func (sink) Write(p []byte) (int, error)      { return len(p), nil }
func (sink) SetWriteDeadline(time.Time) error { return nil }
func (sink) Close() error                     { return nil }

// madeChunk is a chunk in the middle of a file: n transactions of the given size
// each.
func madeChunk(t testing.TB, n, size int) stream.Chunk {
	t.Helper()
	u, err := gtid.ParseUUID(sourceUUID)
	if err != nil {
		t.Fatal(err)
	}
	w := &binlogtest.Writer{UUID: u, ServerID: 7, Time: 1700000000, Checksum: binlog.ChecksumCRC32}
	pos := uint64(binlog.MagicSize + len(w.Begin(nil)))
	var data []byte
	for range n {
		data = w.Transaction(data, size)
	}
	return stream.Chunk{File: "binlog.000001", Pos: pos, Data: data, More: true}
}

func sinkSender(req dumpRequest) *sender {
	return &sender{
		conn: &wire.Session{Conn: wire.NewConn(sink{}, 0, 0)}, report: func(progress) {}, log: slog.New(slog.DiscardHandler), req: req, serverID: 1,
		file: "binlog.000001", checksum: binlog.ChecksumCRC32, types: 42, period: time.Hour, sentAt: time.Now(),
	}
}

// TestSenderAllocates: the hot path allocates nothing per event.
func TestSenderAllocates(t *testing.T) {
	c := madeChunk(t, 100, 300)
	have := mustSet(t, sourceUUID+":1-50") // one heartbeat in between
	for name, req := range map[string]dumpRequest{
		"position": {serverID: 1},
		"gtid":     {serverID: 1, gtidMode: true, have: have},
	} {
		t.Run(name, func(t *testing.T) {
			d := sinkSender(req)
			got := testing.AllocsPerRun(20, func() {
				d.pos = c.Pos
				if err := d.chunk(c); err != nil {
					t.Fatal(err)
				}
			})
			if got > 2 { // of 400 events
				t.Errorf("%.0f allocations for a chunk of 400 events", got)
			}
		})
	}
}

func BenchmarkSender(b *testing.B) {
	c := madeChunk(b, 300, 300)
	d := sinkSender(dumpRequest{serverID: 1, gtidMode: true})
	b.SetBytes(int64(len(c.Data)))
	for b.Loop() {
		d.pos = c.Pos
		if err := d.chunk(c); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSkippedHeartbeats: while nothing but transactions that the replica has
// comes by, it hears a heartbeat per period.
func TestSkippedHeartbeats(t *testing.T) {
	c := madeChunk(t, 10, 300)
	var seen tally
	d := sinkSender(dumpRequest{serverID: 1, gtidMode: true, have: mustSet(t, sourceUUID+":1-10")})
	d.observed.Store(&observation{by: []hook.Transmission{&seen}})
	d.pos, d.period = c.Pos, time.Nanosecond
	if err := d.chunk(c); err != nil {
		t.Fatal(err)
	}
	if n := seen.events.Load(); n != 40 || seen.stored.Load() != 0 || d.skippedTo != 0 { // one for each event, as the period has elapsed at each
		t.Errorf("%d heartbeats, %d events, the last one still owed: %d", n, seen.stored.Load(), d.skippedTo)
	}
	var none tally
	d = sinkSender(dumpRequest{serverID: 1, gtidMode: true, have: mustSet(t, sourceUUID+":1-10")})
	d.observed.Store(&observation{by: []hook.Transmission{&none}})
	d.pos = c.Pos
	if err := d.chunk(c); err != nil {
		t.Fatal(err)
	}
	if want := c.Pos + uint64(len(c.Data)); none.events.Load() != 0 || d.skippedTo != want {
		t.Errorf("%d heartbeats, owed %d, want 0 and %d", none.events.Load(), d.skippedTo, want)
	}
}

// TestAnonymous: an anonymous transaction cannot go to a replica that asked by
// GTID.
func TestAnonymous(t *testing.T) {
	c := madeChunk(t, 1, 100)
	c.Data[4] = byte(binlog.TypeAnonymousGTID)
	d := sinkSender(dumpRequest{serverID: 1, gtidMode: true})
	d.pos = c.Pos
	var f *fatalError
	if err := d.chunk(c); !errors.As(err, &f) {
		t.Errorf("got %v, want a fatal error", err)
	}
}

// stutter takes a few bytes per write and then times out.
type stutter struct {
	net.Conn
	takes int // bytes per call
	calls int
}

func (s *stutter) Write(p []byte) (int, error) {
	s.calls++
	if n := min(s.takes, len(p)); n < len(p) {
		return n, os.ErrDeadlineExceeded
	}
	return len(p), nil
}
func (s *stutter) SetWriteDeadline(time.Time) error { return nil }

// TestPatience: a write goes on as long as the peer takes anything at all.
func TestPatience(t *testing.T) {
	slow := &stutter{takes: 3}
	if n, err := newPatientConn(slow, time.Minute).Write(make([]byte, 10)); n != 10 || err != nil || slow.calls != 4 {
		t.Errorf("slow: %d, %v in %d calls; want 10 in 4", n, err, slow.calls)
	}
	if n, err := newPatientConn(&stutter{}, time.Minute).Write(make([]byte, 10)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("stuck: %d, %v", n, err)
	}
	c := newPatientConn(&stutter{takes: 3}, time.Minute)
	c.finishWithin(time.Second)
	if n, err := c.Write(make([]byte, 10)); n != 3 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("in a hurry: %d, %v", n, err)
	}
}
