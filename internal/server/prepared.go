package server

import (
	"context"
	"math"
	"slices"
	"strconv"
	"sync/atomic"

	"kingbus/internal/sql"
	"kingbus/internal/wire"
)

// Bounds on what the prepared statements of a session hold, and those of all sessions together.
const (
	maxStatements     = 1024      // statements of a session; more: error 1461, MySQL's for max_prepared_stmt_count
	maxStatementBytes = 512 << 10 // of a session; more: error 1105
	maxLongData       = 1 << 20   // bytes of a session that have come with COM_STMT_SEND_LONG_DATA; more: error 1105 when it runs

	maxAllStatements = 16382    // as with MySQL: error 1461
	maxAllBytes      = 64 << 20 // error 1105

	statementCost = 128 // bytes that each statement counts beside its text and its types
	longDataCost  = 64  // bytes that each value counts beside its own
)

// holdings are what the prepared statements of all sessions hold together.
type holdings struct{ statements, bytes atomic.Int64 }

// take adds n to what is held of something, if no more than most are then.
func take(held *atomic.Int64, n, most int) bool {
	if held.Add(int64(n)) <= int64(most) {
		return true
	}
	held.Add(-int64(n))
	return false
}

// statements are those that a session has prepared. What they hold counts among the holdings
// of all until the session forgets them.
type statements struct {
	all   *holdings
	byID  map[uint32]*statement
	last  uint32 // id that was given last
	bytes int    // of statements without long data
	long  int    // bytes of long data
}

// statement is a prepared statement. Its text is all that is kept of it: see sql.Bind.
type statement struct {
	text   string
	params int
	types  []uint16          // of the parameters, as they were sent last; nil at first
	long   map[uint16][]byte // values that came in pieces, for the next execution
	broken *wire.Error       // what was wrong with these pieces, which are not answered: the execution is
}

// size is what a statement counts without its long data, types included.
func (st *statement) size() int { return statementCost + len(st.text) + 2*st.params }

// forget drops all statements, as COM_RESET_CONNECTION demands, and the session's end. Their ids are
// not given again, as with MySQL: who still uses one means that statement.
func (s *statements) forget() {
	for _, st := range s.byID {
		s.drop(st)
	}
	*s = statements{all: s.all, last: s.last}
}

// add keeps a statement.
func (s *statements) add(text string, params int) (id uint32, refusal error) {
	tooMany := func(most int) error {
		return wire.Errorf(wire.ErMaxPreparedStmtCount, "Can't create more than max_prepared_stmt_count statements (current value: %d)", most)
	}
	st := &statement{text: text, params: params}
	if len(s.byID) >= maxStatements {
		return 0, tooMany(maxStatements)
	}
	if s.bytes+st.size() > maxStatementBytes {
		return 0, wire.Errorf(wire.ErUnknown, "kingbus keeps at most %d bytes of prepared statements per connection", maxStatementBytes)
	}
	if !take(&s.all.bytes, st.size(), maxAllBytes) {
		return 0, errAllBytes
	}
	if !take(&s.all.statements, 1, maxAllStatements) {
		s.all.bytes.Add(-int64(st.size()))
		return 0, tooMany(maxAllStatements)
	}
	if s.byID == nil {
		s.byID = map[uint32]*statement{}
	}
	for s.last++; s.byID[s.last] != nil || s.last == 0; s.last++ {
	}
	s.bytes += st.size()
	s.byID[s.last] = st
	return s.last, nil
}

var errAllBytes = wire.Errorf(wire.ErUnknown, "kingbus keeps at most %d bytes of prepared statements of all connections; close some", maxAllBytes)

// find returns the statement that a command names in its first bytes.
func (s *statements) find(payload []byte) (*statement, *wire.Error) {
	id, err := wire.ExecuteStatement(payload)
	if err != nil {
		return nil, errMalformedPacket
	}
	st := s.byID[id]
	if st == nil {
		return nil, wire.Errorf(wire.ErUnknownStmtHandler, "Unknown prepared statement handler (%d) given to mysql_stmt_precheck", id)
	}
	return st, nil
}

// close is COM_STMT_CLOSE, which is never answered.
func (s *statements) close(payload []byte) {
	st, refusal := s.find(payload)
	if refusal != nil {
		return
	}
	s.drop(st)
	id, _ := wire.ExecuteStatement(payload) // find has read it
	delete(s.byID, id)
}

// drop takes all that a statement counts out again.
func (s *statements) drop(st *statement) {
	s.reset(st)
	s.bytes -= st.size()
	s.all.bytes.Add(-int64(st.size()))
	s.all.statements.Add(-1)
}

// reset drops what came in pieces.
func (s *statements) reset(st *statement) {
	for _, v := range st.long {
		s.long -= len(v) + longDataCost
		s.all.bytes.Add(-int64(cap(v) + longDataCost))
	}
	st.long, st.broken = nil, nil
}

// longData is COM_STMT_SEND_LONG_DATA, which is never answered: its errors are those of the
// next execution.
func (s *statements) longData(payload []byte) {
	st, refusal := s.find(payload)
	if refusal != nil || st.broken != nil {
		return
	}
	_, param, piece, err := wire.ParseLongData(payload)
	if err != nil || int(param) >= st.params {
		s.reset(st)
		st.broken = wire.Errorf(wire.ErWrongArguments, "Incorrect arguments to mysql_stmt_precheck")
		return
	}
	if broken := s.appendLong(st, param, piece); broken != nil {
		s.reset(st)
		st.broken = broken
	}
}

// appendLong adds to a value. For the session it counts as long as it is; among the holdings of
// all as much as is allocated, which may be twice that.
func (s *statements) appendLong(st *statement, param uint16, piece []byte) *wire.Error {
	old, begun := st.long[param]
	cost := 0
	if !begun {
		cost = longDataCost
	}
	if s.long+cost+len(piece) > maxLongData {
		return wire.Errorf(wire.ErUnknown, "kingbus keeps at most %d bytes that mysql_send_long_data() sends per connection", maxLongData)
	}
	value := append(old, piece...)
	if !take(&s.all.bytes, cost+cap(value)-cap(old), maxAllBytes) {
		return errAllBytes
	}
	if st.long == nil {
		st.long = map[uint16][]byte{}
	}
	st.long[param] = value
	s.long += cost + len(piece)
	return nil
}

// prepare answers COM_STMT_PREPARE.
func (c *session) prepare(payload []byte) error {
	text := string(payload)
	st, params, err := sql.Prepare(text)
	c.setState("Prepare", statementInfo(text, st, err))
	var columns []sql.Column
	if err == nil {
		columns, err = c.describe(st)
	}
	var id uint32
	if err == nil {
		id, err = c.statements.add(text, params)
	}
	c.record(err)
	if err != nil {
		return c.answer(c.notYet(err))
	}
	return c.ws.WritePrepared(id, params, wireColumns(columns))
}

// describe returns the columns of a statement's result as far as MySQL tells them when it
// prepares it: where they are a table's to MySQL, or expressions.
func (c *session) describe(st sql.Statement) ([]sql.Column, error) {
	switch st := st.(type) {
	case *sql.Unsupported:
		return nil, notSupported(st.Verb)
	case *sql.Select:
		return c.sql.Describe(st)
	case *sql.Show:
		switch st.What {
		case sql.ShowVariables, sql.ShowStatus, sql.ShowDatabases, sql.ShowTables, sql.ShowCollation, sql.ShowCharacterSet:
			rs, err := c.show(st)
			if err != nil {
				return nil, err
			}
			return rs.Columns, nil
		}
	}
	return nil, nil
}

// executePrepared answers COM_STMT_EXECUTE. No cursors are opened: who asks for one gets the
// rows at once, as with statements for which MySQL opens none.
func (c *session) executePrepared(ctx context.Context, payload []byte) error {
	prepared, refusal := c.statements.find(payload)
	if refusal != nil {
		return c.ws.WriteError(refusal)
	}
	defer c.statements.reset(prepared)
	if prepared.broken != nil {
		return c.ws.WriteError(prepared.broken)
	}
	ex, err := wire.ParseExecute(payload, prepared.params, prepared.types, prepared.long)
	if err != nil {
		return c.ws.WriteError(errMalformedPacket)
	}
	prepared.types = ex.Types
	values := make([]sql.Value, len(ex.Args))
	for i, arg := range ex.Args {
		values[i] = argument(arg, byte(ex.Types[i]))
	}
	st, err := sql.Bind(prepared.text, values)
	return c.runStatement(ctx, "Execute", prepared.text, st, err, c.ws.BinaryResult)
}

// argument is the value of a parameter.
func argument(v any, typ byte) sql.Value {
	switch v := v.(type) {
	case int64:
		return sql.Int(v)
	case uint64:
		return sql.Uint(v)
	case float64:
		return sql.Double(v)
	case wire.Temporal:
		return sql.Temporal(string(v))
	case []byte:
		if typ == wire.TypeNewDecimal || typ == wire.TypeDecimal {
			return sql.Number(string(v))
		}
		return sql.String(string(v))
	}
	return sql.Null
}

// fetch answers COM_STMT_FETCH.
func (c *session) fetch(payload []byte) error {
	const errNoOpenCursor = 1421 // ER_STMT_HAS_NO_OPEN_CURSOR
	if len(payload) < 8 {
		return c.ws.WriteError(errMalformedPacket)
	}
	if _, refusal := c.statements.find(payload); refusal != nil {
		return c.ws.WriteError(refusal)
	}
	id, _ := wire.ExecuteStatement(payload)
	return c.ws.WriteError(wire.Errorf(errNoOpenCursor, "The statement (%d) has no open cursor.", id))
}

// resetStatement answers COM_STMT_RESET.
func (c *session) resetStatement(payload []byte) error {
	st, refusal := c.statements.find(payload)
	if refusal != nil {
		return c.ws.WriteError(refusal)
	}
	c.statements.reset(st)
	return c.ws.WriteOK(wire.OK{Status: wire.StatusAutocommit})
}

// binaryValue is a value that is not NULL as the binary protocol needs it for its column; false
// if the column's type has no such value.
func binaryValue(col sql.Column, v sql.Value) (any, bool) {
	switch col.Type {
	case sql.TypeLong, sql.TypeLongLong:
		n, ok := v.Uint64()
		if v.Kind() == sql.KindInt {
			return v.Int64(), fits(col, v.Int64() >= 0, n)
		}
		return n, ok && fits(col, true, n)
	case sql.TypeDouble:
		_, err := strconv.ParseFloat(v.Text(), 64)
		return v.Float64(), err == nil
	case sql.TypeDate, sql.TypeDatetime, sql.TypeTimestamp, sql.TypeTime:
		t := wire.Temporal(v.Text())
		return t, t.Fits(byte(col.Type))
	}
	return v.Text(), true
}

// fits tells whether a column of whole numbers has room for one, of which n are the bits.
func fits(col sql.Column, positive bool, n uint64) bool {
	switch {
	case col.Type == sql.TypeLong && col.Unsigned:
		return positive && n <= math.MaxUint32
	case col.Type == sql.TypeLong:
		return int64(n) >= math.MinInt32 && int64(n) <= math.MaxInt32
	case col.Unsigned:
		return positive
	}
	return !positive || n <= math.MaxInt64
}

// holding are the columns of a result, but text where a column's type has not all of its values:
// whoever described it was wrong, and the client is to get them all the same.
func holding(rs *sql.ResultSet) []sql.Column {
	columns := slices.Clone(rs.Columns)
	for i, col := range columns {
		for _, row := range rs.Rows {
			if _, ok := binaryValue(col, row[i]); !ok && !row[i].IsNull() {
				columns[i] = sql.TextColumn(col.Name, col.Length)
				columns[i].Nullable = col.Nullable
				break
			}
		}
	}
	return columns
}
