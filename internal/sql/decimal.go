package sql

import (
	"math/big"
	"strconv"
	"strings"
)

// MySQL's DECIMAL has at most 65 digits, 30 of them after the point.
const (
	maxDigits = 65
	maxScale  = 30
)

// decimal makes a DECIMAL from the text of a number without exponent; too long a number becomes a DOUBLE.
func decimal(text string) Value {
	negative := strings.HasPrefix(text, "-")
	whole, fraction, point := strings.Cut(strings.TrimLeft(text, "+-"), ".")
	whole = strings.TrimLeft(whole, "0")
	if len(whole)+min(len(fraction), maxScale) > maxDigits {
		f, _ := strconv.ParseFloat(text, 64)
		return Double(f)
	}
	if len(fraction) > maxScale {
		n, _ := new(big.Int).SetString("0"+whole+fraction[:maxScale], 10)
		if fraction[maxScale] >= '5' {
			n.Add(n, big.NewInt(1))
		}
		if negative {
			n.Neg(n)
		}
		return fromBig(n, maxScale)
	}
	if whole == "" {
		whole = "0"
	}
	if negative && strings.Trim(whole+fraction, "0") != "" {
		whole = "-" + whole
	}
	if point && fraction != "" {
		whole += "." + fraction
	}
	return Value{kind: KindDecimal, s: whole}
}

// big returns an Int, Uint or Decimal as an integer and the number of its digits after the point.
func (v Value) big() (n *big.Int, scale int) {
	switch v.kind {
	case KindInt:
		return big.NewInt(int64(v.n)), 0
	case KindUint:
		return new(big.Int).SetUint64(v.n), 0
	}
	whole, fraction, _ := strings.Cut(v.s, ".")
	n, ok := new(big.Int).SetString(whole+fraction, 10)
	if !ok {
		n = new(big.Int)
	}
	return n, len(fraction)
}

// fromBig makes a DECIMAL; one of too many digits loses those after the point first, then becomes a DOUBLE.
func fromBig(n *big.Int, scale int) Value {
	digits := new(big.Int).Abs(n).String()
	if over := len(digits) - maxDigits; over > 0 && over <= scale {
		n, scale = rescale(n, scale, scale-over), scale-over
		digits = new(big.Int).Abs(n).String()
	}
	if pad := scale + 1 - len(digits); pad > 0 {
		digits = strings.Repeat("0", pad) + digits
	}
	s := digits[:len(digits)-scale]
	if scale > 0 {
		s += "." + digits[len(digits)-scale:]
	}
	if n.Sign() < 0 {
		s = "-" + s
	}
	if len(digits)-scale > maxDigits {
		f, _ := strconv.ParseFloat(s, 64)
		return Double(f)
	}
	return Value{kind: KindDecimal, s: s}
}

func pow10(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

// rescale changes the number of digits after the point, rounding half away from zero.
func rescale(n *big.Int, from, to int) *big.Int {
	if to >= from {
		return new(big.Int).Mul(n, pow10(to-from))
	}
	unit := pow10(from - to)
	half := new(big.Int).Quo(unit, big.NewInt(2))
	if n.Sign() < 0 {
		half.Neg(half)
	}
	return half.Quo(half.Add(half, n), unit)
}

// round returns v with scale digits after the point.
func (v Value) round(scale int) Value {
	n, from := v.big()
	return fromBig(rescale(n, from, scale), scale)
}

func compareDecimals(a, b Value) int {
	x, y, _ := align(a, b)
	return x.Cmp(y)
}

// align returns two numbers as integers of a common scale.
func align(a, b Value) (x, y *big.Int, scale int) {
	x, xs := a.big()
	y, ys := b.big()
	scale = max(xs, ys)
	return rescale(x, xs, scale), rescale(y, ys, scale), scale
}

// decimalArithmetic calculates with exact numbers (no Double). Division by zero is NULL.
func decimalArithmetic(op string, a, b Value) Value {
	x, y, scale := align(a, b)
	switch op {
	case "+":
		return fromBig(x.Add(x, y), scale)
	case "-":
		return fromBig(x.Sub(x, y), scale)
	case "*":
		p, ps := a.big()
		q, qs := b.big()
		n, to := p.Mul(p, q), min(ps+qs, maxScale)
		return fromBig(rescale(n, ps+qs, to), to)
	}
	if y.Sign() == 0 {
		return Null
	}
	switch op {
	case "%":
		return fromBig(x.Rem(x, y), scale)
	case "DIV":
		return fromBig(x.Quo(x, y), 0)
	}
	_, as := a.big() // "/": four more digits than the dividend has
	to := min(as+4, maxScale)
	n := new(big.Int).Mul(x, pow10(to+1))
	return fromBig(rescale(n.Quo(n, y), to+1, to), to)
}
