package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
	"kingbus/internal/stream"
)

// model is a Stream that keeps files in memory and checks that runs obey the
// stream's rules.
type model struct {
	t  testing.TB
	mu sync.Mutex

	files    []fakeFile // committed, up to the last boundary
	open     []byte     // of the open transaction
	tracker  binlog.Tracker
	rest     int // bytes to come of an event that was cut
	held     binlog.Effect
	executed gtid.Set
	source   stream.Source
	identity stream.Identity
	link     *modelLink
	runs     []int         // their sizes
	changed  chan struct{} // closed and made anew at every change
	lead     context.Context
	// refuse, if set, is asked before every append.
	refuse func(l *modelLink) error
}

type modelLink struct {
	m      *model
	resume stream.Resume
	once   sync.Once
	lost   chan struct{}
	err    error
}

func newModel(t testing.TB) *model {
	return &model{t: t, changed: make(chan struct{}), lead: context.Background(), identity: stream.Identity{ServerID: 4711, ServerUUID: "bbbbbbbb-1111-2222-3333-444444444444"}}
}

// Lead waits until lead is set and not done.
func (m *model) Lead(ctx context.Context) (context.Context, error) {
	for {
		m.mu.Lock()
		lead, changed := m.lead, m.changed
		m.mu.Unlock()
		if lead.Err() == nil {
			return lead, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (m *model) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// setLead makes this node lead for as long as ctx lasts.
func (m *model) setLead(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lead = ctx
	m.notify()
}

// awaitFiles waits until the model has just these files.
func (m *model) awaitFiles(p *Puller, want []fakeFile) {
	m.t.Helper()
	deadline := time.After(patience)
	for {
		m.mu.Lock()
		same := slices.EqualFunc(m.files, want, func(a, b fakeFile) bool { return a.name == b.name && bytes.Equal(a.data, b.data) })
		changed := m.changed
		m.mu.Unlock()
		if same {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			m.mu.Lock()
			for i, f := range m.files {
				m.t.Logf("have %s with %d bytes", f.name, len(f.data))
				if i < len(want) {
					m.t.Logf("want %s with %d bytes", want[i].name, len(want[i].data))
				}
			}
			m.mu.Unlock()
			m.t.Fatalf("waited in vain for %d files; status %+v", len(want), p.Status())
		}
	}
}

func (m *model) Status() stream.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := stream.Status{Identity: m.identity, Source: m.source, Executed: m.executed.Clone(), SourceEnd: m.end()}
	for _, f := range m.files {
		st.Files = append(st.Files, stream.File{Name: f.name, Size: uint64(len(f.data))})
	}
	return st
}

func (m *model) end() stream.Coordinates {
	if len(m.files) == 0 {
		return stream.Coordinates{}
	}
	f := m.files[len(m.files)-1]
	return stream.Coordinates{File: f.name, Pos: uint64(len(f.data))}
}

func (m *model) StartLink(ctx context.Context, src stream.Source) (Link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.link != nil {
		m.link.lose(stream.ErrLinkLost)
	}
	m.abort()
	if m.source.UUID == "" {
		m.executed.AddSet(src.Purged)
	}
	m.source = src
	l := &modelLink{m: m, lost: make(chan struct{}), resume: stream.Resume{Source: m.end(), Executed: m.executed.Clone()}}
	if end := m.end(); end.Pos > binlog.MagicSize {
		data := m.files[len(m.files)-1].data[binlog.MagicSize:]
		h, _ := binlog.ParseHeader(data)
		l.resume.FormatDescription = data[:h.Length:h.Length]
	}
	m.link = l
	return l, nil
}

func (m *model) abort() {
	m.open, m.rest, m.held = nil, 0, binlog.Effect{}
	m.tracker.Abort()
}

func (l *modelLink) lose(err error) {
	l.once.Do(func() { l.err = err; close(l.lost) })
}

func (l *modelLink) Resume() (stream.Resume, error) { return l.resume, nil }
func (l *modelLink) Buffer() []byte                 { return make([]byte, stream.RunHeader+stream.MaxRun) }
func (l *modelLink) Epoch() uint64                  { return 1 }

func (l *modelLink) Applied() (stream.Coordinates, <-chan struct{}) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.end(), l.m.changed
}

func (l *modelLink) Lost() <-chan struct{} { return l.lost }
func (l *modelLink) Err() error {
	select {
	case <-l.lost:
		return l.err
	default:
		return nil
	}
}

func (l *modelLink) Rotate(ctx context.Context, name string) error {
	m := l.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := l.Err(); err != nil {
		return err
	}
	for _, f := range m.files {
		if f.name == name {
			m.t.Errorf("rotate to %s, which is there", name)
		}
	}
	m.abort()
	m.tracker.NewFile()
	m.files = append(m.files, fakeFile{name, []byte(binlog.Magic)})
	m.notify()
	return nil
}

func (l *modelLink) Append(ctx context.Context, run []byte) error {
	m := l.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := l.Err(); err != nil {
		return err
	}
	if m.refuse != nil {
		if err := m.refuse(l); err != nil {
			if errors.Is(err, stream.ErrLinkLost) {
				l.lose(err)
			}
			return err
		}
	}
	if len(run) <= stream.RunHeader {
		m.t.Errorf("an empty run")
		return nil
	}
	b := run[stream.RunHeader:]
	m.runs = append(m.runs, len(b))
	m.open = append(m.open, b...)
	ended, err := m.walk(b)
	if err != nil {
		m.t.Errorf("a run that the stream would refuse: %v", err)
		l.lose(stream.ErrLinkLost)
		return stream.ErrLinkLost
	}
	if ended {
		f := &m.files[len(m.files)-1]
		f.data = append(f.data, m.open...)
		m.open = nil
		m.notify()
	}
	return nil
}

// walk does what the stream does with a run.
func (m *model) walk(b []byte) (ended bool, err error) {
	inner := false
	for len(b) > 0 {
		var eff binlog.Effect
		if m.rest > 0 {
			n := min(m.rest, len(b))
			m.rest, b = m.rest-n, b[n:]
			if m.rest > 0 {
				return false, nil
			}
			eff = m.held
		} else {
			h, err := binlog.ParseHeader(b)
			if err != nil {
				return false, err
			}
			head := b[:min(int(h.Length), len(b))]
			if len(head) < int(h.Length) && (len(head) < binlog.MaxWhole || inOnePiece(h.Type)) {
				return false, fmt.Errorf("a %s event of %d bytes is cut after %d", h.Type, h.Length, len(head))
			}
			if eff, err = m.tracker.Next(head); err != nil {
				return false, err
			}
			if h.Type == binlog.TypePreviousGTIDs {
				sum, _ := m.tracker.Checksum()
				set, err := binlog.ParsePreviousGTIDs(head, sum)
				if err != nil {
					return false, err
				}
				m.executed.AddSet(set)
			}
			b = b[len(head):]
			if m.rest = int(h.Length) - len(head); m.rest > 0 {
				m.held = eff
				if inner {
					return false, errors.New("a run with a boundary inside ends inside an event")
				}
				return false, nil
			}
		}
		if eff.Ended && !eff.GTID.IsZero() && !m.executed.Add(eff.GTID) {
			return false, fmt.Errorf("%v comes twice", eff.GTID)
		}
		ended = eff.Boundary
		if eff.Boundary && len(b) > 0 {
			inner = true
		}
	}
	if inner && !ended {
		return false, errors.New("a run ends inside a transaction that began inside it")
	}
	return ended, nil
}
