package demo

import (
	"context"
	"fmt"
	"net"
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
	name    string
	process process
	memory  int64
	status  admin.Status
	heard   int   // which of its starts it was that answered last
	err     error // why it did not answer; status and place are what it said last
}

func (n *nodeSample) answers() bool { return n.process.alive && n.err == nil }

// replicaSample is what a replica says of itself.
type replicaSample struct {
	place
	name      string
	node      string // name of the node that it is on, or tries
	connected bool
	error     string // why it applies nothing or does not try to connect any more
}

// leader returns which node leads, -1: none that answers. One that was frozen may believe that it still does.
func (s *sample) leader() int {
	leader, term := -1, uint64(0)
	for i := range s.nodes {
		if n := &s.nodes[i]; n.answers() && n.status.Node.Leader && n.status.Node.Term >= term {
			leader, term = i, n.status.Node.Term
		}
	}
	return leader
}

// committed returns the last entry of the log that any node knows to be committed.
func (s *sample) committed() (last uint64) {
	for i := range s.nodes {
		last = max(last, s.nodes[i].status.Node.Committed)
	}
	return last
}

// nodeLag returns how much a node lacks, or did when it was last heard: log entries that are committed, and for a node
// alone, transactions.
func (s *sample) nodeLag(i int) uint64 {
	if len(s.nodes) == 1 {
		return s.source.set.Subtract(s.nodes[i].set).Count()
	}
	committed := s.committed()
	return committed - min(committed, s.nodes[i].status.Node.LastIndex)
}

// replicaLag returns how many transactions a replica lacks.
func (s *sample) replicaLag(i int) uint64 { return s.source.set.Subtract(s.replicas[i].set).Count() }

// replicaSession is a session at a replica, with the replica's name.
type replicaSession struct {
	*mysqltest.Session
	name string
}

// watcher asks source, nodes and replicas how far they are. It is used by one goroutine, lag by any.
type watcher struct {
	source   *mysqltest.Session
	replicas []replicaSession
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
		w.replicas = append(w.replicas, replicaSession{s, inst.Name})
	}
	return w, nil
}

func (w *watcher) close() {
	_ = w.source.Close() // only ends a client program
	for _, r := range w.replicas {
		_ = r.Close()
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
			n.name = w.nodes[i].name
			n.process = w.nodes[i].process() // before it is asked: what answers is this one or a later one
			n.memory = w.nodes[i].memory()
			var st admin.Status
			if st, n.err = w.nodes[i].status(ctx); n.err == nil {
				n.status, n.heard = st, n.process.starts
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
		w.memory = max(w.memory, nodes[i].memory)
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
	for i := range replicas {
		w.lagMost = max(w.lagMost, s.replicaLag(i))
	}
	return nil
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
	colSourceFile   = 9  // Relay_Source_Log_File: up to where transactions have been applied
	colIORunning    = 10 // "Yes", "Connecting" or "No"
	colExecPos      = 21
	colIOError      = 35
	colSQLError     = 37
	colExecutedGTID = 52
	colCount        = 53
)

func (w *watcher) askReplica(ctx context.Context, session replicaSession) (r replicaSample, err error) {
	r.name = session.name
	rows, err := session.Query(ctx, "SHOW REPLICA STATUS")
	if err != nil {
		return r, err
	}
	if len(rows) != 1 || len(rows[0]) < colCount {
		return r, fmt.Errorf("replica: SHOW REPLICA STATUS: rows %q", rows)
	}
	row := rows[0]
	r.connected = row[colIORunning] == "Yes"
	r.error = row[colSQLError]
	if r.error == "" && row[colIORunning] == "No" {
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
