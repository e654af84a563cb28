// Package cluster is the Raft group that keeps the log: the turns in which
// go.etcd.io/raft is driven (loop), the goroutines that append and apply, and what
// has to be on disk for them to start again.
//
// The Raft log is the store. A payload is written once, by the append goroutine,
// together with its Raft entry; the library only ever sees a handle of 24 bytes
// (see handle), so it copies no payload. What is committed goes to a
// StateMachine in the order of the log, with the place where it lies on disk.
//
// The way of a proposal: Propose reserves room in the quota of bytes in flight
// and stages the payload → in a turn, Raft gets the handle → the append
// goroutine writes header and payload of everything that has come in, syncs
// once, and answers → Raft commits → the apply goroutine gives the payload to
// the state machine and the room back.
//
// A data folder holds: "node" (whose folder it is), "hardstate" (term, vote,
// commit index), "*.checkpoint" (the state after an entry), "log/" (segments),
// "lock". A start reads the newest checkpoint at or below the persisted commit
// index, replays committed entries from there, and lets Raft go on.
//
// Peers: each node sends over connections of its own (peers, sender) what Raft
// tells it to, with the payloads in the place of the handles, and takes in what
// others send (receive). Who is too far behind gets a snapshot (install, fetch).
// The membership changes by entries of the log (membership, members).
package cluster

import (
	"context"
	crand "crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"golang.org/x/sync/errgroup"

	"kingbus/internal/hook"
	"kingbus/internal/segment"
	"kingbus/internal/vfs"
)

var (
	// ErrDropped is returned for a proposal that Raft did not take: this node
	// does not lead. Those proposed before it may still be committed.
	ErrDropped = errors.New("the proposal was dropped: this node does not lead")
	// ErrDeposed is the cause of the end of a leader's context. What it proposed
	// and did not see applied may still be committed, by another leader.
	ErrDeposed = errors.New("this node no longer leads")
	// ErrClosed is returned after Close or a failure of the node.
	ErrClosed = errors.New("the node has stopped")
	// ErrTooLarge is returned for a payload over MaxPayload.
	ErrTooLarge = errors.New("the payload is too large")
)

// MaxPayload is the largest payload in bytes.
const MaxPayload = 128 << 20

// Config says where and how a node runs. FS, Dir, Machine and Log are needed.
type Config struct {
	FS      vfs.FS
	Dir     string
	Machine StateMachine
	Log     *slog.Logger
	// SegmentBytes is the size at which a segment is cut; 0 = 64 MiB.
	SegmentBytes int64
	// InFlight bounds the bytes proposed and not yet applied; 0 = 16 MiB.
	InFlight int
	// Window is how many applied entries stay in memory for peers that are behind;
	// those further behind get a snapshot. 0 = 16,384.
	Window int
	// Message bounds the bytes of the log in one message to a peer, of which it carries one
	// entry at least; 0 = 1 MiB.
	Message int
	// Interrupt, when closed, lets Open give up what it waits for: a node with a
	// damaged log waits for its peers.
	Interrupt <-chan struct{}
	// Buffer returns n bytes, with anything in them, for a payload that comes from a
	// peer; nil = new ones. The state machine gets them with the entry, or nobody.
	Buffer func(n int) []byte
	// Pause is called before entries are written: a slow disk, in tests.
	Pause func()
	// Stall is called in Raft's loop before it looks for what has come for it, which gathers
	// meanwhile: a busy machine, in tests. With it all turns are the loop's.
	Stall func()
	// Hooks observe the node.
	Hooks []hook.Raft
	Peering
	// Extra returns what all other nodes are told twice a second, as JSON; see
	// PeerExtras and ReportNow. Heard, if set, is given what others tell as it comes. They
	// must not block.
	Extra func() json.RawMessage
	Heard func(node string, extra json.RawMessage)
	// Answer, if set, does what AskLeader asks for, on the node that leads. The context
	// ends when nobody waits for it any more.
	Answer func(ctx context.Context, body json.RawMessage) (json.RawMessage, error)
}

// Peering says who a node is among others. The zero value is a node for itself.
type Peering struct {
	// Name is the node's; Address (host:port) is where its peers reach it, "" if
	// they do not. Listener takes their connections, and is closed with the node.
	Name, Address string
	Listener      net.Listener
	PeerTLS       *tls.Config // mutual; nil = in clear
	// Dial replaces the network in tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Initial are the members with which a new cluster begins, this node among them.
	// Join lets an empty folder wait to be added instead. Both mean nothing to a
	// folder that belongs to a cluster.
	Initial []Member
	Join    bool
	// Heartbeat is how often a leader shows that it is there, and Raft's unit of
	// time; 0 = 100 ms. Election is how long it may be silent; 0 = ten times that.
	Heartbeat, Election time.Duration
	// MinFormat and MaxFormat are the versions of the format of log and folder that
	// this node can work with; 0 = all that there are, 1 to Format. A group writes the
	// highest that all its members know.
	MinFormat, MaxFormat uint16
}

// Format is the newest version of the format of log and folder that this kingbus writes. What
// each brought is in docs/format/folder.md.
const Format = 2

func (c *Config) fill() error {
	if c.SegmentBytes == 0 {
		c.SegmentBytes = 64 << 20
	}
	if c.Message == 0 {
		c.Message = 1 << 20
	}
	if c.InFlight == 0 {
		c.InFlight = 16 << 20
	}
	if c.Buffer == nil {
		c.Buffer = func(n int) []byte { return make([]byte, n) }
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 100 * time.Millisecond
	}
	if c.Election == 0 {
		c.Election = 10 * c.Heartbeat
	}
	if c.Election < 2*c.Heartbeat {
		return fmt.Errorf("an election timeout of %s with heartbeats every %s: it has to be at least twice as long", c.Election, c.Heartbeat)
	}
	if c.MinFormat == 0 {
		c.MinFormat = 1
	}
	if c.MaxFormat == 0 {
		c.MaxFormat = Format
	}
	if len(c.Initial) > 0 {
		i := slices.IndexFunc(c.Initial, func(m Member) bool { return m.Name == c.Name })
		if i < 0 {
			return fmt.Errorf("the list of initial members does not name this node, %q", c.Name)
		}
		if c.Address == "" {
			c.Address = c.Initial[i].Address
		}
	}
	return nil
}

// Node is this process's member of the group.
type Node struct {
	cfg       Config
	dir       string
	id        uint64
	log       *slog.Logger
	lock      io.Closer
	adopting  sync.Mutex // guards identity
	identity  identity
	clusterID atomic.Uint64 // 0: the folder belongs to none yet

	// turn is held by who works on Raft, see drive. It guards all up to snapshots.
	turn   sync.Mutex
	over   bool          // there are no more turns
	broken error         // why
	raw    *raft.RawNode // when start begins
	term   uint64        // as the role was told
	last   uint64        // last entry in Raft's log
	// restored is the last entry of the newest snapshot that Raft has taken, with the
	// membership behind it, in this process.
	restored uint64
	// lastChange is the last entry that may change the membership: a leader's first own
	// entry, or a change behind it.
	lastChange uint64
	// silent is how long nothing was heard of a leader, while the clock of Raft stands
	// still.
	silent time.Duration
	// snapshots are those that peers were sent and have not acknowledged, by their
	// Raft ids.
	snapshots map[uint64]sentSnapshot

	members     atomic.Pointer[membership]
	segments    *segment.Log
	hard        *hardState
	window      *window
	staging     *staging
	intake      intake
	leadership  *leadership
	contact     atomic.Pointer[contact]
	contactMu   sync.Mutex
	contactWake chan struct{} // closed when contact changes; nil while nobody waits
	saver       *saver
	machine     StateMachine
	applier     *applier
	installer   *installer
	installing  atomic.Bool // a snapshot is not whole yet
	// replacedBy is the last entry of the newest snapshot for which the log was begun anew.
	replacedBy atomic.Uint64
	deaf       atomic.Bool // to entries of the leader: a newer snapshot is awaited
	peers      *peers
	repairer   *repairer
	reads      reads
	changes    changes
	changing   chan struct{} // holds a token while somebody proposes a change of the membership
	matches    atomic.Pointer[map[uint64]uint64]
	full       atomic.Bool

	// What waits for a turn; the loop is woken by waits.
	waits     signal
	inbox     *queue[incoming]
	calls     *queue[func()]
	proposals *queue[proposal]
	loopEnded chan struct{}
	// applierEnded is closed when the apply goroutine has ended.
	applierEnded chan struct{}
	appends      *queue[work]
	applies      *queue[func(*applier) error]
	numbers      atomic.Uint64 // of the proposals

	applied     atomic.Uint64 // index
	appliedMu   sync.Mutex
	appliedWake chan struct{} // closed when applied grows; nil while nobody waits

	stop      context.CancelFunc
	stopped   chan struct{} // closed when all goroutines have ended
	failed    chan struct{} // closed when one of them failed
	err       error         // set before failed is closed
	closeOnce sync.Once
	closeErr  error
}

// Open starts the node of the data folder, and makes the folder if it is empty
// or not there. When it returns, the state machine holds everything up to the
// persisted commit index. It takes the listener, also when it fails.
func Open(cfg Config) (_ *Node, err error) {
	defer func() {
		if err != nil && cfg.Listener != nil {
			err = errors.Join(err, cfg.Listener.Close())
		}
	}()
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	n := newNode(cfg)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.closeFiles())
		}
	}()
	if err := cfg.FS.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	n.lock, err = cfg.FS.Lock(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("data folder %s is in use: %w", cfg.Dir, err)
	}
	if err := n.openFiles(); err != nil {
		return nil, err
	}
	for err = n.replay(); err != nil; err = n.replay() {
		var corrupt *segment.CorruptError
		if !errors.As(err, &corrupt) {
			return nil, err
		}
		if failed := n.mendEntry(corrupt); failed != nil {
			return nil, fmt.Errorf("%w (it could not be fetched: %w)", err, failed)
		}
	}
	if err := n.startRaft(); err != nil {
		return nil, err
	}
	n.start()
	return n, nil
}

func newNode(cfg Config) *Node {
	waits := newSignal()
	n := &Node{
		cfg: cfg, dir: cfg.Dir, log: cfg.Log, machine: cfg.Machine,
		staging: newStaging(cfg.InFlight), leadership: newLeadership(), intake: intake{limit: intakeBytes},
		waits: waits, inbox: newQueue[incoming](waits), calls: newQueue[func()](waits), proposals: newQueue[proposal](waits),
		appends: newQueue[work](newSignal()), applies: newQueue[func(*applier) error](newSignal()),
		reads: reads{waiters: map[uint64]chan<- uint64{}}, changes: changes{waiters: map[uint64]chan<- error{}},
		snapshots: map[uint64]sentSnapshot{}, changing: make(chan struct{}, 1), loopEnded: make(chan struct{}), applierEnded: make(chan struct{}), stopped: make(chan struct{}), failed: make(chan struct{}),
	}
	n.saver, n.installer, n.repairer, n.peers = newSaver(n), newInstaller(n), newRepairer(n), newPeers(n)
	return n
}

// intakeBytes bounds what peers have sent and is not on disk yet.
const intakeBytes = 32 << 20

func (n *Node) start() {
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.loop(ctx) })
	g.Go(func() error { return (&writer{n: n}).run(ctx) })
	g.Go(func() error { return n.applier.run(ctx) })
	g.Go(func() error { return n.saver.run(ctx) })
	g.Go(func() error { return n.installer.run(ctx) })
	g.Go(func() error { return n.repairer.run(ctx) })
	g.Go(func() error { return n.peers.run(ctx) })
	g.Go(func() error { return n.tend(ctx) })
	if committed, _ := n.hard.committed(); committed == 0 && !n.installing.Load() {
		g.Go(func() error { return n.found(ctx) })
	}
	go func() {
		err := g.Wait()
		if err == nil { // stopped, and the commit index is saved: so may be the rest
			committed, _ := n.hard.committed()
			if err = n.saver.work(committed); noSpace(err) {
				err = nil // the next start replays more
			}
		}
		if err != nil {
			n.err = err
			close(n.failed)
		}
		n.leadership.close()
		n.refuseProposals()
		close(n.stopped)
	}()
	n.waits.set() // there may be a campaign to handle
}

// group returns the membership as it is applied on this node.
func (n *Node) group() membership { return *n.members.Load() }

// setGroup puts a membership into force on this node.
func (n *Node) setGroup(g membership) {
	n.members.Store(&g)
	n.window.dropSnapshot()
	// A node that was removed hears so from the others when it calls them, and ends then: it
	// knows by that that they will remember. Until then they may need its vote.
	n.peers.update(g)
}

// Propose offers a payload to the log and returns when the leader's log has
// taken it, or ErrDropped. That is not yet a commit: only Apply tells. It blocks
// while too many bytes are in flight. The payload must not change afterwards.
// Calls from one goroutine are appended in order.
func (n *Node) Propose(ctx context.Context, payload []byte) error {
	if len(payload) == 0 || len(payload) > MaxPayload {
		return fmt.Errorf("propose %d bytes: %w", len(payload), ErrTooLarge)
	}
	h := handle{length: uint32(len(payload)), crc: crc32.Checksum(payload, castagnoli), proposer: n.id, number: n.numbers.Add(1)}
	for {
		wait := n.staging.put(h.number, payload)
		if wait == nil {
			break
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		case <-n.loopEnded:
			return ErrClosed
		}
	}
	p := proposal{data: h.encode(), done: make(chan error, 1)}
	n.proposals.put(p)
	n.drive()
	var err error
	select {
	case err = <-p.done:
	case <-n.loopEnded:
		select {
		case err = <-p.done: // just before
		default:
			err = ErrClosed
		}
	}
	if err != nil {
		n.staging.release(h.number)
	}
	return err
}

// Lead blocks until this node leads and has applied an entry of its own term.
// The context that it returns ends when that is over; its cause is ErrDeposed or
// ErrClosed.
func (n *Node) Lead(ctx context.Context) (context.Context, error) {
	for {
		lead, changed := n.leadership.current()
		if lead != nil {
			return lead, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-n.stopped:
			return nil, ErrClosed
		}
	}
}

// Leading returns what Lead would return now, or nil.
func (n *Node) Leading() context.Context {
	lead, _ := n.leadership.current()
	return lead
}

// Status is what a node knows of itself.
type Status struct {
	ClusterID, RaftID uint64
	Name, Address     string
	Leader            bool
	LeaderID          uint64 // 0: no leader is known
	// Since is when LeaderID became that.
	Since                 time.Time
	Voter                 bool
	Term                  uint64
	Applied, Committed    uint64 // Committed is the persisted one
	FirstIndex, LastIndex uint64
	Segments              int
	Bytes                 int64
	Format                uint16    // that the group writes
	Installing            *Progress // nil: this node lacks nothing that a snapshot has to bring
	Damaged               int       // entries that are being fetched again
	Queues                Queues
}

// Queues are what waits in a node for its turn.
type Queues struct {
	// Proposals of this node that are not applied yet, and their bytes: the back pressure
	// on who proposes.
	Proposals     int `json:"proposals"`
	ProposalBytes int `json:"proposal_bytes"`
	// Intake is in bytes what peers have sent and is not on disk yet: the back pressure on
	// them.
	Intake int `json:"intake"`
	// Appends and Applies are what the two goroutines have before them, in pieces as Raft
	// gives them out.
	Appends int `json:"appends"`
	Applies int `json:"applies"`
	// Window counts the entries that are kept for peers which are behind, and WindowBytes
	// the payload among them that waits in memory to be applied.
	Window      int `json:"window"`
	WindowBytes int `json:"window_bytes"`
}

// Status returns a snapshot.
func (n *Node) Status() Status {
	lead, _ := n.leadership.current()
	committed, _ := n.hard.committed()
	group := n.group()
	s := Status{
		ClusterID: n.clusterID.Load(), RaftID: n.id, Name: n.cfg.Name, Address: n.cfg.Address,
		Leader: lead != nil, Voter: group.isVoter(n.id), Term: n.hard.raft().GetTerm(), Applied: n.applied.Load(), Committed: committed,
		FirstIndex: n.segments.FirstIndex(), LastIndex: n.segments.LastIndex(), Format: group.format, Installing: n.installer.progress(),
	}
	if c := n.contact.Load(); c != nil {
		s.LeaderID, s.Since = c.leader, c.since
	}
	s.Queues = n.queues()
	n.repairer.mu.Lock()
	s.Damaged = len(n.repairer.todo)
	n.repairer.mu.Unlock()
	for _, info := range n.segments.Segments() {
		s.Segments++
		s.Bytes += info.Bytes
	}
	return s
}

func (n *Node) queues() Queues {
	q := Queues{Appends: n.appends.len(), Applies: n.applies.len()}
	q.Proposals, q.ProposalBytes = n.staging.held()
	q.Intake = n.intake.held()
	q.Window, q.WindowBytes = n.window.held()
	return q
}

// Waiting tells whether this node belongs to no cluster yet.
func (n *Node) Waiting() bool { return n.clusterID.Load() == 0 }

// Installing tells whether this node lacks what a snapshot has to bring.
func (n *Node) Installing() bool { return n.installing.Load() }

// NewReader reads entries from a place that Apply named. It must only be used
// for entries that have been applied.
func (n *Node) NewReader(at segment.Location) (*segment.Reader, error) {
	return n.segments.NewReader(at)
}

// Seek finds an applied entry. It may walk through a whole segment: it is for
// who has no Location of an entry near by.
func (n *Node) Seek(index uint64) (segment.Location, error) { return n.segments.Seek(index) }

// Release tells that entries before index are not needed any more, because the
// applied entry at says so. The space is given back as soon as that is safe.
func (n *Node) Release(index, at uint64) { n.saver.release(index, at) }

// Failed is closed when the node cannot go on; Err tells why. The process has
// to stop then: after a failed sync nobody knows what is on disk.
func (n *Node) Failed() <-chan struct{} { return n.failed }

// Err returns why the node failed, nil if it did not.
func (n *Node) Err() error {
	select {
	case <-n.failed:
		return n.err
	default:
		return nil
	}
}

// Close stops the node and waits for its goroutines. What was proposed and not
// yet committed may or may not be in the log afterwards. A leader should HandOver
// before.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		n.stop()
		<-n.stopped
		n.closeErr = errors.Join(n.Err(), n.closeFiles())
	})
	return n.closeErr
}

func (n *Node) closeFiles() error {
	var errs []error
	if n.segments != nil {
		errs = append(errs, n.segments.Close())
	}
	if n.hard != nil {
		errs = append(errs, n.hard.close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}

func randomUint64() uint64 {
	var b [8]byte
	_, _ = crand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}
