package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"kingbus/internal/cluster"
	"kingbus/internal/server"
	"kingbus/internal/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// exporter is a stream whose files hold their own names.
type exporter struct {
	err   error         // instead of the last part
	begun chan struct{} // if not nil, told of every export, which then waits
	wait  chan struct{}

	purged *string // if not nil, before which file the others were removed
}

func (e exporter) Export(_ context.Context, file string, w io.Writer) error {
	if errors.Is(e.err, stream.ErrNotYet) {
		return e.err
	}
	if _, err := io.WriteString(w, "\xfebin"+file); err != nil {
		return err
	}
	if e.begun != nil {
		e.begun <- struct{}{}
		<-e.wait
	}
	return e.err
}

func (e exporter) PlanPurge(to string, before time.Time) (stream.PurgePlan, error) {
	files := sample().Stream.Files
	switch {
	case to == "b.000002" || before.Unix() == 5000:
		return stream.PurgePlan{Remove: files[:1], Keep: "b.000002"}, nil
	case to == "b.000001":
		return stream.PurgePlan{Keep: "b.000001", HeldBack: true}, nil
	}
	return stream.PurgePlan{}, stream.ErrNoFile
}

func (e exporter) Purge(_ context.Context, before string) error {
	if e.purged != nil {
		*e.purged = before
	}
	return e.err
}

func sample() Status {
	return Status{
		Started: time.Unix(1000, 0).UTC(),
		Node:    Node{ServerID: 7, ServerUUID: "u", Leader: true, Term: 3, Applied: 9, Queues: cluster.Queues{Proposals: 3, Intake: 70}},
		Cluster: Cluster{
			ID: 77, Name: "n1", Address: "a:1", Role: RoleLeader, LeaderID: 1, Leader: "n1", Installing: &cluster.Progress{Done: 30, Total: 50},
			Members: []cluster.MemberStatus{
				{Member: cluster.Member{ID: 1, Name: "n1", Address: "a:1"}, Self: true, Leader: true, Up: true, Match: 9, Last: 9},
				{Member: cluster.Member{ID: 2, Name: "n2", Address: "b:1"}, Up: true, Match: 8, Last: 8, Inflight: 4},
				{Member: cluster.Member{ID: 3, Name: "n3", Address: "c:1", Learner: true}, Match: 5, Queued: 6},
			},
		},
		Source: Source{Address: "db:3306", State: "streaming", Connected: true, Version: "9.7.4", Bytes: 12, Coordinates: stream.Coordinates{File: "b.000002", Pos: 300}},
		Stream: Stream{
			End:   stream.Coordinates{File: "b.000002", Pos: 500},
			Files: []stream.File{{Name: "b.000001", Size: 1000, Created: 100, Written: 200}, {Name: "b.000002", Size: 500}}, Bytes: 1500,
		},
		Replicas: []Replica{
			{ReplicaStatus: server.ReplicaStatus{Session: 4, User: "r", Address: "10.0.0.9:1", ServerID: 12, Mode: "gtid", Sent: stream.Coordinates{File: "b.000001", Pos: 100}, LagBytes: 1400, LagSeconds: 2}},
			{ReplicaStatus: server.ReplicaStatus{Session: 5, User: "bad\xffutf8", Address: "x", Mode: "position"}},
		},
	}
}

func newServer(t *testing.T, st Status, e exporter) *Server {
	t.Helper()
	return newServerFor(t, st, e, &group{})
}

func newServerFor(t *testing.T, st Status, e exporter, g Group) *Server {
	t.Helper()
	s, err := New(Config{Token: always(testToken), Users: &users{}, Follow: newFollow(), Dumps: &dumps{}, Variables: newVariables(), Status: func() Status { return st }, Binlog: e, Group: g, Version: "v1", GoVersion: "go9", Now: func() time.Time { return time.Unix(2000, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(s *Server, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	Authorize(r, testToken)
	r.Host = "127.0.0.1:8307"
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func TestHealth(t *testing.T) {
	bad := sample()
	bad.Reasons = []string{"the store has failed"}
	for _, tc := range []struct {
		path string
		st   Status
		code int
		want string
	}{
		{"/healthz", sample(), 200, "ok\n"},
		{"/healthz", bad, 200, "ok\n"},
		{"/readyz", sample(), 200, `"ready": true`},
		{"/readyz", bad, 503, "the store has failed"},
		{"/", sample(), 200, "kingbus v1"},
		{"/", sample(), 200, "/api/v1/openapi.json "},
		{"/nothing", sample(), 404, ""},
	} {
		w := get(newServer(t, tc.st, exporter{}), tc.path)
		if w.Code != tc.code || !strings.Contains(w.Body.String(), tc.want) {
			t.Errorf("%s: got %d %q, want %d %q", tc.path, w.Code, w.Body, tc.code, tc.want)
		}
	}
}

func TestStatus(t *testing.T) {
	w := get(newServer(t, sample(), exporter{}), "/api/v1/status")
	var got Status
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if !got.Ready || got.Version != "v1" || got.Now.Unix() != 2000 || got.Replicas[0].LagBytes != 1400 || got.Stream.End.Pos != 500 {
		t.Errorf("got %s", w.Body)
	}
	w = get(newServer(t, Status{}, exporter{}), "/api/v1/status")
	for _, want := range []string{`"replicas": []`, `"members": []`, `"files": []`, `"gtid_executed": ""`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("an empty node answers without %s: %s", want, w.Body)
		}
	}
}

func TestOnlyLoopbackHosts(t *testing.T) {
	s := newServer(t, sample(), exporter{})
	for host, want := range map[string]int{
		"127.0.0.1:8307": 200, "localhost:8307": 200, "LOCALHOST": 200, "[::1]:8307": 200, "127.5.5.5": 200, "[::1]": 200,
		"evil.example": 421, "evil.example:8307": 421, "10.0.0.1:8307": 421, "": 421, "localhost.evil.example": 421,
	} {
		r := httptest.NewRequest("GET", "/api/v1/status", nil)
		Authorize(r, testToken)
		r.Host = host
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("host %q: got %d, want %d", host, w.Code, want)
		}
	}
	r := httptest.NewRequest("POST", "/api/v1/status", nil)
	Authorize(r, testToken)
	r.Host = "localhost"
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d", w.Code)
	}
}

func TestMetrics(t *testing.T) {
	s := newServer(t, sample(), exporter{})
	w := get(s, "/metrics")
	if w.Code != 200 {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	text := w.Body.String()
	for _, want := range []string{
		`kingbus_build_info{go_version="go9",version="v1"} 1`, "kingbus_ready 1", "kingbus_source_connected 1",
		`kingbus_replica_lag_bytes{replica="server id 12",server_id="12"} 1400`, `kingbus_replica_lag_seconds{replica="server id 12",server_id="12"} 2`, "kingbus_replicas 2",
		`kingbus_replica_info{host="10.0.0.9",mode="gtid",name="",replica="server id 12",server_id="12",user="r"} 1`, `user="bad�utf8"`,
		`kingbus_hop_file_number{hop="committed"} 2`, `kingbus_hop_position_bytes{hop="committed"} 300`, `kingbus_hop_file_number{hop="served"} 1`, `kingbus_hop_position_bytes{hop="served"} 100`,
		`kingbus_replica_sent_position_bytes{replica="server id 12",server_id="12"} 100`, `kingbus_queue_length{queue="proposals"} 3`, `kingbus_queue_bytes{queue="intake"} 70`,
		`kingbus_cluster_peer_inflight_messages{peer="n2"} 4`, `kingbus_cluster_peer_queued_messages{peer="n3"} 6`,
		"kingbus_cluster_members 3", "kingbus_cluster_voters 2", "kingbus_cluster_has_leader 1", `kingbus_cluster_peer_up{peer="n2"} 1`, `kingbus_cluster_peer_up{peer="n3"} 0`,
		`kingbus_cluster_peer_match_index{peer="n2"} 8`, "kingbus_cluster_installing_fetched_bytes 30", "kingbus_cluster_installing_size_bytes 50",
		"# HELP kingbus_stream_bytes ", "# TYPE kingbus_source_semi_sync_asked_total counter", "go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
	for _, unknown := range []string{`lag_bytes{replica="server id 0"`, `{hop="received"}`, `{hop="acknowledged"}`, "kingbus_source_behind_seconds ", `acknowledged_position_bytes{`} {
		if strings.Contains(text, unknown) {
			t.Errorf("%s is shown, although it is not known", unknown)
		}
	}
	if strings.Contains(text, `peer="n1"`) {
		t.Error("the node is shown as a peer of its own")
	}
	follower := sample()
	follower.Cluster.Role, follower.Cluster.LeaderID = RoleFollower, 0
	if text := get(newServer(t, follower, exporter{}), "/metrics").Body.String(); strings.Contains(text, "peer_match_index{") || !strings.Contains(text, "kingbus_cluster_has_leader 0") {
		t.Error("a follower shows what only a leader knows, or a leader that it does not know")
	}
}

// TestReplicaTwice: of a replica with two connections the slower one is told, and a client
// cannot break the scrape by what it says of itself.
func TestReplicaTwice(t *testing.T) {
	st := sample()
	sent := func(id uint32, uuid string, pos uint64) Replica {
		return Replica{ReplicaStatus: server.ReplicaStatus{ServerID: id, UUID: uuid, Sent: stream.Coordinates{File: "b.000002", Pos: pos}, LagBytes: 1000 - pos}}
	}
	st.Replicas = []Replica{sent(1, "U", 300), sent(1, "u", 200), sent(1, "u", 250), sent(2, "\xff", 10)}
	for id := range uint32(1000) {
		st.Replicas = append(st.Replicas, sent(100+id, "", 500))
	}
	text := get(newServer(t, st, exporter{}), "/metrics").Body.String()
	for _, want := range []string{`kingbus_replica_lag_bytes{replica="u",server_id="1"} 800`, `kingbus_replica_lag_bytes{replica="server id 2",server_id="2"} 990`, `kingbus_hop_position_bytes{hop="served"} 500`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	if n := strings.Count(text, "kingbus_replica_lag_bytes{"); n > 300 {
		t.Errorf("%d replicas are told of", n)
	}
}

func TestBinlog(t *testing.T) {
	for _, tc := range []struct {
		path string
		e    exporter
		code int
		want string
	}{
		{"/api/v1/binlogs/b.000001", exporter{}, 200, "\xfebinb.000001"},
		{"/api/v1/binlogs/current", exporter{}, 200, "\xfebinb.000002"},
		{"/api/v1/binlogs/b.000009", exporter{}, 404, "there are b.000001 to b.000002"},
		{"/api/v1/binlogs/..%2fx", exporter{}, 404, ""},
		{"/api/v1/binlogs/b.000001", exporter{err: stream.ErrNotYet}, 404, "beyond the end"},
	} {
		w := get(newServer(t, sample(), tc.e), tc.path)
		if w.Code != tc.code || !strings.Contains(w.Body.String(), tc.want) {
			t.Errorf("%s: got %d %q, want %d %q", tc.path, w.Code, w.Body, tc.code, tc.want)
		}
	}
}

// serve runs the server on a real socket.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), s.Shutdown(ctx), <-done); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + l.Addr().String()
}

// A file that could not be sent whole must not look whole.
func TestBrokenExport(t *testing.T) {
	url := serve(t, newServer(t, sample(), exporter{err: errors.New("damage")}))
	r, err := getAuthorized(url + "/api/v1/binlogs/b.000001")
	if err == nil {
		_, err = io.ReadAll(r.Body)
		_ = r.Body.Close()
	}
	if err == nil {
		t.Error("the client did not notice that the file was broken off")
	}
}

func TestWholeExport(t *testing.T) {
	url := serve(t, newServer(t, sample(), exporter{}))
	r, err := getAuthorized(url + "/api/v1/binlogs/b.000001")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || string(b) != "\xfebinb.000001" || r.Trailer.Get(SizeTrailer) != "12" {
		t.Errorf("got %q, trailer %v, %v", b, r.Trailer, err)
	}
}

func TestExportsAreBounded(t *testing.T) {
	e := exporter{begun: make(chan struct{}), wait: make(chan struct{})}
	s := newServer(t, sample(), e)
	done := make(chan int, maxExports)
	for range maxExports {
		go func() { done <- get(s, "/api/v1/binlogs/b.000001").Code }()
		<-e.begun
	}
	if w := get(s, "/api/v1/binlogs/b.000001"); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("one too many: got %d", w.Code)
	}
	close(e.wait)
	for range maxExports {
		if code := <-done; code != 200 {
			t.Errorf("got %d", code)
		}
	}
}

const testToken = "0123456789abcdef"

// always is a token that stays.
func always(token string) func() string { return func() string { return token } }

func getAuthorized(url string) (*http.Response, error) {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	Authorize(r, testToken)
	return http.DefaultClient.Do(r)
}

// TestToken: without the token nothing but health is told.
func TestToken(t *testing.T) {
	synctest.Test(t, tokenNeeded) // a wrong one is answered late
}

func tokenNeeded(t *testing.T) {
	s := newServer(t, sample(), exporter{})
	ask := func(path, authorization string) (int, string) {
		method, path, _ := strings.Cut(path, " ")
		r := httptest.NewRequest(method, path, nil)
		r.Host = "localhost"
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	paths := []string{"GET /debug/pprof/heap", "GET /api/v1/binlogs/current"}
	for _, r := range s.routes(nil) {
		if !r.open && !strings.HasSuffix(r.path, "/profile") && !strings.HasSuffix(r.path, "/trace") { // they take their time
			paths = append(paths, r.method+" "+strings.NewReplacer("{name}", "b.000001", "{session}", "4", "{user}", "u", "{host}", "%25").Replace(r.path))
		}
	}
	for _, path := range paths {
		for _, wrong := range []string{"", "Bearer", "Bearer ", "Bearer x" + testToken, "Bearer " + testToken[1:], "Basic " + testToken, testToken} {
			if code, body := ask(path, wrong); code != http.StatusUnauthorized || strings.Contains(body, "b.000002") || !strings.Contains(body, "--admin-token-file") {
				t.Errorf("%s with %q: %d %s", path, wrong, code, body)
			}
		}
		if code, _ := ask(path, "bearer "+testToken); code == http.StatusUnauthorized {
			t.Errorf("%s with the token: %d", path, code)
		}
	}
	if code, body := ask("GET /healthz", ""); code != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz: %d %s", code, body)
	}
	st := sample()
	st.Reasons = []string{"because"}
	s = newServer(t, st, exporter{})
	if code, body := ask("GET /readyz", ""); code != http.StatusServiceUnavailable || strings.Contains(body, "because") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, body := ask("GET /readyz", "Bearer "+testToken); code != http.StatusServiceUnavailable || !strings.Contains(body, "because") {
		t.Errorf("/readyz with the token: %d %s", code, body)
	}
	if _, err := New(Config{Status: func() Status { return st }, Binlog: exporter{}, Group: &group{}, Users: &users{}, Follow: newFollow(), Dumps: &dumps{}, Variables: newVariables()}); err == nil {
		t.Error("a server without token")
	}
}
