package sql

import "strings"

// showStatement reads what follows SHOW. MySQL's old words and MariaDB's spellings are read too.
func (p *parser) showStatement() Statement {
	s := &Show{}
	switch {
	case p.isWord("GLOBAL", "SESSION", "LOCAL"):
		s.Scope, _ = scopeWord(p.tok.text)
		p.advance()
		p.showVariables(s)
	case p.isWord("VARIABLES", "STATUS"):
		p.showVariables(s)
	case p.accept("COUNT"):
		p.expectOp("(")
		p.expectOp("*")
		p.expectOp(")")
		s.What = ShowCountWarnings
		if p.isWord("ERRORS") {
			s.What = ShowCountErrors
		}
		p.expect("WARNINGS", "ERRORS")
	case p.accept("WARNINGS"):
		s.What, s.Limit = ShowWarnings, p.limit()
	case p.accept("ERRORS"):
		s.What, s.Limit = ShowErrors, p.limit()
	case p.accept("DATABASES", "SCHEMAS"):
		s.What, s.Filter = ShowDatabases, p.filter()
	case p.isWord("FULL", "TABLES", "PROCESSLIST"):
		return p.showFull(s)
	case p.accept("ENGINES"), p.acceptAll("STORAGE", "ENGINES"):
		s.What = ShowEngines
	case p.accept("PLUGINS"):
		s.What = ShowPlugins
	case p.accept("COLLATION"):
		s.What, s.Filter = ShowCollation, p.filter()
	case p.accept("CHARSET"), p.acceptAll("CHARACTER", "SET"), p.acceptAll("CHAR", "SET"):
		s.What, s.Filter = ShowCharacterSet, p.filter()
	case p.accept("GRANTS"):
		p.showGrants(s)
	default:
		return p.showReplication(s)
	}
	return s
}

func (p *parser) showVariables(s *Show) {
	s.What = ShowVariables
	if p.isWord("STATUS") {
		s.What = ShowStatus
	}
	p.expect("VARIABLES", "STATUS")
	s.Filter = p.filter()
}

func (p *parser) showFull(s *Show) Statement {
	s.Full = p.accept("FULL")
	switch {
	case p.accept("PROCESSLIST"):
		s.What = ShowProcesslist
	case p.accept("TABLES"):
		s.What = ShowTables
		if p.accept("FROM", "IN") {
			p.name()
		}
		s.Filter = p.filter()
	case s.Full && p.isWord("COLUMNS", "FIELDS"):
		p.skip()
		return &Unsupported{Verb: "SHOW COLUMNS"}
	default:
		p.syntax()
	}
	return s
}

// showReplication reads the statements about binary logs and replicas.
func (p *parser) showReplication(s *Show) Statement {
	switch {
	case p.acceptAll("BINARY", "LOG"), p.isWord("BINLOG") && matches(p.peek, []string{"STATUS"}):
		p.accept("BINLOG")
		p.expect("STATUS")
		s.What = ShowLogStatus
	case p.acceptAll("MASTER", "STATUS"):
		s.What, s.Old = ShowLogStatus, true
	case p.acceptAll("BINARY", "LOGS"):
		s.What = ShowBinaryLogs
	case p.acceptAll("MASTER", "LOGS"):
		s.What, s.Old = ShowBinaryLogs, true
	case p.acceptAll("BINLOG", "EVENTS"):
		s.What = ShowBinlogEvents
		if p.accept("IN") {
			s.File = p.stringLiteral()
		}
		if p.accept("FROM") {
			s.From = p.uint()
		}
		s.Limit = p.limit()
	case p.accept("REPLICAS"), p.acceptAll("REPLICA", "HOSTS"):
		s.What = ShowReplicas
	case p.acceptAll("SLAVE", "HOSTS"):
		s.What, s.Old = ShowReplicas, true
	case p.isWord("REPLICA", "SLAVE") && matches(p.peek, []string{"STATUS"}):
		s.What, s.Old = ShowReplicaStatus, p.isWord("SLAVE")
		p.advance()
		p.advance()
		if p.accept("FOR") {
			p.expect("CHANNEL")
			s.Channel = p.nameOrString()
		}
	default:
		return p.showUnsupported()
	}
	return s
}

func (p *parser) showGrants(s *Show) {
	s.What = ShowGrants
	if !p.accept("FOR") {
		return
	}
	if p.accept("CURRENT_USER") {
		if p.acceptOp("(") {
			p.expectOp(")")
		}
	} else {
		s.User, s.Host = p.nameOrString(), "%"
		if p.tok.kind == tokUserVar { // 'user'@'host' looks like a user variable behind a name
			s.Host = p.tok.text
			p.advance()
		}
	}
	if p.isWord("USING") {
		p.skip()
	}
}

// filter reads LIKE 'pattern' or WHERE expr, if one is there.
func (p *parser) filter() Filter {
	if p.accept("LIKE") {
		pattern := p.stringLiteral()
		return Filter{Like: &pattern}
	}
	if p.accept("WHERE") {
		return Filter{Where: p.expr()}
	}
	return Filter{}
}

func (p *parser) showUnsupported() Statement {
	if !p.isWord("CREATE", "COLUMNS", "FIELDS", "INDEX", "INDEXES", "KEYS", "TRIGGERS", "EVENTS", "PRIVILEGES", "OPEN", "TABLE",
		"RELAYLOG", "PROCEDURE", "FUNCTION", "PROFILE", "PROFILES", "ENGINE", "EXTENDED", "PARSE_TREE", "LIBRARY") {
		p.syntax()
		return nil
	}
	verb := "SHOW " + strings.ToUpper(p.tok.text)
	p.skip()
	return &Unsupported{Verb: verb}
}
