package stream

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"kingbus/internal/cluster"
)

// Settings are what holds for the whole cluster, kept in the log: values by key, which mean
// nothing to the stream. They are not to be changed in place.
type Settings struct {
	// Revision is the index of the entry that changed them last; 0: never.
	Revision uint64
	Values   map[string]json.RawMessage
}

// What settings may hold, in bytes.
const (
	maxSettingsKey = 512
	// maxSettings bounds keys and values together: checkpoints hold them all.
	maxSettings = 4 << 20
)

var (
	// ErrSettingsChanged is returned for a change of settings that were changed meanwhile.
	ErrSettingsChanged = errors.New("somebody else has changed the settings of the cluster at the same time: look at them, and try again")
	// ErrUncertain is returned if nobody knows whether a change was made: it was on its way when
	// the leader went away.
	ErrUncertain = errors.New("whether it was done is not known: look, and repeat it if it was not")
	// ErrOldFormat is returned while a node of the cluster does not know settings.
	ErrOldFormat = errors.New("a node of the cluster runs an older kingbus that knows no settings of the cluster, or is down: upgrade it, or remove it")
)

// settingsFormat is the cluster's format from which on it has settings.
const settingsFormat = 2

// settingsCommand changes settings: null removes one.
type settingsCommand struct {
	// Revision is what is changed; another one than the present changes nothing, unless
	// Change was the last to do so.
	Revision uint64                     `json:"revision"`
	Change   uint64                     `json:"change,string"` // a random number
	Values   map[string]json.RawMessage `json:"values"`
}

func (s *state) applySettings(index uint64, c settingsCommand, e effect) effect {
	if c.Change != 0 && c.Change == s.change {
		e.changed = s.settings.Revision // it was asked for once more: the answer had got lost
		return e
	}
	if c.Revision != s.settings.Revision {
		e.err = ErrSettingsChanged
		return e
	}
	values := maps.Clone(s.settings.Values)
	if values == nil {
		values = map[string]json.RawMessage{}
	}
	for key, value := range c.Values {
		if len(value) == 0 || string(value) == "null" {
			delete(values, key)
			continue
		}
		values[key] = value
	}
	if err := checkSettings(values); err != nil {
		e.err = err
		return e
	}
	s.settings, s.change = Settings{index, values}, c.Change
	e.changed = index
	return e
}

func checkSettings(values map[string]json.RawMessage) error {
	size := 0
	for key, value := range values {
		if key == "" || len(key) > maxSettingsKey {
			return fmt.Errorf("the name of a setting has %d bytes; 1 to %d are possible", len(key), maxSettingsKey)
		}
		size += len(key) + len(value)
	}
	if size > maxSettings {
		return fmt.Errorf("the settings of the cluster would have %d bytes, more than %d", size, maxSettings)
	}
	return nil
}

// Settings returns the cluster's settings, as far as this node has applied.
func (s *Stream) Settings() Settings {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.settings
}

// AwaitSettings returns the settings once they have another revision than after. Its error
// is that of ctx, or ErrClosed.
func (s *Stream) AwaitSettings(ctx context.Context, after uint64) (Settings, error) {
	for {
		s.mu.Lock()
		if s.settled == nil {
			s.settled = make(chan struct{})
		}
		now, changed, closed := s.state.settings, s.settled, s.closed
		s.mu.Unlock()
		switch {
		case now.Revision != after:
			return now, nil
		case closed:
			return now, ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return now, context.Cause(ctx)
		}
	}
}

// settleLocked wakes who waits for other settings.
func (s *Stream) settleLocked() {
	if s.settled != nil {
		close(s.settled)
		s.settled = nil
	}
}

// ChangeSettings changes settings of a revision, all or none: null removes one. Any node can
// be asked; when it returns nil, this node has applied the change. ErrSettingsChanged: they
// have another revision, and nothing was changed.
func (s *Stream) ChangeSettings(ctx context.Context, revision uint64, values map[string]json.RawMessage) error {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	done, err := s.askLeader(ctx, asked{Settings: &settingsCommand{Revision: revision, Change: binary.LittleEndian.Uint64(b[:]), Values: values}})
	if err != nil {
		return fmt.Errorf("change the settings of the cluster: %w", err)
	}
	for have := revision; have < done; {
		now, err := s.AwaitSettings(ctx, have)
		if err != nil {
			return fmt.Errorf("the settings of the cluster are changed; wait until this node has them: %w", err)
		}
		have = now.Revision
	}
	return nil
}

// FlushSource has the source begin another binlog file, which the stream follows then. Any node
// can be asked.
func (s *Stream) FlushSource(ctx context.Context) error {
	_, err := s.askLeader(ctx, asked{Flush: true})
	return err
}

// Keeper is who has the settings of the cluster; *Stream is one.
type Keeper interface {
	Settings() Settings
	AwaitSettings(ctx context.Context, after uint64) (Settings, error)
	ChangeSettings(ctx context.Context, revision uint64, values map[string]json.RawMessage) error
}

// Decide changes settings as decide says when it has seen them. If somebody else changes them
// at the same time, it is asked once more. Its error is returned as it is; no values change
// nothing.
func Decide(ctx context.Context, keeper Keeper, decide func(Settings) (map[string]json.RawMessage, error)) error {
	for {
		now := keeper.Settings()
		values, err := decide(now)
		if err != nil || len(values) == 0 {
			return err
		}
		if err = keeper.ChangeSettings(ctx, now.Revision, values); !errors.Is(err, ErrSettingsChanged) {
			return err
		}
		// This node is behind, or somebody else was faster.
		if _, await := keeper.AwaitSettings(ctx, now.Revision); await != nil {
			return errors.Join(err, await)
		}
	}
}

// asked is what the leader is asked for by the streams of other nodes, or by its own.
type asked struct {
	Settings *settingsCommand `json:"settings,omitempty"`
	Purge    *purgeCommand    `json:"purge,omitempty"`
	Flush    bool             `json:"flush,omitempty"`
}

// answered is what it says.
type answered struct {
	Index   uint64 `json:"index"` // of the entry that did it
	Refused string `json:"refused,omitempty"`
	Code    string `json:"code,omitempty"` // of a refusal that callers tell apart
}

// refusals are errors that cross the wire, by their codes.
var refusals = map[string]error{"settings-changed": ErrSettingsChanged, "old-format": ErrOldFormat, "no-file": ErrNoFile}

// refused is a refusal of the leader.
type refused struct {
	text string
	is   error
}

func (e *refused) Error() string { return e.text }
func (e *refused) Unwrap() error { return e.is }

// askLeader has the leader do something, and returns the index of the entry that did it.
func (s *Stream) askLeader(ctx context.Context, q asked) (uint64, error) {
	b, err := json.Marshal(q)
	if err != nil {
		return 0, err
	}
	if b, err = s.node.AskLeader(ctx, b); err != nil {
		if errors.Is(err, cluster.ErrNoLeader) && !errors.Is(err, cluster.ErrDeposed) { // nobody was asked
			return 0, err
		}
		return 0, errors.Join(ErrUncertain, err)
	}
	var a answered
	if err := json.Unmarshal(b, &a); err != nil {
		return 0, fmt.Errorf("the leader's answer: %w", err)
	}
	if a.Refused != "" {
		return 0, &refused{a.Refused, refusals[a.Code]}
	}
	return a.Index, nil
}

// answer does what askLeader asks for. Its error is that this node does not lead (any more);
// what is refused is in the answer.
func (s *Stream) answer(ctx context.Context, b json.RawMessage) (json.RawMessage, error) {
	var q asked
	if err := json.Unmarshal(b, &q); err != nil {
		return nil, fmt.Errorf("question: %w", err)
	}
	var a answered
	var err error
	switch {
	case q.Settings != nil && s.node.Status().Format < settingsFormat:
		err = ErrOldFormat
	case q.Settings != nil:
		a.Index, err = s.command(ctx, kindSettings, q.Settings)
	case q.Purge != nil:
		a.Index, err = s.command(ctx, kindPurge, q.Purge)
	case q.Flush && s.cfg.Flush != nil:
		err = s.cfg.Flush(ctx)
	default:
		err = errors.New("the node that leads does not know how to do that: it runs an older kingbus")
	}
	switch {
	case err == nil:
	case errors.Is(err, cluster.ErrDropped), errors.Is(err, cluster.ErrDeposed), errors.Is(err, cluster.ErrClosed), ctx.Err() != nil, s.node.Err() != nil:
		return nil, err
	default:
		a.Refused = err.Error()
		for code, is := range refusals {
			if errors.Is(err, is) {
				a.Code = code
			}
		}
	}
	return json.Marshal(a)
}
