package sql

import (
	"math"
	"math/big"
	"strings"
	"time"
)

// evaluation is the evaluation of one statement.
type evaluation struct {
	s       *Session
	now     time.Time // one instant for the whole statement, as in MySQL
	clause  string    // for "unknown column"
	columns []Column  // that names refer to, and their values
	row     []Value
	work    int // of MaxWork

	table       *source   // of a SELECT; nil: it has none, or it is a SHOW
	group       [][]Value // what aggregates are of
	inAggregate bool

	describing bool // only columns are wanted: nothing is set, nothing waited for
}

func (s *Session) evaluation() *evaluation {
	return &evaluation{s: s, now: s.now(), clause: "field list"}
}

// now is NOW() in the time zone of the session.
func (s *Session) now() time.Time {
	t := s.env.Now()
	name, _ := s.SystemVariable(ScopeNone, "time_zone")
	if zone, ok := timeZone(name.s); ok {
		t = t.In(zone)
	}
	return t
}

// spend accounts for looking at some bytes.
func (ev *evaluation) spend(bytes int) error {
	if ev.work += 1 + bytes/256; ev.work > MaxWork {
		return errNotSupported("statements that take so much work")
	}
	return nil
}

func (ev *evaluation) eval(e Expr) (Value, error) {
	v, err := ev.node(e)
	if ev.describing && aboutValue(err) {
		v, err = Null, nil
	}
	if err == nil {
		err = ev.spend(len(v.s))
	}
	return v, err
}

func (ev *evaluation) node(e Expr) (Value, error) {
	switch e := e.(type) {
	case *Literal:
		return e.Value, nil
	case *Param:
		return e.Value, nil
	case *UserVar:
		return ev.s.UserVariable(e.Name), nil
	case *SysVar:
		return ev.s.SystemVariable(e.Scope, e.Name)
	case *ColumnRef:
		return ev.field(e)
	case *Op:
		return ev.operator(e)
	case *Call:
		return ev.call(e)
	case *Assign:
		v, err := ev.eval(e.X)
		if v.kind == KindDatetime {
			v.kind = KindString
		}
		if err == nil && !ev.describing {
			err = ev.s.setUser(map[string]Value{strings.ToLower(e.Name): v})
		}
		return v, err
	}
	return Null, Errorf(1105, "HY000", "kingbus cannot evaluate %T", e)
}

func (ev *evaluation) list(exprs []Expr) ([]Value, error) {
	values := make([]Value, len(exprs))
	for i, e := range exprs {
		var err error
		if values[i], err = ev.eval(e); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// field returns the row's value in a column.
func (ev *evaluation) field(c *ColumnRef) (Value, error) {
	at, err := ev.find(c)
	if err != nil {
		return Null, err
	}
	return ev.row[at], nil
}

// find returns the number of a column.
func (ev *evaluation) find(c *ColumnRef) (int, error) {
	name := clip(c.Name, 256)
	if c.Table != "" {
		if len(ev.columns) == 0 {
			return 0, Errorf(1109, "42S02", "Unknown table '%s' in %s", clip(c.Table, 256), ev.clause)
		}
		name = clip(c.Table, 256) + "." + name
	}
	if c.Table == "" || ev.table != nil && ev.table.is(c.Table) {
		for i, column := range ev.columns {
			if c.Name == "" || strings.EqualFold(column.Name, c.Name) {
				return i, nil
			}
		}
	}
	return 0, Errorf(1054, "42S22", "Unknown column '%s' in '%s'", name, ev.clause)
}

func (ev *evaluation) operator(e *Op) (Value, error) {
	switch e.Name { // these do not look at all of their operands
	case "AND", "OR":
		return ev.logic(e.Args, e.Name == "OR")
	case "CASE":
		return ev.caseOf(e.Args)
	case "INTERVAL":
		return Null, errNotSupported("INTERVAL but with + and -, or in DATE_ADD and DATE_SUB")
	case "+", "-":
		switch sign := map[string]int64{"+": 1, "-": -1}[e.Name]; {
		case len(e.Args) != 2: // a sign
		case isInterval(e.Args[1]):
			return ev.addInterval(e.Args[0], e.Args[1].(*Op), sign)
		case isInterval(e.Args[0]) && sign > 0:
			return ev.addInterval(e.Args[1], e.Args[0].(*Op), sign)
		}
	}
	args, err := ev.list(e.Args)
	if err != nil {
		return Null, err
	}
	x := args[0]
	switch e.Name { // these know what to do with NULL
	case "=", "<=>", "<", "<=", ">", ">=", "<>":
		return comparison(e.Name, x, args[1]), nil
	case "IS NULL":
		return Bool(x.IsNull()), nil
	case "IS TRUE":
		return Bool(x.isTrue()), nil
	case "IS FALSE":
		return Bool(!x.IsNull() && !x.isTrue()), nil
	case "IN":
		result := Bool(false)
		for _, item := range args[1:] {
			if c := comparison("=", x, item); c.isTrue() {
				return c, nil
			} else if c.IsNull() {
				result = Null
			}
		}
		return result, nil
	case "BETWEEN":
		low, high := comparison(">=", x, args[1]), comparison("<=", x, args[2])
		if low == Bool(false) || low.IsNull() && high.isTrue() {
			return low, nil
		}
		return high, nil
	}
	for _, v := range args {
		if v.IsNull() {
			return Null, nil
		}
	}
	switch e.Name {
	case "NOT":
		return Bool(!x.isTrue()), nil
	case "LIKE":
		text, pattern := x.Text(), args[1].Text()
		if err := ev.spend((len(text) + 1) * (len(pattern) + 1)); err != nil {
			return Null, err
		}
		return Bool(like(text, pattern)), nil
	case "CAST CHAR":
		return String(x.Text()), nil
	case "CAST SIGNED", "CAST UNSIGNED":
		return x.integer(e.Name == "CAST UNSIGNED"), nil
	}
	if len(args) == 1 { // a minus
		if x.kind == KindUint && x.n <= 1<<63 {
			return Int(-int64(x.n)), nil
		}
		return arithmetic("-", Int(0), x)
	}
	return arithmetic(e.Name, x, args[1])
}

// logic is AND and OR with three values; the right side is not evaluated if the left one decides.
func (ev *evaluation) logic(args []Expr, decides bool) (Value, error) {
	result := Bool(!decides)
	for _, x := range args {
		v, err := ev.eval(x)
		if err != nil {
			return Null, err
		}
		if v.IsNull() {
			result = Null
		} else if v.isTrue() == decides {
			return Bool(decides), nil
		}
	}
	return result, nil
}

// caseOf evaluates CASE; see Op for what args are.
func (ev *evaluation) caseOf(args []Expr) (Value, error) {
	last := len(args) - 1
	operand, err := Null, error(nil)
	if args[0] != nil {
		if operand, err = ev.eval(args[0]); err != nil {
			return Null, err
		}
	}
	for i := 1; i < last; i += 2 {
		when, err := ev.eval(args[i])
		if err != nil {
			return Null, err
		}
		if args[0] != nil {
			when = comparison("=", operand, when)
		}
		if when.isTrue() {
			return ev.eval(args[i+1])
		}
	}
	if args[last] == nil {
		return Null, nil
	}
	return ev.eval(args[last])
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

// arithmetic calculates + - * with two values that are not NULL: whole numbers exactly, all others in floating point.
func arithmetic(op string, a, b Value) (Value, error) {
	if !a.isWhole() || !b.isWhole() {
		x, y := a.Float64(), b.Float64()
		f := map[string]float64{"+": x + y, "-": x - y, "*": x * y}[op]
		if math.IsInf(f, 0) {
			return Null, errOutOfRange("DOUBLE", op, a, b)
		}
		return Double(f), nil
	}
	x, y := a.big(), b.big()
	switch op {
	case "+":
		x.Add(x, y)
	case "-":
		x.Sub(x, y)
	default:
		x.Mul(x, y)
	}
	unsigned := a.kind == KindUint || b.kind == KindUint
	switch {
	case unsigned && x.IsUint64():
		return Uint(x.Uint64()), nil
	case unsigned:
		return Null, errOutOfRange("BIGINT UNSIGNED", op, a, b)
	case x.IsInt64():
		return Int(x.Int64()), nil
	}
	return Null, errOutOfRange("BIGINT", op, a, b)
}

func (v Value) big() *big.Int {
	if v.kind == KindInt {
		return big.NewInt(int64(v.n))
	}
	return new(big.Int).SetUint64(v.n)
}
