package wire

import (
	"net"
	"net/netip"
)

// Origin is under what a client's address counts where each has only so much room, and whether it
// is one of this machine. An address of IPv6 counts with its whole /64, one of IPv4 that is written
// as one of IPv6 as itself; what has no address counts together.
func Origin(a net.Addr) (key netip.Prefix, local bool) {
	if a == nil {
		return netip.Prefix{}, false
	}
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{}, false
	}
	addr := at.Addr().Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	key, _ = addr.Prefix(bits) // of so many bits every address has one
	return key, addr.IsLoopback()
}
