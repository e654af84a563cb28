// Package semisync is semi-synchronous replication: towards the source kingbus is a
// semi-sync replica (Replica), whose acknowledgement means that a quorum of nodes
// has the transaction on stable storage. It observes the replication path by way of
// package hook; the path knows nothing of it.
//
// The protocol is that of plugin/semisync (semisync_replica.cc, semisync_source.cc,
// semisync.h): after the handshake each event packet has two bytes before the
// event, the magic 0xef and a flag that asks for an answer, and the answer is a
// packet of its own. What may be acknowledged when is decided in code without
// goroutines or clock: acks.go.
package semisync
