package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a child that dies with us.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and been waited for
	err  error         // how it ended; valid once done is closed
}

// startProcess starts a child that the kernel kills when we die. Linux ties that to the thread that forked, so one
// goroutine keeps its thread as long as the child lives. The process group is its own: Ctrl-C is for us to act on.
func startProcess(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	return p, <-started
}

// stop asks the process to end, and kills it if it has not after the grace time; 0 kills it at once.
func (p *process) stop(grace time.Duration) error {
	if grace == 0 {
		_ = p.cmd.Process.Kill() // it may have ended by itself
		<-p.done
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("did not stop within %v and was killed", grace)
	}
}

// cpuTime returns the CPU time, user and system, of all threads of a process so far. It is the clock behind utime and
// stime of /proc/PID/stat, in nanoseconds instead of ticks (clock_getcpuclockid: the complement of the pid, three bits
// for the kind of clock, 2 = CPUCLOCK_SCHED).
func cpuTime(pid int) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// memory samples the anonymous memory of processes. Peaks are by the phase in which they were seen.
type memory struct {
	mu    sync.Mutex
	phase string
	order []string
	peak  map[string]int64 // bytes
}

func newMemory() *memory { return &memory{peak: map[string]int64{}} }

// enter says in which phase what is seen from now on belongs.
func (m *memory) enter(phase string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.phase = phase
	if _, ok := m.peak[phase]; !ok {
		m.order = append(m.order, phase)
		m.peak[phase] = 0
	}
}

func (m *memory) saw(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peak[m.phase] = max(m.peak[m.phase], size)
}

// peak is the most anonymous memory, in bytes, that was seen in a phase.
type peak struct {
	phase string
	bytes int64
}

func (m *memory) peaks() []peak {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []peak
	for _, p := range m.order {
		if m.peak[p] > 0 {
			out = append(out, peak{p, m.peak[p]})
		}
	}
	return out
}

const sampleEvery = 20 * time.Millisecond

// watch samples a process until it ends.
func (m *memory) watch(p *process) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		if size, ok := anonymous(p.cmd.Process.Pid); ok {
			m.saw(size)
		}
		select {
		case <-p.done:
			return
		case <-tick.C:
		}
	}
}

// anonymous returns RssAnon of /proc/PID/status in bytes.
func anonymous(pid int) (int64, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("RssAnon:")); ok {
			if f := bytes.Fields(rest); len(f) == 2 {
				kib, err := strconv.ParseInt(string(f[0]), 10, 64)
				return kib << 10, err == nil
			}
		}
	}
	return 0, false
}

// profile has perf(1) look at the machine until the function that it returns is called. It does nothing if no profiles
// are wanted. All of the machine, because perf does not follow threads that begin later; the file's name has the pid to
// filter by: perf report --pid PID -i FILE.
func (b *bench) profile(ctx context.Context, name string, pid int) (stop func() error, err error) {
	if b.cfg.Profile == "" {
		return func() error { return nil }, nil
	}
	file := filepath.Join(b.cfg.Profile, fmt.Sprintf("%s.%d.perf", name, pid))
	cmd := exec.CommandContext(ctx, "perf", "record", "-q", "-F", "999", "-g", "-a", "-o", file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	p, err := startProcess(cmd)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	return func() error {
		_ = p.cmd.Process.Signal(os.Interrupt)
		<-p.done
		var exit *exec.ExitError
		if p.err != nil && !errors.As(p.err, &exit) {
			return fmt.Errorf("profile: %w: %s", p.err, stderr.String())
		}
		return nil // perf ends with the signal that ended it
	}, nil
}
