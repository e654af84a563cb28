package demo

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"kingbus/internal/mysqltest"
)

// exitDifferent is what kingbus verify returns if nodes differ or have damage.
const exitDifferent = 4

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
		if extra := r.set.Subtract(s.source.set); !extra.IsEmpty() {
			return verdict{}, fmt.Errorf("%w: %s has transactions of its own: %s", ErrNotEqual, r.name, extra)
		}
		d.view.progress("comparing source and " + r.name + ", table by table")
		difference, err := mysqltest.CompareTables(ctx, d.source, d.replicas[i])
		if err != nil {
			return verdict{}, err
		}
		if difference != "" {
			return verdict{}, fmt.Errorf("%w: %s:\n%s", ErrNotEqual, r.name, indent(difference))
		}
	}
	if len(d.nodes) > 1 {
		d.view.progress("comparing the logs of the nodes")
		if err := d.verifyNodes(ctx); err != nil {
			return verdict{}, err
		}
	}
	return count(ctx, d.source)
}

// verifyNodes has kingbus compare the logs of the nodes. One that has just come back may not have a connection to all
// others yet.
func (d *demo) verifyNodes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	for {
		out, err := exec.CommandContext(ctx, d.cfg.Kingbus, "verify", "--admin-listen", d.nodes[0].admin, "--data-dir", d.nodes[0].data).CombinedOutput()
		if err == nil {
			return nil
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == exitDifferent || !pause(ctx, redraw) {
			return fmt.Errorf("%w: kingbus verify: %w:\n%s", ErrNotEqual, err, indent(string(out)))
		}
	}
}

// awaitArrival waits until nodes and replicas have everything, as long as something arrives.
func (d *demo) awaitArrival(ctx context.Context) error {
	var deadline time.Time
	var arrived uint64
	for {
		if err := d.observe(ctx, "nobody writes any more; waiting until all has arrived"); err != nil {
			return err
		}
		missing := d.missing()
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
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: nothing has arrived for %v, and %s", ErrNotEqual, catchUp, missing)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.work.ctx.Done():
			return d.work.ctx.Err()
		case <-time.After(redraw / 5):
		}
	}
}

// missing says what has not arrived or come back yet, "" if everything has.
func (d *demo) missing() string {
	s := d.watch.now()
	var parts []string
	if open := d.chronicle.open(); open != "" {
		parts = append(parts, open)
	}
	for _, n := range s.nodes {
		if !n.answers() {
			parts = append(parts, fmt.Sprintf("%s does not answer (%v)", n.name, n.err))
		} else if lacks := s.source.set.Subtract(n.set); !lacks.IsEmpty() || n.at != s.source.at {
			parts = append(parts, fmt.Sprintf("%s lacks %s: it ends at %s, the source at %s; its link is %q %s",
				n.name, transactions(lacks.Count()), n.at, s.source.at, n.status.Source.State, n.status.Source.Error))
		}
	}
	for _, r := range s.replicas {
		if lacks := s.source.set.Subtract(r.set); !lacks.IsEmpty() {
			parts = append(parts, fmt.Sprintf("%s lacks %s (%s) %s", r.name, transactions(lacks.Count()), shortSet(lacks), r.error))
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
