package variable

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kingbus/internal/sql"
)

// Shown is a variable as programs and people are shown it.
type Shown struct {
	Name    string   `json:"name"`
	Aliases []string `json:"aliases,omitempty"`
	// Value is what holds, as SHOW VARIABLES has it; Own is what the settings of the node that is
	// asked say, which holds unless the cluster says something (Set).
	Value string `json:"value"`
	Own   string `json:"own"`
	Set   bool   `json:"set"`
	// Setting is the node's own setting, Unit what a number counts.
	Setting string `json:"setting"`
	Unit    string `json:"unit,omitempty"`
}

// ErrNoVariable is returned for a name that is not of Definitions.
var ErrNoVariable = errors.New("there is no such variable")

// ValueError is a value that a variable cannot have.
type ValueError struct{ err error }

func (e *ValueError) Error() string { return e.err.Error() }
func (e *ValueError) Unwrap() error { return e.err }

// Show returns all variables, in the order of Definitions.
func (s *Store) Show() []Shown {
	names, _ := s.Set()
	now := s.Values()
	var out []Shown
	for _, d := range Definitions() {
		out = append(out, Shown{d.Name, d.Aliases, d.text(now), d.text(s.own), slices.Contains(names, d.Name), d.Setting, d.Unit})
	}
	return out
}

func (d Definition) text(v Values) string {
	x := d.get(v)
	if d.Type == sql.VarBool {
		return map[bool]string{false: "OFF", true: "ON"}[x == sql.Bool(true)]
	}
	return x.Text()
}

// parse reads what text writes. A number out of its bounds is an error.
func (d Definition) parse(text string) (sql.Value, error) {
	var v sql.Value
	switch d.Type {
	case sql.VarBool:
		switch strings.ToUpper(text) {
		case "ON", "TRUE", "1":
			return sql.Bool(true), nil
		case "OFF", "FALSE", "0":
			return sql.Bool(false), nil
		}
		return v, &ValueError{fmt.Errorf("%s is ON or OFF, not %.64q", d.Name, text)}
	case sql.VarUint:
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || n < d.Min || n > d.Max {
			unit := d.Unit
			if unit != "" {
				unit = " " + unit
			}
			return v, &ValueError{fmt.Errorf("%s is from %d to %d%s, not %.64q", d.Name, d.Min, d.Max, unit, text)}
		}
		return sql.Uint(n), nil
	case sql.VarEnum:
		if !slices.Contains(d.Values, text) {
			return v, &ValueError{fmt.Errorf("%s is %s, not %.64q", d.Name, strings.Join(d.Values, " or "), text)}
		}
	}
	v = sql.String(text)
	if d.check != nil {
		if _, err := d.check(v); err != nil {
			return v, &ValueError{err}
		}
	}
	return v, nil
}

// Change sets variables to values in the form that Show has, and takes back what the cluster says
// of others; all or none. Its errors are ErrNoVariable, *ValueError, and those of stream.Decide.
func (s *Store) Change(ctx context.Context, set map[string]string, reset []string) error {
	return s.change(ctx, func(values map[string]json.RawMessage) error {
		for _, name := range reset {
			d, there := lookup(name)
			if !there {
				return fmt.Errorf("%.64q: %w", name, ErrNoVariable)
			}
			delete(values, d.Name)
		}
		for name, text := range set {
			d, there := lookup(name)
			if !there {
				return fmt.Errorf("%.64q: %w", name, ErrNoVariable)
			}
			v, err := d.parse(text)
			if err != nil {
				return err
			}
			b, err := json.Marshal(d.encode(v))
			if err != nil {
				return err
			}
			values[d.Name] = b
		}
		return nil
	})
}
