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

SIGTERM or SIGINT stops it cleanly: replicas are told to come back, everything
acknowledged is on disk. A second signal stops it at once, which loses nothing
either.

` + exitCodes,
		Args: cobra.NoArgs,
	}
	load := settingFlags(cmd, p)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
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
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		// The second signal finds the default behaviour, which is to die.
		defer context.AfterFunc(ctx, stop)()
		if err = serve(ctx, cfg, log); err != nil && cfg.LogFormat == "json" {
			log.Error("kingbus ends", "error", err) // who reads the log as JSON wants nothing else in it
			err = errors.Join(err, errLogged)
		}
		return err
	}
	return cmd
}

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
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
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
		return err
	}
	if err = n.start(ctx); err == nil && ctx.Err() == nil {
		log.Info("ready", "mysql", n.mysql.Addr().String(), "admin", "http://"+n.web.Addr().String(), "source", orNone(cfg.Source.Addr()),
			"end", endText(n.stream.Status().End), "after", time.Since(started).Round(time.Millisecond))
		select {
		case <-ctx.Done():
		case <-n.stream.Failed():
			err = withCode(exitStore, fmt.Errorf("the store failed, and nobody can know what is on disk until it is opened again: %w", n.stream.Err()))
		case err = <-n.broken:
			err = withCode(exitFailed, err)
		}
	}
	if err == nil {
		log.Info("stopping; a second signal stops at once", "timeout", cfg.ShutdownTimeout)
	}
	return errors.Join(err, n.stop(err != nil))
}

func endText(at stream.Coordinates) string { return coordinates(at.File, at.Pos) }
