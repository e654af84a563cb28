package bench

import (
	"context"
	"encoding/binary"
	"fmt"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
	"kingbus/internal/stream"
)

// appender is what a feeder needs of a *stream.Link.
type appender interface {
	Rotate(ctx context.Context, name string) error
	Append(ctx context.Context, run []byte) error
}

// feeder puts the events of one file into the stream again and again, as if the server went on: with new GTIDs,
// PREVIOUS_GTIDS, positions and checksums. The events have CRC32 checksums, which the server's default is.
type feeder struct {
	link     appender
	sid      gtid.SID
	executed gtid.Set
	tracker  binlog.Tracker
	pos      uint64 // of the next event
	run      []byte
}

func newFeeder(link appender, executed gtid.Set) (*feeder, error) {
	sids := executed.SIDs()
	if len(sids) != 1 {
		return nil, fmt.Errorf("the set has transactions of %d servers, not of one", len(sids))
	}
	return &feeder{link: link, sid: sids[0], executed: executed.Clone()}, nil
}

// file feeds a file, given without its magic.
func (f *feeder) file(ctx context.Context, name string, events []byte) error {
	if err := f.link.Rotate(ctx, name); err != nil {
		return err
	}
	f.pos = binlog.MagicSize
	f.tracker.NewFile()
	for len(events) > 0 {
		h, err := binlog.ParseHeader(events)
		if err != nil {
			return err
		}
		if uint64(h.Length) > uint64(len(events)) {
			return fmt.Errorf("an event of %d bytes where %d are left", h.Length, len(events))
		}
		boundary, err := f.event(h, events[:h.Length])
		if err != nil {
			return err
		}
		events = events[h.Length:]
		if boundary && len(f.run) >= stream.MaxRun || len(events) == 0 {
			if err := f.link.Append(ctx, f.run); err != nil {
				return err
			}
			f.run = nil // the stream owns it
		}
	}
	return nil
}

// Offsets within events: of the position in every header, of the number in a GTID event behind flags and uuid.
const (
	logPosOffset = 13
	gnoOffset    = binlog.HeaderSize + 1 + 16
)

// event appends one event to the run, and tells whether a run may end behind it.
func (f *feeder) event(h binlog.Header, ev []byte) (boundary bool, err error) {
	if f.run == nil {
		f.run = make([]byte, stream.RunHeader, stream.RunHeader+stream.MaxRun+64<<10)
	}
	begin := len(f.run)
	switch h.Type {
	case binlog.TypePreviousGTIDs:
		f.run = binlog.AppendPreviousGTIDs(f.run, h, f.executed, false, binlog.ChecksumCRC32)
	case binlog.TypeGTID:
		f.run = append(f.run, ev...)
		next := gtid.GTID{SID: f.sid, GNO: f.executed.Last(f.sid).GNO + 1}
		f.executed.Add(next)
		binary.LittleEndian.PutUint64(f.run[begin+gnoOffset:], uint64(next.GNO))
	default:
		f.run = append(f.run, ev...)
	}
	ev = f.run[begin:]
	f.pos += uint64(len(ev))
	binary.LittleEndian.PutUint32(ev[logPosOffset:], uint32(f.pos))
	binlog.UpdateChecksum(ev)
	eff, err := f.tracker.Next(ev)
	return eff.Boundary, err
}
