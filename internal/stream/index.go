package stream

import (
	"slices"
	"sort"

	"kingbus/internal/gtid"
	"kingbus/internal/segment"
)

// pointEvery is the distance between two points of the index in bytes of log:
// a seek scans at most that much.
const pointEvery = 256 << 10

// loadedBlocks is how many blocks keep their points in memory; the others are
// read from their files when a seek needs them.
const loadedBlocks = 64

// point is a place in the log at which reading can begin: the first entry of a
// run that begins at a boundary, or a rotate entry (pos is 4 then).
type point struct {
	index uint64
	at    segment.Location
	file  uint32
	pos   uint64
	// delta are the transactions that ended since the point before. A reader
	// that has all deltas up to here lacks nothing before this point.
	delta gtid.Set
}

// after tells whether the point lies behind the coordinates.
func (p point) after(file uint32, pos uint64) bool {
	return p.file > file || p.file == file && p.pos > pos
}

// block is the index of one segment. A block whose file was lost has no points:
// seeks then begin before it, or at the beginning of a file, and scan.
type block struct {
	segment     uint64
	count       int
	first, last point
	rest        gtid.Set // all deltas but the first point's
	tail        gtid.Set // transactions that ended after the last point
	lost        bool     // the deltas are not known
	saved       bool     // in its file as it is
	points      []point  // nil when not in memory
}

func (b *block) add(p point) {
	if b.count == 0 {
		b.first = p
	} else {
		b.rest.AddSet(p.delta)
	}
	b.last = p
	b.points = append(b.points, p)
	b.count++
	b.saved = false
}

// upTo returns the block without the points behind the entry last. What ended
// between the last point that stays and the next one counts as ended, which is no
// more than that the next seek begins too early.
func (b *block) upTo(last uint64) *block {
	n := sort.Search(len(b.points), func(i int) bool { return b.points[i].index > last })
	if n == len(b.points) {
		return b
	}
	cut := &block{segment: b.segment, tail: b.points[n].delta}
	for _, p := range b.points[:n] {
		cut.add(p)
	}
	return cut
}

// index finds places in the log by coordinates and by GTID set. It belongs to
// this node, since segments are cut where each node cuts them, and it is
// derived. It is not safe for concurrent use.
type index struct {
	blocks []*block                     // ascending; up to the last checkpoint one for each segment
	bytes  int64                        // of log since the last point
	load   func(segment uint64) []point // reads a block's file; nil if that cannot be read
}

// note is told every applied entry of the stream that counts.
func (x *index) note(i uint64, at segment.Location, size int, e effect) {
	b := x.block(at.Segment)
	x.bytes += int64(size)
	if e.start && (x.bytes >= pointEvery || e.newFile || b.count == 0) {
		b.add(point{index: i, at: at, file: e.file, pos: e.pos, delta: b.tail})
		b.tail = gtid.Set{}
		x.bytes = 0
	}
	for _, g := range e.ended {
		b.tail.Add(g)
		b.saved = false
	}
}

// block returns the block of the segment, which is the last one or a new one.
func (x *index) block(seg uint64) *block {
	if n := len(x.blocks); n == 0 || x.blocks[n-1].segment != seg {
		x.blocks = append(x.blocks, &block{segment: seg})
		for i := n - loadedBlocks; i >= 0 && x.blocks[i].saved && x.blocks[i].points != nil; i-- {
			x.blocks[i].points = nil
		}
	}
	return x.blocks[len(x.blocks)-1]
}

// pointsOf returns the points of a block, from memory or from its file. They
// are not kept: seeks into old blocks are rare, and reading one takes less than
// a millisecond. If the file cannot be read, the first point has to do.
func (x *index) pointsOf(b *block) []point {
	if len(b.points) == b.count {
		return b.points
	}
	if points := x.load(b.segment); len(points) == b.count {
		return points
	}
	return []point{b.first}
}

// seekPosition returns the last point at or before the coordinates that is known.
func (x *index) seekPosition(file uint32, pos uint64) (point, bool) {
	for i := x.blockBefore(file, pos); i >= 0; i-- {
		b := x.blocks[i]
		if b.count == 0 {
			continue // inside a transaction that began earlier
		}
		points := x.pointsOf(b)
		n := sort.Search(len(points), func(i int) bool { return points[i].after(file, pos) })
		if n > 0 {
			return points[n-1], true
		}
	}
	return point{}, false
}

// blockBefore returns the last block whose first point is not behind the
// coordinates, or one without points right behind it; -1 if there is none.
func (x *index) blockBefore(file uint32, pos uint64) int {
	lo, hi := 0, len(x.blocks)
	for lo < hi {
		mid := (lo + hi) / 2
		probe := mid
		for probe < hi && x.blocks[probe].count == 0 {
			probe++
		}
		if probe == hi || x.blocks[probe].first.after(file, pos) {
			hi = mid
		} else {
			lo = probe + 1
		}
	}
	return lo - 1
}

// seekGTID returns the last point before which nothing ended that is not in
// have, as far as is known. The caller has checked that have contains what was
// purged.
func (x *index) seekGTID(have gtid.Set) (found point, ok bool) {
	for _, b := range x.blocks {
		if b.lost {
			break
		}
		if b.count > 0 {
			if !have.ContainsSet(b.first.delta) {
				break
			}
			found, ok = b.first, true
		}
		if !have.ContainsSet(b.rest) {
			for _, p := range x.pointsOf(b)[1:] {
				if !have.ContainsSet(p.delta) {
					break
				}
				found = p
			}
			break
		}
		if b.count > 0 {
			found = b.last
		}
		if !have.ContainsSet(b.tail) {
			break
		}
	}
	return found, ok
}

// drop forgets the blocks that lie wholly before the log index, and returns
// their segments.
func (x *index) drop(before uint64) []uint64 {
	var dropped []uint64
	for n := 1; n < len(x.blocks) && x.blocks[n].segment <= before; n++ {
		dropped = append(dropped, x.blocks[n-1].segment)
	}
	x.blocks = slices.Delete(x.blocks, 0, len(dropped))
	return dropped
}
