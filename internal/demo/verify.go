package demo

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"kingbus/internal/mysqltest"
)

// verdict is what a successful comparison looked at.
type verdict struct {
	tables int
	rows   uint64
}

// verify waits until kingbus and replica have all that the source has, and compares source and replica table by table.
// Nobody may write meanwhile. The error wraps ErrNotEqual if something is missing or different.
func (d *demo) verify(ctx context.Context) (verdict, error) {
	if err := d.awaitArrival(ctx); err != nil {
		return verdict{}, err
	}
	s := d.watch.now()
	if extra := s.replica.set.Subtract(s.source.set); !extra.IsEmpty() {
		return verdict{}, fmt.Errorf("%w: the replica has transactions of its own: %s", ErrNotEqual, extra)
	}
	d.view.progress("comparing source and replica, table by table")
	difference, err := mysqltest.CompareTables(ctx, d.source, d.replica)
	if err != nil {
		return verdict{}, err
	}
	if difference != "" {
		return verdict{}, fmt.Errorf("%w:\n%s", ErrNotEqual, indent(difference))
	}
	return count(ctx, d.source)
}

// awaitArrival waits until kingbus and replica have everything, as long as something arrives.
func (d *demo) awaitArrival(ctx context.Context) error {
	var deadline time.Time
	var arrived uint64
	tick := time.NewTicker(redraw / 5)
	defer tick.Stop()
	for {
		if err := d.watch.sample(ctx); err != nil {
			return err
		}
		missing := d.watch.missing()
		if missing == "" {
			return nil
		}
		s := d.watch.now()
		if n := s.kingbus.set.Count() + s.replica.set.Count(); n != arrived || deadline.IsZero() {
			arrived, deadline = n, time.Now().Add(catchUp)
		}
		d.draw("nobody writes any more; waiting until everything has arrived")
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: nothing has arrived for %v, and %s", ErrNotEqual, catchUp, missing)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.work.ctx.Done():
			return d.work.ctx.Err()
		case <-tick.C:
		}
	}
}

// missing says what has not arrived yet, "" if everything has.
func (w *watcher) missing() string {
	s := w.now()
	var parts []string
	if s.nodeErr != nil {
		parts = append(parts, fmt.Sprintf("kingbus does not answer (%v)", s.nodeErr))
	} else if lacks := s.source.set.Subtract(s.kingbus.set); !lacks.IsEmpty() || s.kingbus.at != s.source.at {
		parts = append(parts, fmt.Sprintf("kingbus lacks %s: it ends at %s, the source at %s; its link is %q %s",
			transactions(lacks.Count()), s.kingbus.at, s.source.at, s.node.Source.State, s.node.Source.Error))
	}
	if lacks := s.source.set.Subtract(s.replica.set); !lacks.IsEmpty() {
		parts = append(parts, fmt.Sprintf("the replica lacks %s (%s) %s", transactions(lacks.Count()), shortSet(lacks), s.replicaErr))
	}
	return strings.Join(parts, ", and ")
}

// count returns how much there was to compare.
func count(ctx context.Context, inst *mysqltest.Instance) (v verdict, err error) {
	tables, err := inst.Query(ctx, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'shop' AND table_type = 'BASE TABLE'")
	if err != nil {
		return v, err
	}
	var selects []string
	for _, row := range tables {
		selects = append(selects, "SELECT COUNT(*) FROM shop.`"+row[0]+"`")
	}
	rows, err := inst.Query(ctx, strings.Join(selects, "; "))
	if err != nil {
		return v, err
	}
	for _, row := range rows {
		n, err := strconv.ParseUint(row[0], 10, 64)
		if err != nil {
			return v, fmt.Errorf("count rows: %w", err)
		}
		v.tables++
		v.rows += n
	}
	return v, nil
}
