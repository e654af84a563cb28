package server

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"kingbus/internal/account"
	"kingbus/internal/sql"
)

// The tables that monitoring reads instead of SHOW statements, with the columns of 9.7's
// (storage/perfschema/table_replication_*.cc).

// cell is a column with the value of a row in it.
type cell struct {
	column sql.Column
	value  sql.Value
}

// Columns of those tables.
func char(name string, length uint32, flags uint16) sql.Column {
	c := sql.TextColumn(name, length)
	c.Type, c.Decimals, c.Flags = sql.TypeString, 0, sql.FlagNoDefault|flags
	return c
}

func varchar(name string, length uint32) sql.Column {
	c := sql.TextColumn(name, length)
	c.Decimals, c.Flags = 0, sql.FlagNoDefault
	return c
}

func enum(name string, length uint32) sql.Column { return char(name, length, sql.FlagEnum) }

// identifier is a CHAR of names that are compared as bytes.
func identifier(name string, length uint32) sql.Column { return char(name, length, flagBinary) }

// flagBinary is BINARY_FLAG, of text that is compared as bytes.
const flagBinary = 1 << 7

func integer(name string) sql.Column {
	c := long(name, 11)
	c.Unsigned, c.Flags = false, sql.FlagNoDefault
	return c
}

func bigint(name string) sql.Column {
	c := whole(name, 20)
	c.Flags = sql.FlagNoDefault
	return c
}

func timestamp(name string) cell {
	c := sql.NumberColumn(name)
	c.Type, c.Length, c.Decimals, c.Flags = sql.TypeTimestamp, 26, 6, sql.FlagNoDefault|flagBinary
	return cell{c, sql.String("0000-00-00 00:00:00.000000")}
}

// timestampOf is in the session's time zone.
func (c *session) timestampOf(name string, t time.Time) cell {
	out := timestamp(name)
	if !t.IsZero() {
		out.value = sql.String(c.sql.Local(t).Format("2006-01-02 15:04:05.000000"))
	}
	return out
}

func channelName() cell {
	return cell{char("CHANNEL_NAME", 64, sql.FlagPrimaryKey|sql.FlagPartKey), sql.String("")}
}

func threadID(name string) cell {
	c := nullable(whole(name, 20))
	c.Flags = sql.FlagMultipleKey | sql.FlagPartKey
	return cell{c, sql.Null}
}

func gtidCell(name, value string) cell {
	c := nullable(char(name, 90, 0))
	c.Flags = 0
	return cell{c, sql.String(value)}
}

// table makes a table of one row, or of none.
func tableOf(there bool, cells ...cell) *sql.ResultSet {
	rs := &sql.ResultSet{}
	var row []sql.Value
	for _, c := range cells {
		c.column.Stored = true
		rs.Columns, row = append(rs.Columns, c.column), append(row, c.value)
	}
	if there {
		rs.Rows = [][]sql.Value{row}
	}
	return rs
}

// Table implements sql.Env.
func (c *session) Table(t sql.Table) (*sql.ResultSet, error) {
	schema, name := strings.ToLower(t.Schema), strings.ToLower(t.Name)
	switch schema + "." + name {
	case "performance_schema.global_variables":
		return c.sql.VariablesTable(sql.ScopeGlobal), nil
	case "performance_schema.session_variables":
		return c.sql.VariablesTable(sql.ScopeSession), nil
	case "performance_schema.global_status", "performance_schema.session_status":
		status, err := c.statusVariables()
		if err != nil {
			return nil, err
		}
		return c.sql.StatusTable(status, map[string]sql.Scope{"global_status": sql.ScopeGlobal, "session_status": sql.ScopeSession}[name]), nil
	case "performance_schema.persisted_variables":
		return c.persistedVariables(), nil
	case "performance_schema.processlist", "information_schema.processlist":
		return c.processlistTable(schema), nil
	case "information_schema.plugins":
		return c.pluginsTable(), nil
	}
	make, there := map[string]func(bool, *Replication) *sql.ResultSet{
		"replication_connection_status": c.connectionStatus, "replication_connection_configuration": c.connectionConfiguration,
		"replication_applier_status": c.applierStatus, "replication_applier_configuration": c.applierConfiguration,
		"replication_applier_status_by_worker": c.applierWorker, "replication_applier_status_by_coordinator": c.applierCoordinator,
	}[name]
	if schema != "performance_schema" || !there {
		return nil, nil
	}
	if c.may(account.ReplicationClient) != nil {
		return nil, c.noTableAccess("SELECT", name)
	}
	var r *Replication
	if c.server.cfg.Replication != nil {
		r = c.server.cfg.Replication()
	}
	return make(r != nil, cmp.Or(r, &Replication{})), nil
}

// service is SERVICE_STATE of the link.
func (r *Replication) service() sql.Value {
	switch r.Running {
	case "Yes":
		return sql.String("ON")
	case "Connecting":
		return sql.String("CONNECTING")
	}
	return sql.String("OFF")
}

func yesNo(yes bool) sql.Value {
	if yes {
		return sql.String("YES")
	}
	return sql.String("NO")
}

func zeroOne(one bool) sql.Value {
	if one {
		return sql.String("1")
	}
	return sql.String("0")
}

// stored are the columns about a transaction that is done: its GTID under a name, and four times,
// of which the last two are when it began and ended to be stored, which is one moment here.
func (c *session) stored(name, first, done string) []cell {
	last, there := c.server.cfg.Stream.LastTransaction()
	gtid := ""
	if there {
		if gtid = "ANONYMOUS"; !last.GTID.IsZero() {
			gtid = last.GTID.String()
		}
	}
	return []cell{gtidCell(name, gtid), c.timestampOf(name+"_ORIGINAL_COMMIT_TIMESTAMP", last.Original), c.timestampOf(name+"_IMMEDIATE_COMMIT_TIMESTAMP", last.Immediate),
		c.timestampOf(name+"_"+first+"_TIMESTAMP", last.Stored), c.timestampOf(name+"_"+done+"_TIMESTAMP", last.Stored)}
}

// underWay are those about one that is not: nobody is told of it before it is stored.
func underWay(name, first string) []cell {
	return []cell{gtidCell(name, ""), timestamp(name + "_ORIGINAL_COMMIT_TIMESTAMP"), timestamp(name + "_IMMEDIATE_COMMIT_TIMESTAMP"), timestamp(name + "_" + first + "_TIMESTAMP")}
}

func (c *session) connectionStatus(there bool, r *Replication) *sql.ResultSet {
	st := c.server.cfg.Stream.Status()
	received := ""
	if r.ByGTID {
		received = st.Executed.String()
	}
	set := sql.TextColumn("RECEIVED_TRANSACTION_SET", 0)
	set.Type, set.Length, set.Decimals, set.Flags = sql.TypeBlob, 1<<32-1, 0, sql.FlagNoDefault|sql.FlagBlob
	heartbeats := bigint("COUNT_RECEIVED_HEARTBEATS")
	heartbeats.Flags = 0
	cells := []cell{
		channelName(), {identifier("GROUP_NAME", 36), sql.String("")}, {identifier("SOURCE_UUID", 36), sql.String(st.Source.UUID)}, threadID("THREAD_ID"),
		{enum("SERVICE_STATE", 10), r.service()}, {heartbeats, sql.Uint(r.Heartbeats)}, c.timestampOf("LAST_HEARTBEAT_TIMESTAMP", r.HeartbeatAt), {set, sql.String(received)},
		{integer("LAST_ERROR_NUMBER"), sql.Int(int64(r.Errno))}, {varchar("LAST_ERROR_MESSAGE", 1024), sql.String(r.Error)}, c.timestampOf("LAST_ERROR_TIMESTAMP", r.ErrorAt),
	}
	cells = append(cells, c.stored("LAST_QUEUED_TRANSACTION", "START_QUEUE", "END_QUEUE")...)
	return tableOf(there, append(cells, underWay("QUEUEING_TRANSACTION", "START_QUEUE")...)...)
}

func (c *session) connectionConfiguration(there bool, r *Replication) *sql.ResultSet {
	none := sql.String("")
	interval := sql.NumberColumn("HEARTBEAT_INTERVAL")
	interval.Type, interval.Length, interval.Decimals, interval.Flags = sql.TypeDouble, 10, 3, sql.FlagNoDefault
	suites := nullable(sql.TextColumn("TLS_CIPHERSUITES", 65535))
	suites.Type, suites.Decimals, suites.Flags = sql.TypeBlob, 0, sql.FlagBlob|flagBinary
	return tableOf(there,
		channelName(), cell{char("HOST", 255, 0), sql.String(r.Host)}, cell{integer("PORT"), sql.Int(int64(r.Port))}, cell{identifier("USER", 32), sql.String(r.User)},
		cell{identifier("NETWORK_INTERFACE", 60), none}, cell{enum("AUTO_POSITION", 1), zeroOne(r.ByGTID)},
		cell{enum("SSL_ALLOWED", 7), yesNo(r.TLS)}, cell{varchar("SSL_CA_FILE", 512), sql.String(r.CA)}, cell{varchar("SSL_CA_PATH", 512), none}, cell{varchar("SSL_CERTIFICATE", 512), sql.String(r.Cert)},
		cell{varchar("SSL_CIPHER", 512), none}, cell{varchar("SSL_KEY", 512), sql.String(r.Key)}, cell{enum("SSL_VERIFY_SERVER_CERTIFICATE", 3), yesNo(r.Verify)},
		cell{varchar("SSL_CRL_FILE", 255), none}, cell{varchar("SSL_CRL_PATH", 255), none}, cell{integer("CONNECTION_RETRY_INTERVAL"), sql.Int(1)}, cell{bigint("CONNECTION_RETRY_COUNT"), sql.Uint(0)},
		cell{interval, sql.String(strconv.FormatFloat(r.HeartbeatEvery.Seconds(), 'f', 3, 64))}, cell{varchar("TLS_VERSION", 255), none}, cell{varchar("PUBLIC_KEY_PATH", 512), none}, cell{enum("GET_PUBLIC_KEY", 3), yesNo(r.GetPublicKey)},
		cell{varchar("NETWORK_NAMESPACE", 64), none}, cell{identifier("COMPRESSION_ALGORITHM", 64), sql.String("uncompressed")}, cell{integer("ZSTD_COMPRESSION_LEVEL"), sql.Int(3)},
		cell{suites, sql.Null}, cell{enum("SOURCE_CONNECTION_AUTO_FAILOVER", 1), zeroOne(false)}, cell{enum("GTID_ONLY", 1), zeroOne(false)},
	)
}

// What is stored counts as applied: the applier is always on.
func (c *session) applierStatus(there bool, _ *Replication) *sql.ResultSet {
	delay := nullable(long("REMAINING_DELAY", 10))
	return tableOf(there, channelName(), cell{enum("SERVICE_STATE", 3), sql.String("ON")}, cell{delay, sql.Null}, cell{bigint("COUNT_TRANSACTIONS_RETRIES"), sql.Uint(0)})
}

func (c *session) applierConfiguration(there bool, _ *Replication) *sql.ResultSet {
	blob := func(name string) sql.Column {
		b := nullable(sql.TextColumn(name, 65535))
		b.Type, b.Decimals, b.Flags = sql.TypeBlob, 0, sql.FlagBlob|flagBinary
		return b
	}
	return tableOf(there, channelName(), cell{integer("DESIRED_DELAY"), sql.Int(0)}, cell{blob("PRIVILEGE_CHECKS_USER"), sql.Null}, cell{enum("REQUIRE_ROW_FORMAT", 3), yesNo(false)},
		cell{enum("REQUIRE_TABLE_PRIMARY_KEY_CHECK", 8), sql.String("STREAM")}, cell{enum("ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS_TYPE", 5), sql.String("OFF")},
		cell{blob("ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS_VALUE"), sql.Null})
}

// appliedBy are the columns that coordinator and workers have.
func (c *session) appliedBy(last, now, first, done string) []cell {
	cells := []cell{threadID("THREAD_ID"), {enum("SERVICE_STATE", 3), sql.String("ON")}, {integer("LAST_ERROR_NUMBER"), sql.Int(0)}, {varchar("LAST_ERROR_MESSAGE", 1024), sql.String("")}, timestamp("LAST_ERROR_TIMESTAMP")}
	return append(append(cells, c.stored(last, first, done)...), underWay(now, first)...)
}

// applierWorker: there is one, which never fails.
func (c *session) applierWorker(there bool, _ *Replication) *sql.ResultSet {
	id := bigint("WORKER_ID")
	id.Flags |= sql.FlagPrimaryKey | sql.FlagPartKey
	cells := append([]cell{channelName(), {id, sql.Uint(0)}}, c.appliedBy("LAST_APPLIED_TRANSACTION", "APPLYING_TRANSACTION", "START_APPLY", "END_APPLY")...)
	for _, which := range []string{"LAST_APPLIED", "APPLYING"} {
		message := nullable(varchar(which+"_TRANSACTION_LAST_TRANSIENT_ERROR_MESSAGE", 1024))
		message.Flags = 0
		cells = append(cells, cell{bigint(which + "_TRANSACTION_RETRIES_COUNT"), sql.Uint(0)}, cell{integer(which + "_TRANSACTION_LAST_TRANSIENT_ERROR_NUMBER"), sql.Int(0)},
			cell{message, sql.String("")}, timestamp(which+"_TRANSACTION_LAST_TRANSIENT_ERROR_TIMESTAMP"))
	}
	return tableOf(there, cells...)
}

// applierCoordinator: there is none, as with a single worker.
func (c *session) applierCoordinator(bool, *Replication) *sql.ResultSet {
	return tableOf(false, append([]cell{channelName()}, c.appliedBy("LAST_PROCESSED_TRANSACTION", "PROCESSING_TRANSACTION", "START_BUFFER", "END_BUFFER")...)...)
}

func (c *session) persistedVariables() *sql.ResultSet {
	rs := c.sql.VariablesTable(sql.ScopeGlobal)
	var set []string
	if c.server.cfg.Globals != nil {
		set, _ = c.server.cfg.Globals.Set()
	}
	rs.Rows = slices.DeleteFunc(rs.Rows, func(row []sql.Value) bool { return !slices.Contains(set, row[0].Text()) })
	return rs
}

// processlistTable is SHOW FULL PROCESSLIST as a table of one of two schemas.
func (c *session) processlistTable(schema string) *sql.ResultSet {
	rs := c.showProcesslist(true)
	blob := func(length uint32) sql.Column {
		b := nullable(sql.TextColumn("INFO", 0))
		b.Type, b.Length, b.Decimals, b.Flags = sql.TypeBlob, length, 0, sql.FlagBlob
		return b
	}
	plain := func(name string, length uint32) sql.Column {
		p := varchar(name, length)
		p.Flags = 0
		return p
	}
	if schema == "information_schema" {
		id := whole("ID", 22)
		time := signed(long("TIME", 8))
		id.Stored, time.Stored = true, true
		rs.Columns = []sql.Column{id, plain("USER", 32), plain("HOST", 261), nullable(plain("DB", 64)), plain("COMMAND", 16), time, nullable(plain("STATE", 64)), blob(786420)}
		return rs
	}
	id := bigint("ID")
	id.Flags |= sql.FlagPrimaryKey | sql.FlagPartKey
	time := nullable(signed(whole("TIME", 20)))
	engine := nullable(enum("EXECUTION_ENGINE", 9))
	engine.Flags = sql.FlagEnum
	id.Stored, time.Stored = true, true
	rs.Columns = []sql.Column{id, nullable(plain("USER", 32)), nullable(plain("HOST", 261)), nullable(plain("DB", 64)), nullable(plain("COMMAND", 16)), time, nullable(plain("STATE", 64)), blob(1<<32 - 1), engine}
	for i := range rs.Rows {
		rs.Rows[i] = append(rs.Rows[i], sql.String("PRIMARY"))
	}
	return rs
}

func (c *session) pluginsTable() *sql.ResultSet {
	column := func(name string, length uint32) sql.Column {
		v := varchar(name, length)
		v.Flags = 0
		return v
	}
	description := nullable(sql.TextColumn("PLUGIN_DESCRIPTION", 0))
	description.Type, description.Length, description.Decimals, description.Flags = sql.TypeBlob, 786420, 0, sql.FlagBlob
	rs := result(column("PLUGIN_NAME", 64), column("PLUGIN_VERSION", 20), column("PLUGIN_STATUS", 10), column("PLUGIN_TYPE", 80), column("PLUGIN_TYPE_VERSION", 20), nullable(column("PLUGIN_LIBRARY", 64)),
		nullable(column("PLUGIN_LIBRARY_VERSION", 20)), nullable(column("PLUGIN_AUTHOR", 64)), description, nullable(column("PLUGIN_LICENSE", 80)), column("LOAD_OPTION", 64))
	for _, row := range c.showPlugins().Rows { // name, status, type, library, license
		s := sql.String
		rs.Rows = append(rs.Rows, []sql.Value{row[0], s("1.0"), row[1], row[2], s("1.0"), row[3], sql.Null, s("kingbus"), s("Part of kingbus"), row[4], s("ON")})
	}
	return rs
}
