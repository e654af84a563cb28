package sql

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

func (ev *evaluation) cast(e *Cast) (Value, error) {
	v, err := ev.eval(e.X)
	if err != nil || v.IsNull() {
		return Null, err
	}
	switch to := e.To; to.Type {
	case TypeLongLong:
		if v.kind == KindString && !isHexLiteral(e.X) {
			return integerText(v.s, to.Unsigned), nil
		}
		return toInteger(asNumber(e.X, v), to.Unsigned), nil
	case TypeDouble:
		return Double(v.Float64()), nil
	case TypeNewDecimal:
		return toDecimal(v, to), nil
	case TypeDatetime:
		if t, ok := parseDatetime(v.Text(), time.UTC); ok {
			return datetime(t, to.Length), nil
		}
		return Null, nil
	default:
		return castText(v, to), nil
	}
}

func isHexLiteral(e Expr) bool {
	l, ok := e.(*Literal)
	return ok && l.Hex
}

// integerText reads the whole number that text begins with, clamped. A negative one wraps around if unsigned.
func integerText(s string, unsigned bool) Value {
	s = strings.TrimLeft(s, " \t\n\r\v\f")
	end := 0
	if end < len(s) && (s[end] == '-' || s[end] == '+') {
		end++
	}
	for end < len(s) && isDigit(s[end]) {
		end++
	}
	s = strings.TrimPrefix(s[:end], "+")
	if strings.HasPrefix(s, "-") {
		n, _ := strconv.ParseInt(s, 10, 64) // clamps at the limits by itself
		return integer(uint64(n), unsigned)
	}
	n, _ := strconv.ParseUint(s, 10, 64)
	if !unsigned && n > math.MaxInt64 {
		// MySQL reads unsigned numbers here, too, and lets them wrap around.
		return Int(int64(n))
	}
	return integer(n, unsigned)
}

func integer(bits uint64, unsigned bool) Value {
	if unsigned {
		return Uint(bits)
	}
	return Int(int64(bits))
}

// toInteger rounds a number to a whole one, clamped to what fits.
func toInteger(v Value, unsigned bool) Value {
	switch v.kind {
	case KindInt, KindUint:
		return integer(v.n, unsigned)
	case KindDouble:
		f := math.RoundToEven(v.double())
		switch {
		case f >= 1<<63 && unsigned:
			if f >= 1<<64 {
				return Uint(math.MaxUint64)
			}
			return Uint(uint64(f))
		case f >= 1<<63:
			return Int(math.MaxInt64)
		case f < -(1 << 63):
			return integer(1<<63, unsigned)
		}
		return integer(uint64(int64(f)), unsigned)
	}
	n, scale := v.big()
	n = rescale(n, scale, 0)
	switch {
	case n.IsInt64():
		return integer(uint64(n.Int64()), unsigned)
	case n.Sign() < 0:
		if unsigned {
			return Uint(0)
		}
		return Int(math.MinInt64)
	case !unsigned:
		return Int(math.MaxInt64)
	case n.IsUint64():
		return Uint(n.Uint64())
	}
	return Uint(math.MaxUint64)
}

// toDecimal rounds to the type's digits; a number too large becomes the largest.
func toDecimal(v Value, to CastType) Value {
	if v.kind == KindString || v.kind == KindDouble {
		text := v.Text()
		if v.kind == KindString {
			text = numberPrefix(text)
		}
		if strings.ContainsAny(text, "eE") {
			f, _ := strconv.ParseFloat(text, 64)
			if math.Abs(f) > 1e66 {
				f = math.Copysign(1e66, f)
			}
			text = strconv.FormatFloat(f, 'f', maxScale, 64)
		}
		v = decimal(text)
	}
	v = v.number()
	limit := new(big.Int).Sub(pow10(to.Length), big.NewInt(1))
	if v.kind == KindDouble {
		if v.double() < 0 {
			limit.Neg(limit)
		}
		return fromBig(limit, to.Decimals)
	}
	n, scale := v.big()
	n = rescale(n, scale, to.Decimals)
	if n.CmpAbs(limit) > 0 {
		if n.Sign() < 0 {
			limit.Neg(limit)
		}
		n = limit
	}
	return fromBig(n, to.Decimals)
}

func castText(v Value, to CastType) Value {
	s := v.Text()
	if to.Length >= 0 && to.Binary {
		if len(s) < to.Length && to.Length <= MaxString {
			s += strings.Repeat("\x00", to.Length-len(s))
		}
		s = s[:min(len(s), to.Length)]
	} else if to.Length >= 0 && utf8.RuneCountInString(s) > to.Length {
		s = clipRunes(s, to.Length)
		if to.Length == 0 {
			s = ""
		}
	}
	if to.Binary {
		return Bytes(s)
	}
	return String(s)
}

// datetime makes a DATETIME with a number of digits after the second, cut off, not rounded.
func datetime(t time.Time, digits int) Value {
	s := t.Format("2006-01-02 15:04:05.000000")
	if digits == 0 {
		return Value{kind: KindDatetime, s: s[:len(s)-7]}
	}
	return Value{kind: KindDatetime, s: s[:len(s)-6+digits]}
}

// parseDatetime reads 2006-01-02 with or without 15:04:05[.999999], or the digits of it.
func parseDatetime(s string, zone *time.Location) (time.Time, bool) {
	s = strings.TrimSpace(s)
	if len(s) > 32 {
		return time.Time{}, false
	}
	s = strings.Replace(s, "T", " ", 1)
	for _, layout := range [...]string{"2006-1-2 15:4:5", "2006-1-2 15:4", "2006-1-2", "20060102150405", "20060102"} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
