package sql

import (
	"strings"
	"unicode/utf8"
)

// maxColumnName is the length limit of a column's name in characters.
const maxColumnName = 255

func (p *parser) selectStatement() Statement {
	p.expect("SELECT")
	for p.accept("ALL", "DISTINCT", "DISTINCTROW", "SQL_NO_CACHE", "SQL_CALC_FOUND_ROWS", "HIGH_PRIORITY", "STRAIGHT_JOIN",
		"SQL_SMALL_RESULT", "SQL_BIG_RESULT", "SQL_BUFFER_RESULT") {
	}
	s := &Select{}
	for {
		s.Items = append(s.Items, p.selectItem())
		if !p.acceptOp(",") {
			break
		}
	}
	p.intoClause()
	if p.accept("FROM") && !p.accept("DUAL") {
		s.From = p.table()
		p.skip()
		return s
	}
	if p.accept("WHERE") {
		s.Where = p.expr()
	}
	if p.isWord("GROUP", "HAVING", "WINDOW") {
		p.fail(errNotSupported(strings.ToUpper(p.tok.text)))
	}
	if p.accept("ORDER") { // there is at most one row
		p.expect("BY")
		p.expr()
		for p.accept("ASC", "DESC") || p.acceptOp(",") && p.expr() != nil {
		}
	}
	s.Limit = p.limit()
	if p.accept("FOR") {
		p.expect("UPDATE", "SHARE")
	} else if p.acceptAll("LOCK", "IN") {
		p.expect("SHARE")
		p.expect("MODE")
	}
	p.intoClause()
	if p.isWord("UNION", "EXCEPT", "INTERSECT") {
		p.fail(errNotSupported(strings.ToUpper(p.tok.text)))
	}
	return s
}

func (p *parser) intoClause() {
	if p.isWord("INTO") {
		p.fail(errNotSupported("SELECT … INTO"))
	}
}

func (p *parser) table() *Table {
	t := &Table{Name: p.name()}
	if p.acceptOp(".") {
		t.Schema, t.Name = t.Name, p.anyName()
	}
	return t
}

// anyName reads an identifier behind a point, where no word is reserved.
func (p *parser) anyName() string {
	if p.tok.kind == tokWord || p.tok.kind == tokQuoted {
		s := p.tok.text
		p.advance()
		return s
	}
	p.syntax()
	return ""
}

func (p *parser) selectItem() SelectItem {
	if p.acceptOp("*") {
		return SelectItem{Name: "*"}
	}
	start := p.tok.start
	item := SelectItem{Expr: p.expr()}
	item.Name = p.source(start, p.end)
	if l, ok := item.Expr.(*Literal); ok && (l.Name != "" || l.Value.kind == KindString && !l.Hex) {
		item.Name = l.Name
	}
	switch {
	case p.accept("AS"):
		item.Name = p.nameOrString()
	case p.tok.kind == tokString, p.tok.kind == tokQuoted, p.tok.kind == tokWord && !reserved(p.tok.text):
		item.Name = p.nameOrString()
	}
	item.Name = clipRunes(item.Name, maxColumnName)
	return item
}

// source returns the statement's text between two offsets as MySQL quotes it: without the markers of executable comments.
func (p *parser) source(start, end int) string {
	var b strings.Builder
	for len(p.lex.cuts) > 0 && p.lex.cuts[0][1] <= end { // nobody asks again for what lies before
		if cut := p.lex.cuts[0]; cut[0] >= start {
			b.WriteString(p.lex.text[start:cut[0]])
			start = cut[1]
		}
		p.lex.cuts = p.lex.cuts[1:]
	}
	b.WriteString(p.lex.text[start:max(start, end)])
	return strings.TrimSpace(b.String())
}

func clipRunes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	at := 0
	for ; n > 0 && at < len(s); n-- {
		_, size := utf8.DecodeRuneInString(s[at:])
		at += size
	}
	return s[:at]
}

// limit reads LIMIT n, LIMIT m, n or LIMIT n OFFSET m, if it is there.
func (p *parser) limit() *Limit {
	if !p.accept("LIMIT") {
		return nil
	}
	l := &Limit{Count: p.uint()}
	if p.acceptOp(",") {
		l.Offset, l.Count = l.Count, p.uint()
	} else if p.accept("OFFSET") {
		l.Offset = p.uint()
	}
	return l
}
