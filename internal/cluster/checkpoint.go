package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"kingbus/internal/vfs"
)

// checkpoint is the whole state after an entry. It holds applied entries only,
// and its index is never above the persisted commit index.
type checkpoint struct {
	index, term uint64
	group       membership
	state       []byte
}

// The checkpoint file, little-endian (docs/format/checkpoint.md):
//
//	off size field
//	  0    8 magic "kbcheck\x02" (the last byte is the version)
//	  8    8 index of the last entry in it
//	 16    8 term of that entry
//	 24    4 length of the membership
//	 28    4 length of the state
//	 32    . membership: JSON, see storedMembership (in version 1 raftpb.ConfState, protobuf)
//	  .    . state: what the state machine encoded
//	  .    4 CRC32C of all before
const (
	checkpointMagic  = "kbcheck\x02"
	checkpointHeader = 32
	checkpointSuffix = ".checkpoint"
	maxCheckpoint    = 1 << 30
	keptCheckpoints  = 2 // the newest could be damaged
)

func checkpointName(dir string, index uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", index, checkpointSuffix))
}

func (c checkpoint) encode() ([]byte, error) {
	conf, err := c.group.encode()
	if err != nil {
		return nil, err
	}
	b := make([]byte, checkpointHeader, checkpointHeader+len(conf)+len(c.state)+4)
	copy(b, checkpointMagic)
	binary.LittleEndian.PutUint64(b[8:], c.index)
	binary.LittleEndian.PutUint64(b[16:], c.term)
	binary.LittleEndian.PutUint32(b[24:], uint32(len(conf)))
	binary.LittleEndian.PutUint32(b[28:], uint32(len(c.state)))
	b = append(append(b, conf...), c.state...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

func decodeCheckpoint(b []byte) (checkpoint, error) {
	if len(b) < checkpointHeader+4 || string(b[:7]) != checkpointMagic[:7] {
		return checkpoint{}, errors.New("not a checkpoint")
	}
	version := b[7]
	if version == 0 || version > checkpointMagic[7] {
		return checkpoint{}, fmt.Errorf("format version %d is not known", version)
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[len(body):]) {
		return checkpoint{}, errors.New("its checksum does not match")
	}
	confLen, stateLen := uint64(binary.LittleEndian.Uint32(b[24:])), uint64(binary.LittleEndian.Uint32(b[28:]))
	if checkpointHeader+confLen+stateLen != uint64(len(body)) {
		return checkpoint{}, errors.New("its lengths do not match")
	}
	c := checkpoint{index: binary.LittleEndian.Uint64(b[8:]), term: binary.LittleEndian.Uint64(b[16:])}
	c.state = body[checkpointHeader+confLen:]
	decode := decodeMembership
	if version == 1 {
		decode = decodeMembershipV1
	}
	var err error
	c.group, err = decode(body[checkpointHeader : checkpointHeader+confLen])
	return c, err
}

func (c checkpoint) save(fsys vfs.FS, dir string) error {
	b, err := c.encode()
	if err != nil {
		return fmt.Errorf("encode checkpoint: %w", err)
	}
	if err := vfs.WriteFile(fsys, checkpointName(dir, c.index), b); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return nil
}

// listCheckpoints returns the indexes of the checkpoint files, ascending.
func listCheckpoints(fsys vfs.FS, dir string) ([]uint64, error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []uint64
	for _, name := range names { // sorted, and the names are of fixed width
		if number, ok := strings.CutSuffix(name, checkpointSuffix); ok && len(number) == 20 {
			if index, err := strconv.ParseUint(number, 10, 64); err == nil {
				found = append(found, index)
			}
		}
	}
	return found, nil
}

// newestCheckpoint returns the newest whole checkpoint at or below the persisted
// commit index; problems are the ones that it had to pass over.
func newestCheckpoint(fsys vfs.FS, dir string, committed uint64) (c checkpoint, problems []error, err error) {
	found, err := listCheckpoints(fsys, dir)
	if err != nil {
		return checkpoint{}, nil, fmt.Errorf("list checkpoints: %w", err)
	}
	for i := len(found) - 1; i >= 0; i-- {
		if found[i] > committed {
			continue
		}
		b, err := vfs.ReadFile(fsys, checkpointName(dir, found[i]), maxCheckpoint)
		if err == nil {
			c, err = decodeCheckpoint(b)
		}
		if err == nil && c.index != found[i] {
			err = fmt.Errorf("it is of entry %d", c.index)
		}
		if err == nil {
			return c, problems, nil
		}
		problems = append(problems, fmt.Errorf("checkpoint %s: %w", checkpointName(dir, found[i]), err))
	}
	return checkpoint{}, problems, errors.Join(append(problems, errNoCheckpoint)...)
}

var errNoCheckpoint = errors.New("there is no checkpoint to start from: restore the data folder, or begin with an empty one")

// saver writes checkpoints and drops what is no longer needed, beside the apply
// goroutine. Both wait until the commit index that they rest on is persisted,
// because a start replays no further than that.
type saver struct {
	n       *Node
	mu      sync.Mutex
	pending *checkpoint
	drop    uint64 // entries before it are not needed any more
	dropAt  uint64 // the entry that says so
	holds   int    // peers that are being sent the log
	wake    chan struct{}

	files sync.Mutex // held over the work on checkpoint files; taken before mu
}

func newSaver(n *Node) *saver { return &saver{n: n, wake: make(chan struct{}, 1)} }

// offer hands over a checkpoint; a newer one replaces one that waits.
func (s *saver) offer(c checkpoint) {
	s.mu.Lock()
	s.pending = &c
	s.mu.Unlock()
	s.notify()
}

// release tells that entries before index are not needed, as entry at says.
func (s *saver) release(index, at uint64) {
	s.mu.Lock()
	if index > s.drop {
		s.drop, s.dropAt = index, at
	}
	s.mu.Unlock()
	s.notify()
}

// hold keeps segments as long as peers are being sent the log.
func (s *saver) hold(n int) {
	s.mu.Lock()
	s.holds += n
	s.mu.Unlock()
	s.notify()
}

// clear removes all checkpoints: they are of a log that is gone, as what waits is, see forget.
func (s *saver) clear() error {
	s.files.Lock()
	defer s.files.Unlock()
	old, err := listCheckpoints(s.n.cfg.FS, s.n.dir)
	if err != nil || len(old) == 0 {
		return err
	}
	return s.remove(old)
}

// forget drops what waits: it is about a log that is gone.
func (s *saver) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending, s.drop, s.dropAt = nil, 0, 0
}

func (s *saver) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *saver) run(ctx context.Context) error {
	for {
		committed, grown := s.n.hard.committed()
		err := s.work(committed)
		var again <-chan time.Time
		switch {
		case noSpace(err):
			s.n.log.Warn("the disk is full: no checkpoint is written; trying again", "dir", s.n.dir, "error", err)
			again = time.After(fullRetry)
		case err != nil:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-grown:
		case <-again:
		}
	}
}

// work does what the persisted commit index allows.
func (s *saver) work(committed uint64) error {
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	c, drop := s.pending, s.drop
	if s.dropAt > committed || s.holds > 0 {
		drop = 0
	}
	s.mu.Unlock()
	// Space is given back first: there may be none for the checkpoint.
	if drop != 0 {
		if err := s.dropBefore(drop); err != nil {
			return err
		}
	}
	if c == nil || c.index > committed {
		return nil
	}
	if err := s.save(*c); err != nil {
		return err
	}
	s.mu.Lock()
	if s.pending == c {
		s.pending = nil
	}
	s.mu.Unlock()
	if drop != 0 {
		return s.dropBefore(drop)
	}
	return nil
}

// dropBefore removes segments, as far as the oldest checkpoint allows: a start
// needs all entries after its checkpoint, and that may have to be the oldest one
// if the newest is damaged. Only the one with which the log began goes for it.
func (s *saver) dropBefore(index uint64) error {
	found, err := listCheckpoints(s.n.cfg.FS, s.n.dir)
	if err != nil {
		return fmt.Errorf("list checkpoints: %w", err)
	}
	if len(found) == 0 { // somebody took them away
		return nil
	}
	if len(found) > 1 && found[0] == firstIndex && index > firstIndex+1 {
		if err := s.remove(found[:1]); err != nil {
			return err
		}
		found = found[1:]
	}
	index = min(index, found[0]+1)
	if index <= s.n.segments.FirstIndex() {
		return nil
	}
	if err := s.n.segments.DropBefore(index); err != nil {
		return fmt.Errorf("drop segments: %w", err)
	}
	s.n.window.purged(s.n.segments.FirstIndex() - 1)
	s.n.call(func() { s.n.window.applied(s.n.raw.BasicStatus().Applied) })
	return nil
}

// remove removes checkpoints, durably: none may come back whose entries are gone.
func (s *saver) remove(indexes []uint64) error {
	for _, index := range indexes {
		if err := s.n.cfg.FS.Remove(checkpointName(s.n.dir, index)); err != nil {
			return fmt.Errorf("remove checkpoint: %w", err)
		}
	}
	return s.n.cfg.FS.SyncDir(s.n.dir)
}

// save writes a checkpoint and removes old ones.
func (s *saver) save(c checkpoint) error {
	if err := c.save(s.n.cfg.FS, s.n.dir); err != nil {
		return err
	}
	found, err := listCheckpoints(s.n.cfg.FS, s.n.dir)
	if err != nil {
		return fmt.Errorf("list checkpoints: %w", err)
	}
	if len(found) <= keptCheckpoints {
		return nil
	}
	return s.remove(found[:len(found)-keptCheckpoints])
}
