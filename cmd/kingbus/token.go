package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"kingbus/internal/config"
	"kingbus/internal/keys"
)

// askSettings are the settings of a command that asks a running node.
var askSettings = []string{"admin-listen", "admin-token-file", "data-dir"}

// askFlags makes the flags of a command that asks a running node, and returns what makes
// the client.
func askFlags(cmd *cobra.Command, p process, keys ...string) func() (*client, error) {
	if len(keys) == 0 {
		keys = askSettings
	}
	load := settingFlags(cmd, p, keys...)
	return func() (*client, error) {
		cfg, err := load()
		if err != nil {
			return nil, err
		}
		token, err := findToken(cfg)
		if err != nil {
			return nil, withCode(exitUsage, err)
		}
		return newClient(cfg.AdminListen, token), nil
	}
}

// findToken returns the token for the HTTP API of the node that has the same settings; ""
// if nothing says where it is.
func findToken(cfg *config.Config) (string, error) {
	file := cfg.AdminTokenFile
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
	case errors.Is(err, fs.ErrNotExist) && cfg.AdminTokenFile == "":
		return "", fmt.Errorf("%w: a node that was started with this data folder has made it; has this one been?", err)
	}
	return token, err
}
