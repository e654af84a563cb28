package stream

import (
	"errors"
	"testing"
	"time"
)

func TestPlanPurge(t *testing.T) {
	files := []File{{"b.1", 10, 100, 199}, {"b.2", 20, 200, 299}, {"b.3", 30, 300, 399}}
	for _, tc := range []struct {
		name   string
		files  []File
		needed string
		to     string
		before int64
		keep   string
		gone   int
		held   bool
		err    error
	}{
		{"to a file", files, "", "b.2", 0, "b.2", 1, false, nil},
		{"to the oldest", files, "", "b.1", 0, "b.1", 0, false, nil},
		{"to the newest", files, "b.3", "b.3", 0, "b.3", 2, false, nil},
		{"to a file that is not there", files, "", "b.9", 0, "", 0, false, ErrNoFile},
		{"to a file where there are none", nil, "", "b.1", 0, "", 0, false, ErrNoFile},
		{"what a replica reads", files, "b.1", "b.3", 0, "b.1", 0, true, nil},
		{"what a replica reads stays, what is before it goes", files, "b.2", "b.3", 0, "b.2", 1, true, nil},
		{"a replica reads what was asked to stay", files, "b.2", "b.2", 0, "b.2", 1, false, nil},
		{"before all", files, "", "", 50, "b.1", 0, false, nil},
		{"before the end of a file", files, "", "", 299, "b.2", 1, false, nil},
		{"behind the end of a file", files, "", "", 300, "b.3", 2, false, nil},
		{"before now: the one that is written stays", files, "", "", 9999, "b.3", 2, false, nil},
		{"before now, and a replica reads", files, "b.1", "", 9999, "b.1", 0, true, nil},
		{"before a time, where there are none", nil, "", "", 9999, "", 0, false, nil},
	} {
		plan, err := planPurge(tc.files, tc.needed, tc.to, time.Unix(tc.before, 0))
		if plan.Keep != tc.keep || len(plan.Remove) != tc.gone || plan.HeldBack != tc.held || !errors.Is(err, tc.err) {
			t.Errorf("%s: %+v, %v", tc.name, plan, err)
		}
	}
}
