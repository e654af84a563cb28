package demo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"kingbus/internal/admin"
)

const (
	// restartDelay is how long a kingbus that died stays dead: in a cluster long enough to see the others go on.
	restartDelay, restartDelayCluster = time.Second, 5 * time.Second
	// A kingbus that ends within quick of its start maxQuick times in a row is given up.
	quick    = 3 * time.Second
	maxQuick = 5
	// maxStatus bounds the answer of the HTTP API, in bytes.
	maxStatus = 16 << 20
)

const (
	sourceUser  = "kingbus" // as whom kingbus logs in at the source
	replicaUser = "replica" // as whom the replica logs in at kingbus
)

// kingbus is a node: one data folder and fixed addresses, on which one process after another runs.
type kingbus struct {
	name    string // "kingbus", or the node's in a cluster
	path    string
	args    []string
	log     string // file that takes what the processes say
	mysql   string // host:port
	admin   string // host:port
	peer    string // host:port; "" without peers
	notice  func(format string, args ...any)
	delay   time.Duration // between a death and the next start
	client  *http.Client
	version string // known after awaitReady

	mu     sync.Mutex
	pid    int // 0 while no process runs
	starts int
}

// newNodes makes n nodes, of one cluster if they are several. password is of replicaUser.
func newNodes(cfg Config, f *folder, source string, notice func(string, ...any)) (nodes []*kingbus, password string, err error) {
	password, passwordFile, err := f.newPassword("replica.password")
	if err != nil {
		return nil, "", err
	}
	var initial []string
	for i := range cfg.Nodes {
		k := &kingbus{
			name: "kingbus", path: cfg.Kingbus, notice: notice, delay: restartDelay,
			client: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		}
		addresses := []*string{&k.mysql, &k.admin}
		if cfg.Nodes > 1 {
			k.name, k.delay = fmt.Sprintf("n%d", i+1), restartDelayCluster
			addresses = append(addresses, &k.peer)
		}
		for _, addr := range addresses {
			if *addr, err = freeAddress(); err != nil {
				return nil, "", err
			}
		}
		k.log = f.file(k.name + ".log")
		initial = append(initial, k.name+"="+k.peer)
		nodes = append(nodes, k)
	}
	for _, k := range nodes {
		k.args = []string{"serve", "--data-dir", f.file(k.name + ".data"),
			"--mysql-listen", k.mysql, "--admin-listen", k.admin,
			"--source", "mysql://" + sourceUser + "@" + source, "--source-password-file", f.file(sourcePasswordFile),
			"--replica-user", replicaUser, "--replica-password-file", passwordFile,
			"--retain-size", "1GiB", "--shutdown-timeout", "5s"}
		if k.peer != "" {
			k.args = append(k.args, "--node-name", k.name, "--peer-listen", k.peer, "--initial-cluster", strings.Join(initial, ","))
		}
	}
	return nodes, password, nil
}

// freeAddress returns a loopback address on which nobody listens. The port is from below the range out of which Linux
// gives ports to outgoing connections, so that it is still free when kingbus comes back.
func freeAddress() (string, error) {
	var err error
	for range 100 {
		n, rerr := rand.Int(rand.Reader, big.NewInt(12_000))
		if rerr != nil {
			return "", rerr
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(20_000+int(n.Int64())))
		var l net.Listener
		if l, err = net.Listen("tcp4", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", fmt.Errorf("no free port on 127.0.0.1: %w", err)
}

// run keeps kingbus running until ctx ends, and then stops it. A process that dies is followed by another one.
func (k *kingbus) run(ctx context.Context) error {
	// Linux kills the child when the thread that made it ends; so the thread has to stay as long as we do.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for failures := 0; ; {
		began := time.Now()
		pid, err := k.runOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if pid == 0 {
			return fmt.Errorf("start kingbus: %w", err)
		}
		if failures++; time.Since(began) > quick {
			failures = 0
		}
		if failures == maxQuick {
			return fmt.Errorf("%s ends again and again (%v); its log says:\n%s", k.name, err, lastLines(k.log, 5))
		}
		k.notice("%s (pid %d) ended: %v. It is started again in %v.", k.name, pid, err, k.delay)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(k.delay):
		}
	}
}

// runOnce runs one process to its end, which it asks for when ctx ends. The pid is 0 if it did not start.
func (k *kingbus) runOnce(ctx context.Context) (pid int, err error) {
	log, err := os.OpenFile(k.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
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
		return 0, err
	}
	pid = cmd.Process.Pid
	k.setPid(pid)
	defer k.setPid(0)
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
	if err == nil {
		err = errors.New("exit status 0")
	}
	return pid, err
}

func (k *kingbus) setPid(pid int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pid = pid
	if pid != 0 {
		k.starts++
	}
}

// process returns the pid of the running process, 0 if none runs, and how many there were.
func (k *kingbus) process() (pid, starts int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pid, k.starts
}

// kill kills the running process; 0: there is none.
func (k *kingbus) kill() (pid int, err error) {
	pid, _ = k.process()
	if pid == 0 {
		return 0, nil
	}
	return pid, syscall.Kill(pid, syscall.SIGKILL)
}

// awaitReady returns once the node is fit to serve.
func (k *kingbus) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
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
	pid, _ := k.process()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
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
