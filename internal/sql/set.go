package sql

import (
	"strings"
	"time"
)

// assignment is a checked item of SET with its value, ready to be stored.
type assignment struct {
	SetItem
	variable           *Variable // of SetSystem
	value              Value     // of SetUser and SetSystem
	client, connection collation // of SetNames and SetCharacterSet
}

// Set answers SET. As in MySQL all values are taken before anything is assigned (SET @a = 1, @b = @a gives @b the old
// value of @a), and an error in one item leaves all of them undone.
func (s *Session) Set(set *Set) error {
	ev := s.evaluation()
	todo, user := make([]assignment, len(set.Items)), map[string]Value{}
	for i, item := range set.Items {
		var err error
		if todo[i], err = s.checkItem(ev, item); err != nil {
			return err
		}
		if item.Kind == SetUser {
			user[strings.ToLower(item.Name)] = todo[i].value
		}
	}
	var global []GlobalValue
	for _, a := range todo {
		if a.Kind == SetSystem && a.Scope > ScopeSession {
			global = append(global, GlobalValue{Name: a.variable.Name, Value: a.value, Default: a.Value == nil})
		}
	}
	size, err := s.checkUser(user)
	if err != nil {
		return err
	}
	if len(global) > 0 {
		if err := s.env.SetGlobal(global); err != nil {
			s.dropUser(size)
			return err
		}
	}
	s.storeUser(user, size)
	for _, a := range todo {
		switch a.Kind {
		case SetSystem:
			if a.Scope <= ScopeSession {
				s.store(a)
			}
		case SetNames, SetCharacterSet:
			s.setNames(a.client, a.connection)
		}
	}
	return nil
}

func (s *Session) checkItem(ev *evaluation, item SetItem) (a assignment, err error) {
	a.SetItem = item
	switch item.Kind {
	case SetUser:
		a.value, err = ev.eval(item.Value)
		return a, err
	case SetNames, SetCharacterSet:
		a.client, a.connection, err = checkNames(item)
		return a, err
	}
	var ok bool
	if a.variable, ok = s.variables.Lookup(item.Name); !ok {
		return a, errUnknownVariable(item.Name)
	}
	if err := a.variable.settable(item.Scope); err != nil || item.Value == nil {
		return a, err
	}
	if word, ok := item.Value.(*ColumnRef); ok && word.Table == "" {
		a.value = String(word.Name) // a bare word is text
	} else if a.value, err = ev.eval(item.Value); err != nil {
		return a, err
	}
	given := a.value
	a.value, err = a.variable.check(given)
	if err == nil && a.variable.Type == VarUint && a.variable.Check == nil && compare(given, a.value) != 0 {
		s.Warn(Errorf(1292, "22007", "Truncated incorrect %s value: '%s'", a.variable.Name, clip(given.Text(), 64)))
	}
	return a, err
}

// checkNames finds the collations that SET NAMES and SET CHARACTER SET ask for.
func checkNames(item SetItem) (client, connection collation, err error) {
	client, ok := collations[0], true
	if item.Name != "" {
		if client, ok = defaultCollation(item.Name); !ok {
			return client, client, errUnknownCharset(item.Name)
		}
	}
	connection = client
	switch {
	case !clientCharset(client.charset()):
		err = errWrongValue("character_set_client", client.charset())
	case item.Kind == SetCharacterSet: // the connection's own goes to that of the database
		connection = collations[0]
	case item.Collation != "":
		if connection, ok = findCollation(item.Collation); !ok {
			err = errUnknownCollation(item.Collation)
		} else if connection.charset() != client.charset() {
			err = Errorf(1253, "42000", "COLLATION '%s' is not valid for CHARACTER SET '%s'", item.Collation, client.charset())
		}
	}
	return client, connection, err
}

// store assigns a system variable, and the one that always goes with it.
func (s *Session) store(a assignment) {
	if a.Value == nil { // DEFAULT
		delete(s.overrides, a.variable)
	} else {
		a.value.s = strings.Clone(a.value.s)
		s.overrides[a.variable] = a.value
	}
	text := s.value(a.variable, ScopeSession).s
	switch a.variable.Name {
	case "character_set_connection":
		if c, ok := defaultCollation(text); ok {
			s.override("collation_connection", String(c.name))
		}
	case "collation_connection":
		if c, ok := findCollation(text); ok {
			s.override("character_set_connection", String(c.charset()))
		}
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
	zone, ok := timeZone(v.s)
	if !ok {
		return Null, Errorf(1298, "HY000", "Unknown or incorrect time zone: '%s'", clip(v.s, 64))
	}
	return String(zone.String()), nil
}

// timeZone reads an offset from -13:59 to +14:00; UTC is one, for convenience.
func timeZone(s string) (*time.Location, bool) {
	if strings.EqualFold(s, "UTC") {
		s = "+00:00"
	}
	if len(s) == len("+1:00") {
		s = s[:1] + "0" + s[1:]
	}
	t, err := time.Parse("-07:00", s)
	_, seconds := t.Zone()
	if err != nil || s[4:] > "59" || seconds <= -14*60*60 || seconds > 14*60*60 {
		return nil, false
	}
	return time.FixedZone(t.Format("-07:00"), seconds), true
}
