package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"kingbus/internal/mysqltest"
)

var (
	chaosTime = flag.Duration("chaos", time.Minute, "how long TestChaos does harm; with long times -timeout has to be long as well")
	chaosSeed = flag.Uint64("chaos-seed", 0, "seed of TestChaos; 0: the clock's")
)

// electionTimeout of the nodes in TestChaos.
const electionTimeout = 500 * time.Millisecond

// TestChaos does at random to a cluster, its network and its source what happens to
// them, while writers write and two replicas read: one with GTIDs and MySQL's own
// failover over all nodes, the other by file and position from one node. Then all is
// quiet, and everything must be everywhere, once.
//
// The seed gives what is done and when; who leads then is not the seed's.
func TestChaos(t *testing.T) {
	ctx := context.Background()
	seed, length := *chaosSeed, *chaosTime
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	if testing.Short() {
		length = min(length, 15*time.Second)
	}
	t.Logf("once more: go test -race -run TestChaos -v -timeout 1h ./internal/e2e -chaos %v -chaos-seed %d", length, seed)
	dir := evidence(t)
	src := startSource(t, dir, mysqltest.Options{Name: "source", Args: []string{"--max-binlog-size=4M"}})
	c := newCluster(t, dir, src, 3, "--heartbeat", (electionTimeout / 10).String(), "--election-timeout", electionTimeout.String())
	byGTID, byPosition := mysqltest.Start(t, mysqltest.Options{Name: "by-gtid"}), mysqltest.Start(t, mysqltest.Options{Name: "by-position"})
	c.follow(ctx, byGTID, "n2")
	c.nodes["n3"].follow(ctx, byPosition, "SOURCE_LOG_FILE='binlog.000001', SOURCE_LOG_POS=4")
	l := startLedger(t, src, 4)

	x := &chaos{t: t, c: c, isolated: map[string]int{}, began: time.Now()}
	x.note("seed %d, for %v", seed, length)
	x.run(seed, length)
	l.stop()
	everywhere(t, c, byGTID, byPosition)
	for _, inst := range []*mysqltest.Instance{src, byGTID, byPosition} {
		l.check(t, inst)
	}
	inspect(t, c)
}

// chaos does harm to a cluster.
type chaos struct {
	t          *testing.T
	c          *cluster
	began      time.Time
	isolated   map[string]int // by how many cuts a node is
	sourceDown bool
	undo       []undoing
}

// undoing is what ends a harm.
type undoing struct {
	due  time.Time
	what string
	do   func()
}

// later has something undone after a while.
func (x *chaos) later(after time.Duration, what string, do func()) {
	x.undo = append(x.undo, undoing{time.Now().Add(after), what, do})
	slices.SortStableFunc(x.undo, func(a, b undoing) int { return a.due.Compare(b.due) })
}

// run does harm for a while, and then undoes all of it.
func (x *chaos) run(seed uint64, length time.Duration) {
	for step, next := uint64(0), x.began; ; {
		if len(x.undo) > 0 && x.undo[0].due.Before(next) {
			x.undoFirst()
			continue
		}
		if next.Sub(x.began) > length {
			break
		}
		time.Sleep(time.Until(next)) // random moments are what this is about
		x.look()
		r := rand.New(rand.NewPCG(seed, step)) // of its own: how many numbers one step takes changes no other
		wait := between(r, 50*time.Millisecond, 2*time.Second)
		a := pick(r)
		x.note("%s: %s", a.name, a.do(x, r))
		step, next = step+1, time.Now().Add(wait)
	}
	for len(x.undo) > 0 {
		x.undo[0].due = time.Now()
		x.undoFirst()
	}
	x.note("all is quiet")
}

func (x *chaos) undoFirst() {
	u := x.undo[0]
	x.undo = x.undo[1:]
	time.Sleep(time.Until(u.due))
	x.look()
	u.do()
	x.note("%s", u.what)
}

// look notices a node that has ended by itself, which none of all this is a reason
// for.
func (x *chaos) look() {
	for _, name := range x.c.names {
		if n := x.c.nodes[name]; n.died() {
			x.t.Fatalf("%s ended by itself: %v", name, n.err)
		}
	}
}

// note keeps what was done and when, in the test's log and in its folder.
func (x *chaos) note(format string, args ...any) {
	now := time.Now()
	line := fmt.Sprintf("%s %6.1fs  %s", now.UTC().Format("15:04:05.000"), now.Sub(x.began).Seconds(), fmt.Sprintf(format, args...))
	x.t.Log(line)
	f, err := os.OpenFile(filepath.Join(x.c.dir, "actions.txt"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		x.t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintln(f, line)
}
