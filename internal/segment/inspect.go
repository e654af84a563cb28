package segment

import (
	"errors"
	"io"

	"kingbus/internal/vfs"
)

// Found is one thing that Inspect came across: a segment, a record, or something wrong.
type Found struct {
	File   string  // path
	Offset int64   // in bytes
	Header *Header // a segment begins; nil otherwise, and if its header is bad
	Size   int64   // of the record, or of the file if a segment begins, in bytes
	Entry  *Entry  // a sound record; valid during the call
	Synced int64   // how far the file was synced when the record was written
	Err    error   // what is wrong at this place
}

// Inspect walks through a log without changing or locking anything, verifies every record, and tells fn what it finds, in order.
// Behind a bad record it goes on with the next sound one. It works on a damaged log and on one that is in use, whose end may
// then look torn. An error of fn ends the walk and is returned; what is wrong in the log is not an error of Inspect.
func Inspect(fs vfs.FS, dir string, fn func(Found) error) error {
	found, err := list(fs, dir)
	if err != nil {
		return err
	}
	for i := range found {
		c := &found[i]
		if c.bad != nil {
			if err := fn(Found{File: c.name, Size: c.size, Err: c.bad}); err != nil {
				return err
			}
			continue
		}
		if i > 0 && found[i-1].bad == nil {
			var damage *DamageError
			if _, err := checkChain(found[i-1:i+1], 0); errors.As(err, &damage) {
				if err := fn(Found{File: damage.File, Offset: damage.Offset, Err: damage.Err}); err != nil {
					return err
				}
			}
		}
		end := c.size
		if i+1 < len(found) && found[i+1].bad == nil && found[i+1].PrevUse == c.Use {
			end = min(end, found[i+1].PrevEnd)
		}
		if err := inspectFile(fs, c, end, fn); err != nil {
			return err
		}
	}
	return nil
}

func inspectFile(fs vfs.FS, c *candidate, end int64, fn func(Found) error) (err error) {
	f, err := fs.Open(c.name)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if err := fn(Found{File: c.name, Header: &c.Header, Size: c.size}); err != nil {
		return err
	}
	w := &window{f: f, size: end}
	next, term := c.First, c.PrevTerm
	for off := int64(headerSize); off < end; {
		r, err := w.record(&c.Header, off, next, term)
		if err == io.EOF {
			return nil
		}
		if isBad(err) {
			if err := fn(Found{File: c.name, Offset: off, Err: err}); err != nil {
				return err
			}
			var ok bool
			if r, off, ok, err = w.search(&c.Header, off+1, next, nil); err != nil || !ok {
				return err
			}
			next, term = r.index, r.term
			continue
		}
		if err != nil {
			return err
		}
		b, err := w.at(off, int(r.size()))
		if err != nil {
			return err
		}
		data := recordHeader + int(r.dataLen)
		e := Entry{Index: r.index, Term: r.term, Type: r.typ, Data: b[recordHeader:data], Payload: b[data:]}
		if err := fn(Found{File: c.name, Offset: off, Size: r.size(), Entry: &e, Synced: int64(r.synced)}); err != nil {
			return err
		}
		off += r.size()
		next, term = r.index+1, r.term
	}
	return nil
}
