package gtid

import (
	"testing"

	"pgregory.net/rapid"
)

// model is the obvious set; numbers are small, so that intervals meet.
type model map[GTID]bool

const modelMax = 24

var modelSIDs = func() []SID {
	a, _ := ParseUUID(u1)
	b, _ := ParseUUID(u2)
	return []SID{{a, ""}, {a, "foo"}, {a, "zz"}, {b, ""}, {b, "foo"}}
}()

func drawGTID(t *rapid.T) GTID {
	return GTID{rapid.SampledFrom(modelSIDs).Draw(t, "sid"), rapid.Int64Range(1, modelMax).Draw(t, "gno")}
}

func drawSet(t *rapid.T, name string) (Set, model) {
	var s Set
	m := model{}
	for _, g := range rapid.SliceOfN(rapid.Custom(drawGTID), 0, 40).Draw(t, name) {
		if got, want := s.Add(g), !m[g]; got != want {
			t.Fatalf("Add(%v) = %v, want %v", g, got, want)
		}
		m[g] = true
	}
	return s, m
}

// check compares a set with a model in every way, and its invariants.
func check(t *rapid.T, what string, s Set, m model) {
	t.Helper()
	if got := s.Count(); got != uint64(len(m)) {
		t.Fatalf("%s: Count = %d, want %d: %v", what, got, len(m), s)
	}
	for _, sid := range modelSIDs {
		for n := int64(0); n <= modelMax+1; n++ {
			if g := (GTID{sid, n}); s.Contains(g) != m[g] {
				t.Fatalf("%s: Contains(%v) = %v, want %v: %v", what, g, s.Contains(g), m[g], s)
			}
		}
	}
	for i, e := range s.sids {
		if len(e.list) == 0 || i > 0 && s.sids[i-1].sid.Compare(e.sid) >= 0 {
			t.Fatalf("%s: entry %d is empty or out of order", what, i)
		}
		for k, iv := range e.list {
			if iv.start >= iv.end || k > 0 && e.list[k-1].end >= iv.start {
				t.Fatalf("%s: list %v is not canonical", what, e.list)
			}
		}
	}
	if back, err := ParseSet(s.String()); err != nil || !back.Equal(s) {
		t.Fatalf("%s: text %q came back as %v, %v", what, s, back, err)
	}
	if back, err := DecodeSet(s.AppendBinary(nil)); err != nil || !back.Equal(s) {
		t.Fatalf("%s: binary of %v came back as %v, %v", what, s, back, err)
	}
	if back, err := DecodeSet(s.AppendTagged(nil)); err != nil || !back.Equal(s) {
		t.Fatalf("%s: tagged binary of %v came back as %v, %v", what, s, back, err)
	}
	if back, err := DecodeSet(s.AppendUntagged(nil)); err != nil || !back.Equal(s.Untagged()) {
		t.Fatalf("%s: untagged binary of %v came back as %v, %v", what, s, back, err)
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, ma := drawSet(t, "a")
		b, mb := drawSet(t, "b")
		check(t, "a", a, ma)
		union, minus, both, untagged := model{}, model{}, model{}, model{}
		subset := true
		for g := range ma {
			union[g] = true
			if mb[g] {
				both[g] = true
			} else {
				minus[g] = true
			}
			if g.SID.Tag == "" {
				untagged[g] = true
			}
		}
		for g := range mb {
			union[g] = true
			subset = subset && ma[g]
		}
		sum := a.Clone()
		sum.AddSet(b)
		check(t, "union", sum, union)
		check(t, "subtract", a.Subtract(b), minus)
		check(t, "intersect", a.Intersect(b), both)
		check(t, "untagged", a.Untagged(), untagged)
		check(t, "a, unchanged", a, ma)
		check(t, "b, unchanged", b, mb)
		if got := a.ContainsSet(b); got != subset {
			t.Fatalf("ContainsSet = %v, want %v: %v in %v", got, subset, b, a)
		}
		if !sum.ContainsSet(a) || !sum.ContainsSet(b) || !a.ContainsSet(a.Intersect(b)) {
			t.Fatal("a union must contain its parts")
		}
		if got, want := a.Equal(b), len(minus) == 0 && subset; got != want {
			t.Fatalf("Equal = %v, want %v: %v and %v", got, want, a, b)
		}
	})
}

func FuzzParseSet(f *testing.F) {
	f.Add(u1 + ":1-5:7:tag:1-3:9, " + u2 + ":4")
	f.Add(" ,, " + u1 + " : 5 - 3")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSet(text)
		if err != nil {
			return
		}
		canonical := s.String()
		back, err := ParseSet(canonical)
		if err != nil || !back.Equal(s) || back.String() != canonical {
			t.Fatalf("%q parsed to %q, which parsed to %q, %v", text, canonical, back, err)
		}
		bin, err := DecodeSet(s.AppendBinary(nil))
		if err != nil || !bin.Equal(s) {
			t.Fatalf("%q: binary came back as %q, %v", text, bin, err)
		}
	})
}

func FuzzDecodeSet(f *testing.F) {
	s := mustSet(f, u1+":1-5:7:tag:1-3:9, "+u2+":4")
	f.Add(s.AppendTagged(nil))
	f.Add(s.AppendUntagged(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSet(b)
		if err != nil {
			return
		}
		back, err := DecodeSet(s.AppendBinary(nil))
		if err != nil || !back.Equal(s) {
			t.Fatalf("%x decoded to %v, which came back as %v, %v", b, s, back, err)
		}
		if text, err := ParseSet(s.String()); err != nil || !text.Equal(s) {
			t.Fatalf("%x decoded to %v, its text to %v, %v", b, s, text, err)
		}
	})
}
