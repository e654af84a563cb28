package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/binlogtest"
	"kingbus/internal/gtid"
	"kingbus/internal/segment"
	"kingbus/internal/sql"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

const sourceUUID = "11111111-2222-3333-4444-555555555555"

// madeRig has a stream of made-up events: files of n transactions of the given
// size each.
func madeRig(t *testing.T, files, n, size int, change ...func(*Config)) (*rig, *binlogtest.Writer) {
	t.Helper()
	r := newRig(t, change...)
	r.follow(stream.Source{UUID: sourceUUID, ServerID: 7, Version: "9.7.4", Variables: map[string]string{
		"gtid_mode": "ON", "binlog_format": "ROW", "binlog_checksum": "CRC32", "binlog_row_image": "FULL", "version_comment": "MySQL Community Server - GPL",
		"rpl_semi_sync_source_enabled": "ON", "read_only": "OFF", "server_id": "7", "server_uuid": sourceUUID, "lower_case_table_names": "0",
		"rpl_semi_sync_master_enabled": "ON", "expire_logs_days": "0", "log_slave_updates": "OFF", "tx_isolation": "REPEATABLE-READ"}})
	u, err := gtid.ParseUUID(sourceUUID)
	if err != nil {
		t.Fatal(err)
	}
	w := &binlogtest.Writer{UUID: u, ServerID: 7, Time: 1700000000, Checksum: binlog.ChecksumCRC32}
	for i := range files {
		r.begin(w, i+1)
		for range n {
			r.appendMade(w.Transaction(nil, size))
		}
	}
	return r, w
}

// begin begins a file of made-up events.
func (r *rig) begin(w *binlogtest.Writer, number int) {
	r.t.Helper()
	r.rotate(fmt.Sprintf("binlog.%06d", number))
	r.appendMade(w.Begin(nil))
}

// appendMade appends whole transactions and waits until they are served.
func (r *rig) appendMade(events []byte) {
	r.t.Helper()
	if err := r.link.Append(r.t.Context(), append(make([]byte, stream.RunHeader), events...)); err != nil {
		r.t.Fatal(err)
	}
	r.size += uint64(len(events))
	want := stream.Coordinates{File: r.name, Pos: r.size}
	r.await(fmt.Sprint(want), func(st stream.Status) bool { return st.End == want })
}

// step is a command of a scripted session and what it answers: the first value
// of the first row (or the second, for SHOW VARIABLES), "OK", or an error.
type step struct{ send, want string }

// play sends the steps on one connection.
func play(t *testing.T, c *wire.Client, steps []step) {
	t.Helper()
	for _, s := range steps {
		if got := answerTo(t, c, s.send); got != s.want {
			t.Errorf("%s: got %q, want %q", s.send, got, s.want)
		}
	}
}

func answerTo(t *testing.T, c *wire.Client, statement string) string {
	t.Helper()
	if payload, ok := strings.CutPrefix(statement, "\x15"); ok {
		if _, err := c.Do(t.Context(), append([]byte{wire.ComRegisterReplica}, payload...)); err != nil {
			return err.Error()
		}
		return "OK"
	}
	res, err := c.Query(t.Context(), statement)
	var e *wire.Error
	switch {
	case errors.As(err, &e):
		return fmt.Sprintf("%d: %s", e.Code, e.Message)
	case err != nil:
		t.Fatalf("%s: %v", statement, err)
	case res.Columns == nil:
		return "OK"
	case len(res.Rows) == 0:
		return "no rows"
	case len(res.Columns) == 2 && res.Columns[0].Name == "Variable_name":
		return string(res.Rows[0][1])
	case res.Rows[0][0] == nil:
		return "NULL"
	}
	return string(res.Rows[0][0])
}

// register is COM_REGISTER_SLAVE with nothing reported.
func register(serverID uint32) string {
	p := binary.LittleEndian.AppendUint32([]byte{wire.ComRegisterReplica}, serverID)
	return string(append(p, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)) // three strings, port, rank, source id
}

// TestSessions replays what replicas and tools of many versions send, from
// protocol.md B1 and B5.
func TestSessions(t *testing.T) {
	now := time.Unix(1700000123, 0)
	r, _ := madeRig(t, 1, 2, 100, func(c *Config) { c.Now = func() time.Time { return now } })
	id := r.stream.Status().Identity
	serverID, clock := fmt.Sprint(id.ServerID), "1700000123"
	const uuid = "22222222-2222-2222-2222-222222222222"
	scripts := map[string][]step{
		"5.5": {{"SELECT UNIX_TIMESTAMP()", clock}, {"SHOW VARIABLES LIKE 'SERVER_ID'", serverID}, {"SET @master_heartbeat_period= 1799999979520", "OK"}, {register(9), "OK"}},
		"5.6": {{"SELECT UNIX_TIMESTAMP()", clock}, {"SHOW VARIABLES LIKE 'SERVER_ID'", serverID}, {"SET @master_heartbeat_period= 1799999979520", "OK"},
			{"SET @master_binlog_checksum= @@global.binlog_checksum", "OK"}, {"SELECT @master_binlog_checksum", "CRC32"}, {"SELECT @@GLOBAL.GTID_MODE", "ON"},
			{"SHOW VARIABLES LIKE 'SERVER_UUID'", id.ServerUUID}, {"SET @slave_uuid= '" + uuid + "'", "OK"}, {register(9), "OK"},
			{"SHOW VARIABLES LIKE 'rpl_semi_sync_master_enabled'", "no rows"}},
		"5.7": {{"SELECT UNIX_TIMESTAMP()", clock}, {"SELECT @@GLOBAL.SERVER_ID", serverID}, {"SET @master_heartbeat_period= 30000001024", "OK"},
			{"SET @master_binlog_checksum= @@global.binlog_checksum", "OK"}, {"SELECT @master_binlog_checksum", "CRC32"}, {"SELECT @@GLOBAL.GTID_MODE", "ON"},
			{"SELECT @@GLOBAL.SERVER_UUID", id.ServerUUID}, {"SET @slave_uuid= '" + uuid + "'", "OK"}, {register(9), "OK"},
			{"SELECT @@global.rpl_semi_sync_master_enabled", "1193: Unknown system variable 'rpl_semi_sync_master_enabled'"}},
		"9.7": {{"SELECT UNIX_TIMESTAMP()", clock}, {"SELECT @@GLOBAL.SERVER_ID", serverID},
			{"SET @master_heartbeat_period = 30000001024, @source_heartbeat_period = 30000001024", "OK"},
			{"SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum", "OK"},
			{"SELECT @source_binlog_checksum", "CRC32"}, {"SELECT @@GLOBAL.GTID_MODE", "ON"}, {"SELECT @@GLOBAL.SERVER_UUID", id.ServerUUID},
			{"SET @slave_uuid = '" + uuid + "', @replica_uuid = '" + uuid + "'", "OK"}, {register(9), "OK"},
			{"SELECT @@global.rpl_semi_sync_source_enabled", "1193: Unknown system variable 'rpl_semi_sync_source_enabled'"}},
		"MariaDB": {{"SELECT UNIX_TIMESTAMP()", clock}, {"SHOW VARIABLES LIKE 'SERVER_ID'", serverID}, {"SET @master_heartbeat_period= 30000001024", "OK"},
			{"SET @master_binlog_checksum= @@global.binlog_checksum", "OK"}, {"SELECT @master_binlog_checksum", "CRC32"}, {"SET @mariadb_slave_capability=4", "OK"},
			{"SELECT @@GLOBAL.gtid_domain_id", "1193: Unknown system variable 'gtid_domain_id'"}, {register(9), "OK"}},
		"mysqlbinlog": {{"SELECT VERSION()", "9.7.4"}, {"SET @master_binlog_checksum = 'NONE', @source_binlog_checksum = 'NONE'", "OK"}},
		"go-mysql": {{"SHOW GLOBAL VARIABLES LIKE 'BINLOG_CHECKSUM'", "CRC32"}, {"SET @slave_uuid = '" + uuid + "', @replica_uuid = '" + uuid + "'", "OK"},
			{"SHOW VARIABLES WHERE Variable_name IN ('rpl_semi_sync_master_enabled', 'rpl_semi_sync_source_enabled')", "no rows"},
			{"SHOW GLOBAL VARIABLES LIKE 'binlog_row_image'", "FULL"}, {"SHOW MASTER STATUS", "binlog.000001"}, {"SELECT @@GLOBAL.GTID_EXECUTED", sourceUUID + ":1-2"}},
		"canal": {{"set wait_timeout=9999999", "OK"}, {"set net_write_timeout=7200", "OK"}, {"set net_read_timeout=7200", "OK"}, {"set names 'binary'", "OK"},
			{"set @master_binlog_checksum= @@global.binlog_checksum", "OK"}, {"set @slave_uuid=uuid()", "OK"}, {"SELECT length(@slave_uuid)", "36"},
			{"SET @mariadb_slave_capability='4'", "OK"}, {"show variables like 'binlog_format'", "ROW"}, {"select @@version_comment", "kingbus (MySQL Community Server - GPL)"}},
		"connector-java": {{"show global variables like 'gtid_purged'", ""}, {"show binary log status", "binlog.000001"}, {"select @@server_id", serverID},
			{"set @master_heartbeat_period=10000000000", "OK"}},
		"orchestrator": {{"select @@global.hostname, ifnull(@@global.report_host,''), @@global.server_id, @@global.version, @@global.version_comment, @@global.read_only, @@global.binlog_format, @@global.log_bin, @@global.log_slave_updates", "bus"},
			{"show variables like 'maxscale%'", "no rows"}, {"SELECT @@global.read_only read_only", "1"}},
		"odd spelling": {{"/* x */ sElEcT\t@@global . server_id", serverID}, {"SET @`master_binlog_checksum`:=@@binlog_checksum;", "OK"}, {"-- c\nSELECT @MASTER_BINLOG_CHECKSUM", "CRC32"},
			{"/*!40101 SET @slave_uuid='x' */", "OK"}, {"SELECT @slave_uuid, @replica_uuid", "x"}},
		"errors": {{"DROP TABLE t", "1235: kingbus is not a database server and does not support DROP"}, {"SELECT * FROM mysql.user", "1146: Table 'mysql.user' doesn't exist"},
			{"", "1065: Query was empty"}, {"KILL 4000000", "1094: Unknown thread id: 4000000"}, {"USE shop", "1049: Unknown database 'shop'"},
			{"FLUSH BINARY LOGS", "1227: Access denied; you need (at least one of) the RELOAD privilege(s) for this operation"}, {"SELECT 1", "1"}},
	}
	for name, steps := range scripts {
		t.Run(name, func(t *testing.T) { play(t, r.dial(), steps) })
	}
}

// TestNoSource: before a source was seen sessions read status, and nothing that
// a replica hears stops it for good.
func TestNoSource(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	if got := c.Greeting().Version; got != firstVersion {
		t.Errorf("version %q", got)
	}
	play(t, c, []step{
		{"SELECT @@GLOBAL.SERVER_ID", fmt.Sprint(r.stream.Status().Identity.ServerID)},
		{setCRC, "OK"},
		{"SELECT @source_binlog_checksum", "CRC32"},
		{"SELECT @@GLOBAL.GTID_MODE", "1053: kingbus: nothing was received from the source yet; come back"},
		{"SHOW BINARY LOG STATUS", "no rows"}, {"SHOW BINARY LOGS", "no rows"},
	})
	for name, payload := range map[string][]byte{
		"position": dumpPayload("binlog.000003", 4711, 0, 9), "no file": dumpPayload("", 4, 0, 9), "gtid": dumpGTIDPayload("", 4, 0, 9, encodeSet(t, "")),
	} {
		t.Run(name, func(t *testing.T) {
			c := r.dial()
			play(t, c, []step{{setCRC, "OK"}})
			tr := recordDump(t, c, payload, nil)
			want := []string{"MySQL error 1053 (08S01): kingbus: nothing was received from the source yet; come back", "closed"}
			if name == "position" { // an event makes the replica forget its failed attempts
				want = append([]string{`Rotate ts=0 lp=0 flags=0x20 "g\x12\x00\x00\x00\x00\x00\x00binlog.000003" checksum`}, want...)
			}
			compare(t, want, tr.lines)
		})
	}
}

// TestFirstSource: a session that began before the source was seen must not say
// that there is no gtid_mode: a replica would take that for OFF, and stop.
func TestFirstSource(t *testing.T) {
	r := newRig(t)
	before := r.dial()
	begun := []step{{"DO 1", "OK"}} // a client is logged in before its session has begun
	play(t, before, begun)
	r.follow(stream.Source{UUID: "6e1a2b3c-0000-1111-2222-333344445555", Version: "9.7.4", Variables: map[string]string{"gtid_mode": "ON"}})
	play(t, before, []step{{"SELECT @@GLOBAL.GTID_MODE", "1053: kingbus: nothing was received from the source yet; come back"}})
	play(t, r.dial(), []step{{"SELECT @@GLOBAL.GTID_MODE", "ON"}})

	old := newRig(t) // 5.5 has none
	before = old.dial()
	play(t, before, begun)
	old.follow(stream.Source{UUID: "6e1a2b3c-0000-1111-2222-333344445555", Version: "5.5.62", Variables: map[string]string{"version": "5.5.62"}})
	play(t, before, []step{{"SELECT @@GLOBAL.GTID_MODE", "1193: Unknown system variable 'GTID_MODE'"}})
}

// TestAhead: what this node may only not have yet is never 1236.
func TestAhead(t *testing.T) {
	r, w := madeRig(t, 2, 2, 100, func(c *Config) { c.CatchUp = 20 * time.Millisecond })
	const back = "MySQL error 1053 (08S01): kingbus: this node does not have yet what the replica asks for; come back"
	for name, payload := range map[string][]byte{
		"position":  dumpPayload("binlog.000002", uint32(r.size)+10, 0, 9),
		"next file": dumpPayload("binlog.000003", 4, 0, 9),
		"much more": dumpPayload("binlog.000017", 12345, 0, 9),
		"gtid":      dumpGTIDPayload("", 4, 0, 9, encodeSet(t, sourceUUID+":1-5")),
	} {
		t.Run(name, func(t *testing.T) {
			c := r.dial()
			play(t, c, []step{{setCRC, "OK"}})
			lines := recordDump(t, c, payload, nil).lines
			if len(lines) != 3 || !strings.HasPrefix(lines[0], "Rotate ts=0") || lines[1] != back {
				t.Errorf("got %q", lines)
			}
		})
	}
	t.Run("others' GTIDs", func(t *testing.T) {
		c := r.dial()
		play(t, c, []step{{setCRC, "OK"}})
		lines := recordDump(t, c, dumpGTIDPayload("", 4, flagNonBlock, 9, encodeSet(t, "99999999-1111-1111-1111-111111111111:1-5,"+sourceUUID+":1-4")), nil).lines
		if len(lines) < 2 || lines[len(lines)-2] != "EOF fe00000200" {
			t.Errorf("got %q", lines)
		}
	})
	t.Run("it comes", func(t *testing.T) {
		r, w := madeRig(t, 1, 1, 100, func(c *Config) { c.CatchUp = time.Minute })
		c := r.dial()
		play(t, c, []step{{setCRC, "OK"}})
		next := w.Transaction(nil, 100)
		if err := c.Command(dumpPayload(r.name, uint32(r.size)+uint32(len(next)), flagNonBlock, 9)); err != nil {
			t.Fatal(err)
		}
		for r.server.Counters().Dumps == 0 {
			time.Sleep(time.Millisecond)
		}
		r.appendMade(next)
		if p, err := c.Conn().ReadPacket(1 << 20); err != nil || wire.IsError(p) {
			t.Errorf("%q, %v", p, err)
		}
	})
	_ = w
}

// TestKick: a second dump of the same replica ends the first.
func TestKick(t *testing.T) {
	r, _ := madeRig(t, 1, 2, 100)
	start := func(set string, payload []byte) chan []string {
		c := r.dial()
		play(t, c, []step{{setCRC, "OK"}, {set, "OK"}})
		out := make(chan []string, 1)
		before := r.server.Counters().Dumps
		go func() {
			tr, err := readDump(c, payload, nil)
			if err != nil {
				tr.lines = append(tr.lines, err.Error())
			}
			out <- tr.lines
		}()
		for r.server.Counters().Dumps == before {
			time.Sleep(time.Millisecond)
		}
		for len(r.server.Replicas()) == 0 || r.server.Replicas()[len(r.server.Replicas())-1].LagBytes > 0 {
			time.Sleep(time.Millisecond)
		}
		return out
	}
	const uuid = "SET @replica_uuid = '22222222-2222-2222-2222-222222222222'"
	const other = "SET @replica_uuid = '33333333-2222-2222-2222-222222222222'"
	first := start(uuid, dumpPayload("binlog.000001", 4, 0, 9))
	third := start(other, dumpPayload("binlog.000001", 4, 0, 9))
	fourth := start("SET @x = 1", dumpPayload("binlog.000001", 4, 0, 9))
	second := start(uuid, dumpGTIDPayload("", 4, 0, 10, encodeSet(t, "")))
	lines := <-first
	want := fmt.Sprintf("MySQL error 1236 (HY000): %s; the first event 'binlog.000001' at 4, the last event read from './binlog.000001' at %d, the last byte read from './binlog.000001' at %d.", textSameUUID, r.size, r.size)
	if n := len(lines); n < 2 || lines[n-2] != want {
		t.Errorf("got %q, want %q", lines[max(0, n-2):], want)
	}
	fifth := start("SET @x = 1", dumpPayload("binlog.000001", 4, 0, 9))
	if lines := <-fourth; !strings.Contains(lines[len(lines)-2], textSameUUID) {
		t.Errorf("without uuid: got %q", lines)
	}
	if got := len(r.server.Replicas()); got != 3 {
		t.Errorf("%d replicas, want 3: %+v", got, r.server.Replicas())
	}
	// A clean shutdown: EOF, so that replicas come back.
	_ = r.server.Close()
	for _, out := range []chan []string{second, third, fifth} {
		lines := <-out
		if n := len(lines); n < 2 || lines[n-2] != "EOF fe00000200" || lines[n-1] != "closed" {
			t.Errorf("at shutdown: got %q", lines[max(0, n-2):])
		}
	}
}

// TestServerIDOfSource: a MySQL server with the id of the source skips everything without a
// word, so the log says it; of a program that is none it says nothing.
func TestServerIDOfSource(t *testing.T) {
	const uuid = "SET @replica_uuid = '22222222-2222-2222-2222-222222222222'"
	for _, tc := range []struct {
		set    string
		id     uint32
		warned bool
	}{{uuid, 7, true}, {uuid, 9, false}, {"DO 1", 7, false}} {
		var log bytes.Buffer
		r, _ := madeRig(t, 1, 2, 100, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		c := r.dial()
		play(t, c, []step{{setCRC, "OK"}, {tc.set, "OK"}})
		recordDump(t, c, dumpPayload("binlog.000001", 4, 1, tc.id), nil) // it ends at the end of the binlog
		_ = r.server.Close()
		if got := strings.Contains(log.String(), "has the server_id of the source"); got != tc.warned {
			t.Errorf("%q, server id %d: warned: %t\n%s", tc.set, tc.id, got, &log)
		}
	}
}

// TestKillDump: KILL ends a dump without a word, KILL QUERY with EOF, COM_PING is
// not answered, and a client that leaves is noticed.
func TestKillDump(t *testing.T) {
	r, _ := madeRig(t, 1, 2, 100)
	for name, want := range map[string]string{"KILL %d": "", "KILL QUERY %d": "EOF fe00000200", "ping": "EOF fe00000200", "leave": ""} {
		t.Run(name, func(t *testing.T) {
			c := r.dial()
			play(t, c, []step{{setCRC, "OK"}})
			id := c.Greeting().ConnectionID
			if err := c.Command(dumpPayload("binlog.000001", 4, 0, 9)); err != nil {
				t.Fatal(err)
			}
			c.Conn().SplitSequence()
			waitReplicas(t, r, 1)
			switch name {
			case "leave":
				_ = c.Close()
				waitReplicas(t, r, 0)
				return
			case "ping":
				for range 3 {
					c.Conn().SetWriteSequence(0)
					if err := c.Conn().WritePacket([]byte{wire.ComPing}); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.Conn().Flush(); err != nil {
					t.Fatal(err)
				}
				name = "KILL QUERY %d"
			}
			play(t, r.dial(), []step{{fmt.Sprintf(name, id), "OK"}})
			last := ""
			for {
				p, err := c.Conn().ReadPacket(1 << 20)
				if err != nil {
					break
				}
				if wire.IsEOF(p) || wire.IsError(p) {
					last = fmt.Sprintf("EOF %x", p)
				}
			}
			if last != want {
				t.Errorf("got %q, want %q", last, want)
			}
			waitReplicas(t, r, 0)
		})
	}
}

func waitReplicas(t *testing.T, r *rig, n int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); len(r.server.Replicas()) != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("replicas: %+v, want %d", r.server.Replicas(), n)
		}
	}
}

// TestLimits: too many connections, packets that are too large, sessions that
// are idle, logins that take too long.
func TestLimits(t *testing.T) {
	r, _ := madeRig(t, 1, 1, 100, func(c *Config) {
		c.MaxConnections, c.MaxPacket, c.HandshakeTimeout, c.IdleTimeout = 2, 1000, 2*time.Second, 2*time.Second
	})
	nc, err := net.Dial("tcp", r.addr) // never logs in
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.Copy(io.Discard, nc); err != nil {
		t.Errorf("a login that takes too long: %v, want the connection closed", err)
	}
	c := r.dial()
	if _, err := c.Query(t.Context(), "SELECT '"+strings.Repeat("x", 1000)+"'"); !wire.IsCode(err, wire.ErNetPacketTooLarge) {
		t.Errorf("large packet: %v", err)
	}
	c = r.dial()
	c.Conn().ResetSequence() // it comes out of turn
	if p, err := c.Conn().ReadPacket(1000); err != nil || !wire.IsCode(wire.ParseError(p), wire.ErClientInteractionTimeout) {
		t.Errorf("idle session: %q, %v", p, err)
	}
	var open []*wire.Client
	for range 3 {
		c, err := wire.Dial(t.Context(), wire.ClientConfig{Address: r.addr, User: testUser, Password: []byte(testPassword)})
		if err == nil {
			open = append(open, c)
			continue
		}
		if !wire.IsCode(err, wire.ErConCount) {
			t.Errorf("too many connections: %v", err)
		}
	}
	if n := r.server.Counters(); len(open) > 2 || n.Refused != uint64(3-len(open)) {
		t.Errorf("%d open, %+v", len(open), n)
	}
	for _, c := range open {
		_ = c.Close()
	}
}

// brokenStream fails after its first chunk.
type brokenStream struct {
	Stream
	err error
}

type brokenReader struct {
	Reader
	err  error
	left int
}

func (s brokenStream) SeekPosition(file string, pos uint64) (Reader, error) {
	r, err := s.Stream.SeekPosition(file, pos)
	return &brokenReader{r, s.err, 1}, err
}

func (s brokenStream) SeekGTID(gtid.Set) (Reader, error) { return nil, s.err }

func (r *brokenReader) Next() (stream.Chunk, error) {
	if r.left--; r.left < 0 {
		return stream.Chunk{}, r.err
	}
	return r.Reader.Next()
}

// TestDamage: a node that cannot read its log sends replicas away without
// stopping them.
func TestDamage(t *testing.T) {
	damage := &segment.CorruptError{File: "segment-7", Offset: 4096, Err: errors.New("checksum")}
	for name, c := range map[string]struct {
		err    error
		want   string // once the dump has begun
		before string // if it cannot begin
	}{
		"corrupt": {fmt.Errorf("read: %w", damage), "MySQL error 1053 (08S01): kingbus: the binlog on this node is damaged at binlog.000001:",
			"MySQL error 1053 (08S01): kingbus: the binlog on this node is damaged; come back"},
		"purged": {fmt.Errorf("read: %w", stream.ErrPurgedAway), "MySQL error 1053 (08S01): kingbus: ", "MySQL error 1053 (08S01): kingbus: "},
		"gone":   {fmt.Errorf("seek: %w", stream.ErrNoFile), "MySQL error 1053 (08S01): kingbus: this node does not have", "MySQL error 1053 (08S01): kingbus: this node does not have"},
		"closed": {stream.ErrClosed, "EOF fe00000200", "EOF fe00000200"},
		"other":  {errors.New("no luck"), "MySQL error 1053 (08S01): kingbus: no luck", "MySQL error 1053 (08S01): kingbus: no luck"},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := madeRig(t, 1, 1, 100, func(cfg *Config) { cfg.Stream = brokenStream{cfg.Stream, c.err} })
			conn := r.dial()
			play(t, conn, []step{{setCRC, "OK"}})
			lines := recordDump(t, conn, dumpPayload("binlog.000001", 4, 0, 9), nil).lines
			if n := len(lines); n < 3 || !strings.HasPrefix(lines[n-2], c.want) {
				t.Errorf("got %q", lines)
			}
			conn = r.dial()
			play(t, conn, []step{{setCRC, "OK"}})
			lines = recordDump(t, conn, dumpGTIDPayload("", 4, 0, 9, encodeSet(t, "")), nil).lines
			if n := len(lines); n < 2 || !strings.HasPrefix(lines[n-2], c.before) {
				t.Errorf("before it began: got %q", lines)
			}
		})
	}
}

// TestSlowReplica: a replica that takes nothing is dropped after the timeout, and
// slows nobody; one that takes little by little is not.
func TestSlowReplica(t *testing.T) {
	r, _ := madeRig(t, 1, 40, 1<<20, func(c *Config) { c.WriteTimeout = 300 * time.Millisecond })
	stuck := r.dial()
	play(t, stuck, []step{{setCRC, "OK"}})
	if err := stuck.Command(dumpPayload("binlog.000001", 4, 0, 9)); err != nil {
		t.Fatal(err)
	}
	waitReplicas(t, r, 1)
	fast := r.dial()
	play(t, fast, []step{{setCRC, "OK"}})
	if lines := recordDump(t, fast, dumpPayload("binlog.000001", 4, flagNonBlock, 10), nil).lines; lines[len(lines)-2] != "EOF fe00000200" {
		t.Errorf("the fast one: %q", lines[len(lines)-2:])
	}
	waitReplicas(t, r, 0)
}

// TestLargeEvents: events that come in pieces, and those that take more than one
// packet, arrive whole.
func TestLargeEvents(t *testing.T) {
	r, w := madeRig(t, 1, 1, 100)
	for _, size := range []int{binlog.MaxWhole, 1 << 20, 1<<24 - 1 - 20 - 4, 17 << 20} {
		var want []byte
		from := r.size
		want = w.Transaction(nil, size)
		r.cut(want, 200<<10)
		c := r.dial()
		play(t, c, []step{{setCRC, "OK"}})
		tr := recordDump(t, c, dumpPayload(r.name, uint32(from), flagNonBlock, 9), nil)
		var got []byte
		for _, ev := range tr.full[2:] { // behind ROTATE and FDE
			got = append(got, ev...)
		}
		if string(got) != string(want) {
			t.Errorf("size %d: got %d bytes, want %d", size, len(got), len(want))
		}
	}
}

// cut appends a transaction with a large event in pieces.
func (r *rig) cut(events []byte, limit int) {
	r.t.Helper()
	size := uint64(len(events))
	for len(events) > 0 {
		n := min(limit, len(events))
		if len(events)-n < 64 {
			n = len(events) // the tail of the event may not lie alone with a part of the next
		}
		if err := r.link.Append(r.t.Context(), append(make([]byte, stream.RunHeader), events[:n]...)); err != nil {
			r.t.Fatal(err)
		}
		events = events[n:]
	}
	r.size += size
	want := stream.Coordinates{File: r.name, Pos: r.size}
	r.await(fmt.Sprint(want), func(st stream.Status) bool { return st.End == want })
}

// TestManyTails: many replicas at the end of the stream all get everything.
func TestManyTails(t *testing.T) {
	var sent tally
	r, w := madeRig(t, 1, 1, 100, func(c *Config) { c.Hooks = sent.hooks() })
	const replicas, transactions = 20, 50
	size := r.size
	var seen atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for i := range replicas {
		c := r.dial()
		play(t, c, []step{{setCRC, "OK"}})
		go func() { // until the client is closed; what is missing is counted below
			_, _ = readDump(c, dumpPayload("binlog.000001", uint32(size), 0, uint32(100+i)), func(h binlog.Header) bool {
				if h.Type == binlog.TypeXID {
					seen.Add(1)
				}
				return false
			})
		}()
	}
	waitReplicas(t, r, replicas)
	for range transactions {
		r.appendMade(w.Transaction(nil, 300))
	}
	for seen.Load() < replicas*transactions && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if got := seen.Load(); got != replicas*transactions {
		t.Errorf("%d transactions seen, want %d", got, replicas*transactions)
	}
	// The fake ROTATE is no event of the binlog.
	if n, stored, begun := sent.events.Load(), sent.stored.Load(), sent.begun.Load(); stored < replicas*transactions*4 || n-stored != replicas || begun != replicas*transactions {
		t.Errorf("observed were %d events, %d of the binlog, and %d transactions", n, stored, begun)
	}
}

// TestGuarded: a bug that a statement finds ends its session, and nothing else.
func TestGuarded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Status = func() []sql.Variable { panic("a bug") } })
	c, other := r.dial(), r.dial()
	if _, err := c.Query(t.Context(), "SHOW STATUS"); !wire.IsCode(err, wire.ErUnknown) {
		t.Errorf("%v", err)
	}
	if err := c.Ping(t.Context()); err == nil {
		t.Error("the session goes on")
	}
	if _, err := other.Query(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("another session: %v", err)
	}
}
