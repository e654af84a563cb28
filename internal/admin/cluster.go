package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"kingbus/internal/cluster"
)

// Cluster is this node's view of the group that it belongs to.
type Cluster struct {
	ID uint64 `json:"id,string"` // 0: it belongs to none yet
	// Name and Address (where other nodes reach it) are this node's.
	Name    string `json:"name"`
	Address string `json:"address,omitempty"`
	Role    Role   `json:"role"`
	// LeaderID is the Raft id of whom this node takes for the leader, 0 = nobody, and
	// Leader the name.
	LeaderID uint64 `json:"leader_id,string"`
	Leader   string `json:"leader,omitempty"`
	// Stale: no leader is known since StaleSince, so that others may have more than
	// this node.
	Stale      bool      `json:"stale"`
	StaleSince time.Time `json:"stale_since,omitzero"`
	// Format is the version of the data format that the cluster writes.
	Format uint16 `json:"format"`
	// Installing is how far this node has come with the log that it fetches from
	// others, if it does.
	Installing *cluster.Progress `json:"installing,omitempty"`
	// Damaged counts the entries that are being fetched again because this node's
	// disk has damaged them.
	Damaged int                    `json:"damaged"`
	Members []cluster.MemberStatus `json:"members"`
}

// Role is a node's part in the cluster.
type Role string

// The roles. Waiting is a node that no cluster has taken in yet.
const (
	RoleLeader   Role = "leader"
	RoleFollower Role = "follower"
	RoleLearner  Role = "learner"
	RoleWaiting  Role = "waiting"
)

// Member returns the member of a name.
func (c Cluster) Member(name string) (cluster.MemberStatus, bool) {
	for _, m := range c.Members {
		if m.Name == name {
			return m, true
		}
	}
	return cluster.MemberStatus{}, false
}

// Voters counts the members that vote.
func (c Cluster) Voters() int {
	n := 0
	for _, m := range c.Members {
		if !m.Learner {
			n++
		}
	}
	return n
}

// Group is how the API changes the cluster; *cluster.Node is one. Every change
// may be repeated. All block until it is done or ctx ends.
type Group interface {
	Add(ctx context.Context, name, address string) error
	Promote(ctx context.Context, name string) error
	Remove(ctx context.Context, name string) error
	Transfer(ctx context.Context, name string) error
	Verify(ctx context.Context, step func(entry, last uint64)) (cluster.Verified, error)
}

// NewNode is the body of a request to add a node.
type NewNode struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// VerifyLine is one line of the answer of /api/v1/cluster/verify: how far it has
// come, or at the end either the result or why there is none.
type VerifyLine struct {
	Entry  uint64            `json:"entry,omitempty"`
	Last   uint64            `json:"last,omitempty"`
	Result *cluster.Verified `json:"result,omitempty"`
	*Failure
}

const (
	// changeTime bounds a change of the cluster: an election may come in between.
	// It is less than clients and WriteTimeout wait.
	changeTime = 12 * time.Second
	// maxBody bounds the body of a request in bytes.
	maxBody = 64 << 10
)

// checkJSON demands the header that a web page of another origin cannot send
// without asking first.
func checkJSON(r *http.Request) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return fail(CodeUnsupportedMedia, "the request lacks the header Content-Type: application/json")
	}
	return nil
}

func (s *Server) cluster(w http.ResponseWriter, _ *http.Request) {
	s.json(w, http.StatusOK, s.snapshot().Cluster)
}

// body reads the whole body of a request that changes something. That also lets
// the server notice from then on that the client goes away.
func body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if err := checkJSON(r); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, fail(CodeBadRequest, "the body cannot be read: "+err.Error())
	}
	return b, nil
}

// decode reads a body, which is to be what is called so.
func decode[T any](body []byte, what string) (v T, err error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err = d.Decode(&v); err == nil {
		if _, end := d.Token(); end != io.EOF {
			err = errors.New("something follows it")
		}
	}
	if err != nil {
		err = fail(CodeBadRequest, "the body is not "+what+": "+err.Error())
	}
	return v, err
}

// brief is what a change says, for the log; who calls it has hidden what is secret.
func brief(change any) string {
	b, err := json.Marshal(change)
	if err != nil {
		return err.Error()
	}
	const most = 1024
	return strings.ToValidUTF8(string(b[:min(len(b), most)]), "")
}

// hidden is a password, or a hash, as the log shows it.
const hidden = "(hidden)"

// change makes the handler of a change that has no answer. do tells what it does, for the log.
func (s *Server) change(do func(ctx context.Context, r *http.Request, body []byte) (what string, err error)) http.HandlerFunc {
	return s.answered(func(ctx context.Context, r *http.Request, body []byte) (any, string, error) {
		what, err := do(ctx, r, body)
		return nil, what, err
	})
}

// answered makes the handler of a change that may have an answer. do tells what it does, for
// the log, or "" if it did nothing.
func (s *Server) answered(do func(ctx context.Context, r *http.Request, body []byte) (answer any, what string, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, err := body(w, r)
		if err != nil {
			s.fail(w, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), changeTime)
		defer cancel()
		answer, what, err := do(ctx, r, b)
		if err != nil {
			if ctx.Err() != nil && !errors.Is(err, cluster.ErrNoLeader) {
				err = &failure{code: CodeUncertain, err: fmt.Errorf("it was not done within %s, and may still be: %w", changeTime, err)}
			}
			if _, f := failureOf(err); what != "" && f.Code == CodeUncertain { // who looks into it later has to know who asked
				s.cfg.Log.Warn("what the HTTP API was asked to change may have been changed", append([]any{"change", what, "error", err}, callerOf(r.Context()).attributes()...)...)
			}
			s.fail(w, err)
			return
		}
		if what != "" {
			s.cfg.Log.Info("what the HTTP API was asked to change was changed", append([]any{"change", what}, callerOf(r.Context()).attributes()...)...)
		}
		if answer == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		s.json(w, http.StatusOK, answer)
	}
}

func (s *Server) addNode(ctx context.Context, _ *http.Request, body []byte) (string, error) {
	n, err := decode[NewNode](body, "a node")
	if err != nil {
		return "", err
	}
	if n.Name == "" || n.Address == "" {
		return "", fail(CodeBadRequest, `the body has to be {"name": "NAME", "address": "HOST:PORT"}`)
	}
	return fmt.Sprintf("add %s at %s", n.Name, n.Address), s.cfg.Group.Add(ctx, n.Name, n.Address)
}

func (s *Server) promoteNode(ctx context.Context, r *http.Request, _ []byte) (string, error) {
	name := r.PathValue("name")
	return "promote " + name, s.cfg.Group.Promote(ctx, name)
}

func (s *Server) removeNode(ctx context.Context, r *http.Request, _ []byte) (string, error) {
	name := r.PathValue("name")
	return "remove " + name, s.cfg.Group.Remove(ctx, name)
}

func (s *Server) leadNode(ctx context.Context, r *http.Request, _ []byte) (string, error) {
	name := r.PathValue("name")
	return "make " + name + " the leader", s.cfg.Group.Transfer(ctx, name)
}

// verify compares the nodes. It may take hours, so it tells how far it is, and
// moves its write deadline on.
func (s *Server) verify(w http.ResponseWriter, r *http.Request) {
	if _, err := body(w, r); err != nil {
		s.fail(w, err)
		return
	}
	select {
	case s.verifies <- struct{}{}:
		defer func() { <-s.verifies }()
	default:
		s.fail(w, fail(CodeBusy, "the nodes are being compared already"))
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := &patientWriter{w: w, control: http.NewResponseController(w)}
	line := func(l VerifyLine) {
		b, err := json.Marshal(l)
		if err != nil {
			s.cfg.Log.Error("encode an answer", "error", err)
			return
		}
		_, _ = out.Write(append(b, '\n')) // if the client went away, the request's context ends
		_ = out.control.Flush()
	}
	w.WriteHeader(http.StatusOK)
	_ = out.control.Flush() // the first line takes a while
	result, err := s.cfg.Group.Verify(r.Context(), func(entry, last uint64) { line(VerifyLine{Entry: entry, Last: last}) })
	if err != nil {
		_, f := failureOf(err)
		line(VerifyLine{Failure: &f})
		return
	}
	if result.Nodes == nil {
		result.Nodes = []string{}
	}
	if result.Differences == nil {
		result.Differences = []cluster.Difference{}
	}
	line(VerifyLine{Result: &result})
}
