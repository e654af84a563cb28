package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// Settings is what a Store needs of the stream.
type Settings interface {
	Settings() stream.Settings
	AwaitSettings(ctx context.Context, after uint64) (stream.Settings, error)
	ChangeSettings(ctx context.Context, revision uint64, values map[string]json.RawMessage) error
}

// Store is the accounts of the cluster as this node has them, and those of its own settings.
// It is safe for concurrent use, and has nothing to close.
type Store struct {
	settings Settings
	own      []Account
	log      *slog.Logger

	mu       sync.Mutex
	revision uint64
	table    *Table
}

var _ wire.Accounts = (*Store)(nil)

// NewStore returns one. The node's own accounts are found beside those of the cluster, of
// which one with the same name counts in their place.
func NewStore(settings Settings, log *slog.Logger, own ...Account) *Store {
	return &Store{settings: settings, own: own, log: log}
}

// Table returns the accounts at present.
func (s *Store) Table() *Table {
	now := s.settings.Settings()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table != nil && s.revision == now.Revision {
		return s.table
	}
	s.revision, s.table = now.Revision, s.read(now)
	return s.table
}

func (s *Store) read(now stream.Settings) *Table {
	accounts := append([]Account(nil), s.own...)
	for key, value := range now.Values {
		if !strings.HasPrefix(key, KeyPrefix) {
			continue
		}
		a, err := Decode(value)
		if err != nil {
			s.log.Error("an account of the cluster cannot be used on this node: does it run an older kingbus than the others?", "account", strings.TrimPrefix(key, KeyPrefix), "error", err)
			continue
		}
		accounts = append(accounts, a)
	}
	return NewTable(accounts...)
}

// Account implements wire.Accounts.
func (s *Store) Account(user, address string) (wire.Account, bool) {
	a, ok := s.Table().Find(user, address)
	if !ok || a.Locked {
		return wire.Account{}, false
	}
	return wire.Account{Verifier: a.Verifier, RequireTLS: a.RequireTLS, Host: a.Host}, true
}

// Privileges returns those of an account, none if there is no such account any more.
func (s *Store) Privileges(user, host string) Privileges {
	a, _ := s.Table().Get(user, host)
	return a.Privileges
}

// ErrOwn: an account of the node's own settings cannot be changed by statements.
var ErrOwn = errors.New("the account is in the settings of the node (--replica-user): change it there, or make one in the cluster with another name")

// Own tells whether a name is that of an account of the node's own settings, which the
// cluster does not have.
func (s *Store) Own(user, host string) bool {
	if _, there := s.settings.Settings().Values[Key(user, host)]; there {
		return false
	}
	for _, a := range s.own {
		if a.User == user && a.Host == host {
			return true
		}
	}
	return false
}

// Change is an account that is made or changed, or dropped.
type Change struct {
	Account
	Drop bool
}

// Change changes accounts, all or none. What is to be done is decided on the accounts as
// they are: if somebody else changes them at the same time, once more. An error of decide
// is returned as it is.
func (s *Store) Change(ctx context.Context, decide func(*Table) ([]Change, error)) error {
	for {
		now := s.settings.Settings()
		changes, err := decide(s.read(now))
		if err != nil || len(changes) == 0 {
			return err
		}
		values := map[string]json.RawMessage{}
		for _, c := range changes {
			if s.Own(c.User, c.Host) {
				return fmt.Errorf("%s: %w", c.Name(), ErrOwn)
			}
			values[Key(c.User, c.Host)] = nil
			if !c.Drop {
				values[Key(c.User, c.Host)] = c.Encode()
			}
		}
		if err = s.settings.ChangeSettings(ctx, now.Revision, values); !errors.Is(err, stream.ErrSettingsChanged) {
			return err
		}
		// This node is behind, or somebody else was faster.
		if _, await := s.settings.AwaitSettings(ctx, now.Revision); await != nil {
			return errors.Join(err, await)
		}
	}
}
