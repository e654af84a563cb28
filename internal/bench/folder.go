package bench

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// folder is the temporary folder. It is removed by remove, and by a small program of its own when this process dies.
type folder struct {
	path   string
	helper *exec.Cmd
	stdin  io.Closer // the helper removes the folder when this is closed
	once   sync.Once
	err    error
}

func newFolder(dir string) (*folder, error) {
	path, err := os.MkdirTemp(dir, "kingbus-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	f := &folder{path: path}
	// kingbus may still be dying when we are dead, and write into the folder while it is being removed.
	f.helper = exec.Command("/bin/sh", "-c", `cat >/dev/null; for i in 1 2 3 4 5 6 7 8 9; do rm -rf -- "$1" && exit; sleep 1; done`, "kingbus-bench-remover", path)
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

// keepLogs copies the logs of kingbus to a folder in dir that stays, and returns where they are as an error that adds to
// the one that made them of interest; nil if there are none.
func (f *folder) keepLogs(dir string) error {
	logs, err := filepath.Glob(f.file("*.log"))
	if err != nil || len(logs) == 0 {
		return err
	}
	kept, err := os.MkdirTemp(dir, "kingbus-bench-logs-")
	if err != nil {
		return fmt.Errorf("keep the logs: %w", err)
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(kept, filepath.Base(path)), text, 0o600)
		}
		if err != nil {
			return fmt.Errorf("keep the logs: %w", err)
		}
	}
	return fmt.Errorf("the logs of kingbus are kept in %s", kept)
}

// file returns the path of a file in the folder.
func (f *folder) file(name string) string { return filepath.Join(f.path, name) }

// settle writes out what the file system still has in memory, so that one measurement does not pay for the one before.
func (f *folder) settle() error {
	d, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// freeSpace returns the bytes that may still be written to the file system of dir.
func freeSpace(dir string) (float64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("look at the free space of %s: %w", dir, err)
	}
	return float64(st.Bavail) * float64(st.Bsize), nil
}

// dropCache takes the files below dir out of the page cache, without touching anybody else's.
func dropCache(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Sync(); err != nil { // pages that were not written out stay
			return err
		}
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}
