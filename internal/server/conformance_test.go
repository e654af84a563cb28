package server

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kingbus/internal/binlog"
	"kingbus/internal/mysqltest"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// recording is a real source with its binlog files.
type recording struct {
	inst  *mysqltest.Instance
	names []string
	files map[string][]byte
	uuid  string
}

// reload reads the source's files from its disk.
func (rec *recording) reload(t *testing.T) {
	t.Helper()
	files, err := rec.inst.BinlogFiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rec.names, rec.files, rec.uuid = nil, map[string][]byte{}, rec.inst.UUID
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(rec.inst.DataDir, f.Name))
		if err != nil {
			t.Fatal(err)
		}
		rec.names = append(rec.names, f.Name)
		rec.files[f.Name] = b
	}
}

// feed puts the source's files into the rig's stream.
func (rec *recording) feed(r *rig, limit int) {
	r.t.Helper()
	r.follow(rec.source(r.t))
	for _, name := range rec.names {
		r.addFile(name, rec.files[name], limit)
	}
}

func (rec *recording) source(t *testing.T) stream.Source {
	t.Helper()
	src := stream.Source{UUID: rec.uuid, ServerID: rec.inst.ServerID, Version: rec.inst.Server.Version, Variables: map[string]string{}}
	rows, err := rec.inst.Query(t.Context(), "SHOW GLOBAL VARIABLES")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		src.Variables[row[0]] = row[1]
	}
	src.Version = src.Variables["version"]
	return src
}

// positions of the events of a file, by type.
func positions(t *testing.T, content []byte, typ binlog.EventType) (out []uint64) {
	t.Helper()
	for at := binlog.MagicSize; at < len(content); {
		h, err := binlog.ParseHeader(content[at:])
		if err != nil {
			t.Fatal(err)
		}
		if h.Type == typ {
			out = append(out, uint64(at))
		}
		at += int(h.Length)
	}
	return out
}

func exec(t *testing.T, inst *mysqltest.Instance, statements string) {
	t.Helper()
	if err := inst.Exec(t.Context(), statements); err != nil {
		t.Fatal(err)
	}
}

// newRecording makes a source with four files: transactions of several kinds, a
// large row, a restart in between.
func newRecording(t *testing.T) *recording {
	t.Helper()
	rec := &recording{inst: mysqltest.Start(t, mysqltest.Options{Name: "source"})}
	if err := rec.inst.CreateUser(t.Context(), mysqltest.User{Name: testUser, Password: testPassword, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}); err != nil {
		t.Fatal(err)
	}
	exec(t, rec.inst, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY AUTO_INCREMENT, b LONGTEXT)")
	insert := strings.Repeat("INSERT INTO d.t (b) VALUES ('x');", 3)
	exec(t, rec.inst, insert+"FLUSH BINARY LOGS")
	exec(t, rec.inst, insert+"BEGIN; INSERT INTO d.t (b) VALUES ('one'); INSERT INTO d.t (b) VALUES (REPEAT('y', 300000)); INSERT INTO d.t (b) VALUES ('three'); COMMIT;"+insert+"FLUSH BINARY LOGS")
	exec(t, rec.inst, insert)
	if err := rec.inst.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, rec.inst, insert)
	rec.reload(t)
	return rec
}

const (
	setCRC   = "SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum"
	setBeat  = "SET @master_heartbeat_period = 30000000000, @source_heartbeat_period = 30000000000"
	setQuick = "SET @source_heartbeat_period = 20000000"
	setUUID  = "SET @slave_uuid = '11111111-1111-1111-1111-111111111111', @replica_uuid = '11111111-1111-1111-1111-111111111111'"
)

// conformanceCase is a request that is put to a real source and to kingbus.
type conformanceCase struct {
	name    string
	set     []string
	payload []byte
	// beats is after how many heartbeats to stop reading; 0: the dump ends.
	beats int
}

func (rec *recording) cases(t *testing.T) []conformanceCase {
	t.Helper()
	n := rec.names
	first, second, last := n[0], n[1], n[len(n)-1]
	file2 := rec.files[second]
	gtids2, rows2 := positions(t, file2, binlog.TypeGTID), positions(t, file2, binlog.TypeWriteRows)
	const nb = flagNonBlock
	crc := []string{setCRC}
	beat := []string{setCRC, setBeat}
	pos := func(name, file string, at uint64) conformanceCase {
		return conformanceCase{name: name, set: crc, payload: dumpPayload(file, uint32(at), nb, 77)}
	}
	set := func(intervals string) []byte { return encodeSet(t, rec.uuid+":"+intervals) }
	gtidCase := func(name string, sets []string, intervals string) conformanceCase {
		var b []byte
		if b = encodeSet(t, ""); intervals != "" {
			b = set(intervals)
		}
		return conformanceCase{name: name, set: sets, payload: dumpGTIDPayload("", 4, nb, 77, b)}
	}
	named := func(name, file string, at uint64, intervals string) conformanceCase {
		return conformanceCase{name: name, set: beat, payload: dumpGTIDPayload(file, at, nb, 77, set(intervals))}
	}
	return []conformanceCase{
		pos("position/first file", first, 4),
		pos("position/no name", "", 4),
		pos("position/boundary", second, gtids2[2]),
		pos("position/in a transaction", second, rows2[4]),
		pos("position/end of the FDE", second, positions(t, file2, binlog.TypePreviousGTIDs)[0]),
		pos("position/end of a finished file", second, uint64(len(file2))),
		pos("position/beyond a finished file", second, uint64(len(file2))+1),
		pos("position/unknown base", "nosuch.000001", 4),
		pos("position/older number", "binlog.000000", 4),
		pos("position/0", second, 0),
		pos("position/3", second, 3),
		pos("position/last file", last, 4),
		pos("position/end of the last file", last, uint64(len(rec.files[last]))),
		pos("inside/1 byte", second, gtids2[1]+1),
		pos("inside/header", second, gtids2[1]+10),
		pos("inside/body", second, gtids2[1]+25),
		pos("inside/FDE", second, 50),
		pos("inside/large row", second, rows2[4]+100000),
		{name: "checksum/unset", payload: dumpPayload(first, 4, nb, 77)},
		{name: "checksum/NULL", set: []string{"SET @source_binlog_checksum = NULL"}, payload: dumpPayload(first, 4, nb, 77)},
		{name: "checksum/NONE", set: []string{"SET @source_binlog_checksum = 'NONE'"}, payload: dumpPayload(second, 4, nb, 77)},
		{name: "checksum/unknown", set: []string{"SET @source_binlog_checksum = 'MD5'"}, payload: dumpPayload(first, 4, nb, 77)},
		{name: "checksum/lower case", set: []string{"SET @source_binlog_checksum = 'crc32'"}, payload: dumpPayload(first, 4, nb, 77)},
		{name: "checksum/number", set: []string{"SET @source_binlog_checksum = 1"}, payload: dumpPayload(first, 4, nb, 77)},
		{name: "checksum/old name", set: []string{"SET @master_binlog_checksum = 'CRC32'"}, payload: dumpPayload(first, 4, nb, 77)},
		{name: "checksum/both names", set: []string{"SET @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'NONE'"}, payload: dumpPayload(first, 4, nb, 77)},
		{name: "server id 0", set: crc, payload: dumpPayload(second, 4, 0, 0)},
		{name: "other flags", set: crc, payload: dumpPayload(second, 4, 0xfffd, 77)},
		gtidCase("gtid/empty", beat, ""),
		gtidCase("gtid/prefix", beat, "1-3"),
		gtidCase("gtid/prefix of file 2", beat, "1-6"),
		gtidCase("gtid/first of file 2", beat, "1-5"),
		gtidCase("gtid/hole", beat, "1-3:5-7"),
		gtidCase("gtid/holes", beat, "1:3:5:7:9:11:13:15"),
		gtidCase("gtid/last only", beat, "17"),
		gtidCase("gtid/all but one", beat, "1-5:7-18"),
		gtidCase("gtid/all", beat, "1-18"),
		gtidCase("gtid/hole, no heartbeats", crc, "1-3:5-7"),
		gtidCase("gtid/first of a file, no heartbeats", crc, "1-6"),
		gtidCase("gtid/all, no heartbeats", crc, "1-18"),
		gtidCase("gtid/no checksum", []string{"SET @source_binlog_checksum = 'NONE'", setBeat}, "1-6"),
		{name: "gtid/foreign uuid", set: beat, payload: dumpGTIDPayload("", 4, nb, 77, encodeSet(t, "99999999-1111-1111-1111-111111111111:1-5"))},
		{name: "gtid/position without file", set: beat, payload: dumpGTIDPayload("", gtids2[1], nb, 77, set("1-6"))},
		{name: "gtid/position 0", set: beat, payload: dumpGTIDPayload("", 0, nb, 77, set("1-6"))},
		{name: "gtid/NUL name", set: beat, payload: dumpGTIDPayload("\x00\x00\x00\x00\x00\x00", 4, nb, 77, set("1-6"))},
		named("named/boundary", second, gtids2[1], "1-7"),
		named("named/4", second, 4, "1-7"),
		named("named/in a transaction", second, rows2[4], "1-7"),
		named("named/inside", second, rows2[4]+3, "1-7"),
		named("named/unknown", "nosuch.000001", 4, "1-7"),
		{name: "malformed/set", set: beat, payload: dumpGTIDPayload("", 4, nb, 77, []byte{1, 2, 3})},
		{name: "malformed/empty set", set: beat, payload: dumpGTIDPayload("", 4, nb, 77, nil)},
		{name: "malformed/gtid", set: beat, payload: []byte{wire.ComBinlogDumpGTID, 1, 0, 77}},
		{name: "malformed/dump", set: beat, payload: []byte{wire.ComBinlogDump, 4, 0, 0}},
		{name: "malformed/name", set: beat, payload: dumpGTIDPayload(strings.Repeat("x", 600), 4, nb, 77, set("1"))},
		{name: "heartbeat/1", set: []string{setCRC, setQuick, setUUID}, payload: dumpPayload(last, 4, 0, 77), beats: 2},
		{name: "heartbeat/2", set: []string{setCRC, setQuick, setUUID}, payload: dumpPayload(last, 4, flagHeartbeatV2, 77), beats: 2},
		{name: "heartbeat/2 behind a jump", set: []string{setCRC, setQuick, setUUID}, payload: dumpPayload(last, uint32(positions(t, rec.files[last], binlog.TypeGTID)[1]), flagHeartbeatV2, 77), beats: 2},
		{name: "heartbeat/all had", set: []string{setCRC, setBeat, setUUID}, payload: dumpGTIDPayload("", 4, flagHeartbeatV2, 77, set("1-18")), beats: 1},
	}
}

// ask puts a case to a server.
func ask(t *testing.T, addr string, c conformanceCase) []string {
	t.Helper()
	conn := dial(t, addr, testUser, testPassword, wire.TLSPreferred) // MariaDB 10 has none by itself
	defer conn.Close()
	for _, s := range c.set {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	beats := 0
	tr := recordDump(t, conn, c.payload, func(h binlog.Header) bool {
		if h.Type.IsHeartbeat() {
			beats++
		}
		return c.beats > 0 && beats == c.beats
	})
	return tr.lines
}

func compare(t *testing.T, want, got []string) {
	t.Helper()
	if slices.Equal(want, got) {
		return
	}
	for i := range max(len(want), len(got)) {
		w, g := "(nothing)", "(nothing)"
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g {
			t.Errorf("packet %d of %d and %d:\n source  %s\n kingbus %s", i, len(want), len(got), w, g)
			return
		}
	}
}

func TestConformance(t *testing.T) {
	rec := newRecording(t)
	runs := map[string]int{"small runs": 1, "large runs": 1 << 20}
	rigs := map[string]*rig{}
	for name, limit := range runs {
		rigs[name] = newRig(t)
		rec.feed(rigs[name], limit)
	}
	for _, c := range rec.cases(t) {
		t.Run(c.name, func(t *testing.T) {
			want := ask(t, rec.inst.Addr(), c)
			if os.Getenv("SHOW") != "" {
				t.Logf("%s", strings.Join(want, "\n"))
			}
			for name := range runs {
				t.Run(name, func(t *testing.T) { compare(t, want, ask(t, rigs[name].addr, c)) })
			}
		})
	}
}
