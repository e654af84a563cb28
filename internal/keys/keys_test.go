package keys

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestEnsureMakesThenLoads(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "keys")
	now := time.Now()
	made, err := Ensure(dir, []string{"db.example", "10.1.2.3", "localhost"}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{CAKeyFile, KeyFile, PrivateKeyFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, error %v; want 0600", name, info.Mode(), err)
		}
	}
	loaded, err := Ensure(dir, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	if !made.Password.Equal(loaded.Password) || string(made.CAPEM) != string(loaded.CAPEM) ||
		!made.Server.Leaf.Equal(loaded.Server.Leaf) {
		t.Error("the second Ensure did not load what the first one made")
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(loaded.CAPEM)
	for _, host := range []string{"localhost", "db.example", "10.1.2.3", "127.0.0.1"} {
		if _, err := loaded.Server.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: host, CurrentTime: now}); err != nil {
			t.Errorf("certificate for %s: %v", host, err)
		}
	}
	if left, _ := filepath.Glob(dir + ".new-*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestEnsureKeepsItsHandsOffAnIncompleteFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := Ensure(dir, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{CAFile, CAKeyFile, CertFile, KeyFile, PrivateKeyFile} {
		path := filepath.Join(dir, name)
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		_, err := Ensure(dir, nil, time.Now())
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: got %v", name, err)
		}
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoadRefusesWhatOthersCanRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := Ensure(dir, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{CAKeyFile, KeyFile, PrivateKeyFile} {
		path := filepath.Join(dir, name)
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%s readable by its group: got %v", name, err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoadGarbage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := Ensure(dir, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{CAKeyFile, CertFile, KeyFile, PrivateKeyFile} {
		path := filepath.Join(dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"", "junk", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
			if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(dir); err == nil {
				t.Errorf("%s = %q was taken", name, bad)
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTokenAgain: a token that is replaced counts at once, and what is none leaves the old one.
func TestTokenAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	var told []error
	put := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenToken(path, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	first, second := strings.Repeat("a", 20), strings.Repeat("b", 20)
	put(first)
	token, err := OpenToken(path, func(err error) { told = append(told, err) })
	if err != nil {
		t.Fatal(err)
	}
	check := func(what, want string, tell int, failed bool) {
		t.Helper()
		for range 2 { // the second time nothing is new
			if got := token.Value(); got != want {
				t.Errorf("%s: %q", what, got)
			}
		}
		if len(told) != tell || tell > 0 && (told[tell-1] != nil) != failed {
			t.Errorf("%s: told %v", what, told)
		}
	}
	check("at first", first, 0, false)
	put(second)
	check("replaced", second, 1, false)
	put("short")
	check("no token", second, 2, true)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check("no file", second, 3, true)
	put(first)
	check("mended", first, 4, false)
}
