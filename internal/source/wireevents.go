package source

import (
	"context"
	"errors"
	"fmt"

	"kingbus/internal/binlog"
	"kingbus/internal/stream"
)

// This file takes the events that say where the source is, and are not stored:
// the fake ROTATE, the format description that is sent again on resuming, and
// heartbeats.

// wireEvent reads an event that is not stored.
func (r *receiver) wireEvent(h binlog.Header, sum binlog.Checksum) ([]byte, error) {
	if h.Length > maxWireEvent {
		return nil, r.malformed(fmt.Errorf("%w: a %s event of %d bytes", binlog.ErrMalformed, h.Type, h.Length))
	}
	if cap(r.scratch) < int(h.Length) {
		r.scratch = make([]byte, h.Length, 2*h.Length)
	}
	ev := r.scratch[:h.Length]
	if err := r.fill(ev); err != nil {
		return nil, err
	}
	if sum == binlog.ChecksumCRC32 && !binlog.VerifyChecksum(ev) {
		return nil, r.malformed(r.badChecksum(h))
	}
	return ev, nil
}

// rotate takes a ROTATE that is in no file: it says which file comes.
func (r *receiver) rotate(ctx context.Context, h binlog.Header) error {
	sum := r.sum()
	ev, err := r.wireEvent(h, sum)
	if err != nil {
		return err
	}
	to, err := binlog.ParseRotate(ev, sum)
	if err != nil {
		return r.malformed(err)
	}
	if err := binlog.ValidName(to.Name); err != nil {
		return r.malformed(err)
	}
	if r.stage == stageRotate {
		if to.Name != r.plan.at.File || to.Position != r.plan.ask {
			return r.malformed(fmt.Errorf("%w: asked for %s:%d, the source begins with %s:%d", binlog.ErrMalformed, r.plan.at.File, r.plan.ask, printable(to.Name), to.Position))
		}
	} else if to.Name == r.file || to.Position != binlog.MagicSize {
		return r.malformed(fmt.Errorf("%w: ROTATE from %s:%d to %s:%d", binlog.ErrMalformed, r.file, r.pos, printable(to.Name), to.Position))
	}
	if r.stage != stageRotate && precedes(to.Name, r.file) {
		return &Problem{Kind: KindReset, At: stream.Coordinates{File: r.file, Pos: r.pos}, Reason: "the source went back to its file " + to.Name + ": it was reset",
			Action: "to follow it as it is now, begin with an empty data folder"}
	}
	// A transaction that is open in the old file never ends: the source
	// crashed. What is complete is proposed first, Rotate drops the rest.
	if b := r.run.take(false); b != nil {
		if err := r.append(ctx, b); err != nil {
			return err
		}
	}
	r.run.drop()
	r.hold = false
	// The stream may be in that file already, at the very position.
	if to.Name != r.atFile.File {
		if err := r.link.Rotate(ctx, to.Name); err != nil {
			return err
		}
		r.s.progress = true
		r.atFile = stream.Coordinates{File: to.Name, Pos: binlog.MagicSize}
	}
	r.checksum = sum
	r.file, r.pos, r.stage = to.Name, to.Position, stageFormat
	r.boundary = r.pos
	r.tracker.NewFile()
	r.publish()
	return nil
}

// format takes a file's format description: it is stored if the stream begins
// the file, and compared with the stored one if the stream is in its middle.
func (r *receiver) format(ctx context.Context, h binlog.Header) error {
	if h.Type != binlog.TypeFormatDescription {
		return r.malformed(fmt.Errorf("%w: a %s event where the file's format description is due", binlog.ErrMalformed, h.Type))
	}
	r.stage = stageEvents
	if r.file != r.plan.at.File || r.plan.at.Pos <= binlog.MagicSize {
		if h.LogPos != uint32(binlog.MagicSize+h.Length) {
			return r.malformed(fmt.Errorf("%w: the format description at the file's beginning ends at %d, not at %d", binlog.ErrMalformed, h.LogPos, binlog.MagicSize+h.Length))
		}
		err := r.whole(ctx, h)
		if r.hold = r.hasPrevious; r.hold {
			r.boundary = binlog.MagicSize
			if errors.Is(err, ErrUntilReached) { // behind the next event, as this one is not stored without that
				err = nil
			}
		}
		return err
	}
	ev, err := r.wireEvent(h, binlog.ChecksumNone)
	if err != nil {
		return err
	}
	fd, err := binlog.ParseFormatDescription(ev)
	if err != nil {
		return r.malformed(err)
	}
	// Where checksums are off MariaDB leaves that of the file, which fits no more.
	if fd.HasChecksum && fd.Checksum == binlog.ChecksumCRC32 && !binlog.VerifyChecksum(ev) {
		return r.malformed(r.badChecksum(h))
	}
	same, err := sameFormat(r.stored, ev)
	if err != nil {
		return r.malformed(err)
	}
	if !same {
		return &Problem{Kind: KindReset, At: r.plan.at, Reason: fmt.Sprintf("the source's file %s is another one than the file of that name in kingbus: the source was reset or restored", r.file),
			Action: "to follow it as it is now, begin with an empty data folder"}
	}
	if r.pos == binlog.MagicSize { // passing over
		r.pos += uint64(h.Length)
		r.boundary = r.pos
	}
	if _, err := r.tracker.Next(ev); err != nil {
		return r.malformed(err)
	}
	r.publish()
	return nil
}

// passing tells whether what comes now lies before the position from which on
// events are stored.
func (r *receiver) passing() bool { return r.file == r.plan.at.File && r.pos < r.plan.at.Pos }

// passOver skips an event before the position from which on events are stored.
func (r *receiver) passOver(h binlog.Header) error {
	if r.pos+uint64(h.Length) > r.plan.at.Pos {
		return r.malformed(fmt.Errorf("%w: no event begins at %s", binlog.ErrMalformed, r.plan.at))
	}
	if err := r.conn.Discard(uint64(h.Length)); err != nil {
		return r.broken(err)
	}
	if err := r.ended(h); err != nil {
		return err
	}
	r.pos += uint64(h.Length)
	r.boundary = r.pos
	r.publish()
	return nil
}

// heartbeat takes the source's sign of life. Its position is behind what it has
// sent; one ahead of what came means that something did not come.
func (r *receiver) heartbeat(ctx context.Context, h binlog.Header) error {
	ev, err := r.wireEvent(h, r.sum())
	if err != nil {
		return err
	}
	hb, err := binlog.ParseHeartbeat(ev, r.sum())
	if err != nil {
		return r.malformed(err)
	}
	if hb.Name == r.file && int32(uint32(hb.Position)-uint32(r.pos)) > 0 && !r.passing() {
		return r.malformed(fmt.Errorf("%w: the source says that it has sent everything up to %d, but nothing has come since %d", binlog.ErrMalformed, hb.Position, r.pos))
	}
	r.hold, r.good = false, true
	if err := r.settle(ctx); err != nil {
		return err
	}
	r.idle = true
	r.publish()
	now := r.s.p.cfg.Now()
	r.s.p.update(func(st *Status) { st.Heartbeats, st.HeartbeatAt = st.Heartbeats+1, now })
	return nil
}
