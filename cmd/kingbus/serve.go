package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"kingbus/internal/cluster"
	"kingbus/internal/config"
	"kingbus/internal/stream"
)

func serveCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a node: pull the binlog from the source, keep it, and serve it",
		Long: `Run a node: pull the binlog from the source, keep it, and serve it to replicas.

Every setting is a flag, an environment variable and a key of the YAML file
named with --config; a flag wins over the environment, that over the file.
Passwords come from files, or from KINGBUS_SOURCE_PASSWORD and
KINGBUS_REPLICA_PASSWORD.

SIGTERM or SIGINT stops it cleanly: leadership goes to another node, replicas
are told to come back, everything acknowledged is on disk. A second signal stops
it at once, which loses nothing either.

A cluster of three is begun by starting, on each of three machines, a node with
an empty data folder and

  --node-name n1 --peer-listen 10.0.0.1:8407 \
  --initial-cluster n1=10.0.0.1:8407,n2=10.0.0.2:8407,n3=10.0.0.3:8407

and each with its own name and address. A node that comes to it later is started
with --join instead of --initial-cluster, and then added with ` + "`kingbus node add`" + `.

` + exitCodes,
		Example: `  kingbus serve --data-dir /var/lib/kingbus --mysql-listen 0.0.0.0:3307 \
    --source mysql://repl@db1:3306 --source-password-file /etc/kingbus/source.pw
  kingbus serve --config /etc/kingbus/kingbus.yaml`,
		Args: cobra.NoArgs,
	}
	load := settingFlags(cmd, p)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		// The second signal finds the default behaviour, which is to die.
		defer context.AfterFunc(ctx, stop)()
		cfg, err := load()
		if err != nil {
			return err
		}
		warnings, err := cfg.CheckServe()
		if err != nil {
			return withCode(exitUsage, err)
		}
		log := newLog(p.stderr, cfg)
		for _, w := range warnings {
			log.Warn(w)
		}
		if err = serve(ctx, cfg, log); err != nil && cfg.LogFormat == "json" {
			log.Error("kingbus ends", "error", err) // who reads the log as JSON wants nothing else in it
			err = errors.Join(err, errLogged)
		}
		return err
	}
	return cmd
}

// newLog makes the log of a node: every line names it. What else lines carry is in the
// README.
func newLog(w io.Writer, cfg *config.Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		// Durations as text, as in the other format, not as nanoseconds.
		options.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
			if a.Value.Kind() == slog.KindDuration {
				a.Value = slog.StringValue(a.Value.Duration().String())
			}
			return a
		}
		return slog.New(slog.NewJSONHandler(w, options)).With("node", cfg.Peers.Name)
	}
	return slog.New(slog.NewTextHandler(w, options)).With("node", cfg.Peers.Name)
}

// serve runs a node until ctx ends or something fails.
func serve(ctx context.Context, cfg *config.Config, log *slog.Logger) error {
	if os.Getenv("GOGC") == "" {
		// What lives on the heap is bounded and small (some 40 MB); collecting half
		// as often costs that much memory once more, and saves a few percent of CPU.
		debug.SetGCPercent(200)
	}
	started := time.Now()
	log.Info("kingbus starts", "version", versionText(), "data_dir", cfg.DataDir)
	n, err := newNode(cfg, log)
	if err != nil {
		if refused(err) {
			err = withCode(exitRefused, err)
		}
		return err
	}
	if err = n.start(ctx); err == nil && ctx.Err() == nil {
		log.Info("ready", "mysql", n.mysql.Addr().String(), "admin", n.adminURL(), "source", orNone(cfg.Source.Addr()),
			"peers", orNone(cfg.Peers.Advertise), "end", endText(n.stream.Status().End), "after", time.Since(started).Round(time.Millisecond))
		select {
		case <-ctx.Done():
		case <-n.stream.Failed():
			err = storeFailure(n.stream.Err())
		case err = <-n.broken:
			err = withCode(exitFailed, err)
			if failed := n.stream.Err(); failed != nil { // which is why something broke
				err = storeFailure(failed)
			}
		}
	}
	if err == nil {
		log.Info("stopping; a second signal stops at once", "timeout", cfg.ShutdownTimeout)
	}
	return errors.Join(err, n.stop(err != nil))
}

// refused tells whether the cluster does not take this node.
func refused(err error) bool {
	return errors.Is(err, cluster.ErrRemoved) || errors.Is(err, cluster.ErrStale) || errors.Is(err, cluster.ErrFormat)
}

// storeFailure explains why the store cannot go on.
func storeFailure(err error) error {
	if refused(err) {
		return withCode(exitRefused, err)
	}
	return withCode(exitStore, fmt.Errorf("the store failed, and nobody can know what is on disk until it is opened again: %w", err))
}

func endText(at stream.Coordinates) string { return coordinates(at.File, at.Pos) }
