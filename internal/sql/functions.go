package sql

import (
	"errors"
	"strings"
	"time"

	"kingbus/internal/gtid"
)

// function is a built-in function. It gets its arguments unevaluated, since IF and its like do not evaluate them all.
type function struct {
	min, max int // arguments
	eval     func(ev *evaluation, args []Expr) (Value, error)
}

const anyNumber = MaxTokens

// call runs a function: 1305 if there is none, 1582 for a wrong number of arguments.
func (ev *evaluation) call(c *Call) (Value, error) {
	if _, is := isAggregate(c); is {
		return ev.aggregate(c)
	}
	f, ok := builtin(strings.ToUpper(c.Name))
	if c.Schema != "" || !ok {
		name := clip(c.Name, 256)
		if c.Schema != "" {
			name = clip(c.Schema, 256) + "." + name
		} else if db := ev.s.env.Database(); db != "" {
			name = db + "." + name
		}
		return Null, Errorf(1305, "42000", "FUNCTION %s does not exist", name)
	}
	if len(c.Args) < f.min || len(c.Args) > f.max {
		return Null, Errorf(1582, "42000", "Incorrect parameter count in the call to native function '%s'", c.Name)
	}
	return f.eval(ev, c.Args)
}

// builtin finds a function by its upper-case name.
func builtin(name string) (function, bool) {
	switch name {
	case "IF":
		return function{3, 3, func(ev *evaluation, args []Expr) (Value, error) {
			return ev.caseOf(append([]Expr{nil}, args...))
		}}, true
	case "IFNULL":
		return function{2, 2, coalesce}, true
	case "COALESCE":
		return function{1, anyNumber, coalesce}, true
	case "NULLIF":
		return function{2, 2, func(ev *evaluation, args []Expr) (Value, error) {
			v, err := ev.list(args)
			if err != nil || comparison("=", v[0], v[1]).isTrue() {
				return Null, err
			}
			return v[0], nil
		}}, true
	case "NOW", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP", "SYSDATE", "UTC_TIMESTAMP":
		return function{0, 1, func(ev *evaluation, args []Expr) (Value, error) { return ev.clock(name, args) }}, true
	case "DATE_ADD", "ADDDATE":
		return dateArithmetic(1)
	case "DATE_SUB", "SUBDATE":
		return dateArithmetic(-1)
	case "UNIX_TIMESTAMP":
		return function{0, 1, unixTimestamp}, true
	case "VERSION":
		return fact(func(s *Session) Value { v, _ := s.SystemVariable(ScopeGlobal, "version"); return String(v.Text()) })
	case "CONNECTION_ID":
		return fact(func(s *Session) Value { return Uint(uint64(s.env.ConnectionID())) })
	case "USER", "SESSION_USER", "SYSTEM_USER":
		return fact(func(s *Session) Value { return String(s.env.User()) })
	case "CURRENT_USER":
		return fact(func(s *Session) Value { return String(s.env.CurrentUser()) })
	case "UUID":
		return fact(func(s *Session) Value { return String(s.env.UUID()) })
	case "DATABASE", "SCHEMA":
		return fact(func(s *Session) Value {
			if db := s.env.Database(); db != "" {
				return String(db)
			}
			return Null
		})
	case "CONCAT":
		return strict(1, anyNumber, concat)
	case "LOWER":
		return strict(1, 1, func(args []string) (Value, error) { return String(strings.ToLower(args[0])), nil })
	case "UPPER":
		return strict(1, 1, func(args []string) (Value, error) { return String(strings.ToUpper(args[0])), nil })
	case "LENGTH":
		return strict(1, 1, func(args []string) (Value, error) { return Int(int64(len(args[0]))), nil })
	case "GTID_SUBSET":
		return gtidFunction(func(a, b gtid.Set) Value { return Bool(b.ContainsSet(a)) })
	case "WAIT_FOR_EXECUTED_GTID_SET":
		return function{1, 2, waitExecuted}, true
	case "GTID_SUBTRACT":
		return gtidFunction(func(a, b gtid.Set) Value { return String(a.Subtract(b).String()) })
	}
	return function{}, false
}

// fact makes a function without arguments.
func fact(f func(s *Session) Value) (function, bool) {
	return function{0, 0, func(ev *evaluation, _ []Expr) (Value, error) { return f(ev.s), nil }}, true
}

// strict makes a function of texts that is NULL if any argument is.
func strict(least, most int, f func(args []string) (Value, error)) (function, bool) {
	return function{least, most, func(ev *evaluation, args []Expr) (Value, error) {
		values, err := ev.list(args)
		if err != nil {
			return Null, err
		}
		texts := make([]string, len(values))
		for i, v := range values {
			if v.IsNull() {
				return Null, nil
			}
			texts[i] = v.Text()
		}
		return f(texts)
	}}, true
}

func coalesce(ev *evaluation, args []Expr) (Value, error) {
	for _, e := range args {
		if v, err := ev.eval(e); err != nil || !v.IsNull() {
			return v, err
		}
	}
	return Null, nil
}

// concat joins texts; a result longer than MaxString is NULL.
func concat(args []string) (Value, error) {
	size := 0
	for _, s := range args {
		size += len(s)
	}
	if size > MaxString {
		return Null, nil
	}
	return String(strings.Join(args, "")), nil
}

// clock tells the time, with an optional number of digits after the second, which are cut off, not rounded.
func (ev *evaluation) clock(name string, args []Expr) (Value, error) {
	layout := "2006-01-02 15:04:05"
	if len(args) > 0 {
		l, _ := args[0].(*Literal)
		if l == nil || l.Value.kind != KindInt {
			return Null, errNotSupported(name + " with anything but a number")
		}
		if n := l.Value.n; n > 6 {
			return Null, Errorf(1426, "42000", "Too-big precision %d specified for '%s'. Maximum is 6.", n, strings.ToLower(name))
		} else if n > 0 {
			layout += "." + strings.Repeat("0", int(n))
		}
	}
	t := ev.now
	if name == "UTC_TIMESTAMP" {
		t = t.UTC()
	}
	return Value{kind: KindDatetime, s: t.Format(layout)}, nil
}

// unixTimestamp takes 2006-01-02 with or without 15:04:05; the fraction of a second is dropped.
func unixTimestamp(ev *evaluation, args []Expr) (Value, error) {
	if len(args) == 0 {
		return Int(ev.now.Unix()), nil
	}
	v, err := ev.eval(args[0])
	if err != nil || v.IsNull() {
		return Null, err
	}
	for _, layout := range [...]string{"2006-1-2 15:4:5", "2006-1-2"} {
		if t, err := time.ParseInLocation(layout, clip(v.Text(), 32), ev.now.Location()); err == nil {
			return Int(max(0, t.Unix())), nil
		}
	}
	return Int(0), nil
}

// gtidFunction makes a function of two GTID sets.
func gtidFunction(f func(a, b gtid.Set) Value) (function, bool) {
	return strict(2, 2, func(args []string) (Value, error) {
		var sets [2]gtid.Set
		for i, text := range args {
			var err error
			if sets[i], err = gtidSet(text); err != nil {
				return Null, err
			}
		}
		return f(sets[0], sets[1]), nil
	})
}

func gtidSet(text string) (gtid.Set, error) {
	set, err := gtid.ParseSet(text)
	switch {
	case errors.Is(err, gtid.ErrMalformed):
		return set, Errorf(1772, "HY000", "Malformed GTID set specification '%s'.", clip(text, 256))
	case err != nil:
		return set, Errorf(1105, "HY000", "%v", err)
	}
	return set, nil
}

// waitExecuted is WAIT_FOR_EXECUTED_GTID_SET(set [, seconds]): 0 is done, 1 too late.
func waitExecuted(ev *evaluation, args []Expr) (Value, error) {
	v, err := ev.list(args)
	if err != nil {
		return Null, err
	}
	if v[0].IsNull() {
		return Null, Errorf(1772, "HY000", "Malformed GTID set specification 'NULL'.")
	}
	set, err := gtidSet(v[0].Text())
	if err != nil {
		return Null, err
	}
	var timeout time.Duration
	if len(v) > 1 {
		const most = 365 * 24 * 60 * 60 // seconds
		seconds := v[1].Float64()
		if v[1].IsNull() || seconds < 0 {
			return Null, Errorf(1210, "HY000", "Incorrect arguments to WAIT_FOR_EXECUTED_GTID_SET.")
		}
		if timeout = time.Duration(min(seconds, most) * float64(time.Second)); seconds > 0 {
			timeout = max(timeout, 1)
		}
	}
	if ev.describing {
		return Bool(true), nil
	}
	done, err := ev.s.env.WaitExecuted(set, timeout)
	return Bool(!done), err
}
