package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
)

// TestPanicInATurn: one that goes on after a panic in his turn is the last who had one.
func TestPanicInATurn(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3").start()
	g.propose(numbered(0, 10))
	g.converge(1)
	n := g.others(g.leader())[0].node
	func() { // as in the servers of HTTP and SQL
		defer func() {
			if recover() == nil {
				t.Error("there was no panic")
			}
		}()
		g.await("it has a turn", func() bool {
			if !n.turn.TryLock() {
				return false
			}
			defer n.turn.Unlock()
			_ = n.work(func() error { panic("Raft has found its log to be another one") })
			return true
		})
	}()
	<-n.Failed()
	if !errors.Is(n.Err(), errPanicked) {
		t.Errorf("it failed with %v", n.Err())
	}
}

// TestStopsWhileAsked: a leader that stops does not wait for who proposes something in the name of a peer,
// who waits for it.
func TestStopsWhileAsked(t *testing.T) {
	g := newGroup(t, "n1", "n2", "n3")
	asked, goOn := make(chan struct{}, 16), make(chan struct{})
	for _, m := range g.nodes {
		m.change = func(c *Config) {
			c.Answer = func(ctx context.Context, body json.RawMessage) (json.RawMessage, error) {
				asked <- struct{}{}
				<-goOn
				return body, m.node.Propose(context.WithoutCancel(ctx), []byte("x"))
			}
		}
	}
	g.start()
	g.propose(numbered(0, 10))
	g.converge(1)
	leader := g.leader()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = g.others(leader)[0].node.AskLeader(ctx, json.RawMessage(`1`)) // the leader stops
	}()
	<-asked
	lead := leader.node.Leading()
	leader.node.stop() // as when one of its goroutines fails
	<-leader.node.loopEnded
	<-lead.Done()
	close(goOn)
	<-leader.node.stopped
	cancel()
	<-done
}
