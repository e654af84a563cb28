package admin

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"kingbus/internal/follow"
	"kingbus/internal/stream"
)

// keeper is the settings of the cluster, in memory.
type keeper struct{ now stream.Settings }

func (k *keeper) Settings() stream.Settings { return k.now }

func (k *keeper) AwaitSettings(context.Context, uint64) (stream.Settings, error) { return k.now, nil }

func (k *keeper) ChangeSettings(_ context.Context, _ uint64, values map[string]json.RawMessage) error {
	k.now = stream.Settings{Revision: k.now.Revision + 1, Values: values}
	return nil
}

// newFollow is the real thing, on settings in memory, of a node that knows no source and has
// a binlog.
func newFollow() *follow.Store {
	return follow.NewStore(&keeper{}, false, func() bool { return true })
}

// TestSource: the source is said, started, stopped and forgotten, and no answer has the
// password.
func TestSource(t *testing.T) {
	s := newServer(t, sample(), exporter{})
	shown := func() (f Followed) {
		t.Helper()
		w := get(s, "/api/v1/source")
		if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil || w.Code != 200 {
			t.Fatalf("%d %s, %v", w.Code, w.Body, err)
		}
		if strings.Contains(w.Body.String(), "hidden") {
			t.Errorf("the password is shown: %s", w.Body)
		}
		return f
	}
	if f := shown(); f.Stopped || f.HasPassword || f.Link.Address != "db:3306" || f.Said != (follow.Change{}) {
		t.Errorf("at first: %+v", f)
	}
	const path = "/api/v1/source"
	for _, tc := range []struct {
		method, path, body string
		status             int
		code               Code
		says               string
	}{
		{"POST", path + "/start", "", 409, CodeConflict, "no source is configured"},
		{"PATCH", path, `{"host":"db1","port":3307,"user":"u","password":"hidden","heartbeat_seconds":0.5,"ssl":true}`, 204, "", ""},
		{"PATCH", path, `{"ssl_ca":"/ca.pem","get_public_key":false}`, 204, "", ""},
		{"PATCH", path, `{"port":70000}`, 400, CodeBadRequest, "not a change of the source"},
		{"PATCH", path, `{"port":0}`, 400, CodeBadRequest, "port"},
		{"PATCH", path, `{"host":""}`, 400, CodeBadRequest, "host"},
		{"PATCH", path, `{"heartbeat_seconds":4000}`, 400, CodeBadRequest, "heartbeat"},
		{"PATCH", path, `{"delay":3}`, 400, CodeBadRequest, "delay"},
		{"PATCH", path, `{"start":"oldest"}`, 409, CodeConflict, "has begun"},
		{"POST", path + "/start", "", 204, "", ""},
		{"PATCH", path, `{"port":3308}`, 409, CodeConflict, "stop that first"},
		{"DELETE", path, "", 409, CodeConflict, "stop that first"},
	} {
		w := send(s, tc.method, tc.path, asJSON, tc.body)
		var f Failure
		if w.Code != 204 {
			if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil {
				t.Errorf("%s %s: %s", tc.method, tc.body, w.Body)
			}
		}
		if w.Code != tc.status || f.Code != tc.code || !strings.Contains(f.Error, tc.says) || strings.Contains(w.Body.String(), "hidden") {
			t.Errorf("%s %s %s: %d %s", tc.method, tc.path, tc.body, w.Code, w.Body)
		}
	}
	f := shown()
	if f.Stopped || !f.HasPassword || *f.Said.Host != "db1" || *f.Said.Port != 3307 || *f.Said.HeartbeatSeconds != 0.5 || !*f.Said.SSL || *f.Said.SSLCA != "/ca.pem" || *f.Said.GetPublicKey || f.Said.Password != nil || f.Said.SSLVerify != nil {
		t.Errorf("got %+v", f)
	}
	for _, r := range []string{"POST " + path + "/stop", "DELETE " + path} {
		method, path, _ := strings.Cut(r, " ")
		if w := send(s, method, path, asJSON, ""); w.Code != 204 {
			t.Errorf("%s: %d %s", r, w.Code, w.Body)
		}
	}
	if f := shown(); !f.Stopped || f.HasPassword || f.Said != (follow.Change{}) {
		t.Errorf("in the end: %+v", f)
	}
}
