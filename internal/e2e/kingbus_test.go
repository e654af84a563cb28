package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
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
	"kingbus/internal/keys"
	"kingbus/internal/mysqltest"
)

// patience is how long a test waits for what has to come about. It is long because
// the machine may be slow, and have much else to do; nothing else depends on it.
const patience = 5 * time.Minute

var (
	raceBuild = flag.Bool("kingbus-race", false, "build kingbus with the race detector, too")
	keep      = flag.Bool("keep", false, "keep logs and data folders of tests that pass, too")
)

func TestMain(m *testing.M) {
	if order := os.Getenv(crowdVariable); order != "" {
		os.Exit(crowd(order))
	}
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

// program builds kingbus, once for all tests.
func program(t *testing.T) string {
	t.Helper()
	binaryOnce.Do(func() {
		if binaryDir, binaryErr = os.MkdirTemp("", "kingbus-e2e-"); binaryErr != nil {
			return
		}
		args := []string{"build", "-o", filepath.Join(binaryDir, "kingbus")}
		if *raceBuild {
			args = append(args, "-race")
		}
		out, err := exec.Command("go", append(args, "kingbus/cmd/kingbus")...).CombinedOutput()
		if err != nil {
			binaryErr = fmt.Errorf("%w: %s", err, out)
		}
	})
	if binaryErr != nil {
		t.Fatal(binaryErr)
	}
	return filepath.Join(binaryDir, "kingbus")
}

// evidence makes the folder of a test, for logs and data folders: it is removed if
// the test passes, and kept if not.
func evidence(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kingbus-"+strings.ReplaceAll(t.Name(), "/", "-")+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() || *keep {
			t.Logf("logs and data folders are kept in %s", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

const password = "s3cret-of-the-e2e-tests"

// process is a kingbus that can be killed and started again on its folder.
type process struct {
	t         *testing.T
	name      string
	dir       string // its data folder
	log       string // path of its log
	args      []string
	mysqlPort int
	adminPort int
	client    *http.Client

	cmd    *exec.Cmd // nil: it was not started, or has ended with our knowledge
	frozen bool
	before int64         // bytes in its log when it was started
	ended  chan struct{} // closed when it has ended
	err    error         // how; valid once ended is closed
}

// freePort returns a port that nobody listens on. It is taken from below the range out
// of which Linux gives ports to outgoing connections, and the one of mysqltest, so
// that it is still free when a process that was killed comes back.
func freePort(t *testing.T) int {
	t.Helper()
	var err error
	for range 100 {
		port := 10000 + rand.IntN(10000)
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no free port: ", err)
	return 0
}

// newProcess prepares a kingbus in a folder, that follows src; start starts it.
func newProcess(t *testing.T, dir, name string, src *mysqltest.Instance, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, dir: filepath.Join(dir, name+".data"), log: filepath.Join(dir, name+".log"), mysqlPort: freePort(t), adminPort: freePort(t)}
	p.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	pw := filepath.Join(dir, name+".password")
	if err := os.WriteFile(pw, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.args = append([]string{
		"serve", "--data-dir", p.dir, "--source", "mysql://repl@" + src.Addr(), "--source-password-file", pw,
		"--replica-user", "replica", "--replica-password-file", pw, "--shutdown-timeout", "2m",
		"--mysql-listen", fmt.Sprintf("127.0.0.1:%d", p.mysqlPort), "--admin-listen", fmt.Sprintf("127.0.0.1:%d", p.adminPort),
	}, args...)
	t.Cleanup(func() {
		p.kill()
		text, err := os.ReadFile(p.log)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		for _, bad := range []string{"panic: ", "fatal error: ", "WARNING: DATA RACE"} {
			if _, rest, found := strings.Cut(string(text), bad); found {
				t.Errorf("%s: %s%.4000s", name, bad, rest)
			}
		}
		if t.Failed() {
			lines := strings.Split(string(text), "\n")
			t.Logf("the end of the log of %s:\n%s", name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	})
	return p
}

// start starts the process. It dies with the test: the thread that started it
// is kept until it has ended.
func (p *process) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	if p.before, err = log.Seek(0, io.SeekEnd); err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(program(p.t), p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		p.t.Fatal(err)
	}
	p.cmd, p.ended, p.frozen = cmd, ended, false
}

// running tells whether it was started and not ended since, by us.
func (p *process) running() bool { return p.cmd != nil }

// died tells whether it has ended by itself.
func (p *process) died() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// kill is kill -9.
func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		<-p.ended
		p.cmd = nil
	}
}

// stop is SIGTERM; the process has to end by itself, cleanly.
func (p *process) stop() {
	p.t.Helper()
	// A process that has said nothing yet may not have come to where it asks for the signal, and
	// dies of it as any would.
	for late := time.Now().Add(patience); !p.died() && time.Now().Before(late); time.Sleep(5 * time.Millisecond) {
		if info, err := os.Stat(p.log); err == nil && info.Size() > p.before {
			break
		}
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.awaitEnd(); err != nil {
		p.t.Errorf("%s stopped with %v", p.name, err)
	}
}

// awaitEnd waits until the process ends by itself, and tells how.
func (p *process) awaitEnd() error {
	p.t.Helper()
	defer func() { p.cmd = nil }()
	select {
	case <-p.ended:
		return p.err
	case <-time.After(patience):
		// Where it hangs is written to its log.
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-p.ended:
		case <-time.After(20 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
		return errors.New("it did not end, and was killed: its log has the goroutines")
	}
}

// freeze stops it as a machine that hangs does, until thaw.
func (p *process) freeze() {
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	p.frozen = true
}

func (p *process) thaw() {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
	}
	p.frozen = false
}

func (p *process) tokenFile() string { return filepath.Join(p.dir, "keys", keys.TokenFile) }

// run runs the program's command line against this node, and returns what it
// prints, errors included.
func (p *process) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	args = append(args, "--admin-listen", fmt.Sprintf("127.0.0.1:%d", p.adminPort), "--admin-token-file", p.tokenFile())
	out, err := exec.CommandContext(ctx, program(p.t), args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (p *process) get(path string, into io.Writer) error {
	client := *p.client
	if strings.HasPrefix(path, "/api/v1/binlogs/") {
		client.Timeout = patience // it is of the whole answer, and a loaded machine takes its time
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", p.adminPort, path), nil)
	if err != nil {
		return err
	}
	token, err := keys.ReadToken(p.tokenFile())
	if err != nil {
		return err // it is made at the first start
	}
	admin.Authorize(req, token)
	resp, err := client.Do(req)
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
	for late := time.Now().Add(patience); time.Now().Before(late) && !p.died(); time.Sleep(20 * time.Millisecond) {
		if s, err = p.status(); err == nil && ok(s) {
			return s
		}
	}
	if p.died() {
		p.t.Fatalf("%s: %s ended by itself: %v", what, p.name, p.err)
	}
	text, _ := json.MarshalIndent(s, "", "  ")
	p.t.Fatalf("%s: it did not come about on %s: %v\n%s", what, p.name, err, text)
	return s
}

// follow makes rep a replica of kingbus.
func (p *process) follow(ctx context.Context, rep *mysqltest.Instance, more string) {
	p.t.Helper()
	err := rep.Exec(ctx, fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='replica', SOURCE_PASSWORD='%s', SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=100000, %s; START REPLICA", p.mysqlPort, password, more))
	if err != nil {
		p.t.Fatal(err)
	}
}

// startSource starts a source that kingbus may follow. If the test fails, its binlogs
// are kept in dir.
func startSource(t *testing.T, dir string, o mysqltest.Options) *mysqltest.Instance {
	t.Helper()
	src := mysqltest.Start(t, o)
	t.Cleanup(func() {
		if t.Failed() {
			if err := keepBinlogs(src, dir); err != nil {
				t.Logf("keep the source's binlogs: %v", err)
			}
		}
	})
	if err := src.CreateUser(context.Background(), mysqltest.User{Name: "repl", Password: password, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}); err != nil {
		t.Fatal(err)
	}
	return src
}

func keepBinlogs(src *mysqltest.Instance, dir string) error {
	files, err := filepath.Glob(filepath.Join(src.DataDir, "binlog.*"))
	if err != nil {
		return err
	}
	to := filepath.Join(dir, "source.binlogs")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.Base(f)), b, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
