package main

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"kingbus/internal/config"
	"kingbus/internal/keys"
	"kingbus/internal/wire"
)

// askSettings are the settings of a command that asks a running node.
var askSettings = []string{"admin", "admin-listen", "admin-token-file", "admin-tls-ca", "admin-tls-cert", "admin-tls-key", "data-dir"}

// askFlags makes the flags of a command that asks a running node, but for those that it has
// itself, and returns what makes the client.
func askFlags(cmd *cobra.Command, p process) func() (*client, error) {
	var names []string
	for _, key := range askSettings {
		if cmd.Flags().Lookup(key) == nil {
			names = append(names, key)
		}
	}
	load := settingFlagsOr(cmd, p, p.settings, names...)
	return func() (*client, error) {
		cfg, err := load()
		if errors.Is(err, fs.ErrPermission) {
			err = withCode(exitUsage, fmt.Errorf("%w; run this as the user that runs kingbus, or say with --admin which node to ask", err))
		}
		if err != nil {
			return nil, err
		}
		c, err := clientOf(cfg)
		return c, withCode(exitUsage, err)
	}
}

// clientOf makes the client of the node that the settings name: another one, or the one that
// runs here with the same settings.
func clientOf(cfg *config.Config) (*client, error) {
	if err := cfg.CheckAsk(); err != nil {
		return nil, err
	}
	a := cfg.Admin
	if a.URL != "" {
		trust, err := wire.LoadClientTLS(a.TLS)
		if err != nil {
			return nil, fmt.Errorf("TLS towards %s: %w", a.URL, err)
		}
		token := ""
		if a.TokenFile != "" { // that in a data folder is of the node that runs here
			token, err = keys.ReadToken(a.TokenFile)
		}
		return newClient(a.URL, token, trust), err
	}
	token, err := findToken(cfg)
	if err != nil {
		return nil, err
	}
	if a.TLS.Cert == "" {
		return newClient("http://"+a.Listen, token, nil), nil
	}
	trust, err := trustOnly(a.TLS.Cert)
	if err != nil {
		return nil, fmt.Errorf("--admin-tls-cert: %w", err)
	}
	host, port, err := net.SplitHostPort(a.Listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return newClient("https://"+net.JoinHostPort(host, port), token, trust), err
}

// trustOnly trusts whoever has the certificate of a file: the node with the same settings,
// under whatever name it is reached.
func trustOnly(file string) (*tls.Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	for block != nil && block.Type != "CERTIFICATE" {
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, fmt.Errorf("no certificate found in %s", file)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection replaces it
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, block.Bytes) {
				return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: errors.New("it is not the one in " + file)}
			}
			return nil
		},
	}, nil
}

// findToken returns the token for the HTTP API of the node that has the same settings; ""
// if nothing says where it is.
func findToken(cfg *config.Config) (string, error) {
	file := cfg.Admin.TokenFile
	if file == "" {
		if cfg.DataDir == "" {
			return "", nil
		}
		file = filepath.Join(cfg.DataDir, "keys", keys.TokenFile)
	}
	token, err := keys.ReadToken(file)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("%w; run this as the user that runs kingbus", err)
	case errors.Is(err, fs.ErrNotExist) && cfg.Admin.TokenFile == "":
		return "", fmt.Errorf("%w: a node that was started with this data folder has made it; has this one been?", err)
	}
	return token, err
}
