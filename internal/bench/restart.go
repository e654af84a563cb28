package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
	"kingbus/internal/stream"
)

// restart measures how soon a node with a large log serves. The log is that of a kingbus which pulled the set, and which
// the set was then fed to again and again, as further files with further GTIDs.
func (b *bench) restart(ctx context.Context, src *origin) error {
	b.say("\n%s with %g GB", phaseRestart, b.cfg.RestartGB)
	k, _, err := b.ingestKingbus(ctx, src, "prepare")
	if err != nil {
		return err
	}
	err = k.stop(true)
	var st stream.Status
	if err == nil {
		st, err = b.grow(ctx, k.dir, src, b.cfg.RestartGB)
	}
	if err == nil {
		err = b.restarts(ctx, k, st.Executed)
	}
	return errors.Join(err, k.discard())
}

func (b *bench) restarts(ctx context.Context, k *kingbus, executed gtid.Set) error {
	b.memory.enter(phaseRestart)
	have, err := withoutLast(executed.String(), behind)
	if err != nil {
		return err
	}
	for _, kind := range []struct {
		what        string
		clean, cold bool
	}{
		{"after a clean stop", true, false},
		{"after kill -9", false, false},
		{"after kill -9, page cache dropped", false, true},
	} {
		var login, first, ready series
		for range b.cfg.Runs {
			if kind.cold {
				if err := dropCache(k.dir); err != nil {
					return fmt.Errorf("drop the page cache: %w", err)
				}
			}
			if err := k.start(nil); err != nil {
				return err
			}
			l, f, r, err := b.awaitServing(ctx, k, have)
			if err = errors.Join(err, k.stop(kind.clean)); err != nil {
				return err
			}
			login.add(l)
			first.add(f)
			ready.add(r)
		}
		b.say("  %-34s login after %.0f ms, first event after %.0f ms, ready after %.0f ms", kind.what, login.median(), first.median(), ready.median())
		set := fmt.Sprintf("%g GB", b.cfg.RestartGB)
		b.report.limit(phaseRestart, set, kind.what+": first event", "ms", first, nil, 1000)
		b.report.limit(phaseRestart, set, kind.what+": /readyz is 200", "ms", ready, nil, 1000)
	}
	return nil
}

// awaitServing returns after how many ms, from the start of the process, a reader was logged in, had its first
// transaction, and the node said that it is ready.
func (b *bench) awaitServing(ctx context.Context, k *kingbus, have gtid.Set) (login, first, ready float64, err error) {
	since := func() float64 { return float64(time.Since(k.spawned)) / 1e6 }
	for {
		r, err := b.openReader(ctx, k.mysql)
		if err == nil {
			login = since()
			_, err = r.firstEvent(have)
			first = since()
			_ = r.client.Close() // in the middle of a dump
		}
		if err == nil {
			break
		}
		select {
		case <-k.proc.done:
			return 0, 0, 0, fmt.Errorf("kingbus ended: %w; its log says:\n%s", k.proc.err, k.logTail())
		case <-ctx.Done():
			return 0, 0, 0, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
		if time.Since(k.spawned) > startWait {
			return 0, 0, 0, fmt.Errorf("kingbus does not serve: %w; its log says:\n%s", err, k.logTail())
		}
	}
	err = k.awaitReady(ctx)
	return login, first, since(), err
}

// grow feeds the set's largest file to the stream in dir, once at least and until the log has about so many GB, and
// returns what the stream is then.
func (b *bench) grow(ctx context.Context, dir string, src *origin, gb float64) (st stream.Status, err error) {
	began := time.Now()
	s, err := stream.Open(stream.Config{Dir: dir})
	if err != nil {
		return st, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, err = s.Lead(ctx); err != nil {
		return st, err
	}
	st = s.Status()
	link, err := s.StartLink(ctx, st.Source)
	if err != nil {
		return st, err
	}
	file := src.files[0] // the one with all transactions
	events, err := os.ReadFile(filepath.Join(src.dir, file))
	if err != nil {
		return st, err
	}
	f, err := newFeeder(link, st.Executed)
	if err != nil {
		return st, err
	}
	name := st.End.File
	half := float64(len(events)) / 2 // whole files only: as near as can be
	for fed := false; !fed || float64(s.Status().Node.Bytes)+half < gb*1e9; fed = true {
		if name, err = binlog.NextName(name); err != nil {
			return st, err
		}
		if err = f.file(ctx, name, events[binlog.MagicSize:]); err != nil {
			return st, fmt.Errorf("feed %s: %w", name, err)
		}
	}
	for {
		at, changed := link.Applied()
		if at.File == name && at.Pos == f.pos {
			break
		}
		select {
		case <-changed:
		case <-link.Lost():
			return st, link.Err()
		case <-ctx.Done():
			return st, ctx.Err()
		}
	}
	st = s.Status()
	b.say("  %.2f GB of log, %d files, %d transactions, made in %v", float64(st.Node.Bytes)/1e9, len(st.Files), st.Transactions, time.Since(began).Round(time.Second))
	return st, nil
}
