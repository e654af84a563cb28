package hook_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/binlogtest"
	"kingbus/internal/cluster"
	"kingbus/internal/gtid"
	"kingbus/internal/hook"
	"kingbus/internal/server"
	"kingbus/internal/stream"
	"kingbus/internal/vfs"
	"kingbus/internal/wire"
)

// observer is written outside of all packages of the path: it notes what it is told.
type observer struct {
	name  string
	calls *calls
	hook.NoTransmission
}

type calls struct {
	mu   sync.Mutex
	list []string
}

func (o observer) note(format string, args ...any) {
	o.calls.mu.Lock()
	defer o.calls.mu.Unlock()
	o.calls.list = append(o.calls.list, o.name+" "+fmt.Sprintf(format, args...))
}

func (o observer) AfterCommit(c hook.Commit)   { o.note("committed %d at %v", c.Count, c.At) }
func (o observer) AfterRollback(hook.Rollback) { o.note("rolled back") }
func (o observer) AfterFlush(at hook.Position) { o.note("flushed %v", at) }
func (o observer) AfterSync(at hook.Position)  { o.note("synced %v", at) }

func (o observer) Start(d *hook.Dump) (hook.Transmission, error) {
	o.note("dump from %v", d.From)
	return o, nil
}

func (o observer) ReserveHeader(_ *hook.Dump, header []byte) []byte { return append(header, o.name...) }

func (o observer) AfterSend(_ *hook.Dump, e *hook.Sending) error {
	o.note("sent %d up to %v", e.Length, e.At)
	return nil
}

func (o observer) Stop(*hook.Dump) { o.note("dump ends") }

type account struct{ wire.Verifier }

func (a account) Account(string, string) (wire.Account, bool) {
	return wire.Account{Verifier: a.Verifier}, true
}

// TestOrder registers two observers on the real path: they are told of everything in the
// order in which they were registered, each has its part of the header, and none is told
// of anything once the path has none.
func TestOrder(t *testing.T) {
	for _, names := range []string{"", "ab"} {
		t.Run("observers "+names, func(t *testing.T) {
			all := &calls{}
			var set hook.Set
			for _, name := range strings.Split(names, "") {
				o := observer{name: name, calls: all}
				set.Transaction, set.Storage, set.Transmit = append(set.Transaction, o), append(set.Storage, o), append(set.Transmit, o)
			}
			packets := play(t, set)
			for _, p := range packets {
				if !strings.HasPrefix(string(p), "\x00"+names) {
					t.Errorf("a packet begins with %.10q", p)
				}
			}
			all.mu.Lock()
			defer all.mu.Unlock()
			if names == "" {
				if len(all.list) != 0 {
					t.Errorf("nobody observes, but %q", all.list)
				}
				return
			}
			// Who proposes and who applies are two goroutines: in what order these two tell of
			// the same run is open.
			of := map[string][]string{}
			for _, flushed := range []bool{false, true} {
				for _, c := range all.list {
					name, what, _ := strings.Cut(c, " ")
					if strings.HasPrefix(what, "flushed ") == flushed {
						of[name] = append(of[name], what)
					}
				}
			}
			if !slices.Equal(of["a"], of["b"]) || len(of["a"]) < 8 {
				t.Errorf("a was told\n%s\nb\n%s", strings.Join(of["a"], "\n"), strings.Join(of["b"], "\n"))
			}
			for _, want := range []string{"committed 1 at {b.000001 ", "flushed {b.000001 ", "synced {b.000001 ", "dump from {b.000001 4}", "sent ", "dump ends"} {
				if !slices.ContainsFunc(of["a"], func(s string) bool { return strings.HasPrefix(s, want) }) {
					t.Errorf("nobody was told of %q", want)
				}
			}
		})
	}
}

// play stores a transaction and dumps it, and returns the packets of the dump.
func play(t *testing.T, set hook.Set) (packets [][]byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	st, err := stream.Open(stream.Config{FS: vfs.NewMem(1), Dir: "/d", Hooks: set, Peering: cluster.Peering{Heartbeat: 10 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := st.Lead(ctx); err != nil {
		t.Fatal(err)
	}
	link, err := st.StartLink(ctx, stream.Source{UUID: "aaaaaaaa-1111-2222-3333-444444444444", ServerID: 7, Version: "9.7.4", Variables: map[string]string{"gtid_mode": "ON"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := link.Rotate(ctx, "b.000001"); err != nil {
		t.Fatal(err)
	}
	uuid, _ := gtid.ParseUUID("aaaaaaaa-1111-2222-3333-444444444444")
	w := &binlogtest.Writer{UUID: uuid, ServerID: 7, Time: 1700000000, Checksum: binlog.ChecksumCRC32}
	run := w.Transaction(w.Begin(make([]byte, stream.RunHeader)), 100)
	size := uint64(binlog.MagicSize + len(run) - stream.RunHeader)
	if err := link.Append(ctx, run); err != nil {
		t.Fatal(err)
	}
	for st.Status().End.Pos != size || st.Status().Identity.ServerID == 0 {
		changed := st.Changed()
		if st.Status().End.Pos == size && st.Status().Identity.ServerID != 0 {
			break
		}
		select {
		case <-changed:
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the transaction is not served")
		}
	}
	v, err := wire.NewVerifier([]byte("p"), wire.VerifierForms{Digest: true})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.New(server.Config{Stream: server.Binlog(st), Accounts: account{v}, Hooks: set, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	defer func() { _ = srv.Close(); <-served }()
	c, err := wire.Dial(ctx, wire.ClientConfig{Address: ln.Addr().String(), User: "u", Password: []byte("p"), TLSMode: wire.TLSDisabled})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Exec(ctx, "SET @source_binlog_checksum = 'CRC32'"); err != nil {
		t.Fatal(err)
	}
	request := binary.LittleEndian.AppendUint32([]byte{wire.ComBinlogDump}, binlog.MagicSize)
	request = binary.LittleEndian.AppendUint16(request, 1) // EOF at the end
	request = append(binary.LittleEndian.AppendUint32(request, 99), "b.000001"...)
	if err := c.Command(request); err != nil {
		t.Fatal(err)
	}
	for {
		p, err := c.Conn().ReadPacket(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		if wire.IsEOF(p) {
			return packets
		}
		packets = append(packets, slices.Clone(p))
	}
}
