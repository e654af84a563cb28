package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
)

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return b
}

func TestRoundTrip(t *testing.T) {
	a := newAuthority(t, "CA")
	frames := []struct {
		body     int
		payloads []int
	}{
		{0, nil}, {1, nil}, {8, []int{0}}, {100, []int{1}}, {100, []int{100, 0, 7}}, {readBuffer - frameHeader, []int{readBuffer}},
		{readBuffer, []int{readBuffer - 1, readBuffer + 1}}, {3 << 20, nil}, {10, []int{9 << 20, 1, 3 << 20}}, {1, nil}, {4 << 20, []int{5}},
		{20, []int{3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3}}, {0, nil},
	}
	for name, cfg := range map[string]Config{"clear": {MaxFrame: 4 << 20}, "TLS": {MaxFrame: 4 << 20, TLS: mutual(t, a)}} {
		t.Run(name, func(t *testing.T) {
			c, s := pair(t, cfg, cfg)
			for direction, ends := range map[string][2]*Conn{"client to server": {c, s}, "server to client": {s, c}} {
				wrote := make(chan error, 1)
				go func() {
					for i, f := range frames {
						var payloads [][]byte
						for j, n := range f.payloads {
							payloads = append(payloads, random(uint64(1+i*32+j), n))
						}
						if err := ends[0].WriteFrame(random(uint64(i), f.body), payloads...); err != nil {
							wrote <- err
							return
						}
					}
					wrote <- nil
				}()
				for i, f := range frames {
					body, err := ends[1].ReadFrame()
					if err != nil {
						t.Fatalf("%s: frame %d: %v", direction, i, err)
					}
					for j, n := range f.payloads {
						p := make([]byte, n)
						if err := ends[1].ReadPayload(p); err != nil || !bytes.Equal(p, random(uint64(1+i*32+j), n)) {
							t.Fatalf("%s: frame %d: payload %d of %d bytes: %v, or not what was sent", direction, i, j, n, err)
						}
					}
					if !bytes.Equal(body, random(uint64(i), f.body)) { // after the payloads: they must not touch it
						t.Fatalf("%s: frame %d: the body of %d bytes is not what was sent", direction, i, f.body)
					}
				}
				if err := <-wrote; err != nil {
					t.Fatalf("%s: %v", direction, err)
				}
			}
			for _, b := range append(c.vec[:cap(c.vec)], s.vec[:cap(s.vec)]...) {
				if b != nil {
					t.Error("a connection keeps what it wrote")
				}
			}
			if c.RemoteAddr() == "" || s.RemoteAddr() == "" {
				t.Error("no address")
			}
			c.Close()
			if _, err := s.ReadFrame(); err != io.EOF {
				t.Errorf("after Close of the other end: got %v, want io.EOF", err)
			}
			if _, err := c.ReadFrame(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: got %v", err)
			}
			if err := c.WriteFrame(nil); !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: got %v", err)
			}
			if err := c.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}
		})
	}
}

func TestReadFrameRefuses(t *testing.T) {
	good := frame([]byte("hello"))
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 0x10
		return b
	}
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{"end", nil, io.EOF},
		{"flipped body", flip(10), ErrChecksum},
		{"flipped checksum", flip(5), ErrChecksum},
		{"shorter than it says", flip(0), io.ErrUnexpectedEOF},
		{"too large", frame(make([]byte, 101)), ErrTooLarge},
		{"length of 4 GiB", []byte{255, 255, 255, 255, 1, 2, 3, 4, 5}, ErrTooLarge},
	}
	for cut := 1; cut < len(good); cut++ {
		tests = append(tests, struct {
			name string
			in   []byte
			want error
		}{fmt.Sprintf("cut to %d bytes", cut), good[:cut], io.ErrUnexpectedEOF})
	}
	for _, tt := range tests {
		c := reading(append(frame(make([]byte, 100)), tt.in...), 100)
		if _, err := c.ReadFrame(); err != nil {
			t.Errorf("%s: before it: %v", tt.name, err)
		}
		for range 2 { // it stays so
			if _, err := c.ReadFrame(); !errors.Is(err, tt.want) || (tt.want != io.EOF && errors.Is(err, io.EOF)) {
				t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
			}
		}
		if err := c.ReadPayload(make([]byte, 1)); err == nil {
			t.Errorf("%s: a payload was read behind it", tt.name)
		}
	}
}

func TestReadPayloadCut(t *testing.T) {
	for _, have := range []int{0, 1, readBuffer, 3 * readBuffer} {
		c := reading(append(frame([]byte("x")), make([]byte, have)...), 0)
		if _, err := c.ReadFrame(); err != nil {
			t.Fatal(err)
		}
		if err := c.ReadPayload(nil); err != nil {
			t.Errorf("no payload: %v", err)
		}
		for range 2 {
			if err := c.ReadPayload(make([]byte, have+1)); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%d bytes of %d: got %v", have, have+1, err)
			}
		}
	}
}

// TestMemory: a length costs nothing before its bytes arrive, and a large body is not kept.
func TestMemory(t *testing.T) {
	c := reading(append([]byte{0, 0, 0, 4, 0, 0, 0, 0}, make([]byte, 100)...), 0) // 64 MiB, it says
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := c.ReadFrame(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes for a frame that never came", n)
	}
	c = reading(append(frame(make([]byte, keepBody)), frame(make([]byte, 2*keepBody))...), 0)
	for range 2 {
		if _, err := c.ReadFrame(); err != nil {
			t.Fatal(err)
		}
	}
	if cap(c.body) < 2*keepBody {
		t.Fatal("the body does not use its buffer")
	}
	if _, err := c.ReadFrame(); err != io.EOF || c.body != nil {
		t.Errorf("got %v, and kept %d bytes", err, cap(c.body))
	}
	c = reading(bytes.Repeat(frame(make([]byte, 1000)), 3), 0)
	allocs := testing.AllocsPerRun(1, func() {
		if _, err := c.ReadFrame(); err != nil {
			t.Error(err)
		}
	})
	if allocs != 0 { // the first call is not counted
		t.Errorf("%v allocations for a second frame", allocs)
	}
}

func TestWriteFrameTooLarge(t *testing.T) {
	nc := newBytesConn(nil)
	c := newConn(Config{MaxFrame: 10}.withDefaults(), nc)
	err := c.WriteFrame(make([]byte, 11), []byte("payload"))
	if !errors.Is(err, ErrTooLarge) || nc.out.Len() > 0 {
		t.Errorf("got %v, and %d bytes were written", err, nc.out.Len())
	}
	if err := c.WriteFrame(make([]byte, 10), make([]byte, 100)); err != nil || nc.out.Len() != 8+10+100 {
		t.Errorf("the next one: %v, %d bytes", err, nc.out.Len())
	}
}

// noWrite is a TCP socket on which only writev is allowed. The methods that net.Buffers looks for come along with *net.TCPConn.
type noWrite struct{ *net.TCPConn }

func (noWrite) Write([]byte) (int, error) { return 0, errors.New("written piece by piece") }

func TestWritev(t *testing.T) {
	w, r := tcpPair(t)
	c := newConn(Config{}.withDefaults(), noWrite{w})
	if err := c.WriteFrame([]byte("body"), []byte("pay"), nil, []byte("load")); err != nil {
		t.Fatal(err)
	}
	want := string(frame([]byte("body"))) + "payload"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Errorf("got %q, %v\nwant %q", got, err, want)
	}
	for _, b := range c.vec[:cap(c.vec)] {
		if b != nil {
			t.Error("the connection keeps what it wrote")
		}
	}
}

// brokenConn takes some bytes, then no more.
type brokenConn struct {
	bytesConn
	left int
}

func (c *brokenConn) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	c.out.Write(p[:n])
	if n < len(p) {
		return n, errors.New("broken")
	}
	return n, nil
}

// TestWriteErrorIsFinal: behind half a frame nothing makes sense.
func TestWriteErrorIsFinal(t *testing.T) {
	nc := &brokenConn{left: 9}
	c := newConn(Config{}.withDefaults(), nc)
	for range 2 {
		if err := c.WriteFrame([]byte("abc")); err == nil || !strings.Contains(err.Error(), "broken") {
			t.Errorf("got %v", err)
		}
		nc.left = 100
	}
	if nc.out.Len() != 9 {
		t.Errorf("%d bytes were written", nc.out.Len())
	}
}

// TestCloseEndsReadsAndWrites that are under way.
func TestCloseEndsReadsAndWrites(t *testing.T) {
	a := newAuthority(t, "CA")
	for name, cfg := range map[string]Config{"clear": {}, "TLS": {TLS: mutual(t, a)}} {
		t.Run(name, func(t *testing.T) {
			_, addr := start(t, cfg, &node{serve: func(ctx context.Context, _ *Conn, _ Hello) { <-ctx.Done() }})
			c, _, err := Dial(testContext(t), cfg, addr, hello)
			if err != nil {
				t.Fatal(err)
			}
			errs := make(chan error, 2)
			go func() {
				_, err := c.ReadFrame()
				errs <- err
			}()
			go func() {
				block := make([]byte, 1<<20)
				for {
					if err := c.WriteFrame(nil, block); err != nil {
						errs <- err
						return
					}
				}
			}()
			within(t, "Close", func() { c.Close() })
			for range 2 {
				within(t, "read and write", func() {
					if err := <-errs; !errors.Is(err, net.ErrClosed) {
						t.Errorf("got %v", err)
					}
				})
			}
		})
	}
}
