package stream

import (
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kingbus/internal/vfs"
)

// simDisk is the disk of one life of a node: it is slow, and power fails between any
// two of its operations, in the middle of what the node is doing.
type simDisk struct {
	*vfs.Mem
	slow *atomic.Int64 // what a sync of the log takes at most

	mu    sync.Mutex
	rng   *rand.Rand
	left  int             // operations until power fails; 0: it does not
	fail  func() *vfs.Mem // returns what is on the disk then
	image *vfs.Mem        // that; nil: it has not failed
}

// arm lets power fail before the nth operation from now on.
func (d *simDisk) arm(nth int, fail func() *vfs.Mem) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.image == nil {
		d.left, d.fail = nth, fail
	}
}

// failed returns what is on the disk if power has failed, and lets it not fail any more.
func (d *simDisk) failed() *vfs.Mem {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = 0
	return d.image
}

// op comes before each operation.
func (d *simDisk) op() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == 0 {
		return
	}
	if d.left--; d.left == 0 {
		d.image = d.fail()
	}
}

// wait takes the time of a sync.
func (d *simDisk) wait() {
	d.mu.Lock()
	took := upTo(d.rng, time.Duration(d.slow.Load()))
	d.mu.Unlock()
	time.Sleep(took)
}

// fill leaves room for so many bytes.
func (d *simDisk) fill(room int64) {
	const all = 1 << 40
	d.SetLimit(all)
	space, _ := d.Space("") // fails never
	d.SetLimit(all - int64(space.Free) + room)
}

func (d *simDisk) Create(name string) (vfs.File, error) {
	d.op()
	f, err := d.Mem.Create(name)
	return d.file(f, name, err)
}

func (d *simDisk) Open(name string) (vfs.File, error) {
	f, err := d.Mem.Open(name)
	return d.file(f, name, err)
}

func (d *simDisk) OpenWrite(name string) (vfs.File, error) {
	f, err := d.Mem.OpenWrite(name)
	return d.file(f, name, err)
}

func (d *simDisk) Remove(name string) error {
	d.op()
	return d.Mem.Remove(name)
}

func (d *simDisk) Rename(from, to string) error {
	d.op()
	return d.Mem.Rename(from, to)
}

func (d *simDisk) SyncDir(dir string) error {
	d.op()
	return d.Mem.SyncDir(dir)
}

func (d *simDisk) file(f vfs.File, name string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &simFile{File: f, d: d, log: strings.Contains(filepath.ToSlash(name), "/log/")}, nil
}

type simFile struct {
	vfs.File
	d   *simDisk
	log bool
}

func (f *simFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.op()
	return f.File.WriteAt(b, off)
}

func (f *simFile) WritevAt(bufs [][]byte, off int64) (int, error) {
	f.d.op()
	return f.File.WritevAt(bufs, off)
}

// SyncData takes its time for the log only: who syncs another file may hold a lock,
// and virtual time stands still while anybody waits for one.
func (f *simFile) SyncData() error {
	f.d.op()
	if f.log {
		f.d.wait()
		f.d.op()
	}
	return f.File.SyncData()
}

func (f *simFile) Sync() error {
	f.d.op()
	return f.File.Sync()
}

func (f *simFile) Truncate(size int64) error {
	f.d.op()
	return f.File.Truncate(size)
}

// upTo returns a random time below d, 0 if there is none.
func upTo(rng *rand.Rand, d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(rng.Int64N(int64(d)))
}
