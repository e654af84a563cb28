package segment

import (
	"errors"
	"fmt"
)

// keep tells which segments the log has, and with Options.CutDamage which ones are behind the damage and have to go.
// It changes nothing.
func (l *Log) keep(found []candidate) (kept, behind []candidate, damage *DamageError, err error) {
	sound, err := checkChain(found, l.opt.Committed)
	if err == nil || !l.opt.CutDamage || sound == 0 || !errors.As(err, &damage) {
		return found, nil, nil, err
	}
	for i := range found {
		if c := &found[i]; c.newer() { // it lies behind the damage, but is not ours to remove
			return nil, nil, nil, fmt.Errorf("%s: %w", c.name, c.bad)
		}
	}
	return found[:sound], found[sound:], damage, nil
}

// cutDamage ends the log where the scan of its last segment ended, and removes the segments behind.
//
// The tail is cut first, then the segments are removed, oldest first, unlike in TruncateAfter: so only the last step makes a log that looks
// sound. Until then the tail is shorter than its successor says, or has none, and Open finds that and cuts at the same
// place. If the newest went first, the oldest might be left: in doubt only because of those behind it, it would fit the tail
// then; or, without a header, be taken for one that was never used.
func (l *Log) cutDamage(rec *Recovery, damage *DamageError, sc scanned, behind []candidate) error {
	if sc.bad != nil {
		damage.File, damage.Offset, damage.Err = l.tail.name, sc.end, sc.bad
		if errors.Is(sc.bad, errFlags) { // a newer kingbus wrote it
			damage.FirstLost = sc.last + 1
			return damage
		}
		if err := l.cutFile(sc.end); err != nil {
			return err
		}
	}
	for _, c := range behind {
		if err := l.removeFile(c.name); err != nil {
			return err
		}
	}
	l.report(rec, damage)
	return nil
}

// report tells of damage that was cut off.
func (l *Log) report(rec *Recovery, damage *DamageError) {
	damage.Cut, damage.FirstLost = true, l.last+1
	rec.Damage = damage
	l.opt.Logger.Error("log: cut off at damage; entries that had been safely on disk are lost",
		"file", damage.File, "offset", damage.Offset, "found", damage.Err, "first_lost", damage.FirstLost, "last_lost", damage.LastLost)
}
