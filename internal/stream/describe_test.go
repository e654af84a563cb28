package stream

import (
	"strings"
	"testing"

	"kingbus/internal/binlog"
	"kingbus/internal/binlogtest"
)

// logOf builds payloads by hand: link, rotate, then the events in pieces.
func logOf(t testing.TB, events []byte, cuts ...int) [][]byte {
	t.Helper()
	link, err := encodeCommand(kindLink, 1, linkCommand{Source: Source{UUID: testUUID.String(), Host: "db"}})
	if err != nil {
		t.Fatal(err)
	}
	rotate, err := encodeCommand(kindRotate, 2, rotateCommand{Epoch: 1, Name: "b.000001", SourceName: "b.000001"})
	if err != nil {
		t.Fatal(err)
	}
	payloads := [][]byte{link, rotate}
	from := 0
	for _, to := range append(cuts, len(events)) {
		payloads = append(payloads, eventsAt(1, binlog.MagicSize+uint64(from), events[from:to]))
		from = to
	}
	return payloads
}

func eventsAt(epoch, pos uint64, events []byte) []byte {
	p := make([]byte, eventsHeaderSize, eventsHeaderSize+len(events))
	eventsHeader{file: 1, epoch: epoch, pos: pos, sourcePos: pos}.put(p)
	return append(p, events...)
}

func TestWalker(t *testing.T) {
	w := binlogtest.Writer{UUID: testUUID, ServerID: 7, Time: 1700000000, Checksum: binlog.ChecksumCRC32}
	events := w.Begin(nil)
	head := len(events)
	events = w.Transaction(events, 5000)
	cut := head + 3000 // inside the event with the rows
	sum := func(payloads [][]byte) (d Description, damage error) {
		var walker Walker
		for i, p := range payloads {
			one, err := walker.Entry(uint64(i+1), p)
			if err != nil && damage == nil {
				damage = err
			}
			d.Events += one.Events
			d.Checked += one.Checked
			if one.Dead {
				d.Bytes++
			}
		}
		return d, damage
	}
	if d, err := sum(logOf(t, events, head, cut)); err != nil || d.Events != 6 || d.Checked != 6 || d.Bytes != 0 {
		t.Errorf("whole log: %+v, %v", d, err)
	}

	damaged := append([]byte{}, events...)
	damaged[cut+10] ^= 1
	if _, err := sum(logOf(t, damaged, head, cut)); err == nil || !strings.Contains(err.Error(), "b.000001:") || !strings.Contains(err.Error(), "CRC32") {
		t.Errorf("damaged event: %v", err)
	}

	// A run of an older epoch, and one behind a run that was dropped, do not count.
	payloads := logOf(t, events[:head])
	payloads = append(payloads, eventsAt(99, 4+uint64(head), []byte("not events at all, which nobody looks at")), eventsAt(1, 9999, []byte("nor are these, which come too late in it")))
	if d, err := sum(payloads); err != nil || d.Bytes != 2 || d.Checked != 2 {
		t.Errorf("dead entries: %+v, %v", d, err)
	}

	// A log that begins inside an epoch can be checked from the next file on.
	if d, err := sum(logOf(t, events, head, cut)[3:]); err != nil || d.Events != 0 {
		t.Errorf("log without its head: %+v, %v", d, err)
	}
	// An open transaction is dropped by the next link, and comes again.
	payloads = logOf(t, events[:cut], head)
	link := payloads[0]
	payloads = append(payloads, link, eventsAt(5, 4+uint64(head), events[head:]))
	if d, err := sum(payloads); err != nil || d.Bytes != 0 || d.Checked != 8 {
		t.Errorf("a transaction that came again: %+v, %v", d, err)
	}
}

// Entries of a damaged folder may hold anything.
func FuzzWalker(f *testing.F) {
	w := binlogtest.Writer{UUID: testUUID, ServerID: 7, Time: 1700000000, Checksum: binlog.ChecksumCRC32}
	for _, p := range logOf(f, w.Transaction(w.Begin(nil), 300)) {
		f.Add(p, p)
	}
	f.Add([]byte{}, []byte{1})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var walker Walker
		for i, p := range append(logOf(t, nil), one, two) {
			d, err := walker.Entry(uint64(i+1), p)
			if err == nil && (d.Checked > d.Events || d.Events > len(p)) {
				t.Errorf("entry %x: %+v", p, d)
			}
		}
	})
}
