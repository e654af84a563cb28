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

// Store is the accounts of the cluster as this node has them, and those of its own settings.
// It is safe for concurrent use, and has nothing to close.
type Store struct {
	settings stream.Keeper
	own      []Account
	log      *slog.Logger

	mu       sync.Mutex
	revision uint64
	table    *Table
}

var _ wire.Accounts = (*Store)(nil)

// NewStore returns one. The node's own accounts are found beside those of the cluster, of
// which one with the same name counts in their place.
func NewStore(settings stream.Keeper, log *slog.Logger, own ...Account) *Store {
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
	return wire.Account{Verifier: a.Verifier, RequireTLS: a.RequireTLS, Host: a.Host, ID: a.ID}, true
}

// Privileges returns those of an account, none if there is no such account any more.
func (s *Store) Privileges(user, host string, id uint64) Privileges {
	if a, there := s.Table().Get(user, host); there && a.ID == id {
		return a.Privileges
	}
	return 0
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
	return stream.Decide(ctx, s.settings, func(now stream.Settings) (map[string]json.RawMessage, error) {
		changes, err := decide(s.read(now))
		if err != nil {
			return nil, err
		}
		values := map[string]json.RawMessage{}
		for _, c := range changes {
			if s.Own(c.User, c.Host) {
				return nil, fmt.Errorf("%s: %w", c.Name(), ErrOwn)
			}
			values[Key(c.User, c.Host)] = nil
			if !c.Drop {
				values[Key(c.User, c.Host)] = c.Encode()
			}
		}
		return values, nil
	})
}
