package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kingbus/internal/account"
	"kingbus/internal/follow"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// heldKeeper holds changes of settings: each says that it has come, and waits to be let go.
type heldKeeper struct {
	stream.Keeper
	come, let chan struct{}
	hold      atomic.Bool
}

func (k *heldKeeper) ChangeSettings(ctx context.Context, revision uint64, values map[string]json.RawMessage) error {
	if k.hold.Load() {
		for _, step := range []chan struct{}{k.come, k.let} {
			select {
			case step <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return k.Keeper.ChangeSettings(ctx, revision, values)
}

// TestPasswordsNotShown: while a statement with a password runs, prepared or not, other sessions
// see what it is, and not the password.
func TestPasswordsNotShown(t *testing.T) {
	keeper := &heldKeeper{come: make(chan struct{}), let: make(chan struct{})}
	r := newUsersRigWith(t, func(c *Config) {
		keeper.Keeper = c.Stream.(binlogStream).Stream
		c.Users = account.NewStore(keeper, slog.New(slog.DiscardHandler))
		c.Accounts, c.Follow = c.Users, follow.NewStore(keeper, false, func() bool { return false })
	})
	runs, looks := dial(t, r.addr, "root", testPassword, wire.TLSRequired), dial(t, r.addr, "root", testPassword, wire.TLSRequired)
	if _, refused := answerText(t, runs, "CREATE USER u IDENTIFIED BY 'first'"); refused != "" {
		t.Fatal(refused)
	}
	keeper.hold.Store(true)
	for _, tc := range []struct{ sql, shown string }{
		{"CHANGE REPLICATION SOURCE TO SOURCE_HOST='%s', SOURCE_PASSWORD='hush'", "CHANGE REPLICATION SOURCE TO"},
		{"CHANGE MASTER TO MASTER_HOST='%s', MASTER_PASSWORD='hush'", "CHANGE REPLICATION SOURCE TO"},
		{"CREATE USER %s IDENTIFIED BY 'hush'", "CREATE USER"},
		{"ALTER USER u IDENTIFIED BY 'hush%s'", "ALTER USER"},
		{"SET PASSWORD FOR u = 'hush-%s'", "ALTER USER"}, // as which it is read
	} {
		for _, command := range []string{"Query", "Execute"} {
			text := fmt.Sprintf(tc.sql, command)
			payload := append([]byte{wire.ComQuery}, text...)
			if command == "Execute" {
				s, err := prepare(t, runs, text)
				if err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				payload = append(s.head(wire.ComStmtExecute), 0, 1, 0, 0, 0)
			}
			if err := runs.Command(payload); err != nil {
				t.Fatal(err)
			}
			select {
			case <-keeper.come:
			case <-time.After(30 * time.Second):
				t.Fatalf("%s changes nothing", text)
			}
			for _, list := range []string{"SHOW PROCESSLIST", "SHOW FULL PROCESSLIST", "SELECT * FROM performance_schema.processlist", "SELECT * FROM information_schema.processlist"} {
				_, got := answerText(t, looks, list)
				if !strings.Contains(got, command) || !strings.Contains(got, tc.shown) || strings.Contains(got, "hush") {
					t.Errorf("%s while %s runs:\n%s", list, text, got)
				}
			}
			<-keeper.let
			if _, err := packet(t, runs); err != nil {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
}
