package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kingbus/internal/cluster"
	"kingbus/internal/keys"
	"kingbus/internal/wire"
)

// issue makes an authority, with a certificate for hosts, in files of dir, which it replaces.
func issue(t *testing.T, dir string, hosts ...string) (wire.TLSFiles, *keys.Material) {
	t.Helper()
	made := filepath.Join(t.TempDir(), "keys")
	m, err := keys.Ensure(made, hosts, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{keys.CAFile, keys.CertFile, keys.KeyFile} {
		if err := os.Rename(filepath.Join(made, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return wire.TLSFiles{CA: filepath.Join(dir, keys.CAFile), Cert: filepath.Join(dir, keys.CertFile), Key: filepath.Join(dir, keys.KeyFile)}, m
}

// newTLSServer has the certificate of files, and lets in who shows one of their authority.
func newTLSServer(t *testing.T, files wire.TLSFiles) *Server {
	t.Helper()
	cfg, err := keys.ReloadTLS(files.Paths(), func() (*tls.Config, error) { return wire.LoadServerTLS(files) }, func(*x509.Certificate, error) {})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Token: always(testToken), TLS: cfg, Users: &users{}, Follow: newFollow(), Dumps: &dumps{}, Variables: newVariables(), Status: sample, Binlog: exporter{}, Group: &group{}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestTLS: over TLS a certificate of the authority is as good as the token, and one of another
// authority does not even get an answer.
func TestTLS(t *testing.T) {
	files, m := issue(t, t.TempDir())
	_, other := issue(t, t.TempDir())
	address := serve(t, newTLSServer(t, files))[len("http://"):]
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(m.CAPEM)
	for _, tc := range []struct {
		name   string
		show   *keys.Material
		token  string
		status int // 0: no answer
	}{
		{"nothing", nil, "", 401},
		{"the token", nil, testToken, 200},
		{"another token", nil, testToken + "x", 401},
		{"a certificate", m, "", 200},
		{"a certificate of another authority", other, "", 0},
		{"that, and the token", other, testToken, 0},
	} {
		cfg := &tls.Config{RootCAs: roots}
		if tc.show != nil { // even if the server asks for one of another authority
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tc.show.Server, nil }
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}}
		r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+address+"/api/v1/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		Authorize(r, tc.token)
		answer, err := client.Do(r)
		status := 0
		if err == nil {
			status = answer.StatusCode
			_ = answer.Body.Close()
		}
		if status != tc.status {
			t.Errorf("with %s: %d, %v", tc.name, status, err)
		}
	}
}

// TestHostsWithTLS: the names of the certificate are this node's, those of the one that is
// shown at present, and so is every address.
func TestHostsWithTLS(t *testing.T) {
	dir := t.TempDir()
	files, _ := issue(t, dir, "db1.example")
	s := newTLSServer(t, files)
	check := func(hosts map[string]int) {
		t.Helper()
		for host, want := range hosts {
			r := httptest.NewRequest("GET", "/api/v1/status", nil)
			Authorize(r, testToken)
			r.Host = host
			w := httptest.NewRecorder()
			if s.Handler().ServeHTTP(w, r); w.Code != want {
				t.Errorf("host %q: %d, want %d", host, w.Code, want)
			}
		}
	}
	check(map[string]int{
		"127.0.0.1:8307": 200, "localhost": 200, "db1.example:8307": 200, "DB1.example": 200, "10.0.0.1:8307": 200, "[fe80::1]:8307": 200,
		"db2.example": 421, "evil.example:8307": 421, "": 421, "x.db1.example": 421,
	})
	issue(t, dir, "db2.example")
	check(map[string]int{"db2.example": 200, "db1.example": 421})
}

// TestKept: a connection is kept for who has the token, and not for who asks only what everybody
// may: nobody else had room otherwise.
func TestKept(t *testing.T) {
	address := serve(t, newServer(t, sample(), exporter{}))
	for _, tc := range []struct {
		path, token string
		kept        bool
	}{
		{"/healthz", "", false}, {"/readyz", "", false}, {"/api/v1/status", "", false}, {"/nothing", "", false},
		{"/healthz", testToken, true}, {"/api/v1/status", testToken, true},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", address+tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		Authorize(r, tc.token)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.Close == tc.kept {
			t.Errorf("%s with the token %q: closed: %v", tc.path, tc.token, answer.Close)
		}
	}
}

// TestRefused: who is refused is counted and told, not for each time, and waits if it shows a
// token: also where none is needed, which would tell whether it was guessed.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s, err := New(Config{
			Token: always(testToken), Users: &users{}, Follow: newFollow(), Dumps: &dumps{}, Variables: newVariables(), Status: sample, Binlog: exporter{}, Group: &group{},
			Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(path, token string) (took time.Duration) {
			r := httptest.NewRequest("GET", path, nil)
			gone, leave := context.WithCancel(t.Context())
			leave() // it does not wait for the answer
			r = r.WithContext(gone)
			r.Host, r.RemoteAddr = "localhost", "10.0.0.7:99"
			Authorize(r, token)
			began := time.Now()
			s.Handler().ServeHTTP(httptest.NewRecorder(), r)
			return time.Since(began) // of the bubble: only what waits takes time
		}
		for path, token := range map[string]string{"/healthz": "wrong", "/readyz": "wrong", "/api/v1/status": "wrong", "/api/v1/users": "wrong"} {
			if took := ask(path, token); took != guessDelay {
				t.Errorf("%s with a wrong token was answered after %s", path, took)
			}
		}
		for path, token := range map[string]string{"/healthz": "", "/api/v1/status": "", "/api/v1/users": testToken} {
			if took := ask(path, token); took != 0 {
				t.Errorf("%s with the token %q was answered after %s", path, token, took)
			}
		}
		metrics := get(s, "/metrics").Body.String()
		for _, want := range []string{`refused_total{reason="token"} 4`, `refused_total{reason="nothing"} 1`, `refused_total{reason="certificate"} 0`, `refused_total{reason="connections"} 0`} {
			if !strings.Contains(metrics, want) {
				t.Errorf("no %q in the metrics", want)
			}
		}
		if got := log.String(); strings.Count(got, "\n") != 2 || strings.Count(got, `a wrong token" from=10.0.0.7:99 count=1 next_step=`) != 1 {
			t.Errorf("told: %s", got)
		}
		log.Reset()
		time.Sleep(refusedEvery)
		ask("/", "wrong")
		if got := log.String(); !strings.Contains(got, "count=4") || strings.Contains(got, "wrong token:") {
			t.Errorf("told after a while: %s", got)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := ask("/", "wrong"); took != 0 {
			t.Errorf("the stop waited %s", took)
		}
	})
}

// TestWithdrawn: a connection that has begun with a certificate of an authority ends to be
// trusted with that authority.
func TestWithdrawn(t *testing.T) {
	dir := t.TempDir()
	files, m := issue(t, dir)
	url := "https://" + serve(t, newTLSServer(t, files))[len("http://"):] + "/api/v1/status"
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(m.CAPEM)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{m.Server}}}
	defer transport.CloseIdleConnections()
	dialed := 0
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed++
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	ask := func() int {
		t.Helper()
		answer, err := (&http.Client{Transport: transport}).Get(url)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body) // else it is not used again
		_ = answer.Body.Close()
		return answer.StatusCode
	}
	if first, second := ask(), ask(); first != 200 || second != 200 || dialed != 1 {
		t.Fatalf("%d, %d over %d connections", first, second, dialed)
	}
	issue(t, dir)
	if code := ask(); code != 401 || dialed != 1 {
		t.Errorf("with the withdrawn authority: %d over %d connections", code, dialed)
	}
}

// TestNewToken: what counts is the token as it is now.
func TestNewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := testToken
		s := newServer(t, sample(), exporter{})
		s.cfg.Token = func() string { return token }
		if w := get(s, "/api/v1/status"); w.Code != 200 {
			t.Errorf("at first: %d", w.Code)
		}
		token += "new"
		if w := get(s, "/api/v1/status"); w.Code != 401 {
			t.Errorf("with the old one: %d", w.Code)
		}
	})
}

// TestAudit: the log tells of each change what it was, who has asked for it and from where, and
// no password or hash.
func TestAudit(t *testing.T) {
	const hash = "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"
	var log bytes.Buffer
	s, err := New(Config{
		Token: always(testToken), Users: &users{}, Follow: newFollow(), Dumps: &dumps{}, Variables: newVariables(), Status: sample, Binlog: exporter{}, Group: &group{},
		Log: slog.New(slog.NewJSONHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ method, path, body, change string }{
		{"PATCH", "/api/v1/source", `{"host":"db2","port":3307,"password":"secret"}`, `how the source is followed: {"host":"db2","port":3307,"password":"(hidden)"}`},
		{"POST", "/api/v1/source/start", `{"until":"b.000009:4"}`, "follow the source until b.000009:4"},
		{"POST", "/api/v1/users", `{"user":"u","password":"secret","privileges":["super"]}`, `account 'u'@'%' made: {"user":"u","password":"(hidden)","privileges":["super"]}`},
		{"PATCH", "/api/v1/users/u/%25", `{"hash":"` + hash + `","plugin":"mysql_native_password","locked":true}`, `account 'u'@'%' changed: {"plugin":"mysql_native_password","hash":"(hidden)","locked":true}`},
		{"PATCH", "/api/v1/variables", `{"set":{"kingbus_retain_force":"ON"},"reset":["kingbus_retain_size"]}`, `variables: {"set":{"kingbus_retain_force":"ON"},"reset":["kingbus_retain_size"]}`},
	} {
		log.Reset()
		if w := send(s, tc.method, tc.path, asJSON, tc.body); w.Code != 204 {
			t.Errorf("%s %s: %d %s", tc.method, tc.path, w.Code, w.Body)
		}
		var line struct{ Change, From string }
		if err := json.Unmarshal(log.Bytes(), &line); err != nil || line.Change != tc.change || line.From != "192.0.2.1:1234" {
			t.Errorf("%s %s: told %s", tc.method, tc.path, log.String())
		}
		if strings.Contains(log.String(), "secret") || strings.Contains(log.String(), hash) {
			t.Errorf("the log has a password: %s", log.String())
		}
	}
	log.Reset()
	s.cfg.Group = &group{err: cluster.ErrDeposed}
	if w := send(s, "POST", "/api/v1/cluster/nodes/n2/lead", asJSON, ""); w.Code != 503 || !strings.Contains(log.String(), "may have been changed") || !strings.Contains(log.String(), "192.0.2.1") {
		t.Errorf("uncertain: %d, told %s", w.Code, log.String())
	}
}

// TestAuditCertificate: who has shown a certificate is named by it.
func TestAuditCertificate(t *testing.T) {
	files, m := issue(t, t.TempDir())
	s := newTLSServer(t, files)
	var log bytes.Buffer
	s.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	r := httptest.NewRequest("POST", "https://localhost/api/v1/source/stop", nil)
	r.Header.Set("Content-Type", "application/json")
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{m.Server.Leaf}, VerifiedChains: [][]*x509.Certificate{{m.Server.Leaf}}}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	if w.Code != 204 || !strings.Contains(log.String(), `certificate="CN=kingbus server"`) {
		t.Errorf("%d %s, told %s", w.Code, w.Body, log.String())
	}
}
