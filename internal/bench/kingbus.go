package bench

import (
	"bytes"
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
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/keys"
)

const (
	account   = "bench"          // on both sides
	maxStatus = 16 << 20         // bytes of an answer of the HTTP API
	stopGrace = 20 * time.Second // for a clean stop
	startWait = 60 * time.Second // for a start
	// answerWait is for an answer of the HTTP API, which may take some seconds to change a cluster.
	answerWait = 20 * time.Second
)

// kingbus is a node: a data folder, addresses, and the process that runs on them, if one does.
type kingbus struct {
	b      *bench
	dir    string
	mysql  string   // host:port
	admin  string   // host:port
	log    string   // file that takes what the processes say
	name   string   // of a node of a cluster
	peer   string   // host:port, of a node of a cluster
	args   []string // more of them
	client *http.Client

	proc    *process      // nil while none runs
	watched chan struct{} // closed when its memory is no longer sampled
	spawned time.Time     // when proc was started
}

func (b *bench) newKingbus() (*kingbus, error) {
	k := &kingbus{b: b, dir: b.newDir("kingbus"), client: &http.Client{Timeout: answerWait}}
	k.log = k.dir + ".log"
	var err error
	for _, addr := range []*string{&k.mysql, &k.admin} {
		if *addr, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// freeAddress returns a loopback address on which nobody listens, with a port from below the range out of which Linux
// gives ports to outgoing connections, so that it stays free between two processes.
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

// start starts a process that follows src, or none if src is nil. It does not wait until the process is up.
func (k *kingbus) start(src *origin) error {
	if src == nil {
		return k.startWith("")
	}
	return k.startWith(src.addr())
}

// startWith is start with the address of a source, "" for none.
func (k *kingbus) startWith(source string) error {
	log, err := os.OpenFile(k.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"serve", "--data-dir", k.dir, "--mysql-listen", k.mysql, "--admin-listen", k.admin,
		"--replica-user", account, "--replica-password-file", k.b.passwordFile}
	args = append(args, k.args...)
	if source != "" {
		args = append(args, "--source", "mysql://"+account+"@"+source, "--source-password-file", k.b.passwordFile, "--source-tls", "disabled")
	}
	cmd := exec.Command(k.b.cfg.Kingbus, args...)
	cmd.Stdout, cmd.Stderr = log, log
	for _, kv := range os.Environ() { // flags only: what the user set for his own kingbus is not for this one
		if !strings.HasPrefix(kv, "KINGBUS_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	k.spawned = time.Now()
	if k.proc, err = startProcess(cmd); err != nil {
		k.proc = nil
		return fmt.Errorf("start kingbus: %w", err)
	}
	watched, proc := make(chan struct{}), k.proc
	k.watched = watched
	go func() {
		defer close(watched)
		k.b.memory.watch(proc)
	}()
	return nil
}

// stop ends the process: cleanly, or with kill -9.
func (k *kingbus) stop(clean bool) error {
	if k.proc == nil {
		return nil
	}
	grace := time.Duration(0)
	if clean {
		grace = stopGrace
	}
	err := k.proc.stop(grace)
	<-k.watched
	k.proc = nil
	k.client.CloseIdleConnections()
	if err != nil {
		return fmt.Errorf("stop kingbus: %w; its log says:\n%s", err, k.logTail())
	}
	return nil
}

// discard ends the process and removes the folder.
func (k *kingbus) discard() error { return errors.Join(k.stop(false), os.RemoveAll(k.dir)) }

func (k *kingbus) pid() int { return k.proc.cmd.Process.Pid }

func (k *kingbus) logTail() string {
	text, err := os.ReadFile(k.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

func (k *kingbus) get(ctx context.Context, path string) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+k.admin+path, nil)
	if err != nil {
		return nil, 0, err
	}
	k.authorize(req)
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	return body, resp.StatusCode, err
}

// authorize gives a request the node's token, which it makes at its first start.
func (k *kingbus) authorize(req *http.Request) {
	if token, err := keys.ReadToken(filepath.Join(k.dir, "keys", keys.TokenFile)); err == nil {
		admin.Authorize(req, token)
	}
}

// change has the node change something of its cluster; body may be nil.
func (k *kingbus) change(ctx context.Context, method, path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+k.admin+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json") // without it, it is refused
	k.authorize(req)
	resp, err := k.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(answer))
	}
	return err
}

func (k *kingbus) status(ctx context.Context) (st admin.Status, err error) {
	body, code, err := k.get(ctx, "/api/v1/status")
	if err != nil {
		return st, err
	}
	if code != http.StatusOK {
		return st, fmt.Errorf("status of kingbus: HTTP %d: %s", code, body)
	}
	return st, json.Unmarshal(body, &st)
}

// awaitStatus asks again and again until the status is as wanted. It gives up when the process has ended, when no
// transaction has come for startWait, or with ctx.
func (k *kingbus) awaitStatus(ctx context.Context, what string, every time.Duration, ok func(admin.Status) bool) (admin.Status, error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last admin.Status
	for progress := time.Now(); ; {
		st, err := k.status(ctx)
		if err == nil && ok(st) {
			return st, nil
		}
		if err == nil && (st.Stream.End != last.Stream.End || st.Source.Received != last.Source.Received) {
			last, progress = st, time.Now()
		}
		if time.Since(progress) > startWait {
			return st, fmt.Errorf("waited in vain for kingbus: %s (%v); its log says:\n%s", what, err, k.logTail())
		}
		select {
		case <-ctx.Done():
			return st, ctx.Err()
		case <-k.proc.done:
			return st, fmt.Errorf("kingbus ended: %w; its log says:\n%s", k.proc.err, k.logTail())
		case <-tick.C:
		}
	}
}

// awaitReady returns once /readyz says 200.
func (k *kingbus) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		_, code, err := k.get(ctx, "/readyz")
		if err == nil && code == http.StatusOK {
			return nil
		}
		if time.Since(began) > startWait {
			return fmt.Errorf("kingbus does not become ready (HTTP %d, %v); its log says:\n%s", code, err, k.logTail())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.proc.done:
			return fmt.Errorf("kingbus ended: %w; its log says:\n%s", k.proc.err, k.logTail())
		case <-tick.C:
		}
	}
}
