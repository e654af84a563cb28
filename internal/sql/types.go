package sql

import "strings"

// typeOf checks an expression (names, functions, numbers of arguments) and finds the column that it makes.
func (ev *evaluation) typeOf(e Expr) (Column, error) {
	switch e := e.(type) {
	case *Literal:
		return literalColumn(e), nil
	case *UserVar:
		v, known := ev.s.user[strings.ToLower(e.Name)]
		return userColumn(v, known), nil
	case *SysVar:
		v, err := ev.s.variable(e.Scope, e.Name)
		if err != nil {
			return Column{}, err
		}
		return v.column(), nil
	case *ColumnRef:
		i, err := ev.column(e)
		if err != nil {
			return Column{}, err
		}
		return ev.columns[i], nil
	case *Unary:
		return ev.unaryType(e)
	case *Binary:
		return ev.binaryType(e)
	case *Is:
		_, err := ev.typeOf(e.X)
		return boolColumn(false), err
	case *In:
		return ev.boolOf(append([]Expr{e.X}, e.List...)...)
	case *Like:
		if e.Escape != nil {
			return ev.boolOf(e.X, e.Pattern, e.Escape)
		}
		return ev.boolOf(e.X, e.Pattern)
	case *Between:
		return ev.boolOf(e.X, e.Low, e.High)
	case *Case:
		return ev.caseType(e)
	case *Call:
		f, err := ev.function(e)
		if err != nil {
			return Column{}, err
		}
		args, err := ev.typesOf(e.Args)
		if err != nil {
			return Column{}, err
		}
		return f.column(args), nil
	case *Cast:
		return ev.castType(e)
	case *Collate:
		x, err := ev.typeOf(e.X)
		out := Column{Type: TypeVarString, Length: x.Length, Decimals: 31, Charset: charsetUTF8MB4, Nullable: true}
		if strings.EqualFold(e.Name, "binary") {
			out.Charset = charsetBinary
		} else if _, _, ok := collationOf(e.Name); err == nil && !ok {
			err = Errorf(1273, "HY000", "Unknown collation: '%s'", clip(e.Name, 64))
		}
		return out, err
	case *Assign:
		x, err := ev.typeOf(e.X)
		if x.Type == TypeNull || x.Type == TypeDatetime {
			x.Type, x.Decimals = TypeVarString, 31
		}
		return x, err
	}
	return Column{}, Errorf(1105, "HY000", "kingbus cannot evaluate %T", e)
}

func (ev *evaluation) typesOf(list []Expr) ([]Column, error) {
	columns := make([]Column, len(list))
	for i, e := range list {
		var err error
		if columns[i], err = ev.typeOf(e); err != nil {
			return nil, err
		}
	}
	return columns, nil
}

// boolOf is the type of a condition: NULL if any of its operands can be.
func (ev *evaluation) boolOf(list ...Expr) (Column, error) {
	columns, err := ev.typesOf(list)
	return boolColumn(anyNullable(columns)), err
}

func anyNullable(columns []Column) bool {
	for _, c := range columns {
		if c.Nullable {
			return true
		}
	}
	return false
}

func literalColumn(l *Literal) Column {
	v := l.Value
	c := Column{Type: TypeLongLong, Length: uint32(len(v.Text())), Charset: charsetBinary}
	switch v.kind {
	case KindNull:
		return Column{Type: TypeNull, Nullable: true, Charset: charsetBinary}
	case KindInt:
		if int64(v.n) >= 0 && l.Name != "" {
			c.Length++
		} else if l.Name == "" && int64(v.n) >= 0 {
			c.Length = 1 // TRUE, FALSE
		}
	case KindUint:
		c.Unsigned = true
	case KindDecimal:
		_, scale := v.big()
		c.Type, c.Decimals, c.Length = TypeNewDecimal, uint8(scale), c.Length+1
	case KindDouble:
		c.Type, c.Decimals, c.Length = TypeDouble, 31, uint32(len(l.Name))
	case KindString:
		c.Type, c.Decimals = TypeVarString, 31
		if l.Hex {
			c.Decimals, c.Unsigned = 0, !l.Bits
		} else if !v.binary {
			c.Charset, c.Length = charsetUTF8MB4, uint32(4*len([]rune(v.s)))
		}
	}
	return c
}

// userColumn is the type of a user variable, which depends on its value.
func userColumn(v Value, known bool) Column {
	c := Column{Type: TypeLongLong, Length: 21, Charset: charsetBinary, Nullable: true}
	switch v.kind {
	case KindNull:
		c.Type, c.Length, c.Decimals = TypeVarString, 65532, 31
		if known {
			c.Type, c.Length = TypeMediumBlob, 1<<24-1
		}
	case KindUint:
		c.Unsigned = true
	case KindDecimal:
		return decimalColumn(maxScale, true)
	case KindDouble:
		return doubleColumn(true)
	case KindString:
		c.Type, c.Length, c.Decimals = TypeMediumBlob, 1<<24-1, 31
		if !v.binary {
			c.Type, c.Length, c.Charset = TypeLongBlob, 268435440, charsetUTF8MB4
		}
	}
	return c
}

func (ev *evaluation) unaryType(e *Unary) (Column, error) {
	x, err := ev.typeOf(e.X)
	if err != nil {
		return x, err
	}
	switch e.Op {
	case "NOT", "!":
		return boolColumn(x.Nullable), nil
	case "~":
		return Column{Type: TypeLongLong, Length: 21, Charset: charsetBinary, Unsigned: true, Nullable: x.Nullable}, nil
	case "BINARY":
		return Column{Type: TypeVarString, Length: x.Length, Decimals: 31, Charset: charsetBinary, Nullable: true}, nil
	}
	x = numeric(e.X, x)
	x.Unsigned = false
	return x, nil
}

// numeric is the type of an operand in arithmetic.
func numeric(e Expr, c Column) Column {
	if l, ok := e.(*Literal); ok && l.Hex {
		return Column{Type: TypeLongLong, Length: 21, Charset: charsetBinary, Unsigned: true}
	}
	switch {
	case c.isText(), c.Type == TypeNull:
		return doubleColumn(c.Nullable)
	case c.Type == TypeDatetime && c.Decimals > 0:
		return decimalColumn(int(c.Decimals), c.Nullable)
	case c.Type == TypeDatetime:
		return Column{Type: TypeLongLong, Length: 21, Charset: charsetBinary, Nullable: c.Nullable}
	case c.Type == TypeDouble:
		return doubleColumn(c.Nullable)
	}
	return c
}

func (ev *evaluation) binaryType(e *Binary) (Column, error) {
	columns, err := ev.typesOf([]Expr{e.X, e.Y})
	if err != nil {
		return Column{}, err
	}
	nullable := anyNullable(columns)
	switch e.Op {
	case "<=>":
		return boolColumn(false), nil
	case "AND", "OR", "XOR", "=", "<", "<=", ">", ">=", "<>":
		return boolColumn(nullable), nil
	case "|", "&", "^", "<<", ">>":
		return Column{Type: TypeLongLong, Length: 21, Charset: charsetBinary, Unsigned: true, Nullable: nullable}, nil
	}
	x, y := numeric(e.X, columns[0]), numeric(e.Y, columns[1])
	integer := Column{Type: TypeLongLong, Length: min(max(x.Length, y.Length)+1, 21), Charset: charsetBinary,
		Unsigned: x.Unsigned || y.Unsigned, Nullable: nullable}
	division := e.Op == "/" || e.Op == "%" || e.Op == "DIV"
	switch {
	case e.Op == "DIV":
		integer.Nullable = true
		return integer, nil
	case x.Type == TypeDouble || y.Type == TypeDouble:
		return doubleColumn(nullable || division), nil
	case e.Op == "/":
		return decimalColumn(int(x.Decimals)+4, true), nil
	case x.Type == TypeLongLong && y.Type == TypeLongLong:
		if e.Op == "%" {
			integer.Unsigned, integer.Nullable = x.Unsigned, true
		}
		return integer, nil
	case e.Op == "*":
		return decimalColumn(int(x.Decimals)+int(y.Decimals), nullable), nil
	}
	return decimalColumn(int(max(x.Decimals, y.Decimals)), nullable || division), nil
}

func (ev *evaluation) caseType(e *Case) (Column, error) {
	if e.Operand != nil {
		if _, err := ev.typeOf(e.Operand); err != nil {
			return Column{}, err
		}
	}
	out := Column{Type: TypeNull, Nullable: e.Else == nil, Charset: charsetBinary}
	nullable := e.Else == nil
	for _, w := range e.Whens {
		if _, err := ev.typeOf(w.Cond); err != nil {
			return Column{}, err
		}
		then, err := ev.typeOf(w.Then)
		if err != nil {
			return Column{}, err
		}
		out, nullable = merge(out, then), nullable || then.Nullable
	}
	if e.Else != nil {
		other, err := ev.typeOf(e.Else)
		if err != nil {
			return Column{}, err
		}
		out, nullable = merge(out, other), nullable || other.Nullable
	}
	out.Nullable = nullable
	return out, nil
}

func (ev *evaluation) castType(e *Cast) (Column, error) {
	x, err := ev.typeOf(e.X)
	if err != nil {
		return x, err
	}
	switch to := e.To; to.Type {
	case TypeLongLong:
		return Column{Type: TypeLongLong, Length: 21, Charset: charsetBinary, Unsigned: to.Unsigned, Nullable: x.Nullable}, nil
	case TypeNewDecimal:
		return decimalColumn(to.Decimals, x.Nullable), nil
	case TypeDouble:
		return doubleColumn(x.Nullable), nil
	case TypeDatetime:
		return datetimeColumn(to.Length, true), nil
	default:
		c := Column{Type: TypeVarString, Length: x.Length, Decimals: 31, Charset: charsetUTF8MB4, Nullable: true}
		if to.Length >= 0 {
			c.Length = uint32(min(uint64(to.Length)*4, 1<<32-1))
		}
		if to.Binary {
			c.Charset = charsetBinary
		}
		return c, nil
	}
}

func datetimeColumn(digits int, nullable bool) Column {
	c := Column{Type: TypeDatetime, Length: 19, Decimals: uint8(digits), Charset: charsetBinary, Nullable: nullable}
	if digits > 0 {
		c.Length += 1 + uint32(digits)
	}
	return c
}
