package semisync

import (
	"cmp"
	"slices"
	"time"
)

// waits is the decision of a semi-sync source: what it waits for, which events ask,
// who has acknowledged what, when to give up and when to begin again. It is pure, and
// counts what MySQL counts (ReplSemiSyncMaster in plugin/semisync/semisync_source.cc).
type waits struct {
	WaitSettings
	on        bool
	committed place  // the newest transaction; zero: none yet
	reply     place  // what enough replicas have, since the source is on; zero: nothing
	waiting   []wait // ascending
	replicas  map[string]place
	counts    Counts
}

// WaitSettings are those of MySQL, under names without prefix.
type WaitSettings struct {
	// Enabled is rpl_semi_sync_source_enabled.
	Enabled bool `json:"enabled"`
	// Timeout is how long to wait before falling back, in nanoseconds.
	Timeout time.Duration `json:"timeout"`
	// Replicas is wait_for_replica_count: how many have to acknowledge, at least 1.
	Replicas int `json:"wait_for_replica_count"`
	// NoReplica is wait_no_replica: wait, for the time of Timeout, although fewer replicas
	// than that are connected.
	NoReplica bool `json:"wait_no_replica"`
}

// Counts are MySQL's status variables, since the process started.
type Counts struct {
	YesTx      uint64        `json:"yes_tx"`       // transactions that were acknowledged in time
	NoTx       uint64        `json:"no_tx"`        // and that were not
	NoTimes    uint64        `json:"no_times"`     // how often the source has fallen back
	TxWaits    uint64        `json:"tx_waits"`     // transactions that had to wait
	TxWaitTime time.Duration `json:"tx_wait_time"` // of all of them, in nanoseconds
	Replies    uint64        `json:"replies"`      // acknowledgements that were taken
	Refused    uint64        `json:"refused"`      // and that were not: they make no sense, or are for what was never sent
}

// place is a position in the binlog: number of the file, and position.
type place struct {
	file uint32
	pos  uint64
}

func (p place) compare(q place) int {
	if c := cmp.Compare(p.file, q.file); c != 0 {
		return c
	}
	return cmp.Compare(p.pos, q.pos)
}

// wait is a place for which n transactions wait.
type wait struct {
	at    place
	n     uint64
	since time.Time
}

// maxWaiting bounds what is remembered of those who wait; more of them wait for a
// later place together.
const maxWaiting = 64 << 10

func newWaits(s WaitSettings) *waits {
	return &waits{WaitSettings: s, on: s.Enabled && s.NoReplica, replicas: map[string]place{}}
}

// commit notes that n transactions have ended up to a place.
func (w *waits) commit(at place, n uint64, now time.Time) {
	w.committed = at
	switch {
	case !w.Enabled:
	case !w.on:
		w.counts.NoTx += n
	case at.compare(w.reply) <= 0:
		w.counts.YesTx += n
	case len(w.waiting) >= maxWaiting:
		last := &w.waiting[len(w.waiting)-1]
		last.at, last.n = at, last.n+n
	default:
		w.waiting = append(w.waiting, wait{at, n, now})
	}
}

// configure changes the settings, with what MySQL makes of that: switched off, or with nobody
// to wait for, nobody waits any more; switched on, or told to wait although nobody is there,
// the next transaction waits.
func (w *waits) configure(s WaitSettings, now time.Time) {
	was := w.WaitSettings
	w.WaitSettings = s
	enough := s.NoReplica || len(w.replicas) >= s.Replicas
	switch {
	case !s.Enabled:
		if was.Enabled {
			w.fallBack()
		}
	case !was.Enabled, s.NoReplica && !was.NoReplica:
		w.on = w.on || enough
	case !enough && w.on:
		w.fallBack()
	}
	if w.reply = (place{}); w.on {
		w.release(now)
	}
}

// join and leave are replicas that come and go, each under a name of its own.
func (w *waits) join(name string) {
	if _, there := w.replicas[name]; !there {
		w.replicas[name] = place{}
	}
}

func (w *waits) leave(name string) {
	delete(w.replicas, name)
	if !w.NoReplica && len(w.replicas) < w.Replicas && w.on {
		w.fallBack()
	}
}

// ack notes that a replica has everything up to a place.
func (w *waits) ack(name string, at place, now time.Time) {
	had, there := w.replicas[name]
	if !there {
		return
	}
	if at.compare(had) > 0 {
		w.replicas[name] = at
	}
	group, enough := w.group()
	if !w.Enabled || !enough {
		return
	}
	if !w.on {
		if group.compare(w.committed) < 0 {
			return
		}
		w.on = true
	}
	w.release(now)
}

// release lets go of what enough replicas have.
func (w *waits) release(now time.Time) {
	group, enough := w.group()
	if !enough || group.compare(w.reply) <= 0 {
		return
	}
	w.reply = group
	n := 0
	for ; n < len(w.waiting) && w.waiting[n].at.compare(group) <= 0; n++ {
		wt := w.waiting[n]
		w.counts.YesTx += wt.n
		w.counts.TxWaits += wt.n
		w.counts.TxWaitTime += time.Duration(wt.n) * now.Sub(wt.since)
	}
	w.waiting = slices.Delete(w.waiting, 0, n)
}

// group returns what enough replicas have; false: there are not so many.
func (w *waits) group() (place, bool) {
	if len(w.replicas) < w.Replicas {
		return place{}, false
	}
	all := make([]place, 0, len(w.replicas))
	for _, p := range w.replicas {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b place) int { return b.compare(a) })
	return all[w.Replicas-1], true
}

// expire falls back if the oldest has waited too long, and returns when to look
// again; zero: nobody waits.
func (w *waits) expire(now time.Time) time.Time {
	if len(w.waiting) == 0 {
		return time.Time{}
	}
	late := w.waiting[0].since.Add(w.Timeout)
	if now.Before(late) {
		return late
	}
	w.fallBack()
	return time.Time{}
}

// fallBack makes the source asynchronous: nobody waits any more.
func (w *waits) fallBack() {
	w.on = false
	w.counts.NoTimes++
	w.reply = place{}
	for _, wt := range w.waiting {
		w.counts.NoTx += wt.n
	}
	w.waiting = nil
}

// asks tells whether the event that ends at a place asks for an acknowledgement: while
// the source waits, if it waits for this very place, or has not heard of it yet, as
// replicas may be faster than commit is told; else if it is at the end of the binlog, so
// as to learn when a replica has caught up.
func (w *waits) asks(at place) bool {
	switch {
	case !w.Enabled:
		return false
	case !w.on:
		return at.compare(w.committed) >= 0
	}
	_, waited := slices.BinarySearchFunc(w.waiting, at, func(wt wait, at place) int { return wt.at.compare(at) })
	return waited || at.compare(w.committed) > 0
}

// ends are the ends of the newest transactions, at most maxWaiting: where replicas are
// asked so long as anybody may wait for them.
type ends struct{ list []place }

// add notes an end.
func (e *ends) add(at place) {
	if n := len(e.list); n > 0 && at.compare(e.list[n-1]) <= 0 {
		return
	}
	if len(e.list) >= maxWaiting {
		e.list = slices.Delete(e.list, 0, maxWaiting/2)
	}
	e.list = append(e.list, at)
}

// asks tells whether the event that ends at a place asks. Replicas may be faster than add.
func (e *ends) asks(at place) bool {
	i, there := slices.BinarySearchFunc(e.list, at, place.compare)
	return there || i == len(e.list)
}
