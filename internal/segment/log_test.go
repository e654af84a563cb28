package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

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
