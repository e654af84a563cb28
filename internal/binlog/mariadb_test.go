package binlog

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestMariaDummy: in pieces an event is replaced by the same as in one.
func TestMariaDummy(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range []Checksum{ChecksumNone, ChecksumCRC32} {
		for _, typ := range []EventType{TypeMariaAnnotateRows, TypeMariaGTIDList, TypeMariaBinlogCheckpoint} {
			body := make([]byte, 5000+random.IntN(20000))
			for i := range body {
				body[i] = byte(random.Uint32())
			}
			ev := finish(append(begin(nil), body...), 0, Header{Type: typ, ServerID: 7, LogPos: 99, Flags: FlagThreadSpecific}, c)
			want, err := AppendMariaSubstitute(nil, ev, c)
			if err != nil {
				t.Fatal(err)
			}
			if c == ChecksumCRC32 && !VerifyChecksum(want) {
				t.Errorf("%s: wrong checksum", typ)
			}
			for first := len(ev) - 10; first < len(ev); first++ {
				testMariaDummy(t, ev, want, c, first, random)
			}
			for range 100 {
				testMariaDummy(t, ev, want, c, 150+random.IntN(len(ev)-150), random)
			}
		}
	}
	var m MariaDummy
	gtid := finish(append(begin(nil), make([]byte, 1000)...), 0, Header{Type: TypeMariaGTID}, ChecksumNone)
	if _, err := m.Begin(nil, gtid[:500], ChecksumNone); err == nil {
		t.Error("a GTID event in pieces has been replaced")
	}
}

func testMariaDummy(t *testing.T, ev, want []byte, c Checksum, first int, random *rand.Rand) {
	t.Helper()
	var m MariaDummy
	got, err := m.Begin(nil, ev[:first], c)
	if err != nil {
		t.Fatal(err)
	}
	for at := first; at < len(ev); {
		n := min(len(ev)-at, 1+random.IntN(3000))
		if random.IntN(2) == 0 {
			n = min(n, 3)
		}
		got = m.Next(got, n)
		at += n
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("in pieces, the first of %d bytes of %d: another event", first, len(ev))
	}
}

// TestMariaBegin: a GTID event is replaced by BEGIN in any length that there is.
func TestMariaBegin(t *testing.T) {
	for n := 13; n < 300; n++ {
		ev := finish(append(begin(nil), make([]byte, n)...), 0, Header{Type: TypeMariaGTID, LogPos: 7}, ChecksumCRC32)
		got, err := AppendMariaSubstitute(nil, ev, ChecksumCRC32)
		if possible := n >= 19; possible != (err == nil) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if err != nil {
			continue
		}
		q, err := ParseQuery(got, ChecksumCRC32)
		if err != nil || len(got) != len(ev) || string(q.Text) != "BEGIN" || !VerifyChecksum(got) {
			t.Errorf("%d bytes: %d bytes, %+v, %v", n, len(got), q, err)
		}
	}
}
