package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"kingbus/internal/stream"
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
	entered := map[netip.Prefix][]*entrant{}
	enter := func(key netip.Prefix) bool {
		e := &entrant{}
		if !d.enter(key, e) {
			return false
		}
		entered[key] = append(entered[key], e)
		return true
	}
	leave := func(key netip.Prefix, admitted bool) {
		d.leave(key, entered[key][0], admitted)
		entered[key] = entered[key][1:]
	}
	for i := range 10 {
		if !enter(a) {
			t.Fatalf("connection %d was refused", i)
		}
	}
	if enter(a) || !enter(b) {
		t.Error("the 11th of one address may not come in, and another address may")
	}
	leave(a, false)
	if !enter(a) {
		t.Error("one has left, and none may come in")
	}
	var delays []time.Duration
	for range 10 {
		next := d.hold(a, 1)
		d.failed(a)
		if now := d.hold(a, 0); now != next && len(delays) > 0 {
			t.Errorf("who is not known waits %v, who is %v", next, now)
		}
		delays = append(delays, d.hold(a, 0)/time.Millisecond)
	}
	if got := fmt.Sprintf("%d", delays); got != "[0 0 0 250 500 1000 2000 4000 5000 5000]" {
		t.Errorf("delays %s", got)
	}
	if d.failed(b); d.hold(b, 0) != 0 {
		t.Error("another address waits for it")
	}
	// Few are looked at at a time, so that nobody guesses faster by many.
	for i := range maxChecking {
		if !d.admit(a) {
			t.Errorf("login %d is not looked at", i)
		}
	}
	if d.admit(a) {
		t.Error("one more is")
	}
	leave(a, true)
	if !enter(a) || !d.admit(a) || !d.admit(b) {
		t.Error("one is through, or comes from elsewhere, and is not")
	}
	d.visitor[a].checking, d.visitor[b].checking = 0, 0
	now = now.Add(forgiven + time.Second)
	if d.failed(a); d.hold(a, 0) != 0 {
		t.Error("it is never forgiven")
	}
	// Whoever has failed is remembered when it is gone, and who has not is not; both within bounds.
	for range 10 {
		leave(a, false)
	}
	leave(b, false)
	if len(d.visitor) != 1 { // b's failure is old
		t.Errorf("%d are remembered", len(d.visitor))
	}
	for i := range 3 * maxVisitors {
		key := netip.PrefixFrom(netip.AddrFrom4([4]byte{1, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		if !enter(key) {
			t.Fatal("it is full")
		}
		d.failed(key)
		leave(key, false)
	}
	if len(d.visitor) > maxVisitors {
		t.Errorf("%d are remembered", len(d.visitor))
	}
}

// TestEvict: when silent connections of many addresses have taken all the room, the oldest of
// them makes room for who comes; whoever has logged in stays.
func TestEvict(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = 40 })
	c := r.dial()
	refused := func(n uint64) { // each is counted when its goroutine notices
		t.Helper()
		r.await(fmt.Sprint(n, " refusals"), func(stream.Status) bool { return r.server.Counters().Refused == n })
	}
	var silent []net.Conn
	for i := range 4 * 10 { // a quarter is what an address may have
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%4))}}
		nc, err := d.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Read(make([]byte, 1)); err != nil { // the greeting
			t.Fatal(err)
		}
		silent = append(silent, nc)
	}
	// The last of them has evicted the first, as there is one who has logged in.
	if _, err := io.Copy(io.Discard, silent[0]); err != nil {
		t.Errorf("the oldest: %v", err)
	}
	other := r.dial()
	if _, err := io.Copy(io.Discard, silent[1]); err != nil {
		t.Errorf("the next: %v", err)
	}
	for _, c := range []*wire.Client{c, other} {
		if err := c.Ping(t.Context()); err != nil {
			t.Error(err)
		}
	}
	refused(2)
	if n := r.server.Counters(); n.Open > 40 || n.FailedLogins != 0 {
		t.Errorf("%+v", n)
	}
	// An address that has as many as it may have evicts nobody.
	first := func() byte { // of what the server says to one more
		nc, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, nc)
		b := make([]byte, 5)
		if _, err := io.ReadFull(nc, b); err != nil {
			t.Fatal(err)
		}
		return b[4]
	}
	for range 10 {
		if b := first(); b != 10 { // the protocol's version
			t.Fatalf("it begins with %d", b)
		}
	}
	refused(12)
	if b := first(); b != 0xff {
		t.Errorf("one more of the address hears %d", b)
	}
	refused(13)
	// With all logged in there is no room.
	for _, nc := range silent {
		_ = nc.Close()
	}
	r.await("an empty house", func(stream.Status) bool { return r.server.Counters().Open == 2 })
	for range 38 {
		r.dial()
	}
	if _, err := wire.Dial(t.Context(), wire.ClientConfig{Address: r.addr, User: testUser, Password: []byte(testPassword), TLSMode: wire.TLSRequired}); !wire.IsCode(err, wire.ErConCount) {
		t.Errorf("one more than may be: %v", err)
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

	// Those whose digest is not known yet, as after a start, do not wait for each other.
	many := newUsersRig(t)
	var logins sync.WaitGroup
	for range 20 {
		logins.Go(func() {
			c, err := wire.Dial(t.Context(), wire.ClientConfig{Address: many.addr, User: "root", Password: []byte(testPassword), TLSMode: wire.TLSRequired})
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.Close()
		})
	}
	logins.Wait()
	door := many.server.door
	door.mu.Lock()
	if v := door.visitor[doorKey(&net.TCPAddr{IP: net.ParseIP("127.0.0.1")})]; v != nil && v.failures > 0 {
		t.Errorf("logins that were right count as %d failures", v.failures)
	}
	door.mu.Unlock()

	// Who gives up as soon as the server asks for the password itself knows as much, if the
	// digest is known.
	for _, user := range []string{testUser} {
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
