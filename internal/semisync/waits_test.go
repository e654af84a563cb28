package semisync

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"
	"time"
)

var epoch = time.Unix(1_000_000, 0)

// TestWaits is a table of what MySQL does.
func TestWaits(t *testing.T) {
	p := func(n uint64) place { return place{1, n} }
	at := func(ms int) time.Time { return epoch.Add(time.Duration(ms) * time.Millisecond) }
	type want struct {
		on                          bool
		yes, no, times, waits, left uint64
	}
	for name, tc := range map[string]struct {
		settings WaitSettings
		do       func(*waits)
		want     want
	}{
		"acknowledged in time": {WaitSettings{true, time.Second, 1, true}, func(w *waits) {
			w.join("a")
			w.commit(p(10), 1, at(0))
			w.ack("a", p(10), at(5))
			w.commit(p(20), 1, at(10))
			w.ack("a", p(20), at(15))
		}, want{true, 2, 0, 0, 2, 0}},
		"one answer for many": {WaitSettings{true, time.Second, 1, true}, func(w *waits) {
			w.join("a")
			w.commit(p(10), 2, at(0))
			w.commit(p(20), 3, at(1))
			w.commit(p(30), 1, at(2))
			w.ack("a", p(20), at(5))
		}, want{true, 5, 0, 0, 5, 1}},
		"too late": {WaitSettings{true, time.Second, 1, true}, func(w *waits) {
			w.join("a")
			w.commit(p(10), 1, at(0))
			w.commit(p(20), 1, at(900))
			w.expire(at(1000))
			w.commit(p(30), 1, at(1100))
		}, want{false, 0, 3, 1, 0, 0}},
		"caught up": {WaitSettings{true, time.Second, 1, true}, func(w *waits) {
			w.join("a")
			w.commit(p(10), 1, at(0))
			w.expire(at(1000))
			w.commit(p(20), 1, at(1100))
			w.ack("a", p(10), at(1200)) // is behind
			w.commit(p(30), 1, at(1300))
			w.ack("a", p(30), at(1400))
			w.commit(p(40), 1, at(1500))
		}, want{true, 0, 3, 1, 0, 1}},
		"nobody is there": {WaitSettings{true, time.Second, 1, true}, func(w *waits) {
			w.commit(p(10), 1, at(0))
			w.expire(at(999))
		}, want{true, 0, 0, 0, 0, 1}},
		"nobody is there, and need not": {WaitSettings{true, time.Second, 1, false}, func(w *waits) {
			w.join("a")
			w.ack("a", p(5), at(0))
			w.leave("a")
			w.commit(p(10), 1, at(0))
		}, want{false, 0, 1, 1, 0, 0}},
		"begins without anybody": {WaitSettings{true, time.Second, 1, false}, func(w *waits) {
			w.commit(p(10), 1, at(0))
			w.join("a")
			w.ack("a", p(10), at(1))
			w.commit(p(20), 1, at(2))
		}, want{true, 0, 1, 0, 0, 1}},
		"acknowledged before it is told": {WaitSettings{true, time.Second, 1, true}, func(w *waits) {
			w.join("a")
			if !w.asks(p(10)) {
				t.Error("what is not known yet does not ask")
			}
			w.ack("a", p(10), at(0))
			w.commit(p(10), 1, at(1))
		}, want{true, 1, 0, 0, 0, 0}},
		"two have to": {WaitSettings{true, time.Second, 2, true}, func(w *waits) {
			for _, name := range []string{"a", "b", "c"} {
				w.join(name)
			}
			w.commit(p(10), 1, at(0))
			w.commit(p(20), 1, at(0))
			w.ack("a", p(20), at(1))
			w.ack("a", p(20), at(1)) // the same one again
			w.ack("b", p(10), at(2))
		}, want{true, 1, 0, 0, 1, 1}},
		"who has left does not count": {WaitSettings{true, time.Second, 2, true}, func(w *waits) {
			w.join("a")
			w.join("b")
			w.commit(p(10), 1, at(0))
			w.ack("a", p(10), at(1))
			w.leave("a")
			w.ack("a", p(10), at(1))
			w.ack("b", p(10), at(2))
		}, want{true, 0, 0, 0, 0, 1}},
		"the next file": {WaitSettings{true, time.Second, 1, true}, func(w *waits) {
			w.join("a")
			w.commit(p(1000), 1, at(0))
			w.commit(place{2, 200}, 1, at(0))
			w.ack("a", place{2, 4}, at(1))
		}, want{true, 1, 0, 0, 1, 1}},
		"disabled": {WaitSettings{false, time.Second, 1, true}, func(w *waits) {
			w.join("a")
			w.commit(p(10), 1, at(0))
			w.ack("a", p(10), at(0))
		}, want{false, 0, 0, 0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWaits(tc.settings)
			tc.do(w)
			var left uint64
			for _, wt := range w.waiting {
				left += wt.n
			}
			c := w.counts
			if got := (want{w.on, c.YesTx, c.NoTx, c.NoTimes, c.TxWaits, left}); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// TestAsks: which events ask.
func TestAsks(t *testing.T) {
	w := newWaits(WaitSettings{Enabled: true, Timeout: time.Second, Replicas: 1, NoReplica: true})
	w.join("a")
	check := func(when string, want map[uint64]bool) {
		t.Helper()
		for pos, asks := range want {
			if got := w.asks(place{1, pos}); got != asks {
				t.Errorf("%s: the event that ends at %d asks: %v", when, pos, got)
			}
		}
	}
	w.committed = place{1, 50} // when the process began
	check("nothing was committed", map[uint64]bool{4: false, 50: false, 100: true})
	w.commit(place{1, 100}, 1, epoch)
	w.commit(place{1, 200}, 1, epoch)
	check("two wait", map[uint64]bool{50: false, 100: true, 150: false, 200: true, 300: true})
	w.ack("a", place{1, 100}, epoch)
	check("one waits", map[uint64]bool{100: false, 200: true})
	w.expire(epoch.Add(time.Hour))
	check("fallen back", map[uint64]bool{100: false, 199: false, 200: true, 300: true})
	w.Enabled = false
	check("disabled", map[uint64]bool{200: false, 300: false})
}

// slowWaits is the model: it remembers every transaction and looks through all of them
// each time.
type slowWaits struct {
	s      WaitSettings
	on     bool
	all    []slowCommit
	have   map[string]place
	times  uint64
	before place // what was acknowledged since the source is on
}

type slowCommit struct {
	wait
	fate string // "", "yes", "no"
}

func (m *slowWaits) newest() place {
	if len(m.all) == 0 {
		return place{}
	}
	return m.all[len(m.all)-1].at
}

func (m *slowWaits) fallBack() {
	m.on, m.before = false, place{}
	m.times++
	for i := range m.all {
		if m.all[i].fate == "" {
			m.all[i].fate = "no"
		}
	}
}

func (m *slowWaits) settle() {
	if !m.s.Enabled {
		return
	}
	var have []place
	for _, p := range m.have {
		have = append(have, p)
	}
	sort.Slice(have, func(a, b int) bool { return have[a].compare(have[b]) > 0 })
	if len(have) < m.s.Replicas {
		return
	}
	enough := have[m.s.Replicas-1]
	if !m.on && enough.compare(m.newest()) >= 0 {
		m.on = true
	}
	if m.on && enough.compare(m.before) > 0 {
		m.before = enough
		for i := range m.all {
			if m.all[i].fate == "" && m.all[i].at.compare(enough) <= 0 {
				m.all[i].fate = "yes"
			}
		}
	}
}

// configure is told what the settings were before.
func (m *slowWaits) configure(was WaitSettings) {
	enough := m.s.NoReplica || len(m.have) >= m.s.Replicas
	switch {
	case was.Enabled && !m.s.Enabled, m.s.Enabled && was.Enabled && m.on && !enough:
		m.fallBack()
	case m.s.Enabled && enough && (!was.Enabled || !was.NoReplica && m.s.NoReplica):
		m.on = true
	}
	m.before = place{}
	if m.on {
		m.settle()
	}
}

func TestWaitsModel(t *testing.T) {
	for seed := range uint64(300) {
		waitsHistory(t, rand.New(rand.NewPCG(seed, 9)), 300)
	}
}

func FuzzWaits(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) { waitsHistory(t, rand.New(rand.NewPCG(a, b)), 150) })
}

func waitsHistory(t *testing.T, rng *rand.Rand, steps int) {
	t.Helper()
	s := WaitSettings{Enabled: true, Timeout: time.Duration(1+rng.IntN(50)) * time.Millisecond, Replicas: 1 + rng.IntN(3), NoReplica: rng.IntN(2) == 0}
	w := newWaits(s)
	m := &slowWaits{s: s, on: s.NoReplica, have: map[string]place{}}
	now, end := epoch, place{1, 4}
	for step := range steps {
		name := fmt.Sprint("r", rng.IntN(4))
		switch rng.IntN(8) {
		case 0, 1, 2:
			if end.pos += 1 + rng.Uint64N(20); rng.IntN(30) == 0 {
				end = place{end.file + 1, 100}
			}
			n := 1 + rng.Uint64N(3)
			w.commit(end, n, now)
			c := slowCommit{wait: wait{end, n, now}}
			switch {
			case !m.s.Enabled:
				c.fate = "not counted"
			case !m.on:
				c.fate = "no"
			case end.compare(m.before) <= 0:
				c.fate = "yes"
			}
			m.all = append(m.all, c)
		case 3:
			w.join(name)
			if _, is := m.have[name]; !is {
				m.have[name] = place{}
			}
		case 4:
			if rng.IntN(3) == 0 {
				w.leave(name)
				delete(m.have, name)
				if !s.NoReplica && len(m.have) < s.Replicas && m.on {
					m.fallBack()
				}
			}
		case 5, 6: // somebody acknowledges something that was sent, newer or older
			at := place{end.file, end.pos - min(end.pos, rng.Uint64N(60))}
			w.ack(name, at, now)
			if had, is := m.have[name]; is {
				if at.compare(had) > 0 {
					m.have[name] = at
				}
				m.settle()
			}
		case 7:
			if rng.IntN(4) == 0 { // the settings are changed
				was := s
				switch rng.IntN(4) {
				case 0:
					s.Enabled = !s.Enabled
				case 1:
					s.NoReplica = !s.NoReplica
				case 2:
					s.Replicas = 1 + rng.IntN(3)
				default:
					s.Timeout = time.Duration(1+rng.IntN(50)) * time.Millisecond
				}
				w.configure(s, now)
				m.s = s
				m.configure(was)
				break
			}
			now = now.Add(time.Duration(rng.IntN(30)) * time.Millisecond)
			next := w.expire(now)
			for _, c := range m.all {
				if c.fate != "" {
					continue
				}
				if now.Sub(c.since) >= s.Timeout {
					m.fallBack()
				} else if !next.Equal(c.since.Add(s.Timeout)) {
					t.Fatalf("step %d: to look again at %v, want %v", step, next, c.since.Add(s.Timeout))
				}
				break
			}
		}
		var yes, no, left uint64
		for _, c := range m.all {
			switch c.fate {
			case "yes":
				yes += c.n
			case "no":
				no += c.n
			case "not counted":
			default:
				left += c.n
			}
			if w.on && w.asks(c.at) != (c.fate == "") {
				t.Fatalf("step %d: %v asks: %v, its fate is %q", step, c.at, w.asks(c.at), c.fate)
			}
		}
		var waiting uint64
		for _, wt := range w.waiting {
			waiting += wt.n
		}
		if w.on != m.on || w.counts.YesTx != yes || w.counts.NoTx != no || waiting != left || w.counts.NoTimes != m.times {
			t.Fatalf("step %d: on %v, %+v, %d wait; want on %v, yes %d, no %d, %d times, %d wait", step, w.on, w.counts, waiting, m.on, yes, no, m.times, left)
		}
	}
}

// TestEnds: replicas are asked at the end of each of the newest transactions, however many
// there are, and beyond.
func TestEnds(t *testing.T) {
	var e ends
	if !e.asks(place{1, 1}) {
		t.Error("nothing was committed, and what is sent already does not ask")
	}
	const n = 3*maxWaiting + 17
	for i := range uint64(n) {
		e.add(place{1, 10 * (i + 1)})
		e.add(place{1, 10 * i}) // again, or late
	}
	if len(e.list) > maxWaiting || len(e.list) < maxWaiting/2 {
		t.Errorf("%d ends are remembered", len(e.list))
	}
	for i := n - maxWaiting/2; i < n; i++ {
		if end := uint64(10 * (i + 1)); !e.asks(place{1, end}) || e.asks(place{1, end - 1}) {
			t.Fatalf("at %d the end asks, and nothing else", end)
		}
	}
	if e.asks(place{1, 10}) || !e.asks(place{1, 10*n + 1}) || !e.asks(place{2, 4}) {
		t.Error("what is forgotten does not ask, what comes does")
	}
}
