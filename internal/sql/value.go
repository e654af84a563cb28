package sql

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Kind is the type of a Value.
type Kind uint8

// The kinds of values.
const (
	KindNull Kind = iota
	KindInt
	KindUint
	KindDouble
	KindString
	KindDatetime
)

// Value is an SQL value. It is small, immutable and comparable; the zero value is NULL.
type Value struct {
	kind Kind
	n    uint64 // bits of an Int, Uint or Double
	s    string // text of a String or Datetime ("2026-01-31 12:00:00.123", of parameters also "2026-01-31" and "-12:00:00.123")
}

// Null is SQL's NULL.
var Null Value

// Int, Uint, Double and String make values.
func Int(i int64) Value      { return Value{kind: KindInt, n: uint64(i)} }
func Uint(u uint64) Value    { return Value{kind: KindUint, n: u} }
func Double(f float64) Value { return Value{kind: KindDouble, n: math.Float64bits(f)} }
func String(s string) Value  { return Value{kind: KindString, s: s} }

// Temporal makes the value of a date, a date and time, or a time.
func Temporal(text string) Value { return Value{kind: KindDatetime, s: text} }

// Number makes the value of digits, maybe with a sign, a point and an exponent. There are no exact decimals.
func Number(text string) Value { return Double(String(text).Float64()) }

// Kind says what v is.
func (v Value) Kind() Kind { return v.kind }

// Bool makes MySQL's 1 or 0.
func Bool(b bool) Value {
	if b {
		return Int(1)
	}
	return Int(0)
}

// IsNull tells whether v is NULL.
func (v Value) IsNull() bool { return v.kind == KindNull }

// Text returns v as the text protocol sends it; "" for NULL.
func (v Value) Text() string {
	switch v.kind {
	case KindInt:
		return strconv.FormatInt(int64(v.n), 10)
	case KindUint:
		return strconv.FormatUint(v.n, 10)
	case KindDouble:
		return formatDouble(math.Float64frombits(v.n))
	}
	return v.s
}

// String is Text with NULL spelled out.
func (v Value) String() string {
	if v.IsNull() {
		return "NULL"
	}
	return v.Text()
}

// Uint64 returns v as an unsigned number, and whether it is one: a whole number from 0 to 2^64-1, or text of one.
func (v Value) Uint64() (uint64, bool) {
	switch v.kind {
	case KindInt:
		return v.n, int64(v.n) >= 0
	case KindUint:
		return v.n, true
	case KindDouble:
		f := math.Float64frombits(v.n)
		return uint64(f), f >= 0 && f < 1<<64 && f == math.Trunc(f)
	case KindString:
		u, err := strconv.ParseUint(strings.TrimSpace(v.s), 10, 64)
		return u, err == nil
	}
	return 0, false
}

// Int64 returns an Int.
func (v Value) Int64() int64 { return int64(v.n) }

// Float64 returns v as MySQL reads it among floating-point numbers: the number that text begins with, 0 if none.
func (v Value) Float64() float64 {
	text := v.s
	switch v.kind {
	case KindInt:
		return float64(int64(v.n))
	case KindUint:
		return float64(v.n)
	case KindDouble:
		return math.Float64frombits(v.n)
	case KindDatetime: // "2026-01-31 12:00:00" is 20260131120000, "-12:00:00" is -120000
		if t, ok := strings.CutPrefix(text, "-"); ok {
			return -Temporal(t).Float64()
		}
		text = strings.NewReplacer("-", "", ":", "", " ", "").Replace(text)
	}
	f, _ := strconv.ParseFloat(numberPrefix(text), 64)
	return max(-math.MaxFloat64, min(math.MaxFloat64, f))
}

func (v Value) isWhole() bool    { return v.kind == KindInt || v.kind == KindUint }
func (v Value) isNegative() bool { return v.kind == KindInt && int64(v.n) < 0 }

// isTrue is v as a condition; NULL is not true.
func (v Value) isTrue() bool {
	if v.isWhole() {
		return v.n != 0
	}
	return !v.IsNull() && v.Float64() != 0
}

// formatDouble prints as MySQL does: 15 to 17 digits, exponents from 1e15 and below 1e-15.
func formatDouble(f float64) string {
	if a := math.Abs(f); f == 0 || a >= 1e-15 && a < 1e15 {
		return strconv.FormatFloat(f+0, 'f', -1, 64) // adding turns -0 into 0
	}
	mantissa, exp, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
	n, _ := strconv.Atoi(exp)
	return mantissa + "e" + strconv.Itoa(n)
}

var numberAtStart = regexp.MustCompile(`^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?`)

// numberPrefix returns the longest beginning of s that is a number, without spaces; "" if there is none.
func numberPrefix(s string) string {
	return numberAtStart.FindString(strings.TrimLeft(s, " \t\n\r\v\f"))
}

// compare orders two values that are not NULL, by MySQL's rules for comparisons: strings as strings unless one side is
// a number; whole numbers exactly; everything else as floating point.
func compare(a, b Value) int {
	text := func(v Value) bool { return v.kind == KindString || v.kind == KindDatetime }
	switch {
	case text(a) && text(b):
		return compareFold(a.s, b.s)
	case !a.isWhole() || !b.isWhole():
		return order(a.Float64(), b.Float64())
	case a.isNegative() && !b.isNegative():
		return -1
	case b.isNegative() && !a.isNegative():
		return 1
	}
	return order(a.n, b.n) // two's complement keeps the order of two negative numbers
}

func order[T uint64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// compareFold orders text without regard to case. MySQL's default collation also ignores accents; this does not.
func compareFold(a, b string) int {
	if utf8.ValidString(a) && utf8.ValidString(b) {
		if strings.EqualFold(a, b) {
			return 0
		}
		a, b = strings.ToLower(a), strings.ToLower(b)
	}
	return strings.Compare(a, b)
}

// integer is v as a whole number, rounded or, if it is text, cut off behind its digits; and clamped. A negative number
// wraps around if it is to be unsigned.
func (v Value) integer(unsigned bool) Value {
	n := v.n
	switch v.kind {
	case KindString:
		whole, _, _ := strings.Cut(strings.ToLower(numberPrefix(v.s)), "e")
		whole, _, _ = strings.Cut(whole, ".")
		if !unsigned || strings.HasPrefix(whole, "-") {
			i, _ := strconv.ParseInt(whole, 10, 64) // clamps by itself
			n = uint64(i)
		} else {
			n, _ = strconv.ParseUint(strings.TrimPrefix(whole, "+"), 10, 64)
		}
	case KindDouble, KindDatetime:
		switch f := math.RoundToEven(v.Float64()); {
		case f >= 1<<64 && unsigned:
			n = math.MaxUint64
		case f >= 1<<63 && unsigned:
			n = uint64(f)
		case f >= 1<<63:
			n = math.MaxInt64
		case f < -(1 << 63):
			n = 1 << 63
		default:
			n = uint64(int64(f))
		}
	}
	if unsigned {
		return Uint(n)
	}
	return Int(int64(n))
}
