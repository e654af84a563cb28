package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"kingbus/internal/admin"
	"kingbus/internal/config"
)

func nodeCommand(p process) *cobra.Command {
	return group(&cobra.Command{
		Use:   "node",
		Short: "Look at the nodes of the cluster, and change which there are",
		Long: `Look at the nodes of the cluster, and change which there are.

It asks the node that runs here (--admin-listen); any node of the cluster will do,
and the leader carries it out. Every command may be repeated, also after it was
broken off.`,
		Example: `  kingbus node list
  kingbus node add n4 10.0.0.4:8407
  kingbus node transfer n2`,
	}, nodeListCommand(p), nodeAddCommand(p), nodePromoteCommand(p), nodeRemoveCommand(p), nodeTransferCommand(p))
}

// nodesPath is where the API changes the nodes.
const nodesPath = "/api/v1/cluster/nodes"

func nodePath(name string) string { return nodesPath + "/" + url.PathEscape(name) }

// nodeSubcommand makes a command that asks a running node.
func nodeSubcommand(p process, cmd *cobra.Command, run func(ctx context.Context, c *client, args []string) error) *cobra.Command {
	ask := askFlags(cmd, p)
	completeFirst(cmd, ask, nodeNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := ask()
		if err != nil {
			return err
		}
		if len(args) > 0 {
			if err := config.CheckNodeName(args[0]); err != nil {
				return withCode(exitUsage, err)
			}
		}
		return withCode(exitFailed, run(cmd.Context(), c, args))
	}
	return cmd
}

func nodeListCommand(p process) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the nodes, with their lag", Args: cobra.NoArgs, Example: "  kingbus node list\n  kingbus node list --json"}
	return listing(p, cmd, clusterPath, func(_ context.Context, _ *client, c admin.Cluster) error {
		if _, err := fmt.Fprintf(p.stdout, "%s\n", clusterText(c, time.Now())); err != nil {
			return err
		}
		return writeMembers(p.stdout, c)
	})
}

func nodeAddCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add NAME HOST:PORT",
		Short: "Take a node into the cluster: as a learner, and as a voter when it has caught up",
		Long: `Take a node into the cluster. Start it first, with an empty data folder, with
--node-name NAME, --peer-listen HOST:PORT and --join; HOST:PORT is what it
advertises to the others.

It becomes a learner, which copies the log and takes part in nothing else; when it
has caught up it becomes a voter. That may take as long as copying all of the
binlog does. The command only watches meanwhile: break it off when you like, and
give it again to go on.`,
		Example: `  kingbus serve --data-dir /var/lib/kingbus --node-name n4 --peer-listen 10.0.0.4:8407 --join   # there
  kingbus node add n4 10.0.0.4:8407                                                            # on any member`,
		Args: cobra.ExactArgs(2),
	}
	learner := cmd.Flags().Bool("learner", false, "leave it a learner when it has caught up; `kingbus node promote` makes it a voter")
	return nodeSubcommand(p, cmd, func(ctx context.Context, c *client, args []string) error {
		name, address := args[0], args[1]
		if err := config.CheckPeerAddress(address); err != nil {
			return withCode(exitUsage, err)
		}
		if err := c.change(ctx, http.MethodPost, nodesPath, admin.NewNode{Name: name, Address: address}); err != nil {
			return err
		}
		a := addition{c: c, name: name, out: p.stdout, shown: newProgress(p.stderr, "")}
		defer a.shown.end()
		if err := a.wait(ctx, !*learner); err != nil {
			return fmt.Errorf("%w; %s stays what it is, and the same command goes on from there", err, name)
		}
		return nil
	})
}

// addition waits for a node that was added.
type addition struct {
	c     *client
	name  string
	out   io.Writer
	shown *progress
}

// addEvery is how often it is asked how far the node is.
const addEvery = 250 * time.Millisecond

// wait shows how far the node has come until it has caught up, and then makes it a
// voter if promote says so.
func (a *addition) wait(ctx context.Context, promote bool) error {
	seen := false
	for {
		group, err := a.c.cluster(ctx)
		if err != nil {
			return err
		}
		m, is := group.Member(a.name)
		if !is && seen {
			return fmt.Errorf("%s is no longer a member: somebody has removed it", a.name)
		}
		if is && !seen {
			seen = true
			if m.Learner {
				a.say("%s (%s) is a learner of the cluster now, and copies the log", a.name, m.Address)
			}
		}
		behind, known := lag(group, m)
		switch {
		case !is: // the node that is asked has not heard of it yet
		case !m.Learner:
			a.say("%s is a voter now. %s", a.name, votersText(group.Voters()))
			return nil
		case !m.Up:
			a.shown.show("waiting for "+a.name+": "+stateText(m), 0, 0)
		case m.Installing != nil:
			a.shown.show(a.name+" fetches the log", m.Installing.Done, m.Installing.Total)
		case !known:
			a.shown.show("waiting for the leader to tell how far "+a.name+" is", 0, 0)
		case behind > addBehind:
			a.shown.show(fmt.Sprintf("%s is %d entries behind", a.name, behind), 0, 0)
		case !promote:
			a.say("%s has caught up, and stays a learner; `kingbus node promote %[1]s` makes it a voter", a.name)
			return nil
		default:
			err := a.c.change(ctx, http.MethodPost, nodePath(a.name)+"/promote", nil)
			if err == nil {
				continue // and say so as soon as it is seen
			}
			// It fell behind again, or the leader has changed: both pass.
			if !answered(err, admin.CodeConflict, admin.CodeNoLeader, admin.CodeUncertain, admin.CodeUnavailable) {
				return err
			}
			a.shown.show("waiting to make "+a.name+" a voter: "+printable(err.Error()), 0, 0)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(addEvery):
		}
	}
}

// addBehind is how many entries a node may lack and count as caught up: what comes
// in while it is asked.
const addBehind = 1000

func (a *addition) say(format string, args ...any) {
	a.shown.end()
	fmt.Fprintf(a.out, format+"\n", args...)
}

// votersText tells what a number of voters is good for.
func votersText(n int) string {
	switch lose := (n - 1) / 2; {
	case n == 1:
		return "The cluster has one voter."
	case lose == 0:
		return fmt.Sprintf("The cluster has %d voters and needs all of them: add another one.", n)
	case n%2 == 0:
		return fmt.Sprintf("The cluster has %d voters and can lose %d of them, no more than with %d.", n, lose, n-1)
	default:
		return fmt.Sprintf("The cluster has %d voters and can lose %d of them.", n, lose)
	}
}

func nodePromoteCommand(p process) *cobra.Command {
	cmd := &cobra.Command{Use: "promote NAME", Short: "Make a learner that has caught up a voter", Args: cobra.ExactArgs(1), Example: "  kingbus node promote n4"}
	return nodeSubcommand(p, cmd, func(ctx context.Context, c *client, args []string) error {
		if err := c.change(ctx, http.MethodPost, nodePath(args[0])+"/promote", nil); err != nil {
			return err
		}
		_, err := fmt.Fprintf(p.stdout, "%s is a voter now\n", args[0])
		return err
	})
}

func nodeRemoveCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a node out of the cluster, for good",
		Long: `Take a node out of the cluster, for good: with the data folder that it has it
never comes back. Its process ends by itself. To take the machine in again, empty
the folder and add it as a new node.

It is refused where the nodes that are up would be no majority afterwards.`,
		Example: "  kingbus node remove n4",
		Args:    cobra.ExactArgs(1),
	}
	return nodeSubcommand(p, cmd, func(ctx context.Context, c *client, args []string) error {
		name := args[0]
		before, err := c.cluster(ctx)
		if err != nil {
			return err
		}
		m, was := before.Member(name)
		if err := c.change(ctx, http.MethodDelete, nodePath(name), nil); err != nil {
			return err
		}
		if !was {
			_, err = fmt.Fprintf(p.stdout, "%s was removed before; nothing was left to do\n", name)
			return err
		}
		voters := before.Voters()
		if !m.Learner {
			voters--
		}
		_, err = fmt.Fprintf(p.stdout, "%s was removed. %s\nIts process ends by itself with exit code %d, and starting it again does not help; remove its data folder before you add it again.\n", m, votersText(voters), exitRefused)
		return err
	})
}

func nodeTransferCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "transfer NAME",
		Short:   "Make a node the leader, which follows the source",
		Example: "  kingbus node transfer n2",
		Args:    cobra.ExactArgs(1),
	}
	return nodeSubcommand(p, cmd, func(ctx context.Context, c *client, args []string) error {
		if err := c.change(ctx, http.MethodPost, nodePath(args[0])+"/lead", nil); err != nil {
			return err
		}
		return awaitLeader(ctx, c, p.stdout, args[0])
	})
}

// awaitLeader waits until the node that is asked knows who leads, which need not
// be who was meant to.
func awaitLeader(ctx context.Context, c *client, out io.Writer, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	leader := ""
	for {
		group, err := c.cluster(ctx)
		switch {
		case err == nil && group.Leader == name:
			_, err = fmt.Fprintf(out, "%s leads now\n", name)
			return err
		case err == nil:
			leader = group.Leader
		case ctx.Err() == nil:
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			if leader == "" {
				return errors.New("nobody leads at present; look at `kingbus node list` and try again")
			}
			return fmt.Errorf("%s leads, not %s: it may have fallen behind meanwhile; look at `kingbus node list` and try again", leader, name)
		}
	}
}
