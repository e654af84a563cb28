package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kingbus/internal/admin"
)

// names asks a node for what an argument or a flag may be, for completion.
type names func(ctx context.Context, c *client) ([]string, error)

// completionTime is how long a shell may wait for it.
const completionTime = 2 * time.Second

// complete returns what completes a word with names. Nobody sees an error.
func (n names) complete(ask func() (*client, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) (out []string, _ cobra.ShellCompDirective) {
		const nothing = cobra.ShellCompDirectiveNoFileComp
		c, err := ask()
		if err != nil {
			return nil, nothing
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		all, err := n(ctx, c)
		if err != nil {
			return nil, nothing
		}
		for _, name := range all {
			if strings.HasPrefix(name, word) && name == printable(name) {
				out = append(out, name)
			}
		}
		return out, nothing
	}
}

// completeFirst completes the first argument of a command.
func completeFirst(cmd *cobra.Command, ask func() (*client, error), n names) {
	complete := n.complete(ask)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, word)
	}
}

// completeWith completes a flag of a command.
func completeWith(cmd *cobra.Command, flag string, ask func() (*client, error), n names) {
	_ = cmd.RegisterFlagCompletionFunc(flag, n.complete(ask)) // it fails only for a flag that is not there
}

func nodeNames(ctx context.Context, c *client) (out []string, err error) {
	group, err := c.cluster(ctx)
	for _, m := range group.Members {
		out = append(out, m.Name)
	}
	return out, err
}

func binlogNames(ctx context.Context, c *client) (out []string, err error) {
	var b admin.Binlogs
	_, err = c.read(ctx, binlogsPath, &b)
	for _, f := range b.Files {
		out = append(out, f.Name)
	}
	return out, err
}

func accountNames(ctx context.Context, c *client) (out []string, err error) {
	var users []admin.User
	_, err = c.read(ctx, usersPath, &users)
	for _, u := range users {
		out = append(out, u.User+"@"+u.Host)
	}
	return out, err
}

func sessionNumbers(ctx context.Context, c *client) (out []string, err error) {
	var r admin.Replicas
	_, err = c.read(ctx, replicasPath, &r)
	for _, s := range r.Replicas {
		out = append(out, fmt.Sprint(s.Session))
	}
	return out, err
}
