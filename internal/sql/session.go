package sql

import (
	"strings"
	"time"
	"unicode/utf8"

	"kingbus/internal/gtid"
)

// Env is what a session knows of the world around it. Its methods are called from the goroutine that runs the session.
type Env interface {
	Now() time.Time       // in the server's time zone
	UUID() string         // a new uuid with every call
	ConnectionID() uint32 // as in the greeting
	User() string         // user@host as the client named itself
	CurrentUser() string  // user@host of the account
	Database() string     // the default database, "" if none
	// WaitExecuted waits until all of a set is there, for a time, or for ever if that is 0;
	// false is too late.
	WaitExecuted(set gtid.Set, timeout time.Duration) (bool, error)
	// SetGlobal sets the global values of variables that are Dynamic, all or none.
	SetGlobal([]GlobalValue) error
	// Hold takes so many bytes more for user variables, of what those of all sessions may have together;
	// false: that is less. A negative number gives back, and is never refused.
	Hold(bytes int) bool
	// Table returns a table whole, as a SELECT of all its columns has it; nil: there is none.
	Table(Table) (*ResultSet, error)
}

// GlobalValue is what SET GLOBAL and SET PERSIST give to a variable, by the name that it has.
type GlobalValue struct {
	Name    string
	Value   Value
	Default bool // instead of Value
}

// Session evaluates the statements of one connection: it holds its user variables and its values of system variables.
// It belongs to one goroutine.
type Session struct {
	env       Env
	variables *Variables
	user      map[string]Value // by lower-case name
	userBytes int
	overrides map[*Variable]Value
	// Of the statement before, for SHOW WARNINGS: its error, and what it warned of; fresh are
	// those of the present one.
	last         *Error
	notes, fresh []warning
}

// NewSession makes the session of a new connection.
func NewSession(env Env, variables *Variables) *Session {
	return &Session{env: env, variables: variables, user: map[string]Value{}, overrides: map[*Variable]Value{}}
}

// Reset forgets everything that the client set, as COM_RESET_CONNECTION and COM_CHANGE_USER demand. It is to be
// called at the session's end, too: what that holds (Env.Hold) is given back.
func (s *Session) Reset() {
	s.hold(s.userBytes, 0)
	*s = *NewSession(s.env, s.variables)
}

// UserVariable returns @name; NULL if it was never set.
func (s *Session) UserVariable(name string) Value { return s.user[strings.ToLower(name)] }

// setUser sets user variables, all or none: error 1105 if the session's variables would become larger than
// MaxUserVariables, or those of all sessions than they may, 3061 for a bad name.
func (s *Session) setUser(values map[string]Value) error {
	size, err := s.checkUser(values)
	if err == nil {
		s.storeUser(values, size)
	}
	return err
}

// checkUser returns how large the session's variables would be, and holds what that is more than now, for
// storeUser or dropUser.
func (s *Session) checkUser(values map[string]Value) (size int, err error) {
	size = s.userBytes
	for name, value := range values {
		if n := utf8.RuneCountInString(name); n == 0 || n > 64 {
			return 0, Errorf(3061, "42000", "User variable name '%s' is illegal", clip(name, 64))
		}
		if old, ok := s.user[name]; ok {
			size -= 64 + len(name) + len(old.s)
		}
		size += 64 + len(name) + len(value.s)
	}
	if size > MaxUserVariables {
		return 0, Errorf(1105, "HY000", "kingbus keeps at most %d bytes of user variables per connection", MaxUserVariables)
	}
	if size > s.userBytes && !s.hold(s.userBytes, size) {
		return 0, Errorf(1105, "HY000", "kingbus keeps no more bytes of user variables of all connections; close some")
	}
	return size, nil
}

// dropUser takes back what checkUser has held.
func (s *Session) dropUser(size int) { s.hold(max(s.userBytes, size), s.userBytes) }

// hold changes what the session holds for its variables, from one size of them to another. It holds nothing for
// the first ones: a replica to which they are refused, since others have taken all, gives up for good.
func (s *Session) hold(from, to int) bool {
	return s.env.Hold(max(0, to-FreeUserVariables) - max(0, from-FreeUserVariables))
}

func (s *Session) storeUser(values map[string]Value, size int) {
	s.hold(max(s.userBytes, size), size) // what is more is held already
	s.userBytes = size
	for name, value := range values {
		if value.kind == KindDatetime {
			value.kind = KindString
		}
		value.s = strings.Clone(value.s) // the statement's text is not to be kept
		s.user[strings.Clone(name)] = value
	}
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
	switch {
	case !ok:
		return nil, errUnknownVariable(name)
	case scope == ScopeSession && v.Scope == GlobalOnly:
		return nil, Errorf(1238, "HY000", "Variable '%s' is a GLOBAL variable", v.Name)
	case scope >= ScopeGlobal && v.Scope == SessionOnly:
		return nil, Errorf(1238, "HY000", "Variable '%s' is a SESSION variable", v.Name)
	}
	return v, nil
}

func (s *Session) value(v *Variable, scope Scope) Value {
	if scope <= ScopeSession && v.Scope != GlobalOnly {
		if value, ok := s.overrides[v]; ok {
			return value
		}
	}
	switch {
	case v.session != nil:
		return v.session(s)
	case v.Get != nil:
		return v.Get()
	}
	return v.Default
}

// override sets the session's value of a variable past all checks. Unknown names do nothing.
func (s *Session) override(name string, value Value) {
	if v, ok := s.variables.Lookup(name); ok {
		s.overrides[v] = value
	}
}

// Select answers a SELECT.
func (s *Session) Select(q *Select) (*ResultSet, error) { return s.selectWith(s.evaluation(), q) }

func (s *Session) selectWith(ev *evaluation, q *Select) (*ResultSet, error) {
	if q.From != nil {
		return s.selectTable(ev, q)
	}
	ev.group = [][]Value{nil}
	rs := &ResultSet{}
	var row []Value
	for i, item := range q.Items {
		if item.Expr == nil {
			return nil, errNoTables()
		}
		v, err := ev.eval(item.Expr)
		if err != nil {
			return nil, err
		}
		row = append(row, v)
		rs.Columns = append(rs.Columns, ev.column(item.Name, item.Expr, ev.settle(item.Expr, [][]Value{row}, i)))
	}
	rs.Rows = q.Limit.apply([][]Value{row})
	if q.Where != nil {
		ev.clause = "where clause"
		where, err := ev.eval(q.Where)
		if err != nil {
			return nil, err
		}
		if !where.isTrue() {
			rs.Rows = nil
		}
	}
	s.Localize(rs)
	return rs, nil
}

// apply cuts rows; a nil limit leaves them.
func (l *Limit) apply(rows [][]Value) [][]Value {
	if l == nil {
		return rows
	}
	rows = rows[min(l.Offset, uint64(len(rows))):]
	return rows[:min(l.Count, uint64(len(rows)))]
}

// Do answers DO.
func (s *Session) Do(d *Do) error {
	_, err := s.evaluation().list(d.Exprs)
	return err
}

// Eval evaluates one expression outside a SELECT, such as the id of a KILL.
func (s *Session) Eval(e Expr) (Value, error) { return s.evaluation().eval(e) }

// Record notes how a statement ended, for SHOW WARNINGS and @@error_count. Call it after every statement that is not
// itself about warnings; err nil clears.
func (s *Session) Record(err error) {
	var known bool
	if s.last, known = err.(*Error); err != nil && !known {
		s.last = Errorf(1105, "HY000", "%v", err)
	}
	s.notes, s.fresh = s.fresh, nil
}

// warning is what a statement warns of; the level is Warning or Note.
type warning struct {
	level string
	*Error
}

// Warn and Note note what the statement warns of, for SHOW WARNINGS. A statement cannot have more
// than MaxTokens of them.
func (s *Session) Warn(w *Error) { s.fresh = append(s.fresh, warning{"Warning", w}) }
func (s *Session) Note(w *Error) { s.fresh = append(s.fresh, warning{"Note", w}) }

// Warnings is how many the statement before warned of, its error not among them.
func (s *Session) Warnings() int { return len(s.notes) }

// errors and warnings are how many rows SHOW ERRORS and SHOW WARNINGS have.
func (s *Session) errors() Value { return Bool(s.last != nil) }

func (s *Session) warnings() Value {
	n := int64(len(s.notes))
	if s.last != nil {
		n++
	}
	return Int(n)
}

// ShowDiagnostics answers SHOW WARNINGS, SHOW ERRORS and SHOW COUNT(*) of them.
func (s *Session) ShowDiagnostics(show *Show) *ResultSet {
	count := UnsignedColumn("@@session.warning_count")
	count.Nullable = true
	switch show.What {
	case ShowCountErrors:
		count.Name = "@@session.error_count"
		return &ResultSet{Columns: []Column{count}, Rows: [][]Value{{s.errors()}}}
	case ShowCountWarnings:
		return &ResultSet{Columns: []Column{count}, Rows: [][]Value{{s.warnings()}}}
	}
	code := Column{Name: "Code", Type: TypeLong, Unsigned: true, Length: 5, Charset: charsetBinary}
	rs := &ResultSet{Columns: []Column{TextColumn("Level", 7), code, TextColumn("Message", 512)}}
	row := func(level string, e *Error) {
		rs.Rows = append(rs.Rows, []Value{String(level), Int(int64(e.Code)), String(e.Message)})
	}
	for _, w := range s.notes {
		if show.What == ShowWarnings {
			row(w.level, w.Error)
		}
	}
	if s.last != nil {
		row("Error", s.last)
	}
	rs.Rows = show.Limit.apply(rs.Rows)
	s.Localize(rs)
	return rs
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
	rs := s.table(t, show.Scope, show.What == ShowStatus)
	rs.Columns[0].Name, rs.Columns[0].Flags, rs.Columns[1].Name = "Variable_name", FlagNoDefault, "Value"
	err := s.Filter(rs, show.Filter)
	s.Localize(rs)
	return rs, err
}

// table lists variables as performance_schema.global_variables does. Status variables begin
// with a capital letter.
func (s *Session) table(t *Variables, scope Scope, status bool) *ResultSet {
	name, value := TextColumn("VARIABLE_NAME", 64), TextColumn("VARIABLE_VALUE", 1024)
	name.Decimals, name.Flags, value.Decimals, value.Nullable = 0, FlagNoDefault|FlagPrimaryKey|FlagPartKey, 0, true
	rs := &ResultSet{Columns: []Column{name, value}}
	for _, name := range t.names {
		v := t.byName[name]
		if status && strings.EqualFold(name, v.Name) {
			name = v.Name
		}
		if scope != ScopeGlobal || v.Scope != SessionOnly {
			rs.Rows = append(rs.Rows, []Value{String(name), v.display(s.value(v, scope))})
		}
	}
	return rs
}

// VariablesTable and StatusTable are the variables of a scope as performance_schema has them.
func (s *Session) VariablesTable(scope Scope) *ResultSet { return s.table(s.variables, scope, false) }

// StatusTable is like VariablesTable, from a table of status variables.
func (s *Session) StatusTable(status *Variables, scope Scope) *ResultSet {
	return s.table(status, scope, true)
}

// Filter applies the Filter of a SHOW to a result.
func (s *Session) Filter(rs *ResultSet, filter Expr) error {
	if filter == nil {
		return nil
	}
	ev := s.evaluation()
	ev.columns, ev.clause = rs.Columns, "where clause"
	var kept [][]Value
	for _, row := range rs.Rows {
		ev.row = row
		v, err := ev.eval(filter)
		if err != nil {
			return err
		}
		if v.isTrue() {
			kept = append(kept, row)
		}
	}
	rs.Rows = kept
	return nil
}

// Local returns a time in the session's time zone.
func (s *Session) Local(t time.Time) time.Time { return t.In(s.now().Location()) }

// Time reads a date and time, as text in the session's time zone; false if it is none.
func (s *Session) Time(v Value) (time.Time, bool) {
	zone := s.env.Now().Location()
	if tz, ok := s.variables.Lookup("time_zone"); ok {
		if z, ok := timeZone(s.value(tz, ScopeSession).s); ok {
			zone = z
		}
	}
	for _, layout := range []string{"2006-01-02 15:04:05.999999", "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v.Text(), zone); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
