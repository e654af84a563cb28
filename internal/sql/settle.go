package sql

import (
	"slices"
	"strings"
)

// The type of an expression is that of its values, as far as the statement does not say more: all rows have a value of
// it, as the binary protocol encodes them by it.

// kindDecimal is the kind of a column only: of whole numbers with and without a sign, which MySQL makes decimals.
const kindDecimal Kind = 255

// settle makes a column's values those of one type, and returns one that stands for all of them.
func (ev *evaluation) settle(e Expr, rows [][]Value, at int) Value {
	values := make([]Value, 0, len(rows))
	for _, row := range rows {
		values = append(values, row[at])
	}
	t := typical(ev.possible(e, values))
	for _, row := range rows {
		row[at] = row[at].as(t)
	}
	return t
}

// possible adds to an expression's values those that it may have otherwise: MySQL gives an IF or a CASE the type of all
// its results, whichever it has.
func (ev *evaluation) possible(e Expr, values []Value) []Value {
	switch e := e.(type) {
	case *Literal:
		return append(values, e.Value)
	case *SysVar:
		// What was not evaluated may be large, and there many times: looking at it is work, and only
		// so much of it is kept as the width of a column tells.
		if ev.spend(0) != nil {
			return append(values, String(""))
		}
		v, _ := ev.s.SystemVariable(e.Scope, e.Name) // if there is none, it is not asked for
		_ = ev.spend(len(v.s))
		const most = 1 << 10
		if len(v.s) > most {
			v.s = strings.Clone(v.s[:most])
		}
		return append(values, v)
	case *ColumnRef:
		if at, err := ev.find(e); err == nil {
			values = append(values, ev.columns[at].sample())
		}
	case *Call:
		switch a, is := isAggregate(e); {
		case !is || len(a.Args) != 1:
		case strings.EqualFold(a.Name, "SUM"):
			v := typical(ev.possible(a.Args[0], nil))
			if v.kind == KindString || v.kind == KindDatetime {
				v = Double(0)
			}
			return append(values, v)
		case !strings.EqualFold(a.Name, "COUNT"):
			return ev.possible(a.Args[0], values)
		}
	}
	for _, x := range results(e) {
		if x != nil {
			values = ev.possible(x, values)
		}
	}
	return values
}

// results are the operands of which an expression has one for its value; nil among them is NULL.
func results(e Expr) (list []Expr) {
	switch e := e.(type) {
	case *Op:
		if e.Name == "CASE" { // THEN and ELSE
			for i := 2; i < len(e.Args); i += 2 {
				list = append(list, e.Args[i])
			}
			list = append(list, e.Args[len(e.Args)-1])
		}
	case *Call:
		switch name := strings.ToUpper(e.Name); {
		case e.Schema != "":
		case name == "IF":
			return e.Args[min(1, len(e.Args)):]
		case name == "IFNULL", name == "COALESCE":
			return e.Args
		}
	}
	return list
}

// sample is a value as the column has them.
func (c Column) sample() Value {
	switch {
	case c.Type == TypeDouble:
		return Double(0)
	case c.Type != TypeLong && c.Type != TypeLongLong:
		return String("")
	case c.Unsigned:
		return Uint(0)
	}
	return Int(0)
}

// typical returns a value that stands for the type and the width of all: NULL if they are, a double for numbers of
// which one is, kindDecimal for whole ones with and without a sign, and text for what has nothing in common.
func typical(values []Value) Value {
	t := Null
	for _, v := range values {
		number := v.isNumber() && t.isNumber()
		switch {
		case v.IsNull():
		case t.IsNull():
			t = v
		case v.kind == t.kind && (v.kind != KindDatetime || v.moment() == t.moment()):
			t = slices.MaxFunc([]Value{t, v}, byWidth) // the first of equals
		case number && (v.kind == KindDouble || t.kind == KindDouble):
			t = Double(0)
		case number:
			t = Value{kind: kindDecimal}
		default:
			t = slices.MaxFunc([]Value{String(t.Text()), String(v.Text())}, byWidth)
		}
	}
	return t
}

func byWidth(a, b Value) int { return len(a.s) - len(b.s) }

// as is v in the type for which t stands.
func (v Value) as(t Value) Value {
	switch {
	case v.IsNull() || v.kind == t.kind:
	case t.kind == KindDouble:
		return Double(v.Float64())
	case t.kind == KindString:
		return String(v.Text())
	}
	return v
}

func (v Value) isNumber() bool { return v.isWhole() || v.kind == KindDouble || v.kind == kindDecimal }

// moment is the type of a date, a time, or both.
func (v Value) moment() ColumnType {
	switch {
	case !strings.Contains(v.s, ":"):
		return TypeDate
	case !strings.Contains(v.s, " "):
		return TypeTime
	}
	return TypeDatetime
}
