package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kingbus/internal/binlog"
	"kingbus/internal/cluster"
	"kingbus/internal/hook"
	"kingbus/internal/keys"
	"kingbus/internal/stream"
	"kingbus/internal/vfs"
	"kingbus/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// material is made once: RSA keys take a while.
var material = sync.OnceValues(func() (*keys.Material, error) { return keys.New(nil, time.Now()) })

const (
	testUser     = "repl"
	testPassword = "it's a secret"
)

type oneAccount struct{ verifier wire.Verifier }

func (a oneAccount) Account(user, _ string) (wire.Account, bool) {
	return wire.Account{Verifier: a.verifier}, user == testUser
}

// tally observes dumps and counts what is sent.
type tally struct {
	hook.NoTransmission
	events, stored, begun atomic.Int64
}

func (y *tally) hooks() hook.Set { return hook.Set{Transmit: []hook.Transmit{y}} }

func (y *tally) Start(*hook.Dump) (hook.Transmission, error) { return y, nil }

func (y *tally) AfterSend(_ *hook.Dump, e *hook.Sending) error {
	y.events.Add(1)
	if e.Stored {
		y.stored.Add(1)
	}
	if e.Begins {
		y.begun.Add(1)
	}
	return nil
}

// rig is a stream in memory with a server in front of it.
type rig struct {
	t      *testing.T
	stream *stream.Stream
	server *Server
	addr   string
	link   *stream.Link
	name   string
	size   uint64 // of the current file
}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t}
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	s, err := stream.Open(stream.Config{FS: vfs.NewMem(1), Dir: "data", SegmentBytes: 4 << 20, Peering: cluster.Peering{Heartbeat: 10 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	r.stream = s
	if _, err := s.Lead(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.await("identity", func(st stream.Status) bool { return st.Identity.ServerID != 0 })
	cfg := Config{Stream: Binlog(s), Log: log, CatchUp: 50 * time.Millisecond, Hostname: "bus"}
	r.serve(cfg, change...)
	return r
}

// serve starts a server with the test's account.
func (r *rig) serve(cfg Config, change ...func(*Config)) {
	r.t.Helper()
	v, err := wire.NewVerifier([]byte(testPassword), wire.VerifierForms{Native: true, Digest: true})
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := material()
	if err != nil {
		r.t.Fatal(err)
	}
	cfg.Accounts, cfg.AllowNative = oneAccount{v}, true
	cfg.TLS, cfg.RSAKey = serverTLS(m), m.Password
	for _, f := range change {
		f(&cfg)
	}
	if r.server, err = New(cfg); err != nil {
		r.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr = l.Addr().String()
	done, server := make(chan error, 1), r.server
	go func() { done <- server.Serve(context.Background(), l) }()
	r.t.Cleanup(func() {
		_ = server.Close()
		if err := <-done; err != ErrClosed {
			r.t.Errorf("Serve: %v, want ErrClosed", err)
		}
	})
}

// await waits until the stream's status is as wanted.
func (r *rig) await(what string, ok func(stream.Status) bool) {
	r.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		changed := r.stream.Changed()
		if ok(r.stream.Status()) {
			return
		}
		select {
		case <-changed:
		case <-time.After(5 * time.Millisecond): // not every change is told
		case <-deadline:
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// follow starts a link to a source.
func (r *rig) follow(src stream.Source) {
	r.t.Helper()
	l, err := r.stream.StartLink(r.t.Context(), src)
	if err != nil {
		r.t.Fatal(err)
	}
	r.link = l
}

// rotate begins a file.
func (r *rig) rotate(name string) {
	r.t.Helper()
	if err := r.link.Rotate(r.t.Context(), name); err != nil {
		r.t.Fatal(err)
	}
	r.name, r.size = name, binlog.MagicSize
}

// append adds events to the current file, cut into runs of about limit bytes, large
// events too, and waits until they are served.
func (r *rig) append(events []byte, tracker *binlog.Tracker, limit int) {
	r.t.Helper()
	r.size += uint64(len(events))
	start, boundary := 0, 0 // of the run; end of its last boundary
	put := func(end int) {
		run := append(make([]byte, stream.RunHeader), events[start:end]...)
		if err := r.link.Append(r.t.Context(), run); err != nil {
			r.t.Fatal(err)
		}
		start = end
	}
	for at := 0; at < len(events); {
		h, err := binlog.ParseHeader(events[at:])
		if err != nil {
			r.t.Fatal(err)
		}
		e, err := tracker.Next(events[at : at+int(h.Length)])
		if err != nil {
			r.t.Fatal(err)
		}
		if int(h.Length) > max(limit, binlog.MaxWhole) && !h.Type.IsGTID() {
			if boundary > start {
				put(boundary)
			}
			for end := at + binlog.MaxWhole; end < at+int(h.Length); end += max(limit, 1<<10) {
				put(end)
			}
		}
		at += int(h.Length)
		if e.Boundary {
			boundary = at
			if at-start >= limit {
				put(at)
			}
		} else if at-start >= limit {
			if boundary > start {
				put(boundary)
			}
			if at-start >= limit {
				put(at)
			}
		}
	}
	if start < len(events) {
		put(len(events))
	}
	if !tracker.InTransaction() {
		want := stream.Coordinates{File: r.name, Pos: r.size}
		r.await(fmt.Sprint(want), func(st stream.Status) bool { return st.End == want })
	}
}

// addFile adds a whole binlog file as a server has it on disk.
func (r *rig) addFile(name string, content []byte, limit int) {
	r.t.Helper()
	if !bytes.HasPrefix(content, []byte(binlog.Magic)) {
		r.t.Fatalf("%s does not begin with the magic", name)
	}
	events := bytes.Clone(content[binlog.MagicSize:])
	h, err := binlog.ParseHeader(events)
	if err != nil {
		r.t.Fatal(err)
	}
	h.Flags &^= binlog.FlagInUse // as a source sends it
	h.Put(events)
	r.rotate(name)
	r.append(events, &binlog.Tracker{}, limit)
}

// dial logs in.
func (r *rig) dial() *wire.Client {
	return dial(r.t, r.addr, testUser, testPassword, wire.TLSPreferred)
}

func dial(t *testing.T, addr, user, password string, mode wire.TLSMode) *wire.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := wire.Dial(ctx, wire.ClientConfig{Address: addr, User: user, Password: []byte(password), TLSMode: mode, ReadTimeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func serverTLS(m *keys.Material) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{m.Server}, MinVersion: tls.VersionTLS12}
}
