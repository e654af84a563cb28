package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"kingbus/internal/cluster"
	"kingbus/internal/mysqltest"
)

// joinShare is the goal for the rate of a joining node, as a share of the disk's.
const joinShare = 0.7

// latencies is how many commits are timed on a leader that is left alone.
const latencies = 300

// join measures how fast a fresh node takes in the log of an idle leader, and what that does to the commits of one that
// is not idle.
func (b *bench) join(ctx context.Context) (err error) {
	b.say("\n%s with %g GB", phaseJoin, b.cfg.JoinGB)
	b.memory.enter(phaseJoin)
	inst, err := mysqltest.Launch(ctx, mysqltest.Options{Name: "source", Args: []string{"--max-allowed-packet=64M", "--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0", "--max-binlog-size=1G"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inst.Close()) }()
	if err := b.fill(ctx, inst); err != nil {
		return err
	}
	all, err := b.newNodes(1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, all.discard()) }()
	leader := all[0]
	if err := all.start(ctx, inst.Addr()); err != nil {
		return err
	}
	if _, err := all.caughtUp(ctx, inst); err != nil {
		return err
	}
	if err := b.folder.settle(); err != nil {
		return err
	}
	disk, err := diskLimit(b.folder.path, 1)
	if err != nil {
		return err
	}
	idle, _, err := b.joins(ctx, leader, nil)
	if err != nil {
		return err
	}
	calm, err := b.commits(ctx, inst, leader, nil)
	if err != nil {
		return err
	}
	busy, disturbed, err := b.joins(ctx, leader, func(until <-chan struct{}) (series, error) { return b.commits(ctx, inst, leader, until) })
	if err != nil {
		return err
	}
	set := fmt.Sprintf("%g GB", b.cfg.JoinGB)
	b.say("  idle leader %.0f MB/s, disk %.0f MB/s; under writes %.0f MB/s", idle, disk, busy)
	b.report.compare(phaseJoin, set, fmt.Sprintf("fresh node, idle leader / %g of the disk's sequential rate", joinShare), "MB/s", series{idle}, series{joinShare * disk}, atLeast)
	b.report.info(phaseJoin, set, "fresh node while the leader commits", "MB/s", series{busy})
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		ours, theirs := disturbed.quantile(q.at), calm.quantile(q.at)
		b.report.compare(phaseJoin, set, "commit latency "+q.name+", during the copy / half as fast as left alone", "ms", series{ours}, series{2 * theirs}, atMost)
	}
	return nil
}

// fill makes the binlog.
func (b *bench) fill(ctx context.Context, inst *mysqltest.Instance) error {
	user := mysqltest.User{Name: account, Password: b.password, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}
	if err := inst.CreateUser(ctx, user); err != nil {
		return err
	}
	if err := inst.Exec(ctx, "CREATE DATABASE bench; CREATE TABLE bench.t (id BIGINT AUTO_INCREMENT PRIMARY KEY, a INT, b LONGBLOB)"); err != nil {
		return err
	}
	session, err := inst.Session(ctx)
	if err != nil {
		return err
	}
	for n := 0.0; n < b.cfg.JoinGB*1e9 && err == nil; n += 4e6 {
		err = session.Exec(ctx, "INSERT INTO bench.t (b) VALUES (REPEAT('0123456789abcdef', 250000)); DELETE FROM bench.t")
		n += 4e6 // the DELETE has the row, too
	}
	return errors.Join(err, session.Close())
}

// joins adds a fresh node and waits until it has everything; meanwhile another measurement runs, if there is one.
func (b *bench) joins(ctx context.Context, leader *kingbus, meanwhile func(until <-chan struct{}) (series, error)) (rate float64, s series, err error) {
	k, err := b.newKingbus()
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, k.discard()) }()
	if k.peer, err = freeAddress(); err != nil {
		return 0, nil, err
	}
	b.folders++
	k.name = fmt.Sprintf("fresh%d", b.folders)
	k.args = []string{"--node-name", k.name, "--peer-listen", k.peer, "--join"}
	if err := k.startWith(""); err != nil {
		return 0, nil, err
	}
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) { // it waits, which is not ready
		if _, err := k.status(ctx); err == nil {
			break
		}
		if time.Since(began) > startWait {
			return 0, nil, fmt.Errorf("%s does not answer; its log says:\n%s", k.name, k.logTail())
		}
	}
	type result struct {
		s   series
		err error
	}
	done, results := make(chan struct{}), make(chan result, 1)
	if meanwhile != nil {
		go func() {
			s, err := meanwhile(done)
			results <- result{s, err}
		}()
	}
	began := time.Now()
	err = leader.post(ctx, "/api/v1/cluster/nodes", map[string]string{"name": k.name, "address": k.peer})
	var bytes uint64
	for err == nil {
		st, serr := leader.status(ctx)
		i := slices.IndexFunc(st.Cluster.Members, func(m cluster.MemberStatus) bool { return m.Name == k.name })
		if serr == nil && i >= 0 {
			if m := st.Cluster.Members[i]; m.Match+100 >= st.Node.LastIndex && m.State == "replicate" {
				bytes = uint64(st.Disk.Used)
				break
			}
		}
		if time.Since(began) > 10*startWait {
			err = fmt.Errorf("%s does not catch up; its log says:\n%s", k.name, k.logTail())
		}
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(began)
	close(done)
	if meanwhile != nil {
		r := <-results
		s, err = r.s, errors.Join(err, r.err)
	}
	if err == nil {
		err = leader.remove(ctx, k.name)
	}
	return float64(bytes) / 1e6 / took.Seconds(), s, err
}

// commits times small transactions one after the other, from the statement's return at the source until the leader
// says that it is committed: latencies of them, or until a channel is closed.
func (b *bench) commits(ctx context.Context, inst *mysqltest.Instance, leader *kingbus, until <-chan struct{}) (s series, err error) {
	session, err := inst.Session(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	had, err := executed(ctx, inst)
	if err != nil {
		return nil, err
	}
	for ; until != nil || len(s) < latencies; had++ {
		select {
		case <-until:
			return s, nil
		default:
		}
		if err := session.Exec(ctx, "INSERT INTO bench.t (a) VALUES (1)"); err != nil {
			return nil, err
		}
		began := time.Now()
		for {
			st, err := leader.status(ctx)
			if err != nil {
				return nil, err
			}
			if st.Stream.Executed.Count() > had {
				break
			}
		}
		s.add(float64(time.Since(began)) / 1e6)
		time.Sleep(3 * time.Millisecond) // a steady stream, not a flood
	}
	return s, nil
}
