package admin

import (
	"context"
	"errors"
	"net/http"

	"kingbus/internal/account"
	"kingbus/internal/cluster"
	"kingbus/internal/follow"
	"kingbus/internal/server"
	"kingbus/internal/stream"
	"kingbus/internal/variable"
)

// Failure is the body of every error of the API.
type Failure struct {
	// Error says what went wrong, for people.
	Error string `json:"error"`
	Code  Code   `json:"code"`
	// Next is what an operator can do about it.
	Next string `json:"next"`
}

// Code says for programs what kind of failure it is. Codes are added in time, and never
// change their meaning.
type Code string

// The codes.
const (
	CodeBadRequest       Code = "bad_request"        // the request makes no sense, or says what cannot be
	CodeUnauthorized     Code = "unauthorized"       // it shows neither the token nor a certificate
	CodeNotFound         Code = "not_found"          // what it names is not there
	CodeMethodNotAllowed Code = "method_not_allowed" // the path knows other methods
	CodeConflict         Code = "conflict"           // it cannot be done as things are
	CodeUnsupportedMedia Code = "unsupported_media"  // a change without Content-Type: application/json
	CodeMisdirected      Code = "misdirected"        // the Host header names another server
	CodeInternal         Code = "internal"           // the node could not do it
	CodeBusy             Code = "busy"               // it does as much of this already as it does at a time
	CodeNoLeader         Code = "no_leader"          // nobody can carry out a change at present; nothing was done
	CodeUncertain        Code = "uncertain"          // nobody knows whether it was done
	CodeUnavailable      Code = "unavailable"        // this node cannot do it at present
)

// kind is what all failures of a code have in common.
type kind struct {
	code   Code
	status int    // of HTTP
	next   string // where the failure itself says nothing better
}

// kinds lists all codes.
func kinds() []kind {
	return []kind{
		{CodeBadRequest, http.StatusBadRequest, "mend the request; /api/v1/openapi.json describes what the API takes"},
		{CodeUnauthorized, http.StatusUnauthorized, `send the token of the node in a header "Authorization: Bearer TOKEN": it is in the file keys/admin-token of its data folder, or what --admin-token-file says. ` +
			"The commands of kingbus find it with --data-dir or --admin-token-file. Or show a certificate that --admin-tls-ca of the node has signed"},
		{CodeNotFound, http.StatusNotFound, "look at what there is; /api/v1/openapi.json describes what the API answers"},
		{CodeMethodNotAllowed, http.StatusMethodNotAllowed, "use a method of the header Allow"},
		{CodeConflict, http.StatusConflict, "look at how things are now (`kingbus status`), and try again"},
		{CodeUnsupportedMedia, http.StatusUnsupportedMediaType, "set the header Content-Type: application/json; it keeps web pages from sending this"},
		{CodeMisdirected, http.StatusMisdirectedRequest, "set the Host header to localhost, 127.0.0.1 or [::1]"},
		{CodeInternal, http.StatusInternalServerError, "look at the log of the node, and at `kingbus status`"},
		{CodeBusy, http.StatusServiceUnavailable, "try again when what runs is done"},
		{CodeNoLeader, http.StatusServiceUnavailable, "start the nodes that are down, or mend the network between them (`kingbus node list` shows who is up), and try again"},
		{CodeUncertain, http.StatusServiceUnavailable, "look at what there is now, and try again if it was not done"},
		{CodeUnavailable, http.StatusServiceUnavailable, "try again, or ask another node"},
	}
}

// failure is a Failure as an error.
type failure struct {
	code Code
	err  error
	next string // "" = what the code says
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// fail makes a failure of a text.
func fail(code Code, text string) error { return &failure{code: code, err: errors.New(text)} }

// known are errors of other packages, with what they mean here. The first one that an error
// is counts.
func known() []failure {
	return []failure{
		{CodeNoLeader, cluster.ErrNoLeader, ""},
		{CodeUncertain, stream.ErrUncertain, ""},
		{CodeUncertain, cluster.ErrDeposed, ""},
		{CodeUncertain, context.DeadlineExceeded, ""},
		{CodeUncertain, context.Canceled, ""},
		{CodeUnavailable, cluster.ErrDropped, ""},
		{CodeUnavailable, cluster.ErrClosed, "the node stops: ask another one"},
		{CodeConflict, account.ErrOwn, "change it in the settings of the node, or choose another name"},
		{CodeConflict, stream.ErrOldFormat, "upgrade the node, start it, or remove it (`kingbus node list` shows who is up)"},
		{CodeConflict, stream.ErrSettingsChanged, "look at them, and try again"},
		{CodeConflict, cluster.ErrNameTaken, "choose another name, or remove that node first"},
		{CodeConflict, cluster.ErrBehind, "`kingbus node list` shows how far it is; `kingbus node add` with its name and address waits for it"},
		{CodeConflict, cluster.ErrUnsafe, "start the nodes that are down first"},
		{CodeConflict, cluster.ErrLastVoter, "add another node before it goes"},
		{CodeConflict, cluster.ErrOtherCluster, "empty its data folder, and start it with --join"},
		{CodeConflict, cluster.ErrFormat, "run the version that the other nodes run"},
		{CodeConflict, follow.ErrRunning, "`kingbus source stop`, and `kingbus source start` afterwards"},
		{CodeConflict, follow.ErrFollowed, "`kingbus source stop` first: where to stop is said at the start"},
		{CodeConflict, follow.ErrNoSource, "`kingbus source change --host …` says whom to follow"},
		{CodeConflict, follow.ErrBegun, "leave out where to start; a binlog that begins elsewhere needs empty data folders"},
		{CodeNotFound, variable.ErrNoVariable, "`kingbus config show` shows the variables"},
		{CodeNotFound, cluster.ErrNoMember, "`kingbus node list` shows the nodes"},
		{CodeNotFound, server.ErrNoReplica, "`kingbus replica list` shows those of this node; each node has its own"},
		{CodeNotFound, stream.ErrNoFile, "`kingbus binlog list` shows the files"},
		{CodeNotFound, stream.ErrNotYet, "ask again when this node has more, or another node"},
	}
}

// failureOf is the one place that makes an answer of an error.
func failureOf(err error) (status int, out Failure) {
	f := failure{code: CodeInternal, err: err}
	var value *follow.ValueError
	var set *variable.ValueError
	if own := (*failure)(nil); errors.As(err, &own) {
		f = *own
	} else if errors.As(err, &value) || errors.As(err, &set) {
		f.code = CodeBadRequest
	} else {
		for _, k := range known() {
			if errors.Is(err, k.err) {
				f = k
				break
			}
		}
	}
	out = Failure{Error: err.Error(), Code: f.code, Next: f.next}
	for _, k := range kinds() {
		if k.code == f.code {
			if status = k.status; out.Next == "" {
				out.Next = k.next
			}
		}
	}
	return status, out
}

// fail answers with an error.
func (s *Server) fail(w http.ResponseWriter, err error) {
	status, f := failureOf(err)
	s.json(w, status, f)
}

// unrouted answers what no route takes as net/http would, but in JSON.
func (s *Server) unrouted(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		said := said{header: http.Header{}}
		handler.ServeHTTP(&said, r)
		if allow := said.header.Get("Allow"); allow != "" {
			w.Header().Set("Allow", allow)
			s.fail(w, fail(CodeMethodNotAllowed, r.Method+" is not for "+r.URL.Path+"; "+allow+" is"))
			return
		}
		s.fail(w, fail(CodeNotFound, "there is nothing at "+r.URL.Path))
	})
}

// said takes the header of an answer, and nothing else of it.
type said struct{ header http.Header }

func (s *said) Header() http.Header         { return s.header }
func (s *said) Write(b []byte) (int, error) { return len(b), nil }
func (s *said) WriteHeader(int)             {}
