package peer

import "errors"

var (
	// ErrNotPeer is wrapped where the other end speaks something else altogether.
	ErrNotPeer = errors.New("not a kingbus peer")
	// ErrVersion is wrapped where the other end speaks a version of the protocol that this kingbus does not know.
	ErrVersion = errors.New("unknown version of the peer protocol")
	// ErrPeerTLS and ErrPeerClear are wrapped where only one side is configured for TLS.
	ErrPeerTLS   = errors.New("the peer speaks TLS, this node does not: set --peer-cert/--peer-key/--peer-ca on both")
	ErrPeerClear = errors.New("this node speaks TLS, the peer does not: set --peer-cert/--peer-key/--peer-ca on both")
	// ErrTooLarge is wrapped for frames above the limit. Nothing of one is written, and none is read.
	ErrTooLarge = errors.New("the frame is too large")
	// ErrChecksum is wrapped for frames that are not what was sent.
	ErrChecksum = errors.New("the checksum of the frame is wrong")
)
