package demo

import (
	"fmt"
	"strings"
	"time"
)

// draw shows the newest sample: as a table on a terminal, else as a line, once a second. what says what is being done.
func (d *demo) draw(what string) {
	elapsed := d.view.elapsed()
	if d.view.live() {
		columns, _ := d.view.size()
		d.view.redraw(d.table(elapsed, what, columns))
		return
	}
	if d.lastLine.IsZero() || time.Since(d.lastLine) >= time.Second-redraw/2 {
		d.lastLine = time.Now()
		d.view.line("%s", d.oneLine(elapsed, what))
	}
}

// wide is from how many columns on the table shows more than what fits 80.
const wide = 110

// table returns the lines of the live view.
func (d *demo) table(elapsed time.Duration, what string, columns int) []string {
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
		fmt.Sprintf("  %-8s %-21s %6s %5s %7s", "", "position", "trx/s", "MB/s", "lag"),
	}
	row := func(name string, at func(*sample) *place, lag, text string) {
		p, r := at(&s), between(w.history[0], s, at)
		lines = append(lines, fmt.Sprintf("  %-8s %-21s %6.0f %5s %7s  %s", name, p.at, r.transactions, megabytes(r.bytes), lag, text))
	}
	row("source", atSource, "", shortSet(s.source.set))
	for i := range s.nodes {
		n := &s.nodes[i]
		text := fmt.Sprintf("%-8s kill -9 %d", n.role(), n.process.pid)
		if !n.process.alive {
			text = fmt.Sprintf("%-8s back in %v", n.role(), n.process.ended.Add(d.nodes[i].delay).Sub(s.when).Round(time.Second))
		}
		if columns >= wide {
			text = fmt.Sprintf("%-26s %s, %s", text, d.nodes[i].mysql, size(uint64(n.memory)))
		}
		row(n.name, atNode(i), number(s.nodeLag(i)), text)
	}
	for i, r := range s.replicas {
		row(r.name, atReplica(i), number(s.replicaLag(i)), r.link())
	}
	return append(append(lines, ""), d.remarks(&s)...)
}

// remarks are the lines below the table: what the lag is, and what is wrong.
func (d *demo) remarks(s *sample) []string {
	current, worst := d.watch.lag.now()
	unit := "Lag: transactions."
	if len(s.nodes) > 1 {
		unit = "Lag of nodes: log entries; of replicas: transactions."
	}
	lines := []string{
		"  " + unit,
		fmt.Sprintf("  From a commit until %s has it: %s (at most %s)", d.replicaName(0), milliseconds(current), milliseconds(worst)),
		"  Scripts to look around: " + d.folder.path,
	}
	for i := range s.nodes {
		if trouble := s.nodes[i].trouble(); trouble != "" {
			lines = append(lines, "  "+s.nodes[i].name+": "+trouble)
		}
	}
	for _, r := range s.replicas {
		if r.error != "" {
			lines = append(lines, "  "+r.name+": "+r.error)
		}
	}
	return lines
}

// oneLine is what table shows, without a terminal.
func (d *demo) oneLine(elapsed time.Duration, what string) string {
	s := d.watch.now()
	r := between(d.watch.history[0], s, atSource)
	var nodes, replicas []string
	for i := range s.nodes {
		n := &s.nodes[i]
		nodes = append(nodes, strings.Join(nonEmpty(n.name, n.role(), "lag "+number(s.nodeLag(i)), n.trouble()), " "))
	}
	for i, r := range s.replicas {
		replicas = append(replicas, strings.Join(nonEmpty(r.name, r.link(), "lag "+number(s.replicaLag(i)), r.error), " "))
	}
	current, _ := d.watch.lag.now()
	parts := []string{
		fmt.Sprintf("%s  source %s, %.0f trx/s, %s MB/s", clock(elapsed), s.source.at, r.transactions, megabytes(r.bytes)),
		strings.Join(nodes, ", "), strings.Join(replicas, ", "), "commit to replica " + milliseconds(current),
	}
	return strings.Join(nonEmpty(append(parts, what)...), " | ")
}

func nonEmpty(texts ...string) (out []string) {
	for _, t := range texts {
		if t != "" {
			out = append(out, t)
		}
	}
	return out
}

// role says in a word what a node is.
func (n *nodeSample) role() string {
	switch {
	case !n.process.alive:
		return "DOWN"
	case n.err != nil && n.heard == n.process.starts:
		return "SILENT"
	case n.err != nil:
		return "starting"
	case n.status.Cluster.Stale:
		return "stale"
	case len(n.status.Cluster.Members) < 2:
		return "alone"
	case n.status.Node.Leader:
		return "LEADER"
	}
	return string(n.status.Cluster.Role)
}

// trouble says what is wrong with a node that answers, beside what its role tells.
func (n *nodeSample) trouble() string {
	st := &n.status
	switch {
	case !n.answers() || st.Cluster.Stale:
		return ""
	case !st.Ready:
		return strings.Join(st.Reasons, "; ")
	case st.Node.Leader && !st.Source.Connected && st.Source.Error != "":
		return st.Source.State + ": " + st.Source.Error
	}
	return ""
}

// link says where a replica is.
func (r *replicaSample) link() string {
	if r.connected {
		return "on " + r.node
	}
	return "connecting to " + r.node
}
