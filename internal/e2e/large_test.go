package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"kingbus/internal/mysqltest"
)

// maxAnonymous is what kingbus may hold in memory of its own, in bytes, whatever
// comes.
const maxAnonymous = 200 << 20

// anonymous returns the anonymous memory of a process in bytes: RssAnon of
// proc(5).
func anonymous(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no RssAnon for process %d", pid)
}

// watchMemory samples until stop is called, which returns the peak.
func watchMemory(pid int) (stop func() int64) {
	quit, peak := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		var most int64
		for {
			select {
			case <-quit:
				peak <- most
				return
			case <-tick.C:
				if n, err := anonymous(pid); err == nil {
					most = max(most, n)
				}
			}
		}
	}()
	return func() int64 {
		close(quit)
		return <-peak
	}
}

// TestLarge sends a transaction that is larger than the memory that kingbus may
// take, and one with an event of 40 MB, through it and into a replica.
func TestLarge(t *testing.T) {
	ctx := context.Background()
	dir := evidence(t)
	src := startSource(t, dir, mysqltest.Options{Name: "source", Args: []string{"--max-allowed-packet=256M", "--binlog-format=ROW"}})
	rep := mysqltest.Start(t, mysqltest.Options{Name: "replica", Args: []string{"--max-allowed-packet=256M", "--replica-max-allowed-packet=1G"}})
	p := newProcess(t, dir, "kingbus", src)
	p.start()
	p.follow(ctx, rep, "SOURCE_AUTO_POSITION=1")
	stop := watchMemory(p.cmd.Process.Pid)
	if err := src.Exec(ctx, `CREATE DATABASE e2e; CREATE TABLE e2e.t (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB);
		INSERT INTO e2e.t (b) VALUES (REPEAT('a', 1000000)); INSERT INTO e2e.t (b) SELECT b FROM e2e.t; INSERT INTO e2e.t (b) SELECT b FROM e2e.t;
		INSERT INTO e2e.t (b) VALUES (REPEAT('b', 40000000));
		BEGIN; INSERT INTO e2e.t (b) SELECT b FROM e2e.t; INSERT INTO e2e.t (b) SELECT b FROM e2e.t; INSERT INTO e2e.t (b) SELECT b FROM e2e.t WHERE LENGTH(b) < 2000000; INSERT INTO e2e.t (b) SELECT b FROM e2e.t; COMMIT;
		FLUSH BINARY LOGS`); err != nil {
		t.Fatal(err)
	}
	same(t, p, src, rep)
	// Once more from disk, by somebody who begins at the beginning.
	var out bytes.Buffer
	if err := p.get("/api/v1/binlogs/"+firstFile(t, src), &out); err != nil {
		t.Error(err)
	}
	peak := stop()
	t.Logf("%d MB of binlog, %d MB of anonymous memory at the peak", out.Len()>>20, peak>>20)
	if peak > maxAnonymous {
		t.Errorf("kingbus took %d MB of anonymous memory, more than %d", peak>>20, maxAnonymous>>20)
	}
	if out.Len() < maxAnonymous*3/2 {
		t.Errorf("the binlog has %d MB only: the test is too small", out.Len()>>20)
	}
	p.stop()
}

func firstFile(t *testing.T, src *mysqltest.Instance) string {
	t.Helper()
	files, err := src.BinlogFiles(context.Background())
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	return files[0].Name
}
