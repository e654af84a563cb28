package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kingbus/internal/admin"
	"kingbus/internal/follow"
)

func sourceCommand(p process) *cobra.Command {
	return group(&cobra.Command{
		Use:   "source",
		Short: "Say which source the cluster follows, start and stop that",
		Long: `Say which MySQL server the cluster follows, and start and stop following it. What is
said here holds for all nodes, on top of the settings of each, and is kept in the
log of the cluster, the password as it is.

The statements CHANGE REPLICATION SOURCE TO, START REPLICA, STOP REPLICA and RESET
REPLICA ALL do the same, for who has the privilege SUPER.`,
		Example: `  kingbus source stop
  kingbus source change --host db2 --port 3306 --user repl --password-file /root/repl.pw --ssl
  kingbus source start
  kingbus source show`,
	}, sourceShowCommand(p), sourceChangeCommand(p), sourceStartCommand(p), sourceStopCommand(p), sourceResetCommand(p))
}

// sourcePath is where the API has the source.
const sourcePath = "/api/v1/source"

func sourceShowCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show", Short: "Show what the cluster says of its source, and how this node follows it", Args: cobra.NoArgs,
		Example: "  kingbus source show\n  kingbus source show --json",
	}
	return listing(p, cmd, sourcePath, func(ctx context.Context, c *client, f admin.Followed) error {
		st, err := c.status(ctx) // for the clock of the node, and who leads
		if err != nil {
			return err
		}
		st.Source = f.Link
		return printTrimmed(p.stdout, func(out io.Writer) error {
			w := tabwriter.NewWriter(out, 15, 8, 2, ' ', 0)
			row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
			printSource(row, st)
			row("", "")
			row("said", "%s", saidText(f))
			return w.Flush()
		})
	})
}

// saidText tells what was said of the source.
func saidText(f admin.Followed) string {
	var out string
	add := func(name, value string) { out += ", " + name + " " + printable(value) }
	for _, t := range []struct {
		name string
		text *string
	}{{"host", f.Said.Host}, {"user", f.Said.User}, {"ssl-ca", f.Said.SSLCA}, {"ssl-cert", f.Said.SSLCert}, {"ssl-key", f.Said.SSLKey}, {"start", f.Said.Start}} {
		if t.text != nil {
			add(t.name, *t.text)
		}
	}
	if f.Said.Port != nil {
		add("port", fmt.Sprint(*f.Said.Port))
	}
	if f.Said.HeartbeatSeconds != nil {
		add("heartbeat", fmt.Sprint(time.Duration(*f.Said.HeartbeatSeconds*float64(time.Second))))
	}
	for _, t := range []struct {
		name string
		flag *bool
	}{{"ssl", f.Said.SSL}, {"ssl-verify", f.Said.SSLVerify}, {"get-public-key", f.Said.GetPublicKey}} {
		if t.flag != nil {
			add(t.name, fmt.Sprint(*t.flag))
		}
	}
	if f.HasPassword {
		out += ", a password"
	}
	if out == "" {
		return "nothing: it is as in the settings of each node"
	}
	return out[2:] + "; the rest is as in the settings of each node"
}

func sourceChangeCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "change",
		Short: "Say another source, or other things of it",
		Long: `Say another source, or other things of it; what is left out stays as it is. The
source must not be followed meanwhile: kingbus source stop comes before it, and
kingbus source start after it.

A source that is another server (another server uuid) is refused once there is a
binlog: what is stored goes on where it ends.`,
		Example: `  kingbus source change --host db2 --port 3306 --user repl --password-file /root/repl.pw --ssl
  kingbus source change --password-file ""   # asks for it`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	text := map[string]*string{}
	for _, f := range [][2]string{
		{"host", "name or address of the server"},
		{"user", "its account for replication"},
		{"ssl-ca", "file, on each node, with the certificates (PEM) of the authorities that may sign the source's"},
		{"ssl-cert", "file, on each node, with the certificate (PEM) to show to the source"},
		{"ssl-key", "file, on each node, with the key (PEM) of that certificate"},
		{"start", "where an empty binlog begins: oldest, current, the name of a binlog file, or gtid:SET (behind these transactions)"},
	} {
		text[f[0]] = flags.String(f[0], "", f[1])
	}
	password := flags.String("password-file", "", "file with the password of that account, \"-\" is the standard input, \"\" asks for it")
	port := flags.Uint16("port", 0, "port of the server; if a host is given for the first time and no port, 3306")
	heartbeat := flags.Duration("heartbeat", 0, "how long the source may be silent before it has to send a heartbeat")
	ssl := flags.Bool("ssl", false, "demand TLS; --ssl=false forbids it")
	verify := flags.Bool("ssl-verify", false, "demand that the certificate was issued for the host")
	publicKey := flags.Bool("get-public-key", false, "where there is no TLS, take the RSA key for the password from the source itself")
	ask := askFlags(cmd, p)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var ch follow.Change
		given := false
		set := func(name string, take func()) {
			if flags.Changed(name) {
				given = true
				take()
			}
		}
		for name, to := range map[string]**string{"host": &ch.Host, "user": &ch.User, "ssl-ca": &ch.SSLCA, "ssl-cert": &ch.SSLCert, "ssl-key": &ch.SSLKey, "start": &ch.Start} {
			set(name, func() { *to = text[name] })
		}
		set("port", func() { ch.Port = port })
		set("heartbeat", func() { seconds := heartbeat.Seconds(); ch.HeartbeatSeconds = &seconds })
		set("ssl", func() { ch.SSL = ssl })
		set("ssl-verify", func() { ch.SSLVerify = verify })
		set("get-public-key", func() { ch.GetPublicKey = publicKey })
		var err error
		set("password-file", func() {
			var secret string
			secret, err = readSecret(p, *password)
			ch.Password = &secret
		})
		if err == nil && !given {
			err = withCode(exitUsage, errors.New("nothing is said of the source; see `kingbus source change --help`"))
		}
		if err != nil {
			return withCode(exitFailed, err)
		}
		c, err := ask()
		if err != nil {
			return err
		}
		if err := c.change(cmd.Context(), http.MethodPatch, sourcePath, ch); err != nil {
			return withCode(exitFailed, err)
		}
		_, err = fmt.Fprintln(p.stdout, "the source is what you said, on all nodes; `kingbus source start` follows it")
		return withCode(exitFailed, err)
	}
	return cmd
}

func sourceStartCommand(p process) *cobra.Command {
	var until string
	cmd := sourceSubcommand(p, &cobra.Command{
		Use: "start", Short: "Follow the source; `kingbus source show` tells how it goes",
		Example: "  kingbus source start\n  kingbus source start --until after:3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5000",
	}, http.MethodPost, "/start", func() any { return admin.StartSource{Until: until} }, "the leader follows the source from now on; `kingbus source show` tells how it goes")
	cmd.Flags().StringVar(&until, "until", "", "stop there, on all nodes: after:SET or before:SET of GTIDs, or FILE:POSITION of the source")
	return cmd
}

func sourceStopCommand(p process) *cobra.Command {
	return sourceSubcommand(p, &cobra.Command{
		Use: "stop", Short: "Stop following the source, on all nodes, until `kingbus source start`", Example: "  kingbus source stop",
		Long: `Stop following the source, on all nodes and after restarts too, until ` + "`kingbus source\nstart`" + `. Replicas are served meanwhile. With semi-synchronous replication the source
waits for its timeout then.`,
	}, http.MethodPost, "/stop", nothing, "nobody follows the source any more, until `kingbus source start`")
}

func sourceResetCommand(p process) *cobra.Command {
	return sourceSubcommand(p, &cobra.Command{
		Use: "reset", Short: "Forget what was said of the source; the settings of each node say it then", Example: "  kingbus source stop\n  kingbus source reset",
		Long: `Forget what was said of the source: from then on the settings of each node say whom
to follow, after ` + "`kingbus source start`" + `. The binlog stays.`,
	}, http.MethodDelete, "", nothing, "what was said of the source is forgotten; `kingbus source start` follows the one of the nodes' settings")
}

// nothing is the body of a request that has none.
func nothing() any { return nil }

// sourceSubcommand makes a command that asks for one thing.
func sourceSubcommand(p process, cmd *cobra.Command, method, path string, body func() any, done string) *cobra.Command {
	cmd.Args = cobra.NoArgs
	ask := askFlags(cmd, p)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := ask()
		if err != nil {
			return err
		}
		if err = c.change(cmd.Context(), method, sourcePath+path, body()); err == nil {
			_, err = fmt.Fprintln(p.stdout, done)
		}
		return withCode(exitFailed, err)
	}
	return cmd
}
