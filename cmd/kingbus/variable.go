package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"kingbus/internal/admin"
	"kingbus/internal/variable"
)

// variablesPath is where the API has the variables.
const variablesPath = "/api/v1/variables"

func configShowCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show", Short: "Show what holds for all nodes and can be changed while they run", Args: cobra.NoArgs,
		Example: "  kingbus config show\n  kingbus config show --json",
	}
	return listing(p, cmd, variablesPath, func(_ context.Context, _ *client, list []variable.Shown) error {
		w := tabwriter.NewWriter(p.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "VARIABLE\tVALUE\tUNIT\tSAID BY")
		for _, v := range list {
			by := "this node, --" + v.Setting
			if v.Set {
				by = "the cluster"
				if v.Own != v.Value {
					by += "; this node says " + v.Own
				}
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", printable(v.Name), printable(v.Value), v.Unit, printable(by))
		}
		return w.Flush()
	})
}

func configSetCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set NAME=VALUE…",
		Short: "Change variables for all nodes, at once and for good (SET PERSIST)",
		Long: `Change variables for all nodes, at once and for good, all or none of those that are
named, as the statement SET PERSIST does. ` + "`kingbus config show`" + ` lists them.`,
		Example: "  kingbus config set binlog_expire_logs_seconds=604800 kingbus_retain_size=500000000000\n  kingbus config set kingbus_acknowledge=quorum+1",
		Args:    cobra.MinimumNArgs(1),
	}
	return variablesCommand(p, cmd, func(args []string) (c admin.VariablesChange, err error) {
		c.Set = map[string]string{}
		for _, arg := range args {
			name, value, ok := strings.Cut(arg, "=")
			if _, twice := c.Set[name]; !ok || name == "" || twice {
				return c, fmt.Errorf("%q is not NAME=VALUE, or is there twice", arg)
			}
			c.Set[name] = value
		}
		return c, nil
	}, "it is so on all nodes")
}

func configResetCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use: "reset NAME…", Short: "Take back what was set: the settings of each node say it then (RESET PERSIST)",
		Example: "  kingbus config reset binlog_expire_logs_seconds",
		Args:    cobra.MinimumNArgs(1),
	}
	return variablesCommand(p, cmd, func(args []string) (admin.VariablesChange, error) {
		for _, arg := range args {
			if arg == "" {
				return admin.VariablesChange{}, errors.New("the name of a variable is empty")
			}
		}
		return admin.VariablesChange{Reset: args}, nil
	}, "it is as the settings of each node say")
}

// variablesCommand makes a command that changes variables.
func variablesCommand(p process, cmd *cobra.Command, read func(args []string) (admin.VariablesChange, error), done string) *cobra.Command {
	ask := askFlags(cmd, p)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		change, err := read(args)
		if err != nil {
			return withCode(exitUsage, err)
		}
		c, err := ask()
		if err != nil {
			return err
		}
		if err = c.change(cmd.Context(), http.MethodPatch, variablesPath, change); err == nil {
			_, err = fmt.Fprintln(p.stdout, done)
		}
		return withCode(exitFailed, err)
	}
	return cmd
}
