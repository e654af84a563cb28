package segment

import (
	"errors"
	"fmt"
	"io"

	"kingbus/internal/vfs"
)

const (
	readBuffer = 256 << 10 // bytes per read, unless a record is larger
	keepBuffer = 4 << 20   // the largest buffer that is kept when records are small again
	skipBuffer = 4 << 10   // bytes per read when large payloads are skipped
	bigRecord  = 16 << 10  // what is large in that sense
)

// Reader reads entries one after the other, across segments, while others append. It is for one goroutine at a time.
//
// It holds a file open, also while DropBefore removes it, until it has read on or is closed.
type Reader struct {
	l    *Log
	seg  *segment // acquired; nil after Close
	file vfs.File // of seg
	off  int64    // of the next record
	next uint64   // its index; 0: not known

	// What was known when the log was looked at last, so that most calls need no lock.
	limit int64  // end of seg
	cuts  uint64 // Log.cuts
	seen  int    // len(seg.cutOffs)

	resets uint64 // Log.resets when this reader was made

	buf   []byte // bytes of the file from base on
	base  int64
	err   error // ErrTruncated, ErrDropped: final
	large bool  // the last record was large
}

// Record is an entry without its payload, as Skip returns it.
type Record struct {
	Index, Term uint64
	Type        uint8
	Data        []byte
	PayloadLen  int
	PayloadSum  uint32 // CRC32C
}

// NewReader returns a reader that begins with the record at loc, which must come from Append, Seek, Next or Skip of this log, now or before a
// restart. The end of the log is a good place too. Close it.
func (l *Log) NewReader(loc Location) (*Reader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	i := l.findLocked(loc.Segment)
	if i < 0 {
		return nil, ErrDropped
	}
	s := l.segs[i]
	if s.First != loc.Segment || loc.Offset < headerSize || loc.Offset > s.end {
		return nil, fmt.Errorf("read log at segment %d, offset %d: %w", loc.Segment, loc.Offset, ErrRange)
	}
	r := &Reader{l: l, off: loc.Offset, resets: l.resets}
	switch loc.Offset {
	case headerSize:
		r.next = s.First
	case s.end:
		r.next = s.last + 1
	}
	if err := r.enter(s); err != nil {
		return nil, err
	}
	return r, nil
}

// enter makes s the segment that is read. The caller holds l.mu.
func (r *Reader) enter(s *segment) error {
	f, err := r.l.acquire(s)
	if err != nil {
		return err
	}
	if r.seg != nil {
		r.l.release(r.seg)
	}
	r.seg, r.file = s, f
	r.seen = len(s.cutOffs)
	r.cuts = r.l.cuts.Load()
	r.limit = s.end
	r.buf, r.base = r.buf[:0], r.off
	return nil
}

// Close gives the file back. A second Close does nothing.
func (r *Reader) Close() error {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	if r.seg != nil {
		r.l.release(r.seg)
		r.seg, r.file, r.buf, r.err = nil, nil, nil, ErrClosed
	}
	return nil
}

// Next returns the next entry, whose slices are valid until the next call, and where it is. Every checksum has been verified.
//
// io.EOF means that nothing more was written yet: call it again later. A mismatch is a *CorruptError, and stays one until Repair has
// put the entry back: every call after one reads the disk again. What was read ahead before a Repair may give it once more.
// ErrTruncated, ErrDropped and ErrClosed are final.
func (r *Reader) Next() (Entry, Location, error) {
	for {
		rec, err := r.header(readBuffer)
		var b []byte
		if err == nil {
			b, err = r.peek(int(rec.size()), readBuffer)
		}
		if err == nil && checksum(b[recordHeader+int(rec.dataLen):]) != rec.payloadSum {
			err = errPayloadSum
		}
		if err != nil {
			if err = r.explain(err); err == nil {
				continue
			}
			return Entry{}, Location{}, err
		}
		loc := r.advance(&rec)
		data := recordHeader + int(rec.dataLen)
		return Entry{
			Index: rec.index, Term: rec.term, Type: rec.typ,
			Data: b[recordHeader:data:data], Payload: b[data:len(b):len(b)],
		}, loc, nil
	}
}

// Skip is Next without reading the payload, and so without verifying it. Data is valid until the next call.
func (r *Reader) Skip() (Record, Location, error) {
	for {
		want := readBuffer
		if r.large {
			want = skipBuffer
		}
		rec, err := r.header(want)
		if err == nil && rec.size() > r.limit-r.off {
			err = errShort
		}
		if err != nil {
			if err = r.explain(err); err == nil {
				continue
			}
			return Record{}, Location{}, err
		}
		data := r.buf[r.off-r.base+recordHeader:][:rec.dataLen:rec.dataLen]
		loc := r.advance(&rec)
		return Record{
			Index: rec.index, Term: rec.term, Type: rec.typ, Data: data,
			PayloadLen: int(rec.payloadLen), PayloadSum: rec.payloadSum,
		}, loc, nil
	}
}

func (r *Reader) advance(rec *record) Location {
	loc := Location{Segment: r.seg.First, Offset: r.off}
	r.large = rec.size() >= bigRecord
	r.off += rec.size()
	r.next = rec.index + 1
	return loc
}

// header decodes the record at r.off, and has its header and data in the buffer.
func (r *Reader) header(want int) (record, error) {
	if r.err != nil {
		return record{}, r.err
	}
	if r.off >= r.limit || r.cuts != r.l.cuts.Load() {
		if err := r.look(); err != nil {
			return record{}, err
		}
	}
	b, err := r.peek(recordHeader, want)
	if err != nil {
		return record{}, err
	}
	if n := recordHeader + int(le.Uint16(b[12:])); n > len(b) {
		if b, err = r.peek(n, want); err != nil {
			return record{}, err
		}
	}
	rec, err := decodeRecord(b, r.seg.Use, r.off)
	if err == nil && (rec.index < r.seg.First || r.next != 0 && rec.index != r.next) {
		err = fmt.Errorf("%w: %d", errOrder, rec.index)
	}
	return rec, err
}

// look asks the log for what has changed, and goes on to the next segment at the end of a sealed one. io.EOF: nothing to read.
func (r *Reader) look() error {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if r.resets != l.resets {
		r.err = ErrTruncated
		return r.err
	}
	for {
		s := r.seg
		r.cuts = l.cuts.Load()
		for ; r.seen < len(s.cutOffs); r.seen++ {
			r.buf, r.base = r.buf[:0], r.off
			if s.cutOffs[r.seen] < r.off {
				r.err = ErrTruncated
				return r.err
			}
		}
		r.limit = s.end
		if r.off < r.limit {
			return nil
		}
		if !s.sealed {
			return io.EOF
		}
		i := l.findLocked(s.last + 1)
		if i < 0 || l.segs[i].First != s.last+1 {
			r.err = ErrDropped
			return r.err
		}
		r.off, r.next = headerSize, s.last+1
		if err := r.enter(l.segs[i]); err != nil {
			return err
		}
	}
}

// peek returns n bytes at r.off, reading about want bytes at once if they are not in the buffer.
func (r *Reader) peek(n, want int) ([]byte, error) {
	if int64(n) > r.limit-r.off {
		return nil, errShort
	}
	if at := r.off - r.base; at >= 0 && at+int64(n) <= int64(len(r.buf)) {
		return r.buf[at : at+int64(n)], nil
	}
	return r.fill(n, want)
}

func (r *Reader) fill(n, want int) ([]byte, error) {
	rest := r.buf[:0]
	if at := r.off - r.base; at >= 0 && at < int64(len(r.buf)) {
		rest = r.buf[at:]
	}
	size := max(readBuffer, want)
	for size < n {
		size *= 2
	}
	b := r.buf[:0]
	if cap(b) < size || cap(b) > keepBuffer && size < cap(b)/4 {
		b = make([]byte, 0, size)
	}
	have := copy(b[:cap(b)], rest)
	end := max(n, min(cap(b), max(want, have)))
	if want >= readBuffer {
		end = cap(b)
		if n >= readBuffer/2 { // large records come one by one: half of the next one would only have to be moved
			end = min(end, n+skipBuffer)
		}
	}
	end = int(min(int64(end), r.limit-r.off))
	m, err := r.file.ReadAt(b[have:end], r.off+int64(have))
	b = b[:have+m]
	r.buf, r.base = b, r.off
	if len(b) < n {
		if err == nil || err == io.EOF {
			err = errShort
		}
		return nil, err
	}
	return b[:n], nil
}

// explain turns what went wrong with a record into what the caller hears. Nil: the tail was cut meanwhile, look again.
func (r *Reader) explain(err error) error {
	if r.err != nil || err == io.EOF || errors.Is(err, ErrClosed) {
		return err
	}
	if r.cuts != r.l.cuts.Load() {
		return nil
	}
	r.buf, r.base = r.buf[:0], r.off // the next try reads the disk, which may have been repaired
	for _, bad := range []error{errZero, errRecord, errRecordSum, errFlags, errPayloadSum, errShort, errOrder} {
		if errors.Is(err, bad) {
			return &CorruptError{File: r.seg.name, Offset: r.off, At: Location{Segment: r.seg.First, Offset: r.off}, Index: r.next, Err: err}
		}
	}
	return fmt.Errorf("read log %s at offset %d: %w", r.seg.name, r.off, err)
}

// Seek returns where the entry index is; LastIndex+1 gives the end of the log, where the next one will be. It walks
// the record headers of a segment, at most; callers that need it often keep Locations as hints of their own.
func (l *Log) Seek(index uint64) (Location, error) {
	for {
		loc, err := l.seek(index)
		if err != ErrTruncated {
			return loc, err
		}
	}
}

func (l *Log) seek(index uint64) (Location, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return Location{}, ErrClosed
	}
	if index > l.last+1 {
		defer l.mu.Unlock()
		return Location{}, fmt.Errorf("seek entry %d: %w: the log ends with %d", index, ErrRange, l.last)
	}
	i := l.findLocked(index)
	if i < 0 {
		l.mu.Unlock()
		return Location{}, ErrDropped
	}
	s := l.segs[i]
	loc := Location{Segment: s.First, Offset: headerSize}
	if index == s.last+1 {
		loc.Offset = s.end
	}
	l.mu.Unlock()
	if index == s.First || loc.Offset != headerSize {
		return loc, nil
	}
	r, err := l.NewReader(loc)
	if err != nil {
		return Location{}, err
	}
	defer r.Close()
	for {
		rec, loc, err := r.Skip()
		if err != nil {
			if err == io.EOF { // cut off meanwhile
				err = fmt.Errorf("seek entry %d: %w", index, ErrRange)
			}
			return Location{}, err
		}
		if rec.Index == index {
			return loc, nil
		}
	}
}

// Term returns the term of the entry index, which may be FirstIndex-1: see Prev. Errors are those of Seek, and like it Term walks
// the record headers of a segment, at most.
func (l *Log) Term(index uint64) (uint64, error) {
	for {
		term, err := l.term(index)
		if err != ErrTruncated {
			return term, err
		}
	}
}

func (l *Log) term(index uint64) (uint64, error) {
	l.mu.Lock()
	last, lastTerm, closed := l.last, l.lastTerm, l.closed
	l.mu.Unlock()
	switch {
	case closed:
		return 0, ErrClosed
	case index == last:
		return lastTerm, nil
	case index < last:
		_, term, err := l.endOf(index)
		if err != io.EOF {
			return term, err
		} // cut off meanwhile
	}
	return 0, fmt.Errorf("term of entry %d: %w: the log ends before it", index, ErrRange)
}
