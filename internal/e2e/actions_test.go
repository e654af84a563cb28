package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// action is one kind of harm. do does it, with the random numbers that are this
// step's own, and says what it was; what has to be undone it gives to chaos.later.
type action struct {
	name   string
	weight int
	do     func(x *chaos, r *rand.Rand) string
}

var actions = []action{
	{"kill -9 a node", 14, func(x *chaos, r *rand.Rand) string { return x.kill(r, x.any(r)) }},
	{"kill -9 the leader", 14, func(x *chaos, r *rand.Rand) string { return x.kill(r, x.c.leader()) }},
	{"kill -9 all nodes", 2, (*chaos).killAll},
	{"freeze a node", 6, func(x *chaos, r *rand.Rand) string { return x.freeze(r, x.any(r)) }},
	{"freeze the leader", 8, func(x *chaos, r *rand.Rand) string { return x.freeze(r, x.c.leader()) }},
	{"stop a node", 6, func(x *chaos, r *rand.Rand) string { return x.stop(r, x.any(r)) }},
	{"stop the leader", 6, func(x *chaos, r *rand.Rand) string { return x.stop(r, x.c.leader()) }},
	{"transfer leadership", 8, (*chaos).transfer},
	{"cut a pair", 14, (*chaos).cutPair},
	{"isolate a node", 6, func(x *chaos, r *rand.Rand) string { return x.isolate(r, x.any(r)) }},
	{"isolate the leader", 8, func(x *chaos, r *rand.Rand) string { return x.isolate(r, x.c.leader()) }},
	{"isolate every node", 2, (*chaos).isolateAll},
	{"reset connections", 3, func(x *chaos, _ *rand.Rand) string { x.c.net.reset(); return "all between the nodes" }},
	{"kill -9 the source", 5, func(x *chaos, r *rand.Rand) string { return x.source(r, x.c.src.Kill) }},
	{"restart the source", 4, func(x *chaos, r *rand.Rand) string { return x.source(r, x.stopSource) }},
}

// pick chooses an action by its weight.
func pick(r *rand.Rand) action {
	total := 0
	for _, a := range actions {
		total += a.weight
	}
	n := r.IntN(total)
	for _, a := range actions {
		if n -= a.weight; n < 0 {
			return a
		}
	}
	panic("unreachable")
}

// between is a random time.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}

const idle = "nothing to do"

// any is a random node. Whether it is up is not asked, so that the same seed does
// the same.
func (x *chaos) any(r *rand.Rand) *node { return x.c.nodes[x.c.names[r.IntN(len(x.c.names))]] }

// spared tells why a node is not to be harmed now: it is down already, or it is
// needed for a majority, which is lost on purpose only now and then.
func (x *chaos) spared(r *rand.Rand, n *node) string {
	dare := r.IntN(5) == 0
	switch {
	case n == nil:
		return "nobody leads"
	case !n.running():
		return n.name + " is down already"
	case n.frozen:
		return n.name + " is frozen already"
	case x.healthy(n) <= len(x.c.names)/2 && !dare:
		return n.name + " is spared, as it is needed"
	}
	return ""
}

// healthy counts the nodes that are well, without one.
func (x *chaos) healthy(without *node) int {
	count := 0
	for _, n := range x.c.fit() {
		if n != without && x.isolated[n.name] == 0 {
			count++
		}
	}
	return count
}

func (x *chaos) kill(r *rand.Rand, n *node) string {
	down := between(r, 0, 5*time.Second)
	if why := x.spared(r, n); why != "" {
		return why
	}
	n.kill()
	x.startLater(n, down)
	return fmt.Sprintf("%s, for %.1fs", n.name, down.Seconds())
}

func (x *chaos) killAll(r *rand.Rand) string {
	for _, name := range x.c.names {
		down := between(r, 0, 3*time.Second)
		if n := x.c.nodes[name]; n.running() {
			n.kill()
			x.startLater(n, down)
		}
	}
	return strings.Join(x.c.names, ", ")
}

func (x *chaos) stop(r *rand.Rand, n *node) string {
	down := between(r, 0, 4*time.Second)
	if why := x.spared(r, n); why != "" {
		return why
	}
	began := time.Now()
	n.stop()
	x.startLater(n, down)
	return fmt.Sprintf("%s, which took %.1fs, for %.1fs", n.name, time.Since(began).Seconds(), down.Seconds())
}

func (x *chaos) startLater(n *node, after time.Duration) {
	x.later(after, "start "+n.name, n.start)
}

// freeze lasts longer than the election timeout.
func (x *chaos) freeze(r *rand.Rand, n *node) string {
	d := between(r, electionTimeout*3/2, 10*electionTimeout)
	if why := x.spared(r, n); why != "" {
		return why
	}
	n.freeze()
	x.later(d, "thaw "+n.name, n.thaw)
	return fmt.Sprintf("%s, for %.1fs", n.name, d.Seconds())
}

func (x *chaos) transfer(r *rand.Rand) string {
	to, asked := x.any(r), x.any(r)
	if !asked.running() || asked.frozen {
		return idle
	}
	out, err := asked.run("node", "transfer", to.name)
	if err != nil { // there need not be a leader now
		out = fmt.Sprintf("%v: %s", err, out)
	}
	return fmt.Sprintf("to %s, asked of %s: %s", to.name, asked.name, out)
}

// cutPair cuts the wires between two nodes, in one direction or both.
func (x *chaos) cutPair(r *rand.Rand) string {
	order := r.Perm(len(x.c.names))
	a, b := x.c.names[order[0]], x.c.names[order[1]]
	h, d := stall+how(r.IntN(3)), between(r, electionTimeout/2, 12*electionTimeout)
	ways, arrow := []way{{a, b}}, "→"
	if r.IntN(2) == 0 || h == refuse {
		ways, arrow = append(ways, way{b, a}), "↔"
	}
	heal := x.c.net.cut(h, ways...)
	x.later(d, fmt.Sprintf("heal %s %s %s", a, arrow, b), heal)
	return fmt.Sprintf("%s %s %s: %v, for %.1fs", a, arrow, b, h, d.Seconds())
}

// isolate cuts a node off, or only what it sends, or only what it hears.
func (x *chaos) isolate(r *rand.Rand, n *node) string {
	h, d, part := stall+how(r.IntN(3)), between(r, electionTimeout, 12*electionTimeout), r.IntN(4)
	if why := x.spared(r, n); why != "" {
		return why
	}
	var ways []way
	for _, other := range x.c.names {
		if other != n.name && part != 0 {
			ways = append(ways, way{n.name, other})
		}
		if other != n.name && part != 1 {
			ways = append(ways, way{other, n.name})
		}
	}
	heal := x.c.net.cut(h, ways...)
	x.isolated[n.name]++
	x.later(d, "heal "+n.name, func() {
		heal()
		x.isolated[n.name]--
	})
	return fmt.Sprintf("%s: %s %v, for %.1fs", n.name, [...]string{"what it hears is", "what it sends is", "it is", "it is"}[part], h, d.Seconds())
}

func (x *chaos) isolateAll(r *rand.Rand) string {
	h, d := stall+how(r.IntN(3)), between(r, electionTimeout, 8*electionTimeout)
	var ways []way
	for _, a := range x.c.names {
		for _, b := range x.c.names {
			if a != b {
				ways = append(ways, way{a, b})
			}
		}
	}
	x.later(d, "heal all", x.c.net.cut(h, ways...))
	return fmt.Sprintf("%v, for %.1fs", h, d.Seconds())
}

// source ends the source, by the function end, and starts it again. A clean stop takes
// MySQL seconds while somebody writes, in which other things go on.
func (x *chaos) source(r *rand.Rand, end func()) string {
	down := between(r, 0, 3*time.Second)
	if x.sourceDown {
		return "it is down already"
	}
	x.sourceDown = true
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		end()
	}()
	x.later(down, "start the source", func() {
		<-ended
		if err := x.c.src.Start(context.Background()); err != nil {
			x.t.Fatal(err)
		}
		x.sourceDown = false
	})
	return fmt.Sprintf("for %.1fs at least", down.Seconds())
}

func (x *chaos) stopSource() {
	if err := x.c.src.Stop(); err != nil { // it took so long that it was killed: that is harm as well
		x.note("stop the source: %v", err)
	}
}
