package e2e

import (
	"context"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/gtid"
	"kingbus/internal/mysqltest"
	"kingbus/internal/semisync"
)

var semiSyncKills = flag.Int("semi-sync-kills", 12, "how many times TestConfirmed kills something; with many of them -timeout has to be long as well")

// TestConfirmed: a source that waits for its semi-sync replica without a time limit has
// three nodes of kingbus for it. Nodes, their leader and the source are killed at
// random while writers write; in the end the source is lost with its disk. Everything
// that it had confirmed to a writer is in a fresh replica, which has it from kingbus,
// and nothing is that no writer has written.
func TestConfirmed(t *testing.T) {
	ctx := context.Background()
	kills := *semiSyncKills
	if testing.Short() {
		kills = 4
	}
	dir := evidence(t)
	src := startSource(t, dir, mysqltest.Options{Name: "source", Args: []string{
		"--plugin-load-add=semisync_source.so", "--rpl-semi-sync-source-enabled=1", "--rpl-semi-sync-source-timeout=4294967295",
		"--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1", "--max-binlog-size=4M",
	}})
	c := newCluster(t, dir, src, 3, "--semi-sync=on", "--heartbeat=50ms", "--election-timeout=500ms")
	c.awaitLeader()
	l := startLedger(t, src, 8)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	of := map[string]int{}
	for range kills {
		confirmed := l.confirmed()
		time.Sleep(between(rng, 0, 700*time.Millisecond)) // a random moment
		switch n := rng.IntN(10); {
		case n == 0:
			of["the source"]++
			src.Kill()
			time.Sleep(between(rng, 0, 500*time.Millisecond))
			if err := src.Start(ctx); err != nil {
				t.Fatal(err)
			}
		case n < 7:
			leader := c.leader()
			if leader == nil {
				continue
			}
			of["the leader"]++
			leader.kill()
			time.Sleep(between(rng, 0, 1500*time.Millisecond))
			leader.start()
		default:
			any := c.nodes[c.names[rng.IntN(len(c.names))]]
			of["any node"]++
			any.kill()
			time.Sleep(between(rng, 0, 500*time.Millisecond))
			any.start()
		}
		for late := time.Now().Add(patience); l.confirmed() == confirmed; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(late) {
				t.Fatal("the source confirms nothing any more")
			}
		}
	}
	t.Logf("killed %v", of)
	leader := c.awaitLeader()
	leader.await("the source to wait for kingbus", func(s admin.Status) bool { return s.Source.SemiSync.State == semisync.StateWaiting })
	if no, err := src.QueryValue(ctx, "SELECT variable_value FROM performance_schema.global_status WHERE variable_name = 'Rpl_semi_sync_source_no_tx'"); err != nil || no != "0" {
		t.Errorf("the source has confirmed %s transactions without kingbus, %v", no, err)
	}
	time.Sleep(between(rng, 0, time.Second))
	src.Kill()
	l.stop()
	if err := src.Close(); err != nil { // its disk is gone
		t.Fatal(err)
	}
	var end gtid.Set
	for _, name := range c.names {
		c.nodes[name].await("the same as on the leader", func(s admin.Status) bool {
			leader := c.leader()
			if leader == nil {
				return false
			}
			lead, err := leader.status()
			end = lead.Stream.Executed
			return err == nil && s.Stream.Executed.Equal(end)
		})
	}
	fresh := mysqltest.Start(t, mysqltest.Options{Name: "fresh"})
	c.nodes["n2"].follow(ctx, fresh, "SOURCE_AUTO_POSITION=1")
	awaitReplica(t, fresh, end)
	l.check(t, fresh)
	inspect(t, c)
}

// confirmed returns how many transactions were.
func (l *ledger) confirmed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}
