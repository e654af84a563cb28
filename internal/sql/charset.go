package sql

import "strings"

// Text is UTF-8 here whatever the client set: names of character sets and collations only matter for the variables that
// show them and for the ids in column definitions.

// defaultCollation finds a character set's collation; "utf8" is utf8mb3.
func defaultCollation(charset string) (collation, bool) {
	if charset = strings.ToLower(charset); charset == "utf8" {
		charset = "utf8mb3"
	}
	for _, c := range collations {
		if c.charset() == charset {
			return c, true
		}
	}
	return collation{}, false
}

// findCollation finds a collation. One that we do not list has the id of its character set's default.
func findCollation(name string) (collation, bool) {
	name = strings.ToLower(name)
	prefix, rest, _ := strings.Cut(name, "_")
	found, ok := defaultCollation(prefix)
	if ok && prefix == "utf8" {
		name = "utf8mb3_" + rest
	}
	for _, c := range collations {
		if c.name == name {
			return c, true
		}
	}
	ok = ok && prefix != "binary" && (rest == "bin" || strings.HasSuffix(rest, "_bin") || strings.HasSuffix(rest, "_ci") || strings.HasSuffix(rest, "_cs"))
	return collation{name: name, id: found.id}, ok
}

// clientCharset tells whether a client may send statements in a character set: MySQL refuses those in which ASCII is not
// one byte.
func clientCharset(name string) bool {
	return name != "ucs2" && name != "utf32" && !strings.HasPrefix(name, "utf16")
}

// checkCharset is the Check of the character_set_ variables.
func checkCharset(name string) func(Value) (Value, error) {
	return func(v Value) (Value, error) {
		if v.kind != KindString {
			return Null, errWrongType(name)
		}
		c, ok := defaultCollation(v.s)
		if !ok {
			return Null, errUnknownCharset(v.s)
		}
		if name == "character_set_client" && !clientCharset(c.charset()) {
			return Null, errWrongValue(name, c.charset())
		}
		return String(c.charset()), nil
	}
}

// checkCollation is the Check of the collation_ variables.
func checkCollation(name string) func(Value) (Value, error) {
	return func(v Value) (Value, error) {
		if v.kind != KindString {
			return Null, errWrongType(name)
		}
		c, ok := findCollation(v.s)
		if !ok {
			return Null, errUnknownCollation(v.s)
		}
		return String(c.name), nil
	}
}

// SetCharset does what the collation of a login does: it is SET NAMES with a collation's id. Ids that we do not know count
// as utf8mb4, and so does 0, which MariaDB's replicas send. A character set that a client may not have is error 1231.
func (s *Session) SetCharset(id uint16) error {
	chosen := collations[0]
	for _, c := range collations {
		if c.id == id {
			chosen = c
		}
	}
	if !clientCharset(chosen.charset()) {
		return errWrongValue("character_set_client", chosen.charset())
	}
	s.setNames(chosen, chosen)
	return nil
}

// setNames is what SET NAMES does, and SET CHARACTER SET, for which the connection's collation differs.
func (s *Session) setNames(client, connection collation) {
	s.override("character_set_client", String(client.charset()))
	s.override("character_set_results", String(client.charset()))
	s.override("character_set_connection", String(connection.charset()))
	s.override("collation_connection", String(connection.name))
}

// Localize puts the character set that the client chose for results into the text columns of a result.
func (s *Session) Localize(rs *ResultSet) {
	results, _ := s.SystemVariable(ScopeNone, "character_set_results")
	connection, _ := s.SystemVariable(ScopeNone, "collation_connection")
	c, ok := defaultCollation(results.s)
	if !ok {
		return
	}
	if own, ok := findCollation(connection.s); ok && own.charset() == c.charset() {
		c = own
	}
	for i := range rs.Columns {
		if rs.Columns[i].Charset == charsetUTF8MB4 {
			rs.Columns[i].Charset = c.id
		}
	}
}
