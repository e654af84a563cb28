package demo

import (
	"fmt"
	"strings"
	"time"
)

// printHeader says what runs where, and what can be tried.
func (d *demo) printHeader() {
	end := "Ctrl-C stops and removes everything."
	if d.cfg.Duration > 0 {
		end = fmt.Sprintf("It ends by itself after %v, with a comparison; Ctrl-C ends it at once.", d.cfg.Duration)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "kingbus demo: a MySQL source, %s of kingbus and %s, all on this machine.\n%s\n\n",
		plural(len(d.nodes), "node"), plural(len(d.replicas), "MySQL replica"), end)
	fmt.Fprintf(&b, "  %-9s %-18s %s\n", "source", "MySQL "+d.source.Server.Version, d.source.Addr())
	for _, k := range d.nodes {
		fmt.Fprintf(&b, "  %-9s %-18s %-18s status: http://%s/\n", k.name, k.version, k.mysql, k.admin)
	}
	for _, inst := range d.replicas {
		fmt.Fprintf(&b, "  %-9s %-18s %s\n", inst.Name, "MySQL "+inst.Server.Version, inst.Addr())
	}
	first := d.nodes[0].name
	try := func(command, what string) { fmt.Fprintf(&b, "  %-42s %s\n", command, what) }
	fmt.Fprintf(&b, "\nThings to try meanwhile in another terminal:\n  cd %s\n", d.folder.path)
	for _, k := range d.nodes {
		pid, _ := k.process()
		try(fmt.Sprintf("kill -9 %d", pid), fmt.Sprintf("kill %s: all goes on, it is started again after %v", k.name, k.delay))
	}
	try("./"+first+" -e 'SHOW BINARY LOGS'", "the mysql client at it; ./source, ./"+d.replicaName(0))
	try("./"+d.replicaName(0)+" -E -e 'SHOW REPLICA STATUS'", "are the same at the servers")
	try("./"+first+"-binlog binlog.000001 | less", "the binlog, as mysqlbinlog gets it")
	try("./"+first+"-status", "what the node itself says")
	try("tail -f "+first+".log", "the logs; also source.log …")
	d.view.line("%s", b.String())
}

func plural(n int, what string) string {
	if n == 1 {
		return "one " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
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
	for i, k := range d.nodes {
		row(k.name, atNode(i))
	}
	for i := range d.replicas {
		row(d.replicaName(i), atReplica(i))
	}
	current, worst := w.lag.now()
	lines = append(lines, "",
		fmt.Sprintf("  lag       %s, %s at the replica (worst so far: %s, %s)", transactions(s.lag()), milliseconds(current), transactions(w.lagMost), milliseconds(worst)))
	for i, k := range d.nodes {
		lines = append(lines, fmt.Sprintf("  %-9s %s", k.name, d.nodeText(s, i)))
	}
	if len(d.nodes) > 1 {
		for i, r := range s.replicas {
			lines = append(lines, fmt.Sprintf("  %-9s on %s %s", d.replicaName(i), r.node, r.error))
		}
	}
	return lines
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
	parts := []string{"source " + text(atSource)}
	for i, k := range d.nodes {
		parts = append(parts, fmt.Sprintf("%s %s, %s", k.name, text(atNode(i)), d.nodeText(s, i)))
	}
	for i, r := range s.replicas {
		parts = append(parts, fmt.Sprintf("%s on %s %s", d.replicaName(i), r.node, text(atReplica(i))))
	}
	return fmt.Sprintf("%s  %s | lag %s, %s%s", clock(elapsed), strings.Join(parts, " | "), transactions(s.lag()), milliseconds(current), what)
}

// nodeText says how a node is.
func (d *demo) nodeText(s sample, i int) string {
	k, n := d.nodes[i], s.nodes[i]
	pid, starts := k.process()
	var parts []string
	switch {
	case pid == 0:
		parts = append(parts, "DEAD, about to be started again")
	case n.err != nil:
		parts = append(parts, fmt.Sprintf("pid %d, starting", pid))
	default:
		if len(d.nodes) > 1 {
			role := string(n.status.Cluster.Role)
			if n.status.Node.Leader {
				role = "LEADER"
			}
			parts = append(parts, role)
		}
		parts = append(parts, fmt.Sprintf("pid %d, %.0f MB", pid, float64(k.memory())/1e6))
		if len(d.nodes) == 1 || n.status.Node.Leader {
			parts = append(parts, "link "+n.status.Source.State)
		}
		if e := n.status.Source.Error; e != "" && n.status.Node.Leader && !n.status.Source.Connected {
			parts = append(parts, e)
		}
		if len(d.nodes) > 1 {
			parts = append(parts, n.status.Reasons...)
		}
	}
	if starts > 1 {
		parts = append(parts, fmt.Sprintf("restarted %s", times(starts-1)))
	}
	if len(d.nodes) == 1 && s.replicas[0].error != "" {
		parts = append(parts, "replica: "+s.replicas[0].error)
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
	restarted := 0
	for _, k := range d.nodes {
		_, starts := k.process()
		restarted += starts - 1
	}
	restarts := "never restarted"
	if restarted > 0 {
		restarts = "restarted " + times(restarted)
	}
	d.view.line("\n  written       %s in %s of binlog, in %.1f s: %.0f transactions/s, %s MB/s",
		transactions(s.source.set.Count()), size(s.source.bytes), d.written.when.Sub(w.first.when).Seconds(), total.transactions, megabytes(total.bytes))
	d.view.line("  worst lag     %s, %s until a transaction could be read at the replica", transactions(w.lagMost), milliseconds(worst))
	d.view.line("  kingbus       %s of memory at most in a node (RssAnon), %s", size(uint64(w.memory)), restarts)
	if v.tables > 0 {
		d.view.line("  coordinates   source and kingbus both end at %s", s.nodes[0].at)
		if len(d.nodes) > 1 {
			d.view.line("  verify        the logs of the %d nodes are the same, entry by entry", len(d.nodes))
		}
		d.view.line("\nEQUAL: source and %s have the same %d tables with %s rows.", plural(len(d.replicas), "replica"), v.tables, number(v.rows))
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
