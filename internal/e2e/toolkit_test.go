package e2e

import (
	"context"
	"fmt"
	"regexp"
	"testing"

	"kingbus/internal/mysqltest"
)

// toolkit are the tools of percona-toolkit that look at replication.
func (r *clientRig) toolkit(t *testing.T) {
	ctx := context.Background()
	kit, err := mysqltest.FindToolkit(ctx, func(message string) { t.Log(message) })
	if err != nil {
		t.Fatal(err)
	}
	run := func(tool string, args ...string) string {
		t.Helper()
		out, err := kit.Command(ctx, tool, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", tool, err, out)
		}
		return string(out)
	}
	// The tools log in to the replica with what they have for the source. Their library makes no
	// TLS connection to a server whose certificate it cannot verify.
	if err := r.rep.CreateUser(ctx, mysqltest.User{Name: legacyUser, Password: password, Grants: "ALL"}); err != nil {
		t.Fatal(err)
	}
	dsn := fmt.Sprintf("h=127.0.0.1,P=%d,u=%s,p=%s", r.p.mysqlPort, legacyUser, password)
	// By processlist they want the privilege PROCESS, which kingbus does not have.
	wants(t, run("pt-replica-find", "--recursion-method=hosts", "--report-format=hostname", dsn), fmt.Sprintf("127.0.0.1:%d", r.p.mysqlPort), fmt.Sprintf("+- 127.0.0.1:%d", r.rep.Port))
	wants(t, run("pt-replica-find", "--recursion-method=hosts", dsn), "Server ID", "Replication", "+- 127.0.0.1", fmt.Sprintf("Server ID       %d", r.rep.ServerID), "0 seconds behind, running")

	// Its library, MariaDB's, with prepared statements.
	script := kit.Perl(ctx, "-MDBI", "-e", fmt.Sprintf(`my $d = DBI->connect("DBI:mysql:host=127.0.0.1;port=%d;mysql_server_prepare=1;mysql_server_prepare_disable_fallback=1", "%s", $ENV{PASSWORD}, {RaiseError => 1, PrintError => 0});
		my $s = $d->prepare("SELECT CONCAT(?, '-', ?), LENGTH(?), ? IS NULL, 7, 1.5e0, CAST('2026-01-31' AS CHAR), NULL");
		for my $n (1..3) { $s->execute("it's", $n, "x" x 100000, undef); print join("|", map { defined $_ ? $_ : "NULL" } @$_), "\n" for @{$s->fetchall_arrayref}; }
		my $b = $d->prepare("SHOW BINLOG EVENTS IN 'binlog.000001' LIMIT 2"); $b->execute; print join("|", @$_), "\n" for @{$b->fetchall_arrayref};
		eval { $d->prepare("USE mysql") }; print "$@";
		$d->disconnect;`, r.p.mysqlPort, legacyUser))
	script.Env = append(script.Env, "PASSWORD="+password)
	out, err := script.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	wants(t, string(out), "it's-1|100000|1|7|1.5|2026-01-31|NULL\nit's-2|", "\nit's-3|", "binlog.000001|4|Format_desc|", "not supported in the prepared statement protocol")

	// A heartbeat goes from the source through kingbus to the replica. To the replica kingbus is
	// the source, so the one of the heartbeat has to be named.
	root := func(inst *mysqltest.Instance) string { return "S=" + inst.Socket + ",u=root" }
	source := fmt.Sprint(r.src.ServerID)
	run("pt-heartbeat", "--database=e2e", "--create-table", "--update", "--interval=0.1", "--run-time=1", root(r.src))
	same(t, r.p, r.src, r.rep)
	lag := run("pt-heartbeat", "--database=e2e", "--check", "--source-server-id="+source, root(r.rep))
	if !regexp.MustCompile(`^\d+\.\d\d\n$`).MatchString(lag) {
		t.Errorf("the lag is %q", lag)
	}
}
