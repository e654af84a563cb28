package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// Sizes of buffers in bytes. A dump writes through a large buffer while it has
// much to send, and gives it back when it waits.
const (
	commandBuffer = 4 << 10
	idleBuffer    = 8 << 10
	busyBuffer    = 256 << 10
)

// minHeartbeat keeps a client from making us send nothing but heartbeats; it is
// the least that CHANGE REPLICATION SOURCE takes.
const minHeartbeat = time.Millisecond

// sender sends the events of one dump. It belongs to the session's goroutine.
type sender struct {
	conn   *wire.Session
	report func(sent progress) // told after each chunk
	log    *slog.Logger        // says which replica it is

	req dumpRequest
	// byPosition: the request names where to start; otherwise its set does.
	byPosition bool
	// misaligned: that place is inside an event; what a source says when it reads
	// there, and how far it gets.
	misaligned string
	misread    uint64
	started    bool // something was sent: errors tell where
	serverID   uint32
	period     time.Duration // of heartbeats, 0: none
	v2         bool          // heartbeats of version 2, if the FDE knows them too
	ofMaria    bool          // what is served is the binlog of a MariaDB, which has its own words for errors
	// capability is what the client understands of MariaDB's events.
	capability int
	annotate   bool // the client, which is no MySQL, wants ANNOTATE_ROWS
	// undefined: the client never said that it can take checksums.
	undefined bool
	// clearCreated: FDEs lose their creation time, since the replica skips the
	// first transaction of the file where it starts, and must not drop its
	// temporary tables.
	clearCreated bool

	file     string
	pos      uint64 // how far the file was read
	last     uint64 // end of the last event that was read
	lastFile string // and its file
	// checksum is the algorithm in force: the client's wish before the first FDE.
	checksum binlog.Checksum
	types    int // greatest event type that the FDE in force knows

	omitting  bool // inside an event that this client does not get
	replacing bool // inside one of which it gets dummy instead
	dummy     binlog.MariaDummy
	skipping  bool   // inside a transaction that the client has
	skippedTo uint64 // end of what was skipped and not yet told by a heartbeat, 0: nothing

	rest    uint64 // bytes to come of an event that goes on in the next chunk
	busy    bool   // the write buffer is the large one
	sentAt  time.Time
	wrote   bool // an event, of the present chunk
	sent    progress
	scratch []byte
	zero    [1]byte

	observed atomic.Pointer[observation] // nil: by nobody; set by the session's goroutine
}

// progress is what a dump has sent.
type progress struct {
	at        stream.Coordinates
	timestamp uint32 // of the newest real event, Unix seconds
}

// run sends what the reader yields until something ends it. A nil error is the
// end of the binlog for a client that does not wait: EOF.
func (d *sender) run(ctx context.Context, s Stream, r Reader) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		c, err := r.Next()
		if err == nil {
			if err := d.chunk(c); err != nil {
				return err
			}
			continue
		}
		if err != stream.ErrEnd {
			return err
		}
		changed := s.Changed() // taken before the look that decides
		if c, err = r.Next(); err == nil {
			if err := d.chunk(c); err != nil {
				return err
			}
			continue
		}
		if err != stream.ErrEnd {
			return err
		}
		if err := d.atEnd(); err != nil {
			return err
		}
		if !d.waits() {
			return nil
		}
		if err := d.wait(ctx, changed, timer); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// waits tells whether the client wants to wait at the end of the binlog.
func (d *sender) waits() bool { return d.req.flags&flagNonBlock == 0 && d.req.serverID != 0 }

// atEnd tells the client of what was skipped last, and sends all that is
// buffered.
func (d *sender) atEnd() error {
	d.skipping = false
	if err := d.tellSkipped(); err != nil {
		return err
	}
	return d.conn.Flush()
}

// wait waits for a change of the stream, and sends heartbeats meanwhile.
func (d *sender) wait(ctx context.Context, changed <-chan struct{}, timer *time.Timer) error {
	for {
		var tick <-chan time.Time
		if d.period > 0 {
			timer.Reset(time.Until(d.sentAt.Add(d.period)))
			tick = timer.C
		}
		select {
		case <-changed:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick:
		}
		if err := d.resize(false); err != nil {
			return err
		}
		if err := d.heartbeat(d.pos); err != nil {
			return err
		}
		if err := d.conn.Flush(); err != nil {
			return err
		}
	}
}

// resize chooses the write buffer.
func (d *sender) resize(busy bool) error {
	if d.busy == busy {
		return nil
	}
	d.busy = busy
	if busy {
		return d.conn.SetWriteBuffer(busyBuffer)
	}
	return d.conn.SetWriteBuffer(idleBuffer)
}

// chunk sends a run of events, and flushes unless more can be had at once.
func (d *sender) chunk(c stream.Chunk) error {
	if c.NewFile() && d.file != c.File {
		if err := d.enter(stream.Coordinates{File: c.File, Pos: c.Pos}); err != nil {
			return err
		}
	}
	if c.Pos != d.pos {
		return fmt.Errorf("the stream goes on at %s:%d where %s:%d was expected", c.File, c.Pos, d.file, d.pos)
	}
	if c.More {
		if err := d.resize(true); err != nil {
			return err
		}
	}
	d.wrote = false
	for data := c.Data; len(data) > 0; {
		n, err := d.event(data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	if d.wrote {
		d.sentAt = time.Now()
	}
	d.sent.at = stream.Coordinates{File: d.file, Pos: d.pos}
	d.report(d.sent)
	if c.More {
		return nil
	}
	return d.conn.Flush()
}

// event deals with the event at the beginning of data, or with what is there of
// it, and returns how many bytes that were.
func (d *sender) event(data []byte) (int, error) {
	if d.rest > 0 {
		n := min(d.rest, uint64(len(data)))
		d.rest -= n
		d.pos += n
		if d.skipping {
			return int(n), d.skipped()
		}
		if d.omitting {
			return int(n), nil
		}
		piece := data[:n]
		if d.replacing {
			d.scratch = d.dummy.Next(d.scratch[:0], len(piece))
			piece = d.scratch
		}
		_, err := d.conn.Write(piece)
		if err == nil && d.rest == 0 {
			err = d.observeSent()
		}
		return int(n), err
	}
	h, err := binlog.ParseHeader(data)
	if err != nil {
		return 0, fmt.Errorf("%s:%d: %w", d.file, d.pos, err)
	}
	n := min(uint64(h.Length), uint64(len(data)))
	ev := data[:n]
	d.pos += n
	d.rest = uint64(h.Length) - n
	d.last, d.lastFile = d.pos+d.rest, d.file
	if h.Type == binlog.TypeFormatDescription && d.rest == 0 {
		d.sent.timestamp = h.Timestamp
		return int(n), d.format(ev, false)
	}
	if err := d.judge(h, ev); err != nil {
		return 0, err
	}
	if d.skipping {
		return int(n), d.skipped()
	}
	d.omitting, d.replacing = false, false
	if h.Type.IsMariaDB() {
		if ev, err = d.maria(h, ev); err != nil {
			return 0, err
		}
		if d.omitting = ev == nil; d.omitting {
			return int(n), nil
		}
	}
	if err := d.tellSkipped(); err != nil {
		return 0, err
	}
	d.sent.timestamp = h.Timestamp
	return int(n), d.write(uint64(h.Length), ev, d.last, h.Type)
}

// maria returns what the client gets for an event of MariaDB, or for what is there of
// it; nil is nothing.
func (d *sender) maria(h binlog.Header, ev []byte) ([]byte, error) {
	standalone := false
	if h.Type == binlog.TypeMariaGTID {
		g, err := binlog.ParseMariaGTID(ev, d.checksum)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", d.file, d.pos-uint64(h.Length), err)
		}
		standalone = g.Standalone
	}
	send, substitute := binlog.MariaFor(h.Type, d.capability, d.annotate, standalone)
	switch {
	case !send:
		return nil, nil
	case !substitute:
		return ev, nil
	}
	var err error
	if d.replacing = d.rest > 0; d.replacing {
		d.scratch, err = d.dummy.Begin(d.scratch[:0], ev, d.checksum)
	} else {
		d.scratch, err = binlog.AppendMariaSubstitute(d.scratch[:0], ev, d.checksum)
	}
	if err != nil { // a GTID event as long as no BEGIN can be
		return nil, fatal("Failed to replace GTID event with backwards-compatible event: corrupt event.")
	}
	return d.scratch, nil
}

// judge decides whether the event is skipped: it belongs to a transaction that
// the client has. A ROTATE never is.
func (d *sender) judge(h binlog.Header, ev []byte) error {
	if !d.req.gtidMode {
		return nil
	}
	switch h.Type {
	case binlog.TypeGTID, binlog.TypeGTIDTagged:
		g, err := binlog.ParseGTID(ev, d.checksum)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", d.file, d.pos-uint64(h.Length), err)
		}
		d.skipping = d.req.have.Contains(g.GTID)
	case binlog.TypeAnonymousGTID:
		return fatal("Cannot replicate anonymous transaction when AUTO_POSITION = 1, at file %s, position %d.", d.file, d.pos)
	case binlog.TypeRotate:
		d.skipping = false
	}
	return nil
}

// skipped notes that the replica has to hear of a skipped event's end: with the
// next event that is sent, at the end of the binlog, or now, if it has heard
// nothing for a heartbeat's time.
func (d *sender) skipped() error {
	d.skippedTo = d.pos
	if d.rest == 0 && d.period > 0 && time.Since(d.sentAt) >= d.period {
		if err := d.tellSkipped(); err != nil {
			return err
		}
		return d.conn.Flush()
	}
	return nil
}

func (d *sender) tellSkipped() error {
	if d.skippedTo == 0 {
		return nil
	}
	at := d.skippedTo
	d.skippedTo = 0
	return d.heartbeat(at)
}

// enter tells the client that a file follows: a fake ROTATE, whose checksum is
// still that of the file before.
func (d *sender) enter(at stream.Coordinates) error {
	d.file, d.pos, d.sentAt = at.File, at.Pos, time.Now()
	d.skipping, d.skippedTo = false, 0
	h := binlog.Header{ServerID: d.serverID, Flags: binlog.FlagArtificial}
	d.scratch = binlog.AppendRotate(d.scratch[:0], h, binlog.Rotate{Position: at.Pos, Name: at.File}, d.checksum)
	return d.write(uint64(len(d.scratch)), d.scratch, d.pos, onTheWire)
}

// format sends a format description. partial: the events that follow it are not
// those that follow it in the file.
func (d *sender) format(ev []byte, partial bool) error {
	f, err := binlog.ParseFormatDescription(ev)
	if err != nil {
		return fmt.Errorf("format description of %s: %w", d.file, err)
	}
	if f.Checksum == binlog.ChecksumCRC32 && d.undefined {
		return fatal("Replica can not handle replication events with the checksum that source is configured to log")
	}
	d.checksum, d.types = f.Checksum, f.Types()
	d.scratch = append(d.scratch[:0], ev...)
	ev = d.scratch
	h, err := binlog.ParseHeader(ev)
	if err != nil {
		return err
	}
	h.Flags &^= binlog.FlagInUse // the file's own checksum is computed without it
	changed := false
	if partial && !d.req.gtidMode {
		h.LogPos = 0
		changed = true
	}
	h.Put(ev)
	if changed || d.clearCreated {
		const created = binlog.HeaderSize + 2 + 50
		clear(ev[created : created+4])
		if f.HasChecksum && f.Checksum == binlog.ChecksumCRC32 {
			binlog.UpdateChecksum(ev)
		}
	}
	return d.write(uint64(len(ev)), ev, d.last, h.Type)
}

// heartbeat says where the stream stands.
func (d *sender) heartbeat(pos uint64) error {
	d.sentAt = time.Now()
	hb := binlog.Heartbeat{Name: d.file, Position: pos}
	if d.v2 && d.types >= int(binlog.TypeHeartbeatV2) {
		d.scratch = binlog.AppendHeartbeatV2(d.scratch[:0], d.serverID, hb, d.checksum)
	} else {
		var ok bool
		if d.scratch, ok = binlog.AppendHeartbeat(d.scratch[:0], d.serverID, hb, d.checksum); !ok {
			return nil // beyond 4 GiB: silence is better than a position behind the replica's
		}
	}
	return d.write(uint64(len(d.scratch)), d.scratch, pos, onTheWire)
}

// onTheWire is the type, for write, of events that are in no file; none of those has it.
const onTheWire binlog.EventType = 0

// write begins the packet of an event of the given length with what is there of
// it. The event brings the replica to end, in the present file; its type is that which it
// has there.
func (d *sender) write(length uint64, ev []byte, end uint64, of binlog.EventType) error {
	head, err := d.observeSend(length, end, of)
	if err != nil {
		return err
	}
	if err := d.conn.BeginPayload(uint64(len(head)) + length); err != nil {
		return err
	}
	if _, err := d.conn.Write(head); err != nil {
		return err
	}
	if _, err := d.conn.Write(ev); err != nil {
		return err
	}
	d.wrote = true
	if uint64(len(ev)) == length {
		return d.observeSent()
	}
	return nil
}

// fatalError is a 1236: the replica stops for good.
type fatalError struct {
	text string
	// doubtful: a node that lags behind could be wrong about it.
	doubtful bool
}

func (e *fatalError) Error() string { return e.text }

func fatal(format string, args ...any) error { return &fatalError{text: fmt.Sprintf(format, args...)} }

func doubtful(format string, args ...any) error {
	return &fatalError{text: fmt.Sprintf(format, args...), doubtful: true}
}

// here is the log for lines about the dump: they say how far it got.
func (d *sender) here() *slog.Logger { return d.log.With("file", d.file, "pos", d.pos) }

// where is for messages: how far the dump got, "" before it began.
func (d *sender) where() string {
	if !d.started {
		return ""
	}
	return fmt.Sprintf(" at %s:%d", d.file, d.pos)
}

// located adds to a 1236 that comes after streaming began where that was, in
// the words of Binlog_sender::run.
func (d *sender) located(err error) error {
	var f *fatalError
	if !errors.As(err, &f) {
		return err
	}
	return fatal("%s; the first event '%s' at %d, the last event read from '%s' at %d, the last byte read from '%s' at %d.",
		f.text, d.req.file, d.req.pos, d.path(d.lastFile), d.last, d.path(d.file), d.pos)
}

// path is a file's name as a source prints it there.
func (d *sender) path(file string) string {
	if d.ofMaria {
		return file
	}
	return "./" + file
}

// impossible refuses a position that a file cannot have; text is MySQL's.
func (d *sender) impossible(text string) error {
	if !d.ofMaria {
		return fatal("%s", text)
	}
	d.file, d.pos = d.req.file, binlog.MagicSize
	d.lastFile, d.last = d.file, d.pos
	return d.located(fatal("Client requested master to start replication from impossible position"))
}

// skipsFirst tells whether the first transaction of the file is in have.
func skipsFirst(s Stream, file string, have gtid.Set) (bool, error) {
	r, err := s.SeekPosition(file, binlog.MagicSize)
	if err != nil {
		return false, err
	}
	defer r.Close()
	var checksum binlog.Tracker
	for seen := 0; seen < 1<<20; {
		c, err := r.Next()
		if err == stream.ErrEnd {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		seen += len(c.Data)
		for data := c.Data; len(data) > 0; {
			h, err := binlog.ParseHeader(data)
			if err != nil {
				return false, err
			}
			if h.Type.IsGTID() {
				sum, _ := checksum.Checksum()
				g, err := binlog.ParseGTID(data[:min(int(h.Length), len(data))], sum)
				return err == nil && !g.GTID.IsZero() && have.Contains(g.GTID), err
			}
			if int(h.Length) > len(data) {
				return false, nil
			}
			if _, err := checksum.Next(data[:h.Length]); err != nil {
				return false, err
			}
			data = data[h.Length:]
		}
	}
	return false, nil
}
