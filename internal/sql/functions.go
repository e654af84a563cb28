package sql

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"kingbus/internal/gtid"
)

// function is a built-in function. column gives the type of its result from those of its arguments; eval gets the
// arguments unevaluated, since IF and its like do not evaluate them all.
type function struct {
	min, max int // arguments; max -1: any number
	column   func(args []Column) Column
	eval     func(ev *evaluation, args []Expr) (Value, error)
}

// function finds the function that is called: 1305 if there is none, 1582 for a wrong number of arguments.
func (ev *evaluation) function(c *Call) (function, error) {
	f, ok := builtin(strings.ToUpper(c.Name), c.Args)
	if c.Schema != "" || !ok {
		schema := c.Schema
		if schema == "" {
			schema = ev.s.env.Database()
		}
		if schema == "" {
			return f, Errorf(1305, "42000", "FUNCTION %s does not exist", clip(c.Name, 256))
		}
		return f, Errorf(1305, "42000", "FUNCTION %s.%s does not exist", clip(schema, 256), clip(c.Name, 256))
	}
	if len(c.Args) < f.min || f.max >= 0 && len(c.Args) > f.max {
		return f, errParameterCount(c.Name)
	}
	return f, nil
}

// builtin finds a function by its upper-case name.
func builtin(name string, args []Expr) (function, bool) {
	switch name {
	case "IF", "IFNULL", "COALESCE", "NULLIF", "ISNULL":
		return conditional(name), true
	case "NOW", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP", "SYSDATE":
		return clock(name, args, func(ev *evaluation) time.Time { return ev.now }), true
	case "UTC_TIMESTAMP":
		return clock(name, args, func(ev *evaluation) time.Time { return ev.now.UTC() }), true
	case "UNIX_TIMESTAMP":
		return function{0, 1, unixTimestampColumn, unixTimestamp}, true
	case "VERSION":
		return constant(TextColumn("", 7), func(ev *evaluation) Value {
			v, _ := ev.s.SystemVariable(ScopeGlobal, "version")
			return String(v.Text())
		}), true
	case "CONNECTION_ID":
		return constant(UnsignedColumn(""), func(ev *evaluation) Value { return Uint(uint64(ev.s.env.ConnectionID())) }), true
	case "USER", "SESSION_USER", "SYSTEM_USER":
		return constant(textOrNull(288), func(ev *evaluation) Value { return String(ev.s.env.User()) }), true
	case "CURRENT_USER":
		return constant(textOrNull(288), func(ev *evaluation) Value { return String(ev.s.env.CurrentUser()) }), true
	case "DATABASE", "SCHEMA":
		return constant(textOrNull(64), func(ev *evaluation) Value {
			if db := ev.s.env.Database(); db != "" {
				return String(db)
			}
			return Null
		}), true
	case "UUID":
		return constant(textOrNull(36), func(ev *evaluation) Value { return String(ev.s.env.UUID()) }), true
	case "ROW_COUNT":
		return constant(NumberColumn(""), func(ev *evaluation) Value { return Int(ev.s.rowCount) }), true
	case "FOUND_ROWS":
		return constant(NumberColumn(""), func(ev *evaluation) Value { return Int(ev.s.foundRows) }), true
	case "LAST_INSERT_ID":
		return function{0, 1, func([]Column) Column { return UnsignedColumn("") }, lastInsertID}, true
	case "CONCAT":
		return function{1, -1, concatColumn, strict(concat)}, true
	case "CONCAT_WS":
		return function{2, -1, concatColumn, all(concatWS)}, true
	case "LOWER", "LCASE":
		return text1(strings.ToLower), true
	case "UPPER", "UCASE":
		return text1(strings.ToUpper), true
	case "LENGTH", "OCTET_LENGTH":
		return length(func(s string) int { return len(s) }), true
	case "CHAR_LENGTH", "CHARACTER_LENGTH":
		return length(utf8.RuneCountInString), true
	case "MOD":
		return function{2, 2, func(args []Column) Column { args[0].Nullable = true; return args[0] },
			func(ev *evaluation, args []Expr) (Value, error) {
				return ev.binary(&Binary{Op: "%", X: args[0], Y: args[1]})
			}}, true
	case "GTID_SUBSET":
		return function{2, 2, func(args []Column) Column { c := NumberColumn(""); c.Nullable = anyNullable(args); return c }, strict(gtidSubset)}, true
	case "GTID_SUBTRACT":
		return function{2, 2, concatColumn, strict(gtidSubtract)}, true
	}
	return function{}, false
}

// all makes an eval of a function that takes values.
func all(f func(args []Value) (Value, error)) func(*evaluation, []Expr) (Value, error) {
	return func(ev *evaluation, args []Expr) (Value, error) {
		values := make([]Value, len(args))
		for i, e := range args {
			var err error
			if values[i], err = ev.eval(e); err != nil {
				return Null, err
			}
		}
		return f(values)
	}
}

// strict is all for functions that are NULL if any argument is.
func strict(f func(args []Value) (Value, error)) func(*evaluation, []Expr) (Value, error) {
	return all(func(args []Value) (Value, error) {
		for _, v := range args {
			if v.IsNull() {
				return Null, nil
			}
		}
		return f(args)
	})
}

func constant(c Column, f func(ev *evaluation) Value) function {
	return function{0, 0, func([]Column) Column { return c }, func(ev *evaluation, _ []Expr) (Value, error) { return f(ev), nil }}
}

func textOrNull(length uint32) Column {
	c := TextColumn("", length)
	c.Nullable = true
	return c
}

func text1(f func(string) string) function {
	return function{1, 1, concatColumn, strict(func(args []Value) (Value, error) {
		if args[0].binary {
			return args[0], nil
		}
		return String(f(args[0].Text())), nil
	})}
}

func length(f func(string) int) function {
	return function{1, 1, func(args []Column) Column {
		return Column{Type: TypeLongLong, Length: 11, Charset: charsetBinary, Nullable: args[0].Nullable}
	}, strict(func(args []Value) (Value, error) { return Int(int64(f(args[0].Text()))), nil })}
}

// conditional makes the functions that choose among their arguments.
func conditional(name string) function {
	switch name {
	case "IF":
		return function{3, 3, func(args []Column) Column { return merge(args[1], args[2]) },
			func(ev *evaluation, args []Expr) (Value, error) {
				return ev.caseOf(&Case{Whens: []When{{Cond: args[0], Then: args[1]}}, Else: args[2]})
			}}
	case "NULLIF":
		return function{2, 2, func(args []Column) Column { args[0].Nullable = true; return args[0] },
			func(ev *evaluation, args []Expr) (Value, error) {
				a, b, err := ev.two(args[0], args[1])
				if isTrue, _ := comparison("=", a, b).truth(); err != nil || isTrue {
					return Null, err
				}
				return a, nil
			}}
	case "ISNULL":
		return function{1, 1, func([]Column) Column { return boolColumn(false) }, all(func(args []Value) (Value, error) {
			return Bool(args[0].IsNull()), nil
		})}
	}
	f := function{1, -1, coalesceColumn, coalesce}
	if name == "IFNULL" {
		f.min, f.max = 2, 2
	}
	return f
}

func coalesceColumn(args []Column) Column {
	out, nullable := args[0], args[0].Nullable
	for _, c := range args[1:] {
		out, nullable = merge(out, c), nullable && c.Nullable
	}
	out.Nullable = nullable
	return out
}

func coalesce(ev *evaluation, args []Expr) (Value, error) {
	columns, err := ev.typesOf(args)
	if err != nil {
		return Null, err
	}
	column := coalesceColumn(columns)
	for _, e := range args {
		v, err := ev.coerced(e, column)
		if err != nil {
			return Null, err
		}
		if v.IsNull() {
			continue
		}
		if n := v.number(); column.Type == TypeNewDecimal && n.kind != KindDouble { // IF and CASE do not round
			v = n.round(int(column.Decimals))
		}
		return v, nil
	}
	return Null, nil
}

// clock makes the functions that tell the time, with an optional number of digits after the second.
func clock(name string, args []Expr, now func(ev *evaluation) time.Time) function {
	digits, ok := uint64(0), true
	if len(args) > 0 {
		l, isLiteral := args[0].(*Literal)
		if ok = isLiteral && l.Value.kind == KindInt; ok {
			digits = l.Value.n
		}
	}
	return function{0, 1,
		func([]Column) Column { return datetimeColumn(int(min(digits, 6)), false) },
		func(ev *evaluation, _ []Expr) (Value, error) {
			if !ok {
				return Null, errNotSupported(name + " with anything but a number")
			}
			if digits > 6 {
				return Null, Errorf(1426, "42000", "Too-big precision %d specified for '%s'. Maximum is 6.", digits, strings.ToLower(name))
			}
			return datetime(now(ev), int(digits)), nil
		}}
}

func unixTimestampColumn(args []Column) Column {
	switch {
	case len(args) == 0:
		return NumberColumn("")
	case args[0].Type == TypeDatetime && args[0].Decimals > 0:
		return decimalColumn(int(args[0].Decimals), args[0].Nullable)
	}
	c := NumberColumn("")
	c.Nullable = args[0].Nullable
	return c
}

func unixTimestamp(ev *evaluation, args []Expr) (Value, error) {
	if len(args) == 0 {
		return Int(ev.now.Unix()), nil
	}
	v, err := ev.eval(args[0])
	if err != nil || v.IsNull() {
		return Null, err
	}
	t, ok := parseDatetime(v.Text(), ev.now.Location())
	if !ok || t.Unix() < 0 {
		return Int(0), nil
	}
	if _, fraction, _ := strings.Cut(v.s, "."); v.kind == KindDatetime && fraction != "" {
		return decimal(strconv.FormatInt(t.Unix(), 10) + "." + fraction), nil
	}
	return Int(t.Unix()), nil
}

func lastInsertID(ev *evaluation, args []Expr) (Value, error) {
	if len(args) == 0 {
		return Uint(ev.s.lastInsertID), nil
	}
	v, err := ev.eval(args[0])
	if err != nil || v.IsNull() {
		return Null, err
	}
	ev.s.lastInsertID = bits(v)
	return Uint(ev.s.lastInsertID), nil
}

func concatColumn(args []Column) Column {
	c := Column{Type: TypeVarString, Decimals: 31, Charset: charsetUTF8MB4, Nullable: true}
	length := uint64(0)
	for _, a := range args {
		c.Charset = min(c.Charset, mergeCharsets(a, a))
		if n := uint64(a.Length); a.isText() {
			length += n
		} else {
			length += 4 * n
		}
	}
	c.Length = uint32(min(length, math.MaxUint32))
	return c
}

func concat(args []Value) (Value, error) { return join(String(""), args), nil }

func concatWS(args []Value) (Value, error) {
	if args[0].IsNull() {
		return Null, nil
	}
	var parts []Value
	for _, v := range args[1:] {
		if !v.IsNull() {
			parts = append(parts, v)
		}
	}
	return join(args[0], parts), nil
}

// join puts a separator between texts; a result longer than MaxString is NULL.
func join(separator Value, parts []Value) Value {
	var b strings.Builder
	binary := separator.binary
	for i, v := range parts {
		if i > 0 {
			b.WriteString(separator.Text())
		}
		b.WriteString(v.Text())
		if binary = binary || v.binary; b.Len() > MaxString {
			return Null
		}
	}
	return Value{kind: KindString, s: b.String(), binary: binary}
}

// gtidSets parses the arguments of the GTID functions.
func gtidSets(args []Value) (a, b gtid.Set, err error) {
	sets := [2]gtid.Set{}
	for i := range sets {
		if sets[i], err = gtid.ParseSet(args[i].Text()); err != nil {
			if !errors.Is(err, gtid.ErrMalformed) {
				return a, b, Errorf(1105, "HY000", "%v", err)
			}
			return a, b, Errorf(1772, "HY000", "Malformed GTID set specification '%s'.", clip(args[i].Text(), 256))
		}
	}
	return sets[0], sets[1], nil
}

func gtidSubset(args []Value) (Value, error) {
	a, b, err := gtidSets(args)
	if err != nil {
		return Null, err
	}
	return Bool(b.ContainsSet(a)), nil
}

func gtidSubtract(args []Value) (Value, error) {
	a, b, err := gtidSets(args)
	if err != nil {
		return Null, err
	}
	return String(a.Subtract(b).String()), nil
}
