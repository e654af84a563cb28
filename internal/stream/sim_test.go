package stream

import (
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"kingbus/internal/cluster"
)

// The simulation runs whole clusters in memory, in the virtual time of
// testing/synctest, and does to them what happens to clusters: nodes that come up
// one by one, power loss and kill -9 in the middle of a write, restarts, cut and slow links,
// slow, full and failing disks, logs that lose their end, machines so busy that messages gather before anybody looks at
// them, leadership that is handed over, members that come and go, purges; while a
// source's script is fed into whoever leads. In the end all is mended, and every node
// must have the script's very bytes, the same state, and a log that agrees entry by
// entry; nothing that was ever acknowledged may be missing.
//
// One history runs at a time, on one processor: then a seed is the same history again,
// but for the order of what happens at the very same moment, and for which of several
// ready cases a select takes. A failure may need some tries (-count).
//
//	go test ./internal/stream -run TestSimulation -histories 100000
//	go test ./internal/stream -run TestSimulation -seed 4711 -v
var (
	simHistories = flag.Int("histories", 50, "histories of TestSimulation")
	simSeed      = flag.Uint64("seed", 0, "run the history of this seed only, with the log of the nodes")
	simFirst     = flag.Uint64("first", 1, "seed of the first history")
)

func TestSimulation(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if *simSeed != 0 {
		simulate(t, *simSeed)
		return
	}
	for i := range *simHistories {
		began := time.Now()
		simulate(t, *simFirst+uint64(i))
		if t.Failed() {
			return
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Logf("seed %d took %s", *simFirst+uint64(i), took)
		}
		if (i+1)%1000 == 0 {
			t.Logf("%d histories", i+1)
		}
	}
}

// simulate runs one history. Raft ids and the times of elections come from crypto/rand.
func simulate(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if t.Failed() { // its nodes still run, and nobody would end them
				panic(fmt.Sprintf("the history of seed %d has failed", seed))
			}
		}()
		cryptotest.SetGlobalRandom(t, seed)
		newSim(t, seed).run()
	})
}

// simStep is about the time from one thing that happens to the next.
const simStep = time.Second

type sim struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	net   *simNet
	log   *slog.Logger
	nodes []*simNode // all that ever were, in the order of their names; grows under mu
	s     script
	pace  time.Duration // the most between two runs of the source
	runs  int           // transactions in one, at most
	steps int
	// entries of a node's window
	window  int
	message int // bytes of a message
	acts    []simAct
	busy    time.Duration // of some of the nodes: see simNode
	hangs   int
	kills   bool   // not only power is lost
	unsure  bool   // some change of the members was not answered: it may still come
	between func() // called once between adding a node and its promotion
	purges  bool   // the beginning of the logs may be gone

	calm chan struct{} // closed when nothing happens any more
	stop chan struct{} // the source's end
	wg   sync.WaitGroup

	mu           sync.Mutex
	acknowledged Coordinates
	finished     bool // the whole script is acknowledged
	mended       bool // nothing happens any more, and nobody pauses
}

func newSim(t *testing.T, seed uint64) *sim {
	rng := rand.New(rand.NewPCG(seed, 7))
	m := &sim{t: t, seed: seed, rng: rng, log: slog.New(slog.DiscardHandler), calm: make(chan struct{}), stop: make(chan struct{})}
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
	pick := func(of ...time.Duration) time.Duration { return of[rng.IntN(len(of))] }
	if rng.IntN(4) > 0 { // else all that can be done at once is
		m.net.weather(pick(0, 2*time.Millisecond, 20*time.Millisecond, 100*time.Millisecond), []int{0, 1000, 100, 30}[rng.IntN(4)], []int{0, 0, 1000, 200, 50}[rng.IntN(5)])
	}
	m.acts = simActs(rng)
	m.steps = 1 + rng.IntN([]int{5, 40, 40}[rng.IntN(3)])
	m.runs = []int{1, 4, 20}[rng.IntN(3)]
	m.message = []int{1, 1, 8 << 10, 1 << 20}[rng.IntN(4)]
	m.window = []int{1, 4, 32, 32}[rng.IntN(4)]
	m.s = makeScript(t, rng, 1+rng.IntN(4), 10+rng.IntN(100))
	runs := 1
	for _, ends := range m.s.ends {
		runs += len(ends) / 4 / (1 + m.runs/2) // a transaction is of some four events
	}
	// As a rule it lasts as long as the history does.
	m.pace = time.Duration([]int{0, 1, 2, 8, 40}[rng.IntN(5)]) * time.Duration(m.steps) * simStep / 4 / time.Duration(runs)
	m.busy = pick(0, 5*time.Millisecond, 50*time.Millisecond, 200*time.Millisecond, time.Second)
	m.hangs = []int{0, 400, 40, 10}[rng.IntN(4)]
	m.kills = rng.IntN(2) == 0
	var initial []cluster.Member
	for i := range []int{1, 3, 3, 3, 5, 5}[rng.IntN(6)] {
		n := m.node(fmt.Sprintf("n%d", i+1))
		n.member = true
		initial = append(initial, cluster.Member{Name: n.name, Address: n.name})
	}
	for _, n := range m.nodes {
		n.initial = initial
	}
	return m
}

func (m *sim) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("seed %d: %s", m.seed, fmt.Sprintf(format, args...))
}

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
	m.wg.Go(m.source)
	if most := []time.Duration{0, simStep, 5 * simStep}[m.rng.IntN(3)]; most > 0 {
		m.wg.Go(func() { m.unrest(most) })
	}
	m.begin()
	for range m.steps {
		time.Sleep(upTo(m.rng, simStep*time.Duration([]int{1, 10, 40, 80}[m.rng.IntN(4)])/40))
		m.bury()
		m.act()
		m.checkMembers(m.pick(m.nodes))
	}
	m.mend()
	close(m.stop)
	for _, n := range m.nodes {
		if n.opening != nil {
			m.halt(n, true)
		}
	}
	m.wg.Wait()
	for _, n := range m.running() {
		m.halt(n, true)
	}
}

// begin starts the initial nodes in any order, at once or one by one.
func (m *sim) begin() {
	nodes := slices.Clone(m.nodes)
	m.rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	most := []time.Duration{0, 100 * time.Millisecond, time.Second}[m.rng.IntN(3)]
	for _, n := range nodes {
		m.start(n)
		time.Sleep(upTo(m.rng, most))
	}
	if m.rng.IntN(4) == 0 { // trouble from the beginning
		return
	}
	for range 300 {
		m.bury()
		for _, n := range m.nodes {
			if n.stream() == nil {
				m.start(n)
			} else if n.stream().node.Leading() != nil {
				return
			}
		}
		time.Sleep(simStep / 10)
	}
}
