package semisync

import (
	"time"

	"kingbus/internal/sql"
)

// Variables are the system variables of a semi-sync source, under MySQL's new and old
// names. They cannot be set yet.
func (s *Source) Variables() []sql.Variable {
	settings := s.Status().WaitSettings
	var out []sql.Variable
	add := func(kind sql.VarType, value sql.Value, names ...string) {
		for _, name := range names {
			out = append(out, sql.Variable{Name: name, Type: kind, ReadOnly: true, Default: value})
		}
	}
	for _, prefix := range []string{"rpl_semi_sync_source_", "rpl_semi_sync_master_"} {
		replica := "replica"
		if prefix == "rpl_semi_sync_master_" {
			replica = "slave"
		}
		add(sql.VarBool, sql.Bool(settings.Enabled), prefix+"enabled")
		add(sql.VarUint, sql.Uint(uint64(settings.Timeout.Milliseconds())), prefix+"timeout")
		add(sql.VarUint, sql.Uint(uint64(settings.Replicas)), prefix+"wait_for_"+replica+"_count")
		add(sql.VarBool, sql.Bool(settings.NoReplica), prefix+"wait_no_"+replica)
		add(sql.VarString, sql.String("AFTER_SYNC"), prefix+"wait_point")
		add(sql.VarUint, sql.Uint(32), prefix+"trace_level")
	}
	return out
}

// StatusVariables are MySQL's, under new and old names. Those that MySQL 5.7 and later
// do not count any more are 0, as there.
func (s *Source) StatusVariables() []sql.Variable {
	st := s.Status()
	average := time.Duration(0)
	if st.TxWaits > 0 {
		average = st.TxWaitTime / time.Duration(st.TxWaits)
	}
	var out []sql.Variable
	for _, prefix := range []string{"Rpl_semi_sync_source_", "Rpl_semi_sync_master_"} {
		number := func(name string, v uint64) {
			out = append(out, sql.Variable{Name: prefix + name, Type: sql.VarUint, Default: sql.Uint(v)})
		}
		number("clients", uint64(st.Clients))
		number("net_avg_wait_time", 0)
		number("net_wait_time", 0)
		number("net_waits", st.Replies)
		number("no_times", st.NoTimes)
		number("no_tx", st.NoTx)
		out = append(out, sql.Variable{Name: prefix + "status", Type: sql.VarBool, Default: sql.Bool(st.On)})
		number("timefunc_failures", 0)
		number("tx_avg_wait_time", uint64(average.Microseconds()))
		number("tx_wait_time", uint64(st.TxWaitTime.Microseconds()))
		number("tx_waits", st.TxWaits)
		number("wait_pos_backtraverse", 0)
		number("wait_sessions", st.Waiting)
		number("yes_tx", st.YesTx)
	}
	return out
}
