package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"kingbus/internal/sql"
	"kingbus/internal/wire"
)

// query answers COM_QUERY. Whatever the statement, the session lives on.
func (c *session) query(ctx context.Context, text string) error {
	st, err := sql.Parse(text)
	return c.runStatement(ctx, "Query", text, st, err, c.ws.TextResult)
}

// statementInfo is a statement as SHOW PROCESSLIST has it: without passwords.
func statementInfo(text string, st sql.Statement, err error) string {
	switch st := st.(type) {
	case *sql.Users:
		return string(st.Verb)
	case *sql.ChangeSource:
		return "CHANGE REPLICATION SOURCE TO"
	case *sql.ReplicaThreads:
		return map[bool]string{false: "START REPLICA", true: "STOP REPLICA"}[st.Stop]
	case *sql.Unsupported:
		return st.Verb
	}
	if err != nil {
		return "" // it may have been meant to be one of these
	}
	return clip(text, 1024)
}

// newResult begins a result set in one of the two protocols.
type newResult func([]wire.Column) (*wire.ResultWriter, error)

// runStatement answers a statement, or the error of reading it, of COM_QUERY and COM_STMT_EXECUTE.
func (c *session) runStatement(ctx context.Context, command, text string, st sql.Statement, err error, begin newResult) error {
	c.server.count.queries.Add(1)
	c.ctx = ctx
	c.setState(command, statementInfo(text, st, err))
	if show, ok := st.(*sql.Show); ok && show.What == sql.ShowBinlogEvents {
		if err := c.may(needs[show.What]); err != nil {
			c.record(err)
			return c.answer(err)
		}
		c.sql.Record(nil)
		return c.showBinlogEvents(show, begin)
	}
	var rs *sql.ResultSet
	if err == nil {
		rs, err = c.execute(ctx, st)
	}
	if show, ok := st.(*sql.Show); !ok || !aboutDiagnostics(show.What) {
		c.record(err)
	}
	if err == nil && rs == nil {
		return c.ws.WriteOK(wire.OK{Status: wire.StatusAutocommit, Warnings: uint16(c.sql.Warnings())})
	}
	if err != nil {
		return c.answer(c.notYet(err))
	}
	return c.rows(rs, begin)
}

// notYet: before a source was seen nobody knows its gtid_mode, and both answers
// would stop replicas of the other mode for good. Any other error makes them
// come back. That goes for a session too that began before the source was seen,
// and whose variables are still those of that time: "unknown variable" is only
// the answer if the source knows none.
func (c *session) notYet(err error) error {
	var e *sql.Error
	if !errors.As(err, &e) || e.Code != sql.CodeUnknownVariable || !strings.Contains(strings.ToLower(e.Message), "'gtid_mode'") {
		return err
	}
	src := c.server.cfg.Stream.Status().Source
	if _, known := src.Variables["gtid_mode"]; src.Version != "" && !known {
		return err
	}
	return wire.Errorf(wire.ErServerShutdown, "kingbus: nothing was received from the source yet; come back")
}

func aboutDiagnostics(what sql.ShowWhat) bool {
	switch what {
	case sql.ShowWarnings, sql.ShowErrors, sql.ShowCountWarnings, sql.ShowCountErrors:
		return true
	}
	return false
}

// execute runs a statement; a nil result is OK without rows.
func (c *session) execute(ctx context.Context, st sql.Statement) (*sql.ResultSet, error) {
	switch st := st.(type) {
	case *sql.Empty, *sql.Transaction:
		return nil, nil
	case *sql.Select:
		// Who asks this way decides by the answer whether to use this node: replicas
		// and connectors begin with a SELECT; MySQL's failover monitor and the checks
		// of proxies are one. SHOW stays for people.
		if refusal := c.server.refusal(); refusal != nil {
			return nil, refusal
		}
		return c.sql.Select(st)
	case *sql.Do:
		return nil, c.sql.Do(st)
	case *sql.Set:
		return nil, c.sql.Set(st)
	case *sql.Use:
		return nil, c.use(st.Database)
	case *sql.Kill:
		id, err := c.sql.Eval(st.ID)
		if err != nil {
			return nil, err
		}
		n, ok := id.Uint64()
		if !ok {
			return nil, wire.Errorf(wire.ErNoSuchThread, "Unknown thread id: %s", clip(id.String(), 64))
		}
		return nil, c.killOther(n, st.Query)
	case *sql.Show:
		return c.show(st)
	case *sql.Users:
		return nil, c.users(ctx, st)
	case *sql.Grant:
		return nil, c.grant(ctx, st)
	case *sql.ChangeSource:
		return nil, c.changeSource(ctx, st)
	case *sql.ReplicaThreads:
		return nil, c.replicaThreads(ctx, st)
	case *sql.ResetReplica:
		return nil, c.resetReplica(ctx, st)
	case *sql.Purge:
		return nil, c.purge(ctx, st)
	case *sql.ResetPersist:
		return nil, c.resetPersist(ctx, st)
	case *sql.Plugin:
		return nil, c.installPlugin(ctx, st)
	case *sql.Flush:
		return nil, c.flush(ctx, st)
	case *sql.Unsupported:
		return nil, notSupported(st.Verb)
	}
	return nil, notSupported(fmt.Sprintf("%T", st))
}

func notSupported(what string) error {
	return wire.Errorf(wire.ErNotSupportedYet, "kingbus is not a database server and does not support %s", clip(what, 64))
}

// rows writes a result set.
func (c *session) rows(rs *sql.ResultSet, begin newResult) error {
	columns := holding(rs)
	w, err := begin(wireColumns(columns))
	if err != nil {
		return err
	}
	values := make([]any, len(columns))
	for _, row := range rs.Rows {
		for i, v := range row {
			switch {
			case v.IsNull():
				values[i] = nil
			case w.Binary():
				values[i], _ = binaryValue(columns[i], v) // holding has seen that it can
			default:
				values[i] = v.Text()
			}
		}
		if err := w.Row(values...); err != nil {
			return err
		}
	}
	return w.End(wire.StatusAutocommit, 0)
}

func wireColumns(columns []sql.Column) []wire.Column {
	out := make([]wire.Column, len(columns))
	for i, col := range columns {
		out[i] = wireColumn(col)
	}
	return out
}

func wireColumn(c sql.Column) wire.Column {
	out := wire.Column{Name: c.Name, Charset: c.Charset, Length: c.Length, Type: byte(c.Type), Decimals: c.Decimals}
	out.Flags = c.Flags
	if !c.Nullable {
		out.Flags |= wire.FlagNotNull
	}
	if c.Unsigned {
		out.Flags |= wire.FlagUnsigned
	}
	if c.Binary() && !c.Stored {
		out.Flags |= wire.FlagBinary
	}
	return out
}
