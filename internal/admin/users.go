package admin

import (
	"context"
	"net/http"
	"strings"

	"kingbus/internal/account"
)

// Users is how the API changes accounts; *account.Store is one.
type Users interface {
	Table() *account.Table
	Own(user, host string) bool
	Change(ctx context.Context, decide func(*account.Table) ([]account.Change, error)) error
}

// User is an account as the API shows it.
type User struct {
	User       string   `json:"user"`
	Host       string   `json:"host"`
	Plugin     string   `json:"plugin"`
	Privileges []string `json:"privileges"`
	RequireTLS bool     `json:"require_tls"`
	Locked     bool     `json:"locked"`
	// OfNode: it is in the settings of this node, and not one of the cluster.
	OfNode bool `json:"of_node"`
}

// UserChange is the body of a request that makes an account, or changes one; what is nil
// stays. A new one needs a password or a hash.
type UserChange struct {
	User       string    `json:"user,omitempty"` // of a new one
	Host       string    `json:"host,omitempty"` // "" is %
	Plugin     string    `json:"plugin,omitempty"`
	Password   string    `json:"password,omitempty"`
	Hash       string    `json:"hash,omitempty"` // as MySQL has it, in place of the password
	Privileges *[]string `json:"privileges,omitempty"`
	RequireTLS *bool     `json:"require_tls,omitempty"`
	Locked     *bool     `json:"locked,omitempty"`
}

// shown is what it says, for the log.
func (c UserChange) shown() string {
	if c.Password != "" {
		c.Password = hidden
	}
	if c.Hash != "" {
		c.Hash = hidden
	}
	return brief(c)
}

func (s *Server) users(w http.ResponseWriter, _ *http.Request) {
	out := []User{}
	for _, a := range s.cfg.Users.Table().All() {
		out = append(out, User{a.User, a.Host, a.Plugin, a.Privileges.Names(), a.RequireTLS, a.Locked, s.cfg.Users.Own(a.User, a.Host)})
	}
	s.json(w, http.StatusOK, out)
}

// on applies a change to an account.
func (c UserChange) on(a account.Account) (account.Account, error) {
	if c.Privileges != nil {
		a.Privileges = 0
		for _, name := range *c.Privileges {
			p, err := account.ParsePrivilege(name)
			if err != nil {
				return a, &failure{code: CodeBadRequest, err: err}
			}
			a.Privileges |= p
		}
	}
	if c.RequireTLS != nil {
		a.RequireTLS = *c.RequireTLS
	}
	if c.Locked != nil {
		a.Locked = *c.Locked
	}
	return a, nil
}

// identity makes what is stored of the password.
func (c UserChange) identity() (account.Identity, error) {
	i, err := account.NewIdentity(c.Plugin, c.Password, c.Hash)
	if err != nil {
		return i, &failure{code: CodeBadRequest, err: err}
	}
	return i, nil
}

func (s *Server) addUser(ctx context.Context, _ *http.Request, body []byte) (string, error) {
	c, err := decode[UserChange](body, "an account")
	if err != nil {
		return "", err
	}
	a := account.Account{User: c.User, Host: strings.ToLower(c.Host), ID: account.NewID()}
	if a.Host == "" {
		a.Host = "%"
	}
	if err := account.CheckName(a.User, a.Host); err != nil {
		return "", &failure{code: CodeBadRequest, err: err}
	}
	identity, err := c.identity()
	if err != nil {
		return "", err
	}
	identity.On(&a)
	if a, err = c.on(a); err != nil {
		return "", err
	}
	return "account " + a.Name() + " made: " + c.shown(), s.cfg.Users.Change(ctx, func(t *account.Table) ([]account.Change, error) {
		if _, there := t.Get(a.User, a.Host); there {
			return nil, fail(CodeConflict, "there is an account "+a.Name()+" already")
		}
		return []account.Change{{Account: a}}, nil
	})
}

func (s *Server) changeUser(ctx context.Context, r *http.Request, body []byte) (string, error) {
	c, err := decode[UserChange](body, "an account")
	if err != nil {
		return "", err
	}
	if c.User != "" || c.Host != "" {
		return "", fail(CodeBadRequest, "an account keeps its name: make another one, and drop this one")
	}
	identified := c.Password != "" || c.Hash != "" || c.Plugin != ""
	var identity account.Identity
	if identified {
		if identity, err = c.identity(); err != nil {
			return "", err
		}
	}
	return s.onUser(ctx, r, "changed: "+c.shown(), func(a account.Account) (account.Change, error) {
		if identified {
			identity.On(&a)
		}
		a, err := c.on(a)
		return account.Change{Account: a}, err
	})
}

func (s *Server) dropUser(ctx context.Context, r *http.Request, _ []byte) (string, error) {
	return s.onUser(ctx, r, "dropped", func(a account.Account) (account.Change, error) {
		return account.Change{Account: a, Drop: true}, nil
	})
}

// onUser does something with the account that the request names.
func (s *Server) onUser(ctx context.Context, r *http.Request, did string, do func(account.Account) (account.Change, error)) (string, error) {
	user, host := r.PathValue("user"), strings.ToLower(r.PathValue("host"))
	name := account.Name(user, host)
	return "account " + name + " " + did, s.cfg.Users.Change(ctx, func(t *account.Table) ([]account.Change, error) {
		a, there := t.Get(user, host)
		if !there {
			return nil, fail(CodeNotFound, "there is no account "+name)
		}
		c, err := do(a)
		return []account.Change{c}, err
	})
}
