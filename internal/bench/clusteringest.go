package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kingbus/internal/admin"
)

// The goals for a cluster of three nodes on one machine.
const (
	originalRate = 14.0 // MB/s: the original kingbus, 1 GB of small transactions, three nodes on a machine of this kind
	timesFaster  = 10.0 // than that
	maxCPU       = 6.0  // ms for each MB, of all nodes together
)

// clusterIngest measures the way in through three nodes.
//
// The cluster is founded and idle before the source is known to it. Then the nodes are started again with --source: a
// source that is unreachable at first would be tried at intervals, and the wait for the next one is not what is to be
// measured. The clock starts when the leader's link asks for the binlog, by the leader's own word (source.since), and
// stops when the last of the nodes has everything applied, which is committed and synced before. For the single node it
// starts and stops at the same moments. The CPU time is that of all three nodes in between.
func (b *bench) clusterIngest(ctx context.Context, src *origin) error {
	b.say("\n%s, set %s (%s), three nodes", phaseCluster, src.name, src.what)
	var three, one, disk, cpu series
	for range b.cfg.Runs {
		limit, err := b.diskRate(ctx, sequential{files: 3, bytes: src.bytes, piece: 1 << 20})
		if err != nil {
			return err
		}
		single, err := b.ingestSingle(ctx, src)
		if err != nil {
			return err
		}
		all, err := b.ingestCluster(ctx, src)
		if err != nil {
			return err
		}
		disk.add(limit)
		one.add(single.rate())
		three.add(all.rate())
		cpu.add(all.cpuPerGB()) // s/GB are ms/MB
		b.say("  three nodes  %v; one node %.0f MB/s; three synced files %.0f MB/s", all, single.rate(), limit)
	}
	b.report.compare(phaseCluster, src.name, "three nodes / the original kingbus with small transactions", "MB/s", three, series{originalRate}, atLeast.times(timesFaster))
	b.report.compare(phaseCluster, src.name, "three nodes / one node", "MB/s", three, one, noGoal)
	b.report.compare(phaseCluster, src.name, "three nodes / three files at once, synced each MiB", "MB/s", three, disk, noGoal)
	b.report.limit(phaseCluster, src.name, "CPU of all nodes together", "ms/MB", cpu, nil, maxCPU)
	return nil
}

// ingestSingle measures the way in through a node that has no peers, from its asking for the binlog on.
func (b *bench) ingestSingle(ctx context.Context, src *origin) (flow, error) {
	k, in, err := b.ingestKingbus(ctx, src, "cluster-single-"+src.name)
	if err != nil {
		return flow{}, err
	}
	in.took -= in.startUp
	return in.flow, k.discard()
}

// arrivalEvery is how often nodes are asked whether they have everything: often enough for seconds, and seldom enough
// not to be a part of what is measured.
const arrivalEvery = 20 * time.Millisecond

func (b *bench) ingestCluster(ctx context.Context, src *origin) (f flow, err error) {
	c, err := b.newCluster(3)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, c.discard()) }()
	b.memory.enter(phaseCluster + " " + src.name)
	if err := c.start(ctx, ""); err != nil {
		return f, fmt.Errorf("found a cluster: %w", err)
	}
	if err := errors.Join(c.stop(), b.folder.settle()); err != nil {
		return f, err
	}
	if err := c.start(ctx, src.addr()); err != nil {
		return f, err
	}
	link, err := c.first(ctx, "the leader to ask for the binlog", func(st admin.Status) bool { return st.Source.Connected })
	if err != nil {
		return f, err
	}
	before, err := c.cpuTime()
	if err != nil {
		return f, err
	}
	var links uint64
	for _, k := range c {
		st, err := k.awaitStatus(ctx, k.name+" to have everything from the source", arrivalEvery, func(st admin.Status) bool {
			return st.Stream.End.File == src.last && st.Stream.End.Pos == src.end
		})
		if err != nil {
			return f, err
		}
		f.bytes = int64(st.Stream.Bytes)
		links += st.Source.Connects
	}
	f.took = time.Since(link.status.Source.Since)
	after, err := c.cpuTime()
	if err != nil {
		return f, err
	}
	f.cpu = after - before
	if links != 1 {
		b.say("  the source was asked %d times: leadership or the connection changed on the way, which cost time", links)
	}
	return f, nil
}
