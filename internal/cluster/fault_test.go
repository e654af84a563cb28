package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"kingbus/internal/vfs"
)

// TestBeginIsAtomic breaks off the making of a folder at every call, takes the
// power away, and begins again: nothing may be left in the way.
func TestBeginIsAtomic(t *testing.T) {
	broken := errors.New("broken off")
	for op, name := range map[vfs.Op]string{
		vfs.OpCreate: "create", vfs.OpRename: "rename", vfs.OpSyncDir: "sync dir", vfs.OpWrite: "write", vfs.OpSync: "sync", vfs.OpRemove: "remove",
	} {
		for nth := 1; ; nth++ {
			fs := vfs.NewMem(1)
			fs.Fail(op, nth, broken)
			n, err := Open(Config{FS: fs, Dir: "d", Machine: &counter{}, Log: slog.New(slog.DiscardHandler), Peering: Peering{Heartbeat: time.Hour}})
			if err == nil {
				_ = n.Close()
				if nth == 1 && op != vfs.OpRemove {
					t.Errorf("%s: nothing was broken off", name)
				}
				break
			}
			if !errors.Is(err, broken) {
				t.Fatalf("%s %d: %v", name, nth, err)
			}
			for seed := range uint64(8) {
				again, err := Open(Config{FS: fs.Crash(seed), Dir: "d", Machine: &counter{}, Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Errorf("%s %d, crash %d: %v", name, nth, seed, err)
					continue
				}
				if err := again.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestQuotaAfterRestart: entries of an earlier process give back no room in this
// one, which they never took.
func TestQuotaAfterRestart(t *testing.T) {
	fs := vfs.NewMem(1)
	n, c := open(t, fs)
	if _, err := n.Lead(context.Background()); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := n.Propose(context.Background(), make([]byte, 30<<10)); err != nil {
			t.Fatal(err)
		}
	}
	c.await(t, 20)
	fs = fs.Crash(0) // before the commit index was saved, most likely
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n, c = open(t, fs)
	if _, err := n.Lead(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.await(t, 20)
	n.staging.mu.Lock()
	defer n.staging.mu.Unlock()
	if n.staging.bytes != 0 {
		t.Errorf("%d bytes are in flight in a process that proposed nothing", n.staging.bytes)
	}
}

// TestReplayInPieces: what is read back from disk is not all in memory at once.
func TestReplayInPieces(t *testing.T) {
	fs := vfs.NewMem(1)
	n, c := openSegments(t, fs, 64<<20)
	if _, err := n.Lead(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := n.Propose(context.Background(), bytes.Repeat([]byte{byte(i)}, 100<<10)); err != nil {
			t.Fatal(err)
		}
	}
	c.await(t, 100)
	fs = fs.Crash(0)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n, c = openSegments(t, fs, 64<<20)
	if _, err := n.Lead(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.await(t, 100)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, p := range c.payloads {
		if len(p) != 100<<10 || p[0] != byte(i) || p[len(p)-1] != byte(i) {
			t.Fatalf("payload %d differs", i)
		}
	}
	if c.most > 2<<20 {
		t.Errorf("%d bytes were applied in one go", c.most)
	}
}

// told is a log that tells when a message with some text came.
func told(text string) (*slog.Logger, <-chan struct{}) {
	c := make(chan struct{}, 1)
	return slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		if strings.Contains(string(b), text) {
			select {
			case c <- struct{}{}:
			default:
			}
		}
		return len(b), nil
	}), nil)), c
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestFullDisk: while the disk is full nothing is acknowledged and nothing fails;
// with room again all goes on. A node can be stopped meanwhile.
func TestFullDisk(t *testing.T) {
	for _, stop := range []bool{false, true} {
		t.Run(fmt.Sprintf("stop=%v", stop), func(t *testing.T) {
			fs := vfs.NewMem(1)
			log, full := told("disk is full")
			c := &counter{}
			n, err := Open(Config{FS: fs, Dir: "d", Machine: c, Log: log, SegmentBytes: 1 << 20, Peering: Peering{Heartbeat: time.Millisecond}})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			if _, err := n.Lead(context.Background()); err != nil {
				t.Fatal(err)
			}
			fs.SetLimit(300 << 10)
			for range 5 {
				if err := n.Propose(context.Background(), make([]byte, 100<<10)); err != nil {
					t.Fatal(err)
				}
			}
			<-full
			if !stop {
				fs.SetLimit(-1)
				c.await(t, 5)
			}
			if err := n.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			select {
			case <-n.Failed():
				t.Errorf("failed: %v", n.Err())
			default:
			}
		})
	}
}

// TestFullDiskCheckpoint: a checkpoint that finds no room is written later.
func TestFullDiskCheckpoint(t *testing.T) {
	fs := vfs.NewMem(1)
	log, full := told("disk is full")
	c := &counter{}
	n, err := Open(Config{FS: fs, Dir: "d", Machine: c, Log: log, SegmentBytes: 1 << 20, Peering: Peering{Heartbeat: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := n.Lead(context.Background()); err != nil {
		t.Fatal(err)
	}
	fs.Fail(vfs.OpCreate, 1, syscall.ENOSPC)
	fs.Fail(vfs.OpCreate, 2, syscall.ENOSPC) // WriteFile tries twice
	n.saver.offer(checkpoint{index: firstIndex, term: firstTerm, group: n.group(), state: []byte("x")})
	select {
	case <-full:
	case <-n.Failed():
		t.Fatal(n.Err())
	}
	for late := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if got, _, err := newestCheckpoint(fs, "d", 1); err == nil && string(got.state) == "x" {
			break
		}
		if time.Now().After(late) {
			t.Fatal("the checkpoint was never written")
		}
	}
}

// TestCheckpointsOutliveRelease: after segments were given back a start still has
// a second checkpoint, should the newest be damaged.
func TestCheckpointsOutliveRelease(t *testing.T) {
	fs := vfs.NewMem(1)
	n, c := open(t, fs)
	if _, err := n.Lead(context.Background()); err != nil {
		t.Fatal(err)
	}
	total := 0
	found, err := listCheckpoints(fs, "d")
	for ; err == nil && (len(found) < 2 || found[0] == firstIndex); found, err = listCheckpoints(fs, "d") {
		if err := n.Propose(context.Background(), make([]byte, 30<<10)); err != nil {
			t.Fatal(err)
		}
		total++
		c.await(t, total)
	}
	if err != nil {
		t.Fatal(err)
	}
	n.Release(found[1]+1, found[1])
	for late := time.Now().Add(20 * time.Second); n.Status().FirstIndex <= firstIndex+1; time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("no space was given back")
		}
	}
	fs = fs.Crash(0)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if found, err = listCheckpoints(fs, "d"); err != nil || len(found) == 0 {
		t.Fatal(found, err)
	}
	if !fs.Flip(checkpointName("d", found[len(found)-1]), 100) {
		t.Fatal("nothing to flip")
	}
	n, c = open(t, fs)
	if _, err := n.Lead(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.await(t, total)
}
