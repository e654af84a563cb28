package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/hook"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

const (
	// maxWireEvent bounds events that exist on the wire only, in bytes.
	maxWireEvent = 64 << 10
	// maxHead bounds PREVIOUS_GTIDS and the other events that must be stored in
	// one piece, in bytes.
	maxHead = 64 << 20
)

// receiver reads the events of one connection. It belongs to one goroutine.
type receiver struct {
	s    *session
	conn *wire.Conn
	link Link
	plan plan
	// stored is the format description of the file in which the stream goes on
	// in the middle, nil if it begins a file.
	stored []byte
	atFile stream.Coordinates // where the stream is, in the source's coordinates
	// hasPrevious: PREVIOUS_GTIDS follow the format description in every file. With
	// MariaDB it is GTID_LIST, or START_ENCRYPTION, behind which alone it can resume.
	hasPrevious bool

	checksum binlog.Checksum // of artificial events, before the first format description
	tracker  binlog.Tracker
	hash     binlog.Hash
	run      run
	scratch  []byte // of events that are not stored
	more     poller

	stage stage
	file  string
	pos   uint64 // of the next event in file, counted
	// hold: the run ends behind a format description whose PREVIOUS_GTIDS are
	// certain to come; the two go together.
	hold bool

	// For the hooks: boundary is the last position in file up to which what has come
	// can be stored though nothing more comes; effect and length (in bytes) are of the
	// last event, and zero if that was a wire event.
	boundary uint64
	effect   binlog.Effect
	length   uint32

	// What the hooks are given, kept here as it would be allocated for each event.
	packet hook.Packet
	queued hook.Queued

	until untilWatch
	asked hook.Position // behind the last event about which the source wants to be told

	// good: events went into the stream, or the source said that there are none
	// to send.
	good bool

	// Not yet in the status.
	fresh    bool   // events have come
	idle     bool   // and the source has said that there are no more
	lastTime uint32 // the newest one's
}

// stage is what the source has to send next.
type stage int

const (
	stageRotate stage = iota // the fake ROTATE with which it begins
	stageFormat              // the file's format description
	stageEvents
)

// receive reads until something ends it. What is complete when that happens
// still goes into the stream.
func (r *receiver) receive(ctx context.Context) error {
	for {
		err := r.next(ctx)
		if err == nil {
			continue
		}
		if b := r.run.take(false); b != nil && !r.hold && ctx.Err() == nil {
			if lost := r.append(ctx, b); lost != nil && !isProblem(err) {
				err = lost
			}
		}
		r.publish()
		return err
	}
}

// next takes one payload.
func (r *receiver) next(ctx context.Context) error {
	if r.conn.Buffered() == 0 {
		if err := r.settle(ctx); err != nil {
			return err
		}
	}
	if err := r.conn.NextPayload(); err != nil {
		return r.broken(err)
	}
	if n, _ := r.conn.PacketRemaining(); n > r.conn.Buffered() {
		if err := r.settle(ctx); err != nil {
			return err
		}
	}
	head, err := r.conn.Peek(1 + binlog.HeaderSize)
	if err != nil && err != io.EOF {
		return r.broken(err)
	}
	if len(head) == 0 || head[0] != 0 {
		return r.end(head)
	}
	if len(r.s.cfg.Hooks.RelayIO) > 0 {
		return r.observed(ctx)
	}
	return r.bare(ctx, 1)
}

// bare takes an event that has something before it.
func (r *receiver) bare(ctx context.Context, before int) error {
	head, err := r.conn.Peek(before + binlog.HeaderSize)
	if err != nil && err != io.EOF {
		return r.broken(err)
	}
	h, err := binlog.ParseHeader(head[min(before, len(head)):])
	if err != nil {
		return r.malformed(err)
	}
	if n, last := r.conn.PacketRemaining(); n > before+int(h.Length) || last && n < before+int(h.Length) {
		return r.malformed(fmt.Errorf("%w: the %s event says that it has %d bytes, its packet has %d", binlog.ErrMalformed, h.Type, h.Length, n-before))
	}
	if err := r.conn.Discard(uint64(before)); err != nil {
		return r.broken(err)
	}
	return r.event(ctx, h)
}

// observed takes a payload with what the hooks find in it.
func (r *receiver) observed(ctx context.Context) error {
	p := &r.packet
	*p = hook.Packet{}
	for _, o := range r.s.cfg.Hooks.RelayIO {
		head, err := r.conn.Peek(1 + p.Skip + hook.HeadSize)
		if err != nil && err != io.EOF {
			return r.broken(err)
		}
		p.Head = head[min(1+p.Skip, len(head)):]
		if err := o.AfterRead(&r.s.link, p); err != nil {
			return r.malformed(err)
		}
	}
	r.effect, r.length = binlog.Effect{}, 0
	err := r.bare(ctx, 1+p.Skip)
	if err != nil && (!errors.Is(err, ErrUntilReached) || r.length == 0) {
		return err
	}
	if p.Restart {
		r.conn.SetReadSequence(1)
	}
	r.queued = hook.Queued{
		At: hook.Position{File: r.file, Pos: r.pos}, Boundary: hook.Position{File: r.file, Pos: r.boundary},
		Stored: r.length, Ended: r.effect.Ended, Asked: p.Asked,
	}
	if p.Asked {
		r.asked = r.queued.At
	}
	for _, o := range r.s.cfg.Hooks.RelayIO {
		o.AfterQueue(&r.s.link, &r.queued)
	}
	return err // nil, or that this was the last one
}

// settle is called before a wait for the socket: it proposes what is complete,
// unless more is there already, which then goes into the same run.
func (r *receiver) settle(ctx context.Context) error {
	if r.run.boundary == 0 || r.hold {
		return nil
	}
	if r.conn.Buffered() == 0 && r.conn.Ready() || r.conn.Buffered() > 0 && r.more.ready() {
		return nil
	}
	return r.append(ctx, r.run.take(false))
}

// end takes a payload that is no event: the source has nothing more to say.
func (r *receiver) end(head []byte) error {
	n, last := r.conn.PacketRemaining()
	switch {
	case len(head) == 0 || !last || n > maxWireEvent:
	case head[0] == 0xff:
		p, err := r.conn.Peek(n)
		if err != nil {
			return r.broken(err)
		}
		return fmt.Errorf("the source ended the link: %w", wire.ParseError(p))
	case head[0] == 0xfe && n < 9:
		return errSourceEnded
	}
	return r.malformed(fmt.Errorf("%w: a packet of %d bytes that is no event: %x", binlog.ErrMalformed, n, head))
}

// errSourceEnded: EOF, as sent on shutdown and for KILL QUERY.
var errSourceEnded = errors.New("the source ended the link (it is shutting down, or somebody ended the dump)")

// broken says that the connection cannot be read any more.
func (r *receiver) broken(err error) error {
	if err == io.EOF {
		err = errors.New("the source closed the connection")
	}
	return fmt.Errorf("read from the source at %s:%d: %w", r.file, r.pos, err)
}

// malformed says that the event at the present position must not be stored.
func (r *receiver) malformed(err error) error {
	action := "kingbus stored nothing of it and asks again; if it stays, look at that position with mysqlbinlog --verify-binlog-checksum on the source"
	if errors.Is(err, binlog.ErrUnsupported) {
		action = "kingbus stored nothing of it; use a version of kingbus that knows this event"
	}
	return &Problem{Kind: KindMalformed, At: stream.Coordinates{File: r.file, Pos: r.pos}, Reason: "the source sent an event that cannot be stored", Action: action, Err: err}
}

// event takes the event of which the header was seen; its bytes are next.
func (r *receiver) event(ctx context.Context, h binlog.Header) error {
	switch {
	case h.Type == binlog.TypeRotate && h.Artificial():
		return r.rotate(ctx, h)
	case r.stage == stageRotate:
		return r.malformed(fmt.Errorf("%w: a %s event where the ROTATE is due with which a source begins", binlog.ErrMalformed, h.Type))
	case h.Type.IsHeartbeat():
		return r.heartbeat(ctx, h)
	case h.Artificial(), h.Type == binlog.TypeMariaStartEncryption && h.LogPos == 0:
		// MariaDB sends the second one again on resuming behind it.
		_, err := r.wireEvent(h, r.sum())
		return err
	case r.stage == stageFormat:
		return r.format(ctx, h)
	case r.passing():
		return r.passOver(h)
	}
	if h.LogPos != 0 && h.LogPos != uint32(r.pos+uint64(h.Length)) {
		return r.malformed(fmt.Errorf("%w: the %s event says that it ends at %d (modulo 2^32), but it ends at %d: events are missing or of another length",
			binlog.ErrMalformed, h.Type, h.LogPos, r.pos+uint64(h.Length)))
	}
	if h.Length > binlog.MaxWhole && !inOnePiece(h.Type) {
		return r.large(ctx, h)
	}
	return r.whole(ctx, h)
}

// inOnePiece tells whether the stream wants events of this type uncut.
func inOnePiece(t binlog.EventType) bool {
	return t == binlog.TypePreviousGTIDs || t == binlog.TypeFormatDescription || t.IsGTID()
}

// sum is the checksum algorithm in force.
func (r *receiver) sum() binlog.Checksum {
	if sum, ok := r.tracker.Checksum(); ok {
		return sum
	}
	return r.checksum
}

func (r *receiver) badChecksum(h binlog.Header) error {
	return fmt.Errorf("%w: the checksum of the %s event of %d bytes is wrong", binlog.ErrMalformed, h.Type, h.Length)
}

// fill reads len(b) bytes of the payload.
func (r *receiver) fill(b []byte) error {
	for len(b) > 0 {
		n, err := r.conn.Read(b)
		b = b[n:]
		if err == io.EOF && len(b) > 0 {
			return r.malformed(fmt.Errorf("%w: its packets end %d bytes too early", binlog.ErrMalformed, len(b)))
		}
		if err != nil && len(b) > 0 {
			return r.broken(err)
		}
	}
	return nil
}

// whole takes an event that is stored in one piece.
func (r *receiver) whole(ctx context.Context, h binlog.Header) error {
	if h.Length > maxHead {
		return r.malformed(fmt.Errorf("%w: a %s event of %d bytes", binlog.ErrMalformed, h.Type, h.Length))
	}
	begin := len(r.run.b)
	if r.run.b == nil {
		begin = stream.RunHeader
	}
	// Memory grows as bytes come.
	for left := int(h.Length); left > 0; {
		n := min(left, max(binlog.MaxWhole, len(r.run.b)))
		if err := r.read(n); err != nil {
			r.run.cutTo(begin)
			return err
		}
		left -= n
	}
	ev := r.run.b[begin:]
	if err := r.ended(h); err != nil {
		r.run.cutTo(begin)
		return err
	}
	if err := r.check(h, ev); err != nil {
		r.run.cutTo(begin)
		return r.malformed(err)
	}
	if stop, err := r.until.refuses(ev, h, r.sum()); stop || err != nil {
		r.run.cutTo(begin)
		if stop {
			return ErrUntilReached
		}
		return r.malformed(err)
	}
	eff, err := r.tracker.Next(ev)
	if err == nil && h.Type == binlog.TypePreviousGTIDs {
		_, err = binlog.ParsePreviousGTIDs(ev, r.sum())
	}
	if err != nil {
		r.run.cutTo(begin)
		return r.malformed(err)
	}
	r.count(h, eff)
	if r.until.reached(stream.Coordinates{File: r.file, Pos: r.pos}, eff) {
		return ErrUntilReached
	}
	if r.run.full() {
		return r.append(ctx, r.run.take(true))
	}
	return nil
}

// ended checks that the payload ends where the event does.
func (r *receiver) ended(h binlog.Header) error {
	if n, last := r.conn.PacketRemaining(); n == 0 && last {
		return nil
	}
	switch _, err := r.conn.Peek(1); err {
	case io.EOF:
		return nil
	case nil:
		return r.malformed(fmt.Errorf("%w: its packets hold more than the %d bytes of the %s event", binlog.ErrMalformed, h.Length, h.Type))
	default:
		return r.broken(err)
	}
}

// check verifies the checksum of a whole event.
func (r *receiver) check(h binlog.Header, ev []byte) error {
	sum := r.sum()
	if h.Type == binlog.TypeFormatDescription {
		fd, err := binlog.ParseFormatDescription(ev)
		if err != nil {
			return err
		}
		sum = binlog.ChecksumNone
		if fd.HasChecksum {
			sum = binlog.ChecksumCRC32
		}
	}
	if sum == binlog.ChecksumCRC32 && !binlog.VerifyChecksum(ev) {
		return r.badChecksum(h)
	}
	return nil
}

// read appends n bytes of the payload to the run.
func (r *receiver) read(n int) error {
	at := len(r.run.b)
	if r.run.b == nil {
		at = stream.RunHeader
	}
	if err := r.fill(r.run.extend(n)); err != nil {
		r.run.cutTo(at)
		return err
	}
	return nil
}

// large takes an event that may be cut: it goes into the stream in pieces, so
// that its length costs no memory. The last piece waits for the checksum.
func (r *receiver) large(ctx context.Context, h binlog.Header) error {
	begin := len(r.run.b)
	if r.run.b == nil {
		begin = stream.RunHeader
	}
	if err := r.read(binlog.MaxWhole); err != nil {
		return err
	}
	head := r.run.b[begin:]
	sum := r.sum()
	r.hash.Reset(h.Length)
	_, _ = r.hash.Write(head)
	eff, err := r.tracker.Next(head)
	if err != nil {
		r.run.cutTo(begin)
		return r.malformed(err)
	}
	for left := int(h.Length) - len(head); left > 0; {
		for r.run.full() {
			// What was complete before this event first, then all of the rest.
			if err := r.append(ctx, r.run.take(true)); err != nil {
				return err
			}
		}
		n := min(left, stream.MaxRun)
		if !r.run.empty() {
			n = min(left, stream.MaxRun-(len(r.run.b)-stream.RunHeader))
		}
		at := len(r.run.b)
		if r.run.b == nil {
			at = stream.RunHeader
		}
		if err := r.read(n); err != nil {
			return err
		}
		_, _ = r.hash.Write(r.run.b[at:])
		left -= n
	}
	if err := r.ended(h); err != nil {
		return err
	}
	if sum == binlog.ChecksumCRC32 && !r.hash.Valid() {
		r.run.cutTo(r.run.boundary)
		return r.malformed(r.badChecksum(h))
	}
	r.count(h, eff)
	if r.until.reached(stream.Coordinates{File: r.file, Pos: r.pos}, eff) {
		return ErrUntilReached
	}
	if r.run.full() {
		return r.append(ctx, r.run.take(true))
	}
	return nil
}

// count notes an event that is complete and in the run.
func (r *receiver) count(h binlog.Header, eff binlog.Effect) {
	r.hold = false
	r.pos += uint64(h.Length)
	r.length = h.Length
	r.fresh, r.lastTime = true, max(r.lastTime, h.Timestamp)
	if r.effect = eff; eff.Boundary {
		r.run.mark()
		r.boundary = r.pos
	}
}

// append proposes a run; nil is none.
func (r *receiver) append(ctx context.Context, b []byte) error {
	if b == nil {
		return nil
	}
	if err := r.link.Append(ctx, b); err != nil {
		return err
	}
	r.s.progress, r.good = true, true
	r.publish()
	return nil
}

// publish brings the status up to date.
func (r *receiver) publish() {
	p := r.s.p
	now := p.cfg.Now()
	p.update(func(st *Status) {
		if r.stage == stageEvents && st.State != StateStreaming {
			st.State, st.ConnectedSince, st.Heartbeats = StateStreaming, now, 0
		}
		if r.good {
			st.Problem = nil
		}
		st.Received = stream.Coordinates{File: r.file, Pos: r.pos}
		st.LastHeard = now
		st.LastEventTime = max(st.LastEventTime, r.lastTime)
		switch {
		case r.idle:
			st.LastEventAge = 0
		case r.fresh:
			st.LastEventAge = max(0, now.Sub(time.Unix(int64(st.LastEventTime), 0)))
		}
	})
	r.fresh, r.idle = false, false
}
