package server

import (
	"errors"
	"fmt"
	"math"

	"kingbus/internal/binlog"
	"kingbus/internal/sql"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// showBinlogEvents answers SHOW BINLOG EVENTS, row by row: a file may have millions
// (mysql_show_binlog_events in sql/rpl_source.cc).
func (c *session) showBinlogEvents(st *sql.Show, begin newResult) error {
	list, err := c.newEventList(st)
	if err != nil {
		return c.answer(err)
	}
	if list.r != nil {
		defer list.r.Close()
	}
	rs := result(text("Log_name", 20), whole("Pos", 12), text("Event_type", 20), long("Server_id", 11), whole("End_log_pos", 12), text("Info", 20))
	c.sql.Localize(rs)
	w, err := begin(wireColumns(rs.Columns))
	if err != nil {
		return err
	}
	list.row = func(values ...any) error { return w.Row(values...) }
	if err := list.run(); err != nil {
		return c.ws.WriteError(asWireError(err))
	}
	return w.End(wire.StatusAutocommit, 0)
}

// eventList walks the events of one file.
type eventList struct {
	r           Reader // nil: there is no file yet
	file        string
	pos         uint64
	skip, count uint64 // of LIMIT
	checksum    binlog.Checksum
	row         func(values ...any) error
	rest        uint64 // bytes still to come of an event
	within      bool   // the first event begins before the place that was asked for
}

var errListed = errors.New("all rows that were asked for")

func (c *session) newEventList(st *sql.Show) (*eventList, error) {
	const errWhenExecuting = 1220 // ER_ERROR_WHEN_EXECUTING_COMMAND
	fail := func(why string) error {
		return wire.Errorf(errWhenExecuting, "Error when executing command SHOW BINLOG EVENTS: %s", why)
	}
	l := &eventList{count: math.MaxUint64, pos: max(st.From, binlog.MagicSize)}
	if st.Limit != nil {
		l.skip = st.Limit.Offset
		if st.Limit.Count > 0 { // 0 is no limit here, as with MySQL
			l.count = st.Limit.Count
		}
	}
	s := c.server.cfg.Stream
	if st.File == "" && s.Status().End.File == "" {
		return l, nil
	}
	var err error
	l.r, err = s.SeekPosition(st.File, l.pos) // nil with an error
	var inside *stream.PositionError
	if errors.As(err, &inside) && inside.Start != 0 && inside.Start < inside.At.Pos { // a source goes on with the next event
		l.pos, l.within = inside.Start, true
		l.r, err = s.SeekPosition(st.File, l.pos)
	}
	switch {
	case errors.As(err, &inside), errors.Is(err, stream.ErrNotYet) && l.pos > binlog.MagicSize: // beyond its end
		l.r = nil
		return l, nil
	case errors.Is(err, stream.ErrNoFile), errors.Is(err, stream.ErrNotYet):
		return nil, fail("Could not find target log")
	case err != nil:
		return nil, err
	}
	l.file = l.r.Start().File
	if l.pos > binlog.MagicSize {
		format, _, err := l.r.Head()
		if err != nil {
			return nil, errors.Join(err, l.r.Close())
		}
		if err := l.format(format); err != nil {
			return nil, errors.Join(err, l.r.Close())
		}
	}
	return l, nil
}

func (l *eventList) format(ev []byte) error {
	f, err := binlog.ParseFormatDescription(ev)
	l.checksum = f.Checksum
	return err
}

func (l *eventList) run() error {
	if l.r == nil {
		return nil
	}
	for {
		chunk, err := l.r.Next()
		if err == stream.ErrEnd || err == nil && chunk.File != l.file {
			return nil
		}
		if err != nil {
			return err
		}
		for data := chunk.Data; len(data) > 0; {
			n, err := l.event(data)
			if err == errListed {
				return nil
			}
			if err != nil {
				return fmt.Errorf("%s:%d: %w", l.file, l.pos, err)
			}
			data = data[n:]
		}
	}
}

// event prints the event at the beginning of data, and returns how much of it was there.
func (l *eventList) event(data []byte) (int, error) {
	if l.rest > 0 {
		n := min(l.rest, uint64(len(data)))
		l.rest -= n
		return int(n), nil
	}
	h, err := binlog.ParseHeader(data)
	if err != nil {
		return 0, err
	}
	n := min(uint64(h.Length), uint64(len(data)))
	ev := data[:n]
	at, end := l.pos, l.pos+uint64(h.Length)
	l.pos, l.rest = end, uint64(h.Length)-n
	if h.Type == binlog.TypeFormatDescription {
		if err := l.format(ev); err != nil {
			return 0, err
		}
	}
	if l.within {
		l.within = false
		return int(n), nil
	}
	if err := l.print(at, h, ev, l.checksum, end); err != nil {
		return 0, err
	}
	if h.Type == binlog.TypeTransactionPayload && l.rest == 0 {
		inner, _ := binlog.PayloadEvents(ev, l.checksum) // what cannot be read is not shown
		for _, ev := range inner {
			h, err := binlog.ParseHeader(ev)
			if err != nil {
				return 0, err
			}
			h.LogPos = uint32(end)
			if err := l.print(end, h, ev, binlog.ChecksumNone, end); err != nil {
				return 0, err
			}
		}
	}
	return int(n), nil
}

// print writes the row of an event, unless LIMIT leaves it out. A source counts the
// events of a payload like others.
func (l *eventList) print(at uint64, h binlog.Header, ev []byte, sum binlog.Checksum, end uint64) error {
	if l.skip > 0 {
		l.skip--
		return nil
	}
	if l.count == 0 {
		return errListed
	}
	l.count--
	if h.LogPos == 0 { // as MariaDB writes within transactions, and shows
		end = 0
	}
	return l.row(l.file, at, h.Type.String(), uint64(h.ServerID), end, binlog.Info(ev[:min(len(ev), binlog.MaxWhole)], sum))
}
