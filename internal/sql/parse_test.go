package sql

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestParseStatements(t *testing.T) {
	one := &Literal{Int(1)}
	like := func(pattern string) Expr { return &Op{"LIKE", []Expr{&ColumnRef{}, &Literal{String(pattern)}}} }
	for _, tc := range []struct {
		text string
		want Statement
	}{
		{"/* nothing */", &Empty{}},
		{"show master status", &Show{What: ShowLogStatus, Old: true}},
		{"SHOW  BINARY /**/ LOG STATUS;", &Show{What: ShowLogStatus}},
		{"show binlog status", &Show{What: ShowLogStatus}},
		{"show binary logs", &Show{What: ShowBinaryLogs}},
		{"show master logs", &Show{What: ShowBinaryLogs, Old: true}},
		{"show replicas", &Show{What: ShowReplicas}},
		{"show replica hosts", &Show{What: ShowReplicas}},
		{"show slave hosts", &Show{What: ShowReplicas, Old: true}},
		{"show replica status", &Show{What: ShowReplicaStatus}},
		{"show slave status for channel 'x'", &Show{What: ShowReplicaStatus, Old: true, Channel: "x"}},
		{"show binlog events", &Show{What: ShowBinlogEvents}},
		{"show binlog events limit 1", &Show{What: ShowBinlogEvents, Limit: &Limit{Count: 1}}},
		{"show binlog events in 'b.1' from 4 limit 2, 3", &Show{What: ShowBinlogEvents, File: "b.1", From: 4, Limit: &Limit{2, 3}}},
		{"show full processlist", &Show{What: ShowProcesslist, Full: true}},
		{"show processlist", &Show{What: ShowProcesslist}},
		{"show schemas like 'a%'", &Show{What: ShowDatabases, Filter: like("a%")}},
		{"show full tables from x like 'y'", &Show{What: ShowTables, Full: true, Filter: like("y")}},
		{"show storage engines", &Show{What: ShowEngines}},
		{"show plugins", &Show{What: ShowPlugins}},
		{"show collation where 1", &Show{What: ShowCollation, Filter: one}},
		{"show char set", &Show{What: ShowCharacterSet}},
		{"show grants", &Show{What: ShowGrants}},
		{"show grants for current_user()", &Show{What: ShowGrants}},
		{"show grants for 'u'@'h%'", &Show{What: ShowGrants, User: "u", Host: "h%"}},
		{"show grants for u", &Show{What: ShowGrants, User: "u", Host: "%"}},
		{"show global status like 'x'", &Show{What: ShowStatus, Scope: ScopeGlobal, Filter: like("x")}},
		{"show count(*) errors", &Show{What: ShowCountErrors}},
		{"kill 1", &Kill{ID: one}},
		{"KILL QUERY 1", &Kill{ID: one, Query: true}},
		{"kill connection 1", &Kill{ID: one}},
		{"use `a b`", &Use{Database: "a b"}},
		{"begin", &Transaction{Verb: "BEGIN"}},
		{"start transaction with consistent snapshot, read only", &Transaction{Verb: "BEGIN"}},
		{"commit work and no chain no release", &Transaction{Verb: "COMMIT"}},
		{"rollback", &Transaction{Verb: "ROLLBACK"}},
		{"do 1, 1", &Do{Exprs: []Expr{one, one}}},
		{"flush binary logs", &Flush{What: "BINARY LOGS"}},
		{"change replication source to source_host='x', SOURCE_PORT = 3307, ignore_server_ids=(1, 2), privilege_checks_user=null, source_heartbeat_period=5",
			&ChangeSource{Options: []SourceOption{{"SOURCE_HOST", String("x")}, {"SOURCE_PORT", Int(3307)}, {"IGNORE_SERVER_IDS", String("(1, 2)")}, {"PRIVILEGE_CHECKS_USER", Null}, {"SOURCE_HEARTBEAT_PERIOD", Int(5)}}}},
		{"change master to master_host='x', master_use_gtid=no, get_master_public_key=1 for channel 'c'",
			&ChangeSource{Options: []SourceOption{{"SOURCE_HOST", String("x")}, {"SOURCE_USE_GTID", String("NO")}, {"GET_SOURCE_PUBLIC_KEY", Int(1)}}, Channel: "c"}},
		{"START  SLAVE", &ReplicaThreads{}},
		{"stop replica io_thread, sql_thread for channel ''", &ReplicaThreads{Stop: true, IO: true, SQL: true}},
		{"start replica until sql_after_gtids='x:1'", &ReplicaThreads{Until: []SourceOption{{"SQL_AFTER_GTIDS", String("x:1")}}}},
		{"start slave sql_thread until master_log_file='x', MASTER_LOG_POS = 5 user='u' password='p' for channel ''",
			&ReplicaThreads{SQL: true, Until: []SourceOption{{"SOURCE_LOG_FILE", String("x")}, {"SOURCE_LOG_POS", Int(5)}}, Login: true}},
		{"reset slave all", &ResetReplica{All: true}},
		{"insert into t values ('it''s', -1.5e3)", &Unsupported{Verb: "INSERT"}},
		{"show create table t", &Unsupported{Verb: "SHOW CREATE"}},
		{"set password for x = 'y'", &Users{Verb: AlterUser, Users: []User{{UserName: UserName{User: "x", Host: "%"}, Identified: true, Password: "y", HasPassword: true}}}},
		{"set password = password('y')", &Users{Verb: AlterUser, Users: []User{{UserName: UserName{Current: true}, Identified: true, Password: "y", HasPassword: true}}}},
		{"create user if not exists 'a'@'10.0.0.%' identified by 'p', b@LocalHost identified with 'mysql_native_password' as '*00' require ssl account lock",
			&Users{Verb: CreateUser, Tolerant: true, Require: RequireSSL, Lock: LockOn, Users: []User{
				{UserName: UserName{User: "a", Host: "10.0.0.%"}, Identified: true, Password: "p", HasPassword: true},
				{UserName: UserName{User: "b", Host: "localhost"}, Identified: true, Plugin: "mysql_native_password", Hash: "*00", HasHash: true}}}},
		{"alter user user() identified by 'n'", &Users{Verb: AlterUser, Users: []User{{UserName: UserName{Current: true}, Identified: true, Password: "n", HasPassword: true}}}},
		{"alter user if exists a require none account unlock password expire never",
			&Users{Verb: AlterUser, Tolerant: true, Require: RequireNone, Lock: LockOff, Users: []User{{UserName: UserName{User: "a", Host: "%"}}}}},
		{"drop user a, `b`@'%'", &Users{Verb: DropUser, Users: []User{{UserName: UserName{User: "a", Host: "%"}}, {UserName: UserName{User: "b", Host: "%"}}}}},
		{"grant replication slave, Replication Client on *.* to a, current_user()",
			&Grant{Privileges: []string{"REPLICATION SLAVE", "REPLICATION CLIENT"}, Users: []UserName{{User: "a", Host: "%"}, {Current: true}}}},
		{"revoke all privileges, grant option from a", &Grant{Revoke: true, Privileges: []string{"ALL PRIVILEGES"}, Users: []UserName{{User: "a", Host: "%"}}}},
		{"revoke if exists super on * from a", &Grant{Revoke: true, Tolerant: true, Privileges: []string{"SUPER"}, Users: []UserName{{User: "a", Host: "%"}}}},
		{"set role none", &Unsupported{Verb: "SET ROLE"}},
		{"purge binary logs to 'x'", &Purge{To: "x"}},
		{"purge master logs before '2026-01-02'", &Purge{Before: &Literal{String("2026-01-02")}}},
		{"rollback to savepoint s", &Unsupported{Verb: "ROLLBACK"}},
		{"rollback work to s", &Unsupported{Verb: "ROLLBACK"}},
		{"select a, b from x.y where z = (select 1) group by 1", &Select{From: &Table{"x", "y"}, rest: errNotSupported("subqueries"),
			Items: []SelectItem{{Expr: &ColumnRef{Name: "a"}, Name: "a"}, {Expr: &ColumnRef{Name: "b"}, Name: "b"}}}},
		{"set @a=1, global b=1, c=on, session d=default, names utf8, @@persist.e=f",
			&Set{Items: []SetItem{{Kind: SetUser, Name: "a", Value: one}, {Kind: SetSystem, Scope: ScopeGlobal, Name: "b", Value: one},
				{Kind: SetSystem, Scope: ScopeGlobal, Name: "c", Value: &ColumnRef{Name: "on"}}, {Kind: SetSystem, Scope: ScopeSession, Name: "d"},
				{Kind: SetNames, Name: "utf8"}, {Kind: SetSystem, Scope: ScopePersist, Name: "e", Value: &ColumnRef{Name: "f"}}}}},
	} {
		got, err := Parse(tc.text)
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s\ngot  %T %+v, %v\nwant %T %+v", tc.text, got, got, err, tc.want, tc.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]uint16{
		"": 1065, " ; ;": 1065, "change foo": 1064, "insert into t values (1); drop table t": 1064, "selec": 1064, "\x00": 1065,
		"select \x01": 1064, "show binlog events from 'x'": 1064, "select 1 union select 2": 1235, "select (select 1)": 1235,
		"select 1 into @x": 1235, "kill": 1064, "use": 1064, "flush": 1064, "set @a = (1": 1064, "select case end": 1064,
		"select _utf8mb4": 0, "select a rlike b": 1235, "select @a := ": 1064, "select cast(1 as decimal(70))": 1235, "(select 1)": 1064,
		"select x'41'": 1064, "select 0x41": 1064, "select b'1'": 1064, "select 0b1": 1064, "select n'a'": 1064, "select 1 | 2": 1235, "select 1 / 2": 1235, "select 5 mod 3": 1235, "select 5 div 3": 1235, "select 5 % 3": 1235,
		"select ~1": 1064, "select 1 << 2": 1064, "select 1 xor 1": 1235, "select 'a' collate utf8mb4_bin": 1235, "select binary 'a'": 1064,
		"select 'a' like 'b' escape '|'": 1064, "select 1 order by 1": 1235, "select 1 for update": 1235, "select mod(5, 3)": 1235,
		"select avg(1)": 1235, "select convert(1, datetime)": 1235, "select convert('a' using x)": 1115, "select (1, 2) = (1, 2)": 1064,
		"show full variables": 1064, "show global databases": 1064, "select 1 from a; b": 1064,
		"select " + strings.Repeat("(", MaxDepth) + "1" + strings.Repeat(")", MaxDepth):   1436,
		"select " + strings.Repeat("not ", MaxTokens/5) + "1":                             1436,
		"select " + strings.Repeat("- ", MaxTokens/5) + "@a":                              1436,
		"select " + strings.Repeat("case ", MaxTokens/5):                                  1436,
		"select 1" + strings.Repeat("+1", MaxTokens):                                      1235,
		"select if(" + strings.Repeat("1,", MaxTokens) + "1)":                             1235,
		"set " + strings.Repeat("@a=1,", MaxTokens) + "@a=1":                              1235,
		"select 1" + strings.Repeat(",1", MaxTokens):                                      1235,
		"select @a:=" + strings.Repeat("@a:=", MaxTokens/5) + "1":                         1436,
		"select 1 between 1 and " + strings.Repeat("1 between 1 and ", MaxTokens/5) + "1": 1064,
	} {
		_, err := Parse(text)
		var e *Error
		if errors.As(err, &e); want == 0 && err != nil || want != 0 && (e == nil || e.Code != want) {
			t.Errorf("Parse(%.60q) = %v, want code %d", text, err, want)
		}
	}
}

// Evaluation has to survive the deepest and largest expressions that the parser lets through.
func TestEvaluateLargest(t *testing.T) {
	s := testSession(t)
	half := MaxDepth/2 - 2
	for _, text := range []string{
		"select 1" + strings.Repeat("+1", MaxTokens/2-2),
		"select " + strings.Repeat("if(1,", half) + "2" + strings.Repeat(",3)", half),
		"select " + strings.Repeat("case when 1 then ", half) + "2" + strings.Repeat(" end", half),
		"select " + strings.Repeat("coalesce(null,", half) + "2" + strings.Repeat(")", half),
	} {
		if rs, err := run(s, text); err != nil || len(rs.Rows) != 1 {
			t.Errorf("%.40q…: %v", text, err)
		}
	}
}

func TestErrorText(t *testing.T) {
	_, err := Parse("select 1,\n  2 " + strings.Repeat("x", 200))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Parse("select 1,\n  2 2 " + strings.Repeat("x", 200))
	want := "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version for the right syntax to use near '2 " +
		strings.Repeat("x", 78) + "' at line 2"
	var e *Error
	if !errors.As(err, &e) || e.Message != want || e.State != "42000" {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if got := fmt.Sprint(e); !strings.HasPrefix(got, "1064 (42000): You") {
		t.Errorf("Error() = %s", got)
	}
}
