package stream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kingbus/internal/vfs"
)

// simAct is something that happens to a cluster, often in one history and never in
// another: what goes wrong together is found so.
type simAct struct {
	name   string
	weight int
	mends  bool // without it nothing would go on before long
	do     func(*sim)
}

func simActs(rng *rand.Rand) []simAct {
	acts := []simAct{
		{"lose power", 10, false, func(m *sim) { m.one(func(n *simNode) { m.halt(n, false) }) }}, // others may be down already
		{"lose power soon", 15, false, func(m *sim) { m.one(func(n *simNode) { m.armPower(n, 30) }) }},
		{"stop", 10, false, func(m *sim) { m.one(func(n *simNode) { m.halt(n, true) }) }},
		{"come back", 40, true, (*sim).comeBack},
		{"cut", 12, false, (*sim).cut},
		{"mend the net", 10, true, (*sim).mendNet},
		{"end connections", 6, false, func(m *sim) { m.net.breakSome(m.pick(m.nodes).name) }},
		{"slow link", 4, false, func(m *sim) { m.net.setSlow(m.pick(m.nodes).name, upTo(m.rng, 300*time.Millisecond)) }},
		{"slow disk", 4, false, func(m *sim) { m.pick(m.nodes).slow.Store(int64(upTo(m.rng, 300*time.Millisecond))) }},
		{"full disk", 4, false, func(m *sim) { m.one(func(n *simNode) { n.disk.fill(int64(m.rng.IntN(32 << 10))) }) }},
		{"room on the disk", 4, true, func(m *sim) { m.one(func(n *simNode) { n.disk.SetLimit(-1) }) }},
		{"busy", 3, false, func(m *sim) { m.pick(m.nodes).busy.Store(int64(upTo(m.rng, 200*time.Millisecond))) }},
		{"freeze", 6, false, func(m *sim) { m.pick(m.nodes).freeze(upTo(m.rng, 3*time.Second)) }},
		{"hand over", 4, false, func(m *sim) { m.handOver(m.rng) }},
		{"fall behind", 10, false, func(m *sim) { m.one(m.fallBehind) }},
		{"purge", 3, false, (*sim).purge},
		{"add or remove", 10, false, func(m *sim) { m.one(m.changeMembers) }},
		{"hang", 4, false, func(m *sim) { m.pick(m.nodes).hang(upTo(m.rng, 8*time.Second)) }},
		{"miss changes", 4, false, func(m *sim) { m.one(m.missChanges) }},
		{"fail a call of the disk", 4, false, func(m *sim) { m.one(m.spoil) }},
		{"lose the end of a log", 4, false, func(m *sim) { m.one(m.loseEnd) }},
	}
	for i := range acts {
		if !acts[i].mends {
			acts[i].weight *= []int{0, 0, 1, 1, 3}[rng.IntN(5)]
		}
	}
	return acts
}

// act does one thing to the cluster. As a rule a majority runs, and finds each other.
func (m *sim) act() {
	if 2*len(m.running()) <= len(m.nodes) && m.rng.IntN(4) > 0 {
		m.comeBack()
	}
	if m.rng.IntN(6) == 0 {
		m.mendNet()
	}
	total := 0
	for _, a := range m.acts {
		total += a.weight
	}
	what := m.rng.IntN(total)
	for _, a := range m.acts {
		if what -= a.weight; what < 0 {
			m.log.Info("SIM " + a.name)
			a.do(m)
			return
		}
	}
}

// one does something to a node that runs.
func (m *sim) one(do func(*simNode)) {
	if n := m.pick(m.running()); n != nil {
		do(n)
	}
}

func (m *sim) comeBack() {
	for _, n := range m.nodes {
		if n.stream() == nil && n.opening == nil && m.rng.IntN(2) == 0 {
			m.start(n)
		}
	}
}

// cut cuts a link in one direction or both, or a node off.
func (m *sim) cut() {
	a, b := m.pick(m.nodes), m.pick(m.nodes)
	if a != b {
		m.net.set(a.name, b.name, true)
		m.net.set(b.name, a.name, m.rng.IntN(2) == 0)
		return
	}
	m.cutOff(a)
}

func (m *sim) cutOff(n *simNode) {
	for _, other := range m.nodes {
		if other != n {
			m.net.set(n.name, other.name, true)
			m.net.set(other.name, n.name, m.rng.IntN(3) > 0)
		}
	}
}

// handOver moves the leadership to any other node.
func (m *sim) handOver(rng *rand.Rand) {
	running := m.running()
	for _, n := range running {
		s := n.stream()
		if s == nil || s.node.Leading() == nil { // it may have been halted since
			continue
		}
		to := running[rng.IntN(len(running))]
		_ = m.try(func(ctx context.Context) error { return s.Cluster().Transfer(ctx, to.name) })
		return
	}
}

// unrest moves the leadership on whatever else happens, until everything is mended.
func (m *sim) unrest(most time.Duration) {
	rng := rand.New(rand.NewPCG(m.seed, 10))
	for {
		select {
		case <-m.calm:
			return
		case <-time.After(upTo(rng, most)):
		}
		m.handOver(rng)
	}
}

// fallBehind lets a node miss something, and makes it hard for it to get that.
func (m *sim) fallBehind(n *simNode) {
	m.halt(n, m.rng.IntN(2) == 0)
	time.Sleep(upTo(m.rng, 4*simStep))
	m.bury()
	if m.start(n); n.stream() == nil {
		return
	}
	time.Sleep(upTo(m.rng, 400*time.Millisecond))
	for range 1 + m.rng.IntN(6) {
		n.freeze(upTo(m.rng, simStep))
		time.Sleep(upTo(m.rng, simStep/2))
		if m.rng.IntN(2) == 0 {
			m.net.breakSome(n.name)
		}
		time.Sleep(upTo(m.rng, simStep))
		m.bury()
	}
}

// missChanges lets a node miss changes of the members, some of which it has and cannot apply yet, and then more.
func (m *sim) missChanges(n *simNode) {
	change := func() {
		var others []*simNode
		for _, other := range m.running() {
			if other != n {
				others = append(others, other)
			}
		}
		if through := m.pick(others); through != nil {
			m.changeMembers(through)
		}
		m.bury()
	}
	if m.rng.IntN(3) > 0 {
		n.hang(upTo(m.rng, 15*time.Second))
	}
	for range m.rng.IntN(4) {
		change()
	}
	if m.rng.IntN(2) == 0 {
		m.cutOff(n)
	} else {
		m.between = func() { // it has the one change, and not the other
			time.Sleep(upTo(m.rng, 200*time.Millisecond))
			m.cutOff(n)
		}
	}
	for range 1 + m.rng.IntN(3) {
		change()
	}
	m.between = nil
	time.Sleep(upTo(m.rng, 2*simStep))
	m.mendNet()
	time.Sleep(upTo(m.rng, 500*time.Millisecond))
	if m.rng.IntN(2) == 0 {
		n.freeze(upTo(m.rng, simStep))
		time.Sleep(upTo(m.rng, 200*time.Millisecond))
	}
	m.bury()
	if n.stream() != nil && m.rng.IntN(2) == 0 {
		m.halt(n, m.rng.IntN(3) > 0)
	}
}

// spoil lets a call of a node's disk fail. The node ends by that, or has no checkpoint, or waits for room.
func (m *sim) spoil(n *simNode) {
	f := simFault{after: m.rng.IntN([]int{1, 5, 40}[m.rng.IntN(3)]), err: []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT}[m.rng.IntN(3)]}
	f.op = []vfs.Op{vfs.OpSync, vfs.OpSync, vfs.OpWrite, vfs.OpWrite, vfs.OpCreate, vfs.OpRename, vfs.OpSyncDir, vfs.OpTruncate}[m.rng.IntN(8)]
	if f.op == vfs.OpSync || f.op == vfs.OpWrite {
		f.on = []string{"", ".seg", "hardstate"}[m.rng.IntN(3)]
	}
	n.disk.spoil(f)
	if m.rng.IntN(2) == 0 { // that calls for votes
		m.handOver(m.rng)
	}
}

// loseEnd takes the last segments of a node's log away, as a disk does that lies about syncs. All that was
// acknowledged must be among the others alone: one node at a time, which sees what it lacks when it starts.
func (m *sim) loseEnd(n *simNode) {
	if m.unsure || m.purges || !n.member {
		return
	}
	voters := 0
	for _, other := range m.nodes {
		if other.lost {
			return
		}
		if other.member {
			voters++
		}
	}
	if voters < 3 || n.stream().node.Status().Installing != nil {
		return
	}
	for _, other := range n.stream().node.Members() {
		if voters--; other.Learner {
			return
		}
	}
	if voters != 0 {
		return
	}
	committed := n.stream().node.Status().Committed // at least that a start knows of
	m.halt(n, m.rng.IntN(2) == 0)
	const dir = "data/log"
	names, err := n.fs.ReadDir(dir)
	if err != nil {
		m.fatalf("%v", err)
	}
	var firsts []uint64
	for _, name := range names { // sorted, and so by index
		if first, err := strconv.ParseUint(strings.TrimSuffix(name, ".seg"), 10, 64); err == nil {
			firsts = append(firsts, first)
		}
	}
	seen := slices.IndexFunc(firsts, func(first uint64) bool { return first > committed })
	if seen < 0 {
		seen = len(firsts)
	}
	if seen < 2 {
		return
	}
	for _, first := range firsts[1+m.rng.IntN(seen-1):] {
		if err := n.fs.Remove(fmt.Sprintf("%s/%020d.seg", dir, first)); err != nil {
			m.fatalf("%v", err)
		}
	}
	if err := n.fs.SyncDir(dir); err != nil {
		m.fatalf("%v", err)
	}
	m.log.Info("SIM has lost the end of its log", "node", n.name, "committed", committed, "segments", len(firsts))
	n.lost = true
}

func (m *sim) purge() {
	if slices.ContainsFunc(m.nodes, func(n *simNode) bool { return n.lost }) {
		return // what it lacks must stay
	}
	m.purges = true
	for _, n := range m.running() {
		if s := n.stream(); s.node.Leading() != nil {
			if files := s.Status().Files; len(files) > 1 {
				_ = m.try(func(ctx context.Context) error { return s.Purge(ctx, files[m.rng.IntN(len(files))].Name) })
			}
		}
	}
}

func (m *sim) try(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	return f(ctx)
}

// changeMembers adds a node, or removes one and its folder.
func (m *sim) changeMembers(through *simNode) {
	c := through.stream().Cluster()
	members := 0
	for _, n := range m.nodes {
		if n.lost {
			return // it needs a majority of the others
		}
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
		if err := m.try(func(ctx context.Context) error { return c.Remove(ctx, n.name) }); err != nil || !through.alive.Load() {
			m.unsure = true
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
		if len(m.nodes) >= 7 {
			return
		}
		n = m.node(fmt.Sprintf("n%d", len(m.nodes)+1))
	}
	if n.stream() == nil {
		m.start(n)
	}
	err := m.try(func(ctx context.Context) error { return c.Add(ctx, n.name, n.name) })
	if err == nil && through.alive.Load() {
		n.member = true
		if m.between != nil {
			m.between()
			m.between = nil
		}
		err = m.try(func(ctx context.Context) error { return c.Promote(ctx, n.name) })
	}
	m.unsure = m.unsure || err != nil || !through.alive.Load()
}

func (m *sim) mendNet() {
	for _, a := range m.nodes {
		for _, b := range m.nodes {
			m.net.set(a.name, b.name, false)
		}
	}
	for _, n := range m.nodes {
		m.net.setSlow(n.name, 0)
	}
}
