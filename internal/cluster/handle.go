package cluster

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"
)

// handle is what the Raft library sees of a payload, so that it never copies
// one: the Data of the Raft entry. It holds only what is the same on every
// node; where the payload lies is looked up locally by (index, term).
//
//	off size field
//	  0    4 length of the payload
//	  4    4 CRC32C of the payload
//	  8    8 Raft id of the node that proposed it
//	 16    8 number that the proposer gave it, unique in its process
type handle struct {
	length, crc      uint32
	proposer, number uint64
}

// HandleSize is the size in bytes of the Data of an entry that has a payload.
const HandleSize = 24

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (h handle) encode() []byte {
	b := make([]byte, HandleSize)
	binary.LittleEndian.PutUint32(b[0:], h.length)
	binary.LittleEndian.PutUint32(b[4:], h.crc)
	binary.LittleEndian.PutUint64(b[8:], h.proposer)
	binary.LittleEndian.PutUint64(b[16:], h.number)
	return b
}

func decodeHandle(b []byte) (handle, error) {
	if len(b) != HandleSize {
		return handle{}, fmt.Errorf("handle of %d bytes, want %d", len(b), HandleSize)
	}
	return handle{
		length:   binary.LittleEndian.Uint32(b[0:]),
		crc:      binary.LittleEndian.Uint32(b[4:]),
		proposer: binary.LittleEndian.Uint64(b[8:]),
		number:   binary.LittleEndian.Uint64(b[16:]),
	}, nil
}

// staging holds payloads from their proposal until the append of their entry
// writes both, and bounds the bytes that are in flight: from the proposal until
// the entry is applied. It is the back pressure on the source's socket.
type staging struct {
	mu       sync.Mutex
	payloads map[uint64][]byte // by handle.number
	bytes    int               // proposed and not yet released
	limit    int
	room     chan struct{} // closed and replaced when bytes shrink
}

func newStaging(limit int) *staging {
	return &staging{payloads: map[uint64][]byte{}, limit: limit, room: make(chan struct{})}
}

// reserve takes n bytes of the quota, or returns a channel that is closed when
// it is worth trying again. A payload larger than the quota passes alone.
func (s *staging) reserve(n int) (wait <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes > 0 && s.bytes+n > s.limit {
		return s.room
	}
	s.bytes += n
	return nil
}

func (s *staging) put(number uint64, payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.payloads[number] = payload
}

// take removes and returns the payload; nil when it is not there.
func (s *staging) take(number uint64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.payloads[number]
	delete(s.payloads, number)
	return p
}

// release gives n bytes of the quota back.
func (s *staging) release(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n == 0 {
		return
	}
	s.bytes -= n
	close(s.room)
	s.room = make(chan struct{})
}
