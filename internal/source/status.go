package source

import (
	"time"

	"kingbus/internal/stream"
)

// State is what the Puller is doing, in words for operators.
type State string

// The states.
const (
	StateWaiting    State = "waiting for leadership"
	StateConnecting State = "connecting"
	StateChecking   State = "checking the source"
	StateStreaming  State = "streaming"
	StateRetrying   State = "waiting to connect again"
	StateProblem    State = "stopped by an error"
	StateStopped    State = "stopped"
)

// Status is a snapshot. The caller owns it; Problem must not be changed.
type Status struct {
	State State
	// Problem is why State is StateProblem; it stays while that is tried again,
	// and goes when events come.
	Problem *Problem
	NextTry time.Time // of the next connection, while one waits for it

	Host string
	Port uint16
	User string

	Version        string    // of the source, as in @@version; "" before the first login
	UUID           string    // of the source
	GTIDs          bool      // the source is asked by GTID and position, not by position alone
	TLS            string    // version of TLS in use, "" without
	ConnectedSince time.Time // zero while not streaming

	// Received are the source's coordinates up to which bytes have come, in a
	// transaction too. LastEventTime is the timestamp of the newest event, Unix
	// seconds, and LastEventAge how old it was when it came, by this node's clock and the
	// source's; 0 when the source has said since that it has no more. LastHeard is when the source last sent anything, heartbeats too.
	Received      stream.Coordinates
	LastEventTime uint32
	LastEventAge  time.Duration
	LastHeard     time.Time
	// Heartbeats counts those of the present connection, the last of which came at HeartbeatAt.
	Heartbeats  uint64
	HeartbeatAt time.Time

	LastError   string
	LastErrorAt time.Time
}

// Status returns a snapshot.
func (p *Puller) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// update changes the status under its lock.
func (p *Puller) update(f func(*Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.status)
}

func (p *Puller) setState(s State) {
	p.update(func(st *Status) {
		st.State = s
		st.NextTry = time.Time{}
		if s != StateStreaming {
			st.ConnectedSince = time.Time{}
		}
	})
}
