package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"time"

	"kingbus/internal/keys"
)

// Authorize gives a request the token.
func Authorize(r *http.Request, token string) {
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
}

// caller is who sends a request.
type caller struct {
	authorized  bool
	from        string  // its address
	certificate string  // the subject of the one that it has shown and that counts; "": none does
	refused     refusal // why it is not authorized
}

// attributes are those of log lines about what a caller does.
func (c caller) attributes() []any {
	out := []any{"from", c.from}
	if c.certificate != "" {
		out = append(out, "certificate", c.certificate)
	}
	return out
}

type callerKey struct{}

// callerOf returns who sends a request that ours has let pass.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// caller tells who sends a request: it is authorized if it has the token, or comes with a
// certificate of the authority for clients. A browser may show that certificate for a page that
// it does not come from: what changes something demands a header that such a page cannot send
// (checkJSON), and no page of another origin is let read an answer.
func (s *Server) caller(r *http.Request) caller {
	c := caller{from: r.RemoteAddr, refused: refusedNothing}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		if s.trusted(r.TLS.PeerCertificates) {
			c.authorized, c.certificate = true, r.TLS.PeerCertificates[0].Subject.String()
			return c
		}
		c.refused = refusedCertificate
	}
	authorization := r.Header.Get("Authorization")
	if authorization == "" {
		return c
	}
	scheme, given, _ := strings.Cut(authorization, " ")
	want, got := sha256.Sum256([]byte(s.cfg.Token())), sha256.Sum256([]byte(strings.TrimSpace(given)))
	c.authorized = strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(want[:], got[:]) == 1
	c.refused = refusedToken
	return c
}

// trusted tells whether a certificate that was good when its connection began still is: the
// authority may have been replaced since, and the certificate has an end.
func (s *Server) trusted(shown []*x509.Certificate) bool {
	cfg := keys.PresentTLS(s.cfg.TLS)
	if cfg == nil || cfg.ClientCAs == nil { // nil would be all authorities of the system
		return false
	}
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	_, err := shown[0].Verify(x509.VerifyOptions{Roots: cfg.ClientCAs, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err == nil
}

// guessDelay is how long the answer to a wrong token takes, wherever it is shown. Who does not
// wait for it has no room for another connection sooner, and the connections are bounded.
const guessDelay = time.Second

// ours finds out who sends a request, and refuses those that were meant for another host: a web
// page that resolves its own name to an address of this node (DNS rebinding). Who is not
// authorized keeps no connection, since there is room for few.
func (s *Server) ours(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		c := s.caller(r)
		g := guestOf(r.Context())
		if g != nil && c.authorized {
			g.authorized()
		}
		if !c.authorized {
			w.Header().Set("Connection", "close")
			if c.refused == refusedToken {
				s.refused.note(refusedToken, c.from)
				s.delay(g)
			}
		}
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.Trim(host, "[]")
		if why := s.foreign(host); why != nil {
			s.fail(w, why)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// delay holds up the answer to a wrong token; its connection may be nil.
func (s *Server) delay(g *guest) {
	if g != nil {
		if !g.wait(true) {
			return
		}
		defer g.wait(false)
	}
	t := time.NewTimer(guessDelay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.stopping:
	}
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
	if shown := keys.PresentTLS(s.cfg.TLS).Certificates; len(shown) == 0 || shown[0].Leaf == nil || shown[0].Leaf.VerifyHostname(host) != nil {
		return &failure{CodeMisdirected, errors.New("the certificate of this node was not issued for that host"), "use an address of the node, or a name for which its certificate was issued"}
	}
	return nil
}

// guarded answers only those who are authorized.
func (s *Server) guarded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if c := callerOf(r.Context()); !c.authorized {
			if c.refused != refusedToken { // which is counted already
				s.refused.note(c.refused, c.from)
			}
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
