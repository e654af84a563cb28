package sql

import (
	"fmt"
	"strings"
	"testing"
)

// mixedEnv has a table of three rows: 1, 2 and 3.
type mixedEnv struct{ testEnv }

func (mixedEnv) Table(Table) (*ResultSet, error) {
	return &ResultSet{Columns: []Column{NumberColumn("n"), TextColumn("s", 4)}, Rows: [][]Value{{Int(1), String("1")}, {Int(2), String("2x")}, {Int(3), Null}}}, nil
}

// TestSettle: all values of a column have its type, whatever the first one is.
func TestSettle(t *testing.T) {
	for text, want := range map[string]string{
		"IF(n=1, 'text', 7)":                        "type 253: 4[text] 4[7] 4[7]",
		"IF(n=1, 7, 'text')":                        "type 253: 4[7] 4[text] 4[text]",
		"IF(n=2, 15e-1, 1)":                         "type 5: 3[1] 3[1.5] 3[1]",
		"IF(n=1, NULL, n)":                          "type 8: 0[] 1[2] 1[3]",
		"IF(n=1, NULL, NULL)":                       "type 253: 0[] 0[] 0[]",
		"CAST(n AS UNSIGNED)":                       "type 8: 2[1] 2[2] 2[3]",
		"IF(n=3, -1, CAST(n AS UNSIGNED))":          "type 246: 2[1] 2[2] 1[-1]",
		"IF(n=1, NOW(), 7)":                         "type 253: 4[2026-11-21 01:48:50] 4[7] 4[7]",
		"IF(n=1, NOW(), NOW(3))":                    "type 12: 5[2026-11-21 01:48:50] 5[2026-11-21 01:48:50.469] 5[2026-11-21 01:48:50.469]",
		"IF(n=1, 7, NOW())":                         "type 253: 4[7] 4[2026-11-21 01:48:50] 4[2026-11-21 01:48:50]",
		"CASE n WHEN 1 THEN 1 WHEN 2 THEN s END":    "type 253: 4[1] 4[2x] 0[]",
		"COALESCE(s, n)":                            "type 253: 4[1] 4[2x] 4[3]",
		"IFNULL(IF(n=1, NULL, n), @@nosuch_is_not)": "Unknown system variable 'nosuch_is_not'",
		"n + IF(n=1, '1', 0)":                       "type 5: 3[2] 3[2] 3[3]",
		"SUM(n)":                                    "type 246: 1[6]",
		"SUM(s)":                                    "type 5: 3[3]",
		"SUM(IF(n=1, 'abc', NULL))":                 "type 5: 3[0]",
		"SUM(NULL)":                                 "type 253: 0[]",
		"MIN(IF(n=1, 10, '9'))":                     "type 253: 4[10]",
		"MAX(IF(n=1, 10, 9))":                       "type 8: 1[10]",
		"IF(SUM(n) > 1, 'x', 1)":                    "type 253: 4[x]",
	} {
		st, err := Parse("SELECT " + text + " FROM p.t")
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		rs, err := NewSession(mixedEnv{}, testVariables(t)).Select(st.(*Select))
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = fmt.Sprintf("type %d:", rs.Columns[0].Type)
			for _, row := range rs.Rows {
				got += fmt.Sprintf(" %d[%s]", row[0].kind, row[0].Text())
			}
		}
		if got != want && !(err != nil && strings.Contains(got, want)) {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	// What is one value is one to DISTINCT and to ORDER BY.
	for text, want := range map[string]string{
		"SELECT DISTINCT IF(n=1, '7', 7) FROM p.t":           "7",
		"SELECT DISTINCT IF(n=1, 1e0, 1) FROM p.t":           "1",
		"SELECT IF(n=1, 'b', 10*n) AS v FROM p.t ORDER BY v": "20 30 b",
	} {
		st, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		rs, err := NewSession(mixedEnv{}, testVariables(t)).Select(st.(*Select))
		if err != nil {
			t.Fatal(err)
		}
		var cells []string
		for _, row := range rs.Rows {
			cells = append(cells, row[0].Text())
		}
		if got := strings.Join(cells, " "); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
