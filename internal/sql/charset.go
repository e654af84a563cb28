package sql

import "strings"

// Text is UTF-8 here whatever the client set: names of character sets and collations only matter for the variables that
// show them and for the ids in column definitions.

type collation struct {
	name string
	id   uint16
}

// collations are the default collations of all character sets (SHOW CHARACTER SET), and those that clients choose in
// their place. The default comes first.
var collations = [...]collation{
	{"utf8mb4_0900_ai_ci", 255}, {"utf8mb4_general_ci", 45}, {"utf8mb4_bin", 46}, {"utf8mb4_unicode_ci", 224},
	{"utf8mb3_general_ci", 33}, {"utf8mb3_bin", 83}, {"binary", 63}, {"latin1_swedish_ci", 8}, {"latin1_bin", 47},
	{"ascii_general_ci", 11}, {"ascii_bin", 65}, {"big5_chinese_ci", 1}, {"latin2_general_ci", 9}, {"cp850_general_ci", 4},
	{"koi8r_general_ci", 7}, {"ujis_japanese_ci", 12}, {"sjis_japanese_ci", 13}, {"hebrew_general_ci", 16},
	{"tis620_thai_ci", 18}, {"euckr_korean_ci", 19}, {"koi8u_general_ci", 22}, {"gb2312_chinese_ci", 24},
	{"greek_general_ci", 25}, {"cp1250_general_ci", 26}, {"gbk_chinese_ci", 28}, {"latin5_turkish_ci", 30},
	{"ucs2_general_ci", 35}, {"cp866_general_ci", 36}, {"cp852_general_ci", 40}, {"latin7_general_ci", 41},
	{"cp1251_general_ci", 51}, {"utf16_general_ci", 54}, {"utf16le_general_ci", 56}, {"cp1256_general_ci", 57},
	{"cp1257_general_ci", 59}, {"utf32_general_ci", 60}, {"cp932_japanese_ci", 95}, {"eucjpms_japanese_ci", 97},
	{"gb18030_chinese_ci", 248},
}

// charset is the character set of a collation: the collation's name begins with it.
func (c collation) charset() string {
	name, _, _ := strings.Cut(c.name, "_")
	return name
}

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
	return collation{name, found.id}, ok
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

// SetCharset does what the charset byte of the login does: it is SET NAMES with a collation's id. Ids that we do not
// know count as utf8mb4, and so does 0, which MariaDB's replicas send.
func (s *Session) SetCharset(id uint16) {
	chosen := collations[0]
	for _, c := range collations {
		if c.id == id && clientCharset(c.charset()) {
			chosen = c
		}
	}
	s.setNames(chosen, chosen)
}

// setNames is what SET NAMES does, and SET CHARACTER SET, for which the connection's collation differs.
func (s *Session) setNames(client, connection collation) {
	s.override("character_set_client", String(client.charset()))
	s.override("character_set_results", String(client.charset()))
	s.override("character_set_connection", String(connection.charset()))
	s.override("collation_connection", String(connection.name))
}

// localize puts the character set that the client chose for results into the text columns of a result.
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

// Collation is a row of SHOW COLLATION, with what SHOW CHARACTER SET says of its character set.
type Collation struct {
	Name, Charset string
	ID            uint16
	Default       bool // of the character set
	SortLength    int
	Pad           string // PAD SPACE or NO PAD
	Description   string // of the character set
	MaxLength     int    // of one character of it, in bytes
}

// Collations returns those that are known by name.
func Collations() []Collation {
	charsets := map[string]struct {
		description string
		length      int
	}{
		"ascii": {"US ASCII", 1}, "big5": {"Big5 Traditional Chinese", 2}, "binary": {"Binary pseudo charset", 1}, "cp1250": {"Windows Central European", 1},
		"cp1251": {"Windows Cyrillic", 1}, "cp1256": {"Windows Arabic", 1}, "cp1257": {"Windows Baltic", 1}, "cp850": {"DOS West European", 1},
		"cp852": {"DOS Central European", 1}, "cp866": {"DOS Russian", 1}, "cp932": {"SJIS for Windows Japanese", 2}, "eucjpms": {"UJIS for Windows Japanese", 3},
		"euckr": {"EUC-KR Korean", 2}, "gb18030": {"China National Standard GB18030", 4}, "gb2312": {"GB2312 Simplified Chinese", 2}, "gbk": {"GBK Simplified Chinese", 2},
		"greek": {"ISO 8859-7 Greek", 1}, "hebrew": {"ISO 8859-8 Hebrew", 1}, "koi8r": {"KOI8-R Relcom Russian", 1}, "koi8u": {"KOI8-U Ukrainian", 1},
		"latin1": {"cp1252 West European", 1}, "latin2": {"ISO 8859-2 Central European", 1}, "latin5": {"ISO 8859-9 Turkish", 1}, "latin7": {"ISO 8859-13 Baltic", 1},
		"sjis": {"Shift-JIS Japanese", 2}, "tis620": {"TIS620 Thai", 1}, "ucs2": {"UCS-2 Unicode", 2}, "ujis": {"EUC-JP Japanese", 3}, "utf16": {"UTF-16 Unicode", 4},
		"utf16le": {"UTF-16LE Unicode", 4}, "utf32": {"UTF-32 Unicode", 4}, "utf8mb3": {"UTF-8 Unicode", 3}, "utf8mb4": {"UTF-8 Unicode", 4},
	}
	lengths := map[string]int{"utf8mb4_0900_ai_ci": 0, "utf8mb4_unicode_ci": 8, "tis620_thai_ci": 4, "gb18030_chinese_ci": 2} // others: 1
	var out []Collation
	for _, c := range collations {
		standard, _ := defaultCollation(c.charset())
		row := Collation{Name: c.name, Charset: c.charset(), ID: c.id, Default: standard == c, SortLength: 1, Pad: "PAD SPACE"}
		row.Description, row.MaxLength = charsets[row.Charset].description, charsets[row.Charset].length
		if n, is := lengths[c.name]; is {
			row.SortLength = n
		}
		if c.name == "binary" || strings.Contains(c.name, "_0900_") {
			row.Pad = "NO PAD"
		}
		out = append(out, row)
	}
	return out
}
