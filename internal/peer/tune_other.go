//go:build !linux

package peer

import (
	"net"
	"time"
)

// kingbus runs on Linux; elsewhere a dead host is noticed later.
func setUserTimeout(*net.TCPConn, time.Duration) error { return nil }
