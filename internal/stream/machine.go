package stream

import (
	"fmt"
	"slices"

	"kingbus/internal/cluster"
	"kingbus/internal/hook"
)

// machine is the face that the stream shows to the cluster.
type machine struct{ s *Stream }

var _ cluster.StateMachine = machine{}

func (m machine) Restore(index uint64, encoded []byte, segments []uint64) error {
	s := m.s
	if err := s.restore(index, encoded, segments); err != nil {
		return err
	}
	s.tellSettled()
	return nil
}

func (s *Stream) restore(index uint64, encoded []byte, segments []uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.index.blocks, s.index.bytes, s.purged = &state{}, nil, 0, nil // it may be the second try
	s.tail.clear()
	s.last = lastEnd{}
	if len(encoded) > 0 {
		st, err := decodeState(encoded)
		if err != nil {
			return err
		}
		s.state = st
	}
	s.settleLocked()
	return s.loadIndex(index, segments)
}

func (m machine) Apply(entries []cluster.Entry) error {
	s := m.s
	for len(entries) > 0 {
		done, err := s.apply(entries)
		if err != nil {
			return err
		}
		s.tellEnds()
		if done.moved {
			for _, o := range s.cfg.Hooks.Storage {
				o.AfterSync(done.source)
			}
		}
		if done.settled {
			s.tellSettled()
		}
		entries = entries[done.entries:]
	}
	return nil
}

// folded is what apply has done with so many entries.
type folded struct {
	entries int
	moved   bool          // there is a new boundary
	source  hook.Position // where that is
	settled bool          // the settings may be others
}

// tellSettled tells of the settings.
func (s *Stream) tellSettled() {
	if s.cfg.Settled != nil {
		s.cfg.Settled(s.Settings())
	}
}

// apply folds entries in, up to one that changes the settings.
func (s *Stream) apply(entries []cluster.Entry) (done folded, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, entry := range entries {
		if done.settled {
			break
		}
		done.entries++
		s.tail.add(entry)
		if entry.Payload == nil {
			continue
		}
		e, err := s.state.apply(entry.Index, entry.Payload)
		if err != nil {
			return folded{}, err
		}
		s.applied(entry, e)
		s.noteEnds(entry.Index, e)
		s.noteLast(entry.Index, e)
		done.moved = done.moved || e.moved
		done.settled = e.changed != 0
	}
	if done.moved {
		s.notifyLocked()
	}
	_, at := s.state.coordinates()
	done.source = hook.Position(at)
	return done, nil
}

// ending is how transactions ended, for the hooks.
type ending struct {
	hook.Commit
	rollback *hook.Rollback // instead
}

// noteEnds keeps what tellEnds tells, which may not be told under the lock.
func (s *Stream) noteEnds(index uint64, e effect) {
	if len(s.cfg.Hooks.Transaction) == 0 {
		return
	}
	if e.aborted {
		s.ends = append(s.ends, ending{rollback: &hook.Rollback{Source: hook.Position(e.began)}})
	}
	if e.count > 0 {
		// Not where the entry ends: a ROTATE or STOP may be behind the transaction.
		at, source := s.state.coordinates()
		s.ends = append(s.ends, ending{Commit: hook.Commit{
			Entry: index, Count: e.count, GTIDs: slices.Clone(e.ended),
			Epoch: s.state.epoch, At: hook.Position{File: at.File, Pos: e.endPos}, Source: hook.Position{File: source.File, Pos: e.endSource},
		}})
	}
}

func (s *Stream) tellEnds() {
	for _, end := range s.ends {
		for _, o := range s.cfg.Hooks.Transaction {
			if end.rollback != nil {
				o.AfterRollback(*end.rollback)
			} else {
				o.AfterCommit(end.Commit)
			}
		}
	}
	clear(s.ends)
	s.ends = s.ends[:0]
}

// applied does what an entry means for this node beside the state.
func (s *Stream) applied(entry cluster.Entry, e effect) {
	if e.void {
		if e.err != nil {
			at, _ := s.state.coordinates()
			s.log.Error("an entry of the log was refused by every node; the link starts again", "entry", entry.Index, "file", at.File, "pos", at.Pos, "error", e.err)
		}
		if s.link != nil && s.link.epoch == e.epoch {
			s.link.lose(fmt.Errorf("%w: entry %d does not continue the stream", ErrLinkLost, entry.Index))
		}
	} else {
		s.index.note(entry.Index, entry.At, len(entry.Payload), e)
	}
	if s.link != nil && s.link.epoch != s.state.epoch {
		s.link.lose(fmt.Errorf("%w: another link has started", ErrLinkLost))
		s.link = nil
	}
	if e.purgedTo != 0 {
		s.purge(e.purgedTo, entry.Index)
	}
	if e.changed != 0 {
		s.settleLocked()
	}
	if done := s.waiters[e.request]; e.request != 0 && done != nil {
		delete(s.waiters, e.request)
		err := e.err
		if err == nil && e.void {
			err = errVoid
		}
		index := entry.Index
		if e.changed != 0 {
			index = e.changed
		}
		done <- applied{index: index, err: err}
	}
}

// purge lets go of what lies before the log index first. The index files stay
// until their segments are gone: a start may find the state before the purge.
func (s *Stream) purge(first, at uint64) {
	s.purged = append(s.purged, s.index.drop(first)...)
	if s.node != nil { // Open does it for what was replayed
		s.node.Release(first, at)
	}
}

// Checkpoint writes the index files before the checkpoint that lets a start rely
// on them. It holds no lock over that: what it reads is changed by this goroutine
// only.
func (m machine) Checkpoint(segment, first uint64) ([]byte, error) {
	s := m.s
	s.mu.Lock()
	s.index.block(segment) // a segment without any point has a file, too
	s.mu.Unlock()
	for _, b := range s.index.blocks {
		if !b.saved && !b.lost {
			if err := s.saveBlock(b); err != nil {
				return nil, err
			}
			b.saved = true
		}
	}
	for len(s.purged) > 0 && s.purged[0] < first {
		if err := s.cfg.FS.Remove(s.blockName(s.purged[0])); err != nil {
			s.log.Debug("remove an index file", "segment", s.purged[0], "error", err) // it may never have been written
		}
		s.purged = s.purged[1:]
	}
	return s.state.encode()
}
