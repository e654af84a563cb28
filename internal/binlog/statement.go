package binlog

import "bytes"

// statement is what the text of a QUERY event means for transactions.
type statement int

const (
	statementOther statement = iota
	statementBegin           // BEGIN, XA START
	statementEnd             // COMMIT, ROLLBACK
	statementXAEnd           // XA ROLLBACK
)

// statementKind looks at the text as MySQL's replicas do
// (Query_log_event::starts_group and ends_group). Servers write these
// statements themselves, in these very words, whatever the client sent;
// statements of clients may have comments in front, but none of them begins or
// ends a transaction. So there is no need to parse SQL.
//
// Only ROLLBACK needs more care: servers up to 5.5 write ROLLBACK TO in the
// client's words, say "rollback work to savepoint a".
func statementKind(q Query) statement {
	text := q.Text
	whole := q.TextLength == len(text)
	switch {
	case whole && string(text) == "BEGIN", bytes.HasPrefix(text, []byte("XA START")):
		return statementBegin
	case whole && string(text) == "COMMIT":
		return statementEnd
	case hasPrefixFold(text, "XA ROLLBACK"):
		return statementXAEnd
	case hasPrefixFold(text, "ROLLBACK"):
		rest, _ := cutWord(text[len("ROLLBACK"):], "WORK")
		if _, to := cutWord(rest, "TO"); !to {
			return statementEnd
		}
	}
	return statementOther
}

// hasPrefixFold ignores the case of text; prefix is upper case.
func hasPrefixFold(text []byte, prefix string) bool {
	if len(text) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		c := text[i]
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != prefix[i] {
			return false
		}
	}
	return true
}

// cutWord cuts white space and then the word off the front of text, if both
// are there.
func cutWord(text []byte, word string) (rest []byte, ok bool) {
	const space = " \t\r\n"
	trimmed := bytes.TrimLeft(text, space)
	if len(trimmed) == len(text) || !hasPrefixFold(trimmed, word) {
		return text, false
	}
	rest = trimmed[len(word):]
	if len(rest) > 0 && !bytes.ContainsRune([]byte(space+"`"), rune(rest[0])) {
		return text, false
	}
	return rest, true
}
