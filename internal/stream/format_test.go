package stream

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/binlogtest"
	"kingbus/internal/cluster"
	"kingbus/internal/peer"
	"kingbus/internal/vfs"
)

var update = flag.Bool("update", false, "write the data folders of today's version to testdata")

// The golden folders. The first is of a node from before there were groups, and
// cannot be made again. The others are of one group: a voter, a learner whose
// installation was broken off, and a node that waits to be taken in.
const (
	goldenFolder = "testdata/folder-v1"
	goldenGroup  = "testdata/folder-v2"
)

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

// TestGoldenFolder opens a data folder as kingbus left it before there were groups:
// it serves the same bytes, gets its name and address, and grows.
func TestGoldenFolder(t *testing.T) {
	want := wantGolden(t)
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(dir, os.DirFS(goldenFolder)); err != nil {
		t.Fatal(err)
	}
	s := openGolden(t, goldenConfig(dir))
	if _, err := s.Lead(t.Context()); err != nil {
		t.Fatal(err)
	}
	want.of(s).check()
	st := s.Status()
	if st.Identity.ServerID == 0 || st.Identity.ServerUUID == "" {
		t.Errorf("identity %+v", st.Identity)
	}
	const id = 2003912425903367247 // as in its file "node"
	self := func(name, address string) []cluster.Member {
		return []cluster.Member{{ID: id, Name: name, Address: address}}
	}
	if st.Node.RaftID != id || st.Node.Format != 1 || !st.Node.Voter {
		t.Errorf("node %+v", st.Node)
	}
	if got := membersOf(s); !slices.Equal(got, self("", "")) {
		t.Errorf("members %+v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	var hosts addressBook
	cfg := goldenConfig(dir)
	cfg.Peering = hosts.peering(t, "n1")
	s = openGolden(t, cfg)
	await(t, "it has its name and address", func() bool { return slices.Equal(membersOf(s), self("n1", hosts.address("n1"))) })
	want.of(s).check()
	two := Config{FS: vfs.NewMem(2), Dir: "data", Peering: hosts.peering(t, "n2")}
	want.grow(t, s, openGolden(t, two))
}

// TestGoldenGroup opens the data folders of a group as kingbus left them.
func TestGoldenGroup(t *testing.T) {
	if *update {
		makeGoldenGroup(t)
	}
	want := wantGolden(t)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(goldenGroup)); err != nil {
		t.Fatal(err)
	}
	var hosts addressBook
	open := func(name string) *Stream {
		cfg := goldenConfig(filepath.Join(dir, name))
		cfg.Peering = hosts.peering(t, name)
		return openGolden(t, cfg)
	}
	one := open("n1")
	if _, err := one.Lead(t.Context()); err != nil {
		t.Fatal(err)
	}
	want.of(one).check()
	if st := one.Status().Node; st.Format != 1 || !st.Voter || st.Name != "n1" {
		t.Errorf("node %+v", st)
	}
	members := membersOf(one)
	if slices.SortFunc(members, func(a, b cluster.Member) int { return strings.Compare(a.Name, b.Name) }); len(members) != 2 ||
		members[0] != (cluster.Member{ID: one.Status().Node.RaftID, Name: "n1", Address: hosts.address("n1")}) ||
		members[1] != (cluster.Member{ID: members[1].ID, Name: "n4", Address: hosts.address("n4"), Learner: true}) {
		t.Errorf("members %+v", members)
	}
	// The removed one is known, and stays out.
	removed := removedIn(t, filepath.Join(goldenGroup, "n1"))
	st := one.Status().Node
	_, _, err := peer.Dial(t.Context(), peer.Config{Dial: hosts.dial}, hosts.address("n1"),
		peer.Hello{Kind: peer.KindControl, Cluster: st.ClusterID, From: removed, To: st.RaftID, Name: "n2", MinFormat: 1, MaxFormat: 1, Last: 1000, Member: true})
	var no *peer.Refusal
	if !errors.As(err, &no) || no.Code != "removed" {
		t.Errorf("the removed node was told %v", err)
	}

	if _, err := os.Stat(filepath.Join(dir, "n4", "install")); err != nil {
		t.Error(err)
	}
	four := open("n4")
	if four.Cluster().Waiting() || four.Status().Node.ClusterID != st.ClusterID || four.Status().Node.RaftID != members[1].ID {
		t.Errorf("node %+v", four.Status().Node)
	}
	want.of(four).wait()
	want.of(four).check()
	await(t, "the installation is over", func() bool { return !four.Cluster().Installing() })
	if _, err := os.Stat(filepath.Join(dir, "n4", "install")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file of the installation: %v", err)
	}

	three := open("n3")
	if st := three.Status().Node; !three.Cluster().Waiting() || st.ClusterID != 0 || st.RaftID == 0 || st.Voter {
		t.Errorf("a node that waits: %+v", st)
	}
	want.grow(t, one, three)
}

// makeGoldenGroup writes what TestGoldenGroup opens. An empty lock file and zeroes at
// the end of a segment are no format.
func makeGoldenGroup(t *testing.T) {
	if err := os.RemoveAll(goldenGroup); err != nil {
		t.Fatal(err)
	}
	var hosts addressBook
	r := &rig{t: t, want: map[string][]byte{}, w: goldenWriter(), cfg: goldenConfig(filepath.Join(goldenGroup, "n1"))}
	r.cfg.Peering = hosts.peering(t, "n1")
	r.cfg.Peering.Join = false
	r.open()
	if _, err := r.s.Lead(t.Context()); err != nil {
		t.Fatal(err)
	}
	group := r.s.Cluster()
	two := openGolden(t, Config{FS: vfs.NewMem(2), Dir: "data", Peering: hosts.peering(t, "n2")})
	if err := errors.Join(group.Add(t.Context(), "n2", hosts.address("n2")), group.Remove(t.Context(), "n2")); err != nil {
		t.Fatal(err)
	}
	<-two.Failed()
	fillGolden(r)

	disk := vfs.NewMem(4)
	cfg := goldenConfig("data")
	cfg.FS, cfg.Peering = brokenDisk{disk}, hosts.peering(t, "n4")
	four := openGolden(t, cfg)
	if err := group.Add(t.Context(), "n4", hosts.address("n4")); err != nil {
		t.Fatal(err)
	}
	<-four.Failed()
	if err := four.Err(); !errors.Is(err, errBrokenDisk) {
		t.Fatal(err)
	}
	saved := disk.Crash(0)
	for _, dir := range []string{"", "log", "index"} {
		to := filepath.Join(goldenGroup, "n4", dir)
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		names, err := saved.ReadDir(filepath.Join("data", dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if b, err := vfs.ReadFile(saved, filepath.Join("data", dir, name), 1<<20); err == nil { // else a folder
				if err := os.WriteFile(filepath.Join(to, name), b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	cfg = goldenConfig(filepath.Join(goldenGroup, "n3"))
	cfg.Peering = hosts.peering(t, "n3")
	if err := errors.Join(openGolden(t, cfg).Close(), r.s.Close()); err != nil {
		t.Fatal(err)
	}
}

// brokenDisk breaks off an installation at the second segment of the new log.
type brokenDisk struct{ *vfs.Mem }

var errBrokenDisk = errors.New("broken off")

func (d brokenDisk) Create(name string) (vfs.File, error) {
	if n, ok := strings.CutSuffix(filepath.Base(name), ".seg"); ok && n > "00000000000000000002" {
		return nil, errBrokenDisk
	}
	return d.Mem.Create(name)
}

// wantGolden is what every golden folder holds.
func wantGolden(t *testing.T) *rig {
	want := newRig(t, vfs.NewMem(1))
	want.w = goldenWriter()
	fillGolden(want)
	return want
}

// of is the same expectation of another stream.
func (r *rig) of(s *Stream) *rig {
	other := *r
	other.s = s
	return &other
}

// grow takes a node into the group, as a voter in the end.
func (r *rig) grow(t *testing.T, leader, s *Stream) {
	t.Helper()
	st := s.Status().Node
	if err := leader.Cluster().Add(t.Context(), st.Name, st.Address); err != nil {
		t.Fatal(err)
	}
	r.of(s).wait()
	r.of(s).check()
	await(t, "it votes", func() bool {
		err := leader.Cluster().Promote(t.Context(), st.Name)
		if err != nil && !errors.Is(err, cluster.ErrBehind) {
			t.Fatal(err)
		}
		return err == nil
	})
}

func goldenConfig(dir string) Config {
	return Config{Dir: dir, SegmentBytes: 32 << 10, Peering: cluster.Peering{Heartbeat: 10 * time.Millisecond}}
}

func openGolden(t *testing.T, cfg Config) *Stream {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func membersOf(s *Stream) (out []cluster.Member) {
	for _, m := range s.Cluster().Members() {
		out = append(out, m.Member)
	}
	return out
}

// removedIn returns the Raft id of n2, which the newest checkpoint of a folder names
// among the removed.
func removedIn(t *testing.T, dir string) uint64 {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.checkpoint"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no checkpoint in %s: %v", dir, err)
	}
	b, err := os.ReadFile(names[len(names)-1])
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`"removed":\[\{"raft_id":"(\d+)","name":"n2"`).FindSubmatch(b)
	if found == nil {
		t.Fatalf("%s names nobody who was removed", names[len(names)-1])
	}
	id, err := strconv.ParseUint(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// addressBook is where nodes are reached, by names that mean the same in every run.
type addressBook struct {
	mu    sync.Mutex
	where map[string]string
}

func (b *addressBook) address(name string) string { return name + ".example:8407" }

// peering is that of a node that others can reach, and that waits for them if it is
// new.
func (b *addressBook) peering(t *testing.T, name string) cluster.Peering {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.where == nil {
		b.where = map[string]string{}
	}
	b.where[b.address(name)] = l.Addr().String()
	return cluster.Peering{Name: name, Address: b.address(name), Listener: l, Dial: b.dial, Join: true, Heartbeat: 10 * time.Millisecond, Election: 200 * time.Millisecond}
}

func (b *addressBook) dial(ctx context.Context, network, address string) (net.Conn, error) {
	b.mu.Lock()
	to, ok := b.where[address]
	b.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("nobody is at %s", address)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, to)
}

// await waits for a condition.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for late := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("waited in vain: %s", what)
		}
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
	for _, bad := range []string{"\x07\x01", "\x06\x02", "\x01\x02", "\x01\x01\x01", "\x00\x01"} {
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
	settings, _ := encodeCommand(kindSettings, 1, settingsCommand{Change: 7, Values: map[string]json.RawMessage{"k": json.RawMessage(`{"a":1}`)}})
	events := make([]byte, eventsHeaderSize)
	eventsHeader{file: 1, epoch: 2, pos: 4, sourcePos: 4}.put(events)
	events = append(events, begin...)
	for _, p := range [][]byte{events, rotate, link, purge, settings} {
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
