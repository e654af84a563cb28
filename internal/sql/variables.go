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
	VarDouble                // Double
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
// is not ReadOnly. SET GLOBAL is for those that are Dynamic, and Env carries it out.
type Variable struct {
	Name     string
	Aliases  []string // other names of the same variable, e.g. those with master and slave
	Type     VarType
	Scope    VarScope
	ReadOnly bool // error 1238 on SET
	Dynamic  bool // Env.SetGlobal sets the global value
	Fixed    bool // the session's value cannot be set, error 1621; the global one could be
	Nullable bool // SET may give NULL
	Default  Value
	Get      func() Value // the global value now; called from any session's goroutine, must not block; nil: Default
	Values   []string     // of VarEnum and VarSet
	Min, Max uint64       // of VarUint; Max 0 means 2^64-1

	// Check replaces the test that the type implies on SET. It gets a value that is not NULL, and returns what is to be
	// stored.
	Check func(Value) (Value, error)

	session func(*Session) Value // a value that the session itself knows
}

// display is a value as SHOW VARIABLES prints it.
func (v *Variable) display(value Value) Value {
	if v.Type == VarBool && !value.IsNull() {
		if value.isTrue() {
			return String("ON")
		}
		return String("OFF")
	}
	return String(value.Text())
}

// column is the type of @@name.
func (v *Variable) column() Column {
	c := Column{Type: TypeLongLong, Length: 21, Charset: charsetBinary, Nullable: true}
	switch v.Type {
	case VarBool:
		c.Length = 1
	case VarUint:
		c.Unsigned = true
	case VarDouble:
		c.Type, c.Length, c.Decimals = TypeDouble, 23, 31
	default:
		c.Type, c.Length, c.Decimals, c.Charset = TypeVarString, 87380, 31, charsetUTF8MB4
	}
	return c
}

// Variables is the server's table of system variables. It does not change once made, so any number of sessions can use it.
type Variables struct {
	byName map[string]*Variable // lower case, aliases included
	names  []string             // sorted
}

// NewVariables makes the table. A name that comes twice is an error; later lists cannot replace what earlier ones have.
func NewVariables(lists ...[]Variable) (*Variables, error) {
	t := &Variables{byName: map[string]*Variable{}}
	for _, v := range slices.Concat(lists...) {
		for _, name := range append([]string{v.Name}, v.Aliases...) {
			name = strings.ToLower(name)
			if t.byName[name] != nil {
				return nil, fmt.Errorf("sql: variable %s is defined twice", name)
			}
			t.byName[name] = &v
			t.names = append(t.names, name)
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
func (v *Variable) settable(scope Scope) error {
	switch {
	case v.ReadOnly:
		return Errorf(1238, "HY000", "Variable '%s' is a read only variable", v.Name)
	case v.Scope == GlobalOnly && scope <= ScopeSession:
		return Errorf(1229, "HY000", "Variable '%s' is a GLOBAL variable and should be set with SET GLOBAL", v.Name)
	case v.Scope == SessionOnly && scope > ScopeSession:
		return Errorf(1228, "HY000", "Variable '%s' is a SESSION variable and can't be used with SET GLOBAL", v.Name)
	case scope == ScopePersistOnly:
		return Errorf(CodeNotSupported, "42000", "kingbus does not support SET PERSIST_ONLY: SET PERSIST changes the variable on all nodes, at once and for good")
	case scope > ScopeSession && !v.Dynamic:
		return Errorf(CodeNotSupported, "42000", "kingbus does not support SET GLOBAL %s: it is the source's, or comes from the settings of each node (kingbus config docs)", v.Name)
	case scope > ScopeSession:
		return nil
	case v.Fixed:
		return Errorf(1621, "HY000", "SESSION variable '%s' is read-only. Use SET GLOBAL to assign the value", v.Name)
	}
	return nil
}

// check converts a value that SET gives to the variable's type.
func (v *Variable) check(value Value) (Value, error) {
	text, wrongType := value.kind == KindString, errWrongType(v.Name)
	switch {
	case value.IsNull() && v.Nullable:
		return value, nil
	case value.IsNull() && v.Type != VarUint && v.Type != VarDouble:
		return Null, errWrongValue(v.Name, "NULL")
	case v.Check != nil:
		return v.Check(value)
	}
	switch v.Type {
	case VarUint:
		if !value.isWhole() {
			return Null, wrongType
		}
		if value.isNegative() {
			return Uint(v.Min), nil
		}
		most := v.Max
		if most == 0 {
			most = math.MaxUint64
		}
		return Uint(min(max(value.n, v.Min), most)), nil
	case VarDouble:
		if !value.isWhole() && value.kind != KindDouble {
			return Null, wrongType
		}
		return Double(value.Float64()), nil
	case VarString:
		if !text {
			return Null, wrongType
		}
		if len(value.s) > MaxVariable {
			return Null, errWrongValue(v.Name, clip(value.s, 64))
		}
		return value, nil
	}
	if !text && !value.isWhole() {
		return Null, wrongType
	}
	if v.Type == VarSet {
		return v.checkSet(value)
	}
	return v.checkChoice(value)
}

// checkChoice reads a VarBool or VarEnum, by name or by number.
func (v *Variable) checkChoice(value Value) (Value, error) {
	choices := v.Values
	if v.Type == VarBool {
		choices = []string{"OFF", "ON", "FALSE", "TRUE"}
	}
	for i, choice := range choices {
		if value.kind == KindString && !strings.EqualFold(choice, value.s) || value.kind != KindString && value.n != uint64(i) {
			continue
		}
		switch {
		case v.Type == VarEnum:
			return String(choice), nil
		case value.kind == KindString || i < 2:
			return Bool(i%2 == 1), nil
		}
	}
	return Null, errWrongValue(v.Name, clip(value.Text(), 64))
}

// checkSet reads a VarSet: names joined by commas, or 0 for none of them.
func (v *Variable) checkSet(value Value) (Value, error) {
	if value == Int(0) {
		return String(""), nil
	}
	given := strings.Split(value.Text(), ",")
	has := func(list []string, name string) bool {
		return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, name) })
	}
	for _, name := range given {
		if name != "" && !has(v.Values, name) {
			return Null, errWrongValue(v.Name, clip(name, 64))
		}
	}
	var names []string
	for _, name := range v.Values {
		if has(given, name) {
			names = append(names, name)
		}
	}
	return String(strings.Join(names, ",")), nil
}
