package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kingbus/internal/binlog"
	"kingbus/internal/binlogtest"
	"kingbus/internal/cluster"
	"kingbus/internal/gtid"
	"kingbus/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testUUID = func() gtid.UUID {
	u, err := gtid.ParseUUID("11111111-2222-3333-4444-555555555555")
	if err != nil {
		panic(err)
	}
	return u
}()

// rig is a stream on a filesystem in memory, and what should be in it.
type rig struct {
	t    *testing.T
	fs   vfs.FS
	cfg  Config
	s    *Stream
	link *Link
	w    binlogtest.Writer
	want map[string][]byte // by file, without the magic
	name string
	n    int
}

func newRig(t *testing.T, fs vfs.FS) *rig {
	r := &rig{t: t, fs: fs, want: map[string][]byte{}}
	r.w = binlogtest.Writer{UUID: testUUID, ServerID: 7, Time: 1700000000, Checksum: binlog.ChecksumCRC32}
	r.cfg = Config{FS: fs, Dir: "data", SegmentBytes: 1 << 20, Peering: cluster.Peering{Heartbeat: 10 * time.Millisecond}}
	if testing.Verbose() {
		r.cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	r.open()
	t.Cleanup(func() { _ = r.s.Close() })
	return r
}

func (r *rig) open() {
	r.t.Helper()
	s, err := Open(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.s = s
}

func (r *rig) start() Resume {
	r.t.Helper()
	ctx := context.Background()
	if _, err := r.s.Lead(ctx); err != nil {
		r.t.Fatal(err)
	}
	l, err := r.s.StartLink(ctx, Source{UUID: testUUID.String(), ServerID: 7, Version: "9.7.4"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.link = l
	res, err := l.Resume()
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

// rotate begins the next file, with FDE and PREVIOUS_GTIDS.
func (r *rig) rotate() {
	r.t.Helper()
	r.n++
	r.name = fmt.Sprintf("binlog.%06d", r.n)
	if err := r.link.Rotate(context.Background(), r.name); err != nil {
		r.t.Fatal(err)
	}
	r.append(r.w.Begin(nil))
}

// append proposes events as one run and expects them to count.
func (r *rig) append(events []byte) {
	r.t.Helper()
	r.offer(events)
	r.want[r.name] = append(r.want[r.name], events...)
}

func (r *rig) offer(events []byte) {
	r.t.Helper()
	run := append(make([]byte, RunHeader), events...)
	if err := r.link.Append(context.Background(), run); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) transactions(n, size int) {
	r.t.Helper()
	for range n {
		r.append(r.w.Transaction(nil, size))
	}
}

// wait waits until the stream's end is what was appended.
func (r *rig) wait() {
	r.t.Helper()
	want := Coordinates{r.name, uint64(len(r.want[r.name])) + binlog.MagicSize}
	for {
		changed := r.s.Changed()
		if got := r.s.Status().End; got == want {
			return
		}
		select {
		case <-changed:
		case <-r.s.Failed():
			r.t.Fatal(r.s.Err())
		case <-time.After(20 * time.Second):
			r.t.Fatalf("end is %v, want %v", r.s.Status().End, want)
		}
	}
}

// check compares every file with what was appended.
func (r *rig) check() {
	r.t.Helper()
	st := r.s.Status()
	if len(st.Files) != len(r.want) {
		r.t.Fatalf("%d files, want %d", len(st.Files), len(r.want))
	}
	for _, f := range st.Files {
		var b bytes.Buffer
		if err := r.s.Export(context.Background(), f.Name, &b); err != nil {
			r.t.Fatal(err)
		}
		if want := append([]byte(binlog.Magic), r.want[f.Name]...); !bytes.Equal(b.Bytes(), want) {
			r.t.Fatalf("%s: %d bytes differ from the %d that were appended", f.Name, b.Len(), len(want))
		}
	}
	if !st.Executed.Equal(r.w.Executed) {
		r.t.Fatalf("executed %v, want %v", st.Executed, r.w.Executed)
	}
}

func TestWriteReadRestart(t *testing.T) {
	r := newRig(t, vfs.NewMem(1))
	if res := r.start(); res.Source.File != "" {
		t.Fatalf("a new stream resumes at %v", res.Source)
	}
	r.rotate()
	r.transactions(2000, 500)
	r.append(r.w.Rotate(nil, "binlog.000002"))
	r.rotate()
	r.transactions(300, 5000)
	r.wait()
	r.check()
	first := r.s.Status()
	for range 2 {
		if err := r.s.Close(); err != nil {
			t.Fatal(err)
		}
		r.open()
		r.check()
		if got := r.s.Status(); got.Identity != first.Identity || got.Transactions != first.Transactions || got.End != first.End {
			t.Fatalf("after a restart: %+v, before: %+v", got, first)
		}
		res := r.start()
		if want := (Coordinates{r.name, uint64(len(r.want[r.name])) + 4}); res.Source != want || !res.Executed.Equal(r.w.Executed) {
			t.Fatalf("resumes at %v with %v, want %v with %v", res.Source, res.Executed, want, r.w.Executed)
		}
		if f, err := binlog.ParseFormatDescription(res.FormatDescription); err != nil || f.ServerVersion != "9.7.4" {
			t.Fatalf("format description %+v, %v", f, err)
		}
		r.transactions(100, 100)
		r.wait()
		first = r.s.Status()
	}
	r.check()
}

// TestAbort: a transaction that was open when the link broke does not count, and
// is sent again.
func TestAbort(t *testing.T) {
	r := newRig(t, vfs.NewMem(1))
	r.start()
	r.rotate()
	r.transactions(3, 100)
	before := r.w
	whole := r.w.TransactionOf(nil, 1000, 1000, 1000, 1000)
	part := whole[:len(whole)-31-1019-4] // without XID and the last rows event
	r.offer(part)
	res := r.start()
	want := Coordinates{r.name, uint64(len(r.want[r.name])) + 4}
	if res.Source != want {
		t.Fatalf("resumes at %v, want %v", res.Source, want)
	}
	r.w = before
	r.w.Executed = before.Executed.Clone()
	r.transactions(5, 300)
	r.wait()
	r.check()
	// The same with the end of the file instead of a new link.
	r.offer(r.w.TransactionOf(nil, 1000, 1000)[:1500-100-5])
}

func TestSeekPosition(t *testing.T) {
	r := newRig(t, vfs.NewMem(1))
	r.start()
	r.rotate()
	r.transactions(200, 3000)
	r.append(r.w.TransactionOf(nil, 100, 200, 300))
	r.append(r.w.Rotate(nil, "binlog.000002"))
	r.rotate()
	r.transactions(20, 3000)
	r.wait()
	for _, f := range r.s.Status().Files {
		data := r.want[f.Name]
		starts := map[uint64]bool{f.Size: true}
		for at := 0; at < len(data); {
			h, err := binlog.ParseHeader(data[at:])
			if err != nil {
				t.Fatal(err)
			}
			starts[uint64(at)+4] = true
			at += int(h.Length)
		}
		for pos := range starts {
			rd, err := r.s.SeekPosition(f.Name, pos)
			if err != nil {
				t.Fatalf("%s:%d: %v", f.Name, pos, err)
			}
			if got := rd.Start(); got != (Coordinates{f.Name, pos}) {
				t.Fatalf("starts at %v, want %s:%d", got, f.Name, pos)
			}
			c, err := rd.Next()
			switch {
			case err == ErrEnd && f.Name == r.name && pos == f.Size:
			case err != nil:
				t.Fatalf("%s:%d: %v", f.Name, pos, err)
			case c.File == f.Name && (c.Pos != pos || !bytes.HasPrefix(data[pos-4:], c.Data)):
				t.Fatalf("%s:%d: got %d bytes at %d", f.Name, pos, len(c.Data), c.Pos)
			}
			_ = rd.Close()
		}
		for _, pos := range []uint64{5, 23, f.Size - 1} {
			var pe *PositionError
			if rd, err := r.s.SeekPosition(f.Name, pos); !errors.As(err, &pe) || pe.Start >= pos || !starts[pe.Start] {
				t.Fatalf("%s:%d: %v, %v", f.Name, pos, rd, err)
			}
		}
	}
	for _, c := range []struct {
		name string
		pos  uint64
		want error
	}{
		{"binlog.000002", 1 << 40, ErrNotYet}, {"binlog.000003", 4, ErrNotYet}, {"binlog.000000", 4, ErrNoFile}, {"other.000003", 4, ErrNoFile},
	} {
		if _, err := r.s.SeekPosition(c.name, c.pos); !errors.Is(err, c.want) {
			t.Errorf("%s:%d: %v, want %v", c.name, c.pos, err, c.want)
		}
	}
}

func TestSeekGTID(t *testing.T) {
	r := newRig(t, vfs.NewMem(1))
	r.start()
	for range 3 {
		r.rotate()
		r.transactions(400, 2000)
		r.append(r.w.Rotate(nil, fmt.Sprintf("binlog.%06d", r.n+1)))
	}
	r.rotate()
	r.wait()
	check := func() {
		t.Helper()
		for _, last := range []int64{0, 1, 399, 400, 401, 777, 1190, 1200} {
			var have gtid.Set
			for n := int64(1); n <= last; n++ {
				have.Add(gtid.GTID{SID: gtid.SID{UUID: testUUID}, GNO: n})
			}
			rd, err := r.s.SeekGTID(have)
			if err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("binlog.%06d", last/400+1)
			if rd.Start().File != name {
				t.Errorf("with %d transactions: begins in %v, want %s", last, rd.Start(), name)
			}
			if rd.Start().Pos > 4 {
				format, previous, err := rd.Head()
				if err != nil || !bytes.HasPrefix(r.want[name], append(format, previous...)) || len(previous) == 0 {
					t.Errorf("head: %d %d bytes, %v", len(format), len(previous), err)
				}
			}
			// The first GTID event that is read must be at most one point away.
			var first int64
			for first == 0 && last < 1200 {
				c, err := rd.Next()
				if err != nil {
					t.Fatal(err)
				}
				for d := c.Data; len(d) > 0 && first == 0; {
					h, _ := binlog.ParseHeader(d)
					if h.Type == binlog.TypeGTID {
						g, err := binlog.ParseGTID(d[:h.Length], binlog.ChecksumCRC32)
						if err != nil {
							t.Fatal(err)
						}
						first = g.GTID.GNO
					}
					d = d[h.Length:]
				}
			}
			if last < 1200 && (first > last+1 || first < last-pointEvery/2000-2) {
				t.Errorf("with %d transactions: the first one read is %d", last, first)
			}
			_ = rd.Close()
		}
	}
	check()
	if err := r.s.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	check()
	for _, b := range r.s.index.blocks {
		b.points = nil // as if there were many
	}
	r.s.index.blocks[len(r.s.index.blocks)-1].count = 0 // its file does not exist yet
}

func TestPurge(t *testing.T) {
	r := newRig(t, vfs.NewMem(1))
	r.start()
	for range 4 {
		r.rotate()
		r.transactions(400, 5000)
		r.append(r.w.Rotate(nil, fmt.Sprintf("binlog.%06d", r.n+1)))
	}
	r.rotate()
	r.wait()
	old, err := r.s.SeekPosition("binlog.000001", 4)
	if err != nil {
		t.Fatal(err)
	}
	before := r.s.Status()
	if err := r.s.Purge(context.Background(), "binlog.000003"); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 2; i++ {
		delete(r.want, fmt.Sprintf("binlog.%06d", i))
	}
	check := func() {
		t.Helper()
		r.check()
		st := r.s.Status()
		if want := testUUID.String() + ":1-800"; st.Purged.String() != want {
			t.Errorf("purged %v, want %v", st.Purged, want)
		}
		var pe *PurgedError
		if _, err := r.s.SeekGTID(gtid.Set{}); !errors.As(err, &pe) || pe.Missing.Count() != 800 {
			t.Errorf("seek what was purged: %v", err)
		}
		if _, err := r.s.SeekPosition("binlog.000002", 4); !errors.Is(err, ErrNoFile) {
			t.Errorf("seek what was purged: %v", err)
		}
	}
	check()
	for err == nil {
		_, err = old.Next()
	}
	if !errors.Is(err, ErrPurgedAway) {
		t.Errorf("a reader of a purged file: %v", err)
	}
	_ = old.Close()
	// Release is asynchronous and has no event of its own.
	for late := time.Now().Add(20 * time.Second); r.s.Status().Node.FirstIndex <= before.Node.FirstIndex; time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("no space was given back: %+v", r.s.Status().Node)
		}
	}
	if err := r.s.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	check()
}

// TestLargeEvent: an event far larger than a run is cut over several entries.
func TestLargeEvent(t *testing.T) {
	r := newRig(t, vfs.NewMem(1))
	r.start()
	r.rotate()
	r.transactions(2, 100)
	b := r.w.TransactionOf(nil, 3<<20, 10, 2<<20)
	for len(b) > 0 {
		n := min(len(b), MaxRun)
		r.append(b[:n])
		b = b[n:]
		if len(b) > 0 && len(b) < 64 {
			r.append(b)
			b = nil
		}
	}
	r.transactions(2, 100)
	r.wait()
	r.check()
}

func TestReaderFollows(t *testing.T) {
	r := newRig(t, vfs.NewMem(1))
	r.start()
	r.rotate()
	r.wait()
	rd, err := r.s.SeekPosition("", 4)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]byte{}
	done := make(chan error, 1)
	go func() {
		for {
			changed := rd.Changed()
			c, err := rd.Next()
			if err == ErrEnd {
				<-changed
				continue
			}
			if err != nil {
				done <- err
				return
			}
			if c.NewFile() != (len(got[c.File]) == 0) {
				done <- fmt.Errorf("chunk at %s:%d: new file is %v", c.File, c.Pos, c.NewFile())
				return
			}
			got[c.File] = append(got[c.File], c.Data...)
			if c.File == "binlog.000004" {
				done <- io.EOF
				return
			}
		}
	}()
	for r.n < 4 {
		r.transactions(500, 700)
		r.append(r.w.Rotate(nil, fmt.Sprintf("binlog.%06d", r.n+1)))
		r.rotate()
	}
	if err := <-done; err != io.EOF {
		t.Fatal(err)
	}
	for i := 1; i < 4; i++ {
		name := fmt.Sprintf("binlog.%06d", i)
		if !bytes.Equal(got[name], r.want[name]) {
			t.Errorf("%s: read %d bytes, want %d", name, len(got[name]), len(r.want[name]))
		}
	}
	_ = rd.Close()
}
