package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"kingbus/internal/admin"
)

// The goals for a node that joins.
const (
	joinShare   = 0.7 // of what the disk can write
	joinLatency = 2.0 // times the latency of commits that nothing disturbs
)

// calmTime is how long commits are timed while nothing else happens.
const calmTime = 15 * time.Second

// join measures how fast a fresh node takes in the log of a leader that has nothing else to do, and what a second one
// does to the commits of a leader that has.
func (b *bench) join(ctx context.Context, sp spec) (err error) {
	b.say("\n%s with %g GB", phaseJoin, b.cfg.JoinGB)
	c, err := b.newCluster(1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.discard()) }()
	leader := c[0]
	set, err := b.joinLog(ctx, leader, sp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(set.dir)) }()
	src, err := b.openSource(ctx, set)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()

	b.memory.enter(phaseJoin)
	if err := c.start(ctx, src.addr()); err != nil {
		return err
	}
	had, err := executed(ctx, src.inst)
	if err != nil {
		return err
	}
	if _, err := c.caughtUp(ctx, had); err != nil {
		return err
	}
	st, err := leader.status(ctx)
	if err != nil {
		return err
	}
	size := fmt.Sprintf("%.1f GB", float64(st.Stream.Bytes)/1e9)
	// Disks change their mind: it is measured before and behind.
	var disk series
	measureDisk := func() error {
		rate, err := b.diskRate(ctx, sequential{files: 1, bytes: int64(st.Stream.Bytes), piece: 4 << 20})
		disk.add(rate)
		return err
	}
	if err := measureDisk(); err != nil {
		return err
	}
	idle, err := b.joinOne(ctx, leader, "fresh1")
	if err != nil {
		return err
	}
	if err := measureDisk(); err != nil {
		return err
	}
	b.say("  leader idle: %s in %v, %.0f MB/s; the disk %.0f MB/s before and behind", size, idle.took().Round(time.Millisecond), idle.rate(), disk)
	b.report.compare(phaseJoin, size, "fresh node, leader idle / one file, synced each 4 MiB", "MB/s", series{idle.rate()}, disk, atLeast.times(joinShare))
	return b.joinBusy(ctx, src, leader, size)
}

// joinBusy has a node join while transactions are written.
func (b *bench) joinBusy(ctx context.Context, src *origin, leader *kingbus, size string) (err error) {
	st, err := leader.status(ctx)
	if err != nil {
		return err
	}
	w, err := newWriter(ctx, src.inst)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	watch, err := b.watchCommits(ctx, leader.mysql, st.Stream.Executed)
	if err != nil {
		return err
	}
	calm, busy, jerr := b.disturb(ctx, w, leader)
	commits, err := watch.end()
	if err := errors.Join(jerr, err); err != nil {
		return err
	}
	alone, during := latencies(commits, calm), latencies(commits, busy.span)
	if len(alone) == 0 || len(during) == 0 {
		return fmt.Errorf("%d commits were timed before a node joined and %d meanwhile: none of them says anything; take a larger --join-gb", len(alone), len(during))
	}
	b.say("  leader busy: %v, %.0f MB/s, %.0f transactions/s; %d commits alone, %d during the copy",
		busy.took().Round(time.Millisecond), busy.rate(), w.rate(), len(alone), len(during))
	b.report.info(phaseJoin, size, "fresh node, leader busy", "MB/s", series{busy.rate()})
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		b.report.compare(phaseJoin, size, "source's binlog to replica of the leader, "+q.name+", during the copy / alone", "ms",
			series{during.quantile(q.at)}, series{alone.quantile(q.at)}, atMost.times(joinLatency))
	}
	return nil
}

// disturb leaves the leader alone with the writer for a while, and then has a node join.
func (b *bench) disturb(ctx context.Context, w *writer, leader *kingbus) (calm span, busy joined, err error) {
	// What the first transactions find cold is not to count.
	if _, err := (cluster{leader}).committed(ctx, w.mark()+100); err != nil {
		return calm, busy, err
	}
	long := calmTime
	if b.cfg.Quick {
		long /= 5
	}
	calm.from = time.Now()
	select {
	case <-ctx.Done():
		return calm, busy, ctx.Err()
	case <-time.After(long):
	}
	calm.to = time.Now()
	busy, err = b.joinOne(ctx, leader, "fresh2")
	return calm, busy, err
}

// joined is how a node took in a log.
type joined struct {
	span
	bytes uint64
}

func (j joined) took() time.Duration { return j.to.Sub(j.from) }
func (j joined) rate() float64       { return float64(j.bytes) / 1e6 / j.took().Seconds() } // MB/s

// joinOne adds a fresh node, waits until it has all that the leader had when it was added, and takes it out again. It
// stays a learner, which is what copies, and what `kingbus node add` has until the end; so the leader's commits do not
// begin to wait for it.
func (b *bench) joinOne(ctx context.Context, leader *kingbus, name string) (j joined, err error) {
	fresh, err := b.newNode(name, "--join")
	if err != nil {
		return j, err
	}
	defer func() { err = errors.Join(err, fresh.discard(), b.folder.settle()) }()
	if err := b.folder.settle(); err != nil {
		return j, err
	}
	if err := fresh.startWith(""); err != nil {
		return j, err
	}
	if _, err := fresh.awaitStatus(ctx, name+" to wait for a cluster", pollEvery, func(st admin.Status) bool { return st.Cluster.Role == admin.RoleWaiting }); err != nil {
		return j, err
	}
	had, err := leader.status(ctx)
	if err != nil {
		return j, err
	}
	j.bytes, j.from = had.Stream.Bytes, time.Now()
	if err := leader.add(ctx, fresh); err != nil {
		return j, fmt.Errorf("add %s: %w", name, err)
	}
	if err := awaitCopy(ctx, leader, fresh, had); err != nil {
		return j, err
	}
	j.to = time.Now()
	return j, leader.remove(ctx, fresh)
}

// copied is what grows while a node copies a log.
type copied struct{ fetched, last, applied uint64 }

// awaitCopy returns when a fresh node has synced and applied what the leader had. It gives up when nothing has moved
// for startWait.
func awaitCopy(ctx context.Context, leader, fresh *kingbus, had admin.Status) error {
	var seen copied
	for progress := time.Now(); ; {
		st, err := fresh.status(ctx)
		now := copied{last: st.Node.LastIndex, applied: st.Node.Applied}
		if st.Cluster.Installing != nil {
			now.fetched = st.Cluster.Installing.Done
		}
		if err == nil && st.Ready && st.Node.Applied >= had.Node.LastIndex && st.Stream.Transactions >= had.Stream.Transactions {
			// The leader knows what is synced there.
			var of admin.Status
			if of, err = leader.status(ctx); err == nil {
				if m, is := of.Cluster.Member(fresh.name); is && m.Match >= had.Node.LastIndex {
					return nil
				}
			}
		}
		if err == nil && now != seen {
			seen, progress = now, time.Now()
		}
		if time.Since(progress) > startWait {
			return fmt.Errorf("%s does not get on with the copy (%v); the logs say:\n%s", fresh.name, err, cluster{leader, fresh}.logTails())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-fresh.proc.done:
			return fmt.Errorf("%s ended: %w; its log says:\n%s", fresh.name, fresh.proc.err, fresh.logTail())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
