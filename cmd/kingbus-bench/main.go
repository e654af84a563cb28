// Command kingbus-bench measures kingbus against a real MySQL source and
// mysqlbinlog, on the same binlogs. `make bench` builds and runs it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"kingbus/internal/bench"
)

// Exit codes.
const (
	exitFailed = 1 // it could not be measured
	exitUsage  = 2 // wrong arguments
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

// run executes a command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ran := false
	cfg := bench.Config{Out: stdout}
	cmd := &cobra.Command{
		Use:   "kingbus-bench",
		Short: "Measure kingbus against a real MySQL source and mysqlbinlog",
		Long: `Measure, on the same binlogs, how fast and at what price kingbus takes a binlog in
(against mysqlbinlog --raw) and serves it (against the MySQL server itself), how
soon a reader gets its first event, how much memory it needs, and how long a
start with a large log takes; then, with clusters on this machine, how fast three
nodes take a binlog in (cluster-ingest), how long nothing is committed when the
leader is killed or moved (failover), and how fast a fresh node takes in the log
(join). Medians and ratios are printed; a goal that is missed is no error.

The first run makes 4 GB of binlogs with a real server, which takes some
minutes; they are kept in the user's cache folder ($KINGBUS_CACHE).

Exit codes:
  0  measured
  1  something failed, or it was interrupted
  2  wrong arguments`,
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ran = true
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			// The second signal finds the default behaviour, which is to die; then
			// the kernel and helpers clean up.
			defer context.AfterFunc(ctx, stop)()
			return bench.Run(ctx, cfg)
		},
	}
	cmd.AddCommand(bareCommand())
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringSliceVar(&cfg.Only, "only", nil, "measure only these of "+strings.Join(bench.Phases(), ", "))
	flags.IntVar(&cfg.Runs, "runs", 3, "repetitions, of which the median counts")
	flags.BoolVar(&cfg.Quick, "quick", false, "a tenth of the data and three rounds, to see whether it works")
	flags.Float64Var(&cfg.RestartGB, "restart-gb", 10, "size of the log for restarts, in GB")
	flags.Float64Var(&cfg.JoinGB, "join-gb", 5, "size of the log that a fresh node takes in, in GB")
	flags.IntVar(&cfg.Rounds, "rounds", 20, "how often failover kills the leader, and how often it moves it, at each setting")
	flags.BoolVar(&cfg.Fresh, "fresh", false, "make the binlogs anew")
	flags.StringVar(&cfg.Dir, "dir", "", "folder on the disk to measure; the system's folder for temporary files if not given")
	flags.StringVar(&cfg.Profile, "profile", "", "folder for profiles of kingbus, made with perf(1)")
	flags.StringVar(&cfg.Kingbus, "kingbus", "bin/kingbus", "the program kingbus")
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "kingbus-bench: %v\n", err)
	if !ran {
		return exitUsage
	}
	return exitFailed
}

// bareCommand is what the benchmark itself starts: see bench.RunBare.
func bareCommand() *cobra.Command {
	return &cobra.Command{
		Use: "bare-replica SOURCE HAVE FILE", Hidden: true, Args: cobra.ExactArgs(3), SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return bench.RunBare(cmd.Context(), bench.BareConfig{Source: args[0], Have: args[1], File: args[2], Password: cmd.InOrStdin()})
		},
	}
}
