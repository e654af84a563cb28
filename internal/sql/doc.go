// Package sql is the SQL that kingbus answers while it poses as a MySQL source: a lexer, a recursive-descent parser and
// an evaluator for expressions, user variables and system variables.
//
// It is real, but small. There are no tables: a SELECT has expressions, perhaps FROM DUAL, and one row. SET, SHOW and a
// few other statements are parsed into nodes; what they mean beyond variables is up to the caller. Statements are
// answered by evaluating what was parsed, never by matching text, so spacing, case and comments do not matter, and
// executable comments run.
//
//	text ── Parse ──▶ Statement ── Session.Select, Set, Do, ShowVariables, … ──▶ *ResultSet, or an error
//
// Every error is an [*Error] with MySQL's code, SQL state and text. Column names, types and nullability are those that
// MySQL 9.7 gives; testdata/mysql97.golden holds what a real server answered.
//
// The package is pure: no goroutines, no clock, no I/O. Time, uuids and facts about the connection come through [Env],
// the server's variables through [Variables]. Its input is hostile: nesting, number of expressions, size of values and
// of user variables are bounded ([MaxDepth], [MaxNodes], [MaxWork], [MaxString], [MaxUserVariables]); the size of a statement is
// the caller's to bound.
//
// What differs from MySQL on purpose:
//
//   - no tables, subqueries, UNION, INTO, GROUP BY, aggregates, row values, REGEXP, JSON, DATE and TIME; few functions
//   - text is UTF-8 whatever the character set; comparison ignores case, but not accents
//   - no warnings about values, such as text that is no number among numbers; no SQL mode has an effect
//   - SET GLOBAL and SET PERSIST are refused for variables that MySQL would set
//   - white space is allowed between any function's name and its parenthesis, as with the mode IGNORE_SPACE
//   - what older MySQL and MariaDB know (SHOW MASTER STATUS, SHOW SLAVE HOSTS, …) is read beside the new statements
package sql

// Bounds on what a client can make us build.
const (
	MaxDepth         = 150     // nesting of expressions; deeper: error 1436
	MaxNodes         = 10_000  // expressions in one statement; more: error 1235
	MaxWork          = 1 << 18 // steps of one statement's evaluation, a step being an operation or 256 bytes looked at; more: error 1235
	MaxString        = 1 << 20 // bytes of a string that a function builds; longer: NULL, as MySQL past max_allowed_packet
	MaxUserVariables = 1 << 20 // bytes of a session's user variables, names and a fixed cost each included; more: error 1105
)
