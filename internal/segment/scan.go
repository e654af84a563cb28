package segment

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"kingbus/internal/vfs"
)

// window reads a file through a buffer, mostly forward.
type window struct {
	f    vfs.File
	size int64 // nothing behind it is looked at
	buf  []byte
	base int64
}

const windowSize = 1 << 20

// at returns n bytes at off, valid until the next call; fewer, with errShort, at the end of the file.
func (w *window) at(off int64, n int) ([]byte, error) {
	short := int64(n) > w.size-off
	if short {
		n = int(max(0, w.size-off))
	}
	if off < w.base || off+int64(n) > w.base+int64(len(w.buf)) {
		want := int(min(int64(max(n, windowSize)), w.size-off))
		if cap(w.buf) < want {
			w.buf = make([]byte, want)
		}
		w.buf = w.buf[:want]
		m, err := w.f.ReadAt(w.buf, off)
		w.buf, w.base = w.buf[:m], off
		if err != nil && err != io.EOF {
			return nil, err
		}
		if m < n {
			n, short = m, true
		}
	}
	at := off - w.base
	b := w.buf[at : at+int64(n)]
	if short {
		return b, errShort
	}
	return b, nil
}

// sum returns the checksum of n bytes at off, without holding them all.
func (w *window) sum(off int64, n int64) (crc uint32, err error) {
	for n > 0 {
		b, err := w.at(off, int(min(n, windowSize)))
		if err != nil {
			return 0, err
		}
		crc = crc32.Update(crc, castagnoli, b)
		off += int64(len(b))
		n -= int64(len(b))
	}
	return crc, nil
}

// zeroFrom tells whether there are only zero bytes from off on.
func (w *window) zeroFrom(off int64) (bool, error) {
	for off < w.size {
		b, err := w.at(off, int(min(windowSize, w.size-off)))
		if err != nil && err != errShort {
			return false, err
		}
		if !allZero(b) {
			return false, nil
		}
		if len(b) == 0 {
			break
		}
		off += int64(len(b))
	}
	return true, nil
}

// record reads the record at off, which should be entry next, and verifies it wholly.
// The error is one of those that isBad knows, or io.EOF at the end of the log, or a failure of the disk.
func (w *window) record(h *Header, off int64, next, term uint64) (record, error) {
	b, err := w.at(off, int(min(recordHeader, w.size-off)))
	if err != nil {
		return record{}, err
	}
	if allZero(b) {
		zero, err := w.zeroFrom(off)
		if err != nil {
			return record{}, err
		}
		if zero {
			return record{}, io.EOF
		}
		return record{}, errZero
	}
	r, err := w.header(h, off)
	if err != nil {
		return r, err
	}
	if r.index != next || r.term < term {
		return r, fmt.Errorf("%w: entry %d of term %d", errOrder, r.index, r.term)
	}
	if r.size() > w.size-off {
		return r, errShort
	}
	crc, err := w.sum(off+recordHeader+int64(r.dataLen), int64(r.payloadLen))
	if err == nil && crc != r.payloadSum {
		err = errPayloadSum
	}
	return r, err
}

// header reads the header of the record at off, and verifies it with its data.
func (w *window) header(h *Header, off int64) (record, error) {
	b, err := w.at(off, recordHeader)
	if err != nil {
		return record{}, err
	}
	if b, err = w.at(off, recordHeader+int(le.Uint16(b[12:]))); err != nil && err != errShort {
		return record{}, err
	}
	return decodeRecord(b, h.Use, off)
}

// isBad tells an unreadable record from a disk that fails to read.
func isBad(err error) bool {
	for _, bad := range []error{errZero, errRecord, errRecordSum, errFlags, errPayloadSum, errShort, errOrder} {
		if errors.Is(err, bad) {
			return true
		}
	}
	return false
}

// scanned is what a scan of a segment found up to its end, or up to the first bad record.
type scanned struct {
	end        int64
	last, term uint64
	bad        error // nil: the end is clean, only zero bytes follow
}

// scan verifies all records of a segment.
func (w *window) scan(h *Header) (scanned, error) {
	s := scanned{end: headerSize, last: h.First - 1, term: h.PrevTerm}
	for s.end < w.size {
		r, err := w.record(h, s.end, s.last+1, s.term)
		if err == io.EOF {
			break
		}
		if isBad(err) {
			s.bad = err
			break
		}
		if err != nil {
			return s, err
		}
		s.end += r.size()
		s.last, s.term = r.index, r.term
	}
	return s, nil
}

// search looks byte by byte for a record header from off on that holds an entry from index on; ok: there is one at found. One that has
// only the fault also counts too; nil: none does.
func (w *window) search(h *Header, off int64, index uint64, also error) (r record, found int64, ok bool, err error) {
	most := index + uint64(w.size)/recordHeader // no more entries fit
	for off+recordHeader <= w.size {
		b, err := w.at(off, int(min(windowSize, w.size-off)))
		if err != nil {
			return r, 0, false, err
		}
		for i := 0; i+recordHeader <= len(b); i++ {
			if have := le.Uint64(b[i+16:]); have < index || have > most {
				continue
			}
			at := off + int64(i)
			if _, ok := plausible(b[i:], at); !ok {
				continue
			}
			r, err := w.header(h, at)
			if err == nil || err == also {
				return r, at, true, nil
			}
			if !isBad(err) {
				return r, 0, false, err
			}
			if b, err = w.at(off, len(b)); err != nil { // header may have moved the window
				return r, 0, false, err
			}
		}
		off += int64(len(b)) - recordHeader + 1
	}
	return r, 0, false, nil
}

// proof looks behind a bad record at off for records that tell that it had been synced. last is the highest index seen.
func (w *window) proof(h *Header, off int64, index uint64) (synced bool, last uint64, err error) {
	for at := off + 1; ; {
		r, found, ok, err := w.search(h, at, index, nil)
		if err != nil || !ok {
			return synced, last, err
		}
		last = max(last, r.index)
		synced = synced || r.synced > uint64(off)
		at = found + 1
		if r.index > index { // a record that is sound up to here does not hide others
			at = found + min(r.size(), w.size-found)
		}
	}
}
