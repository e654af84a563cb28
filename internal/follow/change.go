package follow

import (
	"context"
	"errors"
	"time"

	"kingbus/internal/source"
)

// What is said about the source is decided here, whoever says it: a statement or the HTTP API.

var (
	// ErrRunning is returned for what cannot be done while the source is followed.
	ErrRunning = errors.New("the source is followed at present: stop that first")
	// ErrFollowed is returned for a start of what has been started: nothing was changed.
	ErrFollowed = errors.New("the source is followed already")
	// ErrStopped is returned for a stop of what is stopped.
	ErrStopped = errors.New("nobody follows the source")
	// ErrNoSource is returned for a start when nothing says whom to follow.
	ErrNoSource = errors.New("no source is configured: neither by the cluster nor in the settings of this node")
	// ErrBegun is returned for a change of where an empty binlog begins, when it is not empty.
	ErrBegun = errors.New("the binlog has begun, and goes on where it ends: where to start cannot be said any more")
)

// ValueError is a value that makes no sense. It has no password in it.
type ValueError struct{ err error }

func (e *ValueError) Error() string { return e.err.Error() }
func (e *ValueError) Unwrap() error { return e.err }

// Change is what CHANGE REPLICATION SOURCE says. What is nil stays as it is.
type Change struct {
	Host     *string `json:"host,omitempty"`
	Port     *uint16 `json:"port,omitempty"`
	User     *string `json:"user,omitempty"`
	Password *string `json:"password,omitempty"`
	// HeartbeatSeconds is how long the source may be silent before it has to send a heartbeat.
	HeartbeatSeconds *float64 `json:"heartbeat_seconds,omitempty"`
	// SSL demands TLS, or forbids it; SSLVerify demands that the certificate was issued for
	// the host.
	SSL       *bool `json:"ssl,omitempty"`
	SSLVerify *bool `json:"ssl_verify,omitempty"`
	// SSLCA, SSLCert and SSLKey are files on each node.
	SSLCA   *string `json:"ssl_ca,omitempty"`
	SSLCert *string `json:"ssl_cert,omitempty"`
	SSLKey  *string `json:"ssl_key,omitempty"`
	// GetPublicKey takes the source's RSA key from itself, where there is no TLS.
	GetPublicKey *bool `json:"get_public_key,omitempty"`
	// Start is where an empty binlog begins: oldest, current, the name of a file, or gtid:SET.
	Start *string `json:"start,omitempty"`
}

// on applies it.
func (c Change) on(s Setting) (Setting, error) {
	flag := map[bool]string{false: "0", true: "1"}
	for _, text := range []struct{ from, to *string }{
		{c.Host, &s.Host}, {c.User, &s.User}, {c.Password, &s.Password}, {c.SSLCA, &s.CA}, {c.SSLCert, &s.Cert}, {c.SSLKey, &s.Key}, {c.Start, &s.Start},
	} {
		if text.from != nil {
			*text.to = *text.from
		}
	}
	switch {
	case c.Host != nil && *c.Host == "":
		return s, &ValueError{errors.New("the host is empty")}
	case c.Port != nil && *c.Port == 0:
		return s, &ValueError{errors.New("the port is 0")}
	case c.Port != nil:
		s.Port = *c.Port
	}
	if h := c.HeartbeatSeconds; h != nil {
		if s.Heartbeat = time.Duration(*h * float64(time.Second)); !(*h >= 0.001 && *h <= 3600) {
			return s, &ValueError{errors.New("the heartbeat period is from 0.001 to 3600 seconds")}
		}
	}
	if c.SSL != nil {
		s.SSL = flag[*c.SSL]
	}
	if c.SSLVerify != nil {
		s.Verify = flag[*c.SSLVerify]
	}
	if get := c.GetPublicKey; get != nil {
		s.PublicKey, s.NoPublicKey = *get, !*get
	}
	if c.Start != nil {
		if _, err := source.ParseStart(*c.Start); err != nil {
			return s, &ValueError{err}
		}
	}
	if err := s.Check(); err != nil {
		return s, &ValueError{err}
	}
	return s, nil
}

// Said returns what was said of the source, but for the password.
func (s Setting) Said() Change {
	text := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	flag := func(yes, no bool) *bool {
		if !yes && !no {
			return nil
		}
		return &yes
	}
	c := Change{
		Host: text(s.Host), User: text(s.User), SSL: flag(s.SSL == "1", s.SSL == "0"), SSLVerify: flag(s.Verify == "1", s.Verify == "0"),
		SSLCA: text(s.CA), SSLCert: text(s.Cert), SSLKey: text(s.Key), GetPublicKey: flag(s.PublicKey, s.NoPublicKey), Start: text(s.Start),
	}
	if s.Port != 0 {
		c.Port = &s.Port
	}
	if s.Heartbeat != 0 {
		seconds := s.Heartbeat.Seconds()
		c.HeartbeatSeconds = &seconds
	}
	return c
}

// Configured tells whether there is a source at all, of the cluster or of this node.
func (s *Store) Configured() (bool, error) {
	now, _, err := s.Setting()
	return s.configured(now), err
}

func (s *Store) configured(now Setting) bool { return s.own || now.Host != "" }

// Change says another source, or says other things of it; nobody follows it before Start. Its
// errors are ErrRunning, ErrBegun, *ValueError, and those of stream.Decide.
func (s *Store) Change(ctx context.Context, c Change) error {
	return s.decide(ctx, func(old Setting) (Setting, error) {
		next, err := c.on(old)
		switch {
		case c.Start != nil && s.begun():
			return old, ErrBegun
		case !old.Stopped && s.configured(old):
			return old, ErrRunning
		}
		next.Stopped = true // as with MySQL somebody has to say START REPLICA
		return next, err
	})
}

// Start lets the leader follow the source: for ever, or until what source.ParseUntil reads. Its
// errors are ErrFollowed, ErrNoSource, *ValueError, and those of stream.Decide.
func (s *Store) Start(ctx context.Context, until string) error {
	if _, err := source.ParseUntil(until); err != nil {
		return &ValueError{err}
	}
	return s.decide(ctx, func(now Setting) (Setting, error) {
		if !s.configured(now) {
			return now, ErrNoSource
		}
		if !now.Stopped {
			return now, ErrFollowed
		}
		now.Stopped, now.Until = false, until
		if err := now.Check(); err != nil {
			return now, &ValueError{err}
		}
		return now, nil
	})
}

// Stop stops following, on all nodes. Its errors are ErrStopped, and those of stream.Decide.
func (s *Store) Stop(ctx context.Context) error {
	return s.decide(ctx, func(now Setting) (Setting, error) {
		if now.Stopped {
			return now, ErrStopped
		}
		now.Stopped = true
		return now, nil
	})
}

// Reached stops following, because all that was wanted is there, unless something else than as
// was said meanwhile. Its errors are those of stream.Decide.
func (s *Store) Reached(ctx context.Context, as Setting) error {
	return s.decide(ctx, func(now Setting) (Setting, error) {
		if now == as {
			now.Stopped = true
		}
		return now, nil
	})
}

// Reset forgets what was said: from then on each node's own settings say whom to follow, once
// somebody says Start. Its errors are ErrRunning, and those of stream.Decide.
func (s *Store) Reset(ctx context.Context) error {
	return s.decide(ctx, func(now Setting) (Setting, error) {
		if !now.Stopped && s.configured(now) {
			return now, ErrRunning
		}
		return Setting{Stopped: now.Stopped}, nil
	})
}
