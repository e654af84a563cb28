package source

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/hook"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// quiet is for tests that make many Pullers.
func quiet(cfg Config) Config {
	cfg.Retry = Backoff{time.Microsecond, time.Microsecond}
	cfg.Slow = cfg.Retry
	return cfg
}

// TestIdle: old events are as old as they are, until the source says that there are no more.
func TestIdle(t *testing.T) {
	f, m := newFake(t, "9.7.4"), newModel(t)
	f.files = someFiles(1, binlog.ChecksumCRC32, 10)
	end := stream.Coordinates{File: fakeName(0), Pos: uint64(len(f.files[0].data))}
	f.edit = func(_ int, p [][]byte) ([][]byte, bool) { return append(p, heartbeat(end.File, end.Pos)), false }
	p, _ := start(t, f.config(m))
	m.awaitFiles(p, f.files)
	await(t, "an idle source", p, func() bool {
		st := p.Status()
		return st.Received == end && st.LastEventTime == 1700000010 && st.LastEventAge == 0
	})
}

func TestFollow(t *testing.T) {
	for _, sum := range []binlog.Checksum{binlog.ChecksumCRC32, binlog.ChecksumNone} {
		for _, byGTID := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v/gtid=%v", sum, byGTID), func(t *testing.T) {
				f, m := newFake(t, "9.7.4"), newModel(t)
				f.files, f.sum = someFiles(3, sum, 10, 2000, 10), sum
				f.answers["SELECT @source_binlog_checksum"] = sum.String()
				if !byGTID {
					f.answers["SELECT @@GLOBAL.GTID_MODE"] = "OFF"
				}
				cfg, seen := f.config(m), &tally{}
				if byGTID { // else nobody observes
					cfg.Hooks.RelayIO = []hook.RelayIO{seen}
				}
				p, stop := start(t, cfg)
				m.awaitFiles(p, f.files)
				stop()
				st := p.Status()
				age := time.Since(time.Unix(1700000030, 0))
				if st.State != StateStopped || st.Problem != nil || st.UUID != fakeUUID || st.LastEventTime != 1700000030 || st.LastEventAge < age-time.Hour || st.LastEventAge > age {
					t.Errorf("status %+v", st)
				}
				if n, links := seen.transactions.Load(), seen.links.Load(); byGTID && (n != 9 || links != 1) {
					t.Errorf("%d transactions over %d connections were told", n, links)
				}
				if want := m.end(); st.Received != want {
					t.Errorf("received: got %v, want %v", st.Received, want)
				}
				got := f.requests()
				want := dumpRequest{byGTID: byGTID, file: fakeName(0), pos: 4, server: 4711}
				if len(got) != 1 || got[0].byGTID != want.byGTID || got[0].file != want.file || got[0].pos != want.pos || got[0].server != want.server || !got[0].set.IsEmpty() {
					t.Errorf("requests: got %+v, want %+v", got, want)
				}
				if m.source.Variables["gtid_mode"] == "" || m.source.Variables["report_password"] != "" {
					t.Errorf("variables: got %v", m.source.Variables)
				}
				// Again, in the middle of the last file.
				p, _ = start(t, f.config(m))
				await(t, "streaming", p, func() bool { return p.Status().State == StateStreaming })
				got = f.requests()[1:]
				if end := m.end(); len(got) != 1 || got[0].file != end.File || got[0].pos != end.Pos || byGTID && !got[0].set.Equal(m.executed) {
					t.Errorf("requests after a restart: got %+v, want %v", got, end)
				}
			})
		}
	}
}

// TestCutEverywhere breaks the connection after every single byte of the dump.
// Nothing must be missing then, and nothing come twice.
func TestCutEverywhere(t *testing.T) {
	for _, byGTID := range []bool{true, false} {
		f := newFake(t, "9.7.4")
		f.files = someFiles(2, binlog.ChecksumCRC32, 10, 30)
		if !byGTID {
			f.answers["SELECT @@GLOBAL.GTID_MODE"] = "OFF"
		}
		payloads, err := f.payloads(dumpRequest{byGTID: byGTID, file: fakeName(0), pos: 4})
		if err != nil {
			t.Fatal(err)
		}
		total := 0
		for _, p := range payloads {
			total += 4 + len(p)
		}
		step := 1
		if testing.Short() || !byGTID {
			step = 37
		}
		for at := 0; at <= total; at += step {
			f.change(func() {
				f.dumps = nil
				f.limit = func(n int) int {
					if n == 0 {
						return at
					}
					return -1
				}
			})
			m := newModel(t)
			cfg := quiet(f.config(m))
			cfg.Log = discard
			p, stop := start(t, cfg)
			m.awaitFiles(p, f.files)
			stop()
			if t.Failed() {
				t.Fatalf("cut after %d bytes of %d", at, total)
			}
		}
	}
}

// TestMalformed sends events that must not be stored: the link stops with file,
// position and reason, what was complete before stays, and once the source is
// sane it goes on.
func TestMalformed(t *testing.T) {
	// Payloads of the dump: 0 fake ROTATE, 1 FDE, 2 PREVIOUS_GTIDS, 3 GTID,
	// 4 BEGIN, 5 rows, 6 XID, 7 GTID, 8 BEGIN, 9 rows, 10 XID, …, then ROTATE,
	// fake ROTATE, FDE, PREVIOUS_GTIDS …
	const gtid2, begin2, rows2, xid2 = 7, 8, 9, 10
	fix := func(p []byte) []byte { binlog.UpdateChecksum(p[1:]); return p }
	edits := []struct {
		name string
		edit func(p [][]byte) [][]byte
		at   int    // index of the payload that is refused
		text string // of the error
	}{
		{"bad checksum", func(p [][]byte) [][]byte { p[rows2][30] ^= 1; return p }, rows2, "checksum of the Write_rows event"},
		{"bad checksum of a format description", func(p [][]byte) [][]byte { p[1][40] ^= 1; return p }, 1, "checksum of the Format_desc"},
		{"bad checksum of the fake rotate", func(p [][]byte) [][]byte { p[0][22] ^= 1; return p }, 0, "checksum of the Rotate"},
		{"gap", func(p [][]byte) [][]byte { return slices.Delete(p, gtid2, xid2+1) }, gtid2, "events are missing"},
		{"an event missing within", func(p [][]byte) [][]byte { return slices.Delete(p, rows2, rows2+1) }, rows2, "events are missing"},
		{"an event twice", func(p [][]byte) [][]byte { return slices.Insert(p, rows2, bytes.Clone(p[begin2])) }, rows2, "events are missing or of another length"},
		{"end_log_pos wrong", func(p [][]byte) [][]byte { p[rows2][14]++; fix(p[rows2]); return p }, rows2, "says that it ends at"},
		{"length less than a header", func(p [][]byte) [][]byte { binary.LittleEndian.PutUint32(p[rows2][10:], 18); return p }, rows2, "event of 18 bytes"},
		{"length beyond all", func(p [][]byte) [][]byte { binary.LittleEndian.PutUint32(p[rows2][10:], 1<<31); return p }, rows2, "event of 2147483648 bytes"},
		{"length more than the packet", func(p [][]byte) [][]byte { p[rows2][10]++; return p }, rows2, "its packet has"},
		{"length less than the packet", func(p [][]byte) [][]byte { p[rows2][10]--; return p }, rows2, "its packet has"},
		{"packet too short", func(p [][]byte) [][]byte { p[rows2] = p[rows2][:12]; return p }, rows2, "11 bytes are no header"},
		{"empty packet", func(p [][]byte) [][]byte { p[rows2] = nil; return p }, rows2, "no event"},
		{"unknown status", func(p [][]byte) [][]byte { p[rows2][0] = 7; return p }, rows2, "no event"},
		{"semi-sync header", func(p [][]byte) [][]byte { p[rows2][0] = 0xef; return p }, rows2, "no event"},
		{"unknown type", func(p [][]byte) [][]byte { p[rows2][5] = 99; fix(p[rows2]); return p }, rows2, "type 99"},
		{"a type of MariaDB", func(p [][]byte) [][]byte { p[rows2][5] = 162; fix(p[rows2]); return p }, rows2, "not expected within BEGIN"},
		{"GTID within a transaction", func(p [][]byte) [][]byte { p[rows2][5] = 33; fix(p[rows2]); return p }, rows2, "Gtid"},
		{"XID outside", func(p [][]byte) [][]byte { p[gtid2][5] = 16; fix(p[gtid2]); return p }, gtid2, "not expected"},
		{"malformed GTID", func(p [][]byte) [][]byte { clear(p[gtid2][1+19+17 : 1+19+25]); fix(p[gtid2]); return p }, gtid2, "transaction number 0"},
		{"no rotate at the start", func(p [][]byte) [][]byte { return p[1:] }, 0, "where the ROTATE is due"},
		{"no format description", func(p [][]byte) [][]byte { return slices.Delete(p, 1, 2) }, 1, "format description is due"},
		{"rotate to another file", func(p [][]byte) [][]byte {
			p[0] = binlog.AppendRotate([]byte{0}, binlog.Header{Flags: binlog.FlagArtificial}, binlog.Rotate{Position: 4, Name: "binlog.000002"}, binlog.ChecksumCRC32)
			return p
		}, 0, "the source begins with binlog.000002:4"},
		{"rotate to another position", func(p [][]byte) [][]byte {
			p[0] = binlog.AppendRotate([]byte{0}, binlog.Header{Flags: binlog.FlagArtificial}, binlog.Rotate{Position: 5, Name: "binlog.000001"}, binlog.ChecksumCRC32)
			return p
		}, 0, "the source begins with binlog.000001:5"},
		{"rotate in the middle, not to position 4", func(p [][]byte) [][]byte {
			return slices.Insert(p, gtid2, binlog.AppendRotate([]byte{0}, binlog.Header{Flags: binlog.FlagArtificial}, binlog.Rotate{Position: 500, Name: "binlog.000002"}, binlog.ChecksumCRC32))
		}, gtid2, "binlog.000002:500"},
		{"rotate in the middle, to itself", func(p [][]byte) [][]byte {
			return slices.Insert(p, gtid2, binlog.AppendRotate([]byte{0}, binlog.Header{Flags: binlog.FlagArtificial}, binlog.Rotate{Position: 4, Name: "binlog.000001"}, binlog.ChecksumCRC32))
		}, gtid2, "to binlog.000001:4"},
		{"rotate to a bad name", func(p [][]byte) [][]byte {
			return slices.Insert(p, gtid2, binlog.AppendRotate([]byte{0}, binlog.Header{Flags: binlog.FlagArtificial}, binlog.Rotate{Position: 4, Name: "../x.000002"}, binlog.ChecksumCRC32))
		}, gtid2, "bad binlog file name"},
		{"heartbeat ahead", func(p [][]byte) [][]byte { return slices.Insert(p, gtid2, heartbeat("binlog.000001", 100000)) }, gtid2, "nothing has come since"},
		{"malformed heartbeat", func(p [][]byte) [][]byte {
			hb := heartbeat("binlog.000001", 100000)
			hb[20] = 200
			return slices.Insert(p, gtid2, fix(hb))
		}, gtid2, "Heartbeat"},
		{"malformed previous GTIDs", func(p [][]byte) [][]byte { p[2][21] = 9; fix(p[2]); return p }, 2, "GTID"},
		{"another server's format description", func(p [][]byte) [][]byte { p[1][20] = 3; fix(p[1]); return p }, 1, "binlog version 3"},
		{"statement that is too short", func(p [][]byte) [][]byte { p[begin2][1+19+8] = 200; fix(p[begin2]); return p }, begin2, "200"},
	}
	for _, e := range edits {
		t.Run(e.name, func(t *testing.T) {
			f, m := newFake(t, "9.7.4"), newModel(t)
			f.files = someFiles(2, binlog.ChecksumCRC32, 50, 60, 70)
			whole, err := f.payloads(dumpRequest{byGTID: true, file: fakeName(0), pos: 4})
			if err != nil {
				t.Fatal(err)
			}
			// Where the event lies, and what is stored before it.
			at, boundary := uint64(4), uint64(4)
			for i, p := range whole[1:max(e.at, 1)] {
				if at += uint64(len(p) - 1); i == 1 || p[5] == byte(binlog.TypeXID) {
					boundary = at
				}
			}
			f.edit = func(n int, p [][]byte) ([][]byte, bool) {
				if f.requestsLocked(n).pos == 4 {
					return e.edit(p), false
				}
				// On resuming the same event comes again.
				var q [][]byte
				for _, b := range whole {
					q = append(q, bytes.Clone(b))
				}
				q = e.edit(q)
				return append(p[:2:2], q[min(boundaryIndex(whole, boundary), len(q)):]...), false
			}
			p, _ := start(t, f.config(m))
			problem := awaitProblem(t, p, KindMalformed)
			if !strings.Contains(problem.Error(), e.text) {
				t.Errorf("problem: got %v, want %q in it", problem, e.text)
			}
			wantAt := stream.Coordinates{File: fakeName(0), Pos: at}
			if e.at == 0 {
				wantAt = stream.Coordinates{}
			}
			if problem.At != wantAt {
				t.Errorf("at: got %v, want %v", problem.At, wantAt)
			}
			m.mu.Lock()
			if end := m.end(); end.Pos != boundary && end.Pos != 0 || end.File > fakeName(0) {
				t.Errorf("stored up to %v, want %d", end, boundary)
			}
			m.mu.Unlock()
			f.change(func() { f.edit = nil })
			m.awaitFiles(p, f.files)
			await(t, "the problem's end", p, func() bool { return p.Status().Problem == nil })
		})
	}
}

// boundaryIndex returns the payload that begins at a position of the first file.
func boundaryIndex(p [][]byte, pos uint64) int {
	at := uint64(4)
	for i := 1; i < len(p); i++ {
		if at == pos {
			return i
		}
		at += uint64(len(p[i]) - 1)
	}
	return len(p)
}

func (f *fake) requestsLocked(n int) dumpRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dumps[n]
}

// TestRefusals: what a source says instead of events, and what becomes of it.
func TestRefusals(t *testing.T) {
	tests := []struct {
		name  string
		setup func(f *fake)
		kind  Kind
		text  string
	}{
		{"binlog off", func(f *fake) { f.answers["SELECT @@GLOBAL.LOG_BIN"] = "0" }, KindBinlogOff, "log_bin"},
		{"no list", func(f *fake) {
			f.answers["SHOW BINARY LOGS"] = wire.Errorf(errNoBinaryLogging, "You are not using binary logging")
		}, KindBinlogOff, "no binlog"},
		{"may not list", func(f *fake) {
			f.answers["SHOW BINARY LOGS"] = wire.Errorf(wire.ErSpecificAccessDenied, "Access denied; you need (at least one of) the SUPER, REPLICATION CLIENT privilege(s)")
		}, KindPrivilege, "GRANT REPLICATION SLAVE, REPLICATION CLIENT"},
		{"no server id", func(f *fake) { f.answers["SELECT @@GLOBAL.SERVER_ID"] = "0" }, KindServerID, "server_id 0"},
		{"our server id", func(f *fake) { f.answers["SELECT @@GLOBAL.SERVER_ID"] = "4711" }, KindServerID, "same server_id"},
		{"our uuid", func(f *fake) { f.answers["SELECT @@GLOBAL.SERVER_UUID"] = "BBBBBBBB-1111-2222-3333-444444444444" }, KindServerUUID, "same server_uuid"},
		{"no uuid", func(f *fake) {
			f.answers["SELECT @@GLOBAL.SERVER_UUID"] = wire.Errorf(wire.ErUnknownSystemVariable, "Unknown system variable 'SERVER_UUID'")
		}, KindVersion, "5.5 and later"},
		{"too old", func(f *fake) { f.answers["SELECT VERSION()"] = "5.1.73" }, KindVersion, "5.5 and later"},
		{"no file", func(f *fake) { f.files = nil }, KindBinlogOff, "no binlog file"},
		{"1236", func(f *fake) {
			f.edit = func(int, [][]byte) ([][]byte, bool) {
				return [][]byte{errorPayload(1236, "Binary log is not open")}, true
			}
		}, KindRefused, "Binary log is not open"},
		{"1236 after a while", func(f *fake) {
			f.edit = func(n int, p [][]byte) ([][]byte, bool) {
				return append(p[:4:4], errorPayload(1236, "could not find next log; the first event 'binlog.000001' at 4")), true
			}
		}, KindRefused, "could not find next log"},
		{"may not replicate", func(f *fake) {
			f.edit = func(int, [][]byte) ([][]byte, bool) {
				return [][]byte{errorPayload(1227, "Access denied; you need (at least one of) the REPLICATION SLAVE privilege(s) for this operation")}, true
			}
		}, KindPrivilege, "REPLICATION SLAVE"},
		{"kicked out", func(f *fake) {
			f.edit = func(n int, p [][]byte) ([][]byte, bool) {
				return append(p[:4:4], errorPayload(1236, "A replica with the same server_uuid/server_id as this replica has connected to the source; the first event 'binlog.000001' at 4")), true
			}
		}, KindIdentityUsed, "somebody else uses"},
		{"kicked out, old words", func(f *fake) {
			f.edit = func(n int, p [][]byte) ([][]byte, bool) {
				return append(p[:4:4], errorPayload(1236, "A slave with the same server_uuid/server_id as this slave has connected to the master")), true
			}
		}, KindIdentityUsed, "somebody else uses"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, m := newFake(t, "9.7.4"), newModel(t)
			f.files = someFiles(1, binlog.ChecksumCRC32, 50)
			tt.setup(f)
			p, _ := start(t, f.config(m))
			if problem := awaitProblem(t, p, tt.kind); !strings.Contains(problem.Error(), tt.text) {
				t.Errorf("got %v, want %q in it", problem, tt.text)
			}
			if strings.Contains(tt.name, "our") || tt.name == "binlog off" {
				// It costs the log nothing, and ends when the reason does.
				if m.link != nil {
					t.Error("a link was started")
				}
				fresh := newFake(t, "9.7.4")
				f.change(func() { f.answers = fresh.answers })
				m.awaitFiles(p, f.files)
			}
		})
	}
}

func errorPayload(code uint16, text string) []byte {
	b := binary.LittleEndian.AppendUint16([]byte{0xff}, code)
	return append(append(b, "#HY000"...), text...)
}

// TestWithoutUUID: servers that know neither uuid nor GTIDs of MySQL's kind are asked
// for neither, and followed by position.
func TestWithoutUUID(t *testing.T) {
	unknown := func(name string) *wire.Error {
		return wire.Errorf(wire.ErUnknownSystemVariable, "Unknown system variable '%s'", name)
	}
	for _, tt := range []struct {
		version    string
		sum        binlog.Checksum
		capability bool
		change     func(f *fake)
	}{
		{"5.5.62-log", binlog.ChecksumNone, false, func(f *fake) {
			f.answers["SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum"] = unknown("binlog_checksum")
		}},
		{"10.11.19-MariaDB-log", binlog.ChecksumCRC32, true, func(*fake) {}},
		{"11.8.9-MariaDB", binlog.ChecksumNone, true, func(f *fake) { f.answers["SELECT @source_binlog_checksum"] = "NONE" }},
	} {
		t.Run(tt.version, func(t *testing.T) {
			f, m := newFake(t, tt.version), newModel(t)
			f.sum, f.byGTID = tt.sum, false
			f.files = someFiles(3, tt.sum, 50, 60)
			for _, name := range []string{"SERVER_UUID", "GTID_MODE", "GTID_EXECUTED", "GTID_OWNED", "GTID_PURGED"} {
				f.answers["SELECT @@GLOBAL."+name] = unknown(name)
			}
			tt.change(f)
			// It breaks off in the middle once.
			f.edit = func(n int, p [][]byte) ([][]byte, bool) {
				if n == 0 {
					return p[:len(p)/2], true
				}
				return p, false
			}
			p, stop := start(t, f.config(m))
			m.awaitFiles(p, f.files)
			if st := p.Status(); st.UUID != "" || st.GTIDs || st.Version != tt.version {
				t.Errorf("status: %+v", st)
			}
			for _, d := range f.requests() {
				if d.byGTID {
					t.Errorf("asked by GTID: %+v", d)
				}
			}
			said := false
			f.change(func() { said = f.said["SET @mariadb_slave_capability = 4"] })
			if said != tt.capability {
				t.Errorf("capability announced: %v, want %v", said, tt.capability)
			}
			stop()

			// A server with a uuid is another one.
			mysql := newFake(t, "9.7.4")
			mysql.files = f.files
			p, _ = start(t, mysql.config(m))
			if problem := awaitProblem(t, p, KindOtherSource); !strings.Contains(problem.Error(), "without server_uuid") {
				t.Errorf("got %v", problem)
			}
			// So is one of the other kind.
			version := "11.4.2-MariaDB"
			if tt.capability {
				version = "5.5.62-log"
			}
			other := newFake(t, version)
			other.files, other.answers = f.files, maps.Clone(f.answers)
			other.answers["SELECT VERSION()"] = version
			p, _ = start(t, other.config(m))
			awaitProblem(t, p, KindOtherSource)
		})
	}
	f, m := newFake(t, "10.11.19-MariaDB"), newModel(t)
	f.files = someFiles(1, binlog.ChecksumCRC32, 50)
	cfg := f.config(m)
	var err error
	if cfg.Start, err = ParseStart("gtid:" + fakeUUID + ":1-5"); err != nil {
		t.Fatal(err)
	}
	p, _ := start(t, cfg)
	awaitProblem(t, p, KindStart)
}

func TestPassing(t *testing.T) {
	// What passes by itself: EOF, other errors, a closed connection.
	for name, end := range map[string][]byte{
		"EOF":            {0xfe, 0, 0, 2, 0},
		"shutdown":       errorPayload(1053, "Server shutdown in progress"),
		"a bare close":   nil,
		"out of memory?": errorPayload(1105, "Unknown error"),
	} {
		t.Run(name, func(t *testing.T) {
			f, m := newFake(t, "9.7.4"), newModel(t)
			f.files = someFiles(2, binlog.ChecksumCRC32, 50, 60)
			f.edit = func(n int, p [][]byte) ([][]byte, bool) {
				if n > 2 {
					return p, false
				}
				p = p[:len(p)-3]
				if end != nil {
					p = append(p, end)
				}
				return p, true
			}
			p, _ := start(t, f.config(m))
			m.awaitFiles(p, f.files)
			if st := p.Status(); st.Problem != nil || st.LastError == "" {
				t.Errorf("status %+v", st)
			}
		})
	}
}

func TestWrongFileOnResuming(t *testing.T) {
	for _, byGTID := range []bool{true, false} {
		f, m := newFake(t, "9.7.4"), newModel(t)
		f.files = someFiles(1, binlog.ChecksumCRC32, 50, 60)
		if !byGTID {
			f.answers["SELECT @@GLOBAL.GTID_MODE"] = "OFF"
		}
		p, stop := start(t, f.config(m))
		m.awaitFiles(p, f.files)
		stop()
		// The same name and size, made at another time.
		f.change(func() {
			f.files[0].data = bytes.Clone(f.files[0].data)
			f.files[0].data[4]++
			h, _ := binlog.ParseHeader(f.files[0].data[4:])
			binlog.UpdateChecksum(f.files[0].data[4 : 4+h.Length])
		})
		before := len(m.files[0].data)
		p, _ = start(t, f.config(m))
		awaitProblem(t, p, KindReset)
		m.mu.Lock()
		if got := len(m.files[0].data); got != before {
			t.Errorf("stored: got %d bytes, want %d", got, before)
		}
		m.mu.Unlock()
	}
}

// TestBeyondFourGiB resumes at a position that COM_BINLOG_DUMP cannot carry.
func TestBeyondFourGiB(t *testing.T) {
	f, m := newFake(t, "9.7.4"), newModel(t)
	f.answers["SELECT @@GLOBAL.GTID_MODE"] = "OFF"
	all := someFiles(2, binlog.ChecksumCRC32, 500, 600, 700)
	cut := slices.Clone(all[:1])
	// Stop at the boundary before the last transaction.
	end := lastTransaction(all[0].data)
	cut[0].data = all[0].data[:end]
	f.files = cut
	p, stop := start(t, f.config(m))
	m.awaitFiles(p, cut)
	stop()
	f.change(func() { f.files = all })
	cfg := f.config(m)
	cfg.maxAsk = 500
	p, stop = start(t, cfg)
	m.awaitFiles(p, all)
	stop()
	got := f.requests()
	if last := got[len(got)-1]; last.pos != 4 || last.file != fakeName(0) {
		t.Errorf("request: got %+v, want position 4", last)
	}
	// And a position at which no event begins is not taken for one.
	m.files = []fakeFile{{all[0].name, all[0].data[:end-1]}}
	p, _ = start(t, cfg)
	if pr := awaitProblem(t, p, KindMalformed); !strings.Contains(pr.Error(), "no event begins") {
		t.Errorf("got %v", pr)
	}
}

// lastTransaction returns where the last GTID event of a file begins.
func lastTransaction(data []byte) int {
	last := 0
	for at := 4; at < len(data); {
		h, err := binlog.ParseHeader(data[at:])
		if err != nil {
			panic(err)
		}
		if h.Type.IsGTID() {
			last = at
		}
		at += int(h.Length)
	}
	return last
}

// TestSizes sends events around every size at which something changes: packets
// of 16 MB, runs, pieces.
func TestSizes(t *testing.T) {
	const overhead = 19 + 4 // header, checksum
	sizes := []int{
		binlog.MaxWhole - overhead - 1, binlog.MaxWhole - overhead, binlog.MaxWhole - overhead + 1,
		stream.MaxRun - overhead - 1, stream.MaxRun - overhead, stream.MaxRun - overhead + 1, 10, 3 * stream.MaxRun, 20,
		wire.MaxPacketPayload - overhead - 2, wire.MaxPacketPayload - overhead - 1, wire.MaxPacketPayload - overhead, 30,
	}
	f, m := newFake(t, "9.7.4"), newModel(t)
	f.files = someFiles(1, binlog.ChecksumCRC32, sizes...)
	p, stop := start(t, f.config(m))
	m.awaitFiles(p, f.files)
	stop()
	for _, n := range m.runs {
		if n > stream.MaxRun+binlog.MaxWhole {
			t.Errorf("a run of %d bytes", n)
		}
	}
	// A big event of which the last byte is wrong.
	f2, m2 := newFake(t, "9.7.4"), newModel(t)
	f2.files = someFiles(1, binlog.ChecksumCRC32, 20, 3<<20, 20)
	f2.edit = func(n int, p [][]byte) ([][]byte, bool) {
		for _, b := range p {
			if len(b) > 1<<20 {
				b[len(b)-1] ^= 1
			}
		}
		return p, false
	}
	p2, _ := start(t, f2.config(m2))
	pr := awaitProblem(t, p2, KindMalformed)
	want := binlog.MagicSize
	m2.mu.Lock()
	if want = len(m2.files[0].data); want < 200 || want > 1000 {
		t.Errorf("stored up to %d, want the end of the first transaction", want)
	}
	m2.mu.Unlock()
	if !strings.Contains(pr.Error(), "checksum") {
		t.Errorf("got %v", pr)
	}
	f2.change(func() { f2.edit = nil })
	m2.awaitFiles(p2, f2.files)
}

// TestBacklog: small transactions go into large runs.
func TestBacklog(t *testing.T) {
	f, m := newFake(t, "9.7.4"), newModel(t)
	sizes := make([]int, 20000)
	for i := range sizes {
		sizes[i] = 100
	}
	f.files = someFiles(1, binlog.ChecksumCRC32, sizes...)
	p, stop := start(t, f.config(m))
	m.awaitFiles(p, f.files)
	stop()
	total := len(f.files[0].data)
	if most := 4*total/stream.MaxRun + 100; len(m.runs) > most {
		t.Errorf("%d bytes in %d runs, want at most %d", total, len(m.runs), most)
	}
}

// TestLink: what the stream may do to the link.
func TestLink(t *testing.T) {
	f, m := newFake(t, "9.7.4"), newModel(t)
	f.files = someFiles(3, binlog.ChecksumCRC32, 50, 60, 300000)
	n := 0
	m.refuse = func(*modelLink) error { // every other run
		if n++; n%2 == 0 && n < 20 {
			return fmt.Errorf("%w: dropped", stream.ErrLinkLost)
		}
		return nil
	}
	p, stop := start(t, f.config(m))
	m.awaitFiles(p, f.files)
	stop()

	m = newModel(t)
	full := true
	m.refuse = func(*modelLink) error {
		if full {
			return fmt.Errorf("no: %w", stream.ErrDiskFull)
		}
		return nil
	}
	p, stop = start(t, f.config(m))
	awaitProblem(t, p, KindDiskFull)
	m.mu.Lock()
	full = false
	m.mu.Unlock()
	m.awaitFiles(p, f.files)
	stop()
}

// TestLeadership: no connection without it, and the socket is closed when it is
// lost.
func TestLeadership(t *testing.T) {
	f, m := newFake(t, "9.7.4"), newModel(t)
	f.files = someFiles(1, binlog.ChecksumCRC32, 50)
	gone, lose := context.WithCancel(context.Background())
	lose()
	m.lead = gone
	p, _ := start(t, f.config(m))
	if got := p.Status().State; got != StateWaiting {
		t.Errorf("state: got %q, want %q", got, StateWaiting)
	}
	lead, lose := context.WithCancel(context.Background())
	defer lose()
	m.setLead(lead)
	m.awaitFiles(p, f.files)
	lose()
	await(t, "the connections' end", p, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.conns) == 0
	})
	await(t, "the state", p, func() bool { return p.Status().State == StateWaiting })
	m.setLead(context.Background())
	await(t, "streaming", p, func() bool { return p.Status().State == StateStreaming })

	// A link that is lost while nothing comes is noticed too.
	before := len(f.requests())
	m.mu.Lock()
	m.link.lose(fmt.Errorf("%w: by the test", stream.ErrLinkLost))
	m.mu.Unlock()
	await(t, "another dump", p, func() bool { return len(f.requests()) > before })
}

// TestSilence: a source that sends no heartbeats is given up.
func TestSilence(t *testing.T) {
	f, m := newFake(t, "9.7.4"), newModel(t)
	f.files = someFiles(1, binlog.ChecksumCRC32, 50)
	cfg := f.config(m)
	cfg.Heartbeat = time.Millisecond
	p, _ := start(t, cfg)
	await(t, "a second dump", p, func() bool { return len(f.requests()) > 1 })
	if got := p.Status().LastError; !strings.Contains(got, "timeout") {
		t.Errorf("last error: got %q", got)
	}
}

// back asks from an earlier place than where the stream goes on.
type back struct {
	hook.NoRelayIO
	pos   uint64
	asked []hook.Position // where it would have been
}

func (b *back) BeforeRequest(_ context.Context, l *hook.Link) error {
	b.asked = append(b.asked, l.From)
	l.From.Pos = b.pos
	return nil
}

// TestAskedBack: an observer may have the source asked for what is stored already. It is
// passed over, whatever of it comes.
func TestAskedBack(t *testing.T) {
	f, m := newFake(t, "9.7.4"), newModel(t)
	f.files = someFiles(2, binlog.ChecksumCRC32, 50, 60, 70)
	cut := 0
	f.edit = func(n int, p [][]byte) ([][]byte, bool) {
		if n > 0 {
			return p, false
		}
		cut = len(p) - 3
		return p[:cut], true
	}
	b := &back{pos: binlog.MagicSize}
	cfg := f.config(m)
	cfg.Hooks.RelayIO = []hook.RelayIO{b}
	p, stop := start(t, cfg)
	m.awaitFiles(p, f.files)
	stop()
	last := f.requests()[len(f.requests())-1]
	if at := b.asked[len(b.asked)-1]; at.Pos <= binlog.MagicSize || last.byGTID || last.pos != binlog.MagicSize || last.file != at.File {
		t.Errorf("asked %+v, would have been %v", last, at)
	}
}
