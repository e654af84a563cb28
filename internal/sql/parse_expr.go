package sql

import (
	"strconv"
	"strings"
)

// The grammar of expressions is that of sql/sql_yacc.yy without what nobody sends: each of the methods below binds
// tighter than the one before it.

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

func (p *parser) expr() Expr {
	p.enter()
	defer p.leave()
	return p.chain(p.andExpr, "OR", "||")
}

func (p *parser) andExpr() Expr { return p.chain(p.notExpr, "AND", "&&") }

// chain reads operands with operators between them, the left ones first.
func (p *parser) chain(operand func() Expr, ops ...string) Expr {
	x := operand()
	for p.isOp(0, ops...) || p.isWord(0, ops...) {
		name := strings.ToUpper(p.next().text)
		if same := map[string]string{"||": "OR", "&&": "AND", "!=": "<>"}[name]; same != "" {
			name = same
		}
		x = &Op{name, []Expr{x, operand()}}
	}
	return x
}

func (p *parser) notExpr() Expr {
	if p.accept("NOT") {
		p.enter()
		defer p.leave()
		return not(p.notExpr())
	}
	x := p.chain(p.predicate, "=", "<=>", "<", "<=", ">", ">=", "<>", "!=")
	for p.accept("IS") {
		negated := p.accept("NOT")
		what := strings.ToUpper(p.tok().text)
		p.expect("NULL", "TRUE", "FALSE", "UNKNOWN")
		if what == "UNKNOWN" {
			what = "NULL"
		}
		if x = (&Op{"IS " + what, []Expr{x}}); negated {
			x = not(x)
		}
	}
	return x
}

func not(x Expr) Expr { return &Op{"NOT", []Expr{x}} }

// predicate reads an operand and perhaps [NOT] IN, LIKE or BETWEEN.
func (p *parser) predicate() Expr {
	x := p.sum()
	negated := p.isWord(0, "NOT") && p.isWord(1, "IN", "LIKE", "BETWEEN")
	if negated {
		p.next()
	}
	switch {
	case p.accept("IN"):
		p.expectOp("(")
		x = &Op{"IN", append([]Expr{x}, p.exprList()...)}
		p.expectOp(")")
	case p.accept("LIKE"):
		x = &Op{"LIKE", []Expr{x, p.simple()}}
	case p.accept("BETWEEN"):
		low := p.sum()
		p.expect("AND")
		x = &Op{"BETWEEN", []Expr{x, low, p.sum()}}
	case p.isWord(0, "REGEXP", "RLIKE", "COLLATE", "XOR", "DIV", "MOD"), p.isOp(0, "/", "%", "|", "&", "^"):
		p.fail(errNotSupported(strings.ToUpper(p.tok().text)))
	}
	if negated {
		return not(x)
	}
	return x
}

func (p *parser) sum() Expr     { return p.chain(p.product, "+", "-") }
func (p *parser) product() Expr { return p.chain(p.simple, "*") }

// simple reads an operand with the signs before it.
func (p *parser) simple() Expr {
	p.enter()
	defer p.leave()
	if p.isWord(0, "INTERVAL") && p.look(1).kind != tokEOF && !p.isOp(1, ",", ")", ".", "=") {
		return p.interval()
	}
	if e, ok := p.param(); ok {
		return e
	}
	switch t := p.tok(); t.kind {
	case tokString: // those that follow without an operator continue it
		var b strings.Builder
		for p.tok().kind == tokString {
			b.WriteString(p.next().text)
		}
		return &Literal{String(b.String())}
	case tokInt, tokFloat:
		p.next()
		return &Literal{p.number(t.text)}
	case tokUserVar:
		p.next()
		if p.acceptOp(":=") {
			return &Assign{Name: t.text, X: p.expr()}
		}
		return &UserVar{t.text}
	case tokSysVar:
		scope, name := p.sysVarName()
		return &SysVar{scope, name}
	case tokQuoted, tokWord:
		return p.word()
	}
	switch {
	case p.acceptOp("-"):
		return &Op{"-", []Expr{p.simple()}}
	case p.acceptOp("+"):
		return p.simple()
	case p.acceptOp("!"):
		return not(p.simple())
	case p.acceptOp("("):
		if p.isWord(0, "SELECT", "WITH", "TABLE", "VALUES") {
			p.fail(errNotSupported("subqueries"))
		}
		x := p.expr()
		p.expectOp(")")
		return x
	}
	p.syntax()
	return nil
}

// number is a whole number if it fits into 64 bits, else one in floating point: there are no exact decimals.
func (p *parser) number(text string) Value {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return Int(i)
	}
	if u, err := strconv.ParseUint(text, 10, 64); err == nil {
		return Uint(u)
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		p.fail(Errorf(1367, "22007", "Illegal double '%s' value found during parsing", clip(text, 192)))
	}
	return Double(f)
}

// sysVarName reads @@[scope.]name; the name may itself have two parts.
func (p *parser) sysVarName() (Scope, string) {
	p.next()
	scope := p.scope()
	if scope != ScopeNone {
		p.expectOp(".")
	}
	name := p.anyName()
	if p.acceptOp(".") {
		name += "." + p.anyName()
	}
	return scope, name
}

func (p *parser) scope() Scope {
	switch {
	case p.accept("GLOBAL"):
		return ScopeGlobal
	case p.accept("SESSION", "LOCAL"):
		return ScopeSession
	case p.accept("PERSIST"):
		return ScopePersist
	case p.accept("PERSIST_ONLY"):
		return ScopePersistOnly
	}
	return ScopeNone
}

// word reads an expression that begins with a word: a constant, a function call, CASE, a character set in front of a
// string, or a column.
func (p *parser) word() Expr {
	word := strings.ToUpper(p.tok().text)
	call := p.isOp(1, "(")
	switch {
	case p.tok().kind == tokQuoted:
	case p.accept("NULL"):
		return &Literal{}
	case p.accept("TRUE", "FALSE"):
		return &Literal{Bool(word == "TRUE")}
	case p.accept("CASE"):
		return p.caseExpr()
	case call && p.accept("CAST", "CONVERT"):
		return p.cast(word == "CONVERT")
	case call && p.isWord(0, "EXISTS"):
		p.fail(errNotSupported("subqueries"))
	case word[0] == '_' && p.look(1).kind == tokString:
		if _, ok := defaultCollation(word[1:]); ok { // text is UTF-8 whatever it is called
			p.next()
			return p.simple()
		}
	case !call && p.accept("CURRENT_TIMESTAMP", "CURRENT_USER", "LOCALTIME", "LOCALTIMESTAMP", "UTC_TIMESTAMP"):
		return &Call{Name: word}
	case call && p.isWord(0, "MOD", "AVG"):
		p.fail(errNotSupported(word + "()"))
	case call && p.isWord(0, "COUNT") && p.isOp(2, "*") && p.isOp(3, ")"):
		for range 4 {
			p.next()
		}
		return &Call{Name: word, Args: []Expr{&Literal{Int(0)}}}
	}
	parts := []string{"", p.name()}
	for p.acceptOp(".") && len(parts) < 4 {
		parts = append(parts, p.anyName())
	}
	qualifier, name := parts[len(parts)-2], parts[len(parts)-1]
	if !p.acceptOp("(") {
		return &ColumnRef{qualifier, name}
	}
	c := &Call{Schema: qualifier, Name: name}
	if !p.acceptOp(")") {
		c.Args = p.exprList()
		p.expectOp(")")
	}
	return c
}

func (p *parser) caseExpr() Expr {
	args := []Expr{nil}
	if !p.isWord(0, "WHEN") {
		args[0] = p.expr()
	}
	p.expect("WHEN")
	for more := true; more; more = p.accept("WHEN") {
		when := p.expr()
		p.expect("THEN")
		args = append(args, when, p.expr())
	}
	var other Expr
	if p.accept("ELSE") {
		other = p.expr()
	}
	p.expect("END")
	return &Op{"CASE", append(args, other)}
}

// cast reads what follows CAST or CONVERT: (x AS type), (x, type) or (x USING charset).
func (p *parser) cast(convert bool) Expr {
	p.next()
	x := p.expr()
	to := "CHAR"
	switch {
	case convert && p.accept("USING"):
		p.charset()
		p.expectOp(")")
		return &Op{"CAST CHAR", []Expr{x}}
	case convert:
		p.expectOp(",")
	default:
		p.expect("AS")
	}
	switch {
	case p.accept("CHAR", "CHARACTER"):
		if p.acceptOp("(") {
			p.uint() // a length is read, but nothing is cut
			p.expectOp(")")
		}
		if p.accept("CHARSET", "CHARACTER SET") {
			p.charset()
		}
	case p.isWord(0, "SIGNED", "UNSIGNED"):
		to = strings.ToUpper(p.next().text)
		p.accept("INTEGER", "INT")
	default:
		p.fail(errNotSupported("CAST to " + clip(p.tok().text, 64)))
	}
	p.expectOp(")")
	return &Op{"CAST " + to, []Expr{x}}
}

// charset reads the name of a character set that has to exist, in lower case.
func (p *parser) charset() string {
	if p.accept("BINARY") {
		return "binary"
	}
	name := strings.ToLower(p.nameOrString())
	if _, ok := defaultCollation(name); !ok {
		p.fail(errUnknownCharset(name))
	}
	return name
}
