package sql

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// VarType says what a system variable holds and how SET reads it.
type VarType uint8

// The types of variables.
const (
	VarBool   VarType = iota // Int 0 or 1; SHOW prints OFF and ON
	VarUint                  // Int or Uint, clamped to Min and Max
	VarDouble                // decimal with 6 digits after the point
	VarString                // String, or NULL if Nullable
	VarEnum                  // one of Values
	VarSet                   // some of Values, joined by commas
)

// VarScope says which values a variable has.
type VarScope uint8

// The scopes of variables.
const (
	GlobalOnly VarScope = iota
	SessionOnly
	GlobalAndSession
)

// Variable is a system variable.
//
// Its global value is what Get says, or Default. A session may set its own value if the scope allows and the variable
// is not ReadOnly; nothing else can be set: SET GLOBAL is refused for every variable, since a kingbus is configured
// elsewhere.
type Variable struct {
	Name     string
	Aliases  []string // other names of the same variable, e.g. those with master and slave
	Type     VarType
	Scope    VarScope
	ReadOnly bool // error 1238 on SET
	Fixed    bool // the session's value cannot be set, error 1621; the global one could be
	Nullable bool // SET may give NULL
	Default  Value
	Get      func() Value // the global value now; called from any session's goroutine, must not block; nil: Default
	Values   []string     // of VarEnum and VarSet
	Min, Max uint64       // of VarUint; Max 0 means 2^64-1

	// Check replaces the test that the type implies on SET. It gets a value that is not NULL (unless Nullable), and
	// returns what is to be stored.
	Check func(Value) (Value, error)

	session func(*Session) Value // a value that the session itself knows
}

func (v *Variable) global() Value {
	if v.Get != nil {
		return v.Get()
	}
	return v.Default
}

// display is a value as SHOW VARIABLES prints it.
func (v *Variable) display(value Value) Value {
	if v.Type == VarBool && !value.IsNull() {
		if isTrue, _ := value.truth(); isTrue {
			return String("ON")
		}
		return String("OFF")
	}
	return String(value.Text())
}

// column is the type of @@name.
func (v *Variable) column() Column {
	switch v.Type {
	case VarBool:
		return boolColumn(true)
	case VarUint:
		return Column{Type: TypeLongLong, Length: 21, Charset: charsetBinary, Unsigned: true, Nullable: true}
	case VarDouble:
		return Column{Type: TypeDouble, Length: 23, Decimals: 6, Charset: charsetBinary, Nullable: true}
	}
	return Column{Type: TypeVarString, Length: 87380, Decimals: 31, Charset: charsetUTF8MB4, Nullable: true}
}

// Variables is the server's table of system variables. It does not change once made, so any number of sessions can use it.
type Variables struct {
	byName map[string]*Variable // lower case, aliases included
	names  []string             // sorted
}

// NewVariables makes the table. A name that comes twice is an error; later lists cannot replace what earlier ones have.
func NewVariables(lists ...[]Variable) (*Variables, error) {
	t := &Variables{byName: map[string]*Variable{}}
	for _, list := range lists {
		for i := range list {
			v := list[i]
			for _, name := range append([]string{v.Name}, v.Aliases...) {
				name = strings.ToLower(name)
				if t.byName[name] != nil {
					return nil, fmt.Errorf("sql: variable %s is defined twice", name)
				}
				t.byName[name] = &v
				t.names = append(t.names, name)
			}
		}
	}
	slices.Sort(t.names)
	return t, nil
}

// Lookup finds a variable by any of its names, in any case.
func (t *Variables) Lookup(name string) (*Variable, bool) {
	v, ok := t.byName[strings.ToLower(name)]
	return v, ok
}

// settable tells whether SET with this scope is possible at all; the order of the tests is MySQL's.
func (v *Variable) settable(scope Scope, name string) error {
	switch {
	case v.ReadOnly:
		return Errorf(1238, "HY000", "Variable '%s' is a read only variable", name)
	case v.Scope == GlobalOnly && scope <= ScopeSession:
		return Errorf(1229, "HY000", "Variable '%s' is a GLOBAL variable and should be set with SET GLOBAL", name)
	case v.Scope == SessionOnly && scope > ScopeSession:
		return Errorf(1228, "HY000", "Variable '%s' is a SESSION variable and can't be used with SET GLOBAL", name)
	case scope > ScopeSession:
		return Errorf(CodeNotSupported, "42000", "kingbus does not support SET GLOBAL %s: global settings come from its configuration", name)
	case v.Fixed:
		return Errorf(1621, "HY000", "SESSION variable '%s' is read-only. Use SET GLOBAL to assign the value", name)
	}
	return nil
}

// check converts a value that SET gives to the variable's type.
func (v *Variable) check(name string, value Value) (Value, error) {
	if value.IsNull() {
		switch {
		case v.Nullable:
			return value, nil
		case v.Type == VarUint, v.Type == VarDouble:
			return Null, errWrongType(name)
		}
		return Null, errWrongValue(name, "NULL")
	}
	if v.Check != nil {
		return v.Check(value)
	}
	whole := value.kind == KindInt || value.kind == KindUint
	switch v.Type {
	case VarUint:
		if !whole {
			return Null, errWrongType(name)
		}
		return Uint(v.clamp(value)), nil
	case VarDouble:
		if !value.isNumber() {
			return Null, errWrongType(name)
		}
		return decimal(fmt.Sprintf("%.6f", value.Float64())), nil
	case VarString:
		if value.kind != KindString {
			return Null, errWrongType(name)
		}
		return value, nil
	}
	if !whole && value.kind != KindString {
		return Null, errWrongType(name)
	}
	if v.Type == VarSet {
		return v.checkSet(name, value)
	}
	return v.checkChoice(name, value)
}

func (v *Variable) clamp(value Value) uint64 {
	limit := v.Max
	if limit == 0 {
		limit = math.MaxUint64
	}
	if value.kind == KindInt && int64(value.n) < 0 {
		return v.Min
	}
	return min(max(value.n, v.Min), limit)
}

// checkChoice reads a VarBool or VarEnum, by name or by number.
func (v *Variable) checkChoice(name string, value Value) (Value, error) {
	if v.Type == VarBool {
		switch strings.ToUpper(value.Text()) {
		case "ON", "TRUE":
			return Bool(true), nil
		case "OFF", "FALSE":
			return Bool(false), nil
		}
		if value.kind != KindString && value.n <= 1 {
			return Bool(value.n == 1), nil
		}
		return Null, errWrongValue(name, value.Text())
	}
	for i, choice := range v.Values {
		if value.kind == KindString && strings.EqualFold(choice, value.s) || value.kind != KindString && value.n == uint64(i) {
			return String(choice), nil
		}
	}
	return Null, errWrongValue(name, value.Text())
}

// checkSet reads a VarSet: names joined by commas, or their bits.
func (v *Variable) checkSet(name string, value Value) (Value, error) {
	chosen := make([]bool, len(v.Values))
	if value.kind != KindString {
		if value.kind == KindInt && int64(value.n) < 0 || len(chosen) < 64 && value.n>>len(chosen) != 0 {
			return Null, errWrongValue(name, value.Text())
		}
		for i := range chosen {
			chosen[i] = value.n>>i&1 == 1
		}
	} else {
		for part := range strings.SplitSeq(value.s, ",") {
			i := slices.IndexFunc(v.Values, func(s string) bool { return strings.EqualFold(s, part) })
			if part != "" && i < 0 {
				return Null, errWrongValue(name, part)
			} else if part != "" {
				chosen[i] = true
			}
		}
	}
	var names []string
	for i, s := range v.Values {
		if chosen[i] {
			names = append(names, s)
		}
	}
	return String(strings.Join(names, ",")), nil
}
