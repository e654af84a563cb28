package segment

import (
	"testing"

	"kingbus/internal/vfs"
)

// watched calls before ahead of everything that changes the disk.
type watched struct {
	*vfs.Mem
	before func()
}

func (w watched) Create(name string) (vfs.File, error) {
	w.before()
	f, err := w.Mem.Create(name)
	return watchedFile{f, w.before}, err
}

func (w watched) OpenWrite(name string) (vfs.File, error) {
	f, err := w.Mem.OpenWrite(name)
	return watchedFile{f, w.before}, err
}

func (w watched) Remove(name string) error     { w.before(); return w.Mem.Remove(name) }
func (w watched) Rename(from, to string) error { w.before(); return w.Mem.Rename(from, to) }
func (w watched) SyncDir(dir string) error     { w.before(); return w.Mem.SyncDir(dir) }

type watchedFile struct {
	vfs.File
	before func()
}

func (f watchedFile) WriteAt(p []byte, off int64) (int, error) { return f.WritevAt([][]byte{p}, off) }
func (f watchedFile) WritevAt(bufs [][]byte, off int64) (int, error) {
	f.before()
	return f.File.WritevAt(bufs, off)
}
func (f watchedFile) SyncData() error           { f.before(); return f.File.SyncData() }
func (f watchedFile) Sync() error               { f.before(); return f.File.Sync() }
func (f watchedFile) Truncate(size int64) error { f.before(); return f.File.Truncate(size) }

// crashes runs do and returns what the power failing at any moment of it may leave, several times each.
func crashes(t testing.TB, fs *vfs.Mem, do func(fs vfs.FS)) (after []*vfs.Mem) {
	t.Helper()
	moments := 0
	cut := func() {
		for seed := range uint64(25) {
			after = append(after, fs.Crash(seed+seed*uint64(moments)))
		}
		moments++
	}
	do(watched{fs, cut})
	cut()
	if moments < 3 {
		t.Fatalf("the disk was changed %d times, want more", moments-1)
	}
	return after
}
