package sql

import (
	"math"
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
	KindDecimal
	KindDouble
	KindString
	KindDatetime
)

// Value is an SQL value. It is small, immutable and comparable; the zero value is NULL.
type Value struct {
	kind   Kind
	binary bool   // a string of bytes: compared byte by byte
	n      uint64 // bits of an Int, Uint or Double
	s      string // text of a String, Decimal ("-1.50") or Datetime ("2026-01-31 12:00:00.123")
}

// Null is SQL's NULL.
var Null Value

// Int, Uint, Double and String make values; Bytes makes a binary string.
func Int(i int64) Value      { return Value{kind: KindInt, n: uint64(i)} }
func Uint(u uint64) Value    { return Value{kind: KindUint, n: u} }
func Double(f float64) Value { return Value{kind: KindDouble, n: math.Float64bits(f)} }
func String(s string) Value  { return Value{kind: KindString, s: s} }
func Bytes(s string) Value   { return Value{kind: KindString, s: s, binary: true} }

// Bool makes MySQL's 1 or 0.
func Bool(b bool) Value {
	if b {
		return Int(1)
	}
	return Int(0)
}

// Kind returns the type.
func (v Value) Kind() Kind { return v.kind }

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
		return formatDouble(v.double())
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
		f := v.double()
		return uint64(f), f >= 0 && f < 1<<64 && f == math.Trunc(f)
	case KindString, KindDecimal:
		u, err := strconv.ParseUint(strings.TrimSpace(v.s), 10, 64)
		return u, err == nil
	}
	return 0, false
}

// Float64 returns v as MySQL reads it among floating-point numbers: the number that text begins with, 0 if none.
func (v Value) Float64() float64 {
	switch v.kind {
	case KindInt:
		return float64(int64(v.n))
	case KindUint:
		return float64(v.n)
	case KindDouble:
		return v.double()
	case KindDatetime:
		return datetimeNumber(v.s).Float64()
	}
	f, _ := strconv.ParseFloat(numberPrefix(v.s), 64)
	if math.IsInf(f, 0) {
		return math.Copysign(math.MaxFloat64, f)
	}
	return f
}

func (v Value) double() float64 { return math.Float64frombits(v.n) }

func (v Value) isNumber() bool { return v.kind >= KindInt && v.kind <= KindDouble }

// truth is v as a condition.
func (v Value) truth() (isTrue, isNull bool) {
	switch v.kind {
	case KindNull:
		return false, true
	case KindInt, KindUint:
		return v.n != 0, false
	}
	return v.Float64() != 0, false
}

// formatDouble prints as MySQL does: 15 to 17 digits, exponents from 1e15 and below 1e-15.
func formatDouble(f float64) string {
	if f == 0 {
		return "0"
	}
	if a := math.Abs(f); a >= 1e15 || a < 1e-15 {
		s := strconv.FormatFloat(f, 'e', -1, 64)
		mantissa, exp, _ := strings.Cut(s, "e")
		if exp[0] == '+' {
			exp = exp[1:]
		}
		sign := ""
		if exp[0] == '-' {
			sign, exp = "-", exp[1:]
		}
		return mantissa + "e" + sign + strings.TrimLeft(exp, "0")
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// numberPrefix returns the longest beginning of s that is a number, without spaces; "0" if there is none.
func numberPrefix(s string) string {
	s = strings.TrimLeft(s, " \t\n\r\v\f")
	i, digits := 0, 0
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		i++
	}
	for ; i < len(s) && isDigit(s[i]); i++ {
		digits++
	}
	if i < len(s) && s[i] == '.' {
		for i++; i < len(s) && isDigit(s[i]); i++ {
			digits++
		}
	}
	if digits == 0 {
		return "0"
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		j := i + 1
		if j < len(s) && (s[j] == '-' || s[j] == '+') {
			j++
		}
		if j < len(s) && isDigit(s[j]) {
			for i = j; i < len(s) && isDigit(s[i]); {
				i++
			}
		}
	}
	return s[:i]
}

// datetimeNumber turns "2026-01-31 12:00:00" into 20260131120000.
func datetimeNumber(s string) Value {
	s = strings.NewReplacer("-", "", ":", "", " ", "").Replace(s)
	if strings.Contains(s, ".") {
		return decimal(s)
	}
	n, _ := strconv.ParseUint(s, 10, 64)
	return Int(int64(n))
}

// number converts v for arithmetic: a number of some kind, or NULL.
func (v Value) number() Value {
	switch v.kind {
	case KindString:
		return Double(v.Float64())
	case KindDatetime:
		return datetimeNumber(v.s)
	}
	return v
}

// hexNumber reads a hexadecimal literal's bytes as a number.
func hexNumber(s string) Value {
	var n uint64
	if len(s) > 8 {
		return Uint(math.MaxUint64)
	}
	for i := range len(s) {
		n = n<<8 | uint64(s[i])
	}
	return Uint(n)
}

// compare orders two values that are not NULL, by MySQL's rules for comparisons: strings as strings unless one side is
// a number; whole numbers and decimals exactly; everything else as floating point.
func compare(a, b Value) int {
	text := func(v Value) bool { return v.kind == KindString || v.kind == KindDatetime }
	switch {
	case text(a) && text(b):
		if a.binary || b.binary {
			return strings.Compare(a.s, b.s)
		}
		return compareFold(a.s, b.s)
	case a.kind == KindString, b.kind == KindString, a.kind == KindDouble, b.kind == KindDouble:
		return compareFloats(a.Float64(), b.Float64())
	}
	a, b = a.number(), b.number()
	if a.kind == KindDecimal || b.kind == KindDecimal {
		return compareDecimals(a, b)
	}
	negA, negB := a.kind == KindInt && int64(a.n) < 0, b.kind == KindInt && int64(b.n) < 0
	switch {
	case negA != negB:
		if negA {
			return -1
		}
		return 1
	case a.n < b.n: // two's complement keeps the order of two negative numbers
		return -1
	case a.n > b.n:
		return 1
	}
	return 0
}

func compareFloats(a, b float64) int {
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
	if !utf8.ValidString(a) || !utf8.ValidString(b) {
		return strings.Compare(a, b)
	}
	if strings.EqualFold(a, b) {
		return 0
	}
	return strings.Compare(strings.ToLower(a), strings.ToLower(b))
}
