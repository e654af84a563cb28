package e2e

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// TestNetwork: the test's own wires do what TestChaos believes of them.
func TestNetwork(t *testing.T) {
	behind, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer behind.Close()
	n := newNetwork(t)
	address := n.front(t, "b", behind.Addr().String())

	// dial connects a with b, and returns both ends.
	dial := func() (a, b net.Conn) {
		t.Helper()
		a, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close() })
		hello := hello("a")
		send(t, a, string(hello))
		if b, err = behind.Accept(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		expect(t, b, string(hello))
		return a, b
	}
	ab, ba := way{"a", "b"}, way{"b", "a"}

	a, b := dial()
	send(t, a, "one")
	expect(t, b, "one")
	send(t, b, "two")
	expect(t, a, "two")

	heal := n.cut(stall, ab)
	send(t, a, "three")
	send(t, b, "four")
	expect(t, a, "four") // the other direction is whole
	silent(t, b)
	heal()
	expect(t, b, "three")

	heal, other := n.cut(lose, ab), n.cut(stall, ab)
	send(t, a, "five")
	silent(t, b)
	other() // one of two
	silent(t, b)
	heal()
	closed(t, a)
	closed(t, b)

	a, b = dial()
	heal = n.cut(refuse, ab, ba)
	closed(t, a)
	closed(t, b)
	if a, err = net.Dial("tcp", address); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	send(t, a, string(hello("a")))
	closed(t, a)
	heal()
	a, b = dial()

	heal = n.cut(stall, ab)
	_ = a.Close() // which is not seen through a cut
	silent(t, b)
	heal()
	closed(t, b)
}

// hello is what a node says first, as far as the network looks at it.
func hello(name string) []byte {
	body := `{"name":"` + name + `"}`
	b := append([]byte("KBPEER"), 1, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	return append(append(b, 0, 0, 0, 0), body...)
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c net.Conn, s string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(s))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != s {
		t.Fatalf("got %q, %v, want %q", got, err, s)
	}
}

// silent sees that nothing comes, for a moment.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	var got [1]byte
	if k, err := c.Read(got[:]); k > 0 || !err.(net.Error).Timeout() {
		t.Fatalf("got %q, %v, want silence", got[:k], err)
	}
}

// closed waits until it is, without anything before.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	rest, err := io.ReadAll(c)
	if e, timeout := err.(net.Error); len(rest) > 0 || timeout && e.Timeout() {
		t.Fatalf("got %q, %v, want the end", rest, err)
	}
}
