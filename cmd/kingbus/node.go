package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"kingbus/internal/account"
	"kingbus/internal/admin"
	"kingbus/internal/config"
	"kingbus/internal/follow"
	"kingbus/internal/gtid"
	"kingbus/internal/hook"
	"kingbus/internal/keys"
	"kingbus/internal/meter"
	"kingbus/internal/peer"
	"kingbus/internal/semisync"
	"kingbus/internal/server"
	"kingbus/internal/source"
	"kingbus/internal/sql"
	"kingbus/internal/stream"
	"kingbus/internal/variable"
	"kingbus/internal/vfs"
	"kingbus/internal/wire"
)

// node is everything that one `kingbus serve` runs.
//
// Order of start, and why:
//
//  1. stream: takes the lock of the data folder and replays; without it there is
//     nothing to do. The socket for peers comes just before it, since it is the
//     stream's, which speaks with them as soon as it is open
//  2. sockets: both are bound before anything is said to replicas and the source,
//     so that an address in use is found before these hear of us
//  3. server: replicas are served from what is stored, whatever the source does
//  4. source: the link, which may take for ever to come up
//  5. admin: reports on all of the others
//
// The stop goes the other way round: leadership is given away first, while all of
// this still runs; nobody asks a node that is going away how it is; the source is
// left before the server, so that replicas can still get the last of what came in;
// the server tells replicas to come back (EOF); the stream closes last, with
// nobody left who uses it.
type node struct {
	cfg     *config.Config
	log     *slog.Logger
	started time.Time

	peerTLS  *tls.Config // among nodes; nil = in clear
	shown    []shown     // complete before the HTTP API is there
	verifier wire.Verifier

	stream *stream.Stream
	mysql  net.Listener
	web    net.Listener
	server *server.Server
	source atomic.Pointer[following] // nil until it is started
	semi   *semisync.Replica         // towards the source
	waits  *semisync.Source          // towards replicas
	// What the leader tells of its link to the source, and what this node tells as the leader.
	link, telling atomic.Pointer[heardLink]
	served        served
	users         *account.Store
	follow        *follow.Store
	values        atomic.Pointer[variable.Values] // of the variables, as they are in effect

	variables *variable.Store
	meter     *meter.Meter
	hooks     hook.Set
	admin     *admin.Server

	broken chan error // a part ended that should not
	stops  []stage    // in the order of start
}

// stage is how one part is stopped.
type stage struct {
	name string
	stop func(ctx context.Context) error
}

// newNode checks all that can be checked without touching anything.
func newNode(cfg *config.Config, log *slog.Logger) (*node, error) {
	n := &node{cfg: cfg, log: log, started: time.Now(), broken: make(chan error, 8)}
	n.meter = meter.New(meter.Config{Slow: cfg.SlowCommit, Log: log.With("part", "meter")})
	n.semi = semisync.NewReplica(cfg.Source.SemiSync, cfg.Source.Acknowledge, &n.served, log.With("part", "semi-sync"))
	n.semi.Observe(&n.hooks)
	n.meter.Observe(&n.hooks)
	var err error
	if _, err = source.ParseStart(cfg.Source.Start); err != nil {
		return nil, withCode(exitUsage, err)
	}
	if _, err = wire.LoadClientTLS(cfg.Source.TLSFiles); err != nil {
		return nil, withCode(exitUsage, fmt.Errorf("TLS towards the source: %w", err))
	}
	if cfg.Source.TLS == wire.TLSVerifyCA && cfg.Source.TLSFiles.CA == "" {
		return nil, withCode(exitUsage, errors.New("--source-tls=verify-ca needs --source-tls-ca FILE"))
	}
	for whom, files := range map[string]wire.TLSFiles{"replicas": cfg.TLS, "clients of the HTTP API": cfg.Admin.TLS} {
		if files.Cert == "" {
			continue
		}
		if _, err = wire.LoadServerTLS(files); err != nil {
			return nil, withCode(exitUsage, fmt.Errorf("TLS towards %s: %w", whom, err))
		}
	}
	if files := cfg.Peers.TLS; files.Cert != "" {
		n.peerTLS, err = n.reloadTLS(files, "other nodes", func() (*tls.Config, error) { return peer.LoadTLS(files.Cert, files.Key, files.CA) })
		if err != nil {
			return nil, withCode(exitUsage, err)
		}
		n.shown = append(n.shown, shown{"other nodes", n.peerTLS})
	}
	if cfg.Replica.User != "" {
		// The native form is for replicas before 5.7.23 and MariaDB, which know
		// nothing else. It stays in memory.
		if n.verifier, err = wire.NewVerifier([]byte(cfg.Replica.Password.Reveal()), wire.VerifierForms{Digest: true, Native: true}); err != nil {
			return nil, withCode(exitUsage, fmt.Errorf("password of the replica: %w", err))
		}
	}
	return n, nil
}

// start brings up the parts. What it began is undone by stop, also after an
// error.
func (n *node) start(ctx context.Context) error {
	var err error
	for _, step := range []func(context.Context) error{n.openStream, n.watchLeader, n.listen, n.startServer, n.startSource, n.startAdmin, n.watchCertificates, n.handOverFirst} {
		if err = step(ctx); err != nil {
			return withCode(exitFailed, err)
		}
		if ctx.Err() != nil {
			return nil // a signal: the caller sees it, and uses no part
		}
	}
	return nil
}

// served is the stream as the hooks see it, which are there before it is.
type served struct{ stream atomic.Pointer[stream.Stream] }

func (s *served) FileNumber(name string) (uint32, bool) {
	if st := s.stream.Load(); st != nil {
		return st.FileNumber(name)
	}
	return 0, false // a start replays: nobody waits for that
}

func (s *served) Executed() gtid.Set { return s.stream.Load().Executed() }

func (s *served) tellNow() {
	if st := s.stream.Load(); st != nil {
		st.TellNow()
	}
}

// ownValues are those of the node's settings.
func (n *node) ownValues() variable.Values {
	return variable.Values{
		Retention: stream.Retention{Bytes: n.cfg.Retain.Size, Age: n.cfg.Retain.Age, Force: n.cfg.Retain.Force},
		SemiSync:  n.cfg.Source.SemiSync, Acknowledge: n.cfg.Source.Acknowledge, Waits: n.cfg.Replica.SemiSync,
	}
}

// settled puts in effect what the settings of the cluster say.
func (n *node) settled(s stream.Settings) {
	v, err := variable.Effective(n.ownValues(), s)
	if err != nil {
		n.log.Error("a variable of the cluster cannot be understood by this node: does it run an older kingbus than the others?", "error", err)
	}
	n.values.Store(&v)
	n.waits.Configure(v.Waits, v.Acknowledge.Replicas > 0)
	n.semi.Configure(v.SemiSync, v.Acknowledge)
	for name, at := range n.waits.Have() { // others hear of it with the next report
		n.semi.Has(name, n.cfg.Peers.Name, at)
	}
	if st := n.served.stream.Load(); st != nil { // all that is there may have come with a snapshot
		n.waits.Begin(hook.Position(st.End()))
	}
}

func (n *node) openStream(ctx context.Context) error {
	peering, err := n.peering()
	if err != nil {
		return err
	}
	n.waits = semisync.NewSource(n.cfg.Replica.SemiSync, &n.served, n.log.With("part", "semi-sync"))
	n.waits.Tell(func(name string, at hook.Position) {
		n.semi.Has(name, n.cfg.Peers.Name, at)
		n.served.tellNow()
	})
	n.settled(stream.Settings{})
	n.waits.Observe(&n.hooks)
	n.stops = append(n.stops, stage{"semi-sync", func(context.Context) error {
		n.waits.Close()
		return nil
	}}, stage{"meter", func(context.Context) error {
		n.meter.Close()
		return nil
	}})
	s, err := stream.Open(stream.Config{
		Dir: n.cfg.DataDir, Log: n.log.With("part", "store"), Peering: peering, Interrupt: ctx.Done(),
		Retention:   func() stream.Retention { return n.values.Load().Retention },
		DiskReserve: n.cfg.DiskReserve, Hooks: n.hooks, Settled: n.settled, Flush: n.flushSource, Tell: n.tell, Told: n.told,
	})
	if errors.Is(err, vfs.ErrLocked) {
		return fmt.Errorf("another kingbus runs on the data folder %s: stop that one first, or give this one a folder of its own with --data-dir", n.cfg.DataDir)
	}
	if err != nil {
		return fmt.Errorf("open the data folder: %w", err)
	}
	n.stream = s
	n.served.stream.Store(s)
	n.variables = variable.NewStore(n.stream, n.ownValues())
	n.follow = follow.NewStore(s, n.cfg.Source.Host != "", func() bool { return len(s.Status().Files) > 0 })
	if n.users = n.accounts(); len(n.users.Table().All()) == 0 {
		n.log.Warn("there is no account, so no replica can log in", "next_step", "kingbus user add NAME, on any node")
	}
	n.waits.Begin(hook.Position(s.Status().End))
	n.stops = append(n.stops, stage{"stream", func(context.Context) error {
		if err := s.Close(); err != nil && s.Err() == nil { // a failure was told already
			return err
		}
		return nil
	}})
	if n.cfg.Peers.Listen != "" {
		return nil
	}
	if members := len(s.Cluster().Members()); members > 1 {
		return fmt.Errorf("the data folder %s belongs to a cluster of %d nodes, which cannot reach this one: give --peer-listen HOST:PORT", n.cfg.DataDir, members)
	}
	if s.Status().Node.ClusterID == 0 {
		return fmt.Errorf("the data folder %s waits for a cluster to take it in, but none can reach it: give --peer-listen HOST:PORT, or use an empty folder", n.cfg.DataDir)
	}
	return nil
}

func (n *node) listen(context.Context) (err error) {
	if n.mysql, err = listen("mysql-listen", n.cfg.MySQLListen); err != nil {
		return err
	}
	n.stops = append(n.stops, stage{"listeners", func(context.Context) error {
		_ = n.mysql.Close() // the servers have closed them, if they ran
		if n.web != nil {
			_ = n.web.Close()
		}
		return nil
	}})
	n.web, err = listen("admin-listen", n.cfg.Admin.Listen)
	return err
}

func listen(key, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("--%s %s: another program listens there already: stop it (`ss -ltnp` shows which it is), or choose another address", key, address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("--%s %s: this machine does not have that address", key, address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("--%s %s: this user may not listen there; ports from 1024 on are free for all", key, address)
	case err != nil:
		return nil, fmt.Errorf("--%s: %w", key, err)
	}
	return l, nil
}

// accounts are those of the cluster, and that of the settings.
func (n *node) accounts() *account.Store {
	var own []account.Account
	if n.cfg.Replica.User != "" {
		own = append(own, account.Account{User: n.cfg.Replica.User, Host: "%", Verifier: n.verifier, Privileges: account.ReplicationSlave | account.ReplicationClient})
	}
	return account.NewStore(n.stream, n.log.With("part", "accounts"), own...)
}

func (n *node) startServer(context.Context) error {
	var hosts []string
	if host, _, err := net.SplitHostPort(n.cfg.MySQLListen); err == nil {
		hosts = append(hosts, host)
	}
	material, err := keys.Ensure(filepath.Join(n.cfg.DataDir, "keys"), hosts, time.Now())
	if err != nil {
		return err
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{material.Server}}
	if n.cfg.TLS.Cert != "" {
		if tlsConfig, err = n.serverTLS(n.cfg.TLS, "replicas"); err != nil {
			return err
		}
	}
	n.shown = append(n.shown, shown{"replicas", tlsConfig})
	hostname, _ := os.Hostname() // only for @@hostname
	n.server, err = server.New(server.Config{
		Hostname: hostname, Port: uint16(n.mysql.Addr().(*net.TCPAddr).Port),
		Stream: server.Binlog(n.stream), Accounts: n.users, Users: n.users, Follow: n.follow,
		TLS: tlsConfig, RSAKey: material.Password, AllowNative: true,
		MaxConnections: n.cfg.MaxConnections, Log: n.log.With("part", "server"), Unfit: n.unfit,
		Hooks: n.hooks, Globals: n.variables, Flush: n.stream.FlushSource, Status: n.statusVariables, Replication: n.replication,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := n.run("server", func() error { return n.server.Serve(ctx, n.mysql) })
	n.stops = append(n.stops, stage{"server", func(context.Context) error {
		cancel()
		err := n.server.Close()
		<-ended
		return err
	}})
	return nil
}

// adminURL is where the HTTP API is, as a log tells it.
func (n *node) adminURL() string {
	scheme := "http://"
	if n.cfg.Admin.TLS.Cert != "" {
		scheme = "https://"
	}
	return scheme + n.web.Addr().String()
}

// statusVariables are those of SHOW STATUS that the server does not know.
func (n *node) statusVariables() []sql.Variable {
	return append(n.waits.StatusVariables(), sql.Variable{Name: "Bytes_sent", Type: sql.VarUint, Default: sql.Uint(n.meter.Sent().Bytes)})
}

func (n *node) startAdmin(context.Context) error {
	file := n.cfg.Admin.TokenFile
	if file == "" {
		dir := filepath.Join(n.cfg.DataDir, "keys")
		if _, err := keys.EnsureToken(dir); err != nil {
			return err
		}
		file = filepath.Join(dir, keys.TokenFile)
	}
	token, err := keys.OpenToken(file, func(err error) {
		if err != nil {
			n.log.Error("the new token of the HTTP API cannot be used; the old one counts", "path", file, "error", err)
			return
		}
		n.log.Info("a new token of the HTTP API counts", "path", file)
	})
	if err != nil {
		return err
	}
	var tlsConfig *tls.Config
	if n.cfg.Admin.TLS.Cert != "" {
		if tlsConfig, err = n.serverTLS(n.cfg.Admin.TLS, "clients of the HTTP API"); err != nil {
			return err
		}
		n.shown = append(n.shown, shown{"clients of the HTTP API", tlsConfig})
	}
	n.admin, err = admin.New(admin.Config{
		Token: token.Value, TLS: tlsConfig, Users: n.users, Follow: n.follow, Dumps: n.server, Variables: n.variables, Status: n.status, Binlog: n.stream, Group: n.stream.Cluster(), Log: n.log.With("part", "admin"), Metrics: n.meter,
		Version: versionText(), GoVersion: runtime.Version(),
	})
	if err != nil {
		return err
	}
	ended := n.run("admin", func() error { return n.admin.Serve(n.web) })
	n.stops = append(n.stops, stage{"admin", func(ctx context.Context) error {
		// Requests get a moment of the time that there is; a download of hours
		// does not hold up the stop.
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err := n.admin.Shutdown(ctx)
		<-ended
		return err
	}})
	return nil
}

// run runs a part in a goroutine. When it ends before it was asked to, the node
// stops. The channel is closed when it has ended.
func (n *node) run(name string, f func() error) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := f(); err != nil && !errors.Is(err, server.ErrClosed) {
			n.broken <- fmt.Errorf("%s: %w", name, err)
		}
	}()
	return ended
}

// stop stops the parts that run, newest first, within the time that the settings
// give. quiet: something has failed already, so do not say that all is well.
func (n *node) stop(quiet bool) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.ShutdownTimeout)
	defer cancel()
	var errs []error
	for i := len(n.stops) - 1; i >= 0; i-- {
		done := make(chan error, 1)
		go func() { done <- n.stops[i].stop(ctx) }()
		select {
		case err := <-done:
			if err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", n.stops[i].name, err))
			}
		case <-ctx.Done():
			errs = append(errs, withCode(exitKilled, fmt.Errorf("stopping the %s took longer than %s; giving up on it, which loses nothing that was acknowledged", n.stops[i].name, n.cfg.ShutdownTimeout)))
			return errors.Join(errs...)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return withCode(exitFailed, err)
	}
	if !quiet {
		n.log.Info("stopped", "after", time.Since(began).Round(time.Millisecond))
	}
	return nil
}
