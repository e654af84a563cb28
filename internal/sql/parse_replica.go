package sql

import "strings"

// replicaStatement reads the statements about the link to the source; nil is another one.
func (p *parser) replicaStatement() Statement {
	switch {
	case p.accept("CHANGE REPLICATION SOURCE TO", "CHANGE MASTER TO"):
		return p.changeSource()
	case p.accept("START REPLICA", "START SLAVE"):
		return p.replicaThreads(&ReplicaThreads{})
	case p.accept("STOP REPLICA", "STOP SLAVE"):
		return p.replicaThreads(&ReplicaThreads{Stop: true})
	case p.accept("RESET REPLICA", "RESET SLAVE"):
		return &ResetReplica{All: p.accept("ALL"), Channel: p.channel()}
	}
	return nil
}

// channel reads FOR CHANNEL name, if it is there.
func (p *parser) channel() string {
	if p.accept("FOR CHANNEL") {
		return p.nameOrString()
	}
	return ""
}

func (p *parser) changeSource() Statement {
	st := &ChangeSource{}
	for more := true; more; more = p.acceptOp(",") {
		name := strings.ToUpper(p.take(tokWord))
		if rest, ok := strings.CutPrefix(name, "MASTER_"); ok {
			name = "SOURCE_" + rest
		}
		if name == "GET_MASTER_PUBLIC_KEY" {
			name = "GET_SOURCE_PUBLIC_KEY"
		}
		p.expectOp("=")
		st.Options = append(st.Options, SourceOption{name, p.optionValue()})
	}
	st.Channel = p.channel()
	return st
}

func (p *parser) optionValue() Value {
	switch t := p.tok(); {
	case t.kind == tokString:
		return String(p.next().text)
	case p.accept("NULL"):
		return Null
	case p.isOp(0, "?"): // no value of a prepared statement's, either
		p.syntax()
		return Null
	case t.kind == tokWord:
		return String(strings.ToUpper(p.next().text))
	case p.isOp(0, "("):
		start := t.start
		for p.tok().kind != tokEOF && !p.isOp(0, ")") {
			p.next()
		}
		end := p.tok().end
		p.expectOp(")")
		return String(p.text[start:min(end, len(p.text))])
	}
	if l, ok := p.expr().(*Literal); ok { // a number
		return l.Value
	}
	p.syntax()
	return Null
}

func (p *parser) replicaThreads(st *ReplicaThreads) Statement {
	for more := p.isWord(0, "IO_THREAD", "RELAY_THREAD", "SQL_THREAD"); more; more = p.acceptOp(",") {
		if p.accept("SQL_THREAD") {
			st.SQL = true
			continue
		}
		p.expect("IO_THREAD", "RELAY_THREAD")
		st.IO = true
	}
	if !st.Stop && p.accept("UNTIL") {
		for more := true; more; more = p.acceptOp(",") {
			name := strings.ToUpper(p.take(tokWord))
			if name == "SQL_AFTER_MTS_GAPS" {
				st.Until = append(st.Until, SourceOption{Name: name})
				continue
			}
			if rest, ok := strings.CutPrefix(name, "MASTER_"); ok {
				name = "SOURCE_" + rest
			}
			p.expectOp("=")
			st.Until = append(st.Until, SourceOption{name, p.optionValue()})
		}
	}
	for !st.Stop && p.isWord(0, "USER", "PASSWORD", "DEFAULT_AUTH", "PLUGIN_DIR") {
		p.next()
		p.expectOp("=")
		p.take(tokString)
		st.Login = true
	}
	st.Channel = p.channel()
	return st
}
