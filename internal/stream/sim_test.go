package stream

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/cluster"
	"kingbus/internal/vfs"
)

// The simulation runs whole clusters in memory, in the virtual time of
// testing/synctest, and does to them what happens to clusters: power loss,
// restarts, cut and slow links, slow disks, leadership that is handed over,
// members that come and go, purges; while a source's script is fed into whoever
// leads. In the end all is mended, and every node must have the script's very
// bytes, the same state, and a log that agrees entry by entry; nothing that was
// ever acknowledged may be missing.
//
//	go test ./internal/stream -run TestSimulation -histories 100000
//	go test ./internal/stream -run TestSimulation -seed 4711 -v
var (
	simHistories = flag.Int("histories", 50, "histories of TestSimulation")
	simSeed      = flag.Uint64("seed", 0, "run the history of this seed only, with the log of the nodes")
	simFirst     = flag.Uint64("first", 1, "seed of the first history")
)

func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		synctest.Test(t, func(t *testing.T) { newSim(t, *simSeed).run() })
		return
	}
	var next, done atomic.Uint64
	next.Store(*simFirst - 1)
	for range 2 {
		t.Run("histories", func(t *testing.T) {
			t.Parallel()
			for !t.Failed() {
				seed := next.Add(1)
				if seed >= *simFirst+uint64(*simHistories) {
					return
				}
				began := time.Now()
				synctest.Test(t, func(t *testing.T) { newSim(t, seed).run() })
				if took := time.Since(began); took > 5*time.Second {
					t.Logf("seed %d took %s", seed, took)
				}
				if done.Add(1)%1000 == 0 {
					t.Logf("%d histories", done.Load())
				}
			}
		})
	}
}

type sim struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	net   *simNet
	log   *slog.Logger
	nodes []*simNode // all that ever were, in the order of their names; grows under mu
	s     script

	stop chan struct{} // the source's end
	wg   sync.WaitGroup

	mu           sync.Mutex
	acknowledged Coordinates
	finished     bool // the whole script is acknowledged
	quick        bool // no more pauses of the source
}

// simNode is one node through all its lives; folder is which of its data folders
// it has.
type simNode struct {
	name    string
	fs      *vfs.Mem
	initial []cluster.Member
	mu      sync.Mutex
	s       *Stream // nil: it does not run
	alive   atomic.Bool
	member  bool // as the operator has asked for
	// removing: the operator has asked for its removal once.
	removing bool
	slow     atomic.Int64
}

func (n *simNode) stream() *Stream {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.s
}

func newSim(t *testing.T, seed uint64) *sim {
	rng := rand.New(rand.NewPCG(seed, 7))
	m := &sim{t: t, seed: seed, rng: rng, log: slog.New(slog.DiscardHandler), stop: make(chan struct{})}
	if *simSeed != 0 {
		began := time.Now()
		m.log = slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Duration("t", time.Since(began))
			}
			return a
		}}))
	}
	m.net = newSimNet(rand.New(rand.NewPCG(seed, 8)))
	m.s = makeScript(t, rng, 1+rng.IntN(4), 10+rng.IntN(100))
	var initial []cluster.Member
	for i := range []int{1, 3, 3, 3, 5}[rng.IntN(5)] {
		n := m.node(fmt.Sprintf("n%d", i+1))
		n.member = true
		initial = append(initial, cluster.Member{Name: n.name, Address: n.name})
	}
	for _, n := range m.nodes {
		n.initial = initial
	}
	return m
}

func (m *sim) node(name string) *simNode {
	n := &simNode{name: name, fs: vfs.NewMem(m.rng.Uint64())}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes = append(m.nodes, n)
	return n
}

func (m *sim) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("seed %d: %s", m.seed, fmt.Sprintf(format, args...))
}

func (m *sim) start(n *simNode) {
	seed := m.rng.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	n.alive.Store(true)
	s, err := Open(Config{
		FS: n.fs, Dir: "data",
		Pause: func() {
			if d := n.slow.Load(); d > 0 {
				time.Sleep(time.Duration(rng.Int64N(d)))
			}
		},
		SegmentBytes: 16 << 10, Window: 4, TailBytes: 64 << 10, Log: m.log.With("node", n.name),
		Peering: cluster.Peering{
			Name: n.name, Address: n.name, Listener: m.net.listen(n.name), Dial: m.net.dialer(n.name, n.alive.Load),
			Initial: n.initial, Join: n.initial == nil, Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond,
		},
	})
	if err != nil {
		m.fatalf("start %s: %v", n.name, err)
	}
	n.mu.Lock()
	n.s = s
	n.mu.Unlock()
}

// halt stops a node, cleanly or as power loss does.
func (m *sim) halt(n *simNode, clean bool) {
	s := n.stream()
	n.mu.Lock()
	n.s = nil
	n.mu.Unlock()
	fs := n.fs
	if !clean {
		n.alive.Store(false)
		m.net.kill(n.name)
		fs = fs.Crash(m.rng.Uint64())
	}
	// The source may be in the middle of looking at what it has to go on with.
	if err := s.Close(); err != nil && !expected(s.Err()) && !strings.Contains(err.Error(), "was closed under") {
		m.fatalf("close %s: %v", n.name, err)
	}
	m.net.kill(n.name)
	n.fs = fs
}

// expected are the failures that a simulation asks for.
func expected(err error) bool { return errors.Is(err, cluster.ErrRemoved) }

func (m *sim) running() []*simNode {
	m.mu.Lock()
	nodes := slices.Clone(m.nodes)
	m.mu.Unlock()
	var out []*simNode
	for _, n := range nodes {
		if n.stream() != nil {
			out = append(out, n)
		}
	}
	return out
}

func (m *sim) pick(nodes []*simNode) *simNode {
	if len(nodes) == 0 {
		return nil
	}
	return nodes[m.rng.IntN(len(nodes))]
}

func (m *sim) run() {
	for _, n := range m.nodes {
		m.start(n)
	}
	m.wg.Go(m.source)
	for steps := 5 + m.rng.IntN(40); steps > 0; steps-- {
		time.Sleep(time.Duration(m.rng.Int64N(int64(2 * time.Second))))
		m.act()
	}
	m.mend()
	close(m.stop)
	m.wg.Wait()
	for _, n := range m.running() {
		m.halt(n, true)
	}
}

// act does one thing to the cluster.
func (m *sim) act() {
	running := m.running()
	n := m.pick(running)
	what := m.rng.IntN(100)
	if *simSeed != 0 && n != nil {
		m.log.Info("SIM", "what", what, "node", n.name)
	}
	switch {
	case what < 25: // power loss; others may be down already
		if n != nil {
			m.halt(n, false)
		}
	case what < 35:
		if n != nil {
			m.halt(n, true)
		}
	case what < 60: // come back
		for _, n := range m.nodes {
			if n.stream() == nil && m.rng.IntN(2) == 0 {
				m.start(n)
			}
		}
	case what < 72: // cut something
		a, b := m.pick(m.nodes), m.pick(m.nodes)
		if a == b {
			for _, other := range m.nodes {
				if other != a {
					m.net.set(a.name, other.name, true)
					m.net.set(other.name, a.name, m.rng.IntN(3) > 0)
				}
			}
		} else {
			m.net.set(a.name, b.name, true)
			m.net.set(b.name, a.name, m.rng.IntN(2) == 0)
		}
	case what < 80:
		m.mendNet()
	case what < 84:
		m.net.mu.Lock()
		m.net.slow[m.pick(m.nodes).name] = time.Duration(m.rng.Int64N(int64(300 * time.Millisecond)))
		m.net.mu.Unlock()
	case what < 88:
		m.pick(m.nodes).slow.Store(m.rng.Int64N(int64(300 * time.Millisecond)))
	case what < 91: // hand over
		if n != nil {
			m.try(func(ctx context.Context) error { return n.stream().Cluster().Transfer(ctx, m.pick(m.nodes).name) })
		}
	case what < 94: // purge
		for _, n := range running {
			if s := n.stream(); s.node.Leading() != nil {
				if files := s.Status().Files; len(files) > 1 {
					m.try(func(ctx context.Context) error { return s.Purge(ctx, files[m.rng.IntN(len(files))].Name) })
				}
			}
		}
	default:
		m.changeMembers(n)
	}
}

func (m *sim) try(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	return f(ctx)
}

// changeMembers adds a node, or removes one and its folder.
func (m *sim) changeMembers(through *simNode) {
	if through == nil {
		return
	}
	c := through.stream().Cluster()
	members := 0
	for _, n := range m.nodes {
		if n.member {
			members++
		}
	}
	if members > 2 && m.rng.IntN(2) == 0 {
		n := m.pick(m.nodes)
		if !n.member || n == through {
			return
		}
		n.removing = true
		if err := m.try(func(ctx context.Context) error { return c.Remove(ctx, n.name) }); err != nil {
			return
		}
		n.member = false
		if n.stream() != nil {
			m.halt(n, m.rng.IntN(2) == 0)
		}
		n.fs, n.initial = vfs.NewMem(m.rng.Uint64()), nil
		return
	}
	var n *simNode
	for _, other := range m.nodes {
		if !other.member {
			n = other
		}
	}
	if n == nil {
		if len(m.nodes) >= 6 {
			return
		}
		n = m.node(fmt.Sprintf("n%d", len(m.nodes)+1))
	}
	if n.stream() == nil {
		m.start(n)
	}
	if err := m.try(func(ctx context.Context) error { return c.Add(ctx, n.name, n.name) }); err == nil {
		n.member = true
		_ = m.try(func(ctx context.Context) error { return c.Promote(ctx, n.name) })
	}
}

func (m *sim) mendNet() {
	for _, a := range m.nodes {
		for _, b := range m.nodes {
			m.net.set(a.name, b.name, false)
		}
	}
	m.net.mu.Lock()
	clear(m.net.slow)
	m.net.mu.Unlock()
}

// source feeds the script into whoever leads, as internal/source would.
func (m *sim) source() {
	rng := rand.New(rand.NewPCG(m.seed, 9))
	for {
		for _, n := range m.running() {
			if s := n.stream(); s != nil && s.node.Leading() != nil {
				m.feed(rng, s)
			}
		}
		select {
		case <-m.stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// feed runs one link until it is lost or the script has ended.
func (m *sim) feed(rng *rand.Rand, s *Stream) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+rng.IntN(20))*time.Second)
	defer cancel()
	link, err := s.StartLink(ctx, Source{UUID: testUUID.String()})
	if err != nil {
		return
	}
	f := feeder{rng: rng, s: m.s, link: link}
	res, err := link.Resume()
	if err != nil {
		if link.Err() == nil && s.Err() == nil && !errors.Is(err, ErrPurgedAway) && !errors.Is(err, ErrClosed) {
			m.t.Errorf("seed %d: resume: %v", m.seed, err)
		}
		return
	}
	f.resume(res.Source)
	last := len(m.s.names) - 1
	end := Coordinates{m.s.names[last], uint64(len(m.s.files[last]))}
	for {
		done, err := f.step(ctx)
		if err != nil {
			return
		}
		at, changed := link.Applied()
		m.note(at)
		if done {
			for at != end {
				select {
				case <-changed:
				case <-link.Lost():
					return
				case <-ctx.Done():
					return
				case <-m.stop:
					return
				}
				if s.Err() != nil || m.isClosed(s) {
					return
				}
				at, changed = link.Applied()
			}
			m.note(at)
			m.mu.Lock()
			m.finished = true
			m.mu.Unlock()
			select {
			case <-link.Lost():
			case <-m.stop:
			case <-ctx.Done():
			}
			return
		}
		m.mu.Lock()
		pause := time.Duration(rng.IntN(200)) * time.Millisecond
		if m.quick {
			pause = 0
		}
		m.mu.Unlock()
		select {
		case <-m.stop:
			return
		case <-time.After(pause):
		}
	}
}

// isClosed tells whether a stream closes: its channels are closed then.
func (m *sim) isClosed(s *Stream) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.closed
}

// note remembers what a leader has called committed.
func (m *sim) note(at Coordinates) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at.File > m.acknowledged.File || at.File == m.acknowledged.File && at.Pos > m.acknowledged.Pos {
		m.acknowledged = at
	}
}

// mend makes everything well, and then all nodes must agree.
func (m *sim) mend() {
	m.mendNet()
	m.mu.Lock()
	m.quick = true
	m.mu.Unlock()
	for _, n := range m.nodes {
		n.slow.Store(0)
		if n.member && n.stream() == nil {
			m.start(n)
		}
	}
	// What was asked for while links were cut may still come: a purge, a change of the
	// members. It comes as soon as the nodes have found each other again.
	time.Sleep(15 * time.Second)
	late := time.Now().Add(10 * time.Minute)
	var problem string
	for {
		if problem = m.agree(); problem == "" {
			break
		}
		if time.Now().After(late) {
			m.fatalf("after ten quiet minutes: %s", problem)
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.verify()
}

// agree tells what is missing until all members have the whole script and the
// same state.
func (m *sim) agree() string {
	m.mu.Lock()
	finished := m.finished
	m.mu.Unlock()
	for _, n := range m.nodes {
		s := n.stream()
		if s == nil || s.Err() == nil {
			continue
		}
		if !errors.Is(s.Err(), cluster.ErrRemoved) || !n.removing {
			m.fatalf("%s failed: %v", n.name, s.Err())
		}
		n.member = false // nobody answered the operator, but it was done
	}
	if !finished {
		return m.describe("the script is not finished")
	}
	m.noteRemoved()
	last := len(m.s.names) - 1
	end := Coordinates{m.s.names[last], uint64(len(m.s.files[last]))}
	var first *simNode
	var want []byte
	for _, n := range m.nodes {
		if !n.member {
			continue
		}
		if n.stream().node.Status().Installing != nil {
			return m.describe(n.name + " is installing")
		}
		if n.stream().Status().End != end {
			return m.describe(fmt.Sprintf("%s does not end at %v", n.name, end))
		}
		got := stateOf(n.stream())
		if first == nil {
			first, want = n, got
		} else if !slices.Equal(got, want) {
			return m.describe(fmt.Sprintf("the states of %s and %s differ:\n%s\n%s", first.name, n.name, want, got))
		}
	}
	return ""
}

// noteRemoved takes note of removals that were done though nobody answered the
// operator. A node that was removed before it knew anybody never hears of it.
func (m *sim) noteRemoved() {
	for _, n := range m.nodes {
		s := n.stream()
		if s == nil || s.node.Leading() == nil {
			continue
		}
		members := s.node.Members()
		for _, other := range m.nodes {
			if other.removing && !slices.ContainsFunc(members, func(c cluster.MemberStatus) bool { return c.Name == other.name }) {
				other.member = false
			}
		}
	}
}

func stateOf(s *Stream) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, _ := s.state.encode()
	return b
}

func (m *sim) describe(text string) string {
	var b strings.Builder
	b.WriteString(text)
	for _, n := range m.nodes {
		if s := n.stream(); s != nil {
			st := s.Status()
			fmt.Fprintf(&b, "\n%s member %v: end %v, %+v, err %v", n.name, n.member, st.End, st.Node, s.Err())
		} else {
			fmt.Fprintf(&b, "\n%s member %v: down", n.name, n.member)
		}
	}
	return b.String()
}

// verify compares what the nodes serve with the script, and their logs.
func (m *sim) verify() {
	m.mu.Lock()
	acknowledged := m.acknowledged
	m.mu.Unlock()
	var leader *simNode
	for _, n := range m.nodes {
		if !n.member {
			continue
		}
		checkPrefix(m.t, n.stream(), m.s, acknowledged)
		if end := n.stream().Status().End; end.Pos < binlog.MagicSize {
			m.fatalf("%s ends at %v", n.name, end)
		}
		if n.stream().node.Leading() != nil {
			leader = n
		}
	}
	if leader == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	v, err := leader.stream().node.Verify(ctx, func(_, _ uint64) {})
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		m.fatalf("verify: %v", err)
	}
	for _, d := range v.Differences {
		// One that was added without the operator hearing so may be down.
		down := slices.ContainsFunc(m.nodes, func(n *simNode) bool { return n.name == d.Node && n.stream() == nil })
		if d.To != 0 && !down {
			m.fatalf("verify: %+v", v)
		}
	}
}
