package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"kingbus/internal/account"
	"kingbus/internal/sql"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// The statements about accounts, and what each of them may do.

// changeTimeout is how long a statement waits that changes something in the cluster.
const changeTimeout = 10 * time.Second

// Error codes of MySQL's about accounts (ER_…).
const (
	errCannotUser           = 1396
	errNotValidPassword     = 1819
	errPasswordFormat       = 1827
	errWrongStringLength    = 1470
	errPluginNotLoaded      = 1524
	errTargetLogNotFound    = 1373
	errWrongDatetimeLiteral = 1525
)

// may checks privileges: one of them is enough, and SUPER always is. A server without
// account.Store lets everybody do what needs none of its own.
func (c *session) may(p account.Privileges) error {
	if c.server.cfg.Users == nil {
		if p == account.Super {
			return wire.Errorf(wire.ErNotSupportedYet, "this kingbus has no accounts to change")
		}
		return nil
	}
	has := c.server.cfg.Users.Privileges(c.ws.User, c.ws.AccountHost, c.ws.AccountID)
	if has&(p|account.Super) != 0 {
		return nil
	}
	names := p.Names()
	if p == account.ReplicationClient {
		names = []string{"SUPER", "REPLICATION CLIENT"}
	}
	return wire.Errorf(wire.ErSpecificAccessDenied, "Access denied; you need (at least one of) the %s privilege(s) for this operation", strings.Join(names, ", "))
}

// change carries out a change of accounts.
func (c *session) change(ctx context.Context, verb string, decide func(*account.Table) ([]account.Change, error)) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	var names []string
	err := c.server.cfg.Users.Change(ctx, func(t *account.Table) ([]account.Change, error) {
		changes, err := decide(t)
		names = nil
		for _, ch := range changes {
			names = append(names, ch.Name())
		}
		return changes, err
	})
	if err == nil && names != nil {
		c.log.Info("accounts were changed", "statement", verb, "accounts", names)
	}
	return c.changed(err)
}

// changed turns what became of a change into what the client hears.
func (c *session) changed(err error) error {
	var w *wire.Error
	switch {
	case err == nil, errors.As(err, &w):
		return err
	case errors.Is(err, stream.ErrUncertain), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		c.log.Warn("a statement could not be carried out by the cluster", "error", err)
		return wire.Errorf(wire.ErUnknown, "kingbus: no node could do it in time: a majority of the nodes has to be up and connected (see `kingbus status`). Whether it was done is not known: look, and repeat it if it was not")
	}
	return err
}

// named returns the account that a statement means.
func (c *session) named(n sql.UserName) (user, host string) {
	if n.Current {
		return c.ws.User, c.ws.AccountHost
	}
	return strings.Clone(n.User), strings.Clone(n.Host)
}

// cannotUser is MySQL's refusal, with all accounts for which it fails.
func cannotUser(verb sql.UserVerb, names []string) error {
	why := "does not exist"
	if verb == sql.CreateUser {
		why = "already exists"
	}
	for i, name := range names {
		names[i] = name + " (User account " + why + ")"
	}
	return wire.Errorf(errCannotUser, "Operation %s failed for %s", verb, strings.Join(names, ","))
}

// users is CREATE USER, ALTER USER, DROP USER and SET PASSWORD.
func (c *session) users(ctx context.Context, st *sql.Users) error {
	own := c.may(account.Super) != nil
	if own {
		if !c.ownPassword(st) {
			return c.may(account.Super)
		}
		if !c.server.ownPasswords.again(c.ws.User+"@"+c.ws.AccountHost, c.server.cfg.Now()) {
			return wire.Errorf(wire.ErUnknown, "kingbus: an account can change its own password %d times within %s", ownPasswordTimes, ownPasswordWithin)
		}
	}
	// Hashes are made once, though the decision may be taken several times.
	var changes []account.Change
	identities := make([]account.Identity, len(st.Users))
	for i, u := range st.Users {
		user, host := c.named(u.UserName)
		ch := account.Change{Account: account.Account{User: user, Host: host}, Drop: st.Verb == sql.DropUser}
		if st.Verb == sql.CreateUser {
			if err := account.CheckName(user, host); err != nil {
				return badName(err)
			}
		}
		if st.Verb == sql.CreateUser {
			ch.ID = account.NewID()
		}
		if u.Identified || st.Verb == sql.CreateUser {
			var err error
			if identities[i], err = identityOf(u); err != nil {
				return err
			}
		}
		changes = append(changes, ch)
	}
	return c.change(ctx, string(st.Verb), func(t *account.Table) ([]account.Change, error) {
		var out []account.Change
		var failed []string
		for i, ch := range changes {
			old, there := t.Get(ch.User, ch.Host)
			twice := slices.ContainsFunc(changes[:i], func(o account.Change) bool { return o.User == ch.User && o.Host == ch.Host })
			if there == (st.Verb == sql.CreateUser) || twice {
				if !st.Tolerant || twice {
					failed = append(failed, ch.Name())
				}
				continue
			}
			if st.Verb == sql.AlterUser {
				ch.Account = old
			}
			if own && old.ID != c.ws.AccountID { // this node has not heard of it before
				return nil, c.may(account.Super)
			}
			if st.Users[i].Identified {
				identities[i].On(&ch.Account)
			}
			if st.Require != 0 {
				ch.RequireTLS = st.Require == sql.RequireSSL
			}
			if st.Lock != 0 {
				ch.Locked = st.Lock == sql.LockOn
			}
			out = append(out, ch)
		}
		if failed != nil {
			return nil, cannotUser(st.Verb, failed)
		}
		return out, nil
	})
}

// ownPassword tells whether a statement changes nothing but the session's own password.
func (c *session) ownPassword(st *sql.Users) bool {
	if st.Verb != sql.AlterUser || st.Require != 0 || st.Lock != 0 || len(st.Users) != 1 {
		return false
	}
	user, host := c.named(st.Users[0].UserName)
	if !st.Users[0].HasPassword || user != c.ws.User || host != c.ws.AccountHost || c.server.cfg.Users == nil {
		return false
	}
	a, there := c.server.cfg.Users.Table().Get(user, host)
	return there && a.ID == c.ws.AccountID
}

func badName(err error) error {
	var long *account.NameError
	if errors.As(err, &long) {
		return wire.Errorf(errWrongStringLength, "%v", err)
	}
	return wire.Errorf(errCannotUser, "%v", err)
}

// identityOf makes what is stored of how an account logs in.
func identityOf(u sql.User) (i account.Identity, err error) {
	if u.HasHash && u.Hash == "" {
		return i, wire.Errorf(errPasswordFormat, "The password hash doesn't have the expected format.")
	}
	i, err = account.NewIdentity(u.Plugin, u.Password, u.Hash)
	switch {
	case errors.Is(err, account.ErrPlugin):
		err = wire.Errorf(errPluginNotLoaded, "Plugin '%s' is not loaded", clip(u.Plugin, 64))
	case errors.Is(err, account.ErrHash):
		err = wire.Errorf(errPasswordFormat, "The password hash doesn't have the expected format.")
	case errors.Is(err, account.ErrPassword) && u.Password == "":
		err = wire.Errorf(errNotValidPassword, "Your password does not satisfy the current policy requirements: kingbus has no accounts without password")
	case err != nil:
		err = wire.Errorf(errNotValidPassword, "Your password does not satisfy the current policy requirements: %v", err)
	}
	return i, err
}

// grant is GRANT and REVOKE.
func (c *session) grant(ctx context.Context, st *sql.Grant) error {
	if err := c.may(account.Super); err != nil {
		return err
	}
	var p account.Privileges
	for _, name := range st.Privileges {
		more, err := account.ParsePrivilege(name)
		if err != nil {
			return wire.Errorf(wire.ErNotSupportedYet, "%v", err)
		}
		p |= more
	}
	verb := "GRANT"
	if st.Revoke {
		verb = "REVOKE"
	}
	return c.change(ctx, verb, func(t *account.Table) ([]account.Change, error) {
		var out []account.Change
		for _, name := range st.Users {
			user, host := c.named(name)
			a, there := t.Get(user, host)
			switch {
			case !there && st.Revoke && st.Tolerant:
				continue
			case !there && st.Revoke:
				return nil, noGrant(user, host)
			case !there:
				return nil, wire.Errorf(wire.ErCantCreateUserWithGrant, "You are not allowed to create a user with GRANT")
			case st.Revoke:
				a.Privileges &^= p
			default:
				a.Privileges |= p
			}
			out = append(out, account.Change{Account: a})
		}
		return out, nil
	})
}

func noGrant(user, host string) error {
	return wire.Errorf(wire.ErNonexistingGrant, "There is no such grant defined for user '%s' on host '%s'", clip(user, 64), clip(host, 64))
}

// showGrants is SHOW GRANTS.
func (c *session) showGrants(st *sql.Show) (*sql.ResultSet, error) {
	user, host := c.ws.User, c.accountHost()
	if st.User != "" {
		user, host = st.User, strings.ToLower(st.Host)
	}
	p := account.ReplicationSlave | account.ReplicationClient
	if users := c.server.cfg.Users; users != nil {
		own := user == c.ws.User && host == c.ws.AccountHost
		if !own && c.may(account.Super) != nil {
			return nil, c.noDatabase("mysql")
		}
		a, there := users.Table().Get(user, host)
		if !there || own && a.ID != c.ws.AccountID && c.may(account.Super) != nil {
			return nil, noGrant(user, host)
		}
		p = a.Privileges
	} else if user != c.ws.User {
		return nil, c.noDatabase("mysql")
	}
	quote := func(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }
	rs := result(text(fmt.Sprintf("Grants for %s@%s", user, host), 1024))
	rs.Rows = [][]sql.Value{{sql.String("GRANT " + p.String() + " ON *.* TO " + quote(user) + "@" + quote(host))}}
	return rs, nil
}

func (c *session) noDatabase(name string) error {
	return wire.Errorf(wire.ErDBAccessDenied, "Access denied for user '%s'@'%s' to database '%s'", c.ws.User, c.accountHost(), name)
}

// accountHost is the host of the account; % where accounts have none.
func (c *session) accountHost() string {
	if c.ws.AccountHost == "" {
		return "%"
	}
	return c.ws.AccountHost
}

// purge is PURGE BINARY LOGS. As with MySQL what a connected replica reads stays, and
// everything behind it.
func (c *session) purge(ctx context.Context, st *sql.Purge) error {
	if err := c.may(account.Super); err != nil {
		return err
	}
	var before time.Time
	if st.Before != nil {
		v, err := c.sql.Eval(st.Before)
		if err != nil {
			return err
		}
		var ok bool
		if before, ok = c.sql.Time(v); !ok {
			return wire.Errorf(errWrongDatetimeLiteral, "Incorrect DATETIME value: '%s'", clip(v.Text(), 64))
		}
	} else if st.To == "" { // which is no file
		return errNoLog
	}
	plan, err := c.server.cfg.Stream.PlanPurge(st.To, before)
	if err != nil {
		return errNoLog
	}
	if plan.HeldBack {
		c.log.Warn("PURGE BINARY LOGS leaves what a connected replica still reads", "asked", st.To, "before", plan.Keep)
	}
	if len(plan.Remove) == 0 {
		return nil
	}
	c.log.Info("PURGE BINARY LOGS", "before", plan.Keep)
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	return c.changed(c.server.cfg.Stream.Purge(ctx, plan.Keep))
}

var errNoLog = wire.Errorf(errTargetLogNotFound, "Target log not found in binlog index")

// An account without SUPER can change its own password so often within so long: each change is
// an entry of the log, and holds up those of others.
const (
	ownPasswordTimes  = 5
	ownPasswordWithin = time.Minute
)

// recently counts what accounts have done within ownPasswordWithin.
type recently struct {
	mu   sync.Mutex
	done map[string][]time.Time
}

// again tells whether an account may do it once more, and notes it then.
func (r *recently) again(name string, now time.Time) bool {
	const most = 4096
	r.mu.Lock()
	defer r.mu.Unlock()
	done := slices.DeleteFunc(r.done[name], func(t time.Time) bool { return now.Sub(t) >= ownPasswordWithin })
	if len(done) >= ownPasswordTimes {
		return false
	}
	if r.done == nil || len(r.done) >= most {
		r.done = map[string][]time.Time{}
	}
	r.done[strings.Clone(name)] = append(done, now)
	return true
}
