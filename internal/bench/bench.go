// Package bench measures kingbus against the real thing, on the same binlogs, on one machine, in one run: how fast it
// takes a binlog in (against mysqlbinlog --raw), how fast and at what price it serves one (against the MySQL server
// that made it), how soon a reader gets its first event, how much memory it needs, and how long a start takes; and of
// clusters of three nodes, how fast they take it in (clusteringest), how long nothing is committed when the leader is
// killed or moved (failover), and how a fresh node takes in the log (join).
//
// The binlogs are made once by a real server and kept in the user's cache folder (dataset). kingbus runs as a user would
// run it: the built program with flags and password files. The reader is the same code against both sides (reader).
// Repetitions of both sides take turns, and medians are compared.
//
// Everything listens on loopback. What is written goes into one temporary folder that is removed at the end, also when
// this process is killed; child processes die with it. After an error the logs of kingbus are kept, and it says where.
package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kingbus/internal/mysqltest"
)

// Phases lists what can be measured, in the order in which it is.
func Phases() []string {
	return []string{phaseIngest, phaseServe, phaseFirst, phaseHuge, phaseRestart, phaseCluster, phaseFailover, phaseJoin, phaseSemiSync}
}

const (
	phaseIngest  = "ingest"
	phaseServe   = "serve"
	phaseFirst   = "first"
	phaseHuge    = "huge"
	phaseRestart = "restart"
	// Of a cluster of three nodes on this machine.
	phaseCluster  = "cluster-ingest"
	phaseFailover = "failover"
	phaseJoin     = "join"
	phaseSemiSync = "semi-sync"
)

// Config says what to measure. Kingbus, Runs, Rounds, the sizes and Out are needed.
type Config struct {
	Kingbus string   // path of the program
	Runs    int      // repetitions of each measurement
	Only    []string // phases; all of them if empty
	Quick   bool     // sets of a tenth of the size, to see whether it works
	Fresh   bool     // make the binlogs anew
	// RestartGB is the size in GB (10^9 bytes) of the log with which restarts are measured.
	RestartGB float64
	// JoinGB is the size in GB of the log that a fresh node takes in.
	JoinGB float64
	// Rounds is how often a leader is killed, and how often leadership is moved, at each setting.
	Rounds int
	// Dir is where the temporary folder is made; the system's folder for such if empty. The measurements are of that disk.
	Dir string
	// Profile is a folder for profiles of kingbus made with perf(1), one for each measurement; none if empty.
	Profile string
	Out     io.Writer
}

func (c *Config) check() error {
	for _, p := range c.Only {
		if !slices.Contains(Phases(), p) {
			return fmt.Errorf("there is no phase %q; the phases are %s", p, strings.Join(Phases(), ", "))
		}
	}
	if c.Runs < 1 || c.Runs > 100 {
		return fmt.Errorf("%d runs: it must be from 1 to 100", c.Runs)
	}
	if c.RestartGB < 0.1 || c.RestartGB > 1000 {
		return fmt.Errorf("a log of %g GB: it must be from 0.1 to 1000", c.RestartGB)
	}
	if c.JoinGB < 0.1 || c.JoinGB > 1000 {
		return fmt.Errorf("a log of %g GB to take in: it must be from 0.1 to 1000", c.JoinGB)
	}
	if c.Rounds < 1 || c.Rounds > 1000 {
		return fmt.Errorf("%d rounds: it must be from 1 to 1000", c.Rounds)
	}
	if c.Dir == "" {
		c.Dir = os.TempDir()
	}
	if c.Profile != "" {
		if err := os.MkdirAll(c.Profile, 0o755); err != nil {
			return fmt.Errorf("make the folder for profiles: %w", err)
		}
	}
	path, err := filepath.Abs(c.Kingbus)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return fmt.Errorf("the program kingbus: %w; build it with `make build`, or name it with --kingbus", err)
	}
	c.Kingbus = path
	return nil
}

func (c *Config) wants(phases ...string) bool {
	return len(c.Only) == 0 || slices.ContainsFunc(phases, func(p string) bool { return slices.Contains(c.Only, p) })
}

// Run measures, writes the table to cfg.Out, and leaves nothing behind but the cached binlogs. When ctx ends early it
// still shows what it has. Goals that are missed are no error.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	f, err := newFolder(cfg.Dir)
	if err != nil {
		return err
	}
	b := &bench{cfg: cfg, folder: f, password: rand.Text(), memory: newMemory()}
	b.passwordFile = f.file("password")
	if err = os.WriteFile(b.passwordFile, []byte(b.password+"\n"), 0o600); err == nil {
		err = b.run(ctx)
	}
	if err != nil && ctx.Err() == nil {
		err = errors.Join(err, f.keepLogs(cfg.Dir))
	}
	b.report.memory(b.memory.peaks())
	if len(b.report.rows) > 0 {
		fmt.Fprintf(cfg.Out, "\n%s\n%s\n", environment(cfg, b.serverVersion), b.report.String())
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	return errors.Join(err, f.remove())
}

// bench is one run. It belongs to one goroutine.
type bench struct {
	cfg           Config
	folder        *folder
	password      string // of all accounts
	passwordFile  string
	serverVersion string
	memory        *memory
	report        report
	folders       int // made so far
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.cfg.Out, format+"\n", args...) }

// newDir names a folder that does not exist yet.
func (b *bench) newDir(what string) string {
	b.folders++
	return b.folder.file(fmt.Sprintf("%s-%d", what, b.folders))
}

func (b *bench) run(ctx context.Context) error {
	if err := b.checkSpace(); err != nil {
		return err
	}
	server, err := mysqltest.Find(ctx, mysqltest.MySQL97, func(m string) { b.say("  %s", m) })
	if err != nil {
		return err
	}
	b.serverVersion = server.Version
	oltp, batch, huge := specs(b.cfg.Quick)
	if b.cfg.wants(phaseIngest, phaseServe, phaseFirst) {
		for _, sp := range []spec{oltp, batch} {
			if err := b.withSource(ctx, sp, b.set); err != nil {
				return err
			}
		}
	}
	if b.cfg.wants(phaseHuge) {
		if err := b.withSource(ctx, huge, b.huge); err != nil {
			return err
		}
	}
	if b.cfg.wants(phaseRestart) {
		if err := b.withSource(ctx, oltp, b.restart); err != nil {
			return err
		}
	}
	if b.cfg.wants(phaseCluster) {
		for _, sp := range []spec{oltp, batch} {
			if err := b.withSource(ctx, sp, b.clusterIngest); err != nil {
				return err
			}
		}
	}
	if b.cfg.wants(phaseFailover) {
		if err := b.failover(ctx); err != nil {
			return err
		}
	}
	if b.cfg.wants(phaseJoin) {
		if err := b.join(ctx, oltp); err != nil {
			return err
		}
	}
	if b.cfg.wants(phaseSemiSync) {
		return b.semiSync(ctx)
	}
	return nil
}

// checkSpace refuses to begin what cannot end.
func (b *bench) checkSpace() error {
	need := 6.0 // GB: two copies of the largest set, and what lies around
	if b.cfg.wants(phaseRestart) {
		need = max(need, b.cfg.RestartGB*1.1+3)
	}
	if b.cfg.wants(phaseJoin) {
		need = max(need, b.cfg.JoinGB*2.2+6) // the leader's log, that of the fresh node or as much to measure the disk, and the newest file
	}
	free, err := freeSpace(b.cfg.Dir)
	if err != nil {
		return err
	}
	if free < need*1e9 {
		return fmt.Errorf("%s has %.1f GB free, and about %.0f GB are needed: name another folder with --dir, or a smaller --restart-gb or --join-gb", b.cfg.Dir, free/1e9, need)
	}
	return nil
}

// withSource runs f with a real server that has the binlogs of the set.
func (b *bench) withSource(ctx context.Context, sp spec, f func(context.Context, *origin) error) error {
	s, err := b.dataset(ctx, sp)
	if err != nil {
		return err
	}
	src, err := b.openSource(ctx, s)
	if err != nil {
		return err
	}
	return errors.Join(f(ctx, src), src.close())
}

// set measures what is measured with each of the two sets of 1 GB.
func (b *bench) set(ctx context.Context, src *origin) error {
	var k *kingbus
	var err error
	if b.cfg.wants(phaseIngest) {
		k, err = b.ingest(ctx, src)
	} else {
		k, _, err = b.ingestKingbus(ctx, src, "prepare")
	}
	if err != nil {
		return err
	}
	if b.cfg.wants(phaseServe) {
		err = b.serve(ctx, src, k)
	}
	if err == nil && b.cfg.wants(phaseFirst) {
		err = b.first(ctx, src, k)
	}
	return errors.Join(err, k.discard())
}
