package source

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kingbus/internal/mysqltest"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// The tests of this file run against real servers: every file of the stream must
// have the bytes of the source's file.

// workload is one of everything that ends up in a binlog.
const workload = `
CREATE DATABASE d; USE d;
CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(100), b LONGBLOB) ENGINE=InnoDB;
CREATE TABLE m (id INT, a VARCHAR(100)) ENGINE=MyISAM;
INSERT INTO t (a) VALUES ('one'), ('two'), ('three');
INSERT INTO m VALUES (1, 'x'), (2, 'y');
BEGIN; INSERT INTO t (a) VALUES ('four'); SAVEPOINT s; INSERT INTO t (a) VALUES ('gone'); ROLLBACK TO s; UPDATE t SET a = 'x' WHERE id = 1; COMMIT;
BEGIN; INSERT INTO t (a) VALUES ('never'); ROLLBACK;
BEGIN; INSERT INTO t (a) VALUES ('mixed'); INSERT INTO m VALUES (3, 'z'); ROLLBACK;
SET SESSION binlog_format = STATEMENT;
INSERT INTO t (a) VALUES (CONCAT('s', LAST_INSERT_ID(), 'x')); SET @u = 5; INSERT INTO m VALUES (@u, RAND()); UPDATE t SET a = CONCAT(a, '!');
BEGIN; INSERT INTO t (a) VALUES ('st'); DELETE FROM t WHERE id = 2; COMMIT;
SET SESSION binlog_format = MIXED; INSERT INTO t (a) VALUES (UUID()); SET SESSION binlog_format = ROW;
SET SESSION binlog_rows_query_log_events = ON; INSERT INTO t (a) VALUES ('rq'); SET SESSION binlog_rows_query_log_events = OFF;
ALTER TABLE t ADD COLUMN c INT; CREATE INDEX i ON t (c); DROP INDEX i ON t; TRUNCATE m; ANALYZE TABLE t;
CREATE VIEW v AS SELECT id FROM t; DROP VIEW v; CREATE TEMPORARY TABLE tmp (x INT) ENGINE=InnoDB; INSERT INTO tmp VALUES (1); DROP TEMPORARY TABLE tmp;
CREATE TABLE big (id INT PRIMARY KEY, b LONGBLOB) ENGINE=InnoDB;
INSERT INTO big VALUES (1, REPEAT('q', 200000)), (2, REPEAT('r', 70000)); INSERT INTO big VALUES (3, REPEAT('s', 1500000));
FLUSH TABLES; FLUSH LOGS;
INSERT INTO t (a) SELECT LEFT(REPEAT(a, 10), 100) FROM t; DELETE FROM big WHERE id = 2;
`

const xaWork = `USE d; XA START 'x1'; INSERT INTO t (a) VALUES ('xa'); XA END 'x1'; XA PREPARE 'x1'; XA COMMIT 'x1';
XA START 'x2', 'b', 7; INSERT INTO t (a) VALUES ('xa2'); XA END 'x2', 'b', 7; XA PREPARE 'x2', 'b', 7; XA ROLLBACK 'x2', 'b', 7;
XA START 'x3'; INSERT INTO t (a) VALUES ('xa3'); XA END 'x3'; XA COMMIT 'x3' ONE PHASE;`

func TestRealWorkload(t *testing.T) {
	off97 := []string{"--gtid-mode=OFF", "--enforce-gtid-consistency=OFF", "--max-allowed-packet=1G"}
	on56 := []string{"--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--log-slave-updates", "--max-allowed-packet=64M", "--innodb-log-file-size=256M"}
	tests := []struct {
		name   string
		opts   mysqltest.Options
		before string
	}{
		{"9.7", mysqltest.Options{Args: []string{"--max-allowed-packet=1G"}}, ""},
		{"9.7 off", mysqltest.Options{Args: off97}, ""},
		{"9.7 no checksums", mysqltest.Options{Args: []string{"--binlog-checksum=NONE", "--max-allowed-packet=1G"}}, ""},
		{"9.7 compressed", mysqltest.Options{Args: []string{"--binlog-transaction-compression=ON", "--max-allowed-packet=1G"}}, ""},
		{"9.7 minimal", mysqltest.Options{Args: []string{"--binlog-row-image=MINIMAL", "--binlog-row-metadata=FULL", "--max-allowed-packet=1G", "--max-binlog-size=4096"}}, ""},
		{"5.6", mysqltest.Options{Flavour: mysqltest.MySQL56, Args: []string{"--max-allowed-packet=64M", "--innodb-log-file-size=256M"}}, ""},
		{"5.6 gtid", mysqltest.Options{Flavour: mysqltest.MySQL56, Args: on56}, ""},
		{"MariaDB 10.11", mysqltest.Options{Flavour: mysqltest.MariaDB1011, Args: []string{"--max-allowed-packet=1G"}}, ""},
		{"MariaDB 11.8", mysqltest.Options{Flavour: mysqltest.MariaDB118, Args: []string{"--max-allowed-packet=1G"}}, ""},
		{"MariaDB 11.8 compressed", mysqltest.Options{Flavour: mysqltest.MariaDB118, Args: []string{"--max-allowed-packet=1G", "--log-bin-compress=ON", "--max-binlog-size=4096"}}, ""},
		{"MariaDB 10.11 no checksums", mysqltest.Options{Flavour: mysqltest.MariaDB1011, Args: []string{"--max-allowed-packet=1G", "--binlog-checksum=NONE", "--binlog-annotate-row-events=OFF"}}, ""},
		{"5.6 no checksums", mysqltest.Options{Flavour: mysqltest.MySQL56, Args: []string{"--binlog-checksum=NONE", "--max-allowed-packet=64M", "--innodb-log-file-size=256M"}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			// A loaded machine may take seconds to sync 24 MB, which its SHOW BINARY LOGS
			// counts before its dump thread may send them: no case for the watch.
			r := newRig(t, tt.opts, func(c *Config) { c.Watch = patience }).start()
			work := workload
			maria := r.inst.Server.Flavour.MariaDB()
			if maria {
				work = strings.ReplaceAll(work, "SET SESSION binlog_rows_query_log_events = ON; INSERT INTO t (a) VALUES ('rq'); SET SESSION binlog_rows_query_log_events = OFF;", "")
			}
			if strings.HasSuffix(tt.name, "gtid") || r.gtids() {
				// Not allowed where GTIDs are enforced.
				work = strings.ReplaceAll(work, "BEGIN; INSERT INTO t (a) VALUES ('mixed'); INSERT INTO m VALUES (3, 'z'); ROLLBACK;", "")
			}
			r.exec(work)
			r.compare("")
			if r.inst.Server.Flavour == mysqltest.MySQL97 {
				r.exec("USE d; CREATE TABLE cts AS SELECT * FROM t")
				r.exec(xaWork)
				r.exec("CREATE USER u1 IDENTIFIED BY 'x'; GRANT SELECT ON d.* TO u1; DROP USER u1; INSERT INTO d.big VALUES (10, REPEAT('ab', 12000000)); INSERT INTO d.big SELECT id + 100, b FROM d.big")
			} else if maria {
				r.exec("USE d; CREATE TABLE cts AS SELECT * FROM t")
				r.exec(xaWork)
				r.exec("INSERT INTO d.big VALUES (10, REPEAT('ab', 12000000)); INSERT INTO d.big SELECT id + 100, b FROM d.big")
			} else {
				r.exec(xaWork[:strings.Index(xaWork, "XA START 'x2'")])
				r.exec("INSERT INTO d.big VALUES (10, REPEAT('ab', 12000000))")
			}
			r.compare("")
			// Switching checksums writes a new file, with the links going on.
			r.exec("SET GLOBAL binlog_checksum = NONE; INSERT INTO d.t (a) VALUES ('no sum'); SET GLOBAL binlog_checksum = CRC32; INSERT INTO d.t (a) VALUES ('sum'); SET GLOBAL binlog_checksum = NONE; INSERT INTO d.t (a) VALUES ('no sum again')")
			r.compare("")
			if st := r.p.Status(); r.links.Load() != 1 || st.Problem != nil {
				t.Errorf("%d connections, status: %+v", r.links.Load(), st)
			}
			// The same from the beginning, in one go: large runs.
			other := openStream(t)
			r.stop()
			r.st, r.cfg = other, configFor(r.inst, other)
			r.start().compare("")
		})
	}
}

func TestRealTags(t *testing.T) {
	r := newRig(t, mysqltest.Options{}, nil).start()
	r.exec(`CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY);
		SET GTID_NEXT = 'AUTOMATIC:blue'; INSERT INTO d.t VALUES (1); INSERT INTO d.t VALUES (2); SET GTID_NEXT = 'AUTOMATIC'; INSERT INTO d.t VALUES (3)`)
	r.compare("")
	r.stop()
	r.exec("SET GTID_NEXT = 'AUTOMATIC:red'; INSERT INTO d.t VALUES (4); FLUSH BINARY LOGS; INSERT INTO d.t VALUES (5)")
	r.start().compare("")
	if !r.st.Status().Executed.HasTags() {
		t.Errorf("executed: got %v, want tags", r.st.Status().Executed)
	}
}

// TestRealRestarts: clean and by SIGKILL, with writers at work.
func TestRealRestarts(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts mysqltest.Options
	}{
		{"9.7 sync_binlog=0", mysqltest.Options{}},
		{"9.7 sync_binlog=1", mysqltest.Options{Args: []string{"--sync-binlog=1"}}},
		{"9.7 off", mysqltest.Options{Args: []string{"--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"}}},
		{"5.6", mysqltest.Options{Flavour: mysqltest.MySQL56}},
		{"5.6 gtid", mysqltest.Options{Flavour: mysqltest.MySQL56, Args: []string{"--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--log-slave-updates"}}},
		{"MariaDB 10.11", mysqltest.Options{Flavour: mysqltest.MariaDB1011}},
		{"MariaDB 11.8", mysqltest.Options{Flavour: mysqltest.MariaDB118, Args: []string{"--sync-binlog=1"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, tt.opts, nil).start()
			r.exec("CREATE DATABASE d; CREATE TABLE d.t (a INT AUTO_INCREMENT PRIMARY KEY, b VARCHAR(500)) ENGINE=InnoDB")
			if err := r.inst.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.exec("INSERT INTO d.t (b) VALUES ('after a clean restart')")
			r.compare("")
			for round := range 2 {
				stopWriters := r.writers(3)
				before := r.st.Status().Transactions
				await(t, "transactions", r.p, func() bool { return r.st.Status().Transactions > before+50 })
				r.inst.Kill()
				stopWriters()
				if err := r.inst.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				r.exec(fmt.Sprintf("INSERT INTO d.t (b) VALUES ('after kill %d')", round))
				r.compare("")
			}
		})
	}
}

// TestRealEncrypted: MariaDB sends an encrypted file decrypted, but tells of it.
func TestRealEncrypted(t *testing.T) {
	for _, flavour := range []mysqltest.Flavour{mysqltest.MariaDB1011, mysqltest.MariaDB118} {
		t.Run(string(flavour), func(t *testing.T) {
			t.Parallel()
			key := filepath.Join(t.TempDir(), "keys")
			if err := os.WriteFile(key, []byte("1;770A8A65DA156D24EE2A093277530142\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			r := newRig(t, mysqltest.Options{Flavour: flavour, Args: []string{"--max-binlog-size=65536",
				"--plugin-load-add=file_key_management", "--file-key-management-filename=" + key, "--encrypt-binlog=ON"}}, nil).start()
			r.encrypted = true
			r.exec("CREATE DATABASE d; CREATE TABLE d.t (a INT AUTO_INCREMENT PRIMARY KEY, b VARCHAR(500)) ENGINE=InnoDB")
			for range 5 {
				stopWriters := r.writers(3)
				for range 5 {
					before := r.st.Status().Transactions
					await(t, "transactions", r.p, func() bool { return r.st.Status().Transactions > before+uint64(rand.IntN(60)) })
					if err := r.killDumps(t.Context()); err != nil {
						t.Error(err)
					}
				}
				stopWriters()
				if err := r.inst.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			r.exec("INSERT INTO d.t (b) VALUES ('last')")
			r.compare("")
		})
	}
}

// writers insert until stopped; errors end them.
func (r *rig) writers(n int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s, err := r.inst.Session(ctx)
			if err != nil {
				return
			}
			defer s.Close()
			for k := 0; ctx.Err() == nil; k++ {
				if err := s.Exec(ctx, fmt.Sprintf("BEGIN; INSERT INTO d.t (b) VALUES (REPEAT('%d', %d)); INSERT INTO d.t (b) VALUES ('x'); COMMIT", i, k%400)); err != nil {
					return
				}
			}
		}()
	}
	return func() { cancel(); wg.Wait() }
}

// TestRealKills kills the dump thread at random moments while writers run.
func TestRealKills(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts mysqltest.Options
	}{
		{"9.7", mysqltest.Options{Args: []string{"--max-binlog-size=65536"}}},
		{"9.7 off", mysqltest.Options{Args: []string{"--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"}}},
		{"5.6", mysqltest.Options{Flavour: mysqltest.MySQL56, Args: []string{"--max-binlog-size=65536"}}},
		{"MariaDB 10.11 no checksums", mysqltest.Options{Flavour: mysqltest.MariaDB1011, Args: []string{"--max-binlog-size=65536", "--binlog-checksum=NONE"}}},
		{"MariaDB 11.8", mysqltest.Options{Flavour: mysqltest.MariaDB118, Args: []string{"--max-binlog-size=65536"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, tt.opts, func(c *Config) { c.Retry = Backoff{time.Millisecond, 10 * time.Millisecond} }).start()
			r.exec("CREATE DATABASE d; CREATE TABLE d.t (a INT AUTO_INCREMENT PRIMARY KEY, b VARCHAR(500)) ENGINE=InnoDB")
			stopWriters := r.writers(3)
			for range 25 {
				before := r.st.Status().Transactions
				more := uint64(rand.IntN(60))
				await(t, "transactions", r.p, func() bool { return r.st.Status().Transactions > before+more })
				if err := r.killDumps(t.Context()); err != nil {
					t.Error(err)
				}
			}
			stopWriters()
			r.compare("")
			if n := r.links.Load(); n < 20 {
				t.Errorf("%d connections, want more than 20", n)
			}
		})
	}
}

func TestRealReset(t *testing.T) {
	r := newRig(t, mysqltest.Options{}, nil).start()
	r.exec("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); INSERT INTO d.t VALUES (1)")
	r.compare("")
	before := export(t, r.st, "binlog.000001")
	// The source's dump thread does not notice, see watch.
	r.exec("RESET BINARY LOGS AND GTIDS")
	awaitProblem(t, r.p, KindBehind)
	// Even when it has as many transactions again, and more.
	r.exec("INSERT INTO d.t VALUES (2); INSERT INTO d.t VALUES (3); INSERT INTO d.t VALUES (4); INSERT INTO d.t VALUES (5); INSERT INTO d.t VALUES (6); INSERT INTO d.t VALUES (7)")
	awaitProblem(t, r.p, KindReset)
	if string(export(t, r.st, "binlog.000001")) != string(before) || len(r.st.Status().Files) != 1 {
		t.Errorf("the stream has changed: %v", r.st.Status().Files)
	}

	off := newRig(t, mysqltest.Options{Args: []string{"--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"}}, nil).start()
	off.exec("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); FLUSH BINARY LOGS; INSERT INTO d.t VALUES (1)")
	off.compare("")
	off.exec("RESET BINARY LOGS AND GTIDS")
	awaitProblem(t, off.p, KindReset)

	maria := newRig(t, mysqltest.Options{Flavour: mysqltest.MariaDB118}, nil).start()
	maria.exec("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); FLUSH BINARY LOGS; INSERT INTO d.t VALUES (1)")
	maria.compare("")
	maria.exec("RESET MASTER")
	awaitProblem(t, maria.p, KindReset)

	// The same file name, longer than before, with as many transactions.
	same := newRig(t, mysqltest.Options{}, nil).start()
	same.exec("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); INSERT INTO d.t VALUES (1)")
	same.compare("")
	// Files are told apart by the time of their making, in seconds.
	if _, err := same.inst.Await(t.Context(), fmt.Sprintf("SELECT UNIX_TIMESTAMP() > %d", same.st.Status().LastEventTime), func(rows [][]string) bool { return rows[0][0] == "1" }); err != nil {
		t.Fatal(err)
	}
	same.exec("RESET BINARY LOGS AND GTIDS; INSERT INTO d.t SELECT a + 100 FROM d.t; INSERT INTO d.t SELECT a + 200 FROM d.t; INSERT INTO d.t SELECT a + 400 FROM d.t; INSERT INTO d.t SELECT a + 800 FROM d.t; INSERT INTO d.t SELECT a + 1600 FROM d.t")
	awaitProblem(t, same.p, KindReset)
}

func TestRealPurge(t *testing.T) {
	r := newRig(t, mysqltest.Options{}, nil).start()
	r.exec("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); INSERT INTO d.t VALUES (1); FLUSH BINARY LOGS; INSERT INTO d.t VALUES (2); FLUSH BINARY LOGS")
	r.compare("")
	r.exec("PURGE BINARY LOGS TO 'binlog.000003'; INSERT INTO d.t VALUES (3)")
	r.compare("binlog.000003") // behind us: nothing happens
	// The file that we are in goes, and nothing is missing.
	r.stop()
	r.exec("FLUSH BINARY LOGS; FLUSH BINARY LOGS")
	r.purge("binlog.000005")
	r.exec("INSERT INTO d.t VALUES (4)")
	r.start().compare("binlog.000005")
	// And now something is missing.
	r.stop()
	r.exec("INSERT INTO d.t VALUES (5); FLUSH BINARY LOGS")
	r.purge("binlog.000006")
	r.start()
	awaitProblem(t, r.p, KindLostHistory)

	off := newRig(t, mysqltest.Options{Args: []string{"--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"}}, nil).start()
	off.exec("CREATE DATABASE d")
	off.compare("")
	off.stop()
	off.exec("FLUSH BINARY LOGS")
	off.purge("binlog.000002")
	off.start()
	awaitProblem(t, off.p, KindLostHistory)
}

// purge purges the source's binlog up to a file. The source passes over a file
// that a dump thread still reads, and one whose client is gone notices that only
// when it writes: so it is tried until the files are gone.
func (r *rig) purge(to string) {
	r.t.Helper()
	for late := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		r.exec("PURGE BINARY LOGS TO '" + to + "'")
		files, err := r.inst.BinlogFiles(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		if files[0].Name == to {
			return
		}
		if time.Now().After(late) {
			r.t.Fatalf("the source does not purge up to %s: it has %v", to, files)
		}
	}
}

func TestRealStart(t *testing.T) {
	r := newRig(t, mysqltest.Options{}, nil)
	r.exec("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); FLUSH BINARY LOGS; INSERT INTO d.t VALUES (1); FLUSH BINARY LOGS; INSERT INTO d.t VALUES (2); FLUSH BINARY LOGS; INSERT INTO d.t VALUES (3)")
	r.exec("PURGE BINARY LOGS TO 'binlog.000002'")
	for text, first := range map[string]string{
		"": "binlog.000002", "current": "binlog.000004", "binlog.000003": "binlog.000003",
		"gtid:" + r.inst.UUID + ":1-3": "binlog.000003", "gtid:" + r.inst.UUID + ":1-2": "binlog.000002",
	} {
		var err error
		r.st = openStream(t)
		r.cfg = configFor(r.inst, r.st)
		if r.cfg.Start, err = ParseStart(text); err != nil {
			t.Fatal(err)
		}
		r.start().compare(first)
		st := r.st.Status()
		if got := st.Files[0].Name; got != first {
			t.Errorf("start %q: got %s first, want %s", text, got, first)
		}
		r.stop()
		t.Logf("start %q: purged %v", text, st.Purged)
	}
}

// TestRealLogin goes through the authentication plugins, with and without TLS.
func TestRealLogin(t *testing.T) {
	inst := mysqltest.Start(t, mysqltest.Options{})
	if err := inst.Exec(t.Context(), "CREATE DATABASE d"); err != nil {
		t.Fatal(err)
	}
	files := wire.TLSFiles{CA: filepath.Join(inst.DataDir, "ca.pem")}
	withCA, err := wire.LoadClientTLS(files)
	if err != nil {
		t.Fatal(err)
	}
	for _, plugin := range []string{"caching_sha2_password", "sha256_password"} {
		user := strings.TrimSuffix(plugin, "_password")
		for _, password := range []string{"", "p w'd"} {
			name := user
			if password == "" {
				name += "0"
			}
			if err := inst.CreateUser(t.Context(), mysqltest.User{Name: name, Password: password, Plugin: plugin, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}); err != nil {
				t.Fatal(err)
			}
			for _, mode := range []wire.TLSMode{wire.TLSDisabled, wire.TLSPreferred, wire.TLSRequired, wire.TLSVerifyCA} {
				for _, cached := range []bool{false, true} {
					if !cached {
						if err := inst.Exec(t.Context(), "FLUSH PRIVILEGES"); err != nil {
							t.Fatal(err)
						}
					}
					st := openStream(t)
					cfg := configFor(inst, st)
					cfg.User, cfg.Password, cfg.TLSMode, cfg.TLS = name, func() ([]byte, error) { return []byte(password), nil }, mode, withCA
					p, stop := start(t, cfg)
					await(t, fmt.Sprintf("streaming with %s, %v, password %q", plugin, mode, password), p, func() bool { return p.Status().State == StateStreaming })
					if got := p.Status().TLS; (got != "") != (mode != wire.TLSDisabled) {
						t.Errorf("%s, %v: TLS %q", plugin, mode, got)
					}
					stop()
				}
			}
		}
	}
	refused := func(what, text string, change func(*Config)) {
		t.Run(what, func(t *testing.T) {
			cfg := configFor(inst, openStream(t))
			cfg.User, cfg.Password = "caching_sha2", func() ([]byte, error) { return []byte("p w'd"), nil }
			change(&cfg)
			p, _ := start(t, cfg)
			if pr := awaitProblem(t, p, KindLogin); !strings.Contains(pr.Error(), text) {
				t.Errorf("got %v, want %q in it", pr, text)
			}
		})
	}
	refused("wrong password", "refuses the login", func(c *Config) { c.Password = nil })
	refused("identity", "certificate", func(c *Config) { c.TLSMode, c.TLS = wire.TLSVerifyIdentity, withCA })
	refused("another CA", "certificate", func(c *Config) { c.TLSMode = wire.TLSVerifyIdentity })
	if err := inst.Exec(t.Context(), "FLUSH PRIVILEGES"); err != nil {
		t.Fatal(err)
	}
	refused("no way to send the password", "not encrypted", func(c *Config) { c.TLSMode, c.GetServerPublicKey = wire.TLSDisabled, false })

	for grants, text := range map[string]string{"REPLICATION SLAVE": "REPLICATION CLIENT", "REPLICATION CLIENT": "REPLICATION SLAVE"} {
		name := strings.ReplaceAll(grants, " ", "_")
		if err := inst.CreateUser(t.Context(), mysqltest.User{Name: name, Password: "x", Grants: grants}); err != nil {
			t.Fatal(err)
		}
		cfg := configFor(inst, openStream(t))
		cfg.User, cfg.Password = name, func() ([]byte, error) { return []byte("x"), nil }
		p, stop := start(t, cfg)
		if pr := awaitProblem(t, p, KindPrivilege); !strings.Contains(pr.Reason, text) {
			t.Errorf("with %s: got %v", grants, pr)
		}
		stop()
	}
}

// TestRealLogin56 is the same for the server of which the plugins are older.
func TestRealLogin56(t *testing.T) {
	inst := mysqltest.Start(t, mysqltest.Options{Flavour: mysqltest.MySQL56})
	for _, plugin := range []string{"mysql_native_password"} {
		if err := inst.CreateUser(t.Context(), mysqltest.User{Name: "u", Password: "x y", Plugin: plugin, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}); err != nil {
			t.Fatal(err)
		}
		st := openStream(t)
		cfg := configFor(inst, st)
		cfg.User, cfg.Password = "u", func() ([]byte, error) { return []byte("x y"), nil }
		p, stop := start(t, cfg)
		await(t, "streaming with "+plugin, p, func() bool { return p.Status().State == StateStreaming })
		stop()
		cfg.TLSMode = wire.TLSRequired
		p, stop = start(t, cfg)
		if pr := awaitProblem(t, p, KindLogin); !strings.Contains(pr.Reason, "TLS is required") {
			t.Errorf("got %v", pr)
		}
		stop()
	}
}

func TestRealChecks(t *testing.T) {
	r := newRig(t, mysqltest.Options{}, nil).start()
	r.exec("CREATE DATABASE d")
	r.compare("")
	// The source takes our server id.
	id := r.st.Status().Identity.ServerID
	old := r.inst.ServerID
	r.exec(fmt.Sprintf("SET GLOBAL server_id = %d", id))
	if err := r.killDumps(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitProblem(t, r.p, KindServerID)
	r.exec(fmt.Sprintf("SET GLOBAL server_id = %d; CREATE DATABASE e", old))
	r.compare("")
	// Somebody else presents our uuid.
	thief := openStream(t)
	r.stop()
	cfg := r.cfg
	cfg.Stream = identity{Adapt(r.st), r.st.Status().Identity}
	r.cfg = cfg
	r.start()
	r.compare("")
	cfg.Stream = identity{Adapt(thief), r.st.Status().Identity}
	other, _ := start(t, cfg)
	awaitProblem(t, r.p, KindIdentityUsed)
	awaitProblem(t, other, KindIdentityUsed)

	// No binlog at all.
	off := newRig(t, mysqltest.Options{Args: []string{"--skip-log-bin"}}, nil).start()
	awaitProblem(t, off.p, KindBinlogOff)
}

// identity replaces that of the stream.
type identity struct {
	Stream
	id stream.Identity
}

func (i identity) Status() stream.Status {
	st := i.Stream.Status()
	st.Identity = i.id
	return st
}
