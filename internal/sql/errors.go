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

// maxNear is how much of the statement MySQL quotes in a syntax error.
const maxNear = 80

func errSyntax(text string, at int) *Error {
	line := 1 + strings.Count(text[:at], "\n")
	near := text[at:]
	if len(near) > maxNear {
		near = near[:maxNear]
	}
	return Errorf(CodeSyntax, "42000", "You have an error in your SQL syntax; check the manual that corresponds to your "+
		"MySQL server version for the right syntax to use near '%s' at line %d", near, line)
}

func errUnknownVariable(name string) *Error {
	return Errorf(CodeUnknownVariable, "HY000", "Unknown system variable '%s'", name)
}

func errNotSupported(what string) *Error {
	return Errorf(CodeNotSupported, "42000", "kingbus is not a database server and does not support %s", what)
}

func errWrongValue(name, value string) *Error {
	return Errorf(1231, "42000", "Variable '%s' can't be set to the value of '%s'", name, value)
}

func errWrongType(name string) *Error {
	return Errorf(1232, "42000", "Incorrect argument type to variable '%s'", name)
}

func errParameterCount(function string) *Error {
	return Errorf(1582, "42000", "Incorrect parameter count in the call to native function '%s'", function)
}

func errOutOfRange(kind string, e Expr) *Error {
	return Errorf(1690, "22003", "%s value is out of range in '%s'", kind, clip(text(e, 8), 256))
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// text prints an expression as MySQL does in errors about values out of range, down to a depth.
func text(e Expr, depth int) string {
	if depth == 0 {
		return "…"
	}
	depth--
	switch e := e.(type) {
	case *Literal:
		if positive, negative := strings.CutPrefix(e.Value.String(), "-"); negative {
			return "-(" + positive + ")"
		}
		return e.Value.String()
	case *UserVar:
		return "@`" + e.Name + "`"
	case *SysVar:
		return "@@" + e.Name
	case *Unary:
		return e.Op + "(" + text(e.X, depth) + ")"
	case *Binary:
		return "(" + text(e.X, depth) + " " + strings.ToLower(e.Op) + " " + text(e.Y, depth) + ")"
	case *Call:
		return strings.ToLower(e.Name) + "(…)"
	}
	return "…"
}
