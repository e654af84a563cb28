// Package stream is the replicated binlog: an ordered run of binlog files with
// positions, GTIDs and transaction boundaries, kept in the Raft log.
//
// The way in: a Link (opened by StartLink, which gives it an epoch) proposes
// runs of raw events and rotations. The way out: a Reader, found by file and
// position or by GTID set, yields the same bytes up to the last boundary. In
// between, every node folds the committed entries into the same state (state):
// an entry counts only if it continues the stream in the epoch in force;
// otherwise it is dead, and readers pass over it. So a proposal that was dropped
// or came twice changes nothing.
//
// Beside the state, which is the same everywhere and goes into checkpoints, a
// node keeps an index of places in its own segments (index), and the newest
// entries in memory (tail), from which readers near the end are served without
// touching the disk.
//
// Locks: Stream.mu guards state, index and tail. It is held for folding and for
// looking up, never over I/O but the reading of an old index block. What it guards
// is changed by the apply goroutine only, but for readers, waiters, link and
// changed.
package stream

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"kingbus/internal/cluster"
	"kingbus/internal/gtid"
	"kingbus/internal/hook"
	"kingbus/internal/vfs"
)

// Config says where the stream is kept and for how long.
type Config struct {
	FS  vfs.FS // nil = the operating system's
	Dir string
	Log *slog.Logger
	// Retention says what may be removed, whenever it is looked for; nil, or the zero value,
	// keeps everything.
	Retention func() Retention
	// SegmentBytes, InFlight, Window, Message, Interrupt, Pause, Stall and Peering are the cluster's; 0 = its defaults.
	SegmentBytes int64
	InFlight     int
	Window       int
	Message      int
	Interrupt    <-chan struct{}
	Pause        func()
	Stall        func()
	Peering      cluster.Peering
	// TailBytes is how much of the newest log stays in memory; 0 = 16 MiB.
	TailBytes int
	// DiskReserve is the free space in bytes under which no more events are
	// taken; 0 = 64 MiB.
	DiskReserve uint64
	// Now is the clock for retention by age; nil = time.Now.
	Now func() time.Time
	// Hooks are called from Open on: what a start replays is told again.
	Hooks hook.Set
	// Settled is told of the settings of the cluster whenever they may be others, from Open on,
	// in the apply goroutine: when the entry that changes them is applied and before anything
	// behind it is, on every node. It must not wait. nil: nobody is told.
	Settled func(Settings)
	// Flush has the source begin another binlog file. It is called on the node that leads, for
	// FlushSource of any. nil: that is refused.
	Flush func(ctx context.Context) error
	// Tell returns what the other nodes of the cluster are told beside the stream's own,
	// as JSON: twice a second, and after TellNow at once the one that leads. Told is given
	// what another one tells, with its name, as it comes. They must not block. nil: nothing.
	Tell func() json.RawMessage
	Told func(node string, told json.RawMessage)
}

// Identity is what the cluster presents to the source and to replicas: the same
// on all nodes, made once by the first leader through the log.
type Identity struct {
	ServerID   uint32 `json:"server_id"`
	ServerUUID string `json:"server_uuid"`
}

// Source is what is known of the server that the stream follows.
type Source struct {
	UUID     string `json:"uuid"`
	ServerID uint32 `json:"server_id"`
	Version  string `json:"version"`
	Host     string `json:"host"`
	Port     uint16 `json:"port"`
	// Variables are its global variables by lower-case name; kingbus presents
	// them as its own.
	Variables map[string]string `json:"variables"`
	// Purged is its gtid_purged when the link started.
	Purged gtid.Set `json:"purged"`
}

// FileNumber returns the number of a file that the stream has: they count up by one.
func (s *Stream) FileNumber(name string) (number uint32, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	number = s.state.number(name)
	return number, number != 0
}

// TellNow has the node that leads be told at once: see Config.Tell.
func (s *Stream) TellNow() { s.node.ReportNow() }

// Executed returns all transactions that the stream has had on this node.
func (s *Stream) Executed() gtid.Set {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.executed.Clone()
}

// Coordinates are a position in a binlog file.
type Coordinates struct {
	File string `json:"file"`
	Pos  uint64 `json:"pos"`
}

// String returns "file:pos".
func (c Coordinates) String() string { return fmt.Sprintf("%s:%d", c.File, c.Pos) }

var (
	// ErrNoFile is returned for a binlog file that the stream does not have and,
	// as far as its name tells, never will.
	ErrNoFile = errors.New("no such binlog file")
	// ErrNotYet is returned for coordinates beyond what this node has.
	ErrNotYet = errors.New("these coordinates are beyond the end of the binlog that this node has")
	// ErrEnd is returned by Reader.Next at the last boundary.
	ErrEnd = errors.New("at the end of the binlog")
	// ErrPurgedAway is returned by Reader.Next when its file was purged.
	ErrPurgedAway = errors.New("the binlog file was purged while it was read")
	// ErrClosed is returned by everything after Close.
	ErrClosed = cluster.ErrClosed
	// ErrLinkLost is returned by a Link whose proposals were dropped, or whose
	// node no longer leads. The link has to be started again.
	ErrLinkLost = errors.New("the link to the stream was lost")
	// ErrDiskFull is returned by Link.Append when the reserve would be touched.
	ErrDiskFull = errors.New("the disk is full up to its reserve: free space on it, or shorten the retention; kingbus goes on by itself then")
)

// PositionError is returned for a position inside an event.
type PositionError struct {
	At    Coordinates
	Start uint64 // where that event begins
}

// Error implements error.
func (e *PositionError) Error() string {
	return fmt.Sprintf("position %s is inside the event that begins at %d", e.At, e.Start)
}

// PurgedError is returned when transactions that a replica lacks were purged.
type PurgedError struct{ Missing gtid.Set }

// Error implements error.
func (e *PurgedError) Error() string { return "transactions were purged: " + e.Missing.String() }

// Stream is the replicated binlog on this node. Its methods may be called
// concurrently.
type Stream struct {
	cfg  Config
	log  *slog.Logger
	node *cluster.Node

	mu      sync.RWMutex
	state   *state
	index   index
	tail    tail
	spare   buffers       // has a lock of its own, taken last
	changed chan struct{} // nil while nobody waits
	settled chan struct{} // closed when settings are others; nil while nobody waits
	readers map[*Reader]struct{}
	waiters map[uint64]chan<- applied // by request
	link    *Link                     // the one whose epoch is in force
	review  *review                   // while a snapshot comes in
	purged  []uint64                  // segments whose index files can go with them; the apply goroutine's
	ends    []ending                  // for the hooks; the apply goroutine's
	last    lastEnd                   // guarded by mu
	closed  bool

	stop  context.CancelFunc
	group *errgroup.Group
}

// applied is the answer to a command's proposer.
type applied struct {
	index uint64
	err   error
}

// newStream fills in the defaults of cfg, and makes the stream that a log is replayed into.
func newStream(cfg Config) *Stream {
	if cfg.FS == nil {
		cfg.FS = vfs.OS{}
	}
	if cfg.TailBytes == 0 {
		cfg.TailBytes = 16 << 20
	}
	if cfg.DiskReserve == 0 {
		cfg.DiskReserve = 64 << 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Stream{
		cfg: cfg, log: cfg.Log, state: &state{},
		readers: map[*Reader]struct{}{}, waiters: map[uint64]chan<- applied{},
	}
	s.tail.limit, s.tail.spare = cfg.TailBytes, &s.spare
	s.index.load = s.loadBlock
	return s
}

// Open restores the stream from its folder, or makes it, and starts the node.
func Open(cfg Config) (*Stream, error) {
	s := newStream(cfg)
	cfg = s.cfg
	if err := cfg.FS.MkdirAll(s.indexDir()); err != nil {
		if l := cfg.Peering.Listener; l != nil {
			err = errors.Join(err, l.Close())
		}
		return nil, fmt.Errorf("make index folder: %w", err)
	}
	node, err := cluster.Open(cluster.Config{
		FS: cfg.FS, Dir: cfg.Dir, Machine: machine{s}, Log: cfg.Log,
		SegmentBytes: cfg.SegmentBytes, InFlight: cfg.InFlight, Window: cfg.Window, Message: cfg.Message, Pause: cfg.Pause, Stall: cfg.Stall, Hooks: cfg.Hooks.Raft, Interrupt: cfg.Interrupt, Peering: cfg.Peering, Extra: s.tellPeers, Heard: s.heardPeer, Answer: s.answer,
		Buffer: s.spare.sized,
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.node = node
	var missing error
	if len(s.state.files) > 0 {
		f := s.state.files[0]
		if first := node.Status().FirstIndex; first > f.first {
			missing = fmt.Errorf("the log begins at entry %d, but file %s begins at entry %d: the oldest segments are missing from %s; restore them", first, f.name, f.first, filepath.Join(cfg.Dir, "log"))
		}
		node.Release(f.first, node.Status().Applied)
	}
	s.mu.Unlock()
	if missing != nil {
		return nil, errors.Join(missing, node.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.group, ctx = errgroup.WithContext(ctx)
	s.group.Go(func() error { return s.leadLoop(ctx) })
	s.group.Go(func() error { return s.watchSpace(ctx) })
	return s, nil
}

func (s *Stream) indexDir() string { return filepath.Join(s.cfg.Dir, "index") }

// leadLoop does what a leader owes the stream beside the link: its identity, and
// retention.
func (s *Stream) leadLoop(ctx context.Context) error {
	for ctx.Err() == nil {
		lead, err := s.node.Lead(ctx)
		if err != nil {
			return nil // closing, or failed: Failed tells
		}
		work, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(lead, cancel)
		err = s.makeIdentity(work)
		if err == nil {
			err = s.retain(work)
		}
		stop()
		cancel()
		if err != nil && ctx.Err() == nil && lead.Err() == nil {
			s.log.Warn("housekeeping of the stream failed; trying again", "error", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// makeIdentity proposes an identity if there is none yet. When two leaders do,
// the first one counts.
func (s *Stream) makeIdentity(ctx context.Context) error {
	s.mu.RLock()
	have := s.state.identity != Identity{}
	s.mu.RUnlock()
	if have {
		return nil
	}
	var b [20]byte
	_, _ = rand.Read(b[:]) // never fails
	var u gtid.UUID
	copy(u[:], b[:16])
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80 // version 4
	// A server id below 2^31, so that tools which keep it signed agree; above
	// 2^30, where people do not choose theirs.
	id := Identity{ServerID: 1<<30 | binary.LittleEndian.Uint32(b[16:])>>2, ServerUUID: u.String()}
	_, err := s.command(ctx, kindIdentity, identityCommand{Identity: id})
	if err != nil {
		return fmt.Errorf("make the cluster's identity: %w", err)
	}
	return nil
}

// command proposes a command and waits until it is applied. If this node stops
// leading meanwhile, nobody knows whether it will be (cluster.ErrDeposed).
func (s *Stream) command(ctx context.Context, k kind, c any) (uint64, error) {
	lead := s.node.Leading()
	if lead == nil {
		return 0, cluster.ErrDropped
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	request := binary.LittleEndian.Uint64(b[:])
	payload, err := encodeCommand(k, request, c)
	if err != nil {
		return 0, err
	}
	done := make(chan applied, 1)
	s.mu.Lock()
	s.waiters[request] = done
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiters, request)
		s.mu.Unlock()
	}()
	if err := s.node.Propose(ctx, payload); err != nil {
		return 0, err
	}
	select {
	case a := <-done:
		return a.index, a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-lead.Done():
	}
	select {
	case a := <-done: // just before
		return a.index, a.err
	default:
	}
	if err := s.node.Err(); err != nil {
		return 0, err
	}
	return 0, context.Cause(lead)
}

// HasExecuted tells whether the stream has all transactions of a set.
func (s *Stream) HasExecuted(set gtid.Set) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.executed.ContainsSet(set)
}

// notifyLocked wakes who waits for a change.
func (s *Stream) notifyLocked() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// Changed returns a channel that is closed at the next change: a new boundary, a
// purge, Close.
func (s *Stream) Changed() <-chan struct{} {
	// One waiter makes the channel; many at once only share a lock.
	s.mu.RLock()
	changed := s.changed
	s.mu.RUnlock()
	if changed != nil {
		return changed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c := make(chan struct{})
		close(c)
		return c
	}
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// Lead blocks until this node leads and has applied an entry of its own term.
// The context that it returns ends when that is over.
func (s *Stream) Lead(ctx context.Context) (context.Context, error) { return s.node.Lead(ctx) }

// Cluster returns the node of the group that keeps the stream: for its members.
func (s *Stream) Cluster() *cluster.Node { return s.node }

// CatchUp waits until this node has everything that was committed when it was
// called. It fails when ctx ends, which it does where no majority is to be had.
func (s *Stream) CatchUp(ctx context.Context) error { return s.node.CatchUp(ctx) }

// watchSpace tells the cluster whether this node's disk has room for events.
func (s *Stream) watchSpace(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if space, err := s.cfg.FS.Space(s.cfg.Dir); err == nil {
			s.node.SetFull(space.Free < s.cfg.DiskReserve)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Failed is closed when the store cannot go on; the process has to stop then.
func (s *Stream) Failed() <-chan struct{} { return s.node.Failed() }

// Err returns why the store failed, nil if it did not.
func (s *Stream) Err() error { return s.node.Err() }

// Close stops the stream and its node. Readers have to be closed before by their
// owners; those that are not get ErrClosed, and are reported.
func (s *Stream) Close() error {
	_ = s.node.HandOver(context.Background()) // if it fails the others elect somebody, which takes longer
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.notifyLocked()
	s.settleLocked()
	var leak error
	if n := len(s.readers); n > 0 && !again {
		leak = fmt.Errorf("the stream was closed under %d readers", n)
	}
	s.mu.Unlock()
	s.stop()
	return errors.Join(leak, s.node.Close(), s.group.Wait())
}

// File is one binlog file as Status shows it.
type File struct {
	Name string `json:"name"`
	// Size counts bytes with the magic; of the current file up to the last
	// boundary.
	Size uint64 `json:"size"`
	// Created and Written are the timestamps of its first and newest event, in
	// Unix seconds.
	Created uint32 `json:"created"`
	Written uint32 `json:"written"`
}

// Status is a snapshot of the stream. The caller owns it.
type Status struct {
	Identity Identity
	// Source is zero before one was ever seen.
	Source   Source
	Followed []string // server uuids of all sources, oldest first
	Executed gtid.Set
	Purged   gtid.Set
	Files    []File // oldest first
	// End and SourceEnd are the last boundary in the stream's and the source's
	// coordinates; zero before the first file.
	End, SourceEnd Coordinates
	Epoch          uint64
	LastEventTime  uint32 // newest event timestamp, Unix seconds
	Transactions   uint64 // since the stream began
	Node           cluster.Status
	Readers        int
}

// End returns the last boundary.
func (s *Stream) End() Coordinates {
	s.mu.RLock()
	defer s.mu.RUnlock()
	end, _ := s.state.coordinates()
	return end
}

// Status returns a snapshot.
func (s *Stream) Status() Status {
	node := s.node.Status()
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := s.state
	out := Status{
		Identity: st.identity, Source: st.source, Followed: slices.Clone(st.followed),
		Executed: st.executed.Clone(), Purged: st.purged.Clone(), Epoch: st.epoch,
		LastEventTime: st.lastTime, Transactions: st.transactions, Node: node, Readers: len(s.readers),
	}
	out.End, out.SourceEnd = st.coordinates()
	for _, f := range st.files {
		out.Files = append(out.Files, File{f.name, f.size, f.created, f.written})
	}
	return out
}
