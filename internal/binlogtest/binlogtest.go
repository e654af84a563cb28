// Package binlogtest makes binlog events for tests that need many of them, of a
// given size or with given GTIDs. What real servers write is in the golden files
// of internal/binlog; this only imitates it.
package binlogtest

import (
	"encoding/binary"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
)

// Writer makes the events of one binlog file after another. The zero value
// needs a UUID only.
type Writer struct {
	UUID     gtid.UUID // of the server
	ServerID uint32
	Time     uint32          // timestamp of the next event
	Checksum binlog.Checksum // of all events but the FDE, which always has one
	GNO      int64           // of the last transaction
	Executed gtid.Set        // for PREVIOUS_GTIDS
	Pos      uint64          // of the next event
}

// headerLengths are those of MySQL 9.7 (sql FDE post-header lengths).
var headerLengths = []byte{0, 13, 0, 8, 0, 0, 0, 0, 4, 0, 4, 0, 0, 0, 99, 0, 4, 26, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 10, 10, 10, 42, 42, 0, 18, 52, 0, 10, 40, 0, 0}

func (w *Writer) header(t binlog.EventType, flags uint16) binlog.Header {
	return binlog.Header{Timestamp: w.Time, Type: t, ServerID: w.ServerID, Flags: flags}
}

// event appends one event with the given body, and counts the position.
func (w *Writer) event(dst []byte, t binlog.EventType, flags uint16, body []byte) []byte {
	h := w.header(t, flags)
	size := binlog.HeaderSize + len(body)
	if w.Checksum == binlog.ChecksumCRC32 {
		size += 4
	}
	h.Length = uint32(size)
	w.Pos += uint64(size)
	h.LogPos = uint32(w.Pos)
	at := len(dst)
	dst = append(dst, make([]byte, binlog.HeaderSize)...)
	h.Put(dst[at:])
	dst = append(dst, body...)
	if w.Checksum == binlog.ChecksumCRC32 {
		dst = append(dst, 0, 0, 0, 0)
		binlog.UpdateChecksum(dst[at:])
	}
	return dst
}

// Begin appends what a file begins with behind the magic: FDE, PREVIOUS_GTIDS.
func (w *Writer) Begin(dst []byte) []byte {
	at := len(dst)
	h := w.header(binlog.TypeFormatDescription, 0)
	h.LogPos = binlog.MagicSize + 19 + 2 + 50 + 4 + 1 + uint32(len(headerLengths)) + 1 + 4
	dst = binlog.AppendFormatDescription(dst, h, binlog.FormatDescription{
		BinlogVersion: 4, ServerVersion: "9.7.4", HeaderLengths: headerLengths, HasChecksum: true, Checksum: w.Checksum,
	})
	w.Pos = binlog.MagicSize + uint64(len(dst)-at)
	body := w.Executed.AppendBinary(nil)
	return w.event(dst, binlog.TypePreviousGTIDs, 0x80, body)
}

// Transaction appends the next transaction: GTID, BEGIN, one rows event of size
// bytes, XID.
func (w *Writer) Transaction(dst []byte, size int) []byte { return w.TransactionOf(dst, size) }

// TransactionOf appends a transaction with a rows event of each size.
func (w *Writer) TransactionOf(dst []byte, sizes ...int) []byte {
	w.GNO++
	g := gtid.GTID{SID: gtid.SID{UUID: w.UUID}, GNO: w.GNO}
	w.Executed.Add(g)
	body := append([]byte{0}, w.UUID[:]...)
	body = binary.LittleEndian.AppendUint64(body, uint64(w.GNO))
	body = append(body, 2)
	body = binary.LittleEndian.AppendUint64(body, uint64(w.GNO-1))
	body = binary.LittleEndian.AppendUint64(body, uint64(w.GNO))
	dst = w.event(dst, binlog.TypeGTID, 0, body)
	dst = w.query(dst, "BEGIN")
	for _, size := range sizes {
		rows := make([]byte, max(size, 10))
		rows[6] = 1 // STMT_END
		for i := 10; i < len(rows); i++ {
			rows[i] = byte(i*31 + int(w.GNO))
		}
		dst = w.event(dst, binlog.TypeWriteRows, 0, rows)
	}
	return w.event(dst, binlog.TypeXID, 0, binary.LittleEndian.AppendUint64(nil, uint64(w.GNO)))
}

func (w *Writer) query(dst []byte, text string) []byte {
	body := make([]byte, 13)
	body[8] = 1 // length of the schema's name
	body = append(body, 'd', 0)
	return w.event(dst, binlog.TypeQuery, 0, append(body, text...))
}

// Rotate appends a real ROTATE to the next file.
func (w *Writer) Rotate(dst []byte, next string) []byte {
	body := binary.LittleEndian.AppendUint64(nil, binlog.MagicSize)
	return w.event(dst, binlog.TypeRotate, 0, append(body, next...))
}
