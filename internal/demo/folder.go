package demo

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// folder is the demo's temporary folder: the data of kingbus, passwords, logs, scripts. It is removed by remove, and by a
// small program of its own when this process dies.
type folder struct {
	path   string
	helper *exec.Cmd
	stdin  io.Closer // the helper removes the folder when this is closed
	once   sync.Once
	err    error
}

func newFolder() (*folder, error) {
	path, err := os.MkdirTemp("", "kingbus-demo-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	f := &folder{path: path}
	// kingbus may still be dying when we are dead, and write into the folder while it is being removed.
	f.helper = exec.Command("/bin/sh", "-c", `cat >/dev/null; for i in 1 2 3 4 5 6 7 8 9; do rm -rf -- "$1" && exit; sleep 1; done`, "kingbus-demo-remover", path)
	f.helper.Dir = "/"
	f.helper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is not for the helper
	if f.stdin, err = f.helper.StdinPipe(); err == nil {
		err = f.helper.Start()
	}
	if err != nil {
		_ = os.RemoveAll(path)
		return nil, fmt.Errorf("start the helper that removes %s: %w", path, err)
	}
	return f, nil
}

// remove removes the folder and waits until it is gone. It is idempotent.
func (f *folder) remove() error {
	f.once.Do(func() {
		_ = f.stdin.Close()
		if err := f.helper.Wait(); err != nil {
			f.err = fmt.Errorf("remove %s: %w", f.path, err)
		}
	})
	return f.err
}

// file returns the path of a file in the folder.
func (f *folder) file(name string) string { return filepath.Join(f.path, name) }

// newPassword makes a random password and puts it into a file that only this user can read.
func (f *folder) newPassword(name string) (password, path string, err error) {
	password, path = rand.Text(), f.file(name)
	return password, path, os.WriteFile(path, []byte(password+"\n"), 0o600)
}

// script writes a shell script that runs a command, with the arguments that it is given after the command's own. before
// is shell code in front of it.
func (f *folder) script(name, before string, command []string) error {
	quoted := make([]string, len(command))
	for i, arg := range command {
		quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	text := "#!/bin/sh\n" + before + "exec " + strings.Join(quoted, " ") + ` "$@"` + "\n"
	return os.WriteFile(f.file(name), []byte(text), 0o700)
}
