package sql

import "strings"

// Parse reads one statement; a semicolon and white space after it are fine. The error is an *Error: 1064 for what
// cannot be read, 1065 for nothing at all, 1235 for what MySQL knows and we do not.
//
// text is not copied: it must not change while the statement is in use.
func Parse(text string) (Statement, error) { return (&parser{text: text}).parse() }

func (p *parser) parse() (Statement, error) {
	p.text = strings.TrimLeft(p.text, " \t\n\r\v\f")
	p.text = strings.TrimRight(p.text, "; \t\n\r\v\f\x00")
	if p.text == "" {
		return nil, Errorf(1065, "42000", "Query was empty")
	}
	if p.tokens = tokenize(p.text); len(p.tokens) > MaxTokens {
		return nil, errNotSupported("statements of so many words")
	}
	st := p.statement()
	p.end()
	if p.err != nil {
		return nil, p.err
	}
	return st, nil
}

// parser reads tokens, the last of which repeats for ever. The first error sticks, and from then on there are no more
// tokens, so that every loop ends; nothing needs to check for errors in between.
type parser struct {
	text   string
	tokens []token
	at     int
	depth  int
	err    *Error

	prepared bool    // ? stands for a value
	values   []Value // for each ?; NULL beyond them
	params   int     // number of ? so far
}

// look returns the token n behind the current one.
func (p *parser) look(n int) token { return p.tokens[min(p.at+n, len(p.tokens)-1)] }

func (p *parser) tok() token { return p.look(0) }

// next passes the current token and returns it.
func (p *parser) next() token {
	t := p.tok()
	p.at = min(p.at+1, len(p.tokens)-1)
	return t
}

func (p *parser) fail(err *Error) {
	if p.err == nil {
		p.err = err
	}
	p.tokens, p.at = []token{{start: len(p.text), end: len(p.text)}}, 0
}

// syntax reports an error at the current token.
func (p *parser) syntax() { p.fail(errSyntax(p.text, p.tok().start)) }

// end checks that nothing is left. Of a second statement MySQL quotes its beginning.
func (p *parser) end() {
	if p.tok().kind != tokEOF {
		p.acceptOp(";")
		p.syntax()
	}
}

// isWord tells whether the token n behind the current one is one of the keywords (upper case).
func (p *parser) isWord(n int, words ...string) bool {
	t := p.look(n)
	for _, w := range words {
		if t.kind == tokWord && strings.EqualFold(t.text, w) {
			return true
		}
	}
	return false
}

// accept passes the first of the phrases, which are keywords in upper case, that is there.
func (p *parser) accept(phrases ...string) bool {
	for _, phrase := range phrases {
		n := 0
		for word := range strings.FieldsSeq(phrase) {
			if !p.isWord(n, word) {
				n = -1
				break
			}
			n++
		}
		if n > 0 {
			for range n {
				p.next()
			}
			return true
		}
	}
	return false
}

func (p *parser) expect(phrases ...string) {
	if !p.accept(phrases...) {
		p.syntax()
	}
}

// isOp tells whether the token n behind the current one is one of the operators.
func (p *parser) isOp(n int, ops ...string) bool {
	t := p.look(n)
	for _, op := range ops {
		if t.kind == tokOp && t.text == op {
			return true
		}
	}
	return false
}

func (p *parser) acceptOp(ops ...string) bool {
	if p.isOp(0, ops...) {
		p.next()
		return true
	}
	return false
}

func (p *parser) expectOp(ops ...string) {
	if !p.acceptOp(ops...) {
		p.syntax()
	}
}

// take returns the text of a token that has to be of one of the kinds.
func (p *parser) take(kinds ...tokenKind) string {
	for _, k := range kinds {
		if p.tok().kind == k {
			return p.next().text
		}
	}
	p.syntax()
	return ""
}

// name reads an identifier, quoted or not reserved.
func (p *parser) name() string {
	if p.tok().kind == tokWord && reserved(p.tok().text) {
		p.syntax()
	}
	return p.anyName()
}

// anyName reads an identifier behind a point, where no word is reserved.
func (p *parser) anyName() string { return p.take(tokWord, tokQuoted) }

// nameOrString reads an identifier or a string, as names of users, character sets and channels are written.
func (p *parser) nameOrString() string {
	if p.tok().kind == tokString {
		return p.next().text
	}
	return p.name()
}

// uint reads an unsigned number.
func (p *parser) uint() uint64 {
	n, ok := String(p.tok().text).Uint64()
	if p.tok().kind != tokInt || !ok {
		p.syntax()
	}
	p.next()
	return n
}

// reserved tells whether a word cannot be a name without quotes. Of MySQL's reserved words these are the ones that
// matter to what we read: they end a name, or begin something else.
func reserved(word string) bool {
	const words = " ALL AND AS ASC BETWEEN BINARY BY CASE CHARACTER COLLATE CONVERT DEFAULT DESC DISTINCT DIV DUAL ELSE EXCEPT " +
		"EXISTS FALSE FOR FROM GROUP HAVING IN INTERSECT INTO IS KILL LIKE LIMIT LOCK MOD NOT NULL ON OR ORDER PROCEDURE REGEXP " +
		"RLIKE ROW SELECT SET SHOW SYSTEM THEN TRUE UNION USE USING VALUES WHEN WHERE WINDOW WITH XOR "
	return strings.Contains(words, " "+strings.ToUpper(word)+" ")
}

func (p *parser) statement() Statement {
	switch {
	case p.tok().kind == tokEOF:
		return &Empty{}
	case p.accept("SELECT"):
		return p.selectStatement()
	case p.isWord(0, "SET") && p.isWord(1, "PASSWORD"):
		return p.setPassword()
	case p.accept("SET"):
		return p.setStatement()
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
	case p.accept("START TRANSACTION"):
		p.skip()
		return &Transaction{Verb: "BEGIN"}
	case p.isWord(0, "COMMIT", "ROLLBACK") && !p.isWord(1, "TO") && !p.isWord(2, "TO"):
		verb := strings.ToUpper(p.next().text)
		p.skip()
		return &Transaction{Verb: verb}
	case p.accept("FLUSH"):
		return &Flush{What: p.rest()}
	case p.accept("PURGE BINARY LOGS", "PURGE MASTER LOGS"):
		if p.accept("TO") {
			return &Purge{To: p.take(tokString)}
		}
		p.expect("BEFORE")
		return &Purge{Before: p.expr()}
	case p.accept("INSTALL PLUGIN"):
		st := &Plugin{Name: p.name()}
		p.expect("SONAME")
		st.Library = p.take(tokString)
		return st
	case p.accept("UNINSTALL PLUGIN"):
		return &Plugin{Uninstall: true, Name: p.name()}
	case p.accept("RESET PERSIST"):
		st := &ResetPersist{Tolerant: p.accept("IF EXISTS")}
		if st.Tolerant || p.tok().kind != tokEOF {
			st.Name = p.name()
		}
		return st
	}
	if st := p.accountStatement(); st != nil {
		return st
	}
	if st := p.replicaStatement(); st != nil {
		return st
	}
	for _, verb := range unsupportedVerbs {
		if p.accept(verb) {
			p.skip()
			return &Unsupported{Verb: verb}
		}
	}
	if p.accept("SHOW") {
		return p.showStatement()
	}
	p.syntax()
	return nil
}

// unsupportedVerbs begin the statements of MySQL's that are recognized and not read.
var unsupportedVerbs = [...]string{
	"ALTER", "ANALYZE", "BINLOG", "CACHE INDEX", "CALL", "CHANGE REPLICATION FILTER",
	"CHECK", "CHECKSUM", "CLONE", "CREATE", "DEALLOCATE", "DELETE", "DESC", "DESCRIBE", "DROP",
	"EXECUTE", "EXPLAIN", "GET DIAGNOSTICS", "HANDLER", "HELP", "IMPORT", "INSERT", "INSTALL", "LOAD", "LOCK",
	"OPTIMIZE", "PREPARE", "RELEASE SAVEPOINT", "RENAME", "REPAIR", "REPLACE",
	"RESET BINARY LOGS AND GTIDS", "RESET MASTER", "RESTART",
	"ROLLBACK", "SAVEPOINT", "SHOW COLUMNS", "SHOW CREATE", "SHOW ENGINE", "SHOW EVENTS", "SHOW EXTENDED", "SHOW FIELDS",
	"SHOW FULL COLUMNS", "SHOW FULL FIELDS", "SHOW FUNCTION", "SHOW INDEX", "SHOW INDEXES", "SHOW KEYS", "SHOW OPEN",
	"SHOW PRIVILEGES", "SHOW PROCEDURE", "SHOW PROFILE", "SHOW PROFILES", "SHOW RELAYLOG", "SHOW TABLE", "SHOW TRIGGERS",
	"SHUTDOWN", "START GROUP_REPLICATION", "STOP GROUP_REPLICATION",
	"TABLE", "TRUNCATE", "UNINSTALL", "UNLOCK", "UPDATE", "VALUES", "WITH", "XA",
}

// rest takes the words up to the end as one upper-case text.
func (p *parser) rest() string {
	words := []string{strings.ToUpper(p.take(tokWord))}
	for p.tok().kind == tokWord || p.isOp(0, ",") {
		words = append(words, strings.ToUpper(p.next().text))
	}
	p.skip()
	return strings.Join(words, " ")
}

// skip passes the rest of a statement whose details do not matter. A second statement is still an error.
func (p *parser) skip() {
	for p.tok().kind != tokEOF {
		if p.tok().kind == tokBad || p.isOp(0, ";") {
			p.end()
		}
		p.next()
	}
}

// selectStatement reads what follows SELECT.
func (p *parser) selectStatement() Statement {
	s := &Select{}
	for p.isWord(0, "ALL", "DISTINCT", "SQL_NO_CACHE") {
		s.Distinct = p.isWord(0, "DISTINCT") || s.Distinct
		p.next()
	}
	s.Items = []SelectItem{p.selectItem(true)}
	for p.acceptOp(",") {
		s.Items = append(s.Items, p.selectItem(false))
	}
	if p.accept("FROM") && !p.accept("DUAL") {
		s.From = &Table{Name: p.name()}
		if p.acceptOp(".") {
			s.From.Schema, s.From.Name = s.From.Name, p.anyName()
		}
		if p.err == nil {
			p.behindTable(s)
		}
		return s
	}
	if p.accept("WHERE") {
		s.Where = p.expr()
	}
	s.Limit = p.limit()
	if p.isWord(0, "INTO", "GROUP", "HAVING", "WINDOW", "ORDER", "FOR", "LOCK", "UNION", "EXCEPT", "INTERSECT") {
		p.fail(errNotSupported("SELECT with " + strings.ToUpper(p.tok().text)))
	}
	return s
}

// behindTable reads what follows the table of a SELECT. What it cannot read is an error only if
// there is such a table: tools ask for tables that are not here in ways that nobody has to read.
func (p *parser) behindTable(s *Select) {
	q, t := *p, *s
	if q.accept("AS") || q.tok().kind == tokQuoted || q.tok().kind == tokWord && !reserved(q.tok().text) && !q.isWord(0, "JOIN", "INNER", "LEFT", "RIGHT", "NATURAL", "CROSS", "STRAIGHT_JOIN") {
		t.Alias = q.name()
	}
	if q.accept("WHERE") {
		t.Where = q.expr()
	}
	if q.accept("ORDER BY") {
		for more := true; more; more = q.acceptOp(",") {
			o := Order{By: q.expr(), Descending: q.isWord(0, "DESC")}
			q.accept("ASC", "DESC")
			t.Order = append(t.Order, o)
		}
	}
	t.Limit = q.limit()
	switch {
	case q.err != nil:
		s.rest = q.err
	case q.tok().kind == tokWord || q.isOp(0, ","):
		s.rest = errNotSupported("SELECT with " + strings.ToUpper(clip(q.tok().text, 64)) + " behind its table")
	case q.tok().kind != tokEOF:
		q.end()
		s.rest = q.err
	}
	if s.rest == nil {
		*p, *s = q, t
		return
	}
	p.skip()
}

func (p *parser) selectItem(first bool) SelectItem {
	if first && p.acceptOp("*") {
		return SelectItem{Name: "*"}
	}
	if p.tok().kind == tokWord && p.isOp(1, ".") && p.isOp(2, "*") {
		item := SelectItem{Name: "*", Table: p.name()}
		p.next()
		p.next()
		return item
	}
	start := p.tok().start
	item := SelectItem{Expr: p.expr()}
	if l, ok := item.Expr.(*Literal); ok && l.Value.kind == KindString {
		item.Name = l.Value.s
	} else if c, ok := item.Expr.(*ColumnRef); ok {
		item.Name = c.Name
	} else if p.at > 0 {
		item.Name = p.text[start:p.tokens[p.at-1].end]
	}
	if t := p.tok(); p.accept("AS") || t.kind == tokString || t.kind == tokQuoted || t.kind == tokWord && !reserved(t.text) {
		item.Name = p.nameOrString()
	}
	const maxName = 255
	if r := []rune(clip(item.Name, 4*maxName)); len(r) > maxName {
		item.Name = string(r[:maxName])
	}
	return item
}

// limit reads LIMIT n, LIMIT m, n or LIMIT n OFFSET m, if it is there.
func (p *parser) limit() *Limit {
	if !p.accept("LIMIT") {
		return nil
	}
	l := &Limit{Count: p.rows()}
	if p.acceptOp(",") {
		l.Offset, l.Count = l.Count, p.rows()
	} else if p.accept("OFFSET") {
		l.Offset = p.rows()
	}
	return l
}
