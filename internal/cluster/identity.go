package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"kingbus/internal/vfs"
)

// identity says whose data folder this is. It is made once, with the folder: a
// Raft id belongs to a folder and never to a name, so an empty or restored
// folder can never vote under an old id. It is the file "node", JSON.
type identity struct {
	// Format is the version of the whole folder: the files in it, and what the
	// log's entries mean.
	Format int `json:"format"`
	// Cluster is 0 until one has taken the folder in; it never changes after that.
	Cluster uint64 `json:"cluster_id,string"`
	Raft    uint64 `json:"raft_id,string"`
}

const (
	folderFormat = 1
	identityFile = "node"
)

// openIdentity reads the folder's identity, or makes one in an empty folder.
// random returns random numbers.
func openIdentity(fsys vfs.FS, dir string, random func() uint64) (id identity, fresh bool, err error) {
	name := filepath.Join(dir, identityFile)
	b, err := vfs.ReadFile(fsys, name, 1<<16)
	switch {
	case err == nil:
		d := json.NewDecoder(bytes.NewReader(b))
		if err := d.Decode(&id); err != nil {
			return identity{}, false, fmt.Errorf("%s is damaged: %w", name, err)
		}
		if id.Format != folderFormat {
			return identity{}, false, fmt.Errorf("data folder %s has format %d, this kingbus knows %d: run the version that wrote it, or a newer one", dir, id.Format, folderFormat)
		}
		if id.Raft == 0 {
			return identity{}, false, fmt.Errorf("%s is damaged: it names no node", name)
		}
		return id, false, nil
	case !errors.Is(err, fs.ErrNotExist):
		return identity{}, false, err
	}
	id = identity{Format: folderFormat, Cluster: random() | 1, Raft: random()>>1 | 1}
	return id, true, nil
}

// save is the last step of making a folder: one without it is begun anew.
func (id identity) save(fsys vfs.FS, dir string) error {
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return vfs.WriteFile(fsys, filepath.Join(dir, identityFile), append(b, '\n'))
}
