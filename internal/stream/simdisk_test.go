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
	fault simFault
	// struck is when a fault came after which the process has to end, in nanoseconds since 1970; 0: none did.
	struck int64
}

// simFault is a call of the disk that fails.
type simFault struct {
	op    vfs.Op
	after int    // so many before it do not
	on    string // what is in the file's name
	err   error  // nil: none fails
	spent bool   // it has come
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

// spoil lets a call of the disk fail, unless one is to fail already.
func (d *simDisk) spoil(f simFault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault.err == nil {
		d.fault = f
	}
}

// heal takes back a fault that has not come.
func (d *simDisk) heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.fault.spent {
		d.fault = simFault{}
	}
}

// spoiled tells whether an error is of the fault that has come. Who cannot wait for room hides what it is.
func (d *simDisk) spoiled(err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return err != nil && d.fault.spent && strings.Contains(err.Error(), d.fault.err.Error())
}

// mustEnd tells since when the process must not go on; 0: it may.
func (d *simDisk) mustEnd() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.struck
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

// call comes right before a call of the disk.
func (d *simDisk) call(op vfs.Op, name string) {
	d.op()
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &d.fault
	if f.err == nil || f.spent || f.op != op || !strings.Contains(name, f.on) {
		return
	}
	if f.after--; f.after >= 0 {
		return
	}
	f.spent = true
	d.Fail(op, 1, f.err)
	if strings.HasSuffix(name, "hardstate") {
		d.struck = time.Now().UnixNano()
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
	d.call(vfs.OpCreate, name)
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
	d.call(vfs.OpRemove, name)
	return d.Mem.Remove(name)
}

func (d *simDisk) Rename(from, to string) error {
	d.call(vfs.OpRename, from)
	return d.Mem.Rename(from, to)
}

func (d *simDisk) SyncDir(dir string) error {
	d.call(vfs.OpSyncDir, dir)
	return d.Mem.SyncDir(dir)
}

func (d *simDisk) file(f vfs.File, name string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &simFile{File: f, d: d, name: name, log: strings.Contains(filepath.ToSlash(name), "/log/")}, nil
}

type simFile struct {
	vfs.File
	d    *simDisk
	name string
	log  bool
}

func (f *simFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.call(vfs.OpWrite, f.name)
	return f.File.WriteAt(b, off)
}

func (f *simFile) WritevAt(bufs [][]byte, off int64) (int, error) {
	f.d.call(vfs.OpWrite, f.name)
	return f.File.WritevAt(bufs, off)
}

// SyncData takes its time for the log only: who syncs another file may hold a lock,
// and virtual time stands still while anybody waits for one.
func (f *simFile) SyncData() error {
	if f.log {
		f.d.op()
		f.d.wait()
	}
	f.d.call(vfs.OpSync, f.name)
	err := f.File.SyncData()
	if f.log && err != nil { // of a segment that is begun Sync is called
		f.d.mu.Lock()
		f.d.struck = time.Now().UnixNano()
		f.d.mu.Unlock()
	}
	return err
}

func (f *simFile) Sync() error {
	f.d.call(vfs.OpSync, f.name)
	return f.File.Sync()
}

func (f *simFile) Truncate(size int64) error {
	f.d.call(vfs.OpTruncate, f.name)
	return f.File.Truncate(size)
}

// upTo returns a random time below d, 0 if there is none.
func upTo(rng *rand.Rand, d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(rng.Int64N(int64(d)))
}
