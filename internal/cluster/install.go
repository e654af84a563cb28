package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/segment"
	"kingbus/internal/vfs"
)

// A snapshot names an entry and carries the state after it; the entries up to it
// are fetched from a peer and written into this node's own log. Raft has taken
// the snapshot into its memory by then, and the append goroutine stands still
// until it is whole: nothing behind it is acknowledged before.
//
// What this node has already stays, as far as the log of the peer begins before
// its end: then the new entries are applied as they come. Otherwise the log
// begins anew. That is written down first, in the file "install" (a checkpoint's
// format), because from then on there is no state on disk until all is here; a
// start that finds the file goes on with it.

// installFile is the name of that file.
const installFile = "install"

const (
	// installBatch is how much is fetched between two syncs, in bytes: little, because
	// commits of who shares the disk wait behind each of them.
	installBatch = 512 << 10
	// installRetry is how soon the next peer is asked when one has failed.
	installRetry = 500 * time.Millisecond
)

// ErrDiverged is wrapped by the failure of a node whose log or state is not that
// of the group: a defect of kingbus, or of the machine.
var ErrDiverged = errors.New("this node's data differs from that of the cluster")

// installer is the state of the goroutine that installs snapshots.
type installer struct {
	n        *Node
	finished chan uint64 // index of a snapshot that is on disk

	mu     sync.Mutex
	job    *checkpoint // what to install; nil = nothing
	cancel context.CancelFunc
	wake   chan struct{}

	replaced bool // the log was begun anew for a job that is not finished
	reviewed bool // the state machine has seen what is in that log, for the present job

	done, total atomic.Uint64 // bytes of the present job
	began       atomic.Int64  // nanoseconds since 1970
}

func newInstaller(n *Node) *installer {
	return &installer{n: n, finished: make(chan uint64), wake: make(chan struct{}, 1)}
}

// begin hands over a snapshot; it takes the place of an unfinished one.
func (i *installer) begin(snap *pb.Snapshot) error {
	c, err := decodeCheckpoint(snap.GetData())
	if err == nil && (c.index != snap.GetMetadata().GetIndex() || c.term != snap.GetMetadata().GetTerm()) {
		err = fmt.Errorf("it is of entry %d", c.index)
	}
	if err != nil {
		return fmt.Errorf("snapshot of entry %d: %w", snap.GetMetadata().GetIndex(), err)
	}
	i.offer(c)
	return nil
}

func (i *installer) offer(c checkpoint) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.job = &c
	i.n.deaf.Store(false)
	if i.cancel != nil {
		i.cancel()
	}
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

func (i *installer) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-i.wake:
		}
		i.mu.Lock()
		job := i.job
		if i.job = nil; job == nil { // offered and taken between two looks: it is not to be done again
			i.mu.Unlock()
			continue
		}
		jobCtx, cancel := context.WithCancel(ctx)
		i.cancel = cancel
		i.mu.Unlock()
		i.reviewed = false // another state may begin with another file
		err := i.install(jobCtx, *job)
		superseded := jobCtx.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil, errors.Is(err, ErrClosed):
			return nil
		case err != nil && !errors.Is(err, context.Canceled):
			return err
		case superseded:
			continue
		}
		select {
		case i.finished <- job.index:
		case <-ctx.Done():
			return nil
		}
	}
}

// install brings the log to the end of the job. Its errors are those with which
// the node cannot go on; what passes is tried again until ctx ends.
func (i *installer) install(ctx context.Context, job checkpoint) error {
	n := i.n
	i.began.Store(time.Now().UnixNano())
	i.done.Store(0)
	i.total.Store(0)
	n.log.Info("this node is behind: fetching what it lacks", "from_entry", n.segments.LastIndex()+1, "to_entry", job.index)
	if err := n.inApplier(func(*applier) error { return nil }); err != nil { // what was committed before is applied
		return err
	}
	if i.replaced {
		if err := i.note(job); err != nil {
			return err
		}
		if err := i.review(ctx, job); err != nil {
			return err
		}
	}
	if job.index == firstIndex && n.segments.LastIndex() <= firstIndex { // a group begins: there is nothing to fetch
		if err := i.replace(job, entryID{firstIndex, firstTerm}); err != nil {
			return err
		}
	}
	for n.segments.LastIndex() < job.index || !i.replaced && n.applied.Load() < job.index {
		var err error = errors.New("no peer is known")
		purged := false
		for _, m := range n.fetchOrder(job.group) {
			err = i.fetch(ctx, m, job)
			var fatal *fatalError
			if errors.As(err, &fatal) {
				return fatal.err
			}
			if err == nil || ctx.Err() != nil {
				break
			}
			purged = purged || errors.Is(err, errGone)
			n.log.Warn("could not fetch the log from a peer; trying on", "peer", m.Name, "last_entry", n.segments.LastIndex(), "error", err)
		}
		if err != nil && purged {
			i.renew(ctx)
		}
		if err != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(installRetry):
			}
		}
	}
	return i.finish(job)
}

// whileFull runs f, again and again as long as the disk is full.
func (i *installer) whileFull(f func() error) error {
	for said := false; ; {
		err := f()
		if !noSpace(err) {
			return err
		}
		if !said {
			said = true
			i.n.log.Error("the disk is full while this node takes in what it lacks: free space, kingbus goes on by itself", "dir", i.n.dir, "error", err)
		}
		select {
		case <-i.n.applierEnded:
			return ErrClosed
		case <-time.After(fullRetry):
		}
	}
}

// renew asks the leader for another snapshot, because what the present one needs
// was purged by all peers. Raft would not send one by itself: it takes this node
// for one that has the present one. Until it comes Raft hears of no entries, so
// that it is newer than all that it knows of.
func (i *installer) renew(ctx context.Context) {
	n := i.n
	n.deaf.Store(true)
	leader, ok := n.group().byID(n.Leader())
	for _, m := range n.peers.known(n.group()) {
		if m.ID == n.Leader() {
			leader, ok = m, true
		}
	}
	if !ok {
		return
	}
	answer, err := n.askNode(ctx, leader, question{Do: "snapshot"})
	var c checkpoint
	if err == nil {
		c, err = decodeCheckpoint(answer.Snapshot)
	}
	if err != nil {
		n.log.Warn("what this node lacks was purged meanwhile, and the leader gave no newer snapshot; trying on", "peer", leader.Name, "error", err)
		return
	}
	n.log.Info("what this node lacks was purged meanwhile; it begins with a newer snapshot", "peer", leader.Name, "entry", c.index)
	n.inbox.push(incoming{m: snapshotMessage(c, answer.Snapshot, leader.ID, n.id, answer.Term)})
}

// snapshotMessage is what a leader sends.
func snapshotMessage(c checkpoint, data []byte, from, to, term uint64) *pb.Message {
	return &pb.Message{
		Type: pb.MsgSnap.Enum(), To: new(to), From: new(from), Term: new(term),
		Snapshot: &pb.Snapshot{Data: data, Metadata: &pb.SnapshotMetadata{Index: new(c.index), Term: new(c.term), ConfState: c.group.conf}},
	}
}

// fatalError is one that no other peer can help with.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }

// review shows the state machine what a broken-off installation has left in the
// log.
func (i *installer) review(ctx context.Context, job checkpoint) error {
	if i.reviewed {
		return nil
	}
	n := i.n
	first, last := n.segments.FirstIndex(), n.segments.LastIndex()
	err := n.inApplier(func(a *applier) error {
		a.beginReview(entryID{first - 1, 0})
		return n.machine.Replace(job.state)
	})
	if err == nil && last >= first {
		err = i.readBack(ctx, first, last)
	}
	i.reviewed = err == nil
	return err
}

// note writes down what is being installed, and that the log is not whole.
func (i *installer) note(job checkpoint) error {
	b, err := job.encode()
	if err == nil {
		err = i.whileFull(func() error { return vfs.WriteFile(i.n.cfg.FS, filepath.Join(i.n.dir, installFile), b) })
	}
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	i.n.replacedBy.Store(job.index)
	return nil
}

// readBack gives committed entries of this node's log to the apply goroutine. One
// that is damaged is fetched again first.
func (i *installer) readBack(ctx context.Context, from, to uint64) error {
	for next := from; next <= to; {
		err := i.readOn(&next, to)
		var corrupt *segment.CorruptError
		if errors.As(err, &corrupt) && corrupt.Index != 0 {
			if err = i.n.repairer.repair(ctx, corrupt); err == nil || errors.Is(err, segment.ErrRange) { // it is sound by now
				continue
			}
			if errors.Is(err, segment.ErrPoisoned) {
				return err
			}
			i.n.log.Error("a damaged entry of the log cannot be repaired yet; trying again", "entry", corrupt.Index, "path", corrupt.File, "offset", corrupt.Offset, "error", err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(installRetry):
				continue
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readOn is readBack up to a damage. It moves next behind what was applied.
func (i *installer) readOn(next *uint64, to uint64) error {
	n := i.n
	at, err := n.segments.Seek(*next)
	if err != nil {
		return fmt.Errorf("find entry %d: %w", *next, err)
	}
	r, err := n.segments.NewReader(at)
	if err != nil {
		return fmt.Errorf("read from entry %d: %w", *next, err)
	}
	defer r.Close()
	for *next <= to {
		var batch []fetched
		var failed error
		for bytes := 0; *next+uint64(len(batch)) <= to && bytes < installBatch; {
			e, at, err := r.Next()
			if err == io.EOF {
				err = errors.New("the log ends before it")
			}
			if err != nil {
				failed = fmt.Errorf("read entry %d: %w", *next+uint64(len(batch)), err)
				break
			}
			e.Data, e.Payload = append([]byte(nil), e.Data...), append([]byte(nil), e.Payload...)
			batch = append(batch, fetched{e, at})
			bytes += len(e.Payload) + 100
		}
		if err := i.apply(batch); err != nil {
			return err
		}
		*next += uint64(len(batch))
		if failed != nil {
			return failed
		}
	}
	return nil
}

// fetched is an entry that is on disk, at its place.
type fetched struct {
	segment.Entry
	at segment.Location
}

// apply applies entries that are committed and on disk.
func (i *installer) apply(batch []fetched) error {
	if len(batch) == 0 {
		return nil
	}
	n := i.n
	return n.inApplier(func(a *applier) error {
		for _, f := range batch {
			e := Entry{Index: f.Index, Term: f.Term, At: f.at}
			if HasPayload(f.Entry) {
				e.Payload = f.Payload
			}
			if err := a.add(e); err != nil {
				return err
			}
			if f.Type != uint8(pb.EntryNormal) && !a.review {
				if err := a.changeMembership(&pb.Entry{Index: new(f.Index), Term: new(f.Term), Type: pb.EntryType(f.Type).Enum(), Data: f.Data}, false); err != nil {
					return err
				}
			}
		}
		if err := a.flush(); err != nil {
			return err
		}
		if !a.review {
			n.setApplied(a.last.index)
		}
		return nil
	})
}

// beginReview sets the applier behind the entry before, with nothing applied.
func (a *applier) beginReview(before entryID) {
	a.closeDisk()
	clear(a.batch)
	a.batch, a.bytes, a.segment, a.last, a.review = a.batch[:0], 0, 0, before, true
}

// replace begins the log anew behind an entry, because no peer has what follows
// this node's own. Nothing breaks it off: state machine and log go together.
func (i *installer) replace(job checkpoint, before entryID) error {
	n := i.n
	if err := i.note(job); err != nil {
		return err
	}
	err := n.inApplier(func(a *applier) error {
		a.beginReview(before)
		return n.machine.Replace(job.state)
	})
	if err != nil {
		return err
	}
	n.setApplied(0)
	n.saver.forget()
	if err := i.whileFull(func() error { return n.segments.ResetTo(before.index, before.term) }); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	i.replaced, i.reviewed = true, true
	if err := n.saver.clear(); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	return nil
}

// finish puts the state of the job into force. Nothing breaks it off.
func (i *installer) finish(job checkpoint) error {
	n := i.n
	if term, err := n.segments.Term(job.index); err != nil || term != job.term {
		return fmt.Errorf("%w: entry %d has term %d, the leader's has %d (%v)", ErrDiverged, job.index, term, job.term, err)
	}
	n.hard.commitTo(job.index)
	if err := n.hard.saveCommit(); err != nil {
		return err
	}
	reviewed := false
	err := n.inApplier(func(a *applier) error {
		if !a.review {
			state, err := n.machine.Snapshot()
			if err == nil && string(state) != string(job.state) {
				err = fmt.Errorf("%w: the state after entry %d is not that of the leader; remove this node and add it again with an empty data folder", ErrDiverged, job.index)
			}
			return err
		}
		if err := n.machine.Adopt(job.index, job.state); err != nil {
			return err
		}
		reviewed, a.review = true, false
		a.group = job.group
		a.last = entryID{job.index, job.term}
		n.setGroup(job.group)
		return nil
	})
	if err == nil && reviewed {
		err = i.whileFull(func() error {
			return n.inApplier(func(a *applier) error { return a.saveState(job) })
		})
	}
	if err != nil {
		return err
	}
	if i.replaced {
		if err := n.cfg.FS.Remove(filepath.Join(n.dir, installFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("install: %w", err)
		}
		if err := n.cfg.FS.SyncDir(n.dir); err != nil {
			return fmt.Errorf("install: %w", err)
		}
		i.replaced, i.reviewed = false, false
	}
	n.deaf.Store(false)
	n.window.reset(entryID{job.index, job.term})
	n.setApplied(job.index)
	n.leadership.applied(job.term)
	n.log.Info("this node has what it lacked", "to_entry", job.index, "bytes", i.done.Load(), "took", i.took().Round(time.Millisecond))
	return nil
}

// saveState makes a checkpoint whose state is in force durable, in the middle of a
// segment as it may be.
func (a *applier) saveState(c checkpoint) error {
	if a.segment != 0 {
		if _, err := a.n.machine.Checkpoint(a.segment, a.n.segments.FirstIndex()); err != nil {
			return fmt.Errorf("checkpoint at entry %d: %w", c.index, err)
		}
	}
	return c.save(a.n.cfg.FS, a.n.dir)
}

// Progress is how far this node has come with what it lacks.
type Progress struct {
	Done  uint64 `json:"done"`  // bytes fetched
	Total uint64 `json:"total"` // bytes there were to fetch
	// Seconds since it began.
	Seconds float64 `json:"seconds"`
}

func (i *installer) took() time.Duration { return time.Since(time.Unix(0, i.began.Load())) }

// progress returns nil if nothing is lacking.
func (i *installer) progress() *Progress {
	if !i.n.installing.Load() {
		return nil
	}
	return &Progress{Done: i.done.Load(), Total: i.total.Load(), Seconds: i.took().Seconds()}
}
