package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"kingbus/internal/binlog"
	"kingbus/internal/hook"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// session is one connection to the source, from login to its end.
type session struct {
	p   *Puller
	cfg *Config

	c        *wire.Client
	link     hook.Link
	answers  chan hook.Position // the last one that the source was told
	progress bool               // something of it went into the stream
}

// run connects, checks, and streams until something ends it. It always returns
// an error.
func (s *session) run(ctx context.Context) (err error) {
	// It may have been reached when the leader died that should have said so, and the source may
	// be gone. Positions are looked at only if they are that source's.
	st, sets := s.cfg.Stream.Status(), s.cfg.Until
	if sets.at.File != "" && (st.Source.Host != s.cfg.Host || st.Source.Port != s.cfg.Port) {
		sets = Until{}
	}
	if _, reached := sets.watch(st.SourceEnd, st.Executed); reached {
		return ErrUntilReached
	}
	s.p.setState(StateConnecting)
	if s.c, err = dial(ctx, s.cfg); err != nil {
		return err
	}
	defer s.c.Close()
	// From here on the socket dies with the leadership, at once.
	stop := s.c.Conn().CloseOn(ctx)
	defer stop()
	if len(s.cfg.Hooks.RelayIO) > 0 {
		end, err := s.observe()
		defer end()
		if err != nil {
			return err
		}
	}
	s.p.setState(StateChecking)
	identity, err := s.identity(ctx)
	if err != nil {
		return err
	}
	t := &talk{ctx: ctx, c: s.c, cfg: s.cfg, patience: queryTimeout}
	if !standingOf(s.cfg.Stream.Status()).fresh {
		t.patience, t.locked = listTimeout, s.p.locked
	}
	f, err := t.facts()
	s.p.locked = errors.Is(err, errLocked)
	if err != nil {
		return err
	}
	s.p.update(func(st *Status) {
		st.Version, st.UUID, st.TLS = f.version, f.uuid, tlsVersion(s.c)
	})
	if u := s.cfg.Until; (!u.after.IsEmpty() || !u.before.IsEmpty()) && (f.maria || f.gtidMode == "" || f.gtidMode == "OFF") {
		return &Problem{Kind: KindStart, Reason: "START REPLICA UNTIL names GTIDs of MySQL, and the source has none: they never come", Action: "STOP REPLICA, and START REPLICA UNTIL SOURCE_LOG_FILE = '…', SOURCE_LOG_POS = …"}
	}
	// Checked twice: before an epoch is opened, so that a source that cannot be
	// followed costs the log nothing; and after, when nothing of an earlier link
	// can still be applied.
	here := standingOf(s.cfg.Stream.Status())
	if _, err := makePlan(f, here, s.cfg.Start, s.cfg.maxAsk); err != nil {
		return err
	}
	checksum, err := t.present(f.maria)
	if err != nil {
		return err
	}
	if err := t.register(identity); err != nil {
		return err
	}
	link, err := s.cfg.Stream.StartLink(ctx, stream.Source{
		UUID: f.uuid, ServerID: f.serverID, Version: f.version, Host: s.cfg.Host, Port: s.cfg.Port,
		Variables: f.variables, Purged: f.purged,
	})
	if err != nil {
		return err
	}
	resume, err := link.Resume()
	if err != nil {
		return err
	}
	until, reached := s.cfg.Until.watch(resume.Source, resume.Executed)
	if reached {
		return ErrUntilReached
	}
	last := here.source
	here = standingOf(s.cfg.Stream.Status())
	here.at, here.executed, here.source = resume.Source, resume.Executed, last
	pl, err := makePlan(f, here, s.cfg.Start, s.cfg.maxAsk)
	if err != nil {
		return err
	}
	if pl.lost != "" {
		s.p.here().Warn(pl.lost)
	}
	return s.stream(ctx, f, pl, link, resume, identity, receiver{checksum: checksum, run: run{buffer: link.Buffer}, until: until})
}

// identityPoll is how often to look for the cluster's identity, which its very
// first leader is about to make.
const identityPoll = 10 * time.Millisecond

func (s *session) identity(ctx context.Context) (stream.Identity, error) {
	for {
		if id := s.cfg.Stream.Status().Identity; id.ServerID != 0 {
			return id, nil
		}
		select {
		case <-ctx.Done():
			return stream.Identity{}, context.Cause(ctx)
		case <-s.cfg.After(identityPoll):
		}
	}
}

// stream asks for the binlog and receives it.
func (s *session) stream(ctx context.Context, f *facts, pl plan, link Link, resume stream.Resume, id stream.Identity, r receiver) error {
	s.p.log.Info("asking the source for its binlog", "file", pl.at.File, "pos", pl.at.Pos, "by_gtid", pl.byGTID, "version", f.version)
	s.link.Epoch = link.Epoch()
	s.link.From = hook.Position{File: pl.at.File, Pos: pl.ask}
	s.link.Durable, s.link.Served = hook.Position(resume.Source), hook.Position(s.cfg.Stream.Status().End)
	for _, o := range s.cfg.Hooks.RelayIO {
		if err := o.BeforeRequest(ctx, &s.link); err != nil {
			return s.explain(err, &r)
		}
	}
	pl.askFrom(s.link.From.Pos, s.cfg.maxAsk)
	if f.maria && pl.at.Pos == binlog.MagicSize+uint64(len(resume.FormatDescription)) {
		// If the file is encrypted, MariaDB sends the START_ENCRYPTION there as if it was
		// encrypted itself, which is garbage.
		pl.askFrom(binlog.MagicSize, s.cfg.maxAsk)
	}
	request := dumpPosition(id.ServerID, pl.at.File, uint32(pl.ask))
	if pl.byGTID {
		request = dumpGTID(id.ServerID, pl.at.File, pl.ask, pl.set)
	}
	conn := s.c.Conn()
	conn.SetTimeouts(readTimeout(s.cfg.Heartbeat), queryTimeout)
	if err := s.c.Command(request); err != nil {
		return fmt.Errorf("ask for the binlog: %w", err)
	}
	if len(s.cfg.Hooks.RelayIO) > 0 { // who may write from now on
		conn.SplitSequence()
	}
	r.s, r.conn, r.link, r.plan = s, conn, link, pl
	r.more = newPoller(conn.NetConn())
	// Only in the file that the stream is in is there something to compare.
	if pl.at == resume.Source {
		r.stored = resume.FormatDescription
	}
	r.atFile = resume.Source
	r.hasPrevious = f.atLeast(5, 7) || f.gtidMode != "OFF"
	s.p.update(func(st *Status) { st.GTIDs = pl.byGTID })

	// Two things end the read in which the receiver waits: the loss of the link
	// to the stream, and what the watch finds.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var g errgroup.Group
	end := func(err error) error {
		if err != nil {
			cancel(err)
			_ = conn.Close()
		}
		return err
	}
	g.Go(func() error {
		select {
		case <-link.Lost():
			return end(link.Err())
		case <-ctx.Done():
			return nil
		}
	})
	g.Go(func() error { return end(s.watch(ctx)) })
	err := r.receive(ctx)
	if errors.Is(err, ErrUntilReached) {
		err = r.finish(ctx)
	}
	cancel(nil)
	if ended := g.Wait(); ended != nil && !isProblem(err) {
		err = ended
	}
	if lost := link.Err(); lost != nil && !isProblem(err) {
		err = lost
	}
	return s.explain(err, &r)
}

// observe tells the hooks that there is a connection, and returns what ends that.
func (s *session) observe() (end func(), err error) {
	ended := make(chan struct{})
	s.answers = make(chan hook.Position, 1)
	s.link = hook.Link{
		Source: net.JoinHostPort(s.cfg.Host, strconv.Itoa(int(s.cfg.Port))),
		Query:  asker{s.c}.Query,
		Open: func(ctx context.Context) (hook.Session, error) {
			c, err := dial(ctx, s.cfg)
			if err != nil {
				return nil, err
			}
			return asker{c}, nil
		},
		Send: func(payload []byte) error {
			conn := s.c.Conn()
			conn.SetWriteSequence(0)
			if err := conn.WritePacket(payload); err != nil {
				return err
			}
			return conn.Flush()
		},
		Answered: func(at hook.Position) {
			for _, o := range s.cfg.Hooks.RelayIO {
				o.AfterAnswer(&s.link, at)
			}
			select { // only the last one counts
			case <-s.answers:
			default:
			}
			select {
			case s.answers <- at:
			default:
			}
		},
		Ended: ended,
	}
	started := 0
	for _, o := range s.cfg.Hooks.RelayIO {
		started++
		if err = o.Start(&s.link); err != nil {
			break
		}
	}
	return func() {
		_ = s.c.Close() // nobody waits for the socket any more
		close(ended)
		for _, o := range s.cfg.Hooks.RelayIO[:started] {
			o.AfterReset(&s.link)
			o.Stop(&s.link)
		}
	}, err
}

// asker is a connection to the source as the hooks see it.
type asker struct{ *wire.Client }

func (a asker) Query(ctx context.Context, sql string) ([][][]byte, error) {
	res, err := a.Client.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return res.Rows, nil
}

func (a asker) Close() error { return a.Quit() }

func isProblem(err error) bool {
	var p *Problem
	return errors.As(err, &p)
}

// readTimeout is how long a source may be silent that sends heartbeats.
func readTimeout(heartbeat time.Duration) time.Duration {
	return max(4*heartbeat, time.Second)
}

// explain turns what the source or the stream refused into a Problem.
func (s *session) explain(err error, r *receiver) error {
	var refusal *wire.Error
	var step interface {
		error
		NextStep() string
	}
	switch {
	case errors.As(err, &step):
		return &Problem{Kind: KindSemiSync, Reason: step.Error(), Action: step.NextStep()}
	case errors.Is(err, stream.ErrDiskFull):
		return &Problem{Kind: KindDiskFull, Reason: "no more events can be stored", Action: "free space, or shorten the retention; kingbus goes on by itself then", Err: err}
	case isProblem(err) || !errors.As(err, &refusal):
		return err
	case wire.IsCode(err, wire.ErSpecificAccessDenied, wire.ErAccessDenied):
		return &Problem{Kind: KindPrivilege, Reason: "the account may not replicate: it lacks REPLICATION SLAVE", Action: s.cfg.grants(), Err: err}
	case wire.IsCode(err, wire.ErMariaDBReplicaSameID), strings.Contains(refusal.Message, "with the same server_uuid"), strings.Contains(refusal.Message, "same server_uuid/server_id"):
		return fmt.Errorf("%w: %w", errSameIdentity, err)
	case wire.IsCode(err, wire.ErSourceFatalReadingBinlog) && !r.good && r.plan.at.Pos > binlog.MagicSize &&
		(strings.Contains(refusal.Message, "truncated in the middle of event") || strings.Contains(refusal.Message, "position > file size")):
		return &Problem{Kind: KindReset, At: r.plan.at, Reason: "no event begins there any more: the source was reset or restored, or the file is damaged", Err: err,
			Action: "look at that position with mysqlbinlog on the source; to follow it as it is now, begin with an empty data folder"}
	case wire.IsCode(err, wire.ErSourceFatalReadingBinlog):
		return &Problem{Kind: KindRefused, Reason: "the source refuses to send its binlog", Action: "look into the source's error log; kingbus asks again", Err: err}
	}
	return err
}

// errSameIdentity is the source's word that somebody else with our server id and
// uuid has asked for the binlog.
var errSameIdentity = errors.New("the source ended the link because another replica with kingbus's server_uuid connected")

func tlsVersion(c *wire.Client) string {
	if st := c.Conn().TLSState(); st != nil {
		return tlsName(st.Version)
	}
	return ""
}
