package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// Handler decides about peers that connect, and serves them. Its methods are called concurrently.
type Handler interface {
	// Welcome decides about a peer that said h: the answer, or an error, of which a *Refusal is told to the peer (any other becomes a
	// refusal with code "error"). Its time counts towards the handshake's.
	Welcome(h Hello) (Hello, error)
	// Serve has the connection until it returns; ctx ends when the server closes, and the connection is closed then too.
	// It must not call the server's Close, which waits for it.
	Serve(ctx context.Context, c *Conn, h Hello)
}

// maxConns bounds the connections of a server. A cluster of 7 nodes has less than 50.
const maxConns = 256

// Server accepts peers. Its methods may be called concurrently.
type Server struct {
	cfg     Config
	log     *slog.Logger
	handler Handler
	limit   int // maxConns, but in tests

	ctx    context.Context // done when the server closes
	cancel context.CancelFunc

	mu struct {
		sync.Mutex
		closed    bool
		listeners map[net.Listener]struct{}
		conns     map[net.Conn]struct{} // those in the handshake included
		full      bool                  // and it was logged
	}
	wg sync.WaitGroup // of conns
}

// NewServer makes a server that does nothing before Serve.
func NewServer(cfg Config, h Handler) *Server {
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, log: cfg.Log, handler: h, limit: maxConns}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.mu.listeners = map[net.Listener]struct{}{}
	s.mu.conns = map[net.Conn]struct{}{}
	return s
}

// Serve accepts connections until Close, which gives nil, or until the listener fails. Then connections that were accepted go on.
// It closes l.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	closed := s.mu.closed
	if !closed {
		s.mu.listeners[l] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		return nil
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.mu.listeners, l)
	}()
	return s.acceptLoop(l)
}

// acceptLoop backs off while the process is out of files or memory: both pass.
func (s *Server) acceptLoop(l net.Listener) error {
	const minPause, maxPause = 5 * time.Millisecond, time.Second
	pause := minPause
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = minPause
			s.admit(nc)
			continue
		case s.ctx.Err() != nil:
			return nil
		case !temporary(err):
			return fmt.Errorf("accept peers: %w", err)
		}
		s.log.Warn("cannot accept a connection of a peer; trying again", "error", err)
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
		pause = min(2*pause, maxPause)
	}
}

// temporary are the errors of accept(2) that are no fault of the listener.
func temporary(err error) bool {
	for _, passing := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR, syscall.EPERM,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// admit starts a goroutine for the connection, if there is room.
func (s *Server) admit(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	full := len(s.mu.conns) >= s.limit
	if full && !s.mu.full {
		s.log.Warn("too many connections of peers: turning further ones away", "limit", s.limit)
	}
	s.mu.full = full
	if s.mu.closed || full {
		_ = nc.Close()
		return
	}
	s.mu.conns[nc] = struct{}{}
	s.wg.Go(func() { // under the lock, so that it cannot come after Close's Wait
		s.handle(nc)
		_ = nc.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.mu.conns, nc)
	})
}

// handle takes one connection from the handshake to its end.
func (s *Server) handle(nc net.Conn) {
	c := newConn(s.cfg, nc)
	_ = nc.SetDeadline(time.Now().Add(s.cfg.HandshakeTimeout)) // fails on a closed socket, as all else will
	h, err := c.answer(s.cfg.TLS, s.handler.Welcome)
	if err != nil {
		if s.ctx.Err() == nil {
			s.log.Debug("turned a peer away", "from", c.RemoteAddr(), "error", err)
		}
		farewell(nc)
		return
	}
	_ = nc.SetDeadline(time.Time{})
	defer c.Close()
	s.handler.Serve(s.ctx, c, h)
}

// Close closes listeners and connections, and waits for all that is under way with them, Handler.Serve above all. It is idempotent.
func (s *Server) Close() error {
	s.cancel() // first, so that Serve knows why its connection is gone
	s.mu.Lock()
	s.mu.closed = true
	for l := range s.mu.listeners {
		_ = l.Close() // nothing depends on it: the port is free when the process ends
	}
	for nc := range s.mu.conns {
		_ = nc.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}
