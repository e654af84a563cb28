package segment

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"kingbus/internal/vfs"
)

// base makes a log of three segments with entries 1 to 30, 10 in each, all synced.
func base(t testing.TB) (*vfs.Mem, Options) {
	t.Helper()
	fs := vfs.NewMem(1)
	opt := Options{SegmentBytes: headerSize + 1100}
	l, _, err := Open(fs, dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 30; i++ {
		mustAppend(t, l, entry(i, 1+i/8, 60))
	}
	if n := len(l.Segments()); n != 3 {
		t.Fatalf("got %d segments, want 3", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	fs.SyncAll()
	return fs, opt
}

func baseEntries() (all []Entry) {
	for i := uint64(1); i <= 30; i++ {
		all = append(all, entry(i, 1+i/8, 60))
	}
	return all
}

// file returns the path of the nth segment.
func file(t testing.TB, fs vfs.FS, n int) string {
	t.Helper()
	found, err := list(fs, dir)
	if err != nil || n >= len(found) {
		t.Fatalf("list: %d files, %v", len(found), err)
	}
	return found[n].name
}

// TestFlippedBits flips bits everywhere: each is named by Open or on reading, and nothing wrong is ever served.
func TestFlippedBits(t *testing.T) {
	fs, opt := base(t)
	want := baseEntries()
	opt.Committed = 30
	for n := range 3 {
		name := file(t, fs, n)
		f, err := fs.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		size, _ := f.Size()
		f.Close()
		for at := int64(0); at < size; at++ {
			if at > 100 && at < headerSize-8 && at%97 != 0 {
				continue // the padding needs no flip of every byte
			}
			c := fs.Crash(0)
			c.Flip(name, at*8+at%8)
			if err := flipped(c, opt, want); err != "" {
				t.Fatalf("%s, byte %d flipped: %s", name, at, err)
			}
		}
	}
}

// flipped opens and reads a log with a flipped bit, and says what is wrong with the outcome.
func flipped(fs vfs.FS, opt Options, want []Entry) string {
	l, rec, err := Open(fs, dir, opt)
	if err != nil {
		var damage *DamageError
		if errors.As(err, &damage) && damage.File != "" || errors.Is(err, ErrVersion) {
			return ""
		}
		return fmt.Sprintf("Open: %v", err)
	}
	defer l.Close()
	got, err := readAll(l, l.FirstIndex())
	for i := range got {
		if !same(got[i], want[i]) {
			return fmt.Sprintf("entry %d is wrong", i+1)
		}
	}
	var corrupt *CorruptError
	if errors.As(err, &corrupt) && corrupt.File != "" && corrupt.Index == uint64(len(got)+1) {
		return ""
	}
	if err == nil && len(got) == len(want) && rec.TornFile != "" {
		return "" // in the zeros behind the end
	}
	return fmt.Sprintf("not found: %d entries, %v", len(got), err)
}

func TestDamage(t *testing.T) {
	last := func(t *testing.T, fs *vfs.Mem) (string, []Location) {
		l, _ := mustOpen(t, fs, Options{})
		defer l.Close()
		var locs []Location
		for i := l.Segments()[2].First; i <= 30; i++ {
			loc, err := l.Seek(i)
			if err != nil {
				t.Fatal(err)
			}
			locs = append(locs, loc)
		}
		return file(t, fs, 2), locs
	}
	cut := func(t *testing.T, fs *vfs.Mem, name string, size int64) {
		f, err := fs.OpenWrite(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(size), f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		change    func(t *testing.T, fs *vfs.Mem) string // returns the damaged file
		committed uint64
		want      error // nil: not damage
		torn      bool
	}{
		"nothing":                         {func(t *testing.T, fs *vfs.Mem) string { return "" }, 30, nil, false},
		"more is committed than there is": {func(t *testing.T, fs *vfs.Mem) string { return file(t, fs, 2) }, 31, errEnd, false},
		"a record that others prove synced": {func(t *testing.T, fs *vfs.Mem) string {
			name, locs := last(t, fs)
			fs.Flip(name, (locs[1].Offset+20)*8)
			return name
		}, 0, errRecordSum, false},
		"a payload that others prove synced": {func(t *testing.T, fs *vfs.Mem) string {
			name, locs := last(t, fs)
			fs.Flip(name, (locs[1].Offset+70)*8)
			return name
		}, 0, errPayloadSum, false},
		"the last record, committed": {func(t *testing.T, fs *vfs.Mem) string {
			name, locs := last(t, fs)
			fs.Flip(name, (locs[len(locs)-1].Offset+70)*8)
			return name
		}, 30, errPayloadSum, false},
		"the last record, perhaps not synced": {func(t *testing.T, fs *vfs.Mem) string {
			name, locs := last(t, fs)
			fs.Flip(name, (locs[len(locs)-1].Offset+70)*8)
			return name
		}, 29, nil, true},
		"a missing segment": {func(t *testing.T, fs *vfs.Mem) string {
			name := file(t, fs, 1)
			if err := fs.Remove(name); err != nil {
				t.Fatal(err)
			}
			return name
		}, 0, errMissing, false},
		"a missing last segment": {func(t *testing.T, fs *vfs.Mem) string {
			if err := fs.Remove(file(t, fs, 2)); err != nil {
				t.Fatal(err)
			}
			return file(t, fs, 1)
		}, 30, errEnd, false},
		"all is missing": {func(t *testing.T, fs *vfs.Mem) string {
			name := file(t, fs, 0)
			for range 3 {
				if err := fs.Remove(file(t, fs, 0)); err != nil {
					t.Fatal(err)
				}
			}
			return name
		}, 30, errMissing, false},
		"a short segment": {func(t *testing.T, fs *vfs.Mem) string {
			cut(t, fs, file(t, fs, 1), headerSize+100)
			return file(t, fs, 1)
		}, 0, errShort, false},
		"a segment of another log": {func(t *testing.T, fs *vfs.Mem) string {
			other, _ := base(t)
			data, err := vfs.ReadFile(other, file(t, other, 1), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if err := vfs.WriteFile(fs, file(t, fs, 1), data); err != nil {
				t.Fatal(err)
			}
			return file(t, fs, 0)
		}, 0, errChain, false},
		"the header of the last segment": {func(t *testing.T, fs *vfs.Mem) string {
			fs.Flip(file(t, fs, 2), 30*8)
			return file(t, fs, 2)
		}, 0, errHeaderSum, false},
		"the header of the only segment, nothing behind it": {func(t *testing.T, fs *vfs.Mem) string {
			name := file(t, fs, 2)
			for _, n := range []string{file(t, fs, 0), file(t, fs, 1)} {
				if err := fs.Remove(n); err != nil {
					t.Fatal(err)
				}
			}
			cut(t, fs, name, headerSize)
			fs.Flip(name, 30*8)
			return name
		}, 0, errHeaderSum, false},
		"a reset plan": {func(t *testing.T, fs *vfs.Mem) string {
			name := filepath.Join(dir, resetName)
			if err := vfs.WriteFile(fs, name, []byte("nonsense")); err != nil {
				t.Fatal(err)
			}
			return name
		}, 0, errPlan, false},
	} {
		t.Run(name, func(t *testing.T) {
			fs, opt := base(t)
			file := tc.change(t, fs)
			fs.SyncAll()
			before := fs.Crash(0)
			opt.Committed = tc.committed
			l, rec, err := Open(fs, dir, opt)
			if tc.want == nil {
				if err != nil || (rec.TornFile != "") != tc.torn {
					t.Fatalf("got %v, %+v", err, rec)
				}
				l.Close()
				return
			}
			var damage *DamageError
			if !errors.As(err, &damage) || !errors.Is(err, tc.want) || damage.File != file {
				t.Fatalf("got %v, want damage of %s: %v", err, file, tc.want)
			}
			if !strings.Contains(err.Error(), file) {
				t.Errorf("the message does not name the file: %v", err)
			}
			sameFolder(t, fs, before)
			if _, _, again := Open(fs, dir, opt); again == nil || again.Error() != err.Error() {
				t.Errorf("again: got %v, want %v", again, err)
			}
		})
	}
}

// sameFolder checks that two logs have the same files with the same bytes.
func sameFolder(t *testing.T, a, b vfs.FS) {
	t.Helper()
	names, _ := a.ReadDir(dir)
	other, _ := b.ReadDir(dir)
	if strings.Join(names, " ") != strings.Join(other, " ") {
		t.Errorf("the folder was changed: %v, was %v", names, other)
	}
	for _, name := range names {
		x, _ := vfs.ReadFile(a, filepath.Join(dir, name), 1<<30)
		y, _ := vfs.ReadFile(b, filepath.Join(dir, name), 1<<30)
		if string(x) != string(y) {
			t.Errorf("%s was changed", name)
		}
	}
}

// TestTornBatch writes batches without a sync and keeps a part of them: no valid record behind the torn one may survive.
func TestTornBatch(t *testing.T) {
	fs := vfs.NewMem(1)
	l, _ := mustOpen(t, fs, Options{})
	fill(t, l, 1, 3, 1, 100)
	locs, err := l.Append(entries(4, 8, 1, 100))
	if err != nil {
		t.Fatal(err)
	}
	name := file(t, fs, 0)
	fs.Flip(name, (locs[1].Offset+80)*8)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, rec := mustOpen(t, fs, Options{Committed: 3})
	if rec.Last != 4 || rec.TornFile != name || rec.TornOffset != locs[1].Offset || rec.TornErr != errPayloadSum || rec.TornBytes <= 0 {
		t.Errorf("got %+v, want the cut at %d", rec, locs[1].Offset)
	}
	fill(t, l, 5, 5, 2, 100)
	wantEntries(t, l, append(entries(1, 4, 1, 100), entry(5, 2, 100))...)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, rec = mustOpen(t, fs, Options{Committed: 5}); rec.TornFile != "" || rec.Last != 5 {
		t.Errorf("opened again: got %+v", rec)
	}
}

func TestPoison(t *testing.T) {
	for name, op := range map[string]vfs.Op{"write": vfs.OpWrite, "sync": vfs.OpSync} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem(1)
			l, _ := mustOpen(t, fs, Options{})
			fill(t, l, 1, 2, 1, 100)
			fs.Fail(op, 1, syscall.EIO)
			_, err := l.Append(entries(3, 3, 1, 100))
			if err == nil {
				err = l.Sync()
			}
			if !errors.Is(err, syscall.EIO) {
				t.Fatalf("got %v, want EIO", err)
			}
			calls := map[string]func() error{
				"Append":        func() error { _, err := l.Append(entries(4, 4, 1, 100)); return err },
				"Sync":          l.Sync,
				"TruncateAfter": func() error { return l.TruncateAfter(1) },
				"ResetTo":       func() error { return l.ResetTo(9, 1) },
			}
			fs.Fail(vfs.OpWrite, 1, errors.New("the disk was touched"))
			fs.Fail(vfs.OpSync, 1, errors.New("the disk was touched"))
			for call, f := range calls {
				if got := f(); got == nil || got.Error() != err.Error() {
					t.Errorf("%s: got %v, want the first error: %v", call, got, err)
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			fs.ClearFaults()
			l, rec := mustOpen(t, fs, Options{Committed: 2})
			if rec.Last != 2 { // even though the bytes of entry 3 could still be read from the cache
				t.Errorf("opened again: got %+v, want 2 entries", rec)
			}
			wantEntries(t, l, entries(1, 2, 1, 100)...)
		})
	}
}

func TestDiskFull(t *testing.T) {
	fs := vfs.NewMem(1)
	opt := Options{SegmentBytes: 20000}
	l, _ := mustOpen(t, fs, opt)
	var want []Entry
	full := 0
	for i := 1; i <= 60; i++ {
		limit := int64(-1)
		if i%3 == 0 {
			limit = l.Stats().Bytes + int64(i*100)
		}
		fs.SetLimit(limit)
		batch := entries(uint64(len(want)+1), uint64(len(want)+5), 1, 900)
		_, err := l.Append(batch)
		if errors.Is(err, ErrNoSpace) && errors.Is(err, syscall.ENOSPC) {
			full++
			if got := l.LastIndex(); got != uint64(len(want)) {
				t.Fatalf("after a full disk: last index %d, want %d", got, len(want))
			}
			fs.SetLimit(-1)
			_, err = l.Append(batch)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		want = append(want, batch...)
	}
	if full < 5 {
		t.Errorf("the disk was full %d times, want more", full)
	}
	wantEntries(t, l, want...)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, rec := mustOpen(t, fs.Crash(0), Options{Committed: uint64(len(want))})
	if rec.TornFile != "" {
		t.Errorf("got %+v, want nothing torn", rec)
	}
	wantEntries(t, l, want...)
}

// TestNoRoomForZeros: a batch that still fits is not refused for the zeros that would be written ahead of the next ones.
func TestNoRoomForZeros(t *testing.T) {
	fs := vfs.NewMem(1)
	l, _ := mustOpen(t, fs, Options{})
	fs.SetLimit(headerSize + 20000)
	for i := uint64(1); i <= 10; i++ {
		mustAppend(t, l, entry(i, 1, 1000))
	}
	wantEntries(t, l, entries(1, 10, 1, 1000)...)
	wantEntries(t, func() *Log { l, _ := mustOpen(t, fs.Crash(0), Options{Committed: 10}); return l }(), entries(1, 10, 1, 1000)...)
}

func TestUnfinishedNewSegment(t *testing.T) {
	for _, size := range []int{0, 8, 9, 40, 4095} {
		fs, opt := base(t)
		h := Header{Use: 5, First: 31, PrevFirst: 21}
		name := fileName(dir, 31)
		if err := vfs.WriteFile(fs, name, h.encode()[:size]); err != nil {
			t.Fatal(err)
		}
		l, rec := mustOpen(t, fs, opt)
		if rec.Removed != name || rec.Last != 30 {
			t.Errorf("%d bytes: got %+v, want %s removed", size, rec, name)
		}
		wantEntries(t, l, baseEntries()...)
	}
}
