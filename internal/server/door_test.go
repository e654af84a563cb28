package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"kingbus/internal/wire"
)

func TestDoor(t *testing.T) {
	now := time.Unix(1e9, 0)
	d := newDoor(40, func() time.Time { return now })
	a, b := doorKey(&net.TCPAddr{IP: net.ParseIP("10.0.0.1"), Port: 5}), doorKey(&net.TCPAddr{IP: net.ParseIP("::ffff:10.0.0.2"), Port: 5})
	if a != netip.MustParsePrefix("10.0.0.1/32") || b != netip.MustParsePrefix("10.0.0.2/32") || doorKey(nil) != (netip.Prefix{}) {
		t.Errorf("%v, %v", a, b)
	}
	if x, y := doorKey(&net.TCPAddr{IP: net.ParseIP("2001:db8::1:2:3:4")}), doorKey(&net.TCPAddr{IP: net.ParseIP("2001:db8::5")}); x != y || x.Bits() != 64 {
		t.Errorf("one network counts as %v and %v", x, y)
	}
	for i := range 10 {
		if !d.enter(a) {
			t.Fatalf("connection %d was refused", i)
		}
	}
	if d.enter(a) || !d.enter(b) {
		t.Error("the 11th of one address may not come in, and another address may")
	}
	d.leave(a)
	if !d.enter(a) {
		t.Error("one has left, and none may come in")
	}
	var delays []time.Duration
	for range 10 {
		delays = append(delays, d.note(a)/time.Millisecond)
	}
	if got := fmt.Sprintf("%d", delays); got != "[0 0 0 250 500 1000 2000 4000 5000 5000]" {
		t.Errorf("delays %s", got)
	}
	if d.note(b) != 0 {
		t.Error("another address waits for it")
	}
	// Meanwhile nobody may come in from there, so that nobody guesses faster by many.
	d.leave(a)
	if d.enter(a) {
		d.leave(a)
		if d.visitor[a].delayed != 7 {
			t.Errorf("%d wait", d.visitor[a].delayed)
		}
		d.visitor[a].delayed = maxDelayed
		if d.enter(a) {
			t.Error("one more may guess")
		}
	}
	d.visitor[a].waiting++
	d.visitor[a].delayed = 0
	for range 20 {
		d.pardoned(a)
	}
	if d.visitor[a].failures != 0 || d.note(a) != 0 {
		t.Error("what was pardoned counts")
	}
	now = now.Add(forgiven + time.Second)
	if d.note(a) != 0 {
		t.Error("it is never forgiven")
	}
	// Whoever has failed is remembered when it is gone, and who has not is not; both within bounds.
	for range 10 {
		d.leave(a)
	}
	d.leave(b)
	if len(d.visitor) != 1 { // b's failure is old
		t.Errorf("%d are remembered", len(d.visitor))
	}
	for i := range 3 * maxVisitors {
		key := netip.PrefixFrom(netip.AddrFrom4([4]byte{1, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		if !d.enter(key) {
			t.Fatal("it is full")
		}
		d.note(key)
		d.leave(key)
	}
	if len(d.visitor) > maxVisitors {
		t.Errorf("%d are remembered", len(d.visitor))
	}
}

// TestSilent: those that say nothing leave room for others, of the same address too once
// they are gone.
func TestSilent(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = 40 })
	var silent []net.Conn
	refused := func() bool { return r.server.Counters().Refused > 0 }
	for !refused() {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if silent = append(silent, c); len(silent) > 40 {
			t.Fatal("one address takes all the room")
		}
		b := make([]byte, 1)
		if _, err := c.Read(b); err != nil { // the greeting, or the refusal
			t.Fatal(err)
		}
	}
	if n := r.server.Counters().Open; n > 11 {
		t.Errorf("%d connections are open", n)
	}
	for _, c := range silent {
		_ = c.Close()
	}
	for late := time.Now().Add(30 * time.Second); r.server.Counters().Open > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("the server does not notice that they are gone")
		}
	}
	// Wrong passwords are answered late, after some, and the right one at once.
	began := time.Now()
	for range freeFailures + 2 {
		if _, err := wire.Dial(t.Context(), wire.ClientConfig{Address: r.addr, User: testUser, Password: []byte("wrong"), TLSMode: wire.TLSRequired}); !wire.IsCode(err, wire.ErAccessDenied) {
			t.Error(err)
		}
	}
	if took := time.Since(began); took < firstDelay+2*firstDelay {
		t.Errorf("%d guesses took %v", freeFailures+2, took)
	}
	c := r.dial()
	_ = c.Close()

	// Who gives up as soon as the server asks for the password itself knows as much, for a
	// user that is there (whose digest is known) and for one that is not.
	for _, user := range []string{testUser, "nobody"} {
		fresh := newRig(t)
		began := time.Now()
		for range freeFailures + 2 {
			if _, err := wire.Dial(t.Context(), wire.ClientConfig{Address: fresh.addr, User: user, Password: []byte("wrong"), TLSMode: wire.TLSDisabled}); !errors.Is(err, wire.ErrInsecurePassword) {
				t.Error(err)
			}
		}
		if took := time.Since(began); took < firstDelay+2*firstDelay {
			t.Errorf("%d half guesses of %s took %v", freeFailures+2, user, took)
		}
	}
}
