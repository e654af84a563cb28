package sql

import (
	"fmt"
	"strings"
)

// assignment is a checked item of SET with its value, ready to be stored.
type assignment struct {
	user     string // user variable, or
	variable *Variable
	value    Value
	reset    bool // DEFAULT: forget the session's value
}

// Set answers SET. As in MySQL all values are taken before anything is assigned (SET @a = 1, @b = @a gives @b the old
// value of @a), and an error in one item leaves all of them undone.
func (s *Session) Set(set *Set) error {
	ev := s.evaluation()
	var todo []assignment
	for _, item := range set.Items {
		done, err := s.checkItem(ev, item)
		if err != nil {
			return err
		}
		todo = append(todo, done...)
	}
	undo := s.userSnapshot(todo)
	for _, a := range todo {
		if a.variable == nil {
			if err := s.SetUserVariable(a.user, a.value); err != nil {
				undo()
				return err
			}
		}
	}
	for _, a := range todo {
		if a.variable != nil {
			s.store(a)
		}
	}
	s.rowCount = 0
	return nil
}

// userSnapshot returns a function that brings back the user variables that the assignments touch.
func (s *Session) userSnapshot(todo []assignment) func() {
	size, old := s.userBytes, map[string]*Value{}
	for _, a := range todo {
		if a.variable == nil {
			name := strings.ToLower(a.user)
			old[name] = nil
			if value, ok := s.user[name]; ok {
				old[name] = &value
			}
		}
	}
	return func() {
		for name, value := range old {
			delete(s.user, name)
			if value != nil {
				s.user[name] = *value
			}
		}
		s.userBytes = size
	}
}

func (s *Session) checkItem(ev *evaluation, item SetItem) ([]assignment, error) {
	switch item.Kind {
	case SetUser:
		value, err := ev.value(item.Value)
		return []assignment{{user: item.Name, value: value}}, err
	case SetNames, SetCharacterSet:
		return s.checkNames(item)
	}
	v, ok := s.variables.Lookup(item.Name)
	if !ok {
		return nil, errUnknownVariable(clip(item.Name, 256))
	}
	name := v.Name
	if err := v.settable(item.Scope, name); err != nil {
		return nil, err
	}
	if item.Value == nil {
		return []assignment{{variable: v, reset: true}}, nil
	}
	value, err := ev.setValue(item.Value)
	if err != nil {
		return nil, err
	}
	value, err = v.check(name, value)
	return []assignment{{variable: v, value: value}}, err
}

// setValue evaluates the right-hand side for a system variable; a bare word is text.
func (ev *evaluation) setValue(e Expr) (Value, error) {
	if word, ok := e.(*ColumnRef); ok && word.Table == "" {
		return String(word.Name), nil
	}
	return ev.value(e)
}

// checkNames turns SET NAMES and SET CHARACTER SET into assignments.
func (s *Session) checkNames(item SetItem) ([]assignment, error) {
	cs, ok := charset{}, true
	if item.Name == "" {
		item.Name = "utf8mb4"
	}
	if cs, ok = charsetOf(item.Name); !ok {
		return nil, Errorf(1115, "42000", "Unknown character set: '%s'", clip(item.Name, 64))
	}
	if !clientCharset(cs) {
		return nil, errWrongValue("character_set_client", cs.name)
	}
	collation := cs.collation
	if item.Collation != "" {
		of, _, ok := collationOf(item.Collation)
		if !ok {
			return nil, Errorf(1273, "HY000", "Unknown collation: '%s'", clip(item.Collation, 64))
		}
		if of.name != cs.name {
			return nil, Errorf(1253, "42000", "COLLATION '%s' is not valid for CHARACTER SET '%s'", item.Collation, cs.name)
		}
		collation = item.Collation
	}
	connection := cs.name
	if item.Kind == SetCharacterSet { // the connection's own goes to that of the database
		connection, collation = "utf8mb4", "utf8mb4_0900_ai_ci"
	}
	var out []assignment
	for _, pair := range [...][2]string{{"character_set_client", cs.name}, {"character_set_results", cs.name},
		{"character_set_connection", connection}, {"collation_connection", collation}} {
		if v, ok := s.variables.Lookup(pair[0]); ok {
			out = append(out, assignment{variable: v, value: String(pair[1])})
		}
	}
	return out, nil
}

// store assigns a system variable, and the one that always goes with it.
func (s *Session) store(a assignment) {
	value := a.value
	if a.reset {
		delete(s.overrides, a.variable)
		value = s.value(a.variable, ScopeSession)
	} else {
		value.s = strings.Clone(value.s)
		s.overrides[a.variable] = value
	}
	switch a.variable.Name {
	case "character_set_connection":
		if cs, ok := charsetOf(value.s); ok {
			s.Override("collation_connection", String(cs.collation))
		}
	case "collation_connection":
		if cs, _, ok := collationOf(value.s); ok {
			s.Override("character_set_connection", String(cs.name))
		}
	case "timestamp":
		if value.Float64() == 0 {
			delete(s.overrides, a.variable)
		}
	case "last_insert_id":
		s.lastInsertID, _ = value.Uint64()
	}
}

// checkCharset is the Check of the character_set_ variables.
func checkCharset(name string, client bool) func(Value) (Value, error) {
	return func(v Value) (Value, error) {
		cs, ok := charset{}, false
		switch v.kind {
		case KindString:
			cs, ok = charsetOf(v.s)
		case KindInt, KindUint:
			for _, c := range charsets() {
				if uint64(c.id) == v.n {
					cs, ok = c, true
				}
			}
		default:
			return Null, errWrongType(name)
		}
		if !ok {
			return Null, Errorf(1115, "42000", "Unknown character set: '%s'", clip(v.Text(), 64))
		}
		if client && !clientCharset(cs) {
			return Null, errWrongValue(name, cs.name)
		}
		return String(cs.name), nil
	}
}

// checkCollation is the Check of the collation_ variables.
func checkCollation(name string) func(Value) (Value, error) {
	return func(v Value) (Value, error) {
		if v.kind != KindString {
			return Null, errWrongType(name)
		}
		if _, _, ok := collationOf(v.s); !ok {
			return Null, Errorf(1273, "HY000", "Unknown collation: '%s'", clip(v.s, 64))
		}
		return String(strings.ToLower(v.s)), nil
	}
}

// checkTimeZone takes SYSTEM and offsets. MySQL knows other names only if its time zone tables are filled.
func checkTimeZone(v Value) (Value, error) {
	if v.kind != KindString {
		return Null, errWrongType("time_zone")
	}
	if strings.EqualFold(v.s, "SYSTEM") {
		return String("SYSTEM"), nil
	}
	minutes, ok := zoneOffset(v.s)
	if !ok {
		return Null, Errorf(1298, "HY000", "Unknown or incorrect time zone: '%s'", clip(v.s, 64))
	}
	sign := '+'
	if minutes < 0 {
		sign, minutes = '-', -minutes
	}
	return String(fmt.Sprintf("%c%02d:%02d", sign, minutes/60, minutes%60)), nil
}

// zoneOffset reads an offset from -13:59 to +14:00 in minutes; UTC is one, for convenience.
func zoneOffset(s string) (minutes int, ok bool) {
	if strings.EqualFold(s, "UTC") {
		return 0, true
	}
	if len(s) < 2 || s[0] != '+' && s[0] != '-' {
		return 0, false
	}
	h, m, found := strings.Cut(s[1:], ":")
	if !found || len(h) < 1 || len(h) > 2 || len(m) != 2 {
		return 0, false
	}
	for _, c := range h + m {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	hour, _ := String(h).Uint64()
	minute, _ := String(m).Uint64()
	minutes = int(hour)*60 + int(minute)
	if minute > 59 || s[0] == '+' && minutes > 14*60 || s[0] == '-' && minutes >= 14*60 {
		return 0, false
	}
	if s[0] == '-' {
		minutes = -minutes
	}
	return minutes, true
}
