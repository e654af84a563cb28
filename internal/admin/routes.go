package admin

import (
	_ "embed" // openapi.json
	"net/http"

	"kingbus/internal/follow"
	"kingbus/internal/variable"
)

// route is a request that the API answers. The mux is made from the list of them, and so is
// openapi.json (by a test, which also holds it equal: make docs).
type route struct {
	method, path string // as http.ServeMux has them
	open         bool   // for everybody; else it needs the token
	handle       http.HandlerFunc
	does         string
	takes        any // a value of the type that the body has as JSON, or an optional; nil: no body
	answers      any // likewise; nil: nothing (204); or a media, or manyOf
}

// media is an answer that is no JSON: its media type.
type media string

// optional is a body that may be missing.
type optional struct{ of any }

// manyOf is an answer of many lines, each of which is JSON of the type of a value.
type manyOf struct{ of any }

const (
	plain  media = "text/plain"
	binary media = "application/octet-stream"
)

// routes lists all of them.
func (s *Server) routes(metrics http.HandlerFunc) []route {
	return append([]route{
		{"GET", "/{$}", true, s.index, "The version, and where to look", nil, plain},
		{"GET", "/healthz", true, s.healthz, "200 as long as the process is alive", nil, plain},
		{"GET", "/readyz", true, s.readyz, "200 if the node is fit to serve, else 503; with the token also why not", nil, Readiness{}},
		{"GET", "/api/v1/openapi.json", true, s.openAPI, "This description", nil, media("application/json")},
		{"GET", "/metrics", false, metrics, "Metrics for Prometheus", nil, plain},

		{"GET", "/api/v1/status", false, s.status, "What the node does: all that `kingbus status` shows", nil, Status{}},
		{"GET", "/api/v1/cluster", false, s.cluster, "The cluster as the node sees it, a part of the status", nil, Cluster{}},
		{"POST", "/api/v1/cluster/nodes", false, s.change(s.addNode), "Take a node into the cluster, as a learner", NewNode{}, nil},
		{"DELETE", "/api/v1/cluster/nodes/{name}", false, s.change(s.removeNode), "Take a node out of the cluster, for good", nil, nil},
		{"POST", "/api/v1/cluster/nodes/{name}/promote", false, s.change(s.promoteNode), "Make a learner that has caught up a voter", nil, nil},
		{"POST", "/api/v1/cluster/nodes/{name}/lead", false, s.change(s.leadNode), "Make a node the leader", nil, nil},
		{"POST", "/api/v1/cluster/verify", false, s.verify, "Compare the logs of all nodes, entry by entry: lines that tell how far it has come, and at last the result or a failure", nil, manyOf{VerifyLine{}}},

		{"GET", "/api/v1/source", false, s.source, "Which source the cluster follows, and how this node does", nil, Followed{}},
		{"PATCH", "/api/v1/source", false, s.change(s.changeSource), "Say another source, or other things of it, while it is stopped (CHANGE REPLICATION SOURCE TO)", follow.Change{}, nil},
		{"DELETE", "/api/v1/source", false, s.change(s.resetSource), "Forget what was said of the source, while it is stopped (RESET REPLICA ALL)", nil, nil},
		{"POST", "/api/v1/source/start", false, s.change(s.startSource), "Follow the source (START REPLICA)", optional{StartSource{}}, nil},
		{"POST", "/api/v1/source/stop", false, s.change(s.stopSource), "Stop following the source, on all nodes, until it is started (STOP REPLICA)", nil, nil},

		{"GET", "/api/v1/binlogs", false, s.binlogs, "The binlog files", nil, Binlogs{}},
		{"POST", "/api/v1/binlogs/purge", false, s.answered(s.purge), "Remove old binlog files, on all nodes (PURGE BINARY LOGS)", Purge{}, Purged{}},
		{"GET", "/api/v1/binlogs/{name}", false, s.binlog, "A binlog file as MySQL would have it on disk; \"current\" is the newest. The trailer " + SizeTrailer + " has its size: without it, the file has broken off", nil, binary},

		{"GET", "/api/v1/replicas", false, s.replicas, "The clients that pull from this node", nil, Replicas{}},
		{"DELETE", "/api/v1/replicas/{session}", false, s.change(s.killReplica), "End the session of one of them (KILL)", nil, nil},

		{"GET", "/api/v1/variables", false, s.variables, "What holds for all nodes and can be changed, as SHOW VARIABLES has it", nil, []variable.Shown{}},
		{"PATCH", "/api/v1/variables", false, s.change(s.changeVariables), "Change variables, or take back what the cluster says of them, on all nodes (SET PERSIST, RESET PERSIST)", VariablesChange{}, nil},

		{"GET", "/api/v1/users", false, s.users, "The accounts", nil, []User{}},
		{"POST", "/api/v1/users", false, s.change(s.addUser), "Make an account (CREATE USER)", UserChange{}, nil},
		{"PATCH", "/api/v1/users/{user}/{host}", false, s.change(s.changeUser), "Change an account (ALTER USER, GRANT, REVOKE)", UserChange{}, nil},
		{"DELETE", "/api/v1/users/{user}/{host}", false, s.change(s.dropUser), "Drop an account (DROP USER)", nil, nil},
	}, profiles()...)
}

// mux makes the handler of all routes.
func (s *Server) mux(routes []route) http.Handler {
	mux := http.NewServeMux()
	for _, r := range routes {
		handle := r.handle
		if !r.open {
			handle = s.guarded(handle)
		}
		mux.HandleFunc(r.method+" "+r.path, handle)
	}
	return s.unrouted(mux)
}

//go:embed openapi.json
var description []byte

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(description) // the client went away
}
