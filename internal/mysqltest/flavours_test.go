package mysqltest

import (
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
			login := inst.Tool(t.Context(), "mysql", "--host=127.0.0.1", "--port="+inst.Addr()[len("127.0.0.1:"):], "--user=repl", "--password=it's",
				"--batch", "--skip-column-names", "--execute=SELECT CURRENT_USER()")
			if out, err := login.CombinedOutput(); err != nil || !strings.Contains(string(out), "repl@%") {
				t.Errorf("log in over TCP: %v: %s", err, out)
			}
			files, err := inst.BinlogFiles(t.Context())
			if err != nil || len(files) == 0 || files[0].Size < 100 {
				t.Errorf("BinlogFiles: got %v, %v", files, err)
			}
			dump := inst.Tool(t.Context(), "mysqlbinlog", "--read-from-remote-server", "--host=127.0.0.1", "--port="+inst.Addr()[len("127.0.0.1:"):],
				"--user=repl", "--password=it's", files[len(files)-1].Name)
			if out, err := dump.CombinedOutput(); err != nil || !strings.Contains(string(out), "CREATE DATABASE d") {
				t.Errorf("mysqlbinlog: %v: %s", err, lastLines(string(out), 20))
			}
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
