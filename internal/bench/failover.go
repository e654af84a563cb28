package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/mysqltest"
)

// timing is how fast a cluster notices that its leader is gone, and how fast it has to be back, at worst.
type timing struct {
	name string
	args []string
	most float64 // ms
}

var timings = []timing{
	{"defaults", nil, 2500},
	{"50/300 ms", []string{"--heartbeat", "50ms", "--election-timeout", "300ms"}, 1000},
}

// mostTransfer is the goal for a change of leaders that was asked for, in ms.
const mostTransfer = 200

// quickRounds is how many rounds are enough to see whether it works.
const quickRounds = 3

// failover measures how long nothing is committed when the leader is killed, or hands leadership over, while small
// transactions are written all the time: until a new leader has committed one that was begun after that moment.
func (b *bench) failover(ctx context.Context) (err error) {
	inst, err := mysqltest.Launch(ctx, mysqltest.Options{Name: "source", Args: sourceArgs()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inst.Close()) }()
	user := mysqltest.User{Name: account, Password: b.password, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}
	if err := inst.CreateUser(ctx, user); err != nil {
		return err
	}
	w, err := newWriter(ctx, inst)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	for _, t := range timings {
		if err := b.failovers(ctx, inst, w, t); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) failovers(ctx context.Context, inst *mysqltest.Instance, w *writer, t timing) (err error) {
	rounds := b.cfg.Rounds
	if b.cfg.Quick {
		rounds = min(rounds, quickRounds)
	}
	b.say("\n%s, %s", phaseFailover, strings.Join(append([]string{t.name}, t.args...), " "))
	b.memory.enter(phaseFailover)
	c, err := b.newCluster(3, t.args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.discard()) }()
	if err := c.start(ctx, inst.Addr()); err != nil {
		return err
	}
	for _, m := range []struct {
		what     string
		most     float64 // ms, of the worst
		atMedian bool    // it is a goal for the median, too
		measure  func(context.Context, *mysqltest.Instance, *writer) (time.Duration, error)
	}{
		{"kill -9 of the leader", t.most, false, c.killLeader},
		{"transfer of leadership", mostTransfer, true, c.moveLeader},
	} {
		var all series
		for round := range rounds {
			took, err := m.measure(ctx, inst, w)
			if err != nil {
				return fmt.Errorf("%s, %s, round %d: %w", m.what, t.name, round+1, err)
			}
			all.add(float64(took) / 1e6)
		}
		b.say("  %s: median %.0f ms, worst %.0f ms of %.0f", m.what, all.median(), all.max(), all)
		median := fmt.Sprintf("%s, median of %d", m.what, rounds)
		if m.atMedian {
			b.report.limit(phaseFailover, t.name, median, "ms", all, nil, m.most)
		} else {
			b.report.info(phaseFailover, t.name, median, "ms", all)
		}
		b.report.limit(phaseFailover, t.name, m.what+", worst", "ms", all.worst(), nil, m.most)
	}
	return nil
}

// killLeader returns after what time another node has committed something new. When it begins all nodes have caught up;
// the one that was killed runs again when it returns.
func (c cluster) killLeader(ctx context.Context, inst *mysqltest.Instance, w *writer) (time.Duration, error) {
	leader, err := c.caughtUp(ctx, w.mark())
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := leader.stop(false); err != nil {
		return 0, err
	}
	s, err := c.committed(ctx, w.mark()) // of the moment at which it is dead for certain
	if err != nil {
		return 0, err
	}
	if err := leader.startWith(inst.Addr()); err != nil {
		return 0, err
	}
	return s.at.Sub(began), leader.awaitReady(ctx)
}

// moveLeader returns how long after the request the node that was to lead has committed something new. What was begun
// after that node was seen to lead cannot have come through the old leader.
func (c cluster) moveLeader(ctx context.Context, _ *mysqltest.Instance, w *writer) (time.Duration, error) {
	leader, err := c.caughtUp(ctx, w.mark())
	if err != nil {
		return 0, err
	}
	to := c.after(leader)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	asked := make(chan error, 1)
	go func() {
		err := leader.transfer(ctx, to)
		if err != nil {
			cancel(err) // then nothing is to be waited for
		}
		asked <- err
	}()
	s, err := cluster{to}.first(ctx, to.name+" to lead", func(st admin.Status) bool { return st.Node.Leader })
	if err == nil {
		s, err = cluster{to}.committed(ctx, w.mark())
	}
	if err != nil {
		cancel(err)
	}
	if asking := <-asked; err == nil {
		err = asking
	}
	return s.at.Sub(began), err
}

// committed waits until a node leads and has more transactions than those of a writer's mark.
func (c cluster) committed(ctx context.Context, mark uint64) (sight, error) {
	return c.first(ctx, "a leader that commits something new", func(st admin.Status) bool {
		return st.Node.Leader && st.Stream.Executed.Count() > mark
	})
}
