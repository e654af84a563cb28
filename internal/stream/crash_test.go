package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/binlogtest"
	"kingbus/internal/cluster"
	"kingbus/internal/gtid"
	"kingbus/internal/vfs"
)

// script is a source's whole binlog, made in advance.
type script struct {
	names []string
	files [][]byte // with the magic
	ends  [][]end
}

// end is the end of an event.
type end struct {
	pos      int
	boundary bool
}

func ends(t *testing.T, data []byte) (out []end) {
	var tracker binlog.Tracker
	for at := binlog.MagicSize; at < len(data); {
		h, err := binlog.ParseHeader(data[at:])
		if err != nil {
			t.Fatal(err)
		}
		e, err := tracker.Next(data[at : at+int(h.Length)])
		if err != nil {
			t.Fatal(err)
		}
		at += int(h.Length)
		out = append(out, end{at, e.Boundary})
	}
	return out
}

func makeScript(t *testing.T, rng *rand.Rand, files, transactions int) script {
	w := binlogtest.Writer{UUID: testUUID, ServerID: 7, Time: 1700000000, Checksum: binlog.ChecksumCRC32}
	var s script
	for i := range files {
		b := w.Begin([]byte(binlog.Magic))
		for range rng.IntN(transactions) {
			switch rng.IntN(40) {
			case 0: // larger than a run
				sizes := make([]int, 1+rng.IntN(60))
				for i := range sizes {
					sizes[i] = rng.IntN(20 << 10)
				}
				b = w.TransactionOf(b, sizes...)
			case 1: // an event that is cut
				b = w.Transaction(b, 600<<10)
			default:
				b = w.Transaction(b, rng.IntN(2000))
			}
		}
		if rng.IntN(3) > 0 { // else the source crashed
			b = w.Rotate(b, fmt.Sprintf("binlog.%06d", i+2))
		}
		s.names = append(s.names, fmt.Sprintf("binlog.%06d", i+1))
		s.files = append(s.files, b)
		s.ends = append(s.ends, ends(t, b))
	}
	return s
}

// feeder sends a script into a link from where that resumes, in runs of random
// sizes, as internal/source would.
type feeder struct {
	rng     *rand.Rand
	s       script
	link    *Link
	most    int // transactions in a run; 0 = 20
	file    int // in the script
	pos     int
	started bool
}

func (f *feeder) resume(at Coordinates) {
	f.file, f.pos, f.started = 0, binlog.MagicSize, at.File != ""
	for i, name := range f.s.names {
		if name == at.File {
			f.file, f.pos = i, int(at.Pos)
		}
	}
}

// step appends one run, or rotates; done tells that the script is at its end.
func (f *feeder) step(ctx context.Context) (done bool, err error) {
	data := f.s.files[f.file]
	if !f.started {
		f.started = true
		return false, f.link.Rotate(ctx, f.s.names[f.file])
	}
	if f.pos == len(data) {
		if f.file == len(f.s.files)-1 {
			return true, nil
		}
		f.file, f.pos = f.file+1, binlog.MagicSize
		return false, f.link.Rotate(ctx, f.s.names[f.file])
	}
	end := f.cut(data)
	run := append(make([]byte, RunHeader), data[f.pos:end]...)
	f.pos = end
	return false, f.link.Append(ctx, run)
}

// cut returns the end of a run that begins at f.pos: at a boundary after a
// random number of transactions, or within one that is large.
func (f *feeder) cut(data []byte) int {
	ends := f.s.ends[f.file]
	n := sort.Search(len(ends), func(i int) bool { return ends[i].pos > f.pos })
	most := f.most
	if most == 0 {
		most = 20
	}
	end, want := 0, 1+f.rng.IntN(most)
	for i := n; i < len(ends) && want > 0 && ends[i].pos <= f.pos+MaxRun; i++ {
		if ends[i].boundary {
			end = ends[i].pos
			want--
		}
	}
	if end > 0 {
		return end
	}
	// Within a transaction: at an event's end, or inside an event that is large.
	start := f.pos
	if n > 0 {
		start = ends[n-1].pos // of the event at f.pos
	}
	if ends[n].pos-start > MaxRun {
		return min(ends[n].pos, f.pos+MaxRun)
	}
	for i := n; ; i++ {
		if ends[i].pos > f.pos+f.rng.IntN(MaxRun) || ends[i+1].pos > f.pos+MaxRun {
			return ends[i].pos
		}
	}
}

// TestCrash takes the power away at random moments. What was applied before is
// there afterwards, in order; nothing else is; and the stream goes on from there
// to the very bytes of the source.
func TestCrash(t *testing.T) {
	seeds := 30
	if testing.Short() {
		seeds = 5
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { crashHistory(t, seed) })
	}
}

func crashHistory(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	ctx := context.Background()
	fs := vfs.NewMem(seed)
	f := feeder{rng: rng, s: makeScript(t, rng, 4, 300)}
	cfg := Config{FS: fs, Dir: "data", SegmentBytes: 256 << 10, Peering: cluster.Peering{Heartbeat: time.Millisecond}}
	var acknowledged Coordinates
	for life := 0; ; life++ {
		cfg.FS = fs
		s, err := Open(cfg)
		if err != nil {
			t.Fatalf("life %d: %v", life, err)
		}
		// What is on disk and not yet known to be committed is applied when the
		// node leads again.
		if _, err := s.Lead(ctx); err != nil {
			t.Fatal(err)
		}
		checkPrefix(t, s, f.s, acknowledged)
		if f.link, err = s.StartLink(ctx, Source{UUID: testUUID.String()}); err != nil {
			t.Fatal(err)
		}
		res, err := f.link.Resume()
		if err != nil {
			t.Fatal(err)
		}
		f.resume(res.Source)
		done := false
		for steps := 5 + rng.IntN(60); steps > 0 && !done; steps-- {
			if done, err = f.step(ctx); err != nil {
				t.Fatalf("life %d: %v", life, err)
			}
			if files := s.Status().Files; rng.IntN(40) == 0 && len(files) > 1 {
				if err := s.Purge(ctx, files[rng.IntN(len(files))].Name); err != nil {
					t.Fatal(err)
				}
			}
		}
		if done {
			last := len(f.s.names) - 1
			end := Coordinates{f.s.names[last], uint64(len(f.s.files[last]))}
			waitApplied(t, f.link, end)
			acknowledged = end
			checkPrefix(t, s, f.s, end)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return
		}
		if rng.IntN(2) == 0 {
			acknowledged, _ = f.link.Applied()
			fs = fs.Crash(rng.Uint64())
			if err := s.Close(); err != nil { // the old life's goroutines
				t.Fatal(err)
			}
		} else {
			acknowledged, _ = f.link.Applied()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func waitApplied(t *testing.T, l *Link, want Coordinates) {
	t.Helper()
	for {
		got, changed := l.Applied()
		if got == want {
			return
		}
		select {
		case <-changed:
		case <-l.Lost():
			t.Fatal(l.Err())
		case <-time.After(20 * time.Second):
			t.Fatalf("applied %v, want %v", got, want)
		}
	}
}

// checkPrefix compares the stream with the beginning of the script.
func checkPrefix(t *testing.T, s *Stream, want script, least Coordinates) {
	t.Helper()
	st := s.Status()
	executed := st.Purged.Clone()
	var numbers []int64
	for n, f := range st.Files {
		i := slices.Index(want.names, f.Name)
		if i < 0 || n > 0 && f.Name != want.names[slices.Index(want.names, st.Files[n-1].Name)+1] {
			t.Fatalf("files %v", st.Files)
		}
		var b bytes.Buffer
		if err := s.Export(context.Background(), f.Name, &b); err != nil {
			t.Fatal(err)
		}
		full := n < len(st.Files)-1
		if !bytes.HasPrefix(want.files[i], b.Bytes()) || full && b.Len() != len(want.files[i]) {
			t.Fatalf("%s: %d bytes are not what the source has (%d)", f.Name, b.Len(), len(want.files[i]))
		}
		for d := b.Bytes()[binlog.MagicSize:]; len(d) > 0; {
			h, err := binlog.ParseHeader(d)
			if err != nil {
				t.Fatal(err)
			}
			if h.Type == binlog.TypeGTID {
				g, err := binlog.ParseGTID(d[:h.Length], binlog.ChecksumCRC32)
				if err != nil {
					t.Fatal(err)
				}
				executed.Add(g.GTID)
				numbers = append(numbers, g.GTID.GNO)
			}
			d = d[h.Length:]
		}
	}
	if !st.Executed.Equal(executed) {
		t.Fatalf("executed %v, but the files have %v", st.Executed, executed)
	}
	if len(st.Files) > 0 {
		// Whoever has some of it gets the rest, in order.
		have := st.Purged.Clone()
		rest := numbers[len(numbers)/3:]
		for _, n := range numbers[:len(numbers)/3] {
			have.Add(gtid.GTID{SID: gtid.SID{UUID: testUUID}, GNO: n})
		}
		r, err := s.SeekGTID(have)
		if err != nil {
			t.Fatal(err)
		}
		if got := missing(t, r, have); !slices.Equal(got, rest) {
			t.Fatalf("with %v: got %d transactions, want %d", have, len(got), len(rest))
		}
		_ = r.Close()
	}
	if least.File > st.End.File || least.File == st.End.File && least.Pos > st.End.Pos {
		t.Fatalf("the stream ends at %v, but %v was acknowledged", st.End, least)
	}
}

// TestFailedSync: after a failed sync nothing is acknowledged any more, and the
// node says that it cannot go on.
func TestFailedSync(t *testing.T) {
	fs := vfs.NewMem(1)
	r := newRig(t, fs)
	r.start()
	r.rotate()
	r.transactions(10, 100)
	r.wait()
	end := r.s.Status().End
	broken := errors.New("broken disk")
	fs.Fail(vfs.OpSync, 1, broken)
	for err := error(nil); err == nil; {
		err = r.link.Append(context.Background(), append(make([]byte, RunHeader), r.w.Transaction(nil, 100)...))
	}
	<-r.s.Failed()
	if err := r.s.Err(); !errors.Is(err, broken) {
		t.Errorf("failed with %v", err)
	}
	if got := r.s.Status().End; got != end {
		t.Errorf("the end is %v, nothing after %v was ever synced", got, end)
	}
	if err := r.s.Close(); !errors.Is(err, broken) {
		t.Errorf("Close: %v", err)
	}
}

// TestDiskReserve: at the reserve only events stop; commands go on, and so do
// events when there is room again.
func TestDiskReserve(t *testing.T) {
	fs := vfs.NewMem(1)
	r := newRig(t, fs)
	r.start()
	r.rotate()
	r.transactions(5, 100)
	r.wait()
	fs.SetLimit(1 << 20)
	r.start() // a new link looks at once
	err := r.link.Append(context.Background(), append(make([]byte, RunHeader), 1, 2, 3))
	if !errors.Is(err, ErrDiskFull) {
		t.Fatalf("append on a full disk: %v", err)
	}
	fs.SetLimit(1 << 30)
	r.transactions(5, 100)
	r.wait()
	r.check()
}
