package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/cluster"
)

// clusterText is a line about the cluster, as a node sees it.
func clusterText(c admin.Cluster, now time.Time) string {
	self := "this node, " + c.Name + ", "
	switch {
	case c.Role == admin.RoleWaiting:
		return fmt.Sprintf("%sbelongs to none yet and waits to be taken in; others reach it at %s", self, orNone(c.Address))
	case len(c.Members) == 0:
		return fmt.Sprintf("%sis being taken into cluster %d", self, c.ID)
	case c.Stale:
		return fmt.Sprintf("%d nodes, %d of which vote; NO LEADER is known to %sfor %s", len(c.Members), c.Voters(), self, span(now.Sub(c.StaleSince)))
	case c.Role == admin.RoleLeader:
		return fmt.Sprintf("%d nodes, %d of which vote; %sleads", len(c.Members), c.Voters(), self)
	}
	return fmt.Sprintf("%d nodes, %d of which vote; %s leads, %sis a %s", len(c.Members), c.Voters(), printable(c.Leader), self, c.Role)
}

// writeMembers writes the table of the members.
func writeMembers(out io.Writer, c admin.Cluster) error {
	if len(c.Members) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "  NAME\tADDRESS\tROLE\tUP\tLAG\tSTATE")
	for _, m := range c.Members {
		up := map[bool]string{true: "yes", false: "NO"}[m.Up]
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%s\n", orNone(printable(m.Name)), orNone(printable(m.Address)), roleText(m), up, lagText(c, m), stateText(m))
	}
	return w.Flush()
}

func roleText(m cluster.MemberStatus) string {
	switch {
	case m.Leader:
		return "leader"
	case m.Learner:
		return "learner"
	}
	return "voter"
}

// lag returns how many entries a member lacks of those that the leader has; ok is
// false if that is not known. A report of the leader may be older than one of the
// member.
func lag(c admin.Cluster, m cluster.MemberStatus) (entries uint64, ok bool) {
	has := max(m.Match, m.Last)
	if !m.Up && m.Match != 0 {
		has = m.Match
	}
	for _, leader := range c.Members {
		if leader.Leader && leader.Last > 0 && (has > 0 || m.Up) {
			return leader.Last - min(leader.Last, has), true
		}
	}
	return 0, false
}

func lagText(c admin.Cluster, m cluster.MemberStatus) string {
	n, ok := lag(c, m)
	if !ok {
		return "-"
	}
	return fmt.Sprint(n)
}

// stateText is what a DBA has to know of a member beside its lag.
func stateText(m cluster.MemberStatus) string {
	const most = 120
	trouble := printable(m.Error)
	if len(trouble) > most {
		trouble = strings.ToValidUTF8(trouble[:most], "") + "…"
	}
	switch {
	case !m.Up && trouble != "":
		return "down: " + trouble
	case !m.Up:
		return "not heard from"
	case m.Installing != nil:
		return "fetches the log, " + progressText(*m.Installing)
	case m.Full:
		return "DISK FULL"
	case trouble != "":
		return "no connection to it: " + trouble
	case m.State == "probe":
		return "the leader looks for where it stands"
	case m.State == "snapshot":
		return "gets a snapshot"
	case m.State == "replicate" && !m.Self:
		return "replicates"
	}
	return "-"
}

// progressText tells how far a node has come with fetching what it lacks.
func progressText(p cluster.Progress) string {
	if p.Total == 0 {
		return "just begun"
	}
	return fmt.Sprintf("%s of %s", bytesText(p.Done), bytesText(p.Total))
}
