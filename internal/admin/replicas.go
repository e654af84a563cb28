package admin

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"kingbus/internal/meter"
	"kingbus/internal/server"
)

// Dumps are the sessions of who pulls the binlog from this node; *server.Server has them.
type Dumps interface {
	// KillReplica ends the session of one; its error is server.ErrNoReplica.
	KillReplica(session uint32) error
}

// Replicas are the clients that pull the binlog from one node.
type Replicas struct {
	// Node is the name of that node, which was asked: each knows its own only.
	Node string `json:"node"`
	// Now is the node's clock when it answered.
	Now      time.Time `json:"now"`
	Replicas []Replica `json:"replicas"`
}

// Replica is a client that pulls the binlog, and what it was sent in this session.
type Replica struct {
	server.ReplicaStatus
	meter.Traffic
}

func (s *Server) replicas(w http.ResponseWriter, _ *http.Request) {
	st := s.snapshot()
	s.json(w, http.StatusOK, Replicas{Node: st.Cluster.Name, Now: st.Now, Replicas: st.Replicas})
}

func (s *Server) killReplica(_ context.Context, r *http.Request, _ []byte) (string, error) {
	session, err := strconv.ParseUint(r.PathValue("session"), 10, 32)
	if err != nil {
		return "", fail(CodeBadRequest, fmt.Sprintf("%.40q is no session: that is a number", r.PathValue("session")))
	}
	return fmt.Sprintf("end the session %d of a replica", session), s.cfg.Dumps.KillReplica(uint32(session))
}
