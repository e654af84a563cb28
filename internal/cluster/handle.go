package cluster

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"

	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/segment"
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

// handleSize is the size in bytes of the Data of an entry that has a payload.
const handleSize = 24

// HasPayload tells whether a stored entry is one that was proposed, and not Raft's
// own business.
func HasPayload(e segment.Entry) bool {
	return e.Type == uint8(pb.EntryNormal) && len(e.Data) == handleSize
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (h handle) encode() []byte {
	b := make([]byte, handleSize)
	binary.LittleEndian.PutUint32(b[0:], h.length)
	binary.LittleEndian.PutUint32(b[4:], h.crc)
	binary.LittleEndian.PutUint64(b[8:], h.proposer)
	binary.LittleEndian.PutUint64(b[16:], h.number)
	return b
}

func decodeHandle(b []byte) (handle, error) {
	if len(b) != handleSize {
		return handle{}, fmt.Errorf("handle of %d bytes, want %d", len(b), handleSize)
	}
	return handle{
		length:   binary.LittleEndian.Uint32(b[0:]),
		crc:      binary.LittleEndian.Uint32(b[4:]),
		proposer: binary.LittleEndian.Uint64(b[8:]),
		number:   binary.LittleEndian.Uint64(b[16:]),
	}, nil
}

// staging holds what this node has proposed. A payload stays until a turn has
// seen Raft take its entry; its bytes count from the proposal until the entry is
// applied. That bounds the bytes in flight: the back pressure on the source's
// socket. Only numbers of this process are in it, so an entry of an earlier one,
// which counted there, gives nothing back here.
type staging struct {
	mu    sync.Mutex
	calls map[uint64]staged // by handle.number
	bytes int               // of all calls
	limit int
	room  chan struct{} // closed when bytes shrink; nil while nobody waits
}

type staged struct {
	payload []byte // nil once it was taken
	size    int
}

func newStaging(limit int) *staging {
	return &staging{calls: map[uint64]staged{}, limit: limit}
}

// put stages a payload, or returns a channel that is closed when it is worth
// trying again. A payload larger than the limit passes alone.
func (s *staging) put(number uint64, payload []byte) (wait <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes > 0 && s.bytes+len(payload) > s.limit {
		if s.room == nil {
			s.room = make(chan struct{})
		}
		return s.room
	}
	s.bytes += len(payload)
	s.calls[number] = staged{payload, len(payload)}
	return nil
}

// held returns how many calls there are, and their bytes.
func (s *staging) held() (calls, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls), s.bytes
}

// take returns the payload, once; nil when it is not there.
func (s *staging) take(number uint64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.calls[number]
	if !ok {
		return nil
	}
	s.calls[number] = staged{size: c.size}
	return c.payload
}

// release gives the room of calls back: they were applied, or not taken. Numbers
// that are not there are passed over.
func (s *staging) release(numbers ...uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.bytes
	for _, n := range numbers {
		s.bytes -= s.calls[n].size
		delete(s.calls, n)
	}
	s.notify(before)
}

// forget gives the room of all calls back whose payload was taken: this node no
// longer leads, and what it proposed may never be applied.
func (s *staging) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.bytes
	for n, c := range s.calls {
		if c.payload == nil {
			s.bytes -= c.size
			delete(s.calls, n)
		}
	}
	s.notify(before)
}

func (s *staging) notify(before int) {
	if s.bytes < before && s.room != nil {
		close(s.room)
		s.room = nil
	}
}
