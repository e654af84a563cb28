// Package demo shows kingbus at work: it starts a real MySQL source, the nodes of a cluster and real MySQL replicas on
// this machine, writes a steady workload to the source, shows live what goes through, and in the end compares source and
// replicas. A node that dies, or is killed, is started again after a moment.
//
// Everything listens on loopback and lies in temporary folders. Close stops and removes all of it; if the process dies
// without that, the kernel kills the servers (PDEATHSIG) and small helpers remove the folders.
//
// kingbus runs as a user would run it: the built program, with flags and password files. The demo takes its state from
// the HTTP API, and source and replica are asked with MySQL's own client.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"kingbus/internal/mysqltest"
)

// Errors of Run that callers tell apart; all others mean that something could not be started or failed on the way.
var (
	// ErrNotEqual is wrapped when the replica has not got everything, or has got something else than the source.
	ErrNotEqual = errors.New("source and replica are NOT equal")
	// ErrInterrupted is returned when the context ended before the work was done.
	ErrInterrupted = errors.New("interrupted before source and replica were compared")
	// ErrUsage is wrapped when a setting is wrong.
	ErrUsage = errors.New("wrong setting")
)

// Config says what to show. Out and Kingbus are needed.
type Config struct {
	// Kingbus is the path of the program.
	Kingbus string
	// Duration is how long to write before source and replica are compared; 0 is until the context ends, without
	// comparison.
	Duration time.Duration
	// Nodes is how many nodes kingbus has, up to MaxNodes; one that is alone is no cluster. Replicas is how many MySQL
	// servers replicate from them: the first one from the leader, the next ones from other nodes.
	Nodes, Replicas int
	// Kill kills the leader with SIGKILL once, in the middle of Duration. KillEvery, if it is not 0, does so that often
	// instead.
	Kill      bool
	KillEvery time.Duration
	// Rate is how many transactions to write per second, all writers together.
	Rate int
	// Writers is the number of connections that write.
	Writers int
	// Out takes everything that is shown. On a terminal a table is redrawn in place, elsewhere a line is written per
	// second.
	Out io.Writer
}

// Bounds of the settings.
const (
	MaxRate     = 20_000
	MaxWriters  = 64
	MaxNodes    = 7
	MaxReplicas = 8
)

func (c *Config) check() error {
	switch {
	case c.Rate < 1 || c.Rate > MaxRate:
		return fmt.Errorf("%w: a rate of %d transactions per second, it must be from 1 to %d", ErrUsage, c.Rate, MaxRate)
	case c.Writers < 1 || c.Writers > MaxWriters:
		return fmt.Errorf("%w: %d writers, there must be from 1 to %d", ErrUsage, c.Writers, MaxWriters)
	case c.Nodes < 1 || c.Nodes > MaxNodes:
		return fmt.Errorf("%w: %d nodes, there must be from 1 to %d", ErrUsage, c.Nodes, MaxNodes)
	case c.Replicas < 1 || c.Replicas > MaxReplicas:
		return fmt.Errorf("%w: %d replicas, there must be from 1 to %d", ErrUsage, c.Replicas, MaxReplicas)
	case c.KillEvery < 0:
		return fmt.Errorf("%w: to kill every %v", ErrUsage, c.KillEvery)
	case c.Duration < 0:
		return fmt.Errorf("%w: a duration of %v, it must not be negative", ErrUsage, c.Duration)
	}
	path, err := filepath.Abs(c.Kingbus)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return fmt.Errorf("%w: the program kingbus: %w; build it with `make`, or name it with --kingbus", ErrUsage, err)
	}
	c.Kingbus = path
	return nil
}

const (
	// stopGrace is how long kingbus may take to stop.
	stopGrace = 10 * time.Second
	// catchUp is how long may pass, once nobody writes any more, without a transaction that arrives, before what is
	// missing is given up.
	catchUp = 30 * time.Second
	// redraw is how often the state is sampled, and drawn on a terminal.
	redraw = 250 * time.Millisecond
)

// Run runs the demo until its time is over or ctx ends, and leaves nothing behind but, after a failure, the logs. It
// returns nil only if all went well: with a duration, that source and replica were found equal.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	d := newDemo(cfg)
	err := d.start(ctx)
	if err == nil {
		err = d.run(ctx)
	}
	interrupted := ctx.Err() != nil && !errors.Is(err, ErrNotEqual)
	if interrupted && err == nil && cfg.Duration > 0 || interrupted && err != nil {
		err = ErrInterrupted // whatever failed then failed because of it
	}
	if err != nil && !interrupted {
		err = d.blame(err)
		d.keepLogs()
	}
	d.view.progress("stopping and removing everything")
	err = errors.Join(err, d.close())
	d.view.clear()
	return err
}

// demo is what runs. It is built by start, in the order of the fields.
type demo struct {
	cfg  Config
	view *view

	folder   *folder
	source   *mysqltest.Instance
	nodes    []*kingbus
	password string // of replicaUser
	replicas []*mysqltest.Instance

	// work ends kingbus and everything that asks or writes; its goroutines are waited for by close.
	work struct {
		ctx    context.Context
		cancel context.CancelFunc
		*errgroup.Group
	}
	watch     *watcher
	chronicle *chronicle
	lastLine  time.Time // when the state was last written without a terminal
	written   sample    // when writing ended
	writing   struct {
		stop context.CancelFunc // ends the writers between two transactions
		done sync.WaitGroup
	}
}

func newDemo(cfg Config) *demo { return &demo{cfg: cfg, view: newView(cfg.Out)} }

// start brings up source, kingbus and replica. What it began is undone by close, also after an error.
func (d *demo) start(ctx context.Context) (err error) {
	var inner context.Context
	inner, d.work.cancel = context.WithCancel(ctx)
	d.work.Group, d.work.ctx = errgroup.WithContext(inner)
	if d.folder, err = newFolder(); err != nil {
		return err
	}
	d.view.progress("starting the source")
	if d.source, err = mysqltest.Launch(ctx, mysqltest.Options{Name: "source", Args: serverArgs(), Progress: d.view.progress}); err != nil {
		return err
	}
	if err := d.prepareSource(ctx); err != nil {
		return err
	}
	d.view.progress("starting kingbus")
	if d.nodes, d.password, err = newNodes(d.cfg, d.folder, d.source.Addr(), d.view.notice); err != nil {
		return err
	}
	for _, k := range d.nodes {
		d.work.Go(func() error { return k.run(d.work.ctx) })
	}
	for _, k := range d.nodes {
		if err := k.awaitReady(d.work.ctx); err != nil {
			return d.cause(err)
		}
	}
	for i, node := range d.placeReplicas(ctx) {
		name := d.replicaName(i)
		d.view.progress("starting " + name)
		inst, err := mysqltest.Launch(ctx, mysqltest.Options{Name: name, Args: serverArgs(), Progress: d.view.progress})
		if err != nil {
			return err
		}
		d.replicas = append(d.replicas, inst)
		if err := d.startReplica(ctx, inst, node); err != nil {
			return err
		}
	}
	if d.watch, err = newWatcher(ctx, d); err != nil {
		return err
	}
	d.chronicle = newChronicle(len(d.nodes), len(d.replicas))
	if err := d.writeScripts(ctx); err != nil {
		return err
	}
	return d.startWriting(d.work.ctx)
}

// replicaName is what a replica is called everywhere.
func (d *demo) replicaName(i int) string {
	if d.cfg.Replicas == 1 {
		return "replica"
	}
	return fmt.Sprintf("replica%d", i+1)
}

// servers returns the MySQL servers that were started.
func (d *demo) servers() []*mysqltest.Instance {
	if d.source == nil {
		return nil
	}
	return append([]*mysqltest.Instance{d.source}, d.replicas...)
}

// cause returns what ended the work, if it was one of its goroutines, instead of a consequence of that.
func (d *demo) cause(err error) error {
	if err != nil && d.work.ctx.Err() != nil {
		d.work.cancel()
		if first := d.work.Wait(); first != nil {
			return first
		}
	}
	return err
}

// blame adds which MySQL server has died, if one has: the errors after that only speak of lost connections.
func (d *demo) blame(err error) error {
	for _, inst := range d.servers() {
		if !inst.Running() {
			err = fmt.Errorf("the MySQL server %q has died, and only kingbus is started again by the demo: %w", inst.Name, err)
		}
	}
	return err
}

// close stops and removes everything that start made. It is idempotent.
func (d *demo) close() error {
	var errs []error
	d.stopWriting()
	if d.work.cancel != nil {
		d.work.cancel()
		_ = d.work.Wait() // told by run, if it was a failure
	}
	if d.watch != nil {
		d.watch.close()
	}
	errs = append(errs, closeAll(d.servers()))
	if d.folder != nil {
		errs = append(errs, d.folder.remove())
	}
	return errors.Join(errs...)
}

// closeAll closes servers, all at the same time: that removes many files.
func closeAll(servers []*mysqltest.Instance) error {
	errs := make([]error, len(servers))
	var g sync.WaitGroup
	for i, inst := range servers {
		g.Go(func() { errs[i] = inst.Close() })
	}
	g.Wait()
	return errors.Join(errs...)
}
