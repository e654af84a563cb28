package gtid

import "slices"

// interval is the half-open range [start, end) of transaction numbers,
// MinGNO <= start < end <= MaxGNO+1.
type interval struct{ start, end int64 }

// intervals is sorted, and between two neighbours at least one number is
// missing: there is exactly one list for a set of numbers.
type intervals []interval

// search returns the index of the first interval that ends at or after gno,
// so the only one that could hold gno-1 or gno or be extended by it.
func (v intervals) search(gno int64) int {
	lo, hi := 0, len(v)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if v[mid].end < gno {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func (v intervals) contains(gno int64) bool {
	i := v.search(gno)
	return i < len(v) && v[i].start <= gno && gno < v[i].end
}

// add puts one number in and tells whether it was missing. Numbers that come
// in order extend the last interval in place.
func (v *intervals) add(gno int64) bool {
	list := *v
	if n := len(list); n > 0 && list[n-1].end == gno {
		list[n-1].end++
		return true
	}
	i := list.search(gno)
	switch {
	case i == len(list):
		*v = append(list, interval{gno, gno + 1})
	case list[i].end == gno: // grows upwards, and may meet the next one
		list[i].end++
		if list[i+1].start == list[i].end { // i is not the last, see above
			list[i].end = list[i+1].end
			*v = slices.Delete(list, i+1, i+2)
		}
	case list[i].start <= gno:
		return false
	case list[i].start == gno+1:
		list[i].start--
	default:
		*v = slices.Insert(list, i, interval{gno, gno + 1})
	}
	return true
}

// normalize sorts the list and joins what overlaps or touches, in place.
func (v intervals) normalize() intervals {
	slices.SortFunc(v, func(a, b interval) int {
		switch {
		case a.start < b.start:
			return -1
		case a.start > b.start:
			return 1
		}
		return 0
	})
	return v.join()
}

// join makes a list that is sorted by start canonical, in place.
func (v intervals) join() intervals {
	out := v[:0]
	for _, iv := range v {
		if n := len(out); n > 0 && iv.start <= out[n-1].end {
			out[n-1].end = max(out[n-1].end, iv.end)
			continue
		}
		out = append(out, iv)
	}
	return out
}

// union returns a new list.
func (v intervals) union(o intervals) intervals {
	out := make(intervals, 0, len(v)+len(o))
	for len(v) > 0 && len(o) > 0 {
		if v[0].start <= o[0].start {
			out, v = append(out, v[0]), v[1:]
		} else {
			out, o = append(out, o[0]), o[1:]
		}
	}
	out = append(out, v...)
	out = append(out, o...)
	return out.join()
}

// subtract returns a new list with the numbers of v that are not in o.
func (v intervals) subtract(o intervals) intervals {
	var out intervals
	for _, iv := range v {
		for len(o) > 0 && o[0].end <= iv.start {
			o = o[1:]
		}
		rest := o // o[0] may reach into the next interval of v as well
		for len(rest) > 0 && rest[0].start < iv.end {
			if iv.start < rest[0].start {
				out = append(out, interval{iv.start, rest[0].start})
			}
			iv.start = rest[0].end
			if iv.start >= iv.end {
				break
			}
			rest = rest[1:]
		}
		if iv.start < iv.end {
			out = append(out, iv)
		}
		o = rest
	}
	return out
}

// intersect returns a new list with the numbers that are in both.
func (v intervals) intersect(o intervals) intervals {
	var out intervals
	for len(v) > 0 && len(o) > 0 {
		both := interval{max(v[0].start, o[0].start), min(v[0].end, o[0].end)}
		if both.start < both.end {
			out = append(out, both)
		}
		if v[0].end <= o[0].end {
			v = v[1:]
		} else {
			o = o[1:]
		}
	}
	return out
}

// covers tells whether every number of o is in v.
func (v intervals) covers(o intervals) bool {
	for _, iv := range o {
		for len(v) > 0 && v[0].end < iv.end {
			v = v[1:]
		}
		if len(v) == 0 || v[0].start > iv.start {
			return false
		}
	}
	return true
}
