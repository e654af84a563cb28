package sql

import (
	"fmt"
	"strings"
)

// Error is a MySQL error: what goes into an ERR packet. Every error of this package is one.
type Error struct {
	Code    uint16 // MySQL's number, e.g. 1064
	State   string // SQL state, 5 bytes
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%d (%s): %s", e.Code, e.State, e.Message) }

// Errorf makes an Error.
func Errorf(code uint16, state, format string, args ...any) *Error {
	return &Error{Code: code, State: state, Message: fmt.Sprintf(format, args...)}
}

// Numbers of the errors that callers compare with (MySQL: share/messages_to_clients.txt).
const (
	CodeSyntax          = 1064
	CodeUnknownVariable = 1193
	CodeNotSupported    = 1235
)

func errSyntax(text string, at int) *Error {
	line := 1 + strings.Count(text[:at], "\n")
	return Errorf(CodeSyntax, "42000", "You have an error in your SQL syntax; check the manual that corresponds to your "+
		"MySQL server version for the right syntax to use near '%s' at line %d", clip(text[at:], 80), line)
}

func errUnknownVariable(name string) *Error {
	return Errorf(CodeUnknownVariable, "HY000", "Unknown system variable '%s'", clip(name, 256))
}

func errNotSupported(what string) *Error {
	return Errorf(CodeNotSupported, "42000", "kingbus is not a database server and does not support %s", what)
}

func errNoTables() *Error { return Errorf(1096, "HY000", "No tables used") }

func errWrongValue(name, value string) *Error {
	return Errorf(1231, "42000", "Variable '%s' can't be set to the value of '%s'", name, value)
}

func errWrongType(name string) *Error {
	return Errorf(1232, "42000", "Incorrect argument type to variable '%s'", name)
}

func errUnknownCharset(name string) *Error {
	return Errorf(1115, "42000", "Unknown character set: '%s'", clip(name, 64))
}

func errUnknownCollation(name string) *Error {
	return Errorf(1273, "HY000", "Unknown collation: '%s'", clip(name, 64))
}

func errOutOfRange(kind, op string, a, b Value) *Error {
	return Errorf(1690, "22003", "%s value is out of range in '(%s %s %s)'", kind, clip(a.Text(), 64), strings.ToLower(op), clip(b.Text(), 64))
}

func clip(s string, n int) string { return s[:min(len(s), n)] }
