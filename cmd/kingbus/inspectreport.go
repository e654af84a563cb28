package main

import (
	"path/filepath"
	"time"

	"kingbus/internal/cluster"
	"kingbus/internal/gtid"
	"kingbus/internal/stream"
)

// inspected is what `kingbus inspect --json` prints. Sizes are in bytes.
type inspected struct {
	Dir     string `json:"dir"`
	Format  int    `json:"format"`            // of the folder; that of data is the checkpoints'
	Cluster uint64 `json:"cluster_id,string"` // 0: it belongs to none yet
	RaftID  uint64 `json:"raft_id,string"`
	// Installing: it was fetching its log from other nodes, and has only a part.
	Installing  bool                  `json:"installing"`
	HardState   inspectedHardState    `json:"hard_state"`
	Checkpoints []inspectedCheckpoint `json:"checkpoints"`
	Index       indexSum              `json:"index"`
	Segments    []inspectedSegment    `json:"segments"`
	// LastTerm and LastEntry are those by which to choose a survivor.
	LastTerm  uint64 `json:"last_term"`
	LastEntry uint64 `json:"last_entry"`
	Entries   int    `json:"entries"`
	Events    int    `json:"events"`
	// Checked counts the events whose CRC32 was checked.
	Checked int   `json:"checked"`
	Bytes   int64 `json:"bytes"` // of events
	// Torn is a write at the end of the log that was broken off; nothing of it was acknowledged.
	Torn   string   `json:"torn,omitempty"`
	Damage []string `json:"damage"` // empty: every checksum is right
}

type inspectedHardState struct {
	Term      uint64 `json:"term"`
	Vote      uint64 `json:"vote,string"`
	Committed uint64 `json:"committed"`
}

type inspectedCheckpoint struct {
	File         string             `json:"file"`
	Size         int64              `json:"size"`
	Index        uint64             `json:"index"`
	Term         uint64             `json:"term"`
	Format       uint16             `json:"format"` // of data, which the cluster writes
	Members      []cluster.Member   `json:"members"`
	End          stream.Coordinates `json:"end"`
	Transactions uint64             `json:"transactions"`
	Executed     gtid.Set           `json:"gtid_executed"`
	Purged       gtid.Set           `json:"gtid_purged"`
}

// indexSum is what there is of the index.
type indexSum struct {
	Files  int `json:"files"`
	Points int `json:"points"`
}

type inspectedSegment struct {
	File    string    `json:"file"`
	Size    int64     `json:"size"`
	Created time.Time `json:"created"`
	First   uint64    `json:"first"`
	Last    uint64    `json:"last"`
	Entries int       `json:"entries"`
	Dead    int       `json:"dead"` // entries that do not count
	Events  int       `json:"events"`
}

// report returns what was found.
func (in *inspection) report() inspected {
	f, t := in.folder, in.total
	out := inspected{
		Dir: in.dir, Format: f.Format, Cluster: f.ClusterID, RaftID: f.RaftID, Installing: f.Installing,
		HardState: inspectedHardState{f.Term, f.Vote, f.Committed}, Index: in.index,
		LastTerm: t.term, LastEntry: t.last, Entries: t.entries, Events: t.events, Checked: t.checked, Bytes: t.bytes,
		Checkpoints: []inspectedCheckpoint{}, Segments: []inspectedSegment{}, Damage: append([]string{}, in.damage...),
	}
	for i, c := range f.Checkpoints {
		s := in.states[i]
		out.Checkpoints = append(out.Checkpoints, inspectedCheckpoint{
			filepath.Base(c.File), c.Size, c.Index, c.Term, c.Format, append([]cluster.Member{}, c.Members...), s.End, s.Transactions, s.Executed, s.Purged,
		})
	}
	for _, s := range in.segments {
		out.Segments = append(out.Segments, inspectedSegment{filepath.Base(s.file), s.size, s.created.UTC(), s.first, s.last, s.entries, s.dead, s.events})
	}
	if in.torn != nil {
		out.Torn = in.torn.Err.Error()
	}
	return out
}
