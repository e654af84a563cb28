// Package cluster is the Raft group that keeps the log: the loop that drives
// go.etcd.io/raft, the goroutines that append and apply, and what has to be on
// disk for them to start again.
//
// The Raft log is the store. A payload is written once, by the append goroutine,
// together with its Raft entry; the library only ever sees a handle of 24 bytes
// (see handle), so it copies no payload. What is committed goes to a
// StateMachine in the order of the log, with the place where it lies on disk.
//
// The way of a proposal: Propose reserves room in the quota of bytes in flight
// and stages the payload → the loop gives the handle to Raft → the append
// goroutine writes header and payload of everything that has come in, syncs
// once, and answers → Raft commits → the apply goroutine gives the payload to
// the state machine and the room back.
//
// A data folder holds: "node" (whose folder it is), "hardstate" (term, vote,
// commit index), "*.checkpoint" (the state after an entry), "log/" (segments),
// "lock". A start reads the newest checkpoint at or below the persisted commit
// index, replays committed entries from there, and lets Raft go on.
//
// At present a group has one voter; what takes more is not here.
package cluster

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sync/errgroup"

	"kingbus/internal/segment"
	"kingbus/internal/vfs"
)

var (
	// ErrDropped is returned for a proposal that Raft did not take: this node
	// does not lead. Those proposed before it may still be committed.
	ErrDropped = errors.New("the proposal was dropped: this node does not lead")
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
	// Tick is Raft's unit of time; 0 = 100 ms. An election takes ten.
	Tick time.Duration
}

func (c *Config) fill() {
	if c.SegmentBytes == 0 {
		c.SegmentBytes = 64 << 20
	}
	if c.InFlight == 0 {
		c.InFlight = 16 << 20
	}
	if c.Tick == 0 {
		c.Tick = 100 * time.Millisecond
	}
}

// Node is this process's member of the group.
type Node struct {
	cfg  Config
	dir  string
	id   uint64
	log  *slog.Logger
	lock io.Closer

	raw        *raft.RawNode // touched by the loop only
	conf       *pb.ConfState
	segments   *segment.Log
	hard       *hardState
	window     *window
	staging    *staging
	leadership *leadership
	saver      *saver
	machine    StateMachine
	applier    *applier

	inbox     *queue[*pb.Message] // to the loop
	appends   *queue[*pb.Message]
	applies   *queue[*pb.Message]
	proposals *queue[proposal]
	numbers   atomic.Uint64 // of the proposals
	applied   atomic.Uint64 // index

	stop      context.CancelFunc
	stopped   chan struct{} // closed when all goroutines have ended
	failed    chan struct{} // closed when one of them failed
	err       error         // set before failed is closed
	closeOnce sync.Once
	closeErr  error
}

// Open starts the node of the data folder, and makes the folder if it is empty
// or not there. When it returns, the state machine holds everything up to the
// persisted commit index.
func Open(cfg Config) (_ *Node, err error) {
	cfg.fill()
	n := &Node{
		cfg: cfg, dir: cfg.Dir, log: cfg.Log, machine: cfg.Machine,
		staging: newStaging(cfg.InFlight), leadership: newLeadership(),
		inbox: newQueue[*pb.Message](), appends: newQueue[*pb.Message](),
		applies: newQueue[*pb.Message](), proposals: newQueue[proposal](),
		stopped: make(chan struct{}), failed: make(chan struct{}),
	}
	n.saver = newSaver(n)
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
	if err := n.replay(); err != nil {
		return nil, err
	}
	if err := n.startRaft(); err != nil {
		return nil, err
	}
	n.start()
	return n, nil
}

// firstIndex and firstTerm are of the checkpoint with which a new log begins: it
// holds no entries but the membership.
const firstIndex, firstTerm = 1, 1

func (n *Node) openFiles() error {
	fsys := n.cfg.FS
	id, fresh, err := openIdentity(fsys, n.dir, randomUint64)
	if err != nil {
		return err
	}
	if fresh {
		// A folder that was begun and not finished has no identity: nothing in
		// it was ever acknowledged. One with a log and no identity is not ours
		// to begin anew.
		if names, err := fsys.ReadDir(filepath.Join(n.dir, "log")); err == nil && len(names) > 1 {
			return fmt.Errorf("data folder %s has a log, but no file %q that says whose it is: restore that file, or use an empty folder", n.dir, identityFile)
		}
	}
	n.id = id.Raft
	n.numbers.Store(randomUint64() &^ 0xffffffff)
	if n.hard, err = openHardState(fsys, n.dir, filepath.Join(n.dir, "hardstate")); err != nil {
		return err
	}
	committed, _ := n.hard.committed()
	var recovery segment.Recovery
	n.segments, recovery, err = segment.Open(fsys, filepath.Join(n.dir, "log"), segment.Options{
		SegmentBytes: n.cfg.SegmentBytes, Committed: committed, Logger: n.log,
	})
	if err != nil {
		return err // it says that it is about the log
	}
	if recovery.TornBytes > 0 {
		n.log.Warn("cut off a torn write at the end of the log; nothing in it was acknowledged",
			"file", recovery.TornFile, "offset", recovery.TornOffset, "bytes", recovery.TornBytes)
	}
	if !fresh {
		return nil
	}
	// The identity is the last step: a folder without one is made anew.
	if err := n.segments.ResetTo(firstIndex, firstTerm); err != nil {
		return fmt.Errorf("begin the log: %w", err)
	}
	if err := n.hard.init(firstTerm, firstIndex); err != nil {
		return err
	}
	first := checkpoint{index: firstIndex, term: firstTerm, conf: &pb.ConfState{Voters: []uint64{n.id}}}
	if err := first.save(fsys, n.dir); err != nil {
		return err
	}
	if err := id.save(fsys, n.dir); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	n.log.Info("made a new data folder", "dir", n.dir, "cluster_id", id.Cluster, "raft_id", id.Raft)
	return nil
}

// replay restores the newest checkpoint and applies what was committed after it,
// and fills the window with the entries after that.
func (n *Node) replay() error {
	committed, _ := n.hard.committed()
	c, problems, err := newestCheckpoint(n.cfg.FS, n.dir, committed)
	for _, p := range problems {
		n.log.Warn("passed over a checkpoint", "error", p)
	}
	if err != nil {
		return err
	}
	if err := n.machine.Restore(c.index, c.state); err != nil {
		return fmt.Errorf("restore checkpoint of entry %d: %w", c.index, err)
	}
	n.conf = c.conf
	last := n.segments.LastIndex()
	if last < committed && committed > firstIndex {
		return fmt.Errorf("the log ends at entry %d, but %d was committed: entries are missing at its end; restore the data folder", last, committed)
	}
	n.applier = &applier{n: n, last: entryID{c.index, c.term}}
	n.window = newWindow(n.hard.raft(), n.conf, entryID{c.index, c.term})
	if last > c.index {
		if err := n.replayEntries(c.index+1, committed); err != nil {
			return err
		}
	}
	n.applied.Store(max(c.index, min(committed, last)))
	return nil
}

func (n *Node) replayEntries(from, committed uint64) error {
	at, err := n.segments.Seek(from)
	if err != nil {
		return fmt.Errorf("find entry %d: %w", from, err)
	}
	r, err := n.segments.NewReader(at)
	if err != nil {
		return fmt.Errorf("read from entry %d: %w", from, err)
	}
	defer r.Close()
	// The entry before the first one of a segment ends a segment: remember which,
	// so that its checkpoint is taken if it was not.
	n.applier.segment = at.Segment
	for next := from; ; next++ {
		stored, at, err := r.Next()
		if err == io.EOF && next == n.segments.LastIndex()+1 {
			return n.applier.flush()
		}
		if err != nil {
			return fmt.Errorf("replay entry %d: %w", next, err)
		}
		if stored.Index != next {
			return fmt.Errorf("replay: found entry %d where %d should be", stored.Index, next)
		}
		e := &pb.Entry{Index: new(stored.Index), Term: new(stored.Term), Type: pb.EntryType(stored.Type).Enum(), Data: append([]byte(nil), stored.Data...)}
		if next > committed {
			n.window.append([]slot{{entry: e, at: at}})
			continue
		}
		var payload []byte
		if len(stored.Data) > 0 {
			payload = append([]byte{}, stored.Payload...)
		}
		if err := n.applier.add(Entry{Index: next, Term: stored.Term, Payload: payload, At: at}); err != nil {
			return err
		}
		if err := n.applier.flush(); err != nil {
			return err
		}
		n.window.reset(entryID{next, stored.Term})
	}
}

func (n *Node) startRaft() error {
	raw, err := raft.NewRawNode(&raft.Config{
		ID: n.id, ElectionTick: 10, HeartbeatTick: 1,
		Storage: n.window, Applied: n.applied.Load(), AsyncStorageWrites: true,
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: 64 << 10, MaxInflightMsgs: 256,
		CheckQuorum: true, PreVote: true, DisableProposalForwarding: true, StepDownOnRemoval: true,
		Logger: raftLogger{n.log},
	})
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	n.raw = raw
	if voters := n.conf.GetVoters(); len(voters) == 1 && voters[0] == n.id {
		// There is nobody to wait for.
		return n.raw.Campaign()
	}
	return fmt.Errorf("the group of this data folder has %d voters, this version runs groups of one", len(n.conf.GetVoters()))
}

func (n *Node) start() {
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.loop(ctx) })
	g.Go(func() error { return (&writer{n: n}).run(ctx) })
	g.Go(func() error { return n.applier.run(ctx) })
	g.Go(func() error { return n.saver.run(ctx) })
	go func() {
		err := g.Wait()
		if err == nil { // stopped, and the commit index is saved: so may be the rest
			committed, _ := n.hard.committed()
			err = n.saver.work(committed)
		}
		n.leadership.close()
		n.refuseProposals()
		if err != nil {
			n.err = err
			close(n.failed)
		}
		close(n.stopped)
	}()
	n.inbox.push() // wakes the loop, which has a campaign to handle
}

// Propose offers a payload to the log and returns when the leader's log has
// taken it, or ErrDropped. That is not yet a commit: only Apply tells. It blocks
// while too many bytes are in flight. The payload must not change afterwards.
// Calls from one goroutine are appended in order.
func (n *Node) Propose(ctx context.Context, payload []byte) error {
	if len(payload) == 0 || len(payload) > MaxPayload {
		return fmt.Errorf("propose %d bytes: %w", len(payload), ErrTooLarge)
	}
	for {
		wait := n.staging.reserve(len(payload))
		if wait == nil {
			break
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		case <-n.stopped:
			return ErrClosed
		}
	}
	h := handle{length: uint32(len(payload)), crc: crc32.Checksum(payload, castagnoli), proposer: n.id, number: n.numbers.Add(1)}
	n.staging.put(h.number, payload)
	p := proposal{data: h.encode(), done: make(chan error, 1)}
	n.proposals.push(p)
	var err error
	select {
	case err = <-p.done:
	case <-n.stopped:
		err = ErrClosed
	}
	if err != nil {
		n.staging.take(h.number)
		n.staging.release(len(payload))
	}
	return err
}

// Lead blocks until this node leads and has applied an entry of its own term.
// The context that it returns ends when that is over.
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
	RaftID                uint64
	Leader                bool
	Term                  uint64
	Applied, Committed    uint64 // Committed is the persisted one
	FirstIndex, LastIndex uint64
	Segments              int
	Bytes                 int64
}

// Status returns a snapshot.
func (n *Node) Status() Status {
	lead, _ := n.leadership.current()
	committed, _ := n.hard.committed()
	s := Status{
		RaftID: n.id, Leader: lead != nil, Term: n.hard.raft().GetTerm(), Applied: n.applied.Load(), Committed: committed,
		FirstIndex: n.segments.FirstIndex(), LastIndex: n.segments.LastIndex(),
	}
	for _, info := range n.segments.Segments() {
		s.Segments++
		s.Bytes += info.Bytes
	}
	return s
}

// NewReader reads entries from a place that Apply named. It must only be used
// for entries that have been applied.
func (n *Node) NewReader(at segment.Location) (*segment.Reader, error) {
	return n.segments.NewReader(at)
}

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
// yet committed may or may not be in the log afterwards.
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
