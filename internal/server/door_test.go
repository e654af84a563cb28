package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

func TestDoor(t *testing.T) {
	now := time.Unix(1e9, 0)
	d := newDoor(40, func() time.Time { return now })
	a, b := netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("10.0.0.2/32")
	entered := map[netip.Prefix][]*entrant{}
	enter := func(key netip.Prefix) bool {
		e := newEntrant(nil, key, now)
		if _, refusal := d.enter(e, false); refusal != nil {
			return false
		}
		entered[key] = append(entered[key], e)
		return true
	}
	leave := func(key netip.Prefix, admitted bool) {
		d.leave(entered[key][0], admitted)
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

// TestDoorFair: who makes room for whom.
func TestDoorFair(t *testing.T) {
	now := time.Unix(1e9, 0)
	var d *door
	enter := func(address byte, full bool) (*entrant, *entrant, error) { // the new one, and who has made room for it
		a, b := net.Pipe()
		t.Cleanup(func() { _, _ = a.Close(), b.Close() })
		e := newEntrant(a, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, address}), 32), now)
		var before []*entrant
		for at := d.queue.Front(); at != nil; at = at.Next() {
			before = append(before, at.Value.(*entrant))
		}
		if _, err := d.enter(e, full); err != nil {
			return nil, nil, err
		}
		for _, other := range before {
			if other.evicted {
				if _, err := other.nc.Write([]byte{1}); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("its connection is open: %v", err)
				}
				return e, other, nil
			}
		}
		return e, nil, nil
	}
	crowd := func(addresses byte, each int) (all []*entrant) { // has come in turns, two seconds ago
		now = time.Unix(1e9, 0)
		d = newDoor(400, func() time.Time { return now })
		for range each {
			for a := range addresses {
				e, _, err := enter(a, false)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, e)
			}
		}
		now = now.Add(2 * time.Second)
		return all
	}
	t.Run("a burst takes its share", func(t *testing.T) {
		crowd(4, 10)
		in := 0
		for range 100 {
			if _, _, err := enter(9, true); err == nil {
				in++
			}
		}
		if in != 8 { // 40 places, 5 addresses
			t.Errorf("%d of it are in", in)
		}
		for key, v := range d.visitor {
			if v.queued != 8 {
				t.Errorf("%v has %d", key, v.queued)
			}
		}
	})
	t.Run("a login among a crowd", func(t *testing.T) {
		crowd(4, 10)
		honest, _, err := enter(9, true)
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Minute)
		for i := range 1000 {
			if _, _, err := enter(byte(i%4), true); err != nil {
				now = now.Add(time.Second)
			}
		}
		if honest.evicted {
			t.Error("it was put out by those that hold more")
		}
	})
	t.Run("who has sent nothing goes first", func(t *testing.T) {
		all := crowd(2, 10)
		all[0].spoke.Store(true)
		all[2].spoke.Store(true)
		if _, victim, err := enter(9, true); err != nil || victim != all[1] {
			t.Errorf("%v: not the oldest of them", err)
		}
		if _, victim, err := enter(9, true); err != nil || victim != all[4] {
			t.Errorf("%v: not the oldest of the other address that is silent", err)
		}
	})
	t.Run("who logs in once more stays", func(t *testing.T) {
		all := crowd(1, 2)
		e := all[0]
		d.loggedIn(e)
		d.leave(e, false)
		d.again(e)
		now = now.Add(time.Hour)
		for _, want := range all[1:] {
			if _, victim, err := enter(9, true); err != nil || victim != want {
				t.Errorf("%v: not who has not logged in", err)
			}
		}
		if d.leave(all[1], false); d.visitor[e.key].waiting != 0 || d.visitor[e.key].changing != 1 {
			t.Errorf("%d of its address log in, %d once more", d.visitor[e.key].waiting, d.visitor[e.key].changing)
		}
		if d.leave(e, false); d.visitor[e.key] != nil || e.evicted {
			t.Error("it has not left, or was put out")
		}
	})
	t.Run("each has its own address", func(t *testing.T) {
		all := crowd(200, 1)
		for _, e := range all[1:] {
			e.spoke.Store(true)
		}
		e, victim, err := enter(201, true)
		if err != nil || victim != all[0] {
			t.Fatalf("%v: not the silent one", err)
		}
		e.spoke.Store(true)
		if _, _, err := enter(202, true); err != errCrowded {
			t.Errorf("a login that has begun two seconds ago makes room: %v", err)
		}
		now = now.Add(2 * time.Second)
		if _, victim, err := enter(203, true); err != nil || victim != all[1] {
			t.Errorf("%v: not the oldest", err)
		}
	})
}

// TestDoorOwed: who is evicted while its refusal has to wait does not wait, so that no more wait
// than may be connected, and its address guesses no faster for that.
func TestDoorOwed(t *testing.T) {
	var elapsed atomic.Int64
	d := newDoor(400, func() time.Time { return time.Unix(1e9, elapsed.Load()) })
	key := netip.MustParsePrefix("10.0.0.1/32")
	enter := func(full bool) *entrant {
		a, b := net.Pipe()
		t.Cleanup(func() { _, _ = a.Close(), b.Close() })
		e := newEntrant(a, key, d.now())
		if _, err := d.enter(e, full); err != nil {
			t.Fatal(err)
		}
		return e
	}
	var waits sync.WaitGroup
	for range 20 { // failures of old
		e := enter(false)
		d.failed(key)
		d.leave(e, false)
	}
	for range maxChecking {
		e := enter(false)
		if !d.admit(key) {
			t.Fatal("it is not looked at")
		}
		waits.Go(func() {
			d.delay(t.Context(), e, 0)
			d.leave(e, true)
		})
	}
	elapsed.Add(int64(loginGrace))
	for range maxChecking {
		enter(true)
	}
	waits.Wait() // in vain if they do not notice: what is owed tells
	if v := d.visitor[key]; v.checking != 0 || len(v.owed) != maxChecking || d.admit(key) {
		t.Errorf("it has %d logins looked at and owes %d", v.checking, len(v.owed))
	}
	elapsed.Add(int64(maxDelay))
	if !d.admit(key) || len(d.visitor[key].owed) != 0 {
		t.Error("it owes for ever")
	}
}

// TestEvict: when silent connections of many addresses have taken all the room, the oldest of
// them makes room for who comes; whoever has logged in stays.
func TestEvict(t *testing.T) {
	var skew atomic.Int64
	r := newRig(t, func(c *Config) {
		c.MaxConnections, c.Now = 40, func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	})
	c := r.dial()
	refused := func(n uint64) { // each is counted when its goroutine notices
		t.Helper()
		r.await(fmt.Sprint(n, " refusals"), func(stream.Status) bool { return r.server.Counters().Refused == n })
	}
	var silent []net.Conn
	for i := range 4 * 10 { // a quarter is what an address may have
		if i == 39 {
			skew.Add(int64(time.Hour))
		}
		nc := dialFrom(t, r, byte(1+i%4))
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
	// An address that has its share evicts nobody, but one of its own that has had the time.
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
	for range 8 { // of 38 for five addresses
		if b := first(); b != 10 { // the protocol's version
			t.Fatalf("it begins with %d", b)
		}
	}
	refused(10)
	if b := first(); b != 0xff {
		t.Errorf("one more of the address hears %d", b)
	}
	refused(11)
	skew.Add(int64(time.Hour))
	if b := first(); b != 10 {
		t.Errorf("one more, later, hears %d", b)
	}
	if _, err := io.Copy(io.Discard, silent[40]); err != nil {
		t.Errorf("the oldest of the address: %v", err)
	}
	refused(12)
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

// dialFrom connects from 127.0.1.address.
func dialFrom(t *testing.T, r *rig, address byte) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, address)}}
	nc, err := d.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return nc
}

// heldConn stands still before its second write, a login's client hello.
type heldConn struct {
	net.Conn
	writes        int
	held, release chan struct{}
}

func (c *heldConn) Write(p []byte) (int, error) {
	if c.writes++; c.writes == 2 {
		close(c.held)
		<-c.release
	}
	return c.Conn.Write(p)
}

// TestBurst: hundreds that come at once from one address, and from a few, neither put out who is
// in the middle of logging in, nor keep out who comes later.
func TestBurst(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = 40 })
	held := &heldConn{held: make(chan struct{}), release: make(chan struct{})}
	release := sync.OnceFunc(func() { close(held.release) })
	defer release()
	login := make(chan error, 1)
	go func() {
		c, err := wire.Dial(t.Context(), wire.ClientConfig{Address: r.addr, User: testUser, Password: []byte(testPassword), TLSMode: wire.TLSRequired, ConnectTimeout: time.Minute,
			Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, 1)}}
				nc, err := d.DialContext(ctx, network, address)
				held.Conn = nc
				return held, err
			}})
		if err == nil {
			err = errors.Join(c.Ping(t.Context()), c.Close())
		}
		login <- err
	}()
	select {
	case <-held.held:
	case err := <-login:
		t.Fatal(err)
	}
	for _, addresses := range []int{5, 1} { // the second burst finds the house full
		var burst sync.WaitGroup
		for i := range 200 {
			nc := dialFrom(t, r, byte(10*addresses+i%addresses))
			burst.Go(func() { _, _ = nc.Read(make([]byte, 1)) }) // a greeting, a refusal, or the end
		}
		burst.Wait()
	}
	door := r.server.door
	door.mu.Lock()
	waiting := map[netip.Prefix]int{}
	for key, v := range door.visitor {
		waiting[key] = v.queued
	}
	door.mu.Unlock()
	// 39 places for six addresses, when the one that logs in has its own.
	for _, a := range []byte{10, 50, 51, 52, 53, 54} {
		if n := waiting[netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 1, a}), 32)]; n < 6 || n > 7 {
			t.Errorf("127.0.1.%d holds %d places", a, n)
		}
	}
	c := r.dial()
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	release()
	if err := <-login; err != nil {
		t.Errorf("the login that was in progress: %v", err)
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
	if v := door.visitor[netip.MustParsePrefix("127.0.0.1/32")]; v != nil && v.failures > 0 {
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
