// Command kingbus keeps MySQL's binlog: it pulls it from a source as a replica,
// stores it, and serves it to replicas as a source. See `kingbus --help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes, as `kingbus --help` documents them.
const (
	exitFailed  = 1 // it could not be done
	exitUsage   = 2 // wrong arguments or settings
	exitStore   = 3 // the store failed while it ran
	exitDamage  = 4 // inspect or verify found damage
	exitKilled  = 5 // the stop took too long and was enforced
	exitRefused = 6 // the cluster does not take this node
)

const exitCodes = `Exit codes:
  0  done, or stopped cleanly
  1  it could not be done; the message says why
  2  wrong arguments or settings
  3  the store failed while kingbus ran (disk full of errors, failed sync …); look at the disk before you start it again
  4  inspect found damage, or verify a difference
  5  the stop took longer than --shutdown-timeout and was enforced
  6  the cluster does not take this node with the data folder or the version that it has: it was removed, lost what
     it had acknowledged, or is too old; starting it again does not help`

// exitError carries the exit code of a command that ran.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// withCode gives an error an exit code; one that has a code keeps it, nil stays
// nil.
func withCode(code int, err error) error {
	var has *exitError
	if err == nil || errors.As(err, &has) {
		return err
	}
	return &exitError{code, err}
}

// errLogged is joined to an error that the log tells already.
var errLogged = errors.New("see the log")

// process is what a command has of its process.
type process struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
	// settings is the file in which a command that asks a node looks for its settings if it is given
	// none; "": nowhere.
	settings string
}

// packaged is where the package has the settings of the node.
const packaged = "/etc/kingbus/kingbus.yaml"

func main() {
	os.Exit(run(context.Background(), os.Args[1:], process{os.Stdin, os.Stdout, os.Stderr, os.Environ(), packaged}))
}

// run executes a command line and returns the exit code.
func run(ctx context.Context, args []string, p process) int {
	root := rootCommand(p)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var e *exitError
	if !errors.As(err, &e) {
		e = &exitError{exitUsage, err} // cobra did not get as far as running anything
	}
	if !errors.Is(err, errLogged) {
		fmt.Fprintf(p.stderr, "kingbus: %v\n", err)
		if answer := (*answerError)(nil); errors.As(err, &answer) && answer.Next != "" {
			fmt.Fprintf(p.stderr, "what to do: %s\n", printable(answer.Next))
		}
	}
	return e.code
}

func rootCommand(p process) *cobra.Command {
	root := &cobra.Command{
		Use:   "kingbus",
		Short: "A store for MySQL binlogs that poses as a replica and as a source",
		Long: `kingbus pulls the binlog from a MySQL server, as a replica does, keeps it, and
serves it to replicas, mysqlbinlog and CDC clients, as a source does.

` + "`kingbus serve`" + ` runs a node. The other commands ask a running node over its HTTP API:
the one that runs on this machine, if they are given its settings (--data-dir, or
KINGBUS_DATA_DIR, or --config; if nothing at all, those of ` + packaged + `,
if that is there), or another one with --admin https://HOST:PORT.
` + "`inspect`, `recover` and `export --data-dir`" + ` work on the folder of a node that is stopped.

With --json they print what programs can read. ` + "`kingbus completion --help`" + ` tells how to
have the shell complete commands, flags, and names of nodes, accounts and files.

` + exitCodes,
		Example: `  kingbus serve --data-dir /var/lib/kingbus --source mysql://repl@db1:3306 --source-password-file /etc/kingbus/source.pw
  export KINGBUS_DATA_DIR=/var/lib/kingbus
  kingbus status
  kingbus user add repl`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		for _, who := range []string{"source", "replica"} {
			if strings.Contains(err.Error(), "--"+who+"-password") {
				return fmt.Errorf("there is no --%s-password: every user of this machine could see it. Put the password into a file and name that with --%[1]s-password-file, or set KINGBUS_%[2]s_PASSWORD", who, strings.ToUpper(who))
			}
		}
		return fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())
	})
	root.AddCommand(serveCommand(p), statusCommand(p), sourceCommand(p), replicaCommand(p), binlogCommand(p), nodeCommand(p), verifyCommand(p), exportCommand(p), userCommand(p), configCommand(p), inspectCommand(p), recoverCommand(p), versionCommand(p))
	return root
}
