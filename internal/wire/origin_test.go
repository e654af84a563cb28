package wire

import (
	"net"
	"net/netip"
	"testing"
)

func TestOrigin(t *testing.T) {
	for _, tt := range []struct {
		at, key string
		local   bool
	}{
		{"10.0.0.1:5", "10.0.0.1/32", false},
		{"[::ffff:10.0.0.1]:5", "10.0.0.1/32", false},
		{"127.0.0.1:5", "127.0.0.1/32", true},
		{"127.0.1.2:5", "127.0.1.2/32", true},
		{"[::ffff:127.0.0.1]:5", "127.0.0.1/32", true},
		{"[::1]:5", "::/64", true},
		{"[2001:db8::1:2:3:4]:5", "2001:db8::/64", false},
		{"[2001:db8:0:1::1]:5", "2001:db8:0:1::/64", false},
		{"[fe80::1%lo]:5", "fe80::/64", false},
	} {
		at, err := net.ResolveTCPAddr("tcp", tt.at)
		if err != nil {
			t.Fatal(err)
		}
		if key, local := Origin(at); key != netip.MustParsePrefix(tt.key) || local != tt.local {
			t.Errorf("%s: got %v, local %v; want %s, %v", tt.at, key, local, tt.key, tt.local)
		}
	}
	for _, none := range []net.Addr{nil, &net.UnixAddr{Name: "/tmp/s", Net: "unix"}} {
		if key, local := Origin(none); key != (netip.Prefix{}) || local {
			t.Errorf("%v: got %v, local %v", none, key, local)
		}
	}
}
