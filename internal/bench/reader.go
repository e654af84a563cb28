package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	mathrand "math/rand/v2"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
	"kingbus/internal/wire"
)

// reader is a replica that throws everything away: the same code against both sides, and cheap.
type reader struct {
	client *wire.Client
	id     uint32
}

const readerBuffer = 256 << 10 // bytes

// openReader logs in and says what a replica says.
func (b *bench) openReader(ctx context.Context, addr string) (*reader, error) {
	c, err := wire.Dial(ctx, wire.ClientConfig{
		Address: addr, User: account, Password: []byte(b.password),
		TLSMode: wire.TLSDisabled, GetServerPublicKey: true, ReadBuffer: readerBuffer,
		Attributes: wire.ReplicaAttributes("kingbus-bench", "9.7.0", ""),
	})
	if err != nil {
		return nil, err
	}
	r := &reader{client: c, id: 1<<29 | mathrand.Uint32()>>4}
	// A uuid of its own: a second replica with the same one ends the first one's dump.
	for _, sql := range []string{
		"SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum",
		fmt.Sprintf("SET @slave_uuid = '%s', @replica_uuid = @slave_uuid", gtid.UUID{0: 0xbe, 4: byte(r.id >> 24), 5: byte(r.id >> 16), 14: byte(r.id >> 8), 15: byte(r.id)}),
	} {
		if _, err := c.Exec(ctx, sql); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", sql, err), c.Close())
		}
	}
	return r, nil
}

// request asks for what is not in have, up to the end of the binlog.
func (r *reader) request(have gtid.Set) error { return r.dump(have, nonBlock) }

// follow asks for what is not in have and for all that comes later.
func (r *reader) follow(have gtid.Set) error { return r.dump(have, 0) }

const nonBlock = 1 // BINLOG_DUMP_NON_BLOCK

// dump sends COM_BINLOG_DUMP_GTID (sql/rpl_source.cc): u8 0x1e, u16 flags, u32 server id, u32 length of the file name,
// u64 position, u32 length of the set, the set.
func (r *reader) dump(have gtid.Set, flags byte) error {
	b := []byte{wire.ComBinlogDumpGTID, flags, 0}
	b = binary.LittleEndian.AppendUint32(b, r.id)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, binlog.MagicSize)
	set := have.AppendBinary(nil)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(set)))
	return r.client.Command(append(b, set...))
}

// received is what a reader got, without what exists on the wire only and what is sent again in the middle of a file.
type received struct {
	events, bytes uint64
}

// next reads one event and throws it away but for its header. io.EOF is the server's EOF.
func (r *reader) next() (binlog.Header, error) {
	h, err := r.head()
	if err != nil {
		return h, err
	}
	return h, r.client.Conn().DiscardPayload()
}

// head waits for the next event and leaves it unread.
func (r *reader) head() (binlog.Header, error) {
	conn := r.client.Conn()
	if err := conn.NextPayload(); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return binlog.Header{}, err
	}
	head, err := conn.Peek(1 + binlog.HeaderSize)
	if err != nil && err != io.EOF {
		return binlog.Header{}, err
	}
	if len(head) == 0 || head[0] != 0 {
		if n, _ := conn.PacketRemaining(); len(head) > 0 && head[0] == 0xfe && n < 9 {
			return binlog.Header{}, io.EOF
		}
		n, _ := conn.PacketRemaining()
		if head, err = conn.Peek(min(n, 4096)); err != nil && err != io.EOF {
			return binlog.Header{}, err
		}
		return binlog.Header{}, wire.ParseError(head)
	}
	return binlog.ParseHeader(head[1:])
}

// drain reads to the end of the binlog.
func (r *reader) drain() (received, error) {
	var got received
	for {
		h, err := r.next()
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, fmt.Errorf("after %d events: %w", got.events, err)
		}
		if !h.Artificial() && !h.Type.IsHeartbeat() && h.Type != binlog.TypeFormatDescription {
			got.events++
			got.bytes += uint64(h.Length)
		}
	}
}

// latency is how long after the request something came.
type latency struct {
	packet time.Duration // anything
	event  time.Duration // the first transaction
}

// firstEvent requests what is not in have, and reads until a transaction begins.
func (r *reader) firstEvent(have gtid.Set) (latency, error) {
	var l latency
	began := time.Now()
	if err := r.request(have); err != nil {
		return l, err
	}
	for {
		h, err := r.next()
		if err != nil {
			return l, fmt.Errorf("wait for the first transaction: %w", err)
		}
		if l.packet == 0 {
			l.packet = time.Since(began)
		}
		if h.Type.IsGTID() {
			l.event = time.Since(began)
			return l, nil
		}
	}
}

// readAll opens a reader, reads everything and closes it. The time is that from the request to the end.
func (b *bench) readAll(ctx context.Context, addr string) (got received, took time.Duration, err error) {
	r, err := b.openReader(ctx, addr)
	if err != nil {
		return got, 0, err
	}
	stop := r.client.Conn().CloseOn(ctx)
	began := time.Now()
	if err = r.request(gtid.Set{}); err == nil {
		got, err = r.drain()
	}
	took = time.Since(began)
	if !stop() {
		err = context.Cause(ctx)
	}
	_ = r.client.Close() // everything that was wanted has come
	if err != nil {
		err = fmt.Errorf("read from %s: %w", addr, err)
	}
	return got, took, err
}
