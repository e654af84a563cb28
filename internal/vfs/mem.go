package vfs

import (
	"errors"
	"io"
	iofs "io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// Mem is a filesystem in memory that fails on demand: see Fail, SetLimit, Flip, Crash and Kill. It is for tests.
//
// It keeps two states of every file and folder: the live one, which reads show, and the durable one, together with the changes
// that lead from the second to the first and have not been synced. Folders made by MkdirAll are durable at once.
type Mem struct {
	mu     sync.Mutex
	rng    *rand.Rand
	dirs   map[string]*memDir
	locks  map[string]bool
	limit  int64 // bytes of all files together; negative: no limit
	faults []*fault
}

type memDir struct {
	live, durable map[string]*inode
	pending       []dirChange
}

// dirChange makes name point to node (nil: removes it), and removes from (for a rename; else empty), as one step.
type dirChange struct {
	name, from string
	node       *inode
}

func (c dirChange) apply(names map[string]*inode) {
	if c.from != "" {
		delete(names, c.from)
	}
	if c.node == nil {
		delete(names, c.name)
	} else {
		names[c.name] = c.node
	}
}

type inode struct {
	live, durable []byte
	pending       []change
}

// change is a write of data at off, or, if data is nil, a cut or extension to off bytes.
type change struct {
	off  int64
	data []byte
}

func (c change) apply(b []byte) []byte {
	if c.data == nil {
		return resize(b, c.off)
	}
	if end := c.off + int64(len(c.data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[c.off:], c.data)
	return b
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size]
	}
	n := len(b)
	b = slices.Grow(b, int(size)-n)[:size]
	clear(b[n:])
	return b
}

// NewMem returns an empty filesystem. The seed decides how much of a failing write is carried out.
func NewMem(seed uint64) *Mem {
	return &Mem{
		rng:   rand.New(rand.NewPCG(seed, 0)),
		dirs:  map[string]*memDir{".": newMemDir(), "/": newMemDir()},
		locks: map[string]bool{},
		limit: -1,
	}
}

var _ FS = (*Mem)(nil)

func newMemDir() *memDir {
	return &memDir{live: map[string]*inode{}, durable: map[string]*inode{}}
}

func pathError(op, name string, err error) error {
	return &iofs.PathError{Op: op, Path: name, Err: err}
}

// locate returns the folder and the base name of a path. The caller holds mu.
func (m *Mem) locate(op, name string) (*memDir, string, error) {
	dir, base := filepath.Split(filepath.Clean(name))
	d := m.dirs[filepath.Clean(dir)]
	if d == nil {
		return nil, "", pathError(op, name, iofs.ErrNotExist)
	}
	return d, base, nil
}

// Create makes a new file; see [FS].
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(OpCreate); err != nil {
		return nil, pathError("create", name, err)
	}
	d, base, err := m.locate("create", name)
	if err != nil {
		return nil, err
	}
	if d.live[base] != nil {
		return nil, pathError("create", name, iofs.ErrExist)
	}
	node := &inode{}
	d.change(dirChange{name: base, node: node})
	return &memFile{m: m, node: node, name: name, writable: true}, nil
}

func (d *memDir) change(c dirChange) {
	c.apply(d.live)
	d.pending = append(d.pending, c)
}

// Open opens a file for reading; see [FS].
func (m *Mem) Open(name string) (File, error) { return m.open(name, false) }

// OpenWrite opens a file for reading and writing; see [FS].
func (m *Mem) OpenWrite(name string) (File, error) { return m.open(name, true) }

func (m *Mem) open(name string, writable bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(OpOpen); err != nil {
		return nil, pathError("open", name, err)
	}
	d, base, err := m.locate("open", name)
	if err != nil {
		return nil, err
	}
	node := d.live[base]
	if node == nil {
		return nil, pathError("open", name, iofs.ErrNotExist)
	}
	return &memFile{m: m, node: node, name: name, writable: writable}, nil
}

// Remove removes a file; see [FS].
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(OpRemove); err != nil {
		return pathError("remove", name, err)
	}
	d, base, err := m.locate("remove", name)
	if err != nil {
		return err
	}
	if d.live[base] == nil {
		return pathError("remove", name, iofs.ErrNotExist)
	}
	d.change(dirChange{name: base})
	return nil
}

// Rename moves a file within its folder; see [FS].
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(OpRename); err != nil {
		return pathError("rename", from, err)
	}
	d, a, err := m.locate("rename", from)
	if err != nil {
		return err
	}
	d2, b, err := m.locate("rename", to)
	if err != nil {
		return err
	}
	if d != d2 {
		return pathError("rename", to, errors.New("into another folder: not supported by Mem"))
	}
	node := d.live[a]
	if node == nil {
		return pathError("rename", from, iofs.ErrNotExist)
	}
	d.change(dirChange{name: b, from: a, node: node})
	return nil
}

// ReadDir lists a folder; see [FS].
func (m *Mem) ReadDir(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir = filepath.Clean(dir)
	d := m.dirs[dir]
	if d == nil {
		return nil, pathError("readdir", dir, iofs.ErrNotExist)
	}
	names := slices.Collect(maps.Keys(d.live))
	for other := range m.dirs {
		if filepath.Dir(other) == dir && other != dir {
			names = append(names, filepath.Base(other))
		}
	}
	slices.Sort(names)
	return names, nil
}

// MkdirAll makes a folder; see [FS].
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for dir = filepath.Clean(dir); m.dirs[dir] == nil; dir = filepath.Dir(dir) {
		m.dirs[dir] = newMemDir()
	}
	return nil
}

// SyncDir syncs a folder; see [FS].
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[filepath.Clean(dir)]
	if d == nil {
		return pathError("sync", dir, iofs.ErrNotExist)
	}
	if err := m.fault(OpSyncDir); err != nil {
		return pathError("sync", dir, err)
	}
	for _, c := range d.pending {
		c.apply(d.durable)
	}
	d.pending = nil
	return nil
}

// Lock takes a lock among the users of this Mem; see [FS]. It makes no file.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	if m.locks[name] {
		return nil, pathError("lock", name, ErrLocked)
	}
	m.locks[name] = true
	return &memLock{m: m, name: name}, nil
}

type memLock struct {
	m    *Mem
	name string
	once sync.Once
}

func (l *memLock) Close() error {
	l.once.Do(func() {
		l.m.mu.Lock()
		defer l.m.mu.Unlock()
		delete(l.m.locks, l.name)
	})
	return nil
}

// Space tells what SetLimit left; without a limit 1 TiB is free. See [FS].
func (m *Mem) Space(string) (Space, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.limit < 0 {
		return Space{Free: 1 << 40, Total: 1 << 40}, nil
	}
	return Space{Free: uint64(max(0, m.limit-m.used())), Total: uint64(m.limit)}, nil
}

// used is the size of all files in bytes. The caller holds mu.
func (m *Mem) used() (n int64) {
	for _, d := range m.dirs {
		for _, node := range d.live {
			n += int64(len(node.live))
		}
	}
	return n
}

type memFile struct {
	m        *Mem
	node     *inode
	name     string
	writable bool
	closed   bool
}

// begin checks a call and asks for an injected failure. The caller holds m.mu.
func (f *memFile) begin(op Op, name string) error {
	if f.closed {
		return pathError(name, f.name, iofs.ErrClosed)
	}
	if !f.writable && (op == OpWrite || op == OpTruncate) {
		return pathError(name, f.name, syscall.EBADF)
	}
	if err := f.m.fault(op); err != nil {
		return pathError(name, f.name, err)
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.begin(OpRead, "read"); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("read", f.name, syscall.EINVAL)
	}
	if off >= int64(len(f.node.live)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.live[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) { return f.WritevAt([][]byte{p}, off) }

func (f *memFile) WritevAt(bufs [][]byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	data := slices.Concat(bufs...)
	err := f.begin(OpWrite, "write")
	if err != nil && (f.closed || !f.writable) {
		return 0, err
	}
	if err != nil { // an injected failure: some of it is written all the same
		data = data[:f.m.rng.IntN(len(data)+1)]
	} else if m := f.m; m.limit >= 0 {
		grow := off + int64(len(data)) - int64(len(f.node.live))
		if room := max(0, m.limit-m.used()); grow > room {
			data = data[:max(0, int64(len(data))-(grow-room))]
			err = pathError("write", f.name, syscall.ENOSPC)
		}
	}
	if len(data) > 0 {
		f.node.change(change{off: off, data: data})
	}
	return len(data), err
}

func (n *inode) change(c change) {
	n.live = c.apply(n.live)
	n.pending = append(n.pending, c)
}

func (f *memFile) SyncData() error { return f.Sync() }

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.begin(OpSync, "sync"); err != nil {
		if !f.closed {
			f.node.pending = nil // the pages are clean now, and lost
		}
		return err
	}
	f.node.sync()
	return nil
}

func (n *inode) sync() {
	for _, c := range n.pending {
		n.durable = c.apply(n.durable)
	}
	n.pending = nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.begin(OpTruncate, "truncate"); err != nil {
		return err
	}
	f.node.change(change{off: size})
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return 0, pathError("stat", f.name, iofs.ErrClosed)
	}
	return int64(len(f.node.live)), nil
}

// DropCache shows what is durable, and the changes that are still to be synced: what a failed sync lost is gone.
func (f *memFile) DropCache() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return pathError("fadvise", f.name, iofs.ErrClosed)
	}
	n := f.node
	n.live = slices.Clone(n.durable)
	for _, c := range n.pending {
		n.live = c.apply(n.live)
	}
	return nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return pathError("close", f.name, iofs.ErrClosed)
	}
	f.closed = true
	return nil
}
