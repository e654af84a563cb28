package server

import (
	"errors"
	"testing"
)

// TestKillReplica: the session of a replica ends as with KILL; who pulls nothing is no replica.
func TestKillReplica(t *testing.T) {
	r, _ := madeRig(t, 1, 2, 100)
	c, idle := r.dial(), r.dial()
	play(t, c, []step{{setCRC, "OK"}})
	if err := c.Command(dumpPayload("binlog.000001", 4, 0, 9)); err != nil {
		t.Fatal(err)
	}
	c.Conn().SplitSequence()
	waitReplicas(t, r, 1)
	for _, session := range []uint32{idle.Greeting().ConnectionID, 4000000} {
		if err := r.server.KillReplica(session); !errors.Is(err, ErrNoReplica) {
			t.Errorf("session %d: %v", session, err)
		}
	}
	play(t, idle, []step{{"SELECT 1", "1"}})
	if err := r.server.KillReplica(c.Greeting().ConnectionID); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := c.Conn().ReadPacket(1 << 20); err != nil {
			break
		}
	}
	waitReplicas(t, r, 0)
}
