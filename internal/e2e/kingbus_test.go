package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kingbus/internal/admin"
	"kingbus/internal/mysqltest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if binaryDir != "" {
			_ = os.RemoveAll(binaryDir)
		}
		os.Exit(code)
	}))
}

var (
	binaryDir  string
	binaryOnce sync.Once
	binaryErr  error
)

// binary builds kingbus, once for all tests.
func binary(t *testing.T) string {
	t.Helper()
	binaryOnce.Do(func() {
		if binaryDir, binaryErr = os.MkdirTemp("", "kingbus-e2e-"); binaryErr != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", filepath.Join(binaryDir, "kingbus"), "kingbus/cmd/kingbus").CombinedOutput()
		if err != nil {
			binaryErr = fmt.Errorf("%w: %s", err, out)
		}
	})
	if binaryErr != nil {
		t.Fatal(binaryErr)
	}
	return filepath.Join(binaryDir, "kingbus")
}

const password = "s3cret-of-the-e2e-tests"

// process is a kingbus that can be killed and started again on its folder.
type process struct {
	t         *testing.T
	dir       string
	args      []string
	mysqlPort int
	adminPort int
	logs      *os.File
	cmd       *exec.Cmd
	wait      chan error
	client    *http.Client
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// newProcess prepares a kingbus that follows src; start starts it.
func newProcess(t *testing.T, src *mysqltest.Instance, args ...string) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{t: t, dir: filepath.Join(dir, "data"), mysqlPort: freePort(t), adminPort: freePort(t)}
	p.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	pw := filepath.Join(dir, "password")
	if err := os.WriteFile(pw, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.logs, err = os.Create(filepath.Join(dir, "kingbus.log")); err != nil {
		t.Fatal(err)
	}
	p.args = append([]string{
		"serve", "--data-dir", p.dir, "--source", "mysql://repl@" + src.Addr(), "--source-password-file", pw,
		"--replica-user", "replica", "--replica-password-file", pw,
		"--mysql-listen", fmt.Sprintf("127.0.0.1:%d", p.mysqlPort), "--admin-listen", fmt.Sprintf("127.0.0.1:%d", p.adminPort),
	}, args...)
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			_, _ = p.logs.Seek(0, 0)
			b, _ := io.ReadAll(p.logs)
			lines := strings.Split(string(b), "\n")
			t.Logf("the end of kingbus' log:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
		_ = p.logs.Close()
	})
	return p
}

// start starts the process. It dies with the test: the thread that started it
// is kept until it has ended.
func (p *process) start() {
	p.t.Helper()
	started := make(chan error, 1)
	p.wait = make(chan error, 1)
	bin := binary(p.t)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		p.cmd = exec.Command(bin, p.args...)
		p.cmd.Stdout, p.cmd.Stderr = p.logs, p.logs
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.wait <- p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		p.t.Fatal(err)
	}
}

// kill is kill -9.
func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		<-p.wait
		p.cmd = nil
	}
}

// stop is SIGTERM; the process has to end by itself, cleanly.
func (p *process) stop() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.wait:
		if err != nil {
			p.t.Errorf("kingbus stopped with %v", err)
		}
	case <-time.After(20 * time.Second):
		p.t.Error("kingbus does not stop")
		_ = p.cmd.Process.Kill()
		<-p.wait
	}
	p.cmd = nil
}

func (p *process) get(path string, into io.Writer) error {
	client := *p.client
	if strings.HasPrefix(path, "/api/v1/binlog/") {
		client.Timeout = 5 * time.Minute // it is of the whole answer, and a loaded machine takes its time
	}
	resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d%s", p.adminPort, path))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s: %s", path, resp.Status, b)
	}
	_, err = io.Copy(into, resp.Body)
	return err
}

func (p *process) status() (admin.Status, error) {
	var b bytes.Buffer
	var s admin.Status
	if err := p.get("/api/v1/status", &b); err != nil {
		return s, err
	}
	return s, json.Unmarshal(b.Bytes(), &s)
}

// await waits until the status is as wanted.
func (p *process) await(what string, ok func(admin.Status) bool) admin.Status {
	p.t.Helper()
	var s admin.Status
	var err error
	for late := time.Now().Add(3 * time.Minute); time.Now().Before(late); time.Sleep(20 * time.Millisecond) {
		if s, err = p.status(); err == nil && ok(s) {
			return s
		}
	}
	p.t.Fatalf("%s did not come about: %+v, %v", what, s, err)
	return s
}

// follow makes rep a replica of kingbus.
func (p *process) follow(ctx context.Context, rep *mysqltest.Instance, more string) {
	p.t.Helper()
	err := rep.Exec(ctx, fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='replica', SOURCE_PASSWORD='%s', SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=1000, %s; START REPLICA", p.mysqlPort, password, more))
	if err != nil {
		p.t.Fatal(err)
	}
}

func startSource(t *testing.T, o mysqltest.Options) *mysqltest.Instance {
	t.Helper()
	src := mysqltest.Start(t, o)
	if err := src.CreateUser(context.Background(), mysqltest.User{Name: "repl", Password: password, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}); err != nil {
		t.Fatal(err)
	}
	return src
}
