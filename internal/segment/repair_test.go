package segment

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"kingbus/internal/vfs"
)

// locate returns where the entries of an open log are; that of entry i is at i.
func locate(t testing.TB, l *Log) []Location {
	t.Helper()
	locs := make([]Location, l.LastIndex()+1)
	for i := l.FirstIndex(); i <= l.LastIndex(); i++ {
		var err error
		if locs[i], err = l.Seek(i); err != nil {
			t.Fatal(err)
		}
	}
	return locs
}

// Bytes of a record of base, from its beginning.
const (
	atIndex   = 16
	atSynced  = 32
	atData    = recordHeader
	atPayload = recordHeader + 10 // whatever the length of the data
)

func flip(t testing.TB, fs *vfs.Mem, loc Location, at int64) {
	t.Helper()
	if !fs.Flip(fileName(dir, loc.Segment), 8*(loc.Offset+at)+3) {
		t.Fatalf("there is no byte %d at %v", at, loc)
	}
}

func bytesOf(t testing.TB, fs vfs.FS, loc Location) []byte {
	t.Helper()
	data, err := vfs.ReadFile(fs, fileName(dir, loc.Segment), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// corruptAt reads on until a damaged record, and returns what the Reader says.
func corruptAt(t testing.TB, r *Reader) *CorruptError {
	t.Helper()
	for {
		_, _, err := r.Next()
		var corrupt *CorruptError
		if errors.As(err, &corrupt) {
			return corrupt
		}
		if err != nil {
			t.Fatalf("got %v, want a CorruptError", err)
		}
	}
}

// TestRepair damages each record of three segments, in each of its parts; a Reader that is stuck there goes on.
func TestRepair(t *testing.T) {
	want := baseEntries()
	for _, part := range []int64{0, 4, 8, 12, atIndex, 24, atSynced, atData, atPayload} {
		for i := uint64(1); i <= 30; i++ {
			fs, opt := base(t)
			l, _ := mustOpen(t, fs, opt)
			loc := locate(t, l)[i]
			sound := bytesOf(t, fs, loc)
			r, err := l.NewReader(Location{Segment: 1, Offset: headerSize})
			if err != nil {
				t.Fatal(err)
			}
			flip(t, fs, loc, part)
			for range 2 { // it stays one
				if c := corruptAt(t, r); c.At != loc || c.Index != i || c.Offset != loc.Offset || c.File != fileName(dir, loc.Segment) {
					t.Fatalf("part %d of entry %d: got %+v, want it at %v", part, i, c, loc)
				}
			}
			if err := l.Repair(loc, want[i-1]); err != nil {
				t.Fatalf("part %d of entry %d: %v", part, i, err)
			}
			for _, e := range want[i-1:] {
				if got, _, err := r.Next(); err != nil || !same(got, e) {
					t.Fatalf("part %d of entry %d: the reader got entry %d, %v, want %d", part, i, got.Index, err, e.Index)
				}
			}
			r.Close()
			if part < atPayload { // the header claims the least
				b := sound[loc.Offset:]
				le.PutUint64(b[atSynced:], headerSize)
				l.mu.Lock()
				use := l.segs[l.findLocked(i)].Use
				l.mu.Unlock()
				le.PutUint32(b, recordSum(b[:recordHeader+len(want[i-1].Data)], use, loc.Offset))
			}
			after := fs.Crash(0)
			if !bytes.Equal(bytesOf(t, after, loc), sound) {
				t.Errorf("part %d of entry %d: other bytes were changed", part, i)
			}
			fill(t, l, 31, 32, 9, 60) // it goes on being written
			opt.Committed = 30
			again, rec := mustOpen(t, after, opt)
			if rec != (Recovery{First: 1, Last: 30}) {
				t.Errorf("part %d of entry %d: got %+v", part, i, rec)
			}
			wantEntries(t, again, want...)
		}
	}
}

// TestRepairEverything: what was never damaged, empty entries, large ones, and the only one of a segment.
func TestRepairEverything(t *testing.T) {
	fs := vfs.NewMem(1)
	l, _ := mustOpen(t, fs, Options{SegmentBytes: 100 << 10})
	all := []Entry{{Index: 1, Term: 1}, entry(2, 1, 200<<10), {Index: 3, Term: 2, Payload: []byte("x")}, {Index: 4, Term: 2, Data: []byte("d")}, entry(5, 2, 3<<20), entry(6, 3, 70), {Index: 7, Term: 3}}
	locs := append([]Location{{}}, mustAppend(t, l, all...)...)
	fs.SyncAll()
	before := fs.Crash(0)
	for i, e := range all {
		fs.Fail(vfs.OpWrite, 1, errors.New("the disk was touched"))
		if err := l.Repair(locs[i+1], e); err != nil {
			t.Errorf("entry %d, sound: %v", i+1, err)
		}
	}
	fs.ClearFaults()
	sameFolder(t, fs, before)
	for i, e := range all {
		for _, at := range []int64{0, entrySize(&e) - 1} {
			flip(t, fs, locs[i+1], at)
			if _, err := readAll(l, 1); err == nil {
				t.Fatalf("entry %d, byte %d: the damage was not found", i+1, at)
			}
			e.Sum, e.Summed = checksum(e.Payload), true
			if err := l.Repair(locs[i+1], e); err != nil {
				t.Errorf("entry %d, byte %d: %v", i+1, at, err)
			}
			wantEntries(t, l, all...)
		}
	}
}

func TestRepairRefuses(t *testing.T) {
	base0, opt := base(t)
	l, _ := mustOpen(t, base0, opt)
	locs, want := locate(t, l), baseEntries()
	l.Close()
	at := func(i int) Location { return locs[i] }
	within := func(i int) Location { return Location{locs[i].Segment, locs[i].Offset + 1} }
	end := Location{Segment: 21, Offset: locs[30].Offset + entrySize(&want[29])}
	with := func(i int, change func(e *Entry)) Entry {
		e := want[i-1]
		e.Data, e.Payload = bytes.Clone(e.Data), bytes.Clone(e.Payload)
		change(&e)
		return e
	}
	size := func(i int) int { return int(entrySize(&want[i-1])) }
	longer := func(n int) func(e *Entry) {
		return func(e *Entry) { e.Payload = append(e.Payload, make([]byte, n)...) }
	}
	shorter := func(n int) func(e *Entry) { return func(e *Entry) { e.Payload = e.Payload[n:] } }
	term := func(n uint64) func(e *Entry) { return func(e *Entry) { e.Term = n } }
	dataByte := func(e *Entry) { e.Data[0]++ }
	payloadByte := func(e *Entry) { e.Payload[0]++ }
	header, payload := int64(atIndex), int64(atPayload)
	const another, length, damaged, room, begins, neighbours = "another one", "the record that was there ended at", "repaired first", "no room", "begins at offset", "of its neighbours"
	for name, tc := range map[string]struct {
		bad  []int // entries that are damaged
		part int64 // of each
		at   Location
		e    Entry
		why  string
	}{
		"sound: another payload":             {nil, 0, at(22), with(22, payloadByte), another},
		"sound: other data":                  {nil, 0, at(22), with(22, dataByte), another},
		"sound: another term":                {nil, 0, at(22), with(22, term(4)), another},
		"sound: another type":                {nil, 0, at(22), with(22, func(e *Entry) { e.Type++ }), another},
		"sound: another length":              {nil, 0, at(22), with(22, longer(1)), another},
		"sound: the entry of another place":  {nil, 0, at(22), want[22], another},
		"within a sound record":              {nil, 0, within(14), want[13], begins},
		"bad payload: another one":           {[]int{15}, payload, at(15), with(15, payloadByte), another},
		"bad payload: a shorter one":         {[]int{15}, payload, at(15), with(15, shorter(1)), another},
		"bad payload: other data":            {[]int{15}, payload, at(15), with(15, dataByte), another},
		"bad payload: the place of the next": {[]int{15}, payload, within(15), with(15, shorter(1)), begins},
		"bad header: too long":               {[]int{13}, header, at(13), with(13, longer(1)), length},
		"bad header: too short":              {[]int{13}, header, at(13), with(13, shorter(1)), length},
		"bad header: as long as two":         {[]int{13}, header, at(13), with(13, longer(size(14))), length},
		"bad header: the next entry":         {[]int{13}, header, at(13), want[13], begins},
		"bad header: the entry before":       {[]int{13}, header, at(13), want[11], begins},
		"bad header: a lower term":           {[]int{13}, header, at(13), with(13, term(1)), neighbours},
		"bad header: a higher term":          {[]int{13}, header, at(13), with(13, term(4)), neighbours},
		"bad header: within the record":      {[]int{13}, header, within(13), with(13, shorter(1)), damaged},
		"bad header: an earlier one is bad":  {[]int{12, 16}, header, at(16), want[15], damaged},
		"run: the second before the first":   {[]int{17, 18}, header, at(18), want[17], damaged},
		"run: no room for the second":        {[]int{17, 18}, header, at(17), with(17, longer(size(18)-recordHeader+1)), room},
		"run: all of its bytes":              {[]int{17, 18}, header, at(17), with(17, longer(size(18))), room},
		"run: beyond its bytes":              {[]int{17, 18}, header, at(17), with(17, longer(500)), room},
		"run: no room for the third":         {[]int{17, 18, 19}, header, at(17), with(17, longer(size(18)+size(19)-2*recordHeader+1)), room},
		"run to the end: no room":            {[]int{19, 20}, header, at(19), with(19, longer(size(20)-recordHeader+1)), room},
		"run to the end: a higher term":      {[]int{19, 20}, header, at(19), with(19, term(4)), neighbours},
		"last: beyond the segment":           {[]int{20}, header, at(20), with(20, longer(1)), length},
		"last: too short":                    {[]int{20}, header, at(20), with(20, shorter(1)), length},
		"last, bad payload: a lower term":    {[]int{24, 30}, payload, at(30), with(30, term(3)), another},
		"last of all: beyond the log":        {[]int{30}, header, at(30), with(30, longer(1)), length},
		"last of all: a higher term":         {[]int{30}, header, at(30), with(30, term(5)), neighbours},
		"last of all: the next entry":        {[]int{30}, header, at(30), entry(31, 4, 60), "has the entries"},
		"behind the log":                     {nil, 0, end, want[29], "no records"},
		"far behind the log":                 {nil, 0, Location{21, 1 << 40}, want[29], "no records"},
		"a negative offset":                  {nil, 0, Location{11, -7}, want[12], "no records"},
		"in the header of the segment":       {nil, 0, Location{11, 100}, want[12], "no records"},
		"an entry of another segment":        {[]int{13}, header, at(13), want[22], "has the entries"},
		"no segment":                         {[]int{13}, header, Location{12, locs[13].Offset}, want[12], "no segment"},
		"data that is too long":              {[]int{13}, header, at(13), with(13, func(e *Entry) { e.Data = make([]byte, MaxData+1) }), "too long"},
		"a payload that is not what it was":  {[]int{13}, header, at(13), with(13, func(e *Entry) { e.Sum, e.Summed = checksum(e.Payload)+1, true }), "checksum"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := base0.Crash(0)
			l, _ := mustOpen(t, fs, opt)
			for _, i := range tc.bad {
				flip(t, fs, locs[i], tc.part)
			}
			before := fs.Crash(0)
			if err := l.Repair(tc.at, tc.e); !errors.Is(err, ErrRange) || !strings.Contains(err.Error(), tc.why) {
				t.Errorf("got %v, want %v: ... %s", err, ErrRange, tc.why)
			}
			sameFolder(t, fs.Crash(0), before)
			for _, i := range tc.bad { // the right one is welcome
				if err := l.Repair(locs[i], want[i-1]); err != nil {
					t.Errorf("entry %d: %v", i, err)
				}
			}
			wantEntries(t, l, want...)
		})
	}
	l, _ = mustOpen(t, base0.Crash(0), opt)
	if err := l.DropBefore(11); err != nil {
		t.Fatal(err)
	}
	if err := l.Repair(locs[3], want[2]); !errors.Is(err, ErrDropped) {
		t.Errorf("dropped: got %v, want %v", err, ErrDropped)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Repair(locs[15], want[14]); err != ErrClosed {
		t.Errorf("closed: got %v, want %v", err, ErrClosed)
	}
}

// TestRepairLastTerm: the term of a segment's last entry is known, though nothing stands behind it.
func TestRepairLastTerm(t *testing.T) {
	fs := vfs.NewMem(1)
	l, _ := mustOpen(t, fs, Options{})
	locs := mustAppend(t, l, entry(1, 1, 50), entry(2, 7, 50))
	flip(t, fs, locs[1], 0)
	for _, term := range []uint64{1, 6, 8} {
		e := entry(2, 7, 50)
		e.Term = term
		if err := l.Repair(locs[1], e); !errors.Is(err, ErrRange) {
			t.Errorf("term %d: got %v, want %v", term, err, ErrRange)
		}
	}
	if err := l.Repair(locs[1], entry(2, 7, 50)); err != nil {
		t.Error(err)
	}
}

// TestRepairNewer: a record with flags is none that this kingbus may judge.
func TestRepairNewer(t *testing.T) {
	fs, opt := base(t)
	l, _ := mustOpen(t, fs, opt)
	locs, want := locate(t, l), baseEntries()
	setFlag(t, fs, locs[14])
	flip(t, fs, locs[13], 0)
	flip(t, fs, locs[15], 0)
	before := fs.Crash(0)
	e13 := want[12]
	e13.Payload = append(bytes.Clone(e13.Payload), 1)
	for i, e := range map[int]Entry{13: e13, 14: want[13], 15: want[14]} {
		if err := l.Repair(locs[i], e); !errors.Is(err, ErrRange) {
			t.Errorf("entry %d: got %v, want %v", i, err, ErrRange)
		}
	}
	sameFolder(t, fs.Crash(0), before)
	if err := l.Repair(locs[13], want[12]); err != nil { // its bounds are beyond doubt
		t.Error(err)
	}
	for i, e := range map[int]Entry{14: want[13], 15: want[14]} {
		if err := l.Repair(locs[i], e); !errors.Is(err, ErrRange) {
			t.Errorf("entry %d, nothing bad before it: got %v, want %v", i, err, ErrRange)
		}
	}
}

// setFlag sets a flag of a record, as a newer kingbus would.
func setFlag(t testing.TB, fs *vfs.Mem, loc Location) {
	t.Helper()
	f, err := fs.OpenWrite(fileName(dir, loc.Segment))
	if err != nil {
		t.Fatal(err)
	}
	data := bytesOf(t, fs, loc)
	h, err := decodeHeader(data)
	if err != nil {
		t.Fatal(err)
	}
	b := data[loc.Offset:]
	b[15] = 1
	n := recordHeader + int(le.Uint16(b[12:]))
	le.PutUint32(b, recordSum(b[:n], h.Use, loc.Offset))
	if _, err := f.WriteAt(b[:n], loc.Offset); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestRepairRun damages several headers in a row, which are then repaired front to back, from each first to each last one of a segment.
func TestRepairRun(t *testing.T) {
	want := baseEntries()
	for _, from := range []int{11, 14, 21} {
		for to := from; to < from/10*10+11; to++ {
			fs, opt := base(t)
			l, _ := mustOpen(t, fs, opt)
			locs := locate(t, l)
			for i := from; i <= to; i++ {
				flip(t, fs, locs[i], int64(i%recordHeader))
			}
			r, err := l.NewReader(locs[1])
			if err != nil {
				t.Fatal(err)
			}
			for i := from; i <= to; i++ {
				if i < to {
					if err := l.Repair(locs[to], want[to-1]); !errors.Is(err, ErrRange) {
						t.Fatalf("%d to %d: the last one first: got %v, want %v", from, to, err, ErrRange)
					}
				}
				c := corruptAt(t, r)
				if err := l.Repair(c.At, want[c.Index-1]); err != nil {
					t.Fatalf("%d to %d: entry %d: %v", from, to, i, err)
				}
			}
			r.Close()
			wantEntries(t, l, want...)
		}
	}
}

// TestRepairRunWrong: an entry of the wrong length in a run is found at its last one, and nothing sound has suffered.
func TestRepairRunWrong(t *testing.T) {
	fs, opt := base(t)
	l, _ := mustOpen(t, fs, opt)
	locs, want := locate(t, l), baseEntries()
	flip(t, fs, locs[13], 0)
	flip(t, fs, locs[14], 0)
	wrong := want[12]
	wrong.Payload = wrong.Payload[5:]
	if err := l.Repair(locs[13], wrong); err != nil {
		t.Fatal(err)
	}
	next := Location{Segment: 11, Offset: locs[13].Offset + entrySize(&wrong)}
	for _, at := range []Location{next, locs[14]} {
		if err := l.Repair(at, want[13]); !errors.Is(err, ErrRange) {
			t.Errorf("at %v: got %v, want %v", at, err, ErrRange)
		}
	}
	if err := l.Repair(locs[13], want[12]); !errors.Is(err, ErrRange) {
		t.Errorf("the right one, too late: got %v, want %v", err, ErrRange)
	}
	r, err := l.NewReader(locs[15])
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, e := range want[14:] {
		if got, _, err := r.Next(); err != nil || !same(got, e) {
			t.Fatalf("got entry %d, %v, want %d", got.Index, err, e.Index)
		}
	}
}
