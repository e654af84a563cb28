package mysqltest

import (
	"errors"
	"strconv"
	"strings"
	"testing"
)

func TestFlavours(t *testing.T) {
	for _, flavour := range Flavours() {
		t.Run(string(flavour), func(t *testing.T) {
			inst := Start(t, Options{Flavour: flavour})
			version := mustQuery(t, inst, "SELECT VERSION()")[0][0]
			if want := strings.SplitN(string(flavour), "-", 2)[1]; flavour != MySQL97 && !strings.HasPrefix(version, want) {
				t.Errorf("VERSION(): got %s, want %s", version, want)
			}
			t.Log(version)
			if inst.Server.Version == "" || !inst.Server.AtLeast(5, 6) {
				t.Errorf("Server.Version = %q", inst.Server.Version)
			}
			want := "ünï\tco\nde\\ \U0001F41D"
			mustExec(t, inst, "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT CHARACTER SET utf8mb4); INSERT INTO d.t VALUES (1, "+quote(want)+")")
			if got := mustQuery(t, inst, "SELECT b FROM d.t")[0][0]; got != want {
				t.Errorf("text: got %q, want %q", got, want)
			}
			if got := mustQuery(t, inst, "SELECT HEX(b) FROM d.t")[0][0]; !strings.HasSuffix(got, "F09F909D") {
				t.Errorf("the text was not stored as utf8mb4: %s", got)
			}
			if got := mustQuery(t, inst, "SELECT CONCAT(User, '@', Host) FROM mysql.user WHERE User = '' OR Host NOT IN ('localhost')"); len(got) != 0 {
				t.Errorf("accounts: got %q, want only those of localhost", got)
			}
			if err := inst.CreateUser(t.Context(), User{Name: "repl", Password: "it's", Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}); err != nil {
				t.Fatal(err)
			}
			login := inst.Tool(t.Context(), "mysql", "--host=127.0.0.1", "--port="+strconv.Itoa(inst.Port), "--user=repl", "--password=it's",
				"--batch", "--skip-column-names", "--execute=SELECT CURRENT_USER()")
			if out, err := login.CombinedOutput(); err != nil || !strings.Contains(string(out), "repl@%") {
				t.Errorf("log in over TCP: %v: %s", err, out)
			}
			files, err := inst.BinlogFiles(t.Context())
			if err != nil || len(files) == 0 || files[0].Size < 100 {
				t.Errorf("BinlogFiles: got %v, %v", files, err)
			}
			dump := inst.Tool(t.Context(), "mysqlbinlog", "--read-from-remote-server", "--host=127.0.0.1", "--port="+strconv.Itoa(inst.Port),
				"--user=repl", "--password=it's", files[len(files)-1].Name)
			if out, err := dump.CombinedOutput(); err != nil || !strings.Contains(string(out), "CREATE DATABASE d") {
				t.Errorf("mysqlbinlog: %v: %s", err, lastLines(string(out), 20))
			}
			testFlavourSession(t, inst)
			if err := inst.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			inst.Kill()
			if err := inst.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := mustQuery(t, inst, "SELECT COUNT(*) FROM d.t")[0][0]; got != "1" {
				t.Errorf("rows after a crash: got %s, want 1", got)
			}
		})
	}
}

func testFlavourSession(t *testing.T, inst *Instance) {
	t.Helper()
	s, err := inst.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if rows, err := s.Query(t.Context(), "USE d; SELECT 'one'; SELECT 'ü\U0001F41D', NULL"); err != nil || len(rows) != 2 || rows[0][0] != "one" || rows[1][0] != "ü\U0001F41D" {
		t.Errorf("session: got %q, %v", rows, err)
	}
	var serr *SQLError
	if err := s.Exec(t.Context(), "SELECT * FROM nosuch"); !errors.As(err, &serr) || serr.Code != 1146 {
		t.Errorf("session: got %v, want error 1146", err)
	}
	if err := inst.Exec(t.Context(), "SELECT * FROM d.nosuch"); !errors.As(err, &serr) || serr.Code != 1146 {
		t.Errorf("Exec: got %v, want error 1146", err)
	}
}

// TestCompareFlavours puts the same rows into servers of all flavours.
func TestCompareFlavours(t *testing.T) {
	var first *Instance
	for _, flavour := range Flavours() {
		inst := Start(t, Options{Flavour: flavour, Name: string(flavour)})
		mustExec(t, inst, `SET time_zone = '+00:00'; CREATE DATABASE d; USE d;
			CREATE TABLE t (id INT NOT NULL PRIMARY KEY, s VARCHAR(50) CHARACTER SET latin1, u TEXT CHARACTER SET utf8mb4, b BLOB, n DECIMAL(20,5), f DOUBLE,
				ts TIMESTAMP(3) NULL, y YEAR, e SET('x','y','z'), i BIT(9));
			INSERT INTO t VALUES (1, 'ä', '🐝', x'00ff', -1.5, 1e100, '2026-01-02 03:04:05.678', 2026, 'x,z', b'101'),
				(2, NULL, '', NULL, NULL, 0.1, NULL, NULL, '', NULL)`)
		if first == nil {
			first = inst
			continue
		}
		if diff, err := CompareTables(t.Context(), first, inst); err != nil || diff != "" {
			t.Errorf("%s and %s: got %q, %v, want no difference", first.Name, inst.Name, diff, err)
		}
		mustExec(t, inst, "UPDATE d.t SET n = n - 0.00001")
		if diff, err := CompareTables(t.Context(), first, inst); err != nil || !strings.Contains(diff, "'-1.50001'") {
			t.Errorf("%s and %s: got %q, %v, want the changed row", first.Name, inst.Name, diff, err)
		}
		if err := inst.Close(); err != nil {
			t.Error(err)
		}
	}
}
