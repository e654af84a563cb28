package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

var goldenServers = []string{"mysql-9.7", "mysql-5.6", "mariadb-10.11", "mariadb-11.8"}

// goldenCaps are the capabilities that the recording client had with a server.
func goldenCaps(t testing.TB, server string) uint32 {
	g, err := ParseGreeting(loadGolden(t, server+"-login")[0])
	if err != nil {
		t.Fatal(err)
	}
	return g.Capabilities & offered
}

func TestGoldenGreetings(t *testing.T) {
	for _, tt := range []struct {
		server, version, plugin string
		mariaDB                 bool
	}{
		{"mysql-9.7", "9.7.", PluginCachingSHA2, false},
		{"mysql-5.6", "5.6.", PluginNative, false},
		{"mariadb-10.11", "5.5.5-10.11.", PluginNative, true},
		{"mariadb-11.8", "11.8.", PluginNative, true},
	} {
		p := loadGolden(t, tt.server+"-login")[0]
		g, err := ParseGreeting(p)
		if err != nil {
			t.Errorf("%s: %v", tt.server, err)
			continue
		}
		if !strings.HasPrefix(g.Version, tt.version) || g.Plugin != tt.plugin || g.IsMariaDB() != tt.mariaDB || len(g.Nonce) != nonceSize {
			t.Errorf("%s: got %+v", tt.server, g)
		}
		if got := g.appendTo(nil); !tt.mariaDB && !bytes.Equal(got, p) { // MariaDB uses the reserved bytes
			t.Errorf("%s: encoded again\ngot  %x\nwant %x", tt.server, got, p)
		}
		for cut := range p[:len(p)-len(tt.plugin)-1] {
			if g, err := ParseGreeting(p[:cut]); err == nil && g.Capabilities&ClientProtocol41 != 0 {
				t.Errorf("%s: taken although cut to %d of %d bytes", tt.server, cut, len(p))
			}
		}
	}
}

func TestGoldenLogins(t *testing.T) {
	for _, name := range []string{"mysql-9.7-rsa", "mysql-9.7-native", "mysql-5.6-native", "mariadb-10.11-native", "mariadb-11.8-native"} {
		p := loadGolden(t, "replica-"+name)[0]
		l, err := parseLogin(p)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := l.appendTo(nil)
		if err != nil || !bytes.Equal(got[sslRequestSize:], p[sslRequestSize:]) || !bytes.Equal(got[:9], p[:9]) {
			t.Errorf("%s: encoded again: %v\ngot  %x\nwant %x", name, err, got, p)
		}
		for cut := range p {
			if _, err := parseLogin(p[:cut]); err == nil && cut < sslRequestSize+len(l.user)+1+1+len(l.answer) {
				t.Errorf("%s: taken although cut to %d of %d bytes", name, cut, len(p))
			}
		}
	}
}

// replay is a client that reads recorded packets.
func replay(caps uint32, packets [][]byte) *Client {
	var stream []byte
	for i, p := range packets {
		stream = append(stream, frame(byte(i), p)...)
	}
	return &Client{conn: NewConn(&bytesConn{in: bytes.NewReader(stream)}, 0, 0), caps: caps,
		cfg: ClientConfig{}.withDefaults(), greeting: &Greeting{}}
}

func TestGoldenResults(t *testing.T) {
	for _, server := range goldenServers {
		caps := goldenCaps(t, server)
		want := []string{
			`[["text" "" "18446744073709551615" "-5" ""]] <nil>`,
			`[] <nil>`,
			`[] <nil>`,
			`[] MySQL error 1193 (HY000): Unknown system variable 'no_such_variable'`,
		}
		for i := range goldenQueries {
			packets := loadGolden(t, fmt.Sprintf("%s-query%d", server, i))
			res, err := replay(caps, packets).readResult()
			if res == nil {
				res = &Result{}
			}
			if got := fmt.Sprintf("%q %v", res.Rows, err); got != want[i] {
				t.Errorf("%s: %s\ngot  %s\nwant %s", server, goldenQueries[i], got, want[i])
			}
			for j, col := range res.Columns {
				if got := col.appendTo(nil); !bytes.Equal(got, packets[1+j]) {
					t.Errorf("%s: column %d encoded again\ngot  %x\nwant %x", server, j, got, packets[1+j])
				}
			}
			if e, ok := err.(*Error); ok {
				if got := e.appendTo(nil, true); !bytes.Equal(got, packets[0]) {
					t.Errorf("%s: error encoded again\ngot  %x\nwant %x", server, got, packets[0])
				}
			}
		}
		checkTextRow(t, server, caps)
		checkPrepared(t, server, caps)
	}
}

// checkTextRow: our encoding of the row is the server's.
func checkTextRow(t *testing.T, server string, caps uint32) {
	t.Helper()
	packets := loadGolden(t, server+"-query0")
	at := 6
	if caps&ClientDeprecateEOF == 0 {
		at++
	}
	got, err := appendTextRow(nil, []any{"text", nil, ^uint64(0), -5, []byte{}})
	if err != nil || !bytes.Equal(got, packets[at]) {
		t.Errorf("%s: text row: %v\ngot  %x\nwant %x", server, err, got, packets[at])
	}
}

// checkPrepared has the server role give the same answers, and compares the bytes.
func checkPrepared(t *testing.T, server string, caps uint32) {
	t.Helper()
	want := loadGolden(t, server+"-prepared")
	step := 4
	if caps&ClientDeprecateEOF == 0 {
		step++
	}
	columns := func(packets [][]byte) (cols []Column) {
		for _, p := range packets {
			c, err := ParseColumn(p)
			if err != nil {
				t.Fatal(err)
			}
			cols = append(cols, c)
		}
		return cols
	}
	prepared := columns(want[1+step : 1+step+4])
	executed := columns(want[1+2*step+1 : 1+2*step+1+4]) // described anew, with the parameters' types
	bc := &bytesConn{}
	s := &Session{Conn: NewConn(bc, 0, 0), caps: caps | ClientProtocol41}
	if err := s.WritePrepared(1, 4, prepared); err != nil {
		t.Fatal(err)
	}
	w, err := s.BinaryResult(executed)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Row(int64(-7), "abc", nil, ^uint64(0)); err != nil {
		t.Fatal(err)
	}
	if err := w.End(StatusAutocommit, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	out := NewConn(&bytesConn{in: bytes.NewReader(bc.out.Bytes())}, 0, 0)
	skip := map[int]bool{0: true} // the statement's id and the warnings
	for i := range 4 {
		skip[1+i] = true // each server describes parameters in its own way
	}
	for i, p := range want {
		got, err := out.ReadPacket(1 << 20)
		if err != nil {
			t.Fatalf("%s: packet %d: %v", server, i, err)
		}
		same := bytes.Equal(got, p)
		if skip[i] {
			same = len(got) > 0 && got[0] == p[0]
		}
		if !same && !onlyStatusDiffers(got, p) {
			t.Errorf("%s: prepared, packet %d\ngot  %x\nwant %x", server, i, got, p)
		}
	}
}

// onlyStatusDiffers: servers set further status flags at the end of a result.
func onlyStatusDiffers(a, b []byte) bool {
	return len(a) == len(b) && len(a) > 0 && len(a) < 9 && a[0] == headerEOF && b[0] == headerEOF
}

func TestParseExecute(t *testing.T) {
	p := goldenExecute(9)
	e, err := ParseExecute(p, 4, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []any{int64(-7), []byte("abc"), nil, ^uint64(0)}
	if e.Statement != 9 || !reflect.DeepEqual(e.Args, want) {
		t.Errorf("got  %+v\nwant %v", e, want)
	}
	// A second execution, without the types.
	again := append(append([]byte{}, p[:10]...), 0)
	again = append(again, p[19:]...)
	if e, err = ParseExecute(again, 4, e.Types, nil); err != nil || !reflect.DeepEqual(e.Args, want) {
		t.Errorf("again: %+v, %v", e, err)
	}
	if _, err := ParseExecute(again, 4, nil, nil); err == nil {
		t.Error("taken without types")
	}
	for cut := range p {
		if _, err := ParseExecute(p[:cut], 4, nil, nil); err == nil {
			t.Errorf("taken although cut to %d bytes", cut)
		}
	}
	var all []byte
	types := []uint16{uint16(TypeTiny), uint16(TypeTiny) | 0x8000, uint16(TypeShort), uint16(TypeLong), uint16(TypeFloat), uint16(TypeDouble)}
	all = append(all, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1)
	for _, typ := range types {
		all = append(all, byte(typ), byte(typ>>8))
	}
	all = append(all, 0xff, 0xff, 0xfe, 0xff, 0xfd, 0xff, 0xff, 0xff, 0, 0, 0xc0, 0x3f, 0, 0, 0, 0, 0, 0, 0xf8, 0xbf)
	e, err = ParseExecute(all, len(types), nil, nil)
	if want := []any{int64(-1), uint64(255), int64(-2), int64(-3), 1.5, -1.5}; err != nil || !reflect.DeepEqual(e.Args, want) {
		t.Errorf("numbers: got %+v, %v, want %v", e, err, want)
	}
	// What has come before is not in the packet.
	long := map[uint16][]byte{1: []byte("long"), 2: []byte("data")}
	p = append(p[:19:19], p[19:27]...)
	p = append(p, p[19:27]...)
	if e, err = ParseExecute(p, 4, nil, long); err != nil || !reflect.DeepEqual(e.Args, []any{int64(-7), []byte("long"), []byte("data"), uint64(1<<64 - 7)}) {
		t.Errorf("long data: %+v, %v", e, err)
	}
	if id, param, piece, err := ParseLongData([]byte{9, 0, 0, 0, 1, 0, 'l'}); id != 9 || param != 1 || string(piece) != "l" || err != nil {
		t.Errorf("long data %d, %d, %q, %v", id, param, piece, err)
	}
	if _, _, _, err := ParseLongData([]byte{9, 0, 0, 0, 1}); err == nil {
		t.Error("long data for no parameter is taken")
	}
}

// TestTemporal: as text and as bytes, as a 9.7 reads and writes them.
func TestTemporal(t *testing.T) {
	for _, tt := range []struct {
		typ   byte
		bytes []byte // behind the length
		text  Temporal
		same  bool // it is written as it was read
	}{
		{TypeDate, []byte{0xea, 7, 1, 31}, "2026-01-31", true},
		{TypeDate, nil, "0000-00-00", true},
		{TypeDate, []byte{0xea, 7, 13, 1}, "0000-00-00", false},
		{TypeDatetime, []byte{0xea, 7, 1, 31, 1, 2, 3}, "2026-01-31 01:02:03.000000", true},
		{TypeTimestamp, []byte{0xea, 7, 1, 31, 1, 2, 3, 0x40, 0xe2, 1, 0}, "2026-01-31 01:02:03.123456", true},
		{TypeDatetime, []byte{0xea, 7, 1, 31}, "2026-01-31 00:00:00.000000", true},
		{TypeDatetime, nil, "0000-00-00 00:00:00.000000", true},
		{TypeDatetime, []byte{0xea, 7, 1, 31, 24, 0, 0}, "0000-00-00 00:00:00.000000", false},
		{TypeTime, []byte{1, 1, 0, 0, 0, 1, 2, 3}, "-25:02:03.000000", true},
		{TypeTime, []byte{0, 0, 0, 0, 0, 1, 2, 3, 1, 0, 0, 0}, "01:02:03.000001", true},
		{TypeTime, nil, "00:00:00.000000", true},
		{TypeTime, []byte{0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3}, "838:59:59.000000", false},
		{TypeTime, []byte{0, 0, 0, 0, 0, 1, 60, 3}, "00:00:00.000000", false},
	} {
		b := append([]byte{byte(len(tt.bytes))}, tt.bytes...)
		c := NewCursor(b)
		if got := readTemporal(&c, tt.typ); got != tt.text || c.Err() != nil || c.Len() > 0 {
			t.Errorf("type %d, %x: %q, %v, want %q", tt.typ, b, got, c.Err(), tt.text)
		}
		if got, ok := appendTemporal(nil, tt.typ, tt.text); !ok || tt.same && !bytes.Equal(got, b) {
			t.Errorf("type %d, %q: %x, want %x", tt.typ, tt.text, got, b)
		}
	}
	for _, b := range [][]byte{{1, 0}, {3, 0, 0, 0}, {5, 0, 0, 0, 0, 0}, {8, 0, 0, 0, 0, 0, 0, 0, 0}, {11, 0}, {}} {
		c := NewCursor(b)
		if readTemporal(&c, TypeDatetime); c.Err() == nil {
			t.Errorf("%x is taken", b)
		}
	}
	for _, text := range []Temporal{"", "2026-01", "2026-01-01 1", "2026-01-01 1:1:1.1x", "x-1-1", "1-1-1 1:1:1:1", "99999-1-1", "2026-257-1"} {
		if b, ok := appendTemporal(nil, TypeDatetime, text); ok {
			t.Errorf("%q is written as %x", text, b)
		}
	}
	for _, date := range []Temporal{"2026-01-01 1:1:1", "2026-01-01"} {
		if date.Fits(TypeTime) || !date.Fits(TypeDatetime) {
			t.Errorf("%q is a time", date)
		}
	}
}

func TestBinaryIntegers(t *testing.T) {
	for _, tt := range []struct {
		typ   byte
		flags uint16
		value any
		want  []byte // nil if it does not fit
	}{
		{TypeTiny, 0, int64(-128), []byte{0x80}},
		{TypeTiny, 0, 128, nil},
		{TypeTiny, FlagUnsigned, 255, []byte{0xff}},
		{TypeTiny, FlagUnsigned, -1, nil},
		{TypeShort, 0, int64(-2), []byte{0xfe, 0xff}},
		{TypeLong, 0, true, []byte{1, 0, 0, 0}},
		{TypeLong, 0, uint64(1) << 31, nil},
		{TypeLong, FlagUnsigned, uint64(1) << 31, []byte{0, 0, 0, 0x80}},
		{TypeLong, FlagUnsigned, ^uint64(0), nil},
		{TypeLongLong, 0, ^uint64(0), []byte{255, 255, 255, 255, 255, 255, 255, 255}},
		{TypeLongLong, 0, "1", nil},
		{TypeDouble, 0, 1.5, []byte{0, 0, 0, 0, 0, 0, 0xf8, 0x3f}},
		{TypeVarString, 0, 15, []byte{2, '1', '5'}},
		{TypeDate, 0, "2020-01-01", nil},
		{TypeDate, 0, Temporal("2020-01-01"), []byte{4, 0xe4, 7, 1, 1}},
		{TypeVarString, 0, Temporal("2020-01-01"), []byte("\x0a2020-01-01")},
	} {
		got, err := appendBinaryValue(nil, &Column{Type: tt.typ, Flags: tt.flags}, tt.value)
		if !bytes.Equal(got, tt.want) || (err == nil) != (tt.want != nil) {
			t.Errorf("type %d, flags %#x, %v: got %x, %v, want %x", tt.typ, tt.flags, tt.value, got, err, tt.want)
		}
	}
}
