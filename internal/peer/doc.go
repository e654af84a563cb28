// Package peer is how the nodes of a cluster talk to each other: TCP, frames with a length and a checksum, and mutual TLS if it is
// configured. It knows nothing of Raft. From the bottom up:
//
//	line    the socket, with timeouts that count silence rather than the length of a transfer
//	Conn    frames over it, or over TLS over it, and raw payloads behind frames
//	Dial    the client's role: connect, say Hello, hear the answer
//	Server  the server's role: a Handler welcomes or refuses, and serves
//
// Everything that a peer sends is hostile until a Handler has welcomed it, and its bytes remain so: lengths are checked before they
// are believed, memory grows only as bytes arrive, and nonsense is an error, never a panic. Without TLS anybody who can reach the
// port may say that he is any node: then the network must be one's own.
//
// The bytes are described in docs/format/peer.md.
package peer
