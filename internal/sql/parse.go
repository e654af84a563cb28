package sql

import "strings"

// Parse reads one statement; a semicolon and white space after it are fine. The error is an *Error: 1064 for what
// cannot be read, 1065 for nothing at all, 1235 for what MySQL knows and we do not.
//
// text is not copied: it must not change while the statement is in use.
func Parse(text string) (Statement, error) {
	text = strings.TrimLeft(text, " \t\n\r\v\f")
	text = strings.TrimRight(text, "; \t\n\r\v\f\x00")
	if text == "" {
		return nil, Errorf(1065, "42000", "Query was empty")
	}
	p := &parser{lex: lexer{text: text}}
	p.advance()
	p.advance()
	st := p.statement()
	if p.err == nil && p.tok.kind != tokEOF {
		p.acceptOp(";") // of a second statement MySQL quotes its beginning
		p.syntax()
	}
	if p.err != nil {
		return nil, p.err
	}
	return st, nil
}

// parser looks at two tokens. The first error sticks, and from then on there are no more tokens, so that every loop
// ends; nothing needs to check for errors in between.
type parser struct {
	lex       lexer
	tok, peek token
	end       int // where the token before tok ended
	depth     int
	nodes     int
	err       *Error
}

func (p *parser) advance() {
	p.end = p.tok.end
	p.tok = p.peek
	if p.err == nil {
		p.peek = p.lex.next()
	}
}

func (p *parser) fail(err *Error) {
	if p.err == nil {
		p.err = err
	}
	p.tok = token{kind: tokEOF, start: len(p.lex.text), end: len(p.lex.text)}
	p.peek = p.tok
}

// syntax reports an error at the current token.
func (p *parser) syntax() {
	at := p.tok.start
	if p.tok.kind == tokBad && p.lex.executable { // MySQL names what is missing: nothing
		at = len(p.lex.text)
	}
	p.fail(errSyntax(p.lex.text, at))
}

// isWord tells whether the current token is one of the keywords (upper case).
func (p *parser) isWord(words ...string) bool { return matches(p.tok, words) }

func matches(t token, words []string) bool {
	if t.kind != tokWord {
		return false
	}
	for _, w := range words {
		if strings.EqualFold(t.text, w) {
			return true
		}
	}
	return false
}

// accept passes one of the keywords, if it is there.
func (p *parser) accept(words ...string) bool {
	if p.isWord(words...) {
		p.advance()
		return true
	}
	return false
}

// acceptAll passes a sequence of two keywords, if it is there.
func (p *parser) acceptAll(first, second string) bool {
	if p.isWord(first) && matches(p.peek, []string{second}) {
		p.advance()
		p.advance()
		return true
	}
	return false
}

func (p *parser) expect(words ...string) {
	if !p.accept(words...) {
		p.syntax()
	}
}

func (p *parser) isOp(ops ...string) bool {
	if p.tok.kind == tokOp {
		for _, op := range ops {
			if p.tok.text == op {
				return true
			}
		}
	}
	return false
}

func (p *parser) acceptOp(ops ...string) bool {
	if p.isOp(ops...) {
		p.advance()
		return true
	}
	return false
}

func (p *parser) expectOp(op string) {
	if !p.acceptOp(op) {
		p.syntax()
	}
}

// name reads an identifier, quoted or not reserved.
func (p *parser) name() string {
	if p.tok.kind == tokQuoted || p.tok.kind == tokWord && !reserved(p.tok.text) {
		s := p.tok.text
		p.advance()
		return s
	}
	p.syntax()
	return ""
}

// nameOrString reads an identifier or a string, as names of users, character sets and channels are written.
func (p *parser) nameOrString() string {
	if p.tok.kind == tokString {
		return p.stringLiteral()
	}
	return p.name()
}

func (p *parser) stringLiteral() string {
	s := p.tok.text
	if p.tok.kind != tokString {
		p.syntax()
		return ""
	}
	p.advance()
	return s
}

// uint reads an unsigned number.
func (p *parser) uint() uint64 {
	if p.tok.kind != tokInt {
		p.syntax()
		return 0
	}
	n, ok := String(p.tok.text).Uint64()
	if !ok {
		p.syntax()
	}
	p.advance()
	return n
}

// node counts an expression.
func (p *parser) node() {
	if p.nodes++; p.nodes > MaxNodes {
		p.fail(errNotSupported("statements with so many expressions"))
	}
}

func (p *parser) statement() Statement {
	switch {
	case p.tok.kind == tokEOF:
		return &Empty{}
	case p.isWord("SELECT"):
		return p.selectStatement()
	case p.accept("SET"):
		return p.setStatement()
	case p.accept("SHOW"):
		return p.showStatement()
	case p.accept("DO"):
		return &Do{Exprs: p.exprList()}
	case p.accept("KILL"):
		k := &Kill{Query: p.accept("QUERY")}
		if !k.Query {
			p.accept("CONNECTION")
		}
		k.ID = p.expr()
		return k
	case p.accept("USE"):
		return &Use{Database: p.name()}
	case p.accept("BEGIN"):
		p.accept("WORK")
		return &Transaction{Verb: "BEGIN"}
	case p.acceptAll("START", "TRANSACTION"):
		p.startOptions()
		return &Transaction{Verb: "BEGIN"}
	case p.isWord("COMMIT", "ROLLBACK"):
		return p.endTransaction()
	case p.accept("FLUSH"):
		return &Flush{What: p.rest()}
	}
	return p.unsupported()
}

// startOptions reads what may follow START TRANSACTION.
func (p *parser) startOptions() {
	if p.tok.kind == tokEOF {
		return
	}
	for {
		switch {
		case p.accept("READ"):
			p.expect("ONLY", "WRITE")
		case p.accept("WITH"):
			p.expect("CONSISTENT")
			p.expect("SNAPSHOT")
		default:
			p.syntax()
		}
		if !p.acceptOp(",") {
			return
		}
	}
}

func (p *parser) endTransaction() Statement {
	verb := strings.ToUpper(p.tok.text)
	p.advance()
	p.accept("WORK")
	if verb == "ROLLBACK" && p.accept("TO") {
		p.skip()
		return &Unsupported{Verb: "ROLLBACK TO SAVEPOINT"}
	}
	if p.accept("AND") {
		p.accept("NO")
		p.expect("CHAIN")
	}
	if p.accept("NO") {
		p.expect("RELEASE")
	} else {
		p.accept("RELEASE")
	}
	return &Transaction{Verb: verb}
}

// rest takes the words up to the end as one upper-case text.
func (p *parser) rest() string {
	var words []string
	if p.tok.kind == tokEOF {
		p.syntax()
	}
	for p.tok.kind == tokWord || p.isOp(",") {
		words = append(words, strings.ToUpper(p.tok.text))
		p.advance()
	}
	p.skip()
	return strings.Join(words, " ")
}

// skip passes the rest of a statement whose details do not matter. A second statement is still an error.
func (p *parser) skip() {
	for p.tok.kind != tokEOF {
		if p.tok.kind == tokBad || p.isOp(";") {
			p.acceptOp(";")
			p.syntax()
			return
		}
		p.advance()
	}
}

// Statements of MySQL's that are recognized and not read. An entry matches if its words begin the statement; longer
// entries come before shorter ones with the same beginning.
var unsupportedVerbs = [...]string{
	"ALTER", "ANALYZE", "BINLOG", "CACHE INDEX", "CALL", "CHANGE REPLICATION SOURCE", "CHANGE REPLICATION FILTER",
	"CHANGE MASTER", "CHECK", "CHECKSUM", "CLONE", "CREATE", "DEALLOCATE", "DELETE", "DESC", "DESCRIBE", "DROP",
	"EXECUTE", "EXPLAIN", "GET DIAGNOSTICS", "GRANT", "HANDLER", "HELP", "IMPORT", "INSERT", "INSTALL", "LOAD", "LOCK",
	"OPTIMIZE", "PREPARE", "PURGE BINARY LOGS", "PURGE MASTER LOGS", "RELEASE SAVEPOINT", "RENAME", "REPAIR", "REPLACE",
	"RESET BINARY LOGS AND GTIDS", "RESET MASTER", "RESET REPLICA", "RESET SLAVE", "RESET PERSIST", "RESTART", "REVOKE",
	"SAVEPOINT", "SHUTDOWN", "START GROUP_REPLICATION", "START REPLICA", "START SLAVE", "STOP GROUP_REPLICATION",
	"STOP REPLICA", "STOP SLAVE", "TABLE", "TRUNCATE", "UNINSTALL", "UNLOCK", "UPDATE", "VALUES", "WITH", "XA",
}

func (p *parser) unsupported() Statement {
	if p.isOp("(") && matches(p.peek, []string{"SELECT", "WITH", "TABLE", "VALUES"}) {
		p.skip()
		return &Unsupported{Verb: "SELECT in parentheses"}
	}
	for _, verb := range unsupportedVerbs {
		words := strings.Fields(verb)
		if !p.isWord(words[0]) || len(words) > 1 && !matches(p.peek, words[1:2]) {
			continue
		}
		for _, w := range words {
			if !p.accept(w) {
				p.syntax()
				break
			}
		}
		p.skip()
		return &Unsupported{Verb: verb}
	}
	p.syntax()
	return nil
}
