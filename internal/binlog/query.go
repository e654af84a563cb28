package binlog

import "encoding/binary"

const queryHeader = 13

// Query is a QUERY event: a statement, or BEGIN, COMMIT and the like.
//
//	off size field, after the header
//	  0    4 thread
//	  4    4 execution time, seconds
//	  8    1 length of the schema's name
//	  9    2 error code
//	 11    2 length of the status variables
//	 13      status variables, schema, NUL, statement up to the end
type Query struct {
	Thread     uint32
	ExecTime   uint32
	ErrorCode  uint16
	StatusVars []byte
	Schema     []byte
	Text       []byte // as much of the statement as was given
	TextLength int    // of the whole statement, in bytes
}

// ParseQuery reads a QUERY event, of which head is the beginning: at least the
// lesser of its length and MaxWhole bytes. The slices point into head.
func ParseQuery(head []byte, c Checksum) (Query, error) {
	h, err := ParseHeader(head)
	if err != nil {
		return Query{}, err
	}
	if h.Type != TypeQuery {
		return Query{}, malformed(h.Type, "not a Query event")
	}
	if err := fits(h, head); err != nil {
		return Query{}, err
	}
	end := int(h.Length) - c.Size() // of the body
	b := head[HeaderSize:max(HeaderSize, min(len(head), end))]
	if len(b) < queryHeader {
		return Query{}, malformed(h.Type, "%d bytes are too short", h.Length)
	}
	q := Query{
		Thread:    binary.LittleEndian.Uint32(b),
		ExecTime:  binary.LittleEndian.Uint32(b[4:]),
		ErrorCode: binary.LittleEndian.Uint16(b[9:]),
	}
	schema, status := int(b[8]), int(binary.LittleEndian.Uint16(b[11:]))
	b = b[queryHeader:]
	if len(b) < status+schema+1 || b[status+schema] != 0 {
		return Query{}, malformed(h.Type, "no room for %d bytes of status variables and a schema of %d", status, schema)
	}
	q.StatusVars, q.Schema = b[:status], b[status:status+schema]
	q.Text = b[status+schema+1:]
	q.TextLength = end - HeaderSize - queryHeader - status - schema - 1
	return q, nil
}

// ParseXID reads a whole XID event: the number of the transaction that it
// commits, meaningful to the server only.
func ParseXID(ev []byte, c Checksum) (uint64, error) {
	_, body, err := event(ev, c, TypeXID)
	if err != nil {
		return 0, err
	}
	if len(body) != 8 {
		return 0, malformed(TypeXID, "%d bytes instead of 8", len(body))
	}
	return binary.LittleEndian.Uint64(body), nil
}

// XAPrepare is an XA_PREPARE event. Body: u8 one phase, u32 format, u32 length
// of the gtrid, u32 length of the bqual, both.
type XAPrepare struct {
	OnePhase bool // also the commit
	Format   uint32
	GTRID    []byte // at most 64 bytes, as BQUAL; both point into the event
	BQUAL    []byte
}

// ParseXAPrepare reads a whole XA_PREPARE event.
func ParseXAPrepare(ev []byte, c Checksum) (XAPrepare, error) {
	_, body, err := event(ev, c, TypeXAPrepare)
	if err != nil {
		return XAPrepare{}, err
	}
	r := reader{rest: body}
	x := XAPrepare{OnePhase: r.uint(1) != 0, Format: uint32(r.uint(4))}
	n, m := r.uint(4), r.uint(4)
	x.GTRID, x.BQUAL = r.bytes(n), r.bytes(m)
	if r.bad || n > 64 || m > 64 {
		return XAPrepare{}, malformed(TypeXAPrepare, "%x", body[:min(len(body), 200)])
	}
	return x, nil
}

// Incident is an INCIDENT event: the source may have lost events. Replicas
// stop at it. Body: u16 number, u8 length, text.
type Incident struct {
	Number uint16 // 1: lost events
	Text   string
}

// ParseIncident reads a whole INCIDENT event.
func ParseIncident(ev []byte, c Checksum) (Incident, error) {
	_, body, err := event(ev, c, TypeIncident)
	if err != nil {
		return Incident{}, err
	}
	r := reader{rest: body}
	i := Incident{Number: uint16(r.uint(2))}
	i.Text = string(r.bytes(r.uint(1)))
	if r.bad {
		return Incident{}, malformed(TypeIncident, "%x", body[:min(len(body), 200)])
	}
	return i, nil
}

// PayloadHeader describes a TRANSACTION_PAYLOAD event, the compressed events
// of a transaction. Body: fields of a length-encoded type, length and value (0
// the end, without length; 1 payload size; 2 compression; 3 uncompressed
// size), then the payload.
type PayloadHeader struct {
	Compression  uint64 // 0 zstd, 255 none
	Uncompressed uint64 // bytes
	Size         uint64 // of the payload, bytes
	Offset       int    // of the payload within the event
}

// ParsePayloadHeader reads the start of a TRANSACTION_PAYLOAD event, of which
// head is the beginning.
func ParsePayloadHeader(head []byte, c Checksum) (PayloadHeader, error) {
	h, err := ParseHeader(head)
	if err != nil {
		return PayloadHeader{}, err
	}
	if h.Type != TypeTransactionPayload {
		return PayloadHeader{}, malformed(h.Type, "not a Transaction_payload event")
	}
	if err := fits(h, head); err != nil {
		return PayloadHeader{}, err
	}
	end := int(h.Length) - c.Size()
	r := reader{rest: head[HeaderSize:max(HeaderSize, min(len(head), end))]}
	all := len(r.rest)
	var p PayloadHeader
	for {
		kind := r.lenenc()
		if r.bad || kind == 0 {
			break
		}
		value := reader{rest: r.bytes(r.lenenc())}
		switch kind {
		case 1:
			p.Size = value.lenenc()
		case 2:
			p.Compression = value.lenenc()
		case 3:
			p.Uncompressed = value.lenenc()
		}
		r.bad = r.bad || value.bad
	}
	p.Offset = HeaderSize + all - len(r.rest)
	if r.bad || p.Size != uint64(end-p.Offset) {
		return PayloadHeader{}, malformed(h.Type, "fields do not fit an event of %d bytes", h.Length)
	}
	return p, nil
}

// fits checks that head is an event's beginning of sufficient length.
func fits(h Header, head []byte) error {
	if uint64(len(head)) > uint64(h.Length) || uint64(len(head)) < min(uint64(h.Length), MaxWhole) {
		return malformed(h.Type, "%d bytes given of an event of %d", len(head), h.Length)
	}
	return nil
}
