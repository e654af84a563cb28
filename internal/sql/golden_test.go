package sql

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"kingbus/internal/gtid"
	"os"
	"strings"
	"testing"
	"time"

	"kingbus/internal/mysqltest"
)

var record = flag.Bool("record", false, "ask a real MySQL 9.7, fetched if need be, and write testdata/mysql97.golden anew")

const goldenFile = "testdata/mysql97.golden"

// A golden file is a list of exchanges, in sessions that begin with "== name". An exchange is
//
//	> statement        (further lines of it begin with ". ")
//	: "name" type=8 null=false unsigned=true decimals=0 charset=63
//	= "value" NULL     (a row)
//
// or, instead of columns and rows, "ok" or "! code state message". A statement marked with >~ has values of its moment
// (time, ids): only its columns are compared. One marked with >- is known to be answered differently here: the text
// after "- " says how and why, and the test checks that it still is different.
type exchange struct {
	mark    string // "", "~" or "-"
	reason  string
	text    string
	session bool // a new session begins
	name    string
	answer  string
}

func readGolden(t testing.TB) []exchange {
	t.Helper()
	b, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	var list []exchange
	lines := bufio.NewScanner(bytes.NewReader(b))
	fresh, reason, name := true, "", ""
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line == "", strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "== "):
			fresh, name = true, line[3:]
		case strings.HasPrefix(line, "- "):
			reason = line[2:]
		case strings.HasPrefix(line, ">"):
			mark, text, _ := strings.Cut(line[1:], " ")
			list = append(list, exchange{mark: mark, reason: reason, text: text, session: fresh, name: name})
			fresh, reason = false, ""
		case strings.HasPrefix(line, ". "):
			list[len(list)-1].text += "\n" + line[2:]
		default:
			list[len(list)-1].answer += line + "\n"
		}
	}
	return list
}

func writeGolden(list []exchange) error {
	var b strings.Builder
	b.WriteString("# Answers of a real MySQL 9.7.4, made by `go test -run Golden -record`; the format is told in golden_test.go.\n")
	for _, x := range list {
		if x.session {
			fmt.Fprintf(&b, "\n== %s\n", x.name)
		}
		if x.reason != "" {
			fmt.Fprintf(&b, "- %s\n", x.reason)
		}
		fmt.Fprintf(&b, ">%s %s\n%s", x.mark, strings.ReplaceAll(x.text, "\n", "\n. "), x.answer)
	}
	return os.WriteFile(goldenFile, []byte(b.String()), 0o644)
}

func format(rs *ResultSet, err error) string {
	var b strings.Builder
	var e *Error
	switch {
	case errors.As(err, &e):
		return fmt.Sprintf("! %d %s %q\n", e.Code, e.State, e.Message)
	case err != nil:
		return err.Error() + "\n"
	case rs == nil:
		return "ok\n"
	}
	for _, c := range rs.Columns {
		fmt.Fprintf(&b, ": %q type=%d null=%v unsigned=%v decimals=%d charset=%d\n", c.Name, c.Type, c.Nullable, c.Unsigned, c.Decimals, c.Charset)
	}
	for _, row := range rs.Rows {
		b.WriteString("=")
		for _, v := range row {
			if v.IsNull() {
				b.WriteString(" NULL")
			} else {
				fmt.Fprintf(&b, " %q", v.Text())
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func columnsOf(answer string) string {
	i := strings.Index(answer, "\n=")
	if i < 0 || strings.HasPrefix(answer, "!") {
		return answer
	}
	return answer[:i+1]
}

func TestGolden(t *testing.T) {
	list := readGolden(t)
	if *record {
		recordGolden(t, list)
	}
	var s *Session
	for _, x := range list {
		if x.session {
			s = testSession(t)
		}
		got, want := format(run(s, x.text)), x.answer
		if x.mark == "~" {
			got = columnsOf(got)
		}
		if x.mark == "-" && got == want {
			t.Errorf("%s\nis answered as MySQL does, although marked as different: %s", x.text, x.reason)
		}
		if x.mark != "-" && got != want {
			t.Errorf("%s\ngot\n%swant\n%s", x.text, got, want)
		}
	}
}

func recordGolden(t *testing.T, list []exchange) {
	server, err := mysqltest.Launch(t.Context(), mysqltest.Options{Args: []string{"--server-id=7"}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var c *rawClient
	for i, x := range list {
		if x.session {
			if c, err = dialRaw(server.Socket); err != nil {
				t.Fatal(err)
			}
			defer c.conn.Close()
		}
		list[i].answer = format(c.query(x.text))
		if x.mark == "~" {
			list[i].answer = columnsOf(list[i].answer)
		}
	}
	if err := writeGolden(list); err != nil {
		t.Fatal(err)
	}
}

// testEnv is the connection that the golden file was recorded on.
type testEnv struct{}

func (testEnv) Now() time.Time       { return time.Date(2026, 11, 21, 1, 48, 50, 469262000, time.UTC) }
func (testEnv) UUID() string         { return "b3114b42-e54d-11f1-be20-02fc00000001" }
func (testEnv) ConnectionID() uint32 { return 14 }
func (testEnv) User() string         { return "root@localhost" }
func (testEnv) CurrentUser() string  { return "root@localhost" }
func (testEnv) Database() string     { return "" }

func (testEnv) WaitExecuted(set gtid.Set, timeout time.Duration) (bool, error) {
	return set.IsEmpty(), nil
}

func (testEnv) Hold(int) bool { return true }

func (testEnv) Table(Table) (*ResultSet, error) { return nil, nil }

func (testEnv) SetGlobal(values []GlobalValue) error {
	return Errorf(1227, "42000", "nobody may set %d variables", len(values))
}

func testVariables(t testing.TB) *Variables {
	t.Helper()
	vars, err := NewVariables(DefaultSessionVariables(), []Variable{
		{Name: "server_id", Type: VarUint, Default: Uint(7)},
		{Name: "server_uuid", Type: VarString, Default: String("eeadc44e-e54c-11f1-b45c-02fc00000001"), ReadOnly: true},
		{Name: "version", Type: VarString, Default: String("9.7.4-2"), ReadOnly: true},
		{Name: "version_comment", Type: VarString, Default: String("(Debian)"), ReadOnly: true},
		{Name: "gtid_mode", Type: VarEnum, Default: String("ON")},
		{Name: "gtid_purged", Type: VarString, Default: String("")},
		{Name: "log_bin", Type: VarBool, Default: Bool(true), ReadOnly: true},
		{Name: "log_replica_updates", Aliases: []string{"log_slave_updates"}, Type: VarBool, Default: Bool(true), ReadOnly: true},
		{Name: "read_only", Type: VarBool, Default: Bool(false)},
		{Name: "report_host", Type: VarString, Default: Null, ReadOnly: true},
		{Name: "binlog_checksum", Type: VarEnum, Default: String("CRC32")},
		{Name: "binlog_format", Type: VarEnum, Scope: GlobalAndSession, Default: String("ROW"), Values: []string{"MIXED", "STATEMENT", "ROW"}},
		{Name: "binlog_row_image", Type: VarEnum, Scope: GlobalAndSession, Default: String("FULL"), Values: []string{"MINIMAL", "NOBLOB", "FULL"}},
		{Name: "lower_case_table_names", Type: VarUint, Default: Uint(0), ReadOnly: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	return vars
}

func testSession(t testing.TB) *Session { return NewSession(testEnv{}, testVariables(t)) }

// run does what a server does with a statement.
func run(s *Session, text string) (rs *ResultSet, err error) {
	st, err := Parse(text)
	if err != nil {
		s.Record(err)
		return nil, err
	}
	switch st := st.(type) {
	case *Select:
		rs, err = s.Select(st)
	case *Set:
		err = s.Set(st)
	case *Do:
		err = s.Do(st)
	case *Empty, *Transaction:
	case *Show:
		switch st.What {
		case ShowVariables:
			rs, err = s.ShowVariables(st)
		case ShowWarnings, ShowErrors, ShowCountWarnings, ShowCountErrors:
			return s.ShowDiagnostics(st), nil
		default:
			err = Errorf(CodeNotSupported, "42000", "SHOW %s", st.What)
		}
	default:
		err = Errorf(CodeNotSupported, "42000", "%T", st)
	}
	s.Record(err)
	return rs, err
}
