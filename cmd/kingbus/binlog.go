package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kingbus/internal/admin"
)

func binlogCommand(p process) *cobra.Command {
	return group(&cobra.Command{
		Use:   "binlog",
		Short: "List the binlog files, and remove old ones",
		Long: `List the binlog files that kingbus keeps, and remove old ones, on all nodes. The
settings --retain-size and --retain-age remove them by themselves; ` + "`kingbus export`" + `
writes one to a file.`,
		Example: `  kingbus binlog list
  kingbus binlog purge --before 168h --dry-run`,
	}, binlogListCommand(p), binlogPurgeCommand(p))
}

// binlogsPath is where the API has the binlog files.
const binlogsPath = "/api/v1/binlogs"

func binlogListCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the binlog files, with their sizes and times", Args: cobra.NoArgs,
		Example: "  kingbus binlog list\n  kingbus binlog list --json",
	}
	return listing(p, cmd, binlogsPath, func(_ context.Context, _ *client, b admin.Binlogs) error {
		if len(b.Files) == 0 {
			_, err := fmt.Fprintln(p.stdout, "there are no binlog files yet")
			return err
		}
		w := tabwriter.NewWriter(p.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "FILE\tSIZE\tFIRST EVENT\tLAST EVENT\tSTATE")
		for _, f := range b.Files {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", printable(f.Name), bytesText(f.Size), timeText(f.FirstEvent), timeText(f.LastEvent), map[bool]string{true: "current", false: "finished"}[f.Current])
		}
		if err := w.Flush(); err != nil {
			return err
		}
		_, err := fmt.Fprintf(p.stdout, "%d files, %s\n", len(b.Files), bytesText(b.Bytes))
		return err
	})
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func binlogPurgeCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "purge --to FILE | --before TIME",
		Short: "Remove old binlog files, on all nodes, as PURGE BINARY LOGS does",
		Long: `Remove old binlog files, on all nodes, as the statement PURGE BINARY LOGS does: whole
files from the oldest on. The file that is written stays, and so does what a
connected replica still reads, with all behind it. A replica that is not connected
and needs what was removed has to be set up again.`,
		Example: `  kingbus binlog purge --to binlog.000042            # which stays, and all behind it
  kingbus binlog purge --before 168h                 # without an event of the last week
  kingbus binlog purge --before 2026-01-31T00:00:00Z --dry-run`,
		Args: cobra.NoArgs,
	}
	to := cmd.Flags().String("to", "", "remove the files before this one")
	before := cmd.Flags().String("before", "", "remove the files without an event of this time or later: a time like 2026-01-31T00:00:00Z, or how long ago, like 168h")
	dryRun := cmd.Flags().Bool("dry-run", false, "remove nothing, only tell what would be")
	asJSON := cmd.Flags().Bool("json", false, "print the outcome as JSON")
	ask := askFlags(cmd, p)
	completeWith(cmd, "to", ask, binlogNames)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if (*to == "") == (*before == "") {
			return withCode(exitUsage, errors.New("one of --to FILE and --before TIME is needed; `kingbus binlog list` shows the files"))
		}
		request := admin.Purge{To: *to, DryRun: *dryRun}
		if *before != "" {
			var err error
			if request.Before, err = parseBefore(*before, time.Now()); err != nil {
				return withCode(exitUsage, err)
			}
		}
		c, err := ask()
		if err != nil {
			return err
		}
		done, err := c.purge(cmd.Context(), request)
		if err != nil {
			return withCode(exitFailed, err)
		}
		if *asJSON {
			return withCode(exitFailed, writeJSON(p.stdout, done))
		}
		_, err = fmt.Fprint(p.stdout, purgedText(done, *dryRun))
		return withCode(exitFailed, err)
	}
	return cmd
}

// parseBefore reads a time, or how long before now it was.
func parseBefore(s string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.IsZero() {
		return t, fmt.Errorf("--before: %.64q is neither a time like 2026-01-31T00:00:00Z nor how long ago, like 168h", s)
	}
	return t, nil
}

// purge removes binlog files.
func (c *client) purge(ctx context.Context, request admin.Purge) (done admin.Purged, err error) {
	resp, err := c.do(ctx, http.MethodPost, binlogsPath+"/purge", request)
	if err != nil {
		return done, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&done); err != nil {
		return done, fmt.Errorf("read what was removed: %w", err)
	}
	return done, nil
}

// purgedText tells what was removed, or with dryRun what would be.
func purgedText(done admin.Purged, dryRun bool) string {
	removed, nothing, is := "removed", "nothing was removed", "is"
	if dryRun {
		removed, nothing, is = "would remove", "nothing would be removed", "would be"
	}
	text := nothing
	switch n := len(done.Removed); n {
	case 0:
	case 1:
		text = fmt.Sprintf("%s 1 file, %s, %s", removed, printable(done.Removed[0]), bytesText(done.Bytes))
	default:
		text = fmt.Sprintf("%s %d files, %s to %s, %s", removed, n, printable(done.Removed[0]), printable(done.Removed[n-1]), bytesText(done.Bytes))
	}
	if done.HeldBack {
		text += "; a connected replica still reads " + printable(done.Oldest) + ", which stays with all behind it"
	} else if done.Oldest != "" {
		text += fmt.Sprintf("; the oldest file %s %s", is, printable(done.Oldest))
	}
	return text + "\n"
}
