package stream

import (
	"bytes"
	"encoding/json"
	"fmt"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
)

// The state in a checkpoint, as JSON (docs/format/checkpoint.md). Sets are in
// MySQL's text form, so that a person can read a checkpoint.
type storedState struct {
	Version      int            `json:"version"` // 1
	Identity     Identity       `json:"identity"`
	Source       Source         `json:"source"`
	Followed     []string       `json:"followed"`
	Epoch        uint64         `json:"epoch"`
	Files        []storedFile   `json:"files"`
	End          uint64         `json:"end"`
	SourceEnd    uint64         `json:"source_end"`
	Boundary     storedBoundary `json:"boundary"`
	Tracker      []byte         `json:"tracker"` // binlog.Tracker.AppendBinary
	Rest         uint32         `json:"rest"`
	Held         storedEffect   `json:"held"`
	OpenFrom     uint64         `json:"open_from"`
	Dead         [][2]uint64    `json:"dead"`
	Executed     string         `json:"executed"`
	Purged       string         `json:"purged"`
	Transactions uint64         `json:"transactions"`
	LastTime     uint32         `json:"last_time"`
	// From format 2 of the cluster on.
	Settings *storedSettings `json:"settings,omitempty"`
}

type storedSettings struct {
	Revision uint64                     `json:"revision"`
	Change   uint64                     `json:"change,string"`
	Values   map[string]json.RawMessage `json:"values"`
}

type storedBoundary struct {
	Index     uint64 `json:"index"`
	Pos       uint64 `json:"pos"`
	SourcePos uint64 `json:"source_pos"`
}

type storedFile struct {
	Number     uint32 `json:"number"`
	Name       string `json:"name"`
	SourceName string `json:"source_name"`
	First      uint64 `json:"first"`
	Size       uint64 `json:"size"`
	Added      string `json:"added"`
	Created    uint32 `json:"created"`
	Written    uint32 `json:"written"`
}

// storedEffect is what of a binlog.Effect matters once the event is whole.
type storedEffect struct {
	Boundary bool   `json:"boundary"`
	Ended    bool   `json:"ended"`
	GTID     string `json:"gtid"`
}

const stateVersion = 1

func (s *state) encode() ([]byte, error) {
	out := storedState{
		Version: stateVersion, Identity: s.identity, Source: s.source, Followed: s.followed, Epoch: s.epoch,
		End: s.end, SourceEnd: s.sourceEnd,
		Boundary: storedBoundary{s.boundary.index, s.boundary.pos, s.boundary.sourcePos},
		Tracker:  s.tracker.AppendBinary(nil), Rest: s.rest,
		Held: storedEffect{Boundary: s.held.Boundary, Ended: s.held.Ended}, OpenFrom: s.openFrom,
		Executed: s.executed.String(), Purged: s.purged.String(), Transactions: s.transactions, LastTime: s.lastTime,
	}
	if s.settings.Revision != 0 {
		out.Settings = &storedSettings{s.settings.Revision, s.change, s.settings.Values}
	}
	if !s.held.GTID.IsZero() {
		out.Held.GTID = s.held.GTID.String()
	}
	for _, f := range s.files {
		out.Files = append(out.Files, storedFile{f.number, f.name, f.sourceName, f.first, f.size, f.added.String(), f.created, f.written})
	}
	for _, r := range s.dead {
		out.Dead = append(out.Dead, [2]uint64{r.from, r.to})
	}
	return json.Marshal(out)
}

func decodeState(b []byte) (*state, error) {
	var in storedState
	var v struct{ Version int }
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("stream state: %w", err)
	}
	if v.Version != stateVersion {
		return nil, fmt.Errorf("stream state has version %d, this kingbus knows %d; run the version that wrote it, or a newer one", v.Version, stateVersion)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, fmt.Errorf("stream state: %w", err)
	}
	s := &state{
		identity: in.Identity, source: in.Source, followed: in.Followed, epoch: in.Epoch,
		end: in.End, sourceEnd: in.SourceEnd, boundary: boundary{in.Boundary.Index, in.Boundary.Pos, in.Boundary.SourcePos},
		rest: in.Rest, held: binlog.Effect{Boundary: in.Held.Boundary, Ended: in.Held.Ended}, openFrom: in.OpenFrom,
		transactions: in.Transactions, lastTime: in.LastTime,
	}
	if in.Settings != nil {
		s.settings, s.change = Settings{in.Settings.Revision, in.Settings.Values}, in.Settings.Change
	}
	var err error
	if rest, err := s.tracker.Decode(in.Tracker); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("stream state: tracker: %d bytes too many, %w", len(rest), err)
	}
	if in.Held.GTID != "" {
		if s.held.GTID, err = gtid.ParseGTID(in.Held.GTID); err != nil {
			return nil, fmt.Errorf("stream state: %w", err)
		}
	}
	if s.executed, err = gtid.ParseSet(in.Executed); err != nil {
		return nil, fmt.Errorf("stream state: executed: %w", err)
	}
	if s.purged, err = gtid.ParseSet(in.Purged); err != nil {
		return nil, fmt.Errorf("stream state: purged: %w", err)
	}
	for i, f := range in.Files {
		added, err := gtid.ParseSet(f.Added)
		if err != nil {
			return nil, fmt.Errorf("stream state: file %s: %w", f.Name, err)
		}
		if i > 0 && f.Number != in.Files[i-1].Number+1 {
			return nil, fmt.Errorf("stream state: file %s is number %d after %d", f.Name, f.Number, in.Files[i-1].Number)
		}
		s.files = append(s.files, file{f.Number, f.Name, f.SourceName, f.First, f.Size, added, f.Created, f.Written})
	}
	for _, r := range in.Dead {
		s.dead = append(s.dead, indexRange{r[0], r[1]})
	}
	return s, nil
}
