package sql

// ColumnType is the type of a result column. The numbers are those of MySQL's protocol (enum_field_types in
// include/field_types.h), so a column definition can carry them as they are.
type ColumnType uint8

// The types that our results have.
const (
	TypeLong       ColumnType = 3
	TypeDouble     ColumnType = 5
	TypeNull       ColumnType = 6
	TypeLongLong   ColumnType = 8
	TypeDatetime   ColumnType = 12
	TypeNewDecimal ColumnType = 246
	TypeMediumBlob ColumnType = 250 // binary string in a user variable
	TypeLongBlob   ColumnType = 251 // string in a user variable
	TypeVarString  ColumnType = 253
)

// Collation ids (SHOW COLLATION) that columns use.
const (
	charsetBinary  = 63  // of numbers and binary strings
	charsetUTF8MB4 = 255 // utf8mb4_0900_ai_ci
)

// Column describes a column of a result as the protocol's column definition does. The flags BINARY (Charset 63), NUM
// and NOT_NULL follow from it.
type Column struct {
	Name     string
	Type     ColumnType
	Nullable bool
	Unsigned bool
	Length   uint32 // display width in bytes; what MySQL gives for constants and variables, an estimate for other expressions
	Decimals uint8  // 31 for strings and floating point
	Charset  uint16 // collation id
}

// Binary tells whether values are bytes or numbers instead of text.
func (c Column) Binary() bool { return c.Charset == charsetBinary }

// ResultSet is an answer of rows. Every row has a value per column; a value's Text is what the text protocol sends.
type ResultSet struct {
	Columns []Column
	Rows    [][]Value
}

// TextColumn, NumberColumn and UnsignedColumn describe columns that are never NULL, for the results of SHOW statements.
// length is in characters or digits.
func TextColumn(name string, length uint32) Column {
	return Column{Name: name, Type: TypeVarString, Length: length * 4, Decimals: 31, Charset: charsetUTF8MB4}
}

func NumberColumn(name string) Column {
	return Column{Name: name, Type: TypeLongLong, Length: 21, Charset: charsetBinary}
}

func UnsignedColumn(name string) Column {
	return Column{Name: name, Type: TypeLongLong, Length: 21, Charset: charsetBinary, Unsigned: true}
}

func boolColumn(nullable bool) Column {
	return Column{Type: TypeLongLong, Length: 1, Charset: charsetBinary, Nullable: nullable}
}

func doubleColumn(nullable bool) Column {
	return Column{Type: TypeDouble, Length: 23, Decimals: 31, Charset: charsetBinary, Nullable: nullable}
}

func decimalColumn(scale int, nullable bool) Column {
	return Column{Type: TypeNewDecimal, Length: maxDigits + 2, Decimals: uint8(min(scale, maxScale)), Charset: charsetBinary, Nullable: nullable}
}

// merge is the type of an expression that takes its value from either of two (IF, CASE, COALESCE).
func merge(a, b Column) Column {
	nullable := a.Nullable || b.Nullable
	out := a
	switch {
	case a.Type == TypeNull:
		out = b
	case b.Type == TypeNull:
	case a.isText() || b.isText() || a.Type != b.Type && (a.Type == TypeDatetime || b.Type == TypeDatetime):
		out = Column{Type: TypeVarString, Decimals: 31, Charset: mergeCharsets(a, b)}
	case a.Type == TypeDouble || b.Type == TypeDouble:
		out = doubleColumn(false)
	case a.Type == TypeNewDecimal || b.Type == TypeNewDecimal:
		out = decimalColumn(int(max(a.Decimals, b.Decimals)), false)
	default:
		out.Unsigned = a.Unsigned && b.Unsigned
	}
	if out.Length < max(a.Length, b.Length) {
		out.Length = max(a.Length, b.Length)
	}
	out.Nullable = nullable
	return out
}

// mergeCharsets is the charset of text made of two columns: bytes if one of them is bytes.
func mergeCharsets(a, b Column) uint16 {
	if a.isText() && a.Binary() || b.isText() && b.Binary() {
		return charsetBinary
	}
	return charsetUTF8MB4
}

func (c Column) isText() bool {
	return c.Type == TypeVarString || c.Type == TypeLongBlob || c.Type == TypeMediumBlob
}

// coerce makes a value fit a merged type.
func coerce(v Value, c Column) Value {
	switch {
	case v.IsNull():
	case c.isText():
		if v.kind != KindString {
			return String(v.Text())
		}
	case c.Type == TypeDouble:
		return Double(v.Float64())
	}
	return v
}
