package mysqltest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options say what to start. The zero value is a MySQL 9.7 with row-based binlog on.
type Options struct {
	Flavour  Flavour  // MySQL97 if empty
	Name     string   // for messages and the name of a kept log; the flavour if empty
	Args     []string // more options of mysqld, e.g. "--gtid-mode=OFF"; they win over this package's, but leave port, socket and datadir alone
	Port     int      // TCP port on 127.0.0.1; a free one if zero
	Progress Progress // told about a fetch and other long steps; may be nil

	// StartTimeout limits the wait until a started server answers; 2 minutes if zero.
	StartTimeout time.Duration
}

// Instance is one server with a data folder, socket, port and uuid of its own. Its methods may be used from several
// goroutines; the exported fields do not change after Launch.
type Instance struct {
	Server   *Server
	Name     string
	Dir      string // folder of the instance, removed by Close
	DataDir  string // data folder, in Dir
	Socket   string // unix socket; root logs in there without password
	Port     int    // TCP port on 127.0.0.1
	ServerID uint32 // default server id, unique on this machine; --server-id in Options.Args wins
	UUID     string // server uuid; empty for MariaDB, which has none
	ErrorLog string // path of the error log, which is appended to over restarts

	timeout time.Duration
	remover *remover

	mu     sync.Mutex // serialises starting and stopping
	args   []string
	proc   *process // nil when stopped
	closed bool

	logFrom int64 // length of the error log when the server was last started
}

// Where an instance's files live must be short: the path of a unix socket has at most 107 bytes.
const maxDir = 70

// stopGrace is how long a server may take to shut down cleanly before it is killed.
const stopGrace = 3 * time.Minute

// Launch finds or fetches the server, makes a new instance of it and starts it. The caller owns the instance and has to
// Close it. If it cannot be had, the error wraps ErrUnavailable.
func Launch(ctx context.Context, opts Options) (*Instance, error) {
	server, err := Find(ctx, opts.Flavour, opts.Progress)
	if err != nil {
		return nil, err
	}
	template, err := server.template(ctx, opts.Progress)
	if err != nil {
		return nil, err
	}
	inst, err := newInstance(ctx, server, template, opts)
	if err != nil {
		return nil, fmt.Errorf("mysqltest: new %s: %w", server.Flavour, err)
	}
	// A port that was free a moment ago may be somebody else's now; until the first start succeeds nobody knows ours.
	for try := 1; ; try++ {
		if err = inst.Start(ctx); err == nil {
			return inst, nil
		}
		if text, _ := os.ReadFile(inst.ErrorLog); try == 5 || opts.Port != 0 || !strings.Contains(string(text), "running on port: "+strconv.Itoa(inst.Port)) {
			break
		}
		port, perr := freePort()
		if perr != nil {
			break
		}
		inst.Port = port
	}
	return nil, errors.Join(err, inst.Close())
}

func newInstance(ctx context.Context, server *Server, template string, opts Options) (*Instance, error) {
	tmp := os.TempDir()
	if len(tmp) > maxDir {
		tmp = "/tmp"
	}
	dir, err := os.MkdirTemp(tmp, "kingbus-mysql-")
	if err != nil {
		return nil, err
	}
	inst := &Instance{
		Server: server, Name: opts.Name, Dir: dir,
		DataDir: filepath.Join(dir, "data"), Socket: filepath.Join(dir, "mysql.sock"), ErrorLog: filepath.Join(dir, "error.log"),
		Port: opts.Port, timeout: opts.StartTimeout, args: append([]string(nil), opts.Args...),
	}
	if inst.Name == "" {
		inst.Name = string(server.Flavour)
	}
	if inst.timeout == 0 {
		inst.timeout = 4 * time.Minute
	}
	if inst.remover, err = startRemover(dir); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := inst.fill(ctx, template); err != nil {
		return nil, errors.Join(err, inst.remover.remove())
	}
	return inst, nil
}

// fill puts everything into the instance's folder.
func (i *Instance) fill(ctx context.Context, template string) (err error) {
	if i.Port == 0 {
		if i.Port, err = freePort(); err != nil {
			return err
		}
	}
	i.ServerID = uint32(i.Port)
	if err := os.Mkdir(filepath.Join(i.Dir, "tmp"), 0o700); err != nil {
		return err
	}
	if err := copyTree(ctx, template, i.DataDir); err != nil {
		return err
	}
	if i.Server.Flavour.MariaDB() {
		return nil
	}
	i.UUID = newUUID()
	return os.WriteFile(filepath.Join(i.DataDir, "auto.cnf"), []byte("[auto]\nserver-uuid="+i.UUID+"\n"), 0o600)
}

// freePort returns a TCP port that nobody listens on. It is taken from below the range out of which Linux gives ports to
// outgoing connections, so that it is still free when a stopped instance comes back.
func freePort() (int, error) {
	var err error
	for range 100 {
		n, rerr := rand.Int(rand.Reader, big.NewInt(12000))
		if rerr != nil {
			return 0, rerr
		}
		port := 20000 + int(n.Int64())
		var l net.Listener
		if l, err = net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no free port: %w", err)
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// options are the defaults for small, fast servers. Nothing is synced: that survives SIGKILL of the server, and no test
// pulls the plug of the machine.
func (i *Instance) options() []string {
	f := i.Server.Flavour
	opts := append([]string{"--no-defaults"}, asRoot()...)
	opts = append(opts,
		"--datadir="+i.DataDir, "--socket="+i.Socket, "--port="+strconv.Itoa(i.Port), "--bind-address=127.0.0.1",
		"--pid-file="+filepath.Join(i.Dir, "mysqld.pid"), "--tmpdir="+filepath.Join(i.Dir, "tmp"),
		"--secure-file-priv=", "--skip-name-resolve",
		"--server-id="+strconv.FormatUint(uint64(i.ServerID), 10), "--log-bin=binlog", "--relay-log=relay",
		"--sync-binlog=0", "--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync",
		"--innodb-buffer-pool-size=64M",
	)
	if f == MySQL97 {
		opts = append(opts, "--mysqlx=0", "--innodb-redo-log-capacity=64M", "--log-error-verbosity=3",
			"--innodb-doublewrite=OFF", "--innodb-buffer-pool-dump-at-shutdown=OFF")
	} else {
		opts = append(opts, "--binlog-format=ROW")
	}
	return append(opts, i.args...)
}

// SetArgs replaces the additional options of mysqld from the next start on.
func (i *Instance) SetArgs(args ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.args = append([]string(nil), args...)
}

// Start starts a stopped instance on its old data folder and port and returns once it answers. It does nothing if the
// server is running. If the server ends instead, the error has the errors and the last lines of its log.
func (i *Instance) Start(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.start(ctx)
}

func (i *Instance) start(ctx context.Context) error {
	if i.closed {
		return fmt.Errorf("mysqltest: start %s: it was closed", i.Name)
	}
	if i.running() {
		return nil
	}
	log, err := os.OpenFile(i.ErrorLog, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("mysqltest: start %s: %w", i.Name, err)
	}
	defer log.Close()
	if st, err := log.Stat(); err == nil {
		i.logFrom = st.Size()
	}
	os.Remove(i.Socket) // left by a killed server
	// The server outlives ctx, which limits only the start.
	cmd := i.Server.command(context.WithoutCancel(ctx), i.options()...)
	cmd.Dir = i.Dir
	cmd.Stdout, cmd.Stderr = log, log
	if i.proc, err = startProcess(cmd); err != nil {
		return fmt.Errorf("mysqltest: start %s: %w", i.Name, err)
	}
	if err := i.awaitReady(ctx); err != nil {
		i.proc.signal(syscall.SIGKILL)
		<-i.proc.done
		i.proc = nil
		return fmt.Errorf("mysqltest: start %s: %w; from its error log:\n%s", i.Name, err, i.logTail())
	}
	return nil
}

// awaitReady returns nil once the server executes statements.
func (i *Instance) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-i.proc.done:
			return fmt.Errorf("the server ended: %w", exitErr(i.proc.err))
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", ctx.Err())
		case <-tick.C:
		}
		// Cheap first: the socket is made when the server is nearly up.
		conn, err := net.Dial("unix", i.Socket)
		if err != nil {
			continue
		}
		conn.Close()
		if _, err := i.Query(ctx, "SELECT 1"); err == nil {
			return nil
		}
	}
}

func exitErr(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

func (i *Instance) running() bool { return i.proc != nil && !i.proc.ended() }

// Running says whether the server process is there.
func (i *Instance) Running() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.running()
}

// Stop shuts the server down cleanly and waits for its end. It does nothing if the server is not running.
func (i *Instance) Stop() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.stop()
}

func (i *Instance) stop() error {
	if i.proc == nil {
		return nil
	}
	err := i.proc.stop(stopGrace)
	i.proc = nil
	if err != nil {
		return fmt.Errorf("mysqltest: stop %s: %w; from its error log:\n%s", i.Name, err, i.logTail())
	}
	return nil
}

// Kill kills the server (SIGKILL) and waits for its end. The data folder stays for the next Start, which recovers it.
func (i *Instance) Kill() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kill()
}

func (i *Instance) kill() {
	if i.proc == nil {
		return
	}
	i.proc.signal(syscall.SIGKILL)
	<-i.proc.done
	i.proc = nil
}

// Pause stops the server's threads without ending it (SIGSTOP), as if the machine hung; Resume lets them go on.
func (i *Instance) Pause() { i.signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (i *Instance) Resume() { i.signal(syscall.SIGCONT) }

func (i *Instance) signal(sig syscall.Signal) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.running() {
		i.proc.signal(sig)
	}
}

// Restart stops the server cleanly, if it runs, and starts it on the same data folder and port.
func (i *Instance) Restart(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.stop(); err != nil {
		return err
	}
	return i.start(ctx)
}

// Close kills the server and removes its folder, logs included. It is idempotent.
func (i *Instance) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil
	}
	i.closed = true
	i.kill()
	if err := i.remover.remove(); err != nil {
		return fmt.Errorf("mysqltest: remove %s: %w", i.Dir, err)
	}
	return nil
}

// Addr returns host:port for TCP clients.
func (i *Instance) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(i.Port)) }

// KeepLog copies the error log to where Close does not remove it, and returns that path.
func (i *Instance) KeepLog() (string, error) {
	text, err := os.ReadFile(i.ErrorLog)
	if err != nil {
		return "", fmt.Errorf("mysqltest: keep the log of %s: %w", i.Name, err)
	}
	f, err := os.CreateTemp("", "kingbus-"+unsafeRE.ReplaceAllString(i.Name, "_")+"-*.log")
	if err != nil {
		return "", fmt.Errorf("mysqltest: keep the log of %s: %w", i.Name, err)
	}
	_, err = f.Write(text)
	return f.Name(), errors.Join(err, f.Close())
}

// logTail returns what matters of the error log since the last start: errors, and the last lines.
func (i *Instance) logTail() string {
	text, err := os.ReadFile(i.ErrorLog)
	if err != nil {
		return err.Error()
	}
	text = text[min(i.logFrom, int64(len(text))):]
	last := lastLines(string(text), 5)
	var failures strings.Builder
	for line := range strings.Lines(strings.TrimSuffix(string(text), last)) {
		if strings.Contains(line, "[ERROR]") {
			failures.WriteString(line)
		}
	}
	return lastLines(failures.String()+last, 15)
}
