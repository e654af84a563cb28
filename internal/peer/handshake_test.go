package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestHandshake(t *testing.T) {
	heard := make(chan Hello, 2)
	answer := Hello{Kind: KindData, Cluster: 9, From: 2, Name: "two", Last: 1 << 60}
	_, addr := start(t, Config{}, &node{
		welcome: func(h Hello) (Hello, error) { heard <- h; return answer, nil },
		serve:   func(_ context.Context, _ *Conn, h Hello) { heard <- h },
	})
	c, got, err := Dial(testContext(t), Config{}, addr, hello)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got != answer {
		t.Errorf("got %+v, want %+v", got, answer)
	}
	for range 2 {
		if h := <-heard; h != hello {
			t.Errorf("the server heard %+v, want %+v", h, hello)
		}
	}
	if c.RemoteAddr() != addr {
		t.Errorf("got address %s, want %s", c.RemoteAddr(), addr)
	}
	if _, err := c.ReadFrame(); err != io.EOF { // Serve has returned
		t.Errorf("got %v, want io.EOF", err)
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hello Hello
		says  Hello
		err   error
		want  Refusal
	}{
		{"refusal", hello, Hello{}, &Refusal{Code: "cluster", Text: "this node belongs to cluster 7"}, Refusal{Code: "cluster", Text: "this node belongs to cluster 7"}},
		{"wrapped", hello, Hello{}, fmt.Errorf("so: %w", &Refusal{Code: "cluster", Text: "no"}), Refusal{Code: "cluster", Text: "no"}},
		{"other error", hello, Hello{}, errors.New("no idea"), Refusal{Code: "error", Text: "no idea"}},
		{"unknown kind", Hello{Kind: 9}, Hello{}, nil, Refusal{Code: "error", Text: "connections of Kind(9) are not known here: upgrade this node"}},
		{"answer that cannot be sent", hello, Hello{Name: strings.Repeat("n", 256)}, nil,
			Refusal{Code: "error", Text: "a name of 256 and an address of 0 bytes: at most 255 each"}},
	} {
		var log rec
		_, addr := start(t, Config{Log: log.logger()}, &node{
			welcome: func(Hello) (Hello, error) { return tt.says, tt.err },
			serve:   func(context.Context, *Conn, Hello) { t.Errorf("%s: served", tt.name) },
		})
		c, _, err := Dial(testContext(t), Config{}, addr, tt.hello)
		var no *Refusal
		if c != nil || !errors.As(err, &no) || *no != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, err, &tt.want)
		}
		if err != nil && !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: %v does not name %s", tt.name, err, addr)
		}
		eventually(t, "it is logged", func() bool { return log.has("turned a peer away") })
	}
}

// scripted is a server that sends what it likes and reads until the other end closes.
func scripted(t testing.TB, say string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		_, _ = nc.Write([]byte(say))
		if say == "" {
			return
		}
		_, _ = io.Copy(io.Discard, nc)
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestDialRefuses(t *testing.T) {
	huge := make([]byte, frameHeader)
	le.PutUint32(huge, maxHello+1)
	damaged := introduction([]byte("\x00{}"))
	damaged[len(damaged)-1] ^= 1
	for _, tt := range []struct {
		name, say string
		want      error
		text      string
	}{
		{"MySQL", "\x4a\x00\x00\x00\x0a8.4.0\x00", ErrNotPeer, "not a kingbus peer"},
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n", ErrNotPeer, `"HTTP/1.1"`},
		{"version 2", "KBPEER\x02\x00and something else", ErrVersion, "the peer speaks version 2, this node version 1"},
		{"hangs up", "", nil, "hung up without an answer"},
		{"huge", magic + "\x01\x00" + string(huge), ErrTooLarge, "65537"},
		{"damaged", string(damaged), ErrChecksum, ""},
		{"neither yes nor no", string(introduction([]byte("\x07"))), nil, "neither yes nor no"},
		{"malformed", string(introduction([]byte("\x00{"))), nil, "malformed hello"},
	} {
		// MaxFrame does not matter here.
		c, _, err := Dial(testContext(t), Config{MaxFrame: 1 << 30}, scripted(t, tt.say), hello)
		if c != nil {
			c.Close()
		}
		if c != nil || err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v, want %v with %q", tt.name, err, tt.want, tt.text)
		}
	}
}

func TestDialGivesUp(t *testing.T) {
	mute := func() string { return scripted(t, "K") }
	_, _, err := Dial(testContext(t), Config{HandshakeTimeout: 50 * time.Millisecond}, mute(), hello)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer within 50ms") {
		t.Errorf("silence: got %v", err)
	}
	ctx, cancel := context.WithCancelCause(testContext(t))
	stopped := errors.New("stopped")
	cfg := Config{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		defer cancel(stopped)
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	if _, _, err := Dial(ctx, cfg, mute(), hello); !errors.Is(err, stopped) {
		t.Errorf("cancelled: got %v", err)
	}
	refused := errors.New("no route")
	cfg.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, refused }
	if _, _, err := Dial(testContext(t), cfg, "a:1", hello); !errors.Is(err, refused) {
		t.Errorf("not connected: got %v", err)
	}
}

// lateConn cancels the attempt when all has been said.
type lateConn struct {
	*bytesConn
	cancel context.CancelCauseFunc
	cause  error
}

func (c *lateConn) Read(p []byte) (int, error) {
	c.cancel(c.cause)
	return c.bytesConn.Read(p)
}

// TestDialCancelledAtTheEnd: the connection would be closed already.
func TestDialCancelledAtTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancelCause(testContext(t))
	stopped := errors.New("stopped")
	nc := &lateConn{newBytesConn(introduction([]byte("\x00{}"))), cancel, stopped}
	cfg := Config{Dial: func(context.Context, string, string) (net.Conn, error) { return nc, nil }}
	if c, _, err := Dial(ctx, cfg, "a:1", hello); c != nil || !errors.Is(err, stopped) {
		t.Errorf("got %v", err)
	}
}

// TestServerTurnsAway: what it does not even answer, or answers so that the other end can tell what is wrong.
func TestServerTurnsAway(t *testing.T) {
	huge := make([]byte, frameHeader)
	le.PutUint32(huge, maxHello+1)
	const preamble = magic + "\x01\x00"
	const no = "\x01" + `{"code":"error","text":"malformed hello: unexpected end of JSON input"}`
	damaged := introduction([]byte("{}"))
	damaged[len(damaged)-1] ^= 1
	for _, tt := range []struct {
		name, say, answer, log string
	}{
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", "", "not a kingbus peer"},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01", preamble, "the peer speaks TLS, this node does not"},
		{"version 2", "KBPEER\x02\x00" + strings.Repeat("x", 100_000), preamble, "the peer speaks version 2, this node version 1"},
		{"nothing", "", "", "EOF"},
		{"cut", preamble, "", "EOF"},
		{"huge", preamble + string(huge), "", "too large"},
		{"damaged", string(damaged), "", "checksum"},
		{"malformed", string(introduction([]byte("{"))), preamble + string(frame([]byte(no))), "malformed hello"},
	} {
		var log rec
		_, addr := start(t, Config{Log: log.logger()}, &node{})
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_, _ = nc.Write([]byte(tt.say))
		_ = nc.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(nc)
		if err != nil || string(got) != tt.answer {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.answer)
		}
		eventually(t, tt.name+" is logged", func() bool { return log.has("level=DEBUG") && log.has(tt.log) })
	}
}

func TestSilentClient(t *testing.T) {
	for _, say := range []string{"", "KBP", string(introduction(nil)[:12])} {
		var log rec
		_, addr := start(t, Config{HandshakeTimeout: 50 * time.Millisecond, Log: log.logger()}, &node{})
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_, _ = nc.Write([]byte(say))
		within(t, "the server", func() {
			if got, err := io.ReadAll(nc); err != nil || len(got) > 0 {
				t.Errorf("got %q, %v", got, err)
			}
		})
		eventually(t, "it is logged", func() bool { return log.has("timeout") })
	}
}

// TestHandshakeTimeoutIsOver once it has succeeded, on both sides.
func TestHandshakeTimeoutIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		s := NewServer(Config{}, &node{})
		defer s.Close()
		s.admit(b)
		c, _, err := Dial(t.Context(), Config{Dial: func(context.Context, string, string) (net.Conn, error) { return a, nil }}, "a:1", hello)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		time.Sleep(time.Hour) // of synctest's time
		if err := c.WriteFrame([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if b, err := c.ReadFrame(); err != nil || string(b) != "x" {
			t.Errorf("got %q, %v", b, err)
		}
	})
}
