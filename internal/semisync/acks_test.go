package semisync

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"kingbus/internal/hook"
)

func at(file string, pos uint64) hook.Position { return hook.Position{File: file, Pos: pos} }

// TestAcks is a table of what may be said when.
func TestAcks(t *testing.T) {
	type step struct {
		do   func(*acks)
		want hook.Position // zero: nothing is due
	}
	asked := func(pos, boundary hook.Position) func(*acks) { return func(a *acks) { a.asked(pos, boundary) } }
	reached := func(p hook.Position) func(*acks) { return func(a *acks) { a.reached(p) } }
	for name, steps := range map[string][]step{
		"a transaction": {
			{asked(at("b.1", 200), at("b.1", 200)), hook.Position{}},
			{reached(at("b.1", 199)), hook.Position{}},
			{reached(at("b.1", 200)), at("b.1", 200)},
			{reached(at("b.1", 300)), hook.Position{}},
		},
		"a newer answer stands for older ones": {
			{asked(at("b.1", 200), at("b.1", 200)), hook.Position{}},
			{asked(at("b.1", 300), at("b.1", 300)), hook.Position{}},
			{asked(at("b.1", 400), at("b.1", 400)), hook.Position{}},
			{reached(at("b.1", 350)), at("b.1", 300)},
			{reached(at("b.1", 400)), at("b.1", 400)},
		},
		"inside a transaction": {
			{asked(at("b.1", 150), at("b.1", 100)), at("b.1", 150)}, // durable when the connection began
			{asked(at("b.1", 170), at("b.1", 100)), at("b.1", 170)},
			{asked(at("b.1", 200), at("b.1", 200)), hook.Position{}},
			{asked(at("b.1", 210), at("b.1", 200)), hook.Position{}},
			{reached(at("b.1", 200)), at("b.1", 210)},
		},
		"the next file": {
			{asked(at("b.1", 200), at("b.1", 200)), hook.Position{}},
			{reached(at("b.2", 4)), at("b.1", 200)},
			{asked(at("b.2", 4), at("b.2", 4)), at("b.2", 4)},
			{asked(at("b.2", 127), at("b.2", 4)), at("b.2", 127)},
			{asked(at("b.2", 500), at("b.2", 500)), hook.Position{}},
			{reached(at("b.2", 500)), at("b.2", 500)},
		},
		"a file of a lesser name": {
			{asked(at("a.9", 20), at("a.9", 20)), hook.Position{}},
			{reached(at("b.1", 200)), hook.Position{}},
			{reached(at("a.9", 20)), at("a.9", 20)},
		},
		"the first file of all": {
			{asked(at("c.1", 4), at("c.1", 4)), hook.Position{}},
			{reached(at("c.1", 4)), at("c.1", 4)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			begin := at("b.1", 100)
			if name == "the first file of all" {
				begin = hook.Position{}
			}
			a := newAcks(begin)
			for i, s := range steps {
				s.do(a)
				if got, _ := a.due(); got != s.want {
					t.Errorf("step %d: due is %v, want %v", i, got, s.want)
				}
			}
		})
	}
}

// slowAcks is the model: all requests, and positions as plain numbers.
type slowAcks struct {
	requests []slowRequest
	durable  uint64
	said     int // requests that are answered
}

type slowRequest struct {
	at   hook.Position
	need uint64
}

// TestAcksModel: whatever the source asks and whenever the log grows, the answer is
// the newest request such that it and all before it are durable, and nothing is said
// twice.
func TestAcksModel(t *testing.T) {
	for seed := range uint64(300) {
		acksHistory(t, rand.New(rand.NewPCG(seed, 3)), 200)
	}
}

func FuzzAcks(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) { acksHistory(t, rand.New(rand.NewPCG(a, b)), 100) })
}

func acksHistory(t *testing.T, rng *rand.Rand, steps int) {
	t.Helper()
	const fileSize = 1 << 20 // of the plain numbers
	name := func(n uint64) string { return fmt.Sprintf("f.%d", n/fileSize) }
	pos := func(n uint64) hook.Position { return at(name(n), n%fileSize) }
	end, boundary := uint64(fileSize+4), uint64(fileSize+4)
	boundaries := []uint64{boundary}
	a := newAcks(pos(end))
	m := slowAcks{durable: end}
	for range steps {
		switch rng.IntN(6) {
		case 0: // the next file, whether or not a transaction was open
			end = (end/fileSize+1)*fileSize + 4
			a.entered(name(end))
			boundary = end
			boundaries = append(boundaries, boundary)
		case 1, 2, 3:
			end += 1 + rng.Uint64N(50)
			if rng.IntN(2) == 0 {
				boundary = end
				boundaries = append(boundaries, boundary)
			}
			if rng.IntN(3) > 0 {
				a.asked(pos(end), pos(boundary))
				m.requests = append(m.requests, slowRequest{at: pos(end), need: boundary})
			}
		case 4: // the log grows to one of the boundaries
			for _, b := range boundaries {
				if b > m.durable && rng.IntN(3) == 0 {
					m.durable = b
					a.reached(pos(b))
				}
			}
		}
		if rng.IntN(2) == 0 {
			continue
		}
		n := m.said
		for n < len(m.requests) && m.requests[n].need <= m.durable {
			n++
		}
		var want hook.Position
		if n > m.said {
			want = m.requests[n-1].at
		}
		m.said = n
		got, ok := a.due()
		if got != want || ok != (want != hook.Position{}) {
			t.Fatalf("due is %v, %v; want %v; durable %d, requests %+v", got, ok, want, m.durable, m.requests)
		}
		if len(a.files) > len(boundaries)+1 {
			t.Fatalf("%d files are kept", len(a.files))
		}
	}
}
