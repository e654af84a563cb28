package source

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller tells whether a socket has bytes to read, whatever lies in buffers
// above it. The zero value always says no.
type poller struct {
	raw  syscall.RawConn
	poll func(fd uintptr)
	yes  *bool
}

func newPoller(nc net.Conn) poller {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return poller{}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return poller{}
	}
	p := poller{raw: raw, yes: new(bool)}
	fds := []unix.PollFd{{Events: unix.POLLIN}}
	p.poll = func(fd uintptr) {
		fds[0].Fd = int32(fd)
		n, err := unix.Poll(fds, 0)
		*p.yes = err == nil && n > 0
	}
	return p
}

// ready does not block. No is always safe to say: it costs a smaller run.
func (p poller) ready() bool {
	return p.raw != nil && p.raw.Control(p.poll) == nil && *p.yes
}
