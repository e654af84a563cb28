package cluster

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/segment"
	"kingbus/internal/vfs"
)

// firstIndex and firstTerm are of the checkpoint with which a new log begins: it
// holds no entries but the membership.
const firstIndex, firstTerm = 1, 1

func (n *Node) openFiles() error {
	fsys := n.cfg.FS
	// What a killed process has left must not be believed today and be gone tomorrow.
	if err := fsys.SyncDir(n.dir); err != nil {
		return fmt.Errorf("sync data folder: %w", err)
	}
	id, fresh, err := openIdentity(fsys, n.dir, randomUint64)
	if err != nil {
		return err
	}
	if fresh {
		if err := n.clearUnfinished(); err != nil {
			return err
		}
	}
	n.id, n.identity = id.Raft, id
	n.numbers.Store(randomUint64() &^ 0xffffffff)
	if n.hard, err = openHardState(fsys, n.dir, filepath.Join(n.dir, hardStateFile), fresh); err != nil {
		return err
	}
	committed, _ := n.hard.committed()
	if !fresh {
		n.clusterID.Store(id.Cluster) // peers are asked in its name
	}
	recovery, err := n.openLog(committed)
	if err != nil {
		return err // it says that it is about the log
	}
	if recovery.TornBytes > 0 {
		n.log.Warn("cut off a torn write at the end of the log; nothing in it was acknowledged",
			"path", recovery.TornFile, "offset", recovery.TornOffset, "bytes", recovery.TornBytes)
	}
	if !fresh {
		return nil
	}
	if n.cfg.Join || len(n.cfg.Initial) > 1 { // it belongs to no cluster until one takes it in
		n.identity.Cluster = 0
		if err := n.hard.init(0, 0); err != nil {
			return err
		}
		if err := n.identity.save(fsys, n.dir); err != nil {
			return fmt.Errorf("write identity: %w", err)
		}
		n.log.Info("made a new data folder", "dir", n.dir, "raft_id", id.Raft)
		return nil
	}
	// The identity is the last step: a folder without one is made anew.
	if err := n.segments.ResetTo(firstIndex, firstTerm); err != nil {
		return fmt.Errorf("begin the log: %w", err)
	}
	if err := n.hard.init(firstTerm, firstIndex); err != nil {
		return err
	}
	self := Member{ID: n.id, Name: n.cfg.Name, Address: n.cfg.Address}
	first := checkpoint{index: firstIndex, term: firstTerm, group: alone(self, n.cfg.MaxFormat)}
	if err := first.save(fsys, n.dir); err != nil {
		return err
	}
	if err := id.save(fsys, n.dir); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	n.clusterID.Store(id.Cluster)
	n.log.Info("made a new data folder", "dir", n.dir, "cluster_id", id.Cluster, "raft_id", id.Raft)
	return nil
}

// emptySegment is the size in bytes of a segment file without entries, and
// segmentLock the file in the log's folder that is no part of the log.
const (
	emptySegment = 4096
	segmentLock  = "LOCK"
)

// clearUnfinished takes away what a crash has left of making the folder: without
// an identity nothing in it was ever acknowledged. A folder that holds more than
// the beginning and has no identity is not ours to begin anew.
func (n *Node) clearUnfinished() error {
	fsys, logDir := n.cfg.FS, filepath.Join(n.dir, "log")
	notOurs := fmt.Errorf("data folder %s has a log, but no file %q that says whose it is: restore that file, or use an empty folder", n.dir, identityFile)
	err := segment.Inspect(fsys, logDir, func(f segment.Found) error {
		if f.Entry != nil || f.Size > emptySegment {
			return notOurs
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var state Folder // what cannot be read of it is torn
	_ = inspectHardState(fsys, filepath.Join(n.dir, hardStateFile), &state)
	checkpoints, err := listCheckpoints(fsys, n.dir)
	if err != nil {
		return err
	}
	if state.Committed > firstIndex || len(checkpoints) > 0 && checkpoints[len(checkpoints)-1] > firstIndex {
		return notOurs
	}
	if err := removeFiles(fsys, logDir, func(name string) bool { return name != segmentLock }); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return removeFiles(fsys, n.dir, func(name string) bool {
		return name == hardStateFile || strings.HasSuffix(name, checkpointSuffix)
	})
}

// removeFiles removes the files of a folder that which names.
func removeFiles(fsys vfs.FS, dir string, which func(name string) bool) error {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if which(name) {
			if err := fsys.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return fsys.SyncDir(dir)
}

// replay restores the newest checkpoint and applies what was committed after it,
// and fills the window with the entries after that.
func (n *Node) replay() error {
	committed, _ := n.hard.committed()
	return n.replayTo(committed)
}

// replayTo is replay with another idea of what is committed, not below the
// persisted one.
func (n *Node) replayTo(committed uint64) error {
	if again, err := n.resume(); again || err != nil {
		return err
	}
	var c checkpoint
	if committed > 0 {
		var problems []error
		var err error
		c, problems, err = newestCheckpoint(n.cfg.FS, n.dir, committed)
		for _, p := range problems {
			n.log.Warn("passed over a checkpoint", "error", p)
		}
		if err != nil {
			return err
		}
	} else {
		c.group = membership{conf: &pb.ConfState{}} // it waits for its cluster
	}
	if err := n.machine.Restore(c.index, c.state, n.segmentsUpTo(c.index)); err != nil {
		return fmt.Errorf("restore checkpoint of entry %d: %w", c.index, err)
	}
	last := n.segments.LastIndex()
	if last < committed && committed > firstIndex {
		return fmt.Errorf("the log ends at entry %d, but %d was committed: entries are missing at its end; restore the data folder", last, committed)
	}
	n.applier = &applier{n: n, group: c.group, last: entryID{c.index, c.term}}
	n.window = newWindow(n.hard.raft(), c.group.conf, entryID{c.index, c.term})
	n.members.Store(&c.group)
	if last > c.index {
		if err := n.replayEntries(c.index+1, committed); err != nil {
			return err
		}
	}
	n.window.conf = n.applier.group.conf
	n.applied.Store(max(c.index, min(committed, last)))
	return nil
}

// resume goes on with a snapshot whose installation was broken off after the log
// had begun anew.
func (n *Node) resume() (bool, error) {
	name := filepath.Join(n.dir, installFile)
	b, err := vfs.ReadFile(n.cfg.FS, name, maxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	var job checkpoint
	if err == nil {
		job, err = decodeCheckpoint(b)
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	found, err := listCheckpoints(n.cfg.FS, n.dir)
	if err != nil {
		return false, err
	}
	if len(found) > 0 && found[len(found)-1]+1 >= n.segments.FirstIndex() {
		// It was broken off before the log was touched, or finished.
		if err := n.cfg.FS.Remove(name); err != nil {
			return false, err
		}
		return false, n.cfg.FS.SyncDir(n.dir)
	}
	if err := n.machine.Restore(0, nil, nil); err != nil {
		return false, fmt.Errorf("restore nothing: %w", err)
	}
	n.applier = &applier{n: n, group: job.group, last: entryID{job.index, job.term}}
	hard := n.hard.raft()
	hard.Commit = new(job.index)
	n.window = newWindow(hard, job.group.conf, entryID{job.index, job.term})
	n.members.Store(&job.group)
	n.installer.replaced = true
	n.replacedBy.Store(job.index)
	n.installing.Store(true)
	n.installer.offer(job)
	return true, nil
}

// segmentsUpTo returns the segments that begin at or before the entry.
func (n *Node) segmentsUpTo(index uint64) []uint64 {
	var firsts []uint64
	for _, info := range n.segments.Segments() {
		if info.First <= index {
			firsts = append(firsts, info.First)
		}
	}
	return firsts
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
			return nil
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
		if HasPayload(stored) {
			payload = append([]byte{}, stored.Payload...)
		}
		if err := n.applier.add(Entry{Index: next, Term: stored.Term, Payload: payload, At: at}); err != nil {
			return err
		}
		if err := n.applier.flush(); err != nil {
			return err
		}
		if e.GetType() != pb.EntryNormal {
			if err := n.applier.changeMembership(e, false); err != nil {
				return err
			}
		}
		n.window.reset(entryID{next, stored.Term})
	}
}

func (n *Node) startRaft() error {
	if format := n.group().format; format > n.cfg.MaxFormat {
		return fmt.Errorf("%w: it writes format %d, this one knows up to %d", ErrFormat, format, n.cfg.MaxFormat)
	}
	if n.cfg.Window > 0 {
		n.window.keep = uint64(n.cfg.Window)
	}
	n.window.ask = func() { n.applies.push((*applier).makeSnapshot) }
	n.last, _ = n.window.LastIndex()
	n.term = n.hard.raft().GetTerm()
	applied := n.applied.Load()
	if n.installing.Load() {
		applied = n.last
	}
	raw, err := raft.NewRawNode(&raft.Config{
		ID: n.id, ElectionTick: max(2, int(n.cfg.Election/n.cfg.Heartbeat)), HeartbeatTick: 1,
		Storage: n.window, Applied: applied, AsyncStorageWrites: true,
		MaxSizePerMsg: uint64(n.cfg.Message), MaxCommittedSizePerReady: 8 << 20, MaxInflightMsgs: 128,
		CheckQuorum: true, PreVote: true, DisableProposalForwarding: true, StepDownOnRemoval: true,
		Logger: raftLogger{n.log},
	})
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	n.raw = raw
	if group := n.group(); len(group.conf.GetVoters()) == 1 && group.isVoter(n.id) && !n.installing.Load() {
		return n.raw.Campaign() // there is nobody to wait for
	}
	return nil
}
