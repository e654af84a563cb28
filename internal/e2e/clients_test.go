package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kingbus/internal/mysqltest"
	mysql "kingbus/internal/wire"
)

// clientRig is a kingbus with a real source, a real replica and an administrator, for the
// clients that people and programs use.
type clientRig struct {
	src, rep *mysqltest.Instance
	p        *process
}

// opsUser is an administrator on kingbus, source and replica, and legacyUser one on kingbus for
// clients without caching_sha2_password. Both have the test's password.
const (
	opsUser    = "ops"
	legacyUser = "legacy"
)

// TestClients: real clients are answered by the real program as by a MySQL.
func TestClients(t *testing.T) {
	ctx := context.Background()
	dir := evidence(t)
	r := &clientRig{}
	r.src = startSource(t, dir, mysqltest.Options{Name: "source"})
	r.rep = mysqltest.Start(t, mysqltest.Options{Name: "replica", Args: []string{"--report-host=127.0.0.1"}})
	for _, inst := range []*mysqltest.Instance{r.src, r.rep} {
		if err := inst.CreateUser(ctx, mysqltest.User{Name: opsUser, Password: password, Grants: "ALL"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.src.Exec(ctx, "CREATE DATABASE e2e; CREATE TABLE e2e.t (id INT AUTO_INCREMENT PRIMARY KEY, b INT); INSERT INTO e2e.t VALUES (1, 2); FLUSH BINARY LOGS; INSERT INTO e2e.t VALUES (2, 2)"); err != nil {
		t.Fatal(err)
	}
	r.p = newProcess(t, dir, "kingbus", r.src)
	r.p.start()
	r.p.follow(ctx, r.rep, "SOURCE_AUTO_POSITION=1")
	same(t, r.p, r.src, r.rep)
	pw := filepath.Join(dir, "kingbus.password")
	for user, how := range map[string]string{opsUser: "--native=false", legacyUser: "--native"} {
		if out, err := r.p.run("user", "add", user, "--super", how, "--password-file", pw); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	t.Run("mysql", r.mysql)
	t.Run("mariadb", r.mariadb)
	t.Run("mysqladmin", r.mysqladmin)
	t.Run("mysqldump", r.mysqldump)
	t.Run("go-sql-driver", r.driver)
	t.Run("connectors", r.connectors)
	t.Run("prometheus", r.prometheus)
	t.Run("percona-toolkit", r.toolkit)
}

// tool builds a run of a server's client program against a port of this machine.
func tool(server *mysqltest.Server, port int, name string, args ...string) *exec.Cmd {
	user, tls := opsUser, "--ssl-mode=REQUIRED"
	if server.Flavour.MariaDB() {
		user, tls = legacyUser, "--skip-ssl-verify-server-cert"
	}
	cmd := server.Tool(context.Background(), name, append([]string{"--host=127.0.0.1", fmt.Sprintf("--port=%d", port), "--user=" + user, tls}, args...)...)
	cmd.Env = append(cmd.Environ(), "MYSQL_PWD="+password)
	return cmd
}

// typed runs a client program that reads statements from its standard input; what it says of
// errors is between the results.
func typed(t *testing.T, cmd *exec.Cmd, lines ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(strings.Join(lines, "\n")+"\n"), &out, &out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String()
}

// wants checks that an output has all of some texts, one behind the other.
func wants(t *testing.T, out string, texts ...string) {
	t.Helper()
	rest := out
	for _, text := range texts {
		at := strings.Index(rest, text)
		if at < 0 {
			t.Errorf("no %q, or not in its place, in\n%s", text, out)
			return
		}
		rest = rest[at+len(text):]
	}
}

// other is a second session, for others to see and to kill.
func (r *clientRig) other(t *testing.T) (c *mysql.Client, id string) {
	t.Helper()
	c, err := mysql.Dial(context.Background(), mysql.ClientConfig{Address: fmt.Sprintf("127.0.0.1:%d", r.p.mysqlPort), User: opsUser, Password: []byte(password), TLSMode: mysql.TLSRequired, ReadTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	res, err := c.Query(context.Background(), "SELECT CONNECTION_ID()")
	if err != nil {
		t.Fatal(err)
	}
	return c, string(res.Rows[0][0])
}

// asked are statements whose answers have to be those of the source.
var asked = []string{
	"SHOW BINARY LOGS;", "SHOW BINARY LOG STATUS;", "SHOW BINLOG EVENTS;", "SHOW BINLOG EVENTS IN 'binlog.000002' LIMIT 2, 5;", "SHOW VARIABLES LIKE 'gtid_mode';", "SHOW VARIABLES LIKE 'binlog_row%';",
	"SELECT @@GLOBAL.GTID_EXECUTED, @@GLOBAL.GTID_PURGED;", "SELECT GTID_SUBSET(@@GLOBAL.GTID_PURGED, @@GLOBAL.GTID_EXECUTED);", "SELECT GTID_SUBTRACT(@@GLOBAL.GTID_EXECUTED, '11111111-1111-1111-1111-111111111111:1-5');",
	"SELECT WAIT_FOR_EXECUTED_GTID_SET(@@GLOBAL.GTID_EXECUTED, 10);", "SELECT WAIT_FOR_EXECUTED_GTID_SET('11111111-1111-1111-1111-111111111111:1', 0.01);",
	"SELECT VERSION(), USER(), CURRENT_USER();", "SELECT nosuch;", "SHOW WARNINGS;", "SHOW NOSUCH;", "KILL 4000000000;", "SELECT 'it''s', \"a\\nb\", NULL, 1.5e0, -7;", "SELECT UNIX_TIMESTAMP('2026-01-01') > 0;",
	"SHOW DATABASES LIKE 'm%';", "USE mysql;", "SELECT DATABASE();", "USE nosuch;", "SET @a = 1;", "SELECT @a;", "SET @@global.nosuch = 1;", "DO 1;", "BEGIN;", "COMMIT;", "SHOW ENGINES LIKE 'x';",
	"SHOW VARIABLES LIKE 'ndbinfo\\_version';", "SHOW STATUS LIKE 'nosuch%';", "SELECT @@version_comment LIMIT 0;",
}

// mysql is a session typed by hand into the client of 9.7.
func (r *clientRig) mysql(t *testing.T) {
	kingbus := func(lines ...string) string {
		return typed(t, tool(r.src.Server, r.p.mysqlPort, "mysql", "--force", "--table", "--commands"), lines...)
	}
	want := strings.Split(typed(t, tool(r.src.Server, r.src.Port, "mysql", "--force", "--table", "--commands"), asked...), "\n")
	got := strings.Split(kingbus(asked...), "\n")
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) {
			t.Fatalf("%d lines, 9.7 has %d", len(got), len(want))
		}
		if got[i] != want[i] {
			t.Errorf("line %d\n%s\nwant\n%s", i, got[i], want[i])
		}
	}
	other, id := r.other(t)
	out := kingbus("SHOW REPLICA STATUS\\G", "SHOW PROCESSLIST;", "SHOW REPLICAS;", "status", "SELECT @@hostname, @@port;",
		"CREATE USER 'hand'@'10.%' IDENTIFIED BY 'typed';", "GRANT REPLICATION SLAVE ON *.* TO 'hand'@'10.%';", "SHOW GRANTS FOR 'hand'@'10.%';", "CREATE USER 'hand'@'10.%' IDENTIFIED BY 'again';",
		"ALTER USER 'hand'@'10.%' ACCOUNT LOCK;", "DROP USER 'hand'@'10.%';", "SHOW GRANTS FOR 'hand'@'10.%';",
		"KILL "+id+";", "resetconnection", "connect", "SELECT CONNECTION_ID() > "+id+" AS later;", "INSERT INTO e2e.t VALUES (3, 3);", "SHOW BINARY LOGS;")
	hostname, _ := os.Hostname()
	wants(t, out, "Replica_IO_State: Waiting for source to send event", "Source_Host: 127.0.0.1", "Source_User: repl", fmt.Sprintf("Source_Port: %d", r.src.Port),
		"Replica_IO_Running: Yes", "Source_UUID: "+r.src.UUID, "| replica |", "| Binlog Dump GTID |", "| "+opsUser+" ", "SHOW PROCESSLIST |",
		fmt.Sprintf("| %9d | 127.0.0.1 |", r.rep.ServerID), r.rep.UUID, "Current user:\t\t"+opsUser+"@127.0.0.1", "Cipher in use is TLS", "Server version:\t\t"+r.src.Server.Version+" kingbus",
		"Threads: ", hostname, fmt.Sprint(r.p.mysqlPort), "GRANT REPLICATION SLAVE ON *.* TO `hand`@`10.%`", "ERROR 1396 (HY000)", "Operation CREATE USER failed for 'hand'@'10.%'",
		"ERROR 1141 (42000)", "There is no such grant defined for user 'hand' on host '10.%'", "| later |", "|     1 |", "does not support INSERT", "binlog.000001")
	if err := other.Ping(context.Background()); err == nil {
		t.Error("the session that was killed lives")
	}
}

// mariadb is a session in the words of MariaDB's client.
func (r *clientRig) mariadb(t *testing.T) {
	server, err := mysqltest.Find(context.Background(), mysqltest.MariaDB118, nil)
	if err != nil {
		t.Fatal(err)
	}
	other, id := r.other(t)
	out := typed(t, tool(server, r.p.mysqlPort, "mysql", "--force", "--table"), "SHOW SLAVE STATUS\\G", "SHOW MASTER STATUS;", "SHOW MASTER LOGS;", "SHOW SLAVE HOSTS;", "SHOW BINLOG EVENTS LIMIT 3;",
		"SHOW FULL PROCESSLIST;", "status", "SHOW GRANTS;", "KILL QUERY "+id+";", "KILL CONNECTION "+id+";", "SHOW ALL SLAVES STATUS;", "SELECT 1;")
	wants(t, out, "Slave_IO_State: Waiting for source to send event", "Master_Host: 127.0.0.1", "Slave_IO_Running: Yes", "Slave_SQL_Running: Yes", "Seconds_Behind_Master: 0",
		"| Executed_Gtid_Set ", "binlog.000003", "| Log_name ", "binlog.000001", "| Slave_UUID ", r.rep.UUID, "| Format_desc ", "| Previous_gtids ", "Binlog Dump GTID", "SHOW FULL PROCESSLIST",
		"Server:\t\t\tMySQL", "Server version:\t\t"+r.src.Server.Version+" kingbus", "GRANT REPLICATION SLAVE, REPLICATION CLIENT, SUPER ON *.* TO `"+legacyUser+"`@`%`", "ERROR 1064 (42000)", "| 1 |")
	if err := other.Ping(context.Background()); err == nil {
		t.Error("the session that was killed lives")
	}
	for command, text := range map[string]string{"ping": "mysqld is alive", "status": "Queries per second avg", "version": "Server version\t\t" + r.src.Server.Version, "variables": "| server_uuid ", "processlist": "Binlog Dump GTID"} {
		wants(t, typed(t, tool(server, r.p.mysqlPort, "mysqladmin", command)), text)
	}
}

// mysqladmin is what scripts look after a server with.
func (r *clientRig) mysqladmin(t *testing.T) {
	_, id := r.other(t)
	for command, text := range map[string]string{
		"ping": "mysqld is alive", "status": "Queries per second avg", "version": "Server version\t\t" + r.src.Server.Version, "variables": "| server_uuid ", "processlist": "Binlog Dump GTID",
		"extended-status": "| Uptime ", "kill " + id: "", "kill 4000000000": "Unknown thread id: 4000000000", "flush-logs": "GRANT RELOAD", "debug": "failed",
	} {
		out := typed(t, tool(r.src.Server, r.p.mysqlPort, "mysqladmin", strings.Fields(command)...))
		if wants(t, out, text); text == "" && out != "" {
			t.Errorf("%s: %s", command, out)
		}
	}
}

// mysqldump is told where to dump from. What it asks before that, and with --source-data, is
// among what is asked above.
func (r *clientRig) mysqldump(t *testing.T) {
	for _, args := range [][]string{{"--all-databases", "--no-data", "--source-data=2"}, {"--all-databases", "--source-data=2", "--single-transaction"}, {"--databases", "mysql", "--source-data"}} {
		cmd := tool(r.src.Server, r.p.mysqlPort, "mysqldump", args...)
		out := typed(t, cmd)
		if wants(t, out, "kingbus has no tables to flush or lock", "dump from the source"); cmd.ProcessState.ExitCode() == 0 || regexp.MustCompile(`(?m)^SET @@GLOBAL.GTID_PURGED|^CREATE`).MatchString(out) {
			t.Errorf("%v: exit code %d, %s", args, cmd.ProcessState.ExitCode(), out)
		}
	}
}
