package demo

import (
	"fmt"
	"strings"
	"time"
)

// printHeader says what runs where, and what can be tried.
func (d *demo) printHeader() {
	pid, _ := d.kingbus.process()
	end := "Ctrl-C stops and removes everything."
	if d.cfg.Duration > 0 {
		end = fmt.Sprintf("It ends by itself after %v, with a comparison; Ctrl-C ends it at once.", d.cfg.Duration)
	}
	d.view.line(`kingbus demo: a MySQL source, kingbus and a MySQL replica, all on this machine.
%s

  source    %-18s %s
  kingbus   %-18s %-18s status and metrics: http://%s/
  replica   %-18s %s

Things to try meanwhile in another terminal:
  cd %s
  kill -9 %-34d kill kingbus: it is started again, all goes on
  ./kingbus -e 'SHOW BINARY LOGS'            the mysql client at kingbus; ./source and ./replica
  ./replica -E -e 'SHOW REPLICA STATUS'      are the same at the servers
  ./kingbus-binlog binlog.000001 | less      the binlog, as mysqlbinlog gets it from kingbus
  ./kingbus-status                           what kingbus itself says
  tail -f kingbus.log                        the logs; also source.log and replica.log
`, end, "MySQL "+d.source.Server.Version, d.source.Addr(),
		d.kingbus.version, d.kingbus.mysql, d.kingbus.admin,
		"MySQL "+d.replica.Server.Version, d.replica.Addr(), d.folder.path, pid)
}

// draw shows the newest sample: as a table on a terminal, else as a line, once a second. what says what is being done.
func (d *demo) draw(what string) {
	elapsed := d.view.elapsed()
	if d.view.live() {
		d.view.redraw(d.table(elapsed, what))
		return
	}
	if d.lastLine.IsZero() || time.Since(d.lastLine) >= time.Second-redraw/2 {
		d.lastLine = time.Now()
		d.view.line("%s", d.oneLine(elapsed, what))
	}
}

// table returns the lines of the live view.
func (d *demo) table(elapsed time.Duration, what string) []string {
	w := d.watch
	s := w.now()
	if what == "" {
		what = fmt.Sprintf("%d writers, %d transactions/s wanted", d.cfg.Writers, d.cfg.Rate)
	}
	if d.cfg.Duration > 0 {
		elapsed = min(elapsed, d.cfg.Duration)
		what = fmt.Sprintf("of %s   %s", clock(d.cfg.Duration), what)
	}
	lines := []string{
		fmt.Sprintf("  %s %s", clock(elapsed), what), "",
		fmt.Sprintf("  %-8s  %-24s %13s %8s %7s  %s", "", "position", "transactions", "trx/s", "MB/s", "GTID set"),
	}
	row := func(name string, at func(*sample) *place) {
		p, r := at(&s), between(w.history[0], s, at)
		lines = append(lines, fmt.Sprintf("  %-8s  %-24s %13s %8.0f %7s  %s", name, p.at, number(p.set.Count()), r.transactions, megabytes(r.bytes), shortSet(p.set)))
	}
	row("source", atSource)
	row("kingbus", atKingbus)
	row("replica", atReplica)
	current, worst := w.lag.now()
	return append(lines, "",
		fmt.Sprintf("  lag       %s, %s at the replica (worst so far: %s, %s)", transactions(s.lag()), milliseconds(current), transactions(w.lagMost), milliseconds(worst)),
		"  kingbus   "+d.nodeText(s))
}

// oneLine is what table shows, without a terminal.
func (d *demo) oneLine(elapsed time.Duration, what string) string {
	w := d.watch
	s := w.now()
	text := func(at func(*sample) *place) string {
		p, r := at(&s), between(w.history[0], s, at)
		return fmt.Sprintf("%s %s trx %.0f/s %s MB/s", p.at, number(p.set.Count()), r.transactions, megabytes(r.bytes))
	}
	current, _ := w.lag.now()
	if what != "" {
		what = " | " + what
	}
	return fmt.Sprintf("%s  source %s | kingbus %s, %s | replica %s | lag %s, %s%s", clock(elapsed),
		text(atSource), text(atKingbus), d.nodeText(s), text(atReplica), transactions(s.lag()), milliseconds(current), what)
}

// nodeText says how kingbus, and the replica's connection to it, are.
func (d *demo) nodeText(s sample) string {
	pid, starts := d.kingbus.process()
	var parts []string
	switch {
	case pid == 0:
		parts = append(parts, "DEAD, about to be started again")
	case s.nodeErr != nil:
		parts = append(parts, fmt.Sprintf("pid %d, starting", pid))
	default:
		parts = append(parts, fmt.Sprintf("pid %d, %.0f MB", pid, float64(d.kingbus.memory())/1e6), "link "+s.node.Source.State)
		if e := s.node.Source.Error; e != "" && !s.node.Source.Connected {
			parts = append(parts, e)
		}
	}
	if starts > 1 {
		parts = append(parts, fmt.Sprintf("restarted %s", times(starts-1)))
	}
	if s.replicaErr != "" {
		parts = append(parts, "replica: "+s.replicaErr)
	}
	return strings.Join(parts, ", ")
}

// printSummary tells how it went. v is zero if nothing was compared.
func (d *demo) printSummary(v verdict) {
	w := d.watch
	if len(w.history) == 0 {
		return
	}
	if d.view.live() {
		d.view.redraw(d.table(d.view.elapsed(), ""))
		d.view.settle()
	}
	s := w.now()
	total := between(w.first, d.written, atSource)
	_, worst := w.lag.now()
	_, starts := d.kingbus.process()
	restarts := "never restarted"
	if starts > 1 {
		restarts = "restarted " + times(starts-1)
	}
	d.view.line("\n  written       %s in %s of binlog, in %.1f s: %.0f transactions/s, %s MB/s",
		transactions(s.source.set.Count()), size(s.source.bytes), d.written.when.Sub(w.first.when).Seconds(), total.transactions, megabytes(total.bytes))
	d.view.line("  worst lag     %s, %s until a transaction could be read at the replica", transactions(w.lagMost), milliseconds(worst))
	d.view.line("  kingbus       %s of memory at most (RssAnon), %s", size(uint64(w.memory)), restarts)
	if v.tables > 0 {
		d.view.line("  coordinates   source and kingbus both end at %s", s.kingbus.at)
		d.view.line("\nEQUAL: source and replica have the same %d tables with %s rows.", v.tables, number(v.rows))
	}
}

func transactions(n uint64) string {
	if n == 1 {
		return "1 transaction"
	}
	return number(n) + " transactions"
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func milliseconds(d time.Duration) string { return number(uint64(d.Milliseconds())) + " ms" }

func size(n uint64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
