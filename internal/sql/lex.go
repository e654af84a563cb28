package sql

import "strings"

type tokenKind uint8

const (
	tokEOF     tokenKind = iota
	tokWord              // keyword or plain identifier; text as written
	tokQuoted            // `identifier`, unquoted
	tokString            // 'x', "x" or n'x', unescaped
	tokInt               // digits
	tokDecimal           // digits with a point
	tokFloat             // with an exponent
	tokHex               // x'..' or 0x..; text is the decoded bytes
	tokBit               // b'..' or 0b..; text is the decoded bytes
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
	executable bool     // inside /*! … */
	cuts       [][2]int // the markers of executable comments, which do not belong to the text of an expression
}

func (l *lexer) at(i int) byte {
	if i < len(l.text) {
		return l.text[i]
	}
	return 0
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isHex(c byte) bool   { return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }
func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c) || c == '_' || c == '$' || c >= 0x80
}

// skipSpace passes white space and comments. It returns the offset of a comment that has no end, or -1.
func (l *lexer) skipSpace() int {
	for l.pos < len(l.text) {
		c := l.text[l.pos]
		switch {
		case isSpace(c):
			l.pos++
		case c == '#', c == '-' && l.at(l.pos+1) == '-' && (l.pos+2 >= len(l.text) || l.text[l.pos+2] <= ' '):
			end := strings.IndexByte(l.text[l.pos:], '\n')
			if end < 0 {
				l.pos = len(l.text)
			} else {
				l.pos += end + 1
			}
		case c == '/' && l.at(l.pos+1) == '*':
			if l.openExecutable() {
				continue
			}
			end := strings.Index(l.text[l.pos+2:], "*/")
			if end < 0 {
				bad := l.pos
				l.pos = len(l.text)
				return bad
			}
			l.pos += end + 4
		case l.executable && c == '*' && l.at(l.pos+1) == '/':
			l.executable = false
			l.cuts = append(l.cuts, [2]int{l.pos, l.pos + 2})
			l.pos += 2
		default:
			return -1
		}
	}
	return -1
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
	l.cuts = append(l.cuts, [2]int{l.pos, end})
	l.pos = end
	return true
}

func (l *lexer) next() token {
	if bad := l.skipSpace(); bad >= 0 {
		return token{kind: tokBad, start: bad, end: len(l.text)}
	}
	start := l.pos
	if start >= len(l.text) {
		kind := tokEOF
		if l.executable {
			kind = tokBad
		}
		return token{kind: kind, start: start, end: start}
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
	case (c|0x20 == 'x' || c|0x20 == 'b') && l.at(l.pos+1) == '\'':
		return l.radixQuoted(c | 0x20)
	case c|0x20 == 'n' && l.at(l.pos+1) == '\'':
		l.pos++
		return l.quoted(tokString, '\'')
	case c == '\'' || c == '"':
		return l.quoted(tokString, c)
	case c == '`':
		return l.quoted(tokQuoted, c)
	case isDigit(c), c == '.' && isDigit(l.at(l.pos+1)):
		return l.number()
	case c == '$' && l.dollarQuote():
		return l.bad()
	case isWord(c):
		return l.word(tokWord)
	case c == '@':
		return l.variable()
	}
	if strings.HasPrefix(l.text[l.pos:], "==") {
		return l.bad()
	}
	for _, op := range [...]string{"<=>", ":=", "<=", ">=", "<>", "!=", "&&", "||", "<<", ">>"} {
		if strings.HasPrefix(l.text[l.pos:], op) {
			l.pos += len(op)
			return token{kind: tokOp, text: op}
		}
	}
	if strings.IndexByte("+-*/%=<>!~&|^(),.;?:{}", c) < 0 {
		return l.bad()
	}
	l.pos++
	return token{kind: tokOp, text: l.text[l.pos-1 : l.pos]}
}

func (l *lexer) bad() token {
	l.pos = len(l.text)
	return token{kind: tokBad}
}

// dollarQuote tells whether $$ or $tag$ begins here: text in another language (MySQL 9), which has no place here. The
// mysql client asks with `select $$` whether the server knows it.
func (l *lexer) dollarQuote() bool {
	end := l.pos + 1
	for isWord(l.at(end)) && l.text[end] != '$' {
		end++
	}
	return l.at(end) == '$'
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
			if e := unescape(l.text[l.pos]); e != l.text[l.pos] {
				b.WriteByte(e)
				start++
			} else if e == '%' || e == '_' { // kept for LIKE
				b.WriteByte('\\')
			}
		}
	}
	return l.bad()
}

func unescape(c byte) byte {
	switch c {
	case '0':
		return 0
	case 'b':
		return '\b'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'Z':
		return 0x1a
	}
	return c
}

// number reads an integer, a decimal, a float, 0x.. or 0b..; or an identifier that begins with digits.
func (l *lexer) number() token {
	if l.text[l.pos] == '0' && (l.at(l.pos+1) == 'x' || l.at(l.pos+1) == 'b') {
		end := l.pos + 2
		for isWord(l.at(end)) {
			end++
		}
		if t, ok := radix(l.text[l.pos+1], l.text[l.pos+2:end]); ok && end > l.pos+2 {
			l.pos = end
			return t
		}
		return l.word(tokWord)
	}
	end, kind := l.pos, tokInt
	for isDigit(l.at(end)) {
		end++
	}
	if l.at(end) == '.' {
		kind = tokDecimal
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
		return l.word(tokWord)
	}
	t := token{kind: kind, text: l.text[l.pos:end]}
	l.pos = end
	return t
}

// radixQuoted reads x'..' or b'..'.
func (l *lexer) radixQuoted(kind byte) token {
	end := strings.IndexByte(l.text[l.pos+2:], '\'')
	if end < 0 {
		return l.bad()
	}
	t, ok := radix(kind, l.text[l.pos+2:l.pos+2+end])
	if !ok || kind == 'x' && end%2 == 1 {
		return l.bad()
	}
	l.pos += end + 3
	return t
}

// radix decodes the digits of a hexadecimal or binary literal into bytes, the first byte filled up with zeros.
func radix(kind byte, digits string) (token, bool) {
	t, bits := token{kind: tokHex}, 4
	if kind == 'b' {
		t.kind, bits = tokBit, 1
	}
	out := make([]byte, (len(digits)*bits+7)/8)
	for i := range len(digits) {
		c := digits[len(digits)-1-i]
		if !isHex(c) || bits == 1 && c > '1' {
			return t, false
		}
		v := c & 15
		if c > '9' {
			v += 9
		}
		out[len(out)-1-i*bits/8] |= v << (i * bits % 8)
	}
	t.text = string(out)
	return t, true
}
