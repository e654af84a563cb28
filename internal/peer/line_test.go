package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// In the bubbles of synctest time does not pass while anybody does something: sleeping there is free, and exact.

// TestSlowPeer: who takes a little in every window keeps the write alive.
func TestSlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		c := newConn(Config{}.withDefaults(), a)
		c.SetWriteTimeout(time.Second)
		want := append(frame(make([]byte, 1000)), random(1, 1000)...)
		got := make(chan []byte, 1)
		go func() {
			var all []byte
			for p := make([]byte, 50); len(all) < len(want); time.Sleep(900 * time.Millisecond) {
				n, err := b.Read(p)
				if err != nil {
					break
				}
				all = append(all, p[:n]...)
			}
			got <- all
		}()
		begin := time.Now()
		if err := c.WriteFrame(make([]byte, 1000), random(1, 1000)); err != nil {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		if time.Since(begin) < 30*time.Second {
			t.Errorf("this peer was not slow: %v", time.Since(begin))
		}
		if all := <-got; string(all) != string(want) {
			t.Errorf("%d bytes arrived, or not those that were sent", len(all))
		}
		// Without a timeout it may take for ever, even though there was one before.
		c.SetWriteTimeout(0)
		go func() {
			time.Sleep(time.Hour)
			_, _ = io.CopyN(io.Discard, b, frameHeader)
		}()
		if err := c.WriteFrame(nil); err != nil {
			t.Error(err)
		}
	})
}

func TestDeadPeer(t *testing.T) {
	for _, takes := range []int64{0, 1, 100} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			defer a.Close()
			c := newConn(Config{}.withDefaults(), a)
			c.SetWriteTimeout(time.Second)
			begin := time.Now()
			go func() { _, _ = io.CopyN(io.Discard, b, takes) }()
			err := c.WriteFrame(make([]byte, 1000))
			if took := time.Since(begin); !errors.Is(err, os.ErrDeadlineExceeded) || took < time.Second || took > 2*time.Second {
				t.Errorf("takes %d bytes: got %v after %v", takes, err, took)
			}
		})
	}
}

func TestReadTimeout(t *testing.T) {
	const d = time.Second
	tests := []struct {
		name string
		send func(nc net.Conn)
		read func(c *Conn) error
		late bool
		took time.Duration
	}{
		{"nothing", func(net.Conn) {}, readOne, true, d},
		{"half a frame", func(nc net.Conn) { _, _ = nc.Write(frame(make([]byte, 10))[:12]) }, readOne, true, d},
		{"in time", func(nc net.Conn) { time.Sleep(d - 1); _, _ = nc.Write(frame(nil)) }, readOne, false, d - 1},
		{"drip by drip", func(nc net.Conn) { drip(nc, frame(make([]byte, 100)), d/2) }, readOne, true, d},
		{"payload, drip by drip", func(nc net.Conn) {
			_, _ = nc.Write(frame(nil))
			drip(nc, make([]byte, 100), d-1)
		}, readWithPayload, false, 100 * (d - 1)},
		{"payload that stops", func(nc net.Conn) {
			_, _ = nc.Write(frame(nil))
			drip(nc, make([]byte, 10), d-1)
		}, readWithPayload, true, 10*(d-1) + d},
		{"each frame for itself", func(nc net.Conn) { drip(nc, make([]byte, 2*frameHeader), d/9) },
			func(c *Conn) error { return errors.Join(readOne(c), readOne(c)) }, false, 16 * (d / 9)},
		{"lifted", func(nc net.Conn) { time.Sleep(time.Hour); _, _ = nc.Write(frame(nil)) },
			func(c *Conn) error { c.SetReadTimeout(0); return readOne(c) }, false, time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				c := newConn(Config{}.withDefaults(), a)
				c.SetReadTimeout(d)
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					_, _ = b.Write(frame(nil))
					tt.send(b)
				}()
				defer func() { a.Close(); <-sent }()
				if err := readOne(c); err != nil { // so that there is an old deadline
					t.Fatal(err)
				}
				begin := time.Now()
				err := tt.read(c)
				if errors.Is(err, os.ErrDeadlineExceeded) != tt.late || !tt.late && err != nil {
					t.Errorf("got %v", err)
				}
				if took := time.Since(begin); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
			})
		})
	}
}

func readOne(c *Conn) error {
	_, err := c.ReadFrame()
	return err
}

func readWithPayload(c *Conn) error { return errors.Join(readOne(c), c.ReadPayload(make([]byte, 100))) }

// drip sends a byte at a time.
func drip(nc net.Conn, b []byte, every time.Duration) {
	for i := range b {
		time.Sleep(every)
		if _, err := nc.Write(b[i : i+1]); err != nil {
			return
		}
	}
}

// slowReader takes 50 bytes, and rests.
type slowReader struct {
	net.Conn
	slow atomic.Bool
}

func (c *slowReader) Read(p []byte) (int, error) {
	if c.slow.Load() {
		time.Sleep(900 * time.Millisecond)
		p = p[:min(len(p), 50)]
	}
	return c.Conn.Read(p)
}

// TestSlowPeerTLS: TLS could not go on with a record that was broken off, nor count bytes of one that has not come whole.
func TestSlowPeerTLS(t *testing.T) {
	cfg := Config{TLS: mutual(t, newAuthority(t, "CA"))}
	now := time.Now() // in the bubble it is the year 2000
	cfg.TLS.Time = func() time.Time { return now }
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		slow := &slowReader{Conn: b}
		dial := cfg
		dial.Dial = func(context.Context, string, string) (net.Conn, error) { return a, nil }
		accepted := make(chan *Conn, 1)
		go func() {
			c := newConn(cfg.withDefaults(), slow)
			if _, err := c.answer(cfg.TLS, (&node{}).Welcome); err != nil {
				t.Error(err)
			}
			accepted <- c
		}()
		c, _, err := Dial(context.Background(), dial, "127.0.0.1:1", hello)
		if err != nil {
			t.Fatal(err)
		}
		s := <-accepted
		slow.slow.Store(true)
		c.SetWriteTimeout(time.Second)
		payload, got := random(1, 3*tlsRecord), make([]byte, 3*tlsRecord)
		wrote := make(chan error, 1)
		go func() { wrote <- c.WriteFrame([]byte("x"), payload) }()
		if err := readOne(s); err != nil {
			t.Fatal(err)
		}
		s.SetReadTimeout(time.Second)
		if err := s.ReadPayload(got); err != nil || string(got) != string(payload) {
			t.Errorf("got %v, or not what was sent", err)
		}
		if err := <-wrote; err != nil {
			t.Error(err)
		}
	})
}

// watched is a TCP socket that counts its write deadlines: each but the first comes when the one before has passed, with some success.
type watched struct {
	*net.TCPConn
	deadlines *atomic.Int32
}

func (w watched) SetWriteDeadline(at time.Time) error {
	w.deadlines.Add(1)
	return w.TCPConn.SetWriteDeadline(at)
}

// TestSlowSocket is TestSlowPeer with writev, which a deadline breaks off in the middle.
func TestSlowSocket(t *testing.T) {
	t.Parallel()
	a, b := tcpPair(t)
	w := watched{a, new(atomic.Int32)}
	c, r := newConn(Config{}.withDefaults(), w), newConn(Config{}.withDefaults(), b)
	c.SetWriteTimeout(500 * time.Millisecond)
	payload := random(1, 16<<20)
	got := make([]byte, len(payload))
	wrote := make(chan error, 1)
	go func() { wrote <- c.WriteFrame([]byte("x"), payload[:5<<20], payload[5<<20:]) }()
	eventually(t, "the buffers are full", func() bool { return w.deadlines.Load() == 2 })
	if err := errors.Join(readOne(r), r.ReadPayload(got[:4<<20])); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the buffers are full again", func() bool { return w.deadlines.Load() == 3 })
	if err := r.ReadPayload(got[4<<20:]); err != nil {
		t.Fatal(err)
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if string(got) != string(payload) {
		t.Error("not what was sent")
	}
}

func TestDeadSocket(t *testing.T) {
	w, _ := tcpPair(t)
	c := newConn(Config{}.withDefaults(), w)
	c.SetWriteTimeout(50 * time.Millisecond)
	within(t, "WriteFrame", func() {
		if err := c.WriteFrame(nil, make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
