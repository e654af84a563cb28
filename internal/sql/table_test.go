package sql

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// tableEnv has a table t of three rows, and one, e, of none, with columns A, B and C.
type tableEnv struct{ testEnv }

func (tableEnv) Database() string { return "p" }

func (tableEnv) Table(t Table) (*ResultSet, error) {
	rs := &ResultSet{Columns: []Column{TextColumn("A", 10), TextColumn("B", 10), NumberColumn("C")}}
	switch t.Name {
	case "e":
		return rs, nil
	case "t":
		for i := range 3 {
			rs.Rows = append(rs.Rows, []Value{String(fmt.Sprint("x", i)), Null, Int(int64(i % 2))})
		}
		return rs, nil
	}
	return nil, nil
}

func selectText(s *Session, text string) (string, error) {
	st, err := Parse(text)
	if err != nil {
		return "", err
	}
	q, ok := st.(*Select)
	if !ok {
		return "", errors.New("no SELECT")
	}
	rs, err := s.Select(q)
	if err != nil {
		return "", err
	}
	var lines []string
	for _, row := range rs.Rows {
		var cells []string
		for _, v := range row {
			cells = append(cells, v.String())
		}
		if len(cells) != len(rs.Columns) {
			return "", fmt.Errorf("%d columns and %d values", len(rs.Columns), len(cells))
		}
		lines = append(lines, strings.Join(cells, ","))
	}
	return strings.Join(lines, " "), nil
}

func TestSelectTable(t *testing.T) {
	s := NewSession(tableEnv{}, testVariables(t))
	for text, want := range map[string]string{
		"SELECT * FROM t":                                 "x0,NULL,0 x1,NULL,1 x2,NULL,0",
		"SELECT a FROM p.t WHERE c = 0":                   "x0 x2",
		"SELECT y.a FROM t AS y ORDER BY y.c DESC, 1":     "x1 x0 x2",
		"SELECT a, c + 1 AS d FROM t ORDER BY d, a DESC":  "x2,1 x0,1 x1,2",
		"SELECT DISTINCT c FROM t ORDER BY 1 LIMIT 1, 1":  "1",
		"SELECT COUNT(*), MAX(a), MIN(c), SUM(c) FROM t":  "3,x2,0,1",
		"SELECT COUNT(b), MAX(b) FROM t":                  "0,NULL",
		"SELECT COUNT(*) FROM e":                          "0",
		"SELECT COUNT(*) FROM t ORDER BY a":               "3",
		"SELECT SUM(c) FROM t WHERE 1 ORDER BY a":         "1",
		"SELECT COUNT(*) + 1 FROM t WHERE a LIKE 'x%'":    "4",
		"SELECT a FROM t ORDER BY b, a DESC LIMIT 2":      "x2 x1",
		"SELECT COUNT(*)":                                 "1",
		"SELECT a FROM e":                                 "",
		"SELECT MAX(COUNT(*)) FROM t":                     "Invalid use of group function",
		"SELECT a FROM t WHERE COUNT(*) = 3":              "Invalid use of group function",
		"SELECT COUNT(*) FROM t ORDER BY nosuch":          "Unknown column 'nosuch' in 'order clause'",
		"SELECT nosuch FROM e":                            "Unknown column 'nosuch' in 'field list'",
		"SELECT a FROM e WHERE nosuch":                    "Unknown column 'nosuch' in 'where clause'",
		"SELECT t.a FROM t AS y":                          "Unknown column 't.a' in 'field list'",
		"SELECT a FROM t ORDER BY 2":                      "Unknown column '2' in 'order clause'",
		"SELECT a, COUNT(*) FROM t":                       "In aggregated query without GROUP BY, expression #1",
		"SELECT a FROM t JOIN e ON 1":                     "does not support SELECT with JOIN",
		"SELECT a FROM t GROUP BY a":                      "does not support SELECT with GROUP",
		"SELECT a FROM nosuch JOIN t GROUP BY 1 HAVING 2": "Table 'p.nosuch' doesn't exist",
		"SELECT COUNT() FROM t":                           "syntax",
		"SELECT COUNT(1, 2) FROM t":                       "syntax",
	} {
		got, err := selectText(s, text)
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// FuzzSelectTable puts statements together out of words.
func FuzzSelectTable(f *testing.F) {
	words := strings.Fields(`* , FROM t e p . A B C zz ( ) + - = < <=> IN BETWEEN AND OR NOT LIKE 'x%' NULL 1 2 0 COUNT MAX COUNT(*) MAX(A) MIN(C) SUM(C) SUM(A) DISTINCT WHERE ORDER BY DESC ASC LIMIT OFFSET AS x CASE WHEN
		THEN ELSE END IF COALESCE CONCAT @a := @@version IS TRUE INTERVAL DAY NOW() CAST CHAR ? t.* p.t ; ! GTID_SUBSET HAVING GROUP 1.5 1e400 18446744073709551615`)
	f.Add([]byte{20, 2, 3, 34, 35, 6})
	f.Fuzz(func(t *testing.T, b []byte) {
		text := "SELECT"
		for _, w := range b[:min(len(b), 60)] {
			text += " " + words[int(w)%len(words)]
		}
		_, _ = selectText(NewSession(tableEnv{}, testVariables(t)), text)
	})
}
