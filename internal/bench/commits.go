package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
)

// commit is a transaction that a replica has received.
type commit struct {
	at   time.Time     // when the source wrote it to its binlog
	took time.Duration // from then until the replica had all of it
}

// commitWatch is a replica that notes how long each transaction took. Commits are timed in this way because nothing is
// asked for: a node sends a transaction as soon as it is committed, and never before, so the time is that of the link,
// of the commit and of the way out. It begins with the moment that the source itself writes into the transaction's GTID
// event; all of them are on one machine, with one clock.
type commitWatch struct {
	reader  *reader
	stop    func() bool // of what closes the connection with the context
	cancel  context.CancelFunc
	done    chan error
	timer   commitTimer
	commits []commit // owned by the goroutine until done has a value
}

// watchCommits has a replica pull from addr what is not in have. The caller has to end it.
func (b *bench) watchCommits(ctx context.Context, addr string, have gtid.Set) (*commitWatch, error) {
	r, err := b.openReader(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("a replica of %s: %w", addr, err)
	}
	if err := r.follow(have); err != nil {
		return nil, errors.Join(fmt.Errorf("a replica of %s: %w", addr, err), r.client.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &commitWatch{reader: r, cancel: cancel, done: make(chan error, 1)}
	w.stop = r.client.Conn().CloseOn(ctx)
	go func() {
		err := w.run()
		if ctx.Err() != nil {
			err = nil // it was ended
		}
		w.done <- err
	}()
	return w, nil
}

func (w *commitWatch) run() error {
	for {
		h, err := w.reader.head()
		if err != nil {
			return err
		}
		conn := w.reader.client.Conn()
		var ev []byte
		if h.Type == binlog.TypeGTID {
			if ev, err = conn.Peek(1 + int(h.Length)); err != nil {
				return err
			}
			ev = ev[1:]
		}
		c, ok, err := w.timer.event(h, ev, time.Now())
		if err != nil {
			return err
		}
		if ok {
			w.commits = append(w.commits, c)
		}
		if err := conn.DiscardPayload(); err != nil {
			return err
		}
	}
}

// end ends the replica and returns what it saw. It is called once.
func (w *commitWatch) end() ([]commit, error) {
	w.cancel()
	err := <-w.done
	w.stop()
	_ = w.reader.client.Close() // in the middle of a dump
	if err != nil {
		err = fmt.Errorf("the replica that times commits: %w", err)
	}
	return w.commits, err
}

// commitTimer puts events together to transactions.
type commitTimer struct {
	written time.Time // of the transaction that has begun; zero if none has
}

// event takes the next event, of a GTID the bytes too, and tells whether it ended a transaction.
func (t *commitTimer) event(h binlog.Header, gtidEvent []byte, now time.Time) (commit, bool, error) {
	switch h.Type {
	case binlog.TypeGTID:
		g, err := binlog.ParseGTID(gtidEvent, binlog.ChecksumCRC32)
		if err == nil && g.ImmediateCommitTime == 0 {
			err = errors.New("the source does not say when it committed")
		}
		if err != nil {
			return commit{}, false, err
		}
		t.written = time.UnixMicro(int64(g.ImmediateCommitTime))
	case binlog.TypeXID:
		if at := t.written; !at.IsZero() {
			t.written = time.Time{}
			return commit{at, now.Sub(at)}, true, nil
		}
	}
	return commit{}, false, nil
}

// span is a time in which something was done.
type span struct{ from, to time.Time }

// latencies returns in ms what the commits took that the source wrote in a span.
func latencies(all []commit, in span) series {
	var s series
	for _, c := range all {
		if !c.at.Before(in.from) && c.at.Before(in.to) {
			s.add(float64(c.took) / 1e6)
		}
	}
	return s
}
