package admin

import (
	"encoding/json"
	"testing"

	"kingbus/internal/server"
)

// dumps has the session 4, until it is ended.
type dumps struct{ ended bool }

func (d *dumps) KillReplica(session uint32) error {
	if session != 4 || d.ended {
		return server.ErrNoReplica
	}
	d.ended = true
	return nil
}

func TestReplicas(t *testing.T) {
	s := newServer(t, sample(), exporter{})
	w := get(s, "/api/v1/replicas")
	var got Replicas
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
		t.Fatalf("%d %s, %v", w.Code, w.Body, err)
	}
	if got.Node != "n1" || got.Now.Unix() != 2000 || len(got.Replicas) != 2 || got.Replicas[0].Session != 4 {
		t.Errorf("got %+v", got)
	}
	for _, tc := range []struct {
		session string
		status  int
		code    Code
	}{
		{"4", 204, ""}, {"4", 404, CodeNotFound}, {"5", 404, CodeNotFound}, {"x", 400, CodeBadRequest}, {"-1", 400, CodeBadRequest}, {"4294967300", 400, CodeBadRequest},
	} {
		w := send(s, "DELETE", "/api/v1/replicas/"+tc.session, asJSON, "")
		var f Failure
		_ = json.Unmarshal(w.Body.Bytes(), &f) // there is none after 204
		if w.Code != tc.status || f.Code != tc.code {
			t.Errorf("session %s: %d %s", tc.session, w.Code, w.Body)
		}
	}
}
