package segment

import (
	"errors"
	"testing"

	"kingbus/internal/vfs"
)

func TestTerm(t *testing.T) {
	fs, opt := base(t)
	l, _ := mustOpen(t, fs, opt)
	check := func(first, last uint64, term func(uint64) uint64) {
		t.Helper()
		for i := first; i <= last; i++ {
			if got, err := l.Term(i); err != nil || got != term(i) {
				t.Errorf("entry %d: got term %d, %v, want %d", i, got, err, term(i))
			}
		}
		if _, err := l.Term(last + 1); !errors.Is(err, ErrRange) {
			t.Errorf("entry %d, behind the end: got %v, want %v", last+1, err, ErrRange)
		}
		if _, err := l.Term(1<<64 - 1); !errors.Is(err, ErrRange) {
			t.Errorf("far behind the end: got %v, want %v", err, ErrRange)
		}
		if first > 0 {
			if _, err := l.Term(first - 1); err != ErrDropped {
				t.Errorf("entry %d, before the log: got %v, want %v", first-1, err, ErrDropped)
			}
		}
	}
	terms := func(i uint64) uint64 {
		if i == 0 {
			return 0
		}
		return 1 + i/8
	}
	check(0, 30, terms)
	if err := l.DropBefore(11); err != nil {
		t.Fatal(err)
	}
	check(10, 30, terms)
	if err := l.TruncateAfter(20); err != nil {
		t.Fatal(err)
	}
	check(10, 20, terms)
	if err := l.TruncateAfter(10); err != nil {
		t.Fatal(err)
	}
	check(10, 10, terms)
	if err := l.ResetTo(70, 12); err != nil {
		t.Fatal(err)
	}
	check(70, 70, func(uint64) uint64 { return 12 })
	fill(t, l, 71, 99, 13, 60)
	check(70, 99, func(i uint64) uint64 { return 12 + min(1, i-70) })
	flip(t, fs, Location{Segment: 71, Offset: headerSize}, 20)
	var corrupt *CorruptError
	if _, err := l.Term(75); !errors.As(err, &corrupt) || corrupt.Index != 71 {
		t.Errorf("behind a damaged header: got %v, want a CorruptError", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Term(70); err != ErrClosed {
		t.Errorf("closed: got %v, want %v", err, ErrClosed)
	}
}

func TestBytesAfter(t *testing.T) {
	l, _ := mustOpen(t, vfs.NewMem(1), Options{SegmentBytes: headerSize + 2000})
	if got := l.BytesAfter(0); got != 0 {
		t.Errorf("empty log: got %d", got)
	}
	var want int64
	size := func(i uint64) int64 { e := entry(i, 1, 100); return entrySize(&e) }
	for i := uint64(1001); i <= 1060; i++ {
		want += size(i)
	}
	if err := l.ResetTo(1000, 1); err != nil {
		t.Fatal(err)
	}
	fill(t, l, 1001, 1060, 1, 100)
	if n := len(l.Segments()); n < 3 {
		t.Fatalf("got %d segments, want several", n)
	}
	for _, i := range []uint64{0, 5, 1000} {
		if got := l.BytesAfter(i); got != want {
			t.Errorf("entry %d: got %d, want all %d", i, got, want)
		}
	}
	for i := uint64(1001); i <= 1060; i++ { // all of one size, so it is exact but for rounding
		want -= size(i)
		if got := l.BytesAfter(i); got < want-1 || got > want+1 {
			t.Errorf("entry %d: got %d, want %d", i, got, want)
		}
	}
	for _, i := range []uint64{1060, 1061, 1 << 63} {
		if got := l.BytesAfter(i); got != 0 {
			t.Errorf("entry %d: got %d, want nothing", i, got)
		}
	}
	mustAppend(t, l, entry(1061, 1, 5000))
	mustAppend(t, l, entry(1062, 1, 100))
	if got := l.BytesAfter(1061); got != size(1062) {
		t.Errorf("a new segment: got %d, want %d", got, size(1062))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := l.BytesAfter(0); got != 0 {
		t.Errorf("closed: got %d", got)
	}
}
