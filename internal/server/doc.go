// Package server lets kingbus pose as a MySQL source: replicas, mysqlbinlog and
// CDC clients log in, ask what they would ask a source, and pull the stream.
//
//	Server   accepts connections within limits, and keeps the list of sessions
//	session  one client: commands and statements in, answers out
//	dump     what follows COM_BINLOG_DUMP or COM_BINLOG_DUMP_GTID: finds the
//	         place to start, refuses as a source refuses
//	sender   the hot path of a dump: chunks of the stream to packets
//
// What a dump sends is what MySQL's sql/rpl_binlog_sender.cc sends for the same
// files, byte for byte but for the server id; the tests hold it against real
// servers. In front of a MariaDB's binlog it is what MariaDB's sql/sql_repl.cc sends:
// its words for errors, and substitutes for what a client does not understand. It
// differs where a node of kingbus knows less than a source does: a
// source is always certain that coordinates which it does not have do not
// exist. Error 1236 stops a replica for good, so here it is only for what is
// certain, if need be after asking the cluster (seek); all else is error 1053,
// after a bounded wait: come back. A node that is unfit to serve (Config.Unfit)
// sends replicas on to the next source in their list (refusal).
//
// Goroutines: Serve owns one per connection, and one that watches whether the
// node is fit; it waits for all of them. A dump has a second one, which reads
// what the client sends meanwhile; the dump waits for it. Locks: Server.mu guards
// the list of sessions, session.mu what others may know of a session, door.mu who
// waits at the door; the latter two are taken inside the former, never the other
// way round.
package server
