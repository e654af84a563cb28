package admin

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kingbus/internal/cluster"
	"kingbus/internal/stream"
)

// Config says what an admin server shows. All but Metrics and Log is needed.
type Config struct {
	// Status collects the node's status. It is called for every request and
	// concurrently, must not block for long, and leaves Ready and Now to the
	// server: it only gives Reasons.
	Status    func() Status
	Binlog    Binlog
	Group     Group
	Users     Users
	Follow    Follow
	Dumps     Dumps
	Variables Variables
	// Metrics are those of the replication path, beside what Status tells; nil = none.
	Metrics prometheus.Collector
	// Version and GoVersion label the metric kingbus_build_info.
	Version, GoVersion string
	// Token returns what requests have to show, but for those about health. It is called for
	// each.
	Token func() string
	// TLS is for https; nil = http. Who shows a certificate that it verifies needs no token.
	TLS *tls.Config
	Log *slog.Logger
	Now func() time.Time // nil = time.Now
}

const (
	// maxExports bounds the files that are being sent at the same time, since
	// each reads the disk as fast as it can.
	maxExports = 4
	// stall is how long a client may take nothing of a file.
	stall = 30 * time.Second
	// maxHeader bounds the head of a request in bytes.
	maxHeader = 16 << 10
)

// Server answers the requests. Make it with New, run it with Serve.
type Server struct {
	cfg      Config
	http     *http.Server
	list     string // of the routes, for people
	refused  *refusals
	stopping chan struct{} // closed by stop: whose answer is late gets it now
	stop     func()
	exports  chan struct{} // one token for each that runs
	verifies chan struct{} // likewise: each reads all disks of the cluster
}

// New makes a server. It does nothing before Serve.
func New(cfg Config) (*Server, error) {
	if cfg.Status == nil || cfg.Binlog == nil || cfg.Group == nil || cfg.Users == nil || cfg.Follow == nil || cfg.Dumps == nil || cfg.Variables == nil {
		return nil, errors.New("admin: a status, a stream, a group, accounts, a source and dumps are needed")
	}
	if cfg.Token == nil || cfg.Token() == "" {
		return nil, errors.New("admin: a token is needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{cfg: cfg, refused: newRefusals(cfg.Log, cfg.Now), exports: make(chan struct{}, maxExports), verifies: make(chan struct{}, 1)}
	s.stopping = make(chan struct{})
	s.stop = sync.OnceFunc(func() { close(s.stopping) })
	registry := prometheus.NewPedanticRegistry()
	all := []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newCollector(s)}
	if cfg.Metrics != nil {
		all = append(all, cfg.Metrics)
	}
	for _, c := range all {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("admin: %w", err)
		}
	}
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
	})
	routes := s.routes(metrics.ServeHTTP)
	for _, r := range routes {
		s.list += fmt.Sprintf("%-7s%-42s%s\n", r.method, strings.TrimSuffix(r.path, "{$}"), r.does)
	}
	s.http = &http.Server{
		Handler:           s.ours(s.mux(routes)),
		ConnContext:       withGuest,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      20 * time.Second, // what takes longer moves its own on
		IdleTimeout:       2 * time.Minute,  // of who is authorized: others keep no connection
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Handler returns what answers requests, for tests.
func (s *Server) Handler() http.Handler { return s.http.Handler }

// Serve answers requests until Shutdown. It closes l.
func (s *Server) Serve(l net.Listener) error {
	l = newBounded(l, func(from string) { s.refused.note(refusedConnection, from) }, s.cfg.Now)
	if s.cfg.TLS != nil {
		l = tls.NewListener(l, s.cfg.TLS)
	}
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}

// Shutdown stops accepting, waits for requests until ctx is done, and then
// breaks them off. It is idempotent.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}

// index lists the requests that there are.
func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "kingbus %s\n\n%s", s.cfg.Version, s.list)
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ok")
}

// snapshot returns the status with what the server itself adds.
func (s *Server) snapshot() Status {
	st := s.cfg.Status()
	st.Version = s.cfg.Version
	st.Now = s.cfg.Now().UTC()
	st.Ready = len(st.Reasons) == 0
	if st.Replicas == nil {
		st.Replicas = []Replica{}
	}
	if st.Stream.Files == nil {
		st.Stream.Files = []stream.File{}
	}
	if st.Cluster.Members == nil {
		st.Cluster.Members = []cluster.MemberStatus{}
	}
	if st.Stream.Followed == nil {
		st.Stream.Followed = []string{}
	}
	return st
}

// Readiness is the answer of /readyz.
type Readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"`
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	st := s.snapshot()
	code := http.StatusOK
	if !st.Ready {
		code = http.StatusServiceUnavailable
	}
	if !callerOf(r.Context()).authorized {
		st.Reasons = nil // whoever may not know more learns whether to use the node
	}
	s.json(w, code, Readiness{Ready: st.Ready, Reasons: st.Reasons})
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	s.json(w, http.StatusOK, s.snapshot())
}

func (s *Server) json(w http.ResponseWriter, code int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.cfg.Log.Error("encode an answer", "error", err)
		code, b = http.StatusInternalServerError, []byte(`{"error": "the answer cannot be encoded", "code": "internal", "next": "look at the log of the node"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // the client went away
}
