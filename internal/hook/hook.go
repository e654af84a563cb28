// Package hook names the places of the replication path at which others may look
// on and take part: those at which MySQL's own delegates sit (sql/replication.h,
// sql/rpl_handler.h). Semi-synchronous replication and metrics are observers on
// them; the path itself knows nothing of either.
//
//	Transaction  a transaction is in the stream for good, or is not
//	Storage      events have been proposed; they are durable at a quorum
//	RelayIO      the connection to the source, from login to end
//	Transmit     a dump to a replica, from its request to its end
//	Raft         the log on this node's disk; who leads the group that keeps it
//
// Observers are called in the order in which a Set lists them, in the goroutine of
// the path, which waits for them: they must not block unless their method says
// that it may. Where there are none a hook costs the look at an empty slice.
package hook

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"kingbus/internal/gtid"
)

// Set is all observers of a process. It does not change once the path runs. The
// zero value has none.
type Set struct {
	Transaction []Transaction
	Storage     []Storage
	RelayIO     []RelayIO
	Transmit    []Transmit
	Raft        []Raft
}

// Position is a place in a binlog file: in whose file, the field or parameter says
// that has it.
type Position struct {
	File string `json:"file"`
	Pos  uint64 `json:"pos"` // behind an event
}

// Transaction observes how transactions end, on every node, in the apply goroutine.
type Transaction interface {
	// AfterCommit: transactions are in the stream, and can be read.
	AfterCommit(Commit)
	// AfterRollback: what was received of a transaction is dropped.
	AfterRollback(Rollback)
}

// Commit is the transactions that one entry of the log has ended.
type Commit struct {
	Entry uint64 // index in the log
	Count uint64
	// GTIDs of those that have one. The slice is valid until the call returns.
	GTIDs []gtid.GTID
	// At is where the served binlog stands behind them, Source where the source's does.
	At, Source Position
	// Epoch is that of the link over which they have come: see Link.
	Epoch uint64
}

// Rollback is a transaction that will not be completed: its source or its leader
// died in the middle.
type Rollback struct {
	// Source is where it began, in the source's binlog.
	Source Position
}

// Storage observes how far the log is.
type Storage interface {
	// AfterFlush: the leader's log has taken events up to a place in the source's
	// binlog; they may still be lost with the leader. Called on the leader only, by
	// the goroutine that receives.
	AfterFlush(source Position)
	// AfterSync: everything up to the boundary at a place in the source's binlog is on
	// stable storage at a quorum, and applied on this node. Called on every node, in
	// the apply goroutine.
	AfterSync(source Position)
}

// Raft observes the group that keeps the log, on every node.
type Raft interface {
	// AfterAppend: entries are on this node's stable storage, which is no commit yet. In
	// the goroutine that appends.
	AfterAppend(Appended)
	// AfterElection: this node knows of another term or leader than before. In Raft's loop,
	// which must not wait for anything.
	AfterElection(Election)
}

// Appended is the entries that one sync has made durable.
type Appended struct {
	Last    uint64 // index in the log of the last one
	Entries int
	Bytes   int // of payload
	// Write and Sync are how long writing them took, and the sync behind that.
	Write, Sync time.Duration
}

// Election is whom a node takes for the leader.
type Election struct {
	Term   uint64
	Leader uint64 // Raft id; 0: nobody
	Self   bool   // it is this node
}

// RelayIO observes one connection to the source after another. Calls for one
// connection come from the goroutine that receives; an error ends the connection.
type RelayIO interface {
	// Start: the connection is logged in.
	Start(*Link) error
	// BeforeRequest is called just before the binlog is asked for. It may wait, with
	// the link's Query.
	BeforeRequest(context.Context, *Link) error
	// AfterRead: a packet with an event begins.
	AfterRead(*Link, *Packet) error
	// AfterQueue: the event of the last packet was taken in whole. Whether it is
	// stored, Storage tells.
	AfterQueue(*Link, *Queued)
	// AfterReset: what was taken in behind the last durable boundary counts for nothing;
	// it will come once more, over another connection.
	AfterReset(*Link)
	// AfterAnswer: the source was told that all events up to one that asked are safe. In a
	// goroutine of the observer that has told it (Link.Answered), which ends with its Stop.
	AfterAnswer(l *Link, at Position)
	// Stop: the connection has ended, whatever the others said to Start. It may wait
	// for what the observer has begun, which Ended tells.
	Stop(*Link)
}

// Link is a connection to the source.
type Link struct {
	Source string // host:port
	// Query runs a statement and returns its rows, NULL as nil. Only in BeforeRequest.
	Query func(ctx context.Context, sql string) ([][][]byte, error)
	// Open makes another connection to the source, for questions while the binlog comes.
	Open func(ctx context.Context) (Session, error)
	// Send sends a packet with number 0 to the source. Behind BeforeRequest, by one
	// goroutine at a time, any one.
	Send func(payload []byte) error
	// Answered tells all observers what Send has acknowledged to the source: AfterAnswer.
	Answered func(at Position)
	// Epoch tells what has come over this connection from what comes over others, also those of
	// other nodes: 0 before BeforeRequest.
	Epoch uint64
	// Durable is the source's position up to which everything was durable when the
	// connection began, Served the same place in the served binlog.
	Durable, Served Position
	// From is where the source's binlog will be asked from. BeforeRequest may set its Pos
	// back to an earlier event of the same file: what comes of it before Durable was stored
	// already, and is passed over.
	From Position
	// Ended is closed when the connection ends.
	Ended <-chan struct{}
}

// Session is a connection to the source for questions. It belongs to one goroutine.
type Session interface {
	// Query is like that of Link. An error but the server's own ends the session.
	Query(ctx context.Context, sql string) ([][][]byte, error)
	Close() error
}

// HeadSize is how many bytes of a packet AfterRead sees, if there are so many.
const HeadSize = 8

// Packet is one that holds an event.
type Packet struct {
	// Head is how it begins, behind the status byte, up to HeadSize bytes. It is valid
	// until AfterRead returns.
	Head []byte
	// Skip is how many bytes at its beginning are no part of the event; an observer
	// adds to it what it has understood. The next one's Head is without them.
	Skip int
	// Restart: the source counts its packets anew, from 1, behind this one.
	Restart bool
	// Asked: the source wants to be told when the event is safe; by who has understood
	// that.
	Asked bool
}

// Queued is an event that was taken in.
type Queued struct {
	// At is the source's position behind the event.
	At Position
	// Boundary is the last place, at or before At, up to which the stream can store
	// what has come, although nothing more comes.
	Boundary Position
	// Stored is the length of the event in bytes, if it is part of the stream; what exists
	// on the wire only, or was stored before, has 0.
	Stored uint32
	// Ended: the event ends a transaction.
	Ended bool
	// Asked is the packet's.
	Asked bool
}

// Transmit is asked at each dump who observes it.
type Transmit interface {
	// Start: a replica's request was understood, and the place to begin was found. It
	// returns who is told more of the dump, also with an error, which ends the dump; nil:
	// nobody.
	Start(*Dump) (Transmission, error)
}

// Transmission observes one dump. Calls come from its goroutine, except Received and
// AfterAck; an error ends the dump.
type Transmission interface {
	// ReserveHeader appends what this observer puts between the status byte of each packet
	// and its event. It is called once.
	ReserveHeader(d *Dump, header []byte) []byte
	// BeforeSend: an event is about to go out. It may change its part of the header, which
	// is as ReserveHeader has left it.
	BeforeSend(*Dump, *Sending) error
	// AfterSend: the event is on its way, perhaps in a buffer yet, which is sent as soon
	// as there is nothing more to put into it.
	AfterSend(*Dump, *Sending) error
	// Received: the replica has sent a packet in the middle of the dump, from another
	// goroutine than the others. It is valid until Received returns.
	Received(d *Dump, packet []byte)
	// AfterAck: the replica has acknowledged all up to a place in the served binlog, by a
	// packet that an observer has understood (Dump.Acknowledged). In the goroutine of
	// Received.
	AfterAck(d *Dump, at Position)
	// AfterReset: the log of this node was replaced, and the dump with it.
	AfterReset(*Dump)
	// Stop: the dump has ended. No Received comes after it.
	Stop(*Dump)
}

// Dump is one request for the binlog.
type Dump struct {
	Session  uint32 // connection id
	ServerID uint32
	UUID     string // as the replica says; "" if it says none
	Address  string // of the replica
	// Variable returns a user variable that the replica has set; "" if it has not.
	Variable func(name string) string
	// From is where a dump begins, in the served binlog: the replica has all that lies
	// before it. One by GTID has Have, all that the replica has, too.
	From Position
	Have gtid.Set
	GTID bool
	// Acknowledged tells all who observe the dump what the replica has: AfterAck. For
	// Received only.
	Acknowledged func(at Position)
}

// maxName bounds in bytes what a replica calls itself.
const maxName = 64

// Name is the replica's ReplicaName.
func (d *Dump) Name() string { return ReplicaName(d.UUID, d.ServerID) }

// ReplicaName tells a replica from others, over all its connections: its uuid, else its
// server id. It is UTF-8 and not long, whatever the replica says.
func ReplicaName(uuid string, serverID uint32) string {
	if uuid == "" || len(uuid) > maxName || !utf8.ValidString(uuid) {
		return fmt.Sprintf("server id %d", serverID)
	}
	return strings.ToLower(uuid)
}

// Sending is an event on its way to a replica.
type Sending struct {
	// At is the place behind the event in the served binlog; of an event that is in no
	// file, the place where the replica is then.
	At Position
	// Length is that of the event in bytes.
	Length uint64
	// Header is what ReserveHeader has made, of all observers.
	Header []byte
	// Restart: packets are counted anew, from 1, behind this one.
	Restart bool
	// Asked: the replica is asked to acknowledge it; by who has written that into Header.
	Asked bool
	// Stored: it is an event of the binlog, and not one that exists on the wire only.
	Stored bool
	// Begins: it begins a transaction, as far as an event says so: those of GTIDs, and of
	// transactions without one from MySQL 5.7 on.
	Begins bool
}

// NoTransaction, NoStorage, NoRelayIO and NoTransmission observe nothing, and are there
// to be embedded.
type (
	NoTransaction  struct{}
	NoStorage      struct{}
	NoRelayIO      struct{}
	NoTransmission struct{}
)

func (NoTransmission) ReserveHeader(_ *Dump, header []byte) []byte { return header }
func (NoTransmission) BeforeSend(*Dump, *Sending) error            { return nil }
func (NoTransmission) AfterSend(*Dump, *Sending) error             { return nil }
func (NoTransmission) Received(*Dump, []byte)                      {}
func (NoTransmission) AfterAck(*Dump, Position)                    {}
func (NoTransmission) AfterReset(*Dump)                            {}
func (NoTransmission) Stop(*Dump)                                  {}

func (NoTransaction) AfterCommit(Commit)     {}
func (NoTransaction) AfterRollback(Rollback) {}

func (NoStorage) AfterFlush(Position) {}
func (NoStorage) AfterSync(Position)  {}

func (NoRelayIO) Start(*Link) error                          { return nil }
func (NoRelayIO) BeforeRequest(context.Context, *Link) error { return nil }
func (NoRelayIO) AfterRead(*Link, *Packet) error             { return nil }
func (NoRelayIO) AfterQueue(*Link, *Queued)                  {}
func (NoRelayIO) AfterReset(*Link)                           {}
func (NoRelayIO) AfterAnswer(*Link, Position)                {}
func (NoRelayIO) Stop(*Link)                                 {}
