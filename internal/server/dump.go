package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
	"kingbus/internal/hook"
	"kingbus/internal/segment"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// Texts of error 1236 (sql/rpl_binlog_sender.cc, share/messages_to_clients.txt,
// wording of 8.0.26 and later): tools match on them.
const (
	textNoFile    = "Could not find first log file name in binary log index file"
	textTooSmall  = "Client requested source to start replication from position < 4"
	textTooLarge  = "Client requested source to start replication from position > file size"
	textTruncated = "binlog truncated in the middle of event; consider out of disk space on source"
	textBogus     = "bogus data in log event"
	textExceeded  = "log event entry exceeded max_allowed_packet; Increase max_allowed_packet on source"
	textSameUUID  = "A replica with the same server_uuid/server_id as this replica has connected to the source"
)

// maxPacketOfSource is what a source takes for the greatest event
// (replica_max_allowed_packet at its default, and room for a header).
const maxPacketOfSource = 1<<30 + binlog.HeaderSize

// maxErrorText is the longest text of an error packet, in bytes
// (MYSQL_ERRMSG_SIZE less its NUL).
const maxErrorText = 511

// Why a dump ends, as the cause of its context.
var (
	errKicked    = fatal(textSameUUID)
	errGone      = errors.New("the client is gone")
	errKillQuery = errors.New("KILL QUERY")
	errKilled    = errors.New("KILL")
	errComeBack  = errors.New("the replica is ahead of this node")
	errUnsure    = fmt.Errorf("the cluster does not tell what this node lacks: %w", errComeBack)
	errShutdown  = errors.New("the server shuts down")
	errMariaGTID = fatal("kingbus does not serve the GTIDs of MariaDB yet; use the file and the position: CHANGE MASTER TO MASTER_USE_GTID=no, MASTER_LOG_FILE='...', MASTER_LOG_POS=...")
)

// lastWords is how long a dump may take to tell its client how it ends.
const lastWords = 2 * time.Second

// dump answers a dump request until it ends; the connection is closed after it.
// While it runs another goroutine reads the connection, which does not answer:
// connectors send COM_PING to keep it alive, and a client that is gone shows
// itself there.
func (c *session) dump(ctx context.Context, req dumpRequest) {
	s := c.server
	s.count.dumps.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.ws.SetTimeouts(0, 0)
	c.ws.SplitSequence()
	c.beginDump(req, cancel)
	s.kick(c)
	d := c.newSender(req)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.watch(cancel, &d.observed)
	}()
	defer func() { // the watcher ends when the connection is closed
		_ = c.ws.Close()
		<-watched
		d.unobserve(s.refusal() != nil)
	}()

	d.log.Info("dump starts", "file", req.file, "pos", req.pos, "request", req.String())
	// MySQL's own check is of the server that it connects to, which is another one here. Programs
	// that are no server (they have no uuid) take all events whatever their id.
	if req.serverID != 0 && req.serverID == s.cfg.Stream.Status().Source.ServerID && c.replicaUUID() != "" {
		d.log.Warn("this replica has the server_id of the source: it skips the source's transactions, as if they were its own",
			"next_step", "give it another server_id, and make its copy of the data again")
	}
	err := c.stream(ctx, d)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
		if errors.Is(err, context.Canceled) {
			err = errShutdown
		}
	}
	d.here().Info("dump ends", "cause", causeText(err))
	c.pc.finishWithin(lastWords)
	c.farewell(d, err)
}

func causeText(err error) string {
	if err == nil {
		return "the end of the binlog"
	}
	return err.Error()
}

// watch reads what the client sends during the dump, until it is gone.
func (c *session) watch(cancel context.CancelCauseFunc, observed *atomic.Pointer[observation]) {
	for {
		cmd, rest, err := c.ws.ReadCommand(commandBuffer)
		if err != nil || cmd == wire.ComQuit {
			cancel(errGone)
			_ = c.ws.Close() // ends a write that waits for the client
			return
		}
		if o := observed.Load(); o != nil && cmd != wire.ComPing {
			packet := append([]byte{cmd}, rest...)
			for _, by := range o.by {
				by.Received(&o.dump, packet)
			}
		}
	}
}

// farewell tells the client how the dump ended: EOF and other errors than 1236
// mean "come back". These errors are 1053, as replicas count it among those of the
// network: with any other one a replica that has used up its attempts stops for
// good, although it has a list of sources to fail over to (seen with 9.7.4).
func (c *session) farewell(d *sender, err error) {
	var f *fatalError
	var w *wire.Error
	var corrupt *segment.CorruptError
	var broken *net.OpError // the client took nothing for too long, or reset the connection
	switch {
	case errors.Is(err, errGone), errors.Is(err, errKilled), errors.As(err, &broken):
		return
	case err == nil, errors.Is(err, errKillQuery), errors.Is(err, errShutdown), errors.Is(err, stream.ErrClosed):
		err = c.ws.WriteEOF(0x0002, 0)
	case errors.As(err, &f):
		if d.started {
			errors.As(d.located(err), &f)
		}
		err = c.ws.WriteError(wire.Errorf(wire.ErSourceFatalReadingBinlog, "%s", f.text))
	case errors.As(err, &w):
		err = c.ws.WriteError(w)
	case errors.Is(err, errComeBack), errors.Is(err, stream.ErrPurgedAway), errors.Is(err, stream.ErrNotYet), errors.Is(err, stream.ErrNoFile):
		// The last two: what was there for seek is there no more.
		if refusal := c.server.refusal(); refusal != nil { // the log is being replaced by a snapshot
			err = c.ws.WriteError(refusal)
			break
		}
		err = d.comeBack(err, c.server.cfg.Stream.Status())
	case errors.As(err, &corrupt):
		d.here().Error("the binlog on this node is damaged: its replicas are sent away", "path", corrupt.File, "offset", corrupt.Offset, "error", err)
		err = c.ws.WriteError(wire.Errorf(wire.ErServerShutdown, "kingbus: the binlog on this node is damaged%s; come back when it was repaired from another node, or use another node", d.where()))
	default:
		d.here().Error("a dump failed", "error", err)
		err = c.ws.WriteError(wire.Errorf(wire.ErServerShutdown, "kingbus: %v", err))
	}
	if err == nil {
		err = c.ws.Flush()
	}
	if err != nil {
		d.here().Debug("could not say how the dump ended", "error", err)
	}
}

// newSender takes what the client has set before its request.
func (c *session) newSender(req dumpRequest) *sender {
	st := c.server.cfg.Stream.Status()
	d := &sender{
		conn: c.ws, report: c.report, log: c.log.With("replica", hook.ReplicaName(c.replicaUUID(), req.serverID), "server_id", req.serverID), req: req, serverID: st.Identity.ServerID, ofMaria: binlog.IsMariaDB(st.Source.Version),
		period: c.heartbeatPeriod(), v2: req.flags&flagHeartbeatV2 != 0 && c.isMySQL(), checksum: binlog.ChecksumNone,
		capability: c.mariaCapability(), annotate: req.flags&flagAnnotate != 0 && !c.isMySQL(),
	}
	switch v := c.eitherVariable("source_binlog_checksum", "master_binlog_checksum"); {
	case v.IsNull():
		d.undefined = true
	case strings.EqualFold(v.Text(), "CRC32"):
		d.checksum = binlog.ChecksumCRC32
	}
	return d
}

// heartbeatPeriod is what the client asked for, in nanoseconds; 0: none.
func (c *session) heartbeatPeriod() time.Duration {
	v := c.eitherVariable("source_heartbeat_period", "master_heartbeat_period")
	ns, ok := v.Uint64()
	if !ok {
		ns = uint64(min(max(0, v.Float64()), 1<<62))
	}
	if ns == 0 {
		return 0
	}
	return max(time.Duration(min(ns, math.MaxInt64/2)), minHeartbeat)
}

// isMySQL: MySQL's replicas name their uuid, MariaDB's never do, but a
// capability. Alibaba's canal sets both towards everybody.
func (c *session) isMySQL() bool {
	return c.replicaUUID() != "" && c.sql.UserVariable("mariadb_slave_capability").IsNull()
}

// mariaCapability is what the client says that it understands of MariaDB's events.
func (c *session) mariaCapability() int {
	n, _ := c.sql.UserVariable("mariadb_slave_capability").Uint64()
	return int(min(n, binlog.MariaAll))
}

// stream finds the place to start and sends from there.
func (c *session) stream(ctx context.Context, d *sender) error {
	if refusal := c.server.refusal(); refusal != nil {
		return refusal
	}
	if !c.sql.UserVariable("slave_connect_state").IsNull() {
		return errMariaGTID
	}
	if d.serverID == 0 { // the cluster has no identity yet
		return errComeBack
	}
	r, err := c.seek(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	if len(c.server.cfg.Hooks.Transmit) > 0 {
		if err := d.observe(c.server.cfg.Hooks.Transmit, c.hookDump(d, r.Start())); err != nil {
			return err
		}
	}
	if err := d.start(r); err != nil {
		return err
	}
	return d.run(ctx, c.server.cfg.Stream, r)
}

// seek finds the reader for the request. While the replica is ahead of this node
// it waits, and before the replica hears that something is not there this node
// makes sure that it has all that was committed: both for a bounded time.
func (c *session) seek(ctx context.Context, d *sender) (Reader, error) {
	s := c.server.cfg.Stream
	ctx, cancel := context.WithTimeout(ctx, c.server.cfg.CatchUp)
	defer cancel()
	caughtUp := false
	for {
		changed := s.Changed()
		r, err := seekNow(s, d)
		var f *fatalError
		switch {
		case errors.Is(err, errComeBack):
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, err
			}
			if refusal := c.server.refusal(); refusal != nil {
				return nil, refusal
			}
		case errors.As(err, &f) && f.doubtful && !caughtUp:
			if e := s.CatchUp(ctx); e != nil {
				return nil, fmt.Errorf("%w, to be sure that %q: %w", errUnsure, f.text, e)
			}
			caughtUp = true
		default:
			return r, err
		}
	}
}

// seekNow is one attempt of seek. What this node has, the whole cluster has: where
// events begin, where a finished file ends, what was purged. So an error about
// that is certain. What this node does not have may be there elsewhere: such an
// error is doubtful, or errComeBack if it may come even to the cluster.
func seekNow(s Stream, d *sender) (Reader, error) {
	// MariaDB and MySQL 5.5 know no such command.
	if src := s.Status().Source; d.req.gtidMode && src.UUID == "" && src.Version != "" {
		return nil, wire.Errorf(wire.ErUnknownCom, "Unknown command")
	}
	if !d.req.gtidMode || d.req.file != "" {
		return seekPosition(s, d, d.req.file)
	}
	r, err := seekGTID(s, d.req.have)
	if err != nil {
		return nil, err
	}
	file := r.Start().File
	if d.clearCreated, err = skipsFirst(s, file, d.req.have); err != nil {
		_ = r.Close()
		return nil, err
	}
	if d.req.pos == binlog.MagicSize {
		return r, nil
	}
	// Nobody asks for a position without a file; a source takes it as one in the
	// file that the set leads to.
	_ = r.Close()
	return seekPosition(s, d, file)
}

// seekPosition finds the reader for the request's position in a file.
func seekPosition(s Stream, d *sender, file string) (Reader, error) {
	d.byPosition = true
	r, err := s.SeekPosition(file, max(d.req.pos, binlog.MagicSize))
	var inside *stream.PositionError
	switch {
	case errors.Is(err, stream.ErrNoFile):
		return nil, doubtful(textNoFile)
	case errors.Is(err, stream.ErrNotYet):
		return nil, errComeBack
	case err == nil && d.req.pos < binlog.MagicSize:
		_ = r.Close()
		return nil, d.impossible(textTooSmall)
	case errors.As(err, &inside):
		return insideEvent(s, d, inside)
	}
	return r, err
}

// insideEvent refuses a position that is no boundary. A source only notices when
// it reads there, so the beginning of the file goes out first; what it says then
// depends on what the bytes there look like.
func insideEvent(s Stream, d *sender, e *stream.PositionError) (Reader, error) {
	for _, f := range s.Status().Files {
		if f.Name != e.At.File {
			continue
		}
		if e.At.Pos > f.Size {
			return nil, d.impossible(textTooLarge)
		}
		d.misaligned, d.misread = textTruncated, f.Size
	}
	r, err := s.SeekPosition(e.At.File, e.Start)
	if err != nil {
		return nil, err
	}
	c, err := r.Next()
	if err == nil && e.At.Pos-e.Start+binlog.HeaderSize <= uint64(len(c.Data)) {
		const lengthAt = 9 // in an event's header
		length := binary.LittleEndian.Uint32(c.Data[e.At.Pos-e.Start+lengthAt:])
		switch {
		case length < binlog.HeaderSize:
			d.misaligned, d.misread = textBogus, e.At.Pos+binlog.HeaderSize
		case length > maxPacketOfSource:
			d.misaligned, d.misread = textExceeded, e.At.Pos+binlog.HeaderSize
		}
	}
	_ = r.Close()
	return s.SeekPosition(e.At.File, e.Start)
}

// seekGTID finds the reader for a set.
func seekGTID(s Stream, have gtid.Set) (Reader, error) {
	st := s.Status()
	if mode := st.Source.Variables["gtid_mode"]; mode != "" && !strings.EqualFold(mode, "ON") {
		return nil, doubtful("The replication sender thread cannot start in AUTO_POSITION mode: this server has GTID_MODE = %.192s instead of ON.", mode)
	}
	r, err := s.SeekGTID(have)
	var purged *stream.PurgedError
	switch {
	case errors.As(err, &purged):
		return nil, fatal("%s", purgedText(have, purged.Missing))
	case errors.Is(err, stream.ErrNotYet):
		return nil, errComeBack
	case err != nil:
		return nil, err
	}
	if !ahead(have, st).IsEmpty() {
		_ = r.Close()
		return nil, errComeBack
	}
	return r, nil
}

// ahead returns the transactions that the replica has and this node has not, of
// the servers that the stream has followed. Others are the replica's own
// business.
func ahead(have gtid.Set, st stream.Status) gtid.Set {
	var out gtid.Set
	for _, text := range st.Followed {
		if u, err := gtid.ParseUUID(text); err == nil {
			out.AddSet(have.FilterUUID(u).Subtract(st.Executed))
		}
	}
	return out
}

// start sends what comes before the first chunk: the fake ROTATE, and the
// beginning of the file where the first chunk is not it.
func (d *sender) start(r Reader) error {
	start := r.Start()
	d.started = true
	if err := d.enter(stream.Coordinates{File: start.File, Pos: d.req.pos}); err != nil {
		return err
	}
	d.last, d.lastFile, d.pos = binlog.MagicSize, d.file, start.Pos
	if !d.byPosition {
		return d.startGTID(r)
	}
	if start.Pos == binlog.MagicSize && d.misaligned == "" {
		return nil
	}
	format, previous, err := head(r)
	if err != nil {
		return err
	}
	d.last += uint64(len(format))
	d.pos = d.last
	if err := d.format(format, true); err != nil {
		return err
	}
	if d.req.gtidMode {
		d.last += uint64(len(previous)) // a source reads it to see whether it is there
	}
	d.pos = start.Pos
	switch {
	case d.misaligned != "" && d.ofMaria:
		d.last, d.pos = d.req.pos, d.req.pos+binlog.HeaderSize
		return fatal("%s", strings.Replace(d.misaligned, " on source", " on master", 1))
	case d.misaligned != "":
		d.pos = d.misread
		return fatal("%s", d.misaligned)
	}
	return nil
}

// startGTID sends the beginning of the file, if the reader begins behind it, and
// notes that the replica has to hear of what that passed over.
func (d *sender) startGTID(r Reader) error {
	start := r.Start()
	if start.Pos == binlog.MagicSize {
		return nil
	}
	format, previous, err := r.Head()
	if err != nil {
		return err
	}
	d.last += uint64(len(format))
	if err := d.format(format, true); err != nil {
		return err
	}
	if len(previous) > 0 {
		d.last += uint64(len(previous))
		if err := d.write(uint64(len(previous)), previous, d.last, binlog.TypePreviousGTIDs); err != nil {
			return err
		}
	}
	if start.Pos > binlog.MagicSize+uint64(len(format)+len(previous)) {
		d.skippedTo = start.Pos
	}
	return nil
}

// head returns the FDE of the reader's file, also if the reader begins with it.
func head(r Reader) (format, previous []byte, err error) {
	if r.Start().Pos > binlog.MagicSize {
		return r.Head()
	}
	c, err := r.Next()
	if err != nil {
		return nil, nil, err
	}
	h, err := binlog.ParseHeader(c.Data)
	if err != nil {
		return nil, nil, err
	}
	return c.Data[:min(int(h.Length), len(c.Data))], nil, nil
}

// comeBack sends the replica away without stopping it. A replica counts the
// attempts to reconnect that brought no event (SOURCE_RETRY_COUNT, 10 by default
// since 8.4) and then stops for good, so it gets one first: the fake ROTATE that
// any dump begins with.
func (d *sender) comeBack(why error, st stream.Status) error {
	at := stream.Coordinates{File: d.req.file, Pos: d.req.pos}
	if at.File == "" && d.req.gtidMode { // by position it would move the replica
		at = stream.Coordinates{File: st.End.File, Pos: binlog.MagicSize}
	}
	if !d.started && binlog.ValidName(at.File) == nil && at.Pos >= binlog.MagicSize {
		if err := d.enter(at); err != nil {
			return err
		}
	}
	text := "kingbus: this node does not have yet what the replica asks for; come back"
	switch {
	case st.End.File == "":
		text = "kingbus: nothing was received from the source yet; come back"
	case errors.Is(why, errUnsure):
		text = "kingbus: this node does not have what the replica asks for, and cannot find out now whether the cluster has; come back"
	}
	return d.conn.WriteError(wire.Errorf(wire.ErServerShutdown, "%s", text))
}

// purgedText is ER_SERVER_SOURCE_HAS_PURGED_REQUIRED_GTIDS with its details,
// which a source leaves out where the text would be cut.
func purgedText(have, missing gtid.Set) string {
	const start = "Cannot replicate because the source purged required binary logs. Replicate the missing transactions from elsewhere, " +
		"or provision a new replica from backup. Consider increasing the source's binary log expiration period. "
	text := start + "The GTID set sent by the replica is '" + have.String() + "', and the missing transactions are '" + missing.String() + "'"
	if len(text) > maxErrorText+1 { // one more is printed, and its last byte cut
		text = start + "The GTID sets and the missing purged transactions are too long to print in this message. " +
			"For more information, please see the source's error log or the manual for GTID_SUBTRACT"
	}
	return text
}
