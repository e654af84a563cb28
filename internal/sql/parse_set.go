package sql

import "strings"

// setStatement reads what follows SET.
func (p *parser) setStatement() Statement {
	if p.isWord(0, "PASSWORD", "ROLE", "DEFAULT", "RESOURCE") { // statements of their own that assign no variable
		verb := "SET " + strings.ToUpper(p.next().text)
		p.skip()
		return &Unsupported{Verb: verb}
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

func (p *parser) setItem(scope *Scope) []SetItem {
	switch {
	case p.tok().kind == tokUserVar:
		name := p.next().text
		p.expectOp("=", ":=")
		return []SetItem{{Kind: SetUser, Name: name, Value: p.expr()}}
	case p.tok().kind == tokSysVar:
		s, name := p.sysVarName()
		return []SetItem{{Kind: SetSystem, Scope: s, Name: name, Value: p.setValue()}}
	case p.accept("NAMES"):
		item := SetItem{Kind: SetNames, Name: p.charsetOrDefault()}
		if item.Name != "" && p.accept("COLLATE") && !p.accept("BINARY") {
			item.Collation = strings.ToLower(p.nameOrString())
		}
		return []SetItem{item}
	case p.accept("CHARSET", "CHARACTER SET", "CHAR SET"):
		return []SetItem{{Kind: SetCharacterSet, Name: p.charsetOrDefault()}}
	}
	if !p.isOp(1, "=", ":=") {
		if s := p.scope(); s != ScopeNone {
			*scope = s
		}
	}
	if p.accept("TRANSACTION") {
		return p.setTransaction(*scope)
	}
	name := p.name()
	if p.acceptOp(".") {
		name += "." + p.anyName()
	}
	return []SetItem{{Kind: SetSystem, Scope: *scope, Name: name, Value: p.setValue()}}
}

// setValue reads the sign and the right-hand side for a system variable. A bare word stays a ColumnRef and is taken as
// text; nil is DEFAULT.
func (p *parser) setValue() Expr {
	p.expectOp("=", ":=")
	if p.look(1).kind == tokEOF || p.isOp(1, ",") {
		if p.accept("DEFAULT") {
			return nil
		}
		if p.isWord(0, "ON", "ALL", "BINARY", "ROW", "SYSTEM") { // the reserved words that MySQL takes here
			return &ColumnRef{Name: p.next().text}
		}
	}
	return p.expr()
}

func (p *parser) charsetOrDefault() string {
	if p.accept("DEFAULT") {
		return ""
	}
	return p.charset()
}

// setTransaction reads the characteristics behind SET [scope] TRANSACTION. Without a scope they are meant for the next
// transaction; since there are none, they are checked and forgotten.
func (p *parser) setTransaction(scope Scope) []SetItem {
	var items []SetItem
	for {
		name, value := "transaction_read_only", "OFF"
		switch {
		case p.accept("ISOLATION LEVEL"):
			name = "transaction_isolation"
			level := p.tok().text
			if p.isWord(0, "REPEATABLE", "READ") {
				level += "-" + p.look(1).text
			}
			p.expect("SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "READ UNCOMMITTED")
			value = strings.ToUpper(level)
		case p.accept("READ ONLY"):
			value = "ON"
		default:
			p.expect("READ WRITE")
		}
		if scope != ScopeNone {
			items = append(items, SetItem{Kind: SetSystem, Scope: scope, Name: name, Value: &Literal{String(value)}})
		}
		if !p.acceptOp(",") {
			return items
		}
	}
}
