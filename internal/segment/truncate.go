package segment

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"kingbus/internal/vfs"
)

// TruncateAfter cuts off all entries behind index, durably. index may be FirstIndex-1, which leaves the log empty; one behind the
// end does nothing. Readers positioned behind the cut get ErrTruncated.
func (l *Log) TruncateAfter(index uint64) error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if l.poison != nil {
		return l.poison
	}
	if l.isClosed() {
		return ErrClosed
	}
	return l.truncate(index)
}

// truncate is TruncateAfter for who holds writeMu.
func (l *Log) truncate(index uint64) error {
	if index >= l.last {
		return nil
	}
	if first := l.FirstIndex(); index+1 < first {
		return fmt.Errorf("cut log behind entry %d: %w: it begins with entry %d", index, ErrRange, first)
	}
	end, term, err := l.endOf(index)
	if err != nil {
		return fmt.Errorf("cut log behind entry %d: %w", index, err)
	}
	cutAway, err := l.publishCut(index, end, term)
	if err != nil {
		return err
	}
	if len(cutAway) > 0 {
		if err := l.active.Close(); err != nil {
			return l.fail(err)
		}
		l.active = nil
		for _, s := range slices.Backward(cutAway) {
			if err := l.removeFile(s.name); err != nil {
				return l.fail(err)
			}
		}
		if l.active, err = l.fs.OpenWrite(l.tail.name); err != nil {
			return l.fail(err)
		}
	}
	if err := l.cutFile(end); err != nil {
		return l.fail(err)
	}
	return nil
}

// publishCut lets the log end behind index, before bytes vanish, and returns the segments that are cut away as a whole.
func (l *Log) publishCut(index uint64, end int64, term uint64) ([]*segment, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.findLocked(index + 1)
	if i < 0 { // dropped meanwhile
		return nil, fmt.Errorf("cut log behind entry %d: %w", index, ErrDropped)
	}
	cutAway := slices.Clone(l.segs[i+1:])
	for _, s := range cutAway {
		s.cutOffs = append(s.cutOffs, 0)
		l.forget(s)
	}
	l.segs = l.segs[:i+1]
	s := l.segs[i]
	s.end, s.last, s.sealed = end, index, false
	s.cutOffs = append(s.cutOffs, end)
	l.tail, l.last, l.lastTerm = s, index, term
	l.cuts.Add(1)
	return cutAway, nil
}

// endOf finds where the entry index ends, in the segment that would hold the next one, and its term.
func (l *Log) endOf(index uint64) (end int64, term uint64, err error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return 0, 0, ErrClosed
	}
	i := l.findLocked(index + 1)
	if i < 0 {
		l.mu.Unlock()
		return 0, 0, ErrDropped
	}
	s := l.segs[i]
	l.mu.Unlock()
	if s.First == index+1 {
		return headerSize, s.PrevTerm, nil
	}
	r, err := l.NewReader(Location{Segment: s.First, Offset: headerSize})
	if err != nil {
		return 0, 0, err
	}
	defer r.Close()
	for {
		rec, _, err := r.Skip()
		if err != nil {
			return 0, 0, err
		}
		if rec.Index == index {
			return r.off, rec.Term, nil
		}
	}
}

// findLocked returns the place in segs of the segment that holds index, or would if it were appended: the last one that
// begins at or before it; -1 if index is before the log. The caller holds mu.
func (l *Log) findLocked(index uint64) int {
	i, found := slices.BinarySearchFunc(l.segs, index, func(s *segment, index uint64) int {
		return cmp.Compare(s.First, index)
	})
	if found {
		return i
	}
	return i - 1
}

// DropBefore drops the segments that hold only entries before index; the active one always stays. Readers that are in one of them
// read it to its end, and get ErrDropped then unless the next one is still there. Removing a large file takes its time; appending
// goes on meanwhile. After an error the files that are left are tried again by the next call, and come back when the log is opened.
func (l *Log) DropBefore(index uint64) error {
	l.dropMu.Lock()
	defer l.dropMu.Unlock()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	for len(l.segs) > 1 && l.segs[0].last < index {
		s := l.segs[0]
		l.segs = slices.Delete(l.segs, 0, 1)
		l.forget(s)
		l.doomed = append(l.doomed, s.name)
	}
	l.mu.Unlock()
	for len(l.doomed) > 0 { // oldest first, each synced, so that no crash makes a hole
		if err := l.removeFile(l.doomed[0]); err != nil {
			return fmt.Errorf("drop log segment: %w", err)
		}
		l.doomed = l.doomed[1:]
	}
	return nil
}

// ResetTo forgets all entries and makes the log begin behind entry index of the given term, durably: after a snapshot. It is
// carried out as a whole or not at all. Readers get ErrTruncated.
func (l *Log) ResetTo(index, term uint64) error {
	l.dropMu.Lock()
	defer l.dropMu.Unlock()
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if l.poison != nil {
		return l.poison
	}
	if l.isClosed() {
		return ErrClosed
	}
	if err := vfs.WriteFile(l.fs, l.path(resetName), encodePlan(plan{Index: index, Term: term})); err != nil {
		names, lerr := l.fs.ReadDir(l.dir)
		if noSpace(err) && lerr == nil && !slices.Contains(names, resetName) { // nothing has changed: it can be tried again
			return fmt.Errorf("reset log: %w: %w", ErrNoSpace, err)
		}
		return l.fail(fmt.Errorf("reset log: %w", err))
	}
	err := l.active.Close()
	l.active = nil
	l.mu.Lock()
	l.cuts.Add(1)
	l.resets++
	for _, s := range l.segs {
		l.forget(s)
	}
	l.mu.Unlock()
	l.doomed = nil // carryOut removes whatever is there
	if err != nil {
		return l.fail(fmt.Errorf("reset log: %w", err))
	}
	s, f, err := l.carryOut(plan{Index: index, Term: term})
	if err != nil {
		return l.fail(fmt.Errorf("reset log: %w", err))
	}
	l.active = f
	l.dirty, l.synced, l.zeroed = false, headerSize, headerSize
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segs, l.tail = []*segment{s}, s
	l.last, l.lastTerm = index, term
	return nil
}

// carryOut does what a durable plan says, from wherever a crash left it, and removes the plan durably.
func (l *Log) carryOut(p plan) (*segment, vfs.File, error) {
	names, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if _, ok := parseName(name); ok {
			if err := l.fs.Remove(l.path(name)); err != nil {
				return nil, nil, err
			}
		}
	}
	s, f, err := l.create(p.Index+1, p.Term, nil)
	if err != nil {
		return nil, nil, err
	}
	err = l.fs.Remove(l.path(resetName))
	if err == nil {
		err = l.fs.SyncDir(l.dir) // before anything is appended: the plan must not be carried out twice
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return s, f, nil
}

// plan is the file "reset", little-endian:
//
//	off size field
//	  0    8 magic "KINGBRST"
//	  8    8 index   of the entry behind which the log begins
//	 16    8 term    of that entry
//	 24    4 crc32c over bytes [0,24)
type plan struct{ Index, Term uint64 }

const (
	planMagic = "KINGBRST"
	planSize  = 28
)

func encodePlan(p plan) []byte {
	b := make([]byte, planSize)
	copy(b, planMagic)
	le.PutUint64(b[8:], p.Index)
	le.PutUint64(b[16:], p.Term)
	le.PutUint32(b[24:], checksum(b[:24]))
	return b
}

func decodePlan(b []byte) (plan, error) {
	if len(b) != planSize || string(b[:8]) != planMagic || checksum(b[:24]) != le.Uint32(b[24:]) {
		return plan{}, errPlan
	}
	return plan{Index: le.Uint64(b[8:]), Term: le.Uint64(b[16:])}, nil
}

var errPlan = errors.New("the plan of a reset is damaged")
