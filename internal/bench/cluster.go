package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"kingbus/internal/admin"
)

// cluster is some nodes of kingbus on this machine that belong together. Each has its own folder, and syncs.
type cluster []*kingbus

// newCluster makes n nodes that found a cluster when they are started, with more arguments for each.
func (b *bench) newCluster(n int, args ...string) (cluster, error) {
	var c cluster
	var initial []string
	for i := range n {
		k, err := b.newNode(fmt.Sprintf("n%d", i+1), args...)
		if err != nil {
			return nil, err
		}
		initial = append(initial, k.name+"="+k.peer)
		c = append(c, k)
	}
	for _, k := range c {
		k.args = append(k.args, "--initial-cluster", strings.Join(initial, ","))
	}
	return c, nil
}

// newNode makes one node that others can reach.
func (b *bench) newNode(name string, args ...string) (*kingbus, error) {
	k, err := b.newKingbus()
	if err != nil {
		return nil, err
	}
	if k.peer, err = freeAddress(); err != nil {
		return nil, err
	}
	k.name = name
	k.args = slices.Concat([]string{"--node-name", name, "--peer-listen", k.peer}, args)
	return k, nil
}

// start starts all nodes with the address of a source, "" for none, and waits until they know a leader.
func (c cluster) start(ctx context.Context, source string) error {
	for _, k := range c {
		if err := k.startWith(source); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx) // one that ends tells more than those that wait for it
	for _, k := range c {
		g.Go(func() error {
			if err := k.awaitReady(ctx); err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// stop ends all nodes cleanly, at the same time.
func (c cluster) stop() error {
	errs := make([]error, len(c))
	var wg sync.WaitGroup
	for i, k := range c {
		wg.Go(func() { errs[i] = k.stop(true) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// discard kills all nodes and removes their folders.
func (c cluster) discard() error {
	var errs []error
	for _, k := range c {
		errs = append(errs, k.discard())
	}
	return errors.Join(errs...)
}

// cpuTime is that of all nodes together.
func (c cluster) cpuTime() (sum time.Duration, err error) {
	for _, k := range c {
		cpu, err := cpuTime(k.pid())
		if err != nil {
			return 0, err
		}
		sum += cpu
	}
	return sum, nil
}

// pollEvery is how often nodes are asked where the moment of the answer is what is measured.
const pollEvery = 2 * time.Millisecond

// sight is an answer that was waited for.
type sight struct {
	node   *kingbus
	status admin.Status
	at     time.Time
}

// first asks all nodes that run, each by itself, so that one which does not answer delays nothing, until one says what
// is waited for.
func (c cluster) first(ctx context.Context, what string, ok func(admin.Status) bool) (sight, error) {
	waiting, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	seen := make(chan sight, len(c))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, k := range c {
		if k.proc == nil {
			continue
		}
		wg.Go(func() {
			for waiting.Err() == nil {
				if st, err := k.status(waiting); err == nil && ok(st) {
					seen <- sight{k, st, time.Now()}
					return
				}
				select {
				case <-waiting.Done():
				case <-time.After(pollEvery):
				}
			}
		})
	}
	select {
	case s := <-seen:
		return s, nil
	case <-waiting.Done():
	}
	if ctx.Err() != nil {
		return sight{}, context.Cause(ctx)
	}
	return sight{}, fmt.Errorf("waited %v in vain for %s; the logs say:\n%s", startWait, what, c.logTails())
}

// leader returns the node that leads.
func (c cluster) leader(ctx context.Context) (*kingbus, error) {
	s, err := c.first(ctx, "a leader", func(st admin.Status) bool { return st.Node.Leader })
	return s.node, err
}

// caughtUp waits until all nodes run well and have so many transactions of the source, and returns the leader.
func (c cluster) caughtUp(ctx context.Context, transactions uint64) (*kingbus, error) {
	for _, k := range c {
		what := fmt.Sprintf("%s to have %d transactions", k.name, transactions)
		if _, err := k.awaitStatus(ctx, what, 10*time.Millisecond, func(st admin.Status) bool {
			return st.Ready && st.Stream.Executed.Count() >= transactions
		}); err != nil {
			return nil, err
		}
	}
	return c.leader(ctx)
}

// after returns the node behind another one, in a circle.
func (c cluster) after(k *kingbus) *kingbus { return c[(slices.Index(c, k)+1)%len(c)] }

func (c cluster) logTails() string {
	var b strings.Builder
	for _, k := range c {
		fmt.Fprintf(&b, "%s:\n%s\n", k.name, k.logTail())
	}
	return b.String()
}

// nodesPath is where the API changes the nodes; see `kingbus node`.
const nodesPath = "/api/v1/cluster/nodes"

// add takes a node into the cluster of k, as `kingbus node add` does: it is a learner then, and copies the log.
func (k *kingbus) add(ctx context.Context, fresh *kingbus) error {
	return k.change(ctx, http.MethodPost, nodesPath, admin.NewNode{Name: fresh.name, Address: fresh.peer})
}

// remove takes a node out of the cluster of k.
func (k *kingbus) remove(ctx context.Context, gone *kingbus) error {
	return k.change(ctx, http.MethodDelete, nodesPath+"/"+url.PathEscape(gone.name), nil)
}

// transfer asks k to have another node lead.
func (k *kingbus) transfer(ctx context.Context, to *kingbus) error {
	return k.change(ctx, http.MethodPost, nodesPath+"/"+url.PathEscape(to.name)+"/lead", nil)
}
