package server

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kingbus/internal/binlog"
	"kingbus/internal/stream"
)

// goldenFiles are the binlog files of real servers that internal/binlog keeps.
func goldenFiles(t *testing.T) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("../binlog/testdata/*.golden.gz")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	out := map[string][]byte{}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(z)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		_, file, ok := bytes.Cut(all, []byte("\nfile\n"))
		if !ok {
			t.Fatalf("%s holds no binlog file", path)
		}
		out[strings.TrimSuffix(filepath.Base(path), ".golden.gz")] = file
	}
	return out
}

// TestGoldenFiles: whatever servers write comes out as it is in the file, by
// position and by GTID set, and heartbeats are of a version that the file's
// server knew.
func TestGoldenFiles(t *testing.T) {
	for name, content := range goldenFiles(t) {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			maria := strings.HasPrefix(name, "maria")
			src := stream.Source{UUID: sourceUUID, ServerID: 7, Version: "5.7.0", Variables: map[string]string{"gtid_mode": "ON", "binlog_checksum": "CRC32"}}
			hello := []step{{setCRC, "OK"}, {setQuick, "OK"}, {setUUID, "OK"}}
			if maria {
				src = stream.Source{ServerID: 7, Version: "10.11.1-MariaDB", Variables: map[string]string{"binlog_checksum": "CRC32"}}
				hello = []step{{setCRC, "OK"}, {setQuick, "OK"}, {"SET @mariadb_slave_capability = 4", "OK"}}
			}
			r.follow(src)
			r.addFile("binlog.000001", content, 4<<10)
			want := bytes.Clone(content[binlog.MagicSize:])
			want[17] &^= binlog.FlagInUse
			requests := map[string][]byte{"position": dumpPayload("", 4, flagHeartbeatV2, 9)}
			if len(positions(t, content, binlog.TypeAnonymousGTID)) == 0 && !maria {
				requests["gtid"] = dumpGTIDPayload("", 4, flagHeartbeatV2, 9, r.stream.Status().Purged.AppendBinary(nil))
			}
			for mode, payload := range requests {
				c := r.dial()
				play(t, c, hello)
				var beat binlog.EventType
				tr := recordDump(t, c, payload, func(h binlog.Header) bool { beat = h.Type; return beat.IsHeartbeat() })
				if len(tr.full) < 2 {
					t.Fatalf("%s: %q", mode, tr.lines)
				}
				var got []byte
				for _, ev := range tr.full[1 : len(tr.full)-1] {
					got = append(got, ev...)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s: got %d bytes, want %d", mode, len(got), len(want))
				}
				wantBeat, f := binlog.TypeHeartbeat, mustFormat(t, want)
				if f.Types() >= int(binlog.TypeHeartbeatV2) && !maria {
					wantBeat = binlog.TypeHeartbeatV2
				}
				last := tr.full[len(tr.full)-1]
				hb, err := binlog.ParseHeartbeat(last, f.Checksum)
				if err != nil || beat != wantBeat || hb != (binlog.Heartbeat{Name: "binlog.000001", Position: uint64(len(content))}) {
					t.Errorf("%s: heartbeat %v of type %v, %v; want type %v", mode, hb, beat, err, wantBeat)
				}
				if f.Checksum == binlog.ChecksumCRC32 && !binlog.VerifyChecksum(last) {
					t.Errorf("%s: wrong checksum on the heartbeat", mode)
				}
			}
		})
	}
}

func mustFormat(t *testing.T, events []byte) binlog.FormatDescription {
	t.Helper()
	h, err := binlog.ParseHeader(events)
	if err != nil {
		t.Fatal(err)
	}
	f, err := binlog.ParseFormatDescription(events[:h.Length])
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestEveryBoundary: every event boundary of a file can be asked for, and what
// comes is the rest of the file; every set of the first n transactions leaves
// just the others.
func TestEveryBoundary(t *testing.T) {
	content := goldenFiles(t)["97-row"]
	r := newRig(t)
	r.follow(stream.Source{UUID: sourceUUID, ServerID: 7, Version: "9.7.4", Variables: map[string]string{"binlog_checksum": "CRC32"}})
	r.addFile("binlog.000001", content, 1<<10)
	for at := uint64(binlog.MagicSize); at < uint64(len(content)); {
		c := r.dial()
		play(t, c, []step{{setCRC, "OK"}})
		tr := recordDump(t, c, dumpPayload("binlog.000001", uint32(at), flagNonBlock, 9), nil)
		skip := 2
		if at == binlog.MagicSize {
			skip = 1
		}
		var got []byte
		for _, ev := range tr.full[skip:] {
			got = append(got, ev...)
		}
		want := content[at:]
		if at == binlog.MagicSize {
			want = bytes.Clone(want)
			want[17] &^= binlog.FlagInUse
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("from %d: got %d bytes, want %d: %s", at, len(got), len(want), strings.Join(tr.lines, "\n"))
		}
		h, err := binlog.ParseHeader(content[at:])
		if err != nil {
			t.Fatal(err)
		}
		at += uint64(h.Length)
		_ = c.Close()
	}
	gtids := positions(t, content, binlog.TypeGTID)
	have := r.stream.Status().Purged
	for n, at := range gtids {
		c := r.dial()
		play(t, c, []step{{setCRC, "OK"}})
		tr := recordDump(t, c, dumpGTIDPayload("", 4, flagNonBlock, 9, have.AppendBinary(nil)), nil)
		h, err := binlog.ParseHeader(content[at:])
		if err != nil {
			t.Fatal(err)
		}
		g, err := binlog.ParseGTID(content[at:at+uint64(h.Length)], binlog.ChecksumCRC32)
		if err != nil || !have.Add(g.GTID) {
			t.Fatalf("%v, %v", g, err)
		}
		first := 0
		for i, ev := range tr.full {
			if h, _ := binlog.ParseHeader(ev); h.Type == binlog.TypeGTID {
				first = i
				break
			}
		}
		var got []byte
		for _, ev := range tr.full[first:] {
			got = append(got, ev...)
		}
		if first == 0 || !bytes.Equal(got, content[gtids[n]:]) {
			t.Fatalf("%d transactions had: got %d bytes, want %d", n, len(got), len(content[gtids[n]:]))
		}
		_ = c.Close()
	}
}
