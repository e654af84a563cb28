package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/binlogtest"
	"kingbus/internal/gtid"
	"kingbus/internal/keys"
	"kingbus/internal/stream"
)

// The tests run the program as processes of its own: this test binary, which is
// kingbus when the variable is set.
const beKingbus = "KINGBUS_TEST_BE_KINGBUS"

// testSettings is the variable that names the file in the place of the package's, as the machine may
// have that.
const testSettings = "KINGBUS_TEST_SETTINGS"

func TestMain(m *testing.M) {
	if os.Getenv(beKingbus) != "" {
		os.Exit(run(context.Background(), os.Args[1:], process{os.Stdin, os.Stdout, os.Stderr, os.Environ(), os.Getenv(testSettings)}))
	}
	os.Exit(m.Run())
}

// secret is every password in these tests; nothing may print it.
const secret = "hunter2-never-shown"

// patience bounds every wait for something that takes milliseconds.
const patience = 60 * time.Second

// output collects what a process prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func kingbus(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "KINGBUS_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, beKingbus+"=1")
	return cmd
}

// result is what a finished process left.
type result struct {
	code   int
	stdout string
	stderr string
}

// call runs kingbus to its end.
func call(t *testing.T, env []string, args ...string) result {
	t.Helper()
	return callWith(t, nil, env, args...)
}

// callWith is call with a standard input; nil = none.
func callWith(t *testing.T, stdin *os.File, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := kingbus(ctx, args...)
	cmd.Env = append(cmd.Env, env...)
	if stdin != nil {
		cmd.Stdin = stdin
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("kingbus %s does not end:\n%s", strings.Join(args, " "), errs.String())
	}
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	r := result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
	if strings.Contains(r.stdout+r.stderr, secret) {
		t.Errorf("kingbus %s prints a password:\n%s%s", args[0], r.stdout, r.stderr)
	}
	return r
}

// daemon is a running `kingbus serve`.
type daemon struct {
	t            *testing.T
	cmd          *exec.Cmd
	log          output
	dir          string
	mysql, admin string // addresses
	exited       chan struct{}
}

// serveNode starts `kingbus serve` on free ports and waits until it is ready.
func serveNode(t *testing.T, dir string, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: dir, exited: make(chan struct{})}
	d.cmd = kingbus(context.Background(), append([]string{"serve", "--data-dir", dir, "--mysql-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json", "--log-level", "debug"}, args...)...)
	r, w := io.Pipe()
	d.cmd.Stderr = io.MultiWriter(&d.log, w)
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.exited
		if strings.Contains(d.log.String(), secret) {
			t.Error("the log shows a password")
		}
		if t.Failed() {
			t.Logf("log of the node:\n%s", d.log.String())
		}
	})
	ready := make(chan struct{})
	go func() {
		scanner := bufio.NewScanner(r)
		for scanner.Scan() {
			var line struct{ Msg, MySQL, Admin string }
			if json.Unmarshal(scanner.Bytes(), &line) == nil && line.Msg == "ready" {
				d.mysql, d.admin = line.MySQL, line.Admin[strings.Index(line.Admin, "://")+3:]
				close(ready)
				break
			}
		}
		_, _ = io.Copy(io.Discard, r)
	}()
	go func() {
		_ = d.cmd.Wait()
		_ = w.Close()
		close(d.exited)
	}()
	select {
	case <-ready:
	case <-d.exited:
		t.Fatalf("kingbus serve ended with %v:\n%s", d.cmd.ProcessState, d.log.String())
	case <-time.After(patience):
		t.Fatalf("kingbus serve does not get ready:\n%s", d.log.String())
	}
	return d
}

// tokenFile is where the node has its token.
func (d *daemon) tokenFile() string { return filepath.Join(d.dir, "keys", keys.TokenFile) }

// env lets a command find the node, and its token.
func (d *daemon) env() []string {
	return []string{"KINGBUS_ADMIN_LISTEN=" + d.admin, "KINGBUS_ADMIN_TOKEN_FILE=" + d.tokenFile()}
}

// call runs a command that asks this node.
func (d *daemon) call(args ...string) result {
	d.t.Helper()
	return call(d.t, d.env(), args...)
}

// want runs a command that asks this node, and checks its exit code and what it
// says.
func (d *daemon) want(code int, texts []string, args ...string) result {
	d.t.Helper()
	r := d.call(args...)
	if r.code != code {
		d.t.Errorf("kingbus %s, of %s: exit code %d, want %d: %s%s", strings.Join(args, " "), d.dir, r.code, code, r.stdout, r.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(r.stdout+r.stderr, text) {
			d.t.Errorf("kingbus %s, of %s: no %q in\n%s%s", strings.Join(args, " "), d.dir, text, r.stdout, r.stderr)
		}
	}
	return r
}

// client asks the node.
func (d *daemon) client() *client {
	d.t.Helper()
	token, err := keys.ReadToken(d.tokenFile())
	if err != nil {
		d.t.Fatal(err)
	}
	return newClient("http://"+d.admin, token, nil)
}

// stop sends SIGTERM and returns the exit code.
func (d *daemon) stop() int {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	return d.wait()
}

// kill takes the process away.
func (d *daemon) kill() {
	d.t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		d.t.Fatal(err)
	}
	d.wait()
}

// wait returns the exit code when the process has ended.
func (d *daemon) wait() int {
	d.t.Helper()
	select {
	case <-d.exited:
	case <-time.After(patience):
		d.t.Fatalf("kingbus does not end:\n%s", d.log.String())
	}
	return d.cmd.ProcessState.ExitCode()
}

// writeFile makes a file that only its owner may read.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// makeFolder makes a data folder with two binlog files, and returns what is in
// them by name.
func makeFolder(t *testing.T) (dir string, files map[string][]byte) {
	t.Helper()
	dir, files = t.TempDir(), map[string][]byte{}
	ctx := t.Context()
	s, err := stream.Open(stream.Config{Dir: dir, SegmentBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lead(ctx); err != nil {
		t.Fatal(err)
	}
	uuid, err := gtid.ParseUUID("11111111-2222-3333-4444-555555555555")
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.StartLink(ctx, stream.Source{UUID: uuid.String(), ServerID: 7, Version: "9.7.4", Host: "db", Port: 3306})
	if err != nil {
		t.Fatal(err)
	}
	w := binlogtest.Writer{UUID: uuid, ServerID: 7, Time: 1700000000, Checksum: binlog.ChecksumCRC32}
	var want stream.Coordinates
	for _, name := range []string{"binlog.000001", "binlog.000002"} {
		if err := l.Rotate(ctx, name); err != nil {
			t.Fatal(err)
		}
		content := []byte(binlog.Magic)
		for i := range 300 {
			var run []byte
			if i == 0 {
				run = w.Begin(nil)
			}
			run = w.Transaction(run, 400)
			content = append(content, run...)
			if err := l.Append(ctx, append(make([]byte, stream.RunHeader), run...)); err != nil {
				t.Fatal(err)
			}
		}
		files[name] = content
		want = stream.Coordinates{File: name, Pos: uint64(len(content))}
	}
	for {
		changed := s.Changed()
		if s.Status().End == want {
			break
		}
		select {
		case <-changed:
		case <-time.After(patience):
			t.Fatalf("the stream ends at %v, not at %v", s.Status().End, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, files
}
