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
	id, fresh, err := openIdentity(fsys, n.dir, randomUint64)
	if err != nil {
		return err
	}
	if fresh {
		if err := n.clearUnfinished(); err != nil {
			return err
		}
	}
	n.id = id.Raft
	n.numbers.Store(randomUint64() &^ 0xffffffff)
	if n.hard, err = openHardState(fsys, n.dir, filepath.Join(n.dir, hardStateFile), fresh); err != nil {
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
	c, problems, err := newestCheckpoint(n.cfg.FS, n.dir, committed)
	for _, p := range problems {
		n.log.Warn("passed over a checkpoint", "error", p)
	}
	if err != nil {
		return err
	}
	if err := n.machine.Restore(c.index, c.state, n.segmentsUpTo(c.index)); err != nil {
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
