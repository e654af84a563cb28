package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"syscall"
	"time"

	"kingbus/internal/keys"
)

// Config is shared by both roles.
type Config struct {
	// TLS protects all connections; nil: in clear. One config serves both roles, see LoadTLS; it may be one
	// of keys.ReloadTLS.
	TLS *tls.Config
	// Dial replaces net.Dialer if set.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// HandshakeTimeout covers dialling, TLS and both hellos; 5 s if 0.
	HandshakeTimeout time.Duration
	// MaxFrame is the most bytes of a frame's body, in either direction; 64 MiB if 0.
	MaxFrame int
	Log      *slog.Logger // nil: no logs
}

const (
	defaultHandshakeTimeout = 5 * time.Second
	defaultMaxFrame         = 64 << 20
)

func (cfg Config) withDefaults() Config {
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = defaultHandshakeTimeout
	}
	if cfg.MaxFrame <= 0 {
		cfg.MaxFrame = defaultMaxFrame
	}
	cfg.MaxFrame = min(cfg.MaxFrame, math.MaxInt32)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// Dial connects, says h, and returns what the other end said. Its error wraps a *Refusal if that refused, and ctx's error, at once,
// if ctx is done.
func Dial(ctx context.Context, cfg Config, address string, h Hello) (*Conn, Hello, error) {
	cfg = cfg.withDefaults()
	said, err := encodeHello(h)
	if err != nil {
		return nil, Hello{}, fmt.Errorf("dial peer %s: %w", address, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.HandshakeTimeout,
		fmt.Errorf("no answer within %v: %w", cfg.HandshakeTimeout, context.DeadlineExceeded))
	defer cancel()
	nc, err := cfg.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, Hello{}, dialError(ctx, address, err)
	}
	c := newConn(cfg, nc)
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	answer, err := c.greet(cfg.TLS, address, introduction(said))
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = c.Close()
		return nil, Hello{}, dialError(ctx, address, err)
	}
	return c, answer, nil
}

// dialError names the address, and what ended the attempt rather than what it was doing then.
func dialError(ctx context.Context, address string, err error) error {
	var no *Refusal
	if cause := context.Cause(ctx); cause != nil && !errors.As(err, &no) {
		err = cause
	}
	return fmt.Errorf("dial peer %s: %w", address, err)
}

// greet goes through TLS and says the client's introduction.
func (c *Conn) greet(cfg *tls.Config, address string, said []byte) (Hello, error) {
	if cfg != nil {
		cfg = keys.PresentTLS(cfg).Clone()
		if host, _, err := net.SplitHostPort(address); err == nil && cfg.ServerName == "" {
			cfg.ServerName = host
		}
		if err := c.startTLS(tls.Client(c.line, cfg)); err != nil {
			return Hello{}, err
		}
	}
	// A server that wants none of this may have answered and hung up by now: what it said tells more than that it hung up.
	wrote := c.say(said)
	heard, err := c.hear()
	if err != nil {
		return Hello{}, explain(err)
	}
	answer, err := parseAnswer(heard)
	if err == nil {
		err = wrote
	}
	return answer, err
}

// explain says what it means if instead of an answer there is this error.
func explain(err error) error {
	var remote *net.OpError
	switch {
	case errors.As(err, &remote) && remote.Op == "remote error": // TLS 1.3: the client is done before its certificate is looked at
		return fmt.Errorf("the peer refuses this node's TLS certificate (%w): check that the peer's --peer-ca signed --peer-cert", remote)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("the peer hung up without an answer (%w): it is closing, or has too many connections", err)
	}
	return err
}
