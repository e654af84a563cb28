package admin

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

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
	cfg, err := wire.ReloadServerTLS(files, func(*x509.Certificate, error) {})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Token: testToken, TLS: cfg, Users: &users{}, Follow: newFollow(), Dumps: &dumps{}, Variables: newVariables(), Status: sample, Binlog: exporter{}, Group: &group{}})
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

// TestBounded: a connection for which there is no room is closed, and one that ends makes room.
func TestBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &bounded{Listener: inner, room: make(chan struct{}, 1)}
	defer l.Close()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	dial()
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	if _, err := dial().Read(make([]byte, 1)); err == nil {
		t.Error("there was room for two")
	}
	_, _ = first.Close(), first.Close()
	dial()
	if err := (<-accepted).Close(); err != nil {
		t.Error(err)
	}
}
