package stream

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
	"kingbus/internal/vfs"
)

// Walker reads the entries of a log without folding them into a state: it tells
// what each holds, and checks the binlog events in them. It is what `kingbus
// inspect` uses, so it must cope with a log that begins anywhere and with what
// is damaged. Entries are given in order; a gap is allowed after Lost.
type Walker struct {
	epoch    uint64 // in force; 0 = not known
	file     uint32 // current; 0 = not known
	name     string // of it, if known
	end      uint64 // where the next run has to begin; 0 = not known
	checksum binlog.Checksum
	known    bool   // checksum is
	rest     uint32 // bytes to come of an event that was cut
	hash     binlog.Hash
}

// Description is what an entry holds.
type Description struct {
	// Kind is "events", "rotate", "link", "identity", "purge", "settings", or "" if the entry
	// is empty (Raft's own).
	Kind string
	// Text is a line for people.
	Text string
	// Dead entries do not count, as far as the walk can tell.
	Dead bool
	// Events ended in this entry; Checked of them have a CRC32 that is right.
	Events, Checked int
	// Types counts the events that begin in this entry.
	Types map[string]int
	// Bytes of events.
	Bytes int
}

// Lost tells the walker that entries are missing before the next one.
func (w *Walker) Lost() { *w = Walker{} }

// Entry describes the next entry. The error is damage: an entry that cannot be
// understood, or an event whose checksum is wrong.
func (w *Walker) Entry(index uint64, payload []byte) (Description, error) {
	if len(payload) == 0 {
		return Description{Text: "first entry of a term"}, nil
	}
	k, err := parseKind(payload)
	if err != nil {
		return Description{}, err
	}
	switch k {
	case kindEvents:
		h, events, err := parseEvents(payload)
		if err != nil {
			return Description{Kind: "events"}, err
		}
		return w.events(h, events)
	case kindRotate:
		var c rotateCommand
		_, err := parseCommand(payload, &c)
		return w.rotate(c), err
	case kindLink:
		var c linkCommand
		_, err := parseCommand(payload, &c)
		w.epoch, w.end, w.rest = index, 0, 0
		return Description{Kind: "link", Text: fmt.Sprintf("epoch %d: source %s (server id %d, version %s) at %s:%d", index, c.Source.UUID, c.Source.ServerID, c.Source.Version, c.Source.Host, c.Source.Port)}, err
	case kindIdentity:
		var c identityCommand
		_, err := parseCommand(payload, &c)
		return Description{Kind: "identity", Text: fmt.Sprintf("server id %d, server uuid %s", c.Identity.ServerID, c.Identity.ServerUUID)}, err
	case kindSettings:
		var c settingsCommand
		_, err := parseCommand(payload, &c)
		return Description{Kind: "settings", Text: "change " + strings.Join(slices.Sorted(maps.Keys(c.Values)), ", ")}, err
	default:
		var c purgeCommand
		_, err := parseCommand(payload, &c)
		return Description{Kind: "purge", Text: "remove the files before " + c.Before}, err
	}
}

func (w *Walker) rotate(c rotateCommand) Description {
	d := Description{Kind: "rotate", Text: fmt.Sprintf("file %d: %s (%s of the source)", c.File+1, c.Name, c.SourceName)}
	if w.epoch != 0 && c.Epoch != w.epoch || w.end != 0 && c.Pos != w.end {
		d.Dead = true
		return d
	}
	*w = Walker{epoch: c.Epoch, file: c.File + 1, name: c.Name, end: binlog.MagicSize}
	return d
}

func (w *Walker) events(h eventsHeader, events []byte) (Description, error) {
	d := Description{Kind: "events", Types: map[string]int{}, Bytes: len(events)}
	name := w.name
	if name == "" {
		name = fmt.Sprintf("file %d", h.file)
	}
	d.Text = fmt.Sprintf("%s, %d bytes from %d on (%d in the source's), epoch %d", name, len(events), h.pos, h.sourcePos, h.epoch)
	if w.epoch == 0 {
		// The walk began inside an epoch, perhaps inside an event: nothing can be
		// checked before the next file or link.
		d.Text += ", not checked"
		return d, nil
	}
	if h.epoch != w.epoch || w.file != 0 && h.file != w.file || w.end != 0 && h.pos != w.end {
		d.Dead = true
		return d, nil
	}
	if w.file == 0 {
		w.file = h.file
	}
	w.end = h.pos + uint64(len(events))
	at := h.pos
	for len(events) > 0 {
		begins := w.rest == 0
		if begins {
			hdr, err := binlog.ParseHeader(events)
			if err != nil {
				return d, w.damage(at, err)
			}
			d.Types[hdr.Type.String()]++
			if hdr.Type == binlog.TypeFormatDescription && uint64(hdr.Length) <= uint64(len(events)) {
				fde, err := binlog.ParseFormatDescription(events[:hdr.Length])
				if err != nil {
					return d, w.damage(at, err)
				}
				w.checksum, w.known = fde.Checksum, true
			}
			w.rest = hdr.Length
			w.hash.Reset(hdr.Length)
		}
		n := int(min(uint64(w.rest), uint64(len(events))))
		_, _ = w.hash.Write(events[:n])
		w.rest -= uint32(n)
		events = events[n:]
		at += uint64(n)
		if w.rest > 0 {
			break
		}
		d.Events++
		if w.known && w.checksum == binlog.ChecksumCRC32 {
			if !w.hash.Valid() {
				return d, w.damage(at-uint64(n), errors.New("the CRC32 of the event is wrong"))
			}
			d.Checked++
		}
	}
	return d, nil
}

// damage makes an error with the event's place, and gives the run up.
func (w *Walker) damage(at uint64, err error) error {
	e := fmt.Errorf("event at %s:%d: %w", w.name, at, err)
	w.rest = 0
	w.end = 0
	w.epoch = 0
	return e
}

// StateSummary is what a checkpoint says of the stream.
type StateSummary struct {
	Identity       Identity
	Source         Source
	Executed       gtid.Set
	Purged         gtid.Set
	Files          []File
	End, SourceEnd Coordinates
	Transactions   uint64
	// Dead is how many entries do not count.
	Dead uint64
}

// DescribeState decodes the state in a checkpoint. An empty one is that of a new
// log.
func DescribeState(encoded []byte) (StateSummary, error) {
	if len(encoded) == 0 {
		return StateSummary{}, nil
	}
	s, err := decodeState(encoded)
	if err != nil {
		return StateSummary{}, err
	}
	out := StateSummary{Identity: s.identity, Source: s.source, Executed: s.executed, Purged: s.purged, Transactions: s.transactions}
	out.End, out.SourceEnd = s.coordinates()
	for _, f := range s.files {
		out.Files = append(out.Files, File{f.name, f.size, f.created, f.written})
	}
	for _, r := range s.dead {
		out.Dead += r.to - r.from + 1
	}
	return out, nil
}

// IndexFile is one file of the index, as InspectIndex finds it.
type IndexFile struct {
	File    string // path
	Segment uint64
	Points  int
	Err     error // why it cannot be used
}

// InspectIndex reads the index files of a data folder and verifies their
// checksums. It changes nothing. A bad one costs time, not data.
func InspectIndex(fsys vfs.FS, dir string) ([]IndexFile, error) {
	dir = filepath.Join(dir, "index")
	names, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []IndexFile
	for _, name := range names {
		seg, ok := indexedSegment(name)
		if !ok {
			continue // none of ours; a start passes over it, too
		}
		f := IndexFile{File: filepath.Join(dir, name), Segment: seg}
		data, err := vfs.ReadFile(fsys, f.File, maxIndexFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue // purged meanwhile
		}
		var b *block
		if err == nil {
			b, err = decodeBlock(data, f.Segment, true)
		}
		if err != nil {
			f.Err = err
		} else {
			f.Points = b.count
		}
		found = append(found, f)
	}
	return found, nil
}
