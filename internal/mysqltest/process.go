package mysqltest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a running program that dies with us.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the program has ended and been waited for
	err  error         // how it ended; valid once done is closed
}

// startProcess starts a program that the kernel kills when this process dies, however it dies. Linux ties that promise
// to the thread that forked, not to the process, and Go ends threads at will; so one goroutine keeps its thread from the
// fork to the end of the program. The program gets a process group of its own: Ctrl-C on the terminal is for us to act
// on.
func startProcess(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// signal sends a signal; to a program that has ended it does nothing.
func (p *process) signal(sig os.Signal) { _ = p.cmd.Process.Signal(sig) }

// ended says whether the program has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop asks the program to end, and kills it if it has not after the grace time.
func (p *process) stop(grace time.Duration) error {
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT) // a stopped program would not get it
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		p.signal(syscall.SIGKILL)
		<-p.done
		return fmt.Errorf("did not stop within %v and was killed", grace)
	}
}

// remover is a small program that removes a folder as soon as we close its input or die.
type remover struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

func startRemover(dir string) (*remover, error) {
	// The server may still be dying when we are dead, and write into the folder while it is being removed.
	cmd := exec.Command("/bin/sh", "-c", `cat >/dev/null; for i in 1 2 3 4 5 6 7 8 9; do rm -rf -- "$1" && exit; sleep 1; done`, "kingbus-remover", dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &remover{cmd, stdin}, nil
}

// remove removes the folder and waits until it is gone.
func (r *remover) remove() error {
	r.stdin.Close()
	return r.cmd.Wait()
}
