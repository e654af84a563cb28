package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"kingbus/internal/gtid"
	"kingbus/internal/mysqltest"
)

// writeEvery is the pause between two small transactions: about 200 a second.
const writeEvery = 5 * time.Millisecond

const writerSchema = "CREATE DATABASE IF NOT EXISTS steady; CREATE TABLE IF NOT EXISTS steady.t (id BIGINT AUTO_INCREMENT PRIMARY KEY, a INT)"

// writer commits small transactions at a steady pace, one after the other. Nobody else may write to the source
// meanwhile: the n-th transaction that it begins is then the n-th that the source has more than before.
type writer struct {
	before uint64        // transactions that the source had
	begun  atomic.Uint64 // by the writer
	cancel context.CancelFunc
	done   chan error
	began  time.Time
}

// newWriter starts to write. The caller has to stop it.
func newWriter(ctx context.Context, inst *mysqltest.Instance) (*writer, error) {
	if err := inst.Exec(ctx, writerSchema); err != nil {
		return nil, err
	}
	before, err := executed(ctx, inst)
	if err != nil {
		return nil, err
	}
	session, err := inst.Session(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &writer{before: before, cancel: cancel, done: make(chan error, 1), began: time.Now()}
	go func() {
		err := w.run(ctx, session)
		w.done <- errors.Join(err, session.Close())
	}()
	return w, nil
}

func (w *writer) run(ctx context.Context, session *mysqltest.Session) error {
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		w.begun.Add(1)
		// A statement that has begun is waited for: the client is of use only then.
		if err := session.Exec(context.WithoutCancel(ctx), "INSERT INTO steady.t (a) VALUES (1)"); err != nil {
			return fmt.Errorf("the steady writer: %w", err)
		}
	}
}

// mark returns how many transactions the source has when all that were begun until now are committed. Who has more
// than that has one that was written later.
func (w *writer) mark() uint64 { return w.before + w.begun.Load() }

// rate is how many transactions it wrote in a second.
func (w *writer) rate() float64 { return float64(w.begun.Load()) / time.Since(w.began).Seconds() }

func (w *writer) stop() error {
	w.cancel()
	return <-w.done
}

// executed is how many transactions a server has.
func executed(ctx context.Context, inst *mysqltest.Instance) (uint64, error) {
	text, err := inst.GTIDExecuted(ctx)
	if err != nil {
		return 0, err
	}
	set, err := gtid.ParseSet(strings.ReplaceAll(text, "\n", ""))
	if err != nil {
		return 0, fmt.Errorf("gtid_executed of the source: %w", err)
	}
	return set.Count(), nil
}
