package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"kingbus/internal/segment"
)

// Digest is one of a run of log entries: the same on every node, however its
// segments are cut.
type Digest struct {
	From uint64 `json:"from"` // the first entry
	To   uint64 `json:"to"`   // the last
	Sum  string `json:"sum"`  // SHA-256 in hexadecimal, over index, term, type, data and payload of each
}

const (
	// digestEntries is the run of one digest, digestCall about what one
	// call reads.
	digestEntries = 256
	digestCall    = 256 << 20
)

// digests reads entries from…to, verifies their checksums and returns digests of
// runs of digestEntries, counted from from; last is the entry up to which it came.
func (n *Node) digests(ctx context.Context, from, to uint64) ([]Digest, uint64, error) {
	first := n.segments.FirstIndex()
	if from < first {
		return nil, 0, fmt.Errorf("entry %d: %w: the log of this node begins with %d", from, errGone, first)
	}
	if from > to {
		return nil, 0, fmt.Errorf("entries %d to %d are none", from, to)
	}
	for { // a node that has just started may apply what is committed only now
		changed := n.appliedChanged()
		if n.applied.Load() >= to {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("entry %d is not applied here: this node is at %d: %w", to, n.applied.Load(), ctx.Err())
		}
	}
	at, err := n.segments.Seek(from)
	if err != nil {
		return nil, 0, purgedMeanwhile(err)
	}
	r, err := n.segments.NewReader(at)
	if err != nil {
		return nil, 0, purgedMeanwhile(err)
	}
	defer r.Close()
	var out []Digest
	read := 0
	for next := from; next <= to && read < digestCall; {
		h := sha256.New()
		d := Digest{From: next}
		for ; next <= to && next < d.From+digestEntries; next++ {
			e, _, err := r.Next()
			if err == io.EOF {
				err = fmt.Errorf("the log ends before it")
			}
			if err != nil {
				if n.damaged(err) {
					return nil, 0, fmt.Errorf("entry %d is damaged, and is being fetched from another node: %w", next, err)
				}
				return nil, 0, fmt.Errorf("read entry %d: %w", next, purgedMeanwhile(err))
			}
			var head [25]byte
			binary.LittleEndian.PutUint64(head[:], e.Index)
			binary.LittleEndian.PutUint64(head[8:], e.Term)
			binary.LittleEndian.PutUint32(head[16:], uint32(len(e.Data)))
			binary.LittleEndian.PutUint32(head[20:], uint32(len(e.Payload)))
			head[24] = e.Type
			h.Write(head[:])
			h.Write(e.Data)
			h.Write(e.Payload)
			read += len(e.Payload)
		}
		if ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		d.To = next - 1
		d.Sum = fmt.Sprintf("%x", h.Sum(nil))
		out = append(out, d)
	}
	return out, out[len(out)-1].To, nil
}

// errGone: entries were purged.
var errGone = errors.New("it was purged")

func purgedMeanwhile(err error) error {
	if errors.Is(err, segment.ErrDropped) || errors.Is(err, segment.ErrTruncated) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return err
}

// Difference is what Verify finds.
type Difference struct {
	Node  string `json:"node"`  // that differs from this one
	From  uint64 `json:"from"`  // entries
	To    uint64 `json:"to"`    //
	Error string `json:"error"` // what is wrong there
}

// Verified is the outcome of Verify.
type Verified struct {
	From        uint64       `json:"from"` // entries that were compared
	To          uint64       `json:"to"`
	Nodes       []string     `json:"nodes"` // that were compared with this one
	Differences []Difference `json:"differences"`
}

// Verify compares this node's whole log with that of every other node, and reads
// all of it from the disks. step is told how far it has come.
func (n *Node) Verify(ctx context.Context, step func(entry, last uint64)) (Verified, error) {
	var v Verified
	last := n.applied.Load()
	from := n.segments.FirstIndex()
	v.From, v.To = from, last
	type other struct {
		Member
		first uint64
	}
	var others []other
	for _, m := range n.Members() {
		if m.Self {
			continue
		}
		if !m.Up {
			v.Differences = append(v.Differences, Difference{Node: m.Name, Error: "it is not up: nothing of it was compared"})
			continue
		}
		if m.Installing != nil {
			v.Differences = append(v.Differences, Difference{Node: m.Name, Error: "it is fetching its log at present: nothing of it was compared"})
			continue
		}
		// What a node has purged in the meantime, or not, is no difference.
		from = max(from, m.First)
		others = append(others, other{m.Member, m.First})
		v.Nodes = append(v.Nodes, m.Name)
	}
	v.From, v.To = from, last
	for next := from; next <= last; {
		own, to, err := n.digests(ctx, next, last)
		if errors.Is(err, errGone) { // purged meanwhile
			next = n.segments.FirstIndex()
			continue
		}
		if err != nil && ctx.Err() == nil {
			v.Differences = append(v.Differences, Difference{Node: n.cfg.Name, From: next, To: last, Error: err.Error()})
			return v, nil
		}
		if err != nil {
			return v, err
		}
		purged, lost := uint64(0), []uint64(nil)
		for _, m := range others {
			answer, err := n.askNode(ctx, m.Member, question{Do: "digest", From: next, To: to})
			if errors.Is(err, errGone) && answer.First > next {
				purged = max(purged, answer.First)
				continue
			}
			if err != nil {
				v.Differences = append(v.Differences, Difference{Node: m.Name, From: next, To: last, Error: err.Error()})
				lost = append(lost, m.ID) // nothing more is asked of it
				continue
			}
			for i, d := range own {
				if i >= len(answer.Digests) || answer.Digests[i] != d {
					v.Differences = append(v.Differences, Difference{Node: m.Name, From: d.From, To: d.To, Error: "its entries are not those of this node"})
				}
			}
		}
		others = slices.DeleteFunc(others, func(m other) bool { return slices.Contains(lost, m.ID) })
		if purged != 0 { // begin behind it, all together
			next = purged
			continue
		}
		next = to + 1
		step(to, last)
	}
	return v, nil
}
