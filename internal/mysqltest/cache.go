package mysqltest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cacheDir returns the folder for everything that outlives a test run: $KINGBUS_CACHE, else kingbus in the user's cache
// folder, else (no HOME) a folder of this user's in the temporary folder. It exists when cacheDir returns.
func cacheDir() (string, error) {
	dir := os.Getenv("KINGBUS_CACHE")
	if dir == "" {
		if base, err := os.UserCacheDir(); err == nil {
			dir = filepath.Join(base, "kingbus")
		} else {
			dir = filepath.Join(os.TempDir(), "kingbus-cache-"+strconv.Itoa(os.Getuid()))
			if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
				return "", fmt.Errorf("mysqltest: make the cache folder: %w", err)
			}
			// The name can be guessed, so somebody else could have made it; we run programs from it.
			st, err := os.Lstat(dir)
			if err != nil {
				return "", fmt.Errorf("mysqltest: %w", err)
			}
			if sys, ok := st.Sys().(*syscall.Stat_t); !ok || !st.IsDir() || int(sys.Uid) != os.Getuid() {
				return "", fmt.Errorf("mysqltest: cache folder %s belongs to somebody else; set KINGBUS_CACHE", dir)
			}
		}
	}
	dir, err := filepath.Abs(filepath.Join(dir, "mysqltest"))
	if err != nil {
		return "", fmt.Errorf("mysqltest: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("mysqltest: make the cache folder: %w; set KINGBUS_CACHE to one that can be written", err)
	}
	return dir, nil
}

// cached returns the folder name in the cache, and calls build to make it if it is not there. build gets an empty folder
// that becomes the cached one by a rename once build has succeeded, so paths inside must not be written down anywhere.
// Only one process at a time builds; the others wait for it.
func cached(ctx context.Context, name string, progress Progress, build func(dir string) error) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	final := filepath.Join(cache, name)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	unlock, err := lockFile(ctx, final+".lock", progress)
	if err != nil {
		return "", fmt.Errorf("mysqltest: lock %s: %w", name, err)
	}
	defer unlock()
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	tmp := final + ".tmp" // left behind only by a build that died; nobody else can be using it, we hold the lock
	if err := os.RemoveAll(tmp); err != nil {
		return "", fmt.Errorf("mysqltest: %w", err)
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", fmt.Errorf("mysqltest: %w", err)
	}
	if err := build(tmp); err != nil {
		os.RemoveAll(tmp)
		return "", err
	}
	if err := os.Rename(tmp, final); err != nil {
		return "", fmt.Errorf("mysqltest: %w", err)
	}
	return final, nil
}

// lockFile takes an exclusive flock, which the kernel drops when the process dies. The file stays: removing it would let
// two processes hold locks on two files of the same name.
func lockFile(ctx context.Context, path string, progress Progress) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for said := false; ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, err
		}
		if !said {
			progress.say("waiting for another process that prepares %s", filepath.Base(path))
			said = true
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
