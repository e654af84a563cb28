package admin

import (
	"encoding/json"
	"testing"
	"time"

	"kingbus/internal/semisync"
	"kingbus/internal/stream"
	"kingbus/internal/variable"
)

// newVariables is the real thing, on settings in memory.
func newVariables() *variable.Store {
	return variable.NewStore(&keeper{}, variable.Values{
		Retention: stream.Retention{Age: time.Hour}, SemiSync: semisync.ModeAuto,
		Acknowledge: semisync.ChainSettings{Timeout: time.Second, Policy: semisync.PolicyDegrade}, Waits: semisync.WaitSettings{Replicas: 1},
	})
}

// TestVariables: variables are shown, set and taken back, all or none.
func TestVariables(t *testing.T) {
	s := newServer(t, sample(), exporter{})
	shown := func(name string) (v variable.Shown) {
		t.Helper()
		w := get(s, "/api/v1/variables")
		var list []variable.Shown
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Code != 200 {
			t.Fatalf("%d %s, %v", w.Code, w.Body, err)
		}
		for _, v := range list {
			if v.Name == name {
				return v
			}
		}
		t.Fatalf("no %s in %s", name, w.Body)
		return v
	}
	const age, enabled, acknowledge = "binlog_expire_logs_seconds", "rpl_semi_sync_source_enabled", "kingbus_acknowledge"
	if v := shown(age); v.Value != "3600" || v.Own != "3600" || v.Set || v.Setting != "retain-age" || v.Unit != "seconds" {
		t.Errorf("%+v", v)
	}
	for _, tc := range []struct {
		body string
		code int
		age  string
	}{
		{`{"set": {"binlog_expire_logs_seconds": "60", "rpl_semi_sync_master_enabled": "on", "kingbus_acknowledge": "quorum+2"}}`, 204, "60"},
		{`{"set": {"binlog_expire_logs_seconds": "61", "nosuch": "1"}}`, 404, "60"},
		{`{"set": {"binlog_expire_logs_seconds": "61"}, "reset": ["nosuch"]}`, 404, "60"},
		{`{"set": {"binlog_expire_logs_seconds": "61", "kingbus_acknowledge": "nobody"}}`, 400, "60"},
		{`{"set": {"binlog_expire_logs_seconds": "-1"}}`, 400, "60"},
		{`{"set": {"binlog_expire_logs_seconds": "99999999999"}}`, 400, "60"},
		{`{"set": {"rpl_semi_sync_source_enabled": "perhaps"}}`, 400, "60"},
		{`{"set": {"kingbus_acknowledge_on_timeout": "wait"}}`, 400, "60"},
		{`{"set": {"binlog_expire_logs_seconds": 60}}`, 400, "60"},
		{`{}`, 400, "60"},
		{`{"set": {"kingbus_acknowledge_on_timeout": "hold"}, "reset": ["binlog_expire_logs_seconds"]}`, 204, "3600"},
	} {
		if w := send(s, "PATCH", "/api/v1/variables", asJSON, tc.body); w.Code != tc.code {
			t.Errorf("%s: %d %s", tc.body, w.Code, w.Body)
		}
		if v := shown(age); v.Value != tc.age {
			t.Errorf("%s: %+v", tc.body, v)
		}
	}
	if v := shown(enabled); v.Value != "ON" || v.Own != "OFF" || !v.Set {
		t.Errorf("%+v", v)
	}
	if v := shown(acknowledge); v.Value != "quorum+2" || v.Own != "quorum" || !v.Set {
		t.Errorf("%+v", v)
	}
}
