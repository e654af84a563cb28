package sql

import (
	"strings"
	"time"
)

// Env is what a session knows of the world around it. Its methods are called from the goroutine that runs the session.
type Env interface {
	Now() time.Time       // in the server's time zone
	UUID() string         // a new uuid with every call
	ConnectionID() uint32 // as in the greeting
	User() string         // user@host as the client named itself
	CurrentUser() string  // user@host of the account
	Database() string     // the default database, "" if none
}

// Session evaluates the statements of one connection: it holds its user variables and its values of system variables.
// It belongs to one goroutine.
type Session struct {
	env       Env
	variables *Variables
	user      map[string]Value // by lower-case name
	userBytes int
	overrides map[*Variable]Value

	foundRows    int64
	rowCount     int64
	lastInsertID uint64
	diagnostics  []Diagnostic
}

// Diagnostic is a row of SHOW WARNINGS.
type Diagnostic struct {
	Level   string // "Error", "Warning" or "Note"
	Code    uint16
	Message string
}

// NewSession makes the session of a new connection.
func NewSession(env Env, variables *Variables) *Session {
	return &Session{env: env, variables: variables, user: map[string]Value{}, overrides: map[*Variable]Value{}}
}

// Reset forgets everything that the client set, as COM_RESET_CONNECTION and COM_CHANGE_USER demand.
func (s *Session) Reset() { *s = *NewSession(s.env, s.variables) }

// UserVariable returns @name; NULL if it was never set.
func (s *Session) UserVariable(name string) Value { return s.user[strings.ToLower(name)] }

// userVariableCost is what a variable costs beyond its name and text.
const userVariableCost = 64

// SetUserVariable sets @name. Error 1105 if the session's variables would become larger than MaxUserVariables.
func (s *Session) SetUserVariable(name string, value Value) error {
	if n := len([]rune(name)); n == 0 || n > 64 {
		return Errorf(3061, "42000", "User variable name '%s' is illegal", clipRunes(name, 64))
	}
	name = strings.ToLower(name)
	cost := func(v Value) int { return userVariableCost + len(name) + len(v.s) }
	size := s.userBytes + cost(value)
	if old, ok := s.user[name]; ok {
		size -= cost(old)
	}
	if size > MaxUserVariables {
		return Errorf(1105, "HY000", "kingbus keeps at most %d bytes of user variables per connection", MaxUserVariables)
	}
	s.userBytes = size
	if value.kind == KindDatetime {
		value = String(value.s)
	}
	value.s = strings.Clone(value.s) // the statement's text is not to be kept
	s.user[strings.Clone(name)] = value
	return nil
}

// SystemVariable returns @@name in a scope: 1193 if it does not exist, 1238 if not in that scope.
func (s *Session) SystemVariable(scope Scope, name string) (Value, error) {
	v, err := s.variable(scope, name)
	if err != nil {
		return Null, err
	}
	return s.value(v, scope), nil
}

func (s *Session) variable(scope Scope, name string) (*Variable, error) {
	v, ok := s.variables.Lookup(name)
	if !ok {
		return nil, errUnknownVariable(clip(name, 64*4))
	}
	if scope == ScopeSession && v.Scope == GlobalOnly || scope >= ScopeGlobal && v.Scope == SessionOnly {
		return nil, Errorf(1238, "HY000", "Variable '%s' is a %s variable", v.Name, map[VarScope]string{GlobalOnly: "GLOBAL", SessionOnly: "SESSION"}[v.Scope])
	}
	return v, nil
}

func (s *Session) value(v *Variable, scope Scope) Value {
	if scope <= ScopeSession && v.Scope != GlobalOnly {
		if value, ok := s.overrides[v]; ok {
			return value
		}
		if v.session != nil {
			return v.session(s)
		}
	}
	return v.global()
}

// Override sets the session's value of a variable past all checks: for what the login decided. Unknown names do nothing.
func (s *Session) Override(name string, value Value) {
	if v, ok := s.variables.Lookup(name); ok {
		s.overrides[v] = value
	}
}

// SetCharset does what the charset byte of the login does: it is SET NAMES with a collation's id. Ids that we do not
// know count as utf8mb4, and so does 0, which MariaDB's replicas send.
func (s *Session) SetCharset(id uint16) {
	item := SetItem{Name: "utf8mb4", Collation: "utf8mb4_0900_ai_ci"}
	for _, cs := range charsets() {
		if cs.id == id && clientCharset(cs) {
			item = SetItem{Name: cs.name, Collation: cs.collation}
		}
	}
	for _, name := range [...]string{"utf8mb4_bin", "utf8mb4_general_ci", "utf8mb4_unicode_ci", "utf8mb3_bin", "latin1_bin", "ascii_bin"} {
		if cs, known, _ := collationOf(name); known == id {
			item = SetItem{Name: cs.name, Collation: name}
		}
	}
	s.setNames(item.Name, item.Collation)
}

func (s *Session) setNames(charset, collation string) {
	for _, name := range [...]string{"character_set_client", "character_set_results", "character_set_connection"} {
		s.Override(name, String(charset))
	}
	s.Override("collation_connection", String(collation))
}

// charsetID is the collation id of text in results.
func (s *Session) charsetID() uint16 {
	results, _ := s.SystemVariable(ScopeNone, "character_set_results")
	cs, ok := charsetOf(results.s)
	if !ok {
		return charsetUTF8MB4
	}
	connection, _ := s.SystemVariable(ScopeNone, "collation_connection")
	if of, id, ok := collationOf(connection.s); ok && of.name == cs.name {
		return id
	}
	return cs.id
}

// Localize puts the character set that the client chose for results into the text columns of a result. Select and the
// Show methods have done so; it is for results that the caller makes.
func (s *Session) Localize(rs *ResultSet) {
	id := s.charsetID()
	for i := range rs.Columns {
		if c := &rs.Columns[i]; c.Charset == charsetUTF8MB4 {
			c.Charset = id
		}
	}
}

// Select answers a SELECT. Its table, if it names one, does not exist.
func (s *Session) Select(q *Select) (*ResultSet, error) {
	if q.From != nil {
		return nil, s.noTable(q.From)
	}
	ev := s.evaluation()
	rs := &ResultSet{}
	for _, item := range q.Items {
		if item.Expr == nil {
			return nil, Errorf(1096, "HY000", "No tables used")
		}
		column, err := ev.typeOf(item.Expr)
		if err != nil {
			return nil, err
		}
		column.Name = item.Name
		rs.Columns = append(rs.Columns, column)
	}
	s.Localize(rs)
	keep := q.Limit == nil || q.Limit.Count > 0 && q.Limit.Offset == 0
	if q.Where != nil {
		ev.clause = "where clause"
		if _, err := ev.typeOf(q.Where); err != nil {
			return nil, err
		}
		where, err := ev.eval(q.Where)
		if err != nil {
			return nil, err
		}
		if isTrue, _ := where.truth(); !isTrue {
			keep = false
		}
	}
	if keep {
		row := make([]Value, len(q.Items))
		for i, item := range q.Items {
			var err error
			if row[i], err = ev.eval(item.Expr); err != nil {
				return nil, err
			}
		}
		rs.Rows = append(rs.Rows, row)
	}
	s.foundRows, s.rowCount = int64(len(rs.Rows)), -1
	return rs, nil
}

func (s *Session) noTable(t *Table) error {
	schema := t.Schema
	if schema == "" {
		schema = s.env.Database()
	}
	if schema == "" {
		return Errorf(1046, "3D000", "No database selected")
	}
	return Errorf(1146, "42S02", "Table '%s.%s' doesn't exist", clip(schema, 256), clip(t.Name, 256))
}

// Do answers DO.
func (s *Session) Do(d *Do) error {
	ev := s.evaluation()
	for _, e := range d.Exprs {
		if _, err := ev.value(e); err != nil {
			return err
		}
	}
	s.rowCount = 0
	return nil
}

// Eval evaluates one expression outside a SELECT, such as the id of a KILL.
func (s *Session) Eval(e Expr) (Value, error) { return s.evaluation().value(e) }

// Record notes how a statement ended, for SHOW WARNINGS and @@error_count. Call it after every statement that is not
// itself about warnings; err nil clears.
func (s *Session) Record(err error) {
	s.diagnostics = nil
	if err != nil {
		code, message := uint16(1105), err.Error()
		if e, ok := err.(*Error); ok {
			code, message = e.Code, e.Message
		}
		s.diagnostics = []Diagnostic{{Level: "Error", Code: code, Message: message}}
		s.rowCount = -1
	}
}

func (s *Session) countDiagnostics(errorsOnly bool) (n uint64) {
	for _, d := range s.diagnostics {
		if !errorsOnly || d.Level == "Error" {
			n++
		}
	}
	return n
}

// ShowDiagnostics answers SHOW WARNINGS, SHOW ERRORS and SHOW COUNT(*) of them.
func (s *Session) ShowDiagnostics(show *Show) *ResultSet {
	errorsOnly := show.What == ShowErrors || show.What == ShowCountErrors
	if show.What == ShowCountErrors || show.What == ShowCountWarnings {
		name := "@@session.warning_count"
		if errorsOnly {
			name = "@@session.error_count"
		}
		column := UnsignedColumn(name)
		column.Nullable = true
		return &ResultSet{Columns: []Column{column}, Rows: [][]Value{{Uint(s.countDiagnostics(errorsOnly))}}}
	}
	code := Column{Name: "Code", Type: TypeLong, Unsigned: true, Length: 5, Charset: charsetBinary}
	rs := &ResultSet{Columns: []Column{TextColumn("Level", 7), code, TextColumn("Message", 512)}}
	for _, d := range s.diagnostics {
		if !errorsOnly || d.Level == "Error" {
			rs.Rows = append(rs.Rows, []Value{String(d.Level), Int(int64(d.Code)), String(d.Message)})
		}
	}
	rs.Rows = show.Limit.apply(rs.Rows)
	s.Localize(rs)
	return rs
}

// apply cuts rows; a nil limit leaves them.
func (l *Limit) apply(rows [][]Value) [][]Value {
	if l == nil {
		return rows
	}
	rows = rows[min(l.Offset, uint64(len(rows))):]
	return rows[:min(l.Count, uint64(len(rows)))]
}

// ShowVariables answers SHOW VARIABLES.
func (s *Session) ShowVariables(show *Show) (*ResultSet, error) {
	return s.showTable(s.variables, show)
}

// ShowStatus answers SHOW STATUS from a table of status variables.
func (s *Session) ShowStatus(status *Variables, show *Show) (*ResultSet, error) {
	return s.showTable(status, show)
}

func (s *Session) showTable(t *Variables, show *Show) (*ResultSet, error) {
	name, value := TextColumn("Variable_name", 64), TextColumn("Value", 1024)
	name.Decimals, value.Decimals, value.Nullable = 0, 0, true
	rs := &ResultSet{Columns: []Column{name, value}}
	for _, name := range t.names {
		v := t.byName[name]
		if show.What == ShowStatus && strings.EqualFold(name, v.Name) {
			name = v.Name // status variables begin with a capital letter
		}
		if show.Scope != ScopeGlobal || v.Scope != SessionOnly {
			rs.Rows = append(rs.Rows, []Value{String(name), v.display(s.value(v, show.Scope))})
		}
	}
	if err := s.Filter(rs, show.Filter); err != nil {
		return nil, err
	}
	s.Localize(rs)
	return rs, nil
}

// Filter applies LIKE, which looks at the first column, or WHERE to a result.
func (s *Session) Filter(rs *ResultSet, f Filter) error {
	if f.Like == nil && f.Where == nil {
		return nil
	}
	ev := s.evaluation()
	ev.columns = rs.Columns
	if f.Where != nil {
		ev.clause = "where clause"
		if _, err := ev.typeOf(f.Where); err != nil {
			return err
		}
	}
	var kept [][]Value
	for _, row := range rs.Rows {
		ok, err := false, error(nil)
		if f.Like != nil {
			ok, err = ev.likeText(row[0].Text(), *f.Like, '\\', true)
		} else {
			var v Value
			ev.row = row
			v, err = ev.eval(f.Where)
			ok, _ = v.truth()
		}
		if err != nil {
			return err
		}
		if ok {
			kept = append(kept, row)
		}
	}
	rs.Rows = kept
	return nil
}
