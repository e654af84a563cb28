package meter

import (
	"log/slog"
	"sync"
	"time"
)

// slowLog tells of transactions that took long to commit, or to be acknowledged where the
// source asked for that, or on which the link has ended: of some each, and of the others how
// many they were, so that a disk that is slow for an hour does not fill the log.
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

	// What was not told each is told in time, also if nothing comes any more.
	timer  *time.Timer    // nil: none has begun
	timers sync.WaitGroup // that have neither flushed nor been stopped
	closed bool           // none begins
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
	last := max(t.committed, t.answered)
	if last == 0 {
		last = t.proposed // where the link has ended
	}
	return time.Duration(last - t.received)
}

// note looks at a transaction that is done, or broken off.
func (s *slowLog) note(source string, t *transaction) {
	if s.least == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.took() < s.least {
		return
	}
	now := s.now()
	if now.Sub(s.since) >= slowPeriod {
		s.flushLocked() // the timer is about to
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
		if !s.closed {
			s.timers.Add(1)
			s.timer = time.AfterFunc(slowPeriod-now.Sub(s.since), func() {
				defer s.timers.Done()
				s.flush()
			})
		}
	}
}

// close tells what is left to tell, and waits for the timer.
func (s *slowLog) close() {
	s.mu.Lock()
	s.closed = true
	s.flushLocked()
	s.mu.Unlock()
	s.timers.Wait()
}

// flush tells of those that were not told each.
func (s *slowLog) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushLocked()
}

func (s *slowLog) flushLocked() {
	if s.timer != nil && s.timer.Stop() {
		s.timers.Done()
	}
	if s.timer = nil; s.more == 0 {
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
	if t.entry != 0 {
		out = append(out, "entry", t.entry)
	}
	return out
}

// steps say where the time went, one after another: they add up to what it took. What is
// not known is a part of the next step. A run may have been synced, and even committed,
// before the one who proposed it was told that it is in the log. If the link has ended, the
// last one is the step in which it did.
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
	if t.during != "" {
		out = append(out, "broken_off", t.during)
	}
	return out
}
