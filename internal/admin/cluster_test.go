package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"kingbus/internal/cluster"
)

// group is a cluster that notes what it is asked to do.
type group struct {
	err    error
	did    []string
	verify func(ctx context.Context, step func(entry, last uint64)) (cluster.Verified, error)
}

func (g *group) do(what ...string) error {
	g.did = append(g.did, strings.Join(what, " "))
	return g.err
}

func (g *group) Add(_ context.Context, name, address string) error { return g.do("add", name, address) }
func (g *group) Promote(_ context.Context, name string) error      { return g.do("promote", name) }
func (g *group) Remove(_ context.Context, name string) error       { return g.do("remove", name) }
func (g *group) Transfer(_ context.Context, name string) error     { return g.do("transfer", name) }
func (g *group) Verify(ctx context.Context, step func(entry, last uint64)) (cluster.Verified, error) {
	return g.verify(ctx, step)
}

// send makes a request that changes something.
func send(s *Server, method, path, kind, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	Authorize(r, testToken)
	r.Host = "127.0.0.1:8307"
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

const asJSON = "application/json"

func TestCluster(t *testing.T) {
	w := get(newServer(t, sample(), exporter{}), "/api/v1/cluster")
	var got Cluster
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
		t.Fatalf("got %d, %v", w.Code, err)
	}
	if got.ID != 77 || got.Role != RoleLeader || len(got.Members) != 3 || got.Members[1].Match != 8 || got.Voters() != 2 {
		t.Errorf("got %s", w.Body)
	}
	if m, ok := got.Member("n3"); !ok || m.ID != 3 {
		t.Errorf("member n3: %+v", m)
	}
	if _, ok := got.Member("n4"); ok {
		t.Error("there is a member n4")
	}
}

func TestChanges(t *testing.T) {
	const nodes = "/api/v1/cluster/nodes"
	add := `{"name": "n4", "address": "d:1"}`
	for _, tc := range []struct {
		method, path, kind, body string
		err                      error
		code                     int
		did, want                string
	}{
		{"POST", nodes, asJSON, add, nil, 204, "add n4 d:1", ""},
		{"POST", nodes, asJSON + "; charset=utf-8", add, nil, 204, "add n4 d:1", ""},
		{"POST", nodes + "/n4/promote", asJSON, "", nil, 204, "promote n4", ""},
		{"POST", nodes + "/n%2f4/promote", asJSON, "", nil, 204, "promote n/4", ""},
		{"POST", nodes + "/n4/lead", asJSON, "", nil, 204, "transfer n4", ""},
		{"DELETE", nodes + "/n4", asJSON, "", nil, 204, "remove n4", ""},

		// What a page of another origin can send without asking.
		{"POST", nodes, "", add, nil, 415, "", "Content-Type: application/json"},
		{"POST", nodes, "text/plain", add, nil, 415, "", "Content-Type"},
		{"POST", nodes + "/n4/promote", "application/x-www-form-urlencoded", "", nil, 415, "", "Content-Type"},
		{"POST", nodes + "/n4/lead", "multipart/form-data; boundary=x", "", nil, 415, "", "Content-Type"},
		{"DELETE", nodes + "/n4", "", "", nil, 415, "", "Content-Type"},
		{"POST", "/api/v1/cluster/verify", "", "", nil, 415, "", "Content-Type"},
		{"OPTIONS", nodes + "/n4", "", "", nil, 405, "", ""},

		{"POST", nodes, asJSON, "{", nil, 400, "", "not a node"},
		{"POST", nodes, asJSON, `{"name": "n4"}`, nil, 400, "", "HOST:PORT"},
		{"POST", nodes, asJSON, `{"name": "n4", "address": "d:1", "voter": true}`, nil, 400, "", "voter"},
		{"POST", nodes, asJSON, add + "x", nil, 400, "", "something follows"},
		{"POST", nodes, asJSON, add + "}", nil, 400, "", "something follows"},
		{"POST", nodes, asJSON, strings.Repeat(" ", maxBody+1), nil, 400, "", "too large"},

		{"POST", nodes, asJSON, add, fmt.Errorf("n4 (d:1): %w", cluster.ErrNameTaken), 409, "add n4 d:1", "n4 (d:1): another node"},
		{"POST", nodes, asJSON, add, cluster.ErrOtherCluster, 409, "add n4 d:1", "another cluster"},
		{"POST", nodes + "/n4/promote", asJSON, "", cluster.ErrBehind, 409, "promote n4", "caught up"},
		{"DELETE", nodes + "/n4", asJSON, "", cluster.ErrUnsafe, 409, "remove n4", "too few"},
		{"DELETE", nodes + "/n4", asJSON, "", cluster.ErrNoMember, 404, "remove n4", "no node"},
		{"POST", nodes + "/n4/lead", asJSON, "", cluster.ErrNoLeader, 503, "transfer n4", "majority"},
		{"POST", nodes + "/n4/lead", asJSON, "", cluster.ErrClosed, 503, "transfer n4", "stopped"},
		{"POST", nodes + "/n4/lead", asJSON, "", errors.New("it is down"), 500, "transfer n4", "it is down"},
	} {
		g := &group{err: tc.err}
		w := send(newServerFor(t, sample(), exporter{}, g), tc.method, tc.path, tc.kind, tc.body)
		text := w.Body.String()
		var failure Failure
		if json.Unmarshal(w.Body.Bytes(), &failure) == nil {
			text = failure.Error
		}
		if did := strings.Join(g.did, ", "); w.Code != tc.code || did != tc.did || !strings.Contains(text, tc.want) {
			t.Errorf("%s %s %q: got %d, did %q: %.300s; want %d, %q, %q", tc.method, tc.path, tc.kind, w.Code, did, text, tc.code, tc.did, tc.want)
		}
		for name := range w.Header() {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s %s: answers with %s", tc.method, tc.path, name)
			}
		}
	}
}

// A change that the cluster does not come to is answered when the client has
// gone, or the time is over: with a text that says that it may still be done.
func TestChangeBrokenOff(t *testing.T) {
	r := httptest.NewRequest("POST", "/api/v1/cluster/nodes/n4/lead", nil)
	Authorize(r, testToken)
	r.Host = "localhost"
	r.Header.Set("Content-Type", asJSON)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	newServerFor(t, sample(), exporter{}, &group{err: context.Canceled}).Handler().ServeHTTP(w, r.WithContext(ctx))
	if w.Code != 503 || !strings.Contains(w.Body.String(), "may still be") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func lines(t *testing.T, r io.Reader) (out []VerifyLine) {
	t.Helper()
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		var l VerifyLine
		if err := json.Unmarshal(scanner.Bytes(), &l); err != nil {
			t.Fatalf("%s: %v", scanner.Bytes(), err)
		}
		out = append(out, l)
	}
	return out
}

func TestVerify(t *testing.T) {
	const path = "/api/v1/cluster/verify"
	g := &group{verify: func(_ context.Context, step func(entry, last uint64)) (cluster.Verified, error) {
		step(5, 9)
		step(9, 9)
		return cluster.Verified{From: 1, To: 9, Nodes: []string{"n2"}, Differences: []cluster.Difference{{Node: "n2", From: 3, To: 4, Error: "no"}}}, nil
	}}
	w := send(newServerFor(t, sample(), exporter{}, g), "POST", path, asJSON, "")
	got := lines(t, w.Body)
	if len(got) != 3 || got[0] != (VerifyLine{Entry: 5, Last: 9}) || got[2].Result == nil || got[2].Result.Differences[0].From != 3 {
		t.Errorf("got %d %+v", w.Code, got)
	}
	g.verify = func(_ context.Context, step func(entry, last uint64)) (cluster.Verified, error) {
		step(5, 9)
		return cluster.Verified{}, errors.New("entry 6 is damaged")
	}
	got = lines(t, send(newServerFor(t, sample(), exporter{}, g), "POST", path, asJSON, "").Body)
	if len(got) != 2 || got[1].Error != "entry 6 is damaged" || got[1].Result != nil {
		t.Errorf("broken off: got %+v", got)
	}
}

// One comparison runs at a time, and ends when its client goes away. The header of
// its answer comes before the first step.
func TestVerifyIsBounded(t *testing.T) {
	ended := make(chan error, 1)
	g := &group{verify: func(ctx context.Context, _ func(entry, last uint64)) (cluster.Verified, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return cluster.Verified{}, ctx.Err()
	}}
	s := newServerFor(t, sample(), exporter{}, g)
	url := serve(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "POST", url+"/api/v1/cluster/verify", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	Authorize(r, testToken)
	r.Header.Set("Content-Type", asJSON)
	answer, err := http.DefaultClient.Do(r)
	if err != nil || answer.StatusCode != 200 {
		t.Fatalf("got %v, %v", answer, err)
	}
	defer answer.Body.Close()
	if w := send(s, "POST", "/api/v1/cluster/verify", asJSON, ""); w.Code != 503 || !strings.Contains(w.Body.String(), "already") {
		t.Errorf("a second one: got %d %s", w.Code, w.Body)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
