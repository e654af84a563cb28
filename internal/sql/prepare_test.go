package sql

import (
	"errors"
	"reflect"
	"testing"
)

func TestPrepare(t *testing.T) {
	for text, want := range map[string]int{
		"select 1": 0, "select ?, '?', `?`, ? /* ? */ -- ?": 2, "set @a = ?": 1, "do ?, -?": 2, "show binlog events limit ?, ?": 2, "select '2026-01-01' + interval ? day where ? between ? and ?": 4,
		"show variables where variable_name in (?, ?)": 2, "commit": 0, "create user a identified by 'b'": 0, "show processlist": 0,
	} {
		if _, n, err := Prepare(text); err != nil || n != want {
			t.Errorf("%s: %d parameters, %v, want %d", text, n, err, want)
		}
	}
	for text, want := range map[string]uint16{
		"": 1065, "-- c": 1295, "use mysql": 1295, "begin": 1295, "start transaction": 1295, "show warnings": 1295, "show count(*) errors": 1295, "purge binary logs to 'x'": 1295,
		"kill ?": 6413, "purge binary logs before ?": 6413, "show variables like ?": 1064, "set names ?": 1064, "show binlog events in ?": 1064, "select ? ?": 1064, "select ?a": 0,
		"change replication source to source_host = ?": 1064, "set password = ?": 1064, "use ?": 1064, "select @?": 1064,
	} {
		_, _, err := Prepare(text)
		var e *Error
		if errors.As(err, &e); want == 0 && err != nil || want != 0 && (e == nil || e.Code != want) {
			t.Errorf("Prepare(%q) = %v, want code %d", text, err, want)
		}
	}
	if _, err := Parse("select ?"); err == nil {
		t.Error("a ? is read outside of a prepared statement")
	}
}

func TestBind(t *testing.T) {
	s := testSession(t)
	for _, tt := range []struct {
		text   string
		values []Value
		want   string // its one value, or an error
	}{
		{"select ?", []Value{Int(5)}, "5"},
		{"select concat(?, '?', ?)", []Value{String("a"), Temporal("2026-01-31")}, "a?2026-01-31"},
		{"select ? + interval ? day", []Value{Temporal("2026-01-31 01:02:03.000000"), Int(1)}, "2026-02-01 01:02:03.000000"},
		{"select cast(? as signed)", []Value{Temporal("-25:02:03.000000")}, "-250203"},
		{"select ? = ?", []Value{Null, Int(1)}, "NULL"},
		{"select -?", []Value{Uint(7)}, "-7"},
		{"select ? * 2", []Value{Number("1.50")}, "3"},
		{"select @a := ?", []Value{String("it's")}, "it's"},
		{"select @a", nil, "it's"},
		{"select 1 limit ?", []Value{String("1x")}, "1"},
		{"select 1 limit ?", []Value{Int(-1)}, "1690 (22003): SIGNED INTEGER value is out of range in 'mysqld_stmt_execute'"},
		{"select 1 limit ?", []Value{Double(1)}, "1210 (HY000): Incorrect arguments to mysqld_stmt_execute"},
	} {
		got := ""
		st, err := Bind(tt.text, tt.values)
		if err == nil {
			var rs *ResultSet
			if rs, err = s.Select(st.(*Select)); err == nil {
				got = rs.Rows[0][0].String()
			}
		}
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s with %v: %s, want %s", tt.text, tt.values, got, tt.want)
		}
	}
}

// TestDescribe: to describe a SELECT is not to run it.
func TestDescribe(t *testing.T) {
	s := testSession(t)
	describe := func(text string) ([]Column, error) {
		st, _, err := Prepare(text)
		if err != nil {
			t.Fatal(err)
		}
		return s.Describe(st.(*Select))
	}
	got, err := describe("select @a := 1, wait_for_executed_gtid_set('11111111-1111-1111-1111-111111111111:1'), ?, gtid_subset('rubbish', '')")
	if err != nil || len(got) != 4 {
		t.Fatal(got, err)
	}
	var types []ColumnType
	for _, c := range got {
		types = append(types, c.Type)
	}
	if want := []ColumnType{TypeLongLong, TypeLongLong, TypeVarString}; !reflect.DeepEqual(types[:3], want) {
		t.Errorf("types %v, want %v", types, want)
	}
	if !s.UserVariable("a").IsNull() {
		t.Error("it was run")
	}
	for _, text := range []string{"select nosuch", "select @@nosuch", "select nosuch()", "select *", "select concat()", "select ? from nosuch"} {
		if _, err := describe(text); err == nil {
			t.Errorf("%s is described", text)
		}
	}
}
