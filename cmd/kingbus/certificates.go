package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/keys"
	"kingbus/internal/wire"
)

const (
	// endsSoon is how long before its end a certificate is worth a warning, and warnEvery how often.
	endsSoon  = 30 * 24 * time.Hour
	warnEvery = 24 * time.Hour
)

// shown is a certificate that the node shows to some, of a configuration that may be one of
// keys.ReloadTLS.
type shown struct {
	to  string
	tls *tls.Config
}

// serverTLS shows the certificate of files, as they are at each login, to those who are called so.
func (n *node) serverTLS(files wire.TLSFiles, to string) (*tls.Config, error) {
	cfg, err := n.reloadTLS(files, to, func() (*tls.Config, error) { return wire.LoadServerTLS(files) })
	if err != nil {
		return nil, fmt.Errorf("TLS towards %s: %w", to, err)
	}
	return cfg, nil
}

// reloadTLS is what load makes of files, as they are at each handshake.
func (n *node) reloadTLS(files wire.TLSFiles, to string, load func() (*tls.Config, error)) (*tls.Config, error) {
	return keys.ReloadTLS(files.Paths(), load, func(leaf *x509.Certificate, err error) {
		if err != nil {
			n.log.Error("the new certificate cannot be used; the old one is shown", "to", to, "error", err)
			return
		}
		n.log.Info("a new certificate is shown", "to", to, "not_after", leaf.NotAfter)
		n.warnOfEnd(admin.Certificate{To: to, NotAfter: leaf.NotAfter})
	})
}

// certificates are those that the node shows now.
func (n *node) certificates() []admin.Certificate {
	var out []admin.Certificate
	for _, s := range n.shown {
		if leaf := keys.PresentTLS(s.tls).Certificates[0].Leaf; leaf != nil {
			out = append(out, admin.Certificate{To: s.to, NotAfter: leaf.NotAfter})
		}
	}
	return out
}

func (n *node) warnOfEnd(c admin.Certificate) {
	if time.Until(c.NotAfter) < endsSoon {
		n.log.Warn("a certificate ends soon, or has ended", "to", c.To, "not_after", c.NotAfter, "next_step", "put a new one in its place; it is taken without a restart")
	}
}

// warnOfEnds tells of the certificates that end soon, now and each day until ctx is done: a node runs
// for longer than that.
func (n *node) warnOfEnds(ctx context.Context) {
	tick := time.NewTicker(warnEvery)
	defer tick.Stop()
	for {
		for _, c := range n.certificates() {
			n.warnOfEnd(c)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (n *node) watchCertificates(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	ended := n.run("certificates", func() error {
		n.warnOfEnds(ctx)
		return nil
	})
	n.stops = append(n.stops, stage{"certificates", func(context.Context) error {
		cancel()
		<-ended
		return nil
	}})
	return nil
}
