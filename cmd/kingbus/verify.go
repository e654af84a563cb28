package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"kingbus/internal/admin"
	"kingbus/internal/cluster"
)

func verifyCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Compare the logs of all nodes, entry by entry, reading all of them from the disks",
		Long: `Compare the log of the node that runs here with those of all others, entry by
entry. Each node reads all that it has from its disk and checks every checksum, so
this takes as long as reading it does; nothing else stops meanwhile.

The exit code is 4 if something differs or is damaged, and 1 if a node could not
be compared.`,
		Example: "  kingbus verify\n  kingbus verify --json",
		Args:    cobra.NoArgs,
	}
	asJSON := cmd.Flags().Bool("json", false, "print the outcome as JSON")
	ask := askFlags(cmd, p)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := ask()
		if err != nil {
			return err
		}
		v, err := c.verify(cmd.Context(), newProgress(p.stderr, "entries"))
		if err != nil {
			return withCode(exitFailed, err)
		}
		if *asJSON {
			err = writeJSON(p.stdout, v)
		} else {
			err = printVerified(p.stdout, v)
		}
		if err != nil {
			return withCode(exitFailed, err)
		}
		return verdict(v)
	}
	return cmd
}

// verify has the node compare itself with the others.
func (c *client) verify(ctx context.Context, shown *progress) (cluster.Verified, error) {
	defer shown.end()
	resp, err := c.do(ctx, http.MethodPost, "/api/v1/cluster/verify", nil)
	if err != nil {
		return cluster.Verified{}, err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var line admin.VerifyLine
		switch err := d.Decode(&line); {
		case err != nil:
			if errors.Is(err, io.EOF) {
				err = errors.New("the node has closed the connection; its log says why")
			}
			return cluster.Verified{}, fmt.Errorf("the comparison was broken off: %w", err)
		case line.Failure != nil:
			return cluster.Verified{}, &answerError{*line.Failure}
		case line.Result != nil:
			return *line.Result, nil
		}
		shown.show("comparing", line.Entry, line.Last)
	}
}

// compared tells whether a difference is one, or that a node was not there to be
// compared.
func compared(d cluster.Difference) bool { return d.To > 0 }

func printVerified(out io.Writer, v cluster.Verified) error {
	var b strings.Builder
	entries := fmt.Sprintf("%d entries, %d to %d", v.To+1-min(v.From, v.To+1), v.From, v.To)
	if v.From > v.To {
		entries = "no entries, because no entry is on all of them"
	}
	if len(v.Nodes) == 0 {
		fmt.Fprintf(&b, "no other node was compared; read %s, of this node\n", entries)
	} else {
		fmt.Fprintf(&b, "compared this node with %s: %s\n", strings.Join(v.Nodes, ", "), entries)
	}
	for _, d := range v.Differences {
		if compared(d) {
			fmt.Fprintf(&b, "DIFFERENT: %s, entries %d to %d: %s\n", d.Node, d.From, d.To, printable(d.Error))
		} else {
			fmt.Fprintf(&b, "not compared: %s: %s\n", d.Node, printable(d.Error))
		}
	}
	if len(v.Differences) == 0 {
		fmt.Fprintf(&b, "no difference, and every checksum is right\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// verdict makes an exit code of the outcome.
func verdict(v cluster.Verified) error {
	different, missing := 0, 0
	for _, d := range v.Differences {
		if compared(d) {
			different++
		} else {
			missing++
		}
	}
	switch {
	case different > 0:
		return withCode(exitDamage, fmt.Errorf("differences: %d. What is damaged is fetched again by itself, so look again first. If it stays, ask another node, too (--admin-listen): the one that is wrong differs from all others; remove it, empty its data folder, and add it again", different))
	case missing > 0:
		return withCode(exitFailed, fmt.Errorf("nodes that were not compared: %d; start them, or wait, and try again", missing))
	}
	return nil
}
