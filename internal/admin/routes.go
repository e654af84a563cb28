package admin

import "net/http"

// route is a request that the API answers.
type route struct {
	method, path string // as http.ServeMux has them
	open         bool   // for everybody; else it needs the token
	handle       http.HandlerFunc
}

// routes lists all of them. The mux is made from it.
func (s *Server) routes(metrics http.HandlerFunc) []route {
	return append([]route{
		{"GET", "/{$}", true, s.index},
		{"GET", "/healthz", true, s.healthz},
		{"GET", "/readyz", true, s.readyz},
		{"GET", "/metrics", false, metrics},
		{"GET", "/api/v1/status", false, s.status},
		{"GET", "/api/v1/binlogs", false, s.binlogs},
		{"POST", "/api/v1/binlogs/purge", false, s.answered(s.purge)},
		{"GET", "/api/v1/binlogs/{name}", false, s.binlog},
		{"GET", "/api/v1/cluster", false, s.cluster},
		{"POST", "/api/v1/cluster/nodes", false, s.change(s.addNode)},
		{"DELETE", "/api/v1/cluster/nodes/{name}", false, s.change(s.removeNode)},
		{"POST", "/api/v1/cluster/nodes/{name}/promote", false, s.change(s.promoteNode)},
		{"POST", "/api/v1/cluster/nodes/{name}/lead", false, s.change(s.leadNode)},
		{"POST", "/api/v1/cluster/verify", false, s.verify},
		{"GET", "/api/v1/replicas", false, s.replicas},
		{"DELETE", "/api/v1/replicas/{session}", false, s.change(s.killReplica)},
		{"GET", "/api/v1/source", false, s.source},
		{"PATCH", "/api/v1/source", false, s.change(s.changeSource)},
		{"DELETE", "/api/v1/source", false, s.change(s.resetSource)},
		{"POST", "/api/v1/source/start", false, s.change(s.startSource)},
		{"POST", "/api/v1/source/stop", false, s.change(s.stopSource)},
		{"GET", "/api/v1/users", false, s.users},
		{"POST", "/api/v1/users", false, s.change(s.addUser)},
		{"PATCH", "/api/v1/users/{user}/{host}", false, s.change(s.changeUser)},
		{"DELETE", "/api/v1/users/{user}/{host}", false, s.change(s.dropUser)},
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
