package stream

import (
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/binlogtest"
	"kingbus/internal/cluster"
	"kingbus/internal/vfs"
)

var update = flag.Bool("update", false, "write the data folder of this format version to testdata")

const goldenFolder = "testdata/folder-v1"

// fillGolden makes the content of the golden folder: two files, an aborted
// transaction, a large one, two segments and more.
func fillGolden(r *rig) {
	r.start()
	r.rotate()
	r.transactions(50, 200)
	r.append(r.w.TransactionOf(nil, 40<<10, 40<<10))
	before := r.w
	before.Executed = r.w.Executed.Clone()
	whole := r.w.TransactionOf(nil, 1000, 1000)
	r.offer(whole[:len(whole)-31-1019-4])
	r.w = before
	r.start()
	r.append(r.w.Rotate(nil, "binlog.000002"))
	r.rotate()
	r.transactions(20, 500)
	r.wait()
}

// TestGoldenFolder opens a data folder as an earlier version of kingbus left it.
// A change of format needs a new version, and this folder stays.
func TestGoldenFolder(t *testing.T) {
	if *update {
		if err := os.RemoveAll(goldenFolder); err != nil {
			t.Fatal(err)
		}
		w := &rig{t: t, want: map[string][]byte{}, w: goldenWriter(), cfg: Config{Dir: goldenFolder, SegmentBytes: 32 << 10, Peering: cluster.Peering{Heartbeat: 10 * time.Millisecond}}}
		w.open()
		fillGolden(w)
		if err := w.s.Close(); err != nil {
			t.Fatal(err)
		}
		// An empty lock file and zeroes at the end of a segment are no format.
	}
	want := newRig(t, vfs.NewMem(1))
	want.w = goldenWriter()
	fillGolden(want)

	dir := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(dir, os.DirFS(goldenFolder)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Dir: dir, SegmentBytes: 32 << 10, Peering: cluster.Peering{Heartbeat: 10 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Lead(context.Background()); err != nil {
		t.Fatal(err)
	}
	got := *want
	got.s = s
	got.check()
	if id := s.Status().Identity; id.ServerID == 0 || id.ServerUUID == "" {
		t.Errorf("identity %+v", id)
	}
}

func goldenWriter() binlogtest.Writer {
	return binlogtest.Writer{UUID: testUUID, ServerID: 7, Time: 1700000000, Checksum: binlog.ChecksumCRC32}
}

// TestEntryTable holds the layout of entries against the table in entry.go.
func TestEntryTable(t *testing.T) {
	b := make([]byte, eventsHeaderSize)
	eventsHeader{file: 0x01020304, epoch: 0x11, pos: 0x22, sourcePos: 0x33}.put(b)
	want := "01010000" + "04030201" + "1100000000000000" + "2200000000000000" + "3300000000000000"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("events header %s, want %s", got, want)
	}
	h, events, err := parseEvents(append(b, 'x'))
	if err != nil || h != (eventsHeader{0x01020304, 0x11, 0x22, 0x33}) || string(events) != "x" {
		t.Errorf("parsed %+v %q, %v", h, events, err)
	}
	c, err := encodeCommand(kindPurge, 0x0102, purgeCommand{Before: "binlog.000003"})
	if err != nil {
		t.Fatal(err)
	}
	if want := "\x05\x01\x00\x00\x00\x00\x00\x00\x02\x01\x00\x00\x00\x00\x00\x00" + `{"before":"binlog.000003"}`; string(c) != want {
		t.Errorf("command %q, want %q", c, want)
	}
	for _, bad := range []string{"\x06\x01", "\x01\x02", "\x01\x01\x01", "\x00\x01"} {
		b := make([]byte, 40)
		copy(b, bad)
		if k, err := parseKind(b); err == nil {
			t.Errorf("%q is of kind %d", bad, k)
		}
	}
	if _, err := parseKind(make([]byte, 15)); err == nil {
		t.Error("a short entry was accepted")
	}
	var into purgeCommand
	if _, err := parseCommand([]byte("\x05\x01\x00\x00\x00\x00\x00\x00\x02\x01\x00\x00\x00\x00\x00\x00"+`{"before":"x","why":1}`), &into); err == nil {
		t.Error("a command with an unknown field was accepted")
	}
}

// FuzzStateApply: whatever an entry says, it changes nothing unless it continues
// the stream, and a state survives a checkpoint.
func FuzzStateApply(f *testing.F) {
	w := goldenWriter()
	begin := w.Begin(nil)
	rotate, _ := encodeCommand(kindRotate, 1, rotateCommand{Epoch: 2, Name: "binlog.000001", SourceName: "binlog.000001"})
	link, _ := encodeCommand(kindLink, 1, linkCommand{Source: Source{UUID: testUUID.String()}})
	purge, _ := encodeCommand(kindPurge, 1, purgeCommand{Before: "binlog.000001"})
	events := make([]byte, eventsHeaderSize)
	eventsHeader{file: 1, epoch: 2, pos: 4, sourcePos: 4}.put(events)
	events = append(events, begin...)
	for _, p := range [][]byte{events, rotate, link, purge} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		s := &state{}
		for i, p := range [][]byte{link, rotate, events, p, p} {
			if _, err := s.apply(uint64(i+2), p); err != nil && i < 3 {
				t.Fatal(err)
			}
		}
		b, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeState(b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := back.encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%s\nbecame\n%s, %v", b, again, err)
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	b, err := (&state{}).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeState(b); err == nil {
			if _, err := s.encode(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzDecodeBlock(f *testing.F) {
	b := &block{segment: 5}
	b.add(point{index: 7, file: 1, pos: 4})
	data, err := b.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, points := range []bool{false, true} {
			if got, err := decodeBlock(data, 5, points); err == nil && points && len(got.points) != got.count {
				t.Fatalf("%d points, count %d", len(got.points), got.count)
			}
		}
	})
}

func TestBlockRoundTrip(t *testing.T) {
	r := newRig(t, vfs.NewMem(1))
	r.start()
	for range 3 {
		r.rotate()
		r.transactions(300, 2000)
	}
	r.wait()
	for _, b := range r.s.index.blocks {
		b.saved = true // as a decoded one is
		data, err := b.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeBlock(data, b.segment, true)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(*got) != fmt.Sprint(*b) && !reflect.DeepEqual(got, b) {
			t.Errorf("%+v\nbecame\n%+v", *b, *got)
		}
		for bit := range len(data) * 8 {
			if bit%7 != 0 {
				continue
			}
			bad := bytes.Clone(data)
			bad[bit/8] ^= 1 << (bit % 8)
			if _, err := decodeBlock(bad, b.segment, true); err == nil {
				t.Fatalf("bit %d flipped, and nobody noticed", bit)
			}
		}
	}
}
