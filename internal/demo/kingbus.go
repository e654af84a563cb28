package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/keys"
)

const (
	// restartDelay is how long a kingbus that died stays dead: in a cluster long enough to see the others go on.
	restartDelay, restartDelayCluster = time.Second, 5 * time.Second
	// A kingbus that ends by itself within quick of its start, maxQuick times in a row, is given up.
	quick    = 3 * time.Second
	maxQuick = 5
	// maxStatus bounds the answer of the HTTP API, in bytes.
	maxStatus = 16 << 20
)

// kingbus is a node: one data folder and fixed addresses, on which one process after another runs.
type kingbus struct {
	name    string // "kingbus", or the node's in a cluster
	path    string
	args    []string
	data    string // its data folder
	log     string // file that takes what the processes say
	mysql   string // host:port
	admin   string // host:port
	peer    string // host:port; "" without peers
	notice  func(format string, args ...any)
	delay   time.Duration // between a death and the next start
	client  *http.Client
	version string // known after awaitReady

	mu      sync.Mutex
	running *os.Process // nil while none runs
	state   process
	leads   bool // as far as is known; of several nodes
}

// process is what is known of the processes of a node.
type process struct {
	alive        bool
	pid          int       // of the running one, else of the last one
	starts       int       // how many there were
	began, ended time.Time // of the last start, and of the last end
}

// run keeps kingbus running until ctx ends, and then stops it. A process that dies is followed by another one.
func (k *kingbus) run(ctx context.Context) error {
	// Linux kills the child when the thread that made it ends; so the thread has to stay as long as we do.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for failures := 0; ; {
		err := k.runOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return fmt.Errorf("start %s: %w", k.name, err)
		}
		p := k.process()
		killed := exit != nil && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL // we invite people to do that
		if failures++; killed || p.ended.Sub(p.began) > quick {
			failures = 0
		}
		if failures == maxQuick {
			return fmt.Errorf("%s ends again and again (%s); its log says:\n%s", k.name, how(exit), lastLines(k.log, 5))
		}
		role := ""
		if k.led() {
			role = ", the leader,"
		}
		k.notice("%s (pid %d)%s ended: %s; started again in %v", k.name, p.pid, role, how(exit), k.delay)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(k.delay):
		}
	}
}

// how says how a process ended; nil is an exit without an error.
func how(exit *exec.ExitError) string {
	if exit == nil {
		return "exit status 0"
	}
	return exit.Error()
}

// runOnce runs one process to its end, which it asks for when ctx ends. What is wrong with how it ended is an
// *exec.ExitError, everything else means that it did not start.
func (k *kingbus) runOnce(ctx context.Context) error {
	log, err := os.OpenFile(k.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(k.path, k.args...)
	cmd.Stdout, cmd.Stderr = log, log
	for _, kv := range os.Environ() { // flags only: what the user set for his own kingbus is not for this one
		if !strings.HasPrefix(kv, "KINGBUS_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	// A process group of its own, as Ctrl-C on the terminal is for us to act on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	k.started(cmd.Process)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Process.Signal(syscall.SIGCONT) // a stopped process would not get it
		timer := time.AfterFunc(stopGrace, func() { _ = cmd.Process.Kill() })
		err = <-ended
		timer.Stop()
	}
	k.died()
	return err
}

func (k *kingbus) started(p *os.Process) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.running = p
	k.state.alive, k.state.pid, k.state.began = true, p.Pid, time.Now()
	k.state.starts++
}

func (k *kingbus) died() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.running = nil
	k.state.alive, k.state.ended = false, time.Now()
}

// setLed and led keep whether the node leads, or did when it was last asked.
func (k *kingbus) setLed(leads bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leads = leads
}

func (k *kingbus) led() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.leads
}

func (k *kingbus) process() process {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// kill kills the running process, and returns which that was; 0: there was none.
func (k *kingbus) kill() (pid int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.running == nil {
		return 0, nil
	}
	if err := k.running.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, err
	}
	return k.state.pid, nil
}

// awaitReady returns once the node is fit to serve.
func (k *kingbus) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := k.status(ctx)
		if err == nil && st.Ready {
			k.version = st.Version
			return nil
		}
		if err == nil {
			err = errors.New(strings.Join(st.Reasons, "; "))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer at %s: %w; its log says:\n%s", k.name, k.admin, err, lastLines(k.log, 5))
		case <-tick.C:
		}
	}
}

// status asks the running process.
func (k *kingbus) status(ctx context.Context) (st admin.Status, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+k.admin+"/api/v1/status", nil)
	if err != nil {
		return st, err
	}
	if token, err := keys.ReadToken(filepath.Join(k.data, "keys", keys.TokenFile)); err == nil { // it is made at the first start
		admin.Authorize(req, token)
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return st, fmt.Errorf("GET %s: %s", req.URL, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&st); err != nil {
		return st, fmt.Errorf("GET %s: %w", req.URL, err)
	}
	return st, nil
}

// memory returns what the process holds in memory that is not a copy of a file, in bytes; 0 if that is not known.
func (k *kingbus) memory() int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(k.process().pid) + "/status")
	if err != nil {
		return 0 // gone, or no Linux
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			if f := strings.Fields(rest); len(f) == 2 {
				kib, _ := strconv.ParseInt(f[0], 10, 64)
				return kib << 10
			}
		}
	}
	return 0
}
