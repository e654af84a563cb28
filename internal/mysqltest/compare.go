package mysqltest

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// maxDifferences bounds how much of a difference CompareTables describes, in tables and in rows per table.
const maxDifferences = 5

// CompareTables compares all user schemas of two instances: which tables and views there are, their definitions, and
// the contents of every table. It returns "" if they are equal, else a description of the first differences. Servers of
// different versions print definitions differently, so there only names and nullability of columns are compared. Nobody
// should be writing meanwhile.
func CompareTables(ctx context.Context, a, b *Instance) (string, error) {
	var sides [2]map[string]table
	for k, inst := range []*Instance{a, b} {
		var err error
		if sides[k], err = inst.tables(ctx); err != nil {
			return "", err
		}
	}
	var diff []string
	var both []string
	for _, name := range union(sides[0], sides[1]) {
		ta, inA := sides[0][name]
		tb, inB := sides[1][name]
		switch {
		case !inB:
			diff = append(diff, fmt.Sprintf("%s is only on %s", name, a.Name))
		case !inA:
			diff = append(diff, fmt.Sprintf("%s is only on %s", name, b.Name))
		case ta.kind != tb.kind || !slices.Equal(ta.columns, tb.columns):
			diff = append(diff, fmt.Sprintf("%s differs:\n  %s: %s %v\n  %s: %s %v", name, a.Name, ta.kind, ta.columns, b.Name, tb.kind, tb.columns))
		case ta.kind == "BASE TABLE":
			both = append(both, name)
		}
	}
	if a.Server.Version == b.Server.Version {
		more, err := compareDefinitions(ctx, a, b, both)
		if err != nil {
			return "", err
		}
		diff = append(diff, more...)
	}
	more, err := compareContents(ctx, a, b, sides[0], both)
	if err != nil {
		return "", err
	}
	diff = append(diff, more...)
	if len(diff) > maxDifferences {
		diff = append(diff[:maxDifferences], fmt.Sprintf("and %d differences more", len(diff)-maxDifferences))
	}
	return strings.Join(diff, "\n"), nil
}

// table is what CompareTables knows of a table, apart from its rows. Its name is quoted: `schema`.`table`.
type table struct {
	kind    string // BASE TABLE or VIEW
	columns []column
}

type column struct {
	name   string // quoted
	null   string // YES or NO
	binary bool   // holds bytes, not text or a number
}

// digest is an expression that tells values of a column apart, NULL included, whatever their type and length. (MySQL 9.7
// has no MD5 and SHA1 any more.)
func (c column) digest() string { return "IFNULL(SHA2(CONCAT(" + c.name + "), 256), '-')" }

// show is an expression for people: the beginning of the value.
func (c column) show() string {
	if c.binary {
		return "CONCAT('x', QUOTE(HEX(LEFT(CONCAT(" + c.name + "), 30))))"
	}
	return "QUOTE(LEFT(CONCAT(" + c.name + "), 60))"
}

var binaryTypeRE = regexp.MustCompile(`(?i)blob|binary|bit|geometry|point|linestring|polygon|collection|vector`)

func (i *Instance) tables(ctx context.Context) (map[string]table, error) {
	rows, err := i.Query(ctx, `SELECT t.table_schema, t.table_name, t.table_type, c.column_name, c.is_nullable, c.data_type
		FROM information_schema.tables t JOIN information_schema.columns c ON c.table_schema = t.table_schema AND c.table_name = t.table_name
		WHERE t.table_schema NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')
		ORDER BY t.table_schema, t.table_name, c.ordinal_position`)
	if err != nil {
		return nil, err
	}
	tables := map[string]table{}
	for _, row := range rows {
		name := ident(row[0]) + "." + ident(row[1])
		c := column{ident(row[3]), row[4], binaryTypeRE.MatchString(row[5])}
		tables[name] = table{row[2], append(tables[name].columns, c)}
	}
	// A schema without tables is a difference too.
	rows, err = i.Query(ctx, `SELECT schema_name FROM information_schema.schemata
		WHERE schema_name NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys', 'test')`)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		tables["schema "+ident(row[0])] = table{kind: "SCHEMA"}
	}
	return tables, nil
}

// ident quotes a name.
func ident(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

func union(a, b map[string]table) []string {
	var names []string
	for name := range a {
		names = append(names, name)
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// autoIncrementRE matches the next value of a counter, which a rolled back insert moves on one server only.
var autoIncrementRE = regexp.MustCompile(` AUTO_INCREMENT=\d+`)

func compareDefinitions(ctx context.Context, a, b *Instance, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	query := "SHOW CREATE TABLE " + strings.Join(names, ";\nSHOW CREATE TABLE ")
	ra, rb, err := onBoth(ctx, a, b, query, len(names))
	if err != nil {
		return nil, err
	}
	var diff []string
	for k, name := range names {
		da, db := autoIncrementRE.ReplaceAllString(ra[k][1], ""), autoIncrementRE.ReplaceAllString(rb[k][1], "")
		if da != db {
			diff = append(diff, fmt.Sprintf("%s is defined differently:\n  %s: %s\n  %s: %s", name, a.Name, da, b.Name, db))
		}
	}
	return diff, nil
}

// compareContents compares tables by row count and an order-independent digest: the sum and the exclusive or of a hash
// of each row.
func compareContents(ctx context.Context, a, b *Instance, tables map[string]table, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	queries := make([]string, len(names))
	for k, name := range names {
		var columns []string
		for _, c := range tables[name].columns {
			columns = append(columns, c.digest())
		}
		// No COALESCE around the unsigned number: MySQL 5.6 makes it a signed one.
		queries[k] = "SELECT COUNT(*), SUM(CRC32(r)), BIT_XOR(CAST(CONV(LEFT(SHA2(r, 256), 16), 16, 10) AS UNSIGNED))" +
			" FROM (SELECT CONCAT_WS(',', " + strings.Join(columns, ", ") + ") AS r FROM " + name + ") AS x"
	}
	ra, rb, err := onBoth(ctx, a, b, strings.Join(queries, ";\n"), len(names))
	if err != nil {
		return nil, err
	}
	var diff []string
	for k, name := range names {
		if slices.Equal(ra[k], rb[k]) {
			continue
		}
		text := fmt.Sprintf("%s: %s rows on %s, %s rows on %s", name, ra[k][0], a.Name, rb[k][0], b.Name)
		if len(diff) < maxDifferences {
			rows, err := compareRows(ctx, a, b, name, tables[name])
			if err != nil {
				return nil, err
			}
			text += rows
		}
		diff = append(diff, text)
	}
	return diff, nil
}

// compareRows describes the first rows that one server has and the other has not, of a table that differs. It looks at
// the first 10,000 rows, and shows the beginning of each column.
func compareRows(ctx context.Context, a, b *Instance, name string, t table) (string, error) {
	var show, hash []string
	for _, c := range t.columns {
		show = append(show, c.show())
		hash = append(hash, c.digest())
	}
	query := "SELECT SHA2(CONCAT_WS(',', " + strings.Join(hash, ", ") + "), 256), " + strings.Join(show, ", ") + " FROM " + name +
		" ORDER BY " + strings.Join(show, ", ") + " LIMIT 10000"
	ra, rb, err := onBoth(ctx, a, b, query, -1)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	only := func(inst *Instance, rows, others [][]string) {
		have := map[string]int{}
		for _, row := range others {
			have[row[0]]++
		}
		shown := 0
		for _, row := range rows {
			if have[row[0]]--; have[row[0]] < 0 && shown < maxDifferences {
				shown++
				fmt.Fprintf(&text, "\n  only on %s: (%s)", inst.Name, strings.Join(row[1:], ", "))
			}
		}
	}
	only(a, ra, rb)
	only(b, rb, ra)
	if text.Len() == 0 {
		text.WriteString("\n  the difference is not within the first 10,000 rows")
	}
	return text.String(), nil
}

// onBoth runs a query, or several, on both instances and checks the number of rows, unless it is negative.
func onBoth(ctx context.Context, a, b *Instance, query string, rows int) (ra, rb [][]string, err error) {
	if ra, err = a.Query(ctx, query); err != nil {
		return nil, nil, err
	}
	if rb, err = b.Query(ctx, query); err != nil {
		return nil, nil, err
	}
	if rows >= 0 && (len(ra) != rows || len(rb) != rows) {
		return nil, nil, fmt.Errorf("%s: %d rows on %s and %d on %s, want %d; did somebody write meanwhile?", abbreviate(query), len(ra), a.Name, len(rb), b.Name, rows)
	}
	return ra, rb, nil
}
