package segment

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"path/filepath"
	"slices"

	"kingbus/internal/vfs"
)

// Recovery tells what Open found and repaired.
type Recovery struct {
	First, Last uint64 // indexes of the log; Last is First-1 if it is empty
	// TornFile is the path of the segment that ended in a torn write, which was cut off at TornOffset; "" if there was none.
	TornFile   string
	TornOffset int64
	TornBytes  int64 // how many bytes were cut off
	TornErr    error // what was wrong with them
	// Removed is the path of a new segment that was begun and never used; "" if there was none.
	Removed string
	// Reset is set if a ResetTo that a crash had broken off was finished.
	Reset bool
	// Damage tells what was lost by Options.CutDamage; nil: nothing.
	Damage *DamageError
}

// Open opens the log in dir, which is made if it is missing, and locks it for this process (else the error wraps vfs.ErrLocked).
// What a crash has left is cleaned up and reported. Damage gives a *DamageError, a format of a newer version wraps ErrVersion: then
// nothing was changed. See Options.CutDamage for the other way to deal with damage.
func Open(fs vfs.FS, dir string, opt Options) (_ *Log, rec Recovery, err error) {
	if opt.SegmentBytes == 0 {
		opt.SegmentBytes = defaultSegmentBytes
	}
	if opt.SegmentBytes < headerSize {
		return nil, rec, fmt.Errorf("open log: segments of %d bytes are too small", opt.SegmentBytes)
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if err := fs.MkdirAll(dir); err != nil {
		return nil, rec, fmt.Errorf("open log: %w", err)
	}
	lock, err := fs.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, rec, fmt.Errorf("open log: %w", err)
	}
	l := &Log{fs: fs, dir: dir, opt: opt, lock: lock}
	defer func() {
		if err != nil {
			if l.active != nil {
				err = errors.Join(err, l.active.Close())
			}
			err = fmt.Errorf("open log: %w", errors.Join(err, lock.Close()))
		}
	}()
	if err := l.finishReset(&rec); err != nil {
		return nil, rec, err
	}
	if l.active == nil {
		if err := l.load(&rec); err != nil {
			return nil, rec, err
		}
	}
	if l.last < opt.Committed && rec.Damage == nil {
		damage := &DamageError{File: l.tail.name, Offset: l.tail.end, FirstLost: l.last + 1, LastLost: opt.Committed, Err: errEnd}
		if !opt.CutDamage {
			return nil, rec, damage
		}
		l.report(&rec, damage)
	}
	rec.First, rec.Last = l.segs[0].First, l.last
	return l, rec, nil
}

// finishReset carries out a plan that ResetTo left.
func (l *Log) finishReset(rec *Recovery) error {
	data, err := vfs.ReadFile(l.fs, l.path(resetName), planSize)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := decodePlan(data)
	if err != nil {
		return &DamageError{File: l.path(resetName), FirstLost: 1, Err: err}
	}
	s, f, err := l.carryOut(p)
	if err != nil {
		return err
	}
	rec.Reset = true
	l.opt.Logger.Warn("log: finished a reset that had been broken off", "dir", l.dir, "index", p.Index)
	l.begin(s, f)
	l.last, l.lastTerm = p.Index, p.Term
	return nil
}

// begin makes s the only segment.
func (l *Log) begin(s *segment, f vfs.File) {
	l.segs, l.tail, l.active = []*segment{s}, s, f
	l.synced, l.zeroed = headerSize, headerSize
}

// load reads what is in the folder.
func (l *Log) load(rec *Recovery) error {
	found, err := l.settle()
	if err != nil {
		return err
	}
	if n := len(found); n > 0 && l.unborn(found) {
		last := found[n-1]
		if err := l.removeFile(last.name); err != nil {
			return err
		}
		rec.Removed = last.name
		l.opt.Logger.Warn("log: removed a new segment that a crash had left unfinished", "file", last.name)
		found = found[:n-1]
	}
	if len(found) == 0 {
		if l.opt.Committed > 0 {
			return &DamageError{File: fileName(l.dir, 1), FirstLost: 1, LastLost: l.opt.Committed, Err: errMissing}
		}
		s, f, err := l.create(1, 0, nil)
		if err != nil {
			return err
		}
		l.begin(s, f)
		return nil
	}
	found, behind, damage, err := l.keep(found)
	if err != nil {
		return err
	}
	for i, c := range found {
		s := &segment{Header: c.Header, name: c.name, end: headerSize, last: c.First - 1}
		if i+1 < len(found) {
			next := found[i+1]
			s.end, s.last, s.sealed = next.PrevEnd, next.First-1, true
		}
		l.segs = append(l.segs, s)
	}
	l.tail = l.segs[len(l.segs)-1]
	return l.recover(rec, damage, behind)
}

// recover scans the last segment, and cuts off a torn write. If there is damage behind it, this segment once had a successor; it is cut
// off from here on then, with the segments behind.
func (l *Log) recover(rec *Recovery, damage *DamageError, behind []candidate) error {
	s := l.tail
	f, err := l.fs.OpenWrite(s.name)
	if err != nil {
		return err
	}
	l.active = f
	if err := settleFile(f); err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil {
		return err
	}
	w := &window{f: f, size: size}
	sc, err := w.scan(&s.Header)
	if err != nil {
		return err
	}
	s.end, s.last = sc.end, sc.last
	l.last, l.lastTerm = sc.last, sc.term
	l.synced, l.zeroed = sc.end, size
	if damage != nil {
		return l.cutDamage(rec, damage, sc, behind)
	}
	if sc.bad == nil {
		return nil
	}
	synced, seen, err := w.proof(&s.Header, sc.end, sc.last+1)
	if err != nil {
		return err
	}
	if synced || sc.last < l.opt.Committed || errors.Is(sc.bad, errOrder) {
		damage = &DamageError{File: s.name, Offset: sc.end, FirstLost: sc.last + 1, LastLost: max(seen, l.opt.Committed), Err: sc.bad}
		if !l.opt.CutDamage {
			return damage
		}
		return l.cutDamage(rec, damage, sc, nil)
	}
	rec.TornFile, rec.TornOffset, rec.TornBytes, rec.TornErr = s.name, sc.end, size-sc.end, sc.bad
	l.opt.Logger.Warn("log: cut off a torn write at the end, which was never confirmed", "file", s.name, "offset", sc.end, "bytes", size-sc.end, "found", sc.bad)
	return l.cutFile(sc.end)
}

// settle makes durable what a process that just died has left in the caches of the operating system, as far as the log
// goes on from it: the names in the folder, and the last segment. Then it lists the segments.
func (l *Log) settle() ([]candidate, error) {
	if err := l.fs.SyncDir(l.dir); err != nil {
		return nil, err
	}
	names, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Backward(names) { // sorted, and so by index
		if _, ok := parseName(name); !ok {
			continue
		}
		f, err := l.fs.OpenWrite(l.path(name))
		if err != nil {
			return nil, err
		}
		if err := errors.Join(settleFile(f), f.Close()); err != nil {
			return nil, err
		}
		break
	}
	return list(l.fs, l.dir)
}

// settleFile makes unsynced bytes durable, or finds out that they cannot be. Then it forgets the cache, so that pages that
// a failed sync lost are seen as they are on the disk.
func settleFile(f vfs.File) error {
	if err := f.Sync(); err != nil {
		return err
	}
	return f.DropCache()
}

// candidate is a segment file that was found.
type candidate struct {
	Header
	name  string
	first uint64 // as the name tells
	size  int64
	bare  bool  // there is nothing behind the header
	bad   error // of the header
}

// list returns the segment files of a folder, in order, with their headers. It changes nothing.
func list(fs vfs.FS, dir string) ([]candidate, error) {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []candidate
	for _, name := range names {
		first, ok := parseName(name)
		if !ok {
			continue
		}
		c := candidate{name: filepath.Join(dir, name), first: first}
		if err := c.read(fs); err != nil {
			return nil, err
		}
		found = append(found, c)
	}
	slices.SortFunc(found, func(a, b candidate) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	return found, nil
}

func (c *candidate) read(fs vfs.FS) (err error) {
	f, err := fs.Open(c.name)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if c.size, err = f.Size(); err != nil {
		return err
	}
	b := make([]byte, headerSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return err
	}
	if c.Header, c.bad = decodeHeader(b[:n]); c.bad == nil && c.First != c.first {
		c.bad = fmt.Errorf("its header says that it begins with entry %d", c.First)
	}
	if c.bad != nil {
		w := window{f: f, size: c.size}
		c.bare, err = w.zeroFrom(headerSize)
		return err
	}
	return nil
}

// unborn tells whether the last file is one that a crash interrupted while it was made: its header is torn, nothing follows,
// and nothing can have been in it. Its predecessor, or being the first of all, shows where the log goes on.
func (l *Log) unborn(found []candidate) bool {
	c := found[len(found)-1]
	if c.bad == nil || !c.bare || c.newer() || l.opt.Committed >= c.first {
		return false
	}
	return len(found) > 1 || c.first == 1
}

// newer tells whether a newer kingbus wrote this: then it is not damage.
func (c *candidate) newer() bool { return errors.Is(c.bad, ErrVersion) || errors.Is(c.bad, errFlags) }

// checkChain finds segments that are missing, exchanged, shortened or unreadable. sound is how many, from the first on, are
// beyond doubt as far as headers tell.
func checkChain(found []candidate, committed uint64) (sound int, err error) {
	lastLost := max(committed, found[len(found)-1].first)
	for i := range found {
		c := &found[i]
		if c.newer() {
			return i, fmt.Errorf("%s: %w", c.name, c.bad)
		}
		if c.bad != nil {
			return i, &DamageError{File: c.name, FirstLost: c.first, LastLost: lastLost, Err: c.bad}
		}
		if i == 0 {
			continue
		}
		prev := &found[i-1]
		damage := &DamageError{File: prev.name, FirstLost: prev.first, LastLost: lastLost}
		sound := i
		switch {
		case c.PrevFirst > prev.First: // c.PrevFirst is not in the folder
			damage.File, damage.FirstLost, damage.Err = fileName(filepath.Dir(c.name), c.PrevFirst), c.PrevFirst, errMissing
		case c.PrevFirst < prev.First || c.PrevUse != prev.Use || c.PrevTerm < prev.PrevTerm:
			damage.Err = errChain
			if !disowned(found[i:]) { // either of the two may be the wrong one
				sound--
			}
		case c.PrevEnd < headerSize || c.PrevEnd > prev.size:
			damage.Offset, damage.Err = prev.size, fmt.Errorf("%w: it has %d bytes, and had %d", errShort, prev.size, c.PrevEnd)
		default:
			continue
		}
		return sound, damage
	}
	return len(found), nil
}

// disowned tells whether the next segment, too, says that the first of these is not the one that belongs there.
func disowned(found []candidate) bool {
	return len(found) > 1 && found[1].bad == nil && found[1].PrevFirst == found[0].First && found[1].PrevUse != found[0].Use
}
