package sql

import (
	"strings"
	"unicode/utf8"
)

// ColumnType is the type of a result column. The numbers are those of MySQL's protocol (enum_field_types in
// include/field_types.h), so a column definition can carry them as they are.
type ColumnType uint8

// The types that our results have.
const (
	TypeLong      ColumnType = 3
	TypeDouble    ColumnType = 5
	TypeTimestamp ColumnType = 7
	TypeNull      ColumnType = 6
	TypeLongLong  ColumnType = 8
	TypeDate      ColumnType = 10
	TypeTime      ColumnType = 11
	TypeDatetime  ColumnType = 12
	TypeDecimal   ColumnType = 246 // NEWDECIMAL; ours are whole
	TypeLongBlob  ColumnType = 251 // string in a user variable
	TypeBlob      ColumnType = 252
	TypeVarString ColumnType = 253
	TypeString    ColumnType = 254 // CHAR and ENUM
)

// Collation ids (SHOW COLLATION) that columns use.
const (
	charsetBinary  = 63  // of numbers
	charsetUTF8MB4 = 255 // utf8mb4_0900_ai_ci
)

// paramLength is what MySQL takes for the length of a ? that is text, in characters.
const paramLength = 16383

// Column describes a column of a result as the protocol's column definition does. The flags BINARY (Charset 63), NUM
// and NOT_NULL follow from it.
type Column struct {
	Name     string
	Type     ColumnType
	Nullable bool
	Unsigned bool
	Length   uint32 // display width in bytes
	Decimals uint8  // 31 for strings and floating point
	Charset  uint16 // collation id
	Flags    uint16 // those of the protocol that do not follow from the rest, see above
	Stored   bool   // a table's own column: MySQL does not call numbers BINARY then
}

// Flags of columns (include/mysql_com.h).
const (
	FlagPrimaryKey  uint16 = 1 << 1
	FlagMultipleKey uint16 = 1 << 3
	FlagBlob        uint16 = 1 << 4
	FlagEnum        uint16 = 1 << 8
	FlagTimestamp   uint16 = 1 << 10
	FlagNoDefault   uint16 = 1 << 12
	FlagPartKey     uint16 = 1 << 14
)

// Binary tells whether values are bytes or numbers instead of text.
func (c Column) Binary() bool { return c.Charset == charsetBinary }

// ResultSet is an answer of rows. Every row has a value per column; a value's Text is what the text protocol sends.
type ResultSet struct {
	Columns []Column
	Rows    [][]Value
}

// TextColumn, NumberColumn and UnsignedColumn describe columns that are never NULL, for the results of SHOW statements.
// length is in characters.
func TextColumn(name string, length uint32) Column {
	return Column{Name: name, Type: TypeVarString, Length: length * 4, Decimals: 31, Charset: charsetUTF8MB4}
}

func NumberColumn(name string) Column {
	return Column{Name: name, Type: TypeLongLong, Length: 21, Charset: charsetBinary}
}

func UnsignedColumn(name string) Column {
	c := NumberColumn(name)
	c.Unsigned = true
	return c
}

// column describes an expression whose values settle has settled to be like v; only a NULL needs a guess.
func (ev *evaluation) column(name string, e Expr, v Value) Column {
	if sys, ok := e.(*SysVar); ok {
		if found, err := ev.s.variable(sys.Scope, sys.Name); err == nil {
			c := found.column()
			c.Name = name
			return c
		}
	}
	c := NumberColumn(name)
	if a, is := isAggregate(e); is && strings.EqualFold(a.Name, "SUM") && v.isWhole() {
		v.kind = kindDecimal
	}
	switch v.kind {
	case kindDecimal:
		c.Type, c.Length = TypeDecimal, 42
	case KindNull:
		switch e := e.(type) {
		case *Literal:
			c.Type = TypeNull
		case *UserVar:
			c.Type, c.Length, c.Decimals = TypeVarString, 65532, 31
		case *Param:
			c = TextColumn(name, paramLength)
		case *Call:
			c = TextColumn(name, 0)
		case *Op:
			switch e.Name {
			case "CAST CHAR":
				c = TextColumn(name, 0)
			case "CAST UNSIGNED":
				c.Unsigned = true
			}
		}
	case KindUint:
		c.Unsigned = true
	case KindDouble:
		c.Type, c.Length, c.Decimals = TypeDouble, 23, 31
	case KindString:
		c = TextColumn(name, uint32(utf8.RuneCountInString(v.s)))
		switch e.(type) {
		case *UserVar:
			c.Type = TypeLongBlob
		case *Param:
			c = TextColumn(name, paramLength)
		}
	case KindDatetime:
		_, fraction, _ := strings.Cut(v.s, ".")
		c.Type, c.Length, c.Decimals = v.moment(), uint32(len(v.s)), uint8(len(fraction))
		if c.Type == TypeTime {
			c.Length = 17
		}
	}
	c.Nullable = nullable(e)
	return c
}

// nullable tells whether an expression can be NULL.
func nullable(e Expr) bool {
	some := func(list []Expr) bool {
		for _, x := range list {
			if x == nil || nullable(x) {
				return true
			}
		}
		return false
	}
	switch e := e.(type) {
	case *Literal:
		return e.Value.IsNull()
	case *Assign:
		return nullable(e.X)
	case *Op:
		switch e.Name {
		case "<=>", "IS NULL", "IS TRUE", "IS FALSE":
			return false
		case "CAST CHAR":
			return true
		case "CASE":
			return some(results(e))
		}
		return some(e.Args)
	case *Call:
		switch strings.ToUpper(e.Name) {
		case "IF":
			return some(results(e))
		case "IFNULL", "COALESCE":
			for _, x := range e.Args {
				if !nullable(x) {
					return false
				}
			}
			return true
		case "COUNT":
			return false
		case "VERSION", "CONNECTION_ID", "NOW", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP", "SYSDATE", "UTC_TIMESTAMP",
			"UNIX_TIMESTAMP", "LENGTH", "GTID_SUBSET":
			return some(e.Args)
		}
	}
	return true
}
