package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"kingbus/internal/segment"
)

// RecoverPlan is what Recover finds in a folder, and makes of it.
type RecoverPlan struct {
	ClusterID, NewClusterID uint64
	RaftID                  uint64
	Members                 []Member // of the old cluster
	// Committed is up to where this node knew the log to be committed, Last its last
	// entry, of term LastTerm. What other nodes acknowledged behind Last is lost. Of
	// several survivors the one has most that has the highest LastTerm, and of those
	// the highest Last.
	Committed, Last, LastTerm uint64
	// LostTo is the last entry that this node may have acknowledged and that its disk has
	// lost, if its log was damaged; 0: it was not. Another survivor may have it.
	LostTo uint64
}

// Recover makes the folder of a stopped node that of a new cluster with this node
// as its only voter. All of its log counts as committed from then on. confirm is
// asked before anything is changed, but that a damaged log from which a start has begun to cut
// the damage off is cut.
//
// The order makes it safe to repeat when it was broken off: the new cluster id
// comes first, so that the node can reach nobody with the old membership, and is
// reached by nobody with the new one; the state with the new membership is on disk
// before the commit index says that it counts.
func Recover(cfg Config, confirm func(RecoverPlan) bool) (done bool, err error) {
	if err := cfg.fill(); err != nil {
		return false, err
	}
	n := newNode(cfg)
	defer func() { err = errors.Join(err, n.closeFiles()) }()
	if n.lock, err = cfg.FS.Lock(filepath.Join(cfg.Dir, "lock")); err != nil {
		return false, fmt.Errorf("data folder %s is in use: stop its node first: %w", cfg.Dir, err)
	}
	id, fresh, err := openIdentity(cfg.FS, cfg.Dir, randomUint64)
	switch {
	case err != nil:
		return false, err
	case fresh || id.Cluster == 0:
		return false, fmt.Errorf("data folder %s belongs to no cluster: there is nothing to recover in it", cfg.Dir)
	}
	n.id, n.identity = id.Raft, id
	n.clusterID.Store(id.Cluster)
	if n.hard, err = openHardState(cfg.FS, cfg.Dir, filepath.Join(cfg.Dir, hardStateFile), false); err != nil {
		return false, err
	}
	committed, _ := n.hard.committed()
	todo, err := readMending(cfg.FS, cfg.Dir)
	if err != nil {
		return false, err
	}
	opt := segment.Options{SegmentBytes: cfg.SegmentBytes, Committed: committed, Logger: n.log}
	if todo.UpTo != 0 { // what is missing will not come any more
		opt.Committed, opt.CutDamage = firstIndex, true
	}
	if n.segments, _, err = segment.Open(cfg.FS, filepath.Join(cfg.Dir, "log"), opt); err != nil {
		return false, err
	}
	last := n.segments.LastIndex()
	if err := n.replayTo(last); err != nil {
		return false, err
	}
	if n.installing.Load() {
		return false, errors.New("this node was fetching its log when it stopped, and has only a part of it: recover from another one")
	}
	old := n.applier.group
	plan := RecoverPlan{
		ClusterID: id.Cluster, NewClusterID: randomUint64() | 1, RaftID: id.Raft,
		Members: slices.Clone(old.members), Committed: committed, Last: last, LastTerm: n.applier.last.term, LostTo: todo.UpTo,
	}
	if !confirm(plan) {
		return false, nil
	}
	self, _ := old.byID(n.id)
	self.ID, self.Learner = n.id, false
	if cfg.Name != "" {
		self.Name, self.Address = cfg.Name, cfg.Address
	}
	group := alone(self, old.format)
	for _, m := range old.members {
		if m.ID != n.id {
			group.removed = append(group.removed, m)
		}
	}
	if s := n.applier.segment; s != 0 { // 0: nothing was replayed
		if _, err := n.machine.Checkpoint(s, n.segments.FirstIndex()); err != nil { // for the index of the last segment
			return false, err
		}
	}
	state, err := n.machine.Snapshot()
	if err != nil {
		return false, err
	}
	id.Cluster = plan.NewClusterID
	if err := id.save(cfg.FS, cfg.Dir); err != nil {
		return false, fmt.Errorf("write identity: %w", err)
	}
	c := checkpoint{index: last, term: n.applier.last.term, group: group, state: state}
	if err := c.save(cfg.FS, cfg.Dir); err != nil {
		return false, err
	}
	found, err := listCheckpoints(cfg.FS, cfg.Dir)
	if err != nil {
		return false, err
	}
	// Those of what was cut off go before new entries can take the place of that; older ones would
	// bring the old members back, should this one be damaged.
	if err := n.saver.remove(slices.DeleteFunc(slices.Clone(found), func(i uint64) bool { return i <= last })); err != nil {
		return false, err
	}
	if err := n.hard.setCommit(last); err != nil {
		return false, err
	}
	if err := n.saver.remove(slices.DeleteFunc(found, func(i uint64) bool { return i >= last })); err != nil {
		return false, err
	}
	if err := cfg.FS.Remove(filepath.Join(cfg.Dir, mendFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err // there is nobody any more from whom the rest could be had
	}
	return true, cfg.FS.SyncDir(cfg.Dir)
}
