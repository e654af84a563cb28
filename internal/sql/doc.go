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
// Prepared statements are read by [Prepare], and again with their values by [Bind].
//
// Every error is an [*Error] with MySQL's code, SQL state and text. Column names, types and nullability are those that
// MySQL 9.7 gives; testdata/mysql97.golden holds what a real server answered.
//
// The package is pure: no goroutines, no clock, no I/O. Time, uuids and facts about the connection come through [Env],
// the server's variables through [Variables]. Its input is hostile: words and nesting of a statement, the work of its
// evaluation, size of values and of user variables are bounded ([MaxTokens], [MaxDepth], [MaxWork], [MaxString],
// [MaxUserVariables]); the size of a statement is the caller's to bound.
//
// A reader starts at [Parse], goes on to Session.Select and Session.Set, and has eval.go, functions.go and defaults.go to
// look things up.
//
// What differs from MySQL on purpose:
//
//   - numbers are whole (64 bits) or floating point: no exact decimals; they are added, subtracted and multiplied
//   - a result column has the type of its values, and of constants and columns that could be one (settle.go), not that
//     of functions that could: IF(1, 1, LOWER('A')) is a number
//   - no tables, subqueries, UNION, INTO, GROUP BY, ORDER BY, aggregates, row values, bits, hexadecimal literals, COLLATE,
//     REGEXP, JSON, DATE and TIME; casts to CHAR, SIGNED and UNSIGNED only; few functions
//   - text is UTF-8 whatever the character set; comparison ignores case, but not accents
//   - names and functions in a part that is not evaluated are not looked at: IF(1, 1, nosuch()) is 1
//   - no warnings about values, such as text that is no number among numbers; no SQL mode has an effect
//   - SET GLOBAL and SET PERSIST are refused for variables that MySQL would set
//   - white space is allowed between any function's name and its parenthesis, as with the mode IGNORE_SPACE
//   - what older MySQL and MariaDB know (SHOW MASTER STATUS, SHOW SLAVE HOSTS, …) is read beside the new statements
package sql

// Bounds on what a client can make us build.
const (
	MaxTokens         = 10_000  // words, operators and constants in one statement; more: error 1235
	MaxDepth          = 150     // nesting of expressions; deeper: error 1436
	MaxWork           = 1 << 18 // steps of one statement's evaluation, a step being an operation or 256 bytes looked at; more: error 1235
	MaxString         = 1 << 20 // bytes of a string that a function builds; longer: NULL, as MySQL past max_allowed_packet
	MaxUserVariables  = 1 << 20 // bytes of a session's user variables, names and a fixed cost each included; more: error 1105. See Env.Hold, too
	FreeUserVariables = 4 << 10 // bytes of them that every session may have, whatever others have: what replicas and mysqlbinlog set
	MaxVariable       = 1 << 10 // bytes of a system variable that is text; more: error 1231
)
