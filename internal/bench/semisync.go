package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"kingbus/internal/mysqltest"
	"kingbus/internal/wire"
)

// The goals for semi-sync: times the latency of commits that wait for a stock replica, which syncs nothing.
const (
	semiSyncOne   = 1.0
	semiSyncThree = 1.3
)

// commitTime is how long commits are timed in one go.
const commitTime = 5 * time.Second

// arrangement is what a source has for its semi-sync replica.
type arrangement struct {
	name  string
	start func(context.Context) error // until it is connected
	stop  func() error
	nodes cluster // of kingbus
}

// timed are the latencies of commits in ms, of each go, and what each commit cost all nodes together: CPU time in
// microseconds, and allocations.
type timed struct{ p50, p99, rate, cpu, mallocs series }

// semiSync measures the latency of commits at a source that syncs each of them (AFTER_SYNC): asynchronous, with a stock
// semi-sync replica, with one that only writes and syncs (bare.go), with one node and with three nodes of kingbus. They
// take turns, so that each has the same of what else the machine does.
func (b *bench) semiSync(ctx context.Context) (err error) {
	inst, err := mysqltest.Launch(ctx, mysqltest.Options{Name: "source", Args: sourceArgs(
		"--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1", "--plugin-load-add=semisync_source.so", "--rpl-semi-sync-source-timeout=60000")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inst.Close()) }()
	for _, user := range []mysqltest.User{
		{Name: account, Password: b.password, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}, {Name: "writer", Password: b.password, Grants: "ALL"},
	} {
		if err := inst.CreateUser(ctx, user); err != nil {
			return err
		}
	}
	if err := inst.Exec(ctx, "CREATE DATABASE semi; CREATE TABLE semi.t (id BIGINT AUTO_INCREMENT PRIMARY KEY, a INT)"); err != nil {
		return err
	}
	stock, err := b.stockReplica(ctx, inst)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stock.Close()) }()
	floor := &bare{b: b, inst: inst}
	b.memory.enter(phaseSemiSync)
	one, three := cluster(nil), cluster(nil)
	defer func() { err = errors.Join(err, one.discard(), three.discard()) }()
	if one, err = b.newCluster(1); err != nil {
		return err
	}
	if three, err = b.newCluster(3); err != nil {
		return err
	}
	all := []arrangement{
		{"asynchronous", func(context.Context) error { return nil }, func() error { return nil }, nil},
		{"stock replica", func(ctx context.Context) error { return stock.Exec(ctx, "START REPLICA") }, func() error { return stock.Exec(context.WithoutCancel(ctx), "STOP REPLICA") }, nil},
		{"bare replica", floor.start, floor.stop, nil},
		{"one node", func(ctx context.Context) error { return one.start(ctx, inst.Addr()) }, one.stop, one},
		{"three nodes", func(ctx context.Context) error { return three.start(ctx, inst.Addr()) }, three.stop, three},
	}
	for _, writers := range []int{1, 16} {
		b.say("\n%s, %d writers", phaseSemiSync, writers)
		times := make([]timed, len(all))
		for range b.cfg.Runs {
			for i, a := range all {
				if err := b.timeCommits(ctx, inst, a, i > 0, writers, &times[i]); err != nil {
					return fmt.Errorf("%s: %w", a.name, err)
				}
			}
		}
		set := fmt.Sprintf("%d writers", writers)
		for i, a := range all[3:] {
			g := atMost.times([]float64{semiSyncOne, semiSyncThree}[i])
			b.report.compare(phaseSemiSync, set, "commit, "+a.name+" / stock semi-sync replica, p50", "ms", times[i+3].p50, times[1].p50, g)
			b.report.compare(phaseSemiSync, set, "commit, "+a.name+" / stock semi-sync replica, p99", "ms", times[i+3].p99, times[1].p99, g)
			b.report.compare(phaseSemiSync, set, "commit, "+a.name+" / bare replica that syncs, p50", "ms", times[i+3].p50, times[2].p50, noGoal)
			b.report.compare(phaseSemiSync, set, "commit, "+a.name+" / bare replica that syncs, p99", "ms", times[i+3].p99, times[2].p99, noGoal)
		}
		for i, a := range all[3:] {
			b.report.info(phaseSemiSync, set, "CPU of kingbus for a commit, "+a.name, "µs", times[i+3].cpu)
			b.report.info(phaseSemiSync, set, "allocations of kingbus for a commit, "+a.name, "", times[i+3].mallocs)
		}
		b.report.compare(phaseSemiSync, set, "commit, bare replica that syncs / stock semi-sync replica, p50", "ms", times[2].p50, times[1].p50, noGoal)
		b.report.compare(phaseSemiSync, set, "commit, bare replica that syncs / stock semi-sync replica, p99", "ms", times[2].p99, times[1].p99, noGoal)
		b.report.compare(phaseSemiSync, set, "commit, stock semi-sync replica / asynchronous, p50", "ms", times[1].p50, times[0].p50, noGoal)
	}
	return nil
}

// stockReplica makes a semi-sync replica that does not replicate yet.
func (b *bench) stockReplica(ctx context.Context, src *mysqltest.Instance) (*mysqltest.Instance, error) {
	stock, err := mysqltest.Launch(ctx, mysqltest.Options{Name: "stock", Args: sourceArgs(
		"--server-id=2", "--plugin-load-add=semisync_replica.so", "--rpl-semi-sync-replica-enabled=1", "--skip-replica-start")})
	if err != nil {
		return nil, err
	}
	err = stock.Exec(ctx, fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='%s', SOURCE_PASSWORD='%s', GET_SOURCE_PUBLIC_KEY=1, SOURCE_AUTO_POSITION=1",
		src.Port, account, b.password))
	if err != nil {
		return nil, errors.Join(err, stock.Close())
	}
	return stock, nil
}

// timeCommits has writers commit for a while, and adds what that took.
func (b *bench) timeCommits(ctx context.Context, inst *mysqltest.Instance, a arrangement, waits bool, writers int, to *timed) (err error) {
	if err := inst.Exec(ctx, fmt.Sprintf("SET GLOBAL rpl_semi_sync_source_enabled = %v", waits)); err != nil {
		return err
	}
	if err := a.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	if waits {
		if err := caughtUpSemiSync(ctx, inst); err != nil {
			return err
		}
	}
	before, err := semiSyncCount(ctx, inst, "no_tx")
	if err != nil {
		return err
	}
	cpu, mallocs, err := a.nodes.cost(ctx)
	if err != nil {
		return err
	}
	long := commitTime
	if b.cfg.Quick {
		long /= 5
	}
	took := make([]series, writers)
	g, gctx := errgroup.WithContext(ctx)
	for i := range took {
		g.Go(func() (err error) {
			took[i], err = b.commits(gctx, inst.Addr(), long)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if after, err := semiSyncCount(ctx, inst, "no_tx"); err != nil || waits && after != before {
		return errors.Join(err, fmt.Errorf("the source has fallen back: no_tx was %s, is %s", before, after))
	}
	cpuAfter, mallocsAfter, err := a.nodes.cost(ctx)
	if err != nil {
		return err
	}
	var all series
	for _, s := range took {
		all = append(all, s...)
	}
	if len(all) == 0 {
		return errors.New("nothing was committed")
	}
	to.p50.add(all.quantile(0.5))
	to.p99.add(all.quantile(0.99))
	to.rate.add(float64(len(all)) / long.Seconds())
	to.cpu.add(float64((cpuAfter - cpu).Microseconds()) / float64(len(all)))
	to.mallocs.add((mallocsAfter - mallocs) / float64(len(all)))
	b.say("  %-14s p50 %.2f ms, p99 %.2f ms, %.0f commits/s", a.name, all.quantile(0.5), all.quantile(0.99), float64(len(all))/long.Seconds())
	return nil
}

// commits is one writer: it returns what each commit took, in ms.
func (b *bench) commits(ctx context.Context, addr string, long time.Duration) (series, error) {
	c, err := wire.Dial(ctx, wire.ClientConfig{Address: addr, User: "writer", Password: []byte(b.password), TLSMode: wire.TLSPreferred, GetServerPublicKey: true})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var took series
	for end := time.Now().Add(long); ; {
		began := time.Now()
		if began.After(end) {
			return took, nil
		}
		if _, err := c.Exec(ctx, "INSERT INTO semi.t (a) VALUES (1)"); err != nil {
			return nil, err
		}
		took.add(float64(time.Since(began)) / 1e6)
	}
}

// caughtUpSemiSync waits until the source waits for one replica, which has all.
func caughtUpSemiSync(ctx context.Context, inst *mysqltest.Instance) error {
	waiting, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	const ready = "SELECT COUNT(*) FROM performance_schema.global_status WHERE " +
		"variable_name = 'Rpl_semi_sync_source_clients' AND variable_value = '1' OR variable_name = 'Rpl_semi_sync_source_status' AND variable_value = 'ON'"
	if _, err := inst.Await(waiting, ready, func(rows [][]string) bool { return len(rows) == 1 && rows[0][0] == "2" }); err != nil {
		return fmt.Errorf("the semi-sync replica does not come: %w", err)
	}
	// What the others missed has to be fetched, and this commit is behind it.
	return inst.Exec(ctx, "INSERT INTO semi.t (a) VALUES (0)")
}

func semiSyncCount(ctx context.Context, inst *mysqltest.Instance, name string) (string, error) {
	return inst.QueryValue(ctx, "SELECT variable_value FROM performance_schema.global_status WHERE variable_name = 'Rpl_semi_sync_source_"+name+"'")
}

// cost returns what the nodes have used since they started: CPU time, and how often they have allocated memory.
func (c cluster) cost(ctx context.Context) (cpu time.Duration, mallocs float64, err error) {
	if cpu, err = c.cpuTime(); err != nil {
		return 0, 0, err
	}
	for _, k := range c {
		body, _, err := k.get(ctx, "/metrics")
		if err != nil {
			return 0, 0, err
		}
		_, after, found := strings.Cut(string(body), "\ngo_memstats_mallocs_total ")
		line, _, _ := strings.Cut(after, "\n")
		n, err := strconv.ParseFloat(line, 64)
		if !found || err != nil {
			return 0, 0, fmt.Errorf("/metrics of %s: no go_memstats_mallocs_total", k.name)
		}
		mallocs += n
	}
	return cpu, mallocs, nil
}
