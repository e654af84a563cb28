package sql

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
)

// must runs a statement and returns the first value of its first row, if it has one.
func must(t *testing.T, s *Session, text string) Value {
	t.Helper()
	rs, err := run(s, text)
	if err != nil {
		t.Fatalf("%.80s: %v", text, err)
	}
	if rs == nil || len(rs.Rows) == 0 {
		return Null
	}
	return rs.Rows[0][0]
}

func code(err error) uint16 {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

func TestUserVariablesAreBounded(t *testing.T) {
	s := testSession(t)
	must(t, s, "set @a = '"+strings.Repeat("x", 1000)+"'")
	var err error
	for range 20 {
		if _, err = run(s, "set @a = concat(@a, @a), @b = @a"); err != nil {
			break
		}
	}
	if code(err) != 1105 {
		t.Errorf("growing a variable: %v, want error 1105", err)
	}
	if n := len(s.UserVariable("A").Text()); n < 1000 || n > MaxUserVariables {
		t.Errorf("the variable has %d bytes", n)
	}
	s.Reset()
	for i := 0; ; i++ {
		if i > MaxUserVariables {
			t.Fatal("no end of variables")
		}
		if _, err := run(s, fmt.Sprintf("set @v%d = 1", i)); err != nil {
			if code(err) != 1105 {
				t.Error(err)
			}
			break
		}
	}
	// A failed SET leaves nothing behind, and what is there can still be changed.
	if _, err := run(s, "set @v0 = 7, @new = 1"); code(err) != 1105 {
		t.Errorf("got %v, want error 1105", err)
	}
	if v := s.UserVariable("v0"); v != Int(1) {
		t.Errorf("@v0 = %v after a failed SET, want 1", v)
	}
	must(t, s, "set @v0 = 8")
	if v := s.UserVariable("V0"); v != Int(8) {
		t.Errorf("@v0 = %v, want 8", v)
	}
	if _, err := run(s, "set @"+strings.Repeat("n", 65)+" = 1"); code(err) != 3061 {
		t.Errorf("long name: %v, want error 3061", err)
	}
}

// tightEnv has so many bytes of user variables left.
type tightEnv struct {
	testEnv
	left *int
}

func (e tightEnv) Hold(bytes int) bool {
	if bytes > *e.left {
		return false
	}
	*e.left -= bytes
	return true
}

// TestUserVariablesOfAll: what all sessions have together is taken by what is kept, and by nothing else.
func TestUserVariablesOfAll(t *testing.T) {
	const all, free, one = 1000, FreeUserVariables, 64 + 1
	left := all
	vars, err := NewVariables(DefaultSessionVariables(), []Variable{{Name: "dynamic", Type: VarUint, Dynamic: true}})
	if err != nil {
		t.Fatal(err)
	}
	s, other := NewSession(tightEnv{left: &left}, vars), NewSession(tightEnv{left: &left}, vars)
	for _, step := range []struct {
		s    *Session
		text string
		code uint16
		left int
	}{
		{s, "set @a = '" + strings.Repeat("x", free+500) + "'", 0, all - one - 500},
		{other, "set @a = '" + strings.Repeat("x", free+500) + "'", 1105, all - one - 500},
		{s, "set @a = '" + strings.Repeat("x", free-one+all) + "'", 0, 0},
		{other, "set @a = '" + strings.Repeat("x", free-one) + "'", 0, 0}, // what each may have
		{other, "set @b = 1", 1105, 0},
		{s, "set @a = '" + strings.Repeat("x", free-one-1) + "'", 0, all},
		{other, "set @a = 1, @b = '" + strings.Repeat("x", free-2*one+10) + "'", 0, all - 10},
		{s, "select @a := '" + strings.Repeat("x", free-one+10) + "'", 0, all - 20},
		{s, "set @a = '" + strings.Repeat("x", free+20) + "', @@global.dynamic = 8", 1227, all - 20}, // refused for the other
		{s, "set @a = '', @@global.dynamic = 8", 1227, all - 20},
		{s, "set @a = '" + strings.Repeat("x", free+20) + "', @@nosuch = 8", 1193, all - 20},
		{s, "set @" + strings.Repeat("n", 65) + " = 1", 3061, all - 20},
	} {
		if _, err := run(step.s, step.text); code(err) != step.code || left != step.left {
			t.Errorf("%.60s: %v, %d are left; want error %d, %d", step.text, err, left, step.code, step.left)
		}
	}
	s.Reset()
	s.Reset()
	if left != all-10 {
		t.Errorf("after Reset %d are left, want %d", left, all-10)
	}
	if other.Reset(); left != all {
		t.Errorf("after both %d are left, want %d", left, all)
	}
}

// TestVariablesAreBounded: a system variable that may be any text is no way around it.
func TestVariablesAreBounded(t *testing.T) {
	s := testSession(t)
	must(t, s, "set lc_messages = '"+strings.Repeat("x", MaxVariable)+"'")
	if _, err := run(s, "set lc_messages = '"+strings.Repeat("x", MaxVariable+1)+"'"); code(err) != 1231 {
		t.Errorf("got %v, want error 1231", err)
	}
}

func TestWorkIsBounded(t *testing.T) {
	s := testSession(t)
	must(t, s, "set @a = '"+strings.Repeat("x", MaxUserVariables/2)+"'")
	if v := must(t, s, "select concat(@a, @a, @a)"); !v.IsNull() {
		t.Errorf("got %d bytes, want NULL", len(v.Text()))
	}
	must(t, s, "set @p = '"+strings.Repeat("%a", 1000)+"'")
	for _, text := range []string{
		"select @a like @p",
		"show variables where length(concat(@a, 'x')) = 1",
		"show variables where 1 in (" + strings.Repeat("1.5,", MaxTokens/2-10) + "2)",
		"show variables like '" + strings.Repeat("%a", 1<<20) + "'",
	} {
		if _, err := run(s, text); code(err) != CodeNotSupported {
			t.Errorf("%.60s…: %v, want error 1235", text, err)
		}
	}
}

func TestReset(t *testing.T) {
	s := testSession(t)
	must(t, s, "set @a=1, wait_timeout=5, names latin1")
	s.Reset()
	if got := must(t, s, "select concat(ifnull(@a, '-'), @@wait_timeout, @@character_set_client)").Text(); got != "-28800utf8mb4" {
		t.Errorf("after Reset: %s", got)
	}
}

func TestSetCharset(t *testing.T) {
	s := testSession(t)
	for id, want := range map[uint16]string{
		8: "latin1/latin1_swedish_ci", 33: "utf8mb3/utf8mb3_general_ci", 45: "utf8mb4/utf8mb4_general_ci", 255: "utf8mb4/utf8mb4_0900_ai_ci",
		63: "binary/binary", 0: "utf8mb4/utf8mb4_0900_ai_ci", 309: "utf8mb4/utf8mb4_0900_bin", 999: "utf8mb4/utf8mb4_0900_ai_ci",
	} {
		if err := s.SetCharset(id); err != nil {
			t.Errorf("charset %d: %v", id, err)
		}
		if got := must(t, s, "select concat(@@character_set_results, '/', @@collation_connection)").Text(); got != want {
			t.Errorf("charset %d: %s, want %s", id, got, want)
		}
	}
	if err := s.SetCharset(35); code(err) != 1231 { // ucs2
		t.Errorf("got %v, want error 1231", err)
	}
}

func TestGlobalValuesAreLive(t *testing.T) {
	value := Int(1)
	vars, err := NewVariables([]Variable{{Name: "Rpl_X", Aliases: []string{"rpl_y"}, Type: VarBool, Get: func() Value { return value }}})
	if err != nil {
		t.Fatal(err)
	}
	s := NewSession(testEnv{}, vars)
	for _, want := range []Value{Int(0), Int(1)} {
		value = want
		if got := must(t, s, "select @@global.RPL_y"); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	rs, err := run(s, "show variables")
	if err != nil || len(rs.Rows) != 2 || rs.Rows[0][0].Text() != "rpl_x" || rs.Rows[1][1].Text() != "ON" {
		t.Errorf("SHOW VARIABLES: %v, %v", rs, err)
	}
	if rs, err = s.ShowStatus(vars, &Show{What: ShowStatus}); err != nil || len(rs.Rows) != 2 {
		t.Errorf("ShowStatus: %v, %v", rs, err)
	}
	if _, err := NewVariables([]Variable{{Name: "a"}}, []Variable{{Name: "b", Aliases: []string{"A"}}}); err == nil {
		t.Error("a name given twice was taken")
	}
	// A table without the usual variables must not break anything.
	must(t, s, "select now(), version(), 'x'")
	must(t, s, "set names latin1")
}

func TestTimeZone(t *testing.T) {
	s := testSession(t)
	for zone, want := range map[string]string{"+5:30": "2026-11-21 07:18:50", "-13:59": "2026-11-20 11:49:50", "system": "2026-11-21 01:48:50", "+14:00": "2026-11-21 15:48:50"} {
		must(t, s, "set time_zone='"+zone+"'")
		if got := must(t, s, "select now()").Text(); got != want {
			t.Errorf("%s: now() = %s, want %s", zone, got, want)
		}
		if got := must(t, s, "select unix_timestamp(now())").Text(); got != "1795225730" {
			t.Errorf("%s: unix_timestamp(now()) = %s", zone, got)
		}
	}
	for _, zone := range []string{"+14:01", "-14:00", "+1", "+1:60", "+1:-5", "+:00", "x", "", "+001:00", "++1:00"} {
		if _, err := run(s, "set time_zone='"+zone+"'"); code(err) != 1298 {
			t.Errorf("%q: %v, want error 1298", zone, err)
		}
	}
}

func TestNoTable(t *testing.T) {
	s := testSession(t)
	if _, err := run(s, "select a from b"); code(err) != 1046 {
		t.Error(err)
	}
	if _, err := run(s, "select a from b.c where d"); code(err) != 1146 {
		t.Error(err)
	}
}

func TestFilterOtherResults(t *testing.T) {
	s := testSession(t)
	rs := &ResultSet{Columns: []Column{TextColumn("Log_name", 255), UnsignedColumn("File_size")},
		Rows: [][]Value{{String("b.1"), Uint(100)}, {String("b.2"), Uint(200)}}}
	st, err := Parse("show collation where file_size > 150 and `log_name` like 'B.%'")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Filter(rs, st.(*Show).Filter); err != nil || len(rs.Rows) != 1 || rs.Rows[0][0].Text() != "b.2" {
		t.Errorf("got %v, %v", rs.Rows, err)
	}
}

func TestValueUint64(t *testing.T) {
	for _, tc := range []struct {
		v    Value
		want uint64
		ok   bool
	}{
		{Int(5), 5, true}, {Int(-5), 0, false}, {Uint(math.MaxUint64), math.MaxUint64, true}, {Null, 0, false}, {String(" 42 "), 42, true},
		{String("4x"), 0, false}, {Double(3), 3, true}, {Double(3.5), 0, false}, {Double(1e20), 0, false},
	} {
		if got, ok := tc.v.Uint64(); ok != tc.ok || ok && got != tc.want {
			t.Errorf("%v: got %d, %v, want %d, %v", tc.v, got, ok, tc.want, tc.ok)
		}
	}
}

func TestLike(t *testing.T) {
	for _, tc := range []struct {
		text, pattern string
		want          bool
	}{
		{"", "", true}, {"", "%%", true}, {"a", "", false}, {"abc", "%", true}, {"abc", "%c", true}, {"abcabd", "%abd", true},
		{"abc", "_%_", true}, {"ab", "_%__", false}, {"a%b", `a\%b`, true}, {"axb", `a\%b`, false}, {`a\`, `a\`, true},
		{"äb", "_B", true}, {"a\xffb", "a_b", true}, {"a\xff", "a\xfe", false}, {"mississippi", "%iss%ip%i", true},
	} {
		if got := like(tc.text, tc.pattern); got != tc.want {
			t.Errorf("%q LIKE %q: got %v, want %v", tc.text, tc.pattern, got, tc.want)
		}
	}
}

// What is not evaluated is not checked either, so a call there may lack its arguments.
func TestUnevaluatedCall(t *testing.T) {
	s := testSession(t)
	for _, text := range []string{"select coalesce(@@version, if())", "select ifnull(@@version, if(1))", "select case when 0 then if() else @@version end"} {
		if got := must(t, s, text).Text(); got != "9.7.4-2" {
			t.Errorf("%s: %s", text, got)
		}
	}
}

// FuzzStatement runs anything through parser and evaluator: no panic, every error an *Error, every row as wide as its
// columns, and the session stays usable.
func FuzzStatement(f *testing.F) {
	for _, x := range readGolden(f) {
		f.Add(x.text)
	}
	vars := testVariables(f)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		s := NewSession(testEnv{}, vars)
		for range 2 { // the second time with the variables that the first one set
			rs, err := run(s, text)
			var e *Error
			if err != nil && (!errors.As(err, &e) || e.Code == 0 || len(e.State) != 5 || e.Message == "") {
				t.Fatalf("%q: %T %v", text, err, err)
			}
			if rs != nil {
				for _, row := range rs.Rows {
					if len(row) != len(rs.Columns) {
						t.Fatalf("%q: %d values in %d columns", text, len(row), len(rs.Columns))
					}
					for i, v := range row {
						if _, isShow := parsedShow(text); v.IsNull() && !rs.Columns[i].Nullable && !isShow {
							t.Fatalf("%q: NULL in column %d, which is never NULL", text, i)
						}
					}
				}
			}
		}
		if v, err := run(s, "select 1"); err != nil || v.Rows[0][0] != Int(1) {
			t.Fatalf("after %q: %v, %v", text, v, err)
		}
	})
}

func parsedShow(text string) (*Show, bool) {
	st, _ := Parse(text)
	show, ok := st.(*Show)
	return show, ok
}
