package server

import (
	"cmp"
	"strings"
	"time"

	"kingbus/internal/source"
	"kingbus/internal/sql"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// Replication is what SHOW REPLICA STATUS says of the link to the source, for which the
// words are MySQL's. There is one channel, "".
type Replication struct {
	Host, User string
	Port       uint16
	// Running is Yes, No or Connecting, and State what it does in words.
	Running, State string
	TLS            bool
	ByGTID         bool
	Until          source.Until
	// How the source has to show who it is, and kingbus shows itself; files on this node.
	CA, Cert, Key string
	Verify        bool // that the certificate was issued for the host
	GetPublicKey  bool
	// Received is up to where the source's binlog has come, in its coordinates.
	Received stream.Coordinates
	// Behind is how old the newest event is that was stored, if Known.
	Behind time.Duration
	Known  bool
	// The last error, and when it was; Errno 0 is none.
	Errno   uint16
	Error   string
	ErrorAt time.Time
	// Heartbeats is how many came over the present connection, the last one at HeartbeatAt;
	// HeartbeatEvery is how long the source may be silent before it sends one.
	Heartbeats     uint64
	HeartbeatAt    time.Time
	HeartbeatEvery time.Duration
}

// statusColumn is one of SHOW REPLICA STATUS: value is NULL, a text or a number.
type statusColumn struct {
	column sql.Column
	value  sql.Value
}

// statusOf returns the columns of 9.7 and what kingbus has to say in each: its log is its
// relay log, and what is committed in it counts as executed.
func statusOf(r *Replication, st stream.Status) []statusColumn {
	none, zero := sql.String(""), sql.Uint(0)
	s, n := sql.String, func(v uint64) sql.Value { return sql.Uint(v) }
	yesNo := func(yes bool) sql.Value {
		if yes {
			return sql.String("Yes")
		}
		return sql.String("No")
	}
	flag := func(on bool) sql.Value { return map[bool]sql.Value{false: zero, true: n(1)}[on] }
	behind := sql.Null
	if r.Known {
		behind = n(uint64(max(0, r.Behind.Seconds())))
	}
	errorAt := none
	if !r.ErrorAt.IsZero() {
		errorAt = s(r.ErrorAt.Format("060102 15:04:05"))
	}
	auto, executed, retrieved := zero, st.Executed.String(), ""
	if r.ByGTID {
		auto, retrieved = n(1), executed
	}
	condition := "None"
	at, set, after := r.Until.Parts()
	switch {
	case at.File != "":
		condition = "Source"
	case after:
		condition = "SQL_AFTER_GTIDS"
	case !set.IsEmpty():
		condition = "SQL_BEFORE_GTIDS"
	}
	var space uint64
	for _, f := range st.Files {
		space += f.Size
	}
	const longName = 512
	return []statusColumn{
		{text("Replica_IO_State", 14), s(r.State)},
		{text("Source_Host", 256), s(r.Host)}, {text("Source_User", 97), s(r.User)}, {long("Source_Port", 8), n(uint64(r.Port))}, {long("Connect_Retry", 11), n(1)},
		{text("Source_Log_File", longName), s(r.Received.File)}, {whole("Read_Source_Log_Pos", 11), n(r.Received.Pos)},
		{text("Relay_Log_File", longName), s(st.End.File)}, {whole("Relay_Log_Pos", 11), n(st.End.Pos)}, {text("Relay_Source_Log_File", longName), s(st.SourceEnd.File)},
		{text("Replica_IO_Running", 3), s(r.Running)}, {text("Replica_SQL_Running", 3), yesNo(true)},
		{text("Replicate_Do_DB", 20), none}, {text("Replicate_Ignore_DB", 20), none}, {text("Replicate_Do_Table", 20), none}, {text("Replicate_Ignore_Table", 23), none},
		{text("Replicate_Wild_Do_Table", 24), none}, {text("Replicate_Wild_Ignore_Table", 28), none},
		{long("Last_Errno", 5), zero}, {text("Last_Error", 20), none}, {long("Skip_Counter", 11), zero},
		{whole("Exec_Source_Log_Pos", 11), n(st.SourceEnd.Pos)}, {whole("Relay_Log_Space", 11), n(space)},
		{text("Until_Condition", 6), s(condition)}, {text("Until_Log_File", longName), s(at.File)}, {whole("Until_Log_Pos", 11), n(at.Pos)},
		{text("Source_SSL_Allowed", 7), yesNo(r.TLS)}, {text("Source_SSL_CA_File", longName), s(r.CA)}, {text("Source_SSL_CA_Path", longName), none},
		{text("Source_SSL_Cert", longName), s(r.Cert)}, {text("Source_SSL_Cipher", longName), none}, {text("Source_SSL_Key", longName), s(r.Key)},
		{whole("Seconds_Behind_Source", 11), behind}, {text("Source_SSL_Verify_Server_Cert", 3), yesNo(r.Verify)},
		{long("Last_IO_Errno", 5), n(uint64(r.Errno))}, {text("Last_IO_Error", 20), s(r.Error)}, {long("Last_SQL_Errno", 5), zero}, {text("Last_SQL_Error", 20), none},
		{text("Replicate_Ignore_Server_Ids", longName), none}, {long("Source_Server_Id", 9), n(uint64(st.Source.ServerID))}, {text("Source_UUID", 36), s(st.Source.UUID)},
		{text("Source_Info_File", 1024), none}, {long("SQL_Delay", 11), zero}, {long("SQL_Remaining_Delay", 9), sql.Null},
		{text("Replica_SQL_Running_State", 20), s("Replica has read all relay log; waiting for more updates")},
		{whole("Source_Retry_Count", 11), zero}, {text("Source_Bind", 256), none}, {text("Last_IO_Error_Timestamp", 20), errorAt}, {text("Last_SQL_Error_Timestamp", 20), none},
		{text("Source_SSL_Crl", longName), none}, {text("Source_SSL_Crlpath", longName), none},
		{text("Retrieved_Gtid_Set", uint32(len(retrieved))), s(retrieved)}, {text("Executed_Gtid_Set", uint32(len(executed))), s(executed)},
		{long("Auto_Position", 9), auto}, {text("Replicate_Rewrite_DB", 24), none}, {text("Channel_Name", 192), none}, {text("Source_TLS_Version", longName), none},
		{text("Source_public_key_path", longName), none}, {long("Get_Source_public_key", 9), flag(r.GetPublicKey)}, {text("Network_Namespace", 193), none},
	}
}

// oldWords are the names of columns in the words of SHOW SLAVE STATUS.
var oldWords = strings.NewReplacer("Get_Source_", "Get_master_", "Source", "Master", "Replica_", "Slave_")

func (c *session) showReplicaStatus(st *sql.Show) (*sql.ResultSet, error) {
	if st.Channel != "" {
		return nil, wire.Errorf(errNoSuchChannel, "Replica channel '%s' does not exist.", clip(st.Channel, 64))
	}
	rs := &sql.ResultSet{}
	var row []sql.Value
	var r *Replication
	if c.server.cfg.Replication != nil {
		r = c.server.cfg.Replication()
	}
	shown := cmp.Or(r, &Replication{})
	for _, col := range statusOf(shown, c.server.cfg.Stream.Status()) {
		if st.Old {
			col.column.Name = oldWords.Replace(col.column.Name)
		}
		rs.Columns, row = append(rs.Columns, col.column), append(row, col.value)
	}
	if r != nil {
		rs.Rows = [][]sql.Value{row}
	}
	return rs, nil
}
