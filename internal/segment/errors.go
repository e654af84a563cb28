package segment

import (
	"errors"
	"fmt"
)

var (
	// ErrVersion is wrapped by the errors of Open and Inspect for files of a format that this program does not know.
	ErrVersion = errors.New("unknown format version")
	// ErrClosed is returned by the methods of a Log or Reader that was closed.
	ErrClosed = errors.New("segment: closed")
	// ErrDropped is returned for entries that were dropped at the head of the log.
	ErrDropped = errors.New("segment: the entries asked for were dropped at the head of the log")
	// ErrTruncated is returned by a Reader whose position was cut off at the tail of the log, or reset.
	// It stays so; find a new position with Seek.
	ErrTruncated = errors.New("segment: the reader's position was cut off at the tail of the log")
	// ErrRange is wrapped where an index or Location is outside of the log, or a batch would leave a gap.
	ErrRange = errors.New("segment: out of range")
	// ErrNoSpace is wrapped by Append when the disk is full. Nothing of the batch is in the log, and the Log goes on working.
	ErrNoSpace = errors.New("segment: the disk is full")
	// ErrPoisoned is wrapped by the errors of all calls that write, once a write or sync has failed; see Append.
	ErrPoisoned = errors.New("the log can no longer be written; stop, and start again to check what is on disk")
)

// DamageError tells that Open found entries missing or unreadable that had been safely on disk. Nothing was changed, unless Cut is set.
type DamageError struct {
	File   string // path of the damaged or missing file
	Offset int64  // where in it, in bytes
	// FirstLost and LastLost are the indexes of the entries that cutting the log here would lose, as far as they are known.
	FirstLost, LastLost uint64
	Err                 error // what is wrong there
	Cut                 bool  // the log was cut off, see Options.CutDamage; FirstLost is exact then
}

func (e *DamageError) Error() string {
	lost := fmt.Sprintf("entries %d to %d", e.FirstLost, e.LastLost)
	if e.LastLost <= e.FirstLost {
		lost = fmt.Sprintf("entries from %d on", e.FirstLost)
	}
	if e.Cut {
		return fmt.Sprintf("log damaged: %s at offset %d: %v; %s had been safely on disk and are lost, the log was cut off before them. "+
			"Check the disk; this node must fetch them from the others before anybody counts on it again",
			e.File, e.Offset, e.Err, lost)
	}
	return fmt.Sprintf("log damaged: %s at offset %d: %v; %s had been safely on disk and would be lost, so this is not the trace of a crash and nothing was changed. "+
		"Check the disk, keep a copy of the folder, and let this node fetch its log from the others again, or restore the folder from a backup",
		e.File, e.Offset, e.Err, lost)
}

func (e *DamageError) Unwrap() error { return e.Err }

// CorruptError tells that a Reader found bytes that are not what was written. They are never served. It is no use to retry before
// Repair has put the entry back, for which At is the place.
type CorruptError struct {
	File   string   // path of the segment
	Offset int64    // where its record begins, in bytes
	At     Location // the same place
	Index  uint64   // the entry expected there; 0 if not known
	Err    error    // what is wrong there
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("log corrupt: %s at offset %d, entry %d: %v; let this node fetch the entry from the others again", e.File, e.Offset, e.Index, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// What a record or header can suffer from.
var (
	errMagic      = errors.New("this is not a segment file")
	errFlags      = errors.New("unknown flags are set, written by a newer kingbus")
	errHeaderSum  = errors.New("the checksum of the segment header is wrong")
	errRecordSum  = errors.New("the checksum of the record header is wrong")
	errPayloadSum = errors.New("the checksum of the payload is wrong")
	errRecord     = errors.New("the record header makes no sense")
	errShort      = errors.New("the file ends within a record")
	errZero       = errors.New("there are zero bytes instead of a record")
	errOrder      = errors.New("another entry is in its place")
	errMissing    = errors.New("the file is missing")
	errEnd        = errors.New("the log ends here")
	errChain      = errors.New("the next segment was not written behind this one")
)
