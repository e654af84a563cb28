package sql

import (
	"math"
	"strconv"
	"strings"
)

// The grammar of expressions is that of sql/sql_yacc.yy: expr, bool_pri, predicate, bit_expr and simple_expr, each
// binding tighter than the one before.

func (p *parser) exprList() []Expr {
	list := []Expr{p.expr()}
	for p.acceptOp(",") {
		list = append(list, p.expr())
	}
	return list
}

// enter counts one level of nesting; every call needs a leave.
func (p *parser) enter() {
	if p.depth++; p.depth > MaxDepth {
		p.fail(Errorf(1436, "HY000", "kingbus evaluates expressions nested up to %d levels deep; this one is deeper", MaxDepth))
	}
}

func (p *parser) leave() { p.depth-- }

func (p *parser) binary(op string, x, y Expr) Expr {
	p.node()
	return &Binary{Op: op, X: x, Y: y}
}

func (p *parser) expr() Expr {
	p.enter()
	defer p.leave()
	x := p.xorExpr()
	for p.accept("OR") || p.acceptOp("||") {
		x = p.binary("OR", x, p.xorExpr())
	}
	return x
}

func (p *parser) xorExpr() Expr {
	x := p.andExpr()
	for p.accept("XOR") {
		x = p.binary("XOR", x, p.andExpr())
	}
	return x
}

func (p *parser) andExpr() Expr {
	x := p.notExpr()
	for p.accept("AND") || p.acceptOp("&&") {
		x = p.binary("AND", x, p.notExpr())
	}
	return x
}

func (p *parser) notExpr() Expr {
	if p.accept("NOT") {
		p.enter()
		defer p.leave()
		p.node()
		return &Unary{Op: "NOT", X: p.notExpr()}
	}
	x := p.predicate()
	for {
		switch {
		case p.isOp("=", "<=>", "<", "<=", ">", ">=", "<>", "!="):
			op := p.tok.text
			if op == "!=" {
				op = "<>"
			}
			p.advance()
			x = p.binary(op, x, p.predicate())
		case p.accept("IS"):
			p.node()
			is := &Is{X: x, Not: p.accept("NOT"), What: strings.ToUpper(p.tok.text)}
			p.expect("NULL", "TRUE", "FALSE", "UNKNOWN")
			if is.What == "UNKNOWN" {
				is.What = "NULL"
			}
			x = is
		default:
			return x
		}
	}
}

func (p *parser) predicate() Expr {
	x := p.bitExpr(0)
	not := p.isWord("NOT") && matches(p.peek, []string{"IN", "LIKE", "BETWEEN", "REGEXP", "RLIKE"})
	if not {
		p.advance()
	}
	switch {
	case p.accept("IN"):
		p.node()
		p.expectOp("(")
		in := &In{X: x, Not: not, List: p.exprList()}
		p.expectOp(")")
		return in
	case p.accept("LIKE"):
		p.node()
		l := &Like{X: x, Not: not, Pattern: p.simple()}
		if p.accept("ESCAPE") {
			l.Escape = p.simple()
		}
		return l
	case p.accept("BETWEEN"):
		p.node()
		p.enter()
		defer p.leave()
		b := &Between{X: x, Not: not, Low: p.bitExpr(0)}
		p.expect("AND")
		b.High = p.predicate()
		return b
	case p.isWord("REGEXP", "RLIKE"):
		p.fail(errNotSupported("REGEXP"))
	}
	return x
}

// bitOperators are the levels of bit_expr, the loosest first.
var bitOperators = [...][]string{{"|"}, {"&"}, {"<<", ">>"}, {"+", "-"}, {"*", "/", "%", "DIV", "MOD"}, {"^"}}

func (p *parser) bitExpr(level int) Expr {
	if level == len(bitOperators) {
		return p.simple()
	}
	x := p.bitExpr(level + 1)
	for p.isOp(bitOperators[level]...) || p.isWord(bitOperators[level]...) {
		op := strings.ToUpper(p.tok.text)
		if op == "MOD" {
			op = "%"
		}
		p.advance()
		x = p.binary(op, x, p.bitExpr(level+1))
	}
	return x
}

// simple reads an operand with what binds tightest.
func (p *parser) simple() Expr {
	p.enter()
	defer p.leave()
	x := p.operand()
	for p.accept("COLLATE") {
		p.node()
		if p.accept("BINARY") {
			x = &Collate{X: x, Name: "binary"}
		} else {
			x = &Collate{X: x, Name: p.nameOrString()}
		}
	}
	return x
}

func (p *parser) operand() Expr {
	p.node()
	t := p.tok
	switch t.kind {
	case tokString:
		return p.stringExpr("")
	case tokInt, tokDecimal, tokFloat:
		p.advance()
		return &Literal{Value: p.number(t), Name: t.text}
	case tokHex, tokBit:
		p.advance()
		return &Literal{Value: Bytes(t.text), Hex: true, Bits: t.kind == tokBit}
	case tokUserVar:
		p.advance()
		if p.acceptOp(":=") {
			return &Assign{Name: t.text, X: p.expr()}
		}
		return &UserVar{Name: t.text}
	case tokSysVar:
		return p.sysVar()
	case tokQuoted:
		return p.columnOrCall()
	case tokWord:
		return p.wordExpr()
	case tokOp:
		return p.operatorExpr()
	}
	p.syntax()
	return nil
}

func (p *parser) operatorExpr() Expr {
	switch op := p.tok.text; {
	case p.acceptOp("-"):
		if l, ok := p.negativeLiteral(); ok {
			return l
		}
		return &Unary{Op: "-", X: p.simple()}
	case p.acceptOp("+"):
		return p.simple()
	case p.acceptOp("!", "~"):
		return &Unary{Op: op, X: p.simple()}
	case p.acceptOp("("):
		if p.isWord("SELECT", "WITH", "TABLE", "VALUES") {
			p.fail(errNotSupported("subqueries"))
		}
		x := p.expr()
		if p.isOp(",") {
			p.fail(Errorf(1241, "21000", "Operand should contain 1 column(s)"))
		}
		p.expectOp(")")
		return x
	}
	p.syntax()
	return nil
}

// negativeLiteral reads a number behind a minus as one literal, so that -9223372036854775808 is a whole number.
func (p *parser) negativeLiteral() (*Literal, bool) {
	t := p.tok
	if t.kind != tokInt && t.kind != tokDecimal {
		return nil, false
	}
	p.advance()
	t.text = "-" + t.text
	return &Literal{Value: p.number(t)}, true
}

func (p *parser) number(t token) Value {
	switch t.kind {
	case tokInt:
		if i, err := strconv.ParseInt(t.text, 10, 64); err == nil {
			return Int(i)
		}
		if u, err := strconv.ParseUint(t.text, 10, 64); err == nil {
			return Uint(u)
		}
		return decimal(t.text)
	case tokDecimal:
		return decimal(t.text)
	}
	f, err := strconv.ParseFloat(t.text, 64)
	if err != nil {
		p.fail(Errorf(1367, "22007", "Illegal double '%s' value found during parsing", clip(t.text, 192)))
	}
	return Double(f)
}

// stringExpr reads a string and those that follow it without an operator, which continue it.
func (p *parser) stringExpr(charset string) Expr {
	first := p.tok.text
	text := p.stringLiteral()
	if p.tok.kind == tokString {
		var b strings.Builder
		b.WriteString(text)
		for p.tok.kind == tokString {
			b.WriteString(p.stringLiteral())
		}
		text = b.String()
	}
	if strings.EqualFold(charset, "binary") {
		return &Literal{Value: Bytes(text), Name: first}
	}
	return &Literal{Value: String(text), Name: first}
}

func (p *parser) sysVar() Expr {
	scope, name := p.sysVarName()
	return &SysVar{Scope: scope, Name: name}
}

// sysVarName reads @@[scope.]name; the name may itself have two parts.
func (p *parser) sysVarName() (Scope, string) {
	p.advance()
	scope := ScopeNone
	if s, ok := scopeWord(p.tok.text); ok && p.tok.kind == tokWord {
		scope = s
		p.advance()
		p.expectOp(".")
	}
	name := p.anyName()
	if p.acceptOp(".") {
		name += "." + p.anyName()
	}
	return scope, name
}

func scopeWord(word string) (Scope, bool) {
	switch strings.ToUpper(word) {
	case "GLOBAL":
		return ScopeGlobal, true
	case "SESSION", "LOCAL":
		return ScopeSession, true
	case "PERSIST", "PERSIST_ONLY":
		return ScopePersist, true
	}
	return ScopeNone, false
}

// wordExpr reads an expression that begins with a word: a constant, a function call, CASE, a character set in front of
// a string, or a column.
func (p *parser) wordExpr() Expr {
	word := strings.ToUpper(p.tok.text)
	call := p.peek.kind == tokOp && p.peek.text == "("
	switch {
	case word == "NULL":
		p.advance()
		return &Literal{Name: "NULL"}
	case word == "TRUE", word == "FALSE":
		p.advance()
		return &Literal{Value: Bool(word == "TRUE")}
	case word == "CASE":
		return p.caseExpr()
	case word == "BINARY":
		p.advance()
		return &Unary{Op: "BINARY", X: p.simple()}
	case word == "CAST" && call, word == "CONVERT" && call:
		return p.castExpr(word == "CONVERT")
	case word == "EXISTS" && call:
		p.fail(errNotSupported("subqueries"))
		return nil
	case word[0] == '_' && (p.peek.kind == tokString || p.peek.kind == tokHex || p.peek.kind == tokBit):
		return p.introducer()
	case !call && optionalParentheses(word):
		p.advance()
		return &Call{Name: word}
	}
	return p.columnOrCall()
}

// optionalParentheses names the functions that are also called without parentheses.
func optionalParentheses(word string) bool {
	switch word {
	case "CURRENT_TIMESTAMP", "CURRENT_USER", "LOCALTIME", "LOCALTIMESTAMP", "UTC_TIMESTAMP":
		return true
	}
	return false
}

// introducer reads _charset'text'.
func (p *parser) introducer() Expr {
	name := p.tok.text[1:]
	if _, ok := charsetOf(name); !ok {
		return p.columnOrCall() // the string then is an alias
	}
	p.advance()
	if p.tok.kind == tokString {
		return p.stringExpr(name)
	}
	l := &Literal{Value: String(p.tok.text)}
	if strings.EqualFold(name, "binary") {
		l.Value = Bytes(p.tok.text)
	}
	p.advance()
	return l
}

func (p *parser) caseExpr() Expr {
	p.advance()
	c := &Case{}
	if !p.isWord("WHEN") {
		c.Operand = p.expr()
	}
	for p.accept("WHEN") {
		p.node()
		cond := p.expr()
		p.expect("THEN")
		c.Whens = append(c.Whens, When{Cond: cond, Then: p.expr()})
	}
	if len(c.Whens) == 0 {
		p.syntax()
	}
	if p.accept("ELSE") {
		c.Else = p.expr()
	}
	p.expect("END")
	return c
}

func (p *parser) columnOrCall() Expr {
	quoted := p.tok.kind == tokQuoted
	word := p.tok.text
	call := p.peek.kind == tokOp && p.peek.text == "("
	if !quoted && reserved(word) && !(call && reservedFunction(word)) {
		if reservedFunction(word) || p.isWord("DEFAULT") { // then MySQL misses the parenthesis
			p.advance()
		}
		p.syntax()
		return nil
	}
	p.advance()
	var parts []string
	for p.isOp(".") && len(parts) < 2 {
		p.advance()
		parts = append(parts, word)
		word = p.anyName()
	}
	if p.isOp("(") && len(parts) < 2 {
		return p.call(parts, word)
	}
	ref := &ColumnRef{Name: word}
	if len(parts) > 0 {
		ref.Table = parts[len(parts)-1]
	}
	return ref
}

func (p *parser) call(schema []string, name string) Expr {
	p.advance()
	c := &Call{Name: name}
	if len(schema) > 0 {
		c.Schema = schema[0]
	}
	if p.isOp("*") {
		p.fail(errNotSupported("aggregate functions"))
	}
	if !p.acceptOp(")") {
		c.Args = p.exprList()
		p.expectOp(")")
	}
	return c
}

// castExpr reads CAST(x AS type), CONVERT(x, type) or CONVERT(x USING charset).
func (p *parser) castExpr(convert bool) Expr {
	p.advance()
	p.advance()
	x := p.expr()
	if convert && p.accept("USING") {
		name := "binary"
		if !p.accept("BINARY") {
			name = p.nameOrString()
		}
		p.expectOp(")")
		cs, ok := charsetOf(name)
		if !ok {
			p.fail(Errorf(1115, "42000", "Unknown character set: '%s'", name))
		}
		return &Collate{X: x, Name: cs.collation}
	}
	if convert {
		p.expectOp(",")
	} else {
		p.expect("AS")
	}
	c := &Cast{X: x, To: p.castType()}
	p.expectOp(")")
	return c
}

func (p *parser) castType() CastType {
	word := strings.ToUpper(p.tok.text)
	to := CastType{Length: -1}
	if p.tok.kind != tokWord {
		word = ""
	}
	switch word {
	case "SIGNED", "UNSIGNED":
		p.advance()
		p.accept("INTEGER", "INT")
		to.Type, to.Unsigned = TypeLongLong, word == "UNSIGNED"
		return to
	case "CHAR", "CHARACTER", "NCHAR", "BINARY":
		to.Type, to.Binary = TypeVarString, word == "BINARY"
	case "DECIMAL", "DEC":
		to.Type, to.Length = TypeNewDecimal, 10
	case "DOUBLE", "REAL", "FLOAT":
		to.Type = TypeDouble
	case "DATETIME":
		to.Type, to.Length = TypeDatetime, 0
	case "DATE", "TIME", "YEAR", "JSON":
		p.fail(errNotSupported("CAST AS " + word))
	default:
		p.syntax()
	}
	p.advance()
	if p.acceptOp("(") {
		to.Length = int(min(p.uint(), math.MaxInt32))
		if to.Type == TypeNewDecimal && p.acceptOp(",") {
			to.Decimals = int(min(p.uint(), math.MaxInt32))
		}
		p.expectOp(")")
	}
	if to.Type == TypeNewDecimal && (to.Length > maxDigits || to.Decimals > maxScale || to.Decimals > to.Length) {
		p.fail(Errorf(1426, "42000", "Too-big precision specified for 'cast'. Maximum is %d.", maxDigits))
	}
	if to.Type == TypeDatetime && to.Length > 6 {
		p.fail(Errorf(1426, "42000", "Too-big precision %d specified for 'cast'. Maximum is 6.", to.Length))
	}
	if to.Type == TypeVarString && !to.Binary {
		if p.accept("CHARSET") || p.acceptAll("CHARACTER", "SET") {
			p.nameOrString()
		}
	}
	return to
}
