package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// visits is a listener to which connections come from addresses that a test says.
type visits struct {
	net.Listener
	from []string
}

func (v *visits) Accept() (net.Conn, error) {
	if len(v.from) == 0 {
		return nil, net.ErrClosed
	}
	at, err := net.ResolveTCPAddr("tcp", v.from[0])
	v.from = v.from[1:]
	return &visit{at: at}, err
}

type visit struct {
	net.Conn
	at     net.Addr
	closed int
}

func (v *visit) RemoteAddr() net.Addr { return v.at }

func (v *visit) Close() error {
	v.closed++
	return nil
}

// TestBounded: a connection for which there is no room is closed, one address does not take it
// all, nobody takes that of this machine, and a connection that ends makes room once.
func TestBounded(t *testing.T) {
	visits := &visits{}
	var refused []string
	b := newBounded(visits, func(from string) { refused = append(refused, from) }, func() time.Time { return time.Unix(1e9, 0) })
	b.most, b.ofAddress = 3, 2
	come := func(from ...string) (in []net.Conn) {
		t.Helper()
		visits.from, refused = from, nil
		for {
			c, err := b.Accept()
			if errors.Is(err, net.ErrClosed) {
				return in
			}
			if err != nil {
				t.Fatal(err)
			}
			in = append(in, c)
		}
	}
	check := func(what string, in []net.Conn, want, out int) {
		t.Helper()
		if len(in) != want || len(refused) != out {
			t.Errorf("%s: %d are in, %d were refused; want %d, %d", what, len(in), len(refused), want, out)
		}
	}
	one := come("10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3", "[::ffff:10.0.0.1]:4")
	check("one address", one, 4, 2)
	if refused[0] != "10.0.0.1:1" || refused[1] != "10.0.0.1:2" {
		t.Errorf("%v were refused", refused)
	}
	_, _ = one[0].Close(), one[1].Close() // as the server does then
	check("two more", come("[2001:db8::1]:1", "[2001:db8::2]:1"), 1, 1)
	check("this machine", come("127.0.0.1:1", "[::1]:1", "127.0.0.2:1"), 3, 1)
	_, _ = one[2].Close(), one[2].Close()
	check("after one has left", come("10.0.0.3:1", "10.0.0.4:1"), 1, 1)
	if c := one[2].(*guest).Conn.(*visit); c.closed != 2 {
		t.Errorf("closed %d times", c.closed)
	}
}

// room is a bounded listener to which connections come one by one; out are those that had to go for
// the last one.
func room(t *testing.T, now func() time.Time) (b *bounded, come func(from string) *guest, out *[]string) {
	visits, out := &visits{}, new([]string)
	b = newBounded(visits, func(from string) { *out = append(*out, from) }, now)
	b.most, b.ofAddress = 16, 4
	return b, func(from string) *guest {
		t.Helper()
		*out, visits.from = nil, []string{from}
		c, err := b.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		return c.(*guest)
	}, out
}

// TestBoundedFair: who makes room for whom.
func TestBoundedFair(t *testing.T) {
	now := time.Unix(1e9, 0)
	b, come, out := room(t, func() time.Time { return now })
	check := func(what string, in *guest, went ...string) {
		t.Helper()
		if in == nil || !slices.Equal(*out, went) {
			t.Errorf("%s: in %v; %v went, want %v", what, in != nil, *out, went)
		}
	}
	var all []*guest
	for i := range 4 { // four addresses take all there is
		for j := range 4 {
			all = append(all, come(fmt.Sprintf("10.0.0.%d:%d", i+1, j+1)))
		}
	}
	all[0].authorized()
	operator := come("10.0.1.1:1") // the first address has 3 that may go
	check("the operator", operator, "10.0.0.2:1")
	if c := all[4].Conn.(*visit); c.closed != 1 {
		t.Error("who made room is still connected")
	}
	_ = all[4].Close() // as the server does then; it counts no more
	for i := range 100 {
		if g := come(fmt.Sprintf("10.0.0.%d:%d", i%4+1, i+10)); g != nil && slices.Contains(*out, "10.0.1.1:1") {
			t.Fatal("those that hold more put the operator out")
		}
		now = now.Add(time.Second)
	}
	operator.authorized()
	now = now.Add(time.Hour)
	for i := range 100 { // each from elsewhere
		if come(fmt.Sprintf("10.1.0.%d:1", i+1)); slices.Contains(*out, "10.1.0.1:1") != (i == 14) {
			t.Fatalf("%d: %v went", i, *out)
		}
		if now = now.Add(guestGrace); slices.Contains(*out, "10.1.0.1:1") {
			break
		}
	}
	if operator.Conn.(*visit).closed+all[0].Conn.(*visit).closed > 0 || b.all != 16 {
		t.Errorf("who was authorized is put out; %d are in", b.all)
	}
	// Where all places of an address are taken, its own make room at once: also while others of it
	// come as fast as they can.
	var local []*guest
	for i := range 4 {
		local = append(local, come(fmt.Sprintf("127.0.0.1:%d", i+1)))
		check("this machine", local[i])
	}
	local[1].authorized()
	for i, oldest := range []int{1, 3, 4, 5, 6} {
		check("its next", come(fmt.Sprintf("127.0.0.1:%d", i+5)), fmt.Sprintf("127.0.0.1:%d", oldest))
	}
}

// TestBoundedGuess: who has shown a wrong token keeps its place until it may hear so, and one that was
// put out before does not wait.
func TestBoundedGuess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, sample(), exporter{})
		_, come, out := room(t, time.Now)
		var all []*guest
		for i := range 4 {
			all = append(all, come(fmt.Sprintf("10.0.0.1:%d", i+1)))
		}
		guess := func(g *guest) (took time.Duration) {
			r := httptest.NewRequest("GET", "/healthz", nil)
			r = r.WithContext(context.WithValue(t.Context(), guestKey{}, g))
			Authorize(r, "wrong")
			began := time.Now()
			s.Handler().ServeHTTP(httptest.NewRecorder(), r)
			return time.Since(began) // of the bubble
		}
		var took time.Duration
		var wg sync.WaitGroup
		wg.Go(func() { took = guess(all[0]) })
		synctest.Wait()
		if come("10.0.0.1:5"); !slices.Equal(*out, []string{"10.0.0.1:2"}) {
			t.Errorf("while the first waits, %v went", *out)
		}
		wg.Wait()
		if took != guessDelay {
			t.Errorf("it waited %s", took)
		}
		if come("10.0.0.1:6"); !slices.Equal(*out, []string{"10.0.0.1:1"}) {
			t.Errorf("when it had waited, %v went", *out)
		}
		if took := guess(all[1]); took != 0 {
			t.Errorf("who was put out waits %s", took)
		}
	})
}

// TestBoundedServer: a request with the token, over TLS or not, keeps its connection its place, and
// is answered also when its address has as many that show nothing as it may.
func TestBoundedServer(t *testing.T) {
	files, m := issue(t, t.TempDir())
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(m.CAPEM)
	for _, s := range []*Server{newServer(t, sample(), exporter{}), newTLSServer(t, files)} {
		address := serve(t, s)
		host := address[len("http://"):]
		if s.cfg.TLS != nil {
			address = "https://" + host
		}
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
		defer transport.CloseIdleConnections()
		ask := func(transport *http.Transport) (reused bool) {
			t.Helper()
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
			r, err := http.NewRequestWithContext(ctx, "GET", address+"/api/v1/status", nil)
			if err != nil {
				t.Fatal(err)
			}
			Authorize(r, testToken)
			answer, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, answer.Body)
			_ = answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				t.Errorf("%s", answer.Status)
			}
			return reused
		}
		ask(transport)
		connect := func() net.Conn {
			t.Helper()
			c, err := net.Dial("tcp", host)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			return c
		}
		gone := func(what string, c net.Conn) {
			t.Helper()
			_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s is not closed: %v", what, err)
			}
		}
		var silent []net.Conn
		for range maxOfAddress {
			silent = append(silent, connect())
		}
		gone("the oldest that has shown nothing", silent[0])
		connect()
		gone("the next", silent[1])
		if !ask(transport) {
			t.Error("who has the token was put out")
		}
		other := transport.Clone() // to which none of that crowd has left room
		defer other.CloseIdleConnections()
		ask(other)
	}
}
