package segment

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kingbus/internal/vfs"
)

var update = flag.Bool("update", false, "write testdata anew; only for a new format version")

// load copies a folder of testdata into memory.
func load(t testing.TB, folder string) *vfs.Mem {
	t.Helper()
	fs := vfs.NewMem(1)
	if err := fs.MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	names, err := vfs.OS{}.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		put(t, fs, name, data)
	}
	return fs
}

func put(t testing.TB, fs vfs.FS, name string, data []byte) {
	t.Helper()
	if err := vfs.WriteFile(fs, filepath.Join(dir, name), data); err != nil {
		t.Fatal(err)
	}
}

// goldens are the folders in testdata, and how they were made: by a log of 1300 bytes per segment with entries 1 to 30.
var goldens = map[string]struct {
	spoil func(t *testing.T, fs *vfs.Mem, locs []Location)
	last  uint64
}{
	"v1-clean": {func(*testing.T, *vfs.Mem, []Location) {}, 30},
	// The last batch, of 3 entries, has lost a part of its second.
	"v1-torn": {func(t *testing.T, fs *vfs.Mem, locs []Location) {
		name := fileName(dir, locs[0].Segment)
		f, err := fs.OpenWrite(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, 50), locs[1].Offset+30); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}, 28},
}

func goldenEntries() []Entry {
	all := baseEntries()
	all[4].Data, all[5].Payload = nil, nil
	return all
}

func TestGolden(t *testing.T) {
	for name, golden := range goldens {
		t.Run(name, func(t *testing.T) {
			folder := filepath.Join("testdata", name)
			if *update {
				writeGolden(t, folder, golden.spoil)
			}
			want := goldenEntries()[:golden.last]
			fs := load(t, folder)
			l, rec := mustOpen(t, fs, Options{SegmentBytes: headerSize + 1300, Committed: 27})
			if torn := name == "v1-torn"; rec.First != 1 || rec.Last != golden.last || (rec.TornFile != "") != torn {
				t.Errorf("got %+v", rec)
			}
			wantEntries(t, l, want...)
			encodeAgain(t, load(t, folder), want)
		})
	}
}

func writeGolden(t *testing.T, folder string, spoil func(*testing.T, *vfs.Mem, []Location)) {
	fs := vfs.NewMem(1)
	l, _ := mustOpen(t, fs, Options{SegmentBytes: headerSize + 1300})
	all := goldenEntries()
	for _, e := range all[:27] {
		mustAppend(t, l, e)
	}
	locs := mustAppend(t, l, all[27:]...)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	spoil(t, fs, locs)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	names, _ := fs.ReadDir(dir)
	for _, name := range names {
		data, err := vfs.ReadFile(fs, filepath.Join(dir, name), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// encodeAgain checks that today's encoder makes the very bytes of the golden files, given their use ids, times and sync marks.
func encodeAgain(t *testing.T, fs vfs.FS, want []Entry) {
	t.Helper()
	n := 0
	err := Inspect(fs, dir, func(f Found) error {
		data, err := vfs.ReadFile(fs, f.File, 1<<20)
		if err != nil {
			return err
		}
		switch {
		case f.Header != nil:
			if !bytes.Equal(f.Header.encode(), data[:headerSize]) {
				t.Errorf("%s: the header is encoded differently now", f.File)
			}
		case f.Entry != nil && n < len(want):
			h, err := decodeHeader(data)
			if err != nil {
				return err
			}
			e := want[n]
			n++
			r := record{
				payloadSum: checksum(e.Payload), payloadLen: uint32(len(e.Payload)), dataLen: uint16(len(e.Data)),
				typ: e.Type, index: e.Index, term: e.Term, synced: uint64(f.Synced),
			}
			b := make([]byte, recordHeader+len(e.Data))
			r.put(b, h.Use, f.Offset, e.Data)
			if b = append(b, e.Payload...); !bytes.Equal(b, data[f.Offset:f.Offset+f.Size]) {
				t.Errorf("%s at %d: the record is encoded differently now", f.File, f.Offset)
			}
		}
		return nil
	})
	if err != nil || n != len(want) {
		t.Errorf("%d records, %v, want %d", n, err, len(want))
	}
}

func TestInspect(t *testing.T) {
	fs, opt := base(t)
	name := file(t, fs, 1)
	l, _ := mustOpen(t, fs, opt) // in use
	loc, err := l.Seek(13)
	if err != nil {
		t.Fatal(err)
	}
	fs.Flip(name, 8*(loc.Offset+50))
	if err := fs.Remove(file(t, fs, 0)); err != nil {
		t.Fatal(err)
	}
	put(t, fs, "00000000000000000041.seg", []byte("nonsense"))
	fs.SyncAll()
	before := fs.Crash(0)
	var got []string
	err = Inspect(fs, dir, func(f Found) error {
		switch {
		case f.Header != nil:
			got = append(got, fmt.Sprintf("segment %d", f.Header.First))
		case f.Entry != nil:
			if !same(*f.Entry, baseEntries()[f.Entry.Index-1]) {
				t.Errorf("entry %d is wrong", f.Entry.Index)
			}
			got = append(got, fmt.Sprint(f.Entry.Index))
		default:
			got = append(got, fmt.Sprintf("bad %s at %d: %v", filepath.Base(f.File), f.Offset, f.Err))
		}
		return nil
	})
	want := fmt.Sprintf("segment 11, 11, 12, bad 00000000000000000011.seg at %d: %v, 14, 15, 16, 17, 18, 19, 20, "+
		"segment 21, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, bad 00000000000000000041.seg at 0: %v", loc.Offset, errPayloadSum, errShort)
	if s := strings.Join(got, ", "); err != nil || s != want {
		t.Errorf("got  %s, %v\nwant %s", s, err, want)
	}
	sameFolder(t, fs, before)
	stop := errors.New("stop")
	if err := Inspect(fs, dir, func(Found) error { return stop }); err != stop {
		t.Errorf("got %v, want the caller's error", err)
	}
}

// FuzzOpen opens a log whose bytes were changed at will. Whatever Open and the readers say, they must not panic, and an entry
// that they return must be one that was appended. script is a list of 4-byte changes: file, position (2), value.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{0, 8, 0, 2}, uint64(0))
	f.Add([]byte{2, 16, 4, 1, 2, 17, 0, 9}, uint64(20))
	f.Add([]byte{0x81, 0x10, 0x20, 0}, uint64(30))
	f.Add([]byte{0xc1, 0, 0, 0, 3, 0, 0, 77}, uint64(5))
	base, files := map[string][]byte{}, []string(nil)
	for _, folder := range []string{"testdata/v1-clean", "testdata/v1-torn"} {
		fs := load(f, folder)
		names, _ := fs.ReadDir(dir)
		for _, name := range names {
			data, err := vfs.ReadFile(fs, filepath.Join(dir, name), 1<<20)
			if err != nil {
				f.Fatal(err)
			}
			if folder == "testdata/v1-clean" {
				base[name] = data
			} else {
				base["torn "+name] = data
			}
		}
	}
	files = slices.Sorted(maps.Keys(base))
	want := goldenEntries()
	f.Fuzz(func(t *testing.T, script []byte, committed uint64) {
		fs := vfs.NewMem(1)
		if err := fs.MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
		folder := map[string][]byte{}
		for _, name := range files[:len(files)/2] {
			folder[name] = bytes.Clone(base[name])
		}
		for ; len(script) >= 4; script = script[4:] {
			name := files[int(script[0]&0x3f)%(len(files)/2)]
			at := int(script[1])<<8 | int(script[2])
			switch script[0] >> 6 {
			case 0, 1:
				if b := folder[name]; at < len(b) {
					b[at] ^= script[3]
				}
			case 2:
				if b := folder[name]; at < len(b) {
					folder[name] = b[:at]
				}
			case 3: // put another file in its place
				other := files[int(script[3])%len(files)]
				folder[name] = bytes.Clone(base[other])
				if script[2] == 1 {
					delete(folder, name)
				}
			}
		}
		for _, name := range files[:len(files)/2] {
			if data, ok := folder[name]; ok {
				put(t, fs, name, data)
			}
		}
		check := func(e Entry) {
			if e.Index == 0 || e.Index > uint64(len(want)) || !same(e, want[e.Index-1]) {
				t.Errorf("entry %d was never appended so", e.Index)
			}
		}
		if err := Inspect(fs, dir, func(f Found) error {
			if f.Entry != nil {
				check(*f.Entry)
			}
			return nil
		}); err != nil {
			t.Errorf("Inspect: %v", err)
		}
		l, _, err := Open(fs, dir, Options{Committed: committed})
		if err != nil {
			return
		}
		got, _ := readAll(l, l.FirstIndex())
		for _, e := range got {
			check(e)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}
