package gtid

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"runtime"
	"strings"
	"testing"
)

// u64 makes test input of little-endian numbers.
func u64(n ...uint64) (b []byte) {
	for _, v := range n {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestDecodeSet(t *testing.T) {
	id1, _ := ParseUUID(u1)
	id2, _ := ParseUUID(u2)
	a, b := id1[:], id2[:]
	tag := func(s string) []byte { return append([]byte{byte(len(s) << 1)}, s...) }
	const tagged = 1 << 56
	for _, tc := range []struct {
		name string
		in   []byte
		want string
		ok   bool
	}{
		{"empty", u64(0), "", true},
		{"tagged empty", u64(tagged | 1), "", true},
		{"tagged empty, byte 0 not set", u64(tagged), "", true},
		{"one", cat(u64(1), a, u64(1, 1, 6)), u1 + ":1-5", true},
		{"two intervals", cat(u64(1), a, u64(2, 1, 6, 7, 8)), u1 + ":1-5:7", true},
		{"no intervals", cat(u64(1), a, u64(0)), "", true},
		{"unsorted entries", cat(u64(2), b, u64(1, 1, 2), a, u64(1, 3, 4)), u1 + ":3,\n" + u2 + ":1", true},
		{"repeated entry", cat(u64(2), a, u64(1, 1, 2), a, u64(1, 2, 4)), u1 + ":1-3", true},
		{"tags", cat(u64(tagged|2<<8|1), a, tag("Foo"), u64(1, 1, 3), a, tag(""), u64(1, 5, 6)), u1 + ":5:foo:1-2", true},
		{"last number", cat(u64(1), a, u64(1, 1, 1<<63-1)), u1 + ":1-9223372036854775806", true},

		{"no bytes", nil, "", false},
		{"short head", u64(0)[:7], "", false},
		{"trailing", append(u64(0), 0), "", false},
		{"format 2", u64(2 << 56), "", false},
		{"no entry", u64(1), "", false},
		{"short UUID", cat(u64(1), a[:15]), "", false},
		{"short count", cat(u64(1), a, u64(0)[:7]), "", false},
		{"short interval", cat(u64(1), a, u64(1, 1)), "", false},
		{"claims 2^60 intervals", cat(u64(1), a, u64(1<<60, 1, 2)), "", false},
		{"claims 2^48 entries", cat(u64(1<<48), a, u64(1, 1, 2)), "", false},
		{"adjacent", cat(u64(1), a, u64(2, 1, 3, 3, 4)), "", false},
		{"overlapping", cat(u64(1), a, u64(2, 1, 3, 2, 4)), "", false},
		{"unsorted", cat(u64(1), a, u64(2, 7, 8, 1, 3)), "", false},
		{"start 0", cat(u64(1), a, u64(1, 0, 3)), "", false},
		{"empty interval", cat(u64(1), a, u64(1, 3, 3)), "", false},
		{"reversed", cat(u64(1), a, u64(1, 3, 2)), "", false},
		{"end 2^63", cat(u64(1), a, u64(1, 3, 1<<63)), "", false},
		{"start 2^63", cat(u64(1), a, u64(1, 1<<63, 1<<63+1)), "", false},
		{"bad tag", cat(u64(tagged|1<<8|1), a, tag("9"), u64(1, 1, 3)), "", false},
		{"long tag", cat(u64(tagged|1<<8|1), a, tag(strings.Repeat("a", 33)), u64(1, 1, 3)), "", false},
		{"short tag", cat(u64(tagged|1<<8|1), a, tag("abc")[:3]), "", false},
		{"no tag", cat(u64(tagged|1<<8|1), a), "", false},
	} {
		got, err := DecodeSet(tc.in)
		if (err == nil) != tc.ok || got.String() != tc.want {
			t.Errorf("%s: got %q, %v, want %q, ok %v", tc.name, got, err, tc.want, tc.ok)
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v is not ErrMalformed", tc.name, err)
		}
	}
}

func TestAppendBinary(t *testing.T) {
	id1, _ := ParseUUID(u1)
	untagged := mustSet(t, u1+":1-5:7")
	mixed := mustSet(t, u1+":1-5:7:foo:2")
	want := cat(u64(1), id1[:], u64(2, 1, 6, 7, 8))
	wantTagged := cat(u64(1<<56|2<<8|1), id1[:], []byte{0}, u64(2, 1, 6, 7, 8), id1[:], []byte("\x06foo"), u64(1, 2, 3))
	for _, tc := range []struct {
		name      string
		got, want []byte
	}{
		{"empty", Set{}.AppendBinary(nil), u64(0)},
		{"empty tagged", Set{}.AppendTagged(nil), u64(1<<56 | 1)},
		{"untagged", untagged.AppendBinary([]byte{9}), append([]byte{9}, want...)},
		{"mixed", mixed.AppendBinary(nil), wantTagged},
		{"mixed, without tags", mixed.AppendUntagged(nil), want},
	} {
		if !bytes.Equal(tc.got, tc.want) {
			t.Errorf("%s: got %s, want %s", tc.name, hex.EncodeToString(tc.got), hex.EncodeToString(tc.want))
		}
	}
}

// Hostile order must cost neither quadratic time nor much memory: a text of
// descending numbers, with as many UUIDs, in any order.
func TestHostileOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("one second")
	}
	text := make([]byte, 0, 8<<20)
	text = append(text, u1...)
	for n := int64(600_000); n > 0; n -= 2 {
		text = append(text, ':')
		text = append(text, []byte{byte('0' + n/100000%10), byte('0' + n/10000%10), byte('0' + n/1000%10), byte('0' + n/100%10), byte('0' + n/10%10), byte('0' + n%10)}...)
	}
	for n := 60_000; n > 0; n-- {
		u := UUID{0: byte(n >> 8), 1: byte(n)}
		text = append(text, ',')
		text = u.appendText(text)
		text = append(text, ":1"...)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s, err := ParseSet(string(text))
	runtime.ReadMemStats(&after)
	if err != nil || s.Intervals() != 360_000 {
		t.Fatalf("got %d intervals, %v, want 360000", s.Intervals(), err)
	}
	if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(32*len(text)); got > limit {
		t.Errorf("allocated %d bytes for %d bytes of text, want at most %d", got, len(text), limit)
	}
}
