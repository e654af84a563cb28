package semisync

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"kingbus/internal/hook"
)

func second(n int) time.Time { return epoch.Add(time.Duration(n) * time.Second) }

// TestChain is a table of what may be acknowledged when.
func TestChain(t *testing.T) {
	type step struct {
		do      func(*chain)
		waiting int
		upTo    uint64 // what may be acknowledged of what is durable, which is everything
	}
	commit := func(pos uint64, sec int) func(*chain) {
		return func(c *chain) { c.commit(place{1, pos}, at("s.1", pos), second(sec), true) }
	}
	hasAt := func(name string, pos uint64, sec int) func(*chain) {
		return func(c *chain) { c.has(name, place{1, pos}, second(sec)) }
	}
	has := func(name string, pos uint64) func(*chain) { return hasAt(name, pos, 0) }
	late := func(sec int) func(*chain) { return func(c *chain) { c.expire(second(sec)) } }
	for name, tc := range map[string]struct {
		settings ChainSettings
		steps    []step
	}{
		"the quorum alone": {ChainSettings{0, time.Second, PolicyDegrade}, []step{{commit(200, 0), 0, 200}, {has("a", 100), 0, 200}, {late(9), 0, 200}}},
		"one replica": {ChainSettings{1, 5 * time.Second, PolicyHold}, []step{
			{commit(200, 0), 1, 0}, {has("a", 199), 1, 0}, {has("a", 200), 0, 200}, {commit(300, 1), 1, 200}, {commit(400, 1), 2, 200},
			{has("a", 300), 1, 300}, {has("b", 400), 0, 400},
			{has("a", 500), 0, 400}, {commit(500, 2), 0, 500}, // it was told of it before this node
			{commit(600, 3), 1, 500}, {late(100), 1, 500}, {has("a", 600), 0, 600},
		}},
		"two replicas, and a name counts once": {ChainSettings{2, 5 * time.Second, PolicyHold}, []step{
			{commit(200, 0), 1, 0}, {has("a", 200), 1, 0}, {has("a", 300), 1, 0}, {has("a", 100), 1, 0}, {has("b", 250), 0, 200}, {has("c", 150), 0, 200},
		}},
		"degrade": {ChainSettings{1, 5 * time.Second, PolicyDegrade}, []step{
			{commit(200, 0), 1, 0}, {commit(300, 4), 2, 0}, {late(4), 2, 0}, {late(5), 0, 300}, {commit(400, 6), 0, 400}, {hasAt("a", 299, 7), 0, 400},
			{commit(500, 7), 0, 500}, {hasAt("a", 500, 20), 0, 500}, {commit(600, 20), 1, 500}, {late(24), 1, 500}, {late(25), 0, 600},
		}},
		"degraded until they keep up": {ChainSettings{1, 5 * time.Second, PolicyDegrade}, []step{
			{commit(200, 0), 1, 0}, {late(5), 0, 200}, {commit(300, 6), 0, 300},
			{hasAt("a", 200, 10), 0, 300}, {commit(400, 10), 0, 400}, // what was the newest 5 s before
			{hasAt("a", 299, 14), 0, 400}, {commit(500, 14), 0, 500}, // 300 was at 10
			{hasAt("a", 310, 14), 0, 500}, {commit(600, 14), 1, 500}, // and that took 4 s
			{hasAt("a", 600, 15), 0, 600},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChain(tc.settings)
			durable := uint64(0)
			for i, s := range tc.steps {
				s.do(c)
				durable = max(durable, c.newest.pos)
				upTo := durable
				if len(c.waiting) > 0 {
					upTo = c.allowed.Pos
				}
				if len(c.waiting) != s.waiting || tc.settings.Replicas > 0 && upTo != s.upTo {
					t.Errorf("step %d: %d wait, up to %d may be acknowledged; want %d and %d", i, len(c.waiting), upTo, s.waiting, s.upTo)
				}
			}
		})
	}
}

// TestChainBegin: what a leader finds was perhaps never acknowledged: it waits.
func TestChainBegin(t *testing.T) {
	c := newChain(ChainSettings{1, time.Second, PolicyHold})
	c.has("a", place{1, 100}, second(0))
	c.begin(place{1, 200}, at("s.1", 200), second(0))
	if len(c.waiting) != 1 || c.allowed != (hook.Position{}) {
		t.Errorf("%d wait, allowed %v", len(c.waiting), c.allowed)
	}
	if !c.has("a", place{1, 200}, second(0)) || c.allowed != at("s.1", 200) {
		t.Errorf("allowed %v", c.allowed)
	}
	c.begin(place{1, 200}, at("s.1", 200), second(1))
	if len(c.waiting) != 0 {
		t.Error("it waits for what a replica has")
	}
	c.commit(place{1, 300}, at("s.1", 300), second(2), true) // while it did not lead
	c.begin(place{1, 400}, at("s.1", 400), second(9))
	if len(c.waiting) != 2 || c.allowed != at("s.1", 200) || c.late() != second(10) {
		t.Errorf("%d wait until %v, allowed %v", len(c.waiting), c.late(), c.allowed)
	}
	// What begin was told of comes again, as it is applied.
	c.commit(place{1, 350}, at("s.1", 350), second(9), true)
	if c.commit(place{1, 400}, at("s.1", 400), second(9), true); len(c.waiting) != 2 || c.newest != (place{1, 400}) {
		t.Errorf("%d wait, the newest is %v", len(c.waiting), c.newest)
	}
	fresh := newChain(ChainSettings{1, time.Second, PolicyHold})
	if fresh.begin(place{}, hook.Position{}, second(1)); len(fresh.waiting) != 0 {
		t.Error("it waits for nothing")
	}
}

// slowChain is the model: everything that happened.
type slowChain struct {
	ChainSettings
	commits  []slowChained
	has      map[string]uint64
	released int // of commits, from the first on
	kept     int // so many of them were let go under other settings
	degraded bool
	mark     slowChained
}

type slowChained struct {
	pos   uint64
	since time.Time
}

func (m *slowChain) had(c slowChained) bool {
	n := 0
	for _, pos := range m.has {
		if pos >= c.pos {
			n++
		}
	}
	return n >= m.Replicas
}

// newest is the end of the newest commit, now.
func (m *slowChain) newest(now time.Time) slowChained {
	if len(m.commits) == 0 {
		return slowChained{0, now}
	}
	return slowChained{m.commits[len(m.commits)-1].pos, now}
}

// settle lets go of what may go.
func (m *slowChain) settle(now time.Time, acked, expire bool) {
	if newest := m.newest(now); acked && m.degraded && m.had(m.mark) {
		if now.Sub(m.mark.since) >= m.Timeout {
			m.mark = newest
		}
		m.degraded = !m.had(m.mark)
	}
	for m.released < len(m.commits) && (m.degraded || m.had(m.commits[m.released])) {
		m.released++
	}
	if expire && m.Policy == PolicyDegrade && m.released < len(m.commits) && now.Sub(m.commits[m.released].since) >= m.Timeout {
		m.degraded, m.mark = true, m.newest(now)
		m.released = len(m.commits)
	}
}

// playChain plays a history to both, and compares after each step.
func playChain(t *testing.T, settings ChainSettings, steps []byte) {
	c := newChain(settings)
	m := &slowChain{ChainSettings: settings, has: map[string]uint64{}}
	now, pos := epoch, uint64(0)
	linked := true // it answers the source
	for i, b := range steps {
		before, released := m.Replicas, m.released
		switch arg := uint64(b >> 3); b & 7 {
		case 0, 1, 2:
			pos += 1 + arg%4
			c.commit(place{1, pos}, at("s.1", pos), now, linked)
			m.commits = append(m.commits, slowChained{pos, now})
			m.settle(now, false, false)
		case 3, 4, 5:
			name := fmt.Sprint(arg % 4)
			p := min(pos+1, m.has[name]+arg) // never far ahead
			had := m.has[name]
			m.has[name] = max(had, p)
			if p > had {
				m.settle(now, true, false)
			}
			c.has(name, place{1, p}, now)
		case 6:
			now = now.Add(time.Duration(arg) * 100 * time.Millisecond)
		default:
			switch {
			case arg < 16 && linked:
				c.expire(now)
				m.settle(now, false, true)
			case arg < 16: // nobody looks
			case arg < 20 && linked:
				linked, m.degraded = false, false
				c.end()
			case arg < 24:
				if linked = true; pos > 0 {
					c.begin(place{1, pos}, at("s.1", pos), now)
					for k := m.released; k < len(m.commits); k++ {
						m.commits[k].since = now
					}
				}
			}
			if arg < 24 {
				break
			}
			m.Replicas, m.Timeout, m.degraded = int(arg%4), time.Duration(1+arg%3)*500*time.Millisecond, false
			m.settle(now, false, false)
			c.configure(m.ChainSettings)
		}
		allowed := uint64(0)
		if m.released > 0 {
			allowed = m.commits[m.released-1].pos
		}
		if len(c.waiting) != len(m.commits)-m.released || c.degraded != m.degraded || len(c.waiting) > 0 && c.allowed.Pos != allowed {
			t.Logf("%v %v", settings, steps[:i+1])
			t.Fatalf("step %d: %d wait, degraded %v, up to %v; the model: %d, %v, %d", i, len(c.waiting), c.degraded, c.allowed, len(m.commits)-m.released, m.degraded, allowed)
		}
		if !linked && m.Replicas == before {
			for _, done := range m.commits[min(released, m.released):m.released] {
				if !m.had(done) {
					t.Fatalf("step %d: %d was let go by a node that does not answer, and only %v have it", i, done.pos, m.has)
				}
			}
		}
		// Nothing is let go that too few have, unless the policy said so.
		if settings.Policy == PolicyHold {
			m.kept = min(m.kept, m.released)
			if m.Replicas != before {
				m.kept = m.released // what was let go before stays so
			}
			for _, done := range m.commits[m.kept:m.released] {
				if !m.had(done) {
					t.Fatalf("step %d: %d was let go, and only %v have it", i, done.pos, m.has)
				}
			}
		}
	}
}

func TestChainModel(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		steps := make([]byte, r.IntN(80))
		for i := range steps {
			steps[i] = byte(r.Uint32())
		}
		settings := ChainSettings{1 + r.IntN(3), time.Duration(1+r.IntN(20)) * 100 * time.Millisecond, []Policy{PolicyDegrade, PolicyHold}[r.IntN(2)]}
		if playChain(t, settings, steps); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzChain(f *testing.F) {
	f.Add(uint8(1), true, []byte{0, 8, 11, 6 + 80, 7, 3, 16})
	f.Fuzz(func(t *testing.T, n uint8, hold bool, steps []byte) {
		policy := PolicyDegrade
		if hold {
			policy = PolicyHold
		}
		playChain(t, ChainSettings{1 + int(n)%3, time.Second, policy}, steps[:min(len(steps), 500)])
	})
}

// TestChainBounds: names of replicas, and what waits, are bounded.
func TestChainBounds(t *testing.T) {
	c := newChain(ChainSettings{1, time.Second, PolicyHold})
	for i := range 3 * maxReplicas {
		c.has(fmt.Sprint("replica ", i), place{1, uint64(i + 1)}, epoch)
	}
	if len(c.replicas) != maxReplicas || c.group() != (place{1, 3 * maxReplicas}) {
		t.Errorf("%d replicas are remembered, the first has %v", len(c.replicas), c.group())
	}
	for i := range 3 * maxWaiting {
		c.commit(place{2, uint64(i + 1)}, at("s.2", uint64(i+1)), epoch, true)
	}
	if len(c.waiting) != maxWaiting || c.waiting[maxWaiting-1].at != (place{2, 3 * maxWaiting}) {
		t.Errorf("%d wait, the last for %v", len(c.waiting), c.waiting[len(c.waiting)-1].at)
	}
}

func TestParseAcknowledge(t *testing.T) {
	for text, want := range map[string]int{"quorum": 0, "quorum+1": 1, "quorum+64": 64} {
		if got, err := ParseAcknowledge(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "quorum+", "quorum+0", "quorum+65", "quorum-1", "quorum+1x", "majority", "Quorum"} {
		if got, err := ParseAcknowledge(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
	if _, err := ParsePolicy("wait"); err == nil || slices.Contains([]Policy{PolicyDegrade, PolicyHold}, "wait") {
		t.Error("a policy that is none")
	}
}

// TestChainFiles: a connection begins while transactions of two files wait, and a replica
// has the older one only: that lies before all that this connection was asked about.
func TestChainFiles(t *testing.T) {
	names := files{"b.000005": 5, "b.000006": 6}
	r := NewReplica(ModeOn, ChainSettings{1, time.Hour, PolicyHold}, names, slog.New(slog.DiscardHandler))
	r.AfterCommit(hook.Commit{Count: 1, At: at("b.000005", 300), Source: at("b.000005", 300)})
	r.AfterCommit(hook.Commit{Count: 1, At: at("b.000006", 500), Source: at("b.000006", 500)})
	a := &answers{acks: newAcks(at("b.000006", 4)), wake: make(chan struct{}, 1), waits: make(chan struct{}, 1)}
	a.acks.asked(at("b.000006", 500), at("b.000006", 500))
	r.link, r.durable = a, at("b.000006", 500)
	r.Has("replica", "n1", at("b.000005", 300))
	if got, ok := a.acks.due(); ok {
		t.Errorf("the replica has b.000005:300 only, and %v is due", got)
	}
	r.Has("replica", "n1", at("b.000006", 500))
	if got, ok := a.acks.due(); !ok || got != at("b.000006", 500) {
		t.Errorf("the replica has all of it, and %v, %v is due", got, ok)
	}
}

// TestChainLeadsAgain: that replicas took too long for an earlier leadership says nothing
// of the next one.
func TestChainLeadsAgain(t *testing.T) {
	c := newChain(ChainSettings{1, time.Second, PolicyDegrade})
	c.begin(place{1, 100}, at("b", 100), second(0))
	c.expire(second(1))
	if !c.degraded {
		t.Fatal("it is not degraded")
	}
	c.end()
	c.commit(place{1, 200}, at("b", 200), second(50), true)
	c.begin(place{1, 200}, at("b", 200), second(60))
	c.commit(place{1, 300}, at("b", 300), second(61), true)
	if c.degraded || len(c.waiting) != 2 {
		t.Errorf("degraded %v, %d wait", c.degraded, len(c.waiting))
	}
}

// TestChainLetGo: what others have committed, who waited for replicas, is not let go by a node
// for which they took too long before, whatever comes in between.
func TestChainLetGo(t *testing.T) {
	for name, between := range map[string]func(*chain){
		"nothing":                  func(*chain) {},
		"the end is not known yet": func(*chain) {},
		"other settings":           func(c *chain) { c.configure(ChainSettings{1, 10 * time.Second, PolicyHold}) },
		"a replica comes up":       func(c *chain) { c.has("r", place{1, 200}, second(13)) },
		"both": func(c *chain) {
			c.has("r", place{1, 200}, second(13))
			c.configure(ChainSettings{1, 10 * time.Second, PolicyHold})
		},
	} {
		c := newChain(ChainSettings{1, 10 * time.Second, PolicyDegrade})
		c.begin(place{1, 100}, at("b", 100), second(0))
		c.has("r", place{1, 100}, second(0))
		c.commit(place{1, 200}, at("b", 200), second(0), true)
		if !c.expire(second(11)) {
			t.Fatal("it is not degraded")
		}
		if name != "the end is not known yet" {
			c.end()
		}
		c.commit(place{1, 300}, at("b", 300), second(12), false) // by another leader, which waits
		between(c)
		c.end()
		c.begin(place{1, 300}, at("b", 300), second(14))
		if len(c.waiting) != 1 || c.waiting[0].at != (place{1, 300}) || c.allowed != at("b", 200) {
			t.Errorf("%s: %d wait, up to %v was let go", name, len(c.waiting), c.allowed)
		}
	}
}
