package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"kingbus/internal/gtid"
	"kingbus/internal/mysqltest"
)

// failoverRounds is how often a leader is killed, and how often leadership is moved, with each setting.
const failoverRounds = 20

// failover measures how long nothing is committed when the leader is killed, or gives leadership away: until a
// transaction is committed that the source wrote after that moment.
func (b *bench) failover(ctx context.Context) (err error) {
	b.memory.enter(phaseFailover)
	inst, err := mysqltest.Launch(ctx, mysqltest.Options{Name: "source"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inst.Close()) }()
	user := mysqltest.User{Name: account, Password: b.password, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}
	if err := inst.CreateUser(ctx, user); err != nil {
		return err
	}
	if err := inst.Exec(ctx, "CREATE DATABASE bench; CREATE TABLE bench.t (id BIGINT AUTO_INCREMENT PRIMARY KEY, a INT)"); err != nil {
		return err
	}
	stop, err := write(ctx, inst)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for _, s := range []struct {
		name string
		args []string
		most float64 // ms
	}{
		{"defaults", nil, 2500},
		{"50/300 ms", []string{"--heartbeat", "50ms", "--election-timeout", "300ms"}, 1000},
	} {
		if err := b.failovers(ctx, inst, s.name, s.most, s.args); err != nil {
			return err
		}
	}
	return nil
}

// write writes small transactions, some hundred a second, until stop is called.
func write(ctx context.Context, inst *mysqltest.Instance) (stop func() error, err error) {
	session, err := inst.Session(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		tick := time.NewTicker(3 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-tick.C:
			}
			if err := session.Exec(ctx, "INSERT INTO bench.t (a) VALUES (1)"); err != nil && ctx.Err() == nil {
				done <- err
				return
			}
		}
	}()
	return func() error {
		cancel()
		return errors.Join(<-done, session.Close())
	}, nil
}

func (b *bench) failovers(ctx context.Context, inst *mysqltest.Instance, name string, most float64, args []string) (err error) {
	b.say("\n%s, %s", phaseFailover, name)
	all, err := b.newNodes(3, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, all.discard()) }()
	if err := all.start(ctx, inst.Addr()); err != nil {
		return err
	}
	rounds := failoverRounds
	if b.cfg.Quick {
		rounds = 3
	}
	var kills, moves series
	for range rounds {
		leader, err := all.caughtUp(ctx, inst)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := leader.stop(false); err != nil {
			return err
		}
		if err := all.committed(ctx, inst); err != nil {
			return err
		}
		kills.add(float64(time.Since(began)) / 1e6)
		if err := leader.startWith(inst.Addr()); err != nil {
			return err
		}
		if err := leader.awaitReady(ctx); err != nil {
			return err
		}
	}
	for i := range rounds {
		leader, err := all.caughtUp(ctx, inst)
		if err != nil {
			return err
		}
		to := all[i%len(all)]
		if to == leader {
			to = all[(i+1)%len(all)]
		}
		began := time.Now()
		asked := make(chan error, 1)
		go func() { asked <- leader.post(ctx, "/api/v1/cluster/nodes/"+to.name+"/lead", struct{}{}) }()
		if err := to.leads(ctx); err != nil {
			return errors.Join(err, <-asked)
		}
		err = nodes{to}.committed(ctx, inst)
		took := time.Since(began)
		if err := errors.Join(err, <-asked); err != nil {
			return err
		}
		moves.add(float64(took) / 1e6)
	}
	b.say("  kill -9: median %.0f ms, worst %.0f ms; transfer: median %.0f ms, worst %.0f ms", kills.median(), kills.max(), moves.median(), moves.max())
	b.report.info(phaseFailover, name, fmt.Sprintf("kill -9 of the leader, median of %d", rounds), "ms", kills)
	b.report.limit(phaseFailover, name, "kill -9 of the leader, worst", "ms", kills.worst(), nil, most)
	b.report.limit(phaseFailover, name, "transfer, median", "ms", moves, nil, 200)
	b.report.limit(phaseFailover, name, "transfer, worst", "ms", moves.worst(), nil, 200)
	return nil
}

// executed is how many transactions a server has.
func executed(ctx context.Context, inst *mysqltest.Instance) (uint64, error) {
	text, err := inst.GTIDExecuted(ctx)
	if err != nil {
		return 0, err
	}
	set, err := gtid.ParseSet(strings.ReplaceAll(text, "\n", ""))
	return set.Count(), err
}

// committed waits until a node has a transaction that the source wrote after the call.
func (all nodes) committed(ctx context.Context, inst *mysqltest.Instance) error {
	had, err := executed(ctx, inst)
	if err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < startWait; time.Sleep(2 * time.Millisecond) {
		for _, k := range all {
			if k.proc == nil {
				continue
			}
			if st, err := k.status(ctx); err == nil && st.Stream.Executed.Count() > had {
				return nil
			}
		}
	}
	return errors.New("nothing new is committed")
}

// leads waits until a node leads.
func (k *kingbus) leads(ctx context.Context) error {
	for began := time.Now(); time.Since(began) < startWait; time.Sleep(time.Millisecond) {
		if st, err := k.status(ctx); err == nil && st.Node.Leader {
			return nil
		}
	}
	return fmt.Errorf("%s does not lead", k.name)
}

// caughtUp waits until all nodes follow closely, and returns who leads.
func (all nodes) caughtUp(ctx context.Context, inst *mysqltest.Instance) (*kingbus, error) {
	had, err := executed(ctx, inst)
	if err != nil {
		return nil, err
	}
	for _, k := range all {
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			st, err := k.status(ctx)
			if err == nil && st.Ready && st.Stream.Executed.Count() >= had {
				break
			}
			if time.Since(began) > startWait {
				return nil, fmt.Errorf("%s does not catch up (%v); its log says:\n%s", k.name, err, k.logTail())
			}
		}
	}
	return all.leader(ctx)
}
