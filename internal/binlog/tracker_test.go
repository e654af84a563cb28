package binlog

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"kingbus/internal/gtid"
)

// testFormat is the post-header lengths of 9.7.4, protocol.md D2.
var testFormat = FormatDescription{
	BinlogVersion: 4, ServerVersion: "9.7.4", HasChecksum: true, Checksum: ChecksumCRC32,
	HeaderLengths: []byte{0, 13, 0, 8, 0, 0, 0, 0, 4, 0, 4, 0, 0, 0, 99, 0, 4, 26, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 10, 10, 10, 42, 42, 0, 18, 52, 0, 10, 40, 0, 0},
}

func makeEvent(h Header, body []byte) []byte {
	return finish(append(begin(nil), body...), 0, h, ChecksumCRC32)
}

func makeGTID(text string) []byte {
	typ := TypeAnonymousGTID
	body := make([]byte, 25)
	if text != "" {
		g, err := gtid.ParseGTID(text)
		if err != nil {
			panic(err) // of the test's own
		}
		typ = TypeGTID
		copy(body[1:], g.SID.UUID[:])
		binary.LittleEndian.PutUint64(body[17:], uint64(g.GNO))
	}
	return makeEvent(Header{Type: typ}, body)
}

func makeQuery(text string) []byte {
	return makeEvent(Header{Type: TypeQuery}, append(make([]byte, queryHeader+1), text...))
}

// step names an event and what should come of it. Effects: "-" nothing, inside
// a transaction; "b" begins one; "e" ends it; "be" both; "." nothing, outside;
// "!" an error.
type stepCase struct{ event, effect string }

// makeStep makes an event by name: a statement in upper case, a GTID, or the
// name of a type, with "+stmt" for the end of a statement and "+ignorable",
// "+artificial" for flags.
func makeStep(t *testing.T, name string) []byte {
	kind, flag, _ := strings.Cut(name, "+")
	h := Header{}
	switch flag {
	case "ignorable":
		h.Flags = FlagIgnorable
	case "artificial":
		h.Flags = FlagArtificial
	}
	body := make([]byte, 8)
	switch kind {
	case "FDE":
		return AppendFormatDescription(nil, h, testFormat)
	case "GTID":
		return makeGTID(stepGTID)
	case "ANONYMOUS":
		return makeGTID("")
	case "MARIA", "MARIA standalone":
		body = make([]byte, 19)
		if h.Type = TypeMariaGTID; kind != "MARIA" {
			body[12] = mariaStandalone
		}
		return makeEvent(h, body)
	}
	if text, ok := strings.CutPrefix(kind, "q:"); ok {
		return makeQuery(text)
	}
	for typ := range 256 {
		if h.Type = EventType(typ); h.Type.String() == kind {
			break
		}
		if typ == 255 {
			t.Fatalf("no type %q", kind)
		}
	}
	if flag == "stmt" {
		body[6] = 1
	}
	return makeEvent(h, body)
}

const stepGTID = "11111111-1111-1111-1111-111111111111:7"

func TestTracker(t *testing.T) {
	for _, tc := range []struct {
		name  string
		steps []stepCase
	}{
		{"without GTIDs", []stepCase{
			{"q:BEGIN", "b"}, {"Table_map", "-"}, {"Write_rows_v1+stmt", "-"}, {"Xid", "e"},
			{"q:CREATE TABLE x (id INT)", "be"},
			{"q:BEGIN", "b"}, {"q:INSERT", "-"}, {"q:ROLLBACK", "e"},
			{"q:BEGIN", "b"}, {"Intvar", "-"}, {"q:INSERT", "-"}, {"q:COMMIT", "e"},
			{"Rotate", "."},
		}},
		{"statement without BEGIN", []stepCase{
			{"Intvar", "b"}, {"RAND", "-"}, {"User var", "-"}, {"q:INSERT INTO m", "e"},
			{"Intvar", "b"}, {"Begin_load_query", "-"}, {"Append_block", "-"}, {"Execute_load_query", "e"},
			{"Begin_load_query", "b"}, {"Delete_file", "e"},
			{"Execute_load_query", "be"},
			{"Stop", "."},
		}},
		{"statement without BEGIN, with GTID", []stepCase{
			{"GTID", "b"}, {"User var", "-"}, {"q:INSERT INTO m", "e"},
		}},
		{"rows without BEGIN", []stepCase{
			{"Rows_query+ignorable", "b"}, {"Table_map", "-"}, {"Table_map", "-"}, {"Write_rows_v1", "-"}, {"Update_rows+stmt", "e"},
			{"Table_map", "b"}, {"Update_rows_partial+stmt", "e"},
		}},
		{"savepoints of any spelling", []stepCase{
			{"GTID", "b"}, {"q:BEGIN", "-"}, {"q:SAVEPOINT a", "-"},
			{"q:ROLLBACK TO `a`", "-"}, {"q:ROLLBACK TO a", "-"}, {"q:rollback work to savepoint a", "-"}, {"q:Rollback\n TO\tSAVEPOINT`a`", "-"}, {"q:ROLLBACK TO`a`", "-"},
			{"q:begin", "-"}, {"q:commit", "-"}, {"q:COMMIT ", "-"}, {"q:COMMITTED", "-"}, {"q:BEGINNING", "-"}, {"q:B", "-"}, {"q:C", "-"}, {"q:", "-"},
			{"q:ROLLBACK", "e"},
			{"GTID", "b"}, {"q:BEGIN", "-"}, {"q:rollback work", "e"},
			{"GTID", "b"}, {"q:BEGIN", "-"}, {"q:ROLLBACK TOAST", "e"}, // no server writes it
		}},
		{"XA", []stepCase{
			{"GTID", "b"}, {"q:XA START X'61',X'',1", "-"}, {"q:INSERT", "-"}, {"q:XA END X'61',X'',1", "-"}, {"XA_prepare", "e"},
			{"GTID", "b"}, {"q:XA COMMIT X'61',X'',1", "e"},
			{"GTID", "b"}, {"q:XA ROLLBACK X'61',X'',1", "e"},
			{"GTID", "b"}, {"q:XA START X'61',X'',1", "-"}, {"q:INSERT", "-"}, {"q:XA END X'61',X'',1", "-"}, {"q:XA ROLLBACK X'61',X'',1", "e"},
			{"q:XA COMMIT X'61',X'',1", "be"},
			{"q:XA ROLLBACK X'61',X'',1", "be"},
		}},
		{"payload", []stepCase{
			{"GTID", "b"}, {"Transaction_payload", "e"}, {"ANONYMOUS", "b"}, {"Transaction_payload", "e"},
			{"Transaction_payload", "!"}, {"GTID", "b"}, {"q:BEGIN", "-"}, {"Transaction_payload", "!"},
		}},
		{"group replication", []stepCase{
			{"Transaction_context", "b"}, {"GTID", "-"}, {"q:BEGIN", "-"}, {"View_change", "-"}, {"q:COMMIT", "e"},
			{"View_change", "be"}, {"GTID", "b"}, {"View_change", "e"},
			{"GTID", "b"}, {"Transaction_context", "-"}, {"q:BEGIN", "-"}, {"Xid", "e"},
			{"Transaction_context", "b"}, {"q:BEGIN", "!"}, {"q:INSERT", "!"}, {"Xid", "!"}, {"q:XA ROLLBACK 'a'", "!"}, {"q:COMMIT", "!"},
		}},
		{"incident", []stepCase{
			{"Incident", "be"}, {"GTID", "b"}, {"Incident", "e"},
		}},
		{"wire events", []stepCase{
			{"Heartbeat", "."}, {"GTID", "b"}, {"Heartbeat", "-"}, {"Rotate+artificial", "-"}, {"FDE+artificial", "-"}, {"q:BEGIN", "-"}, {"Xid", "e"}, {"Heartbeat", "."},
			{"FDE", "."}, {"Previous_gtids", "."},
		}},
		{"ignorable", []stepCase{
			{"Ignorable+ignorable", "."}, {"Type_99+ignorable", "."}, {"GTID", "b"}, {"Type_99+ignorable", "-"}, {"q:BEGIN", "-"}, {"Xid", "e"},
			{"Type_99", "!"}, {"Ignorable", "!"}, {"Load", "!"}, {"Write_rows_event_old", "!"}, {"Start_v3", "!"}, {"Type_0", "!"},
		}},
		{"MariaDB", []stepCase{
			{"Gtid_list", "."}, {"Binlog_checkpoint", "."}, {"Start_encryption", "."}, {"Gtid_list+artificial", "."},
			{"MARIA standalone", "b"}, {"MARIA", "!"}, {"Gtid_list", "!"}, {"Binlog_checkpoint", "!"}, {"Xid", "!"}, {"q:CREATE TABLE t", "e"},
			{"MARIA standalone", "b"}, {"Intvar", "-"}, {"Query_compressed", "e"},
			{"MARIA standalone", "b"}, {"q:XA COMMIT X'6f',X'',1", "e"}, {"MARIA standalone", "b"}, {"q:XA ROLLBACK X'6f',X'',1", "e"},
			{"MARIA", "b"}, {"MARIA standalone", "!"}, {"Rotate", "!"}, {"Annotate_rows", "-"}, {"Table_map", "-"}, {"Write_rows_v1+stmt", "-"}, {"Query_compressed", "-"}, {"Xid", "e"},
			{"MARIA", "b"}, {"Write_rows_compressed_v1", "-"}, {"Write_rows_compressed_v1+stmt", "-"}, {"q:COMMIT", "e"},
			{"MARIA", "b"}, {"q:INSERT", "-"}, {"q:ROLLBACK", "e"}, {"MARIA", "b"}, {"q:XA END X'6f',X'',1", "-"}, {"XA_prepare", "e"},
			{"Start_encryption+ignorable", "."}, {"Type_172", "!"}, {"Type_172+ignorable", "."},
		}},
		{"what no server writes", []stepCase{
			{"Xid", "!"}, {"q:COMMIT", "!"}, {"q:ROLLBACK", "!"}, {"XA_prepare", "!"},
			{"GTID", "b"}, {"GTID", "!"}, {"ANONYMOUS", "!"}, {"Xid", "!"}, {"q:COMMIT", "!"}, {"FDE", "!"}, {"Rotate", "!"}, {"Stop", "!"}, {"Previous_gtids", "!"},
			{"q:BEGIN", "-"}, {"q:BEGIN", "!"}, {"q:XA START 'a'", "!"}, {"GTID", "!"}, {"Rotate", "!"}, {"Xid", "e"},
			{"Intvar", "b"}, {"q:BEGIN", "!"}, {"GTID", "!"}, {"Rotate", "!"}, {"Xid", "!"}, {"q:INSERT", "e"},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var tr Tracker
			var length uint64
			for i, s := range append([]stepCase{{"FDE", "."}}, tc.steps...) {
				ev := makeStep(t, s.event)
				before := tr
				e, err := tr.Next(ev)
				var got string
				switch {
				case err != nil:
					got = "!"
				case e.Began || e.Ended:
					got = map[bool]string{true: "b"}[e.Began] + map[bool]string{true: "e"}[e.Ended]
				case e.Boundary:
					got = "."
				default:
					got = "-"
				}
				if got != s.effect {
					t.Fatalf("step %d, %s: %q (%+v, %v), want %q", i, s.event, got, e, err, s.effect)
				}
				if err != nil {
					if tr != before {
						t.Fatalf("step %d, %s: an error changed the state", i, s.event)
					}
					if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnsupported) {
						t.Errorf("step %d, %s: error %v", i, s.event, err)
					}
					continue
				}
				if e.Began {
					length = 0
				}
				if !e.Header.Artificial() && !e.Header.Type.IsHeartbeat() {
					length += uint64(len(ev))
				}
				if e.Ended && e.Length != length {
					t.Errorf("step %d, %s: a transaction of %d bytes, want %d", i, s.event, e.Length, length)
				}
				if e.Boundary == tr.InTransaction() {
					t.Errorf("step %d, %s: boundary %v, in a transaction %v", i, s.event, e.Boundary, tr.InTransaction())
				}
			}
		})
	}
}

func TestTrackerGTID(t *testing.T) {
	var tr Tracker
	next := func(name string) Effect {
		t.Helper()
		e, err := tr.Next(makeStep(t, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return e
	}
	next("FDE")
	next("GTID")
	if got := tr.GTID().String(); got != stepGTID {
		t.Errorf("open: %q, want %q", got, stepGTID)
	}
	if e := next("q:BEGIN"); e.GTID != (gtid.GTID{}) {
		t.Errorf("BEGIN: effect has %v", e.GTID)
	}
	if e := next("Xid"); e.GTID.String() != stepGTID {
		t.Errorf("XID: %q, want %q", e.GTID, stepGTID)
	}
	next("ANONYMOUS")
	if e := next("q:DROP TABLE a"); !e.Ended || e.GTID != (gtid.GTID{}) {
		t.Errorf("anonymous: %+v", e)
	}
	next("GTID")
	next("q:BEGIN")
	tr.Abort()
	if tr.InTransaction() || tr.GTID() != (gtid.GTID{}) {
		t.Errorf("aborted: %+v", tr)
	}
	if c, ok := tr.Checksum(); c != ChecksumCRC32 || !ok {
		t.Errorf("Abort forgot the checksum algorithm: %v, %v", c, ok)
	}
	if e := next("q:DROP TABLE a"); !e.Ended || e.GTID != (gtid.GTID{}) {
		t.Errorf("after Abort: %+v", e)
	}
	next("GTID")
	tr.NewFile()
	if c, ok := tr.Checksum(); tr.InTransaction() || ok || c != ChecksumNone {
		t.Errorf("new file: %+v", tr)
	}
	for _, name := range []string{"q:BEGIN", "GTID", "Rotate", "Previous_gtids", "Type_99+ignorable"} {
		if _, err := tr.Next(makeStep(t, name)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s before the format description: %v", name, err)
		}
	}
	next("Rotate+artificial")
	next("FDE")
	next("q:DROP TABLE a")
}

func TestTrackerLengths(t *testing.T) {
	var tr Tracker
	if _, err := tr.Next(makeStep(t, "FDE")); err != nil {
		t.Fatal(err)
	}
	query := makeQuery("INSERT " + strings.Repeat("x", 2*MaxWhole))
	short := makeQuery("INSERT")
	tooShort := finish(begin(nil), 0, Header{Type: TypeIntvar}, ChecksumNone)
	for _, tc := range []struct {
		name string
		head []byte
		ok   bool
	}{
		{"whole", query, true},
		{"MaxWhole", query[:MaxWhole], true},
		{"more than MaxWhole", query[:MaxWhole+1], true},
		{"less", query[:MaxWhole-1], false},
		{"longer than it says", append(short[:len(short):len(short)], 0), false},
		{"shorter than it says", short[:len(short)-1], false},
		{"header only", short[:HeaderSize], false},
		{"less than a header", short[:HeaderSize-1], false},
		{"nothing", nil, false},
		{"no room for a checksum", tooShort, false},
		{"rows without flags", makeEvent(Header{Type: TypeWriteRows}, make([]byte, 3)), false},
		{"a GTID longer than MaxWhole", makeEvent(Header{Type: TypeGTID}, make([]byte, MaxWhole))[:MaxWhole], false},
		{"status variables up to the end", makeEvent(Header{Type: TypeQuery}, []byte{queryHeader - 2: 9, queryHeader: 0}), false},
	} {
		n := tr
		if _, err := n.Next(tc.head); (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ok %v", tc.name, err, tc.ok)
		}
	}
}

// The longest QUERY head before the text must fit into MaxWhole, so that a
// long BEGIN-like text is never mistaken.
func TestMaxWholeReachesTheText(t *testing.T) {
	body := make([]byte, queryHeader, 300_000)
	body[8] = 255
	binary.LittleEndian.PutUint16(body[11:], 65535)
	body = append(body, make([]byte, 65535+255+1)...)
	body = append(body, "BEGIN"...)
	ev := makeEvent(Header{Type: TypeQuery}, body)
	q, err := ParseQuery(ev, ChecksumCRC32)
	if err != nil || string(q.Text) != "BEGIN" || q.TextLength != 5 || statementKind(q) != statementBegin {
		t.Errorf("text %q, length %d, %v", q.Text, q.TextLength, err)
	}
	ev = makeEvent(Header{Type: TypeQuery}, append(body, strings.Repeat("x", 100_000)...))
	q, err = ParseQuery(ev[:MaxWhole], ChecksumCRC32)
	if err != nil || !strings.HasPrefix(string(q.Text), "BEGINxxx") || q.TextLength != 100_005 || statementKind(q) != statementOther {
		t.Errorf("text %.20q, length %d, %v", q.Text, q.TextLength, err)
	}
}

func TestTrackerDecode(t *testing.T) {
	good := (&Tracker{state: stateBegun, formatted: true, checksum: ChecksumCRC32, gtid: gtid.GTID{SID: gtid.SID{Tag: "tag"}, GNO: 5}, length: 7}).AppendBinary(nil)
	var tr Tracker
	if rest, err := tr.Decode(good); err != nil || len(rest) != 0 || tr.gtid.SID.Tag != "tag" || tr.length != 7 {
		t.Fatalf("%+v, rest %x, %v", tr, rest, err)
	}
	was := tr
	bad := map[string][]byte{"state": append([]byte{byte(stateCount)}, good[1:]...), "formatted": append([]byte{good[0], 2}, good[2:]...),
		"tag": append(good[:len(good)-1:len(good)-1], '-'), "open although none": append([]byte{0}, good[1:]...)}
	for n := range good {
		bad["cut"] = good[:n]
		for name, b := range bad {
			if _, err := tr.Decode(b); !errors.Is(err, ErrMalformed) || tr != was {
				t.Fatalf("%s, %d: %+v, %v", name, n, tr, err)
			}
		}
	}
}

// goldenEvents returns the events of a golden file without the format
// description, and a tracker that has seen that.
func goldenEvents(t testing.TB, name string) (tr Tracker, events [][]byte, size int) {
	g := readGolden(t, goldenPath(name))
	for rest := g.file[MagicSize:]; len(rest) > 0; {
		h, err := ParseHeader(rest)
		if err != nil {
			t.Fatal(err)
		}
		if h.Type == TypeFormatDescription {
			if _, err := tr.Next(rest[:h.Length]); err != nil {
				t.Fatal(err)
			}
		} else {
			events = append(events, rest[:min(int(h.Length), MaxWhole)])
			size += int(h.Length)
		}
		rest = rest[h.Length:]
	}
	return tr, events, size
}

func TestTrackerAllocatesNothing(t *testing.T) {
	for _, name := range []string{"97-row", "97-statement-off", "97-xa", "56-mixed"} {
		tr, events, _ := goldenEvents(t, name)
		if n := testing.AllocsPerRun(10, func() {
			for _, ev := range events {
				if _, err := tr.Next(ev); err != nil {
					t.Fatal(err)
				}
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations for %d events, want 0", name, n, len(events))
		}
	}
}

// The short way for events inside a transaction must come to the same as step.
func TestTrackerInside(t *testing.T) {
	short := 0
	for state := range stateCount {
		for _, sum := range []Checksum{ChecksumNone, ChecksumCRC32} {
			for typ := range 256 {
				for length := HeaderSize; length < HeaderSize+20; length++ {
					tr := Tracker{state: state, formatted: true, checksum: sum, length: 7}
					h := Header{Type: EventType(typ), Length: uint32(length)}
					if !tr.inside(h) {
						continue
					}
					short++
					head := make([]byte, length)
					h.Put(head)
					n := tr
					if act, err := n.step(h, head); act != actStay || err != nil || n != tr {
						t.Fatalf("%s event of %d bytes %s: step gives %v, %v, %+v", h.Type, length, state, act, err, n)
					}
				}
			}
		}
	}
	if want := 7 * (12 + 8); short != want {
		t.Errorf("%d events go the short way, want %d", short, want)
	}
}

func BenchmarkTracker(b *testing.B) {
	tr, events, size := goldenEvents(b, "97-mixed")
	b.SetBytes(int64(size / len(events)))
	for i := 0; b.Loop(); i++ {
		if _, err := tr.Next(events[i%len(events)]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyChecksum(b *testing.B) {
	ev := makeQuery(strings.Repeat("x", 300))
	b.SetBytes(int64(len(ev)))
	for b.Loop() {
		VerifyChecksum(ev)
	}
}
