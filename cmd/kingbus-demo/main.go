// Command kingbus-demo shows kingbus at work between a real MySQL source and real
// MySQL replicas, all on this machine. `make demo` builds and runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"kingbus/internal/demo"
)

// Exit codes.
const (
	exitFailed      = 1   // it could not be done, or source and replica differ
	exitUsage       = 2   // wrong arguments
	exitInterrupted = 130 // stopped before the comparison, as a shell reports SIGINT
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

// run executes a command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ran := false
	cfg := demo.Config{Out: stdout}
	seconds := 0
	cmd := &cobra.Command{
		Use:   "kingbus-demo",
		Short: "Show kingbus between a real MySQL source and real MySQL replicas",
		Long: `Start a MySQL source, three nodes of kingbus and two MySQL replicas in temporary
folders on this machine's loopback, write to the source, and show live what goes
through. Kill nodes from another terminal, the demo says how: a node that died is
started again after some seconds. If there is no mysqld on PATH, one is fetched
once and kept in the user's cache folder; nothing is installed.

Exit codes:
  0    stopped, and with --seconds: source and replicas were found equal
  1    something failed, or source and replicas are not equal
  2    wrong arguments
  130  interrupted before source and replicas were compared`,
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ran = true
			cfg.Duration = time.Duration(seconds) * time.Second
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			// The second signal finds the default behaviour, which is to die; then
			// the kernel and helpers clean up.
			defer context.AfterFunc(ctx, stop)()
			return demo.Run(ctx, cfg)
		},
	}
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.IntVar(&seconds, "seconds", 0, "write for that long, then compare source and replicas; 0 = until Ctrl-C, without comparison")
	flags.IntVar(&cfg.Nodes, "nodes", 3, "nodes of kingbus; one that is alone is no cluster")
	flags.IntVar(&cfg.Replicas, "replicas", 2, "MySQL replicas, the first one on the leader, the next ones on other nodes")
	flags.BoolVar(&cfg.Kill, "kill", true, "with --seconds: kill the leader with SIGKILL once, in the middle")
	flags.DurationVar(&cfg.KillEvery, "kill-every", 0, "kill the leader that often instead, with or without --seconds; 0 = not")
	flags.IntVar(&cfg.Rate, "rate", 300, "transactions to write per second")
	flags.IntVar(&cfg.Writers, "writers", 4, "connections that write")
	flags.StringVar(&cfg.Kingbus, "kingbus", "bin/kingbus", "the program kingbus")
	err := cmd.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "kingbus-demo: %v\n", err)
		if !ran {
			return exitUsage
		}
	}
	return exitCode(err)
}

// exitCode returns the code for what demo.Run returned.
func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, demo.ErrUsage):
		return exitUsage
	case errors.Is(err, demo.ErrNotEqual):
		return exitFailed
	case errors.Is(err, demo.ErrInterrupted):
		return exitInterrupted
	}
	return exitFailed
}
