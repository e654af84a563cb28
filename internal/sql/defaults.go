package sql

import "math"

// DefaultSessionVariables returns the variables that clients set for themselves, with the defaults of MySQL 9.7.4.
// Setting them changes what reading them gives, and for the character sets and time_zone what expressions give; nothing
// else in kingbus looks at them unless the caller makes it so.
//
// max_allowed_packet and net_buffer_length can be read only, as in MySQL.
func DefaultSessionVariables() []Variable {
	number := func(name string, value, least, most uint64) Variable {
		return Variable{Name: name, Type: VarUint, Scope: GlobalAndSession, Default: Uint(value), Min: least, Max: most}
	}
	fixed := func(name string, value uint64) Variable {
		return Variable{Name: name, Type: VarUint, Scope: GlobalAndSession, Default: Uint(value), Fixed: true}
	}
	flag := func(name string, on bool) Variable {
		return Variable{Name: name, Type: VarBool, Scope: GlobalAndSession, Default: Bool(on)}
	}
	text := func(name, value string) Variable {
		return Variable{Name: name, Type: VarString, Scope: GlobalAndSession, Default: String(value)}
	}
	choice := func(name, value string, values ...string) Variable {
		return Variable{Name: name, Type: VarEnum, Scope: GlobalAndSession, Default: String(value), Values: values}
	}
	charset := func(name, value string) Variable {
		v := text(name, value)
		v.Check, v.Nullable = checkCharset(name), name == "character_set_results"
		return v
	}
	collation := func(name string) Variable {
		v := text(name, "utf8mb4_0900_ai_ci")
		v.Check = checkCollation(name)
		return v
	}
	count := func(name string, of func(*Session) Value) Variable {
		return Variable{Name: name, Type: VarUint, Scope: SessionOnly, ReadOnly: true, session: of}
	}
	const year, unlimited = 365 * 86400, math.MaxUint64
	return []Variable{
		number("auto_increment_increment", 1, 1, 65535),
		number("auto_increment_offset", 1, 1, 65535),
		number("group_concat_max_len", 1024, 4, unlimited),
		number("information_schema_stats_expiry", 86400, 0, year),
		number("innodb_lock_wait_timeout", 50, 1, 1<<30),
		number("interactive_timeout", 28800, 1, year),
		number("lock_wait_timeout", year, 1, year),
		number("max_error_count", 1024, 0, 65535),
		number("max_execution_time", 0, 0, 1<<32-1),
		number("max_join_size", unlimited, 1, unlimited),
		number("net_read_timeout", 30, 1, year),
		number("net_retry_count", 10, 1, unlimited),
		number("net_write_timeout", 60, 1, year),
		number("sql_select_limit", unlimited, 0, unlimited),
		number("wait_timeout", 28800, 1, year),
		fixed("max_allowed_packet", 64<<20), fixed("net_buffer_length", 16<<10),
		flag("autocommit", true), flag("explicit_defaults_for_timestamp", true), flag("foreign_key_checks", true),
		flag("session_track_schema", true), flag("session_track_state_change", false), flag("sql_auto_is_null", false),
		flag("sql_big_selects", true), flag("sql_log_off", false), flag("sql_notes", true), flag("sql_quote_show_create", true),
		flag("sql_safe_updates", false), flag("sql_warnings", false), flag("transaction_read_only", false), flag("unique_checks", true),
		{Name: "sql_log_bin", Type: VarBool, Scope: SessionOnly, Default: Bool(true)}, // nothing is logged here anyway
		choice("completion_type", "NO_CHAIN", "NO_CHAIN", "CHAIN", "RELEASE"),
		choice("transaction_isolation", "REPEATABLE-READ", "READ-UNCOMMITTED", "READ-COMMITTED", "REPEATABLE-READ", "SERIALIZABLE"),
		choice("session_track_gtids", "OFF", "OFF", "OWN_GTID", "ALL_GTIDS"),
		choice("session_track_transaction_info", "OFF", "OFF", "STATE", "CHARACTERISTICS"),
		text("session_track_system_variables", "time_zone,autocommit,character_set_client,character_set_results,character_set_connection"),
		text("lc_messages", "en_US"), text("lc_time_names", "en_US"),
		{Name: "time_zone", Type: VarString, Scope: GlobalAndSession, Default: String("SYSTEM"), Check: checkTimeZone},
		charset("character_set_client", "utf8mb4"), charset("character_set_connection", "utf8mb4"),
		charset("character_set_database", "utf8mb4"), charset("character_set_filesystem", "binary"),
		charset("character_set_results", "utf8mb4"), charset("character_set_server", "utf8mb4"),
		{Name: "character_set_system", Type: VarString, Default: String("utf8mb3"), ReadOnly: true},
		{Name: "performance_schema", Type: VarBool, Default: Bool(true), ReadOnly: true}, // Connector/J asks, and cannot do without an answer
		collation("collation_connection"), collation("collation_database"), collation("collation_server"),
		count("warning_count", (*Session).warnings), count("error_count", (*Session).errors),
		{Name: "sql_mode", Type: VarSet, Scope: GlobalAndSession, Default: String("ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES," +
			"NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"), Values: []string{"REAL_AS_FLOAT",
			"PIPES_AS_CONCAT", "ANSI_QUOTES", "IGNORE_SPACE", "ONLY_FULL_GROUP_BY", "NO_UNSIGNED_SUBTRACTION", "NO_DIR_IN_CREATE",
			"ANSI", "NO_AUTO_VALUE_ON_ZERO", "NO_BACKSLASH_ESCAPES", "STRICT_TRANS_TABLES", "STRICT_ALL_TABLES", "NO_ZERO_IN_DATE",
			"NO_ZERO_DATE", "ALLOW_INVALID_DATES", "ERROR_FOR_DIVISION_BY_ZERO", "TRADITIONAL", "HIGH_NOT_PRECEDENCE",
			"NO_ENGINE_SUBSTITUTION", "PAD_CHAR_TO_FULL_LENGTH", "TIME_TRUNCATE_FRACTIONAL"}},
	}
}
