package semisync

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/hook"
	"kingbus/internal/wire"
)

// Mode says whether kingbus is a semi-sync replica of its source.
type Mode string

// The modes.
const (
	// ModeAuto: if the source offers it.
	ModeAuto Mode = "auto"
	// ModeOn: always; a source that does not offer it is not followed.
	ModeOn Mode = "on"
	// ModeOff: never.
	ModeOff Mode = "off"
)

// ParseMode reads a mode.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case ModeAuto, ModeOn, ModeOff:
		return m, nil
	}
	return "", fmt.Errorf("semi-sync is auto, on or off, not %q", s)
}

// The packets (plugin/semisync/semisync.h).
const (
	magic       = 0xef // the first byte of both the header and the answer
	headerSize  = 2    // u8 magic, u8 flag
	flagAsk     = 1 << 0
	maxFileName = 511 // bytes; a source takes no longer one (FN_REFLEN)
)

// Replica is kingbus's part towards its source: an observer of hook.RelayIO and
// hook.Storage. It is safe for concurrent use.
type Replica struct {
	hook.NoTransaction
	hook.NoRelayIO
	hook.NoStorage
	mode   Mode
	stream Binlog
	log    *slog.Logger
	now    func() time.Time

	mu      sync.Mutex
	link    *answers // of the present connection; nil: none, or nothing was negotiated
	chain   *chain
	durable hook.Position           // at the source, of the present connection
	has     map[string]Acknowledged // what replicas have, as far as chain remembers them
	held    bool                    // it was told that the source waits for replicas
	status  Status
}

// Status is what operators see of it.
type Status struct {
	Mode Mode `json:"mode"`
	// Offered tells that the source has semi-sync, Enabled that it is switched on
	// there, both as of the last connection.
	Offered bool  `json:"offered"`
	Enabled bool  `json:"enabled"`
	State   State `json:"state"`
	// Since is when State was first seen. FellBack is how often the source has fallen
	// back while this node followed it, by the source's own count.
	Since    time.Time `json:"since,omitzero"`
	FellBack uint64    `json:"fell_back"`
	// Asked and Acknowledged count events, and answers, each of which may be for many.
	Asked        uint64 `json:"asked"`
	Acknowledged uint64 `json:"acknowledged"`
	// Last is the last answer.
	Last   hook.Position `json:"last,omitzero"`
	LastAt time.Time     `json:"last_at,omitzero"`
	// Chain is about replicas that the answers wait for, too; nil: they do not.
	Chain *ChainStatus `json:"chain,omitempty"`
}

// ChainStatus is what operators see of an acknowledgement that waits for replicas.
type ChainStatus struct {
	ChainSettings
	State ChainState `json:"state"`
	// Waiting is how many answers wait, the oldest since Since.
	Waiting int       `json:"waiting"`
	Since   time.Time `json:"since,omitzero"`
	// Degraded is how often replicas took too long, and the quorum was enough.
	Degraded uint64 `json:"degraded"`
	// Have is what replicas have acknowledged, by name, on all nodes.
	Have []Acknowledged `json:"have"`
}

// Acknowledged is a replica, the node that it told, and up to where it has the served
// binlog.
type Acknowledged struct {
	Replica string        `json:"replica"`
	Node    string        `json:"node"`
	At      hook.Position `json:"at"`
}

// ChainState is how it stands with the replicas.
type ChainState string

// The states.
const (
	// ChainIdle: this node does not follow the source, or the source has no semi-sync.
	ChainIdle ChainState = "nothing to acknowledge on this node"
	// ChainWaits: what is durable is acknowledged when replicas have it.
	ChainWaits ChainState = "the quorum and the replicas"
	// ChainDegraded: they took too long.
	ChainDegraded ChainState = "the quorum alone, since replicas took too long: until they keep up again"
	// ChainHolds: they take too long, and the source waits.
	ChainHolds ChainState = "commits at the source hang until replicas have what waits"
)

// State is what the source makes of semi-sync, by its own word.
type State string

// The states.
const (
	// StateOff: nothing was negotiated.
	StateOff State = "off"
	// StateUnknown: it was, and the source was not asked yet.
	StateUnknown State = "not known yet"
	// StateWaiting: commits at the source wait for kingbus.
	StateWaiting State = "the source waits for kingbus"
	// StateAsync: the source has fallen back, and waits again once kingbus has caught
	// up.
	StateAsync State = "the source has fallen back to asynchronous replication"
	// StateDisabled: semi-sync is switched off at the source.
	StateDisabled State = "semi-sync is disabled at the source"
)

// answers is the state of one connection.
type answers struct {
	*hook.Link
	name  string // "source" or "master", in the names of the source's variables
	acks  *acks
	wake  chan struct{} // something may be due
	waits chan struct{} // answers have begun to wait for replicas
	group sync.WaitGroup
}

// Observe registers it with all hooks that it needs.
func (r *Replica) Observe(s *hook.Set) {
	s.Transaction = append(s.Transaction, r)
	s.Storage = append(s.Storage, r)
	s.RelayIO = append(s.RelayIO, r)
}

// NewReplica returns an observer.
func NewReplica(mode Mode, settings ChainSettings, stream Binlog, log *slog.Logger) *Replica {
	return &Replica{
		mode: mode, stream: stream, log: log, now: time.Now, chain: newChain(settings), has: map[string]Acknowledged{},
		status: Status{Mode: mode, State: StateOff},
	}
}

// Configure changes the settings. The mode holds from the next connection on. It must be
// called between the applying of two entries, on all nodes at the same place of the log:
// what is committed behind that, replicas are asked about wherever they hang.
func (r *Replica) Configure(mode Mode, settings ChainSettings) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mode, r.status.Mode = mode, mode
	if settings == r.chain.ChainSettings {
		return
	}
	r.log.Info("acknowledgements to the source wait for others than before", "for", FormatAcknowledge(settings.Replicas), "timeout", settings.Timeout, "on_timeout", settings.Policy)
	if r.chain.configure(settings) {
		r.releasedLocked()
	}
	if r.link != nil { // there may be less time
		r.link.watchReplicas()
	}
}

// Status returns a snapshot.
func (r *Replica) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.status
	if r.chain.Replicas == 0 {
		return st
	}
	c := &ChainStatus{ChainSettings: r.chain.ChainSettings, State: ChainIdle, Waiting: len(r.chain.waiting), Degraded: r.chain.times, Have: []Acknowledged{}}
	if c.Waiting > 0 {
		c.Since = r.chain.waiting[0].since
	}
	for _, has := range r.has {
		c.Have = append(c.Have, has)
	}
	slices.SortFunc(c.Have, func(a, b Acknowledged) int { return strings.Compare(a.Replica, b.Replica) })
	switch {
	case r.link == nil:
	case r.chain.degraded:
		c.State = ChainDegraded
	case c.Waiting > 0 && r.chain.Policy == PolicyHold && !r.now().Before(r.chain.late()):
		c.State = ChainHolds
	default:
		c.State = ChainWaits
	}
	st.Chain = c
	return st
}

// NotOffered is the error of a link that has to be semi-sync with a source that is
// not.
type NotOffered struct{ Source string }

func (e *NotOffered) Error() string {
	return "the source " + e.Source + " has no semi-synchronous replication, and --semi-sync=on"
}

// NextStep says what an operator can do.
func (e *NotOffered) NextStep() string {
	return "on the source: INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so' (before 8.0.26: rpl_semi_sync_master, semisync_master.so), or use --semi-sync=auto"
}

// BeforeRequest implements hook.RelayIO: it looks whether the source has semi-sync
// and, if so, announces a semi-sync replica. The source asks then from the first
// event on, in its own time.
func (r *Replica) BeforeRequest(ctx context.Context, l *hook.Link) error {
	r.mu.Lock()
	mode := r.mode
	r.mu.Unlock()
	if mode == ModeOff {
		return nil
	}
	name, value, offered, err := probe(ctx, l)
	if err != nil {
		return fmt.Errorf("ask for semi-synchronous replication: %w", err)
	}
	r.mu.Lock()
	r.status.Offered, r.status.Enabled = offered, value == "1" || value == "ON"
	r.mu.Unlock()
	if !offered {
		if mode == ModeOn {
			return &NotOffered{l.Source}
		}
		return nil
	}
	// 9.7 looks at the new name only, sources before 8.0.26 at the old one only.
	if _, err := l.Query(ctx, "SET @rpl_semi_sync_replica = 1, @rpl_semi_sync_slave = 1"); err != nil {
		return fmt.Errorf("announce a semi-synchronous replica: %w", err)
	}
	a := &answers{Link: l, name: name, acks: newAcks(l.Durable), wake: make(chan struct{}, 1), waits: make(chan struct{}, 1)}
	var served place
	served.file, _ = r.stream.FileNumber(l.Served.File) // 0: nothing was ever stored
	served.pos = l.Served.Pos
	r.mu.Lock()
	r.link, r.durable = a, l.Durable
	r.chain.begin(served, l.Durable, r.now())
	if len(r.chain.waiting) > 0 {
		// The source takes what a replica asks for as an acknowledgement of all before it
		// (repl_semi_sync binlog_dump start hook, seen with 9.7). So it is asked for what was
		// let go at last, as far as that is in the same file, and for its beginning if not.
		l.From.Pos = binlog.MagicSize
		if last := r.chain.allowed; last.File == l.From.File && last.Pos <= l.Durable.Pos {
			l.From.Pos = max(last.Pos, binlog.MagicSize)
		}
		a.acks = newAcks(l.From)
		a.waits <- struct{}{}
	}
	r.changeLocked(StateUnknown)
	r.mu.Unlock()
	a.group.Go(func() { r.answer(a) })
	a.group.Go(func() { r.watch(a) })
	a.group.Go(func() { r.expire(a) })
	return nil
}

// AfterCommit implements hook.Transaction: replicas have to have it, too.
func (r *Replica) AfterCommit(c hook.Commit) {
	file, ok := r.stream.FileNumber(c.At.File)
	if !ok {
		return // purged already
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	none := len(r.chain.waiting) == 0
	r.chain.commit(place{file, c.At.Pos}, c.Source, r.now(), r.link != nil && r.link.Epoch == c.Epoch)
	if r.link != nil && none && len(r.chain.waiting) > 0 {
		r.link.watchReplicas()
	}
}

// watchReplicas has expire look again.
func (a *answers) watchReplicas() {
	select {
	case a.waits <- struct{}{}:
	default:
	}
}

// Has notes that a replica, on whichever node, has everything up to a place in the served
// binlog.
func (r *Replica) Has(name, node string, at hook.Position) {
	if len(name) > maxReplicaName || len(node) > maxReplicaName {
		return
	}
	file, ok := r.stream.FileNumber(at.File)
	if !ok {
		return // purged already
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.chain.Replicas == 0 {
		return
	}
	degraded := r.chain.degraded
	released := r.chain.has(name, place{file, at.Pos}, r.now())
	if p := r.chain.replicas[name]; p == (place{file, at.Pos}) {
		r.has[name] = Acknowledged{name, node, at}
	}
	maps.DeleteFunc(r.has, func(name string, _ Acknowledged) bool { _, there := r.chain.replicas[name]; return !there })
	if released {
		r.releasedLocked()
	}
	if degraded && !r.chain.degraded {
		r.hereLocked().Info("replicas keep up: acknowledgements to the source wait for them again", "replicas", r.chain.Replicas)
	}
}

// maxReplicaName bounds the name of a replica, and of its node, in bytes.
const maxReplicaName = 64

// releasedLocked lets the answers go that replicas have held up.
func (r *Replica) releasedLocked() {
	none := len(r.chain.waiting) == 0
	if none && r.held {
		r.held = false
		r.hereLocked().Info("replicas have caught up: the source waits no longer for them")
	}
	if r.link == nil {
		return
	}
	if at := r.chain.allowed; none {
		r.link.acks.reached(r.durable)
	} else if slices.Contains(r.link.acks.files, at.File) { // else it lies before all that this connection asks for
		r.link.acks.reached(at)
	}
	r.link.notify()
}

// expire watches how long replicas take.
func (r *Replica) expire(a *answers) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-a.Ended:
			return
		case <-a.waits:
		case <-timer.C:
		}
		r.mu.Lock()
		now, late := r.now(), r.chain.late()
		switch {
		case late.IsZero(), r.link != a:
			timer.Reset(time.Hour)
		case now.Before(late):
			timer.Reset(late.Sub(now))
		case r.chain.expire(now):
			r.hereLocked().Warn("replicas take too long: the source is acknowledged what a quorum has, until they keep up again", "replicas", r.chain.Replicas, "timeout", r.chain.Timeout)
			r.releasedLocked()
			timer.Reset(time.Hour)
		default: // it is held until they have it
			if !r.held {
				r.held = true
				r.hereLocked().Warn("replicas take too long: commits at the source hang until they have what waits", "replicas", r.chain.Replicas, "timeout", r.chain.Timeout,
					"next_step", "see `kingbus status` which replicas lag; or SET GLOBAL kingbus_acknowledge = 'quorum', on any node")
			}
			timer.Reset(r.chain.Timeout)
		}
		r.mu.Unlock()
	}
}

// probe asks for the variable that says that a source can do it, under both names.
// Its value does not matter: it may be switched on at any time.
func probe(ctx context.Context, l *hook.Link) (name, value string, offered bool, err error) {
	for _, name = range []string{"source", "master"} {
		rows, err := l.Query(ctx, "SELECT @@global.rpl_semi_sync_"+name+"_enabled")
		if wire.IsCode(err, wire.ErUnknownSystemVariable) {
			continue
		}
		if err != nil {
			return "", "", false, err
		}
		if len(rows) > 0 && len(rows[0]) > 0 {
			return name, string(rows[0][0]), true, nil
		}
	}
	return "", "", false, nil
}

// AfterRead implements hook.RelayIO: it takes the header off.
func (r *Replica) AfterRead(_ *hook.Link, p *hook.Packet) error {
	a := r.current()
	if a == nil {
		return nil
	}
	if len(p.Head) < headerSize || p.Head[0] != magic {
		return errors.New("semi-sync was negotiated, but a packet has no semi-sync header")
	}
	p.Skip += headerSize
	if p.Head[1]&flagAsk != 0 {
		p.Asked, p.Restart = true, true
	}
	return nil
}

// current returns the state of the connection, which the goroutine that receives
// may use without the lock as far as it alone does.
func (r *Replica) current() *answers {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.link
}

// AfterQueue implements hook.RelayIO.
func (r *Replica) AfterQueue(_ *hook.Link, q *hook.Queued) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.link
	if a == nil {
		return
	}
	a.acks.entered(q.At.File)
	if !q.Asked {
		return
	}
	r.status.Asked++
	a.acks.asked(q.At, q.Boundary)
	a.notify()
}

// AfterSync implements hook.Storage.
func (r *Replica) AfterSync(source hook.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link == nil {
		return
	}
	r.durable = source
	if len(r.chain.waiting) == 0 {
		r.link.acks.reached(source)
		r.link.notify()
	}
}

func (a *answers) notify() {
	if len(a.acks.waiting) == 0 || !a.acks.holds(a.acks.waiting[0]) {
		return
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Stop implements hook.RelayIO. It waits for the goroutines of the connection.
func (r *Replica) Stop(*hook.Link) {
	r.mu.Lock()
	a := r.link
	if a != nil {
		r.changeLocked(StateOff)
	}
	r.link, r.held = nil, false
	r.chain.end()
	r.mu.Unlock()
	if a != nil {
		a.group.Wait()
	}
}

// hereLocked is the log for lines about the link to the source: they say up to where
// everything is durable.
func (r *Replica) hereLocked() *slog.Logger {
	if r.link == nil {
		return r.log
	}
	return r.log.With("source", r.link.Source, "file", r.durable.File, "pos", r.durable.Pos)
}

// changeLocked notes a state of the source.
func (r *Replica) changeLocked(s State) {
	st := &r.status
	if st.State == s {
		return
	}
	st.State, st.Since = s, r.now()
	switch s {
	case StateAsync:
		r.hereLocked().Warn("the source has fallen back to asynchronous replication: its commits do not wait for kingbus any more")
	case StateWaiting:
		r.hereLocked().Info("the source waits for kingbus before it confirms commits (semi-synchronous replication)")
	default:
		r.hereLocked().Debug("semi-synchronous replication", "state", s)
	}
}

// answer sends what is due until the connection ends.
func (r *Replica) answer(a *answers) {
	var packet []byte
	for {
		select {
		case <-a.Ended:
			return
		case <-a.wake:
		}
		r.mu.Lock()
		at, ok := a.acks.due()
		r.mu.Unlock()
		if !ok {
			continue
		}
		// u8 magic, u64 position, the file's name to the end of the packet.
		packet = append(packet[:0], magic)
		packet = binary.LittleEndian.AppendUint64(packet, at.Pos)
		packet = append(packet, at.File[:min(len(at.File), maxFileName)]...)
		if err := a.Send(packet); err != nil {
			return // the one who reads finds out, too
		}
		r.mu.Lock()
		r.status.Acknowledged++
		r.status.Last, r.status.LastAt = at, r.now()
		r.mu.Unlock()
		a.Answered(at)
	}
}

// watchEvery is how often the source is asked whether it waits. The events that ask
// do not tell: one that has fallen back asks at the end of its newest transaction,
// too.
const watchEvery = 2 * time.Second

// watch asks the source how it is doing, over a connection of its own.
func (r *Replica) watch(a *answers) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a.group.Go(func() {
		<-a.Ended
		cancel()
	})
	var session hook.Session
	defer func() {
		if session != nil {
			_ = session.Close()
		}
	}()
	times := uint64(0) // the source's count of falling back
	for first := true; ; first = false {
		if !first {
			select {
			case <-ctx.Done():
				return
			case <-time.After(watchEvery):
			}
		}
		var err error
		if session == nil {
			session, err = a.Open(ctx)
		}
		var s State
		var fell uint64
		if err == nil {
			s, fell, err = askState(ctx, session, a.name)
		}
		if err != nil {
			if ctx.Err() == nil {
				r.log.Debug("could not ask the source for the state of semi-synchronous replication", "source", a.Source, "error", err)
			}
			if session != nil {
				_ = session.Close()
				session = nil
			}
			continue
		}
		r.mu.Lock()
		if r.link == a {
			r.status.Enabled = s != StateDisabled
			r.changeLocked(s)
			if !first && fell > times {
				r.status.FellBack += fell - times
			}
		}
		r.mu.Unlock()
		times = fell
	}
}

// askState asks whether the source waits for its replicas, and how often it has
// stopped to since it was started.
func askState(ctx context.Context, s hook.Session, name string) (State, uint64, error) {
	prefix := "rpl_semi_sync_" + name + "_"
	enabled, err := s.Query(ctx, "SELECT @@global."+prefix+"enabled")
	if err != nil {
		return "", 0, err
	}
	rows, err := s.Query(ctx, "SHOW GLOBAL STATUS WHERE Variable_name IN ('"+prefix+"status', '"+prefix+"no_times')")
	if err != nil {
		return "", 0, err
	}
	state := StateDisabled
	var times uint64
	on := len(enabled) > 0 && len(enabled[0]) > 0 && (string(enabled[0][0]) == "1" || string(enabled[0][0]) == "ON")
	for _, row := range rows {
		if len(row) < 2 {
			continue
		}
		switch name, value := strings.ToLower(string(row[0])), string(row[1]); {
		case name == prefix+"no_times":
			times, _ = strconv.ParseUint(value, 10, 64) // what is no number says nothing
		case on && value == "ON":
			state = StateWaiting
		case on:
			state = StateAsync
		}
	}
	return state, times, nil
}
