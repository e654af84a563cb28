package server

import (
	"context"
	"strings"

	"kingbus/internal/account"
	"kingbus/internal/sql"
	"kingbus/internal/wire"
)

// flush is FLUSH. Where one binlog file ends and another one begins is the source's to say, so
// it is asked to.
func (c *session) flush(ctx context.Context, st *sql.Flush) error {
	what := strings.TrimPrefix(strings.TrimPrefix(st.What, "LOCAL "), "NO_WRITE_TO_BINLOG ")
	switch {
	case strings.Contains(what, "TABLE"):
		// mysqldump asks for it. Without data, but with the GTIDs of all that there was, a dump
		// would make a replica that lacks everything and does not know it.
		return wire.Errorf(wire.ErNotSupportedYet, "kingbus has no tables to flush or lock, and what is dumped here has no data: dump from the source, and let the replica follow kingbus")
	case c.may(account.Super) != nil:
		return wire.Errorf(wire.ErSpecificAccessDenied, "Access denied; you need (at least one of) the RELOAD privilege(s) for this operation")
	}
	rotate := false
	for one := range strings.SplitSeq(what, ",") {
		switch strings.TrimSpace(one) {
		case "LOGS", "BINARY LOGS":
			rotate = true
		case "ENGINE LOGS", "ERROR LOGS", "GENERAL LOGS", "SLOW LOGS", "RELAY LOGS", "PRIVILEGES", "STATUS", "HOSTS", "OPTIMIZER_COSTS", "USER_RESOURCES":
			// There is nothing to be done: accounts count at once, and logs are no files.
		default:
			return notSupported("FLUSH " + one)
		}
	}
	if !rotate {
		return nil
	}
	if c.server.cfg.Flush == nil {
		return notSupported("FLUSH BINARY LOGS: say it on the source")
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	s := c.server.cfg.Stream
	before := s.Status().End.File
	if err := c.server.cfg.Flush(ctx); err != nil {
		return c.changed(err)
	}
	for {
		changed := s.Changed()
		if s.Status().End.File != before {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done(): // it was done; this node hears of it later
			return nil
		}
	}
}
