package vfs

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
)

// Op is a kind of call that [Mem.Fail] can make fail.
type Op int

// The calls that can fail. OpSync is both Sync and SyncData of a file.
const (
	OpCreate Op = iota
	OpOpen
	OpRemove
	OpRename
	OpSyncDir
	OpRead
	OpWrite
	OpSync
	OpTruncate
)

type fault struct {
	op    Op
	after int
	err   error
}

// Fail makes the nth call of op from now on (1 is the next) fail once, with err wrapped in an fs.PathError.
// A write that fails is carried out in part. After a failed sync the unsynced changes of that file never become durable,
// though they are still read, and the next sync succeeds: as on Linux.
func (m *Mem) Fail(op Op, nth int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = append(m.faults, &fault{op: op, after: nth, err: err})
}

// ClearFaults takes back every Fail that has not struck.
func (m *Mem) ClearFaults() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = nil
}

// fault counts a call, and returns the error that it shall fail with. The caller holds mu.
func (m *Mem) fault(op Op) (err error) {
	m.faults = slices.DeleteFunc(m.faults, func(f *fault) bool {
		if f.op != op {
			return false
		}
		f.after--
		if f.after == 0 {
			err = f.err
		}
		return f.after <= 0
	})
	return err
}

// SetLimit makes the disk so many bytes large, for all files together; a write beyond it stops there with ENOSPC.
// A negative limit is none.
func (m *Mem) SetLimit(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limit = bytes
}

// SyncAll makes everything durable, as a long time without a crash does.
func (m *Mem) SyncAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.dirs {
		for _, c := range d.pending {
			c.apply(d.durable)
		}
		d.pending = nil
		for _, node := range d.live {
			node.sync()
		}
	}
}

// Flip inverts one bit of a file, on the medium: bit 0 is the lowest of the first byte. What was not synced of the file becomes
// durable before. It reports whether the file has that bit.
func (m *Mem) Flip(name string, bit int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.locate("flip", name)
	if err != nil || d.live[base] == nil {
		return false
	}
	node := d.live[base]
	node.sync()
	at, mask := bit/8, byte(1)<<(bit%8)
	if at < 0 || at >= int64(len(node.live)) {
		return false
	}
	node.live[at] ^= mask
	if at < int64(len(node.durable)) {
		node.durable[at] ^= mask
	}
	return true
}

// sector is the most that a disk writes as a whole or not at all; Crash also tears within it.
const sector = 512

// Crash returns the filesystem as it may be found after losing power now; m itself goes on unharmed.
// Of what was not synced the seed decides, change by change and sector by sector, what is there; seed 0 loses all of it.
// The new filesystem has no locks, no faults and no limit.
func (m *Mem) Crash(seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := crash{rng: rand.New(rand.NewPCG(seed, 1)), nodes: map[*inode]*inode{}}
	if seed != 0 {
		c.style = c.rng.IntN(4) + 1
	}
	out := NewMem(seed)
	dirs := make([]string, 0, len(m.dirs))
	for name := range m.dirs {
		dirs = append(dirs, name)
	}
	slices.Sort(dirs) // the seed alone decides, not the order of a map
	for _, name := range dirs {
		out.dirs[filepath.Clean(name)] = c.dir(m.dirs[name])
	}
	return out
}

// crash carries one Crash. Styles: 0 nothing unsynced is kept, 1 everything, 2 a beginning, 3 each change or not, 4 each sector or not.
type crash struct {
	rng   *rand.Rand
	style int
	nodes map[*inode]*inode
}

func (c *crash) dir(d *memDir) *memDir {
	names := map[string]*inode{}
	for name, node := range d.durable {
		names[name] = node
	}
	cut := c.cut(len(d.pending))
	for i, ch := range d.pending {
		if c.keeps(i, cut) {
			ch.apply(names)
		}
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	out := newMemDir()
	for _, name := range sorted {
		node := c.node(names[name])
		out.live[name], out.durable[name] = node, node
	}
	return out
}

func (c *crash) node(n *inode) *inode {
	if done := c.nodes[n]; done != nil {
		return done
	}
	b := slices.Clone(n.durable)
	cut := c.cut(len(n.pending))
	for i, ch := range n.pending {
		switch {
		case c.style == 4 && ch.data != nil:
			b = c.tear(b, ch)
		case c.style == 2 && i == cut && ch.data != nil: // the last one in part
			ch.data = ch.data[:c.rng.IntN(len(ch.data))]
			if len(ch.data) > 0 {
				b = ch.apply(b)
			}
		case c.keeps(i, cut):
			b = ch.apply(b)
		}
	}
	out := &inode{live: b, durable: slices.Clone(b)}
	c.nodes[n] = out
	return out
}

// cut chooses where style 2 stops.
func (c *crash) cut(n int) int {
	if n == 0 {
		return 0
	}
	return c.rng.IntN(n + 1)
}

func (c *crash) keeps(i, cut int) bool {
	switch c.style {
	case 0:
		return false
	case 1:
		return true
	case 2:
		return i < cut
	}
	return c.rng.IntN(2) == 0
}

// tear keeps some sectors of a write, loses some, and tears some at any byte. Where the file was to grow, a lost sector may
// hold anything: a filesystem that does not order data before metadata shows what the disk held before.
func (c *crash) tear(b []byte, ch change) []byte {
	for data, off := ch.data, ch.off; len(data) > 0; {
		n := min(int64(len(data)), sector-off%sector)
		part := data[:n]
		switch c.rng.IntN(8) {
		case 0, 1, 2, 3:
			b = change{off: off, data: part}.apply(b)
		case 4:
			if torn := part[:c.rng.IntN(len(part))]; len(torn) > 0 {
				b = change{off: off, data: torn}.apply(b)
			}
		case 5:
			if off >= int64(len(b)) {
				noise := make([]byte, n)
				for i := range noise {
					noise[i] = byte(c.rng.Uint32())
				}
				b = change{off: off, data: noise}.apply(b)
			}
		case 6:
			if off+n > int64(len(b)) {
				b = resize(b, off+n)
			}
		}
		data, off = data[n:], off+n
	}
	return b
}

// Kill returns the filesystem as the next process finds it when this one is killed now: all that was written is there, and what
// was not synced is still to be. m itself goes on unharmed; what it does from now on the new filesystem does not see. That one
// has no locks, no faults and no limit.
func (m *Mem) Kill(seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	nodes := map[*inode]*inode{nil: nil} // a removal points to none
	clone := func(n *inode) *inode {
		if c, done := nodes[n]; done {
			return c
		}
		c := &inode{live: slices.Clone(n.live), durable: slices.Clone(n.durable), pending: slices.Clone(n.pending)} // the data of a change is never written to again
		nodes[n] = c
		return c
	}
	out := NewMem(seed)
	for name, d := range m.dirs {
		o := newMemDir()
		for file, n := range d.live {
			o.live[file] = clone(n)
		}
		for file, n := range d.durable {
			o.durable[file] = clone(n)
		}
		for _, c := range d.pending {
			c.node = clone(c.node)
			o.pending = append(o.pending, c)
		}
		out.dirs[name] = o
	}
	return out
}
