package peer

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestCloseWhileServeBlocks: on its context, in a read, or in a write.
func TestCloseWhileServeBlocks(t *testing.T) {
	var ended atomic.Int32
	served := make(chan struct{})
	s, addr := start(t, Config{}, &node{serve: func(ctx context.Context, c *Conn, h Hello) {
		defer ended.Add(1)
		served <- struct{}{}
		switch h.Kind {
		case KindControl:
			<-ctx.Done()
		case KindData:
			if _, err := c.ReadFrame(); !errors.Is(err, net.ErrClosed) || ctx.Err() == nil {
				t.Errorf("read: got %v, ctx %v", err, ctx.Err())
			}
		case KindFetch:
			for block := make([]byte, 1<<20); ; {
				if err := c.WriteFrame(nil, block); err != nil {
					return
				}
			}
		}
	}})
	for _, k := range []Kind{KindControl, KindData, KindFetch} {
		c, _, err := Dial(testContext(t), Config{}, addr, Hello{Kind: k})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		<-served
	}
	within(t, "Close", func() {
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				if err := s.Close(); err != nil || ended.Load() != 3 {
					t.Errorf("got %v, and %d of 3 have ended", err, ended.Load())
				}
			})
		}
		both.Wait()
	})
	if _, _, err := Dial(testContext(t), Config{}, addr, hello); err == nil {
		t.Error("a closed server answers")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Errorf("Serve after Close: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve after Close leaves its listener open: %v", err)
	}
}

// TestCloseDuringHandshake does not wait for its timeout.
func TestCloseDuringHandshake(t *testing.T) {
	s, addr := start(t, Config{HandshakeTimeout: time.Hour}, &node{})
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	eventually(t, "it is accepted", func() bool { return s.open() == 1 })
	within(t, "Close", func() { s.Close() })
}

func (s *Server) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.conns)
}

func TestTooManyConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	var log rec
	s := NewServer(Config{Log: log.logger()}, &node{})
	if s.limit != 256 {
		t.Errorf("the limit is %d", s.limit)
	}
	s.limit = 3
	serve(t, s, l)
	var conns []*Conn
	for range 3 {
		c, _, err := Dial(testContext(t), Config{}, addr, hello)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	for range 5 {
		if c, _, err := Dial(testContext(t), Config{}, addr, hello); err == nil {
			c.Close()
			t.Error("one too many was welcomed")
		}
	}
	if !log.has("level=WARN") {
		t.Error("it was not logged")
	}
	if err := conns[1].WriteFrame([]byte("x")); err != nil {
		t.Error(err)
	}
	if b, err := conns[1].ReadFrame(); err != nil || string(b) != "x" {
		t.Errorf("those who were there before: %q, %v", b, err)
	}
	conns[0].Close()
	eventually(t, "there is room again", func() bool {
		c, _, err := Dial(testContext(t), Config{}, addr, hello)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// moody is a listener that fails as it is told to before it accepts.
type moody struct {
	net.Listener
	errs chan error
}

func (l *moody) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
	default:
		return l.Listener.Accept()
	}
}

func TestAcceptErrors(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &moody{inner, make(chan error, 9)}
	for _, e := range []error{syscall.EMFILE, syscall.ECONNABORTED, syscall.ENOBUFS} {
		l.errs <- e
	}
	var log rec
	s := NewServer(Config{Log: log.logger()}, &node{})
	defer s.Close()
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	c, _, err := Dial(testContext(t), Config{}, inner.Addr().String(), hello)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !log.has("too many open files") {
		t.Error("it was not logged")
	}
	l.errs <- syscall.EINVAL
	other, _, err := Dial(testContext(t), Config{}, inner.Addr().String(), hello) // wakes Accept up
	if err == nil {
		defer other.Close()
	}
	if err := <-done; !errors.Is(err, syscall.EINVAL) {
		t.Errorf("got %v", err)
	}
	if err := c.WriteFrame([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := c.ReadFrame(); err != nil {
		t.Errorf("a connection that was there before: %v", err)
	}
}

// exhausted is a listener of a process that has no files left.
type exhausted struct{}

func (exhausted) Accept() (net.Conn, error) { return nil, syscall.EMFILE }
func (exhausted) Close() error              { return nil }
func (exhausted) Addr() net.Addr            { return nil }

// TestCloseDuringBackoff does not wait for its end. Until then it does not spin.
func TestCloseDuringBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log rec
		s := NewServer(Config{Log: log.logger()}, &node{})
		done := make(chan error, 1)
		go func() { done <- s.Serve(exhausted{}) }()
		time.Sleep(time.Minute + 1) // of synctest's time
		if n := log.count("too many open files"); n < 60 || n > 80 {
			t.Errorf("%d attempts in a minute", n)
		}
		begin := time.Now()
		_ = s.Close()
		if err := <-done; err != nil || time.Since(begin) != 0 {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
	})
}

// TestGarbageFlood: many at once say what comes to their minds; who behaves is served all the same, and nothing stays behind.
func TestGarbageFlood(t *testing.T) {
	a := newAuthority(t, "CA")
	for name, cfg := range map[string]Config{"clear": {}, "TLS": {TLS: mutual(t, a)}} {
		t.Run(name, func(t *testing.T) {
			s, addr := start(t, cfg, &node{serve: func(_ context.Context, c *Conn, h Hello) {
				for {
					b, err := c.ReadFrame()
					if err != nil || h.From != hello.From || c.WriteFrame(b) != nil {
						return
					}
				}
			}})
			good, _, err := Dial(testContext(t), cfg, addr, hello)
			if err != nil {
				t.Fatal(err)
			}
			defer good.Close()
			var flood sync.WaitGroup
			for i := range 16 {
				flood.Go(func() {
					r := rand.New(rand.NewPCG(uint64(i), 1))
					for range 20 {
						garbage(t, addr, r)
					}
				})
			}
			for range 200 {
				if err := good.WriteFrame([]byte("good")); err != nil {
					t.Fatal(err)
				}
				if b, err := good.ReadFrame(); err != nil || string(b) != "good" {
					t.Fatalf("got %q, %v", b, err)
				}
			}
			flood.Wait()
			eventually(t, "only the good one is left", func() bool { return s.open() == 1 })
		})
	}
}

// garbage is one connection of the flood. Half of them begin well.
func garbage(t *testing.T, addr string, r *rand.Rand) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer nc.Close()
	b := random(r.Uint64(), r.IntN(200_000))
	switch r.IntN(4) {
	case 0:
		b = append(appendPreamble(nil), b...)
	case 1:
		b = append(introduction([]byte(`{"kind":1}`)), b...)
	}
	_, _ = nc.Write(b) // it may well be cut off
	_ = nc.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, nc)
}
