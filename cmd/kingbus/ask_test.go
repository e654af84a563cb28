package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kingbus/internal/keys"
)

// authority makes one, and a certificate of it for this machine, in files.
func authority(t *testing.T) (ca, cert, key string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := keys.Ensure(dir, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, keys.CAFile), filepath.Join(dir, keys.CertFile), filepath.Join(dir, keys.KeyFile)
}

// TestAdminTLS: with a certificate the HTTP API may be reached from other machines; the
// commands find their own node with its settings, and another one with --admin.
func TestAdminTLS(t *testing.T) {
	ca, cert, key := authority(t)
	otherCA, otherCert, otherKey := authority(t)
	dir := t.TempDir()
	settings := []string{"--admin-tls-ca", ca, "--admin-tls-cert", cert, "--admin-tls-key", key}
	d := serveNode(t, dir, append([]string{"--admin-listen", "0.0.0.0:0", "--node-name", "n1"}, settings...)...)
	port := d.admin[strings.LastIndex(d.admin, ":")+1:]
	url := "https://127.0.0.1:" + port
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"its own settings", append([]string{"--admin-listen", "0.0.0.0:" + port, "--data-dir", dir}, settings...), 0, "n1"},
		{"its own settings, of which it needs those alone", []string{"--admin-listen", "127.0.0.1:" + port, "--data-dir", dir, "--admin-tls-cert", cert, "--admin-tls-key", key}, 0, "n1"},
		{"the settings of another one", []string{"--admin-listen", "127.0.0.1:" + port, "--data-dir", dir, "--admin-tls-cert", otherCert, "--admin-tls-key", otherKey}, exitFailed, "it is not the one in " + otherCert},
		{"no TLS", []string{"--admin-listen", "127.0.0.1:" + port, "--data-dir", dir}, exitFailed, "HTTPS server"},
		{"no TLS to another machine", []string{"--admin-listen", "0.0.0.0:" + port, "--data-dir", dir}, exitUsage, "no TLS"},
		{"a certificate", []string{"--admin", url, "--admin-tls-ca", ca, "--admin-tls-cert", cert, "--admin-tls-key", key}, 0, "n1"},
		{"the token", []string{"--admin", url, "--admin-tls-ca", ca, "--admin-token-file", d.tokenFile()}, 0, "n1"},
		{"nothing", []string{"--admin", url, "--admin-tls-ca", ca}, exitFailed, "what to do: send the token"},
		{"the token of the node that runs here, which is for that one", []string{"--admin", url, "--admin-tls-ca", ca, "--data-dir", dir}, exitFailed, "what to do: send the token"},
		{"an unknown authority", []string{"--admin", url, "--admin-token-file", d.tokenFile()}, exitFailed, "--admin-tls-ca"},
		{"another authority", []string{"--admin", url, "--admin-tls-ca", otherCA, "--admin-token-file", d.tokenFile()}, exitFailed, "--admin-tls-ca"},
		{"a certificate of another authority", []string{"--admin", url, "--admin-tls-ca", ca, "--admin-tls-cert", otherCert, "--admin-tls-key", otherKey}, exitFailed, "the node at " + url},
		{"in clear to another machine", []string{"--admin", "http://db1:8307"}, exitUsage, "use https"},
	} {
		r := call(t, nil, append([]string{"node", "list"}, tc.args...)...)
		if r.code != tc.code || !strings.Contains(r.stdout+r.stderr, tc.want) {
			t.Errorf("with %s: exit code %d, want %d and %q: %s%s", tc.name, r.code, tc.code, tc.want, r.stdout, r.stderr)
		}
	}
	if code := d.stop(); code != 0 {
		t.Errorf("stopped with code %d", code)
	}
}

// TestPackagedSettings: a command that is told nothing asks the node of the package, and one that is
// told anything does not look there.
func TestPackagedSettings(t *testing.T) {
	dir := t.TempDir()
	d := serveNode(t, dir, "--node-name", "n1")
	address := strings.TrimPrefix(d.admin, "http://")
	file := writeFile(t, "kingbus.yaml", "data-dir: "+dir+"\nadmin-listen: "+address+"\n")
	for _, tc := range []struct {
		name string
		file string
		env  []string
		args []string
		code int
		want string
	}{
		{"nothing", file, nil, nil, 0, "n1"},
		{"no such file", file + "x", nil, []string{"--admin-listen", address}, exitFailed, "what to do: send the token"},
		{"an address", file, nil, []string{"--admin-listen", address}, exitFailed, "what to do: send the token"},
		{"a folder of another node", file, []string{"KINGBUS_DATA_DIR=" + t.TempDir()}, nil, exitUsage, "has this one been?"},
		{"another node", file, nil, []string{"--admin", "http://" + address}, exitFailed, "what to do: send the token"},
		{"another file", file, nil, []string{"--config", writeFile(t, "other.yaml", "log-level: info\nadmin-listen: "+address+"\n")}, exitFailed, "what to do: send the token"},
		{"a file that is none", writeFile(t, "bad.yaml", "no-such: 1\n"), nil, nil, exitUsage, "bad.yaml:1"},
		{"a folder in its place", dir, nil, nil, exitUsage, "is a directory"},
	} {
		r := call(t, append(tc.env, testSettings+"="+tc.file), append([]string{"node", "list"}, tc.args...)...)
		if r.code != tc.code || !strings.Contains(r.stdout+r.stderr, tc.want) {
			t.Errorf("with %s: exit code %d, want %d and %q: %s%s", tc.name, r.code, tc.code, tc.want, r.stdout, r.stderr)
		}
	}
	// Others do not look there: which folder is theirs is to be said.
	if r := call(t, []string{testSettings + "=" + file}, "recover"); r.code != exitUsage || !strings.Contains(r.stderr, "no data folder") {
		t.Errorf("recover: %+v", r)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("stopped with code %d", code)
	}
}
