package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kingbus/internal/admin"
)

// nodes is a cluster of kingbus on this machine; each has its folder and its syncs.
type nodes []*kingbus

// newNodes makes n nodes that begin a cluster together, with more arguments.
func (b *bench) newNodes(n int, args ...string) (nodes, error) {
	var all nodes
	var initial []string
	for i := range n {
		k, err := b.newKingbus()
		if err != nil {
			return nil, err
		}
		if k.peer, err = freeAddress(); err != nil {
			return nil, err
		}
		k.name = fmt.Sprintf("n%d", i+1)
		initial = append(initial, k.name+"="+k.peer)
		all = append(all, k)
	}
	for _, k := range all {
		k.args = append([]string{"--node-name", k.name, "--peer-listen", k.peer, "--initial-cluster", strings.Join(initial, ",")}, args...)
	}
	return all, nil
}

// start starts all, with a source or without.
func (all nodes) start(ctx context.Context, source string) error {
	for _, k := range all {
		if err := k.startWith(source); err != nil {
			return err
		}
	}
	for _, k := range all {
		if err := k.awaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stop stops all at the same time.
func (all nodes) stop() error {
	errs := make(chan error, len(all))
	for _, k := range all {
		go func() { errs <- k.stop(true) }()
	}
	var err error
	for range all {
		err = errors.Join(err, <-errs)
	}
	return err
}

func (all nodes) discard() error {
	var errs []error
	for _, k := range all {
		errs = append(errs, k.discard())
	}
	return errors.Join(errs...)
}

// leader waits for the node that leads.
func (all nodes) leader(ctx context.Context) (*kingbus, error) {
	for began := time.Now(); time.Since(began) < startWait; {
		for _, k := range all {
			if k.proc == nil {
				continue
			}
			if st, err := k.status(ctx); err == nil && st.Node.Leader {
				return k, nil
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, errors.New("no node leads")
}

// Figures of the original kingbus for 1 GB through three nodes on a machine of this kind.
const (
	originalRate = 14.0 // MB/s
	maxCPU       = 6.0  // ms per MB, summed over the nodes: the goal
)

// clusterIngest measures the way in through three nodes, from the leader's asking the source until the last node has
// everything applied.
func (b *bench) clusterIngest(ctx context.Context, src *origin) error {
	b.say("\n%s, set %s (%s), three nodes", phaseCluster, src.name, src.what)
	limit, err := diskLimit(b.folder.path, 3)
	if err != nil {
		return err
	}
	var rate, one, cpu series
	for range b.cfg.Runs {
		k, single, err := b.ingestKingbus(ctx, src, "cluster-single")
		if err == nil {
			err = k.discard()
		}
		if err != nil {
			return err
		}
		one.add(single.rate())
		f, err := b.clusterRun(ctx, src)
		if err != nil {
			return err
		}
		rate.add(f.rate())
		cpu.add(f.cpu.Seconds() * 1e3 / (float64(f.bytes) / 1e6))
		b.say("  three nodes  %.0f MB/s, %.2f ms CPU per MB over all nodes; one node %.0f MB/s", f.rate(), cpu[len(cpu)-1], single.rate())
	}
	b.report.compare(phaseCluster, src.name, "three nodes / ten times the original kingbus", "MB/s", rate, series{10 * originalRate}, atLeast)
	b.report.compare(phaseCluster, src.name, "three nodes / one node", "MB/s", rate, one, noGoal)
	b.report.compare(phaseCluster, src.name, "three nodes / three synced files on this disk", "MB/s", rate, series{limit}, noGoal)
	b.report.limit(phaseCluster, src.name, "CPU over all nodes", "ms/MB", cpu, nil, maxCPU)
	return nil
}

func (b *bench) clusterRun(ctx context.Context, src *origin) (f flow, err error) {
	all, err := b.newNodes(3)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, all.discard()) }()
	if err := all.start(ctx, ""); err != nil { // the cluster is founded
		return f, err
	}
	if err := errors.Join(all.stop(), b.folder.settle()); err != nil {
		return f, err
	}
	b.memory.enter(phaseCluster + " " + src.name)
	if err := all.start(ctx, src.addr()); err != nil {
		return f, err
	}
	var since time.Time
	for _, k := range all {
		st, err := k.awaitStatus(ctx, "everything from the source", 10*time.Millisecond, func(st admin.Status) bool {
			return st.Stream.End.File == src.last && st.Stream.End.Pos == src.end
		})
		if err != nil {
			return f, err
		}
		if st.Source.Connected {
			since = st.Source.Since
		}
		f.bytes = int64(st.Stream.Bytes)
	}
	f.took = time.Since(since)
	for _, k := range all {
		cpu, err := cpuTime(k.pid())
		if err != nil {
			return f, err
		}
		f.cpu += cpu
	}
	return f, nil
}

// diskLimit returns at how many MB/s files can be written at the same time, each synced after each MiB, counted once:
// what a cluster of that many nodes on one disk cannot exceed.
func diskLimit(dir string, files int) (float64, error) {
	const piece, total = 1 << 20, 256 << 20
	buf := make([]byte, piece)
	var all []*os.File
	defer func() {
		for _, f := range all {
			_ = os.Remove(f.Name())
			_ = f.Close()
		}
	}()
	for range files {
		f, err := os.CreateTemp(dir, "limit-")
		if err != nil {
			return 0, err
		}
		all = append(all, f)
	}
	errs := make(chan error, files)
	began := time.Now()
	for _, f := range all {
		go func() {
			for n := 0; n < total; n += piece {
				_, err := f.Write(buf)
				if err == nil {
					err = unix.Fdatasync(int(f.Fd()))
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var err error
	for range all {
		err = errors.Join(err, <-errs)
	}
	return total / 1e6 / time.Since(began).Seconds(), err
}

// post asks a node to change something.
func (k *kingbus) post(ctx context.Context, path string, body any) error {
	return k.change(ctx, http.MethodPost, path, body)
}

// remove takes a node out of the cluster.
func (k *kingbus) remove(ctx context.Context, name string) error {
	return k.change(ctx, http.MethodDelete, "/api/v1/cluster/nodes/"+name, struct{}{})
}

func (k *kingbus) change(ctx context.Context, method, path string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+k.admin+path, strings.NewReader(string(b)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := k.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("change %s: %s: %s", path, resp.Status, text)
	}
	return err
}
