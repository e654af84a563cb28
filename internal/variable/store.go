package variable

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"kingbus/internal/sql"
	"kingbus/internal/stream"
)

// Key is that of the variables among the settings of the cluster: a JSON object with the
// value of each that was set, by its name.
const Key = "variables"

// Effective returns what holds on a node: its own values, and on top of them those of the
// cluster. The error is about values that this version does not understand; they are left out.
func Effective(own Values, settings stream.Settings) (Values, error) {
	set, err := decode(settings.Values[Key])
	errs := []error{err}
	for _, d := range Definitions() {
		raw, there := set[d.Name]
		if !there {
			continue
		}
		delete(set, d.Name)
		v, err := d.decode(raw)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		d.set(&own, v)
	}
	for name := range set {
		errs = append(errs, fmt.Errorf("there is no variable %.64q", name))
	}
	return own, errors.Join(errs...)
}

func decode(b json.RawMessage) (map[string]json.RawMessage, error) {
	set := map[string]json.RawMessage{}
	if len(b) == 0 {
		return set, nil
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, fmt.Errorf("the variables in the settings of the cluster: %w", err)
	}
	return set, nil
}

func (d Definition) decodeText(raw []byte) (sql.Value, error) {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return sql.Null, fmt.Errorf("%s: %w", d.Name, err)
	}
	v := sql.String(text)
	if d.check != nil {
		return d.check(v)
	}
	if !slices.Contains(d.Values, text) {
		return sql.Null, fmt.Errorf("%s is %.64q", d.Name, text)
	}
	return v, nil
}

// Store is the variables as this node has them. It is safe for concurrent use, and has
// nothing to close.
type Store struct {
	settings stream.Keeper
	own      Values

	mu       sync.Mutex
	revision uint64 // of which values are
	values   Values
}

// NewStore returns one; own is what the node's settings say.
func NewStore(settings stream.Keeper, own Values) *Store {
	return &Store{settings: settings, own: own, values: own}
}

// Values returns what holds at present.
func (s *Store) Values() Values {
	now := s.settings.Settings()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.revision != now.Revision {
		s.values, _ = Effective(s.own, now) // who puts it in effect tells of the error
		s.revision = now.Revision
	}
	return s.values
}

// Variables returns them for sessions.
func (s *Store) Variables() []sql.Variable {
	var out []sql.Variable
	for _, d := range Definitions() {
		out = append(out, d.variable(s.Values))
	}
	return out
}

// ErrNotSet is returned by Reset for a variable that the cluster says nothing of.
var ErrNotSet = errors.New("the cluster says nothing of that variable")

// Set is what the cluster says, by name, in the order of Definitions.
func (s *Store) Set() (names []string, values []sql.Value) {
	set, _ := decode(s.settings.Settings().Values[Key])
	for _, d := range Definitions() {
		if v, err := d.decode(set[d.Name]); set[d.Name] != nil && err == nil {
			names, values = append(names, d.Name), append(values, v)
		}
	}
	return names, values
}

// SetGlobal changes variables, all or none, whose values have been checked. One of Default
// is as each node's own settings say from then on. A name that is not of Definitions does
// nothing.
func (s *Store) SetGlobal(ctx context.Context, values []sql.GlobalValue) error {
	return s.change(ctx, func(set map[string]json.RawMessage) error {
		for _, v := range values {
			d, there := lookup(v.Name)
			switch {
			case !there:
			case v.Default:
				delete(set, d.Name)
			default:
				b, err := json.Marshal(d.encode(v.Value))
				if err != nil {
					return err
				}
				set[d.Name] = b
			}
		}
		return nil
	})
}

// Reset takes back what the cluster says of a variable, or, if name is empty, of all.
func (s *Store) Reset(ctx context.Context, name string) error {
	return s.change(ctx, func(set map[string]json.RawMessage) error {
		if name == "" {
			clear(set)
			return nil
		}
		d, _ := lookup(name)
		if _, there := set[d.Name]; !there {
			return ErrNotSet
		}
		delete(set, d.Name)
		return nil
	})
}

func lookup(name string) (Definition, bool) {
	list := Definitions()
	i := slices.IndexFunc(list, func(d Definition) bool {
		return strings.EqualFold(d.Name, name) || slices.ContainsFunc(d.Aliases, func(a string) bool { return strings.EqualFold(a, name) })
	})
	if i < 0 {
		return Definition{}, false
	}
	return list[i], true
}

func (s *Store) change(ctx context.Context, do func(set map[string]json.RawMessage) error) error {
	return stream.Decide(ctx, s.settings, func(now stream.Settings) (map[string]json.RawMessage, error) {
		set, err := decode(now.Values[Key])
		if err != nil {
			return nil, err
		}
		before, _ := json.Marshal(set) // what was decoded
		if err := do(set); err != nil {
			return nil, err
		}
		after, err := json.Marshal(set)
		switch {
		case err != nil:
			return nil, err
		case string(after) == string(before):
			return nil, nil
		case len(set) == 0:
			after = nil
		}
		return map[string]json.RawMessage{Key: after}, nil
	})
}
