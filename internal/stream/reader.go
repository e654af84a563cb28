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
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state
	if len(st.files) == 0 {
		return nil, ErrNotYet
	}
	f := &st.files[0]
	if name != "" {
		if f = st.file(st.number(name)); f == nil {
			if laterName(name, st.current().name) {
				return nil, fmt.Errorf("%s: %w", name, ErrNotYet)
			}
			return nil, fmt.Errorf("%s: %w", name, ErrNoFile)
		}
	}
	if pos > f.size {
		if f.number == st.current().number {
			return nil, fmt.Errorf("%s:%d: %w", f.name, pos, ErrNotYet)
		}
		return nil, &PositionError{At: Coordinates{f.name, pos}, Start: f.size}
	}
	p, ok, err := s.index.seekPosition(f.number, pos)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%s:%d is not in the index", f.name, pos)
	}
	return s.newReader(p)
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
	defer s.mu.Unlock()
	st := s.state
	if len(st.files) == 0 {
		return nil, ErrNotYet
	}
	if !have.ContainsSet(st.purged) {
		return nil, &PurgedError{Missing: st.purged.Subtract(have)}
	}
	p, ok, err := s.index.seekGTID(have)
	if err != nil {
		return nil, err
	}
	if !ok || st.file(p.file) == nil {
		if p, ok, err = s.index.seekPosition(st.files[0].number, binlog.MagicSize); err != nil {
			return nil, err
		} else if !ok {
			return nil, errors.New("the first file is not in the index")
		}
	}
	return s.newReader(p)
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
	s.mu.Lock()
	p, ok, err := s.index.seekPosition(file, binlog.MagicSize)
	if err != nil || !ok || p.file != file || p.pos != binlog.MagicSize {
		s.mu.Unlock()
		return nil, nil, errors.Join(err, fmt.Errorf("the beginning of file number %d is not in the index", file))
	}
	r, err := s.newReader(p)
	s.mu.Unlock()
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
	for r.next <= end && s.state.isDead(r.next) {
		r.next++
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
			return cluster.Entry{}, fmt.Errorf("read the log at %v: %w", r.at, err)
		}
		r.disk = d
	}
	for {
		stored, at, err := r.disk.Next()
		if err != nil {
			if err == io.EOF {
				err = errors.New("the log ends before an entry that was applied")
			}
			return cluster.Entry{}, fmt.Errorf("read entry %d of the log: %w", r.next, err)
		}
		if stored.Index < r.next {
			continue
		}
		if stored.Index > r.next {
			return cluster.Entry{}, fmt.Errorf("read the log: found entry %d where %d should be", stored.Index, r.next)
		}
		e := cluster.Entry{Index: stored.Index, Term: stored.Term, At: at}
		if len(stored.Data) == cluster.HandleSize {
			e.Payload = stored.Payload
		}
		return e, nil
	}
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
// the last boundary if it is the current one.
func (s *Stream) Export(ctx context.Context, file string, w io.Writer) error {
	r, err := s.SeekPosition(file, binlog.MagicSize)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer r.Close()
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
