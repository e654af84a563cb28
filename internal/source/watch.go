package source

import (
	"context"
	"errors"
	"fmt"

	"kingbus/internal/wire"
)

// encryptionHeader is by how many bytes SHOW BINARY LOGS shows more for an
// encrypted file than its events have.
const encryptionHeader = 512

// errNotSent: the source has more than it sends.
var errNotSent = errors.New("the source sends signs of life, but not the events that it has")

// watch looks after the source, over a connection of its own, while nothing but
// heartbeats comes. It is for RESET BINARY LOGS: a dump thread that waits for
// events goes on waiting then, at its position in a file that no longer exists,
// and sends heartbeats as if all were well (seen with MySQL 9.7). It returns why
// the link has to end, or nil when ctx has ended.
func (s *session) watch(ctx context.Context) error {
	suspect := false
	last := s.p.Status()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.cfg.After(s.cfg.Watch):
		}
		now := s.p.Status()
		quiet := now.State == StateStreaming && now.Received == last.Received && now.LastHeard.After(last.LastHeard)
		last = now
		if !quiet {
			suspect = false
			continue
		}
		f, err := s.look(ctx)
		if err != nil {
			// Not the link's fault. If there is something wrong with the source,
			// the link will feel it, or the next look will tell.
			s.p.here().Debug("could not look after the source", "error", err)
			continue
		}
		here := standingOf(s.cfg.Stream.Status())
		_, err = makePlan(f, here, s.cfg.Start, s.cfg.maxAsk)
		newest := f.files[len(f.files)-1]
		ahead := newest.name != now.Received.File || newest.size > now.Received.Pos+encryptionHeader ||
			f.gtidMode == "ON" && !here.executed.ContainsSet(f.executed)
		if s.p.Status().Received != now.Received {
			suspect = false
			continue // what was found may be about what has come by now
		}
		if err != nil {
			return err
		}
		if ahead && suspect {
			return fmt.Errorf("%w: it ends at %s:%d, nothing has come since %s", errNotSent, newest.name, newest.size, now.Received)
		}
		suspect = ahead
	}
}

// look asks for the facts over a new connection.
func (s *session) look(ctx context.Context) (*facts, error) {
	c, err := dial(ctx, s.cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Command([]byte{wire.ComQuit}); _ = c.Close() }()
	f, err := (&talk{ctx: ctx, c: c, cfg: s.cfg, patience: queryTimeout}).facts()
	if err == nil && len(f.files) == 0 {
		err = errors.New("the source lists no binlog file")
	}
	return f, err
}
