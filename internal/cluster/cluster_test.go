package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"kingbus/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counter is a state machine that only remembers what it was given.
type counter struct {
	mu       sync.Mutex
	restored uint64
	payloads [][]byte
	index    uint64
	most     int // payload in one Apply
	changed  chan struct{}
}

func (c *counter) Restore(index uint64, state []byte, _ []uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restored, c.index, c.changed, c.payloads = index, index, make(chan struct{}), nil
	for len(state) > 0 {
		n := binary.LittleEndian.Uint32(state)
		c.payloads = append(c.payloads, state[4:4+n])
		state = state[4+n:]
	}
	return nil
}

func (c *counter) Apply(entries []Entry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	bytes := 0
	defer func() { c.most = max(c.most, bytes) }()
	for _, e := range entries {
		bytes += len(e.Payload)
		if e.Index != c.index+1 {
			return fmt.Errorf("entry %d after %d", e.Index, c.index)
		}
		c.index = e.Index
		if e.Payload != nil {
			c.payloads = append(c.payloads, e.Payload)
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

func (c *counter) Checkpoint(_, _ uint64) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b []byte
	for _, p := range c.payloads {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(p))), p...)
	}
	return b, nil
}

func (c *counter) Snapshot() ([]byte, error) { return c.Checkpoint(0, 0) }

func (c *counter) Needs([]byte) (uint64, error) { return 0, nil }

func (c *counter) Replace(state []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.payloads, c.index = nil, 0
	return nil
}

func (c *counter) Review(entries []Entry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range entries {
		if c.index != 0 && e.Index != c.index+1 {
			return fmt.Errorf("review: entry %d after %d", e.Index, c.index)
		}
		c.index = e.Index
	}
	return nil
}

func (c *counter) Adopt(index uint64, state []byte) error {
	if c.index != 0 && c.index != index {
		return fmt.Errorf("adopt: state of entry %d after %d", index, c.index)
	}
	return c.Restore(index, state, nil)
}

func (c *counter) count() (int, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.payloads), c.changed
}

func (c *counter) await(t *testing.T, n int) {
	t.Helper()
	for {
		got, changed := c.count()
		if got >= n {
			return
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Second):
			t.Fatalf("%d payloads applied, want %d", got, n)
		}
	}
}

func open(t *testing.T, fs vfs.FS) (*Node, *counter) {
	t.Helper()
	return openSegments(t, fs, 64<<10)
}

func openSegments(t *testing.T, fs vfs.FS, bytes int64) (*Node, *counter) {
	t.Helper()
	c := &counter{}
	n, err := Open(Config{FS: fs, Dir: "d", Machine: c, Log: slog.New(slog.DiscardHandler), SegmentBytes: bytes, InFlight: 1 << 20, Peering: Peering{Heartbeat: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n, c
}

func TestProposeApplyRestart(t *testing.T) {
	fs := vfs.NewMem(1)
	var want [][]byte
	for life := range 4 {
		n, c := open(t, fs)
		if _, err := n.Lead(context.Background()); err != nil {
			t.Fatal(err)
		}
		for i := range 500 {
			p := bytes.Repeat([]byte{byte(i), byte(life)}, 1+i)
			if err := n.Propose(context.Background(), p); err != nil {
				t.Fatal(err)
			}
			want = append(want, p)
		}
		c.await(t, len(want))
		for i, p := range c.payloads {
			if !bytes.Equal(p, want[i]) {
				t.Fatalf("life %d: payload %d differs", life, i)
			}
		}
		if life > 0 && c.restored == firstIndex {
			t.Errorf("life %d began without a checkpoint", life)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		if err := n.Propose(context.Background(), []byte{1}); !errors.Is(err, ErrClosed) {
			t.Errorf("Propose after Close: %v", err)
		}
	}
}

// TestBackPressure: a proposer waits while too much is in flight.
func TestBackPressure(t *testing.T) {
	n, c := open(t, vfs.NewMem(1))
	if _, err := n.Lead(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock() // applying stands still
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var err error
	sent := 0
	for err == nil {
		if sent == 4 {
			time.AfterFunc(50*time.Millisecond, cancel) // the fifth one has to block
		}
		if err = n.Propose(ctx, make([]byte, 256<<10)); err == nil {
			sent++
		}
	}
	c.mu.Unlock()
	if !errors.Is(err, context.Canceled) || sent != 4 {
		t.Fatalf("%d of 256 KiB went through a quota of 1 MiB, then %v", sent, err)
	}
	c.await(t, 4)
	if err := n.Propose(context.Background(), make([]byte, 2<<20)); err != nil { // alone it passes
		t.Fatal(err)
	}
	c.await(t, 5)
	for _, size := range []int{0, MaxPayload + 1} {
		if err := n.Propose(context.Background(), make([]byte, size)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("propose %d bytes: %v", size, err)
		}
	}
}

// TestFolderChecks: folders that must not be started from.
func TestFolderChecks(t *testing.T) {
	make1 := func() *vfs.Mem {
		fs := vfs.NewMem(1)
		n, c := open(t, fs)
		if _, err := n.Lead(context.Background()); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := n.Propose(context.Background(), make([]byte, 40<<10)); err != nil {
				t.Fatal(err)
			}
		}
		c.await(t, 3)
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		return fs
	}
	overwrite := func(fs *vfs.Mem, name, content string) {
		if err := fs.Remove(name); err != nil {
			t.Fatal(err)
		}
		if err := vfs.WriteFile(fs, name, []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		change func(*vfs.Mem)
		want   string
	}{
		{"newer format", func(fs *vfs.Mem) { overwrite(fs, "d/node", `{"format":2,"cluster_id":"1","raft_id":"1"}`) }, "has format 2"},
		{"no identity", func(fs *vfs.Mem) { _ = fs.Remove("d/node") }, "no file \"node\""},
		{"broken identity", func(fs *vfs.Mem) { overwrite(fs, "d/node", `{"format":1`) }, "damaged"},
		{"hard state gone bad", func(fs *vfs.Mem) { overwrite(fs, "d/hardstate", strings.Repeat("x", hardFileSize)) }, "neither of its two copies"},
		{"hard state gone", func(fs *vfs.Mem) { _ = fs.Remove("d/hardstate") }, "hardstate is missing"},
		{"no checkpoint", func(fs *vfs.Mem) {
			names, _ := fs.ReadDir("d")
			for _, n := range names {
				if strings.HasSuffix(n, checkpointSuffix) {
					_ = fs.Remove(filepath.Join("d", n))
				}
			}
		}, "no checkpoint"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := make1()
			c.change(fs)
			n, err := Open(Config{FS: fs, Dir: "d", Machine: &counter{}, Log: slog.New(slog.DiscardHandler)})
			if err == nil {
				_ = n.Close()
				t.Fatal("the folder was accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want something with %q", err, c.want)
			}
		})
	}
	fs := make1()
	n, _ := open(t, fs)
	if _, err := Open(Config{FS: fs, Dir: "d", Machine: &counter{}, Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("a second process: %v", err)
	}
	_ = n.Close()
}

// TestDamagedCheckpoint: the one before it is used, and more is replayed.
func TestDamagedCheckpoint(t *testing.T) {
	fs := vfs.NewMem(1)
	n, c := open(t, fs)
	if _, err := n.Lead(context.Background()); err != nil {
		t.Fatal(err)
	}
	saved := func() []uint64 {
		found, err := listCheckpoints(fs, "d")
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	total := 0
	for first := saved(); saved()[0] == first[0]; {
		if err := n.Propose(context.Background(), make([]byte, 30<<10)); err != nil {
			t.Fatal(err)
		}
		total++
		c.await(t, total)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	found := saved()
	if !fs.Flip(checkpointName("d", found[1]), 300) {
		t.Fatal("nothing to flip")
	}
	n, c = open(t, fs)
	if c.restored != found[0] {
		t.Errorf("restored checkpoint %d, want %d", c.restored, found[0])
	}
	if _, err := n.Lead(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.await(t, total)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestHardStateTorn: whatever is left of the last write, the state before it or
// after it is read.
func TestHardStateTorn(t *testing.T) {
	for cut := 0; cut <= hardSize; cut++ {
		fs := vfs.NewMem(1)
		if err := fs.MkdirAll("d"); err != nil {
			t.Fatal(err)
		}
		h, err := openHardState(fs, "d", "d/hs", true)
		if err != nil {
			t.Fatal(err)
		}
		for term := uint64(1); term <= 3; term++ {
			if err := h.observe(&pb.Message{Term: new(term), Vote: new(term * 10), Commit: new(term * 100)}); err != nil {
				t.Fatal(err)
			}
			if err := h.saveCommit(); err != nil {
				t.Fatal(err)
			}
		}
		slot := int64(h.seq%2) * hardSlot
		for i := cut; i < hardSize; i++ { // the rest of the last write is old
			if _, err := h.file.WriteAt([]byte{0xee}, slot+int64(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.close(); err != nil {
			t.Fatal(err)
		}
		got, err := openHardState(fs, "d", "d/hs", false)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		wantCommit := uint64(200) // the last write brought the commit index only
		if cut == hardSize {
			wantCommit = 300
		}
		if got.term != 3 || got.vote != 30 || got.stored != wantCommit {
			t.Errorf("cut at %d: term %d vote %d commit %d, want 3, 30, %d", cut, got.term, got.vote, got.stored, wantCommit)
		}
		_ = got.close()
	}
}

// TestHardStateDamaged: a vote that was given is not forgotten where one sector cannot be read any more.
func TestHardStateDamaged(t *testing.T) {
	for slot := range int64(2) {
		fs := vfs.NewMem(1)
		if err := fs.MkdirAll("d"); err != nil {
			t.Fatal(err)
		}
		h, err := openHardState(fs, "d", "d/hs", true)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.init(1, 1); err != nil {
			t.Fatal(err)
		}
		if err := h.observe(&pb.Message{Term: new(uint64(3)), Vote: new(uint64(30))}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.file.WriteAt([]byte{0xee}, slot*hardSlot+17); err != nil {
			t.Fatal(err)
		}
		if err := h.close(); err != nil {
			t.Fatal(err)
		}
		got, err := openHardState(fs, "d", "d/hs", false)
		if err != nil {
			t.Fatal(err)
		}
		if got.term != 3 || got.vote != 30 {
			t.Errorf("slot %d is damaged: term %d, vote %d", slot, got.term, got.vote)
		}
		_ = got.close()
	}
}

// TestHardStateNotSynced: a vote whose sync has failed is in memory, where the next start reads it, and no
// sync tells that it is not on disk.
func TestHardStateNotSynced(t *testing.T) {
	fs := vfs.NewMem(1)
	if err := fs.MkdirAll("d"); err != nil {
		t.Fatal(err)
	}
	h, err := openHardState(fs, "d", "d/hs", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.init(2, 0); err != nil {
		t.Fatal(err)
	}
	vote := &pb.Message{Term: new(uint64(3)), Vote: new(uint64(7))}
	fs.Fail(vfs.OpSync, 1, syscall.EIO)
	if err := h.promise(vote); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	_ = h.close()
	for _, disk := range []*vfs.Mem{fs, nil} { // the next process, and the one behind a power loss
		if disk == nil {
			disk = fs.Crash(0)
		}
		h, err := openHardState(disk, "d", "d/hs", false)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.promise(vote); err != nil { // Raft has it given again
			t.Fatal(err)
		}
		if h.term != 3 || h.vote != 7 {
			t.Errorf("term %d, vote %d", h.term, h.vote)
		}
		_ = h.close()
	}
}

func TestWindow(t *testing.T) {
	w := newWindow(nil, &pb.ConfState{}, entryID{10, 2})
	slots := func(from, to, term uint64) (out []slot) {
		for i := from; i <= to; i++ {
			out = append(out, slot{entry: &pb.Entry{Index: new(i), Term: new(term), Data: make([]byte, handleSize)}, payload: []byte{1}, holders: new(atomic.Int32)})
		}
		return out
	}
	w.append(slots(11, 20, 3))
	w.append(slots(16, 18, 4)) // overwrites 16… and cuts 19, 20
	if last, _ := w.LastIndex(); last != 18 {
		t.Fatalf("last index %d, want 18", last)
	}
	for i, want := range map[uint64]uint64{10: 2, 11: 3, 15: 3, 16: 4, 18: 4} {
		if got, err := w.Term(i); err != nil || got != want {
			t.Errorf("term of %d is %d, %v; want %d", i, got, err, want)
		}
	}
	for _, i := range []uint64{9, 19} {
		if _, err := w.Term(i); err == nil {
			t.Errorf("term of %d is known", i)
		}
	}
	if ents, err := w.Entries(11, 19, 100); err != nil || len(ents) != 2 {
		t.Errorf("100 bytes of entries: %d, %v", len(ents), err)
	}
	if ents, err := w.Entries(11, 19, 0); err != nil || len(ents) != 1 {
		t.Errorf("at least one entry: %d, %v", len(ents), err)
	}
	held, _ := w.find(entryID{15, 3})
	for i := uint64(11); i <= 15; i++ {
		s, ok := w.take(i)
		if !ok || s.payload == nil || s.holders.Load() != int32(i/15) {
			t.Errorf("entry %d: %+v, %v", i, s, ok)
		}
	}
	w.applied(15)
	if s, _ := w.find(entryID{15, 3}); s.payload != nil {
		t.Error("a payload that was taken is still given out")
	}
	if held.release(); held.holders.Load() != 0 {
		t.Error("a payload is held by nobody, but counted")
	}
	if s, _ := w.find(entryID{16, 4}); s.payload == nil {
		t.Error("a payload that was not taken is gone")
	}
	last := uint64(18 + 4*windowEntries)
	w.append(slots(19, last, 4))
	w.applied(last)
	if first, _ := w.FirstIndex(); last-first > 2*windowEntries || last-first < windowEntries-1 {
		t.Errorf("the window holds %d entries", last-first)
	}
}

func FuzzDecodeCheckpoint(f *testing.F) {
	b, err := checkpoint{index: 5, term: 2, group: alone(Member{ID: 7, Name: "n"}, 1), state: []byte("state")}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCheckpoint(b)
		if err != nil {
			return
		}
		again, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeCheckpoint(again)
		if err != nil || back.index != c.index || back.term != c.term || !bytes.Equal(back.state, c.state) {
			t.Fatalf("%+v became %+v, %v", c, back, err)
		}
	})
}

func FuzzDecodeHandle(f *testing.F) {
	f.Add(handle{1, 2, 3, 4}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHandle(b); err == nil && !bytes.Equal(h.encode(), b) {
			t.Fatalf("%x became %x", b, h.encode())
		}
	})
}
