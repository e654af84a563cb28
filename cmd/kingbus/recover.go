package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"kingbus/internal/cluster"
	"kingbus/internal/config"
	"kingbus/internal/gtid"
	"kingbus/internal/stream"
	"kingbus/internal/vfs"
)

// recoverFlag confirms without a terminal.
const recoverFlag = "yes-i-know-that-data-can-be-lost"

// recoverWord confirms on a terminal.
const recoverWord = "recover"

func recoverCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "recover --data-dir DIR",
		Short: "Make a cluster of one out of a node, when the majority of its cluster is lost for good",
		Long: `Make a new cluster, of this node alone, out of the data folder of a node that is
stopped. This is for one case only: so many nodes of the cluster are lost for good
that the rest is no majority, and there is no leader any more. If they can be
started again, start them, and nothing is lost.

Data can be lost: whatever the other nodes had acknowledged behind the end of this
node's log is gone. So stop every node that is left and run ` + "`kingbus inspect DIR`" + `
on each: choose the one whose last entry has the highest term, and among equal
terms the highest number. Without confirmation this command changes nothing.

All that is in this node's log counts as committed from then on. The node gets a
new cluster id, so that no node of the old cluster ever joins it by accident; the
other survivors start again with empty data folders.`,
		Example: "  kingbus recover --data-dir /var/lib/kingbus\n  kingbus recover --data-dir /var/lib/kingbus --json   # what it would do",
		Args:    cobra.NoArgs,
	}
	load := settingFlags(cmd, p, "data-dir", "node-name", "peer-listen", "peer-advertise")
	yes := cmd.Flags().Bool(recoverFlag, false, "do it without asking, as a script has to")
	asJSON := cmd.Flags().Bool("json", false, "print the plan, and whether it was done, as JSON, and the next steps on standard error; nothing is asked then")
	cmd.RunE = func(*cobra.Command, []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		if cfg.DataDir == "" {
			return withCode(exitUsage, errors.New("no data folder: give --data-dir DIR"))
		}
		// Not so much as a lock is made in a folder that is none of ours.
		if _, err := os.Stat(filepath.Join(cfg.DataDir, "node")); err != nil {
			return withCode(exitFailed, fmt.Errorf("%s is no data folder of kingbus", cfg.DataDir))
		}
		if err := checkOwner(cfg.DataDir); err != nil {
			return withCode(exitFailed, err)
		}
		r := recovery{p: p, dir: cfg.DataDir, confirmed: *yes, asJSON: *asJSON}
		var peering cluster.Peering // nothing in it: name and address stay what they are
		if address := cmp.Or(cfg.Peers.Advertise, cfg.Peers.Listen); cfg.Peers.Name != "" && config.CheckPeerAddress(address) == nil {
			peering = cluster.Peering{Name: cfg.Peers.Name, Address: address}
		}
		log := slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
		done, err := stream.Recover(stream.Config{Dir: cfg.DataDir, Log: log, Peering: peering}, r.confirm)
		switch {
		case errors.Is(err, vfs.ErrLocked):
			err = fmt.Errorf("kingbus runs on the data folder %s: stop it first", cfg.DataDir)
		case err == nil && *asJSON:
			if err = errors.Join(writeJSON(p.stdout, r.report(done)), r.refusal); err == nil {
				err = r.next(p.stderr)
			}
		case err == nil && !done:
			err = r.refusal
		case err == nil:
			err = r.next(p.stdout)
		}
		return withCode(exitFailed, err)
	}
	return cmd
}

// checkOwner refuses root a data folder of somebody else: the node, which runs as that user,
// could not read what root writes there.
func checkOwner(dir string) error {
	info, err := os.Stat(filepath.Join(dir, "node")) // what the node wrote: the folder itself may be anybody's
	if errors.Is(err, fs.ErrNotExist) {
		return nil // recover says what is wrong with it
	}
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Geteuid() || os.Geteuid() != 0 {
		return nil
	}
	name := fmt.Sprintf("#%d", owner.Uid)
	if u, err := user.LookupId(fmt.Sprint(owner.Uid)); err == nil {
		name = u.Username
	}
	return fmt.Errorf("%s belongs to the user %s, who could not read what root writes there: run this as %[2]s, say with runuser -u %[2]s -- kingbus recover …", dir, name)
}

// recovery asks the operator.
type recovery struct {
	p         process
	dir       string
	confirmed bool // by the flag
	asJSON    bool // the report is all there is on standard output
	plan      stream.RecoverPlan
	refusal   error // why it was not confirmed
}

func (r *recovery) confirm(plan stream.RecoverPlan) bool {
	r.plan = plan
	if !r.asJSON {
		if _, err := io.WriteString(r.p.stdout, planText(r.dir, plan)); err != nil {
			r.refusal = fmt.Errorf("nothing was changed, because the plan could not be shown: %w", err)
			return false
		}
	}
	switch {
	case r.confirmed:
		return true
	case r.asJSON:
		r.refusal = fmt.Errorf("nothing was changed; give --%s if you are sure", recoverFlag)
		return false
	case !isTerminal(r.p.stdin):
		r.refusal = fmt.Errorf("nothing was changed: nobody sits at a terminal to confirm it; give --%s if you are sure", recoverFlag)
		return false
	}
	fmt.Fprintf(r.p.stderr, "\nType %q to do it: ", recoverWord)
	answer, _ := bufio.NewReader(r.p.stdin).ReadString('\n') // what is not the word is a no, whatever the error
	if strings.TrimSpace(answer) != recoverWord {
		r.refusal = errors.New("nothing was changed")
		return false
	}
	return true
}

// recovered is what `kingbus recover --json` prints.
type recovered struct {
	Dir        string           `json:"dir"`
	Done       bool             `json:"done"` // false: it is what would be done
	Cluster    uint64           `json:"cluster_id,string"`
	NewCluster uint64           `json:"new_cluster_id,omitzero,string"` // made when it is done
	RaftID     uint64           `json:"raft_id,string"`                 // of this node, the only voter of the new cluster
	Members    []cluster.Member `json:"members"`                        // of the old one
	// LastTerm and LastEntry are those by which to choose a survivor.
	LastTerm  uint64 `json:"last_term"`
	LastEntry uint64 `json:"last_entry"`
	// Committed is up to where this node knew of; now all that it has counts.
	Committed uint64             `json:"committed"`
	LostTo    uint64             `json:"lost_to,omitempty"` // what this node's disk has lost of what it may have acknowledged
	End       stream.Coordinates `json:"end"`
	SourceEnd stream.Coordinates `json:"source_end"` // the same place, in the source's coordinates
	Executed  gtid.Set           `json:"gtid_executed"`
}

func (r *recovery) report(done bool) recovered {
	p := r.plan
	if !done {
		p.NewClusterID = 0
	}
	return recovered{
		Dir: r.dir, Done: done, Cluster: p.ClusterID, NewCluster: p.NewClusterID, RaftID: p.RaftID, Members: append([]cluster.Member{}, p.Members...),
		LastTerm: p.LastTerm, LastEntry: p.Last, Committed: p.Committed, LostTo: p.LostTo, End: p.End, SourceEnd: p.Source, Executed: p.Executed,
	}
}

// planText shows what would be done.
func planText(dir string, plan stream.RecoverPlan) string {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-15s%s\n", name, fmt.Sprintf(format, args...))
	}
	row("data folder", "%s", dir)
	row("cluster", "%d, which becomes a new one with this node alone", plan.ClusterID)
	for _, m := range plan.Members {
		what := "voter, gone from the new cluster"
		if m.Learner {
			what = "learner, gone from the new cluster"
		}
		if m.ID == plan.RaftID {
			what = "this node, the only voter of the new cluster"
		}
		row("", "%s: %s", memberText(m), what)
	}
	row("last entry", "%d", plan.Last)
	if plan.LostTo > plan.Last {
		row("lost", "up to entry %d: this node's log was damaged, and it may have acknowledged so much; look for another survivor that has it", plan.LostTo)
	}
	row("committed", "up to entry %d, as far as this node knows; from now on all that it has counts", plan.Committed)
	if plan.End.File == "" {
		row("binlog", "empty")
	} else {
		row("binlog", "ends at %s (%s of the source)", plan.End, plan.Source)
	}
	row("gtid executed", "%s", setText(plan.Executed))
	b.WriteString(`
WHAT CAN BE LOST: everything that other nodes acknowledged behind this node's last
entry. Replicas that have got it from them are ahead of the new cluster then, and
have to be set up again. So run "kingbus inspect DIR" on all nodes that are left,
and do this on the one whose last entry has the highest term, and among equal terms
the highest number.
`)
	return b.String()
}

// memberText returns "name (address)", or the Raft id of a member that has no name.
func memberText(m cluster.Member) string {
	if m.Name == "" {
		return fmt.Sprintf("raft id %d", m.ID)
	}
	return printable(m.String())
}

// next tells what to do after it.
func (r *recovery) next(w io.Writer) error {
	var others []string
	for _, m := range r.plan.Members {
		if m.ID != r.plan.RaftID {
			others = append(others, memberText(m))
		}
	}
	text := fmt.Sprintf("\nDone: the folder belongs to cluster %d now.\n\n1. Start this node with `kingbus serve`, as before.\n", r.plan.NewClusterID)
	if len(others) > 0 {
		text += fmt.Sprintf("2. Remove the data folders of the other nodes: %s.\n3. Start each of them with --join instead of --initial-cluster, and add it with `kingbus node add NAME HOST:PORT`.\n", strings.Join(others, ", "))
	}
	_, err := io.WriteString(w, text)
	return err
}
