package stream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"kingbus/internal/binlog"
	"kingbus/internal/binlogtest"
	"kingbus/internal/cluster"
	"kingbus/internal/gtid"
	"kingbus/internal/segment"
)

// TestStateModel feeds random logs to a state and holds it against an obvious
// model: a list of files with the bytes that count. The log has links that start
// and break inside transactions, proposals that were dropped, proposals of old
// epochs that come late, runs that come twice, rotations, purges and rubbish. A
// second node takes a checkpoint now and then and goes on from its decoded form;
// at every step both have the same state.
func TestStateModel(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			h := stateHistory{t: t, rng: rand.New(rand.NewPCG(seed, 3)), one: &state{}, two: &state{}, live: map[uint64]bool{}}
			h.source = binlogtest.Writer{UUID: testUUID, ServerID: 7, Checksum: binlog.ChecksumCRC32}
			h.start()
			for range 600 {
				h.step()
			}
		})
	}
}

// stateHistory is the model.
type stateHistory struct {
	t        *testing.T
	rng      *rand.Rand
	one, two *state
	index    uint64

	files  []modelFile // that the stream keeps
	number uint32      // of the last one
	purged gtid.Set
	live   map[uint64]bool // whether an events entry counts; those of an open transaction may still be aborted
	open   []uint64        // entries of the open transaction

	// What the link knows: its epoch, where it proposes next, and the source.
	epoch   uint64
	at      uint64
	source  binlogtest.Writer // behind all that was proposed
	safe    binlogtest.Writer // at the last boundary that counts
	pending []byte            // of a transaction whose beginning was proposed
	inside  []byte            // what counts of the open transaction
	late    [][]byte          // proposals that may come again
	broken  bool              // one was dropped: nothing of this epoch counts any more
}

type modelFile struct {
	name  string
	data  []byte // with the magic, up to the last boundary
	gtids []gtid.GTID
}

func clone(w binlogtest.Writer) binlogtest.Writer {
	w.Executed = w.Executed.Clone()
	return w
}

func (h *stateHistory) current() *modelFile { return &h.files[len(h.files)-1] }

// put appends an entry to the log of both nodes.
func (h *stateHistory) put(payload []byte) effect {
	h.t.Helper()
	h.index++
	e, err := h.one.apply(h.index, payload)
	if err != nil {
		h.t.Fatal(err)
	}
	e.ended = slices.Clone(e.ended)
	if h.rng.IntN(10) == 0 { // the second node restarts from a checkpoint
		b, err := h.two.encode()
		if err != nil {
			h.t.Fatal(err)
		}
		if h.two, err = decodeState(b); err != nil {
			h.t.Fatal(err)
		}
	}
	if _, err := h.two.apply(h.index, payload); err != nil {
		h.t.Fatal(err)
	}
	return e
}

func (h *stateHistory) command(k kind, c any) effect {
	h.t.Helper()
	b, err := encodeCommand(k, 1, c)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.put(b)
}

// start begins a link, which drops what is open.
func (h *stateHistory) start() {
	h.t.Helper()
	h.command(kindLink, linkCommand{Source: Source{UUID: testUUID.String()}})
	h.abort()
	h.epoch, h.broken = h.index, false
	if len(h.files) > 0 {
		h.at = uint64(len(h.current().data))
		h.source = clone(h.safe)
		if h.at == binlog.MagicSize {
			h.events(h.source.Begin(nil), true)
		}
	}
}

func (h *stateHistory) abort() {
	for _, i := range h.open {
		h.live[i] = false
	}
	h.open, h.inside, h.pending = nil, nil, nil
}

func (h *stateHistory) rotate() {
	h.t.Helper()
	name := fmt.Sprintf("binlog.%06d", h.number+1)
	e := h.command(kindRotate, rotateCommand{Epoch: h.epoch, File: h.number, Pos: h.at, Name: name, SourceName: name})
	if e.void != h.broken {
		h.t.Fatalf("rotate: void is %v, want %v", e.void, h.broken)
	}
	if e.void {
		return
	}
	h.abort()
	if len(h.files) > 0 {
		h.source = clone(h.safe)
	}
	h.number++
	h.files = append(h.files, modelFile{name: name, data: []byte(binlog.Magic)})
	h.at = binlog.MagicSize
	h.events(h.source.Begin(nil), true)
}

// events proposes a run that ends at a boundary, or not.
func (h *stateHistory) events(b []byte, boundary bool) {
	h.t.Helper()
	run := append(make([]byte, RunHeader), b...)
	eventsHeader{file: h.number, epoch: h.epoch, pos: h.at, sourcePos: h.at}.put(run)
	h.at += uint64(len(b))
	h.late = append(h.late, run)
	if h.rng.IntN(60) == 0 {
		h.broken = true // dropped; a later one may still be taken
		return
	}
	e := h.put(run)
	if e.void != h.broken {
		h.t.Fatalf("entry %d: void is %v, want %v: %v", h.index, e.void, h.broken, e.err)
	}
	h.live[h.index] = !e.void
	if e.void {
		return
	}
	if e.moved != boundary || e.start != (len(h.open) == 0) {
		h.t.Fatalf("entry %d: boundary is %v, want %v; start is %v with %d entries open", h.index, e.moved, boundary, e.start, len(h.open))
	}
	h.open = append(h.open, h.index)
	h.inside = append(h.inside, b...)
	if boundary {
		f := h.current()
		f.data = append(f.data, h.inside...)
		f.gtids = append(f.gtids, e.ended...)
		h.open, h.inside = nil, nil
		h.safe = clone(h.source)
	}
}

func (h *stateHistory) step() {
	h.t.Helper()
	switch n := h.rng.IntN(40); {
	case len(h.files) == 0 && !h.broken:
		h.rotate()
	case h.broken && n < 12 || n == 0:
		h.start()
	case n == 1:
		h.rotate()
	case n == 2 && len(h.late) > 0: // late, or a second time
		before := h.one.boundary
		if e := h.put(h.late[h.rng.IntN(len(h.late))]); !e.void || h.one.boundary != before {
			h.t.Fatalf("entry %d came late and counts", h.index)
		}
	case n == 3 && h.one.rest == 0: // rubbish at the right place; only within an event it would count
		run := append(make([]byte, RunHeader), make([]byte, 1+h.rng.IntN(100))...)
		eventsHeader{file: h.number, epoch: h.epoch, pos: h.at, sourcePos: h.at}.put(run)
		if e := h.put(run); !e.void {
			h.t.Fatalf("entry %d is rubbish and counts", h.index)
		}
	case n == 4:
		h.command(kindIdentity, identityCommand{Identity{ServerID: uint32(h.index)}})
	case n == 5 && len(h.files) > 1:
		h.purge()
	case n == 7 && h.rng.IntN(4) == 0:
		revision := h.one.settings.Revision - uint64(h.rng.IntN(5)/4)
		h.command(kindSettings, settingsCommand{revision, h.rng.Uint64(), map[string]json.RawMessage{fmt.Sprint(h.rng.IntN(9)): value(h.index)}})
	case len(h.files) == 0:
		h.start()
	case h.pending != nil:
		n := len(h.pending)
		if n > MaxRun {
			n = MaxRun
		}
		b := h.pending[:n]
		if h.pending = h.pending[n:]; len(h.pending) == 0 {
			h.pending = nil
		}
		h.events(b, h.pending == nil)
	case n == 6: // larger than a run; it goes into the log in pieces
		var b []byte
		if size := MaxRun + h.rng.IntN(MaxRun); h.rng.IntN(2) == 0 {
			b = h.source.Transaction(nil, size)
		} else {
			b = compressed(&h.source, size)
		}
		h.pending = b[MaxRun:]
		h.events(b[:MaxRun], false)
	case n < 12: // two entries, cut at an event
		other := clone(h.source)
		cut := len(other.Transaction(nil, 10)) - xidSize // this one begins alike
		b := h.source.TransactionOf(nil, 10, h.rng.IntN(500))
		h.pending = b[cut:]
		h.events(b[:cut], false)
	default:
		var b []byte
		for range 1 + h.rng.IntN(4) {
			b = h.source.Transaction(b, h.rng.IntN(300))
		}
		h.events(b, true)
	}
	h.check()
}

// compressed makes a transaction whose last event is the large one.
func compressed(w *binlogtest.Writer, size int) []byte {
	b := w.Transaction(nil, 10)
	first, err := binlog.ParseHeader(b)
	if err != nil {
		panic(err)
	}
	b = b[:first.Length]
	h := binlog.Header{Type: binlog.TypeTransactionPayload, ServerID: w.ServerID, Length: uint32(size)}
	event := make([]byte, size)
	h.Put(event)
	binlog.UpdateChecksum(event)
	return append(b, event...)
}

// xidSize is the length of the event that ends a transaction.
const xidSize = binlog.HeaderSize + 8 + 4

func (h *stateHistory) purge() {
	h.t.Helper()
	n := h.rng.IntN(len(h.files))
	h.command(kindPurge, purgeCommand{Before: h.files[n].name})
	for _, f := range h.files[:n] {
		for _, g := range f.gtids {
			h.purged.Add(g)
		}
	}
	h.files = h.files[n:]
}

func (h *stateHistory) check() {
	h.t.Helper()
	s := h.one
	a, err := s.encode()
	if err != nil {
		h.t.Fatal(err)
	}
	if b, err := h.two.encode(); err != nil || !bytes.Equal(a, b) {
		h.t.Fatalf("after entry %d two nodes differ: %v\n%s\n%s", h.index, err, a, b)
	}
	if len(s.files) != len(h.files) {
		h.t.Fatalf("%d files, want %d", len(s.files), len(h.files))
	}
	executed := h.purged.Clone()
	for i, f := range h.files {
		got := s.files[i]
		if got.name != f.name || got.size != uint64(len(f.data)) {
			h.t.Fatalf("file %s of %d bytes, want %s of %d", got.name, got.size, f.name, len(f.data))
		}
		for _, g := range f.gtids {
			executed.Add(g)
		}
	}
	if !s.purged.Equal(h.purged) || !s.executed.Equal(executed) {
		h.t.Fatalf("purged %v, executed %v; want %v, %v", s.purged, s.executed, h.purged, executed)
	}
	if len(h.files) == 0 {
		return
	}
	if want := (Coordinates{h.current().name, uint64(len(h.current().data))}); want != (Coordinates{s.current().name, s.boundary.pos}) {
		h.t.Fatalf("ends at %d, want %v", s.boundary.pos, want)
	}
	for i := s.files[0].first; i <= h.index; i++ {
		if counts, ok := h.live[i]; ok && counts != (s.live(i) == i) {
			h.t.Fatalf("after entry %d: whether entry %d counts: %v, want %v", h.index, i, !counts, counts)
		}
	}
}

// TestTailAndLive: the tail is bounded, and ranges of dead entries are skipped.
func TestTailAndLive(t *testing.T) {
	tl := tail{limit: 10 * (entryCost + 100)}
	for i := uint64(5); i < 100; i++ {
		tl.add(cluster.Entry{Index: i, Payload: make([]byte, 100), At: segment.Location{Segment: i}})
		if tl.bytes > tl.limit {
			t.Fatalf("%d bytes, the limit is %d", tl.bytes, tl.limit)
		}
		for j := uint64(1); j < 105; j++ {
			e, ok := tl.get(j)
			if want := j <= i && j+10 > i && j >= 5; ok != want || ok && e.Index != j {
				t.Fatalf("after %d: entry %d: %v, want %v", i, j, ok, want)
			}
		}
	}
	tl.add(cluster.Entry{Index: 100, Payload: make([]byte, 1<<20)})
	if _, ok := tl.get(100); !ok || len(tl.entries) != 1 {
		t.Errorf("the newest entry has to stay: %d are there", len(tl.entries))
	}
	var s state
	dead := map[uint64]bool{}
	for _, r := range [][2]uint64{{3, 3}, {4, 6}, {10, 12}, {8, 14}, {20, 20}} {
		s.bury(r[0], r[1])
		for i := r[0]; i <= r[1]; i++ {
			dead[i] = true
		}
		for i := uint64(1); i < 30; i++ {
			want := i
			for dead[want] {
				want++
			}
			if got := s.live(i); got != want {
				t.Fatalf("dead %v: the first live entry from %d on is %d, want %d", s.dead, i, got, want)
			}
		}
	}
}
