package gtid

import (
	"errors"
	"strings"
	"testing"
)

const (
	u1 = "11111111-1111-1111-1111-111111111111"
	u2 = "2222abcd-2222-2222-2222-222222222222"
)

func TestParseUUID(t *testing.T) {
	for _, tc := range []struct {
		in, want string // "" = error
	}{
		{"3E11FA47-71CA-11E1-9E33-C80AA9429562", "3e11fa47-71ca-11e1-9e33-c80aa9429562"},
		{u2, u2},
		{"", ""},
		{"3E11FA4771CA11E19E33C80AA9429562", ""},
		{"3E11FA47-71CA-11E1-9E33-C80AA942956", ""},
		{"3E11FA47-71CA-11E1-9E33-C80AA9429562a", ""},
		{"3E11FA47-71CA-11E1-9E33-C80AA942956g", ""},
		{"3E11FA47+71CA-11E1-9E33-C80AA9429562", ""},
		{"3E11FA4-771CA-11E1-9E33-C80AA9429562", ""},
	} {
		got, err := ParseUUID(tc.in)
		if (err == nil) != (tc.want != "") || err == nil && got.String() != tc.want {
			t.Errorf("ParseUUID(%q) = %v, %v, want %q", tc.in, got, err, tc.want)
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseUUID(%q): error %v is not ErrMalformed", tc.in, err)
		}
	}
}

func TestParseTag(t *testing.T) {
	long := strings.Repeat("a", MaxTag)
	for _, tc := range []struct {
		in, want string
		ok       bool
	}{
		{"", "", true}, {"a", "a", true}, {"_", "_", true}, {"Ab_9", "ab_9", true}, {long, long, true},
		{"9a", "", false}, {"a-b", "", false}, {"a b", "", false}, {"ä", "", false}, {long + "a", "", false},
	} {
		got, err := ParseTag(tc.in)
		if (err == nil) != tc.ok || got != tc.want {
			t.Errorf("ParseTag(%q) = %q, %v, want %q, ok %v", tc.in, got, err, tc.want, tc.ok)
		}
	}
}

func TestParseGTID(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{u1 + ":1", u1 + ":1"},
		{" " + u1 + " : 1 \n", u1 + ":1"},
		{u1 + ":Tag:7", u1 + ":tag:7"},
		{u1 + " : tag : 7 ", u1 + ":tag:7"},
		{u1 + ":9223372036854775806", u1 + ":9223372036854775806"},
		{u1 + ":9223372036854775807", ""},
		{u1 + ":0", ""}, {u1 + ":-1", ""}, {u1 + ":+1", ""}, {u1 + ":", ""}, {u1, ""}, {"", ""},
		{u1 + ":1-2", ""}, {u1 + ":1,", ""}, {u1 + ":1:2", ""}, {u1 + ":tag", ""}, {u1 + ":a:b:1", ""},
		{u1 + ":" + strings.Repeat("x", MaxTag+1) + ":1", ""},
	} {
		got, err := ParseGTID(tc.in)
		if (err == nil) != (tc.want != "") || got.String() != tc.want {
			t.Errorf("ParseGTID(%q) = %q, %v, want %q", tc.in, got, err, tc.want)
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseGTID(%q): error %v is not ErrMalformed", tc.in, err)
		}
	}
	if !(GTID{}).IsZero() || (GTID{}).Valid() {
		t.Error("the zero GTID must be IsZero and not Valid")
	}
}

func TestParseSet(t *testing.T) {
	for _, tc := range []struct {
		in, want string
		ok       bool
	}{
		{"", "", true},
		{" \n\t", "", true},
		{",,", "", true},
		{" , ,", "", true},
		{u1, "", true},
		{u1 + ":1", u1 + ":1", true},
		{strings.ToUpper(u2) + ":1", u2 + ":1", true},
		{u1 + ":1-1", u1 + ":1", true},
		{u1 + ":5-3", "", true},
		{u1 + ":5-0", "", true},
		{u1 + ":5-3:7", u1 + ":7", true},
		{u1 + ":1-5:7", u1 + ":1-5:7", true},
		{u1 + ":7:1-5", u1 + ":1-5:7", true},
		{u1 + ":1-5:6:4-9", u1 + ":1-9", true},
		{u1 + ":1,\n" + u1 + ":2", u1 + ":1-2", true},
		{u2 + ":1," + u1 + ":2", u1 + ":2,\n" + u2 + ":1", true},
		{" " + u1 + " : 1 - 5 : 7 ,, " + u2 + ":1 ,", u1 + ":1-5:7,\n" + u2 + ":1", true},
		{u1 + ":1-5:7:tag:1-3:9, " + u2 + ":4", u1 + ":1-5:7:tag:1-3:9,\n" + u2 + ":4", true},
		{u1 + ":tag:1:_b:2:a:3", u1 + ":_b:2:a:3:tag:1", true},
		{u1 + ":TAG:1:tag:2", u1 + ":tag:1-2", true},
		{u1 + ":tag:1," + u1 + ":1", u1 + ":1:tag:1", true},
		{u1 + ":1-9223372036854775806", u1 + ":1-9223372036854775806", true},
		{u1 + ":1-9223372036854775807", "", false},
		{u1 + ":99999999999999999999", "", false},
		{u1 + ":0", "", false},
		{u1 + ":0-5", "", false},
		{u1 + ":-5", "", false},
		{u1 + ":1--5", "", false},
		{u1 + ":1-", "", false},
		{u1 + ":", "", false},
		{u1 + "::1", "", false},
		{u1 + ":1:", "", false},
		{u1 + ":tag", "", true},
		{u1 + ":tag:", "", false},
		{u1 + ":tag,", "", true},
		{u1 + ":tag 1", "", false},
		{u1 + ":1 2", "", false},
		{u1 + ":1;" + u2 + ":1", "", false},
		{u1 + ":1 " + u2 + ":1", "", false},
		{u1[1:] + ":1", "", false},
		{u1 + ":1\x00", "", false},
		{"x", "", false},
	} {
		got, err := ParseSet(tc.in)
		if (err == nil) != tc.ok || got.String() != tc.want {
			t.Errorf("ParseSet(%q) = %q, %v, want %q, ok %v", tc.in, got, err, tc.want, tc.ok)
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseSet(%q): error %v is not ErrMalformed", tc.in, err)
		}
	}
}

func mustSet(t testing.TB, text string) Set {
	t.Helper()
	s, err := ParseSet(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSetParts(t *testing.T) {
	s := mustSet(t, u1+":1-5:7:tag:1-3:9,"+u2+":4")
	id1, _ := ParseUUID(u1)
	for _, tc := range []struct{ name, got, want string }{
		{"FilterUUID", s.FilterUUID(id1).String(), u1 + ":1-5:7:tag:1-3:9"},
		{"Untagged", s.Untagged().String(), u1 + ":1-5:7,\n" + u2 + ":4"},
		{"Last", s.Last(SID{id1, "tag"}).String(), u1 + ":tag:9"},
		{"Last of none", s.Last(SID{id1, "no"}).String(), ""},
	} {
		if tc.got != tc.want {
			t.Errorf("%s = %q, want %q", tc.name, tc.got, tc.want)
		}
	}
	if got := s.Count(); got != 11 {
		t.Errorf("Count = %d, want 11", got)
	}
	if got := s.Intervals(); got != 5 {
		t.Errorf("Intervals = %d, want 5", got)
	}
	if !s.HasTags() || s.Untagged().HasTags() {
		t.Errorf("HasTags = %v, %v without tags, want true, false", s.HasTags(), s.Untagged().HasTags())
	}
	if got := s.SIDs(); len(got) != 3 || got[1] != (SID{id1, "tag"}) {
		t.Errorf("SIDs = %v", got)
	}
}

// Clone and every result must share nothing: adding to one must not show in
// the other. Adding in place is the trap, since it does not reallocate.
func TestClone(t *testing.T) {
	a := mustSet(t, u1+":1-5")
	id1, _ := ParseUUID(u1)
	next := GTID{SID{UUID: id1}, 6}
	for name, b := range map[string]Set{
		"Clone": a.Clone(), "Subtract": a.Subtract(Set{}), "Intersect": a.Intersect(a),
		"Untagged": a.Untagged(), "FilterUUID": a.FilterUUID(id1),
	} {
		if !b.Add(next) || a.Contains(next) {
			t.Errorf("%s shares memory with its source", name)
		}
	}
	var c Set
	c.AddSet(a)
	if !c.Add(next) || a.Contains(next) {
		t.Error("AddSet shares memory with its operand")
	}
}

func TestAddInvalid(t *testing.T) {
	var s Set
	for _, gno := range []int64{0, -1, MaxGNO + 1} {
		if s.Add(GTID{GNO: gno}) || !s.IsEmpty() || s.Contains(GTID{GNO: gno}) {
			t.Errorf("number %d was added", gno)
		}
	}
	if !s.Add(GTID{GNO: MaxGNO}) || !s.Contains(GTID{GNO: MaxGNO}) {
		t.Error("MaxGNO was not added")
	}
}

func TestAddConsecutiveAllocatesNothing(t *testing.T) {
	s := mustSet(t, u1+":1:tag:1,"+u2+":1")
	g, _ := ParseGTID(u1 + ":tag:1")
	if n := testing.AllocsPerRun(1000, func() {
		g.GNO++
		if !s.Add(g) {
			t.Fatalf("%v was there already", g)
		}
	}); n != 0 {
		t.Errorf("%v allocations per Add, want 0", n)
	}
}

func BenchmarkAddConsecutive(b *testing.B) {
	s := mustSet(b, u1+":1:tag:1,"+u2+":1")
	g, _ := ParseGTID(u1 + ":tag:1")
	for b.Loop() {
		g.GNO++
		s.Add(g)
	}
}
