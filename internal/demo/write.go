package demo

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"kingbus/internal/mysqltest"
)

const (
	beatEvery = 100 * time.Millisecond // pause between two measurements of the lag
	pollEvery = 2 * time.Millisecond   // how exact a lag is
	ddlEvery  = 2 * time.Second
)

// startWriting starts the writers and the measuring of the lag. They end between two transactions with stopWriting.
func (d *demo) startWriting(ctx context.Context) error {
	until, stop := context.WithCancel(ctx)
	d.writing.stop = stop
	interval := time.Duration(d.cfg.Writers) * time.Second / time.Duration(d.cfg.Rate)
	for id := range d.cfg.Writers {
		w := newWriter(id + 1)
		if err := d.startWriter(ctx, until, interval, w.next); err != nil {
			return err
		}
	}
	n := -1
	err := d.startWriter(ctx, until, ddlEvery, func() string { n++; return ddl(n) })
	if err != nil {
		return err
	}
	return d.startBeats(ctx, until)
}

// stopWriting ends what startWriting started, and waits for it.
func (d *demo) stopWriting() {
	if d.writing.stop != nil {
		d.writing.stop()
	}
	d.writing.done.Wait()
}

// startWriter opens a connection on which a transaction is run every interval until the context until ends; ctx breaks
// one off.
func (d *demo) startWriter(ctx, until context.Context, interval time.Duration, next func() string) error {
	session, err := d.source.Session(ctx)
	if err != nil {
		return err
	}
	d.goWrite(func() error {
		defer session.Close()
		due := time.Now()
		for pause(until, time.Until(due)) {
			err := session.Exec(ctx, next())
			var refused *mysqltest.SQLError
			switch {
			case errors.As(err, &refused) && (refused.Code == 1213 || refused.Code == 1205): // deadlock, lock wait timeout
				err = session.Exec(ctx, "ROLLBACK")
			case ctx.Err() != nil:
				return nil
			}
			if err != nil {
				return fmt.Errorf("writing to the source: %w", err)
			}
			if due = due.Add(interval); time.Since(due) > time.Second {
				due = time.Now() // do not make up for a standstill
			}
		}
		return nil
	})
	return nil
}

// goWrite runs something that stopWriting waits for, and whose error ends the demo.
func (d *demo) goWrite(f func() error) {
	d.writing.done.Add(1)
	d.work.Go(func() error {
		defer d.writing.done.Done()
		return f()
	})
}

// pause waits; false: ctx ended.
func pause(ctx context.Context, wait time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// lag is how long a transaction takes from its commit at the source until it can be read at the replica.
type lag struct {
	mu    sync.Mutex
	sent  time.Time // of the beat that is on its way; zero if none is
	last  time.Duration
	worst time.Duration
}

// now returns the current lag and the worst. While a beat is on its way the lag is at least its age.
func (l *lag) now() (current, worst time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	current = l.last
	if !l.sent.IsZero() {
		current = max(current, time.Since(l.sent))
	}
	return current, max(l.worst, current)
}

func (l *lag) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = time.Now()
}

// end ends the measurement of a beat that has arrived, or for which nobody waits any more.
func (l *lag) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = time.Since(l.sent)
	l.worst = max(l.worst, l.last)
	l.sent = time.Time{}
}

// startBeats measures the lag again and again: it counts up in a row at the source, and asks for it at the replica until
// it is there.
func (d *demo) startBeats(ctx, until context.Context) error {
	source, err := d.source.Session(ctx)
	if err != nil {
		return err
	}
	replica, err := d.replicas[0].Session(ctx)
	if err != nil {
		return errors.Join(err, source.Close())
	}
	d.goWrite(func() error {
		defer source.Close()
		defer replica.Close()
		for beat := 1; pause(until, beatEvery); beat++ {
			err := source.Exec(ctx, fmt.Sprintf("UPDATE shop.heartbeat SET beat = %d, written = NOW(6)", beat))
			if err == nil {
				d.watch.lag.begin()
				err = awaitBeat(ctx, until, replica, beat)
				d.watch.lag.end()
			}
			if ctx.Err() != nil || until.Err() != nil {
				return nil
			}
			if err != nil {
				return fmt.Errorf("measuring the lag: %w", err)
			}
		}
		return nil
	})
	return nil
}

// awaitBeat returns once the replica has a beat, or when until ends.
func awaitBeat(ctx, until context.Context, replica *mysqltest.Session, beat int) error {
	for {
		rows, err := replica.Query(ctx, "SELECT beat FROM shop.heartbeat")
		var refused *mysqltest.SQLError
		if errors.As(err, &refused) && (refused.Code == 1146 || refused.Code == 1049) {
			rows, err = nil, nil // the table has not come yet
		}
		if err != nil {
			return err
		}
		if len(rows) == 1 {
			if seen, err := strconv.Atoi(rows[0][0]); err != nil || seen >= beat {
				return err
			}
		}
		if !pause(until, pollEvery) {
			return nil
		}
	}
}
