package sql

import "strings"

// reservedWords are MySQL's reserved words (manual: Keywords and Reserved Words): they name nothing unless quoted.
const reservedWords = ` ACCESSIBLE ADD ALL ALTER ANALYZE AND AS ASC ASENSITIVE BEFORE BETWEEN BIGINT BINARY BLOB BOTH BY
 CALL CASCADE CASE CHANGE CHAR CHARACTER CHECK COLLATE COLUMN CONDITION CONSTRAINT CONTINUE CONVERT CREATE CROSS CUBE
 CUME_DIST CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURSOR DATABASE DATABASES DAY_HOUR DAY_MICROSECOND
 DAY_MINUTE DAY_SECOND DEC DECIMAL DECLARE DEFAULT DELAYED DELETE DENSE_RANK DESC DESCRIBE DETERMINISTIC DISTINCT
 DISTINCTROW DIV DOUBLE DROP DUAL EACH ELSE ELSEIF EMPTY ENCLOSED ESCAPED EXCEPT EXISTS EXIT EXPLAIN FALSE FETCH
 FIRST_VALUE FLOAT FLOAT4 FLOAT8 FOR FORCE FOREIGN FROM FULLTEXT FUNCTION GENERATED GET GRANT GROUP GROUPING GROUPS
 HAVING HIGH_PRIORITY HOUR_MICROSECOND HOUR_MINUTE HOUR_SECOND IF IGNORE IN INDEX INFILE INNER INOUT INSENSITIVE INSERT
 INT INT1 INT2 INT3 INT4 INT8 INTEGER INTERSECT INTERVAL INTO IO_AFTER_GTIDS IO_BEFORE_GTIDS IS ITERATE JOIN JSON_TABLE
 KEY KEYS KILL LAG LAST_VALUE LATERAL LEAD LEADING LEAVE LEFT LIKE LIMIT LINEAR LINES LOAD LOCALTIME LOCALTIMESTAMP LOCK
 LONG LONGBLOB LONGTEXT LOOP LOW_PRIORITY MANUAL MATCH MAXVALUE MEDIUMBLOB MEDIUMINT MEDIUMTEXT MIDDLEINT
 MINUTE_MICROSECOND MINUTE_SECOND MOD MODIFIES NATURAL NOT NO_WRITE_TO_BINLOG NTH_VALUE NTILE NULL NUMERIC OF ON
 OPTIMIZE OPTIMIZER_COSTS OPTION OPTIONALLY OR ORDER OUT OUTER OUTFILE OVER PARALLEL PARTITION PERCENT_RANK PRECISION
 PRIMARY PROCEDURE PURGE QUALIFY RANGE RANK READ READS READ_WRITE REAL RECURSIVE REFERENCES REGEXP RELEASE RENAME REPEAT
 REPLACE REQUIRE RESIGNAL RESTRICT RETURN REVOKE RIGHT RLIKE ROW ROWS ROW_NUMBER SCHEMA SCHEMAS SECOND_MICROSECOND
 SELECT SENSITIVE SEPARATOR SET SETS SHOW SIGNAL SMALLINT SPATIAL SPECIFIC SQL SQLEXCEPTION SQLSTATE SQLWARNING
 SQL_BIG_RESULT SQL_CALC_FOUND_ROWS SQL_SMALL_RESULT SSL STARTING STORED STRAIGHT_JOIN SYSTEM TABLE TABLESAMPLE
 TERMINATED THEN TINYBLOB TINYINT TINYTEXT TO TRAILING TRIGGER TRUE UNDO UNION UNIQUE UNLOCK UNSIGNED UPDATE USAGE USE
 USING UTC_DATE UTC_TIME UTC_TIMESTAMP VALUES VARBINARY VARCHAR VARCHARACTER VARYING VIRTUAL WHEN WHERE WHILE WINDOW WITH
 WRITE XOR YEAR_MONTH ZEROFILL `

// reserved tells whether a word cannot be a name without quotes.
func reserved(word string) bool { return inWords(reservedWords, word) }

// reservedFunction tells whether a reserved word can be a function's name.
func reservedFunction(word string) bool {
	return inWords(" CHAR CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER DATABASE IF INSERT INTERVAL LEFT LOCALTIME "+
		"LOCALTIMESTAMP MOD REPEAT REPLACE RIGHT SCHEMA UTC_DATE UTC_TIME UTC_TIMESTAMP VALUES ", word)
}

// inWords looks a word up in a list that has white space around every word.
func inWords(list, word string) bool {
	if len(word) < 2 || len(word) > 20 || strings.ContainsAny(word, " \n") {
		return false
	}
	word = strings.ToUpper(word)
	for at := 0; ; {
		i := strings.Index(list[at:], word)
		if i < 0 {
			return false
		}
		at += i + len(word)
		if isSpace(list[at]) && isSpace(list[at-len(word)-1]) {
			return true
		}
	}
}

// charset is what we know about a character set.
type charset struct {
	name      string
	collation string // default collation
	id        uint16 // of the default collation
}

func charsets() []charset {
	return []charset{
		{"utf8mb4", "utf8mb4_0900_ai_ci", 255}, {"utf8mb3", "utf8mb3_general_ci", 33}, {"binary", "binary", 63},
		{"latin1", "latin1_swedish_ci", 8}, {"ascii", "ascii_general_ci", 11}, {"big5", "big5_chinese_ci", 1},
		{"latin2", "latin2_general_ci", 9}, {"cp850", "cp850_general_ci", 4}, {"koi8r", "koi8r_general_ci", 7},
		{"ujis", "ujis_japanese_ci", 12}, {"sjis", "sjis_japanese_ci", 13}, {"hebrew", "hebrew_general_ci", 16},
		{"tis620", "tis620_thai_ci", 18}, {"euckr", "euckr_korean_ci", 19}, {"koi8u", "koi8u_general_ci", 22},
		{"gb2312", "gb2312_chinese_ci", 24}, {"greek", "greek_general_ci", 25}, {"cp1250", "cp1250_general_ci", 26},
		{"gbk", "gbk_chinese_ci", 28}, {"latin5", "latin5_turkish_ci", 30}, {"ucs2", "ucs2_general_ci", 35},
		{"cp866", "cp866_general_ci", 36}, {"cp852", "cp852_general_ci", 40}, {"latin7", "latin7_general_ci", 41},
		{"cp1251", "cp1251_general_ci", 51}, {"utf16", "utf16_general_ci", 54}, {"utf16le", "utf16le_general_ci", 56},
		{"cp1256", "cp1256_general_ci", 57}, {"cp1257", "cp1257_general_ci", 59}, {"utf32", "utf32_general_ci", 60},
		{"cp932", "cp932_japanese_ci", 95}, {"eucjpms", "eucjpms_japanese_ci", 97}, {"gb18030", "gb18030_chinese_ci", 248},
	}
}

// charsetOf finds a character set; "utf8" is utf8mb3. Text is UTF-8 here whatever the client set: names only matter for
// the variables that show them and for the column definitions.
func charsetOf(name string) (charset, bool) {
	name = strings.ToLower(name)
	if name == "utf8" {
		name = "utf8mb3"
	}
	for _, cs := range charsets() {
		if cs.name == name {
			return cs, true
		}
	}
	return charset{}, false
}

// clientCharset tells whether a client may send statements in the character set: MySQL refuses those in which ASCII is
// not one byte.
func clientCharset(cs charset) bool {
	return cs.name != "ucs2" && !strings.HasPrefix(cs.name, "utf16") && cs.name != "utf32"
}

// collationOf finds a collation's character set and id. Collations other than the default and the well-known ones have
// the id of their character set's default.
func collationOf(name string) (cs charset, id uint16, ok bool) {
	name = strings.ToLower(name)
	prefix, rest, _ := strings.Cut(name, "_")
	if cs, ok = charsetOf(prefix); !ok || rest == "" && prefix != "binary" {
		return cs, 0, false
	}
	switch name {
	case "utf8mb4_bin":
		return cs, 46, true
	case "utf8mb4_general_ci":
		return cs, 45, true
	case "utf8mb4_unicode_ci":
		return cs, 224, true
	case "utf8mb3_bin", "utf8_bin":
		return cs, 83, true
	case "latin1_bin":
		return cs, 47, true
	case "ascii_bin":
		return cs, 65, true
	case cs.collation:
		return cs, cs.id, true
	}
	known := rest == "bin" && prefix != "binary" || strings.HasSuffix(rest, "_ci") || strings.HasSuffix(rest, "_cs") || strings.HasSuffix(rest, "_0900_bin")
	return cs, cs.id, known
}
