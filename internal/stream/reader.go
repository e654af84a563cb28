package stream

import (
	"context"
	"errors"
	"fmt"
	"io"

	"kingbus/internal/binlog"
	"kingbus/internal/cluster"
	"kingbus/internal/gtid"
	"kingbus/internal/segment"
)

// Reader yields the stream's bytes from some place on, up to the last boundary.
// It belongs to one goroutine, but for Close.
type Reader struct {
	s    *Stream
	next uint64           // index of the next entry to look at
	at   segment.Location // of next or of an entry before it
	disk *segment.Reader  // nil while the tail serves
	file uint32           // guarded by s.mu for writing: retention looks at it
	name string
	pos  uint64 // where the next chunk begins
	// first is what a seek has already read.
	first  *Chunk
	closed bool // guarded by s.mu
}

// Chunk is a run of a file's bytes.
type Chunk struct {
	File string
	Pos  uint64 // of the first byte
	// Data is valid until the next call of Next, and must not be changed.
	// Usually it is whole events; one that is larger than binlog.MaxWhole may go
	// on in the next chunk, but never with less than MaxWhole bytes in this one.
	Data []byte
	// More tells that another chunk can be had at once.
	More bool
}

// NewFile tells that the chunk begins a file: its first event is the FDE.
func (c Chunk) NewFile() bool { return c.Pos == binlog.MagicSize }

// SeekPosition returns a reader that begins at an event boundary of a stored
// file; file "" is the first one. Errors: ErrNoFile, ErrNotYet, *PositionError.
func (s *Stream) SeekPosition(file string, pos uint64) (*Reader, error) {
	r, err := s.openAt(file, pos)
	if err != nil {
		return nil, err
	}
	if err := r.skipTo(pos); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (s *Stream) openAt(name string, pos uint64) (*Reader, error) {
	number, err := s.locate(name, pos)
	if err != nil {
		return nil, err
	}
	return s.openFile(number, pos)
}

// locate returns the number of the file, if it has the position.
func (s *Stream) locate(name string, pos uint64) (uint32, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := s.state
	if len(st.files) == 0 {
		return 0, ErrNotYet
	}
	f := &st.files[0]
	if name != "" {
		if f = st.file(st.number(name)); f == nil {
			if laterName(name, st.current().name) {
				return 0, fmt.Errorf("%s: %w", name, ErrNotYet)
			}
			return 0, fmt.Errorf("%s: %w", name, ErrNoFile)
		}
	}
	switch {
	case pos < binlog.MagicSize:
		return 0, &PositionError{At: Coordinates{f.name, pos}}
	case pos > f.size && f.number == st.current().number:
		return 0, fmt.Errorf("%s:%d: %w", f.name, pos, ErrNotYet)
	case pos > f.size:
		return 0, &PositionError{At: Coordinates{f.name, pos}, Start: f.size}
	}
	return f.number, nil
}

// openFile returns a reader in the file of that number, at the last known place
// at or before pos.
func (s *Stream) openFile(number uint32, pos uint64) (*Reader, error) {
	s.mu.Lock()
	f := s.state.file(number)
	if f == nil {
		s.mu.Unlock()
		return nil, ErrPurgedAway
	}
	if p, ok := s.index.seekPosition(number, pos); ok && p.file == number {
		defer s.mu.Unlock()
		return s.newReader(p)
	}
	first := f.first
	s.mu.Unlock()
	// The index of its segment was lost. Where a file begins the state knows.
	at, err := s.node.Seek(first)
	if err != nil {
		return nil, readError(first, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newReader(point{index: first, at: at, file: number, pos: binlog.MagicSize})
}

// laterName tells whether name is one that comes after last: the same base and a
// higher number.
func laterName(name, last string) bool {
	base := func(s string) (string, string) {
		i := len(s)
		for i > 0 && s[i-1] >= '0' && s[i-1] <= '9' {
			i--
		}
		return s[:i], s[i:]
	}
	a, n := base(name)
	b, m := base(last)
	return a == b && (len(n) > len(m) || len(n) == len(m) && n > m)
}

// SeekGTID returns a reader that begins at a boundary before which, in its file,
// there is nothing that is not in have. Its file is the newest one before which
// nothing is missing either. Errors: *PurgedError, ErrNotYet before there is any
// file.
func (s *Stream) SeekGTID(have gtid.Set) (*Reader, error) {
	s.mu.Lock()
	st := s.state
	if len(st.files) == 0 {
		s.mu.Unlock()
		return nil, ErrNotYet
	}
	if !have.ContainsSet(st.purged) {
		defer s.mu.Unlock()
		return nil, &PurgedError{Missing: st.purged.Subtract(have)}
	}
	if p, ok := s.index.seekGTID(have); ok && st.file(p.file) != nil {
		defer s.mu.Unlock()
		return s.newReader(p)
	}
	first := st.files[0].number
	s.mu.Unlock()
	return s.openFile(first, binlog.MagicSize)
}

func (s *Stream) newReader(p point) (*Reader, error) {
	if s.closed {
		return nil, ErrClosed
	}
	f := s.state.file(p.file)
	if f == nil {
		return nil, ErrPurgedAway
	}
	r := &Reader{s: s, next: p.index, at: p.at, file: p.file, name: f.name, pos: p.pos}
	s.readers[r] = struct{}{}
	return r, nil
}

// skipTo reads up to the event boundary pos of the reader's file.
func (r *Reader) skipTo(pos uint64) error {
	var rest uint64 // of an event that goes on in the next chunk
	for r.pos < pos {
		c, err := r.Next()
		if err == ErrEnd {
			return fmt.Errorf("%s:%d: %w", r.name, pos, ErrNotYet)
		}
		if err != nil {
			return err
		}
		at, data := c.Pos, c.Data
		for at < pos && len(data) > 0 {
			if rest == 0 {
				h, err := binlog.ParseHeader(data)
				if err != nil {
					return fmt.Errorf("%s:%d: %w", c.File, at, err)
				}
				if at+uint64(h.Length) > pos {
					return &PositionError{At: Coordinates{c.File, pos}, Start: at}
				}
				rest = uint64(h.Length)
			}
			n := min(rest, uint64(len(data)))
			at, data, rest = at+n, data[n:], rest-n
		}
		if len(data) > 0 {
			r.first = &Chunk{File: c.File, Pos: at, Data: data, More: c.More}
			r.pos = at
			return nil
		}
	}
	return nil
}

// Start returns the coordinates at which the next chunk begins.
func (r *Reader) Start() Coordinates { return Coordinates{r.name, r.pos} }

// Head returns the FDE and, if the file has one, the PREVIOUS_GTIDS event of the
// file in which the next chunk begins, as they are stored. It is for a reader
// that does not begin at position 4.
func (r *Reader) Head() (format, previous []byte, err error) { return r.s.head(r.file) }

// head reads the first two events of a file.
func (s *Stream) head(file uint32) (format, previous []byte, err error) {
	r, err := s.openFile(file, binlog.MagicSize)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	for {
		c, err := r.Next()
		if err == ErrEnd || err == nil && r.file != file {
			return format, nil, nil
		}
		if err != nil {
			return nil, nil, err
		}
		for data := c.Data; len(data) > 0; {
			h, err := binlog.ParseHeader(data)
			if err != nil {
				return nil, nil, err
			}
			whole := uint64(h.Length) <= uint64(len(data))
			switch {
			case format == nil && whole:
				format = append(format, data[:h.Length]...)
			case h.Type == binlog.TypePreviousGTIDs && whole:
				return format, append(previous, data[:h.Length]...), nil
			default:
				return format, nil, nil
			}
			data = data[h.Length:]
		}
	}
}

// Next returns the next chunk, or ErrEnd at the last boundary: take Changed
// before, and wait for it. Chunks never cross files: when a file has ended, the
// next chunk has another name and NewFile. Errors: ErrEnd, ErrPurgedAway,
// ErrClosed, *segment.CorruptError.
func (r *Reader) Next() (Chunk, error) {
	if c := r.first; c != nil {
		r.first = nil
		r.pos = c.Pos + uint64(len(c.Data))
		return *c, nil
	}
	for {
		e, more, err := r.entry()
		if err != nil {
			return Chunk{}, err
		}
		if e.Payload == nil {
			continue
		}
		k, err := parseKind(e.Payload)
		if err != nil {
			return Chunk{}, fmt.Errorf("entry %d: %w", e.Index, err)
		}
		switch k {
		case kindRotate:
			if err := r.rotate(e); err != nil {
				return Chunk{}, err
			}
		case kindEvents:
			h, events, err := parseEvents(e.Payload)
			if err != nil {
				return Chunk{}, fmt.Errorf("entry %d: %w", e.Index, err)
			}
			if h.file != r.file || h.pos != r.pos {
				return Chunk{}, fmt.Errorf("entry %d is at %d:%d where %d:%d was expected: the index or the state of this node is wrong", e.Index, h.file, h.pos, r.file, r.pos)
			}
			r.pos += uint64(len(events))
			return Chunk{File: r.name, Pos: h.pos, Data: events, More: more}, nil
		}
	}
}

// rotate enters the file that the entry begins. A reader that was found by a
// point which is a rotate entry is there already.
func (r *Reader) rotate(e cluster.Entry) error {
	var c rotateCommand
	if _, err := parseCommand(e.Payload, &c); err != nil {
		return fmt.Errorf("entry %d: %w", e.Index, err)
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.file, r.name, r.pos = c.File+1, c.Name, binlog.MagicSize
	return nil
}

// entry returns the next entry that counts, from the tail or from disk; more
// tells that there is another one at or before the last boundary.
func (r *Reader) entry() (e cluster.Entry, more bool, err error) {
	s := r.s
	s.mu.RLock()
	end := s.state.boundary.index
	if r.next <= end {
		r.next = s.state.live(r.next)
	}
	switch {
	case s.closed || r.closed:
		err = ErrClosed
	case s.state.file(r.file) == nil:
		err = ErrPurgedAway
	case r.next > end:
		err = ErrEnd
	}
	inTail := false
	if err == nil {
		e, inTail = s.tail.get(r.next)
	}
	s.mu.RUnlock()
	if err != nil {
		return cluster.Entry{}, false, err
	}
	if inTail {
		r.closeDisk()
	} else if e, err = r.readDisk(); err != nil {
		return cluster.Entry{}, false, err
	}
	r.next, r.at = e.Index+1, e.At
	return e, r.next <= end, nil
}

// readDisk reads entry r.next, passing over what lies between r.at and it.
func (r *Reader) readDisk() (cluster.Entry, error) {
	if r.disk == nil {
		d, err := r.s.node.NewReader(r.at)
		if err != nil {
			return cluster.Entry{}, readError(r.next, err)
		}
		r.disk = d
	}
	for {
		stored, at, err := r.disk.Next()
		if err != nil {
			r.s.node.Damaged(err)
			return cluster.Entry{}, readError(r.next, err)
		}
		if stored.Index < r.next {
			continue
		}
		if stored.Index > r.next {
			return cluster.Entry{}, fmt.Errorf("read the log: found entry %d where %d should be", stored.Index, r.next)
		}
		e := cluster.Entry{Index: stored.Index, Term: stored.Term, At: at}
		if cluster.HasPayload(stored) {
			e.Payload = stored.Payload
		}
		return e, nil
	}
}

// readError tells why an applied entry could not be read. A purge and Close may
// come between the look at the state and the reading.
func readError(index uint64, err error) error {
	switch {
	case errors.Is(err, segment.ErrDropped), errors.Is(err, segment.ErrTruncated): // or the whole log was replaced
		err = ErrPurgedAway
	case errors.Is(err, segment.ErrClosed):
		err = ErrClosed
	case err == io.EOF:
		err = errors.New("the log ends before an entry that was applied")
	}
	return fmt.Errorf("read entry %d of the log: %w", index, err)
}

func (r *Reader) closeDisk() {
	if r.disk != nil {
		_ = r.disk.Close() // only gives buffers and a file back
		r.disk = nil
	}
}

// Changed returns a channel that is closed at the next change of the stream.
func (r *Reader) Changed() <-chan struct{} { return r.s.Changed() }

// Close ends the reader; retention no longer keeps its file. It is idempotent,
// and must not run beside Next.
func (r *Reader) Close() error {
	r.s.mu.Lock()
	delete(r.s.readers, r)
	r.closed = true
	r.s.mu.Unlock()
	r.closeDisk()
	return nil
}

// Export writes a file of the stream as a standard binlog file: whole, or up to
// the last boundary if it is the current one; file "" is the first one.
func (s *Stream) Export(ctx context.Context, file string, w io.Writer) error {
	r, err := s.SeekPosition(file, binlog.MagicSize)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer r.Close()
	file = r.name
	if _, err := io.WriteString(w, binlog.Magic); err != nil {
		return fmt.Errorf("export %s: %w", file, err)
	}
	for ctx.Err() == nil {
		c, err := r.Next()
		if err == ErrEnd || err == nil && c.File != file {
			return nil
		}
		if err != nil {
			return fmt.Errorf("export %s: %w", file, err)
		}
		if _, err := w.Write(c.Data); err != nil {
			return fmt.Errorf("export %s: %w", file, err)
		}
	}
	return ctx.Err()
}
