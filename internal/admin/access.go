package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"
)

// Authorize gives a request the token.
func Authorize(r *http.Request, token string) {
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
}

// authorized tells whether a request has the token.
func (s *Server) authorized(r *http.Request) bool {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	a, b := sha256.Sum256([]byte(strings.TrimSpace(given))), sha256.Sum256([]byte(s.cfg.Token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// guarded answers only those who have the token.
func (s *Server) guarded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.authorized(r) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="kingbus"`)
			s.fail(w, fail(CodeUnauthorized, "this needs the token of the node"))
			return
		}
		next(w, r)
	}
}

// maxProfile is how long a profile may take.
const maxProfile = 5 * time.Minute

// profiles are those of Go's net/http/pprof, under the path that its tools expect.
func profiles() []route {
	patient := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(maxProfile)) // not every ResponseWriter of a test can
			next(w, r)
		}
	}
	return []route{
		{"GET", "/debug/pprof/", false, patient(pprof.Index), "The profiles that there are: goroutine, heap …, each below this path", nil, media("text/html")},
		{"GET", "/debug/pprof/cmdline", false, patient(pprof.Cmdline), "The command line of the process, which has no passwords", nil, plain},
		{"GET", "/debug/pprof/profile", false, patient(pprof.Profile), "A profile of the CPU: ?seconds=N", nil, binary},
		{"GET", "/debug/pprof/symbol", false, patient(pprof.Symbol), "Names of program counters", nil, plain},
		{"GET", "/debug/pprof/trace", false, patient(pprof.Trace), "A trace of the execution: ?seconds=N", nil, binary},
	}
}
