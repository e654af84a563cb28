package sql

// Prepared statements. What a ? stands for is known when the statement is read: to run a prepared statement is to read
// its text again, with the values. That costs microseconds, and all that has to be kept of a statement is its text.

// Param is a ? of a prepared statement with its value, which is NULL while the statement is prepared.
type Param struct{ Value Value }

func (*Param) expr() {}

// Prepare reads a statement in which ? stands for values, and says how many there are. Errors are those of Parse; 1295
// for a statement that MySQL does not prepare, 6413 for a ? where it takes none.
func Prepare(text string) (st Statement, params int, err error) {
	p := &parser{text: text, prepared: true}
	if st, err = p.parse(); err != nil {
		return nil, 0, err
	}
	switch st.(type) {
	case *Select, *Do, *Set, *Show:
	default:
		if p.params > 0 {
			return nil, 0, Errorf(6413, "HY000", "Dynamic parameters can only be used in DML statements.")
		}
	}
	if !preparable(st) {
		return nil, 0, Errorf(1295, "HY000", "This command is not supported in the prepared statement protocol yet")
	}
	return st, p.params, nil
}

// Bind reads a statement that Prepare has read, with a value for each ?. Errors are those of values where only some can
// be: 1210 and 1690 for a LIMIT.
func Bind(text string, values []Value) (Statement, error) {
	return (&parser{text: text, prepared: true, values: values}).parse()
}

// preparable tells whether MySQL prepares a statement (9.7: Prepared_statement::prepare_query in sql/sql_prepare.cc).
func preparable(st Statement) bool {
	switch st := st.(type) {
	case *Empty, *Use, *Purge:
		return false
	case *Transaction:
		return st.Verb != "BEGIN"
	case *Show:
		switch st.What {
		case ShowWarnings, ShowErrors, ShowCountWarnings, ShowCountErrors:
			return false
		}
	}
	return true
}

// param reads a ?, if it is there and may be.
func (p *parser) param() (*Param, bool) {
	if !p.prepared || !p.acceptOp("?") {
		return nil, false
	}
	e := &Param{}
	if p.params < len(p.values) {
		e.Value = p.values[p.params]
	}
	p.params++
	return e, true
}

// rows reads a number of rows, or a ? for one.
func (p *parser) rows() uint64 {
	e, ok := p.param()
	if !ok {
		return p.uint()
	}
	v := e.Value
	switch v.kind {
	case KindDouble, KindDatetime:
		p.fail(Errorf(1210, "HY000", "Incorrect arguments to mysqld_stmt_execute"))
	case KindString:
		v = v.integer(false)
	}
	if v.isNegative() {
		p.fail(Errorf(1690, "22003", "SIGNED INTEGER value is out of range in 'mysqld_stmt_execute'"))
	}
	return v.n
}

// Describe returns the columns of a SELECT that is not run yet, as far as they can be known. It does nothing else. Its
// errors are those about names; errors about values come when it runs.
func (s *Session) Describe(q *Select) ([]Column, error) {
	ev := s.evaluation()
	ev.describing = true
	rs, err := s.selectWith(ev, q)
	if err != nil {
		return nil, err
	}
	return rs.Columns, nil
}

// aboutValue tells whether an error is one that other values would not have brought.
func aboutValue(err error) bool {
	e, ok := err.(*Error)
	if !ok {
		return false
	}
	switch e.Code {
	case 1105, 1210, 1690, 1772:
		return true
	}
	return false
}
