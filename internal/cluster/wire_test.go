package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"kingbus/internal/peer"
	"kingbus/internal/vfs"
)

// TestWireJSON holds what nodes say to each other in JSON against its bytes: other
// versions of kingbus read and write the same.
func TestWireJSON(t *testing.T) {
	for want, v := range map[string]any{
		`{"name":"n1","address":"a:1","max_format":1,"leader":"5","first":2,"last":9,"applied":8}`: report{
			Name: "n1", Address: "a:1", MaxFormat: 1, Leader: 5, First: 2, Last: 9, Applied: 8},
		`{"name":"n1","address":"a:1","max_format":1,"leader":"0","first":2,"last":9,"applied":8,"full":true,"installing":{"done":1,"total":2,"seconds":0.5},"acked":{"5":8,"9":7},"extra":{"needs":3}}`: report{
			Name: "n1", Address: "a:1", MaxFormat: 1, First: 2, Last: 9, Applied: 8, Full: true, Installing: &Progress{Done: 1, Total: 2, Seconds: 0.5},
			Acked: map[uint64]uint64{9: 7, 5: 8}, Extra: json.RawMessage(`{"needs":3}`)},
		`{"last":9,"last_term":2,"applied":8,"to":20}`:                             fetchRequest{Last: 9, LastTerm: 2, Applied: 8, To: 20},
		`{"last":0,"last_term":0,"applied":8,"to":9,"exactly":true,"latest":true}`: fetchRequest{Applied: 8, To: 9, Exactly: true, Latest: true},
		`{"from":10,"anew":true,"prev_term":2,"bytes":1000}`:                       fetchAnswer{From: 10, Anew: true, PrevTerm: 2, Bytes: 1000},
		`{"from":0,"anew":false,"prev_term":0,"bytes":0,"error":"no"}`:             fetchAnswer{Error: "no"},
		`{"do":"add","name":"n4","address":"d:1"}`:                                 question{Do: "add", Name: "n4", Address: "d:1"},
		`{"do":"digest","from":2,"to":9}`:                                          question{Do: "digest", From: 2, To: 9},
		`{}`:                                                                       reply{},
		`{"error":"no","code":"behind"}`:                                           reply{Error: "no", Code: "behind"},
		`{"digests":[{"from":2,"to":9,"sum":"00ff"}],"entry":9,"first":2,"snapshot":"AQI=","term":3}`: reply{Digests: []Digest{{2, 9, "00ff"}}, Entry: 9, First: 2, Snapshot: []byte{1, 2}, Term: 3},
		`{"request":"7","member":{"raft_id":"9","name":"n3","address":"c:1"}}`:                        change{Request: 7, Member: Member{ID: 9, Name: "n3", Address: "c:1"}},
		`{"request":"7","member":{"raft_id":"9","name":"","address":""},"format":2}`:                  change{Request: 7, Member: Member{ID: 9}, Format: 2},
		`{"up_to":77}`: mending{UpTo: 77},
	} {
		got, err := json.Marshal(v)
		if err != nil || string(got) != want {
			t.Errorf("%T is\n%s, %v, want\n%s", v, got, err, want)
		}
		back := reflect.New(reflect.TypeOf(v))
		if err := json.Unmarshal([]byte(want), back.Interface()); err != nil || !reflect.DeepEqual(back.Elem().Interface(), v) {
			t.Errorf("%s became %+v, %v", want, back.Elem(), err)
		}
		// A newer node may say more.
		more := strings.TrimSuffix(want, "}") + `,"tomorrow":{"x":[1]}}`
		if want == "{}" {
			more = `{"tomorrow":1}`
		}
		if err := json.Unmarshal([]byte(more), reflect.New(reflect.TypeOf(v)).Interface()); err != nil {
			t.Errorf("%s: %v", more, err)
		}
	}
}

// TestIdentityFile holds the file "node" against its bytes, of a folder that belongs
// to a cluster and of one that waits for it.
func TestIdentityFile(t *testing.T) {
	for want, id := range map[string]identity{
		"{\n  \"format\": 1,\n  \"cluster_id\": \"18446744073709551615\",\n  \"raft_id\": \"9223372036854775807\"\n}\n": {Format: 1, Cluster: 1<<64 - 1, Raft: 1<<63 - 1},
		"{\n  \"format\": 1,\n  \"cluster_id\": \"0\",\n  \"raft_id\": \"5\"\n}\n":                                      {Format: 1, Raft: 5},
	} {
		fs := vfs.NewMem(1)
		if err := errors.Join(fs.MkdirAll("d"), id.save(fs, "d")); err != nil {
			t.Fatal(err)
		}
		b, err := vfs.ReadFile(fs, filepath.Join("d", identityFile), 1<<10)
		if err != nil || string(b) != want {
			t.Errorf("%+v is\n%s, %v, want\n%s", id, b, err, want)
		}
		got, fresh, err := openIdentity(fs, "d", func() uint64 { panic("it has one") })
		if err != nil || fresh || got != id {
			t.Errorf("%s became %+v, fresh %v, %v", want, got, fresh, err)
		}
	}
	for _, bad := range []string{``, `{}`, `{"format":2,"cluster_id":"1","raft_id":"5"}`, `{"format":1,"cluster_id":"1","raft_id":"0"}`, `{"format":1,"cluster_id":1,"raft_id":"5"}`} {
		fs := vfs.NewMem(1)
		if err := errors.Join(fs.MkdirAll("d"), vfs.WriteFile(fs, filepath.Join("d", identityFile), []byte(bad))); err != nil {
			t.Fatal(err)
		}
		if id, fresh, err := openIdentity(fs, "d", randomUint64); err == nil {
			t.Errorf("%q became %+v, fresh %v", bad, id, fresh)
		}
	}
}

// TestPages: the pages of docs/format name every field and every code.
func TestPages(t *testing.T) {
	for page, what := range map[string][]any{
		"peer.md":       {peer.Hello{}, peer.Refusal{}, report{}, Progress{}, fetchRequest{}, fetchAnswer{}, question{}, reply{}, Digest{}},
		"checkpoint.md": {storedMembership{}, Member{}},
		"entry.md":      {change{}},
		"folder.md":     {identity{}, mending{}},
	} {
		b, err := os.ReadFile(filepath.Join("..", "..", "docs", "format", page))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, v := range what {
			of := reflect.TypeOf(v)
			for i := range of.NumField() {
				name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
				names = append(names, name)
			}
		}
		if page == "peer.md" {
			names = append(names, refusedRemoved, refusedStale, refusedCluster, refusedNode, refusedFormat)
			names = slices.AppendSeq(names, maps.Keys(coded))
		}
		for _, name := range names {
			if !bytes.Contains(b, []byte("`"+name+"`")) {
				t.Errorf("%s says nothing of %q", page, name)
			}
		}
	}
}

// roundTrip: what is read of a peer can be passed on, and says the same then.
func roundTrip[T any](t *testing.T, b []byte) (v T, ok bool) {
	if json.Unmarshal(b, &v) != nil {
		return v, false
	}
	one, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%s cannot be written again: %v", b, err)
	}
	var back T
	if err := json.Unmarshal(one, &back); err != nil {
		t.Fatalf("%s became %s: %v", b, one, err)
	}
	two, err := json.Marshal(back)
	if err != nil || !bytes.Equal(one, two) {
		t.Fatalf("%s became %s, and that %s: %v", b, one, two, err)
	}
	return v, true
}

// FuzzReport: a report changes what is known of its sender, and lets nobody be
// taken to have acknowledged less than before.
func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"name":"n1","address":"a:1","max_format":1,"leader":"5","first":2,"last":9,"applied":8,"full":true,"installing":{"done":1,"total":2,"seconds":0.5},"acked":{"5":8,"9":7},"extra":{"needs":3}}`))
	f.Add([]byte(`{"acked":{"5":0},"extra":null,"installing":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := roundTrip[report](t, b)
		if !ok {
			return
		}
		p := &peers{n: &Node{}, reports: map[uint64]heardReport{}, acked: map[uint64]uint64{5: 100}}
		p.takeReport(3, r)
		if len(p.reports) != 1 || p.hadEntry(5) < 100 || p.hadEntry(5) < r.Acked[5] {
			t.Fatalf("%s: %+v, %v", b, p.reports, p.acked)
		}
		n := &Node{peers: p}
		if extras := n.PeerExtras(1 << 60); len(extras) > 0 && !json.Valid(extras[0]) {
			t.Fatalf("%s: extra %q", b, extras[0])
		}
	})
}

// FuzzQuestion: questions and answers of calls and fetches.
func FuzzQuestion(f *testing.F) {
	f.Add([]byte(`{"do":"digest","from":2,"to":9}`))
	f.Add([]byte(`{"digests":[{"from":2,"to":9,"sum":"00ff"}],"entry":9,"first":2,"snapshot":"AQI=","term":3}`))
	f.Add([]byte(`{"last":9,"last_term":2,"applied":8,"to":20,"latest":true}`))
	f.Add([]byte(`{"from":10,"anew":true,"prev_term":2,"bytes":1000}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		roundTrip[question](t, b)
		roundTrip[fetchRequest](t, b)
		roundTrip[fetchAnswer](t, b)
		if r, ok := roundTrip[reply](t, b); ok {
			_, _ = decodeCheckpoint(r.Snapshot) // never panics
		}
	})
}
