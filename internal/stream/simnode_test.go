package stream

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kingbus/internal/cluster"
	"kingbus/internal/hook"
	"kingbus/internal/vfs"
)

// simNode is one node through all its lives.
type simNode struct {
	name    string
	fs      *vfs.Mem
	disk    *simDisk // fs in the present life
	initial []cluster.Member
	noStart error // why it could not be
	mu      sync.Mutex
	s       *Stream     // nil: it does not run
	alive   atomic.Bool // it has power; what one without it says counts for nothing
	member  bool        // as the operator has asked for
	// removing: the operator has asked for its removal once.
	removing bool
	// lost: the end of its log is, and has not been fetched again.
	lost bool
	// opening is closed when Open has returned; nil: it is not on its way. interrupt ends it.
	opening, interrupt chan struct{}

	slow   atomic.Int64 // what a sync takes at most
	busy   atomic.Int64 // how long messages gather at most, as a rule
	hangs  atomic.Int64 // one in so many times it is longer than an election; 0: never
	frozen atomic.Int64 // until when nothing is done at all, in nanoseconds since 1970
	hung   atomic.Int64 // the same, when only applying hangs
}

// freeze lets the node do nothing for a time.
func (n *simNode) freeze(d time.Duration) { n.frozen.Store(time.Now().Add(d).UnixNano()) }

// hang lets the apply goroutine stand still for a time: Raft goes on without it.
func (n *simNode) hang(d time.Duration) { n.hung.Store(time.Now().Add(d).UnixNano()) }

// stall lets what comes for a goroutine of the node gather. Now and then that is longer than
// an election takes.
func (n *simNode) stall(rng *rand.Rand) {
	busy := time.Duration(n.busy.Load())
	if frozen := time.Until(time.Unix(0, n.frozen.Load())); frozen > 0 {
		time.Sleep(frozen)
	}
	switch odds := int(n.hangs.Load()); {
	case odds > 0 && rng.IntN(odds) == 0:
		time.Sleep(upTo(rng, 2*time.Second))
	case busy > 0 && rng.IntN(4) == 0:
		time.Sleep(upTo(rng, busy))
	}
}

// simApplying stalls the apply goroutine of a node.
type simApplying struct{ stall func() }

func (simApplying) AfterFlush(hook.Position)  {}
func (a simApplying) AfterSync(hook.Position) { a.stall() }

func (n *simNode) stream() *Stream {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.s
}

func (m *sim) node(name string) *simNode {
	n := &simNode{name: name, fs: vfs.NewMem(m.rng.Uint64())}
	if m.rng.IntN(2) == 0 {
		n.busy.Store(int64(m.busy))
	}
	if m.rng.IntN(4) == 0 {
		n.hangs.Store(int64(m.hangs))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes = append(m.nodes, n)
	return n
}

func (m *sim) start(n *simNode) {
	seed := m.rng.Uint64()
	random := func(what uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, what)) }
	applies := random(3)
	var stall func() // nil: who has something for Raft takes the turn
	if steps := random(2); steps.IntN(3) > 0 {
		stall = func() { n.stall(steps) }
	}
	n.fs.SetLimit(-1)
	n.disk = &simDisk{Mem: n.fs, slow: &n.slow, rng: random(1)}
	n.alive.Store(true)
	if m.rng.IntN(5) == 0 && !m.mended {
		m.armPower(n, 60)
	}
	var opened atomic.Bool // before that it is this goroutine that applies
	cfg := Config{
		FS: n.disk, Dir: "data", DiskReserve: 1,
		Stall:        stall,
		SegmentBytes: 16 << 10, Window: m.window, Message: m.message, TailBytes: 64 << 10, Log: m.log.With("node", n.name),
		Hooks: hook.Set{Storage: []hook.Storage{simApplying{func() {
			if opened.Load() {
				n.stall(applies)
				time.Sleep(time.Until(time.Unix(0, n.hung.Load())))
			}
		}}}},
		Peering: cluster.Peering{
			Name: n.name, Address: n.name, Listener: m.net.listen(n.name), Dial: m.net.dialer(n.name, n.alive.Load),
			Initial: n.initial, Join: n.initial == nil, Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond,
		},
	}
	open := func() {
		s, err := Open(cfg)
		if err != nil {
			n.noStart = err
			return
		}
		opened.Store(true)
		n.mu.Lock()
		n.s = s
		n.mu.Unlock()
	}
	if !n.lost {
		// One that waits for its peers though it has lost nothing must not wait for ever.
		interrupt := make(chan struct{})
		cfg.Interrupt = interrupt
		late := time.AfterFunc(10*time.Minute, func() { close(interrupt) })
		open()
		late.Stop()
		if n.noStart != nil {
			m.notStarted(n)
		}
		return
	}
	done, interrupt := make(chan struct{}), make(chan struct{})
	n.opening, n.interrupt, cfg.Interrupt = done, interrupt, interrupt
	m.wg.Go(func() { // it returns when the log is whole again
		defer close(done)
		open()
	})
}

// notStarted buries a node that could not start.
func (m *sim) notStarted(n *simNode) {
	err := n.noStart
	n.noStart = nil
	fs := n.disk.failed()
	if fs == nil && !n.disk.spoiled(err) {
		m.fatalf("start %s: %v", n.name, err)
	}
	m.off(n)
	if fs != nil {
		n.fs = fs
	}
	n.fs.ClearFaults()
}

// off takes a node off the network: nothing that it says from now on counts.
func (m *sim) off(n *simNode) {
	n.alive.Store(false)
	m.net.kill(n.name)
}

// opened takes note of nodes that have had to fetch what they had lost.
func (m *sim) opened(n *simNode) {
	if n.opening == nil {
		return
	}
	select {
	case <-n.opening:
	default:
		return
	}
	n.opening, n.interrupt = nil, nil
	if n.noStart != nil {
		m.notStarted(n)
		return
	}
	n.lost = n.disk.failed() != nil // it has opened a folder that was gone by then
}

// armPower lets a node lose power before one of its next operations on the disk.
func (m *sim) armPower(n *simNode, operations int) {
	seed := m.rng.Uint64()
	n.disk.arm(1+m.rng.IntN(operations), func() *vfs.Mem {
		m.off(n)
		return m.dead(n.fs, seed)
	})
}

// dead returns what the next process finds when this one is gone in the middle of something: all
// that it had written, or after power loss as much of that as was synced.
func (m *sim) dead(fs *vfs.Mem, seed uint64) *vfs.Mem {
	if m.kills && seed%2 == 0 {
		return fs.Kill(seed)
	}
	return fs.Crash(seed)
}

// halt stops a node, cleanly or as power loss does.
func (m *sim) halt(n *simNode, clean bool) {
	if n.opening != nil {
		close(n.interrupt)
		<-n.opening
		n.opening, n.interrupt = nil, nil
	}
	s := n.stream()
	n.mu.Lock()
	n.s = nil
	n.mu.Unlock()
	fs := n.disk.failed()
	switch {
	case fs != nil:
	case clean:
		fs = n.fs
	default:
		m.off(n)
		fs = m.dead(n.fs, m.rng.Uint64())
	}
	if s == nil { // it was still to be opened
		m.off(n)
		n.noStart, n.fs = nil, fs
		n.fs.ClearFaults()
		return
	}
	// The source may be in the middle of looking at what it has to go on with.
	if err := s.Close(); err != nil && !expected(s.Err()) && !n.disk.spoiled(err) && !strings.Contains(err.Error(), "was closed under") {
		m.fatalf("close %s: %v", n.name, err)
	}
	m.off(n)
	n.fs = fs
	n.fs.ClearFaults()
}

// bury halts the nodes that have lost power, or have failed because of their disks.
func (m *sim) bury() {
	for _, n := range m.nodes {
		m.opened(n)
		s := n.stream()
		switch {
		case s == nil && n.opening == nil:
		case !n.alive.Load():
			m.halt(n, false)
		case s != nil && n.disk.spoiled(s.Err()):
			m.log.Info("SIM failed", "node", n.name, "error", s.Err())
			m.halt(n, m.rng.IntN(2) == 0)
		case s != nil && n.goesOn():
			m.fatalf("%s has gone on since a failure of its disk %s ago", n.name, time.Since(time.Unix(0, n.disk.mustEnd())))
		}
	}
}

// goesOn tells whether a process goes on that must not, because of what its disk has said. What hangs has time
// to come back.
func (n *simNode) goesOn() bool {
	since := n.disk.mustEnd()
	return since > 0 && time.Since(time.Unix(0, max(since, n.frozen.Load(), n.hung.Load()))) > 30*time.Second
}

// expected are the failures that a simulation asks for.
func expected(err error) bool { return errors.Is(err, cluster.ErrRemoved) }
