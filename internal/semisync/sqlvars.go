package semisync

import (
	"time"

	"kingbus/internal/sql"
)

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
