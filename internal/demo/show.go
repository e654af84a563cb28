package demo

import (
	"fmt"
	"strings"
	"time"
)

// printHeader says what runs where, and what can be tried. It fits a terminal of 80 columns.
func (d *demo) printHeader() {
	var b strings.Builder
	fmt.Fprintf(&b, "kingbus demo: a MySQL source, %s of kingbus and %s.\n", plural(len(d.nodes), "node"), plural(len(d.replicas), "MySQL replica"))
	end := "Ctrl-C stops and removes everything."
	if d.cfg.Duration > 0 {
		end = fmt.Sprintf("It ends by itself after %v, with a comparison; Ctrl-C ends it at once.", d.cfg.Duration)
	}
	fmt.Fprintf(&b, "%s\n\nkingbus %s, MySQL %s, all on this machine:\n", end, d.nodes[0].version, d.source.Server.Version)
	server := func(name, addr, more string) {
		b.WriteString(strings.TrimRight(fmt.Sprintf("  %-9s %-16s %s", name, addr, more), " ") + "\n")
	}
	server("source", d.source.Addr(), "")
	for _, k := range d.nodes {
		server(k.name, k.mysql, "http://"+k.admin+"/")
	}
	for _, inst := range d.replicas {
		server(inst.Name, inst.Addr(), "")
	}
	fmt.Fprintf(&b, "\nThings to try in another terminal:\n  cd %s\n", d.folder.path)
	try := func(command, what string) { fmt.Fprintf(&b, "  %-38s %s\n", command, what) }
	first, replica := d.nodes[0], d.replicas[0].Name
	s := d.watch.now()
	if d.view.live() { // the table has the pids, and they change
		try("kill -9 PID, as below", "kill a node; it is back after "+first.delay.String())
	} else {
		for i, n := range s.nodes {
			what := "kill " + n.name
			if s.leader() == i && len(s.nodes) > 1 {
				what += ", which leads"
			}
			try(fmt.Sprintf("kill -9 %d", n.process.pid), what+"; it is back after "+first.delay.String())
		}
	}
	try("./"+first.name+"-status", "what a node says of itself")
	try("./"+first.name+" -e 'SHOW BINARY LOGS'", "the mysql client; also ./source")
	try("./"+first.name+"-binlog binlog.000001 | less", "the binlog, as mysqlbinlog gets it")
	try("./"+replica+" -E -e 'SHOW REPLICA STATUS'", "what a replica says")
	try("tail -f "+first.name+".log", "the logs; also source.log …")
	d.view.line("%s", b.String())
}

func plural(n int, what string) string {
	if n == 1 {
		return "one " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// printSummary tells how it went. v is zero if nothing was compared.
func (d *demo) printSummary(v verdict) {
	w := d.watch
	if len(w.history) == 0 {
		return
	}
	if d.view.live() {
		d.draw("")
		d.view.settle()
	}
	s := w.now()
	total := between(w.first, d.written, atSource)
	_, worst := w.lag.now()
	restarted := 0
	for _, k := range d.nodes {
		restarted += k.process().starts - 1
	}
	restarts := "never restarted"
	if restarted > 0 {
		restarts = "restarted " + times(restarted)
	}
	d.view.line("\n  written      %s, %s of binlog, in %.1f s (%.0f/s)",
		transactions(s.source.set.Count()), size(s.source.bytes), d.written.when.Sub(w.first.when).Seconds(), total.transactions)
	d.view.line("  worst lag    %s; %s from a commit to a replica", transactions(w.lagMost), milliseconds(worst))
	d.view.line("  kingbus      at most %s of memory in a node (RssAnon), %s", size(uint64(w.memory)), restarts)
	if v.tables > 0 {
		d.view.line("  coordinates  source and kingbus both end at %s", s.nodes[0].at)
		if len(d.nodes) > 1 {
			d.view.line("  verify       the logs of the %d nodes are the same, entry by entry", len(d.nodes))
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
