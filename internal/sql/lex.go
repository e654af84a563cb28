package sql

import "strings"

type tokenKind uint8

const (
	tokEOF     tokenKind = iota
	tokWord              // keyword or plain identifier; text as written
	tokQuoted            // `identifier`, unquoted
	tokString            // 'x' or "x", unescaped
	tokInt               // digits
	tokFloat             // with a point or an exponent
	tokUserVar           // @x; text is the name
	tokSysVar            // the @@ in front of a system variable's name
	tokOp                // operator or punctuation
	tokBad               // cannot be read; start is where MySQL says that the error is
)

// token is a piece of the statement. start and end are offsets into its text.
type token struct {
	kind       tokenKind
	start, end int
	text       string
}

// executableVersion is up to which version `/*!NNNNNN … */` runs: the dialect that we speak, whatever version the
// greeting claims.
const executableVersion = 90704

// lexer cuts a statement into tokens (MySQL: sql/sql_lex.cc). It never fails: what cannot be read is a tokBad.
type lexer struct {
	text       string
	pos        int
	executable bool // inside /*! … */
}

// tokenize cuts up to MaxTokens+1 tokens; the last one is a tokEOF or tokBad, unless there are too many.
func tokenize(text string) []token {
	l := lexer{text: text}
	var tokens []token
	for len(tokens) <= MaxTokens {
		t := l.next()
		tokens = append(tokens, t)
		if t.kind == tokEOF || t.kind == tokBad {
			break
		}
	}
	return tokens
}

func (l *lexer) at(i int) byte {
	if i < len(l.text) {
		return l.text[i]
	}
	return 0
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c) || c == '_' || c == '$' || c >= 0x80
}

// skipSpace passes white space and comments; false if a comment has no end.
func (l *lexer) skipSpace() bool {
	for l.pos < len(l.text) {
		c, next := l.text[l.pos], l.at(l.pos+1)
		end := 0
		switch {
		case isSpace(c):
			l.pos++
		case c == '#', c == '-' && next == '-' && (l.pos+2 >= len(l.text) || l.text[l.pos+2] <= ' '):
			if end = strings.IndexByte(l.text[l.pos:], '\n'); end < 0 {
				end = len(l.text) - l.pos - 1
			}
			l.pos += end + 1
		case c == '/' && next == '*' && l.openExecutable():
		case c == '/' && next == '*':
			if end = strings.Index(l.text[l.pos+2:], "*/"); end < 0 {
				return false
			}
			l.pos += end + 4
		case l.executable && c == '*' && next == '/':
			l.executable = false
			l.pos += 2
		default:
			return true
		}
	}
	return true
}

// openExecutable passes the opening of a comment whose content is to run: /*! or /*!NNNNN or /*!NNNNNN with a version
// that is not above ours.
func (l *lexer) openExecutable() bool {
	if l.at(l.pos+2) != '!' {
		return false
	}
	end, version := l.pos+3, 0
	for end < l.pos+9 && isDigit(l.at(end)) {
		version = version*10 + int(l.text[end]-'0')
		end++
	}
	if end < l.pos+8 { // fewer than five digits are content
		end, version = l.pos+3, 0
	}
	if version > executableVersion {
		return false
	}
	l.executable = true
	l.pos = end
	return true
}

func (l *lexer) next() token {
	closed := l.skipSpace()
	start := l.pos
	if !closed || start >= len(l.text) && l.executable {
		return token{kind: tokBad, start: start, end: len(l.text)}
	}
	if start >= len(l.text) {
		return token{start: start, end: start}
	}
	t := l.scan(l.text[start])
	if t.start == 0 {
		t.start = start
	}
	t.end = l.pos
	return t
}

func (l *lexer) scan(c byte) token {
	switch {
	case strings.IndexByte("xXbBnN", c) >= 0 && l.at(l.pos+1) == '\'': // literals that nobody sends us
		return token{kind: tokBad}
	case c == '\'' || c == '"':
		return l.quoted(tokString, c)
	case c == '`':
		return l.quoted(tokQuoted, c)
	case isDigit(c), c == '.' && isDigit(l.at(l.pos+1)):
		return l.number()
	case strings.HasPrefix(l.text[l.pos:], "$$"): // the mysql client asks with `select $$` whether we know such quotes
		return token{kind: tokBad}
	case isWord(c):
		return l.word(tokWord)
	case c == '@':
		return l.variable()
	}
	for _, op := range [...]string{"==", "<=>", ":=", "<=", ">=", "<>", "!=", "&&", "||"} { // == is no operator: no rule takes it
		if strings.HasPrefix(l.text[l.pos:], op) {
			l.pos += len(op)
			return token{kind: tokOp, text: op}
		}
	}
	if strings.IndexByte("+-*/%=<>!~&|^(),.;?:{}", c) < 0 {
		return token{kind: tokBad}
	}
	l.pos++
	return token{kind: tokOp, text: l.text[l.pos-1 : l.pos]}
}

func (l *lexer) word(kind tokenKind) token {
	start := l.pos
	for isWord(l.at(l.pos)) {
		l.pos++
	}
	return token{kind: kind, text: l.text[start:l.pos]}
}

// variable reads @name, @'name', @`name` or the @@ of a system variable.
func (l *lexer) variable() token {
	l.pos++
	switch c := l.at(l.pos); {
	case c == '@':
		l.pos++
		if c := l.at(l.pos); !isWord(c) && c != '`' {
			return token{kind: tokBad, start: l.pos}
		}
		return token{kind: tokSysVar}
	case c == '\'' || c == '"' || c == '`':
		return l.quoted(tokUserVar, c)
	}
	start := l.pos
	for isWord(l.at(l.pos)) || l.at(l.pos) == '.' {
		l.pos++
	}
	if l.pos == start {
		return token{kind: tokBad, start: l.pos}
	}
	return token{kind: tokUserVar, text: l.text[start:l.pos]}
}

// quoted reads up to the closing quote; a doubled quote stands for itself, and so does an escaped one outside backticks.
func (l *lexer) quoted(kind tokenKind, quote byte) token {
	l.pos++
	start := l.pos
	var b strings.Builder
	for ; l.pos < len(l.text); l.pos++ {
		c := l.text[l.pos]
		switch {
		case c == quote && l.at(l.pos+1) == quote:
			b.WriteString(l.text[start : l.pos+1])
			l.pos++
			start = l.pos + 1
		case c == quote:
			b.WriteString(l.text[start:l.pos])
			l.pos++
			return token{kind: kind, text: b.String()}
		case c == '\\' && quote != '`' && l.pos+1 < len(l.text):
			b.WriteString(l.text[start:l.pos])
			l.pos++
			start = l.pos
			e := l.text[start]
			if i := strings.IndexByte("0bnrtZ", e); i >= 0 {
				b.WriteByte("\x00\b\n\r\t\x1a"[i])
				start++
			} else if e == '%' || e == '_' { // kept for LIKE
				b.WriteByte('\\')
			}
		}
	}
	return token{kind: tokBad}
}

// number reads a number, or an identifier that begins with digits.
func (l *lexer) number() token {
	end, kind := l.pos, tokInt
	for isDigit(l.at(end)) {
		end++
	}
	if l.at(end) == '.' {
		kind = tokFloat
		for end++; isDigit(l.at(end)); {
			end++
		}
	}
	if l.at(end)|0x20 == 'e' {
		exp := end + 1
		if c := l.at(exp); c == '+' || c == '-' {
			exp++
		}
		if isDigit(l.at(exp)) {
			kind = tokFloat
			for end = exp; isDigit(l.at(end)); {
				end++
			}
		}
	}
	if kind == tokInt && isWord(l.at(end)) {
		if c := l.text[end]; end == l.pos+1 && l.text[l.pos] == '0' && (c == 'x' || c == 'b') { // 0x41, 0b1
			return token{kind: tokBad}
		}
		return l.word(tokWord)
	}
	t := token{kind: kind, text: l.text[l.pos:end]}
	l.pos = end
	return t
}
