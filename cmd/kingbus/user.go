package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kingbus/internal/admin"
)

func userCommand(p process) *cobra.Command {
	return group(&cobra.Command{
		Use:   "user",
		Short: "List, add, change and drop the accounts of replicas and administrators",
		Long: `List, add, change and drop the accounts with which replicas, CDC clients and
administrators log in. They are the same on all nodes, and kept as hashes.

The statements CREATE USER, ALTER USER, DROP USER, GRANT and REVOKE do the same,
for who has the privilege SUPER.`,
		Example: `  kingbus user add repl                                   # asks for its password
  kingbus user add dba --super --password-file /root/dba.pw
  kingbus user list`,
	}, userListCommand(p), userAddCommand(p), userAlterCommand(p), userDropCommand(p))
}

// usersPath is where the API has the accounts.
const usersPath = "/api/v1/users"

func userListCommand(p process) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the accounts", Args: cobra.NoArgs, Example: "  kingbus user list\n  kingbus user list --json"}
	return listing(p, cmd, usersPath, func(_ context.Context, _ *client, users []admin.User) error {
		w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "USER\tHOST\tPRIVILEGES\tPLUGIN\tNOTES")
		for _, u := range users {
			var notes []string
			for _, note := range []struct {
				text string
				is   bool
			}{{"only with TLS", u.RequireTLS}, {"locked", u.Locked}, {"of this node (--replica-user)", u.OfNode}} {
				if note.is {
					notes = append(notes, note.text)
				}
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", printable(u.User), printable(u.Host), orNone(strings.Join(u.Privileges, ", ")), orNone(u.Plugin), strings.Join(notes, ", "))
		}
		return w.Flush()
	})
}

// accountFlags are what can be said of an account.
type accountFlags struct {
	privileges         *[]string
	super, native      *bool
	tls, locked        *bool
	password, hashFile *string
}

func newAccountFlags(cmd *cobra.Command) accountFlags {
	f := cmd.Flags()
	return accountFlags{
		privileges: f.StringSlice("privileges", []string{"replication slave", "replication client"}, "what it may do: replication slave (read the binlog), replication client (see where it stands), super (everything, accounts too); none is \"usage\""),
		super:      f.Bool("super", false, "an administrator: all privileges"),
		native:     f.Bool("native", false, "with mysql_native_password, for clients that know no caching_sha2_password (MySQL before 5.7.23, MariaDB as a replica, old connectors)"),
		tls:        f.Bool("require-tls", false, "it can log in over TLS only"),
		locked:     f.Bool("locked", false, "nobody can log in with it"),
		password:   f.String("password-file", "", "file with the password, \"-\" is the standard input; if not given, it is asked for"),
		hashFile:   f.String("hash-file", "", "file with the hash of the password as MySQL has it in mysql.user, in place of the password"),
	}
}

// change is what of it was given.
func (f accountFlags) change(cmd *cobra.Command, p process, isNew bool) (c admin.UserChange, err error) {
	given := func(name string) bool { return isNew || cmd.Flags().Changed(name) }
	if *f.super {
		*f.privileges = []string{"all"}
	}
	if given("privileges") || *f.super {
		c.Privileges = f.privileges
	}
	if given("require-tls") {
		c.RequireTLS = f.tls
	}
	if given("locked") {
		c.Locked = f.locked
	}
	if *f.native {
		c.Plugin = "mysql_native_password"
	}
	switch {
	case *f.hashFile != "":
		c.Hash, err = readSecret(p, *f.hashFile)
	case *f.password != "" || isNew || *f.native || cmd.Flags().Changed("password-file"):
		c.Password, err = readSecret(p, *f.password)
	}
	return c, err
}

// readSecret reads one line of a file; "" asks for it, without showing it.
func readSecret(p process, file string) (string, error) {
	var text string
	switch stdin, isFile := p.stdin.(*os.File); {
	case file == "" && isFile && term.IsTerminal(int(stdin.Fd())):
		fmt.Fprint(p.stderr, "Password: ")
		b, err := term.ReadPassword(int(stdin.Fd()))
		fmt.Fprintln(p.stderr)
		if err != nil {
			return "", err
		}
		text = string(b)
	case file == "":
		return "", withCode(exitUsage, errors.New("there is no terminal to ask for the password: give --password-file FILE, or --password-file - for the standard input"))
	case file == "-":
		line, err := bufio.NewReader(io.LimitReader(p.stdin, 1<<16)).ReadString('\n')
		if err != nil && err != io.EOF {
			return "", err
		}
		text = line
	default:
		b, err := os.ReadFile(file)
		if err != nil {
			return "", withCode(exitUsage, err)
		}
		text = string(b)
	}
	if text = strings.TrimRight(text, "\r\n"); text == "" {
		return "", withCode(exitUsage, errors.New("the password is empty: accounts without one are not for replication"))
	}
	return text, nil
}

// splitAccount reads NAME or NAME@HOST.
func splitAccount(s string) (user, host string) {
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		return s[:at], strings.ToLower(s[at+1:])
	}
	return s, "%"
}

func userPath(user, host string) string {
	return usersPath + "/" + url.PathEscape(user) + "/" + url.PathEscape(host)
}

// userSubcommand makes a command that changes one account.
func userSubcommand(p process, cmd *cobra.Command, did string, run func(ctx context.Context, c *client, user, host string) error) *cobra.Command {
	cmd.Args = cobra.ExactArgs(1)
	ask := askFlags(cmd, p)
	completeFirst(cmd, ask, accountNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := ask()
		if err != nil {
			return err
		}
		user, host := splitAccount(args[0])
		if host == "" {
			return withCode(exitUsage, fmt.Errorf("%q has no host behind the @; leave the @ out, or say %% for any", args[0]))
		}
		if err := run(cmd.Context(), c, user, host); err != nil {
			return withCode(exitFailed, err)
		}
		_, err = fmt.Fprintf(p.stdout, "account %s@%s %s\n", printable(user), printable(host), did)
		return withCode(exitFailed, err)
	}
	return cmd
}

func userAddCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use: "add NAME[@HOST]", Short: "Add an account; HOST is a pattern like 10.0.% or 10.0.0.0/16, any if not given",
		Example: `  kingbus user add repl
  kingbus user add repl@10.0.% --require-tls --password-file /root/repl.pw
  kingbus user add old --native --password-file -   # for MariaDB, and MySQL before 5.7.23`,
	}
	f := newAccountFlags(cmd)
	return userSubcommand(p, cmd, "added", func(ctx context.Context, c *client, user, host string) error {
		change, err := f.change(cmd, p, true)
		if err != nil {
			return err
		}
		change.User, change.Host = user, host
		return c.change(ctx, http.MethodPost, usersPath, change)
	})
}

func userAlterCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use: "alter NAME[@HOST]", Short: "Change an account: what is given; --password-file \"\" asks for a new password",
		Example: `  kingbus user alter repl --password-file ""
  kingbus user alter repl --locked`,
	}
	f := newAccountFlags(cmd)
	return userSubcommand(p, cmd, "changed", func(ctx context.Context, c *client, user, host string) error {
		change, err := f.change(cmd, p, false)
		if err != nil {
			return err
		}
		return c.change(ctx, http.MethodPatch, userPath(user, host), change)
	})
}

func userDropCommand(p process) *cobra.Command {
	return userSubcommand(p, &cobra.Command{Use: "drop NAME[@HOST]", Short: "Drop an account; who is logged in with it stays until it leaves", Example: "  kingbus user drop repl@10.0.%"}, "dropped",
		func(ctx context.Context, c *client, user, host string) error {
			return c.change(ctx, http.MethodDelete, userPath(user, host), nil)
		})
}
