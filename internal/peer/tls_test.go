package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"kingbus/internal/keys"
)

// authority signs certificates for one key, which all nodes of a test share.
type authority struct {
	dir       string
	cert      *x509.Certificate
	signer    *ecdsa.PrivateKey
	node      *ecdsa.PrivateKey
	file, key string // PEM
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	var err [2]error
	a.signer, err[0] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.node, err[1] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err[:]...); err != nil {
		t.Fatal(err)
	}
	a.cert = template(name)
	a.cert.IsCA, a.cert.BasicConstraintsValid, a.cert.KeyUsage = true, true, x509.KeyUsageCertSign
	der, e := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.signer.Public(), a.signer)
	if e != nil {
		t.Fatal(e)
	}
	a.file = a.write(t, "ca-*.pem", "CERTIFICATE", der)
	if der, e = x509.MarshalPKCS8PrivateKey(a.node); e != nil {
		t.Fatal(e)
	}
	a.key = a.write(t, "key-*.pem", "PRIVATE KEY", der)
	return a
}

func template(name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62)) // crypto/rand does not fail
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

func (a *authority) write(t testing.TB, pattern, kind string, der []byte) string {
	t.Helper()
	f, err := os.CreateTemp(a.dir, pattern)
	if err == nil {
		err = errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// issue makes a certificate for 127.0.0.1 and both roles, unless change makes it another.
func (a *authority) issue(t testing.TB, change func(*x509.Certificate)) (file string) {
	t.Helper()
	c := template("node")
	c.KeyUsage = x509.KeyUsageDigitalSignature
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, a.node.Public(), a.signer)
	if err != nil {
		t.Fatal(err)
	}
	return a.write(t, "cert-*.pem", "CERTIFICATE", der)
}

func TestTLS(t *testing.T) {
	a, b := newAuthority(t, "CA"), newAuthority(t, "CA")
	ours, theirs, strange := mutual(t, a), mutual(t, b), mutual(t, newAuthority(t, "other CA"))
	change := func(f func(*tls.Config)) *tls.Config {
		cfg := ours.Clone()
		f(cfg)
		return cfg
	}
	elsewhere, err := LoadTLS(a.issue(t, func(c *x509.Certificate) {
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)}
	}), a.key, a.file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name           string
		client, server *tls.Config
		want           error
		dial, log      string // in the error, and in the server's log
	}{
		{"both", ours, mutual(t, a), nil, "", ""},
		{"neither", nil, nil, nil, "", ""},
		{"TLS dials clear", ours, nil, ErrPeerClear, "", ErrPeerTLS.Error()},
		{"clear dials TLS", nil, ours, ErrPeerTLS, "", ErrPeerClear.Error()},
		{"server of another CA", ours, theirs, nil, "certificate signed by unknown authority", "bad certificate"},
		{"client of another CA", change(func(c *tls.Config) { c.Certificates = theirs.Certificates }), ours, nil,
			"the peer refuses this node's TLS certificate", "failed to verify certificate"},
		// A client keeps a certificate to itself if the server names other CAs.
		{"client of a CA with another name", change(func(c *tls.Config) { c.Certificates = strange.Certificates }), ours, nil,
			"the peer refuses this node's TLS certificate", "didn't provide a certificate"},
		{"no client certificate", change(func(c *tls.Config) { c.Certificates = nil }), ours, nil,
			"the peer refuses this node's TLS certificate", "didn't provide a certificate"},
		{"certificate for another host", ours, elsewhere, nil, "valid for 127.0.0.2, not 127.0.0.1", "bad certificate"},
		{"TLS 1.2", change(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), ours, nil,
			"protocol version not supported", "unsupported versions"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log rec
			_, addr := start(t, Config{TLS: tt.server, Log: log.logger()}, &node{})
			c, h, err := Dial(testContext(t), Config{TLS: tt.client}, addr, hello)
			if tt.want == nil && tt.dial == "" {
				if err != nil || h.Name != "server" {
					t.Fatalf("got %+v, %v", h, err)
				}
				c.Close()
				return
			}
			if c != nil || err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.dial) {
				t.Errorf("got %v, want %v with %q", err, tt.want, tt.dial)
			}
			eventually(t, "the server logs "+tt.log, func() bool { return log.has(tt.log) })
		})
	}
	if ours.ServerName != "" {
		t.Error("Dial has changed the configuration")
	}
}

// TestTLSDialsSomethingElse that speaks first.
func TestTLSDialsSomethingElse(t *testing.T) {
	cfg := Config{TLS: mutual(t, newAuthority(t, "CA"))}
	_, _, err := Dial(testContext(t), cfg, scripted(t, "SSH-2.0-OpenSSH_9.2\r\n"), hello)
	if !errors.Is(err, ErrNotPeer) || !strings.Contains(err.Error(), "SSH-2") {
		t.Errorf("got %v", err)
	}
}

// TestTLSHides what is said.
func TestTLSHides(t *testing.T) {
	cfg := Config{TLS: mutual(t, newAuthority(t, "CA"))}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log rec // all that crosses the wire to the server
	s := NewServer(cfg, &node{})
	serve(t, s, &tapped{l, &log})
	c, _, err := Dial(testContext(t), cfg, l.Addr().String(), hello)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.WriteFrame([]byte("a secret")); err != nil {
		t.Fatal(err)
	}
	if b, err := c.ReadFrame(); err != nil || string(b) != "a secret" {
		t.Fatalf("got %q, %v", b, err)
	}
	if !log.has("\x16\x03") || log.has(magic) || log.has(hello.Name+".example") || log.has("a secret") {
		t.Error("it can be read on the wire, or nothing was")
	}
}

type tapped struct {
	net.Listener
	w io.Writer
}

func (l *tapped) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tappedConn{nc, l.w}, nil
}

type tappedConn struct {
	net.Conn
	w io.Writer
}

func (c *tappedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	_, _ = c.w.Write(p[:n])
	return n, err
}

// TestTLSChain: the certificate's file has the one between it and the CA too.
func TestTLSChain(t *testing.T) {
	root, between := newAuthority(t, "CA"), newAuthority(t, "CA of nodes")
	var err error
	if between.cert.Raw, err = x509.CreateCertificate(rand.Reader, between.cert, root.cert, between.signer.Public(), root.signer); err != nil {
		t.Fatal(err)
	}
	file := between.issue(t, nil)
	if _, err := LoadTLS(file, between.key, root.file); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("without it: got %v", err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: between.cert.Raw})...)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadTLS(file, between.key, root.file)
	if err != nil {
		t.Fatal(err)
	}
	pair(t, Config{TLS: cfg}, Config{TLS: cfg})
}

func TestLoadTLSRefuses(t *testing.T) {
	a, b := newAuthority(t, "CA"), newAuthority(t, "CA")
	good := a.issue(t, nil)
	for _, tt := range []struct{ name, cert, key, ca, want string }{
		{"no certificate", good + "x", a.key, a.file, "no such file"},
		{"key of another", good, b.key, a.file, "private key does not match"},
		{"no CA", good, a.key, a.file + "x", "no such file"},
		{"CA that is a key", good, a.key, a.key, "there is no certificate in"},
		{"another CA", good, a.key, b.file, "not good for a server: x509: certificate signed by unknown authority"},
		{"expired", a.issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), a.key, a.file, "expired"},
		{"servers only", a.issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), a.key, a.file, "not good for a client"},
		{"clients only", a.issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }), a.key, a.file, "not good for a server"},
	} {
		if _, err := LoadTLS(tt.cert, tt.key, tt.ca); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestTLSReload: files that are replaced count from the next connection on, in both roles; those that
// cannot be used do not, and connections that are there go on.
func TestTLSReload(t *testing.T) {
	old, next := newAuthority(t, "CA"), newAuthority(t, "next CA")
	type side struct {
		files []string // certificate, key, authority
		cfg   *tls.Config
		told  chan error
	}
	replace := func(to, with string) {
		t.Helper()
		text, err := os.ReadFile(with)
		if err == nil {
			err = errors.Join(os.WriteFile(to+".new", text, 0o600), os.Rename(to+".new", to))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	install := func(s *side, a *authority) {
		t.Helper()
		for i, with := range []string{a.issue(t, nil), a.key, a.file} {
			replace(s.files[i], with)
		}
	}
	newSide := func() *side {
		s := &side{told: make(chan error, 8)}
		for _, name := range []string{"cert", "key", "ca"} {
			s.files = append(s.files, t.TempDir()+"/"+name)
		}
		install(s, old)
		var err error
		s.cfg, err = keys.ReloadTLS(s.files, func() (*tls.Config, error) { return LoadTLS(s.files[0], s.files[1], s.files[2]) },
			func(_ *x509.Certificate, err error) { s.told <- err })
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	client, server := newSide(), newSide()
	_, addr := start(t, Config{TLS: server.cfg}, &node{})
	dial := func() (*Conn, error) {
		c, _, err := Dial(testContext(t), Config{TLS: client.cfg}, addr, hello)
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
		return c, err
	}
	first, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	install(server, next)
	if _, err := dial(); err == nil {
		t.Error("the server shows its old certificate, or the client trusts any")
	}
	if err := <-server.told; err != nil {
		t.Error(err)
	}
	install(client, next)
	second, err := dial()
	if err != nil {
		t.Fatalf("with both replaced: %v", err)
	}
	if err := <-client.told; err != nil {
		t.Error(err)
	}
	// A certificate of another authority than the file's is good for nothing.
	replace(client.files[0], old.issue(t, nil))
	third, err := dial()
	if err != nil {
		t.Fatalf("with what cannot be used: %v", err)
	}
	if err := <-client.told; err == nil {
		t.Error("nobody was told")
	}
	for i, c := range []*Conn{first, second, third} {
		if err := c.WriteFrame([]byte("still there")); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
		if b, err := c.ReadFrame(); err != nil || string(b) != "still there" {
			t.Errorf("connection %d: %q, %v", i, b, err)
		}
	}
}
