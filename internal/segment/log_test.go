package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"kingbus/internal/vfs"
)

const dir = "/log"

// entry makes the entry of an index and a term; its content follows from these and its size, so that a test can check what it reads.
func entry(index, term uint64, size int) Entry {
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(uint64(i)*7 + index*13 + term*31)
	}
	return Entry{Index: index, Term: term, Type: uint8(index % 3), Data: fmt.Appendf(nil, "%d/%d", index, term), Payload: p}
}

func same(a, b Entry) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && bytes.Equal(a.Data, b.Data) && bytes.Equal(a.Payload, b.Payload)
}

func mustOpen(t testing.TB, fs vfs.FS, opt Options) (*Log, Recovery) {
	t.Helper()
	l, rec, err := Open(fs, dir, opt)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return l, rec
}

func mustAppend(t testing.TB, l *Log, entries ...Entry) []Location {
	t.Helper()
	locs, err := l.Append(entries)
	if err != nil {
		t.Fatalf("Append: %v", err)
	}
	if err := l.Sync(); err != nil {
		t.Fatalf("Sync: %v", err)
	}
	return locs
}

// fill appends entries first to last of a term, one batch each.
func fill(t testing.TB, l *Log, first, last, term uint64, size int) {
	t.Helper()
	for i := first; i <= last; i++ {
		mustAppend(t, l, entry(i, term, size))
	}
}

// readAll returns copies of all entries from index on, and the error that ended it unless it is io.EOF.
func readAll(l *Log, index uint64) (entries []Entry, err error) {
	loc, err := l.Seek(index)
	if err != nil {
		return nil, err
	}
	r, err := l.NewReader(loc)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for {
		e, _, err := r.Next()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return entries, err
		}
		e.Data, e.Payload = bytes.Clone(e.Data), bytes.Clone(e.Payload)
		entries = append(entries, e)
	}
}

// wantEntries checks that the log holds exactly these.
func wantEntries(t testing.TB, l *Log, want ...Entry) {
	t.Helper()
	got, err := readAll(l, l.FirstIndex())
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if len(got) != len(want) {
		t.Fatalf("got %d entries, want %d", len(got), len(want))
	}
	for i := range got {
		if !same(got[i], want[i]) {
			t.Fatalf("entry %d: got %d/%d with %d bytes, want %d/%d with %d", i, got[i].Index, got[i].Term, len(got[i].Payload), want[i].Index, want[i].Term, len(want[i].Payload))
		}
	}
}

func entries(first, last, term uint64, size int) (all []Entry) {
	for i := first; i <= last; i++ {
		all = append(all, entry(i, term, size))
	}
	return all
}

func TestAppendReadReopen(t *testing.T) {
	fs := vfs.NewMem(1)
	l, rec := mustOpen(t, fs, Options{SegmentBytes: 64 << 10})
	if rec.First != 1 || rec.Last != 0 {
		t.Fatalf("new log: got %+v", rec)
	}
	var want []Entry
	sizes := []int{0, 1, 300, 5000, 70 << 10, 10, 300 << 10, 4096, 4097}
	for i := uint64(1); i <= 60; i += 3 {
		batch := []Entry{entry(i, 1, sizes[i%9]), entry(i+1, 1, sizes[(i+1)%9]), entry(i+2, 2+i, sizes[(i+2)%9])}
		batch[0].Term, batch[1].Term = 2+i, 2+i
		locs := mustAppend(t, l, batch...)
		want = append(want, batch...)
		for j, loc := range locs {
			if got, err := l.Seek(batch[j].Index); err != nil || got != loc {
				t.Fatalf("Seek(%d): got %v, %v, want %v", batch[j].Index, got, err, loc)
			}
		}
	}
	wantEntries(t, l, want...)
	if n := len(l.Segments()); n < 10 {
		t.Errorf("got %d segments, want several", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, rec = mustOpen(t, fs, Options{SegmentBytes: 64 << 10, Committed: 60})
	if rec != (Recovery{First: 1, Last: 60}) {
		t.Errorf("reopened: got %+v", rec)
	}
	wantEntries(t, l, want...)
	mustAppend(t, l, entry(61, 100, 10))
	wantEntries(t, l, append(want, entry(61, 100, 10))...)
}

func TestReaderFollows(t *testing.T) {
	l, _ := mustOpen(t, vfs.NewMem(1), Options{SegmentBytes: 8 << 10})
	r, err := l.NewReader(Location{Segment: 1, Offset: headerSize})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := uint64(1); i < 50; i++ {
		if _, _, err := r.Next(); err != io.EOF {
			t.Fatalf("at the end: got %v, want EOF", err)
		}
		locs := mustAppend(t, l, entry(i, 1, 700))
		e, loc, err := r.Next()
		if err != nil || !same(e, entry(i, 1, 700)) || loc != locs[0] {
			t.Fatalf("entry %d: got %d at %v, %v, want it at %v", i, e.Index, loc, err, locs[0])
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	l, _ := mustOpen(t, vfs.NewMem(1), Options{})
	if err := l.ResetTo(10, 5); err != nil {
		t.Fatal(err)
	}
	fill(t, l, 11, 15, 6, 10)
	for name, batch := range map[string][]Entry{
		"a gap":                {entry(17, 6, 1)},
		"before the log":       {entry(10, 6, 1)},
		"a gap in the batch":   {entry(16, 6, 1), entry(18, 6, 1)},
		"a lower term":         {entry(16, 5, 1)},
		"a lower term within":  {entry(16, 8, 1), entry(17, 7, 1)},
		"data that is too big": {{Index: 16, Term: 6, Data: make([]byte, MaxData+1)}},
	} {
		if _, err := l.Append(batch); !errors.Is(err, ErrRange) {
			t.Errorf("%s: got %v, want %v", name, err, ErrRange)
		}
	}
	wantEntries(t, l, entries(11, 15, 6, 10)...)
	if locs, err := l.Append(nil); err != nil || locs != nil {
		t.Errorf("an empty batch: got %v, %v", locs, err)
	}
	big := Entry{Index: 16, Term: 6, Data: make([]byte, MaxData)}
	mustAppend(t, l, big)
	wantEntries(t, l, append(entries(11, 15, 6, 10), big)...)
}

func TestTruncate(t *testing.T) {
	for to := uint64(0); to <= 31; to++ {
		fs, opt := base(t)
		l, _ := mustOpen(t, fs, opt)
		end, err := l.Seek(31)
		if err != nil {
			t.Fatal(err)
		}
		behind, err := l.NewReader(end)
		if err != nil {
			t.Fatal(err)
		}
		before, err := l.NewReader(Location{Segment: 1, Offset: headerSize})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.TruncateAfter(to); err != nil {
			t.Fatalf("TruncateAfter(%d): %v", to, err)
		}
		kept := min(to, 30)
		mustAppend(t, l, entry(kept+1, 9, 80))
		want := append(baseEntries()[:kept:kept], entry(kept+1, 9, 80))
		wantEntries(t, l, want...)
		_, _, err = behind.Next()
		if wantErr := map[bool]error{true: nil, false: ErrTruncated}[to >= 30]; !errors.Is(err, wantErr) {
			t.Errorf("TruncateAfter(%d): the reader behind it: got %v, want %v", to, err, wantErr)
		}
		for i := range want {
			if e, _, err := before.Next(); err != nil || !same(e, want[i]) {
				t.Fatalf("TruncateAfter(%d): the reader before it: got %d, %v, want %d", to, e.Index, err, want[i].Index)
			}
		}
		behind.Close()
		before.Close()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l, rec := mustOpen(t, fs.Crash(0), opt)
		if rec.TornFile != "" {
			t.Errorf("TruncateAfter(%d): opened again: %+v", to, rec)
		}
		wantEntries(t, l, want...)
	}
	fs, opt := base(t)
	l, _ := mustOpen(t, fs, opt)
	if err := l.DropBefore(11); err != nil {
		t.Fatal(err)
	}
	if err := l.TruncateAfter(9); !errors.Is(err, ErrRange) {
		t.Errorf("cut before the log: got %v, want %v", err, ErrRange)
	}
	if err := l.TruncateAfter(10); err != nil {
		t.Errorf("cut of everything: %v", err)
	}
	if index, term := l.Prev(); index != 10 || term != 2 || l.LastIndex() != 10 {
		t.Errorf("got %d of term %d before the log, last %d, want 10 of term 2, last 10", index, term, l.LastIndex())
	}
}

// TestStaleBuffer: a reader has read ahead what is cut off and written anew.
func TestStaleBuffer(t *testing.T) {
	l, _ := mustOpen(t, vfs.NewMem(1), Options{})
	fill(t, l, 1, 5, 1, 100)
	r, err := l.NewReader(Location{Segment: 1, Offset: headerSize})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, entries(2, 6, 2, 100)...)
	for i := uint64(2); i <= 6; i++ {
		if e, _, err := r.Next(); err != nil || !same(e, entry(i, 2, 100)) {
			t.Errorf("got %d/%d, %v, want %d/2", e.Index, e.Term, err, i)
		}
	}
}

func TestDropWhileReading(t *testing.T) {
	fs, opt := base(t)
	l, _ := mustOpen(t, fs, opt)
	first, err := l.NewReader(Location{Segment: 1, Offset: headerSize})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := l.NewReader(Location{Segment: 11, Offset: headerSize})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	fs.Fail(vfs.OpRemove, 1, syscall.EIO)
	if err := l.DropBefore(1000); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v, want EIO", err)
	}
	if n := len(l.Segments()); n != 1 || l.FirstIndex() != 21 {
		t.Errorf("got %d segments from %d on, want the active one, 21", n, l.FirstIndex())
	}
	if err := l.DropBefore(1000); err != nil { // tries again what is left
		t.Fatal(err)
	}
	if names, _ := fs.ReadDir(dir); len(names) != 1 {
		t.Errorf("left: %v", names)
	}
	want := baseEntries()
	for i := range 10 {
		if e, _, err := first.Next(); err != nil || !same(e, want[i]) {
			t.Fatalf("entry %d: got %d, %v", i+1, e.Index, err)
		}
	}
	if _, _, err := first.Next(); err != ErrDropped {
		t.Errorf("at the end of a dropped segment: got %v, want %v", err, ErrDropped)
	}
	for i := 10; i < 30; i++ {
		if e, _, err := second.Next(); err != nil || !same(e, want[i]) {
			t.Fatalf("entry %d: got %d, %v", i+1, e.Index, err)
		}
	}
	if _, err := l.Seek(20); err != ErrDropped {
		t.Errorf("Seek: got %v, want %v", err, ErrDropped)
	}
	if _, err := l.NewReader(Location{Segment: 11, Offset: headerSize}); err != ErrDropped {
		t.Errorf("NewReader: got %v, want %v", err, ErrDropped)
	}
	first.Close()
	second.Close()
	if got := l.Stats().OpenFiles; got > 2 {
		t.Errorf("%d files are open, want at most 2", got)
	}
}

func TestOpenFilesAreBounded(t *testing.T) {
	l, _ := mustOpen(t, vfs.NewMem(1), Options{SegmentBytes: headerSize + 200})
	fill(t, l, 1, 100, 1, 100)
	if n := len(l.Segments()); n < 50 {
		t.Fatalf("got %d segments, want many", n)
	}
	wantEntries(t, l, entries(1, 100, 1, 100)...)
	if got := l.Stats().OpenFiles; got < 10 || got > maxIdle+1 {
		t.Errorf("%d files are open, want at most %d", got, maxIdle+1)
	}
}

func TestReset(t *testing.T) {
	fs, opt := base(t)
	l, _ := mustOpen(t, fs, opt)
	r, err := l.NewReader(Location{Segment: 11, Offset: headerSize})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.ResetTo(20, 9); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Next(); err != ErrTruncated {
		t.Errorf("reader: got %v, want %v", err, ErrTruncated)
	}
	r.Close()
	if index, term := l.Prev(); index != 20 || term != 9 || l.FirstIndex() != 21 || l.LastIndex() != 20 {
		t.Errorf("got %d to %d behind %d of term %d", l.FirstIndex(), l.LastIndex(), index, term)
	}
	fill(t, l, 21, 25, 9, 10)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, rec := mustOpen(t, fs.Crash(0), Options{Committed: 25})
	if rec != (Recovery{First: 21, Last: 25}) {
		t.Errorf("got %+v", rec)
	}
	wantEntries(t, l, entries(21, 25, 9, 10)...)
}

func TestCloseAndLock(t *testing.T) {
	fs, opt := base(t)
	l, _ := mustOpen(t, fs, opt)
	if _, _, err := Open(fs, dir, opt); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("opened twice: got %v, want %v", err, vfs.ErrLocked)
	}
	r, err := l.NewReader(Location{Segment: 1, Offset: headerSize})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err == nil {
		t.Error("closed with an open reader: no error")
	}
	if err := l.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	_, appendErr := l.Append(entries(31, 31, 9, 1))
	_, _, nextErr := r.Next()
	_, newErr := l.NewReader(Location{Segment: 1, Offset: headerSize})
	_, seekErr := l.Seek(5)
	for i, err := range []error{appendErr, l.Sync(), nextErr, newErr, seekErr, l.TruncateAfter(1), l.DropBefore(20), l.ResetTo(1, 1)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("call %d after Close: got %v, want %v", i, err, ErrClosed)
		}
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Errorf("Reader.Close: %v", err)
	}
	if _, _, err := r.Next(); err != ErrClosed {
		t.Errorf("closed reader: got %v, want %v", err, ErrClosed)
	}
}

func TestBadLocations(t *testing.T) {
	fs, opt := base(t)
	l, _ := mustOpen(t, fs, opt)
	for _, loc := range []Location{{}, {Segment: 1}, {Segment: 2, Offset: headerSize}, {Segment: 1, Offset: 1 << 40}, {Segment: 99, Offset: headerSize}, {Segment: 1, Offset: -5}} {
		if r, err := l.NewReader(loc); err == nil {
			t.Errorf("%v: no error", loc)
			r.Close()
		}
	}
	r, err := l.NewReader(Location{Segment: 1, Offset: headerSize + 1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var corrupt *CorruptError
	if _, _, err := r.Next(); !errors.As(err, &corrupt) {
		t.Errorf("within a record: got %v, want a CorruptError", err)
	}
	if _, err := l.Seek(32); !errors.Is(err, ErrRange) {
		t.Errorf("Seek behind the end: got %v, want %v", err, ErrRange)
	}
}

func TestSkip(t *testing.T) {
	fs := vfs.NewMem(1)
	l, _ := mustOpen(t, fs, Options{SegmentBytes: 1 << 20})
	var want []Entry
	for i := uint64(1); i <= 60; i++ {
		size := 100
		if i%7 == 0 {
			size = 200 << 10
		}
		want = append(want, entry(i, 1, size))
	}
	mustAppend(t, l, want...)
	r, err := l.NewReader(Location{Segment: 1, Offset: headerSize})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, e := range want {
		rec, _, err := r.Skip()
		if err != nil || rec.Index != e.Index || rec.Term != e.Term || rec.Type != e.Type || !bytes.Equal(rec.Data, e.Data) || rec.PayloadLen != len(e.Payload) || rec.PayloadSum != checksum(e.Payload) {
			t.Fatalf("entry %d: got %+v, %v", e.Index, rec, err)
		}
	}
	if _, _, err := r.Skip(); err != io.EOF {
		t.Errorf("at the end: got %v, want EOF", err)
	}
}

// TestConcurrent runs readers beside appends, truncations and drops; the race detector and the checksums judge.
func TestConcurrent(t *testing.T) {
	l, _ := mustOpen(t, vfs.NewMem(1), Options{SegmentBytes: 16 << 10})
	done := make(chan struct{})
	var g errgroup.Group
	for range 3 {
		g.Go(func() error {
			for {
				r, err := readerAt(l)
				if err != nil {
					return err
				}
				err = follow(r, done)
				r.Close()
				if !errors.Is(err, ErrDropped) && !errors.Is(err, ErrTruncated) {
					return err
				}
			}
		})
	}
	last, term := uint64(0), uint64(1)
	for i := range 3000 {
		if i%50 == 49 {
			last -= min(last-l.FirstIndex(), 7)
			term++
		}
		mustAppend(t, l, entry(last+1, term, i%2000), entry(last+2, term, 10))
		last += 2
		if i%200 == 199 && last > 100 {
			if err := l.DropBefore(last - 100); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(done)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// readerAt returns a reader at the head of the log, wherever it is by now.
func readerAt(l *Log) (*Reader, error) {
	for {
		loc, err := l.Seek(l.FirstIndex())
		if err == nil {
			var r *Reader
			if r, err = l.NewReader(loc); err == nil {
				return r, nil
			}
		}
		if !errors.Is(err, ErrDropped) {
			return nil, err
		}
	}
}

// follow reads to the end of the log after done is closed.
func follow(r *Reader, done chan struct{}) error {
	for {
		ended := false
		select {
		case <-done:
			ended = true
		default:
		}
		e, _, err := r.Next()
		switch {
		case err == io.EOF && ended:
			return nil
		case err == io.EOF:
			runtime.Gosched()
		case err != nil:
			return err
		case !same(e, entry(e.Index, e.Term, len(e.Payload))):
			return fmt.Errorf("entry %d/%d is not what was written", e.Index, e.Term)
		}
	}
}

// TestOnDisk is the whole thing on the real filesystem.
func TestOnDisk(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "deep", "log")
	opt := Options{SegmentBytes: 300 << 10}
	var want []Entry
	for round := range 3 {
		opt.Committed = uint64(len(want))
		l, rec, err := Open(vfs.OS{}, folder, opt)
		if err != nil {
			t.Fatal(err)
		}
		if rec != (Recovery{First: 1, Last: uint64(len(want))}) {
			t.Errorf("round %d: got %+v", round, rec)
		}
		for range 40 {
			i := uint64(len(want) + 1)
			batch := []Entry{entry(i, 1, 100), entry(i+1, 1, 20<<10), entry(i+2, 1, 5)}
			mustAppend(t, l, batch...)
			want = append(want, batch...)
		}
		want = want[:len(want)-30]
		if err := l.TruncateAfter(uint64(len(want))); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, l, want...)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l, _, err := Open(vfs.OS{}, folder, opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.DropBefore(200), l.Close()); err != nil {
		t.Fatal(err)
	}
	found, err := list(vfs.OS{}, folder)
	if err != nil || found[0].First == 1 || found[0].First > 200 {
		t.Errorf("after DropBefore(200): the first segment is %d, %v", found[0].First, err)
	}
}

// A checksum that comes with the entry is what is stored: the right one reads back, a wrong one tells that the payload changed.
func TestAppendSummed(t *testing.T) {
	fs := vfs.NewMem(1)
	l, _ := mustOpen(t, fs, Options{})
	good, bad := entry(1, 1, 5000), entry(2, 1, 5000)
	good.Sum, good.Summed = checksum(good.Payload), true
	bad.Sum, bad.Summed = checksum(bad.Payload)+1, true
	at := mustAppend(t, l, good, bad)
	r, err := l.NewReader(at[0])
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, _, err := r.Next(); err != nil || !same(got, good) {
		t.Errorf("right checksum: got entry %d, %v", got.Index, err)
	}
	var corrupt *CorruptError
	if _, _, err := r.Next(); !errors.As(err, &corrupt) {
		t.Errorf("wrong checksum: got %v, want a CorruptError", err)
	}
}
