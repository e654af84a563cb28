package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// each runs a test on both filesystems: what holds for one must hold for the other.
func each(t *testing.T, f func(t *testing.T, fs FS, dir string)) {
	t.Run("OS", func(t *testing.T) { f(t, OS{}, t.TempDir()) })
	t.Run("Mem", func(t *testing.T) { f(t, NewMem(1), "/") })
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, fs FS, name, content string) File {
	t.Helper()
	f, err := fs.Create(name)
	must(t, err)
	_, err = f.WriteAt([]byte(content), 0)
	must(t, err)
	return f
}

func content(t testing.TB, fs FS, name string) string {
	t.Helper()
	b, err := ReadFile(fs, name, 1<<30)
	if errors.Is(err, iofs.ErrNotExist) {
		return "none"
	}
	must(t, err)
	return string(b)
}

func TestFiles(t *testing.T) {
	each(t, func(t *testing.T, fs FS, root string) {
		dir := filepath.Join(root, "a", "b")
		must(t, fs.MkdirAll(dir), fs.MkdirAll(dir))
		name := filepath.Join(dir, "x")
		if _, err := fs.Open(name); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("Open: got %v, want not exist", err)
		}
		f := create(t, fs, name, "hello")
		if _, err := fs.Create(name); !errors.Is(err, iofs.ErrExist) {
			t.Errorf("Create: got %v, want exist", err)
		}
		must(t, f.SyncData(), f.Truncate(3), f.Truncate(6), f.Sync(), f.DropCache())
		if got := content(t, fs, name); got != "hel\x00\x00\x00" {
			t.Errorf("got %q", got)
		}
		b := make([]byte, 10)
		if n, err := f.ReadAt(b, 2); n != 4 || err != io.EOF {
			t.Errorf("ReadAt over the end: got %d, %v", n, err)
		}
		if n, err := f.ReadAt(b, 100); n != 0 || err != io.EOF {
			t.Errorf("ReadAt behind the end: got %d, %v", n, err)
		}
		ro, err := fs.Open(name)
		must(t, err)
		if _, err := ro.WriteAt([]byte("x"), 0); err == nil {
			t.Error("a file opened for reading was written")
		}
		other := filepath.Join(dir, "y")
		must(t, create(t, fs, other, "old").Close(), fs.Rename(name, other), fs.SyncDir(dir))
		names, err := fs.ReadDir(dir)
		if must(t, err); !slices.Equal(names, []string{"y"}) {
			t.Errorf("got %v, want [y]", names)
		}
		must(t, fs.Remove(other))
		if n, err := ro.ReadAt(b[:3], 0); n != 3 || err != nil || string(b[:3]) != "hel" {
			t.Errorf("a removed file that is open: got %q, %v", b[:n], err)
		}
		must(t, ro.Close(), f.Close())
		if _, err := f.ReadAt(b, 0); !errors.Is(err, iofs.ErrClosed) {
			t.Errorf("closed file: got %v", err)
		}
		if err := fs.Remove(other); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("Remove: got %v, want not exist", err)
		}
		if names, err := fs.ReadDir(filepath.Join(root, "a")); err != nil || !slices.Equal(names, []string{"b"}) {
			t.Errorf("folders: got %v, %v, want [b]", names, err)
		}
		if space, err := fs.Space(dir); err != nil || space.Free == 0 || space.Free > space.Total {
			t.Errorf("Space: got %+v, %v", space, err)
		}
	})
}

func TestWritev(t *testing.T) {
	each(t, func(t *testing.T, fs FS, root string) {
		name := filepath.Join(root, "v")
		f := create(t, fs, name, "0123")
		for _, n := range []int{0, 1, 2, 1023, 1024, 1025, 3000} {
			var bufs [][]byte
			want := []byte("01")
			for i := range n {
				b := bytes.Repeat([]byte{byte(i)}, i%5) // empty ones too
				bufs, want = append(bufs, b), append(want, b...)
			}
			must(t, f.Truncate(2))
			got, err := f.WritevAt(bufs, 2)
			if must(t, err); got != len(want)-2 || content(t, fs, name) != string(want) {
				t.Errorf("%d buffers: wrote %d bytes, want %d", n, got, len(want)-2)
			}
		}
		// Large ones go in pieces.
		for _, size := range []int{1<<20 - 1, 1 << 20, 3<<20 + 5} {
			bufs := [][]byte{bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), size), nil, bytes.Repeat([]byte("c"), size), []byte("d")}
			want := "01" + string(bytes.Join(bufs, nil))
			must(t, f.Truncate(2))
			got, err := f.WritevAt(bufs, 2)
			if must(t, err); got != len(want)-2 || content(t, fs, name) != want {
				t.Errorf("buffers of %d bytes: wrote %d bytes, want %d, or others", size, got, len(want)-2)
			}
		}
		must(t, f.Close())
	})
}

func TestLock(t *testing.T) {
	each(t, func(t *testing.T, fs FS, root string) {
		name := filepath.Join(root, "LOCK")
		lock, err := fs.Lock(name)
		must(t, err)
		if _, err := fs.Lock(name); !errors.Is(err, ErrLocked) {
			t.Errorf("got %v, want %v", err, ErrLocked)
		}
		must(t, lock.Close())
		lock, err = fs.Lock(name)
		must(t, err, lock.Close())
	})
}

func TestWriteFile(t *testing.T) {
	each(t, func(t *testing.T, fs FS, root string) {
		name := filepath.Join(root, "f")
		must(t, WriteFile(fs, name, []byte("one")), WriteFile(fs, name, []byte("two")))
		must(t, create(t, fs, name+".tmp", "left over").Close())
		must(t, WriteFile(fs, name, []byte("three")))
		if got := content(t, fs, name); got != "three" {
			t.Errorf("got %q, want three", got)
		}
		if _, err := ReadFile(fs, name, 4); err == nil {
			t.Error("a file over the limit: no error")
		}
	})
}

// TestWriteFileIsAtomic crashes, or fails, at every step: the old or the new content is there, and the new one if it was confirmed.
func TestWriteFileIsAtomic(t *testing.T) {
	for seed := uint64(0); seed < 300; seed++ {
		m := NewMem(seed)
		must(t, WriteFile(m, "f", []byte("old")))
		op := []Op{OpCreate, OpWrite, OpSync, OpRename, OpSyncDir, OpOpen}[seed%6]
		m.Fail(op, 1, syscall.EIO)
		err := WriteFile(m, "f", []byte("new content"))
		if (op == OpOpen) != (err == nil) {
			t.Fatalf("seed %d: got %v", seed, err)
		}
		got := content(t, m.Crash(seed), "f")
		if got != "new content" && (got != "old" || err == nil) {
			t.Errorf("seed %d: after a crash: got %q (error was %v)", seed, got, err)
		}
	}
}

func TestCrashLosesWhatIsNotSynced(t *testing.T) {
	m := NewMem(1)
	must(t, m.MkdirAll("d"))
	f := create(t, m, "d/f", "synced")
	must(t, f.Sync())
	if got := content(t, m.Crash(0), "d/f"); got != "none" {
		t.Errorf("the name was not synced: got %q", got)
	}
	must(t, m.SyncDir("d"))
	_, err := f.WriteAt([]byte("lost"), 0)
	must(t, err, m.Rename("d/f", "d/g"))
	if got := content(t, m.Crash(0), "d/f"); got != "synced" {
		t.Errorf("got %q, want synced", got)
	}
	if got := content(t, m, "d/g"); got != "losted" {
		t.Errorf("alive: got %q, want losted", got)
	}
	must(t, m.SyncDir("d"), f.Sync(), f.Truncate(0))
	if got := content(t, m.Crash(0), "d/g"); got != "losted" {
		t.Errorf("got %q, want losted", got)
	}
}

// TestKillKeepsWhatWasWritten: the next process sees it, and loses it when power fails before it is synced; what
// the killed one does from then on, with the files that it has open, it does not see.
func TestKillKeepsWhatWasWritten(t *testing.T) {
	m := NewMem(1)
	must(t, m.MkdirAll("d"))
	f := create(t, m, "d/f", "synced")
	must(t, f.Sync(), m.SyncDir("d"))
	_, err := f.WriteAt([]byte("lost"), 0)
	must(t, err, m.Rename("d/f", "d/g"))
	next := m.Kill(1)
	_, err = f.WriteAt([]byte("late"), 0)
	must(t, err, f.Sync(), m.Remove("d/g"), m.SyncDir("d"))
	if got := content(t, next, "d/g"); got != "losted" {
		t.Errorf("the next process: got %q, want losted", got)
	}
	lost := next.Crash(0)
	if got, name := content(t, lost, "d/f"), content(t, lost, "d/g"); got != "synced" || name != "none" {
		t.Errorf("after power loss: got %q and %q, want synced and none", got, name)
	}
	g, err := next.OpenWrite("d/g")
	must(t, err, g.Sync(), next.SyncDir("d"))
	if got := content(t, next.Crash(0), "d/g"); got != "losted" {
		t.Errorf("synced by the next process: got %q, want losted", got)
	}
}

// TestCrashIsSeededAndVaried: the same seed gives the same outcome, and among many there are all kinds of loss.
func TestCrashIsSeededAndVaried(t *testing.T) {
	m := NewMem(1)
	old := strings.Repeat("o", 2000)
	f := create(t, m, "f", old)
	must(t, f.Sync(), m.SyncDir("."))
	_, err := f.WriteAt(bytes.Repeat([]byte{'n'}, 4000), 500)
	must(t, err)
	must(t, create(t, m, "g", "").Close(), create(t, m, "h", "").Close())
	outcomes := map[string]int{}
	for seed := uint64(1); seed <= 200; seed++ {
		c := m.Crash(seed)
		got := content(t, c, "f")
		if again := m.Crash(seed); content(t, again, "f") != got || content(t, again, "g") != content(t, c, "g") {
			t.Fatalf("seed %d gives two outcomes", seed)
		}
		if got[:500] != old[:500] {
			t.Fatalf("seed %d: bytes that were not written changed", seed)
		}
		if i := strings.Trim(got[:min(len(got), 2000)], "on"); i != "" {
			t.Fatalf("seed %d: synced bytes became %q", seed, i)
		}
		switch {
		case got == old:
			outcomes["nothing"]++
		case len(got) == 4500 && !strings.ContainsFunc(got[500:], func(r rune) bool { return r != 'n' }):
			outcomes["everything"]++
		case strings.Contains(got, "on") && strings.Contains(got[500:], "no"):
			outcomes["torn"]++
		}
		outcomes[fmt.Sprint("names ", content(t, c, "g") != "none", content(t, c, "h") != "none")]++
	}
	for _, want := range []string{"nothing", "everything", "torn", "names true true", "names true false", "names false true", "names false false"} {
		if outcomes[want] == 0 {
			t.Errorf("never: %s; got %v", want, outcomes)
		}
	}
}

func TestFailedSync(t *testing.T) {
	m := NewMem(1)
	f := create(t, m, "f", "first")
	must(t, f.Sync(), m.SyncDir("."))
	_, err := f.WriteAt([]byte("SECOND"), 0)
	must(t, err)
	m.Fail(OpSync, 2, syscall.EIO)
	g := create(t, m, "g", "")
	must(t, g.Sync())
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v, want EIO", err)
	}
	must(t, f.Sync()) // claims success, as Linux does
	if got := content(t, m, "f"); got != "SECOND" {
		t.Errorf("from the cache: got %q, want SECOND", got)
	}
	if got := content(t, m.Crash(7), "f"); got != "first" {
		t.Errorf("after a crash: got %q, want first", got)
	}
	must(t, f.DropCache())
	if got := content(t, m, "f"); got != "first" {
		t.Errorf("from the disk: got %q, want first", got)
	}
}

func TestFaultsAndLimit(t *testing.T) {
	m := NewMem(3)
	f := create(t, m, "f", "")
	m.Fail(OpWrite, 2, syscall.EIO)
	n1, err1 := f.WriteAt([]byte("ab"), 0)
	n2, err2 := f.WriteAt([]byte("cdefgh"), 2)
	if n1 != 2 || err1 != nil || !errors.Is(err2, syscall.EIO) || n2 > 6 {
		t.Errorf("got %d, %v and %d, %v", n1, err1, n2, err2)
	}
	if got := content(t, m, "f"); got != "abcdefgh"[:2+n2] {
		t.Errorf("got %q, want the %d bytes written", got, 2+n2)
	}
	must(t, f.Truncate(0))
	m.SetLimit(10)
	g := create(t, m, "g", "1234")
	n, err := f.WriteAt(make([]byte, 8), 0)
	if n != 6 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full disk: got %d, %v, want 6 and ENOSPC", n, err)
	}
	if _, err := g.WriteAt([]byte("over"), 0); err != nil { // needs no room
		t.Errorf("overwriting: %v", err)
	}
	if space, _ := m.Space("."); space.Free != 0 || space.Total != 10 {
		t.Errorf("Space: got %+v", space)
	}
	m.SetLimit(-1)
	if !m.Flip("g", 1) || content(t, m, "g") != "mver" || m.Flip("g", 999) || m.Flip("none", 0) {
		t.Errorf("Flip: got %q, want mver", content(t, m, "g"))
	}
}

// TestMemAgainstOS does the same random things on both.
func TestMemAgainstOS(t *testing.T) {
	m, root := NewMem(1), t.TempDir()
	rng := rand.New(rand.NewPCG(5, 5))
	a, err := m.Create("f")
	must(t, err)
	b, err := OS{}.Create(filepath.Join(root, "f"))
	must(t, err)
	for range 500 {
		switch rng.IntN(4) {
		case 0:
			size := rng.Int64N(3000)
			must(t, a.Truncate(size), b.Truncate(size))
		case 1:
			must(t, a.Sync(), b.Sync(), a.DropCache(), b.DropCache())
		default:
			p, off := bytes.Repeat([]byte{byte(rng.Uint32())}, 1+rng.IntN(400)), rng.Int64N(3000)
			_, err1 := a.WriteAt(p, off)
			_, err2 := b.WriteAt(p, off)
			must(t, err1, err2)
		}
		if x, y := content(t, m, "f"), content(t, OS{}, filepath.Join(root, "f")); x != y {
			t.Fatalf("Mem has %d bytes, OS has %d, and they differ", len(x), len(y))
		}
	}
	must(t, a.Close(), b.Close())
}
