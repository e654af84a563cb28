package stream

import (
	"bytes"
	"sync/atomic"
	"testing"

	"kingbus/internal/cluster"
)

// TestTailSpare: a buffer is used again only if nobody got it while it was in
// the tail, or holds it for a peer, and none is used twice at a time.
func TestTailSpare(t *testing.T) {
	var spare buffers
	tail := tail{limit: 4 * runBuffer, spare: &spare}
	held := map[uint64][]byte{} // what readers still hold, and what should be in it
	inTail := map[*byte]uint64{}
	for i := uint64(1); i <= 200; i++ {
		b := spare.get()
		if n := inTail[&b[0]]; n != 0 {
			if _, ok := tail.get(n); ok {
				t.Fatalf("the buffer of entry %d, which is in the tail, was given out for entry %d", n, i)
			}
		}
		inTail[&b[0]] = i
		for j := range b {
			b[j] = byte(i)
		}
		holders := new(atomic.Int32)
		tail.add(cluster.Entry{Index: i, Payload: b, Holders: holders})
		switch i % 7 {
		case 0: // being sent to a peer, for good
			holders.Add(1)
			held[i] = b
		case 1: // and not any more
			holders.Add(1)
			holders.Add(-1)
		}
		if i%3 == 0 {
			e, ok := tail.get(i - 1)
			if !ok {
				t.Fatalf("entry %d is not in the tail", i-1)
			}
			held[i-1] = e.Payload
		}
	}
	for i, b := range held {
		if !bytes.Equal(b, bytes.Repeat([]byte{byte(i)}, runBuffer)) {
			t.Errorf("the payload of entry %d changed under its reader", i)
		}
	}
	if len(inTail) >= 200 {
		t.Error("no buffer was used again")
	}
	// Small and very large payloads are not kept.
	before := len(spare.free)
	for i := uint64(201); i < 210; i++ {
		tail.add(cluster.Entry{Index: i, Payload: make([]byte, 4*runBuffer)})
	}
	for _, b := range spare.free[min(before, len(spare.free)):] {
		if cap(b) > 2*runBuffer {
			t.Errorf("a buffer of %d bytes is kept", cap(b))
		}
	}
}
