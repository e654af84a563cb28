package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"kingbus/internal/admin"
)

func TestUsageErrors(t *testing.T) {
	dir := t.TempDir()
	pw := writeFile(t, "pw", secret+"\n")
	for _, tc := range []struct {
		name string
		args []string
		env  []string
		code int
		want string
	}{
		{"no such command", []string{"srve"}, nil, exitUsage, `unknown command "srve"`},
		{"no such flag", []string{"serve", "--nonsense"}, nil, exitUsage, "kingbus serve --help"},
		{"password as argument", []string{"serve", "--source-password=" + secret}, nil, exitUsage, "--source-password-file"},
		{"password as two arguments", []string{"serve", "--replica-password", secret}, nil, exitUsage, "KINGBUS_REPLICA_PASSWORD"},
		{"no data folder", []string{"serve"}, nil, exitUsage, "--data-dir"},
		{"password in the URL", []string{"serve", "--data-dir", dir, "--source", "mysql://u:" + secret + "@h:1"}, nil, exitUsage, "holds a password"},
		{"no password", []string{"serve", "--data-dir", dir, "--source", "mysql://u@h:1"}, nil, exitUsage, "no password for the source"},
		{"unknown variable", []string{"serve", "--data-dir", dir}, []string{"KINGBUS_SOURCE_PASWORD=" + secret}, exitUsage, `did you mean "KINGBUS_SOURCE_PASSWORD"`},
		{"start", []string{"serve", "--data-dir", dir, "--start", "../x"}, nil, exitUsage, "oldest, current"},
		{"admin for all", []string{"serve", "--data-dir", dir, "--admin-listen", "0.0.0.0:8307"}, nil, exitUsage, "speaks no TLS"},
		{"admin certificate", []string{"serve", "--data-dir", dir, "--admin-tls-cert", "/nonexistent", "--admin-tls-key", "/nonexistent"}, nil, exitUsage, "no such file"},
		{"admin of commands", []string{"serve", "--data-dir", dir, "--admin", "https://h:1"}, nil, exitUsage, "unknown flag"},
		{"CA", []string{"serve", "--data-dir", dir, "--source", "mysql://u@h:1", "--source-password-file", pw, "--source-tls", "verify-ca"}, nil, exitUsage, "--source-tls-ca"},
		{"CA file", []string{"serve", "--data-dir", dir, "--source-tls-ca", "/nonexistent"}, nil, exitUsage, "no such file"},
		{"join nobody", []string{"serve", "--data-dir", dir, "--join"}, nil, exitUsage, "--peer-listen"},
		{"peers' CA file", []string{"serve", "--data-dir", dir, "--peer-listen", "127.0.0.1:0", "--peer-advertise", "h:1", "--peer-ca", "/nonexistent", "--peer-cert", "/nonexistent", "--peer-key", "/nonexistent"}, nil, exitUsage, "no such file"},
		{"no such command for nodes", []string{"node", "delete", "n1"}, nil, exitUsage, `unknown command "delete" for "kingbus node"`},
		{"add without an address", []string{"node", "add", "n1"}, nil, exitUsage, "accepts 2 arg"},
		{"remove no name", []string{"node", "remove", "a/b"}, nil, exitUsage, "no name for a node"},
		{"nodes of nobody", []string{"node", "list", "--admin-listen", freeAddress(t)}, nil, exitFailed, "no kingbus answers at"},
		{"verify nobody", []string{"verify", "--admin-listen", freeAddress(t)}, nil, exitFailed, "no kingbus answers at"},
		{"recover nothing", []string{"recover"}, nil, exitUsage, "--data-dir"},
		{"recover what is not there", []string{"recover", "--data-dir", "/nonexistent"}, nil, exitFailed, "no data folder of kingbus"},
		{"inspect nothing", []string{"inspect"}, nil, exitUsage, "accepts 1 arg"},
		{"inspect no folder", []string{"inspect", t.TempDir()}, nil, exitFailed, "no data folder of kingbus"},
		{"inspect what is not there", []string{"inspect", "/nonexistent"}, nil, exitFailed, "no such file"},
		{"export nothing", []string{"export"}, nil, exitUsage, "--file NAME"},
		{"export JSON among the binlog", []string{"export", "--json", "--file", "x", "--out", "-"}, nil, exitUsage, "give --out a file"},
		{"export no folder", []string{"export", "--data-dir", t.TempDir(), "--file", "x", "--out", "-"}, nil, exitFailed, "no data folder of kingbus"},
		{"status of nobody", []string{"status", "--admin-listen", freeAddress(t)}, nil, exitFailed, "no kingbus answers at"},
	} {
		r := call(t, tc.env, tc.args...)
		if r.code != tc.code || !strings.Contains(r.stderr, tc.want) || r.stdout != "" {
			t.Errorf("%s: exit code %d, want %d; got %q and %q, want %q", tc.name, r.code, tc.code, r.stdout, r.stderr, tc.want)
		}
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("commands that failed left %v, %v", names, err)
	}
}

// freeAddress returns an address where nobody listens. Its port is none of those that
// connections get by themselves.
func freeAddress(t *testing.T) string {
	var err error
	for range 100 {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(10000))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal(err)
	return ""
}

func TestVersion(t *testing.T) {
	r := call(t, nil, "version")
	if r.code != 0 || !strings.HasPrefix(r.stdout, "kingbus ") || !strings.Contains(r.stdout, "data format 2") {
		t.Errorf("got %+v", r)
	}
}

func TestHelp(t *testing.T) {
	r := call(t, nil, "serve", "--help")
	for _, want := range []string{"--mysql-listen", "KINGBUS_MYSQL_LISTEN", "127.0.0.1:3307", "Exit codes", "SIGTERM"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in the help", want)
		}
	}
	if strings.Contains(r.stdout, "--source-password ") {
		t.Error("there is a flag for a password")
	}
}

// A node without a source serves what it has; two nodes never share a folder or
// an address; a stop is clean.
func TestServeStored(t *testing.T) {
	dir, files := makeFolder(t)
	pw := writeFile(t, "pw", secret+"\n")
	d := serveNode(t, dir, "--replica-user", "repl", "--replica-password-file", pw)

	r := call(t, nil, "serve", "--data-dir", dir, "--mysql-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	if r.code != exitFailed || !strings.Contains(r.stderr, "another kingbus runs on the data folder "+dir) {
		t.Errorf("second node on the folder: %+v", r)
	}
	for _, flag := range []string{"mysql", "admin"} {
		r = call(t, nil, "serve", "--data-dir", t.TempDir(), "--mysql-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--"+flag+"-listen", d.mysql)
		if want := fmt.Sprintf("--%s-listen %s: another program listens there already", flag, d.mysql); r.code != exitFailed || !strings.Contains(r.stderr, want) {
			t.Errorf("second node on the address: %+v", r)
		}
	}

	r = call(t, nil, "status", "--admin-listen", d.admin, "--data-dir", dir)
	for _, want := range []string{"ready", "leader", "not configured", "ends at binlog.000002:", "11111111-2222-3333-4444-555555555555:1-600", "none connected", dir} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in the status:\n%s%s", want, r.stdout, r.stderr)
		}
	}
	r = call(t, d.env(), "status", "--json")
	var st admin.Status
	if err := json.Unmarshal([]byte(r.stdout), &st); err != nil || !st.Ready || len(st.Stream.Files) != 2 || st.Stream.Transactions != 600 {
		t.Errorf("status as JSON: %v, %s", err, r.stdout)
	}

	for name, want := range files {
		out := filepath.Join(t.TempDir(), name)
		if r := call(t, d.env(), "export", "--file", name, "--out", out); r.code != 0 {
			t.Fatalf("export: %+v", r)
		}
		if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: exported %d bytes differ from the %d that were stored, %v", name, len(got), len(want), err)
		}
		var written exported
		if r := call(t, d.env(), "export", "--json", "--file", name, "--out", out+".2"); json.Unmarshal([]byte(r.stdout), &written) != nil || r.code != 0 || written != (exported{out + ".2", int64(len(want))}) {
			t.Errorf("export as JSON: %+v", r)
		}
		if r := call(t, d.env(), "export", "--file", name, "--out", out); r.code != exitFailed || !strings.Contains(r.stderr, "is there already") {
			t.Errorf("export over a file: %+v", r)
		}
	}
	if r := call(t, d.env(), "export", "--file", "nope.1", "--out", "-"); r.code != exitFailed || !strings.Contains(r.stderr, "there are binlog.000001 to binlog.000002") {
		t.Errorf("export of nothing: %+v", r)
	}
	if r := call(t, nil, "export", "--data-dir", dir, "--file", "current", "--out", "-"); r.code != exitFailed || !strings.Contains(r.stderr, "leave --data-dir away") {
		t.Errorf("export from a folder in use: %+v", r)
	}
	if r := call(t, nil, "inspect", dir); r.code != 0 || !strings.Contains(r.stdout, "healthy") {
		t.Errorf("inspect of a folder in use: %+v", r)
	}

	if code := d.stop(); code != 0 {
		t.Errorf("stopped with code %d", code)
	}
	if log := d.log.String(); !strings.Contains(log, `"msg":"stopped"`) || strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("the log of a clean stop:\n%s", log)
	}
	r = call(t, nil, "export", "--data-dir", dir, "--file", "current", "--out", "-")
	if r.code != 0 || r.stdout != string(files["binlog.000002"]) {
		t.Errorf("export from the folder: code %d, %d bytes, %s", r.code, len(r.stdout), r.stderr)
	}
	if code := serveNode(t, dir).stop(); code != 0 {
		t.Errorf("after a restart: stopped with code %d", code)
	}
}

// An interrupt works like SIGTERM.
func TestSignals(t *testing.T) {
	d := serveNode(t, t.TempDir())
	if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-d.exited
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("SIGINT: exit code %d", code)
	}
}

func TestInspect(t *testing.T) {
	dir, files := makeFolder(t)
	before := snapshot(t, dir)
	r := call(t, nil, "inspect", "--entries", dir)
	for _, want := range []string{"folder format 1", "data format 2, ", "the stream ends at", "binlog.000002", "link epoch", "identity server id", "last entry    term 2, entry 60", "rotate file 1: binlog.000001", "Xid", "healthy"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in\n%.3000s", want, r.stdout)
		}
	}
	if r.code != 0 || r.stderr != "" {
		t.Errorf("got code %d, %s", r.code, r.stderr)
	}
	r = call(t, nil, "inspect", "--json", dir)
	var found inspected
	if err := json.Unmarshal([]byte(r.stdout), &found); err != nil || r.code != 0 || r.stderr != "" {
		t.Errorf("as JSON: %v, %+v", err, r)
	}
	if found.Format != 1 || found.LastTerm != 2 || len(found.Segments) < 3 || found.Segments[0].First == 0 || found.LastEntry != found.Segments[len(found.Segments)-1].Last || len(found.Checkpoints) == 0 ||
		found.Checkpoints[len(found.Checkpoints)-1].End.File == "" || found.Checkpoints[len(found.Checkpoints)-1].Format != 2 || found.Events == 0 || len(found.Damage) > 0 || found.Index.Files == 0 {
		t.Errorf("as JSON: %s", r.stdout)
	}
	if after := snapshot(t, dir); after != before {
		t.Errorf("inspect has changed the folder:\n%s\n%s", before, after)
	}

	segments, err := filepath.Glob(filepath.Join(dir, "log", "*.seg"))
	if err != nil || len(segments) < 3 {
		t.Fatalf("segments: %v, %v", segments, err)
	}
	// A byte of an event, in a segment of the middle.
	event := files["binlog.000001"][len(files["binlog.000001"])/2:][:64]
	for _, tc := range []struct {
		name   string
		damage func(t *testing.T, dir string) (place string)
	}{
		{"payload", func(t *testing.T, dir string) string {
			for _, s := range segments {
				path := filepath.Join(dir, "log", filepath.Base(s))
				b := read(t, path)
				if at := bytes.Index(b, event); at >= 0 {
					b[at+20] ^= 1
					save(t, path, b)
					return path + " at offset"
				}
			}
			t.Fatal("the event is in no segment")
			return ""
		}},
		{"segment missing", func(t *testing.T, dir string) string {
			if err := os.Remove(filepath.Join(dir, "log", filepath.Base(segments[1]))); err != nil {
				t.Fatal(err)
			}
			return filepath.Base(segments[1])
		}},
		{"last segment missing", func(t *testing.T, dir string) string {
			if err := os.Remove(filepath.Join(dir, "log", filepath.Base(segments[len(segments)-1]))); err != nil {
				t.Fatal(err)
			}
			return "entries are missing"
		}},
		{"hard state", func(t *testing.T, dir string) string {
			save(t, filepath.Join(dir, "hardstate"), bytes.Repeat([]byte{7}, 5000))
			return "hardstate is damaged"
		}},
		{"identity", func(t *testing.T, dir string) string {
			if err := os.Remove(filepath.Join(dir, "node")); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(dir, "node") + " is missing"
		}},
		{"checkpoint", func(t *testing.T, dir string) string {
			found, err := filepath.Glob(filepath.Join(dir, "*.checkpoint"))
			if err != nil || len(found) == 0 {
				t.Fatalf("checkpoints: %v, %v", found, err)
			}
			b := read(t, found[0])
			b[len(b)/2] ^= 1
			save(t, found[0], b)
			return found[0]
		}},
		{"index", func(t *testing.T, dir string) string {
			found, err := filepath.Glob(filepath.Join(dir, "index", "*.index"))
			if err != nil || len(found) == 0 {
				t.Fatalf("index files: %v, %v", found, err)
			}
			b := read(t, found[0])
			b[len(b)-3] ^= 1
			save(t, found[0], b)
			return found[0]
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			place := tc.damage(t, copied)
			r := call(t, nil, "inspect", copied)
			if r.code != exitDamage || !strings.Contains(r.stdout, "DAMAGED") || !strings.Contains(r.stdout, place) || !strings.Contains(r.stderr, "is damaged in") {
				t.Errorf("want %q; got code %d, %s\n%s", place, r.code, r.stdout, r.stderr)
			}
		})
	}
	t.Run("torn write", func(t *testing.T) {
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(copied, "log", filepath.Base(segments[len(segments)-1]))
		save(t, path, append(read(t, path), bytes.Repeat([]byte{9}, 100)...))
		r := call(t, nil, "inspect", copied)
		if r.code != 0 || !strings.Contains(r.stdout, "torn write") || !strings.Contains(r.stdout, "healthy") {
			t.Errorf("got %+v", r)
		}
	})
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func save(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// snapshot lists a folder with sizes and times of change.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			fmt.Fprintln(&b, path, info.Size(), info.ModTime(), info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestRecoverAsRoot: root would leave files that the node's own user cannot read.
func TestRecoverAsRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can try that")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "node"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "node"), 54321, 54321); err != nil {
		t.Fatal(err)
	}
	r := call(t, nil, "recover", "--data-dir", dir, "--"+recoverFlag)
	if r.code != exitFailed || !strings.Contains(r.stderr, "belongs to the user #54321") || !strings.Contains(r.stderr, "runuser -u") {
		t.Errorf("%+v", r)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("it left %v, %v", names, err)
	}
}
