package stream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"strings"

	"kingbus/internal/gtid"
	"kingbus/internal/segment"
	"kingbus/internal/vfs"
)

// An index file holds the points of one segment, written when the segment has been
// applied, and before that if a checkpoint is made in its middle
// (docs/format/index.md). Three lines of text:
//
//	kingbus index 1 CRC32C-of-line-2 CRC32C-of-line-3   (hexadecimal, 8 digits)
//	the summary as JSON
//	the points as JSON
//
// There is one for every segment. A file that is missing or damaged costs time,
// not data: seeks begin before its segment and scan.
const (
	indexMagic   = "kingbus index 1 "
	indexSuffix  = ".index"
	maxIndexFile = 1 << 30
)

type storedSummary struct {
	Segment uint64       `json:"segment"`
	Count   int          `json:"count"`
	First   *storedPoint `json:"first,omitempty"`
	Last    *storedPoint `json:"last,omitempty"`
	Rest    gtid.Set     `json:"rest"`
	Tail    gtid.Set     `json:"tail"`
}

type storedPoint struct {
	Index  uint64   `json:"index"`
	Offset int64    `json:"offset"`
	File   uint32   `json:"file"`
	Pos    uint64   `json:"pos"`
	Delta  gtid.Set `json:"delta"`
}

func (p point) stored() *storedPoint {
	return &storedPoint{p.index, p.at.Offset, p.file, p.pos, p.delta}
}

func (p *storedPoint) point(seg uint64) point {
	return point{index: p.Index, at: segment.Location{Segment: seg, Offset: p.Offset}, file: p.File, pos: p.Pos, delta: p.Delta}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (b *block) encode() ([]byte, error) {
	sum := storedSummary{Segment: b.segment, Count: b.count, Rest: b.rest, Tail: b.tail}
	points := make([]*storedPoint, 0, len(b.points))
	for _, p := range b.points {
		points = append(points, p.stored())
	}
	if b.count > 0 {
		sum.First, sum.Last = b.first.stored(), b.last.stored()
	}
	one, err := json.Marshal(sum)
	if err != nil {
		return nil, err
	}
	two, err := json.Marshal(points)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s%08x %08x\n%s\n%s\n", indexMagic, crc32.Checksum(one, castagnoli), crc32.Checksum(two, castagnoli), one, two), nil
}

// decodeBlock reads an index file: only the summary when points is false.
func decodeBlock(data []byte, seg uint64, points bool) (*block, error) {
	lines := bytes.SplitN(data, []byte("\n"), 4)
	if len(lines) != 4 || len(lines[3]) != 0 || len(lines[0]) != len(indexMagic)+17 || !strings.HasPrefix(string(lines[0]), indexMagic) {
		return nil, errors.New("not an index file of this version")
	}
	for i, sum := range strings.Fields(string(lines[0][len(indexMagic):])) {
		if (i == 0 || points) && sum != fmt.Sprintf("%08x", crc32.Checksum(lines[i+1], castagnoli)) {
			return nil, errors.New("its checksum does not match")
		}
	}
	var sum storedSummary
	if err := json.Unmarshal(lines[1], &sum); err != nil {
		return nil, err
	}
	if sum.Segment != seg || sum.Count < 0 || (sum.Count > 0) != (sum.First != nil) || (sum.Count > 0) != (sum.Last != nil) {
		return nil, errors.New("its summary contradicts itself")
	}
	b := &block{segment: seg, count: sum.Count, rest: sum.Rest, tail: sum.Tail, saved: true}
	if sum.Count > 0 {
		b.first, b.last = sum.First.point(seg), sum.Last.point(seg)
	}
	if !points {
		return b, nil
	}
	var stored []storedPoint
	if err := json.Unmarshal(lines[2], &stored); err != nil {
		return nil, err
	}
	if len(stored) != b.count {
		return nil, fmt.Errorf("it has %d points, not %d", len(stored), b.count)
	}
	for i := range stored {
		b.points = append(b.points, stored[i].point(seg))
	}
	return b, nil
}

func (s *Stream) blockName(seg uint64) string {
	return filepath.Join(s.indexDir(), fmt.Sprintf("%020d%s", seg, indexSuffix))
}

func (s *Stream) saveBlock(b *block) error {
	data, err := b.encode()
	if err != nil {
		return fmt.Errorf("encode index of segment %d: %w", b.segment, err)
	}
	if err := vfs.WriteFile(s.cfg.FS, s.blockName(b.segment), data); err != nil {
		return fmt.Errorf("write index of segment %d: %w", b.segment, err)
	}
	return nil
}

func (s *Stream) readBlock(seg uint64, points bool) (*block, error) {
	data, err := vfs.ReadFile(s.cfg.FS, s.blockName(seg), maxIndexFile)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	b, err := decodeBlock(data, seg, points)
	if err != nil {
		return nil, fmt.Errorf("index file %s: %w", s.blockName(seg), err)
	}
	return b, nil
}

// loadBlock is the index's way to the points of an old segment.
func (s *Stream) loadBlock(seg uint64) []point {
	b, err := s.readBlock(seg, true)
	if err != nil {
		s.log.Warn("an index file cannot be read; a seek into its segment takes longer", "error", err)
		return nil
	}
	return b.points
}

// loadIndex reads the summaries of the segments up to the entry last, to which the
// state was restored; what comes after is noted again as it is replayed, so the
// last block is whole, but without what it knows of that already. Files of segments
// that are gone are removed.
func (s *Stream) loadIndex(last uint64, segments []uint64) error {
	for i, seg := range segments {
		ends := i == len(segments)-1
		b, err := s.readBlock(seg, ends)
		if err == nil && ends {
			b = b.upTo(last)
		}
		if err != nil {
			s.log.Warn("an index file cannot be used; reading from its segment will be slower until it is purged", "error", err)
			b = &block{segment: seg, lost: true, saved: true}
		}
		s.index.blocks = append(s.index.blocks, b)
	}
	names, err := s.cfg.FS.ReadDir(s.indexDir())
	if err != nil {
		return fmt.Errorf("list index: %w", err)
	}
	for _, name := range names {
		if seg, ok := indexedSegment(name); ok && len(segments) > 0 && seg < segments[0] {
			if err := s.cfg.FS.Remove(s.blockName(seg)); err != nil {
				return fmt.Errorf("remove the index of a segment that is gone: %w", err)
			}
		}
	}
	return nil
}

// indexedSegment returns the segment that an index file's name tells.
func indexedSegment(name string) (seg uint64, ok bool) {
	number, ok := strings.CutSuffix(name, indexSuffix)
	if !ok || len(number) != 20 {
		return 0, false
	}
	seg, err := strconv.ParseUint(number, 10, 64)
	return seg, err == nil
}
