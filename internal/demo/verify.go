package demo

import (
	"context"
	"fmt"
	"os/exec"
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

// verify waits until nodes and replicas have all that the source has, compares source and replicas table by table, and
// the logs of the nodes. Nobody may write meanwhile. The error wraps ErrNotEqual if something is missing or different.
func (d *demo) verify(ctx context.Context) (verdict, error) {
	if err := d.awaitArrival(ctx); err != nil {
		return verdict{}, err
	}
	s := d.watch.now()
	for i, r := range s.replicas {
		name := d.replicas[i].Name
		if extra := r.set.Subtract(s.source.set); !extra.IsEmpty() {
			return verdict{}, fmt.Errorf("%w: %s has transactions of its own: %s", ErrNotEqual, name, extra)
		}
		d.view.progress("comparing source and " + name + ", table by table")
		difference, err := mysqltest.CompareTables(ctx, d.source, d.replicas[i])
		if err != nil {
			return verdict{}, err
		}
		if difference != "" {
			return verdict{}, fmt.Errorf("%w: %s:\n%s", ErrNotEqual, name, indent(difference))
		}
	}
	if len(d.nodes) > 1 {
		d.view.progress("comparing the logs of the nodes")
		cmd := exec.CommandContext(ctx, d.cfg.Kingbus, "verify", "--admin-listen", d.nodes[0].admin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return verdict{}, fmt.Errorf("%w: kingbus verify: %w:\n%s", ErrNotEqual, err, indent(string(out)))
		}
	}
	return count(ctx, d.source)
}

// awaitArrival waits until nodes and replicas have everything, as long as something arrives.
func (d *demo) awaitArrival(ctx context.Context) error {
	var deadline time.Time
	var arrived uint64
	tick := time.NewTicker(redraw / 5)
	defer tick.Stop()
	for {
		if err := d.watch.sample(ctx); err != nil {
			return err
		}
		missing := d.watch.missing(d)
		if missing == "" {
			return nil
		}
		s := d.watch.now()
		n := uint64(0)
		for _, node := range s.nodes {
			n += node.set.Count()
		}
		for _, r := range s.replicas {
			n += r.set.Count()
		}
		if n != arrived || deadline.IsZero() {
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
func (w *watcher) missing(d *demo) string {
	s := w.now()
	var parts []string
	for i, n := range s.nodes {
		name := d.nodes[i].name
		if n.err != nil {
			parts = append(parts, fmt.Sprintf("%s does not answer (%v)", name, n.err))
		} else if lacks := s.source.set.Subtract(n.set); !lacks.IsEmpty() || n.at != s.source.at {
			parts = append(parts, fmt.Sprintf("%s lacks %s: it ends at %s, the source at %s; its link is %q %s",
				name, transactions(lacks.Count()), n.at, s.source.at, n.status.Source.State, n.status.Source.Error))
		}
	}
	for i, r := range s.replicas {
		if lacks := s.source.set.Subtract(r.set); !lacks.IsEmpty() {
			parts = append(parts, fmt.Sprintf("%s lacks %s (%s) %s", d.replicaName(i), transactions(lacks.Count()), shortSet(lacks), r.error))
		}
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
