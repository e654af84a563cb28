package admin

import (
	"encoding/json"
	"strings"
	"testing"

	"kingbus/internal/cluster"
)

func TestBinlogs(t *testing.T) {
	w := get(newServer(t, sample(), exporter{}), "/api/v1/binlogs")
	var got Binlogs
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || len(got.Files) != 2 {
		t.Fatalf("%d %s, %v", w.Code, w.Body, err)
	}
	if f := got.Files[0]; f.Name != "b.000001" || f.Size != 1000 || f.FirstEvent.Unix() != 100 || f.LastEvent.Unix() != 200 || f.Current || got.Bytes != 1500 {
		t.Errorf("got %+v", got)
	}
	if f := got.Files[1]; !f.Current || !f.FirstEvent.IsZero() {
		t.Errorf("the current file: %+v", f)
	}
	if w := get(newServer(t, Status{}, exporter{}), "/api/v1/binlogs"); !strings.Contains(w.Body.String(), `"files": []`) {
		t.Errorf("without files: %s", w.Body)
	}
}

func TestPurge(t *testing.T) {
	for _, tc := range []struct {
		body   string
		err    error
		status int
		purged string // before which file
		want   string // in the answer
	}{
		{`{"to":"b.000002"}`, nil, 200, "b.000002", `"b.000001"`},
		{`{"before":"1970-01-01T01:23:20Z"}`, nil, 200, "b.000002", `"bytes": 1000`},
		{`{"to":"b.000002","dry_run":true}`, nil, 200, "", `"b.000001"`},
		{`{"to":"b.000001"}`, nil, 200, "", `"held_back": true`},
		{`{"to":"b.9"}`, nil, 404, "", `"code": "not_found"`},
		{`{"to":"b.000002"}`, cluster.ErrNoLeader, 503, "b.000002", `"code": "no_leader"`},
		{`{}`, nil, 400, "", "bad_request"},
		{`{"to":"b.000002","before":"1970-01-01T01:23:20Z"}`, nil, 400, "", "bad_request"},
		{`{"before":"yesterday"}`, nil, 400, "", "bad_request"},
		{`{"all":true}`, nil, 400, "", "bad_request"},
	} {
		var purged string
		w := send(newServer(t, sample(), exporter{err: tc.err, purged: &purged}), "POST", "/api/v1/binlogs/purge", asJSON, tc.body)
		if w.Code != tc.status || purged != tc.purged || !strings.Contains(w.Body.String(), tc.want) {
			t.Errorf("%s: %d, purged before %q: %s", tc.body, w.Code, purged, w.Body)
		}
	}
}
