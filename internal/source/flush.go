package source

import (
	"context"
	"errors"
	"fmt"

	"kingbus/internal/wire"
)

// ErrNotFollowed is returned by Flush while the source is not followed.
var ErrNotFollowed = errors.New("the source is not followed at present: see SHOW REPLICA STATUS")

// Flush has the source begin another binlog file, with FLUSH BINARY LOGS over a connection of its
// own. The account needs RELOAD there.
func (p *Puller) Flush(ctx context.Context) error {
	if p.Status().State != StateStreaming {
		return ErrNotFollowed
	}
	c, err := dial(ctx, &p.cfg)
	if err != nil {
		return fmt.Errorf("FLUSH BINARY LOGS on the source: %w", err)
	}
	defer c.Close()
	_, err = c.Exec(ctx, "FLUSH LOCAL BINARY LOGS")
	switch {
	case wire.IsCode(err, wire.ErSpecificAccessDenied):
		return fmt.Errorf("the source refuses FLUSH BINARY LOGS to the user %q: GRANT RELOAD ON *.* to it there, or say it there yourself: %w", p.cfg.User, err)
	case err != nil:
		return fmt.Errorf("FLUSH BINARY LOGS on the source: %w", err)
	}
	return nil
}
