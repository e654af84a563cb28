package sql

import "strings"

// setStatement reads what follows SET.
func (p *parser) setStatement() Statement {
	if st := p.setUnsupported(); st != nil {
		return st
	}
	s := &Set{}
	scope := ScopeNone // a GLOBAL or SESSION holds for the assignments after it, too
	for {
		s.Items = append(s.Items, p.setItem(&scope)...)
		if !p.acceptOp(",") {
			return s
		}
	}
}

// setUnsupported recognizes the statements that begin with SET and assign no variable.
func (p *parser) setUnsupported() Statement {
	verb := ""
	switch {
	case p.isWord("PASSWORD") && (p.peek.kind == tokOp || matches(p.peek, []string{"FOR", "TO"})):
		verb = "SET PASSWORD"
	case p.isWord("ROLE") && p.peek.kind != tokOp:
		verb = "SET ROLE"
	case p.isWord("DEFAULT") && matches(p.peek, []string{"ROLE"}):
		verb = "SET DEFAULT ROLE"
	case p.isWord("RESOURCE") && matches(p.peek, []string{"GROUP"}):
		verb = "SET RESOURCE GROUP"
	default:
		return nil
	}
	p.skip()
	return &Unsupported{Verb: verb}
}

func (p *parser) setItem(scope *Scope) []SetItem {
	p.node()
	if p.tok.kind == tokUserVar {
		name := p.tok.text
		p.advance()
		p.assignment()
		return []SetItem{{Kind: SetUser, Name: name, Value: p.expr()}}
	}
	if p.tok.kind == tokSysVar {
		s, name := p.sysVarName()
		p.assignment()
		return []SetItem{{Kind: SetSystem, Scope: s, Name: name, Value: p.setValue()}}
	}
	if p.isWord("NAMES") && !(p.peek.kind == tokOp && (p.peek.text == "=" || p.peek.text == ":=")) {
		return []SetItem{p.setNames()}
	}
	if p.accept("CHARSET") || p.acceptAll("CHARACTER", "SET") || p.acceptAll("CHAR", "SET") {
		return []SetItem{{Kind: SetCharacterSet, Name: p.charsetName()}}
	}
	if s, ok := scopeWord(p.tok.text); ok && p.tok.kind == tokWord && p.peek.kind != tokOp {
		p.advance()
		*scope = s
	}
	if p.isWord("TRANSACTION") && matches(p.peek, []string{"ISOLATION", "READ"}) {
		p.advance()
		return p.setTransaction(*scope)
	}
	name := p.name()
	if p.acceptOp(".") {
		name += "." + p.anyName()
	}
	p.assignment()
	return []SetItem{{Kind: SetSystem, Scope: *scope, Name: name, Value: p.setValue()}}
}

func (p *parser) assignment() {
	if !p.acceptOp("=", ":=") {
		p.syntax()
	}
}

// setValue reads the right-hand side for a system variable. A bare word stays a ColumnRef and is taken as text; nil is
// DEFAULT.
func (p *parser) setValue() Expr {
	if p.peek.kind == tokEOF || p.peek.kind == tokOp && p.peek.text == "," {
		switch {
		case p.accept("DEFAULT"):
			return nil
		case p.isWord("ON", "ALL", "BINARY", "ROW", "SYSTEM"): // the reserved words that MySQL takes here
			p.node()
			word := p.tok.text
			p.advance()
			return &ColumnRef{Name: word}
		}
	}
	return p.expr()
}

// charsetName reads the name of a character set; "" is DEFAULT.
func (p *parser) charsetName() string {
	if p.accept("DEFAULT") {
		return ""
	}
	if p.accept("BINARY") {
		return "binary"
	}
	return strings.ToLower(p.nameOrString())
}

func (p *parser) setNames() SetItem {
	p.advance()
	item := SetItem{Kind: SetNames, Name: p.charsetName()}
	if item.Name != "" && p.accept("COLLATE") {
		if p.accept("BINARY") {
			item.Collation = "binary"
		} else {
			item.Collation = strings.ToLower(p.nameOrString())
		}
	}
	return item
}

// setTransaction reads SET [scope] TRANSACTION characteristics. Without a scope they are meant for the next
// transaction; since there are none, they are checked and forgotten.
func (p *parser) setTransaction(scope Scope) []SetItem {
	var items []SetItem
	seen := map[string]bool{}
	for {
		var name string
		var value Value
		if p.accept("ISOLATION") {
			p.expect("LEVEL")
			name, value = "transaction_isolation", String(p.isolationLevel())
		} else {
			p.expect("READ")
			name, value = "transaction_read_only", Bool(p.isWord("ONLY"))
			p.expect("ONLY", "WRITE")
		}
		if seen[name] {
			p.syntax()
		}
		seen[name] = true
		if scope != ScopeNone {
			items = append(items, SetItem{Kind: SetSystem, Scope: scope, Name: name, Value: &Literal{Value: value}})
		}
		if !p.acceptOp(",") {
			return items
		}
	}
}

func (p *parser) isolationLevel() string {
	switch {
	case p.accept("SERIALIZABLE"):
		return "SERIALIZABLE"
	case p.acceptAll("REPEATABLE", "READ"):
		return "REPEATABLE-READ"
	case p.acceptAll("READ", "COMMITTED"):
		return "READ-COMMITTED"
	case p.acceptAll("READ", "UNCOMMITTED"):
		return "READ-UNCOMMITTED"
	}
	p.syntax()
	return ""
}
