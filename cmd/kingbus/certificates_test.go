package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kingbus/internal/keys"
	"kingbus/internal/wire"
)

// TestEndIsTold: the log tells each day of a certificate that ends soon, and of no other.
func TestEndIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ending := func(in time.Duration) *tls.Config {
			return &tls.Config{Certificates: []tls.Certificate{{Leaf: &x509.Certificate{NotAfter: time.Now().Add(in)}}}}
		}
		log := &output{}
		n := &node{log: slog.New(slog.NewTextHandler(log, nil)), broken: make(chan error, 1)}
		n.shown = []shown{{"replicas", ending(10 * 365 * 24 * time.Hour)}, {"other nodes", ending(endsSoon + warnEvery/2)}}
		if err := n.watchCertificates(t.Context()); err != nil {
			t.Fatal(err)
		}
		for day := range 4 {
			synctest.Wait()
			if got := strings.Count(log.String(), `ends soon, or has ended" to="other nodes"`); got != day || strings.Contains(log.String(), "replicas") {
				t.Errorf("on day %d it has told %d times:\n%s", day, got, log.String())
			}
			time.Sleep(warnEvery)
		}
		if err := n.stops[0].stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestEndOfNew: a new certificate that ends soon is told of when it comes, and the status has its end.
func TestEndOfNew(t *testing.T) {
	dir, soon := t.TempDir(), filepath.Join(t.TempDir(), "soon")
	m, err := keys.Ensure(filepath.Join(dir, "keys"), nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	life := time.Until(m.Server.Leaf.NotAfter)
	if m, err = keys.Ensure(soon, nil, time.Now().Add(endsSoon/2-life)); err != nil {
		t.Fatal(err)
	}
	files := wire.TLSFiles{Cert: filepath.Join(dir, "keys", keys.CertFile), Key: filepath.Join(dir, "keys", keys.KeyFile)}
	var log bytes.Buffer
	n := &node{log: slog.New(slog.NewTextHandler(&log, nil))}
	cfg, err := n.serverTLS(files, "replicas")
	if err != nil {
		t.Fatal(err)
	}
	n.shown = []shown{{"replicas", cfg}}
	if ends := n.certificates(); len(ends) != 1 || time.Until(ends[0].NotAfter) < endsSoon || log.Len() > 0 {
		t.Fatalf("at first: %v, told %s", ends, log.String())
	}
	for from, to := range map[string]string{keys.CertFile: files.Cert, keys.KeyFile: files.Key} {
		b, err := os.ReadFile(filepath.Join(soon, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ends := n.certificates()
	if len(ends) != 1 || ends[0].To != "replicas" || !ends[0].NotAfter.Equal(m.Server.Leaf.NotAfter) {
		t.Errorf("then: %v", ends)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "a new certificate is shown") || !strings.Contains(lines[1], "ends soon") {
		t.Errorf("told: %s", log.String())
	}
}
