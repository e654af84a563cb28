package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// within fails the test if do does not return.
func within(t testing.TB, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("hangs: %s", what)
	}
}

// rec is a log that can be read while it is written.
type rec struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *rec) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *rec) count(text string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Count(r.buf.String(), text)
}

func (r *rec) has(text string) bool { return r.count(text) > 0 }

func (r *rec) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// node is a Handler of functions; by default it welcomes everybody, echoes frames, and says Name "server".
type node struct {
	welcome func(Hello) (Hello, error)
	serve   func(ctx context.Context, c *Conn, h Hello)
}

func (n *node) Welcome(h Hello) (Hello, error) {
	if n.welcome != nil {
		return n.welcome(h)
	}
	return Hello{Kind: h.Kind, From: 2, To: h.From, Name: "server"}, nil
}

func (n *node) Serve(ctx context.Context, c *Conn, h Hello) {
	if n.serve != nil {
		n.serve(ctx, c, h)
		return
	}
	for {
		b, err := c.ReadFrame()
		if err != nil || c.WriteFrame(b) != nil {
			return
		}
	}
}

// start serves n on a port of its own until the test ends.
func start(t testing.TB, cfg Config, n *node) (s *Server, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = NewServer(cfg, n)
	serve(t, s, l)
	return s, l.Addr().String()
}

func serve(t testing.TB, s *Server, l net.Listener) {
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		within(t, "Close", func() { s.Close() })
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// hello is a client's, with all fields set.
var hello = Hello{
	Kind: KindData, Cluster: 1<<64 - 1, From: 1, To: 2, Name: "one", Address: "one.example:3307",
	MinFormat: 1, MaxFormat: 3, Last: 1<<63 + 5, Member: true,
}

// pair is both ends of a connection.
func pair(t testing.TB, client, server Config) (c, s *Conn) {
	t.Helper()
	got := make(chan *Conn)
	_, addr := start(t, server, &node{serve: func(ctx context.Context, c *Conn, _ Hello) {
		got <- c
		<-ctx.Done()
	}})
	c, _, err := Dial(testContext(t), client, addr, hello)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, <-got
}

// tcpPair is both ends of a loopback connection, of which the first one's writes get stuck soon.
func tcpPair(t testing.TB) (writer, reader *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	writer, reader = a.(*net.TCPConn), b.(*net.TCPConn)
	if err := errors.Join(writer.SetWriteBuffer(16<<10), reader.SetReadBuffer(16<<10)); err != nil {
		t.Fatal(err)
	}
	return writer, reader
}

// bytesConn is a peer that has said all that it will, and takes everything.
type bytesConn struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func newBytesConn(in []byte) *bytesConn { return &bytesConn{in: bytes.NewReader(in)} }

func (c *bytesConn) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *bytesConn) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *bytesConn) Close() error                     { return nil }
func (c *bytesConn) SetDeadline(time.Time) error      { return nil }
func (c *bytesConn) SetReadDeadline(time.Time) error  { return nil }
func (c *bytesConn) SetWriteDeadline(time.Time) error { return nil }

// frame is a frame's bytes.
func frame(body []byte) []byte {
	b := make([]byte, frameHeader)
	putFrameHeader(b, body)
	return append(b, body...)
}

// reading is a connection on which these bytes come.
func reading(b []byte, maxFrame int) *Conn {
	return newConn(Config{MaxFrame: maxFrame}.withDefaults(), newBytesConn(b))
}

// mutual is the configuration of a node with a certificate of its own.
func mutual(t testing.TB, a *authority) *tls.Config {
	t.Helper()
	cfg, err := LoadTLS(a.issue(t, nil), a.key, a.file)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}
