package server

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kingbus/internal/account"
	"kingbus/internal/binlog"
	"kingbus/internal/follow"
	"kingbus/internal/hook"
	"kingbus/internal/sql"
	"kingbus/internal/wire"
)

// Config says what is served, to whom, and within which limits.
type Config struct {
	Stream   Stream
	Accounts wire.Accounts
	// Users are the accounts, where they can be changed and have privileges; nil: everybody
	// may do everything but change accounts.
	Users *account.Store
	// Follow is whom the cluster follows, where that can be changed.
	Follow *follow.Store
	// Flush has the source begin another binlog file; nil: that is refused.
	Flush func(ctx context.Context) error
	// Globals are the variables that can be changed; nil: none.
	Globals Globals
	// TLS is offered if it is set; RSAKey decrypts the passwords of clients
	// without TLS. See package keys.
	TLS    *tls.Config
	RSAKey *rsa.PrivateKey
	// RequireTLS refuses clients without TLS.
	RequireTLS bool
	// AllowNative lets clients that know nothing else use mysql_native_password,
	// if their account has a verifier for it.
	AllowNative bool

	// Hostname and Port are what @@hostname and @@port say.
	Hostname string
	Port     uint16

	MaxConnections   int           // 1024 if 0; more are refused with error 1040
	HandshakeTimeout time.Duration // from accept to the end of the login; 10 s if 0
	IdleTimeout      time.Duration // of a session between commands; 8 h if 0, MySQL's wait_timeout
	// WriteTimeout is how long a client may take nothing at all before it is
	// dropped; 60 s if 0, MySQL's net_write_timeout.
	WriteTimeout time.Duration
	MaxPacket    int // bytes of a command; 16 MiB if 0
	// CatchUp is how long a replica is held that is ahead of this node, or asks for
	// what only other nodes may have, before it is sent away to come back; 5 s if 0.
	CatchUp time.Duration
	// Unfit returns why this node must not serve replicas, in plain words, or "".
	// A node that only lost the majority is fit: what it has is committed. It is
	// called often, by several goroutines. nil: always fit.
	Unfit func() string

	// Replication tells of the link to the source, for SHOW REPLICA STATUS; it returns nil
	// if there is none to be. nil: there is none.
	Replication func() *Replication

	// Hooks observe the dumps.
	Hooks hook.Set
	// Variables are system variables beside those that kingbus has anyway and those of
	// the source, Status returns status variables.
	Variables []sql.Variable
	Status    func() []sql.Variable

	Log *slog.Logger     // nil: no logs
	Now func() time.Time // nil: time.Now
}

const (
	defaultMaxConnections   = 1024
	defaultHandshakeTimeout = 10 * time.Second
	defaultIdleTimeout      = 8 * time.Hour
	defaultWriteTimeout     = 60 * time.Second
	defaultMaxPacket        = 16 << 20
	defaultCatchUp          = 5 * time.Second
	// fitnessEvery is how often the dumps learn that the node became unfit.
	fitnessEvery = 500 * time.Millisecond
	// maxRejecting bounds those who are being told that there are too many.
	maxRejecting = 64
	// firstVersion is the server version of greetings before a source was seen.
	firstVersion = "8.4.0-kingbus"
)

func (c Config) withDefaults() (Config, error) {
	if c.Stream == nil || c.Accounts == nil {
		return c, errors.New("server: a stream and accounts are needed")
	}
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&c.HandshakeTimeout, defaultHandshakeTimeout)
	set(&c.IdleTimeout, defaultIdleTimeout)
	set(&c.WriteTimeout, defaultWriteTimeout)
	set(&c.CatchUp, defaultCatchUp)
	if c.MaxConnections <= 0 {
		c.MaxConnections = defaultMaxConnections
	}
	if c.MaxPacket <= 0 {
		c.MaxPacket = defaultMaxPacket
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

// Server poses as a source. Its methods may be called concurrently.
type Server struct {
	cfg      Config
	log      *slog.Logger
	acceptor *wire.Acceptor
	door     *door

	prepared      holdings     // statements of all sessions
	userVariables atomic.Int64 // their bytes, of all sessions
	ownPasswords  recently
	started       time.Time

	ctx    context.Context // done when the server closes
	cancel context.CancelFunc

	mu struct {
		sync.Mutex
		closed    bool
		listeners map[net.Listener]struct{}
		conns     int // open connections, those that have not logged in included
		rejecting int
		sessions  map[uint32]*session

		variables   *sql.Variables // of new sessions, nil before the first one
		variablesOf uint64         // the epoch that they are from
	}
	wg    sync.WaitGroup // of connections
	count counters
}

// counters are what Counters returns; they only grow.
type counters struct {
	connections, refused, failedLogins, dumps, queries atomic.Uint64
}

// Counters count since the server was made.
type Counters struct {
	Connections  uint64 // accepted, whatever became of them
	Refused      uint64 // because there were too many
	FailedLogins uint64
	Dumps        uint64 // dump requests, refused ones included
	Queries      uint64 // statements
	Open         int    // connections open now
}

// Counters returns the present counts.
func (s *Server) Counters() Counters {
	s.mu.Lock()
	open := s.mu.conns
	s.mu.Unlock()
	c := &s.count
	return Counters{
		Connections: c.connections.Load(), Refused: c.refused.Load(), FailedLogins: c.failedLogins.Load(),
		Dumps: c.dumps.Load(), Queries: c.queries.Load(), Open: open,
	}
}

// New checks the configuration. The server does nothing before Serve.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: cfg.Log, started: cfg.Now(), door: newDoor(cfg.MaxConnections, cfg.Now)}
	s.mu.listeners = map[net.Listener]struct{}{}
	s.mu.sessions = map[uint32]*session{}
	s.acceptor, err = wire.NewAcceptor(wire.AcceptorConfig{
		Version: firstVersion, VersionNow: s.greeting, Accounts: cfg.Accounts, TLS: cfg.TLS, RSAKey: cfg.RSAKey,
		RequireTLS: cfg.RequireTLS, AllowNative: cfg.AllowNative, HandshakeTimeout: cfg.HandshakeTimeout,
		Admit: func(nc net.Conn) bool {
			pc := nc.(*patientConn)
			pc.checking = s.door.admit(pc.entrant.key)
			return pc.checking
		},
		Open:       func(nc net.Conn, ws *wire.Session) error { return s.open(nc.(*patientConn), ws) },
		LoggedIn:   func(nc net.Conn) { s.door.loggedIn(nc.(*patientConn).entrant) },
		Failed:     func(nc net.Conn) { s.door.failed(nc.(*patientConn).entrant.key) },
		Delay:      func(ctx context.Context, nc net.Conn, more int) { s.door.delay(ctx, nc.(*patientConn).entrant, more) },
		ReadBuffer: commandBuffer, WriteBuffer: idleBuffer,
	})
	if err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// version is what greetings say: the source's, so that clients draw the same
// conclusions as they would from it.
func (s *Server) version() string {
	v := s.cfg.Stream.Status().Source.Version
	if v == "" || v[0] < '0' || v[0] > '9' {
		return firstVersion
	}
	return v
}

// greeting is version as greetings say it: MariaDB puts something in front of 10, which
// clients would take for older than 5 (RPL_VERSION_HACK in sql/sql_acl.cc).
func (s *Server) greeting() string {
	v := s.version()
	if strings.HasPrefix(v, "10.") && binlog.IsMariaDB(v) {
		return "5.5.5-" + v
	}
	return v
}

// ErrClosed is returned by Serve after Close.
var ErrClosed = errors.New("server: closed")

// Serve accepts connections until ctx is done, the server is closed, or the
// listener fails, and returns when all its connections have ended. It closes l.
// Its error is nil after ctx and ErrClosed after Close.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.mu.listeners[l] = struct{}{}
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopServer := context.AfterFunc(s.ctx, cancel)
	defer stopServer()
	stopListener := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stopListener()

	var mine sync.WaitGroup
	if s.cfg.Unfit != nil {
		mine.Go(func() { s.watchFitness(ctx) })
	}
	err := s.acceptLoop(ctx, l, &mine)
	cancel()
	mine.Wait()
	s.mu.Lock()
	delete(s.mu.listeners, l)
	s.mu.Unlock()
	if s.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}

// acceptLoop backs off while the process is out of files or memory: both pass.
func (s *Server) acceptLoop(ctx context.Context, l net.Listener, mine *sync.WaitGroup) error {
	const maxPause = time.Second
	pause := 5 * time.Millisecond
	for {
		nc, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = nc.Close()
			}
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("server: accept: %w", err)
			}
			s.log.Warn("cannot accept a connection; trying again", "error", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, maxPause)
			continue
		}
		pause = 5 * time.Millisecond
		s.count.connections.Add(1)
		s.admit(ctx, nc, mine)
	}
}

// admit starts a goroutine for the connection, if it may come in.
func (s *Server) admit(ctx context.Context, nc net.Conn, mine *sync.WaitGroup) {
	key, _ := wire.Origin(nc.RemoteAddr())
	e := newEntrant(nc, key, s.cfg.Now())
	s.mu.Lock()
	var evicted bool // another one, whose place this one takes
	var refusal *wire.Error
	if !s.mu.closed {
		evicted, refusal = s.door.enter(e, s.mu.conns >= s.cfg.MaxConnections)
	}
	switch {
	case s.mu.closed, refusal != nil && s.mu.rejecting >= maxRejecting:
		s.mu.Unlock()
		s.count.refused.Add(1)
		_ = nc.Close()
		return
	case refusal != nil:
		s.mu.rejecting++
	case !evicted:
		s.mu.conns++
	}
	s.wg.Add(1) // under the lock, so that it cannot come after Close's Wait
	s.mu.Unlock()
	mine.Go(func() {
		defer s.wg.Done()
		if refusal != nil {
			s.count.refused.Add(1)
			wire.Reject(nc, refusal)
		} else {
			s.handle(ctx, e)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case refusal != nil:
			s.mu.rejecting--
		case !e.evicted:
			s.mu.conns--
		}
	})
}

// handle takes one connection that has entered from login to its end.
func (s *Server) handle(ctx context.Context, e *entrant) {
	nc := e.nc
	pc := newPatientConn(nc, s.cfg.WriteTimeout)
	pc.entrant = e
	defer pc.Close()
	ws, err := s.acceptor.Accept(ctx, pc)
	s.door.leave(e, pc.checking)
	if e.evicted && err != nil {
		s.count.refused.Add(1)
		s.log.Debug("it has not logged in, and made room for another connection", "from", nc.RemoteAddr().String())
		return
	}
	if err != nil {
		s.loginFailed(ctx, nc, err)
		return
	}
	defer ws.Close()
	defer func() {
		s.mu.Lock()
		delete(s.mu.sessions, ws.ID)
		s.mu.Unlock()
	}()
	for c := pc.opened; c != nil; c = c.next {
		s.mu.Lock()
		s.mu.sessions[ws.ID] = c
		s.mu.Unlock()
		c.run(ctx)
	}
}

func (s *Server) loginFailed(ctx context.Context, nc net.Conn, err error) {
	if ctx.Err() == nil {
		s.count.failedLogins.Add(1)
		s.log.Info("login failed", "from", nc.RemoteAddr().String(), "error", err)
	}
}

// refusal is what clients of an unfit node hear, nil if it is fit. 1053 is not
// the end for a replica, but an attempt that brought no event counts as failed
// (SOURCE_RETRY_COUNT); after some of them MySQL's asynchronous connection
// failover goes on to the next source in its list.
func (s *Server) refusal() *wire.Error {
	if s.cfg.Unfit == nil {
		return nil
	}
	reason := s.cfg.Unfit()
	if reason == "" {
		return nil
	}
	return wire.Errorf(wire.ErServerShutdown, "kingbus: no replicas are served here now: %s; use another node", reason)
}

// watchFitness ends the dumps once the node is unfit: those that wait for more
// would hear of nothing else.
func (s *Server) watchFitness(ctx context.Context) {
	tick := time.NewTicker(fitnessEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if refusal := s.refusal(); refusal != nil {
			for _, c := range s.list() {
				c.endDump(refusal)
			}
		}
	}
}

// Close ends all sessions and waits for them: dumps end with EOF, as those of a
// MySQL server that is shut down. It is idempotent.
func (s *Server) Close() error {
	s.mu.Lock()
	s.mu.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	return nil
}
