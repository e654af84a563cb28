package peer

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTune(t *testing.T) {
	a, b := tcpPair(t)
	c := newConn(Config{}.withDefaults(), a)
	newConn(Config{}.withDefaults(), noWrite{b}).SetWriteTimeout(time.Second) // some other net.Conn
	raw, err := a.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, level, opt, want int) {
		t.Helper()
		var got int
		var getErr error
		if err := raw.Control(func(fd uintptr) { got, getErr = unix.GetsockoptInt(int(fd), level, opt) }); err != nil {
			t.Fatal(err)
		}
		if getErr != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", name, got, getErr, want)
		}
	}
	check("TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 10_000)
	check("TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	check("SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	check("TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 5)
	c.SetWriteTimeout(30 * time.Second)
	check("TCP_USER_TIMEOUT of patient writers", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 30_000)
	c.SetWriteTimeout(time.Second)
	check("TCP_USER_TIMEOUT of hasty writers", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 10_000)
}
