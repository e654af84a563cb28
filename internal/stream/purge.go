package stream

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// PurgePlan is what PURGE BINARY LOGS removes.
type PurgePlan struct {
	// Remove are the files that go, oldest first.
	Remove []File
	// Keep is the oldest file that stays; "" if there are no files.
	Keep string
	// HeldBack: more was asked for, but a connected replica of some node still reads Keep.
	HeldBack bool
}

// PlanPurge decides, as MySQL does, what PURGE BINARY LOGS TO a file removes, or with "" what
// PURGE BINARY LOGS BEFORE a time does: whole files from the oldest on, and neither the one
// that is written nor what a connected replica still reads. Purge before Keep carries it out.
// Its error is ErrNoFile.
func (s *Stream) PlanPurge(to string, before time.Time) (PurgePlan, error) {
	return planPurge(s.Status().Files, s.needed(), to, before)
}

func planPurge(files []File, needed, to string, before time.Time) (plan PurgePlan, err error) {
	named := func(name string) int {
		return slices.IndexFunc(files, func(f File) bool { return f.Name == name })
	}
	keep := named(to)
	switch {
	case to != "" && keep < 0:
		return plan, fmt.Errorf("%w: %q", ErrNoFile, to)
	case to == "" && len(files) == 0:
		return plan, nil
	case to == "":
		// One with an event of that time or later stays.
		keep = slices.IndexFunc(files, func(f File) bool { return int64(f.Written) >= before.Unix() })
		if keep < 0 {
			keep = len(files) - 1
		}
	}
	if n := named(needed); n >= 0 && n < keep {
		keep, plan.HeldBack = n, true
	}
	plan.Remove, plan.Keep = files[:keep], files[keep].Name
	return plan, nil
}

// needed returns the oldest file that a reader of any node is in, "" if there is none, as
// far as other nodes were heard from lately.
func (s *Stream) needed() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if f := s.state.file(s.neededAnywhereLocked()); f != nil {
		return f.name
	}
	return ""
}

// Purge removes all files before the named one, on all nodes. The caller has
// decided that nobody needs them.
func (s *Stream) Purge(ctx context.Context, before string) error {
	if _, err := s.askLeader(ctx, asked{Purge: &purgeCommand{Before: before}}); err != nil {
		return fmt.Errorf("purge before %s: %w", before, err)
	}
	return nil
}
