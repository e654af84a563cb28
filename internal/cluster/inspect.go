package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"kingbus/internal/vfs"
)

// Folder is what Inspect finds in a data folder beside its log.
type Folder struct {
	Format      int // of the folder
	ClusterID   uint64
	RaftID      uint64
	Term, Vote  uint64
	Committed   uint64 // the commit index as it was persisted
	Checkpoints []FolderCheckpoint
	// Installing: the node was fetching its log from others, and has only a part.
	Installing bool
	// LogDir is where the segments are.
	LogDir string
	// Problems are what cannot be read or is damaged, with the file's path in
	// the text.
	Problems []error
}

// FolderCheckpoint is one checkpoint file that is whole.
type FolderCheckpoint struct {
	File        string
	Size        int64 // bytes
	Index, Term uint64
	Format      uint16 // that the group writes
	Members     []Member
	State       []byte // as the state machine encoded it
}

// Inspect reads a data folder without locking or changing anything; it may be
// in use. What is damaged becomes a problem of the Folder; the error is for what
// is no data folder at all.
func Inspect(fsys vfs.FS, dir string) (Folder, error) {
	found := Folder{LogDir: filepath.Join(dir, "log")}
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return Folder{}, err
	}
	problem := func(err error) { found.Problems = append(found.Problems, err) }
	known := 0
	for _, name := range names {
		if name == identityFile || name == hardStateFile || name == "log" {
			known++
		}
		found.Installing = found.Installing || name == installFile
	}
	if known == 0 {
		return Folder{}, fmt.Errorf("%s is no data folder of kingbus: it has neither %q nor %q nor %q in it", dir, identityFile, hardStateFile, "log")
	}
	if b, err := vfs.ReadFile(fsys, filepath.Join(dir, identityFile), 1<<16); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s is missing: the folder was not finished, or the file was lost", filepath.Join(dir, identityFile))
		}
		problem(err)
	} else {
		var id identity
		if err := json.Unmarshal(b, &id); err != nil {
			problem(fmt.Errorf("%s is damaged: %w", filepath.Join(dir, identityFile), err))
		} else if id.Format != folderFormat {
			problem(fmt.Errorf("%s: the folder has format %d, this kingbus knows %d", filepath.Join(dir, identityFile), id.Format, folderFormat))
		}
		found.Format, found.ClusterID, found.RaftID = id.Format, id.Cluster, id.Raft
	}
	if err := inspectHardState(fsys, filepath.Join(dir, hardStateFile), &found); err != nil {
		problem(err)
	}
	checkpoints, err := listCheckpoints(fsys, dir)
	if err != nil {
		problem(err)
	}
	for _, index := range checkpoints {
		name := checkpointName(dir, index)
		b, err := vfs.ReadFile(fsys, name, maxCheckpoint)
		if errors.Is(err, fs.ErrNotExist) {
			continue // replaced by a newer one meanwhile
		}
		var c checkpoint
		if err == nil {
			c, err = decodeCheckpoint(b)
		}
		if err == nil && c.index != index {
			err = fmt.Errorf("it is of entry %d", c.index)
		}
		if err != nil {
			problem(fmt.Errorf("%s: %w", name, err))
			continue
		}
		found.Checkpoints = append(found.Checkpoints, FolderCheckpoint{
			File: name, Size: int64(len(b)), Index: c.index, Term: c.term, Format: c.group.format, Members: c.group.members, State: c.state,
		})
	}
	return found, nil
}

// hardStateFile is the name that openFiles uses.
const hardStateFile = "hardstate"

func inspectHardState(fsys vfs.FS, name string, found *Folder) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	h := &hardState{file: f}
	err = errors.Join(h.read(name), f.Close())
	found.Term, found.Vote, found.Committed = h.term, h.vote, h.stored
	return err
}
