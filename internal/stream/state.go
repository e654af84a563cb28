package stream

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
)

// state is what the log's entries fold into. It is the same on every node that
// has applied the same entries: no clock, no I/O, no goroutines.
type state struct {
	identity Identity
	source   Source
	followed []string // server uuids of all sources, oldest first

	epoch uint64 // index of the link-started entry in force, 0 = none yet
	files []file // oldest first, without gaps; the last one is open
	// end is where the next run has to begin in the current file. It is beyond
	// the boundary while a transaction is open.
	end       uint64
	sourceEnd uint64
	boundary  boundary
	tracker   binlog.Tracker
	rest      uint32        // bytes still to come of an event that was cut
	held      binlog.Effect // what that event does once it is whole
	openFrom  uint64        // first entry of the open transaction, 0 = none
	dead      []indexRange  // entries that do not count, ascending

	scratch      []gtid.GTID // reused by apply
	executed     gtid.Set
	purged       gtid.Set
	transactions uint64
	lastTime     uint32

	settings Settings
	change   uint64 // by which settings were changed last
}

// boundary is the last position at which no transaction was open.
type boundary struct {
	index     uint64 // the entry that ended there: readers go up to it
	pos       uint64
	sourcePos uint64
}

// file is one binlog file of the stream.
type file struct {
	number     uint32 // 1, 2, 3 … in the order of the stream
	name       string
	sourceName string
	first      uint64   // index of the rotate entry that began it
	size       uint64   // with the magic, up to its last boundary
	added      gtid.Set // transactions that ended in it
	created    uint32   // timestamp of its first event
	written    uint32   // newest timestamp in it
}

// indexRange is a run of log indexes, both ends included.
type indexRange struct{ from, to uint64 }

// effect tells the stream what an entry did, for its index and its readers.
type effect struct {
	epoch             uint64      // under which it was proposed, if a link did
	void              bool        // the entry did not count
	moved             bool        // there is a new boundary
	start             bool        // the entry begins at a boundary: it can be sought
	file              uint32      // for start
	pos               uint64      // for start
	ended             []gtid.GTID // transactions that the entry ended; valid until the next apply
	count             uint64      // of them, with those that have no GTID
	endPos, endSource uint64      // for count: where the last of them ends, in the file and in the source's
	aborted           bool        // the entry dropped an open transaction
	began             Coordinates // for aborted: of that transaction, in the source's file
	newFile           bool
	changed           uint64 // the revision that settings have by it
	purgedTo          uint64 // first index still needed, after a purge
	request           uint64 // of a command
	err               error  // why a command was refused; its proposer hears it
}

// errVoid marks entries that do not continue the stream: they were proposed
// under an older epoch, or one before them was dropped. That is expected.
var errVoid = errors.New("the entry does not continue the stream")

func (s *state) current() *file {
	if len(s.files) == 0 {
		return nil
	}
	return &s.files[len(s.files)-1]
}

func (s *state) coordinates() (stream, source Coordinates) {
	f := s.current()
	if f == nil {
		return
	}
	return Coordinates{f.name, s.boundary.pos}, Coordinates{f.sourceName, s.boundary.sourcePos}
}

// apply folds one entry. Its error is never about what an entry says, only
// about what this version cannot understand: the node has to stop then.
func (s *state) apply(index uint64, payload []byte) (effect, error) {
	k, err := parseKind(payload)
	if err != nil {
		return effect{}, fmt.Errorf("entry %d: %w", index, err)
	}
	var e effect
	_, opened := s.coordinates()
	open := s.openFrom != 0
	switch k {
	case kindEvents:
		h, events, err := parseEvents(payload)
		if err != nil {
			return effect{}, fmt.Errorf("entry %d: %w", index, err)
		}
		e = s.applyEvents(index, h, events)
	case kindRotate:
		var c rotateCommand
		if e.request, err = parseCommand(payload, &c); err == nil {
			e = s.applyRotate(index, c, e)
		}
	case kindLink:
		var c linkCommand
		if e.request, err = parseCommand(payload, &c); err == nil {
			e = s.applyLink(index, c, e)
		}
	case kindIdentity:
		var c identityCommand
		if e.request, err = parseCommand(payload, &c); err == nil && s.identity == (Identity{}) {
			s.identity = c.Identity
		}
	case kindPurge:
		var c purgeCommand
		if e.request, err = parseCommand(payload, &c); err == nil {
			e = s.applyPurge(c, e)
		}
	case kindSettings:
		var c settingsCommand
		if e.request, err = parseCommand(payload, &c); err == nil {
			e = s.applySettings(index, c, e)
		}
	}
	if err != nil {
		return effect{}, fmt.Errorf("entry %d: %w", index, err)
	}
	if e.void {
		s.bury(index, index)
	} else if open && k != kindEvents && s.openFrom == 0 {
		e.aborted, e.began = true, opened
	}
	return e, nil
}

// fold is the outcome of walking the events of one entry, before it counts.
type fold struct {
	tracker  binlog.Tracker
	rest     uint32
	held     binlog.Effect
	ended    bool // the last byte is at a boundary
	inner    bool // there is a boundary before the last byte
	gtids    []gtid.GTID
	previous []gtid.Set
	count    uint64
	endedAt  int    // bytes up to the end of the last transaction that ended
	first    uint32 // timestamps
	last     uint32
}

func (s *state) applyEvents(index uint64, h eventsHeader, events []byte) effect {
	f := s.current()
	if f == nil || h.epoch != s.epoch || h.file != f.number || h.pos != s.end || h.sourcePos != s.sourceEnd || len(events) == 0 {
		return effect{void: true, epoch: h.epoch}
	}
	w := fold{tracker: s.tracker, rest: s.rest, held: s.held, gtids: s.scratch[:0]}
	err := w.walk(events)
	s.scratch = w.gtids
	if err != nil {
		// The leader walked the same bytes before it proposed them, so this is a
		// bug or a leader of another version; either way all nodes agree.
		return effect{void: true, epoch: h.epoch, err: err}
	}
	e := effect{start: s.openFrom == 0, file: f.number, pos: h.pos, moved: w.ended}
	s.tracker, s.rest, s.held = w.tracker, w.rest, w.held
	s.end += uint64(len(events))
	s.sourceEnd += uint64(len(events))
	if f.created == 0 {
		f.created = w.first
	}
	f.written = max(f.written, w.last)
	s.lastTime = max(s.lastTime, w.last)
	if !w.ended {
		if s.openFrom == 0 {
			s.openFrom = index
		}
		return e
	}
	s.openFrom = 0
	s.boundary = boundary{index: index, pos: s.end, sourcePos: s.sourceEnd}
	f.size = s.end
	s.transactions += w.count
	for _, g := range w.gtids {
		s.executed.Add(g)
		f.added.Add(g)
	}
	e.ended, e.count = w.gtids, w.count
	e.endPos, e.endSource = h.pos+uint64(w.endedAt), h.sourcePos+uint64(w.endedAt)
	for _, p := range w.previous {
		// What a file says was there before it and the stream never had (the
		// source's own purged set, or one that it was told) cannot be served.
		missing := p.Subtract(s.executed)
		s.purged.AddSet(missing)
		s.executed.AddSet(missing)
	}
	return e
}

// walk follows the events in b. A run either ends at a boundary or lies wholly
// inside one transaction, so that an entry counts whole or not at all.
func (w *fold) walk(b []byte) error {
	all := len(b)
	for len(b) > 0 {
		if w.rest > 0 {
			n := min(uint64(w.rest), uint64(len(b)))
			w.rest -= uint32(n)
			b = b[n:]
			if w.rest == 0 {
				if err := w.finish(w.held, all-len(b), len(b) == 0); err != nil {
					return err
				}
				w.held = binlog.Effect{}
			}
			continue
		}
		hdr, err := binlog.ParseHeader(b)
		if err != nil {
			return err
		}
		if w.first == 0 {
			w.first = hdr.Timestamp
		}
		w.last = max(w.last, hdr.Timestamp)
		head := b
		if uint64(hdr.Length) <= uint64(len(b)) {
			head = b[:hdr.Length]
		} else if len(b) < binlog.MaxWhole {
			return fmt.Errorf("an event of %d bytes is cut after %d", hdr.Length, len(b))
		}
		eff, err := w.tracker.Next(head)
		if err != nil {
			return err
		}
		if hdr.Type == binlog.TypePreviousGTIDs {
			sum, _ := w.tracker.Checksum()
			set, err := binlog.ParsePreviousGTIDs(head, sum)
			if err != nil {
				return err
			}
			w.previous = append(w.previous, set)
		}
		b = b[len(head):]
		if n := hdr.Length - uint32(len(head)); n > 0 {
			w.rest, w.held = n, eff
			w.ended = false
			continue
		}
		if err := w.finish(eff, all-len(b), len(b) == 0); err != nil {
			return err
		}
	}
	if w.inner && !w.ended {
		return errors.New("a run ends inside a transaction that began inside it")
	}
	return nil
}

// finish counts an event whose last byte has been seen, at a distance from the
// beginning.
func (w *fold) finish(e binlog.Effect, at int, last bool) error {
	if e.Ended {
		w.count++
		w.endedAt = at
		if !e.GTID.IsZero() {
			w.gtids = append(w.gtids, e.GTID)
		}
	}
	w.ended = e.Boundary && last
	if e.Boundary && !last {
		w.inner = true
	}
	return nil
}

// abort drops the open transaction: its entries do not count, and the stream
// goes on at the last boundary.
func (s *state) abort(index uint64) {
	if s.openFrom != 0 {
		s.bury(s.openFrom, index-1)
	}
	s.openFrom, s.rest, s.held = 0, 0, binlog.Effect{}
	s.end, s.sourceEnd = s.boundary.pos, s.boundary.sourcePos
	s.tracker.Abort()
}

func (s *state) applyRotate(index uint64, c rotateCommand, e effect) effect {
	e.epoch = c.Epoch
	var number uint32
	if f := s.current(); f != nil {
		number = f.number
	}
	if c.Epoch != s.epoch || c.File != number || c.Pos != s.end {
		e.void = true
		return e
	}
	if err := checkName(c.Name); err != nil {
		e.void, e.err = true, err
		return e
	}
	if s.number(c.Name) != 0 {
		e.void, e.err = true, fmt.Errorf("the stream already has a file %s", c.Name)
		return e
	}
	s.abort(index)
	s.files = append(s.files, file{number: number + 1, name: c.Name, sourceName: c.SourceName, first: index, size: binlog.MagicSize})
	s.end, s.sourceEnd = binlog.MagicSize, binlog.MagicSize
	s.boundary = boundary{index: index, pos: s.end, sourcePos: s.sourceEnd}
	s.tracker.NewFile()
	e.moved, e.newFile, e.start, e.file, e.pos = true, true, true, number+1, s.end
	return e
}

func (s *state) applyLink(index uint64, c linkCommand, e effect) effect {
	s.abort(index)
	s.epoch = index
	if len(s.files) == 0 {
		// Nothing was stored yet, from this source or from another one; what the
		// source has already purged can never be had.
		s.purged, s.executed = c.Source.Purged.Clone(), c.Source.Purged.Clone()
		s.followed = nil
	}
	s.source = c.Source
	if c.Source.UUID != "" && !slices.Contains(s.followed, c.Source.UUID) {
		s.followed = append(s.followed, c.Source.UUID)
	}
	return e
}

// applyPurge removes files from the front. The current file always stays.
func (s *state) applyPurge(c purgeCommand, e effect) effect {
	n := slices.IndexFunc(s.files, func(f file) bool { return f.name == c.Before })
	if n < 0 {
		e.err = fmt.Errorf("purge before %s: %w", c.Before, ErrNoFile)
		return e
	}
	if n == 0 {
		return e
	}
	for _, f := range s.files[:n] {
		s.purged.AddSet(f.added)
	}
	s.files = slices.Clone(s.files[n:])
	e.purgedTo = s.files[0].first
	s.dead = slices.DeleteFunc(s.dead, func(r indexRange) bool { return r.to < e.purgedTo })
	e.moved = true
	return e
}

// number returns the number of the file of that name, 0 if there is none.
func (s *state) number(name string) uint32 {
	for i := len(s.files) - 1; i >= 0; i-- {
		if s.files[i].name == name {
			return s.files[i].number
		}
	}
	return 0
}

func (s *state) file(number uint32) *file {
	if len(s.files) == 0 || number < s.files[0].number || number > s.current().number {
		return nil
	}
	return &s.files[number-s.files[0].number]
}

// bury notes that entries from…to do not count.
func (s *state) bury(from, to uint64) {
	for n := len(s.dead); n > 0 && s.dead[n-1].to+1 >= from; n = len(s.dead) {
		from, to = min(from, s.dead[n-1].from), max(to, s.dead[n-1].to)
		s.dead = s.dead[:n-1]
	}
	s.dead = append(s.dead, indexRange{from, to})
}

// live returns the first entry from index on that is not known to be dead.
func (s *state) live(index uint64) uint64 {
	if n := len(s.dead); n == 0 || index > s.dead[n-1].to {
		return index
	}
	i := sort.Search(len(s.dead), func(i int) bool { return s.dead[i].to >= index })
	if s.dead[i].from > index {
		return index
	}
	return s.dead[i].to + 1 // ranges do not touch
}
