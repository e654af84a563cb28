package wire

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kingbus/internal/keys"
)

// TestTLSFiles goes from a key folder to sessions that verify each other.
func TestTLSFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	m, err := keys.Ensure(dir, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	all := TLSFiles{CA: file(keys.CAFile), Cert: file(keys.CertFile), Key: file(keys.KeyFile)}
	server, err := LoadServerTLS(all)
	if err != nil {
		t.Fatal(err)
	}
	srv := startServer(t, AcceptorConfig{TLS: server, RSAKey: m.Password,
		Accounts: accounts{"u": {Verifier: verifier(t, secret, VerifierForms{})}}})
	for name, files := range map[string]TLSFiles{
		"CA alone":         {CA: all.CA},
		"with certificate": all,
		"TLS 1.2 at most":  {CA: all.CA, MinVersion: tls.VersionTLS10},
	} {
		cfg := clientConfig(srv.addr, "u")
		cfg.TLSMode = TLSVerifyIdentity
		if cfg.TLS, err = LoadClientTLS(files); err != nil {
			t.Fatal(err)
		}
		if files.MinVersion != 0 {
			cfg.TLS.MaxVersion = tls.VersionTLS12
		}
		c, err := Dial(testContext(t), cfg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s := <-srv.sessions
		if got, want := len(s.TLSState().PeerCertificates) > 0, files.Cert != ""; got != want {
			t.Errorf("%s: certificate shown: %v, want %v", name, got, want)
		}
		c.Close()
	}
	// The RSA key's public half, from its file.
	text, err := os.ReadFile(file(keys.PublicKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	cfg := clientConfig(srv.addr, "u")
	if cfg.ServerPublicKey, err = ParsePublicKey(text); err != nil {
		t.Fatal(err)
	}
	c, err := Dial(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestTLSFilesRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := keys.Ensure(dir, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	ca, cert, key := filepath.Join(dir, keys.CAFile), filepath.Join(dir, keys.CertFile), filepath.Join(dir, keys.KeyFile)
	for name, f := range map[string]TLSFiles{
		"certificate without key": {Cert: cert},
		"key without certificate": {Key: key},
		"key of another":          {Cert: ca, Key: key},
		"no such CA":              {CA: ca + "x", Cert: cert, Key: key},
		"CA that is a key":        {CA: key, Cert: cert, Key: key},
	} {
		if _, err := LoadClientTLS(f); err == nil {
			t.Errorf("client: %s: taken", name)
		}
		if _, err := LoadServerTLS(f); err == nil {
			t.Errorf("server: %s: taken", name)
		}
	}
	if _, err := LoadServerTLS(TLSFiles{CA: ca}); err == nil {
		t.Error("server without a certificate: taken")
	}
}

// TestReloadTLS: a certificate that is replaced is shown from the next handshake on, and one
// that cannot be used changes nothing.
func TestReloadTLS(t *testing.T) {
	dir := t.TempDir()
	files := TLSFiles{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	install := func() *keys.Material {
		t.Helper()
		made := filepath.Join(t.TempDir(), "keys")
		m, err := keys.Ensure(made, nil, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for from, to := range map[string]string{keys.CertFile: files.Cert, keys.KeyFile: files.Key} {
			if err := os.Rename(filepath.Join(made, from), to); err != nil {
				t.Fatal(err)
			}
		}
		return m
	}
	m := install()
	type news struct {
		leaf *x509.Certificate
		err  error
	}
	told := make(chan news, 8)
	server, err := keys.ReloadTLS(files.Paths(), func() (*tls.Config, error) { return LoadServerTLS(files) }, func(leaf *x509.Certificate, err error) { told <- news{leaf, err} })
	if err != nil {
		t.Fatal(err)
	}
	srv := startServer(t, AcceptorConfig{TLS: server, RSAKey: m.Password, Accounts: accounts{"u": {Verifier: verifier(t, secret, VerifierForms{})}}})
	shown := func(want *keys.Material) {
		t.Helper()
		cfg := clientConfig(srv.addr, "u")
		cfg.TLSMode = TLSRequired
		c, err := Dial(testContext(t), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		<-srv.sessions
		if !c.Conn().TLSState().PeerCertificates[0].Equal(want.Server.Leaf) {
			t.Error("it is another certificate")
		}
	}
	shown(m)
	next := install()
	shown(next)
	if n := <-told; n.err != nil || !n.leaf.Equal(next.Server.Leaf) {
		t.Errorf("told %+v", n)
	}
	if err := os.WriteFile(files.Key, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	shown(next)
	shown(next)
	if n := <-told; n.err == nil || len(told) > 0 {
		t.Errorf("told %+v, and %d more", n, len(told))
	}
	shown2 := install()
	shown(shown2)
}
