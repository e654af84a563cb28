package gtid

import "slices"

// Set is a set of GTIDs. The zero value is the empty set.
//
// A Set is a small value that points to its contents. Assigning it or passing
// it on shares them: that is fine for reading, from many goroutines too. Before
// one of two sharers is changed (Add, AddSet), it must be made
// independent with Clone. Every method that returns a Set returns one that
// shares nothing with its operands.
type Set struct {
	// sids is sorted by SID.Compare; every list is canonical and not empty.
	// Hence equal sets have equal contents.
	sids []sidSet
}

type sidSet struct {
	sid  SID
	list intervals
}

// find returns where sid is in s.sids, or belongs.
func (s Set) find(sid SID) (int, bool) {
	lo, hi := 0, len(s.sids)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		switch c := s.sids[mid].sid.Compare(sid); {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

// list returns the intervals of sid, nil if there are none.
func (s Set) list(sid SID) intervals {
	if i, ok := s.find(sid); ok {
		return s.sids[i].list
	}
	return nil
}

// Add puts g into the set and tells whether it was missing. A GTID that is not
// Valid is not added. Numbers of one SID that come in order cost a binary
// search among the SIDs and no allocation; others may move the intervals after
// them.
func (s *Set) Add(g GTID) bool {
	if !g.Valid() {
		return false
	}
	i, ok := s.find(g.SID)
	if ok {
		return s.sids[i].list.add(g.GNO)
	}
	s.sids = slices.Insert(s.sids, i, sidSet{g.SID, intervals{{g.GNO, g.GNO + 1}}})
	return true
}

// AddSet puts every GTID of o into s. Linear in the sizes of both.
func (s *Set) AddSet(o Set) {
	if len(o.sids) == 0 {
		return
	}
	out := make([]sidSet, 0, len(s.sids)+len(o.sids))
	a, b := s.sids, o.sids
	for len(a) > 0 || len(b) > 0 {
		c := 0
		switch {
		case len(a) == 0:
			c = 1
		case len(b) == 0:
			c = -1
		default:
			c = a[0].sid.Compare(b[0].sid)
		}
		switch {
		case c < 0:
			out, a = append(out, a[0]), a[1:]
		case c > 0:
			out, b = append(out, sidSet{b[0].sid, slices.Clone(b[0].list)}), b[1:]
		default:
			list := a[0].list
			if !list.covers(b[0].list) {
				list = list.union(b[0].list)
			}
			out = append(out, sidSet{a[0].sid, list})
			a, b = a[1:], b[1:]
		}
	}
	s.sids = out
}

// Subtract returns the GTIDs of s that are not in o.
func (s Set) Subtract(o Set) Set {
	return s.each(func(e sidSet) intervals {
		if list := o.list(e.sid); list != nil {
			return e.list.subtract(list)
		}
		return slices.Clone(e.list)
	})
}

// Intersect returns the GTIDs that are in both sets.
func (s Set) Intersect(o Set) Set {
	return s.each(func(e sidSet) intervals { return e.list.intersect(o.list(e.sid)) })
}

// FilterUUID returns the GTIDs of one server, with all its tags.
func (s Set) FilterUUID(u UUID) Set {
	return s.each(func(e sidSet) intervals {
		if e.sid.UUID == u {
			return slices.Clone(e.list)
		}
		return nil
	})
}

// Untagged returns the GTIDs that have no tag.
func (s Set) Untagged() Set {
	return s.each(func(e sidSet) intervals {
		if e.sid.Tag == "" {
			return slices.Clone(e.list)
		}
		return nil
	})
}

// Clone returns an independent copy.
func (s Set) Clone() Set {
	return s.each(func(e sidSet) intervals { return slices.Clone(e.list) })
}

// each maps every list with f, which returns a new one, and leaves empty ones
// out.
func (s Set) each(f func(sidSet) intervals) Set {
	var out Set
	for _, e := range s.sids {
		if list := f(e); len(list) > 0 {
			out.sids = append(out.sids, sidSet{e.sid, list})
		}
	}
	return out
}

// Contains tells whether g is in the set.
func (s Set) Contains(g GTID) bool {
	return g.Valid() && s.list(g.SID).contains(g.GNO)
}

// ContainsSet tells whether every GTID of o is in s (MySQL:
// GTID_SUBSET(o, s)).
func (s Set) ContainsSet(o Set) bool {
	for _, e := range o.sids {
		if !s.list(e.sid).covers(e.list) {
			return false
		}
	}
	return true
}

// Equal tells whether both sets have the same GTIDs.
func (s Set) Equal(o Set) bool {
	return slices.EqualFunc(s.sids, o.sids, func(a, b sidSet) bool {
		return a.sid == b.sid && slices.Equal(a.list, b.list)
	})
}

// IsEmpty tells whether the set has no GTID.
func (s Set) IsEmpty() bool { return len(s.sids) == 0 }

// Count returns the number of GTIDs; it stops at 2^64-1.
func (s Set) Count() uint64 {
	var n uint64
	for _, e := range s.sids {
		for _, iv := range e.list {
			more := uint64(iv.end - iv.start)
			if n+more < n {
				return 1<<64 - 1
			}
			n += more
		}
	}
	return n
}

// Intervals returns the number of runs of consecutive GTIDs: what the set
// costs, 16 bytes each, in memory and in the binary encodings.
func (s Set) Intervals() int {
	n := 0
	for _, e := range s.sids {
		n += len(e.list)
	}
	return n
}

// HasTags tells whether a GTID of the set has a tag.
func (s Set) HasTags() bool {
	return slices.ContainsFunc(s.sids, func(e sidSet) bool { return e.sid.Tag != "" })
}

// SIDs returns the SIDs that have a GTID in the set, in SID.Compare order.
func (s Set) SIDs() []SID {
	out := make([]SID, len(s.sids))
	for i, e := range s.sids {
		out[i] = e.sid
	}
	return out
}

// Last returns the greatest GTID of a SID, the zero GTID if there is none.
func (s Set) Last(sid SID) GTID {
	list := s.list(sid)
	if len(list) == 0 {
		return GTID{}
	}
	return GTID{sid, list[len(list)-1].end - 1}
}

// builder collects intervals in any order and makes a Set of them once, so
// that hostile order cannot make parsing quadratic.
type builder struct {
	sids  []sidSet
	index map[SID]int
}

// sid returns the index of a SID in b.sids, adding it if necessary.
func (b *builder) sid(sid SID) int {
	if i, ok := b.index[sid]; ok {
		return i
	}
	if b.index == nil {
		b.index = make(map[SID]int)
	}
	b.index[sid] = len(b.sids)
	b.sids = append(b.sids, sidSet{sid: sid})
	return len(b.sids) - 1
}

func (b *builder) add(i int, iv interval) {
	b.sids[i].list = append(b.sids[i].list, iv)
}

// set finishes; the builder must not be used after it.
func (b *builder) set() Set {
	out := b.sids[:0]
	for _, e := range b.sids {
		if len(e.list) > 0 {
			e.list = e.list.normalize()
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		return Set{}
	}
	slices.SortFunc(out, func(a, b sidSet) int { return a.sid.Compare(b.sid) })
	return Set{sids: out}
}
