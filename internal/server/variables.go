package server

import (
	"crypto/tls"
	"strconv"
	"strings"

	"kingbus/internal/binlog"
	"kingbus/internal/sql"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// variables are the system variables of a new session: the source's own values,
// with a few that are kingbus's. The table is made anew when another link to the
// source has brought new values.
func (s *Server) variables() *sql.Variables {
	st := s.cfg.Stream.Status()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.variables == nil || s.mu.variablesOf != st.Epoch {
		s.mu.variables, s.mu.variablesOf = s.makeVariables(st.Source), st.Epoch
	}
	return s.mu.variables
}

func (s *Server) makeVariables(src stream.Source) *sql.Variables {
	known := map[string]bool{}
	maria := binlog.IsMariaDB(src.Version)
	own := s.ownVariables(src)
	for _, v := range own {
		known[strings.ToLower(v.Name)] = true
		for _, a := range v.Aliases {
			known[a] = true
		}
	}
	var session []sql.Variable
	for _, v := range sql.DefaultSessionVariables() {
		name := strings.ToLower(v.Name)
		if known[name] {
			continue
		}
		known[name] = true
		for _, a := range v.Aliases {
			known[a] = true
		}
		if value, ok := src.Variables[name]; ok && v.Scope != sql.SessionOnly {
			v.Default = typed(v.Type, value)
		}
		session = append(session, v)
	}
	var rest []sql.Variable
	for name, value := range src.Variables {
		if known[name] || strings.HasPrefix(name, "rpl_semi_sync_") {
			continue // semi-synchronous replication is kingbus's own, or not there: 1193 says so
		}
		if maria && strings.HasPrefix(name, "gtid_") {
			continue // they would tell replicas that they can ask by MariaDB's GTIDs
		}
		v := sql.Variable{Name: name, Type: guess(name, value), ReadOnly: true}
		switch name {
		case "binlog_format", "binlog_row_image", "storage_engine":
			v.Type, v.Scope, v.ReadOnly = sql.VarString, sql.GlobalAndSession, false
		case "tx_isolation", "tx_read_only":
			v.Scope, v.ReadOnly = sql.GlobalAndSession, false
		}
		v.Default = typed(v.Type, value)
		rest = append(rest, v)
	}
	t, err := sql.NewVariables(own, session, rest)
	if err != nil {
		// Only a name that the lists above share could do that: a bug. The rest of
		// the source's variables is worth less than the session.
		s.log.Error("the source's variables cannot be shown", "error", err)
		if t, err = sql.NewVariables(own, session); err != nil {
			t, _ = sql.NewVariables(own) // made here, and tested
		}
	}
	return t
}

// typed makes a value of the text that SHOW VARIABLES printed.
func typed(t sql.VarType, text string) sql.Value {
	switch t {
	case sql.VarBool:
		return sql.Bool(strings.EqualFold(text, "ON") || text == "1")
	case sql.VarUint:
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			return sql.Uint(n)
		}
	case sql.VarDouble:
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return sql.Double(f)
		}
	}
	return sql.String(text)
}

// guess tells the type of a variable by what it looks like, but for the
// enumerations that look like switches.
func guess(name, value string) sql.VarType {
	switch name {
	case "gtid_mode", "enforce_gtid_consistency", "concurrent_insert", "delay_key_write", "event_scheduler", "query_cache_type",
		"session_track_gtids":
		return sql.VarString
	}
	switch {
	case value == "ON", value == "OFF":
		return sql.VarBool
	case value != "" && strings.Trim(value, "0123456789") == "":
		return sql.VarUint
	}
	return sql.VarString
}

// ownVariables are those that differ from the source's. Before a source was seen
// there is no gtid_mode: see notYet.
func (s *Server) ownVariables(src stream.Source) []sql.Variable {
	status := s.cfg.Stream.Status
	textual := func(name string, get func() string, aliases ...string) sql.Variable {
		return sql.Variable{Name: name, Aliases: aliases, Type: sql.VarString, ReadOnly: true, Get: func() sql.Value { return sql.String(get()) }}
	}
	number := func(name string, get func() uint64) sql.Variable {
		return sql.Variable{Name: name, Type: sql.VarUint, ReadOnly: true, Get: func() sql.Value { return sql.Uint(get()) }}
	}
	on := func(name string, value bool, aliases ...string) sql.Variable {
		return sql.Variable{Name: name, Aliases: aliases, Type: sql.VarBool, ReadOnly: true, Default: sql.Bool(value)}
	}
	fixed := func(name, value string, aliases ...string) sql.Variable {
		return sql.Variable{Name: name, Aliases: aliases, Type: sql.VarString, ReadOnly: true, Default: sql.String(value)}
	}
	// What switches a server over sets these; they cannot be switched off.
	always := func(name string) sql.Variable {
		v := on(name, true)
		v.ReadOnly, v.Dynamic = false, true
		v.Check = func(x sql.Value) (sql.Value, error) {
			if text := x.Text(); text != "1" && !strings.EqualFold(text, "ON") && !strings.EqualFold(text, "TRUE") {
				return sql.Null, wire.Errorf(wire.ErNotSupportedYet, "kingbus is always read only: nobody writes to it but its source")
			}
			return sql.Bool(true), nil
		}
		return v
	}
	list := []sql.Variable{
		number("server_id", func() uint64 { return uint64(status().Identity.ServerID) }),
		textual("server_uuid", func() string { return status().Identity.ServerUUID }),
		textual("version", s.version),
		textual("version_comment", func() string { return versionComment(status().Source) }),
		textual("gtid_executed", func() string { return status().Executed.String() }),
		textual("gtid_purged", func() string { return status().Purged.String() }),
		fixed("gtid_owned", ""),
		fixed("hostname", s.cfg.Hostname), fixed("report_host", ""),
		number("port", func() uint64 { return uint64(s.cfg.Port) }), number("report_port", func() uint64 { return uint64(s.cfg.Port) }),
		on("log_bin", true), on("log_replica_updates", true, "log_slave_updates"),
		always("read_only"), always("super_read_only"), on("innodb_read_only", false),
		fixed("init_connect", ""),
	}
	list = append(list, s.cfg.Variables...)
	if s.cfg.Globals != nil {
		list = append(list, s.cfg.Globals.Variables()...)
		list = append(list, fixed("rpl_semi_sync_source_wait_point", "AFTER_SYNC", "rpl_semi_sync_master_wait_point"), on("binlog_expire_logs_auto_purge", true))
		for _, name := range []string{"source", "master", "replica", "slave"} {
			list = append(list, number("rpl_semi_sync_"+name+"_trace_level", func() uint64 { return 32 }))
		}
	}
	if src.Version == "" {
		list = append(list, fixed("binlog_format", "ROW"), fixed("binlog_checksum", "CRC32"), fixed("binlog_row_image", "FULL"),
			number("lower_case_table_names", func() uint64 { return 0 }))
	}
	return list
}

func versionComment(src stream.Source) string {
	if c := src.Variables["version_comment"]; c != "" {
		return "kingbus (" + c + ")"
	}
	return "kingbus"
}

func tlsNames(t *tls.ConnectionState) (cipher, version string) {
	return tls.CipherSuiteName(t.CipherSuite), strings.ReplaceAll(tls.VersionName(t.Version), " ", "v")
}
