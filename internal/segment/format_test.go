package segment

import (
	"bytes"
	"errors"
	"testing"
)

func TestHeaderTable(t *testing.T) {
	good := Header{Version: 1, Use: 0x1122334455667788, First: 100, PrevTerm: 7, PrevFirst: 50, PrevUse: 9, PrevEnd: 5000, Created: 12345}
	if got, err := decodeHeader(good.encode()); err != nil || got != good {
		t.Fatalf("got %+v, %v, want %+v", got, err, good)
	}
	resum := func(b []byte) { le.PutUint32(b[headerSize-4:], checksum(b[:headerSize-4])) }
	for name, tc := range map[string]struct {
		change func(b []byte)
		want   error
	}{
		"magic":         {func(b []byte) { b[0] = 'k' }, errMagic},
		"newer version": {func(b []byte) { b[8] = 2 }, ErrVersion},
		"version 0":     {func(b []byte) { b[8] = 0 }, errHeaderSum},
		"flag":          {func(b []byte) { b[11] = 0x80; resum(b) }, errFlags},
		"checksum":      {func(b []byte) { b[17] ^= 1 }, errHeaderSum},
		"padding":       {func(b []byte) { b[4000] ^= 1 }, errHeaderSum},
	} {
		b := good.encode()
		tc.change(b)
		if _, err := decodeHeader(b); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
	if _, err := decodeHeader(good.encode()[:headerSize-1]); err != errShort {
		t.Errorf("short: got %v, want %v", err, errShort)
	}
}

func TestRecordTable(t *testing.T) {
	const use, off = 42, 5000
	data := []byte("handle")
	good := record{payloadSum: 1, payloadLen: 300, dataLen: 6, typ: 3, index: 10, term: 2, synced: 4500}
	encode := func(r record) []byte {
		b := make([]byte, recordHeader+len(data))
		r.put(b, use, off, data)
		return b
	}
	if got, err := decodeRecord(encode(good), use, off); err != nil || got != good {
		t.Fatalf("got %+v, %v, want %+v", got, err, good)
	}
	if got, want := good.size(), int64(346); got != want {
		t.Errorf("size: got %d, want %d", got, want)
	}
	for bit := range 8 * len(encode(good)) {
		b := encode(good)
		b[bit/8] ^= 1 << (bit % 8)
		if got, err := decodeRecord(b, use, off); err == nil {
			t.Errorf("bit %d flipped: got %+v, want an error", bit, got)
		}
	}
	change := func(f func(r *record)) []byte {
		r := good
		f(&r)
		return encode(r)
	}
	for name, tc := range map[string]struct {
		b    []byte
		use  uint64
		off  int64
		want error
	}{
		"another use":         {encode(good), use + 1, off, errRecordSum},
		"another place":       {encode(good), use, off + 1, errRecordSum},
		"no header":           {encode(good)[:39], use, off, errShort},
		"no data":             {encode(good)[:45], use, off, errShort},
		"zero":                {make([]byte, 50), use, off, errZero},
		"index 0":             {change(func(r *record) { r.index = 0 }), use, off, errRecord},
		"synced before it":    {change(func(r *record) { r.synced = off + 1 }), use, off, errRecord},
		"synced in header":    {change(func(r *record) { r.synced = 100 }), use, off, errRecord},
		"too long":            {change(func(r *record) { r.payloadLen = MaxPayload + 1 }), use, off, errRecord},
		"data length is less": {change(func(r *record) { r.dataLen = 5 }), use, off, errRecordSum},
	} {
		if _, err := decodeRecord(tc.b, tc.use, tc.off); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
	flagged := encode(good)
	flagged[15] = 1
	le.PutUint32(flagged, recordSum(flagged, use, off))
	if _, err := decodeRecord(flagged, use, off); err != errFlags {
		t.Errorf("flag: got %v, want %v", err, errFlags)
	}
}

func TestPlan(t *testing.T) {
	want := plan{Index: 77, Term: 3}
	b := encodePlan(want)
	if got, err := decodePlan(b); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 4
		if _, err := decodePlan(c); err == nil {
			t.Errorf("byte %d changed: no error", i)
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]uint64{
		"00000000000000000001.seg": 1, "18446744073709551615.seg": 1<<64 - 1, "00000000000000000000.seg": 0,
		"18446744073709551616.seg": 0, "1.seg": 0, "00000000000000000001.seg.tmp": 0, "-0000000000000000001.seg": 0, "LOCK": 0,
	} {
		if got, ok := parseName(name); got != want && ok || ok != (want != 0) {
			t.Errorf("%s: got %d, %v, want %d", name, got, ok, want)
		}
	}
	if got, want := fileName("d", 12), "d/00000000000000000012.seg"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func FuzzHeader(f *testing.F) {
	h := Header{Version: 1, Use: 1, First: 1}
	f.Add(h.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= headerSize { // help it past the checksum
			b = b[:headerSize:headerSize]
			le.PutUint32(b[headerSize-4:], checksum(b[:headerSize-4]))
		}
		h, err := decodeHeader(b)
		if err != nil {
			return
		}
		if again, err := decodeHeader(h.encode()); err != nil || again != h {
			t.Errorf("got %+v, %v, want %+v", again, err, h)
		}
	})
}

func FuzzRecord(f *testing.F) {
	r := record{payloadLen: 3, dataLen: 2, index: 1, term: 1, synced: headerSize}
	b := make([]byte, recordHeader+2)
	r.put(b, 7, 9000, []byte("ab"))
	f.Add(b, uint64(7), int64(9000), true)
	f.Fuzz(func(t *testing.T, b []byte, use uint64, off int64, sum bool) {
		if n := recordHeader; sum && len(b) >= n { // help it past the checksum
			n += int(le.Uint16(b[12:]))
			if n <= len(b) {
				le.PutUint32(b, recordSum(b[:n], use, off))
			}
		}
		r, err := decodeRecord(b, use, off)
		if err != nil {
			return
		}
		n := recordHeader + int(r.dataLen)
		again := make([]byte, n)
		r.put(again, use, off, b[recordHeader:n])
		if !bytes.Equal(again, b[:n]) {
			t.Errorf("encoded again: got %x, want %x", again, b[:n])
		}
	})
}
