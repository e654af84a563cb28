package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"kingbus/internal/account"
	"kingbus/internal/cluster"
	"kingbus/internal/stream"
)

func TestFailureOf(t *testing.T) {
	for _, tc := range []struct {
		err    error
		status int
		code   Code
		next   string
	}{
		{fail(CodeBadRequest, "x"), 400, CodeBadRequest, "openapi.json"},
		{fmt.Errorf("wrapped: %w", &failure{CodeConflict, errors.New("x"), "do this"}), 409, CodeConflict, "do this"},
		{&failure{code: CodeUncertain, err: cluster.ErrNoMember}, 503, CodeUncertain, "look"}, // what was said counts, not what is inside
		{fmt.Errorf("n4: %w", cluster.ErrNoLeader), 503, CodeNoLeader, "kingbus node list"},
		{errors.Join(stream.ErrUncertain, cluster.ErrClosed), 503, CodeUncertain, "look at what there is"},
		{cluster.ErrDropped, 503, CodeUnavailable, "try again"},
		{cluster.ErrDeposed, 503, CodeUncertain, ""},
		{context.DeadlineExceeded, 503, CodeUncertain, ""},
		{cluster.ErrNoMember, 404, CodeNotFound, "node list"},
		{stream.ErrNoFile, 404, CodeNotFound, "binlog list"},
		{cluster.ErrLastVoter, 409, CodeConflict, "add another node"},
		{account.ErrOwn, 409, CodeConflict, "settings of the node"},
		{errors.New("the disk is gone"), 500, CodeInternal, "log of the node"},
	} {
		status, f := failureOf(tc.err)
		if status != tc.status || f.Code != tc.code || f.Error != tc.err.Error() || f.Next == "" || !strings.Contains(f.Next, tc.next) {
			t.Errorf("%v: got %d %+v, want %d %s %q", tc.err, status, f, tc.status, tc.code, tc.next)
		}
	}
	codes := map[Code]bool{}
	for _, k := range kinds() {
		if codes[k.code] || k.status < 400 || k.next == "" {
			t.Errorf("%+v", k)
		}
		codes[k.code] = true
	}
	for _, k := range known() {
		if !codes[k.code] {
			t.Errorf("%v has a code that is none, %q", k.err, k.code)
		}
	}
}

// TestEveryErrorIsJSON: also those that no handler of ours makes.
func TestEveryErrorIsJSON(t *testing.T) {
	s := newServer(t, sample(), exporter{})
	for _, tc := range []struct {
		method, host, path, allow string
		status                    int
		code                      Code
	}{
		{"GET", "localhost", "/api/v2", "", 404, CodeNotFound},
		{"GET", "localhost", "/api/v1/users/u", "", 404, CodeNotFound},
		{"POST", "localhost", "/api/v1/status", "GET, HEAD", 405, CodeMethodNotAllowed},
		{"GET", "localhost", "/api/v1/cluster/verify", "POST", 405, CodeMethodNotAllowed},
		{"GET", "evil.example", "/healthz", "", 421, CodeMisdirected},
		{"POST", "localhost", "/api/v1/users", "", 415, CodeUnsupportedMedia},
		{"GET", "localhost", "/api/v1/binlogs/none", "", 404, CodeNotFound},
	} {
		r := httptest.NewRequest(tc.method, tc.path, nil)
		r.Host = tc.host
		Authorize(r, testToken)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		var f Failure
		if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil {
			t.Errorf("%s %s: %v: %s", tc.method, tc.path, err, w.Body)
		}
		if w.Code != tc.status || f.Code != tc.code || f.Error == "" || f.Next == "" || w.Header().Get("Allow") != tc.allow || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: got %d %v %+v", tc.method, tc.path, w.Code, w.Header(), f)
		}
	}
}

// TestCannotEncode: not even then is an answer anything but a Failure.
func TestCannotEncode(t *testing.T) {
	w := httptest.NewRecorder()
	newServer(t, sample(), exporter{}).json(w, http.StatusOK, func() {})
	var f Failure
	if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil || w.Code != 500 || f.Code != CodeInternal || f.Next == "" {
		t.Errorf("got %d %s, %v", w.Code, w.Body, err)
	}
}
