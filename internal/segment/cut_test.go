package segment

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"kingbus/internal/vfs"
)

// long makes a log of five segments with entries 1 to 50, 10 in each, and returns where the entries are.
func long(t testing.TB) (*vfs.Mem, Options, []Location) {
	t.Helper()
	fs, opt := base(t)
	l, _ := mustOpen(t, fs, opt)
	for i := uint64(31); i <= 50; i++ {
		mustAppend(t, l, entry(i, 1+i/8, 60))
	}
	locs := locate(t, l)
	if n := l.Segments(); len(n) != 5 || n[4].First != 41 {
		t.Fatalf("got segments %+v", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	fs.SyncAll()
	return fs, opt, locs
}

func longEntries(last uint64) (all []Entry) {
	for i := uint64(1); i <= last; i++ {
		all = append(all, entry(i, 1+i/8, 60))
	}
	return all
}

func remove(t testing.TB, fs vfs.FS, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := fs.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

func shorten(t testing.TB, fs vfs.FS, name string, size int64) {
	t.Helper()
	f, err := fs.OpenWrite(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// foreign replaces the nth segment by that of another log.
func foreign(t testing.TB, fs *vfs.Mem, n int) {
	t.Helper()
	other, _, _ := long(t)
	name := file(t, fs, n)
	data, err := vfs.ReadFile(other, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := vfs.WriteFile(fs, name, data); err != nil {
		t.Fatal(err)
	}
}

// version gives the nth segment a header of a newer version.
func version(t testing.TB, fs *vfs.Mem, n int) {
	t.Helper()
	f, err := fs.OpenWrite(file(t, fs, n))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{9}, 8); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestCutDamage: a damaged log is refused without the option, and cut with it, also when the power fails at any moment of it.
func TestCutDamage(t *testing.T) {
	for name, tc := range map[string]struct {
		change    func(t *testing.T, fs *vfs.Mem, locs []Location)
		committed uint64
		last      uint64 // entry that is kept
		lost      uint64 // last entry that is known to be lost
		file      uint64 // segment that is named
		err       error
	}{
		"nothing to cut": {func(*testing.T, *vfs.Mem, []Location) {}, 53, 50, 53, 41, errEnd},
		"a record that others prove synced": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			flip(t, fs, locs[44], 20)
		}, 0, 43, 50, 41, errRecordSum},
		"the first record of the last segment": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			flip(t, fs, locs[41], atPayload)
		}, 50, 40, 50, 41, errPayloadSum},
		"the last record, committed": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			flip(t, fs, locs[50], atPayload)
		}, 50, 49, 50, 41, errPayloadSum},
		"more committed than a torn write leaves": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			flip(t, fs, locs[50], atPayload)
		}, 60, 49, 60, 41, errPayloadSum},
		"the header of the last segment": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			fs.Flip(file(t, fs, 4), 30*8)
		}, 0, 40, 41, 41, errHeaderSum},
		"the header of the last segment, all zero behind it": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			shorten(t, fs, file(t, fs, 4), headerSize)
			fs.Flip(file(t, fs, 4), 30*8)
		}, 50, 40, 50, 41, errHeaderSum},
		"the last two headers": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			fs.Flip(file(t, fs, 4), 30*8)
			fs.Flip(file(t, fs, 3), 30*8)
		}, 0, 30, 41, 31, errHeaderSum},
		"the last header, and a record of the segment before": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			fs.Flip(file(t, fs, 4), 30*8)
			flip(t, fs, locs[40], atPayload) // nothing behind it tells that it was synced, but that it had a successor
		}, 0, 39, 41, 31, errPayloadSum},
		"the last header, and the segment before ends in zeros": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			fs.Flip(file(t, fs, 4), 30*8)
			shorten(t, fs, file(t, fs, 3), locs[38].Offset)
			shorten(t, fs, file(t, fs, 3), locs[40].Offset)
		}, 0, 37, 41, 41, errHeaderSum},
		"a header in the middle": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			fs.Flip(file(t, fs, 2), 30*8)
		}, 50, 20, 50, 21, errHeaderSum},
		"two headers, with all zero behind them": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			for _, n := range []int{2, 3} {
				shorten(t, fs, file(t, fs, n), headerSize)
				fs.Flip(file(t, fs, n), 30*8)
			}
		}, 0, 20, 41, 21, errHeaderSum},
		"a missing segment": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			remove(t, fs, file(t, fs, 2))
		}, 0, 20, 41, 21, errMissing},
		"two missing segments": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			remove(t, fs, file(t, fs, 1), file(t, fs, 2))
		}, 0, 10, 41, 21, errMissing},
		"a missing segment, and a bad record before": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			remove(t, fs, file(t, fs, 2))
			flip(t, fs, locs[12], 0)
			flip(t, fs, locs[14], 0)
		}, 0, 11, 41, 11, errRecordSum},
		"a missing segment, and nothing sound before": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			remove(t, fs, file(t, fs, 1))
			flip(t, fs, locs[1], 0)
		}, 0, 0, 41, 1, errRecordSum},
		"a missing last segment": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			remove(t, fs, file(t, fs, 4))
		}, 50, 40, 50, 31, errEnd},
		"a short segment": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			shorten(t, fs, file(t, fs, 1), locs[17].Offset+50)
		}, 0, 16, 41, 11, errShort},
		"a short segment that ends with a record": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			shorten(t, fs, file(t, fs, 1), locs[17].Offset)
		}, 0, 16, 41, 11, errShort},
		"a segment of another log": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			foreign(t, fs, 1)
		}, 0, 10, 41, 1, errChain},
		"a segment of another log before the last": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			foreign(t, fs, 3)
		}, 50, 30, 50, 21, errChain},
		"two segments of another log, which may as well be the one before": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			other, _, _ := long(t)
			for _, n := range []int{2, 3} {
				data, err := vfs.ReadFile(other, file(t, other, n), 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				if err := vfs.WriteFile(fs, file(t, fs, n), data); err != nil {
					t.Fatal(err)
				}
			}
		}, 0, 10, 41, 11, errChain},
		"the last segment is of another log, or the one before": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			foreign(t, fs, 4)
		}, 0, 30, 41, 31, errChain},
		"a segment from before the log was cut and went on": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			old, err := vfs.ReadFile(fs, file(t, fs, 2), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			l, _ := mustOpen(t, fs, Options{SegmentBytes: headerSize + 1100})
			defer l.Close()
			if err := l.TruncateAfter(15); err != nil {
				t.Fatal(err)
			}
			mustAppend(t, l, longEntries(50)[15:]...)
			if err := vfs.WriteFile(fs, file(t, fs, 2), old); err != nil {
				t.Fatal(err)
			}
		}, 0, 20, 41, 21, errChain},
	} {
		t.Run(name, func(t *testing.T) {
			fs, opt, locs := long(t)
			tc.change(t, fs, locs)
			fs.SyncAll()
			before := fs.Crash(0)
			opt.Committed = tc.committed
			_, rec, err := Open(fs, dir, opt)
			var damage *DamageError
			if !errors.As(err, &damage) || damage.Cut || rec.Damage != nil || !strings.Contains(err.Error(), "nothing was changed") {
				t.Fatalf("without the option: got %v, %+v, want a DamageError", err, rec)
			}
			sameFolder(t, fs, before)

			opt.CutDamage = true
			check := func(rec Recovery) {
				t.Helper()
				d := rec.Damage
				if d == nil || !d.Cut || d.FirstLost != tc.last+1 || d.LastLost != tc.lost || d.File != fileName(dir, tc.file) || !errors.Is(d, tc.err) || rec.Last != tc.last || rec.TornFile != "" {
					t.Errorf("got %+v, %+v, want entries %d to %d lost, %d named, %v", rec, d, tc.last+1, tc.lost, tc.file, tc.err)
				} else if strings.Contains(d.Error(), "nothing was changed") {
					t.Errorf("the message tells that nothing was changed: %v", d)
				}
			}
			open := func(fs *vfs.Mem) Recovery {
				t.Helper()
				l, rec, err := Open(fs, dir, opt)
				if err != nil {
					t.Fatalf("Open: %v", err)
				}
				wantEntries(t, l, longEntries(tc.last)...)
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				return rec
			}
			var states []*vfs.Mem
			if tc.last < 50 {
				states = crashes(t, fs, func(watch vfs.FS) {
					l, rec, err := Open(watch, dir, opt)
					if err != nil {
						t.Fatal(err)
					}
					check(rec)
					l.Close()
				})
			} else {
				check(open(fs))
			}

			told, done := 0, 0
			for _, after := range states {
				// Without the option the damage is still seen, or all is done.
				sound := opt
				sound.CutDamage, sound.Committed = false, 0
				l, rec, err := Open(after.Crash(0), dir, sound)
				switch {
				case err == nil && rec.TornFile == "" && rec.Removed == "" && rec.Last == tc.last:
					done++
					l.Close()
				case err == nil && tc.committed > 0 && rec.TornFile+rec.Removed != "": // only Committed told that it was no crash
					l.Close()
				case !errors.As(err, &damage):
					t.Fatalf("after a crash, without the option: got %v, %+v", err, rec)
				}
				if open(after).Damage != nil {
					told++
				}
			}
			if states != nil && (told == 0 || done == 0) {
				t.Errorf("of %d crashes %d were told of and %d came too late: want both", len(states), told, done)
			}

			// The log is a good one, and the next Open knows nothing but Committed.
			opt.CutDamage, opt.Committed = false, tc.last
			l, rec := mustOpen(t, fs.Crash(0), opt)
			if rec != (Recovery{First: 1, Last: tc.last}) {
				t.Errorf("opened again: got %+v", rec)
			}
			mustAppend(t, l, longEntries(60)[tc.last:]...)
			wantEntries(t, l, longEntries(60)...)
			opt.Committed = tc.last + 1
			if _, _, err := Open(fs, dir, opt); !errors.As(err, &damage) {
				t.Errorf("with more committed: got %v, want a DamageError", err)
			}
		})
	}
}

// TestCutDamageRefuses: where there is no sound beginning, or a newer kingbus wrote, the option changes nothing.
func TestCutDamageRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(t *testing.T, fs *vfs.Mem, locs []Location)
		err    error
	}{
		"the first header":           {func(t *testing.T, fs *vfs.Mem, locs []Location) { fs.Flip(file(t, fs, 0), 30*8) }, errHeaderSum},
		"the first one of elsewhere": {func(t *testing.T, fs *vfs.Mem, locs []Location) { foreign(t, fs, 0) }, errChain},
		"the first one of elsewhere, and the third is missing": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			foreign(t, fs, 0)
			remove(t, fs, file(t, fs, 2))
		}, errChain},
		"all but two, and they quarrel": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			remove(t, fs, file(t, fs, 0), file(t, fs, 1), file(t, fs, 2))
			foreign(t, fs, 1)
		}, errChain},
		"all is missing": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			for range 5 {
				remove(t, fs, file(t, fs, 0))
			}
		}, errMissing},
		"a reset plan": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			if err := vfs.WriteFile(fs, filepath.Join(dir, resetName), []byte("nonsense")); err != nil {
				t.Fatal(err)
			}
		}, errPlan},
		"a newer version":                 {func(t *testing.T, fs *vfs.Mem, locs []Location) { version(t, fs, 3) }, ErrVersion},
		"a newer version is the last one": {func(t *testing.T, fs *vfs.Mem, locs []Location) { version(t, fs, 4) }, ErrVersion},
		"a newer version, behind damage": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			version(t, fs, 3)
			fs.Flip(file(t, fs, 1), 30*8)
		}, ErrVersion},
		"flags of a header, behind damage": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			f, err := fs.OpenWrite(file(t, fs, 3))
			if err != nil {
				t.Fatal(err)
			}
			b := bytesOf(t, fs, locs[31])[:headerSize]
			b[10] = 1
			le.PutUint32(b[headerSize-4:], checksum(b[:headerSize-4]))
			if _, err := f.WriteAt(b, 0); err != nil {
				t.Fatal(err)
			}
			f.Close()
			remove(t, fs, file(t, fs, 1))
		}, errFlags},
		"flags of a record": {func(t *testing.T, fs *vfs.Mem, locs []Location) { setFlag(t, fs, locs[44]) }, errFlags},
		"flags of a record before a hole": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
			setFlag(t, fs, locs[14])
			remove(t, fs, file(t, fs, 2))
		}, errFlags},
	} {
		t.Run(name, func(t *testing.T) {
			fs, opt, locs := long(t)
			tc.change(t, fs, locs)
			fs.SyncAll()
			before := fs.Crash(0)
			opt.Committed, opt.CutDamage = 50, true
			_, rec, err := Open(fs, dir, opt)
			var damage *DamageError
			if isDamage := errors.As(err, &damage); !errors.Is(err, tc.err) || rec.Damage != nil || isDamage && damage.Cut {
				t.Errorf("got %v, %+v, want %v", err, rec, tc.err)
			}
			sameFolder(t, fs, before)
		})
	}
}

// TestCutDamageFlippedBits flips bits everywhere: what is kept is a beginning of what was written, and what is lost is told.
func TestCutDamageFlippedBits(t *testing.T) {
	fs, opt := base(t)
	want := baseEntries()
	opt.Committed, opt.CutDamage = 30, true
	for n := range 3 {
		name := file(t, fs, n)
		for at := int64(0); at < 6000; at++ {
			if at > 100 && at < headerSize-8 && at%97 != 0 {
				continue // the padding needs no flip of every byte
			}
			c := fs.Crash(0)
			if !c.Flip(name, at*8+at%8) {
				break
			}
			l, rec, err := Open(c, dir, opt)
			if err != nil {
				if n > 0 && !errors.Is(err, ErrVersion) || at >= headerSize {
					t.Fatalf("%s, byte %d flipped: %v", name, at, err)
				}
				continue
			}
			lost := uint64(30)
			if rec.Damage != nil {
				lost = rec.Damage.FirstLost - 1
			}
			if l.LastIndex() != lost {
				t.Fatalf("%s, byte %d flipped: the log ends with %d, told is %v", name, at, l.LastIndex(), rec.Damage)
			}
			for i := uint64(1); ; i++ { // sealed ones are not read by Open: repair what is in them
				got, err := readAll(l, 1)
				for i := range got {
					if !same(got[i], want[i]) {
						t.Fatalf("%s, byte %d flipped: entry %d is wrong", name, at, i+1)
					}
				}
				var corrupt *CorruptError
				if err == nil && uint64(len(got)) == lost {
					break
				}
				if !errors.As(err, &corrupt) || i > 1 {
					t.Fatalf("%s, byte %d flipped: got %d entries, %v", name, at, len(got), err)
				}
				if err := l.Repair(corrupt.At, want[corrupt.Index-1]); err != nil {
					t.Fatalf("%s, byte %d flipped: %v", name, at, err)
				}
			}
			l.Close()
		}
	}
}
