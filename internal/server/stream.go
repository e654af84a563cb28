package server

import (
	"context"
	"time"

	"kingbus/internal/gtid"
	"kingbus/internal/stream"
)

// Stream is what a server needs of the replicated binlog. Its methods may be
// called concurrently.
type Stream interface {
	// Status returns a snapshot that the caller owns.
	Status() stream.Status
	// LastTransaction returns the last one that was stored while the process ran.
	LastTransaction() (stream.Transaction, bool)
	// HasExecuted tells whether all transactions of a set are there.
	HasExecuted(set gtid.Set) bool
	// Changed returns a channel that is closed at the stream's next change.
	Changed() <-chan struct{}
	// SeekPosition finds an event boundary. Errors: stream.ErrNoFile,
	// stream.ErrNotYet, *stream.PositionError.
	SeekPosition(file string, pos uint64) (Reader, error)
	// SeekGTID finds a place before which, in its file and in all files before,
	// there is nothing that is not in have. Errors: *stream.PurgedError,
	// stream.ErrNotYet.
	SeekGTID(have gtid.Set) (Reader, error)
	// CatchUp waits until this node has everything that was committed anywhere in
	// the cluster when it was called. It fails when ctx ends, which it does where
	// no majority is to be had; a single node answers at once.
	CatchUp(ctx context.Context) error
	// PlanPurge decides what PURGE BINARY LOGS removes; its error is stream.ErrNoFile.
	PlanPurge(to string, before time.Time) (stream.PurgePlan, error)
	// Purge removes all files before one. It may be asked of any node.
	Purge(ctx context.Context, before string) error
}

// Reader yields the bytes of the stream. It belongs to one goroutine.
type Reader interface {
	// Start returns the coordinates at which the first chunk begins.
	Start() stream.Coordinates
	// Head returns the FDE and the PREVIOUS_GTIDS event (nil if there is none)
	// of the file in which a reader begins that starts behind position 4.
	Head() (format, previous []byte, err error)
	// Next returns the next chunk, valid until the next call. Errors:
	// stream.ErrEnd at the last boundary, stream.ErrPurgedAway, stream.ErrClosed,
	// and damage.
	Next() (stream.Chunk, error)
	// Close is idempotent.
	Close() error
}

// Binlog makes a Stream of the real thing.
func Binlog(s *stream.Stream) Stream { return binlogStream{s} }

type binlogStream struct{ *stream.Stream }

func (b binlogStream) SeekPosition(file string, pos uint64) (Reader, error) {
	r, err := b.Stream.SeekPosition(file, pos)
	if err != nil {
		return nil, err // not a nil *stream.Reader in an interface
	}
	return r, nil
}

func (b binlogStream) SeekGTID(have gtid.Set) (Reader, error) {
	r, err := b.Stream.SeekGTID(have)
	if err != nil {
		return nil, err
	}
	return r, nil
}
