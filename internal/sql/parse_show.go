package sql

// shows are the phrases behind SHOW, old and new; of two with the same beginning the longer comes first.
var shows = [...]struct {
	phrase string
	what   ShowWhat
	old    bool
}{
	{"VARIABLES", ShowVariables, false}, {"STATUS", ShowStatus, false},
	{"WARNINGS", ShowWarnings, false}, {"ERRORS", ShowErrors, false}, {"COUNT", ShowCountWarnings, false},
	{"DATABASES", ShowDatabases, false}, {"SCHEMAS", ShowDatabases, false}, {"TABLES", ShowTables, false},
	{"PROCESSLIST", ShowProcesslist, false}, {"GRANTS", ShowGrants, false},
	{"ENGINES", ShowEngines, false}, {"STORAGE ENGINES", ShowEngines, false}, {"PLUGINS", ShowPlugins, false},
	{"COLLATION", ShowCollation, false}, {"CHARSET", ShowCharacterSet, false}, {"CHARACTER SET", ShowCharacterSet, false},
	{"CHAR SET", ShowCharacterSet, false},
	{"BINARY LOG STATUS", ShowLogStatus, false}, {"BINLOG STATUS", ShowLogStatus, false}, {"MASTER STATUS", ShowLogStatus, true},
	{"BINARY LOGS", ShowBinaryLogs, false}, {"MASTER LOGS", ShowBinaryLogs, true}, {"BINLOG EVENTS", ShowBinlogEvents, false},
	{"REPLICAS", ShowReplicas, false}, {"REPLICA HOSTS", ShowReplicas, false}, {"SLAVE HOSTS", ShowReplicas, true},
	{"REPLICA STATUS", ShowReplicaStatus, false}, {"SLAVE STATUS", ShowReplicaStatus, true},
}

// showStatement reads what follows SHOW. MySQL's old words and MariaDB's spellings are read too.
func (p *parser) showStatement() Statement {
	s := &Show{Full: p.accept("FULL")}
	if p.isWord(0, "GLOBAL", "SESSION", "LOCAL") {
		s.Scope = p.scope()
	}
	if s.Scope != ScopeNone && !p.isWord(0, "VARIABLES", "STATUS") || s.Full && !p.isWord(0, "TABLES", "PROCESSLIST") {
		p.syntax()
	}
	for _, known := range shows {
		if p.accept(known.phrase) {
			s.What, s.Old = known.what, known.old
			p.showOptions(s)
			return s
		}
	}
	p.syntax()
	return nil
}

func (p *parser) showOptions(s *Show) {
	switch s.What {
	case ShowTables:
		if p.accept("FROM", "IN") {
			p.name()
		}
		p.filter(s)
	case ShowVariables, ShowStatus, ShowDatabases, ShowCollation, ShowCharacterSet:
		p.filter(s)
	case ShowWarnings, ShowErrors:
		s.Limit = p.limit()
	case ShowCountWarnings:
		p.expectOp("(")
		p.expectOp("*")
		p.expectOp(")")
		if p.isWord(0, "ERRORS") {
			s.What = ShowCountErrors
		}
		p.expect("WARNINGS", "ERRORS")
	case ShowBinlogEvents:
		if p.accept("IN") {
			s.File = p.take(tokString)
		}
		if p.accept("FROM") {
			s.From = p.uint()
		}
		s.Limit = p.limit()
	case ShowReplicaStatus:
		if p.accept("FOR CHANNEL") {
			s.Channel = p.nameOrString()
		}
	case ShowGrants:
		p.grantee(s)
	}
}

// filter reads LIKE 'pattern' or WHERE expr, if one is there.
func (p *parser) filter(s *Show) {
	if p.accept("LIKE") {
		s.Filter = &Op{"LIKE", []Expr{&ColumnRef{}, &Literal{String(p.take(tokString))}}}
	} else if p.accept("WHERE") {
		s.Filter = p.expr()
	}
}

// grantee reads FOR user, if it is there.
func (p *parser) grantee(s *Show) {
	switch {
	case !p.accept("FOR"):
	case p.accept("CURRENT_USER"):
		if p.acceptOp("(") {
			p.expectOp(")")
		}
	default:
		s.User, s.Host = p.nameOrString(), "%"
		if p.tok().kind == tokUserVar { // 'user'@'host' looks like a user variable behind a name
			s.Host = p.next().text
		}
	}
}
