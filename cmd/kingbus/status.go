package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kingbus/internal/admin"
	"kingbus/internal/gtid"
	"kingbus/internal/semisync"
	"kingbus/internal/source"
)

func statusCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a running node does: source, binlog, disk, replicas",
		Long: `Show what a running node does: its part in the cluster, how it follows the source,
up to where its binlog goes, the disk, and the replicas that pull from it with
their lag. What is wrong is shown with what to do about it.`,
		Example: `  kingbus status --data-dir /var/lib/kingbus
  kingbus status --json
  kingbus status --admin https://db1:8307 --admin-tls-ca ca.pem --admin-tls-cert me.pem --admin-tls-key me.key`,
		Args: cobra.NoArgs,
	}
	return listing(p, cmd, statusPath, func(_ context.Context, _ *client, st admin.Status) error { return printStatus(p.stdout, st) })
}

// printStatus writes the status for people.
func printStatus(out io.Writer, st admin.Status) error {
	return printTrimmed(out, func(out io.Writer) error { return writeStatus(out, st) })
}

// printTrimmed takes the blanks off the ends of the lines that write makes: a tabwriter fills
// up what is empty.
func printTrimmed(out io.Writer, write func(io.Writer) error) error {
	var text strings.Builder
	if err := write(&text); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func writeStatus(out io.Writer, st admin.Status) error {
	const names = 15 // the width of the longest name, so that all blocks have the same columns
	w := tabwriter.NewWriter(out, names, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }

	ready := "ready"
	if !st.Ready {
		ready = "NOT READY: " + strings.Join(st.Reasons, "; ")
	}
	row("node", "%s, %s, up %s", ready, st.Version, span(st.Now.Sub(st.Started)))
	role := string(st.Cluster.Role)
	if role == "" { // an older node
		role = map[bool]string{true: "leader", false: "follower"}[st.Node.Leader]
	}
	row("raft", "%s in term %d, applied %d of %d entries", role, st.Node.Term, st.Node.Applied, st.Node.LastIndex)
	row("identity", "server id %d, server uuid %s", st.Node.ServerID, orNone(st.Node.ServerUUID))
	if c := st.Cluster; c.Role != "" && (len(c.Members) != 1 || c.Stale) { // not for a node for itself
		row("cluster", "%s", clusterText(c, st.Now))
		if err := w.Flush(); err != nil {
			return err
		}
		if err := writeMembers(out, c); err != nil {
			return err
		}
	}
	row("", "")
	printSource(row, st)
	row("", "")

	s := st.Stream
	if s.End.File == "" {
		row("binlog", "empty")
	} else {
		row("binlog", "ends at %s", s.End)
	}
	row("gtid executed", "%s", setText(s.Executed))
	row("gtid purged", "%s", setText(s.Purged))
	if n := len(s.Files); n > 0 {
		row("files", "%d, %s to %s, %s", n, s.Files[0].Name, s.Files[n-1].Name, bytesText(s.Bytes))
	}
	if s.LastEvent.IsZero() {
		row("transactions", "none")
	} else {
		row("transactions", "%d, newest event %s", s.Transactions, ago(st.Now, s.LastEvent))
	}
	disk := fmt.Sprintf("%s used in %s, %s of %s free", bytesText(uint64(max(st.Disk.Used, 0))), st.Disk.Dir, bytesText(st.Disk.Free), bytesText(st.Disk.Total))
	if st.Disk.Error != "" {
		disk = fmt.Sprintf("%s used in %s, free space not known: %s", bytesText(uint64(max(st.Disk.Used, 0))), st.Disk.Dir, st.Disk.Error)
	} else if st.Disk.Free < st.Disk.Reserve {
		disk += fmt.Sprintf("; BELOW THE RESERVE of %s: nothing is taken from the source until there is room", bytesText(st.Disk.Reserve))
	}
	row("disk", "%s", disk)
	row("", "")

	if len(st.Replicas) == 0 {
		row("replicas", "none connected")
		return w.Flush()
	}
	row("replicas", "%d", len(st.Replicas))
	if s := st.SemiSync; s.Clients > 0 {
		state := "on"
		switch {
		case !s.Enabled:
			state = "disabled"
		case !s.On:
			state = "FALLEN BACK to asynchronous replication"
		}
		row("  semi-sync", "%s, %d replicas; %d transactions acknowledged, %d not; fell back %d times", state, s.Clients, s.YesTx, s.NoTx, s.NoTimes)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return writeReplicas(out, st.Now, st.Replicas)
}

// writeReplicas writes the table of those who pull from a node.
func writeReplicas(out io.Writer, now time.Time, replicas []admin.Replica) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "  SESSION\tSERVER ID\tNAME\tADDRESS\tMODE\tSENT UP TO\tLAG\tSTATE\tSINCE")
	for _, r := range replicas {
		name := r.ReportHost
		if name == "" {
			name = r.Program
		}
		fmt.Fprintf(w, "  %d\t%d\t%s\t%s\t%s\t%s\t%s, %ds\t%s\t%s\n", r.Session, r.ServerID, orNone(printable(name)), r.Address, r.Mode,
			coordinates(printable(r.Sent.File), r.Sent.Pos), bytesText(r.LagBytes), r.LagSeconds, r.State, ago(now, r.Since))
	}
	return w.Flush()
}

// semiSyncText says how commits at the source depend on kingbus.
func semiSyncText(now time.Time, s semisync.Status) string {
	switch {
	case s.Mode == semisync.ModeOff:
		return "off, as configured"
	case s.State == semisync.StateOff:
		return "not offered by the source"
	}
	text := fmt.Sprintf("%s, since %s; %d acknowledgements", s.State, ago(now, s.Since), s.Acknowledged)
	if s.FellBack > 0 {
		text += fmt.Sprintf("; it fell back %d times", s.FellBack)
	}
	return text
}

// chainText says what an acknowledgement waits for beside the quorum.
func chainText(now time.Time, c *semisync.ChainStatus) string {
	text := fmt.Sprintf("quorum+%d, then %s after %s: %s", c.Replicas, c.Policy, c.Timeout, c.State)
	if c.Waiting > 0 {
		text += fmt.Sprintf("; %d wait, since %s", c.Waiting, ago(now, c.Since))
	}
	if c.Degraded > 0 {
		text += fmt.Sprintf("; replicas took too long %d times", c.Degraded)
	}
	if c.State == semisync.ChainHolds {
		text += "; start the replicas that lag, or SET GLOBAL kingbus_acknowledge = 'quorum'"
	}
	if len(c.Have) < c.Replicas {
		text += fmt.Sprintf("; ONLY %d REPLICAS have ever acknowledged: connect more with semi-sync switched on", len(c.Have))
	}
	return text
}

func printSource(row func(name, format string, args ...any), st admin.Status) {
	s := st.Source
	if s.Address == "" {
		row("source", "%s; the node serves what it has", s.State)
	} else {
		state := s.State
		if state == admin.SourceFollowed {
			state += ", " + orNone(printable(st.Cluster.Leader)) + ","
		}
		row("source", "%s at %s%s", state, s.Address, map[bool]string{true: " for " + span(st.Now.Sub(s.Since))}[s.Connected])
	}
	if s.Version != "" {
		row("  server", "%s, uuid %s", printable(s.Version), printable(s.ServerUUID))
	}
	if s.Connected {
		secure := "none: the connection is in clear"
		if s.TLS != "" {
			secure = s.TLS
		}
		row("  TLS", "%s", printable(secure))
	}
	if s.Connected {
		printSemiSync(row, st.Now, s.SemiSync)
	} else if s.LeaderSemiSync != nil {
		printSemiSync(row, st.Now, *s.LeaderSemiSync)
	}
	if s.Coordinates.File != "" {
		row("  committed", "up to %s of the source", s.Coordinates)
	}
	if !s.LastHeard.IsZero() {
		row("  last heard", "%s", ago(st.Now, s.LastHeard))
	}
	if s.Error != "" {
		when := "last error"
		if !s.Connected && s.State != admin.SourceFollowed && s.State != string(source.StateWaiting) {
			when = "ERROR"
		}
		row("  "+when, "%s (%s)", printable(s.Error), ago(st.Now, s.ErrorAt))
	}
	if s.NextStep != "" {
		row("  what to do", "%s", printable(s.NextStep))
	}
	if !s.NextTry.IsZero() {
		row("  next try", "in %s", span(max(0, s.NextTry.Sub(st.Now))))
	}
}

func printSemiSync(row func(name, format string, args ...any), now time.Time, s semisync.Status) {
	row("  semi-sync", "%s", semiSyncText(now, s))
	if s.Chain == nil {
		return
	}
	row("  acknowledge", "%s", chainText(now, s.Chain))
	for _, r := range s.Chain.Have {
		at := ""
		if r.Node != "" {
			at = " at node " + printable(r.Node)
		}
		row("", "replica %s%s has %s", printable(r.Replica), at, coordinates(printable(r.At.File), r.At.Pos))
	}
}

// printable takes out of a foreign text what a terminal would obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func coordinates(file string, pos uint64) string {
	if file == "" {
		return "nothing yet"
	}
	return fmt.Sprintf("%s:%d", printable(file), pos)
}

// setText shortens sets that would fill the screen.
func setText(s gtid.Set) string {
	const most = 400
	text := s.String()
	switch {
	case text == "":
		return "(empty)"
	case len(text) > most:
		return fmt.Sprintf("%s… (%d bytes more; --json shows all)", strings.ReplaceAll(text[:most], "\n", ""), len(text)-most)
	}
	return strings.ReplaceAll(text, "\n", " ")
}

// bytesText returns a number of bytes with three digits or so.
func bytesText(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, units := float64(n), "KMGTPE"
	for i := 0; ; i++ {
		if f /= 1024; f < 1024 || i == len(units)-1 {
			return fmt.Sprintf("%.1f %ciB", f, units[i])
		}
	}
}

// span returns a length of time with the precision that people want.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < 24*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

func ago(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	if d := now.Sub(t); d >= time.Second {
		return span(d) + " ago"
	}
	return "just now"
}
