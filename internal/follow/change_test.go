package follow

import (
	"errors"
	"testing"
	"time"
)

// TestSaid: what was said, said anew, is the same but for the password.
func TestSaid(t *testing.T) {
	for _, s := range []Setting{
		{},
		{Host: "h", Port: 3307, User: "u", Heartbeat: 1500 * time.Millisecond, SSL: "1", Verify: "0", CA: "/ca", Cert: "/c", Key: "/k", PublicKey: true, Start: "b.000001"},
		{SSL: "0", Verify: "1", NoPublicKey: true, Start: "gtid:11111111-2222-3333-4444-555555555555:1-9"},
	} {
		secret := s
		secret.Password = "p"
		if got, err := secret.Said().on(Setting{}); got != s || err != nil {
			t.Errorf("%+v became %+v, %v", s, got, err)
		}
	}
}

// TestDecisions: what may be said when.
func TestDecisions(t *testing.T) {
	host, user, start, wrong := "h", "u", "current", "../x"
	for _, tc := range []struct {
		name       string
		own, begun bool
		before     Setting
		do         func(*Store) error
		want       error // nil: it is done
		value      bool  // a ValueError is wanted
		after      Setting
	}{
		{"change", false, false, Setting{}, func(s *Store) error { return s.Change(t.Context(), Change{Host: &host, Start: &start}) }, nil, false, Setting{Host: "h", Start: "current", Stopped: true}},
		{"while the node's own is followed", true, false, Setting{}, func(s *Store) error { return s.Change(t.Context(), Change{Host: &host}) }, ErrRunning, false, Setting{}},
		{"while it is followed", false, false, Setting{Host: "x"}, func(s *Store) error { return s.Change(t.Context(), Change{User: &user}) }, ErrRunning, false, Setting{Host: "x"}},
		{"start of a binlog that is there", false, true, Setting{}, func(s *Store) error { return s.Change(t.Context(), Change{Host: &host, Start: &start}) }, ErrBegun, false, Setting{}},
		{"nonsense", false, false, Setting{}, func(s *Store) error { return s.Change(t.Context(), Change{Host: &host, Start: &wrong}) }, nil, true, Setting{}},
		{"start nothing", false, false, Setting{}, func(s *Store) error { return s.Start(t.Context(), "") }, ErrNoSource, false, Setting{}},
		{"start the node's own", true, false, Setting{Stopped: true}, func(s *Store) error { return s.Start(t.Context(), "") }, nil, false, Setting{}},
		{"stop", true, false, Setting{Host: "h"}, func(s *Store) error { return s.Stop(t.Context()) }, nil, false, Setting{Host: "h", Stopped: true}},
		{"reset while it is followed", false, false, Setting{Host: "h"}, func(s *Store) error { return s.Reset(t.Context()) }, ErrRunning, false, Setting{Host: "h"}},
		{"reset", false, false, Setting{Host: "h", Stopped: true}, func(s *Store) error { return s.Reset(t.Context()) }, nil, false, Setting{Stopped: true}},
	} {
		s := NewStore(&keeper{}, tc.own, func() bool { return tc.begun })
		if err := s.decide(t.Context(), func(Setting) (Setting, error) { return tc.before, nil }); err != nil {
			t.Fatal(err)
		}
		err := tc.do(s)
		var value *ValueError
		if errors.As(err, &value) != tc.value || !tc.value && !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
		if now, _, err := s.Setting(); now != tc.after || err != nil {
			t.Errorf("%s: %+v, %v", tc.name, now, err)
		}
	}
}
