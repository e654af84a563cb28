package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/vfs"
)

// The hard state file: two slots, written in turn, so that a torn write never
// takes the state that was there before; the valid slot with the higher
// sequence counts. Every write is synced before the next one begins.
// Little-endian (docs/format/hardstate.md):
//
//	slot n is at 4096*n:
//	off size field
//	  0    8 magic "kbhards\x01" (the last byte is the version)
//	  8    8 sequence
//	 16    8 term
//	 24    8 vote (Raft id, 0 = none)
//	 32    8 commit index
//	 40    4 CRC32C of bytes [0,40)
const (
	hardMagic    = "kbhards\x01"
	hardSize     = 44
	hardSlot     = 4096
	hardFileSize = hardSlot + hardSize
)

// hardState keeps Raft's term and vote, and lazily the commit index, in a file
// of its own, so that rewriting them does not touch the log.
type hardState struct {
	mu     sync.Mutex
	file   vfs.File
	seq    uint64
	term   uint64
	vote   uint64
	stored uint64 // commit index in the file
	commit uint64 // newest known
	saved  chan struct{}
	err    error // of a failed write or sync; nothing is written after it
}

// openHardState reads the file, or makes it for a new folder.
func openHardState(fsys vfs.FS, dir, name string, create bool) (*hardState, error) {
	h := &hardState{saved: make(chan struct{})}
	var err error
	if create {
		if h.file, err = fsys.Create(name); err != nil {
			return nil, fmt.Errorf("make hard state: %w", err)
		}
		if err = fsys.SyncDir(dir); err == nil {
			return h, nil
		}
	} else {
		h.file, err = fsys.OpenWrite(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is missing. A node must not vote without it; restore the data folder, or remove this node and add it again empty", name)
		}
		if err != nil {
			return nil, fmt.Errorf("open hard state: %w", err)
		}
		// What is read may be in memory only: of a killed process, or of one whose sync has failed,
		// of which the next one hears nothing. It is believed once it is on disk.
		if err = h.read(name); err == nil {
			err = h.write(h.term, h.vote, h.stored)
		}
	}
	if err != nil {
		return nil, errors.Join(err, h.file.Close())
	}
	return h, nil
}

func (h *hardState) read(name string) error {
	buf := make([]byte, hardFileSize)
	if _, err := h.file.ReadAt(buf, 0); err != nil && err != io.EOF {
		return fmt.Errorf("read hard state: %w", err)
	}
	found, newer := false, byte(0)
	for slot := range 2 {
		b := buf[slot*hardSlot:][:hardSize]
		if string(b[:7]) == hardMagic[:7] && b[7] > hardMagic[7] {
			newer = b[7]
		}
		if string(b[:len(hardMagic)]) != hardMagic || crc32.Checksum(b[:40], castagnoli) != binary.LittleEndian.Uint32(b[40:]) {
			continue
		}
		if seq := binary.LittleEndian.Uint64(b[8:]); seq > h.seq {
			found = true
			h.seq = seq
			h.term = binary.LittleEndian.Uint64(b[16:])
			h.vote = binary.LittleEndian.Uint64(b[24:])
			h.stored = binary.LittleEndian.Uint64(b[32:])
		}
	}
	h.commit = h.stored
	if !found && newer != 0 {
		return fmt.Errorf("%s has format version %d, this kingbus knows %d: run the version that wrote it, or a newer one", name, newer, hardMagic[7])
	}
	if !found {
		return fmt.Errorf("%s is damaged: neither of its two copies is whole. A node must not vote without it; restore the data folder, or remove this node and add it again empty", name)
	}
	return nil
}

// raft returns the state as the library wants it; nil when there is none.
func (h *hardState) raft() *pb.HardState {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seq == 0 {
		return nil
	}
	return &pb.HardState{Term: new(h.term), Vote: new(h.vote), Commit: new(h.stored)}
}

// observe takes what a storage message says of the hard state. A change of term
// or vote is durable when it returns; it is written before the entries of the
// same message, so that no entry on disk has a term that this node has not
// promised yet. The commit index waits for saveCommit: it may name entries that
// are not on disk yet.
func (h *hardState) observe(m *pb.Message) error {
	if err := h.promise(m); err != nil {
		return err
	}
	h.commitTo(m.GetCommit())
	return nil
}

// promise makes term and vote of a storage message durable, in both slots: a promise that was given
// must not be hidden by damage to one of them, which looks like a torn write.
func (h *hardState) promise(m *pb.Message) error {
	if raft.IsEmptyHardState(&pb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}) {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return h.err
	}
	// A message that waited may come a second time, behind newer ones: a promise is
	// never taken back.
	if m.GetTerm() < h.term || m.GetTerm() == h.term && (h.vote != 0 || m.GetVote() == 0) {
		return nil
	}
	if err := h.write(m.GetTerm(), m.GetVote(), h.stored); err != nil {
		return err
	}
	return h.write(h.term, h.vote, h.stored)
}

// commitTo notes a commit index, for saveCommit.
func (h *hardState) commitTo(index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.commit = max(h.commit, index)
}

// init writes the state of a new log.
func (h *hardState) init(term, commit uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.commit = commit
	return errors.Join(h.write(term, h.vote, commit), h.write(term, h.vote, commit)) // both slots, so that a full disk has room for votes
}

// setCommit persists a commit index that may be lower than the one before: what was behind it is lost.
func (h *hardState) setCommit(index uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.commit = index
	return h.write(h.term, h.vote, index)
}

// saveCommit persists the newest commit index, if it is not yet. It is called
// after the append of everything that the index may name.
func (h *hardState) saveCommit() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stored == h.commit {
		return nil
	}
	return h.write(h.term, h.vote, h.commit)
}

// saveCommitTo persists that everything up to an entry that is on disk is committed.
func (h *hardState) saveCommitTo(index uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.commit = max(h.commit, index)
	if h.stored >= index {
		return nil
	}
	return h.write(h.term, h.vote, index)
}

// committed returns the persisted commit index and a channel that is closed
// when it grows.
func (h *hardState) committed() (uint64, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stored, h.saved
}

// write makes a state durable. Only then is it this node's. After a failure there is no other one:
// nobody knows which of the two is on disk, not even where the disk says that it is full.
func (h *hardState) write(term, vote, commit uint64) error {
	if h.err != nil {
		return h.err
	}
	h.seq++
	b := make([]byte, hardSize)
	copy(b, hardMagic)
	binary.LittleEndian.PutUint64(b[8:], h.seq)
	binary.LittleEndian.PutUint64(b[16:], term)
	binary.LittleEndian.PutUint64(b[24:], vote)
	binary.LittleEndian.PutUint64(b[32:], commit)
	binary.LittleEndian.PutUint32(b[40:], crc32.Checksum(b[:40], castagnoli))
	_, err := h.file.WriteAt(b, int64(h.seq%2)*hardSlot)
	if err == nil {
		err = h.file.SyncData()
	}
	if err != nil {
		if noSpace(err) { // it is not one to be waited out
			err = errors.New(err.Error())
		}
		h.err = fmt.Errorf("term, vote and commit index can no longer be written; start again: %w", err)
		return h.err
	}
	h.term, h.vote = term, vote
	if commit != h.stored {
		h.stored = commit
		close(h.saved)
		h.saved = make(chan struct{})
	}
	return nil
}

func (h *hardState) close() error { return h.file.Close() }
