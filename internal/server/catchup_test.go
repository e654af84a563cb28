package server

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/binlogtest"
	"kingbus/internal/gtid"
	"kingbus/internal/stream"
)

// lagging is a stream of a node that may lack what the cluster has.
type lagging struct {
	Stream
	catchUp func(context.Context) error
	asked   atomic.Int32
}

func (s *lagging) CatchUp(ctx context.Context) error {
	s.asked.Add(1)
	return s.catchUp(ctx)
}

// never is a cluster without a majority.
func never(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// laggingRig has two files of two transactions each, before which another two
// were purged.
func laggingRig(t *testing.T, gtidMode string, catchUp func(context.Context) error, change ...func(*Config)) (*rig, *binlogtest.Writer, *lagging) {
	t.Helper()
	s := &lagging{catchUp: catchUp}
	r := newRig(t, append(change, func(c *Config) { s.Stream, c.Stream = c.Stream, s })...)
	u, err := gtid.ParseUUID(sourceUUID)
	if err != nil {
		t.Fatal(err)
	}
	w := &binlogtest.Writer{UUID: u, ServerID: 7, Time: 1700000000, Checksum: binlog.ChecksumCRC32}
	w.Transaction(w.Transaction(nil, 100), 100)
	r.follow(laggingSource(t, gtidMode))
	for i := range 2 {
		r.begin(w, i+1)
		r.appendMade(w.Transaction(w.Transaction(nil, 100), 100))
	}
	return r, w, s
}

func laggingSource(t *testing.T, gtidMode string) stream.Source {
	return stream.Source{UUID: sourceUUID, ServerID: 7, Version: "9.7.4", Purged: mustSet(t, sourceUUID+":1-2"),
		Variables: map[string]string{"gtid_mode": gtidMode, "binlog_checksum": "CRC32"}}
}

const (
	textAhead  = "kingbus: this node does not have yet what the replica asks for; come back"
	textUnsure = "kingbus: this node does not have what the replica asks for, and cannot find out now whether the cluster has; come back"
)

// TestDoubt: before a replica hears that something is not there, the cluster is
// asked, and if it does not answer the replica comes back. What this node itself
// knows needs no asking.
func TestDoubt(t *testing.T) {
	const ahead = "1053 (08S01): " + textAhead
	all := sourceUUID + ":1-6"
	for name, c := range map[string]struct {
		payload  []byte
		gtidMode string
		doubtful bool
		want     string // once the cluster has answered, or without asking it
	}{
		"unknown file":    {dumpPayload("other.000001", 4, 0, 9), "ON", true, "1236 (HY000): " + textNoFile},
		"older file":      {dumpPayload("binlog.000000", 4, 0, 9), "ON", true, "1236 (HY000): " + textNoFile},
		"unknown by name": {dumpGTIDPayload("other.000001", 4, 0, 9, encodeSet(t, all)), "ON", true, "1236 (HY000): " + textNoFile},
		"no GTIDs":        {dumpGTIDPayload("", 4, 0, 9, encodeSet(t, all)), "OFF", true, "1236 (HY000): The replication sender thread cannot start in AUTO_POSITION mode: this server has GTID_MODE = OFF instead of ON."},
		"some GTIDs":      {dumpGTIDPayload("", 4, 0, 9, encodeSet(t, all)), "ON_PERMISSIVE", true, "1236 (HY000): The replication sender thread cannot start in AUTO_POSITION mode: this server has GTID_MODE = ON_PERMISSIVE instead of ON."},

		"position 3":           {dumpPayload("binlog.000001", 3, 0, 9), "ON", false, "1236 (HY000): " + textTooSmall},
		"inside an event":      {dumpPayload("binlog.000001", 5, 0, 9), "ON", false, "1236 (HY000): " + textExceeded},
		"behind finished file": {dumpPayload("binlog.000001", 1<<20, 0, 9), "ON", false, "1236 (HY000): " + textTooLarge},
		"purged":               {dumpGTIDPayload("", 4, 0, 9, encodeSet(t, sourceUUID+":1:3-6")), "ON", false, "1236 (HY000): Cannot replicate because the source purged required binary logs."},

		"behind current file": {dumpPayload("binlog.000002", 1<<20, 0, 9), "ON", false, ahead},
		"next file":           {dumpPayload("binlog.000003", 4, 0, 9), "ON", false, ahead},
		"more GTIDs":          {dumpGTIDPayload("", 4, 0, 9, encodeSet(t, sourceUUID+":1-7")), "ON", false, ahead},
	} {
		for answer, catchUp := range map[string]func(context.Context) error{
			"nothing new": func(context.Context) error { return nil },
			"no leader":   func(context.Context) error { return errors.New("no leader") },
			"no answer":   never,
		} {
			t.Run(name+"/"+answer, func(t *testing.T) {
				r, _, s := laggingRig(t, c.gtidMode, catchUp)
				want, asked := c.want, int32(0)
				if c.doubtful {
					asked = 1
					if answer != "nothing new" {
						want = "1053 (08S01): " + textUnsure
					}
				}
				conn := r.dial()
				play(t, conn, []step{{setCRC, "OK"}})
				lines := recordDump(t, conn, c.payload, nil).lines
				n := len(lines)
				if n < 2 || !strings.HasPrefix(lines[n-2], "MySQL error "+want) {
					t.Errorf("got %q, want %q", lines, want)
				}
				if strings.HasPrefix(want, "1053") && (n != 3 || !strings.HasPrefix(lines[0], "Rotate ts=0")) {
					t.Errorf("got %q, want an event that makes the replica forget its failed attempts", lines)
				}
				if got := s.asked.Load(); got != asked {
					t.Errorf("the cluster was asked %d times, want %d", got, asked)
				}
			})
		}
	}
}

// TestDoubtResolved: what the cluster has and this node had not is served as soon
// as it has come.
func TestDoubtResolved(t *testing.T) {
	for name, c := range map[string]struct {
		payload  []byte
		gtidMode string
		brings   func(*rig, *binlogtest.Writer)
		later    func(*rig, *binlogtest.Writer)
	}{
		"file": {dumpPayload("other.000001", 4, flagNonBlock, 9), "ON", func(r *rig, w *binlogtest.Writer) {
			r.rotate("other.000001")
			r.appendMade(w.Begin(nil))
		}, nil},
		"file by GTID": {dumpGTIDPayload("other.000001", 4, flagNonBlock, 9, encodeSet(t, sourceUUID+":1-6")), "ON", func(r *rig, w *binlogtest.Writer) {
			r.rotate("other.000001")
			r.appendMade(w.Begin(nil))
		}, nil},
		"GTIDs": {dumpGTIDPayload("", 4, flagNonBlock, 9, encodeSet(t, sourceUUID+":1-6")), "OFF", func(r *rig, _ *binlogtest.Writer) {
			r.follow(laggingSource(r.t, "ON"))
		}, nil},
		// It is not there even then, but the replica is only ahead.
		"file before": {dumpPayload("other.000002", 4, flagNonBlock, 9), "ON", func(r *rig, w *binlogtest.Writer) {
			r.rotate("other.000001")
			r.appendMade(w.Begin(nil))
		}, func(r *rig, w *binlogtest.Writer) {
			r.rotate("other.000002")
			r.appendMade(w.Begin(nil))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			asked, brought := make(chan struct{}), make(chan struct{})
			r, w, s := laggingRig(t, c.gtidMode, func(ctx context.Context) error {
				close(asked)
				select {
				case <-brought:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}, func(c *Config) { c.CatchUp = time.Minute })
			conn := r.dial()
			play(t, conn, []step{{setCRC, "OK"}})
			lines := make(chan []string, 1)
			go func() {
				tr, err := readDump(conn, c.payload, nil)
				if err != nil {
					tr.lines = append(tr.lines, err.Error())
				}
				lines <- tr.lines
			}()
			<-asked
			c.brings(r, w)
			close(brought)
			if c.later != nil {
				c.later(r, w)
			}
			if got := <-lines; len(got) < 3 || got[len(got)-2] != "EOF fe00000200" {
				t.Errorf("got %q, want events and the end", got)
			}
			if n := s.asked.Load(); n != 1 {
				t.Errorf("the cluster was asked %d times", n)
			}
		})
	}
}

// TestDoubtEnds: a replica for which the cluster is being asked may leave, and the
// server may shut down, at once.
func TestDoubtEnds(t *testing.T) {
	r, _, s := laggingRig(t, "ON", never, func(c *Config) { c.CatchUp = time.Hour })
	ask := func() chan []string {
		conn := r.dial()
		play(t, conn, []step{{setCRC, "OK"}})
		before := s.asked.Load()
		out := make(chan []string, 1)
		go func() {
			tr, err := readDump(conn, dumpPayload("other.000001", 4, 0, 9), nil)
			if err != nil {
				tr.lines = append(tr.lines, err.Error())
			}
			out <- tr.lines
		}()
		for s.asked.Load() == before {
			time.Sleep(time.Millisecond)
		}
		return out
	}
	killed := ask()
	play(t, r.dial(), []step{{"KILL 1", "OK"}})
	compare(t, []string{"closed"}, <-killed)
	waitReplicas(t, r, 0)
	ended := ask()
	_ = r.server.Close()
	compare(t, []string{"EOF fe00000200", "closed"}, <-ended)
}
