package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/gtid"
	"kingbus/internal/mysqltest"
)

// writers keeps writing to the source until stop is called, and survives that
// the source restarts.
type writers struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func startWriters(t *testing.T, src *mysqltest.Instance, n int) *writers {
	t.Helper()
	if err := src.Exec(context.Background(), `CREATE DATABASE IF NOT EXISTS e2e;
		CREATE TABLE e2e.t (id BIGINT AUTO_INCREMENT PRIMARY KEY, writer INT, n INT, pad VARBINARY(20000)) ENGINE=InnoDB;
		CREATE TABLE e2e.m (id BIGINT AUTO_INCREMENT PRIMARY KEY, writer INT) ENGINE=MyISAM`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &writers{cancel: cancel}
	for i := range n {
		w.wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			var s *mysqltest.Session
			for n := 0; ctx.Err() == nil; n++ {
				if s == nil {
					var err error
					if s, err = src.Session(ctx); err != nil {
						s = nil
						continue
					}
				}
				if err := s.Exec(ctx, statement(rng, i, n)); err != nil {
					_ = s.Close()
					s = nil
				}
			}
			if s != nil {
				_ = s.Close()
			}
		})
	}
	return w
}

func statement(rng *rand.Rand, writer, n int) string {
	insert := fmt.Sprintf("INSERT INTO e2e.t (writer, n, pad) VALUES (%d, %d, REPEAT('x', %d))", writer, n, rng.IntN(3000))
	switch rng.IntN(60) {
	case 0:
		return fmt.Sprintf("INSERT INTO e2e.m (writer) VALUES (%d)", writer)
	case 1:
		return "BEGIN; " + insert + "; SAVEPOINT s; " + insert + "; ROLLBACK TO s; " + insert + "; COMMIT"
	case 2:
		return fmt.Sprintf("INSERT INTO e2e.t (writer, n, pad) SELECT writer, n, REPEAT('y', 15000) FROM e2e.t WHERE writer = %d LIMIT 60", writer)
	case 3:
		return "FLUSH BINARY LOGS"
	case 4:
		return fmt.Sprintf("CREATE TABLE IF NOT EXISTS e2e.c%d (a INT PRIMARY KEY); DROP TABLE e2e.c%d", writer, writer)
	case 5, 6, 7, 8, 9:
		return fmt.Sprintf("UPDATE e2e.t SET n = n + 1 WHERE writer = %d ORDER BY id DESC LIMIT 5", writer)
	}
	return insert
}

func (w *writers) stop() {
	w.cancel()
	w.wg.Wait()
}

// TestKill kills kingbus at random moments, stops it, and restarts the source,
// while writers run. In the end the replica has what the source has, each
// transaction once, and kingbus' files are the source's, byte by byte.
func TestKill(t *testing.T) {
	t.Run("gtid", func(t *testing.T) { kill(t, 12, "SOURCE_AUTO_POSITION=1") })
	t.Run("position", func(t *testing.T) {
		kill(t, 6, "SOURCE_LOG_FILE='binlog.000001', SOURCE_LOG_POS=4", "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF")
	})
}

func kill(t *testing.T, kills int, position string, options ...string) {
	if testing.Short() {
		kills = 3
	}
	ctx := context.Background()
	dir := evidence(t)
	src := startSource(t, dir, mysqltest.Options{Name: "source", Args: append([]string{"--log-bin=binlog", "--max-binlog-size=4M", "--binlog-rows-query-log-events=ON"}, options...)})
	rep := mysqltest.Start(t, mysqltest.Options{Name: "replica", Args: options})
	p := newProcess(t, dir, "kingbus", src)
	p.start()
	p.follow(ctx, rep, position)
	w := startWriters(t, src, 3)
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for i := range kills {
		p.await("streaming", func(s admin.Status) bool { return s.Source.Connected })
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond) // a random moment
		switch {
		case i%6 == 3:
			p.stop()
		case i%6 == 4:
			src.Kill()
			if err := src.Start(ctx); err != nil {
				t.Fatal(err)
			}
			continue
		default:
			p.kill()
		}
		p.start()
	}
	w.stop()
	same(t, p, src, rep)
	p.stop()
	if out, err := exec.Command(program(t), "inspect", p.dir).CombinedOutput(); err != nil {
		t.Errorf("inspect: %v\n%s", err, out)
	}
}

// same waits until all has arrived, and compares everything.
func same(t *testing.T, p *process, src, rep *mysqltest.Instance) {
	t.Helper()
	ctx := context.Background()
	if err := src.Exec(ctx, "FLUSH BINARY LOGS"); err != nil {
		t.Fatal(err)
	}
	end, err := src.Query(ctx, "SHOW BINARY LOG STATUS")
	if err != nil {
		t.Fatal(err)
	}
	executed, err := gtid.ParseSet(end[0][4])
	if err != nil {
		t.Fatal(err)
	}
	s := p.await("everything in kingbus", func(s admin.Status) bool {
		return s.Stream.End.File == end[0][0] && fmt.Sprint(s.Stream.End.Pos) == end[0][1]
	})
	if !s.Stream.Executed.Equal(executed) {
		t.Errorf("kingbus has %v, the source %v", s.Stream.Executed, executed)
	}
	if n, err := rep.QueryValue(ctx, fmt.Sprintf("SELECT SOURCE_POS_WAIT('%s', %s, 60)", end[0][0], end[0][1])); err != nil || n == "NULL" || n == "-1" {
		rows, _ := rep.Query(ctx, "SELECT * FROM performance_schema.replication_connection_status; SELECT * FROM performance_schema.replication_applier_status_by_worker")
		t.Fatalf("the replica did not get everything: %v %v\n%v", n, err, rows)
	}
	if got, err := rep.GTIDExecuted(ctx); err != nil || gtidText(t, got) != executed.String() {
		t.Errorf("the replica has %v, the source %v, %v", got, executed, err)
	}
	if diff, err := mysqltest.CompareTables(ctx, src, rep); err != nil || diff != "" {
		t.Errorf("source and replica differ: %s %v", diff, err)
	}
	files, err := src.BinlogFiles(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 2 {
		t.Errorf("only %d binlog files: the test is too small", len(files))
	}
	for _, f := range files[:len(files)-1] {
		disk, err := os.ReadFile(filepath.Join(src.DataDir, f.Name))
		if err != nil {
			t.Fatal(err)
		}
		// A file that the source did not close in peace has the IN_USE flag of its
		// format description set on disk, and clear on the wire.
		disk[4+17] &^= 1
		var got bytes.Buffer
		if err := p.get("/api/v1/binlogs/"+f.Name, &got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), disk) {
			t.Errorf("%s: %d bytes in kingbus, %d at the source, not equal", f.Name, got.Len(), len(disk))
		}
	}
	t.Logf("%d files, %d transactions, end %v", len(files), s.Stream.Transactions, s.Stream.End)
}

// gtidText brings a set that a server printed into our form of it.
func gtidText(t *testing.T, text string) string {
	t.Helper()
	set, err := gtid.ParseSet(text)
	if err != nil {
		t.Fatal(err)
	}
	return set.String()
}
