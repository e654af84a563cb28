package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// environment describes the machine and the programs, for whoever compares tables.
func environment(cfg Config, server string) string {
	version := "?"
	if out, err := exec.Command(cfg.Kingbus, "version").Output(); err == nil {
		version = strings.Join(strings.Fields(string(out)), " ")
	}
	size := ""
	if cfg.Quick {
		size = ", --quick: a tenth of the data"
	}
	return fmt.Sprintf("%s\n%s, MySQL %s; medians of %d%s", machine(cfg.Dir), version, server, cfg.Runs, size)
}

func machine(dir string) string {
	var uts unix.Utsname
	_ = unix.Uname(&uts) // then it reads ""
	load, _, _ := strings.Cut(firstLine("/proc/loadavg", ""), " ")
	model := firstLine("/proc/cpuinfo", "model name")
	if model == "" {
		model = runtime.GOARCH
	}
	return fmt.Sprintf("%d cores (%s), load %s, Linux %s, %s", runtime.NumCPU(), model, load, unix.ByteSliceToString(uts.Release[:]), disk(dir))
}

// firstLine returns the first line of a file that begins with key, without key and a colon; "" if there is none.
func firstLine(path, key string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(rest), ":"))
		}
	}
	return ""
}

// disk tells on which file system dir is, and what a write of 64 KiB with a sync takes there.
func disk(dir string) string {
	path, err := filepath.Abs(dir)
	if err != nil {
		return dir
	}
	device, kind, best := "?", "?", ""
	text, _ := os.ReadFile("/proc/mounts") // then it stays unknown
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) >= 3 && len(f[1]) >= len(best) && (path == f[1] || strings.HasPrefix(path, strings.TrimSuffix(f[1], "/")+"/")) {
			device, kind, best = f[0], f[2], f[1]
		}
	}
	return fmt.Sprintf("%s on %s (%s), 64 KiB synced in %s", path, device, kind, syncTime(path))
}

// syncTime is the median of 20 appends of 64 KiB with fdatasync.
func syncTime(dir string) string {
	f, err := os.CreateTemp(dir, "kingbus-bench-")
	if err != nil {
		return "?"
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var s series
	for range 20 {
		began := time.Now()
		if _, err := f.Write(make([]byte, 64<<10)); err != nil {
			return "?"
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return "?"
		}
		s.add(float64(time.Since(began)) / 1e3)
	}
	return fmt.Sprintf("%.0f µs", s.median())
}
