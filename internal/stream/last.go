package stream

import (
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
)

// Transaction is what is known of one that is stored.
type Transaction struct {
	GTID gtid.GTID // zero: it has none
	// Original and Immediate are when it was committed: where it is from, and at the source. Zero:
	// not known, as with servers before 8.0.
	Original, Immediate time.Time
	// Stored is when this node had applied it.
	Stored time.Time
}

// lastEnd is where to find the last transaction that ended while this process ran.
type lastEnd struct {
	Transaction
	entry    uint64 // that ended it; 0: there was none
	whole    bool   // the entry begins where no transaction is open
	checksum binlog.Checksum
}

// noteLast remembers the last transaction that an entry has ended.
func (s *Stream) noteLast(entry uint64, e effect) {
	if e.count == 0 {
		return
	}
	s.last = lastEnd{entry: entry, whole: e.start}
	s.last.Stored = s.cfg.Now()
	s.last.checksum, _ = s.state.tracker.Checksum()
	if n := len(e.ended); n > 0 && uint64(n) == e.count {
		s.last.GTID = e.ended[n-1]
	}
}

// LastTransaction returns the last transaction that was stored while this process ran; false:
// there was none. When it was committed is read from its GTID event, if that is still in memory.
func (s *Stream) LastTransaction() (Transaction, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	last := s.last
	if last.entry == 0 {
		return Transaction{}, false
	}
	if payload := s.tail.peek(last.entry); last.whole && payload != nil {
		if g, ok := lastGTIDEvent(payload, last.checksum); ok && g.GTID == last.GTID && g.ImmediateCommitTime != 0 {
			last.Original, last.Immediate = time.UnixMicro(int64(g.OriginalCommitTime)), time.UnixMicro(int64(g.ImmediateCommitTime))
		}
	}
	return last.Transaction, true
}

// lastGTIDEvent finds the last one in an entry that begins with an event.
func lastGTIDEvent(payload []byte, sum binlog.Checksum) (g binlog.GTIDEvent, ok bool) {
	_, b, err := parseEvents(payload)
	for err == nil && len(b) > 0 {
		var h binlog.Header
		if h, err = binlog.ParseHeader(b); err != nil || uint64(h.Length) > uint64(len(b)) {
			break
		}
		switch h.Type {
		case binlog.TypeGTID, binlog.TypeAnonymousGTID, binlog.TypeGTIDTagged:
			g, err = binlog.ParseGTID(b[:h.Length], sum)
			ok = err == nil
		}
		b = b[h.Length:]
	}
	return g, ok
}
