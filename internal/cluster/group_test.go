package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"kingbus/internal/vfs"
)

// patience is how long a test waits for something that has to happen.
const patience = 30 * time.Second

// group is a cluster in this process, over real sockets.
type group struct {
	t     testing.TB
	net   *network
	nodes map[string]*member
	log   *slog.Logger
}

// member is one node of a group, through all its lives.
type member struct {
	g       *group
	name    string
	address string
	fs      *vfs.Mem
	machine *counter
	node    *Node
	initial []Member
	change  func(*Config)
}

func newGroup(t testing.TB, names ...string) *group {
	t.Helper()
	g := &group{t: t, net: newNetwork(), nodes: map[string]*member{}, log: slog.New(slog.DiscardHandler)}
	if testing.Verbose() {
		g.log = slog.New(slog.NewTextHandler(testOutput{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	var initial []Member
	for _, name := range names {
		m := g.member(name)
		initial = append(initial, Member{Name: name, Address: m.address})
	}
	for _, name := range names {
		g.nodes[name].initial = initial
	}
	t.Cleanup(func() {
		for _, m := range g.nodes {
			m.close()
		}
		g.net.close()
	})
	return g
}

type testOutput struct{ t testing.TB }

func (o testOutput) Write(b []byte) (int, error) {
	fmt.Printf("%s", b)
	return len(b), nil
}

func (g *group) member(name string) *member {
	// On an address of its own, where nobody else takes the port while the node is down.
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), 1+rand.IntN(254), 1+rand.IntN(254)))
	if err != nil {
		g.t.Fatal(err)
	}
	defer l.Close()
	m := &member{g: g, name: name, address: l.Addr().String(), fs: vfs.NewMem(1)}
	g.nodes[name] = m
	g.net.name(m.address, name)
	return m
}

func (m *member) config() Config {
	l, err := net.Listen("tcp", m.address)
	if err != nil {
		m.g.t.Fatal(err)
	}
	m.machine = &counter{}
	c := Config{
		FS: m.fs, Dir: "d", Machine: m.machine, Log: m.g.log.With("node", m.name), SegmentBytes: 64 << 10, InFlight: 1 << 20,
		Peering: Peering{
			Name: m.name, Address: m.address, Listener: l, Dial: m.g.net.dialer(m.name),
			Initial: m.initial, Join: m.initial == nil, Heartbeat: 10 * time.Millisecond, Election: 100 * time.Millisecond,
		},
	}
	if m.change != nil {
		m.change(&c)
	}
	return c
}

func (m *member) start() *member {
	m.g.t.Helper()
	n, err := Open(m.config())
	if err != nil {
		m.g.t.Fatalf("start %s: %v", m.name, err)
	}
	m.node = n
	return m
}

func (m *member) close() {
	if m.node == nil {
		return
	}
	if err := m.node.Close(); err != nil && m.node.Err() == nil {
		m.g.t.Errorf("close %s: %v", m.name, err)
	}
	m.node = nil
}

// crash takes the power away: what was not synced may be lost.
func (m *member) crash(seed uint64) {
	fs := m.fs.Crash(seed)
	m.node.stop() // no graceful hand over
	m.close()
	m.fs = fs
}

func (g *group) start() *group {
	for _, m := range g.nodes {
		m.start()
	}
	return g
}

// leader waits for a node that leads.
func (g *group) leader() *member {
	g.t.Helper()
	for late := time.Now().Add(patience); time.Now().Before(late); time.Sleep(time.Millisecond) {
		for _, m := range g.nodes {
			if m.node != nil && m.node.Leading() != nil {
				return m
			}
		}
	}
	g.t.Fatal("nobody leads")
	return nil
}

// await waits for a condition.
func (g *group) await(what string, ok func() bool) {
	g.t.Helper()
	for late := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			for _, m := range g.nodes {
				if m.node != nil {
					g.t.Logf("%s: %+v err %v", m.name, m.node.Status(), m.node.Err())
				}
			}
			g.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// propose gets a payload committed, whoever leads.
func (g *group) propose(payload []byte) {
	g.t.Helper()
	for late := time.Now().Add(patience); time.Now().Before(late); {
		m := g.leader()
		err := m.node.Propose(context.Background(), payload)
		if err == nil {
			return
		}
		if !errors.Is(err, ErrDropped) && !errors.Is(err, ErrClosed) {
			g.t.Fatal(err)
		}
	}
	g.t.Fatal("no proposal was taken")
}

// converge waits until all running nodes have applied the same.
func (g *group) converge(n int) {
	g.t.Helper()
	for _, m := range g.nodes {
		if m.node == nil {
			continue
		}
		g.await(fmt.Sprintf("%s has applied %d payloads", m.name, n), func() bool { got, _ := m.machine.count(); return got >= n })
	}
	var first *member
	for _, m := range g.nodes {
		if m.node == nil {
			continue
		}
		if first == nil {
			first = m
			continue
		}
		a, b := first.machine.all(), m.machine.all()
		if len(a) != len(b) {
			g.t.Errorf("%s has %d payloads, %s %d", first.name, len(a), m.name, len(b))
		}
		for i := range min(len(a), len(b)) {
			if !bytes.Equal(a[i], b[i]) {
				g.t.Fatalf("payload %d differs between %s and %s", i, first.name, m.name)
			}
		}
	}
}

func (c *counter) all() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.payloads
}

func numbered(i, size int) []byte {
	b := bytes.Repeat([]byte{byte(i)}, size)
	return append(binary.LittleEndian.AppendUint64(nil, uint64(i)), b...)
}

// network is the wire between nodes: links can be cut in one direction.
type network struct {
	mu    sync.Mutex
	names map[string]string // by address
	cut   map[[2]string]bool
	conns map[*tapped]struct{}
}

func newNetwork() *network {
	return &network{names: map[string]string{}, cut: map[[2]string]bool{}, conns: map[*tapped]struct{}{}}
}

func (w *network) name(address, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names[address] = name
}

// tapped is a connection from one node to another. Cut, its bytes go nowhere, and
// nobody is told.
type tapped struct {
	net.Conn
	w        *network
	from, to string
	once     sync.Once
}

func (w *network) isCut(from, to string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[[2]string{from, to}]
}

func (c *tapped) Write(b []byte) (int, error) {
	if c.w.isCut(c.from, c.to) {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *tapped) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.w.isCut(c.to, c.from) {
			return n, err
		}
	}
}

func (c *tapped) Close() error {
	c.once.Do(func() {
		c.w.mu.Lock()
		delete(c.w.conns, c)
		c.w.mu.Unlock()
	})
	return c.Conn.Close()
}

func (w *network) dialer(from string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		w.mu.Lock()
		to := w.names[address]
		blocked := w.cut[[2]string{from, to}] || w.cut[[2]string{to, from}]
		w.mu.Unlock()
		if blocked {
			return nil, fmt.Errorf("no route from %s to %s", from, to)
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		t := &tapped{Conn: c, w: w, from: from, to: to}
		w.mu.Lock()
		w.conns[t] = struct{}{}
		w.mu.Unlock()
		return t, nil
	}
}

// set cuts or mends one direction. A connection over which bytes were lost is of
// no use any more, as TCP's would be whole again: mending closes it.
func (w *network) set(from, to string, cut bool) {
	w.mu.Lock()
	w.cut[[2]string{from, to}] = cut
	var broken []*tapped
	for c := range w.conns {
		if !cut && (c.from == from && c.to == to || c.from == to && c.to == from) {
			broken = append(broken, c)
		}
	}
	w.mu.Unlock()
	for _, c := range broken {
		_ = c.Conn.Close()
	}
}

func (w *network) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		_ = c.Conn.Close()
	}
}

func TestGroupBegins(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3").start()
	for i := range 200 {
		g.propose(numbered(i, 100+i*10))
	}
	g.converge(200)
}

// TestAskWhileGroupBegins: the founder takes another node for the leader until there is one; who
// asks then waits for the election.
func TestAskWhileGroupBegins(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3")
	for _, m := range g.nodes {
		m.change = func(c *Config) {
			c.Election = time.Second // so long that it is asked before it is over
			c.Answer = func(_ context.Context, body json.RawMessage) (json.RawMessage, error) { return body, nil }
		}
	}
	g.start()
	founder := g.nodes["n1"].node
	g.await("the founder takes somebody for the leader", func() bool { return founder.Leader() != 0 })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if answer, err := founder.AskLeader(ctx, json.RawMessage(`"x"`)); err != nil || string(answer) != `"x"` {
		t.Errorf("%s, %v", answer, err)
	}
}
