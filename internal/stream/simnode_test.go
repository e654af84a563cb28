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
	mu      sync.Mutex
	s       *Stream     // nil: it does not run
	alive   atomic.Bool // it has power; what one without it says counts for nothing
	member  bool        // as the operator has asked for
	// removing: the operator has asked for its removal once.
	removing bool
	slow     atomic.Int64 // what a sync takes at most
	busy     atomic.Int64 // how long messages gather at most, as a rule
	hangs    atomic.Int64 // one in so many times it is longer than an election; 0: never
	frozen   atomic.Int64 // until when nothing is done at all, in nanoseconds since 1970
}

// freeze lets the node do nothing for a time.
func (n *simNode) freeze(d time.Duration) { n.frozen.Store(time.Now().Add(d).UnixNano()) }

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
	s, err := Open(Config{
		FS: n.disk, Dir: "data", DiskReserve: 1,
		Stall:        stall,
		SegmentBytes: 16 << 10, Window: m.window, Message: m.message, TailBytes: 64 << 10, Log: m.log.With("node", n.name),
		Hooks: hook.Set{Storage: []hook.Storage{simApplying{func() {
			if opened.Load() {
				n.stall(applies)
			}
		}}}},
		Peering: cluster.Peering{
			Name: n.name, Address: n.name, Listener: m.net.listen(n.name), Dial: m.net.dialer(n.name, n.alive.Load),
			Initial: n.initial, Join: n.initial == nil, Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond,
		},
	})
	if err != nil {
		m.fatalf("start %s: %v", n.name, err)
	}
	opened.Store(true)
	n.mu.Lock()
	n.s = s
	n.mu.Unlock()
}

// armPower lets a node lose power before one of its next operations on the disk.
func (m *sim) armPower(n *simNode, operations int) {
	seed := m.rng.Uint64()
	n.disk.arm(1+m.rng.IntN(operations), func() *vfs.Mem {
		n.alive.Store(false)
		m.net.kill(n.name)
		return n.disk.Crash(seed)
	})
}

// halt stops a node, cleanly or as power loss does.
func (m *sim) halt(n *simNode, clean bool) {
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
		n.alive.Store(false)
		m.net.kill(n.name)
		fs = n.fs.Crash(m.rng.Uint64())
	}
	// The source may be in the middle of looking at what it has to go on with.
	if err := s.Close(); err != nil && !expected(s.Err()) && !strings.Contains(err.Error(), "was closed under") {
		m.fatalf("close %s: %v", n.name, err)
	}
	n.alive.Store(false)
	m.net.kill(n.name)
	n.fs = fs
}

// bury halts the nodes that have lost power.
func (m *sim) bury() {
	for _, n := range m.running() {
		if !n.alive.Load() {
			m.halt(n, false)
		}
	}
}

// expected are the failures that a simulation asks for.
func expected(err error) bool { return errors.Is(err, cluster.ErrRemoved) }
