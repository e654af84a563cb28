package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"kingbus/internal/admin"
)

func replicaCommand(p process) *cobra.Command {
	return group(&cobra.Command{
		Use:   "replica",
		Short: "List the replicas of a node, and end the session of one",
		Long: `List the replicas and other clients that pull the binlog from a node, and end the
session of one. Each node knows its own: ask the others, too, for all of them.`,
		Example: "  kingbus replica list\n  kingbus replica kill 12",
	}, replicaListCommand(p), replicaKillCommand(p))
}

// replicasPath is where the API has the replicas.
const replicasPath = "/api/v1/replicas"

func replicaListCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the replicas of the node that is asked, with their lag", Args: cobra.NoArgs,
		Example: "  kingbus replica list\n  kingbus replica list --json",
	}
	return listing(p, cmd, replicasPath, func(_ context.Context, _ *client, r admin.Replicas) error {
		if len(r.Replicas) == 0 {
			_, err := fmt.Fprintf(p.stdout, "no replica is connected to this node, %s\n", r.Node)
			return err
		}
		if _, err := fmt.Fprintf(p.stdout, "%d connected to this node, %s\n", len(r.Replicas), r.Node); err != nil {
			return err
		}
		return writeReplicas(p.stdout, r.Now, r.Replicas)
	})
}

func replicaKillCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kill SESSION",
		Short: "End the session of a replica, as the statement KILL does",
		Long: `End the session of a replica, as the statement KILL does; ` + "`kingbus replica list`" + `
shows the sessions. A replica comes back by itself within its SOURCE_CONNECT_RETRY:
to keep it away, lock its account (kingbus user alter NAME --locked) first.`,
		Example: "  kingbus replica kill 12",
		Args:    cobra.ExactArgs(1),
	}
	ask := askFlags(cmd, p)
	completeFirst(cmd, ask, sessionNumbers)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		session, err := strconv.ParseUint(args[0], 10, 32)
		if err != nil {
			return withCode(exitUsage, fmt.Errorf("%q is no session: that is a number of `kingbus replica list`", args[0]))
		}
		c, err := ask()
		if err != nil {
			return err
		}
		if err = c.change(cmd.Context(), http.MethodDelete, fmt.Sprintf("%s/%d", replicasPath, session), nil); err == nil {
			_, err = fmt.Fprintf(p.stdout, "session %d has ended; a replica comes back by itself\n", session)
		}
		return withCode(exitFailed, err)
	}
	return cmd
}
