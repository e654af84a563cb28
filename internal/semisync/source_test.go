package semisync

import (
	"encoding/binary"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"kingbus/internal/gtid"
	"kingbus/internal/hook"
)

// files is a stream of some files.
type files map[string]uint32

func (f files) FileNumber(name string) (uint32, bool) { n, ok := f[name]; return n, ok }
func (files) Executed() gtid.Set                      { return gtid.Set{} }

func ackPacket(file string, pos uint64) []byte {
	return append(binary.LittleEndian.AppendUint64([]byte{magic}, pos), file...)
}

// newDump begins a dump of a semi-sync replica.
func newDump(t *testing.T, s *Source, uuid string, from hook.Position) *hook.Dump {
	t.Helper()
	d := &hook.Dump{Session: 7, ServerID: 9, UUID: uuid, Address: "1.2.3.4:5", From: from, Variable: func(name string) string {
		return map[string]string{"rpl_semi_sync_replica": "1"}[name]
	}, Acknowledged: func(hook.Position) {}}
	observe, err := s.Start(d)
	if err != nil || observe == nil {
		t.Fatalf("start: %v, %v", observe, err)
	}
	if h := s.ReserveHeader(d, []byte{1}); len(h) != 1+headerSize || h[1] != magic || h[2] != 0 {
		t.Fatalf("header %x", h)
	}
	return d
}

// sent sends an event, and tells whether it asks.
func sent(t *testing.T, s *Source, d *hook.Dump, p hook.Position) bool {
	t.Helper()
	e := hook.Sending{At: p, Header: []byte{1, magic, 0}}
	if err := s.BeforeSend(d, &e); err != nil {
		t.Fatal(err)
	}
	if asks := e.Header[2]&flagAsk != 0; asks != e.Restart {
		t.Errorf("the event asks: %v, packets are counted anew: %v", asks, e.Restart)
	}
	if e.Asked != e.Restart {
		t.Error("the event asks, and nobody is told")
	}
	return e.Restart
}

// TestHostileAcks: what MySQL would believe, and so lose its guarantee, is refused: a
// position that was never sent, a file that is not there. Nothing of it breaks anything.
func TestHostileAcks(t *testing.T) {
	s := NewSource(WaitSettings{Enabled: true, Timeout: time.Hour, Replicas: 1, NoReplica: true}, files{"b.000001": 1, "b.000002": 2}, slog.New(slog.DiscardHandler))
	defer s.Close()
	d := newDump(t, s, "u", at("b.000001", 4))
	s.AfterCommit(hook.Commit{Count: 1, At: at("b.000001", 300)})
	if sent(t, s, d, at("b.000001", 150)) || !sent(t, s, d, at("b.000001", 300)) {
		t.Error("the event at the end of the transaction asks, and no other")
	}
	s.AfterCommit(hook.Commit{Count: 1, At: at("b.000001", 500)}) // not sent yet
	var told []hook.Position
	d.Acknowledged = func(at hook.Position) { told = append(told, at) }
	refused := uint64(0)
	for name, packet := range map[string][]byte{
		"empty":             {},
		"another command":   {3, 'S', 'E', 'L'},
		"only the magic":    {magic},
		"no name":           ackPacket("", 300),
		"ahead":             ackPacket("b.000001", 301),
		"what waits":        ackPacket("b.000001", 500),
		"far ahead":         ackPacket("b.000001", 1<<63),
		"the next file":     ackPacket("b.000002", 4),
		"no such file":      ackPacket("b.999999", 4),
		"with a path":       ackPacket("./b.000001", 300),
		"a very long name":  ackPacket(strings.Repeat("b", 511), 300),
		"a name too long":   ackPacket(strings.Repeat("b", 600), 300),
		"a name with a NUL": ackPacket("b.000001\x00x", 300),
	} {
		s.Received(d, packet)
		if refused++; s.Status().Refused != refused || s.Status().YesTx != 0 {
			t.Errorf("%s: %+v", name, s.Status())
			refused = s.Status().Refused
		}
	}
	s.Received(d, ackPacket("b.000001", 299))
	if st := s.Status(); st.YesTx != 0 || st.Replies != 1 {
		t.Errorf("one byte short: %+v", st)
	}
	s.Received(d, ackPacket("b.000001\x00", 300))
	if st := s.Status(); st.YesTx != 1 || st.Waiting != 1 || st.Clients != 1 || !st.On {
		t.Errorf("the right one: %+v", st)
	}
	if want := []hook.Position{at("b.000001", 299), at("b.000001", 300)}; !slices.Equal(told, want) {
		t.Errorf("told were %v, want %v", told, want)
	}
	// It comes back, with a new connection before the old one is gone, and has more.
	again := newDump(t, s, "u", at("b.000001", 500))
	s.Stop(d)
	if st := s.Status(); st.YesTx != 2 || st.Clients != 1 {
		t.Errorf("what its request contains: %+v", st)
	}
	s.Stop(again)
	if st := s.Status(); st.Clients != 0 {
		t.Errorf("after its end: %+v", st)
	}
	if observe, err := s.Start(&hook.Dump{Variable: func(string) string { return "" }}); observe != nil || err != nil {
		t.Errorf("a replica that does not ask for it is observed: %v, %v", observe, err)
	}
}

// TestTimeout: the time is watched.
func TestTimeout(t *testing.T) {
	s := NewSource(WaitSettings{Enabled: true, Timeout: 20 * time.Millisecond, Replicas: 1, NoReplica: true}, files{"b.000001": 1}, slog.New(slog.DiscardHandler))
	defer s.Close()
	for range 3 {
		s.AfterCommit(hook.Commit{Count: 2, At: at("b.000001", 300)})
	}
	late := time.After(patience)
	for s.Status().On {
		select {
		case <-late:
			t.Fatalf("it still waits: %+v", s.Status())
		case <-time.After(time.Millisecond):
		}
	}
	if st := s.Status(); st.NoTx != 6 || st.NoTimes != 1 || st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
	s.Close()
}

func FuzzParseAck(f *testing.F) {
	f.Add(ackPacket("b.000001", 300))
	f.Add([]byte{magic, 1})
	s := &Source{binlog: files{"b.000001": 1}}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, p, err := s.parseAck(b); err == nil && (b[0] != magic || p.file != 1 || p.pos != binary.LittleEndian.Uint64(b[1:])) {
			t.Errorf("%x became %v", b, p)
		}
	})
}

// TestNames: a client names itself as it likes; what is remembered of it is bounded, and a
// uuid is the same in any case of letters.
func TestNames(t *testing.T) {
	s := NewSource(WaitSettings{}, files{"b.000001": 1}, slog.New(slog.DiscardHandler))
	defer s.Close()
	s.Tell(func(string, hook.Position) {})
	s.Configure(WaitSettings{}, true)
	for _, name := range []string{"", strings.Repeat("u", 1<<20), "AAAAAAAA-1111-2222-3333-444444444444", "aaaaaaaa-1111-2222-3333-444444444444"} {
		newDump(t, s, name, at("b.000001", 4))
	}
	if have := s.Have(); len(have) != 2 || have["server id 9"] != at("b.000001", 4) || have["aaaaaaaa-1111-2222-3333-444444444444"] != at("b.000001", 4) {
		t.Errorf("%v", have)
	}
}
