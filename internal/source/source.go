// Package source poses as a replica of the real MySQL server and feeds its
// binlog, byte for byte, into the stream.
//
// A Puller runs one connection at a time, and only while this node leads. Each
// connection goes the same way:
//
//	connect  log in, say and ask what a MySQL replica says and asks (talk.go)
//	check    compare what the source says of itself with what the stream holds,
//	         and decide what to ask for: pure code (plan.go)
//	stream   read events, check each, cut them into runs, hand those to the
//	         stream's link (receive.go, run.go); while nothing comes, look from
//	         time to time whether the source is still the same (watch.go)
//
// Whatever ends a connection is either passing (the network, a restart), and is
// tried again with a growing delay, or a *Problem, which needs a human: that is
// shown with what to do, and tried again slowly for as long as it lasts.
// Positions are counted by length; after a break the next connection asks for
// the last boundary that the stream has applied, so nothing comes twice and
// nothing is left out.
//
// Statements and commands are those of MySQL's I/O thread (sql/rpl_replica.cc);
// the source's side of it is sql/rpl_binlog_sender.cc. MySQL 5.5 and MariaDB, which
// know neither uuid nor GTIDs of MySQL's kind, are followed by file and position, and
// told from others by the format description of the file.
package source

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"

	"kingbus/internal/hook"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// Config says which server to follow, and how. Host, User and Stream are needed.
type Config struct {
	Stream Stream
	Log    *slog.Logger

	Host string
	Port uint16 // 3306 if zero
	User string
	// Password is asked for at every login, so that it can be changed; nil is no
	// password. The slice is not kept.
	Password func() ([]byte, error)

	TLSMode wire.TLSMode
	TLS     *tls.Config // CA, certificate: see wire.LoadClientTLS
	// Without TLS the password goes encrypted with the source's RSA key: see
	// wire.ClientConfig.
	ServerPublicKey    *rsa.PublicKey
	GetServerPublicKey bool

	// Start is where the very first connection begins; later ones go on where
	// the stream ends.
	Start Start

	// ReportHost and ReportPort are what SHOW REPLICAS on the source shows.
	ReportHost string
	ReportPort uint16

	// Until is where Run ends.
	Until Until
	// Heartbeat is how long the source may be silent; a connection is given up
	// after four times that. 5 s if zero.
	Heartbeat time.Duration
	// Watch is how often to look after a source from which nothing but heartbeats
	// comes; 30 s if zero.
	Watch time.Duration
	// Retry is the delay after what passes by itself, Slow after what needs a
	// human. Both grow from Min to Max, by half to double, and are shortened by
	// up to a half at random.
	Retry, Slow Backoff

	// Hooks observe the connections.
	Hooks hook.Set

	// Dial, Now, After and Random replace the network, the clock and chance in
	// tests. Random returns numbers in [0,1).
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Now    func() time.Time
	After  func(time.Duration) <-chan time.Time
	Random func() float64

	// maxAsk is the greatest position that COM_BINLOG_DUMP can ask for; tests
	// make it small.
	maxAsk uint64
}

// Backoff bounds a growing delay.
type Backoff struct{ Min, Max time.Duration }

func (b Backoff) orDefault(least, most time.Duration) Backoff {
	if b.Min <= 0 {
		b.Min = least
	}
	if b.Max <= 0 {
		b.Max = most
	}
	b.Max = max(b.Max, b.Min)
	return b
}

// delay is that of the nth try in a row that failed, n from 0.
func (b Backoff) delay(n int, random float64) time.Duration {
	d := b.Min
	for ; n > 0 && d < b.Max; n-- {
		d *= 2
	}
	d = min(d, b.Max)
	return d - time.Duration(random*float64(d)/2)
}

// Stream is what the Puller needs of the stream; Adapt makes one.
type Stream interface {
	// Lead blocks until this node leads; the context ends when it no longer does.
	Lead(ctx context.Context) (context.Context, error)
	Status() stream.Status
	StartLink(ctx context.Context, src stream.Source) (Link, error)
}

// Link is the way into the stream: see stream.Link.
type Link interface {
	Resume() (stream.Resume, error)
	Rotate(ctx context.Context, name string) error
	Buffer() []byte
	Append(ctx context.Context, run []byte) error
	// Epoch is what tells the link from others.
	Epoch() uint64
	// Applied returns up to where everything is committed, in the source's binlog, and a channel
	// that is closed when that has changed.
	Applied() (stream.Coordinates, <-chan struct{})
	Lost() <-chan struct{}
	Err() error
}

// Adapt makes a Stream of a *stream.Stream.
func Adapt(s *stream.Stream) Stream { return adapter{s} }

type adapter struct{ *stream.Stream }

func (a adapter) StartLink(ctx context.Context, src stream.Source) (Link, error) {
	l, err := a.Stream.StartLink(ctx, src)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Puller follows the source. It is made by New and runs once.
type Puller struct {
	cfg Config
	log *slog.Logger

	mu     sync.Mutex
	status Status

	locked bool // the last connection got no list of files; of the goroutine that follows
}

// New checks the configuration and fills in defaults. Nothing runs yet.
func New(cfg Config) (*Puller, error) {
	switch {
	case cfg.Stream == nil:
		return nil, errors.New("source: no stream given")
	case cfg.Host == "":
		return nil, errors.New("source: no host given: name the MySQL server to follow")
	case cfg.User == "":
		return nil, errors.New("source: no user given: name the account to log in to the source with")
	case len(cfg.ReportHost) > maxReportHost:
		return nil, fmt.Errorf("source: the host name to report has %d bytes, at most %d are possible", len(cfg.ReportHost), maxReportHost)
	case cfg.Heartbeat < 0:
		return nil, fmt.Errorf("source: heartbeat of %v", cfg.Heartbeat)
	}
	if cfg.Port == 0 {
		cfg.Port = 3306
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 5 * time.Second
	}
	if cfg.Watch <= 0 {
		cfg.Watch = 30 * time.Second
	}
	cfg.Watch = max(cfg.Watch, 2*cfg.Heartbeat) // a heartbeat must come in between
	cfg.Retry = cfg.Retry.orDefault(250*time.Millisecond, 15*time.Second)
	cfg.Slow = cfg.Slow.orDefault(5*time.Second, time.Minute)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.After == nil {
		cfg.After = time.After
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	if cfg.maxAsk == 0 {
		cfg.maxAsk = 1<<32 - 1
	}
	p := &Puller{cfg: cfg, log: cfg.Log.With("source", net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))))}
	p.status = Status{State: StateWaiting, Host: cfg.Host, Port: cfg.Port, User: cfg.User}
	return p, nil
}

// kickedAgain is within what time the loss of the link to a replica with our own
// identity counts as a repetition.
const kickedAgain = 10 * time.Minute

// errNotLeading ends a connection whose node no longer leads.
var errNotLeading = errors.New("this node no longer leads")

// Run follows the source until ctx ends, whose error it then returns, until ErrUntilReached, or
// until the stream cannot go on.
func (p *Puller) Run(ctx context.Context) error {
	defer p.setState(StateStopped)
	for {
		p.setState(StateWaiting)
		lead, err := p.cfg.Stream.Lead(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("wait for leadership: %w", err)
		}
		work, cancel := context.WithCancelCause(ctx)
		stop := context.AfterFunc(lead, func() { cancel(errNotLeading) })
		err = p.follow(work)
		stop()
		cancel(nil)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err != nil {
			return err
		}
	}
}

// follow makes connections, one after another, until ctx ends, or ErrUntilReached.
func (p *Puller) follow(ctx context.Context) error {
	failures := 0
	var kicked time.Time
	for ctx.Err() == nil {
		s := &session{p: p, cfg: &p.cfg}
		err := s.run(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrUntilReached):
			return ErrUntilReached
		}
		lost := errors.Is(err, stream.ErrLinkLost)
		if s.progress && !lost {
			failures = 0
		}
		if errors.Is(err, errSameIdentity) {
			// Once is what a change of leader looks like. We lead.
			if now := p.cfg.Now(); !kicked.IsZero() && now.Sub(kicked) < kickedAgain {
				err = &Problem{Kind: KindIdentityUsed, Reason: "somebody else uses the server id and uuid of this kingbus cluster", Err: err,
					Action: "look at SHOW REPLICAS and the process list of the source; a copy of a data folder must not run beside the original"}
			}
			kicked = p.cfg.Now()
		}
		if lost && failures == 0 {
			// Our own side: a new epoch begins at once. Not so a second time in a
			// row, which could go on for ever.
			p.here().Info("the link to the stream was lost; starting it again", "error", err)
			failures++
			continue
		}
		wait := p.failed(err, failures)
		failures++
		select {
		case <-ctx.Done():
		case <-p.cfg.After(wait):
		}
	}
	return nil
}

// here is the log for lines about the link: they say how far the source's binlog has come,
// which is inside a transaction perhaps, or where the stream ends if nothing has come yet.
func (p *Puller) here() *slog.Logger {
	at := p.Status().Received
	if at.File == "" {
		at = p.cfg.Stream.Status().SourceEnd
	}
	return p.log.With("file", at.File, "pos", at.Pos)
}

// failed notes why a connection ended, and tells how long to wait.
func (p *Puller) failed(err error, failures int) time.Duration {
	var problem *Problem
	b := p.cfg.Retry
	if errors.As(err, &problem) {
		b = p.cfg.Slow
	}
	wait := b.delay(failures, p.cfg.Random())
	now := p.cfg.Now()
	p.mu.Lock()
	st := &p.status
	first := st.LastError != err.Error() || failures == 0
	st.State, st.Problem = StateRetrying, problem
	if problem != nil {
		st.State = StateProblem
	}
	st.ConnectedSince = time.Time{}
	st.LastError, st.LastErrorAt, st.NextTry = err.Error(), now, now.Add(wait)
	p.mu.Unlock()
	switch {
	case !first: // said already
		p.here().Debug("the source still cannot be followed", "error", err, "wait", wait)
	case problem == nil:
		p.here().Warn("the connection to the source ended; trying again", "error", err, "wait", wait)
	default:
		p.here().Error("the source cannot be followed", "error", problem, "kind", problem.Kind, "wait", wait)
	}
	return wait
}
