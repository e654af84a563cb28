package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// group makes a command that has nothing but commands below it.
func group(cmd *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return withCode(exitUsage, fmt.Errorf("unknown command %q for %q; see `%[2]s --help`", args[0], cmd.CommandPath()))
		}
		return cmd.Help()
	}
	cmd.AddCommand(commands...)
	return cmd
}

// listing makes a command that shows what a path of the API answers: with --json as it is,
// else as show writes it for people.
func listing[T any](p process, cmd *cobra.Command, path string, show func(ctx context.Context, c *client, v T) error) *cobra.Command {
	asJSON := cmd.Flags().Bool("json", false, "print it as JSON, with all that is known")
	ask := askFlags(cmd, p)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := ask()
		if err != nil {
			return err
		}
		var v T
		text, err := c.read(cmd.Context(), path, &v)
		if err != nil {
			return withCode(exitFailed, err)
		}
		if *asJSON {
			_, err = p.stdout.Write(text)
		} else {
			err = show(cmd.Context(), c, v)
		}
		return withCode(exitFailed, err)
	}
	return cmd
}

// writeJSON writes a value for programs.
func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
