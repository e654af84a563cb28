package peer

import (
	"net"
	"time"
)

// userTimeout is how long TCP waits for the other end to acknowledge what was sent. Without it a host that is gone is noticed after a
// quarter of an hour while there is something to send; the keepalive is for when there is not. Linux counts the time in which a living
// host keeps its window closed too, so a write timeout that is longer has to raise it.
const userTimeout = 10 * time.Second

// tune sets what a link between nodes needs, if this is TCP. Without it the connection works too, so errors do not matter: a socket
// that is broken says so at its first use.
func tune(nc net.Conn) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetNoDelay(true)
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 2})
	_ = setUserTimeout(tcp, userTimeout)
}
