package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// bytesConn is a net.Conn over memory: reads come from in, writes go to out.
type bytesConn struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (c *bytesConn) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *bytesConn) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *bytesConn) Close() error                     { return nil }
func (c *bytesConn) LocalAddr() net.Addr              { return nil }
func (c *bytesConn) RemoteAddr() net.Addr             { return nil }
func (c *bytesConn) SetDeadline(time.Time) error      { return nil }
func (c *bytesConn) SetReadDeadline(time.Time) error  { return nil }
func (c *bytesConn) SetWriteDeadline(time.Time) error { return nil }

// pattern is n bytes that differ from their neighbours in any alignment of
// packets. It is shared: not to be written to.
func pattern(n int) []byte { return patterns()[:n:n] }

var patterns = sync.OnceValue(func() []byte {
	b := make([]byte, 2*MaxPacketPayload+100)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
})

// frame is the reference: the packets of a payload, made the plain way.
func frame(seq byte, payload []byte) []byte {
	var out []byte
	for {
		n := min(len(payload), MaxPacketPayload)
		out = append(out, byte(n), byte(n>>8), byte(n>>16), seq)
		out = append(out, payload[:n]...)
		payload = payload[n:]
		seq++
		if n < MaxPacketPayload {
			return out
		}
	}
}

var framingSizes = []int{0, 1, 300, minBuf - 5, minBuf - 4, minBuf - 3, 1000, bypassMin - 1, bypassMin, 1 << 20,
	MaxPacketPayload - 1, MaxPacketPayload, MaxPacketPayload + 1, 2 * MaxPacketPayload, 2*MaxPacketPayload + 1}

func TestWriteFrames(t *testing.T) {
	for _, size := range framingSizes {
		payload := pattern(size)
		want := append(frame(250, payload), frame(byte(250+size/MaxPacketPayload+1), []byte("next"))...)
		for _, piece := range []int{0, 7, 1000, 40 << 10, 1<<24 + 5} {
			if piece > 0 && piece <= 1000 && size > 1<<20 {
				continue // slow, and says nothing new
			}
			bc := &bytesConn{}
			c := NewConn(bc, 0, minBuf)
			c.SetWriteSequence(250)
			var err error
			if piece == 0 {
				err = c.WritePacket(payload)
			} else {
				err = c.BeginPayload(uint64(size))
				for rest := payload; err == nil && len(rest) > 0; {
					n := min(piece, len(rest))
					_, err = c.Write(rest[:n])
					rest = rest[n:]
				}
			}
			err = errors.Join(err, c.WritePacket([]byte("next")), c.Flush())
			if err != nil || !bytes.Equal(bc.out.Bytes(), want) {
				t.Errorf("size %d in pieces of %d: error %v, %d bytes, want %d, equal: %v", size, piece, err,
					bc.out.Len(), len(want), bytes.Equal(bc.out.Bytes(), want))
			}
		}
	}
}

func TestReadFrames(t *testing.T) {
	for _, size := range framingSizes {
		payload := pattern(size)
		stream := append(frame(250, payload), frame(byte(250+size/MaxPacketPayload+1), []byte("next"))...)
		newConn := func() *Conn {
			c := NewConn(&bytesConn{in: bytes.NewReader(stream)}, minBuf, 0)
			c.SetReadSequence(250)
			return c
		}
		checkNext := func(c *Conn, what string) {
			t.Helper()
			if p, err := c.ReadPacket(100); string(p) != "next" || err != nil {
				t.Errorf("size %d, %s: next packet %q, %v", size, what, p, err)
			}
			if _, err := c.ReadPacket(100); err != io.EOF {
				t.Errorf("size %d, %s: at the end: %v", size, what, err)
			}
		}

		c := newConn()
		if p, err := c.ReadPacket(size); err != nil || !bytes.Equal(p, payload) {
			t.Errorf("size %d: ReadPacket: %d bytes, %v", size, len(p), err)
		}
		checkNext(c, "ReadPacket")

		if size > 0 {
			var tooLarge *TooLargeError
			if _, err := newConn().ReadPacket(size - 1); !errors.As(err, &tooLarge) {
				t.Errorf("size %d: beyond the bound: %v", size, err)
			}
		}

		c = newConn()
		if err := c.NextPayload(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, payload) {
			t.Errorf("size %d: Read: %d bytes, %v", size, len(got), err)
		}
		checkNext(c, "Read")

		c = newConn()
		if err := c.NextPayload(); err != nil {
			t.Fatal(err)
		}
		checkNext(c, "discard by ReadPacket")

		c = newConn()
		if err := c.NextPayload(); err != nil {
			t.Fatal(err)
		}
		if err := c.Discard(uint64(size)); err != nil {
			t.Errorf("size %d: Discard: %v", size, err)
		}
		if err := c.Discard(1); err != io.EOF {
			t.Errorf("size %d: Discard at the end: %v", size, err)
		}
		checkNext(c, "Discard")
	}
}

// TestPeek looks ahead from every place near the seam of two packets. The state
// is set as if all before that place had been read.
func TestPeek(t *testing.T) {
	for _, rest := range []int{0, 1, 4, 19, 40, 200} { // of the first packet
		for _, next := range []int{0, 1, 10, 300} { // in the second packet
			for _, n := range []int{0, 1, 4, 19, 40, 200, 400} {
				payload := pattern(rest + next)
				stream := append([]byte(nil), payload[:rest]...)
				stream = append(stream, frame(7, payload[rest:])...)
				for name, in := range map[string]io.Reader{"whole": bytes.NewReader(stream), "bytes": iotest.OneByteReader(bytes.NewReader(stream))} {
					c := NewConn(&bytesConn{in: in}, minBuf, 0)
					c.SetReadSequence(7)
					c.r.open, c.r.left, c.r.more = true, rest, true
					end, wantErr := n, error(nil)
					if end > len(payload) {
						end, wantErr = len(payload), io.EOF
					}
					p, err := c.Peek(n)
					if err != wantErr || !bytes.Equal(p, payload[:end]) {
						t.Fatalf("%s: %d+%d: Peek(%d): %d bytes, %v; want %d, %v", name, rest, next, n, len(p), err, end, wantErr)
					}
					got, err := io.ReadAll(c)
					if err != nil || !bytes.Equal(got, payload) {
						t.Fatalf("%s: %d+%d: after Peek(%d): %d bytes, %v", name, rest, next, n, len(got), err)
					}
				}
			}
		}
	}
}

func TestPeekBeyondTheBuffer(t *testing.T) {
	c := NewConn(&bytesConn{in: bytes.NewReader(frame(0, pattern(5000)))}, minBuf, 0)
	if err := c.NextPayload(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Peek(4000); err != io.ErrShortBuffer {
		t.Errorf("got %v", err)
	}
}

func TestReadErrors(t *testing.T) {
	var sequence *SequenceError
	c := NewConn(&bytesConn{in: bytes.NewReader(frame(1, []byte("x")))}, 0, 0)
	if _, err := c.ReadPacket(10); !errors.As(err, &sequence) || sequence.Got != 1 || sequence.Want != 0 {
		t.Errorf("wrong number: %v", err)
	}
	if _, err := c.ReadPacket(10); !errors.As(err, &sequence) {
		t.Errorf("the error did not stick: %v", err)
	}
	for cut := 1; cut < 10; cut++ {
		c := NewConn(&bytesConn{in: bytes.NewReader(frame(0, []byte("123456"))[:cut])}, 0, 0)
		if _, err := c.ReadPacket(10); err != io.ErrUnexpectedEOF {
			t.Errorf("cut after %d bytes: ReadPacket: %v", cut, err)
		}
		c = NewConn(&bytesConn{in: bytes.NewReader(frame(0, []byte("123456"))[:cut])}, 0, 0)
		err := c.NextPayload()
		if err == nil {
			_, err = io.ReadAll(c)
		}
		if err != io.ErrUnexpectedEOF {
			t.Errorf("cut after %d bytes: Read: %v", cut, err)
		}
	}
	// A full packet, and then nothing where another must follow.
	c = NewConn(&bytesConn{in: bytes.NewReader(frame(0, pattern(MaxPacketPayload))[:MaxPacketPayload+4])}, 0, 0)
	if _, err := c.ReadPacket(1 << 30); err != io.ErrUnexpectedEOF {
		t.Errorf("missing last packet: %v", err)
	}
	// The second packet of a payload has a wrong number.
	b := frame(0, pattern(MaxPacketPayload+3))
	b[MaxPacketPayload+4+3] = 7
	c = NewConn(&bytesConn{in: bytes.NewReader(b)}, 0, 0)
	if _, err := c.ReadPacket(1 << 30); !errors.As(err, &sequence) || sequence.Want != 1 {
		t.Errorf("wrong number within a payload: %v", err)
	}
}

// TestClaimedLengthCostsNothing: a header alone must not make us allocate.
func TestClaimedLengthCostsNothing(t *testing.T) {
	c := NewConn(&bytesConn{in: bytes.NewReader([]byte{0xff, 0xff, 0xff, 0, 1, 2, 3})}, minBuf, 0)
	before := cap(c.r.buf) + cap(c.r.big)
	if _, err := c.ReadPacket(1 << 30); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	if after := cap(c.r.buf) + cap(c.r.big); after-before > 4*minBuf {
		t.Errorf("buffers grew by %d bytes", after-before)
	}
}

func TestWriteMisuse(t *testing.T) {
	for name, do := range map[string]func(c *Conn) error{
		"too much":          func(c *Conn) error { _, err := c.Write(make([]byte, 6)); return err },
		"flush too early":   func(c *Conn) error { return c.Flush() },
		"packet too early":  func(c *Conn) error { return c.WritePacket(nil) },
		"payload too early": func(c *Conn) error { return c.BeginPayload(1) },
	} {
		c := NewConn(&bytesConn{}, 0, 0)
		if err := c.BeginPayload(5); err != nil {
			t.Fatal(err)
		}
		if err := do(c); !errors.Is(err, ErrPayloadLength) {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.Flush(); !errors.Is(err, ErrPayloadLength) {
			t.Errorf("%s: the error did not stick: %v", name, err)
		}
	}
	c := NewConn(&bytesConn{}, 0, 0)
	if _, err := c.Write([]byte("x")); !errors.Is(err, ErrPayloadLength) {
		t.Errorf("without BeginPayload: %v", err)
	}
}

func TestSequences(t *testing.T) {
	bc := &bytesConn{in: bytes.NewReader(append(frame(4, []byte("a")), frame(5, []byte("b"))...))}
	c := NewConn(bc, 0, 0)
	c.SetReadSequence(4)
	if _, err := c.ReadPacket(1); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.WritePacket(nil), c.Flush()); err != nil || bc.out.Bytes()[3] != 5 {
		t.Errorf("shared: wrote number %d, %v, want 5", bc.out.Bytes()[3], err)
	}
	c.SplitSequence()
	c.SetReadSequence(5)
	c.SetWriteSequence(0)
	if _, err := c.ReadPacket(1); err != nil {
		t.Fatal(err)
	}
	bc.out.Reset()
	if err := errors.Join(c.WritePacket(nil), c.Flush()); err != nil || bc.out.Bytes()[3] != 0 {
		t.Errorf("split: wrote number %d, %v, want 0", bc.out.Bytes()[3], err)
	}
}

// TestTimeoutIsResumable: a read that timed out in mid-packet goes on later.
func TestTimeoutIsResumable(t *testing.T) {
	a, b := tcpPair(t)
	c := NewConn(a, 0, 0)
	c.SetTimeouts(time.Millisecond, 0)
	msg := frame(0, []byte("hello"))
	var got []byte
	for i := range msg {
		if _, err := c.ReadPacket(10); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("after %d bytes: %v", i, err)
		}
		if _, err := b.Write(msg[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	c.SetTimeouts(10*time.Second, 0)
	got, err := c.ReadPacket(10)
	if err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// TestBothDirections reads and writes from two goroutines, in clear and under TLS.
func TestBothDirections(t *testing.T) {
	serverTLS, _ := testTLS()
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("tls=", secure), func(t *testing.T) {
			a, b := tcpPair(t)
			ca, cb := NewConn(a, 0, 0), NewConn(b, 0, 0)
			if secure {
				done := make(chan error)
				go func() { done <- ca.startTLS(testContext(t), serverTLS, true) }()
				if err := errors.Join(cb.startTLS(testContext(t), &tls.Config{InsecureSkipVerify: true}, false), <-done); err != nil {
					t.Fatal(err)
				}
			}
			const n = 500
			sizes := func(i int) int { return (i * 7919) % 70000 }
			write := func(c *Conn) error {
				for i := range n {
					if err := c.WritePacket(pattern(sizes(i))); err != nil {
						return err
					}
				}
				return c.Flush()
			}
			read := func(c *Conn) error {
				for i := range n {
					p, err := c.ReadPacket(1 << 20)
					if err != nil || !bytes.Equal(p, pattern(sizes(i))) {
						return fmt.Errorf("packet %d: %d bytes, %v", i, len(p), err)
					}
				}
				return nil
			}
			results := make(chan error, 4)
			for _, c := range []*Conn{ca, cb} {
				c.SplitSequence()
				go func() { results <- write(c) }()
				go func() { results <- read(c) }()
			}
			for range 4 {
				if err := <-results; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestReady(t *testing.T) {
	a, b := tcpPair(t)
	c := NewConn(a, 0, 0)
	if c.Ready() {
		t.Error("ready with nothing sent")
	}
	if _, err := b.Write(append(frame(0, []byte("one")), frame(1, []byte("two"))...)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadPacket(10); err != nil {
		t.Fatal(err)
	}
	if !c.Ready() || c.Buffered() == 0 {
		t.Error("not ready with a packet in the buffer")
	}
	if _, err := c.ReadPacket(10); err != nil {
		t.Fatal(err)
	}
	if c.Ready() || c.Buffered() > 0 {
		t.Error("ready after all was read")
	}
	b.Close()
	if _, err := c.ReadPacket(10); err != io.EOF {
		t.Fatal(err)
	}
	if !c.Ready() {
		t.Error("an end is not ready to be read")
	}
	c.Close()
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// TestReadyBelowTLS: records that TLS has not yet been asked for count as ready.
func TestReadyBelowTLS(t *testing.T) {
	serverTLS, _ := testTLS()
	a, b := tcpPair(t)
	ca, cb := NewConn(a, 0, 0), NewConn(b, 0, 0)
	done := make(chan error)
	go func() { done <- cb.startTLS(testContext(t), serverTLS, true) }()
	if err := errors.Join(ca.startTLS(testContext(t), &tls.Config{InsecureSkipVerify: true}, false), <-done); err != nil {
		t.Fatal(err)
	}
	const n = 50 // each packet in a record of its own
	for range n {
		if err := errors.Join(cb.WritePacket(pattern(1000)), cb.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	ready := 0
	for i := range n {
		if _, err := ca.ReadPacket(1000); err != nil {
			t.Fatal(err)
		}
		if i < n-1 && ca.Ready() {
			ready++
		}
	}
	if ready < n/2 {
		t.Errorf("ready after %d of %d records", ready, n)
	}
	if ca.Ready() {
		t.Error("ready after the last record")
	}
}

func TestNothingBeforeTLS(t *testing.T) {
	a, b := tcpPair(t)
	c := NewConn(a, 0, 0)
	if _, err := b.Write(append(frame(0, []byte("request")), frame(1, []byte("injected"))...)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadPacket(10); err != nil {
		t.Fatal(err)
	}
	if err := c.startTLS(testContext(t), &tls.Config{}, true); !errors.Is(err, ErrPipelined) {
		t.Errorf("got %v", err)
	}
}

// endless repeats a block for ever.
type endless struct {
	block []byte
	pos   int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.block[e.pos:])
	e.pos = (e.pos + n) % len(e.block)
	return n, nil
}

func block300() []byte {
	var b []byte
	for seq := range 256 {
		b = append(b, frame(byte(seq), pattern(300))...)
	}
	return b
}

func TestNoAllocations(t *testing.T) {
	bc := &bytesConn{in: &endless{block: block300()}}
	c := NewConn(bc, 0, 0)
	c.SplitSequence()
	if n := testing.AllocsPerRun(2000, func() {
		if _, err := c.ReadPacket(1 << 20); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("ReadPacket: %v allocations", n)
	}
	buf := make([]byte, 300)
	if n := testing.AllocsPerRun(2000, func() {
		if err := c.NextPayload(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Peek(20); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("streamed: %v allocations", n)
	}
	w := NewConn(discardConn{}, 0, 0)
	big := make([]byte, 100<<10)
	if n := testing.AllocsPerRun(2000, func() {
		if err := errors.Join(w.WritePacket(buf), w.WritePacket(big), w.Flush()); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("WritePacket: %v allocations", n)
	}
}

type discardConn struct{ net.Conn }

func (discardConn) Write(p []byte) (int, error) { return len(p), nil }
func (discardConn) Close() error                { return nil }

func BenchmarkRead300(b *testing.B) {
	c := NewConn(&bytesConn{in: &endless{block: block300()}}, 0, 0)
	b.ReportAllocs()
	b.SetBytes(304)
	for b.Loop() {
		if _, err := c.ReadPacket(1 << 20); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStream300(b *testing.B) {
	c := NewConn(&bytesConn{in: &endless{block: block300()}}, 0, 0)
	buf := make([]byte, 300)
	b.ReportAllocs()
	b.SetBytes(304)
	for b.Loop() {
		if err := c.NextPayload(); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Peek(20); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWrite300(b *testing.B) {
	c := NewConn(discardConn{}, 0, 0)
	buf := pattern(300)
	b.ReportAllocs()
	b.SetBytes(304)
	for b.Loop() {
		if err := c.WritePacket(buf); err != nil {
			b.Fatal(err)
		}
	}
}
