package stream

import (
	"fmt"

	"kingbus/internal/cluster"
)

// review goes through the entries that a snapshot's state is made of, after the
// log was replaced by them: what they did is known, but not yet where they lie on
// this node. It folds them into a state of its own, beginning with the oldest
// file, to note in the index what counts.
type review struct {
	first uint64 // index of the entry that begins the oldest file
	state state
}

func newReview(encoded []byte) (*review, error) {
	r := &review{}
	if len(encoded) == 0 {
		return r, nil
	}
	s, err := decodeState(encoded)
	if err != nil {
		return nil, err
	}
	if len(s.files) > 0 {
		r.first = s.files[0].first
	}
	return r, nil
}

// apply folds one entry; counts tells whether the index has to know it.
func (r *review) apply(entry cluster.Entry) (e effect, counts bool, err error) {
	if entry.Payload == nil || r.first == 0 || entry.Index < r.first {
		return effect{}, false, nil
	}
	if entry.Index == r.first {
		// The state just before: the file before this one has come to its end.
		var c rotateCommand
		if _, err := parseCommand(entry.Payload, &c); err != nil {
			return effect{}, false, fmt.Errorf("entry %d begins no file: %w", entry.Index, err)
		}
		r.state = state{epoch: c.Epoch, end: c.Pos}
		if c.File > 0 {
			r.state.files = []file{{number: c.File}}
		}
	}
	e, err = r.state.apply(entry.Index, entry.Payload)
	return e, err == nil && !e.void, err
}

// Needs implements cluster.StateMachine.
func (m machine) Needs(encoded []byte) (uint64, error) {
	r, err := newReview(encoded)
	if err != nil {
		return 0, err
	}
	return r.first, nil
}

// Replace implements cluster.StateMachine: readers are sent away until Adopt.
func (m machine) Replace(encoded []byte) error {
	s := m.s
	r, err := newReview(encoded)
	if err != nil {
		return err
	}
	names, err := s.cfg.FS.ReadDir(s.indexDir())
	if err != nil {
		return fmt.Errorf("list index: %w", err)
	}
	for _, name := range names {
		if seg, ok := indexedSegment(name); ok {
			if err := s.cfg.FS.Remove(s.blockName(seg)); err != nil {
				return fmt.Errorf("remove the index of a log that is replaced: %w", err)
			}
		}
	}
	if err := s.cfg.FS.SyncDir(s.indexDir()); err != nil {
		return fmt.Errorf("remove the index of a log that is replaced: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.review = r
	s.state = &state{}
	s.index = index{load: s.loadBlock}
	s.tail.clear()
	s.last = lastEnd{}
	s.purged = nil
	if s.link != nil {
		s.link.lose(fmt.Errorf("%w: a snapshot comes in", ErrLinkLost))
		s.link = nil
	}
	s.notifyLocked()
	return nil
}

// Review implements cluster.StateMachine.
func (m machine) Review(entries []cluster.Entry) error {
	s := m.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, entry := range entries {
		e, counts, err := s.review.apply(entry)
		if err != nil {
			return err
		}
		if counts {
			s.index.note(entry.Index, entry.At, len(entry.Payload), e)
		}
	}
	return nil
}

// Adopt implements cluster.StateMachine.
func (m machine) Adopt(index uint64, encoded []byte) error {
	if err := m.s.adopt(index, encoded); err != nil {
		return err
	}
	m.s.tellSettled()
	return nil
}

func (s *Stream) adopt(index uint64, encoded []byte) error {
	st := &state{}
	if len(encoded) > 0 {
		var err error
		if st, err = decodeState(encoded); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.review.state; len(st.files) > 0 && (r.boundary != st.boundary || r.end != st.end) {
		return fmt.Errorf("the entries up to %d end at %d:%d, the state that came with them at %d:%d: %w",
			index, r.boundary.index, r.end, st.boundary.index, st.end, cluster.ErrDiverged)
	}
	s.state, s.review = st, nil
	if len(st.files) > 0 {
		s.index.drop(st.files[0].first)
		if s.node != nil { // Open does it else
			s.node.Release(st.files[0].first, index)
		}
	}
	s.settleLocked()
	s.notifyLocked()
	return nil
}

// Snapshot implements cluster.StateMachine.
func (m machine) Snapshot() ([]byte, error) { return m.s.state.encode() }
