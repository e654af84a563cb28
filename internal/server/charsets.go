package server

import (
	"cmp"
	"slices"

	"kingbus/internal/sql"
)

// schemaText is a column that SHOW takes from information_schema.
func schemaText(name string, length uint32) sql.Column {
	c := text(name, length)
	c.Decimals = 0
	return c
}

// showCollation lists the collations that kingbus knows by name.
func showCollation() *sql.ResultSet {
	id := bigint("Id")
	id.Flags, id.Stored = 0, true
	length := long("Sortlen", 10)
	length.Flags, length.Stored = sql.FlagNoDefault, true
	rs := result(varchar("Collation", 64), varchar("Charset", 64), id, schemaText("Default", 3), schemaText("Compiled", 3), length, char("Pad_attribute", 9, sql.FlagEnum|flagBinary))
	for _, c := range sql.Collations() {
		standard := ""
		if c.Default {
			standard = "Yes"
		}
		rs.Rows = append(rs.Rows, []sql.Value{sql.String(c.Name), sql.String(c.Charset), sql.Uint(uint64(c.ID)), sql.String(standard), sql.String("Yes"), sql.Uint(uint64(c.SortLength)), sql.String(c.Pad)})
	}
	return rs
}

func showCharacterSet() *sql.ResultSet {
	const key = sql.FlagPartKey | 1<<2 // UNIQUE_KEY_FLAG
	name, standard := varchar("Charset", 64), varchar("Default collation", 64)
	name.Flags |= key
	standard.Flags |= key
	length := long("Maxlen", 10)
	length.Flags, length.Stored = sql.FlagNoDefault, true
	rs := result(name, varchar("Description", 2048), standard, length)
	all := sql.Collations()
	slices.SortFunc(all, func(a, b sql.Collation) int { return cmp.Compare(a.Charset, b.Charset) })
	for _, c := range all {
		if c.Default {
			rs.Rows = append(rs.Rows, []sql.Value{sql.String(c.Charset), sql.String(c.Description), sql.String(c.Name), sql.Uint(uint64(c.MaxLength))})
		}
	}
	return rs
}
