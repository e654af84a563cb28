package segment

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kingbus/internal/vfs"
)

// Entry is one entry of the Raft log as it is stored.
type Entry struct {
	Index, Term uint64
	Type        uint8
	Data        []byte // the Raft entry's own data, at most MaxData bytes
	Payload     []byte // the bytes that belong to it, at most MaxPayload
	// Sum is the CRC32C of Payload if Summed tells so: who has it already saves Append the work, and what was changed in memory
	// since then is found. Readers leave both zero.
	Sum    uint32
	Summed bool
}

// Location says where an entry is stored. It stays right as long as the entry is in the log, across restarts too.
type Location struct {
	Segment uint64 // first index of the segment, which names the file
	Offset  int64  // of the record in the file, in bytes
}

// Options are what Open needs to know. The zero value is good for a new log.
type Options struct {
	// SegmentBytes is the size at which a segment is sealed and the next begins; 0 means 64 MiB. A single entry may exceed it.
	SegmentBytes int64
	// Committed is the commit index as the caller has persisted it. Entries up to it must be there, else Open reports damage; so it
	// must never be persisted above the index up to which this log was synced. 0 means not known.
	Committed uint64
	// CutDamage lets Open keep the sound beginning of a damaged log: it cuts the log off at the damage, durably, and tells in
	// Recovery.Damage what was lost, instead of failing with it. Where there is no beginning, or a newer kingbus wrote what is there,
	// it fails as without.
	//
	// It is only for who has told nobody that the lost entries are here, or fetches them before it does so again: others may count
	// on them. Open tells it once. Whoever dies between the cut and taking note finds a log that is sound (and hears of it
	// at most by Committed), so take note, durably, before you open with it.
	CutDamage bool
	// Logger is told what was repaired. Nil means silence.
	Logger *slog.Logger
}

const (
	defaultSegmentBytes = 64 << 20
	lockName            = "LOCK"
	resetName           = "reset"
	maxIdle             = 16 // files of sealed segments that stay open without a reader
)

// Info describes a segment.
type Info struct {
	First, Last uint64 // indexes; Last is First-1 in an empty one
	Bytes       int64  // up to the end of the last record
	Created     time.Time
	Sealed      bool
	File        string // path
}

// Stats are counters since Open and the state of a Log.
type Stats struct {
	Segments     int
	Bytes        int64  // of all segments, up to their last record
	OpenFiles    int    // file descriptors held
	Appended     uint64 // entries
	AppendedSize uint64 // bytes of their records
	Syncs        uint64
	Seals        uint64
}

// Log is a log of entries in a folder. Append, Sync, TruncateAfter, ResetTo and Repair exclude one another; all methods may be called
// from any goroutine.
//
// Locks, in the order in which they are taken: dropMu, writeMu, mu. Nobody syncs or writes while holding mu.
type Log struct {
	fs   vfs.FS
	dir  string
	opt  Options
	lock io.Closer

	dropMu sync.Mutex // DropBefore, ResetTo: who removes at the head; Repair: who needs what is there
	doomed []string   // dropped files that could not be removed yet, oldest first

	writeMu sync.Mutex // whoever writes
	poison  error      // first failure of a write or sync
	active  vfs.File   // of the last segment, for writing
	dirty   bool       // written and not synced
	synced  int64      // how far the active file was synced
	zeroed  int64      // how far the active file is allocated and zero, at least its end
	frame   []byte     // scratch of Append: record headers and small payloads
	vecs    [][]byte   // scratch of Append
	zeros   []byte     // what is written ahead

	// cuts counts truncations and resets. It is raised, under mu, before bytes vanish. Readers look at it without mu.
	cuts atomic.Uint64

	mu       sync.Mutex
	segs     []*segment // never empty, except after Close; the last one is active
	tail     *segment   // the active one; its fields, tail, last and lastTerm change only under writeMu and mu both
	last     uint64
	lastTerm uint64
	idle     []*segment // have an open file and no reader, longest idle first
	readers  int        // references on segments
	resets   uint64     // every reader from before the last one is done for, even in a segment that was dropped
	closed   bool
	stats    Stats
}

// segment is a file of the log. All fields behind the header are guarded by Log.mu.
type segment struct {
	Header
	name string

	end     int64   // behind the last record
	last    uint64  // First-1 if empty
	sealed  bool    // has a successor, so end and last are final unless the tail is cut
	gone    bool    // no longer in the log
	cutOffs []int64 // every cut of its tail: where; 0 if it was cut away as a whole

	file vfs.File // for reading, opened on demand
	refs int      // readers that use file
}

// FirstIndex returns the index of the first entry, or the one that the first entry will have.
func (l *Log) FirstIndex() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0
	}
	return l.segs[0].First
}

// LastIndex returns the index of the last entry that was appended; FirstIndex-1 if the log is empty.
func (l *Log) LastIndex() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Prev returns index and term of the entry before the first: the last one dropped, or what ResetTo was told. Term 0: there was none.
func (l *Log) Prev() (index, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, 0
	}
	return l.segs[0].First - 1, l.segs[0].PrevTerm
}

// Segments describes all segments, oldest first.
func (l *Log) Segments() []Info {
	l.mu.Lock()
	defer l.mu.Unlock()
	infos := make([]Info, len(l.segs))
	for i, s := range l.segs {
		infos[i] = Info{First: s.First, Last: s.last, Bytes: s.end, Created: time.Unix(0, s.Created), Sealed: s.sealed, File: s.name}
	}
	return infos
}

// Stats returns counters and sizes.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.stats
	st.Segments = len(l.segs)
	for _, s := range l.segs {
		st.Bytes += s.end
		if s.file != nil {
			st.OpenFiles++
		}
	}
	if !l.closed {
		st.OpenFiles++
	}
	return st
}

// BytesAfter tells about how many bytes of records lie behind entry index, for displays of progress: the segment that holds it counts
// in proportion, as if its entries were of one size.
func (l *Log) BytesAfter(index uint64) (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range slices.Backward(l.segs) {
		size := s.end - headerSize
		if index < s.First {
			n += size
			continue
		}
		if index < s.last {
			n += int64(float64(size) * float64(s.last-index) / float64(s.last-s.First+1))
		}
		break
	}
	return n
}

// Close releases the folder. It syncs nothing: what Sync did not confirm may be lost, as after a crash. It reports an error if
// Readers are still open; their Next fails then, and their Close closes what they hold. A second Close does nothing.
func (l *Log) Close() error {
	l.dropMu.Lock()
	defer l.dropMu.Unlock()
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.cuts.Add(1) // makes readers look
	var errs []error
	for _, s := range l.segs {
		if s.refs == 0 && s.file != nil {
			errs = append(errs, s.file.Close())
			s.file = nil
		}
		s.gone = true
	}
	if l.readers > 0 {
		errs = append(errs, fmt.Errorf("segment: log closed while %d readers are open", l.readers))
	}
	l.segs, l.idle = nil, nil
	if l.active != nil {
		errs = append(errs, l.active.Close())
	}
	errs = append(errs, l.lock.Close())
	return errors.Join(errs...)
}

// acquire returns the file of s for a reader, who must release it. The caller holds mu.
func (l *Log) acquire(s *segment) (vfs.File, error) {
	if s.file == nil {
		f, err := l.fs.Open(s.name)
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		s.file = f
	} else if s.refs == 0 {
		l.dropIdle(s)
	}
	s.refs++
	l.readers++
	return s.file, nil
}

// release gives back what acquire returned. The caller holds mu.
func (l *Log) release(s *segment) {
	s.refs--
	l.readers--
	if s.refs > 0 {
		return
	}
	l.idle = append(l.idle, s)
	if s.gone {
		l.closeIdle(s)
	} else if len(l.idle) > maxIdle {
		l.closeIdle(l.idle[0])
	}
}

func (l *Log) dropIdle(s *segment) {
	for i, other := range l.idle {
		if other == s {
			l.idle = append(l.idle[:i], l.idle[i+1:]...)
			return
		}
	}
}

// closeIdle closes the file of a segment without readers. An error of closing a file that was only read says nothing.
func (l *Log) closeIdle(s *segment) {
	l.dropIdle(s)
	if s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
}

// forget marks a segment that has left the list. The caller holds mu.
func (l *Log) forget(s *segment) {
	s.gone = true
	if s.refs == 0 {
		l.closeIdle(s)
	}
}

// create makes the file of a segment that follows prev (nil: a log begins), with its header and name durable, open for writing.
// The caller holds writeMu, or is Open. What it leaves after an error, Open removes.
func (l *Log) create(first, prevTerm uint64, prev *segment) (*segment, vfs.File, error) {
	s := &segment{
		Header: Header{Version: Version, Use: newUse(), First: first, PrevTerm: prevTerm, Created: time.Now().UnixNano()},
		name:   fileName(l.dir, first),
		end:    headerSize,
		last:   first - 1,
	}
	if prev != nil {
		s.PrevFirst, s.PrevUse, s.PrevEnd = prev.First, prev.Use, prev.end
	}
	f, err := l.fs.Create(s.name)
	if err != nil {
		return nil, nil, err
	}
	_, err = f.WriteAt(s.encode(), 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.fs.SyncDir(l.dir)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return s, f, nil
}

// newUse returns a random id that is not 0.
func newUse() uint64 {
	for {
		if use := rand.Uint64(); use != 0 {
			return use
		}
	}
}

func (l *Log) path(name string) string { return filepath.Join(l.dir, name) }
