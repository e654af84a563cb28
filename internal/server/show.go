package server

import (
	"kingbus/internal/account"

	"kingbus/internal/sql"
	"kingbus/internal/wire"
)

// databases are those that SHOW DATABASES lists and USE takes. They are empty.
var databases = [...]string{"information_schema", "mysql", "performance_schema", "sys"}

// show answers SHOW. Columns are those of protocol.md B6; statements spelled
// with MASTER and SLAVE get the columns in those words.
func (c *session) show(st *sql.Show) (*sql.ResultSet, error) {
	switch st.What {
	case sql.ShowVariables:
		return c.sql.ShowVariables(st)
	case sql.ShowStatus:
		status, err := c.statusVariables()
		if err != nil {
			return nil, err
		}
		return c.sql.ShowStatus(status, st)
	case sql.ShowWarnings, sql.ShowErrors, sql.ShowCountWarnings, sql.ShowCountErrors:
		return c.sql.ShowDiagnostics(st), nil
	}
	rs, err := c.table(st)
	if err != nil {
		return nil, err
	}
	c.sql.Localize(rs)
	return rs, c.sql.Filter(rs, st.Filter)
}

// needs are the privileges that SHOW statements need.
var needs = map[sql.ShowWhat]account.Privileges{
	sql.ShowBinaryLogs: account.ReplicationClient, sql.ShowLogStatus: account.ReplicationClient, sql.ShowReplicaStatus: account.ReplicationClient,
	sql.ShowReplicas: account.ReplicationSlave, sql.ShowBinlogEvents: account.ReplicationSlave,
}

func (c *session) table(st *sql.Show) (*sql.ResultSet, error) {
	if p := needs[st.What]; p != 0 {
		if err := c.may(p); err != nil {
			return nil, err
		}
	}
	switch st.What {
	case sql.ShowDatabases:
		name := varchar("Database"+pattern(st), 64)
		name.Flags |= flagBinary
		rs := result(name)
		for _, name := range databases {
			rs.Rows = append(rs.Rows, []sql.Value{sql.String(name)})
		}
		return rs, nil
	case sql.ShowTables:
		if c.db == "" {
			return nil, wire.Errorf(wire.ErNoDB, "No database selected")
		}
		return result(text("Tables_in_"+c.db+pattern(st), 64)), nil
	case sql.ShowBinaryLogs:
		return c.showBinaryLogs(), nil
	case sql.ShowLogStatus:
		return c.showLogStatus(), nil
	case sql.ShowReplicas:
		return c.showReplicas(st.Old), nil
	case sql.ShowReplicaStatus:
		return c.showReplicaStatus(st)
	case sql.ShowProcesslist:
		return c.showProcesslist(st.Full), nil
	case sql.ShowGrants:
		return c.showGrants(st)
	case sql.ShowEngines:
		return result(schemaText("Engine", 64), schemaText("Support", 8), schemaText("Comment", 80), nullable(schemaText("Transactions", 3)), nullable(schemaText("XA", 3)), nullable(schemaText("Savepoints", 3))), nil
	case sql.ShowPlugins:
		return c.showPlugins(), nil
	case sql.ShowCollation:
		return showCollation(), nil
	case sql.ShowCharacterSet:
		return showCharacterSet(), nil
	}
	return nil, notSupported("SHOW " + string(st.What))
}

// pattern is what LIKE adds to the name of the column of names.
func pattern(st *sql.Show) string {
	if op, ok := st.Filter.(*sql.Op); ok && op.Name == "LIKE" {
		if column, ok := op.Args[0].(*sql.ColumnRef); ok && column.Name == "" { // not WHERE name LIKE …
			return " (" + op.Args[1].(*sql.Literal).Value.Text() + ")"
		}
	}
	return ""
}

// text, long and whole are columns of 9.7's: text of so many characters, and numbers of 32
// and of 64 bits with the width that a client shows.
func text(name string, length uint32) sql.Column { return sql.TextColumn(name, length) }

func long(name string, width uint32) sql.Column {
	c := sql.UnsignedColumn(name)
	c.Type, c.Length = sql.TypeLong, width
	return c
}

func whole(name string, width uint32) sql.Column {
	c := sql.UnsignedColumn(name)
	c.Length = width
	return c
}

func signed(c sql.Column) sql.Column {
	c.Unsigned = false
	return c
}

func nullable(c sql.Column) sql.Column {
	c.Nullable = true
	return c
}

func result(columns ...sql.Column) *sql.ResultSet { return &sql.ResultSet{Columns: columns} }

func (c *session) showBinaryLogs() *sql.ResultSet {
	rs := result(text("Log_name", 255), sql.UnsignedColumn("File_size"), text("Encrypted", 3))
	for _, f := range c.server.cfg.Stream.Status().Files {
		rs.Rows = append(rs.Rows, []sql.Value{sql.String(f.Name), sql.Uint(f.Size), sql.String("No")})
	}
	return rs
}

func (c *session) showLogStatus() *sql.ResultSet {
	st := c.server.cfg.Stream.Status()
	executed := st.Executed.String()
	rs := result(text("File", 512), sql.UnsignedColumn("Position"), text("Binlog_Do_DB", 255), text("Binlog_Ignore_DB", 255), text("Executed_Gtid_Set", uint32(len(executed))))
	if st.End.File == "" {
		return rs
	}
	none := sql.String("")
	rs.Rows = [][]sql.Value{{sql.String(st.End.File), sql.Uint(st.End.Pos), none, none, sql.String(executed)}}
	return rs
}

// showReplicas lists those that have registered, dumping or not.
func (c *session) showReplicas(old bool) *sql.ResultSet {
	source, uuid := "Source_Id", "Replica_UUID"
	if old {
		source, uuid = "Master_Id", "Slave_UUID"
	}
	rs := result(long("Server_Id", 11), text("Host", 255), long("Port", 8), long(source, 11), text(uuid, 36))
	id := c.server.cfg.Stream.Status().Identity.ServerID
	for _, other := range c.server.list() {
		other.mu.Lock()
		reg, uuid := other.mu.reg, other.mu.uuid
		other.mu.Unlock()
		if reg == nil {
			continue
		}
		rs.Rows = append(rs.Rows, []sql.Value{sql.Uint(uint64(reg.serverID)), sql.String(reg.host), sql.Uint(uint64(reg.port)),
			sql.Uint(uint64(id)), sql.String(uuid)})
	}
	return rs
}

func (c *session) showProcesslist(full bool) *sql.ResultSet {
	const short = 100
	info := nullable(text("Info", short))
	if full {
		info.Type, info.Length = sql.TypeLongBlob, 3<<28
	}
	rs := result(signed(whole("Id", 22)), text("User", 32), text("Host", 255), nullable(text("db", 64)), text("Command", 16), signed(long("Time", 8)),
		nullable(text("State", 30)), info)
	now := c.server.cfg.Now()
	all := c.server.cfg.Users == nil || c.may(account.Super) == nil
	for _, other := range c.server.list() {
		if !all && other.ws.User != c.ws.User {
			continue
		}
		other.mu.Lock()
		command, since, statement, dumping := other.mu.command, other.mu.changed, other.mu.info, other.mu.dump != nil
		other.mu.Unlock()
		if !full {
			statement = clip(statement, short)
		}
		state := ""
		if dumping {
			state = "Sending binlog events, or waiting for more"
		}
		row := []sql.Value{sql.Uint(uint64(other.ws.ID)), sql.String(other.ws.User), sql.String(other.pc.RemoteAddr().String()), sql.Null,
			sql.String(command), sql.Int(int64(max(0, now.Sub(since).Seconds()))), sql.String(state), sql.Null}
		if other == c && c.db != "" {
			row[3] = sql.String(c.db)
		}
		if statement != "" {
			row[7] = sql.String(statement)
		}
		rs.Rows = append(rs.Rows, row)
	}
	return rs
}

// statusVariables are those of SHOW STATUS.
func (c *session) statusVariables() (*sql.Variables, error) {
	n := c.server.Counters()
	number := func(name string, v uint64) sql.Variable {
		return sql.Variable{Name: name, Type: sql.VarUint, Default: sql.Uint(v)}
	}
	cipher, version := "", ""
	if t := c.ws.TLSState(); t != nil {
		cipher, version = tlsNames(t)
	}
	own := func(name, v string) sql.Variable {
		return sql.Variable{Name: name, Type: sql.VarString, Scope: sql.GlobalAndSession, Default: sql.String(v)}
	}
	var more []sql.Variable
	if c.server.cfg.Status != nil {
		more = c.server.cfg.Status()
	}
	return sql.NewVariables(more, []sql.Variable{
		number("Aborted_connects", n.FailedLogins), number("Connections", n.Connections),
		number("Connection_errors_max_connections", n.Refused), number("Questions", n.Queries), number("Queries", n.Queries),
		number("Threads_connected", uint64(n.Open)), number("Threads_running", 1),
		number("Uptime", uint64(max(0, c.server.cfg.Now().Sub(c.server.started).Seconds()))),
		own("Ssl_cipher", cipher), own("Ssl_version", version),
	})
}
