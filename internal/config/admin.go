package config

import (
	"errors"
	"fmt"
	"net/url"

	"kingbus/internal/wire"
)

// Admin is the HTTP API of a node, for the node and for who asks it.
type Admin struct {
	Listen string // host:port
	// TokenFile is the file with the token; "": the one in the data folder.
	TokenFile string
	// TLS are the node's files: without a certificate it speaks no TLS, with a CA a certificate
	// of that is as good as the token. With URL they are those of who asks.
	TLS wire.TLSFiles
	// URL is what a command asks, http or https with host and port; "": the node that runs here.
	URL string
}

// check tells why a node cannot listen, or a command ask, as the settings say.
func (a Admin) check() error {
	if (a.TLS.Cert == "") != (a.TLS.Key == "") {
		return errors.New("--admin-tls-cert and --admin-tls-key must be given together")
	}
	if a.URL != "" {
		return nil
	}
	if a.TLS.CA != "" && a.TLS.Cert == "" {
		return errors.New("--admin-tls-ca is for an HTTP API that speaks TLS: give --admin-tls-cert and --admin-tls-key, too")
	}
	if host, _, _ := splitAddress(a.Listen); !isLoopback(host) && a.TLS.Cert == "" {
		return fmt.Errorf("--admin-listen: %q can be reached from other machines, and the HTTP API speaks no TLS: its token could be read on the way there. "+
			"Give --admin-tls-cert and --admin-tls-key, or use a loopback address such as 127.0.0.1:8307 and reach it from elsewhere through ssh -L", a.Listen)
	}
	return nil
}

// CheckAsk demands what a command needs that asks a node.
func (c *Config) CheckAsk() error { return c.Admin.check() }

// adminURL reads where a command finds a node. The token never goes out in clear.
func adminURL(c *Config, v setValue) error {
	const form = "the form is https://HOST:PORT"
	u, err := url.Parse(v.text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New(form) // the text may hold a password
	}
	if host, port, err := splitAddress(u.Host); err != nil || host == "" || port == 0 {
		return errors.New("it names no host and port; " + form)
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		return errors.New("without TLS the token could be read on the way to another machine: use https")
	}
	c.Admin.URL = u.Scheme + "://" + u.Host
	return nil
}
