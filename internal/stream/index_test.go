package stream

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
	"kingbus/internal/segment"
	"kingbus/internal/vfs"
)

// first returns the set of the first n transactions of the test's source.
func first(n int64) (set gtid.Set) {
	for i := range n {
		set.Add(gtid.GTID{SID: gtid.SID{UUID: testUUID}, GNO: i + 1})
	}
	return set
}

// missing reads to the end and returns the numbers of the transactions that are
// not in have, in order.
func missing(t *testing.T, r *Reader, have gtid.Set) (out []int64) {
	t.Helper()
	rest := 0 // of an event that goes on in the next chunk
	for {
		c, err := r.Next()
		if err == ErrEnd {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		n := min(rest, len(c.Data))
		rest -= n
		for d := c.Data[n:]; len(d) > 0; {
			h, err := binlog.ParseHeader(d)
			if err != nil {
				t.Fatal(err)
			}
			if h.Type == binlog.TypeGTID {
				g, err := binlog.ParseGTID(d[:h.Length], binlog.ChecksumCRC32)
				if err != nil {
					t.Fatal(err)
				}
				if !have.Contains(g.GTID) {
					out = append(out, g.GTID.GNO)
				}
			}
			n := min(int(h.Length), len(d))
			d, rest = d[n:], int(h.Length)-n
		}
	}
}

// TestLostIndex takes index files away, one at a time, or damages them: seeks
// still find everything that is asked for.
func TestLostIndex(t *testing.T) {
	r := newRig(t, vfs.NewMem(1))
	r.start()
	for range 3 {
		r.rotate()
		r.transactions(300, 4000)
		r.append(r.w.Rotate(nil, fmt.Sprintf("binlog.%06d", r.n+1)))
	}
	r.rotate()
	r.wait()
	total := r.w.GNO
	if err := r.s.Close(); err != nil {
		t.Fatal(err)
	}
	mem := r.fs.(*vfs.Mem)
	mem.SyncAll()
	names, err := mem.ReadDir("data/index")
	if err != nil || len(names) < 3 {
		t.Fatal(names, err)
	}
	for i, name := range names {
		name = filepath.Join("data/index", name)
		for _, how := range []string{"removed", "summary", "points"} {
			t.Run(fmt.Sprintf("%d %s", i, how), func(t *testing.T) {
				fs := mem.Crash(0)
				data, err := vfs.ReadFile(fs, name, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				switch how {
				case "removed":
					err = fs.Remove(name)
				case "summary":
					fs.Flip(name, 8*60)
				case "points":
					fs.Flip(name, 8*int64(len(data)-20))
				}
				if err != nil {
					t.Fatal(err)
				}
				again := *r
				again.t, again.cfg.FS = t, fs
				again.open()
				defer again.s.Close()
				for _, n := range []int64{0, 1, 150, 299, 300, 301, 450, 620, 899, 900} {
					have := first(n)
					rd, err := again.s.SeekGTID(have)
					if err != nil {
						t.Fatalf("with %d transactions: %v", n, err)
					}
					if got := missing(t, rd, have); int64(len(got)) != total-n || len(got) > 0 && got[0] != n+1 {
						t.Errorf("with %d transactions: got %d of the %d that are missing", n, len(got), total-n)
					}
					_ = rd.Close()
				}
				again.check() // seeks the beginning of every file
				for _, f := range again.s.Status().Files {
					rd, err := again.s.SeekPosition(f.Name, f.Size)
					if err != nil {
						t.Fatal(err)
					}
					if got := rd.Start(); got != (Coordinates{f.Name, f.Size}) {
						t.Errorf("seek %s:%d starts at %v", f.Name, f.Size, got)
					}
					if format, previous, err := rd.Head(); err != nil || len(format) == 0 || len(previous) == 0 {
						t.Errorf("head of %s: %d and %d bytes, %v", f.Name, len(format), len(previous), err)
					}
					_ = rd.Close()
				}
			})
		}
	}
}

// TestIndexModel holds seekGTID and seekPosition against looking through all
// entries, with sets with holes, blocks that are not in memory or lost, after
// purges and a restart from files.
func TestIndexModel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { indexHistory(t, rand.New(rand.NewPCG(seed, 2))) })
	}
}

// place is an entry of the model.
type place struct {
	index uint64
	file  uint32
	pos   uint64
	start bool
	ended []gtid.GTID
}

func indexHistory(t *testing.T, rng *rand.Rand) {
	files := map[uint64][]byte{}
	unreadable := map[uint64]bool{}
	x := &index{load: func(seg uint64) []point {
		b, err := decodeBlock(files[seg], seg, true)
		if err != nil {
			t.Fatal(err)
		}
		if unreadable[seg] {
			return nil
		}
		return b.points
	}}
	save := func() {
		for _, b := range x.blocks[:max(0, len(x.blocks)-1)] {
			if !b.saved {
				data, err := b.encode()
				if err != nil {
					t.Fatal(err)
				}
				files[b.segment], b.saved = data, true
			}
		}
	}
	type noted struct {
		i    uint64
		at   segment.Location
		size int
		e    effect
	}
	var notes []noted
	note := func(i uint64, at segment.Location, size int, e effect) {
		notes = append(notes, noted{i, at, size, e})
		x.note(i, at, size, e)
	}
	blur := uint64(0) // up to this entry seeks may begin earlier than they could
	var all []place
	var purged gtid.Set
	var next gtid.GTID
	next.SID.UUID = testUUID
	file, pos, seg, open := uint32(0), uint64(0), uint64(1), false
	for i := uint64(1); i < 400; i++ {
		if rng.IntN(12) == 0 {
			seg = i
			x.block(seg)
			save()
		}
		size := 1 + rng.IntN(2*pointEvery/3)
		p := place{index: i, file: file, pos: pos}
		e := effect{}
		switch {
		case file == 0 || !open && rng.IntN(25) == 0:
			file, pos = file+1, binlog.MagicSize
			p.file, p.pos, p.start = file, pos, true
			e.newFile = true
		case rng.IntN(10) == 0: // a command
			note(i, segment.Location{Segment: seg, Offset: int64(i)}, 10, e)
			continue
		default:
			p.start = !open
			pos += uint64(size)
			if open = rng.IntN(4) == 0; !open {
				for range rng.IntN(4) {
					next.SID.UUID[0] = byte(rng.IntN(3))
					next.GNO += int64(1 + rng.IntN(2))
					p.ended = append(p.ended, next)
				}
			}
		}
		e.start, e.file, e.pos, e.ended = p.start, p.file, p.pos, p.ended
		note(i, segment.Location{Segment: seg, Offset: int64(i)}, size, e)
		all = append(all, p)
		switch rng.IntN(60) {
		case 0: // purge up to a file
			if file > 1 {
				n := slices.IndexFunc(all, func(p place) bool { return p.file == file })
				for _, p := range all[:n] {
					for _, g := range p.ended {
						purged.Add(g)
					}
				}
				x.drop(all[n].index)
				all = all[n:]
			}
		case 1: // restart: blocks come from their files
			save()
			for n, b := range x.blocks[:len(x.blocks)-1] {
				loaded, err := decodeBlock(files[b.segment], b.segment, false)
				if err != nil {
					t.Fatal(err)
				}
				if x.blocks[n] = loaded; rng.IntN(8) == 0 {
					x.blocks[n] = &block{segment: b.segment, lost: true, saved: true}
				}
				unreadable[b.segment] = rng.IntN(8) == 0
			}
		case 2: // restart from a checkpoint in the middle of the segment, with a file as old as that, or newer
			ends := len(x.blocks) - 1
			if ends < 0 || x.blocks[ends].segment != seg {
				break
			}
			cut := seg + rng.Uint64N(i-seg+1)
			upTo := cut + rng.Uint64N(2)*rng.Uint64N(i-cut+1)
			saved := &index{load: x.load, blocks: []*block{{segment: seg}}}
			for _, n := range notes {
				if n.at.Segment == seg && n.i <= upTo {
					saved.note(n.i, n.at, n.size, n.e)
				}
			}
			data, err := saved.blocks[0].encode()
			if err != nil {
				t.Fatal(err)
			}
			loaded, err := decodeBlock(data, seg, true)
			if err != nil {
				t.Fatal(err)
			}
			files[seg] = data
			x.blocks[ends], x.bytes = loaded.upTo(cut), 0
			for _, n := range notes {
				if n.at.Segment == seg && n.i > cut {
					x.note(n.i, n.at, n.size, n.e)
				}
			}
			blur = i
		}
		if len(all) > 0 && rng.IntN(4) == 0 {
			checkSeekGTID(t, rng, x, all, purged, blur)
			checkSeekPosition(t, rng, x, all)
		}
	}
}

// checkSeekGTID: everything that have lacks ends at or behind the point, and the
// point is a place in the log where an entry starts at a boundary.
func checkSeekGTID(t *testing.T, rng *rand.Rand, x *index, all []place, purged gtid.Set, blur uint64) {
	t.Helper()
	have := purged.Clone()
	upTo := rng.IntN(len(all) + 1)
	for i, p := range all {
		for _, g := range p.ended {
			if i < upTo && rng.IntN(100) > 0 || rng.IntN(10) == 0 {
				have.Add(g)
			}
		}
	}
	want := len(all) // the first entry that ends something which have lacks
	for i, p := range all {
		if slices.ContainsFunc(p.ended, func(g gtid.GTID) bool { return !have.Contains(g) }) {
			want = i
			break
		}
	}
	got, ok := x.seekGTID(have)
	if !ok || got.index < all[0].index { // begins with the oldest file
		return
	}
	i := slices.IndexFunc(all, func(p place) bool { return p.index == got.index })
	if i < 0 || i > want || !all[i].start || all[i].file != got.file || all[i].pos != got.pos || got.at.Offset != int64(got.index) {
		t.Fatalf("seek %v: %+v is entry %d of %d, the first one needed is %d", have, got, i, len(all), want)
	}
	// As far as possible: no point of a block that is known may lie between.
	for _, b := range x.blocks {
		if b.lost {
			return
		}
		for _, p := range x.pointsOf(b) {
			if p.index > blur && b.count > 0 && p.index > got.index && want < len(all) && p.index <= all[want].index || b.count > 0 && want == len(all) && p.index > got.index {
				t.Fatalf("seek %v: found entry %d, but entry %d would do; needed is %d", have, got.index, p.index, want)
			}
		}
	}
}

func checkSeekPosition(t *testing.T, rng *rand.Rand, x *index, all []place) {
	t.Helper()
	want := all[rng.IntN(len(all))]
	got, ok := x.seekPosition(want.file, want.pos)
	if !ok {
		return // lost, or before the oldest file
	}
	if got.after(want.file, want.pos) {
		t.Fatalf("seek %d:%d: found %d:%d", want.file, want.pos, got.file, got.pos)
	}
	for _, b := range x.blocks {
		if b.count == 0 {
			continue
		}
		for _, p := range x.pointsOf(b) {
			if p.index > got.index && !p.after(want.file, want.pos) {
				t.Fatalf("seek %d:%d: found entry %d, but entry %d is nearer", want.file, want.pos, got.index, p.index)
			}
		}
	}
}
