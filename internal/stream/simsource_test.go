package stream

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// source feeds the script into whoever leads, as internal/source would.
func (m *sim) source() {
	rng := rand.New(rand.NewPCG(m.seed, 9))
	select { // it may have nothing to say while the cluster begins
	case <-m.calm:
	case <-time.After(upTo(rng, 10*simStep*time.Duration(rng.IntN(2)))):
	}
	for {
		for _, n := range m.running() {
			if s := n.stream(); s != nil && s.node.Leading() != nil {
				m.feed(rng, n, s)
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
func (m *sim) feed(rng *rand.Rand, n *simNode, s *Stream) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+rng.IntN(20))*time.Second)
	defer cancel()
	link, err := s.StartLink(ctx, Source{UUID: testUUID.String()})
	if err != nil {
		return
	}
	f := feeder{rng: rng, s: m.s, link: link, most: m.runs}
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
		if !m.note(n, at) {
			return
		}
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
			if !m.note(n, at) {
				return
			}
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
		pause := upTo(rng, m.pace/2)
		if rng.IntN(8) == 0 {
			pause = upTo(rng, 8*m.pace)
		}
		select {
		case <-m.stop:
			return
		case <-m.calm:
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

// note remembers what a leader has called committed, unless it has no power.
func (m *sim) note(n *simNode, at Coordinates) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !n.alive.Load() {
		return false
	}
	if at.File > m.acknowledged.File || at.File == m.acknowledged.File && at.Pos > m.acknowledged.Pos {
		m.acknowledged = at
	}
	return true
}
