package segment

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"syscall"
)

const (
	// copyPayload is the size up to which a payload is copied behind its header instead of being a buffer of its own.
	copyPayload = 4 << 10
	// maxFrame is how much scratch is kept between calls.
	maxFrame = 1 << 20
	// Writing into space that is allocated and zeroed already spares fdatasync the filesystem's journal. So when a small batch
	// reaches the end of such space, it writes zeroAhead more bytes of zero in the same go. Large batches gain less than the
	// zeros cost, and just append. See the measurements in docs/format/segment.md.
	zeroAhead  = 256 << 10
	smallBatch = 64 << 10
)

// Append writes entries behind the log, and returns where each one is. They are durable after Sync.
//
// Indexes must be consecutive and terms must not fall. If the first index is not behind the end of the log, the conflicting tail is cut
// off first (durably). The slices of the batch are read only until Append returns.
//
// A full disk gives ErrNoSpace: nothing of the batch is in the log (a conflicting tail is cut off nevertheless), and it may be tried
// again. After any other failed write or sync the log is poisoned: every later writing call returns that first error, and the only
// way on is to close the log and open it again.
func (l *Log) Append(batch []Entry) ([]Location, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if err := l.check(batch); err != nil {
		return nil, err
	}
	before := batch[0].Index - 1
	if before < l.last {
		if err := l.truncate(before); err != nil {
			return nil, err
		}
	}
	if term := l.lastTerm; batch[0].Term < term {
		return nil, fmt.Errorf("append entry %d: %w: its term %d is lower than the term %d before it", batch[0].Index, ErrRange, batch[0].Term, term)
	}
	locs := make([]Location, 0, len(batch))
	for len(batch) > 0 {
		n, size := l.fit(batch)
		if n == 0 {
			if err := l.seal(); err != nil {
				return nil, l.undo(before, err)
			}
			continue
		}
		var err error
		if locs, err = l.write(batch[:n], size, locs); err != nil {
			return nil, l.undo(before, err)
		}
		batch = batch[n:]
	}
	return locs, nil
}

// check refuses what cannot be appended. The caller holds writeMu, under which last does not change.
func (l *Log) check(batch []Entry) error {
	if l.poison != nil {
		return l.poison
	}
	if l.active == nil || l.isClosed() {
		return ErrClosed
	}
	first := batch[0].Index
	if first < l.FirstIndex() || first > l.last+1 {
		return fmt.Errorf("append entry %d: %w: the log has %d to %d", first, ErrRange, l.FirstIndex(), l.last)
	}
	for i := range batch {
		e := &batch[i]
		if e.Index != first+uint64(i) || i > 0 && e.Term < batch[i-1].Term {
			return fmt.Errorf("append entry %d, term %d: %w: it does not continue the batch", e.Index, e.Term, ErrRange)
		}
		if len(e.Data) > MaxData || len(e.Payload) > MaxPayload {
			return fmt.Errorf("append entry %d: %w: %d bytes of data and %d of payload are too long", e.Index, ErrRange, len(e.Data), len(e.Payload))
		}
	}
	return nil
}

func (l *Log) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func entrySize(e *Entry) int64 { return recordHeader + int64(len(e.Data)) + int64(len(e.Payload)) }

// fit returns how many entries of batch go into the active segment, and their size on disk. An empty one takes at least one.
func (l *Log) fit(batch []Entry) (n int, size int64) {
	s := l.tail
	for n < len(batch) {
		next := entrySize(&batch[n])
		if s.end+size+next > l.opt.SegmentBytes && (s.end > headerSize || n > 0) {
			break
		}
		size += next
		n++
	}
	return n, size
}

// write puts entries of size bytes behind the active segment in one call.
func (l *Log) write(batch []Entry, size int64, locs []Location) ([]Location, error) {
	s := l.tail
	off := s.end
	l.encode(s, batch, &locs)
	ahead := int64(0)
	if end := off + size; end > l.zeroed {
		if size < smallBatch {
			ahead = min(zeroAhead, max(0, l.opt.SegmentBytes-end))
		}
		l.zeroed = end + ahead
	}
	if ahead > 0 {
		if l.zeros == nil {
			l.zeros = make([]byte, zeroAhead)
		}
		l.vecs = append(l.vecs, l.zeros[:ahead])
	}
	l.dirty = true
	_, err := l.active.WritevAt(l.vecs, off)
	if ahead > 0 && noSpace(err) { // the zeros are a luxury
		if err := l.cutFile(off); err != nil {
			return nil, l.fail(err)
		}
		l.dirty, l.zeroed = true, off+size
		_, err = l.active.WritevAt(l.vecs[:len(l.vecs)-1], off)
	}
	clear(l.vecs) // the payloads are not ours to keep
	if err != nil {
		return nil, fmt.Errorf("append entry %d: %w", batch[0].Index, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.end = off + size
	s.last = batch[len(batch)-1].Index
	l.last, l.lastTerm = s.last, batch[len(batch)-1].Term
	l.stats.Appended += uint64(len(batch))
	l.stats.AppendedSize += uint64(size)
	return locs, nil
}

// encode fills l.vecs with the records of batch. Headers, data and small payloads share l.frame, which must not move on the way.
func (l *Log) encode(s *segment, batch []Entry, locs *[]Location) {
	need := 0
	for i := range batch {
		need += recordHeader + len(batch[i].Data)
		if len(batch[i].Payload) <= copyPayload {
			need += len(batch[i].Payload)
		}
	}
	if cap(l.frame) < need || cap(l.frame) > maxFrame && need <= maxFrame {
		l.frame = make([]byte, 0, max(need, 16<<10))
	}
	buf := l.frame[:need]
	l.vecs = l.vecs[:0]
	off, from, to := s.end, 0, 0
	for i := range batch {
		e := &batch[i]
		r := record{
			payloadSum: payloadSum(e),
			payloadLen: uint32(len(e.Payload)),
			dataLen:    uint16(len(e.Data)),
			typ:        e.Type,
			index:      e.Index,
			term:       e.Term,
			synced:     uint64(l.synced),
		}
		n := recordHeader + len(e.Data)
		r.put(buf[to:to+n], s.Use, off, e.Data)
		to += n
		if len(e.Payload) <= copyPayload {
			to += copy(buf[to:], e.Payload)
		} else {
			l.vecs = append(l.vecs, buf[from:to], e.Payload)
			from = to
		}
		*locs = append(*locs, Location{Segment: s.First, Offset: off})
		off += r.size()
	}
	if from < to {
		l.vecs = append(l.vecs, buf[from:to])
	}
}

func payloadSum(e *Entry) uint32 {
	if e.Summed {
		return e.Sum
	}
	return checksum(e.Payload)
}

// seal ends the active segment and begins the next. The old one is durable before the new one appears. That the zeros behind it
// are cut off need not be: its successor tells its end.
func (l *Log) seal() error {
	s := l.tail
	if l.dirty {
		if err := l.active.SyncData(); err != nil {
			return l.fail(fmt.Errorf("seal log segment: %w", err))
		}
		l.dirty, l.synced = false, s.end
	}
	if l.zeroed > s.end {
		if err := l.active.Truncate(s.end); err != nil {
			return l.fail(fmt.Errorf("seal log segment: %w", err))
		}
		l.zeroed = s.end
	}
	next, f, err := l.create(l.last+1, l.lastTerm, s)
	if err != nil {
		if noSpace(err) { // take the unborn file away, so that the next try can make it
			if rerr := l.removeFile(fileName(l.dir, l.last+1)); rerr != nil {
				return l.fail(rerr)
			}
		}
		return fmt.Errorf("begin log segment: %w", err)
	}
	old := l.active
	l.active = f
	l.synced, l.zeroed = headerSize, headerSize
	l.mu.Lock()
	s.sealed = true
	l.segs = append(l.segs, next)
	l.tail = next
	l.stats.Seals++
	l.mu.Unlock()
	return old.Close()
}

// removeFile removes a file durably; it may be missing.
func (l *Log) removeFile(name string) error {
	if err := l.fs.Remove(name); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	return l.fs.SyncDir(l.dir)
}

// undo answers a failed Append. When the disk is full it brings the log back to where it ended before, so that it can go on.
func (l *Log) undo(last uint64, err error) error {
	if l.poison != nil {
		return l.poison
	}
	if !noSpace(err) {
		return l.fail(err)
	}
	if l.last > last { // a part of the batch had gone into the segment before
		if terr := l.truncate(last); terr != nil {
			return terr
		}
	}
	s := l.tail
	if cerr := l.cutFile(s.end); cerr != nil {
		return l.fail(fmt.Errorf("%w, after %v", cerr, err))
	}
	return fmt.Errorf("%w: %w", ErrNoSpace, err)
}

// cutFile cuts the active file at end, durably.
func (l *Log) cutFile(end int64) error {
	if err := l.active.Truncate(end); err != nil {
		return err
	}
	if err := l.active.Sync(); err != nil {
		return err
	}
	l.dirty, l.synced, l.zeroed = false, end, end
	return nil
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// fail poisons the log. A poisoned one is not one that waits for room on the disk.
func (l *Log) fail(err error) error {
	if l.poison == nil {
		if noSpace(err) {
			err = errors.New(err.Error())
		}
		l.poison = fmt.Errorf("%w: %w", ErrPoisoned, err)
	}
	return l.poison
}

// Sync makes everything that was appended durable. If it fails the log is poisoned, see Append.
func (l *Log) Sync() error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if l.poison != nil {
		return l.poison
	}
	if l.isClosed() {
		return ErrClosed
	}
	if !l.dirty {
		return nil
	}
	if err := l.active.SyncData(); err != nil {
		return l.fail(fmt.Errorf("sync log: %w", err))
	}
	l.dirty, l.synced = false, l.tail.end
	l.mu.Lock()
	l.stats.Syncs++
	l.mu.Unlock()
	return nil
}
