package demo

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"kingbus/internal/admin"
	"kingbus/internal/gtid"
	"kingbus/internal/mysqltest"
	"kingbus/internal/stream"
)

// rateSpan is over how long rates are averaged.
const rateSpan = 2 * time.Second

// place is how far the binlog has come somewhere.
type place struct {
	at    stream.Coordinates
	set   gtid.Set
	bytes uint64 // of binlog up to at, since the demo began
}

// sample is the state of one moment, more or less: all are asked at the same time.
type sample struct {
	when     time.Time
	source   place
	nodes    []nodeSample
	replicas []replicaSample
}

// nodeSample is what a node says of itself.
type nodeSample struct {
	place
	status admin.Status
	err    error // why it did not answer; the rest is what it said last
}

// replicaSample is what a replica says of itself.
type replicaSample struct {
	place
	node  string // name of the node that it is on
	error string
}

// leader returns which node leads, -1: none that answers.
func (s *sample) leader() int {
	return slices.IndexFunc(s.nodes, func(n nodeSample) bool { return n.err == nil && n.status.Node.Leader })
}

// watcher asks source, nodes and replicas how far they are. It is used by one goroutine, lag by any.
type watcher struct {
	source   *mysqltest.Session
	replicas []*mysqltest.Session
	nodes    []*kingbus
	sizes    map[string]uint64 // all binlog files that the source ever listed; coordinates in kingbus are the same

	first   sample
	history []sample // the last rateSpan, oldest first; the newest is the current one
	memory  int64    // the most that a node held
	lagMost uint64   // transactions
	lag     lag
}

func newWatcher(ctx context.Context, d *demo) (*watcher, error) {
	w := &watcher{nodes: d.nodes, sizes: map[string]uint64{}}
	var err error
	if w.source, err = d.source.Session(ctx); err != nil {
		return nil, err
	}
	for _, inst := range d.replicas {
		s, err := inst.Session(ctx)
		if err != nil {
			w.close()
			return nil, err
		}
		w.replicas = append(w.replicas, s)
	}
	return w, nil
}

func (w *watcher) close() {
	for _, s := range append([]*mysqltest.Session{w.source}, w.replicas...) {
		_ = s.Close() // only ends a client program
	}
}

// now returns the newest sample.
func (w *watcher) now() sample {
	if len(w.history) == 0 {
		return sample{}
	}
	return w.history[len(w.history)-1]
}

// sample asks all. Nodes may be away, the MySQL servers must not.
func (w *watcher) sample(ctx context.Context) error {
	s := w.now()
	nodes, replicas := make([]nodeSample, len(w.nodes)), make([]replicaSample, len(w.replicas))
	copy(nodes, s.nodes)
	s.nodes, s.replicas = nodes, replicas
	var g errgroup.Group
	g.Go(func() (err error) { s.source, err = w.askSource(ctx); return err })
	for i := range replicas {
		g.Go(func() (err error) { replicas[i], err = w.askReplica(ctx, w.replicas[i]); return err })
	}
	for i := range nodes {
		g.Go(func() error {
			n := &nodes[i]
			var st admin.Status
			if st, n.err = w.nodes[i].status(ctx); n.err == nil {
				n.status = st
				n.place = place{at: st.Stream.End, set: st.Stream.Executed}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.when = time.Now()
	places := []*place{&s.source}
	for i := range nodes {
		places = append(places, &nodes[i].place)
		w.memory = max(w.memory, w.nodes[i].memory())
	}
	for i := range replicas {
		places = append(places, &replicas[i].place)
	}
	for _, p := range places {
		p.bytes = w.bytesUpTo(p.at)
	}
	if w.first.when.IsZero() {
		w.first = s
	}
	w.history = append(w.history, s)
	for len(w.history) > 2 && s.when.Sub(w.history[1].when) >= rateSpan {
		w.history = w.history[1:]
	}
	w.lagMost = max(w.lagMost, s.lag())
	return nil
}

// lag returns how many transactions the replica lacks that is furthest behind.
func (s *sample) lag() (most uint64) {
	for _, r := range s.replicas {
		most = max(most, s.source.set.Subtract(r.set).Count())
	}
	return most
}

func (w *watcher) askSource(ctx context.Context) (place, error) {
	rows, err := w.source.Query(ctx, "SHOW BINARY LOGS")
	if err != nil {
		return place{}, err
	}
	for _, row := range rows { // Log_name, File_size, Encrypted
		if len(row) < 2 {
			return place{}, fmt.Errorf("source: SHOW BINARY LOGS: row %q", row)
		}
		if w.sizes[row[0]], err = strconv.ParseUint(row[1], 10, 64); err != nil {
			return place{}, fmt.Errorf("source: SHOW BINARY LOGS: %w", err)
		}
	}
	rows, err = w.source.Query(ctx, "SHOW BINARY LOG STATUS")
	if err != nil {
		return place{}, err
	}
	if len(rows) != 1 || len(rows[0]) < 5 { // File, Position, Binlog_Do_DB, Binlog_Ignore_DB, Executed_Gtid_Set
		return place{}, fmt.Errorf("source: SHOW BINARY LOG STATUS: rows %q", rows)
	}
	return parsePlace(rows[0][0], rows[0][1], rows[0][4])
}

// Columns of SHOW REPLICA STATUS; they have been the same since MySQL 5.6.
const (
	colHost         = 1
	colPort         = 3
	colSourceFile   = 9 // Relay_Source_Log_File: up to where transactions have been applied
	colExecPos      = 21
	colIOError      = 35
	colSQLError     = 37
	colExecutedGTID = 52
	colCount        = 53
)

func (w *watcher) askReplica(ctx context.Context, session *mysqltest.Session) (r replicaSample, err error) {
	rows, err := session.Query(ctx, "SHOW REPLICA STATUS")
	if err != nil {
		return r, err
	}
	if len(rows) != 1 || len(rows[0]) < colCount {
		return r, fmt.Errorf("replica: SHOW REPLICA STATUS: rows %q", rows)
	}
	row := rows[0]
	r.error = row[colSQLError]
	if r.error == "" {
		r.error = row[colIOError]
	}
	for _, k := range w.nodes {
		if k.mysql == net.JoinHostPort(row[colHost], row[colPort]) {
			r.node = k.name
		}
	}
	r.place, err = parsePlace(row[colSourceFile], row[colExecPos], row[colExecutedGTID])
	return r, err
}

func parsePlace(file, pos, set string) (p place, err error) {
	p.at.File = file
	if p.at.Pos, err = strconv.ParseUint(pos, 10, 64); err != nil {
		return p, fmt.Errorf("position: %w", err)
	}
	p.set, err = gtid.ParseSet(set)
	return p, err
}

// bytesUpTo returns how much binlog there is before coordinates.
func (w *watcher) bytesUpTo(at stream.Coordinates) uint64 {
	if at.File == "" {
		return 0
	}
	sum := at.Pos
	for name, size := range w.sizes {
		if name < at.File { // numbers have six digits for a million files
			sum += size
		}
	}
	return sum
}

// rate is what goes through per second.
type rate struct{ transactions, bytes float64 }

// between returns the rate between two samples, at one of the places.
func between(a, b sample, at func(*sample) *place) rate {
	span := b.when.Sub(a.when).Seconds()
	if span <= 0 {
		return rate{}
	}
	from, to := at(&a), at(&b)
	// While the first transactions come, or after a RESET by hand, there may be less than before.
	return rate{max(0, float64(to.set.Count())-float64(from.set.Count())) / span, max(0, float64(to.bytes)-float64(from.bytes)) / span}
}

func atSource(s *sample) *place { return &s.source }

func atNode(i int) func(*sample) *place { return func(s *sample) *place { return &s.nodes[i].place } }
func atReplica(i int) func(*sample) *place {
	return func(s *sample) *place { return &s.replicas[i].place }
}

// shortSet shortens the uuids of a set.
func shortSet(s gtid.Set) string {
	entries := strings.Split(strings.ReplaceAll(s.String(), "\n", ""), ",")
	for i, e := range entries {
		if uuid, rest, ok := strings.Cut(e, ":"); ok && len(uuid) > 8 {
			entries[i] = uuid[:8] + "…:" + rest
		}
	}
	return strings.Join(entries, ", ")
}
