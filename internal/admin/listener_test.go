package admin

import (
	"errors"
	"net"
	"testing"
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
	b := newBounded(visits, func(from string) { refused = append(refused, from) })
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
	check("one address", one, 2, 2)
	if refused[0] != "10.0.0.1:3" {
		t.Errorf("%v were refused", refused)
	}
	check("two more", come("[2001:db8::1]:1", "[2001:db8::2]:1"), 1, 1)
	check("this machine", come("127.0.0.1:1", "[::1]:1", "127.0.0.2:1"), 2, 1)
	_, _ = one[0].Close(), one[0].Close()
	check("after one has left", come("[2001:db8:0:0:f::1]:1", "10.0.0.3:1"), 1, 1)
	if c := one[0].(*leaving).Conn.(*visit); c.closed != 2 {
		t.Errorf("closed %d times", c.closed)
	}
}
