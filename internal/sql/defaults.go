package sql

import (
	"fmt"
	"strings"
)

// DefaultSessionVariables returns the variables that clients set for themselves, with the defaults of MySQL 9.7.4.
// Setting them changes what reading them gives, and for the character sets, time_zone and timestamp what expressions
// give; nothing else in kingbus looks at them unless the caller makes it so.
//
// max_allowed_packet and net_buffer_length can be read only, as in MySQL.
func DefaultSessionVariables() []Variable {
	var list []Variable
	list = append(list, sessionNumbers()...)
	list = append(list, sessionSwitches()...)
	list = append(list, sessionTexts()...)
	return append(list, sessionState()...)
}

func sessionNumbers() []Variable {
	var list []Variable
	for _, n := range [...]struct {
		name          string
		value         uint64
		lowest, limit uint64
	}{
		{"auto_increment_increment", 1, 1, 65535},
		{"auto_increment_offset", 1, 1, 65535},
		{"bulk_insert_buffer_size", 8 << 20, 0, 0},
		{"cte_max_recursion_depth", 1000, 0, 1<<32 - 1},
		{"default_week_format", 0, 0, 7},
		{"div_precision_increment", 4, 0, 30},
		{"eq_range_index_dive_limit", 200, 0, 1<<32 - 1},
		{"group_concat_max_len", 1024, 4, 0},
		{"information_schema_stats_expiry", 86400, 0, 31536000},
		{"innodb_lock_wait_timeout", 50, 1, 1 << 30},
		{"interactive_timeout", 28800, 1, 31536000},
		{"join_buffer_size", 256 << 10, 128, 0},
		{"lock_wait_timeout", 31536000, 1, 31536000},
		{"max_error_count", 1024, 0, 65535},
		{"max_execution_time", 0, 0, 1<<32 - 1},
		{"max_heap_table_size", 16 << 20, 16 << 10, 0},
		{"max_join_size", 1<<64 - 1, 1, 0},
		{"max_sort_length", 1024, 4, 8 << 20},
		{"net_read_timeout", 30, 1, 31536000},
		{"net_retry_count", 10, 1, 0},
		{"net_write_timeout", 60, 1, 31536000},
		{"optimizer_prune_level", 1, 0, 1},
		{"optimizer_search_depth", 62, 0, 62},
		{"read_buffer_size", 128 << 10, 8 << 10, 1<<31 - 4096},
		{"read_rnd_buffer_size", 256 << 10, 1, 1<<31 - 1},
		{"sort_buffer_size", 256 << 10, 32 << 10, 0},
		{"sql_select_limit", 1<<64 - 1, 0, 0},
		{"tmp_table_size", 16 << 20, 1024, 0},
		{"wait_timeout", 28800, 1, 31536000},
	} {
		list = append(list, Variable{Name: n.name, Type: VarUint, Scope: GlobalAndSession, Default: Uint(n.value), Min: n.lowest, Max: n.limit})
	}
	for name, value := range map[string]uint64{"max_allowed_packet": 64 << 20, "net_buffer_length": 16 << 10} {
		list = append(list, Variable{Name: name, Type: VarUint, Scope: GlobalAndSession, Default: Uint(value), Fixed: true})
	}
	return append(list, Variable{Name: "long_query_time", Type: VarDouble, Scope: GlobalAndSession, Default: decimal("10.000000")})
}

func sessionSwitches() []Variable {
	var list []Variable
	for _, b := range [...]struct {
		name string
		on   bool
	}{
		{"autocommit", true}, {"big_tables", false}, {"explicit_defaults_for_timestamp", true}, {"foreign_key_checks", true},
		{"innodb_strict_mode", true}, {"keep_files_on_create", false}, {"low_priority_updates", false},
		{"old_alter_table", false}, {"profiling", false}, {"session_track_schema", true}, {"session_track_state_change", false},
		{"sql_auto_is_null", false}, {"sql_big_selects", true}, {"sql_buffer_result", false}, {"sql_log_off", false},
		{"sql_notes", true}, {"sql_quote_show_create", true}, {"sql_safe_updates", false}, {"sql_warnings", false},
		{"transaction_read_only", false}, {"unique_checks", true}, {"binlog_rows_query_log_events", false},
	} {
		list = append(list, Variable{Name: b.name, Type: VarBool, Scope: GlobalAndSession, Default: Bool(b.on)})
	}
	// Nothing is logged here, so not logging is harmless.
	return append(list, Variable{Name: "sql_log_bin", Type: VarBool, Scope: SessionOnly, Default: Bool(true)})
}

func sessionTexts() []Variable {
	both := func(name string, kind VarType, value string, values ...string) Variable {
		return Variable{Name: name, Type: kind, Scope: GlobalAndSession, Default: String(value), Values: values}
	}
	list := []Variable{
		both("completion_type", VarEnum, "NO_CHAIN", "NO_CHAIN", "CHAIN", "RELEASE"),
		both("transaction_isolation", VarEnum, "REPEATABLE-READ", "READ-UNCOMMITTED", "READ-COMMITTED", "REPEATABLE-READ", "SERIALIZABLE"),
		both("session_track_gtids", VarEnum, "OFF", "OFF", "OWN_GTID", "ALL_GTIDS"),
		both("session_track_transaction_info", VarEnum, "OFF", "OFF", "STATE", "CHARACTERISTICS"),
		both("default_storage_engine", VarEnum, "InnoDB", "InnoDB", "MyISAM", "MEMORY"),
		both("default_tmp_storage_engine", VarEnum, "InnoDB", "InnoDB", "MyISAM", "MEMORY"),
		both("sql_mode", VarSet, "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION",
			sqlModes[:]...),
		both("optimizer_switch", VarString, "index_merge=on,index_merge_union=on,index_merge_sort_union=on,index_merge_intersection=on,"+
			"engine_condition_pushdown=on,index_condition_pushdown=on,mrr=on,mrr_cost_based=on,"+
			"block_nested_loop=on,batched_key_access=off,materialization=on,semijoin=on,loosescan=on,"+
			"firstmatch=on,duplicateweedout=on,subquery_materialization_cost_based=on,use_index_extensions=on,"+
			"condition_fanout_filter=on,derived_merge=on,use_invisible_indexes=off,skip_scan=on,hash_join=on,"+
			"subquery_to_derived=off,prefer_ordering_index=on,hypergraph_optimizer=off,"+
			"derived_condition_pushdown=on,hash_set_operations=on"),
		both("optimizer_trace", VarString, "enabled=off,one_line=off"),
		both("session_track_system_variables", VarString, "time_zone,autocommit,character_set_client,character_set_results,character_set_connection"),
		both("lc_time_names", VarString, "en_US"),
		both("lc_messages", VarString, "en_US"),
		both("time_zone", VarString, "SYSTEM"),
		both("character_set_database", VarString, "utf8mb4"),
		both("character_set_filesystem", VarString, "binary"),
		both("character_set_server", VarString, "utf8mb4"),
		both("character_set_client", VarString, "utf8mb4"),
		both("character_set_connection", VarString, "utf8mb4"),
		both("character_set_results", VarString, "utf8mb4"),
		both("collation_connection", VarString, "utf8mb4_0900_ai_ci"),
		both("collation_database", VarString, "utf8mb4_0900_ai_ci"),
		both("collation_server", VarString, "utf8mb4_0900_ai_ci"),
		both("default_collation_for_utf8mb4", VarString, "utf8mb4_0900_ai_ci"),
		{Name: "character_set_system", Type: VarString, Default: String("utf8mb3"), ReadOnly: true},
		{Name: "gtid_next", Type: VarString, Scope: SessionOnly, Default: String("AUTOMATIC"), Check: checkGTIDNext},
	}
	for i := range list {
		switch v := &list[i]; v.Name {
		case "time_zone":
			v.Check = checkTimeZone
		case "character_set_client":
			v.Check = checkCharset(v.Name, true)
		case "character_set_results":
			v.Check, v.Nullable = checkCharset(v.Name, false), true
		case "character_set_database", "character_set_filesystem", "character_set_server", "character_set_connection":
			v.Check = checkCharset(v.Name, false)
		case "collation_connection", "collation_database", "collation_server", "default_collation_for_utf8mb4":
			v.Check = checkCollation(v.Name)
		}
	}
	return list
}

// sqlModes are the modes in the order of their bits; the empty ones are bits that no mode has any more.
var sqlModes = [...]string{"REAL_AS_FLOAT", "PIPES_AS_CONCAT", "ANSI_QUOTES", "IGNORE_SPACE", "NOT_USED", "ONLY_FULL_GROUP_BY",
	"NO_UNSIGNED_SUBTRACTION", "NO_DIR_IN_CREATE", "NOT_USED_9", "NOT_USED_10", "NOT_USED_11", "NOT_USED_12", "NOT_USED_13",
	"NOT_USED_14", "NOT_USED_15", "NOT_USED_16", "NOT_USED_17", "NOT_USED_18", "ANSI", "NO_AUTO_VALUE_ON_ZERO",
	"NO_BACKSLASH_ESCAPES", "STRICT_TRANS_TABLES", "STRICT_ALL_TABLES", "NO_ZERO_IN_DATE", "NO_ZERO_DATE",
	"ALLOW_INVALID_DATES", "ERROR_FOR_DIVISION_BY_ZERO", "TRADITIONAL", "NOT_USED_29", "HIGH_NOT_PRECEDENCE",
	"NO_ENGINE_SUBSTITUTION", "PAD_CHAR_TO_FULL_LENGTH", "TIME_TRUNCATE_FRACTIONAL"}

// sessionState are variables whose values the session itself knows.
func sessionState() []Variable {
	return []Variable{
		{Name: "timestamp", Type: VarDouble, Scope: SessionOnly, session: func(s *Session) Value {
			now := s.env.Now()
			return decimal(fmt.Sprintf("%d.%06d", now.Unix(), now.Nanosecond()/1000))
		}},
		{Name: "pseudo_thread_id", Type: VarUint, Scope: SessionOnly, session: func(s *Session) Value { return Uint(uint64(s.env.ConnectionID())) }},
		{Name: "last_insert_id", Aliases: []string{"identity"}, Type: VarUint, Scope: SessionOnly,
			session: func(s *Session) Value { return Uint(s.lastInsertID) }},
		{Name: "warning_count", Type: VarUint, Scope: SessionOnly, ReadOnly: true, session: func(s *Session) Value { return Uint(s.countDiagnostics(false)) }},
		{Name: "error_count", Type: VarUint, Scope: SessionOnly, ReadOnly: true, session: func(s *Session) Value { return Uint(s.countDiagnostics(true)) }},
	}
}

// checkGTIDNext takes AUTOMATIC and ANONYMOUS only: there are no transactions to name.
func checkGTIDNext(v Value) (Value, error) {
	if v.kind != KindString {
		return Null, errWrongType("gtid_next")
	}
	for _, known := range [...]string{"AUTOMATIC", "ANONYMOUS"} {
		if strings.EqualFold(v.s, known) {
			return String(known), nil
		}
	}
	return Null, errNotSupported("gtid_next with a GTID")
}
