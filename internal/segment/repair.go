package segment

import (
	"bytes"
	"errors"
	"fmt"

	"kingbus/internal/vfs"
)

// Repair writes the record of entry e again, in its place, after its bytes were found damaged: at is the place that a Reader's
// *CorruptError names, and e is the entry of its Index as another node has it. If the record is sound and holds e already, it does
// nothing. Readers go on, also one that is stuck there; writing calls wait.
//
// Nothing that is sound is overwritten. Before anything is written it is proved, or else the error wraps ErrRange:
//
//   - The record's header verifies: then it tells all that it held, the checksum of the payload too. e is the same, and
//     only the payload is written.
//   - Or it does not: then the headers from the beginning of the segment on, which all verify, lead to this place and to e.Index, and
//     the record ends where the next header verifies and holds the next index, or where the segment ends if e is its last
//     entry. Its term lies between those of its neighbours.
//   - If the header behind it is damaged too, a run of them is repaired front to back. No header that verifies is among the bytes that
//     are written, and there is room left for the others of the run before the next one that does, or before the end.
//
// What is not proved: if the header is damaged, that e is what was there; that is for the caller to know. In a run, that e has
// the length of what was there, until the last one has to fit exactly. If that is refused, a wrong entry was given before,
// which is sound now and stays; then only cutting off the tail in front of it, or a reset, helps.
//
// How far the file had been synced when the record was written is lost with its header, and the new one claims nothing; "Torn or
// damaged" in the package's comment says what Open makes of that. A crash leaves the record damaged or sound, and nothing else touched: to
// Open it is what it was before. A failed write or sync poisons the log, see Append. A *CorruptError tells that the disk
// says it has stored the record, and does not give it back; a new try is allowed.
func (l *Log) Repair(at Location, e Entry) (err error) {
	l.dropMu.Lock() // the file must not be removed meanwhile
	defer l.dropMu.Unlock()
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if l.poison != nil {
		return l.poison
	}
	if l.isClosed() {
		return ErrClosed
	}
	p, err := l.patient(at, &e)
	if err != nil {
		return err
	}
	p.file = l.active
	if p.seg != l.tail {
		if p.file, err = l.fs.OpenWrite(p.seg.name); err != nil {
			return fmt.Errorf("repair entry %d: %w", e.Index, err)
		}
		defer func() { err = errors.Join(err, p.file.Close()) }()
	}
	// The disk is asked, and not the cache, which may be what is damaged.
	if err := p.file.DropCache(); err != nil {
		return fmt.Errorf("repair entry %d: %w", e.Index, err)
	}
	from, err := p.judge()
	if err != nil || from == p.end {
		return err
	}
	if err := p.write(from); err != nil {
		return l.fail(fmt.Errorf("repair entry %d: %w", e.Index, err))
	}
	if err := p.verify(); err != nil {
		return err
	}
	l.opt.Logger.Warn("log: repaired a damaged entry", "file", p.seg.name, "offset", p.off, "index", e.Index)
	return nil
}

// patient is a record to be repaired.
type patient struct {
	e        *Entry
	sum      uint32 // of the payload
	off, end int64  // in the file

	seg      *segment // end, last and header do not change while writeMu is held
	lastTerm uint64   // of the segment's last entry
	file     vfs.File
}

// patient finds the segment, and checks what takes no reading. The caller holds dropMu and writeMu.
func (l *Log) patient(at Location, e *Entry) (*patient, error) {
	sum := checksum(e.Payload) // takes its time, so not under mu
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.findLocked(at.Segment)
	if i < 0 {
		return nil, fmt.Errorf("repair entry %d: %w", e.Index, ErrDropped)
	}
	s := l.segs[i]
	p := &patient{e: e, sum: sum, off: at.Offset, end: at.Offset + entrySize(e), seg: s, lastTerm: l.lastTerm}
	if i+1 < len(l.segs) {
		p.lastTerm = l.segs[i+1].PrevTerm
	}
	switch {
	case s.First != at.Segment:
		return nil, p.refuse("no segment begins with entry %d", at.Segment)
	case e.Index < s.First || e.Index > s.last:
		return nil, p.refuse("segment %d has the entries %d to %d", s.First, s.First, s.last)
	case at.Offset < headerSize || at.Offset >= s.end:
		return nil, p.refuse("there are no records at this offset")
	case len(e.Data) > MaxData || len(e.Payload) > MaxPayload:
		return nil, p.refuse("%d bytes of data and %d of payload are too long", len(e.Data), len(e.Payload))
	case e.Summed && e.Sum != p.sum:
		return nil, p.refuse("its payload is not what its checksum says")
	}
	return p, nil
}

func (p *patient) refuse(why string, args ...any) error {
	return fmt.Errorf("repair entry %d at segment %d, offset %d: %w: %s", p.e.Index, p.seg.First, p.off, ErrRange, fmt.Sprintf(why, args...))
}

func (p *patient) window() *window { return &window{f: p.file, size: p.seg.end} }

// head encodes the record without its payload.
func (p *patient) head(synced uint64) []byte {
	r := record{
		payloadSum: p.sum,
		payloadLen: uint32(len(p.e.Payload)),
		dataLen:    uint16(len(p.e.Data)),
		typ:        p.e.Type,
		index:      p.e.Index,
		term:       p.e.Term,
		synced:     synced,
	}
	b := make([]byte, recordHeader+len(p.e.Data))
	r.put(b, p.seg.Use, p.off, p.e.Data)
	return b
}

// judge tells from which offset on the record has to be written; its end means not at all.
func (p *patient) judge() (from int64, err error) {
	w := p.window()
	r, err := w.header(&p.seg.Header, p.off)
	if err == errFlags {
		return 0, p.refuse("%v", err) // sound, for a newer kingbus
	}
	if isBad(err) {
		return p.off, p.proveBounds(w)
	}
	if err != nil {
		return 0, fmt.Errorf("repair entry %d: %w", p.e.Index, err)
	}
	b, err := w.at(p.off, recordHeader+int(r.dataLen))
	if err != nil {
		return 0, fmt.Errorf("repair entry %d: %w", p.e.Index, err)
	}
	if !bytes.Equal(b, p.head(r.synced)) {
		return 0, p.refuse("the place is that of entry %d of term %d, which is another one", r.index, r.term)
	}
	payload := p.off + int64(len(b))
	sum, err := w.sum(payload, int64(r.payloadLen))
	if err != nil {
		return 0, fmt.Errorf("repair entry %d: %w", p.e.Index, err)
	}
	if sum == p.sum {
		return p.end, nil
	}
	return payload, nil
}

// proveBounds proves that a record whose header is damaged begins and ends where e would.
func (p *patient) proveBounds(w *window) error {
	s, e := p.seg, p.e
	off, next, term := int64(headerSize), s.First, s.PrevTerm
	for off < p.off {
		r, err := w.header(&s.Header, off)
		if err == nil && r.index != next {
			err = errOrder
		}
		if isBad(err) {
			return p.refuse("entry %d before it, at offset %d, is damaged too and has to be repaired first: %v", next, off, err)
		}
		if err != nil {
			return fmt.Errorf("repair entry %d: %w", e.Index, err)
		}
		off, next, term = off+r.size(), next+1, r.term
	}
	if off != p.off || next != e.Index {
		return p.refuse("entry %d begins at offset %d", next, off)
	}
	r, found, ok, err := w.search(&s.Header, p.off+1, e.Index, errFlags)
	if err != nil {
		return fmt.Errorf("repair entry %d: %w", e.Index, err)
	}
	if !ok {
		r, found = record{index: s.last + 1, term: p.lastTerm}, s.end
	}
	if r.index <= e.Index || r.index > s.last+1 {
		return p.refuse("entry %d is at offset %d", r.index, found)
	}
	switch more := int64(r.index - e.Index - 1); {
	case more == 0 && p.end != found:
		return p.refuse("it would end at offset %d, and the record that was there ended at %d", p.end, found)
	case p.end > found-more*recordHeader:
		return p.refuse("it would end at offset %d, and up to %d there is no room then for the %d damaged entries behind it", p.end, found, more)
	case e.Term < term || e.Term > r.term || e.Index == s.last && e.Term != p.lastTerm:
		return p.refuse("its term is %d, and those of its neighbours are %d and %d", e.Term, term, r.term)
	}
	return nil
}

// write writes the record from an offset that judge returned, durably.
func (p *patient) write(from int64) error {
	bufs := [][]byte{p.e.Payload}
	if from == p.off {
		bufs = [][]byte{p.head(headerSize), p.e.Payload}
	}
	if _, err := p.file.WritevAt(bufs, from); err != nil {
		return err
	}
	return p.file.SyncData()
}

// verify reads the record back from the disk.
func (p *patient) verify() error {
	err := p.file.DropCache()
	if err == nil {
		_, err = p.window().record(&p.seg.Header, p.off, p.e.Index, p.e.Term)
	}
	if isBad(err) {
		at := Location{Segment: p.seg.First, Offset: p.off}
		err = &CorruptError{File: p.seg.name, Offset: p.off, At: at, Index: p.e.Index, Err: fmt.Errorf("just written, and %w", err)}
	}
	if err != nil {
		return fmt.Errorf("repair entry %d: %w", p.e.Index, err)
	}
	return nil
}
