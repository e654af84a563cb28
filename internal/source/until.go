package source

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
	"kingbus/internal/hook"
	"kingbus/internal/stream"
)

// Until is where to stop following, as START REPLICA UNTIL has it: at the end of a transaction
// at which nothing that follows is wanted. The zero value is never.
type Until struct {
	// at: at the first boundary there or behind it, in the source's binlog.
	at stream.Coordinates
	// after: when all of these are there. before: in front of the first of them that comes, and at
	// once if one is there.
	after, before gtid.Set
}

// ErrUntilReached is what Run returns when everything is there up to Config.Until.
var ErrUntilReached = errors.New("the source was followed up to where START REPLICA UNTIL said")

// How the texts of ParseUntil begin.
const (
	untilAfter  = "after:"
	untilBefore = "before:"
)

// ParseUntil reads "", "after:SET", "before:SET" of GTIDs, or FILE:POSITION of the source.
func ParseUntil(text string) (Until, error) {
	var u Until
	var err error
	if set, ok := strings.CutPrefix(text, untilAfter); ok {
		u.after, err = gtid.ParseSet(set)
	} else if set, ok := strings.CutPrefix(text, untilBefore); ok {
		u.before, err = gtid.ParseSet(set)
	} else if i := strings.LastIndexByte(text, ':'); i > 0 {
		u.at.File = text[:i]
		if err = binlog.ValidName(u.at.File); err == nil {
			u.at.Pos, err = strconv.ParseUint(text[i+1:], 10, 64)
		}
	} else if text != "" {
		err = errors.New("it is after:SET, before:SET or FILE:POSITION")
	}
	if err == nil && text != "" && u.at.File == "" && u.after.IsEmpty() && u.before.IsEmpty() {
		err = errors.New("the set is empty")
	}
	if err != nil {
		return Until{}, fmt.Errorf("until %.64q: %w", text, err)
	}
	return u, nil
}

// String returns what ParseUntil reads.
func (u Until) String() string {
	switch {
	case u.at.File != "":
		return u.at.File + ":" + strconv.FormatUint(u.at.Pos, 10)
	case !u.after.IsEmpty():
		return untilAfter + u.after.String()
	case !u.before.IsEmpty():
		return untilBefore + u.before.String()
	}
	return ""
}

// Parts returns the position, or the set and whether what is to be reached is the state after
// it; zero values otherwise.
func (u Until) Parts() (at stream.Coordinates, set gtid.Set, after bool) {
	if !u.after.IsEmpty() {
		return u.at, u.after, true
	}
	return u.at, u.before, false
}

// untilWatch is an Until on its way.
type untilWatch struct {
	Until
	missing gtid.Set // of after
}

// watch begins where the stream ends; true: it has been reached already.
func (u Until) watch(at stream.Coordinates, executed gtid.Set) (untilWatch, bool) {
	w := untilWatch{Until: u, missing: u.after.Subtract(executed)}
	return w, w.behind(at) || !u.after.IsEmpty() && w.missing.IsEmpty() || !u.before.Intersect(executed).IsEmpty()
}

// behind tells whether a boundary is at or behind the position. Files of a source count up; one
// of another name is not compared.
func (w *untilWatch) behind(at stream.Coordinates) bool {
	if w.at.File == "" || at.File == "" {
		return false
	}
	if at.File == w.at.File {
		return at.Pos >= w.at.Pos
	}
	base, number, ok := splitName(w.at.File)
	otherBase, other, known := splitName(at.File)
	return ok && known && base == otherBase && other > number
}

// splitName takes the number off the name of a binlog file.
func splitName(name string) (base string, number uint64, ok bool) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return "", 0, false
	}
	number, err := strconv.ParseUint(name[i+1:], 10, 64)
	return name[:i], number, err == nil
}

// refuses tells whether a transaction that begins is not wanted any more.
func (w *untilWatch) refuses(ev []byte, h binlog.Header, sum binlog.Checksum) (bool, error) {
	if w.before.IsEmpty() || !h.Type.IsGTID() {
		return false, nil
	}
	g, err := binlog.ParseGTID(ev, sum)
	return err == nil && w.before.Contains(g.GTID), err
}

// reached tells whether it was, by an event that ends at a position.
func (w *untilWatch) reached(at stream.Coordinates, eff binlog.Effect) bool {
	if eff.Ended && !eff.GTID.IsZero() && w.missing.Contains(eff.GTID) {
		var one gtid.Set
		one.Add(eff.GTID)
		w.missing = w.missing.Subtract(one)
		if w.missing.IsEmpty() {
			return true
		}
	}
	return eff.Boundary && w.behind(at)
}

// lastAnswer is how long a source that waits for the last of what was wanted is waited for to
// be told that it is safe: it may depend on replicas.
const lastAnswer = 5 * time.Second

// finish is for a link on which all has come that was wanted: it waits until that is committed, as
// it may be lost with the leadership before, and until the source knows, whose commits may wait
// for it. It returns ErrUntilReached, or why it is not certain.
func (r *receiver) finish(ctx context.Context) error {
	for {
		at, changed := r.link.Applied()
		if at.File == r.file && at.Pos >= r.boundary {
			break
		}
		select {
		case <-changed:
		case <-r.link.Lost():
			return r.link.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if r.asked == (hook.Position{}) {
		return ErrUntilReached
	}
	late := r.s.cfg.After(lastAnswer)
	for {
		select {
		case at := <-r.s.answers:
			if at == r.asked {
				return ErrUntilReached
			}
		case <-late:
			return ErrUntilReached
		case <-r.link.Lost():
			return ErrUntilReached // it is committed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
