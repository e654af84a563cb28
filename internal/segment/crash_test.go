package segment

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"

	"kingbus/internal/vfs"
)

var seedFlag = flag.Uint64("seed", 0, "run only this seed of the random tests")

// model is what a log must hold: entries first.. in live, of which those up to synced survive a crash.
type model struct {
	first     uint64
	prevTerm  uint64
	live      []Entry
	synced    uint64
	committed uint64
}

func (m *model) last() uint64 { return m.first + uint64(len(m.live)) - 1 }
func (m *model) term() uint64 {
	if len(m.live) == 0 {
		return m.prevTerm
	}
	return m.live[len(m.live)-1].Term
}

func (m *model) cut(last uint64) {
	m.live = m.live[:last+1-m.first]
	m.synced = min(m.synced, last)
}

func (m *model) drop(first uint64) {
	if first > m.first {
		m.prevTerm = m.live[first-1-m.first].Term
		m.live = m.live[first-m.first:]
		m.first = first
	}
}

// world runs random operations on a log and on its model.
type world struct {
	t    *testing.T
	rng  *rand.Rand
	fs   *vfs.Mem
	opt  Options
	log  *Log
	m    model
	also []model // states besides m that are right after an operation that failed, each with its own synced
	tail *Reader
	next uint64 // what tail reads next
}

func TestRandomOperations(t *testing.T) {
	if *seedFlag != 0 {
		runWorld(t, *seedFlag)
		return
	}
	seeds := uint64(400)
	if testing.Short() {
		seeds = 60
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		if runWorld(t, seed); t.Failed() {
			return
		}
	}
}

func runWorld(t *testing.T, seed uint64) {
	defer func() {
		if t.Failed() {
			t.Logf("run again with -run %s -seed %d", t.Name(), seed)
		}
	}()
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 9)), fs: vfs.NewMem(seed)}
	w.opt.SegmentBytes = int64(headerSize + 500 + w.rng.IntN(20000))
	w.m.first = 1
	w.open()
	for range 80 {
		w.step()
		if t.Failed() {
			return
		}
	}
	w.stopTail()
	if err := w.log.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func (w *world) open() {
	w.opt.Committed = w.m.committed
	l, _, err := Open(w.fs, dir, w.opt)
	if err != nil {
		w.t.Fatalf("Open: %v (model %d to %d, synced %d, committed %d)", err, w.m.first, w.m.last(), w.m.synced, w.m.committed)
	}
	w.log = l
}

func (w *world) step() {
	// Sometimes the disk fails in the middle of the operation.
	failing := w.rng.IntN(12) == 0
	if failing {
		ops := []vfs.Op{vfs.OpWrite, vfs.OpSync, vfs.OpSyncDir, vfs.OpCreate, vfs.OpRemove, vfs.OpRename, vfs.OpTruncate}
		w.fs.Fail(ops[w.rng.IntN(len(ops))], 1+w.rng.IntN(4), syscall.EIO)
	}
	w.also = nil
	var err error
	switch n := w.rng.IntN(100); {
	case n < 45:
		err = w.append()
	case n < 70:
		if err = w.log.Sync(); err == nil {
			w.m.synced = w.m.last()
			w.m.committed = max(w.m.committed, w.m.synced-uint64(w.rng.IntN(int(w.m.synced-w.m.committed)+1)))
		}
	case n < 76:
		err = w.truncate()
	case n < 82:
		err = w.drop()
	case n < 84:
		err = w.reset()
	case n < 92:
		w.follow()
	default:
		w.crash()
		return
	}
	w.fs.ClearFaults()
	if err != nil {
		if !failing || !errors.Is(err, syscall.EIO) {
			w.t.Errorf("operation failed: %v", err)
			return
		}
		w.crash()
		return
	}
	if w.rng.IntN(4) == 0 {
		w.compare()
	}
}

// randomBatch makes entries from index on.
func (w *world) randomBatch(index uint64) []Entry {
	term := w.m.term()
	if index <= w.m.last() {
		term++ // as Raft does
	}
	batch := make([]Entry, 1+w.rng.IntN(5))
	for i := range batch {
		size := w.rng.IntN(300)
		if w.rng.IntN(10) == 0 {
			size = w.rng.IntN(12000)
		}
		term += uint64(w.rng.IntN(8) / 7)
		batch[i] = entry(index+uint64(i), max(1, term), size)
	}
	return batch
}

func (w *world) append() error {
	index := w.m.last() + 1
	if w.rng.IntN(15) == 0 { // a conflict, never with what is committed
		index -= uint64(w.rng.IntN(int(w.m.last() - max(w.m.committed, w.m.first-1) + 1)))
	}
	batch := w.randomBatch(index)
	if w.rng.IntN(20) == 0 { // a full disk for once
		space, _ := w.fs.Space(dir)
		w.fs.SetLimit(int64(space.Total-space.Free) + w.used() + int64(w.rng.IntN(5000)))
		defer w.fs.SetLimit(-1)
	}
	old := w.m
	old.synced = min(old.synced, index-1)
	_, err := w.log.Append(batch)
	if errors.Is(err, ErrNoSpace) {
		if index <= w.m.last() {
			w.m.cut(index - 1)
		}
		w.m.synced = w.m.last() // undoing it syncs
		if last := w.log.LastIndex(); last != w.m.last() {
			w.t.Errorf("after a full disk: last index %d, want %d", last, w.m.last())
		}
		return nil
	}
	w.m.cut(index - 1)
	w.m.live = append(w.m.live[:len(w.m.live):len(w.m.live)], batch...)
	if err != nil {
		w.also = append(w.also, old)
	}
	return err
}

// used is how large all files are.
func (w *world) used() (n int64) {
	names, _ := w.fs.ReadDir(dir)
	for _, name := range names {
		f, err := w.fs.Open(dir + "/" + name)
		if err != nil {
			continue
		}
		size, _ := f.Size()
		n += size
		f.Close()
	}
	return n
}

func (w *world) truncate() error {
	low := max(w.m.committed, w.m.first-1)
	to := low + uint64(w.rng.IntN(int(w.m.last()-low)+1))
	old := w.m
	old.synced = min(old.synced, to)
	err := w.log.TruncateAfter(to)
	if err != nil {
		w.also = append(w.also, old)
	}
	if to < w.m.last() {
		w.m.cut(to)
		if err == nil {
			w.m.synced = w.m.last()
		}
	}
	return err
}

func (w *world) drop() error {
	before := w.m.first + uint64(w.rng.IntN(len(w.m.live)+1))
	want := w.m.first
	for _, s := range w.log.Segments() {
		if s.Sealed && s.Last < before {
			want = s.Last + 1
			old := w.m
			old.drop(s.First)
			w.also = append(w.also, old)
		}
	}
	err := w.log.DropBefore(before)
	w.m.drop(want)
	w.m.synced = max(w.m.synced, w.m.first-1)
	if got := w.log.FirstIndex(); got != want {
		w.t.Errorf("DropBefore(%d): first index %d, want %d", before, got, want)
	}
	if err == nil {
		w.also = nil
	}
	return err
}

func (w *world) reset() error {
	old := w.m
	to := w.m.committed + uint64(w.rng.IntN(30))
	err := w.log.ResetTo(to, w.m.term()+1)
	w.m = model{first: to + 1, prevTerm: w.m.term() + 1, synced: to, committed: w.m.committed}
	if err != nil {
		w.also = append(w.also, old)
	} else {
		w.m.committed = to
	}
	return err
}

// crash cuts the power, or kills the process, opens what is left and checks that it is right: from now on it is the truth.
func (w *world) crash() {
	w.stopTail()
	w.fs.ClearFaults()
	after := w.fs.Crash(w.rng.Uint64N(6) * w.rng.Uint64())
	if w.rng.IntN(3) == 0 {
		after = w.fs // only the process dies
	}
	if err := w.log.Close(); err != nil {
		w.t.Errorf("Close: %v", err)
	}
	w.fs = after
	w.open()
	got, err := readAll(w.log, w.log.FirstIndex())
	if err != nil {
		w.t.Fatalf("read after crash: %v", err)
	}
	for _, m := range append(w.also, w.m) {
		if w.fits(m, got) {
			prev, term := w.log.Prev()
			w.m = model{first: prev + 1, prevTerm: term, live: got, synced: w.log.LastIndex(), committed: m.committed}
			return
		}
	}
	w.t.Errorf("after crash: got %d to %d; want %d to %d, synced %d, or one of %d others",
		w.log.FirstIndex(), w.log.LastIndex(), w.m.first, w.m.last(), w.m.synced, len(w.also))
}

// fits tells whether got is a beginning of the model that holds all that was synced.
func (w *world) fits(m model, got []Entry) bool {
	if w.log.FirstIndex() != m.first || w.log.LastIndex() < m.synced || len(got) > len(m.live) || uint64(len(got)) != w.log.LastIndex()+1-m.first {
		return false
	}
	for i := range got {
		if !same(got[i], m.live[i]) {
			return false
		}
	}
	return true
}

func (w *world) compare() {
	if first, last := w.log.FirstIndex(), w.log.LastIndex(); first != w.m.first || last != w.m.last() {
		w.t.Fatalf("got %d to %d, want %d to %d", first, last, w.m.first, w.m.last())
	}
	from := w.m.first + uint64(w.rng.IntN(len(w.m.live)+1))
	got, err := readAll(w.log, from)
	if err != nil {
		w.t.Fatalf("read from %d: %v", from, err)
	}
	want := w.m.live[from-w.m.first:]
	if len(got) != len(want) {
		w.t.Fatalf("read from %d: got %d entries, want %d", from, len(got), len(want))
	}
	for i := range got {
		if !same(got[i], want[i]) {
			w.t.Fatalf("entry %d: got term %d %q, want term %d %q", from+uint64(i), got[i].Term, got[i].Data, want[i].Term, want[i].Data)
		}
	}
}

// follow lets a reader that lives through all other operations read some entries.
func (w *world) follow() {
	if w.tail == nil {
		w.next = w.m.first + uint64(w.rng.IntN(len(w.m.live)+1))
		loc, err := w.log.Seek(w.next)
		if err != nil {
			w.t.Fatalf("Seek(%d): %v", w.next, err)
		}
		if w.tail, err = w.log.NewReader(loc); err != nil {
			w.t.Fatalf("NewReader: %v", err)
		}
	}
	for range w.rng.IntN(10) {
		var e Entry
		var err error
		skip := w.rng.IntN(3) == 0
		if skip {
			var r Record
			r, _, err = w.tail.Skip()
			e = Entry{Index: r.Index, Term: r.Term, Type: r.Type, Data: r.Data}
		} else {
			e, _, err = w.tail.Next()
		}
		switch {
		case err == io.EOF:
			if w.next != w.m.last()+1 {
				w.t.Errorf("reader: EOF before %d, last is %d", w.next, w.m.last())
			}
			return
		case errors.Is(err, ErrTruncated) || errors.Is(err, ErrDropped):
			w.stopTail()
			return
		case err != nil:
			w.t.Errorf("reader at %d: %v", w.next, err)
			return
		}
		if w.next >= w.m.first { // else it still reads a file that was dropped
			want := w.m.live[w.next-w.m.first]
			if skip {
				want.Payload = nil
			}
			if !same(e, want) {
				w.t.Errorf("reader: got entry %d/%d, want %d/%d", e.Index, e.Term, want.Index, want.Term)
			}
		} else if e.Index != w.next || !skip && !bytes.Equal(e.Payload, entry(e.Index, e.Term, len(e.Payload)).Payload) {
			w.t.Errorf("reader: got entry %d, want %d", e.Index, w.next)
		}
		w.next++
	}
}

func (w *world) stopTail() {
	if w.tail != nil {
		if err := w.tail.Close(); err != nil {
			w.t.Errorf("close reader: %v", err)
		}
		w.tail = nil
	}
}
