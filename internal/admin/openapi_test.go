package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"kingbus/internal/cluster"
	"kingbus/internal/semisync"
)

var update = flag.Bool("update", false, "write openapi.json and docs/metrics.md anew, as routes, types and metrics are (make docs)")

// openAPI is what the tests read of the description.
type openAPI struct {
	Paths      map[string]map[string]operation
	Components struct{ Schemas object }
}

type operation struct {
	Security  *[]any
	Responses map[string]struct {
		Content map[string]struct{ Schema object }
	}
	RequestBody struct {
		Content map[string]struct{ Schema object }
	}
}

func readDescription(t *testing.T) (o openAPI) {
	t.Helper()
	if err := json.Unmarshal(description, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func testRoutes(t *testing.T) []route {
	return newServer(t, sample(), exporter{}).routes(func(http.ResponseWriter, *http.Request) {})
}

// TestOpenAPI: the description is what the code says.
func TestOpenAPI(t *testing.T) {
	var want bytes.Buffer
	e := json.NewEncoder(&want)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(describe(t, testRoutes(t))); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("openapi.json", want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(want.Bytes(), description) {
		t.Error("openapi.json is not what routes and types say: run make docs, and look at what has changed for the users of the API")
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/api/v1/openapi.json", nil)
	r.Host = "localhost" // and no token
	newServer(t, sample(), exporter{}).Handler().ServeHTTP(w, r)
	if w.Code != 200 || !bytes.Equal(w.Body.Bytes(), description) || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("served: %d %v", w.Code, w.Header())
	}
}

// TestDescribedErrors: the codes of errors are those that the description lists.
func TestDescribedErrors(t *testing.T) {
	code := readDescription(t).Components.Schemas["Failure"].(object)["properties"].(object)["code"].(object)
	var have []any
	for _, k := range kinds() {
		have = append(have, string(k.code))
	}
	if !slices.Equal(code["enum"].([]any), have) {
		t.Errorf("described: %v, there are %v", code["enum"], have)
	}
}

// bodyFor is what a path takes, with as much as it may have.
func bodyFor(path string) string {
	switch path {
	case "/api/v1/cluster/nodes":
		return `{"name": "n4", "address": "d:1"}`
	case "/api/v1/source":
		return `{"host": "h", "port": 1, "user": "u", "password": "p", "heartbeat_seconds": 1.5, "ssl": true, "ssl_verify": true, "ssl_ca": "/c", "ssl_cert": "/c", "ssl_key": "/k", "get_public_key": true}`
	case "/api/v1/source/start":
		return `{"until": "b.000001:4"}`
	case "/api/v1/variables":
		return `{"set": {"kingbus_retain_size": "5"}, "reset": ["binlog_expire_logs_seconds"]}`
	case "/api/v1/binlogs/purge":
		return `{"before": "1970-01-01T01:23:20Z", "dry_run": true}`
	case "/api/v1/users":
		return `{"user": "u", "host": "h", "plugin": "caching_sha2_password", "password": "p", "privileges": ["super"], "require_tls": true, "locked": true}`
	case "/api/v1/users/{user}/{host}":
		return `{"locked": true}`
	}
	return ""
}

func verified(_ context.Context, step func(entry, last uint64)) (cluster.Verified, error) {
	step(1, 9)
	return cluster.Verified{From: 1, To: 9}, nil
}

// TestDescribedRoutes: what is described is there and the other way round, answers only whom
// the description says, and answers and failures have the form that it says.
func TestDescribedRoutes(t *testing.T) {
	o := readDescription(t)
	routes := testRoutes(t)
	described := 0
	for _, operations := range o.Paths {
		described += len(operations)
	}
	if described != len(routes) || described < 25 {
		t.Errorf("%d operations are described, and there are %d routes", described, len(routes))
	}
	full, empty := sample(), Status{}
	for _, st := range []*Status{&full, &empty} { // which are never empty
		st.Cluster.Role, st.Source.SemiSync.Mode, st.Source.SemiSync.State = RoleLeader, semisync.ModeAuto, semisync.StateOff
	}
	full.Source.SemiSync.Chain = &semisync.ChainStatus{ChainSettings: semisync.ChainSettings{Policy: semisync.PolicyHold}, State: semisync.ChainWaits, Have: []semisync.Acknowledged{{Replica: "r"}}}
	for path, operations := range o.Paths {
		for method, op := range operations {
			at := strings.ToUpper(method) + " " + path
			target := strings.NewReplacer("{name}", "b.000001", "{session}", "4", "{user}", "nobody", "{host}", "%25").Replace(path)
			ctx := t.Context()
			if path == "/debug/pprof/profile" || path == "/debug/pprof/trace" { // which take their time, unless the client goes away
				gone, cancel := context.WithCancel(ctx)
				cancel()
				ctx = gone
			}
			ask := func(st Status, token string) *httptest.ResponseRecorder {
				r := httptest.NewRequestWithContext(ctx, strings.ToUpper(method), target, strings.NewReader(bodyFor(path)))
				r.Host = "localhost"
				r.Header.Set("Content-Type", asJSON)
				Authorize(r, token)
				w := httptest.NewRecorder()
				newServerFor(t, st, exporter{}, &group{verify: verified}).Handler().ServeHTTP(w, r)
				return w
			}
			if w := ask(full, ""); (w.Code == http.StatusUnauthorized) != (op.Security == nil) {
				t.Errorf("%s without the token: %d", at, w.Code)
			}
			for _, st := range []Status{full, empty} {
				w := ask(st, testToken)
				body := op.RequestBody.Content["application/json"].Schema
				if body != nil && w.Code != http.StatusNotFound {
					var v any
					if err := json.Unmarshal([]byte(bodyFor(path)), &v); err != nil {
						t.Fatalf("%s: %v", at, err)
					}
					for _, wrong := range o.check(body, v, "body") {
						t.Errorf("%s takes it, but %s", at, wrong)
					}
				}
				o.checkAnswer(t, at, op, w)
			}
		}
	}
}

// checkAnswer holds an answer against the description.
func (o openAPI) checkAnswer(t *testing.T, at string, op operation, w *httptest.ResponseRecorder) {
	t.Helper()
	answer, is := op.Responses[strconv.Itoa(w.Code)]
	if !is {
		var v any
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
			t.Errorf("%s: %d %s", at, w.Code, w.Body)
		}
		for _, wrong := range o.check(object{"$ref": "#/components/schemas/Failure"}, v, "failure") {
			t.Errorf("%s: %d: %s", at, w.Code, wrong)
		}
		if w.Code != http.StatusNotFound && w.Code != http.StatusConflict { // what the request names is not there
			t.Errorf("%s: %d %s", at, w.Code, w.Body)
		}
		return
	}
	if w.Code == http.StatusNoContent {
		if w.Body.Len() > 0 {
			t.Errorf("%s: 204 with %s", at, w.Body)
		}
		return
	}
	for kind, content := range answer.Content {
		if got, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";"); got != kind {
			t.Errorf("%s answers %s, described is %s", at, got, kind)
		}
		if content.Schema == nil {
			continue
		}
		for d := json.NewDecoder(w.Body); d.More(); {
			var v any
			if err := d.Decode(&v); err != nil {
				t.Errorf("%s: %v", at, err)
				break
			}
			for _, wrong := range o.check(content.Schema, v, "answer") {
				t.Errorf("%s: %s", at, wrong)
			}
		}
	}
}
