package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/cluster"
	"kingbus/internal/gtid"
	"kingbus/internal/hook"
)

const (
	// MaxRun is the size in bytes at which a run is cut: at its last boundary,
	// inside a transaction at an event's end.
	MaxRun = 512 << 10
	// RunHeader is how many bytes a run leaves free at its beginning.
	RunHeader = eventsHeaderSize
)

// Resume says where a link goes on.
type Resume struct {
	// Source are the source's coordinates of the last boundary; File is "" if
	// nothing was ever stored.
	Source   Coordinates
	Executed gtid.Set
	// FormatDescription is the stored FDE of the current file; nil if there is
	// none yet.
	FormatDescription []byte
}

// Link is the only way into the stream, for as long as its epoch lasts. It
// belongs to one goroutine, but for Lost, Err and Applied.
type Link struct {
	s      *Stream
	epoch  uint64
	unlead func() bool // stops watching the leadership
	resume Resume

	name       string // of the current file
	sourceName string
	file       uint32 // its number, 0 before the first one
	pos        uint64
	sourcePos  uint64
	checked    time.Time // when the disk's free space was last looked at
	unchecked  int       // bytes since then

	lostOnce sync.Once
	lost     chan struct{}
	err      error
}

// StartLink opens an epoch: from now on only this link's runs count. It waits
// until that is applied; a transaction that was open is dropped by it.
func (s *Stream) StartLink(ctx context.Context, src Source) (*Link, error) {
	lead := s.node.Leading()
	if lead == nil {
		return nil, fmt.Errorf("start link: %w", cluster.ErrDropped)
	}
	epoch, err := s.command(ctx, kindLink, linkCommand{Source: src})
	if err != nil {
		return nil, fmt.Errorf("start link: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.epoch != epoch {
		return nil, fmt.Errorf("start link: %w: another link has started", ErrLinkLost)
	}
	l := &Link{s: s, epoch: epoch, lost: make(chan struct{}), pos: s.state.end, sourcePos: s.state.sourceEnd}
	l.resume.Executed = s.state.executed.Clone()
	_, l.resume.Source = s.state.coordinates()
	if f := s.state.current(); f != nil {
		l.name, l.sourceName, l.file = f.name, f.sourceName, f.number
	}
	watched := make(chan struct{})
	l.unlead = context.AfterFunc(lead, func() {
		<-watched // lose needs unlead
		l.lose(fmt.Errorf("%w: %w", ErrLinkLost, context.Cause(lead)))
	})
	close(watched)
	s.link = l
	return l, nil
}

// Resume says where the source's events have to go on.
func (l *Link) Resume() (Resume, error) {
	r := l.resume
	if l.file != 0 && l.pos > binlog.MagicSize {
		format, _, err := l.s.head(l.file)
		if err != nil {
			return Resume{}, fmt.Errorf("read the format description of %s: %w", l.name, err)
		}
		r.FormatDescription = format
	}
	return r, nil
}

func (l *Link) lose(err error) {
	l.lostOnce.Do(func() {
		l.err = err
		close(l.lost)
	})
	l.unlead() // else the leadership would remember every link that it has seen
}

// Lost is closed when the link was lost.
func (l *Link) Lost() <-chan struct{} { return l.lost }

// Err returns why the link was lost, nil while it is not.
func (l *Link) Err() error {
	select {
	case <-l.lost:
		return l.err
	default:
		return nil
	}
}

// Rotate tells that the source goes on in file name at position 4. It ends the
// current file; a transaction that is open there is dropped. It waits until that
// is applied, which is rare enough.
func (l *Link) Rotate(ctx context.Context, name string) error {
	if err := l.Err(); err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	_, err := l.s.command(ctx, kindRotate, rotateCommand{Epoch: l.epoch, File: l.file, Pos: l.pos, Name: name, SourceName: name})
	switch {
	case errors.Is(err, errVoid), errors.Is(err, cluster.ErrDropped), errors.Is(err, cluster.ErrDeposed):
		l.lose(fmt.Errorf("%w: rotate to %s: %w", ErrLinkLost, name, err))
		return l.err
	case err != nil:
		return fmt.Errorf("rotate to %s: %w", name, err)
	}
	l.name, l.sourceName, l.file, l.pos, l.sourcePos = name, name, l.file+1, binlog.MagicSize, binlog.MagicSize
	return nil
}

// Buffer returns a buffer for a run, with anything in it, that holds one of
// MaxRun and an event of 16 KiB more. A run in a slice of its own is as good.
func (l *Link) Buffer() []byte { return l.s.spare.get() }

// Append proposes a run: RunHeader free bytes, then raw events of the current
// file that begin where the last run ended. The stream owns the slice from now
// on. A run ends at a boundary, or lies wholly inside one transaction; an event
// larger than binlog.MaxWhole may be cut, after at least that many bytes.
//
// Append returns when the leader's log has taken the run, which is not yet a
// commit, and blocks while too many bytes are in flight.
func (l *Link) Append(ctx context.Context, run []byte) error {
	if err := l.Err(); err != nil {
		return err
	}
	if l.file == 0 || len(run) <= RunHeader {
		return fmt.Errorf("append %d bytes to file %q: nothing to append, or no file", len(run)-RunHeader, l.name)
	}
	if err := l.checkSpace(len(run)); err != nil {
		return err
	}
	eventsHeader{file: l.file, epoch: l.epoch, pos: l.pos, sourcePos: l.sourcePos}.put(run)
	err := l.s.node.Propose(ctx, run)
	switch {
	case errors.Is(err, cluster.ErrDropped):
		l.lose(fmt.Errorf("%w: %w", ErrLinkLost, err))
		return l.err
	case err != nil:
		return fmt.Errorf("append at %s:%d: %w", l.name, l.pos, err)
	}
	n := uint64(len(run) - RunHeader)
	l.pos += n
	l.sourcePos += n
	for _, o := range l.s.cfg.Hooks.Storage {
		o.AfterFlush(hook.Position{File: l.sourceName, Pos: l.sourcePos})
	}
	return nil
}

// checkSpace refuses events when the disk's reserve would be touched. It looks
// once a second and every 8 MiB; what is in flight meanwhile is smaller than the
// reserve.
func (l *Link) checkSpace(n int) error {
	l.unchecked += n
	now := l.s.cfg.Now()
	if now.Sub(l.checked) < time.Second && l.unchecked < 8<<20 {
		return nil
	}
	space, err := l.s.cfg.FS.Space(l.s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("look at the free space of %s: %w", l.s.cfg.Dir, err)
	}
	if space.Free < l.s.cfg.DiskReserve {
		return fmt.Errorf("%s has %d bytes free, the reserve is %d: %w", l.s.cfg.Dir, space.Free, l.s.cfg.DiskReserve, ErrDiskFull)
	}
	l.checked, l.unchecked = now, 0
	return nil
}

// Epoch is what the entries that the link appends are known by.
func (l *Link) Epoch() uint64 { return l.epoch }

// Applied returns the source's coordinates of the last boundary that is
// committed and applied, and a channel that is closed when there is a newer one.
func (l *Link) Applied() (Coordinates, <-chan struct{}) {
	changed := l.s.Changed()
	l.s.mu.RLock()
	defer l.s.mu.RUnlock()
	_, source := l.s.state.coordinates()
	return source, changed
}
