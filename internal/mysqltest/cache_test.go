package mysqltest

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestCached(t *testing.T) {
	t.Setenv("KINGBUS_CACHE", t.TempDir())
	broken := errors.New("broken off")
	_, err := cached(t.Context(), "thing", nil, func(dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o644), broken)
	})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v, want the error of build", err)
	}
	var built atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			dir, err := cached(t.Context(), "thing", nil, func(dir string) error {
				built.Add(1)
				return os.WriteFile(filepath.Join(dir, "whole"), nil, 0o644)
			})
			if err != nil {
				t.Error(err)
				return
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 || entries[0].Name() != "whole" {
				t.Errorf("got %v, %v, want only what the second build made", entries, err)
			}
		})
	}
	wg.Wait()
	if built.Load() != 1 {
		t.Errorf("built %d times, want once", built.Load())
	}
}

func TestCacheDirWithoutHome(t *testing.T) {
	t.Setenv("KINGBUS_CACHE", "")
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", "")
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	if dir, err := cacheDir(); err != nil || !strings.HasPrefix(dir, tmp+"/kingbus-cache-") {
		t.Errorf("got %q, %v, want a folder in %s", dir, err, tmp)
	}
}

func TestNamedServer(t *testing.T) {
	t.Setenv("KINGBUS_TEST_MYSQLD", "/no/such/mysqld")
	if _, err := Find(t.Context(), MySQL97, nil); err == nil || !strings.Contains(err.Error(), "/no/such/mysqld") {
		t.Errorf("a named server that is not there: got %v", err)
	}
	old := filepath.Join(t.TempDir(), "mysqld")
	script := "#!/bin/sh\necho \"$0  Ver 8.0.46 for Linux on x86_64\"\n"
	if err := os.WriteFile(old, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KINGBUS_TEST_MYSQLD", old)
	if _, err := Find(t.Context(), MySQL97, nil); err == nil || !strings.Contains(err.Error(), "8.4 or later") {
		t.Errorf("a named server that is too old: got %v", err)
	}
	if err := os.WriteFile(old, []byte(strings.Replace(script, "8.0.46", "8.4.6", 1)), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, by := range []string{"KINGBUS_TEST_MYSQLD", "PATH"} {
		t.Setenv("KINGBUS_TEST_MYSQLD", "")
		t.Setenv(by, map[string]string{"PATH": filepath.Dir(old), "KINGBUS_TEST_MYSQLD": old}[by])
		s, err := Find(t.Context(), "", nil)
		if err != nil || s.Version != "8.4.6" || s.mysqld != old {
			t.Errorf("a server named by %s: got %+v, %v", by, s, err)
		}
		if err == nil {
			if err := s.Tool(t.Context(), "mysqlnosuch").Run(); err == nil || !strings.Contains(err.Error(), "mysql-client-core") {
				t.Errorf("a tool that is not there: got %v", err)
			}
		}
	}
}

// TestUnavailable looks for servers on a machine that has neither apt nor npm.
func TestUnavailable(t *testing.T) {
	t.Setenv("KINGBUS_CACHE", t.TempDir())
	t.Setenv("KINGBUS_TEST_MYSQLD", "")
	t.Setenv("PATH", t.TempDir())
	for flavour, want := range map[Flavour]string{MySQL97: "mysql-server-core", MySQL56: "npm", MariaDB1011: "mariadb-server-core", MariaDB118: "trixie"} {
		if _, err := Find(t.Context(), flavour, nil); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want ErrUnavailable and a hint with %s", flavour, err, want)
		}
	}
	if _, err := Find(t.Context(), "oracle", nil); err == nil {
		t.Error("unknown flavour: got no error")
	}
}

func TestParseBatch(t *testing.T) {
	for _, c := range []struct {
		out  string
		want [][]string
	}{
		{"", nil},
		{"1\n", [][]string{{"1"}}},
		{"\n", [][]string{{""}}},
		{"a\tb\n\t\n", [][]string{{"a", "b"}, {"", ""}}},
		{`a\tb\nc\0d\\te` + "\n", [][]string{{"a\tb\nc\x00d\\te"}}},
		{`end\` + "\n", [][]string{{`end\`}}},
		{"carriage\rreturn\n", [][]string{{"carriage\rreturn"}}},
	} {
		if got := parseBatch(c.out); !reflect.DeepEqual(got, c.want) {
			t.Errorf("parseBatch(%q): got %q, want %q", c.out, got, c.want)
		}
	}
}
