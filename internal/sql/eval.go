package sql

import (
	"math"
	"strings"
	"time"
)

// evaluation is the evaluation of one statement, or of one row for WHERE.
type evaluation struct {
	s       *Session
	now     time.Time // one instant for the whole statement, as in MySQL
	clause  string    // for "unknown column"
	columns []Column  // that names refer to, and their values
	row     []Value
	work    int // of MaxWork
}

// spend accounts for looking at some bytes.
func (ev *evaluation) spend(bytes int) error {
	if ev.work += 1 + bytes/256; ev.work > MaxWork {
		return errNotSupported("statements that take so much work")
	}
	return nil
}

// likeText is the function like, accounted for.
func (ev *evaluation) likeText(text, pattern string, escape rune, fold bool) (bool, error) {
	if err := ev.spend((len(text) + 1) * (len(pattern) + 1)); err != nil {
		return false, err
	}
	return like(text, pattern, escape, fold), nil
}

func (s *Session) evaluation() *evaluation {
	return &evaluation{s: s, now: s.now(), clause: "field list"}
}

// now is NOW() of the session: its @@timestamp or the clock, in its time zone.
func (s *Session) now() time.Time {
	t := s.env.Now()
	if v, ok := s.variables.Lookup("timestamp"); ok {
		if set, ok := s.overrides[v]; ok {
			seconds, fraction := math.Modf(set.Float64())
			t = time.Unix(int64(seconds), int64(math.Round(fraction*1e6))*1000).In(t.Location())
		}
	}
	zone, _ := s.SystemVariable(ScopeNone, "time_zone")
	if minutes, ok := zoneOffset(zone.s); ok {
		t = t.In(time.FixedZone("", minutes*60))
	}
	return t
}

// value checks and evaluates an expression.
func (ev *evaluation) value(e Expr) (Value, error) {
	if _, err := ev.typeOf(e); err != nil {
		return Null, err
	}
	return ev.eval(e)
}

// eval evaluates an expression that typeOf has accepted.
func (ev *evaluation) eval(e Expr) (Value, error) {
	v, err := ev.evalNode(e)
	if err == nil {
		err = ev.spend(len(v.s))
	}
	return v, err
}

func (ev *evaluation) evalNode(e Expr) (Value, error) {
	switch e := e.(type) {
	case *Literal:
		return e.Value, nil
	case *UserVar:
		return ev.s.UserVariable(e.Name), nil
	case *SysVar:
		return ev.s.SystemVariable(e.Scope, e.Name)
	case *ColumnRef:
		i, err := ev.column(e)
		if err != nil || i >= len(ev.row) {
			return Null, err
		}
		return ev.row[i], nil
	case *Unary:
		return ev.unary(e)
	case *Binary:
		return ev.binary(e)
	case *Is:
		return ev.is(e)
	case *In:
		return ev.in(e)
	case *Like:
		return ev.like(e)
	case *Between:
		return ev.between(e)
	case *Case:
		return ev.caseOf(e)
	case *Call:
		f, err := ev.function(e)
		if err != nil {
			return Null, err
		}
		return f.eval(ev, e.Args)
	case *Cast:
		return ev.cast(e)
	case *Collate:
		v, err := ev.eval(e.X)
		if err == nil && !v.IsNull() {
			v = Value{kind: KindString, s: v.Text(), binary: bytewise(e.Name)}
		}
		return v, err
	case *Assign:
		v, err := ev.eval(e.X)
		if err == nil {
			err = ev.s.SetUserVariable(e.Name, v)
		}
		return v, err
	}
	return Null, Errorf(1105, "HY000", "kingbus cannot evaluate %T", e)
}

// bytewise tells whether a collation compares byte by byte.
func bytewise(collation string) bool {
	collation = strings.ToLower(collation)
	return collation == "binary" || strings.HasSuffix(collation, "_bin")
}

func (ev *evaluation) column(c *ColumnRef) (int, error) {
	if c.Table == "" {
		for i := range ev.columns {
			if strings.EqualFold(ev.columns[i].Name, c.Name) {
				return i, nil
			}
		}
		return 0, Errorf(1054, "42S22", "Unknown column '%s' in '%s'", clip(c.Name, 256), ev.clause)
	}
	if len(ev.columns) > 0 {
		return 0, Errorf(1054, "42S22", "Unknown column '%s.%s' in '%s'", clip(c.Table, 256), clip(c.Name, 256), ev.clause)
	}
	return 0, Errorf(1109, "42S02", "Unknown table '%s' in %s", clip(c.Table, 256), ev.clause)
}

func (ev *evaluation) two(x, y Expr) (a, b Value, err error) {
	if a, err = ev.eval(x); err == nil {
		b, err = ev.eval(y)
	}
	return a, b, err
}

func (ev *evaluation) unary(e *Unary) (Value, error) {
	v, err := ev.eval(e.X)
	if err != nil || v.IsNull() {
		return Null, err
	}
	switch e.Op {
	case "NOT", "!":
		isTrue, _ := v.truth()
		return Bool(!isTrue), nil
	case "BINARY":
		return Bytes(v.Text()), nil
	case "~":
		return Uint(^bits(v)), nil
	}
	switch n := v.number(); n.kind {
	case KindDouble:
		return Double(-n.double()), nil
	case KindInt:
		if int64(n.n) != math.MinInt64 {
			return Int(-int64(n.n)), nil
		}
		return decimalArithmetic("-", Int(0), n), nil
	case KindUint:
		if n.n <= 1<<63 {
			return Int(-int64(n.n)), nil
		}
		return Null, errOutOfRange("BIGINT", e)
	default:
		return decimalArithmetic("-", Int(0), n), nil
	}
}

// operands evaluates both sides for arithmetic: hexadecimal literals are numbers there.
func (ev *evaluation) operands(e *Binary) (a, b Value, err error) {
	if a, b, err = ev.two(e.X, e.Y); err != nil {
		return a, b, err
	}
	return asNumber(e.X, a), asNumber(e.Y, b), nil
}

func asNumber(e Expr, v Value) Value {
	if l, ok := e.(*Literal); ok && l.Hex {
		return hexNumber(v.s)
	}
	return v.number()
}

func (ev *evaluation) binary(e *Binary) (Value, error) {
	switch e.Op {
	case "AND", "OR":
		return ev.logic(e)
	case "XOR":
		a, b, err := ev.two(e.X, e.Y)
		if err != nil || a.IsNull() || b.IsNull() {
			return Null, err
		}
		x, _ := a.truth()
		y, _ := b.truth()
		return Bool(x != y), nil
	case "=", "<=>", "<", "<=", ">", ">=", "<>":
		a, b, err := ev.two(e.X, e.Y)
		if err != nil {
			return Null, err
		}
		if a.isNumber() || b.isNumber() {
			a, b = hexAsNumber(e.X, a), hexAsNumber(e.Y, b)
		}
		return comparison(e.Op, a, b), nil
	}
	a, b, err := ev.operands(e)
	if err != nil || a.IsNull() || b.IsNull() {
		return Null, err
	}
	switch e.Op {
	case "|":
		return Uint(bits(a) | bits(b)), nil
	case "&":
		return Uint(bits(a) & bits(b)), nil
	case "^":
		return Uint(bits(a) ^ bits(b)), nil
	case "<<":
		return Uint(bits(a) << min(bits(b), 64)), nil
	case ">>":
		return Uint(bits(a) >> min(bits(b), 64)), nil
	}
	return arithmetic(e, a, b)
}

// hexAsNumber reads a hexadecimal literal that is compared with a number.
func hexAsNumber(e Expr, v Value) Value {
	if l, ok := e.(*Literal); ok && l.Hex {
		return hexNumber(v.s)
	}
	return v
}

// logic is AND and OR with three values; the right side is not evaluated if the left one decides.
func (ev *evaluation) logic(e *Binary) (Value, error) {
	decides := e.Op == "OR"
	unknown := false
	for _, x := range [...]Expr{e.X, e.Y} {
		v, err := ev.eval(x)
		if err != nil {
			return Null, err
		}
		isTrue, isNull := v.truth()
		if !isNull && isTrue == decides {
			return Bool(decides), nil
		}
		unknown = unknown || isNull
	}
	if unknown {
		return Null, nil
	}
	return Bool(!decides), nil
}

func comparison(op string, a, b Value) Value {
	if a.IsNull() || b.IsNull() {
		if op == "<=>" {
			return Bool(a.IsNull() && b.IsNull())
		}
		return Null
	}
	c := compare(a, b)
	switch op {
	case "=", "<=>":
		return Bool(c == 0)
	case "<>":
		return Bool(c != 0)
	case "<":
		return Bool(c < 0)
	case "<=":
		return Bool(c <= 0)
	case ">":
		return Bool(c > 0)
	}
	return Bool(c >= 0)
}

// bits is a number as 64 bits.
func bits(v Value) uint64 { return toInteger(v.number(), true).n }

// arithmetic calculates + - * / % DIV with two numbers that are not NULL.
func arithmetic(e *Binary, a, b Value) (Value, error) {
	if a.kind == KindDouble || b.kind == KindDouble {
		return doubleArithmetic(e, a, b)
	}
	exact := a.kind == KindDecimal || b.kind == KindDecimal
	v := decimalArithmetic(e.Op, a, b)
	if v.kind == KindDouble {
		return Null, errOutOfRange("DECIMAL", e)
	}
	if v.IsNull() || e.Op == "/" || exact && e.Op != "DIV" {
		return v, nil
	}
	// Whole numbers, calculated exactly: the result is unsigned if one of them is.
	unsigned := a.kind == KindUint || b.kind == KindUint
	n, _ := v.big()
	switch {
	case unsigned && n.IsUint64():
		return Uint(n.Uint64()), nil
	case unsigned:
		return Null, errOutOfRange("BIGINT UNSIGNED", e)
	case n.IsInt64():
		return Int(n.Int64()), nil
	}
	return Null, errOutOfRange("BIGINT", e)
}

func doubleArithmetic(e *Binary, a, b Value) (Value, error) {
	x, y := a.Float64(), b.Float64()
	var f float64
	switch e.Op {
	case "+":
		f = x + y
	case "-":
		f = x - y
	case "*":
		f = x * y
	default:
		if y == 0 {
			return Null, nil
		}
		switch e.Op {
		case "/":
			f = x / y
		case "%":
			f = math.Mod(x, y)
		default: // DIV
			f = math.Trunc(x / y)
			if math.Abs(f) >= 1<<63 {
				return Null, errOutOfRange("BIGINT", e)
			}
			return Int(int64(f)), nil
		}
	}
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return Null, errOutOfRange("DOUBLE", e)
	}
	return Double(f), nil
}

func (ev *evaluation) is(e *Is) (Value, error) {
	v, err := ev.eval(e.X)
	if err != nil {
		return Null, err
	}
	isTrue, isNull := v.truth()
	result := isNull
	switch e.What {
	case "TRUE":
		result = isTrue
	case "FALSE":
		result = !isTrue && !isNull
	}
	return Bool(result != e.Not), nil
}

func negate(v Value, not bool) Value {
	if not && !v.IsNull() {
		return Bool(v.n == 0)
	}
	return v
}

func (ev *evaluation) in(e *In) (Value, error) {
	x, err := ev.eval(e.X)
	if err != nil {
		return Null, err
	}
	result := Bool(false)
	for _, item := range e.List {
		y, err := ev.eval(item)
		if err != nil {
			return Null, err
		}
		switch c := comparison("=", x, y); {
		case c.IsNull():
			result = Null
		case c.n == 1:
			return negate(c, e.Not), nil
		}
	}
	return negate(result, e.Not), nil
}

func (ev *evaluation) like(e *Like) (Value, error) {
	x, pattern, err := ev.two(e.X, e.Pattern)
	if err != nil {
		return Null, err
	}
	escape := '\\'
	if e.Escape != nil {
		v, err := ev.eval(e.Escape)
		if err != nil {
			return Null, err
		}
		r := []rune(clip(v.Text(), 16))
		if len(r) > 1 {
			return Null, Errorf(1210, "HY000", "Incorrect arguments to ESCAPE")
		}
		if escape = 0; len(r) == 1 {
			escape = r[0]
		}
	}
	if x.IsNull() || pattern.IsNull() {
		return Null, nil
	}
	ok, err := ev.likeText(x.Text(), pattern.Text(), escape, !x.binary && !pattern.binary)
	return negate(Bool(ok), e.Not), err
}

func (ev *evaluation) between(e *Between) (Value, error) {
	x, err := ev.eval(e.X)
	if err != nil {
		return Null, err
	}
	low, high, err := ev.two(e.Low, e.High)
	if err != nil {
		return Null, err
	}
	a, b := comparison(">=", x, low), comparison("<=", x, high)
	result := Bool(true)
	switch {
	case !a.IsNull() && a.n == 0, !b.IsNull() && b.n == 0:
		result = Bool(false)
	case a.IsNull(), b.IsNull():
		result = Null
	}
	return negate(result, e.Not), nil
}

func (ev *evaluation) caseOf(e *Case) (Value, error) {
	column, err := ev.typeOf(e)
	if err != nil {
		return Null, err
	}
	operand := Bool(true)
	if e.Operand != nil {
		if operand, err = ev.eval(e.Operand); err != nil {
			return Null, err
		}
	}
	for _, w := range e.Whens {
		cond, err := ev.eval(w.Cond)
		if err != nil {
			return Null, err
		}
		taken, _ := cond.truth()
		if e.Operand != nil {
			taken, _ = comparison("=", operand, cond).truth()
		}
		if taken {
			return ev.coerced(w.Then, column)
		}
	}
	if e.Else == nil {
		return Null, nil
	}
	return ev.coerced(e.Else, column)
}

func (ev *evaluation) coerced(e Expr, column Column) (Value, error) {
	v, err := ev.eval(e)
	return coerce(v, column), err
}
