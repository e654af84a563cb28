package sql

import (
	"strings"
	"time"
)

// Date arithmetic: x + INTERVAL n unit, x - INTERVAL n unit, DATE_ADD and DATE_SUB.

// units are those of one number; MySQL's others, like DAY_HOUR, take a text.
var units = []string{"MICROSECOND", "SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR"}

// interval reads INTERVAL n unit, of which the word was seen.
func (p *parser) interval() Expr {
	p.expect("INTERVAL")
	n := p.expr()
	unit := strings.ToUpper(p.tok().text)
	p.expect(units...)
	return &Op{"INTERVAL", []Expr{n, &Literal{String(unit)}}}
}

func isInterval(e Expr) bool {
	op, ok := e.(*Op)
	return ok && op.Name == "INTERVAL"
}

// dateArithmetic is DATE_ADD, or DATE_SUB with a sign of -1.
func dateArithmetic(sign int64) (function, bool) {
	return function{2, 2, func(ev *evaluation, args []Expr) (Value, error) {
		if !isInterval(args[1]) {
			return Null, errNotSupported("dates plus anything but INTERVAL n unit")
		}
		return ev.addInterval(args[0], args[1].(*Op), sign)
	}}, true
}

// addInterval adds an interval to a date, or a date and time; NULL if it is none, or the sum
// has more than four digits of a year.
func (ev *evaluation) addInterval(date Expr, interval *Op, sign int64) (Value, error) {
	v, err := ev.list([]Expr{date, interval.Args[0]})
	if err != nil || v[0].IsNull() || v[1].IsNull() {
		return Null, err
	}
	unit := interval.Args[1].(*Literal).Value.s
	text, layout := strings.TrimSpace(v[0].Text()), ""
	var t time.Time
	for _, layout = range []string{"2006-01-02 15:04:05.999999", "2006-01-02T15:04:05.999999", "2006-01-02"} {
		if t, err = time.Parse(layout, text); err == nil {
			break
		}
	}
	n := v[1].Float64()
	const days = 4_000_000 // more than there are
	perDay := map[string]float64{"MICROSECOND": 24 * 3600e6, "SECOND": 24 * 3600, "MINUTE": 24 * 60, "HOUR": 24, "DAY": 1, "WEEK": 1. / 7, "MONTH": 1. / 28, "QUARTER": 1. / 84, "YEAR": 1. / 365}[unit]
	if in := n / perDay; err != nil || !(in < days && in > -days) { // nor what is no number
		return Null, nil
	}
	if unit != "SECOND" { // of which alone there are parts
		n = float64(int64(n + map[bool]float64{true: 0.5, false: -0.5}[n >= 0]))
	}
	n *= float64(sign)
	clock := len(text) > len("2006-01-02")
	add := func(d time.Duration) {
		clock = clock || d < 24*time.Hour
		const day = 24 * time.Hour
		t = t.AddDate(0, 0, int(n*float64(d)/float64(day)))
		whole := float64(int64(n * float64(d) / float64(day)))
		t = t.Add(time.Duration(n*float64(d) - whole*float64(day)))
	}
	switch unit {
	case "MICROSECOND":
		add(time.Microsecond)
	case "SECOND":
		add(time.Second)
	case "MINUTE":
		add(time.Minute)
	case "HOUR":
		add(time.Hour)
	case "DAY":
		add(24 * time.Hour)
	case "WEEK":
		add(7 * 24 * time.Hour)
	default:
		months := int(n) * map[string]int{"MONTH": 1, "QUARTER": 3, "YEAR": 12}[unit]
		first := time.Date(t.Year(), t.Month()+time.Month(months), 1, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
		last := first.AddDate(0, 1, -1).Day() // of a shorter month
		t = first.AddDate(0, 0, min(t.Day(), last)-1)
	}
	if t.Year() < 0 || t.Year() > 9999 {
		return Null, nil
	}
	out := "2006-01-02"
	if clock {
		out = "2006-01-02 15:04:05"
		if _, fraction, has := strings.Cut(text, "."); has && fraction != "" || t.Nanosecond() != 0 {
			out += ".000000"
		}
	}
	return Value{kind: v[0].kind, s: t.Format(out)}, nil
}
