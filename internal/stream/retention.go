package stream

import (
	"context"
	"encoding/json"
	"time"
)

// Retention says which files may be removed, whole and from the oldest on. The
// current file always stays. Zero values set no limit.
type Retention struct {
	// Bytes is how much binlog is kept: files are removed while those that stay
	// have at least that much.
	Bytes uint64
	// Age is how long a file is kept after its newest event.
	Age time.Duration
	// Force removes a file even if a connected replica still reads it, or one
	// before it.
	Force bool
}

// retainEvery is how often the leader looks whether files can go.
const retainEvery = 10 * time.Second

// retain proposes purges until ctx ends.
func (s *Stream) retain(ctx context.Context) error {
	tick := time.NewTicker(retainEvery)
	defer tick.Stop()
	for {
		if before := s.expired(); before != "" {
			if err := s.Purge(ctx, before); err != nil {
				return err
			}
			s.log.Info("removed binlog files", "before", before)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// expired returns the oldest file that has to stay, "" if nothing can go.
func (s *Stream) expired() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var r Retention
	if s.cfg.Retention != nil {
		r = s.cfg.Retention()
	}
	oldest := uint32(0)
	if !r.Force {
		oldest = s.neededAnywhereLocked()
	}
	return r.oldestKept(s.state.files, oldest, s.cfg.Now())
}

func (s *Stream) neededAnywhereLocked() uint32 {
	oldest := s.neededLocked()
	for _, extra := range s.node.PeerExtras(peerNeeds) {
		var p peerTold
		if err := json.Unmarshal(extra, &p); err == nil && p.Needs != 0 && (oldest == 0 || p.Needs < oldest) {
			oldest = p.Needs
		}
	}
	return oldest
}

// neededLocked returns the number of the oldest file that a reader of this node is
// in, 0 if there is none.
func (s *Stream) neededLocked() uint32 {
	oldest := uint32(0)
	for r := range s.readers {
		if oldest == 0 || r.file < oldest {
			oldest = r.file
		}
	}
	return oldest
}

// peerNeeds is how long what a node said of its readers counts after it was last
// heard from: they may come back to it.
const peerNeeds = time.Minute

// peerTold is what a node tells the others of its stream.
type peerTold struct {
	Needs uint32 `json:"needs"` // number of the oldest file that a reader is in
	// Told is what the user of the stream tells.
	Told json.RawMessage `json:"told,omitempty"`
}

func (s *Stream) tellPeers() json.RawMessage {
	s.mu.RLock()
	needs := s.neededLocked()
	s.mu.RUnlock()
	told := peerTold{Needs: needs}
	if s.cfg.Tell != nil {
		told.Told = s.cfg.Tell()
	}
	b, _ := json.Marshal(told) // cannot fail
	return b
}

// heardPeer passes on what a node tells as it comes.
func (s *Stream) heardPeer(node string, extra json.RawMessage) {
	var p peerTold
	if s.cfg.Told != nil && json.Unmarshal(extra, &p) == nil && len(p.Told) > 0 {
		s.cfg.Told(node, p.Told)
	}
}

// oldestKept decides: needed is the number of the oldest file that a replica
// reads, 0 if there is none.
func (r Retention) oldestKept(files []file, needed uint32, now time.Time) string {
	if len(files) == 0 {
		return ""
	}
	var total uint64
	for _, f := range files {
		total += f.size
	}
	n := 0
	for ; n < len(files)-1; n++ {
		f := files[n]
		tooMuch := r.Bytes > 0 && total-f.size >= r.Bytes
		tooOld := r.Age > 0 && time.Unix(int64(f.written), 0).Before(now.Add(-r.Age))
		if !tooMuch && !tooOld || needed != 0 && f.number >= needed {
			break
		}
		total -= f.size
	}
	if n == 0 {
		return ""
	}
	return files[n].name
}
