package e2e

import (
	"encoding/json"
	"io"
	"net"
	"sync"
	"testing"
)

// links are the wires between the nodes: each node is reached through a front of
// the test's own, which knows from the first frame who calls, so that every pair
// can be cut in either direction. What is written into a cut is gone, and nobody is
// told; mending closes the connection, which has lost bytes.
type links struct {
	mu    sync.Mutex
	cut   map[[2]string]bool // from, to
	conns map[*wire]struct{}
	wg    sync.WaitGroup
	open  []net.Listener
}

// wire is one connection between two nodes.
type wire struct {
	a, b     net.Conn // of who has called, and of the one behind the front
	from, to string
}

func newLinks(t *testing.T) *links {
	l := &links{cut: map[[2]string]bool{}, conns: map[*wire]struct{}{}}
	t.Cleanup(l.close)
	return l
}

// front listens for a node, and passes on to where it really listens.
func (l *links) front(t *testing.T, name, behind string) (address string) {
	t.Helper()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.open = append(l.open, front)
	l.wg.Go(func() {
		for {
			c, err := front.Accept()
			if err != nil {
				return
			}
			l.wg.Go(func() { l.serve(c, name, behind) })
		}
	})
	return front.Addr().String()
}

// serve passes one connection on. Its beginning is 6 bytes of magic and 2 of the
// version, then a frame (length, checksum) with the hello as JSON: see package peer.
func (l *links) serve(c net.Conn, to, behind string) {
	defer c.Close()
	const fixed = 6 + 2 + 8
	head := make([]byte, fixed, 64<<10)
	if _, err := io.ReadFull(c, head); err != nil {
		return
	}
	n := int(uint32(head[8]) | uint32(head[9])<<8 | uint32(head[10])<<16)
	if n > cap(head)-fixed {
		return
	}
	head = head[:fixed+n]
	if _, err := io.ReadFull(c, head[fixed:]); err != nil {
		return
	}
	var hello struct{ Name string }
	if err := json.Unmarshal(head[fixed:], &hello); err != nil || l.isCut(hello.Name, to) || l.isCut(to, hello.Name) {
		return
	}
	back, err := net.Dial("tcp", behind)
	if err != nil {
		return
	}
	defer back.Close()
	w := &wire{c, back, hello.Name, to}
	l.mu.Lock()
	l.conns[w] = struct{}{}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.conns, w)
		l.mu.Unlock()
	}()
	if _, err := back.Write(head); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.pump(back, c, w.from, w.to)
	}()
	l.pump(c, back, w.to, w.from)
	<-done
}

// pump copies, or swallows what comes while that direction is cut.
func (l *links) pump(dst, src net.Conn, from, to string) {
	defer func() { _, _ = dst.Close(), src.Close() }()
	b := make([]byte, 64<<10)
	for {
		n, err := src.Read(b)
		if n > 0 && !l.isCut(from, to) {
			if _, err := dst.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (l *links) isCut(from, to string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut[[2]string{from, to}]
}

func (l *links) set(from, to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut[[2]string{from, to}] = true
}

// mend makes everything whole.
func (l *links) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.conns {
		if l.cut[[2]string{w.from, w.to}] || l.cut[[2]string{w.to, w.from}] {
			_, _ = w.a.Close(), w.b.Close()
		}
	}
	clear(l.cut)
}

func (l *links) close() {
	for _, front := range l.open {
		_ = front.Close()
	}
	l.mu.Lock()
	for w := range l.conns {
		_, _ = w.a.Close(), w.b.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
}
