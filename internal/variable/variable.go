// Package variable is the global system variables that are changed while kingbus runs, for all
// nodes of the cluster: what SET GLOBAL and SET PERSIST say is kept in the settings of the
// cluster, on top of what each node has in its own. What is in effect where is for others
// to see to: this package knows names, values and their bounds.
package variable

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"kingbus/internal/semisync"
	"kingbus/internal/sql"
	"kingbus/internal/stream"
)

// Values are all that the variables say.
type Values struct {
	Retention stream.Retention
	// SemiSync is what kingbus is towards its source, and Acknowledge what its answers
	// there wait for.
	SemiSync    semisync.Mode
	Acknowledge semisync.ChainSettings
	// Waits is what each node is as a semi-sync source.
	Waits semisync.WaitSettings
}

// Definition is one variable. Its value is of the type that Type says; times are in the unit
// that MySQL has for the variable.
type Definition struct {
	Name    string
	Aliases []string
	// Setting is the key of the node's own setting that holds where the cluster says nothing.
	Setting  string
	Type     sql.VarType
	Min, Max uint64   // of sql.VarUint
	Unit     string   // of sql.VarUint: "seconds", "milliseconds", "bytes", or "" if it counts
	Values   []string // of sql.VarEnum

	check func(sql.Value) (sql.Value, error)
	get   func(Values) sql.Value
	set   func(*Values, sql.Value)
}

// Definitions returns all of them.
func Definitions() []Definition {
	const maxUint32 = math.MaxUint32
	const longest = uint64(math.MaxInt64 / time.Millisecond)
	whole := func(name, setting, unit string, least, most uint64, get func(Values) uint64, set func(*Values, uint64), aliases ...string) Definition {
		return Definition{Name: name, Aliases: aliases, Setting: setting, Unit: unit, Type: sql.VarUint, Min: least, Max: most,
			get: func(v Values) sql.Value { return sql.Uint(get(v)) },
			set: func(v *Values, x sql.Value) { n, _ := x.Uint64(); set(v, n) }}
	}
	flag := func(name, setting string, get func(Values) bool, set func(*Values, bool), aliases ...string) Definition {
		return Definition{Name: name, Aliases: aliases, Setting: setting, Type: sql.VarBool,
			get: func(v Values) sql.Value { return sql.Bool(get(v)) },
			set: func(v *Values, x sql.Value) { set(v, x == sql.Bool(true)) }}
	}
	milliseconds := func(d time.Duration) uint64 { return uint64(d.Milliseconds()) }
	return []Definition{
		whole("binlog_expire_logs_seconds", "retain-age", "seconds", 0, maxUint32,
			func(v Values) uint64 { return uint64(v.Retention.Age / time.Second) },
			func(v *Values, n uint64) { v.Retention.Age = time.Duration(n) * time.Second }),
		whole("kingbus_retain_size", "retain-size", "bytes", 0, math.MaxInt64,
			func(v Values) uint64 { return v.Retention.Bytes },
			func(v *Values, n uint64) { v.Retention.Bytes = n }),
		flag("kingbus_retain_force", "retain-force",
			func(v Values) bool { return v.Retention.Force },
			func(v *Values, on bool) { v.Retention.Force = on }),

		flag("rpl_semi_sync_replica_enabled", "semi-sync",
			func(v Values) bool { return v.SemiSync != semisync.ModeOff },
			func(v *Values, on bool) {
				switch {
				case !on:
					v.SemiSync = semisync.ModeOff
				case v.SemiSync == semisync.ModeOff:
					v.SemiSync = semisync.ModeAuto
				}
			}, "rpl_semi_sync_slave_enabled"),
		{Name: "kingbus_acknowledge", Setting: "acknowledge", Type: sql.VarString,
			check: func(x sql.Value) (sql.Value, error) {
				if _, err := semisync.ParseAcknowledge(x.Text()); err != nil {
					return sql.Null, sql.Errorf(1231, "42000", "Variable 'kingbus_acknowledge' can't be set to the value of '%.64s': %v", x.Text(), err)
				}
				return x, nil
			},
			get: func(v Values) sql.Value { return sql.String(semisync.FormatAcknowledge(v.Acknowledge.Replicas)) },
			set: func(v *Values, x sql.Value) { v.Acknowledge.Replicas, _ = semisync.ParseAcknowledge(x.Text()) }},
		whole("kingbus_acknowledge_timeout", "acknowledge-timeout", "milliseconds", 1, longest,
			func(v Values) uint64 { return milliseconds(v.Acknowledge.Timeout) },
			func(v *Values, n uint64) { v.Acknowledge.Timeout = time.Duration(n) * time.Millisecond }),
		{Name: "kingbus_acknowledge_on_timeout", Setting: "acknowledge-on-timeout", Type: sql.VarEnum,
			Values: []string{string(semisync.PolicyDegrade), string(semisync.PolicyHold)},
			get:    func(v Values) sql.Value { return sql.String(string(v.Acknowledge.Policy)) },
			set:    func(v *Values, x sql.Value) { v.Acknowledge.Policy = semisync.Policy(x.Text()) }},

		flag("rpl_semi_sync_source_enabled", "replica-semi-sync",
			func(v Values) bool { return v.Waits.Enabled },
			func(v *Values, on bool) { v.Waits.Enabled = on }, "rpl_semi_sync_master_enabled"),
		whole("rpl_semi_sync_source_timeout", "replica-semi-sync-timeout", "milliseconds", 0, longest,
			func(v Values) uint64 { return milliseconds(v.Waits.Timeout) },
			func(v *Values, n uint64) { v.Waits.Timeout = time.Duration(n) * time.Millisecond }, "rpl_semi_sync_master_timeout"),
		whole("rpl_semi_sync_source_wait_for_replica_count", "replica-semi-sync-count", "", 1, math.MaxUint16,
			func(v Values) uint64 { return uint64(v.Waits.Replicas) },
			func(v *Values, n uint64) { v.Waits.Replicas = int(n) }, "rpl_semi_sync_master_wait_for_slave_count"),
		flag("rpl_semi_sync_source_wait_no_replica", "replica-semi-sync-no-replica",
			func(v Values) bool { return v.Waits.NoReplica },
			func(v *Values, on bool) { v.Waits.NoReplica = on }, "rpl_semi_sync_master_wait_no_slave"),
	}
}

// variable is the definition for sessions, which get its value from get.
func (d Definition) variable(get func() Values) sql.Variable {
	return sql.Variable{Name: d.Name, Aliases: d.Aliases, Type: d.Type, Dynamic: true, Min: d.Min, Max: d.Max, Values: d.Values, Check: d.check,
		Get: func() sql.Value { return d.get(get()) }}
}

// encode and decode are the values in the settings: true and false, numbers, and texts of
// JSON, as sql.VarType has them.
func (d Definition) encode(v sql.Value) any {
	switch d.Type {
	case sql.VarBool:
		return v == sql.Bool(true)
	case sql.VarUint:
		n, _ := v.Uint64()
		return n
	}
	return v.Text()
}

func (d Definition) decode(raw []byte) (sql.Value, error) {
	text := string(raw)
	var v sql.Value
	switch {
	case d.Type == sql.VarBool && (text == "true" || text == "false"):
		return sql.Bool(text == "true"), nil
	case d.Type == sql.VarUint:
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || n < d.Min || n > d.Max {
			return v, fmt.Errorf("%s is %.64s, which is no number from %d to %d", d.Name, text, d.Min, d.Max)
		}
		return sql.Uint(n), nil
	case d.Type == sql.VarString || d.Type == sql.VarEnum:
		return d.decodeText(raw)
	}
	return v, fmt.Errorf("%s is %.64s", d.Name, text)
}
