package server

import (
	"kingbus/internal/binlog"
	"kingbus/internal/hook"
	"kingbus/internal/stream"
)

// observation is what the hooks have of a dump.
type observation struct {
	dump hook.Dump
	by   []hook.Transmission
	// reserved is what the observers put behind the status byte of each packet.
	reserved []byte
	sending  hook.Sending
	head     []byte // the status byte and reserved, of the present packet
}

// hookDump describes the dump of this session.
func (c *session) hookDump(d *sender, start stream.Coordinates) hook.Dump {
	st := c.status()
	out := hook.Dump{
		Session: st.Session, ServerID: st.ServerID, UUID: st.UUID, Address: st.Address, GTID: !d.byPosition,
		Variable: func(name string) string { return c.sql.UserVariable(name).Text() },
	}
	if out.From = hook.Position(start); out.GTID {
		out.Have = d.req.have
	} else {
		out.From.Pos = d.req.pos
	}
	return out
}

// observe begins the observation of a dump, if somebody wants that.
func (d *sender) observe(hooks []hook.Transmit, dump hook.Dump) error {
	o := &observation{dump: dump}
	var failed error
	for _, h := range hooks {
		by, err := h.Start(&o.dump)
		if by != nil {
			o.by = append(o.by, by)
			o.reserved = by.ReserveHeader(&o.dump, o.reserved)
		}
		if err != nil {
			failed = err
			break
		}
	}
	o.dump.Acknowledged = func(at hook.Position) {
		for _, h := range o.by {
			h.AfterAck(&o.dump, at)
		}
	}
	if len(o.by) > 0 {
		d.observed.Store(o)
	}
	return failed
}

// unobserve ends the observation, when nobody sends or receives any more. reset: the
// log was taken away.
func (d *sender) unobserve(reset bool) {
	o := d.observed.Load()
	if o == nil {
		return
	}
	for _, h := range o.by {
		if reset {
			h.AfterReset(&o.dump)
		}
		h.Stop(&o.dump)
	}
}

// observeSend tells of an event that is about to go out, and returns what stands before
// it in its packet. Parameters are those of write.
func (d *sender) observeSend(length, end uint64, of binlog.EventType) ([]byte, error) {
	o := d.observed.Load()
	if o == nil {
		return d.zero[:], nil
	}
	o.head = append(append(o.head[:0], d.zero[:]...), o.reserved...)
	o.sending = hook.Sending{
		At: hook.Position{File: d.file, Pos: end}, Length: length, Header: o.head[1:],
		Stored: of != onTheWire, Begins: of.IsGTID() || of == binlog.TypeMariaGTID,
	}
	for _, h := range o.by {
		if err := h.BeforeSend(&o.dump, &o.sending); err != nil {
			return nil, err
		}
	}
	return o.head, nil
}

// observeSent tells that the event is on its way.
func (d *sender) observeSent() error {
	o := d.observed.Load()
	if o == nil {
		return nil
	}
	if o.sending.Restart {
		d.conn.SetWriteSequence(1)
	}
	for _, h := range o.by {
		if err := h.AfterSend(&o.dump, &o.sending); err != nil {
			return err
		}
	}
	return nil
}
