package variable

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"kingbus/internal/config"
	"kingbus/internal/semisync"
	"kingbus/internal/sql"
	"kingbus/internal/stream"
)

// keeper is the settings of the cluster, in memory.
type keeper struct{ now stream.Settings }

func (k *keeper) Settings() stream.Settings { return k.now }

func (k *keeper) AwaitSettings(context.Context, uint64) (stream.Settings, error) { return k.now, nil }

func (k *keeper) ChangeSettings(_ context.Context, revision uint64, values map[string]json.RawMessage) error {
	if revision != k.now.Revision {
		return stream.ErrSettingsChanged
	}
	k.now = stream.Settings{Revision: revision + 1, Values: values}
	return nil
}

func own() Values {
	return Values{
		Retention: stream.Retention{Bytes: 7, Age: 90 * time.Second}, SemiSync: semisync.ModeOn,
		Acknowledge: semisync.ChainSettings{Timeout: time.Second, Policy: semisync.PolicyDegrade},
		Waits:       semisync.WaitSettings{Enabled: true, Timeout: 2 * time.Second, Replicas: 1, NoReplica: true},
	}
}

// TestStore sets every variable, and takes it back.
func TestStore(t *testing.T) {
	k := &keeper{}
	s := NewStore(k, own())
	given := map[string]sql.Value{
		"binlog_expire_logs_seconds": sql.Uint(3600), "kingbus_retain_size": sql.Uint(1 << 40), "kingbus_retain_force": sql.Bool(true),
		"rpl_semi_sync_replica_enabled": sql.Bool(false), "kingbus_acknowledge": sql.String("quorum+2"), "kingbus_acknowledge_timeout": sql.Uint(1500),
		"kingbus_acknowledge_on_timeout": sql.String("hold"), "rpl_semi_sync_source_enabled": sql.Bool(false), "rpl_semi_sync_source_timeout": sql.Uint(250),
		"rpl_semi_sync_source_wait_for_replica_count": sql.Uint(3), "rpl_semi_sync_source_wait_no_replica": sql.Bool(false),
	}
	want := Values{
		Retention: stream.Retention{Bytes: 1 << 40, Age: time.Hour, Force: true}, SemiSync: semisync.ModeOff,
		Acknowledge: semisync.ChainSettings{Replicas: 2, Timeout: 1500 * time.Millisecond, Policy: semisync.PolicyHold},
		Waits:       semisync.WaitSettings{Timeout: 250 * time.Millisecond, Replicas: 3},
	}
	var all []sql.GlobalValue
	for _, d := range Definitions() {
		v, there := given[d.Name]
		if !there {
			t.Errorf("no sample for %s", d.Name)
		}
		if slices.ContainsFunc(config.Settings(), func(s config.Setting) bool { return s.Key == d.Setting }) == false {
			t.Errorf("%s is on top of --%s, which does not exist", d.Name, d.Setting)
		}
		all = append(all, sql.GlobalValue{Name: d.Name, Value: v})
	}
	if err := s.SetGlobal(t.Context(), append(all, sql.GlobalValue{Name: "read_only", Value: sql.Bool(true)})); err != nil {
		t.Fatal(err)
	}
	if got := s.Values(); got != want {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	for _, v := range s.Variables() {
		if got := v.Get(); got != given[v.Name] {
			t.Errorf("%s is %v, want %v", v.Name, got, given[v.Name])
		}
	}
	names, values := s.Set()
	for i, name := range names {
		if values[i] != given[name] {
			t.Errorf("%s was set to %v", name, values[i])
		}
	}
	if len(names) != len(given) {
		t.Errorf("%v were set", names)
	}

	// The same once more changes nothing; one is taken back, then another, then all.
	revision := k.now.Revision
	if err := s.SetGlobal(t.Context(), all); err != nil || k.now.Revision != revision {
		t.Errorf("%v, revision %d", err, k.now.Revision)
	}
	if err := s.SetGlobal(t.Context(), []sql.GlobalValue{{Name: "KINGBUS_retain_size", Default: true}}); err != nil || s.Values().Retention.Bytes != 7 {
		t.Errorf("%v, %+v", err, s.Values())
	}
	if err := s.Reset(t.Context(), "rpl_semi_sync_slave_enabled"); err != nil || s.Values().SemiSync != semisync.ModeOn {
		t.Errorf("%v, %+v", err, s.Values())
	}
	if err := s.Reset(t.Context(), "rpl_semi_sync_slave_enabled"); !errors.Is(err, ErrNotSet) {
		t.Errorf("taken back once more: %v", err)
	}
	if err := s.Reset(t.Context(), ""); err != nil || s.Values() != own() || k.now.Values[Key] != nil {
		t.Errorf("%v, %+v, %s", err, s.Values(), k.now.Values[Key])
	}
	// Switched on where a node's own says off is what fits any source.
	off := own()
	off.SemiSync = semisync.ModeOff
	s = NewStore(k, off)
	if err := s.SetGlobal(t.Context(), []sql.GlobalValue{{Name: "rpl_semi_sync_replica_enabled", Value: sql.Bool(true)}}); err != nil || s.Values().SemiSync != semisync.ModeAuto {
		t.Errorf("%v, %+v", err, s.Values())
	}
}

// TestEffective: what a newer or a broken node has written does no harm, and is told.
func TestEffective(t *testing.T) {
	for text, complaint := range map[string]string{
		`{"kingbus_retain_size": 5}`:                                      "",
		`{"kingbus_retain_size": 5, "tomorrow": [1]}`:                     `no variable "tomorrow"`,
		`{"kingbus_retain_size": 5, "rpl_semi_sync_source_timeout": -1}`:  "no number",
		`{"kingbus_retain_size": 5, "kingbus_acknowledge": "quorum+999"}`: "quorum+N",
		`{"kingbus_retain_size": 5, "kingbus_acknowledge": 7}`:            "kingbus_acknowledge",
		`{"kingbus_retain_size": 5, "kingbus_retain_force": "yes"}`:       "kingbus_retain_force",
		`{"kingbus_retain_size": 5, "kingbus_acknowledge_on_timeout":""}`: "kingbus_acknowledge_on_timeout",
	} {
		v, err := Effective(own(), stream.Settings{Values: map[string]json.RawMessage{Key: json.RawMessage(text)}})
		want := own()
		want.Retention.Bytes = 5
		if v != want || (err == nil) != (complaint == "") || err != nil && !strings.Contains(err.Error(), complaint) {
			t.Errorf("%s: %+v, %v", text, v, err)
		}
	}
	if v, err := Effective(own(), stream.Settings{Values: map[string]json.RawMessage{Key: []byte(`[]`)}}); v != own() || err == nil {
		t.Errorf("%+v, %v", v, err)
	}
}

func FuzzEffective(f *testing.F) {
	f.Add([]byte(`{"binlog_expire_logs_seconds":3600,"kingbus_acknowledge":"quorum+1","rpl_semi_sync_source_wait_for_replica_count":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, _ := Effective(own(), stream.Settings{Values: map[string]json.RawMessage{Key: b}})
		if v.Waits.Replicas < 1 || v.Waits.Timeout < 0 || v.Acknowledge.Timeout <= 0 || v.Acknowledge.Replicas < 0 || v.Retention.Age < 0 {
			t.Errorf("%s: %+v", b, v)
		}
		for _, d := range Definitions() { // what a session is shown, it can be given back
			if x := d.get(v); d.Type == sql.VarUint {
				if n, ok := x.Uint64(); !ok || n > d.Max {
					t.Errorf("%s is %v", d.Name, x)
				}
			}
		}
	})
}
