package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"kingbus/internal/admin"
	"kingbus/internal/gtid"
)

// flow is how much went through in which time, and what it cost the process that is measured.
type flow struct {
	bytes int64
	took  time.Duration
	cpu   time.Duration
}

func (f flow) rate() float64     { return float64(f.bytes) / 1e6 / f.took.Seconds() }  // MB/s
func (f flow) cpuPerGB() float64 { return f.cpu.Seconds() / (float64(f.bytes) / 1e9) } // s/GB
func (f flow) String() string    { return fmt.Sprintf("%.0f MB/s, %.2f CPU s/GB", f.rate(), f.cpuPerGB()) }

// alternate runs both measurements n times; who begins changes from time to time.
func alternate(n int, first, second func(run int) error) error {
	for run := range n {
		order := []func(int) error{first, second}
		if run%2 == 1 {
			order[0], order[1] = order[1], order[0]
		}
		for _, f := range order {
			if err := f(run); err != nil {
				return err
			}
		}
	}
	return nil
}

// ingest measures the way in: from the start of the process until everything is durable, in an empty log, against
// mysqlbinlog, which syncs nothing. It returns the kingbus of the last run, running, with everything in it.
func (b *bench) ingest(ctx context.Context, src *origin) (*kingbus, error) {
	b.say("\n%s, set %s (%s)", phaseIngest, src.name, src.what)
	var ours, theirs, startUp series
	var oursCPU, theirsCPU series
	var k *kingbus
	err := alternate(b.cfg.Runs, func(run int) error {
		if k != nil {
			if err := k.discard(); err != nil {
				return err
			}
		}
		var in ingestion
		var err error
		if k, in, err = b.ingestKingbus(ctx, src, fmt.Sprintf("ingest-%s-%d", src.name, run+1)); err != nil {
			return err
		}
		b.say("  kingbus      %v (%d ms until it asked the source)", in.flow, in.startUp.Milliseconds())
		ours.add(in.rate())
		oursCPU.add(in.cpuPerGB())
		startUp.add(float64(in.startUp) / 1e6)
		return nil
	}, func(int) error {
		f, err := b.mysqlbinlog(ctx, src)
		if err != nil {
			return err
		}
		b.say("  mysqlbinlog  %v", f)
		theirs.add(f.rate())
		theirsCPU.add(f.cpuPerGB())
		return nil
	})
	if err != nil {
		if k != nil {
			err = errors.Join(err, k.discard())
		}
		return nil, err
	}
	b.report.compare(phaseIngest, src.name, "durable, from the source", "MB/s", ours, theirs, atLeast)
	b.report.compare(phaseIngest, src.name, "CPU of kingbus / mysqlbinlog", "s/GB", oursCPU, theirsCPU, noGoal)
	b.report.info(phaseIngest, src.name, "of that, start of kingbus until it streams", "ms", startUp)
	return k, nil
}

// ingestion is a flow, of which startUp passed until the link asked for the binlog.
type ingestion struct {
	flow
	startUp time.Duration
}

// ingestKingbus has a new kingbus pull everything, and leaves it running. Time and CPU are those of the process from its
// start on, as for mysqlbinlog; the folder has its keys and an empty log by then.
func (b *bench) ingestKingbus(ctx context.Context, src *origin, profile string) (*kingbus, ingestion, error) {
	k, err := b.newKingbus()
	if err != nil {
		return nil, ingestion{}, err
	}
	in, err := b.ingestInto(ctx, k, src, profile)
	if err != nil {
		return nil, in, errors.Join(err, k.discard())
	}
	return k, in, nil
}

func (b *bench) ingestInto(ctx context.Context, k *kingbus, src *origin, profile string) (in ingestion, err error) {
	if err = k.start(nil); err == nil {
		err = k.awaitReady(ctx)
	}
	if err = errors.Join(err, k.stop(true), b.folder.settle()); err != nil {
		return in, err
	}
	b.memory.enter(phaseIngest + " " + src.name)
	if err := k.start(src); err != nil {
		return in, err
	}
	stop, err := b.profile(ctx, profile, k.pid())
	if err != nil {
		return in, err
	}
	st, err := k.awaitStatus(ctx, "everything from the source", 10*time.Millisecond, func(st admin.Status) bool {
		return st.Source.Coordinates.File == src.last && st.Source.Coordinates.Pos == src.end
	})
	in.took = time.Since(k.spawned)
	if err = errors.Join(err, stop()); err != nil {
		return in, err
	}
	if in.cpu, err = cpuTime(k.pid()); err != nil {
		return in, err
	}
	in.bytes = int64(st.Stream.Bytes)
	in.startUp = st.Source.Since.Sub(k.spawned)
	return in, nil
}

// mysqlbinlog fetches the same files with MySQL's own program.
func (b *bench) mysqlbinlog(ctx context.Context, src *origin) (f flow, err error) {
	dir := b.newDir("raw")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := b.folder.settle(); err != nil {
		return f, err
	}
	cmd := src.inst.Tool(ctx, "mysqlbinlog", "--raw", "--read-from-remote-server", "--to-last-log", "--host=127.0.0.1", fmt.Sprintf("--port=%d", src.inst.Port),
		"--user="+account, "--ssl-mode=DISABLED", "--get-server-public-key", "--result-file="+dir+"/", src.files[0])
	cmd.Env = append(cmd.Env, "MYSQL_PWD="+b.password) // the account lives as long as this run
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	began := time.Now()
	p, err := startProcess(cmd)
	if err != nil {
		return f, fmt.Errorf("mysqlbinlog: %w", err)
	}
	<-p.done
	f.took = time.Since(began)
	if p.err != nil {
		return f, fmt.Errorf("mysqlbinlog: %w: %s", errors.Join(ctx.Err(), p.err), stderr.String())
	}
	f.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	found, err := filepath.Glob(filepath.Join(dir, "binlog.*"))
	if err != nil {
		return f, err
	}
	for _, path := range found {
		st, err := os.Stat(path)
		if err != nil {
			return f, err
		}
		f.bytes += st.Size()
	}
	if f.bytes < src.bytes {
		return f, fmt.Errorf("mysqlbinlog fetched %d bytes, the set has %d", f.bytes, src.bytes)
	}
	return f, nil
}

// serve measures the way out, of everything, to readers that throw it away, against the source itself.
func (b *bench) serve(ctx context.Context, src *origin, k *kingbus) error {
	b.memory.enter(phaseServe + " " + src.name)
	for _, readers := range []int{1, 3} {
		b.say("\n%s, set %s, %d readers", phaseServe, src.name, readers)
		var ours, theirs, oursCPU, theirsCPU series
		var want received // what every reader must get
		side := func(who, addr string, pid int, rate, cpu *series) func(int) error {
			return func(run int) error {
				stop := func() error { return nil }
				var err error
				if pid == k.pid() {
					if stop, err = b.profile(ctx, fmt.Sprintf("serve-%s-%dx-%d", src.name, readers, run+1), pid); err != nil {
						return err
					}
				}
				got, f, err := b.readers(ctx, addr, pid, readers)
				if err = errors.Join(err, stop()); err != nil {
					return err
				}
				if want == (received{}) {
					want = got
				} else if got != want {
					return fmt.Errorf("%s served %d events of %d bytes, before it were %d of %d", who, got.events, got.bytes, want.events, want.bytes)
				}
				b.say("  %-8s %v", who, f)
				rate.add(f.rate())
				cpu.add(f.cpuPerGB())
				return nil
			}
		}
		if err := alternate(b.cfg.Runs, side("kingbus", k.mysql, k.pid(), &ours, &oursCPU), side("source", src.addr(), src.pid, &theirs, &theirsCPU)); err != nil {
			return err
		}
		what := "1 reader"
		if readers > 1 {
			what = fmt.Sprintf("%d readers together", readers)
		}
		b.report.compare(phaseServe, src.name, what, "MB/s", ours, theirs, atLeast)
		b.report.compare(phaseServe, src.name, what+", CPU", "s/GB", oursCPU, theirsCPU, atMost)
	}
	return nil
}

// readers runs n readers at once. All have to get the same.
func (b *bench) readers(ctx context.Context, addr string, pid, n int) (received, flow, error) {
	var f flow
	all := make([]received, n)
	cpu, err := cpuTime(pid)
	if err != nil {
		return received{}, f, err
	}
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	for i := range n {
		g.Go(func() (err error) {
			all[i], _, err = b.readAll(gctx, addr)
			return err
		})
	}
	err = g.Wait()
	f.took = time.Since(began)
	if err != nil {
		return received{}, f, err
	}
	after, err := cpuTime(pid)
	if err != nil {
		return received{}, f, err
	}
	f.cpu = after - cpu
	for _, got := range all {
		f.bytes += int64(got.bytes)
		if got != all[0] {
			return received{}, f, fmt.Errorf("%s: readers got %d and %d events", addr, got.events, all[0].events)
		}
	}
	return all[0], f, nil
}

const (
	behind   = 10 // transactions that a reader lacks
	attempts = 20
)

// first measures how soon a reader that lacks the last few transactions gets the first of them.
func (b *bench) first(ctx context.Context, src *origin, k *kingbus) error {
	b.say("\n%s, set %s: a reader lacks the last %d transactions", phaseFirst, src.name, behind)
	b.memory.enter(phaseFirst + " " + src.name)
	have, err := b.lacking(ctx, src)
	if err != nil {
		return err
	}
	side := func(addr string, packet, event *series) func(int) error {
		return func(int) error {
			l, err := b.latency(ctx, addr, have)
			packet.add(float64(l.packet) / 1e6)
			event.add(float64(l.event) / 1e6)
			return err
		}
	}
	var ours, theirs, oursPacket, theirsPacket series
	err = alternate(attempts, side(k.mysql, &oursPacket, &ours), side(src.addr(), &theirsPacket, &theirs))
	if err != nil {
		return err
	}
	b.say("  kingbus  %.2f ms, at worst %.2f;  source  %.2f ms, at worst %.2f", ours.median(), ours.max(), theirs.median(), theirs.max())
	b.report.limit(phaseFirst, src.name, "first event, median of 20", "ms", ours, theirs, 5)
	b.report.limit(phaseFirst, src.name, "first event, worst of 20", "ms", ours.worst(), theirs.worst(), 5)
	b.report.compare(phaseFirst, src.name, "first packet, median", "ms", oursPacket, theirsPacket, noGoal)
	return nil
}

// lacking returns what the source has executed without its last few transactions.
func (b *bench) lacking(ctx context.Context, src *origin) (gtid.Set, error) {
	text, err := src.inst.GTIDExecuted(ctx)
	if err != nil {
		return gtid.Set{}, err
	}
	return withoutLast(text, behind)
}

// withoutLast parses a set of one server and takes the last n out.
func withoutLast(text string, n int64) (gtid.Set, error) {
	all, err := gtid.ParseSet(text)
	if err != nil {
		return gtid.Set{}, err
	}
	sids := all.SIDs()
	if len(sids) != 1 || int64(all.Count()) <= n {
		return gtid.Set{}, fmt.Errorf("the set %q is not of one server with more than %d transactions", text, n)
	}
	var last gtid.Set
	end := all.Last(sids[0]).GNO
	for gno := end - n + 1; gno <= end; gno++ {
		last.Add(gtid.GTID{SID: sids[0], GNO: gno})
	}
	return all.Subtract(last), nil
}

func (b *bench) latency(ctx context.Context, addr string, have gtid.Set) (latency, error) {
	r, err := b.openReader(ctx, addr)
	if err != nil {
		return latency{}, err
	}
	defer r.client.Close() // in the middle of a dump: there is nothing to say
	defer r.client.Conn().CloseOn(ctx)()
	return r.firstEvent(have)
}

// huge has one transaction of 2 GB go through: what matters is memory.
func (b *bench) huge(ctx context.Context, src *origin) error {
	b.say("\n%s: %s", phaseHuge, src.what)
	k, in, err := b.ingestKingbus(ctx, src, "ingest-huge")
	if err != nil {
		return err
	}
	b.say("  kingbus takes in    %v", in.flow)
	raw, err := b.mysqlbinlog(ctx, src)
	if err == nil {
		b.say("  mysqlbinlog         %v", raw)
		b.report.compare(phaseHuge, src.name, "durable, from the source", "MB/s", series{in.rate()}, series{raw.rate()}, noGoal)
		b.memory.enter(phaseServe + " " + src.name)
		ours, out, rerr := b.readers(ctx, k.mysql, k.pid(), 1)
		theirs, ref, serr := b.readers(ctx, src.addr(), src.pid, 1)
		if err = errors.Join(rerr, serr); err == nil && ours != theirs {
			err = fmt.Errorf("kingbus served %d events of %d bytes, the source %d of %d", ours.events, ours.bytes, theirs.events, theirs.bytes)
		}
		if err == nil {
			b.say("  kingbus serves      %v\n  the source serves   %v", out, ref)
			b.report.compare(phaseHuge, src.name, "1 reader", "MB/s", series{out.rate()}, series{ref.rate()}, noGoal)
		}
	}
	return errors.Join(err, k.discard())
}
