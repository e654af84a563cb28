package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// simNet is a network in memory, for a bubble of testing/synctest. It does what TCP
// allows: the bytes of one connection arrive in order or not at all, but late, in
// bursts, and in no order with those of another connection, also of an older one
// that its writer has closed. Between any two nodes it can be cut in either
// direction; what is in it then comes when it is mended, or the connection ends.
type simNet struct {
	mu        sync.Mutex // guards all connections, too
	rng       *rand.Rand
	listeners map[string]*simListener  // by address, which is the node's name
	cut       map[[2]string]time.Time  // since when
	slow      map[string]time.Duration // by node: what comes from it takes up to that long
	jitter    time.Duration            // what anything takes up to
	hiccup    int                      // one in so many writes takes up to maxHiccup; 0 = none
	flaky     int                      // one in so many writes ends its connection; 0 = none
	votes     map[simVote]uint64       // to whom they went
	broken    error                    // what a node has said and must not
	conns     []*simConn               // those that their node has not closed, oldest first
}

const (
	simBuffer = 256 << 10 // bytes that a connection takes in before its writer waits
	maxHiccup = 1500 * time.Millisecond
	// maxSnapshot is the same for a snapshot, which is large in reality: much happens meanwhile.
	maxSnapshot = 5 * time.Second
	// simPatience is after how long a cut TCP gives a connection up, see peer's userTimeout.
	simPatience = 10 * time.Second
)

func newSimNet(rng *rand.Rand) *simNet {
	return &simNet{rng: rng, listeners: map[string]*simListener{}, cut: map[[2]string]time.Time{}, slow: map[string]time.Duration{}, votes: map[simVote]uint64{}}
}

// set cuts one direction, or mends it: then what waits in it arrives, or the
// connection has ended meanwhile.
func (w *simNet) set(from, to string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	since, was := w.cut[[2]string{from, to}]
	if cut {
		if !was {
			w.cut[[2]string{from, to}] = time.Now()
		}
		return
	}
	delete(w.cut, [2]string{from, to})
	if !was {
		return
	}
	for _, c := range w.conns {
		if c.out.from == from && c.out.to == to || c.out.from == to && c.out.to == from {
			if time.Since(since) > simPatience || w.rng.IntN(2) == 0 {
				c.in.end(true)
				c.out.end(true)
			}
			c.in.wake()
			c.out.wake()
		}
	}
}

// breakSome ends some of a node's connections, without anything else being wrong.
func (w *simNet) breakSome(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		if c.out.from == name && w.rng.IntN(2) == 0 {
			c.in.end(true)
			c.out.end(true)
		}
	}
}

// weather sets what all links have in common.
func (w *simNet) weather(jitter time.Duration, hiccup, flaky int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.jitter, w.hiccup, w.flaky = jitter, hiccup, flaky
}

// setSlow makes a node's link slow, up to so much for each write.
func (w *simNet) setSlow(name string, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slow[name] = d
}

// kill is what the network makes of power loss: of what the node has sent some
// still arrives, and its peers hear of its end then, or nothing until it is back.
func (w *simNet) kill(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.listeners, name) // nobody is let in any more; the node closes it
	w.conns = slices.DeleteFunc(w.conns, func(c *simConn) bool {
		if c.out.from != name {
			return false
		}
		out := c.out
		out.chunks = out.chunks[:w.rng.IntN(len(out.chunks)+1)]
		silent := w.rng.IntN(3) == 0
		c.in.lost, out.lost = silent, silent
		c.closeLocked()
		return true
	})
}

func (w *simNet) listen(name string) *simListener {
	l := &simListener{w: w, name: name, conns: make(chan net.Conn), closed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listeners[name] = l
	for _, c := range w.conns { // who still talks to its former life is told
		if c.out.to == name && c.in.lost {
			c.in.end(true)
			c.out.end(true)
		}
	}
	return l
}

func (w *simNet) dialer(from string, alive func() bool) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, to string) (net.Conn, error) {
		w.mu.Lock()
		l := w.listeners[to]
		_, there := w.cut[[2]string{from, to}]
		_, back := w.cut[[2]string{to, from}]
		var near, far *simConn
		if l != nil && !there && !back && alive() {
			a, b := w.pipe(from, to), w.pipe(to, from)
			near, far = &simConn{in: b, out: a}, &simConn{in: a, out: b}
			w.conns = append(w.conns, near, far)
		}
		w.mu.Unlock()
		if near == nil {
			return nil, fmt.Errorf("no route from %s to %s", from, to)
		}
		select {
		case l.conns <- far:
			return near, nil
		case <-l.closed:
		case <-ctx.Done():
		}
		_, _ = near.Close(), far.Close()
		return nil, errors.New("connection refused")
	}
}

func (w *simNet) pipe(from, to string) *simPipe {
	return &simPipe{w: w, from: from, to: to, rng: rand.New(rand.NewPCG(w.rng.Uint64(), 0)), changed: make(chan struct{})}
}

// simPipe is one direction of a connection. The network's lock guards it.
type simPipe struct {
	w        *simNet
	from, to string
	rng      *rand.Rand
	chunks   []simChunk
	bytes    int
	due      time.Time     // of the last chunk: nothing overtakes it
	ended    bool          // its writer has closed it, the end comes behind what is in it
	broken   bool          // what is in it is lost, and both ends are told
	deaf     bool          // its reader has closed it
	lost     bool          // one end has lost power, and the other one does not hear of it
	changed  chan struct{} // closed at each change
}

type simChunk struct {
	data []byte
	due  time.Time
}

func (p *simPipe) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// end closes the pipe behind what is in it, or breaks it.
func (p *simPipe) end(broken bool) {
	p.ended = true
	if broken {
		p.broken, p.chunks, p.bytes = true, nil, 0
	}
	p.wake()
}

// put takes some of b in, or nothing while it is full.
func (p *simPipe) put(b []byte) int {
	b = b[:min(len(b), simBuffer-p.bytes)]
	if len(b) == 0 {
		return 0
	}
	d := p.w.jitter + p.w.slow[p.from]
	if d > 0 {
		d = time.Duration(p.rng.Int64N(int64(d)))
	}
	odds, most := p.w.hiccup, maxHiccup
	if odds > 0 && isMessage(b, raftpb.MsgSnap) {
		odds, most = 2, maxSnapshot
	}
	if odds > 0 && p.rng.IntN(odds) == 0 {
		d += time.Duration(p.rng.Int64N(int64(most)))
	}
	if due := time.Now().Add(d); due.After(p.due) {
		p.due = due
	}
	p.chunks = append(p.chunks, simChunk{slices.Clone(b), p.due})
	p.bytes += len(b)
	p.wake()
	return len(b)
}

// isMessage tells whether a write is the body of a frame with a message of a kind.
func isMessage(b []byte, kind raftpb.MessageType) bool {
	const frameRaft, fieldType = 1, 1 << 3 // docs/format/peer.md; the first field of raftpb.Message
	return len(b) > 3 && b[0] == frameRaft && b[1] == fieldType && b[2] == byte(kind)
}

// simVote is one that a node has to give: of its Raft id, in a term.
type simVote struct{ from, term uint64 }

// overhear looks for a node that votes for two in one term, which does harm only now and then.
func (w *simNet) overhear(b []byte) {
	var m raftpb.Message
	if !isMessage(b, raftpb.MsgVoteResp) || proto.Unmarshal(b[1:], &m) != nil || m.GetReject() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	v := simVote{m.GetFrom(), m.GetTerm()}
	if to, voted := w.votes[v]; voted && to != m.GetTo() {
		w.broken = fmt.Errorf("node %x has voted for %x and %x in term %d", v.from, to, m.GetTo(), v.term)
	}
	w.votes[v] = m.GetTo()
}

func (w *simNet) violation() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

// take gives out what has arrived. Otherwise next is when something arrives, zero:
// nobody knows.
func (p *simPipe) take(b []byte) (n int, next time.Time, err error) {
	_, cut := p.w.cut[[2]string{p.from, p.to}]
	switch {
	case p.broken:
		return 0, next, syscall.ECONNRESET
	case cut || p.lost && len(p.chunks) == 0:
		return 0, next, nil
	case len(p.chunks) == 0 && p.ended:
		return 0, next, io.EOF
	case len(p.chunks) == 0:
		return 0, next, nil
	case time.Now().Before(p.chunks[0].due):
		return 0, p.chunks[0].due, nil
	}
	n = copy(b, p.chunks[0].data)
	if p.chunks[0].data = p.chunks[0].data[n:]; len(p.chunks[0].data) == 0 {
		p.chunks = p.chunks[1:]
	}
	p.bytes -= n
	p.wake()
	return n, next, nil
}

// simConn is one end of a connection.
type simConn struct {
	in, out         *simPipe
	closed          bool
	readBy, writeBy time.Time
}

func (c *simConn) Read(b []byte) (int, error) {
	w := c.in.w
	for {
		w.mu.Lock()
		n, next, err := c.in.take(b)
		if gone := c.gone(c.readBy); gone != nil {
			n, err = 0, gone
		}
		changed, by := c.in.changed, c.readBy
		w.mu.Unlock()
		if n > 0 || err != nil {
			return n, err
		}
		if next.IsZero() || !by.IsZero() && by.Before(next) {
			next = by
		}
		waitFor(changed, next)
	}
}

func (c *simConn) Write(b []byte) (total int, err error) {
	w := c.out.w
	w.overhear(b)
	for {
		w.mu.Lock()
		switch err = c.gone(c.writeBy); {
		case err != nil:
		case c.out.broken || c.out.deaf && !c.out.lost:
			err = syscall.EPIPE
		case c.out.lost:
			total = len(b)
		case w.flaky > 0 && c.out.rng.IntN(w.flaky) == 0:
			c.in.end(true)
			c.out.end(true)
			err = syscall.EPIPE
		default:
			total += c.out.put(b[total:])
		}
		changed, by := c.out.changed, c.writeBy
		w.mu.Unlock()
		if total == len(b) || err != nil {
			return total, err
		}
		waitFor(changed, by)
	}
}

// waitFor waits for a change, or until by unless that is zero.
func waitFor(changed <-chan struct{}, by time.Time) {
	if by.IsZero() {
		<-changed
		return
	}
	timer := time.NewTimer(time.Until(by))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	}
}

// gone tells why this end cannot be used any more, or not now.
func (c *simConn) gone(by time.Time) error {
	switch {
	case c.closed:
		return net.ErrClosed
	case !by.IsZero() && !time.Now().Before(by):
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (c *simConn) Close() error {
	w := c.in.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = slices.DeleteFunc(w.conns, func(other *simConn) bool { return other == c })
	c.closeLocked()
	return nil
}

func (c *simConn) closeLocked() {
	c.closed = true
	c.out.end(false)
	c.in.deaf = true
	c.in.wake()
}

func (c *simConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *simConn) SetReadDeadline(t time.Time) error {
	c.in.w.mu.Lock()
	defer c.in.w.mu.Unlock()
	c.readBy = t
	c.in.wake()
	return nil
}

func (c *simConn) SetWriteDeadline(t time.Time) error {
	c.in.w.mu.Lock()
	defer c.in.w.mu.Unlock()
	c.writeBy = t
	c.out.wake()
	return nil
}

func (c *simConn) LocalAddr() net.Addr  { return simAddr(c.out.from) }
func (c *simConn) RemoteAddr() net.Addr { return simAddr(c.out.to) }

type simListener struct {
	w      *simNet
	name   string
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *simListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *simListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *simListener) Addr() net.Addr { return simAddr(l.name) }

type simAddr string

func (a simAddr) Network() string { return "sim" }
func (a simAddr) String() string  { return string(a) }
