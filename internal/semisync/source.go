package semisync

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"kingbus/internal/gtid"
	"kingbus/internal/hook"
)

// Source is kingbus's part towards its replicas: an observer of hook.Transaction and
// hook.Transmit. A transaction waits for it from the moment in which it is applied on
// this node; nobody stands still meanwhile, but all is decided and counted as MySQL
// does. It is safe for concurrent use.
type Source struct {
	hook.NoTransaction
	hook.NoTransmission
	binlog Binlog
	log    *slog.Logger
	now    func() time.Time

	stop chan struct{}
	once sync.Once
	done sync.WaitGroup
	wake chan struct{} // somebody waits who has to be given up in time

	mu    sync.Mutex
	waits *waits
	last  hook.Position // the same place as waits.committed
	dumps map[*hook.Dump]*reader
	named map[string]int // dumps of each replica, by name

	// chained is where transactions have ended, at which replicas are asked whatever
	// becomes of waits: the acknowledgement to the source waits for them. nil: it does not.
	chained *ends
	acked   func(name string, at hook.Position) // told of each acknowledgement then
	have    map[string]hook.Position            // what its replicas have, connected or not
}

// Binlog is what a Source needs to know of the stream.
type Binlog interface {
	// FileNumber returns the number of a file of the stream: they count up by one.
	FileNumber(name string) (number uint32, ok bool)
	// Executed returns all transactions of the stream on this node.
	Executed() gtid.Set
}

// reader is a replica that is semi-synchronous.
type reader struct {
	name string // its uuid, or what else tells it from others
	file string // the one that is being sent, and its number
	numb uint32
	sent place
	head int // where its header begins among those of others
}

// NewSource returns an observer; Close ends it.
func NewSource(settings WaitSettings, binlog Binlog, log *slog.Logger) *Source {
	settings.Replicas = max(1, settings.Replicas)
	s := &Source{
		binlog: binlog, log: log, now: time.Now, stop: make(chan struct{}), wake: make(chan struct{}, 1),
		waits: newWaits(settings), have: map[string]hook.Position{}, dumps: map[*hook.Dump]*reader{}, named: map[string]int{},
	}
	s.done.Go(s.watch)
	return s
}

// Tell has acked called, which must not block, with what replicas have acknowledged, while
// the acknowledgement to the source waits for replicas (Configure). It is called once, before
// Observe.
func (s *Source) Tell(acked func(name string, at hook.Position)) { s.acked = acked }

// Configure changes the settings. chained makes it ask at every transaction's end, and tell
// what its replicas have: see Replica.Configure, also for when it must be called.
func (s *Source) Configure(settings WaitSettings, chained bool) {
	settings.Replicas = max(1, settings.Replicas)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !chained:
		s.chained = nil
	case s.chained == nil:
		s.chained = &ends{}
		s.chained.add(s.waits.committed)
	}
	if settings != s.waits.WaitSettings {
		s.waits.configure(settings, s.now())
		select { // there may be less time
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Have returns what the replicas of this node have, those that were connected lately
// among them; nil while nobody waits for them (Configure).
func (s *Source) Have() map[string]hook.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chained == nil {
		return nil
	}
	return maps.Clone(s.have)
}

// maxHave bounds of how many replicas it is remembered what they have.
const maxHave = 256

// noteLocked notes what a replica has, and returns what tells of it, to be called
// without the lock.
func (s *Source) noteLocked(name, file string, at place) func() {
	for other := range s.have {
		if len(s.have) >= maxHave && s.named[other] == 0 {
			delete(s.have, other) // it has gone
		}
	}
	p := hook.Position{File: file, Pos: at.pos}
	s.have[name] = p
	if s.chained == nil {
		return func() {}
	}
	return func() { s.acked(name, p) }
}

// Observe registers it with all hooks that it needs.
func (s *Source) Observe(set *hook.Set) {
	set.Transaction = append(set.Transaction, s)
	set.Transmit = append(set.Transmit, s)
}

// Close ends the goroutine that watches the time. It is idempotent.
func (s *Source) Close() {
	s.once.Do(func() { close(s.stop) })
	s.done.Wait()
}

// watch falls back when somebody has waited too long.
func (s *Source) watch() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.mu.Lock()
		was := s.waits.on
		late := s.waits.expire(s.now())
		fell, nobody, last, timeout := was && !s.waits.on, len(s.named) == 0, s.last, s.waits.Timeout
		s.mu.Unlock()
		switch {
		case fell && nobody: // as everywhere where no replica is semi-synchronous
			s.log.Info("no semi-synchronous replica is connected: nothing waits for one", "file", last.File, "pos", last.Pos, "timeout", timeout)
		case fell:
			s.log.Warn("no replica has acknowledged in time: semi-synchronous replication is off until one has caught up", "file", last.File, "pos", last.Pos, "timeout", timeout)
		}
		if late.IsZero() {
			timer.Reset(time.Hour)
		} else {
			timer.Reset(time.Until(late))
		}
		select {
		case <-s.stop:
			return
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// Begin tells where the binlog ends that was there when the process started: nobody
// waits for that.
func (s *Source) Begin(end hook.Position) {
	file, ok := s.binlog.FileNumber(end.File)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := place{file, end.Pos}
	if at.compare(s.waits.committed) > 0 {
		s.waits.committed, s.last = at, end
	}
	if s.chained != nil {
		s.chained.add(at)
	}
}

// AfterCommit implements hook.Transaction.
func (s *Source) AfterCommit(c hook.Commit) {
	file, ok := s.binlog.FileNumber(c.At.File)
	if !ok {
		return // purged already
	}
	s.mu.Lock()
	none := len(s.waits.waiting) == 0
	s.last = c.At
	s.waits.commit(place{file, c.At.Pos}, c.Count, s.now())
	first := none && len(s.waits.waiting) > 0
	if s.chained != nil {
		s.chained.add(place{file, c.At.Pos})
	}
	s.mu.Unlock()
	if first {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Start implements hook.Transmit: a replica that has announced it is semi-synchronous
// from its first packet on, whether or not the source is on. What its request contains
// it has.
func (s *Source) Start(d *hook.Dump) (hook.Transmission, error) {
	if !isSet(d.Variable("rpl_semi_sync_replica")) && !isSet(d.Variable("rpl_semi_sync_slave")) {
		return nil, nil
	}
	r := &reader{name: d.Name()}
	has := false
	var at place
	var last hook.Position
	if d.GTID {
		s.mu.Lock()
		at, last = s.waits.committed, s.last // before the set is looked at, which then has no less
		s.mu.Unlock()
		has = d.Have.ContainsSet(s.binlog.Executed())
	} else if file, ok := s.binlog.FileNumber(d.From.File); ok {
		at, has = place{file, d.From.Pos}, true
		r.sent = at
	}
	from, known := s.binlog.FileNumber(d.From.File)
	s.mu.Lock()
	s.dumps[d] = r
	s.named[r.name]++
	s.waits.join(r.name)
	if has {
		s.ackLocked(r, at)
	}
	tell := func() {}
	if s.chained != nil {
		switch {
		case d.GTID && has:
			tell = s.noteLocked(r.name, last.File, at)
		case known: // by GTIDs, too: it has what lies before the place where it begins
			tell = s.noteLocked(r.name, d.From.File, place{from, d.From.Pos})
		}
	}
	s.mu.Unlock()
	tell()
	s.log.Info("a semi-synchronous replica", who(d)...)
	return s, nil
}

// who says which replica it is, and where its dump began.
func who(d *hook.Dump) []any {
	return []any{"session", d.Session, "from", d.Address, "replica", d.Name(), "server_id", d.ServerID, "file", d.From.File, "pos", d.From.Pos}
}

func isSet(value string) bool { return value != "" && value != "0" }

// ackLocked notes an acknowledgement, and says so if it brings the source back on.
func (s *Source) ackLocked(r *reader, at place) {
	was := s.waits.on
	s.waits.ack(r.name, at, s.now())
	if s.waits.on && !was {
		s.log.Info("a replica has caught up: semi-synchronous replication is on", "replica", r.name, "file", s.last.File, "pos", s.last.Pos)
	}
}

// ReserveHeader implements hook.Transmission.
func (s *Source) ReserveHeader(d *hook.Dump, header []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dumps[d].head = len(header)
	return append(header, magic, 0)
}

// BeforeSend implements hook.Transmission.
func (s *Source) BeforeSend(d *hook.Dump, e *hook.Sending) error {
	s.mu.Lock()
	r := s.dumps[d]
	s.mu.Unlock()
	if r.file != e.At.File { // these two are of the dump's goroutine only
		number, ok := s.binlog.FileNumber(e.At.File)
		if !ok {
			return nil // it is being purged: nobody waits for what is in it
		}
		r.file, r.numb = e.At.File, number
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := place{r.numb, e.At.Pos}
	if r.sent.compare(at) < 0 {
		r.sent = at
	}
	if s.waits.asks(at) || s.chained != nil && s.chained.asks(at) {
		e.Header[r.head+1] |= flagAsk
		e.Asked, e.Restart = true, true
	}
	return nil
}

// Received implements hook.Transmission: an acknowledgement. MySQL believes any; what was
// never sent is refused here, as somebody would take it for safe.
func (s *Source) Received(d *hook.Dump, packet []byte) {
	s.receive(d, packet)()
}

// receive returns what tells of the acknowledgement, to be called without the lock.
func (s *Source) receive(d *hook.Dump, packet []byte) (tell func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	nobody := func() {}
	r := s.dumps[d]
	file, at, err := s.parseAck(packet)
	if err == nil && at.compare(r.sent) > 0 {
		err = fmt.Errorf("it is for position %d of file number %d, but only %d of file number %d was sent", at.pos, at.file, r.sent.pos, r.sent.file)
	}
	if err != nil {
		n := s.waits.counts.Refused + 1
		if s.waits.counts.Refused = n; n&(n-1) != 0 {
			return nobody // the 1st, 2nd, 4th, 8th … are told
		}
		s.log.Warn("refused a semi-sync acknowledgement", append(who(d), "refused", n, "error", err)...)
		return nobody
	}
	s.waits.counts.Replies++
	s.ackLocked(r, at)
	noted := s.noteLocked(r.name, file, at)
	return func() {
		noted()
		d.Acknowledged(hook.Position{File: file, Pos: at.pos})
	}
}

// parseAck reads u8 magic, u64 position, the file's name to the end of the packet.
func (s *Source) parseAck(p []byte) (file string, at place, err error) {
	const head = 1 + 8
	switch {
	case len(p) == 0 || p[0] != magic:
		return "", place{}, fmt.Errorf("it does not begin with the magic number %#x", magic)
	case len(p) < head+1:
		return "", place{}, fmt.Errorf("it has only %d bytes", len(p))
	case len(p) > head+maxFileName+1:
		return "", place{}, fmt.Errorf("its file name has %d bytes", len(p)-head)
	}
	name := p[head:]
	if name[len(name)-1] == 0 { // some send the end of their string along
		name = name[:len(name)-1]
	}
	number, ok := s.binlog.FileNumber(string(name))
	if !ok {
		return "", place{}, fmt.Errorf("there is no file %.64q", name)
	}
	return string(name), place{number, binary.LittleEndian.Uint64(p[1:])}, nil
}

// Stop implements hook.Transmission.
func (s *Source) Stop(d *hook.Dump) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.dumps[d]
	delete(s.dumps, d)
	if s.named[r.name]--; s.named[r.name] == 0 {
		delete(s.named, r.name)
		s.waits.leave(r.name)
	}
}

// SourceStatus is what operators see of a Source.
type SourceStatus struct {
	WaitSettings
	Counts
	// Clients is how many semi-sync replicas are connected; On tells whether transactions
	// wait for them.
	Clients int  `json:"clients"`
	On      bool `json:"on"`
	// Waiting is how many transactions wait at present.
	Waiting uint64 `json:"waiting"`
}

// Status returns a snapshot.
func (s *Source) Status() SourceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SourceStatus{WaitSettings: s.waits.WaitSettings, Counts: s.waits.counts, Clients: len(s.named), On: s.waits.Enabled && s.waits.on}
	for _, w := range s.waits.waiting {
		st.Waiting += w.n
	}
	return st
}
