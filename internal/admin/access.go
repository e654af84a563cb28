package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"sync"
)

// Authorize gives a request the token.
func Authorize(r *http.Request, token string) {
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
}

// authorized tells whether a request has the token, or came with a certificate of the
// authority for clients. A browser may show that certificate for a page that it does not come
// from: what changes something demands a header that such a page cannot send (checkJSON), and
// no page of another origin is let read an answer.
func (s *Server) authorized(r *http.Request) bool {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return true
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	a, b := sha256.Sum256([]byte(strings.TrimSpace(given))), sha256.Sum256([]byte(s.cfg.Token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// ours refuses requests that were meant for another host: a web page that resolves its own
// name to an address of this node (DNS rebinding).
func (s *Server) ours(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.Trim(host, "[]")
		if why := s.foreign(host); why != nil {
			s.fail(w, why)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// foreign tells why a host is not this node. With TLS all addresses are, since an address
// is not resolved, and the names for which the certificate was issued.
func (s *Server) foreign(host string) error {
	ip, err := netip.ParseAddr(host)
	switch {
	case strings.EqualFold(host, "localhost"), err == nil && ip.Unmap().IsLoopback():
		return nil
	case s.cfg.TLS == nil:
		return fail(CodeMisdirected, "this API answers only to localhost, 127.0.0.1 or [::1]")
	case err == nil:
		return nil
	}
	if leaf := s.certificate(); leaf == nil || leaf.VerifyHostname(host) != nil {
		return &failure{CodeMisdirected, errors.New("the certificate of this node was not issued for that host"), "use an address of the node, or a name for which its certificate was issued"}
	}
	return nil
}

// certificate returns what is shown at present.
func (s *Server) certificate() *x509.Certificate {
	cfg := s.cfg.TLS
	if cfg.GetConfigForClient != nil { // it is reloaded
		if now, err := cfg.GetConfigForClient(&tls.ClientHelloInfo{}); err == nil && now != nil {
			cfg = now
		}
	}
	if len(cfg.Certificates) == 0 {
		return nil
	}
	return cfg.Certificates[0].Leaf
}

// bounded is a listener with room for so many connections; those beyond are closed at once.
type bounded struct {
	net.Listener
	room chan struct{}
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.room <- struct{}{}:
			return &leaving{Conn: c, left: sync.OnceFunc(func() { <-b.room })}, nil
		default:
			_ = c.Close()
		}
	}
}

// leaving makes room when it is closed.
type leaving struct {
	net.Conn
	left func()
}

func (l *leaving) Close() error {
	defer l.left()
	return l.Conn.Close()
}

// guarded answers only those who have the token.
func (s *Server) guarded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.authorized(r) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="kingbus"`)
			s.fail(w, fail(CodeUnauthorized, "this needs the token of the node, or a certificate that it trusts"))
			return
		}
		next(w, r)
	}
}

// profiles are those of Go's net/http/pprof, under the path that its tools expect. They move
// the server's write deadline on by the seconds that they are asked to take.
func profiles() []route {
	return []route{
		{"GET", "/debug/pprof/", false, pprof.Index, "The profiles that there are: goroutine, heap …, each below this path", nil, media("text/html")},
		{"GET", "/debug/pprof/cmdline", false, pprof.Cmdline, "The command line of the process, which has no passwords", nil, plain},
		{"GET", "/debug/pprof/profile", false, pprof.Profile, "A profile of the CPU: ?seconds=N", nil, binary},
		{"GET", "/debug/pprof/symbol", false, pprof.Symbol, "Names of program counters", nil, plain},
		{"GET", "/debug/pprof/trace", false, pprof.Trace, "A trace of the execution: ?seconds=N", nil, binary},
	}
}
