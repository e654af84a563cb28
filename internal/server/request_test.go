package server

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
	"kingbus/internal/wire"
)

// dumpPayload builds COM_BINLOG_DUMP.
func dumpPayload(file string, pos uint32, flags uint16, serverID uint32) []byte {
	le := binary.LittleEndian
	p := le.AppendUint32([]byte{wire.ComBinlogDump}, pos)
	p = le.AppendUint16(p, flags)
	p = le.AppendUint32(p, serverID)
	return append(p, file...)
}

// dumpGTIDPayload builds COM_BINLOG_DUMP_GTID.
func dumpGTIDPayload(file string, pos uint64, flags uint16, serverID uint32, set []byte) []byte {
	le := binary.LittleEndian
	p := le.AppendUint16([]byte{wire.ComBinlogDumpGTID}, flags)
	p = le.AppendUint32(p, serverID)
	p = le.AppendUint32(p, uint32(len(file)))
	p = append(p, file...)
	p = le.AppendUint64(p, pos)
	p = le.AppendUint32(p, uint32(len(set)))
	return append(p, set...)
}

func encodeSet(t testing.TB, text string) []byte { return mustSet(t, text).AppendBinary(nil) }

func mustSet(t testing.TB, text string) gtid.Set {
	t.Helper()
	s, err := gtid.ParseSet(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// transcript is what a server sends for a dump request, a line per packet, with
// what differs between a source and kingbus left out: the server id (and the
// checksum that covers it) of events that are in no file.
type transcript struct {
	lines []string
	full  [][]byte // the events
}

// recordDump sends the request and reads until the dump ends, or until stop.
func recordDump(t *testing.T, c *wire.Client, payload []byte, stop func(binlog.Header) bool) transcript {
	t.Helper()
	tr, err := readDump(c, payload, stop)
	if err != nil {
		t.Fatalf("%v, after %d packets: %s", err, len(tr.lines), strings.Join(tr.lines, "\n"))
	}
	return tr
}

func readDump(c *wire.Client, payload []byte, stop func(binlog.Header) bool) (tr transcript, err error) {
	if err := c.Command(payload); err != nil {
		return tr, err
	}
	for {
		p, err := c.Conn().ReadPacket(64 << 20)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
			tr.lines = append(tr.lines, "closed")
			return tr, nil
		case err != nil:
			return tr, err
		case wire.IsError(p):
			tr.lines = append(tr.lines, wire.ParseError(p).Error())
			continue
		case wire.IsEOF(p):
			tr.lines = append(tr.lines, "EOF "+hex.EncodeToString(p))
			continue
		case len(p) < 1+binlog.HeaderSize || p[0] != 0:
			return tr, fmt.Errorf("not an event: %x", p)
		}
		ev := append([]byte(nil), p[1:]...)
		h, err := binlog.ParseHeader(ev)
		if err != nil {
			return tr, err
		}
		tr.full = append(tr.full, ev)
		tr.lines = append(tr.lines, describe(h, ev))
		if stop != nil && stop(h) {
			return tr, c.Close()
		}
	}
}

func describe(h binlog.Header, ev []byte) string {
	if h.Type.IsHeartbeat() || h.Artificial() {
		sum := "no checksum"
		if binlog.VerifyChecksum(ev) {
			ev, sum = ev[:len(ev)-4], "checksum"
		}
		return fmt.Sprintf("%v ts=%d lp=%d flags=%#x %q %s", h.Type, h.Timestamp, h.LogPos, h.Flags, ev[binlog.HeaderSize:], sum)
	}
	return fmt.Sprintf("%v ts=%d len=%d lp=%d flags=%#x sha256=%.8x", h.Type, h.Timestamp, h.Length, h.LogPos, h.Flags, sha256.Sum256(ev))
}
