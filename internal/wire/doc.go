// Package wire speaks the MySQL client/server protocol over a net.Conn, in both
// roles: as a client towards the source, and as a server towards replicas,
// mysqlbinlog and CDC clients.
//
// It knows packets, login, commands and result sets. It knows no SQL, no
// events and no accounts: statements and payloads are the caller's, stored
// passwords come through the Accounts interface.
//
// Layers, from the bottom up:
//
//	Conn      framing: packets, sequence numbers, payloads of any size streamed
//	Client    the client role: Dial, Query, Ping, Command, ChangeUser
//	Acceptor  the server role: Accept makes a Session of a net.Conn, ChangeUser of a Session another
//	Session   commands in; OK, EOF, errors and result sets out
//
// The formats are those of MySQL's manual, "Client/Server Protocol" (page names
// such as "Protocol::HandshakeV10"), and of the source files net_serv.cc,
// sql-common/client.cc, sql/auth/sql_authentication.cc, sql/auth/sha2_password.cc
// and sql/protocol_classic.cc.
//
// Everything that a peer sends is hostile: lengths are checked before they are
// believed, memory grows only as bytes arrive, and a malformed packet is an
// error, never a panic.
package wire
