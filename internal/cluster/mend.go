package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"kingbus/internal/segment"
	"kingbus/internal/vfs"
)

// A start that finds its log damaged has lost what it once acknowledged. It takes
// no part in the group (it is not there yet, and has told nobody anything) until
// it has fetched that from a peer: the log is cut off at the damage, and filled up
// from a leader that has a majority without this node, whose log therefore holds
// everything that was ever committed. How far it has to come is written down
// first, in the file "mend", so that a crash in between forgets nothing.

// mendFile is the name of that file; JSON.
const mendFile = "mend"

type mending struct {
	// UpTo is the last entry that this node may have acknowledged.
	UpTo uint64 `json:"up_to"`
}

// readMending reads that file; the zero value: there is none.
func readMending(fsys vfs.FS, dir string) (todo mending, err error) {
	name := filepath.Join(dir, mendFile)
	b, err := vfs.ReadFile(fsys, name, 1<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return mending{}, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &todo)
	}
	if err != nil {
		return mending{}, fmt.Errorf("%s: %w", name, err)
	}
	return todo, nil
}

// mendEvery is how often peers are asked.
const mendEvery = time.Second

// openLog opens the log, and mends it if it is damaged and there are peers.
func (n *Node) openLog(committed uint64) (segment.Recovery, error) {
	opt := segment.Options{SegmentBytes: n.cfg.SegmentBytes, Committed: committed, Logger: n.log}
	dir, name := filepath.Join(n.dir, "log"), filepath.Join(n.dir, mendFile)
	todo, err := readMending(n.cfg.FS, n.dir)
	if err != nil {
		return segment.Recovery{}, err
	}
	var recovery segment.Recovery
	if todo.UpTo == 0 {
		n.segments, recovery, err = segment.Open(n.cfg.FS, dir, opt)
		var damage *segment.DamageError
		if !errors.As(err, &damage) || !n.hasPeers(committed) {
			return recovery, err
		}
		n.log.Error("the log is damaged: this node takes no part in the cluster until it has fetched what is lost from a peer; look at its disk", "error", err)
		todo.UpTo = max(damage.LastLost, damage.FirstLost, committed)
		b, err := json.Marshal(todo)
		if err != nil {
			return recovery, err
		}
		if err := vfs.WriteFile(n.cfg.FS, name, b); err != nil {
			return recovery, fmt.Errorf("mend the log: %w", err)
		}
	}
	opt.CutDamage = true
	if n.segments, recovery, err = segment.Open(n.cfg.FS, dir, opt); err != nil {
		return recovery, err
	}
	if err := n.mend(todo, committed); err != nil {
		return recovery, err
	}
	if err := n.cfg.FS.Remove(name); err != nil {
		return recovery, fmt.Errorf("mend the log: %w", err)
	}
	return recovery, n.cfg.FS.SyncDir(n.dir)
}

// hasPeers tells whether there is somebody to ask, and who belongs to the group as
// far as this folder knows.
func (n *Node) hasPeers(committed uint64) bool {
	c, _, err := newestCheckpoint(n.cfg.FS, n.dir, committed)
	if err != nil {
		return false
	}
	n.members.Store(&c.group)
	for _, m := range c.group.members {
		if m.ID != n.id && m.Address != "" {
			return true
		}
	}
	return false
}

// mend fetches until all is here.
func (n *Node) mend(todo mending, committed uint64) error {
	if !n.hasPeers(committed) {
		return fmt.Errorf("the log of %s was cut off at a damage, and no peer is known from which the rest could be had", n.dir)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if n.cfg.Interrupt != nil {
		go func() {
			select {
			case <-n.cfg.Interrupt:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	var said time.Time
	for {
		var failed error
		for _, m := range n.group().members {
			if m.ID == n.id || m.Address == "" {
				continue
			}
			err := n.mendFrom(ctx, m, todo.UpTo, committed)
			if err == nil {
				n.log.Warn("the log is whole again", "peer", m.Name, "last_entry", n.segments.LastIndex())
				return nil
			}
			if why := n.refused(m.Name, err); why != nil {
				return why
			}
			var fatal *fatalError
			if errors.As(err, &fatal) {
				return fmt.Errorf("mend the log: %w", fatal.err)
			}
			failed = errors.Join(failed, fmt.Errorf("%s: %w", m.Name, err))
		}
		if failed != nil && time.Since(said) >= sayEvery {
			said = time.Now()
			n.log.Warn("nobody has what the log lacks, yet; trying on. The others need a majority without this node", "up_to_entry", todo.UpTo, "error", failed)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("broken off while the log was fetched from the peers: %w", ctx.Err())
		case <-time.After(mendEvery):
		}
	}
}

// mendFrom fetches what is lost from a peer that leads.
func (n *Node) mendFrom(ctx context.Context, m Member, upTo, committed uint64) error {
	last := n.segments.LastIndex()
	term, err := n.segments.Term(last)
	if err != nil {
		return err
	}
	c, answer, err := n.ask(ctx, m, fetchRequest{Last: last, LastTerm: term, Applied: min(committed, last), To: upTo, Latest: true})
	if err != nil {
		return err
	}
	defer c.Close()
	if answer.Anew {
		return errors.New("its log begins behind the damage: remove this node, empty its data folder and add it again")
	}
	for next := answer.From; ; {
		entries, err := readEntries(c, next)
		if err != nil {
			return err
		}
		if len(entries) > 0 {
			if _, err := n.segments.Append(entries); noSpace(err) {
				return err
			} else if err != nil {
				return &fatalError{err}
			}
			next += uint64(len(entries))
			continue
		}
		// All that came is committed. It may be much, and is to be replayed, not kept for Raft.
		err = n.segments.Sync()
		if err == nil {
			err = n.hard.saveCommitTo(next - 1)
		}
		if err != nil {
			return &fatalError{err}
		}
		return nil
	}
}

// mendEntry fetches one entry that a start could not read.
func (n *Node) mendEntry(corrupt *segment.CorruptError) error {
	ctx, cancel := context.WithTimeout(context.Background(), fetchPatience)
	defer cancel()
	committed, _ := n.hard.committed()
	if !n.hasPeers(committed) || corrupt.Index == 0 {
		return errors.New("there is no peer")
	}
	var failed error
	for _, m := range n.group().members {
		if m.ID == n.id || m.Address == "" {
			continue
		}
		e, err := n.fetchEntry(ctx, m, corrupt.Index)
		if err == nil {
			err = n.segments.Repair(corrupt.At, e)
		}
		if err == nil {
			n.log.Warn("a damaged entry of the log was fetched from another node and written again; look at this disk", "peer", m.Name, "entry", corrupt.Index, "path", corrupt.File, "offset", corrupt.Offset)
			return nil
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", m.Name, err))
	}
	return failed
}
