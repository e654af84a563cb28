package stream

import (
	"kingbus/internal/cluster"
	"kingbus/internal/gtid"
)

// RecoverPlan is what Recover would make of a stopped node's folder.
type RecoverPlan struct {
	cluster.RecoverPlan
	// End and Executed are what replicas will find afterwards: everything in the
	// log, also what this node did not know to be committed.
	End      Coordinates
	Executed gtid.Set
	// Source are the source's coordinates of End.
	Source Coordinates
}

// Recover turns the folder of a stopped node into that of a new cluster of one,
// after the majority of the old one was lost for good. Everything that is in its
// log counts as committed. It has a new cluster id, so that no node of the old
// cluster ever joins it by accident. confirm is shown the plan before anything is
// changed; if it returns false nothing is, and done is false.
func Recover(cfg Config, confirm func(RecoverPlan) bool) (done bool, err error) {
	cfg.TailBytes = 1 // nobody reads
	s := newStream(cfg)
	cfg = s.cfg
	if err := cfg.FS.MkdirAll(s.indexDir()); err != nil {
		return false, err
	}
	return cluster.Recover(cluster.Config{FS: cfg.FS, Dir: cfg.Dir, Machine: machine{s}, Log: cfg.Log, Peering: cfg.Peering},
		func(p cluster.RecoverPlan) bool {
			plan := RecoverPlan{RecoverPlan: p, Executed: s.state.executed.Clone()}
			plan.End, plan.Source = s.state.coordinates()
			return confirm(plan)
		})
}
