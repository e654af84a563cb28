package wire

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// TLSMode says how a client uses TLS; the names are those of MySQL's --ssl-mode.
type TLSMode int

const (
	// TLSPreferred uses TLS if the server offers it. It protects from nobody who
	// can change what the server says. A password is never sent in clear for it.
	TLSPreferred TLSMode = iota
	// TLSDisabled never uses TLS.
	TLSDisabled
	// TLSRequired fails without TLS; whose certificate it is does not matter.
	TLSRequired
	// TLSVerifyCA also demands a certificate signed by one of the given CAs.
	TLSVerifyCA
	// TLSVerifyIdentity also demands that it was issued for the host dialled.
	TLSVerifyIdentity
)

var tlsModes = [...]string{"preferred", "disabled", "required", "verify-ca", "verify-identity"}

func (m TLSMode) String() string {
	if m < 0 || int(m) >= len(tlsModes) {
		return fmt.Sprintf("TLSMode(%d)", int(m))
	}
	return tlsModes[m]
}

// ParseTLSMode reads the names above, in either case, with '-' or '_'.
func ParseTLSMode(s string) (TLSMode, error) {
	name := strings.ReplaceAll(strings.ToLower(s), "_", "-")
	for m, n := range tlsModes {
		if n == name {
			return TLSMode(m), nil
		}
	}
	return 0, fmt.Errorf("wire: TLS mode %q is not one of %s", s, strings.Join(tlsModes[:], ", "))
}

// TLSFiles names PEM files; each is optional, certificate and key go together.
type TLSFiles struct {
	CA, Cert, Key string
	// MinVersion is the oldest TLS version to accept, tls.VersionTLS12 if zero.
	// MySQL 5.5 and 5.6 may speak only tls.VersionTLS10 or 11, with RSA keys.
	MinVersion uint16
}

// LoadClientTLS builds the configuration of a client: the CA as RootCAs, the
// certificate to show to the server. If versions before 1.2 are allowed, 1.3 is
// not: MySQL 5.6 hangs up on a client that so much as mentions it.
func LoadClientTLS(f TLSFiles) (*tls.Config, error) {
	cfg, pool, err := f.load()
	if err != nil {
		return nil, err
	}
	cfg.RootCAs = pool
	if cfg.MinVersion < tls.VersionTLS12 {
		cfg.MaxVersion = tls.VersionTLS12
	}
	return cfg, nil
}

// LoadServerTLS builds the configuration of a server. If a CA is given, clients
// that show a certificate must have it from there; they need not show one.
func LoadServerTLS(f TLSFiles) (*tls.Config, error) {
	cfg, pool, err := f.load()
	if err != nil {
		return nil, err
	}
	if len(cfg.Certificates) == 0 {
		return nil, errors.New("wire: a TLS server needs a certificate and its key")
	}
	if pool != nil {
		cfg.ClientCAs, cfg.ClientAuth = pool, tls.VerifyClientCertIfGiven
	}
	return cfg, nil
}

func (f TLSFiles) load() (*tls.Config, *x509.CertPool, error) {
	cfg := &tls.Config{MinVersion: f.MinVersion}
	if cfg.MinVersion == 0 {
		cfg.MinVersion = tls.VersionTLS12
	}
	if cfg.MinVersion < tls.VersionTLS12 {
		cfg.CipherSuites = allCipherSuites()
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, nil, errors.New("wire: a TLS certificate and its key must be given together")
	}
	if f.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, nil, fmt.Errorf("wire: TLS certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	if f.CA == "" {
		return cfg, nil, nil
	}
	text, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, nil, fmt.Errorf("wire: TLS CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, nil, fmt.Errorf("wire: TLS CA: no certificate found in %s", f.CA)
	}
	return cfg, pool, nil
}

// Paths are those of the files; "" is one that is not given.
func (f TLSFiles) Paths() []string { return []string{f.Cert, f.Key, f.CA} }

// allCipherSuites adds those that Go leaves out by default, RSA key exchange
// above all: servers old enough to need TLS 1.0 have little else.
func allCipherSuites() []uint16 {
	var ids []uint16
	for _, s := range tls.CipherSuites() {
		ids = append(ids, s.ID)
	}
	for _, s := range tls.InsecureCipherSuites() {
		ids = append(ids, s.ID)
	}
	return ids
}

// clientTLS turns a mode into a configuration for one server. base may be nil.
func clientTLS(base *tls.Config, mode TLSMode, host string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if base != nil {
		cfg = base.Clone()
	}
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	// Go's own check knows no "CA only", and no common names: ours replaces it.
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = nil
	if mode != TLSVerifyCA && mode != TLSVerifyIdentity {
		return cfg, nil
	}
	if mode == TLSVerifyCA && cfg.RootCAs == nil {
		return nil, errors.New("wire: TLS mode verify-ca needs a CA")
	}
	roots, name := cfg.RootCAs, cfg.ServerName
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return errors.New("wire: the server shows no certificate")
		}
		opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, c := range s.PeerCertificates[1:] {
			opts.Intermediates.AddCert(c)
		}
		if _, err := s.PeerCertificates[0].Verify(opts); err != nil {
			return err
		}
		if mode == TLSVerifyIdentity {
			return verifyName(s.PeerCertificates[0], name)
		}
		return nil
	}
	return cfg, nil
}

// verifyName checks for whom a certificate was issued. As MySQL's clients do
// (X509_check_host), it goes by the common name if the certificate has no
// alternative names at all: that is how certificates for databases are still
// made by hand. No wildcards there.
func verifyName(cert *x509.Certificate, name string) error {
	err := cert.VerifyHostname(name)
	if err == nil {
		return nil
	}
	noSAN := len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses)+len(cert.URIs) == 0
	if noSAN && name != "" && strings.EqualFold(cert.Subject.CommonName, name) {
		return nil
	}
	return err
}
