package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/gtid"
	"kingbus/internal/mysqltest"
)

// everywhere waits until all nodes and replicas have what the source has, and
// compares everything: GTID sets, tables, files byte by byte, the logs of the nodes.
// Nobody writes meanwhile.
func everywhere(t *testing.T, c *cluster, replicas ...*mysqltest.Instance) {
	t.Helper()
	ctx := context.Background()
	began := time.Now()
	if err := c.src.Exec(ctx, "FLUSH BINARY LOGS"); err != nil {
		t.Fatal(err)
	}
	end, err := c.src.Query(ctx, "SHOW BINARY LOG STATUS")
	if err != nil {
		t.Fatal(err)
	}
	executed, err := gtid.ParseSet(end[0][4])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range c.names {
		s := c.nodes[name].await("everything in "+name, func(s admin.Status) bool {
			return s.Ready && s.Stream.End.File == end[0][0] && fmt.Sprint(s.Stream.End.Pos) == end[0][1]
		})
		if !s.Stream.Executed.Equal(executed) {
			t.Errorf("%s has %v, the source %v", name, s.Stream.Executed, executed)
		}
	}
	t.Logf("the nodes have everything after %.1fs", time.Since(began).Seconds())
	for _, rep := range replicas {
		awaitReplica(t, rep, executed)
		if diff, err := mysqltest.CompareTables(ctx, c.src, rep); err != nil || diff != "" {
			t.Errorf("source and %s differ: %s %v", rep.Name, diff, err)
		}
	}
	if len(replicas) > 0 {
		t.Logf("the replicas as well, after %.1fs", time.Since(began).Seconds())
	}
	size := sameFiles(t, c)
	for _, name := range c.names {
		if out, err := c.nodes[name].run("verify"); err != nil {
			t.Errorf("verify, asked of %s: %v\n%s", name, err, out)
		}
	}
	t.Logf("all is equal: %d MB up to %s:%s; comparing took %.1fs", size>>20, end[0][0], end[0][1], time.Since(began).Seconds())
}

// awaitReplica waits until a replica has exactly what the source has.
func awaitReplica(t *testing.T, rep *mysqltest.Instance, executed gtid.Set) {
	t.Helper()
	ctx := context.Background()
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var got gtid.Set
	_, err := rep.Await(limit, "SELECT @@GLOBAL.gtid_executed", func(rows [][]string) bool {
		var err error
		got, err = gtid.ParseSet(rows[0][0])
		return err == nil && got.Equal(executed)
	})
	if err != nil {
		// An error that ended replication for good is among these.
		rows, _ := rep.Query(ctx, `SELECT service_state, last_error_number, last_error_message, last_error_timestamp FROM performance_schema.replication_connection_status;
			SELECT service_state, last_error_number, last_error_message FROM performance_schema.replication_applier_status_by_worker`)
		t.Fatalf("%s did not get everything: %v\nit has    %v\nthe source %v\n%v", rep.Name, err, got, executed, rows)
	}
}

// sameFiles compares every file of the source with what each node exports of it, and
// returns their size. The current file is among them: nobody writes.
func sameFiles(t *testing.T, c *cluster) (size int) {
	t.Helper()
	files, err := c.src.BinlogFiles(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		disk, err := os.ReadFile(filepath.Join(c.src.DataDir, f.Name))
		if err != nil {
			t.Fatal(err)
		}
		size += len(disk)
		// A file that the source has not closed, or not in peace, has the IN_USE flag
		// of its format description set on disk, and clear on the wire.
		disk[4+17] &^= 1
		for _, name := range c.names {
			got, err := c.nodes[name].export(f.Name)
			if err != nil {
				t.Errorf("export %s from %s: %v", f.Name, name, err)
			} else if !bytes.Equal(got, disk) {
				kept := filepath.Join(c.dir, name+"."+f.Name)
				t.Errorf("%s: %d bytes in %s, %d at the source, different from byte %d on; see %s (%v)", f.Name, len(got), name, len(disk), differAt(got, disk), kept, os.WriteFile(kept, got, 0o644))
			}
		}
	}
	return size
}

func differAt(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// export is `kingbus export`.
func (p *process) export(file string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, program(p.t), "export", "--file", file, "--out", "-", "--admin-listen", fmt.Sprintf("127.0.0.1:%d", p.adminPort), "--admin-token-file", p.tokenFile())
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(complaints.String()))
	}
	return out.Bytes(), nil
}

// inspect stops all nodes, and looks at what is on their disks.
func inspect(t *testing.T, c *cluster) {
	t.Helper()
	for _, name := range c.names {
		c.nodes[name].stop()
	}
	for _, name := range c.names {
		if out, err := exec.Command(program(t), "inspect", c.nodes[name].dir).CombinedOutput(); err != nil {
			t.Errorf("inspect the folder of %s: %v\n%s", name, err, out)
		}
	}
}
