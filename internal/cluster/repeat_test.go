package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/peer"
)

// repeater is a node's end of a connection on which what is for Raft comes late,
// comes twice, and comes again behind newer messages.
type repeater struct {
	net.Conn
	rng     *rand.Rand
	buf     []byte   // written by the node and not a whole message yet
	old     [][]byte // messages that come again
	greeted bool
	other   bool // not a connection of messages
	again   *atomic.Int64
}

func (r *repeater) Write(b []byte) (int, error) {
	if r.other {
		return r.Conn.Write(b)
	}
	r.buf = append(r.buf, b...)
	for {
		n := r.message()
		if n == 0 {
			return len(b), nil
		}
		m := append([]byte(nil), r.buf[:n]...)
		r.buf = r.buf[n:]
		if err := r.pass(m); err != nil {
			return 0, err
		}
		if r.other {
			_, err := r.Conn.Write(r.buf)
			return len(b), err
		}
	}
}

// pass sends a message, and sometimes old ones.
func (r *repeater) pass(m []byte) error {
	if !r.greeted { // the introduction
		r.greeted = true
		var h peer.Hello
		r.other = json.Unmarshal(m[16:], &h) != nil || h.Kind != peer.KindControl && h.Kind != peer.KindData
		_, err := r.Conn.Write(m)
		return err
	}
	if r.rng.IntN(20) == 0 {
		time.Sleep(time.Duration(r.rng.Int64N(int64(20 * time.Millisecond)))) // a slow link
	}
	out := [][]byte{m}
	if r.rng.IntN(4) == 0 {
		out = append(out, m)
	}
	if r.rng.IntN(4) == 0 {
		r.old = append(r.old, m)
	}
	if len(r.old) > 0 && r.rng.IntN(8) == 0 {
		i := r.rng.IntN(len(r.old))
		out = append(out, r.old[i])
		r.old = append(r.old[:i], r.old[i+1:]...)
	}
	r.again.Add(int64(len(out) - 1))
	for _, m := range out {
		if _, err := r.Conn.Write(m); err != nil {
			return err
		}
	}
	return nil
}

// message returns how long the first message in buf is, 0 if it is not whole.
func (r *repeater) message() int {
	at := 0
	if !r.greeted {
		at = 8 // the preamble, see package peer
	}
	if len(r.buf) < at+8 {
		return 0
	}
	end := at + 8 + int(binary.LittleEndian.Uint32(r.buf[at:]))
	if len(r.buf) < end {
		return 0
	}
	body := r.buf[at+8 : end]
	var m pb.Message
	if r.greeted && len(body) > 0 && body[0] == frameRaft && proto.Unmarshal(body[1:], &m) == nil {
		for _, e := range m.GetEntries() {
			if h, err := decodeHandle(e.GetData()); err == nil && e.GetType() == pb.EntryNormal {
				end += int(h.length)
			}
		}
	}
	if len(r.buf) < end {
		return 0
	}
	return end
}

// TestRepeatedMessages: what nodes say to each other comes late, twice, and again
// behind newer things, while leadership changes and members fall behind and come
// back; the log is the same everywhere, and each payload is in it once.
func TestRepeatedMessages(t *testing.T) {
	for seed := range uint64(3) {
		g := newGroup(t, "n1", "n2", "n3")
		var again atomic.Int64
		var conns atomic.Uint64
		for _, m := range g.nodes {
			m.change = func(c *Config) {
				c.Window = 30
				dial := c.Dial
				c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					conn, err := dial(ctx, network, address)
					if err != nil {
						return nil, err
					}
					return &repeater{Conn: conn, rng: rand.New(rand.NewPCG(seed, conns.Add(1))), again: &again}, nil
				}
			}
		}
		g.start()
		const rounds, each = 6, 60
		seen := 0 // payloads that were applied somewhere
		for round := range rounds {
			for i := range each {
				g.propose(numbered(round*each+i, 1+i*100)) // nothing is proposed twice, but some may be lost with a leader
				if i == each/2 {
					switch m := g.leader(); round % 3 {
					case 0:
						_ = m.node.HandOver(context.Background())
					case 1:
						g.net.set(g.others(m)[0].name, m.name, true)
					case 2:
						m.crash(seed)
						m.start()
					}
				}
			}
			for _, m := range g.nodes {
				n, _ := m.machine.count()
				seen = max(seen, n)
			}
			for _, a := range g.nodes {
				for _, b := range g.nodes {
					g.net.set(a.name, b.name, false)
				}
			}
		}
		// The last one tells that all is there; it may be lost, too.
		var all [][]byte
		last, retry := uint64(rounds*each), time.Time{}
		for _, m := range g.nodes {
			g.await(m.name+" has the last one", func() bool {
				if now := time.Now(); now.After(retry) {
					g.propose(numbered(int(last), 1))
					last, retry = last+1, now.Add(time.Second)
				}
				all = m.machine.all()
				return len(all) > 0 && binary.LittleEndian.Uint64(all[len(all)-1]) >= rounds*each
			})
		}
		g.await("all have the same number", func() bool {
			for _, m := range g.nodes {
				if n, _ := m.machine.count(); n != len(all) {
					all = m.machine.all()
					return false
				}
			}
			return true
		})
		g.converge(len(all))
		for i := 1; i < len(all); i++ {
			if a, b := binary.LittleEndian.Uint64(all[i-1]), binary.LittleEndian.Uint64(all[i]); a >= b {
				t.Errorf("seed %d: payload %d is behind %d", seed, b, a)
			}
		}
		if len(all) < seen {
			t.Errorf("seed %d: %d payloads are there, %d were", seed, len(all), seen)
		}
		if again.Load() == 0 {
			t.Error("nothing came twice")
		}
		for _, m := range g.nodes {
			m.close()
		}
		g.net.close()
	}
}
