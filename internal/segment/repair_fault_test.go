package segment

import (
	"errors"
	"io"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"kingbus/internal/vfs"
)

// TestRepairCrash cuts the power at any moment of a repair: then the record is sound or can be repaired again.
func TestRepairCrash(t *testing.T) {
	big := entry(2, 1, 5000)
	all := []Entry{entry(1, 1, 100), big, entry(3, 2, 3000), entry(4, 2, 100), entry(5, 2, 4000), entry(6, 2, 100), entry(7, 3, 100)}
	for _, tc := range []struct {
		name  string
		index int
		at    int64
	}{
		{"sealed, header", 2, 0}, {"sealed, payload", 2, 2000}, {"sealed, last", 4, 0}, {"active, header", 5, 20}, {"active, payload", 5, 3000}, {"active, last", 7, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fs := vfs.NewMem(1)
			opt := Options{SegmentBytes: headerSize + 9000}
			l, _ := mustOpen(t, fs, opt)
			for _, e := range all {
				mustAppend(t, l, e)
			}
			if n := l.Segments(); len(n) != 2 || n[0].Last != 4 {
				t.Fatalf("got segments %+v", n)
			}
			loc := locate(t, l)[tc.index]
			l.Close()
			states := crashes(t, fs, func(watch vfs.FS) {
				l, _, err := Open(watch, dir, opt)
				if err != nil {
					t.Fatal(err)
				}
				flip(t, fs, loc, tc.at)
				if err := l.Repair(loc, all[tc.index-1]); err != nil {
					t.Fatal(err)
				}
				wantEntries(t, l, all...)
				l.Close()
			})
			sound, bad := 0, 0
			for _, after := range states {
				opt := opt
				opt.Committed = 7
				l, _, err := Open(after, dir, opt)
				var damage *DamageError
				if errors.As(err, &damage) && tc.index > 4 && damage.FirstLost == uint64(tc.index) {
					bad++ // in the active segment Open finds it, as it would have before the repair
					opt.CutDamage = true
					l, rec := mustOpen(t, after, opt)
					if rec.Damage == nil || rec.Damage.FirstLost != uint64(tc.index) {
						t.Fatalf("got %+v", rec)
					}
					wantEntries(t, l, all[:tc.index-1]...)
					mustAppend(t, l, all[tc.index-1:]...)
					wantEntries(t, l, all...)
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if _, err := readAll(l, 1); err != nil {
					bad++
					var corrupt *CorruptError
					if !errors.As(err, &corrupt) || corrupt.At != loc {
						t.Fatalf("got %v, want damage at %v", err, loc)
					}
					if err := l.Repair(loc, all[tc.index-1]); err != nil {
						t.Fatalf("again: %v", err)
					}
				} else {
					sound++
				}
				wantEntries(t, l, all...)
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if sound == 0 || bad == 0 {
				t.Errorf("%d crashes left a sound record, and %d a damaged one: want both", sound, bad)
			}
		})
	}
}

func TestRepairPoison(t *testing.T) {
	for _, i := range []int{13, 25} {
		for name, op := range map[string]vfs.Op{"write": vfs.OpWrite, "sync": vfs.OpSync} {
			fs, opt := base(t)
			l, _ := mustOpen(t, fs, opt)
			loc, want := locate(t, l)[i], baseEntries()
			flip(t, fs, loc, atPayload)
			fs.Fail(vfs.OpRead, 1, syscall.EIO)
			if err := l.Repair(loc, want[i-1]); !errors.Is(err, syscall.EIO) {
				t.Errorf("failed read: got %v, want EIO", err)
			}
			fs.Fail(op, 1, syscall.EIO)
			err := l.Repair(loc, want[i-1])
			if !errors.Is(err, syscall.EIO) {
				t.Fatalf("failed %s: got %v, want EIO", name, err)
			}
			_, appendErr := l.Append(entries(31, 31, 9, 1))
			for call, got := range map[string]error{"Repair": l.Repair(loc, want[i-1]), "Append": appendErr} {
				if got == nil || got.Error() != err.Error() {
					t.Errorf("%s after a failed %s: got %v, want the first error", call, name, got)
				}
			}
			l.Close()
			if i > 20 {
				continue // Open finds it
			}
			l, _ = mustOpen(t, fs.Crash(0), opt)
			if err := l.Repair(loc, want[i-1]); err != nil {
				t.Errorf("opened again: %v", err)
			}
			wantEntries(t, l, want...)
		}
	}
}

// forgetful is a disk that spoils what is on it whenever the cache is dropped.
type forgetful struct {
	*vfs.Mem
	spoil func()
}

type forgetfulFile struct {
	vfs.File
	spoil func()
}

func (f forgetful) OpenWrite(name string) (vfs.File, error) {
	file, err := f.Mem.OpenWrite(name)
	return forgetfulFile{file, f.spoil}, err
}

func (f forgetfulFile) DropCache() error { f.spoil(); return f.File.DropCache() }

// TestRepairVerifies: a disk that does not give back what was written and synced is told, and may be tried again.
func TestRepairVerifies(t *testing.T) {
	fs, opt := base(t)
	drops := 0
	var loc Location
	l, _ := mustOpen(t, forgetful{fs, func() {
		if drops++; loc.Segment != 0 && drops < 3 {
			flip(t, fs, loc, atPayload)
		}
	}}, opt)
	loc = locate(t, l)[13]
	drops = 0
	err := l.Repair(loc, baseEntries()[12])
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) || !errors.Is(err, errPayloadSum) || corrupt.At != loc || corrupt.Index != 13 {
		t.Errorf("got %v, want a CorruptError of entry 13", err)
	}
	if err := l.Repair(loc, baseEntries()[12]); err != nil {
		t.Errorf("tried again: %v", err)
	}
	wantEntries(t, l, baseEntries()...)
	mustAppend(t, l, entry(31, 9, 10))
}

// TestRepairConcurrent: Readers read beside damage, repairs and appends. They may hear of damage, and never get anything wrong.
func TestRepairConcurrent(t *testing.T) {
	fs := vfs.NewMem(1)
	l, _ := mustOpen(t, fs, Options{SegmentBytes: 16 << 10})
	mustAppend(t, l, entries(1, 40, 1, 900)...)
	locs := locate(t, l)
	done := make(chan struct{})
	var g errgroup.Group
	for range 3 {
		g.Go(func() error {
			for {
				r, err := readerAt(l)
				if err != nil {
					return err
				}
				err = followDamaged(r, done)
				r.Close()
				if err != io.EOF {
					return err
				}
			}
		})
	}
	g.Go(func() error {
		for i := uint64(41); ; i++ {
			if _, err := l.Append(entries(i, i, 1, 900)); err != nil {
				return err
			}
			if err := l.Sync(); err != nil {
				return err
			}
			if closed(done) {
				return nil
			}
		}
	})
	for i := range uint64(300) {
		index := i%40 + 1
		flip(t, fs, locs[index], int64(i%900))
		if err := l.Repair(locs[index], entry(index, 1, 900)); err != nil {
			t.Errorf("entry %d: %v", index, err)
		}
	}
	close(done)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if got, err := readAll(l, 1); err != nil || uint64(len(got)) != l.LastIndex() {
		t.Errorf("in the end: got %d entries, %v", len(got), err)
	}
}

func closed(done chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// followDamaged reads to the end of the log and returns io.EOF, or nil when done is closed. It does not mind damage, which is
// repaired by another.
func followDamaged(r *Reader, done chan struct{}) error {
	for !closed(done) {
		e, _, err := r.Next()
		var corrupt *CorruptError
		switch {
		case errors.As(err, &corrupt):
		case err != nil:
			return err
		case !same(e, entry(e.Index, e.Term, len(e.Payload))):
			return errors.New("an entry is not what was written")
		}
	}
	return nil
}
