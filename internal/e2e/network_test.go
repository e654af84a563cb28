package e2e

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// network is the wires between the nodes of a cluster. Each node is reached through
// a front of the test's own, which is the one address that it advertises; the front
// knows from the first frame who calls, so every pair of nodes can be cut, in either
// direction.
type network struct {
	fronts  []net.Listener
	running sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	cuts    map[*cut]struct{}
	changed chan struct{} // closed, and replaced, when a cut is healed or made
	wires   map[*wire]struct{}
}

// how a direction is cut.
type how int

const (
	whole  how = iota
	stall      // bytes wait, and arrive when the cut is healed: packets are lost, TCP goes on
	lose       // bytes are gone; when the cut is healed the connection is closed
	refuse     // connections are closed, and new ones as well
)

func (h how) String() string { return [...]string{"whole", "stalled", "lossy", "refused"}[h] }

// cut is what is cut together and healed together. Cuts may overlap: a direction
// is whole when none of them has it.
type cut struct {
	how  how
	ways map[way]bool
}

// way is one direction between two nodes.
type way struct{ from, to string }

// wire is one connection between two nodes.
type wire struct {
	from, to string   // who has called whom
	a        net.Conn // of who has called
	done     chan struct{}
	once     sync.Once
	b        net.Conn     // to the node that was called; guarded by network.mu
	lost     map[way]bool // directions that have lost bytes; guarded by network.mu
}

func newNetwork(t *testing.T) *network {
	n := &network{cuts: map[*cut]struct{}{}, changed: make(chan struct{}), wires: map[*wire]struct{}{}}
	t.Cleanup(n.close)
	return n
}

// front listens for a node, and passes on to where it really listens.
func (n *network) front(t *testing.T, name, behind string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.fronts = append(n.fronts, l)
	n.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.running.Go(func() { n.serve(c, name, behind) })
		}
	})
	return l.Addr().String()
}

// serve passes one connection on, as long as both ends want it.
func (n *network) serve(c net.Conn, to, behind string) {
	w := &wire{to: to, a: c, done: make(chan struct{}), lost: map[way]bool{}}
	defer n.drop(w)
	if !n.add(w) {
		return
	}
	hello, from, err := readHello(c)
	if err != nil || !n.name(w, from) {
		return
	}
	// While it is cut nobody is reached; what comes of the connection afterwards is
	// for the ends to say.
	if n.await(w, way{from, to}) != whole {
		return
	}
	b, err := net.Dial("tcp", behind)
	if err != nil || !n.connect(w, b) {
		return
	}
	if _, err := b.Write(hello); err != nil {
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		n.pump(w, c, b, way{to, from})
	}()
	n.pump(w, b, c, way{from, to})
	<-back
}

// readHello reads what a node says first, and its name in there: 6 bytes of magic
// and 2 of the version, then a frame (length, checksum) with the hello as JSON. See
// package peer.
func readHello(c net.Conn) (hello []byte, from string, err error) {
	const preamble, header, most = 6 + 2, 4 + 4, 64 << 10
	hello = make([]byte, preamble+header)
	if _, err := io.ReadFull(c, hello); err != nil {
		return nil, "", err
	}
	size := binary.LittleEndian.Uint32(hello[preamble:])
	if size > most {
		return nil, "", fmt.Errorf("a hello of %d bytes", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c, body); err != nil {
		return nil, "", err
	}
	var said struct{ Name string }
	err = json.Unmarshal(body, &said)
	return append(hello, body...), said.Name, err
}

// pump copies one direction of a wire, as far as it is not cut. The end of the
// stream, too, is not seen through a cut.
func (n *network) pump(w *wire, dst, src net.Conn, d way) {
	defer n.end(w)
	b := make([]byte, 64<<10)
	for {
		k, err := src.Read(b)
		if err == nil && n.loses(w, d) {
			continue // and takes more, as a network would
		}
		if n.await(w, d) != whole {
			return
		}
		if _, werr := dst.Write(b[:k]); err != nil || werr != nil {
			return
		}
	}
}

// loses tells whether what comes now is lost, and remembers it.
func (n *network) loses(w *wire, d way) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state(d) == lose {
		w.lost[d] = true
	}
	return w.lost[d]
}

// await waits until a direction is whole; another answer means that the wire is of
// no use any more.
func (n *network) await(w *wire, d way) how {
	for {
		n.mu.Lock()
		now, changed, lost := n.state(d), n.changed, w.lost[d]
		if now == lose {
			w.lost[d] = true // it was on its way
		}
		n.mu.Unlock()
		if now == whole && !lost {
			return whole
		}
		if now == whole || now == refuse {
			return lose
		}
		select {
		case <-changed:
		case <-w.done:
			return lose
		}
	}
}

// state is the worst of all cuts. The caller holds mu.
func (n *network) state(d way) how {
	worst := whole
	for c := range n.cuts {
		if c.ways[d] {
			worst = max(worst, c.how)
		}
	}
	return worst
}

// cut cuts some directions, until heal is called.
func (n *network) cut(h how, ways ...way) (heal func()) {
	c := &cut{h, map[way]bool{}}
	for _, d := range ways {
		c.ways[d] = true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[c] = struct{}{}
	n.change()
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.cuts, c)
		n.change()
	}
}

// change tells the pumps, and closes what cannot go on. The caller holds mu.
func (n *network) change() {
	close(n.changed)
	n.changed = make(chan struct{})
	for w := range n.wires {
		for _, d := range []way{{w.from, w.to}, {w.to, w.from}} {
			if s := n.state(d); s == refuse || s == whole && w.lost[d] {
				w.shut()
			}
		}
	}
}

// reset closes all connections, once.
func (n *network) reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for w := range n.wires {
		w.shut()
	}
}

func (n *network) add(w *wire) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wires[w] = struct{}{}
	return !n.closed
}

// name notes who calls; false: it is refused.
func (n *network) name(w *wire, from string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	w.from = from
	return n.state(way{from, w.to}) != refuse && n.state(way{w.to, from}) != refuse
}

func (n *network) connect(w *wire, b net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	w.b = b
	select {
	case <-w.done: // it was closed meanwhile
		return false
	default:
		return !n.closed
	}
}

// end closes a wire.
func (n *network) end(w *wire) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w.shut()
}

// drop closes a wire and forgets it.
func (n *network) drop(w *wire) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.wires, w)
	w.shut()
}

// shut closes both ends. The caller holds network.mu.
func (w *wire) shut() {
	w.once.Do(func() { close(w.done) })
	_ = w.a.Close()
	if w.b != nil {
		_ = w.b.Close()
	}
}

func (n *network) close() {
	for _, l := range n.fronts {
		_ = l.Close()
	}
	n.mu.Lock()
	n.closed = true
	for w := range n.wires {
		w.shut()
	}
	n.mu.Unlock()
	n.running.Wait()
}
