// Package admin is the HTTP side of a node: health checks, metrics, its status
// as JSON, whole binlog files, and the changes of the cluster that an operator
// asks for. All requests are in one list (routes.go), which is described in
// openapi.json, made of it and of the types here.
//
// A change is answered with 204, an error with Failure: what went wrong, a code for programs
// and the next step for people. Any node takes a change; the leader carries it out. Each may
// be repeated.
//
// Without TLS the API belongs on a loopback address (package config
// sees to that). It answers only requests that name the node as their host: a web
// page that resolves its own name to 127.0.0.1 gets nothing from it. What changes
// something needs the header Content-Type: application/json besides. A page of
// another origin may not send that before the browser has asked with a preflight
// whether it may (CORS), and no preflight is ever granted here; without the
// header, a form on any page that the operator looks at could remove a node.
package admin

import (
	"time"

	"kingbus/internal/cluster"
	"kingbus/internal/gtid"
	"kingbus/internal/semisync"
	"kingbus/internal/stream"
)

// Status is the answer of /api/v1/status, and what `kingbus status` shows.
// Fields are added in time, and never change their meaning. Times are RFC 3339;
// sizes and lags are in bytes and seconds.
type Status struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Now is the node's clock when it answered.
	Now   time.Time `json:"now"`
	Ready bool      `json:"ready"`
	// Reasons tells why the node is not ready.
	Reasons []string `json:"reasons,omitempty"`
	Node    Node     `json:"node"`
	Cluster Cluster  `json:"cluster"`
	Source  Source   `json:"source"`
	Stream  Stream   `json:"stream"`
	Disk    Disk     `json:"disk"`
	Clients Clients  `json:"clients"`
	// Certificates are those that the node shows.
	Certificates []Certificate `json:"certificates,omitempty"`
	// SemiSync is this node's part as a semi-synchronous source of its replicas.
	SemiSync semisync.SourceStatus `json:"semi_sync"`
	// Replicas are the clients that pull the binlog from this node.
	Replicas []Replica `json:"replicas"`
}

// Certificate is the end of one that the node shows, and to whom: "replicas", "other nodes" or
// "clients of the HTTP API".
type Certificate struct {
	To       string    `json:"to"`
	NotAfter time.Time `json:"not_after"`
}

// Node is this process's part in the cluster.
type Node struct {
	// ServerID and ServerUUID are what source and replicas see.
	ServerID   uint32 `json:"server_id"`
	ServerUUID string `json:"server_uuid"`
	RaftID     uint64 `json:"raft_id,string"`
	Leader     bool   `json:"leader"`
	Term       uint64 `json:"term"`
	Applied    uint64 `json:"applied"`
	Committed  uint64 `json:"committed"`
	FirstIndex uint64 `json:"first_index"`
	LastIndex  uint64 `json:"last_index"`
	Epoch      uint64 `json:"epoch"`
	// Queues are what waits in this node.
	Queues cluster.Queues `json:"queues"`
}

// States that package source does not know: there is no source, and another node
// follows it.
const (
	SourceNone     = "not configured"
	SourceStopped  = "stopped"
	SourceRefused  = "cannot be followed as the cluster says"
	SourceFollowed = "followed by the leader"
)

// Source is the link to the source.
type Source struct {
	// Address is host:port, "" if no source is configured.
	Address string `json:"address,omitempty"`
	// State is a word or two: "not configured", "connecting", "streaming" …
	State string `json:"state"`
	// Connected tells whether the binlog flows.
	Connected bool `json:"connected"`
	// Since is when the state began.
	Since time.Time `json:"since,omitzero"`
	// Error is the last one, which stays after the link has recovered; NextStep
	// is what an operator can do about it.
	Error    string    `json:"error,omitempty"`
	ErrorAt  time.Time `json:"error_at,omitzero"`
	NextStep string    `json:"next_step,omitempty"`
	// SemiSync is kingbus's part as a semi-synchronous replica.
	SemiSync semisync.Status `json:"semi_sync"`
	// LeaderSemiSync is the leader's part, as it tells the others, with some of the replicas that it
	// waits for; nil: this node leads, has not heard, or the leader is not connected.
	LeaderSemiSync *semisync.Status `json:"leader_semi_sync,omitempty"`
	// TLS is the protocol version of the connection; "" is a connection in clear,
	// or none.
	TLS string `json:"tls,omitempty"`
	// Coordinates are the source's own, up to which everything is committed.
	Coordinates stream.Coordinates `json:"coordinates"`
	ServerID    uint32             `json:"server_id,omitempty"`
	ServerUUID  string             `json:"server_uuid,omitempty"`
	Version     string             `json:"version,omitempty"`
	// Connects counts the links of this node since the process started; Events, Bytes and
	// Transactions what came over them.
	Connects     uint64 `json:"connects"`
	Events       uint64 `json:"events"`
	Bytes        uint64 `json:"bytes"`
	Transactions uint64 `json:"transactions"`
	// Received is up to where events have come, which may be inside a transaction, and
	// Proposed up to where this node has offered them to the log.
	Received stream.Coordinates `json:"received"`
	Proposed stream.Coordinates `json:"proposed"`
	// Behind is how far in seconds what is committed is behind the source, by both clocks:
	// the age of the newest event, when it came or, until it is committed, now; 0 when the
	// source has no more. nil: this node does not follow the source at present.
	Behind *float64 `json:"seconds_behind,omitempty"`
	// LastEvent is when the newest event was made, by the source's clock.
	LastEvent time.Time `json:"last_event,omitzero"`
	// LastHeard is when the source last sent anything, heartbeats too.
	LastHeard time.Time `json:"last_heard,omitzero"`
	// NextTry is when the next connection is made, while one waits for it.
	NextTry time.Time `json:"next_try,omitzero"`
}

// Stream is the replicated binlog.
type Stream struct {
	// End is the last boundary: where a replica that has everything stands.
	End      stream.Coordinates `json:"end"`
	Executed gtid.Set           `json:"gtid_executed"`
	Purged   gtid.Set           `json:"gtid_purged"`
	// Transactions counts since the stream began.
	Transactions uint64 `json:"transactions"`
	// LastEvent is when the newest event was made, by the source's clock.
	LastEvent time.Time `json:"last_event,omitzero"`
	// Bytes is the size of all files together.
	Bytes uint64        `json:"bytes"`
	Files []stream.File `json:"files"`
	// Followed are the server uuids of all sources, oldest first.
	Followed []string `json:"followed"`
}

// Disk is the data folder.
type Disk struct {
	Dir string `json:"dir"`
	// Used is the size of the log, which holds the binlog and little else.
	Used     int64  `json:"used"`
	Segments int    `json:"segments"`
	Free     uint64 `json:"free"`
	Total    uint64 `json:"total"`
	// Reserve is the free space that events must leave.
	Reserve uint64 `json:"reserve"`
	// Error tells why Free and Total are not known.
	Error string `json:"error,omitempty"`
}

// Clients counts those who connect to this node. All but Connections only grow.
type Clients struct {
	Connections  int    `json:"connections"`
	Accepted     uint64 `json:"accepted"`
	Refused      uint64 `json:"refused"`
	FailedLogins uint64 `json:"failed_logins"`
	Dumps        uint64 `json:"dumps"`
	Queries      uint64 `json:"queries"`
	EventsSent   uint64 `json:"events_sent"`
	BytesSent    uint64 `json:"bytes_sent"`
}
