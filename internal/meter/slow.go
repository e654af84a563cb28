package meter

import (
	"log/slog"
	"sync"
	"time"
)

// slowLog tells of transactions that took long to commit, or to be acknowledged where the
// source asked for that: of some each, and of the others how many they were, so that a
// disk that is slow for an hour does not fill the log.
type slowLog struct {
	log   *slog.Logger
	least time.Duration // 0: nobody is told of
	now   func() time.Time

	mu    sync.Mutex
	since time.Time // when the present period began
	told  int       // transactions in it that were told each
	more  int       // and that were not
	worst transaction
	first transaction // of those that were not
	from  string      // their source
}

const (
	// slowLines transactions are told each in slowPeriod.
	slowLines  = 10
	slowPeriod = 10 * time.Second
)

func newSlowLog(cfg Config) *slowLog {
	return &slowLog{log: cfg.Log, least: cfg.Slow, now: cfg.Now}
}

// took is from the receipt to the end of what the source waits for, as far as it came.
func (t *transaction) took() time.Duration {
	return time.Duration(max(t.committed, t.answered) - t.received)
}

// note looks at a transaction that is done.
func (s *slowLog) note(source string, t *transaction) {
	if s.least == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.more > 0 && s.now().Sub(s.since) >= slowPeriod {
		s.flushLocked()
	}
	if t.took() < s.least {
		return
	}
	if now := s.now(); now.Sub(s.since) >= slowPeriod {
		s.since, s.told = now, 0
	}
	if s.told < slowLines {
		s.told++
		s.log.Warn("a transaction was slow", append(t.attributes(source), t.steps()...)...)
		return
	}
	if s.more == 0 || t.took() > s.worst.took() {
		s.worst = *t
	}
	if s.more++; s.more == 1 {
		s.first, s.from = *t, source
	}
}

// flush tells of those that were not told each.
func (s *slowLog) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushLocked()
}

func (s *slowLog) flushLocked() {
	if s.more == 0 {
		return
	}
	attributes := append([]any{"count", s.more, "first_file", s.first.at.File, "first_pos", s.first.at.Pos}, s.worst.attributes(s.from)...)
	s.log.Warn("more transactions were slow; this is the slowest of them", append(attributes, s.worst.steps()...)...)
	s.more, s.told, s.since = 0, 0, time.Time{}
}

// attributes say which transaction it is.
func (t *transaction) attributes(source string) []any {
	out := []any{"source", source, "file", t.at.File, "pos", t.at.Pos}
	if !t.gtid.IsZero() {
		out = append(out, "gtid", t.gtid.String())
	}
	return append(out, "entry", t.entry)
}

// steps say where the time went, one after another: they add up to what it took. What is
// not known is a part of the next step. A run may have been synced, and even committed,
// before the one who proposed it was told that it is in the log.
func (t *transaction) steps() []any {
	out := []any{"took", t.took()}
	at := t.received
	for _, step := range []struct {
		name string
		end  moment
	}{{"propose", t.proposed}, {"sync", t.synced}, {"quorum", t.committed}, {"acknowledge", t.answered}} {
		if step.end == 0 {
			continue
		}
		end := max(step.end, at)
		if t.committed != 0 && step.name != "acknowledge" {
			end = min(end, max(at, t.committed))
		}
		out = append(out, step.name, time.Duration(end-at))
		at = end
	}
	return out
}
