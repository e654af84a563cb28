package peer

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// LoadTLS makes the mutual TLS 1.3 configuration for both roles from PEM files: certificate and key of this node, and the CA that
// signs those of all nodes. Whoever connects must show a certificate of that CA; whoever is dialled must show one for the host that
// was dialled. A node plays both roles, so its certificate must be good for both: it is checked here, since a peer could only say
// that something is wrong with it.
func LoadTLS(cert, key, ca string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("load the peers' TLS certificate %s with key %s: %w", cert, key, err)
	}
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("load the CA of the peers' TLS certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("load the CA of the peers' TLS certificates: there is no certificate in %s", ca)
	}
	if err := checkPair(pair, pool); err != nil {
		return nil, fmt.Errorf("the peers' TLS certificate %s with CA %s: %w", cert, ca, err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		// Connections are few and long: each is to show its certificate, and records may be full from the start.
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}, nil
}

func checkPair(pair tls.Certificate, pool *x509.CertPool) error {
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return err
	}
	between := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(c)
	}
	for _, role := range []struct {
		name string
		use  x509.ExtKeyUsage
	}{{"server", x509.ExtKeyUsageServerAuth}, {"client", x509.ExtKeyUsageClientAuth}} {
		opts := x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{role.use}}
		if _, err := leaf.Verify(opts); err != nil {
			return fmt.Errorf("not good for a %s: %w", role.name, err)
		}
	}
	return nil
}
