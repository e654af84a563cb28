package binlog

import "slices"

// scenario is a script that fills one binlog file. Statements run one by one
// in one session; "other:" runs one in a second session, "?" in front says that
// the statement must fail, "~" that it may, "restart" restarts the server. What
// GTIDs forbid may fail always.
type scenario struct {
	name string
	sql  []string
}

// scenarios97 run one after another on one MySQL 9.7, each in a new file, and
// after the last some of them again without GTIDs (off).
// LOAD is replaced by the name of a file of ten lines.
var scenarios97 = []scenario{
	{"97-row", []string{
		`CREATE DATABASE d1`, `USE d1`,
		`CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT, j JSON)`,
		`CREATE TABLE m (id INT) ENGINE=MyISAM`,
		`INSERT INTO t (v) VALUES ('one'), ('two')`,
		`BEGIN`, `INSERT INTO t (v) VALUES ('three')`, `UPDATE t SET v = 'x' WHERE id = 1`, `DELETE FROM t WHERE id = 2`, `COMMIT`,
		`BEGIN`, `INSERT INTO t (v) VALUES ('a')`, `SAVEPOINT s1`, `INSERT INTO t (v) VALUES ('b')`, `ROLLBACK TO s1`, `SAVEPOINT s2`, `COMMIT`,
		`BEGIN`, `INSERT INTO t (v) VALUES ('never')`, `ROLLBACK`,
		`INSERT INTO m VALUES (1)`,
		`BEGIN`, `INSERT INTO t (v) VALUES ('c')`, `SAVEPOINT s3`, `INSERT INTO m VALUES (2)`, `ROLLBACK TO SAVEPOINT s3`, `COMMIT`,
		`BEGIN`, `INSERT INTO t (v) VALUES ('gone')`, `INSERT INTO m VALUES (3)`, `ROLLBACK`,
		`?INSERT INTO m SELECT 4 UNION ALL SELECT (SELECT id FROM t)`,
		`CREATE TABLE s SELECT * FROM t`,
		`CREATE TABLE s0 SELECT * FROM t WHERE 0`,
		`CREATE TEMPORARY TABLE tt (id INT)`, `INSERT INTO tt VALUES (1)`, `INSERT INTO t (v) SELECT id FROM tt`, `DROP TEMPORARY TABLE tt`,
		`CREATE TABLE x1 (id INT)`, `CREATE TABLE x2 (id INT)`, `/* a comment */ DROP TABLE x1, x2`,
		`CREATE TABLE x3 (id INT)`, `?DROP TABLE x3, x4`, `RENAME TABLE x3 TO x4`, `TRUNCATE TABLE x4`, `ALTER TABLE x4 ADD c INT`,
		`CREATE USER u1 IDENTIFIED BY 'secret'`, `GRANT SELECT ON d1.* TO u1`, `DROP USER u1`,
		`ANALYZE TABLE t`, `OPTIMIZE TABLE t`, `FLUSH TABLES`, `FLUSH PRIVILEGES`,
		`CREATE PROCEDURE p() INSERT INTO t (v) VALUES ('p1')`, `CALL p()`, `BEGIN`, `CALL p()`, `COMMIT`,
		`CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW INSERT INTO s (id, v) VALUES (NEW.id, NEW.v)`, `INSERT INTO t (v) VALUES ('tr')`,
		`CREATE EVENT e ON SCHEDULE EVERY 1 YEAR DO SELECT 1`,
		`SET binlog_rows_query_log_events = ON`, `INSERT INTO t (v) VALUES ('rq')`, `INSERT INTO m VALUES (5)`, `SET binlog_rows_query_log_events = OFF`,
		`SET binlog_row_value_options = PARTIAL_JSON`, `INSERT INTO t (j) VALUES ('{"a": "aaaaaaaaaaaaaaaa", "b": 1}')`, `UPDATE t SET j = JSON_SET(j, '$.b', 2) WHERE j IS NOT NULL`,
		`LOAD DATA INFILE 'LOAD' INTO TABLE t (v)`, `LOAD DATA INFILE 'LOAD' INTO TABLE m`,
		`BEGIN`, `COMMIT`,
		`SET gtid_next = 'aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:5'`, `BEGIN`, `COMMIT`, `SET gtid_next = AUTOMATIC`,
		`BEGIN`, `INSERT INTO t (v) VALUES (REPEAT('big', 50000))`, `DELETE FROM t WHERE id = 1`, `COMMIT`,
		`BEGIN`, `INSERT INTO t (v) VALUES ('interleaved')`, "other:INSERT INTO d1.t (v) VALUES ('other')", `COMMIT`,
		`CREATE TABLE wide (a INT, b LONGTEXT COMMENT 'begin')`, `INSERT INTO wide VALUES (1, 'COMMIT')`,
		`DROP DATABASE d1`, `FLUSH BINARY LOGS`,
	}},
	{"97-statement", []string{
		`SET binlog_format = STATEMENT`, `CREATE DATABASE d2`, `USE d2`,
		`CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT)`, `CREATE TABLE m (id INT PRIMARY KEY AUTO_INCREMENT, v DOUBLE) ENGINE=MyISAM`,
		`INSERT INTO t (v) VALUES ('a')`, `INSERT INTO m (v) VALUES (RAND())`, `SET @a = 'COMMIT'`, `INSERT INTO t (v) VALUES (@a)`,
		`INSERT INTO t (v) SELECT LAST_INSERT_ID()`,
		`BEGIN`, `INSERT INTO t (v) VALUES ('b')`, `INSERT INTO t (v) VALUES (RAND())`, `SAVEPOINT a`, `INSERT INTO t (v) VALUES (@a)`, `rollback work to savepoint a`, `COMMIT`,
		`BEGIN`, `INSERT INTO t (v) VALUES ('b')`, `INSERT INTO m (v) VALUES (1)`, `ROLLBACK`,
		`BEGIN`, `INSERT INTO t (v) VALUES ('b')`, `SAVEPOINT a`, `INSERT INTO m (v) VALUES (1)`, `ROLLBACK TO a`, `INSERT INTO t (v) VALUES ('c')`, `COMMIT`,
		`BEGIN`, `INSERT INTO t (v) VALUES ('b')`, `SAVEPOINT a`, `INSERT INTO t (v) VALUES (1)`, `ROLLBACK TO a`, `COMMIT`,
		`CREATE TABLE s SELECT * FROM t`,
		`CREATE TEMPORARY TABLE tt (id INT)`, `INSERT INTO tt VALUES (1)`, `INSERT INTO t (v) SELECT id FROM tt`, `DROP TEMPORARY TABLE tt`,
		`BEGIN`, `INSERT INTO t (v) VALUES ('x')`, `CREATE TEMPORARY TABLE tt2 (id INT)`, `~INSERT INTO tt2 VALUES (1)`, `~DROP TEMPORARY TABLE tt2`, `ROLLBACK`,
		`BEGIN`, `CREATE TEMPORARY TABLE tt3 (id INT)`, `~INSERT INTO tt3 VALUES (1)`, `~DROP TEMPORARY TABLE tt3`, `COMMIT`,
		`LOAD DATA INFILE 'LOAD' INTO TABLE t (v)`, `LOAD DATA INFILE 'LOAD' INTO TABLE m (v)`,
		`CREATE PROCEDURE p(x INT) INSERT INTO m (v) VALUES (x)`, `CALL p(7)`,
		`INSERT INTO t (v) VALUES (REPEAT(RAND(), 2))`, `INSERT INTO t (v) VALUES ('` + long + `')`,
		`?INSERT INTO m (id, v) VALUES (100, 1), (100, 2)`,
		`/* BEGIN */ INSERT INTO t (v) VALUES (RAND())`,
		`DROP DATABASE d2`, `FLUSH BINARY LOGS`,
	}},
	{"97-mixed", []string{
		`SET binlog_format = MIXED`, `CREATE DATABASE d3`, `USE d3`,
		`CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v TEXT)`, `CREATE TABLE m (v TEXT) ENGINE=MyISAM`,
		`INSERT INTO t (v) VALUES ('a')`, `INSERT INTO t (v) VALUES (UUID())`, `SET @a = 1`, `INSERT INTO t (v) VALUES (@a)`,
		`BEGIN`, `INSERT INTO t (v) VALUES ('b')`, `INSERT INTO m VALUES (UUID())`, `INSERT INTO t (v) VALUES (UUID())`, `COMMIT`,
		`BEGIN`, `INSERT INTO m VALUES ('n')`, `INSERT INTO t (v) VALUES (UUID())`, `ROLLBACK`,
		`LOAD DATA INFILE 'LOAD' INTO TABLE t (v)`, `CREATE TABLE s SELECT UUID() AS u FROM t`,
		`DROP DATABASE d3`, `FLUSH BINARY LOGS`,
	}},
	{"97-xa", []string{
		`CREATE DATABASE d4`, `USE d4`, `CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v TEXT)`, `CREATE TABLE m (v TEXT) ENGINE=MyISAM`,
		`XA START 'one'`, `INSERT INTO t (v) VALUES ('a')`, `XA END 'one'`, `XA PREPARE 'one'`, `XA COMMIT 'one'`,
		`XA START 'g','b',7`, `INSERT INTO t (v) VALUES ('a')`, `XA END 'g','b',7`, `XA PREPARE 'g','b',7`, `XA ROLLBACK 'g','b',7`,
		`XA START 'phase'`, `INSERT INTO t (v) VALUES ('a')`, `XA END 'phase'`, `XA COMMIT 'phase' ONE PHASE`,
		`XA START 'early'`, `INSERT INTO t (v) VALUES ('a')`, `XA END 'early'`, `XA ROLLBACK 'early'`,
		`XA START 'my'`, `INSERT INTO m VALUES ('a')`, `XA END 'my'`, `XA PREPARE 'my'`, `XA COMMIT 'my'`,
		`XA START 'both'`, `INSERT INTO m VALUES ('a')`, `INSERT INTO t (v) VALUES ('b')`, `XA END 'both'`, `XA ROLLBACK 'both'`,
		`SET SESSION binlog_direct_non_transactional_updates = ON`, `SET binlog_format = STATEMENT`,
		`XA START 'stmt'`, `INSERT INTO m VALUES ('a')`, `INSERT INTO t (v) VALUES ('b')`, `XA END 'stmt'`, `XA ROLLBACK 'stmt'`,
		`XA START 'stmt2'`, `INSERT INTO t (v) VALUES ('b')`, `INSERT INTO m VALUES ('a')`, `XA END 'stmt2'`, `XA PREPARE 'stmt2'`, `XA ROLLBACK 'stmt2'`,
		`SET SESSION binlog_direct_non_transactional_updates = OFF`,
		`XA START 'stmt3'`, `INSERT INTO t (v) VALUES ('b')`, `INSERT INTO m VALUES ('a')`, `XA END 'stmt3'`, `XA ROLLBACK 'stmt3'`,
		`XA START 'empty'`, `XA END 'empty'`, `XA PREPARE 'empty'`, `XA COMMIT 'empty'`,
		`DROP DATABASE d4`, `FLUSH BINARY LOGS`,
	}},
	{"97-compressed", []string{
		`CREATE DATABASE d5`, `USE d5`, `CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT)`, `CREATE TABLE m (v TEXT) ENGINE=MyISAM`,
		`SET binlog_transaction_compression = ON`,
		`INSERT INTO t (v) VALUES (REPEAT('a', 1000))`, `BEGIN`, `INSERT INTO t (v) VALUES ('b')`, `UPDATE t SET v = 'c'`, `COMMIT`,
		`INSERT INTO m VALUES ('a')`, `CREATE TABLE s SELECT * FROM t`, `INSERT INTO t (v) VALUES (REPEAT('b', 300000))`,
		`XA START 'one'`, `INSERT INTO t (v) VALUES ('a')`, `XA END 'one'`, `XA PREPARE 'one'`, `XA COMMIT 'one'`,
		`SET binlog_format = STATEMENT`, `INSERT INTO t (v) VALUES ('stmt')`,
		`DROP DATABASE d5`, `FLUSH BINARY LOGS`,
	}},
	{"97-tagged", []string{
		`CREATE DATABASE d6`, `USE d6`, `SET gtid_next = 'AUTOMATIC:foo'`, `CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT)`,
		`INSERT INTO t (v) VALUES ('a')`, `SET gtid_next = 'AUTOMATIC:another_tag_of_32_characters___'`, `INSERT INTO t (v) VALUES ('a')`,
		`SET gtid_next = 'FFFFFFFF-8080-7f7f-0000-ffffffffffff:Tag:9223372036854775000'`, `INSERT INTO t (v) VALUES ('a')`,
		`SET gtid_next = 'AUTOMATIC'`, `INSERT INTO t (v) VALUES ('a')`,
		`SET gtid_next = 'AUTOMATIC:foo'`, `BEGIN`, `INSERT INTO t (v) VALUES (REPEAT('a', 70000))`, `COMMIT`,
		`SET original_commit_timestamp = 1234567890123456`, `SET gtid_next = 'aaaaaaaa-8080-7f7f-0000-ffffffffffff:foo:1'`, `INSERT INTO t (v) VALUES ('a')`,
		`SET gtid_next = 'aaaaaaaa-8080-7f7f-0000-ffffffffffff:2'`, `SET original_commit_timestamp = 1234567890123456`, `INSERT INTO t (v) VALUES ('a')`,
		`SET gtid_next = 'AUTOMATIC'`, `FLUSH BINARY LOGS`,
	}},
	{"97-tagged-next", []string{ // PREVIOUS_GTIDS in the tagged format, ends with STOP
		`INSERT INTO d6.t (v) VALUES ('a')`, `restart`,
	}},
	{"97-nochecksum", []string{
		`SET GLOBAL binlog_checksum = NONE`, `INSERT INTO d6.t (v) VALUES ('a')`, `CREATE TABLE d6.n (id INT)`, `DROP TABLE d6.n`,
		`SET GLOBAL binlog_checksum = CRC32`,
	}},
	{"97-gtid-off", []string{
		`SET GLOBAL gtid_mode = ON_PERMISSIVE`, `SET GLOBAL gtid_mode = OFF_PERMISSIVE`, `SET GLOBAL enforce_gtid_consistency = OFF`,
		`SET GLOBAL gtid_mode = OFF`, `CREATE DATABASE d7`, `DROP DATABASE d7`, `FLUSH BINARY LOGS`,
	}},
}

// off returns the scenarios that are worth another run without GTIDs.
func off(all []scenario) (out []scenario) {
	for _, s := range all {
		switch s.name {
		case "97-row", "97-statement", "97-mixed", "97-xa", "97-compressed":
			out = append(out, scenario{s.name + "-off", s.sql})
		}
	}
	return out
}

// scenarios56 run on a MySQL 5.6 without GTIDs, those of scenarios56GTID on
// one with them.
var scenarios56 = []scenario{
	{"56-row", rows56},
	{"56-statement", append([]string{`SET binlog_format = STATEMENT`}, statements56...)},
	{"56-mixed", append([]string{`SET binlog_format = MIXED`}, statements56...)},
	{"56-nochecksum", []string{
		`SET GLOBAL binlog_checksum = NONE`, `CREATE DATABASE d9`, `CREATE TABLE d9.t (id INT)`, `INSERT INTO d9.t VALUES (1)`, `restart`,
	}},
}

var scenarios56GTID = []scenario{
	{"56-gtid", []string{
		`CREATE DATABASE d8`, `USE d8`, `CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v TEXT)`, `CREATE TABLE m (v TEXT) ENGINE=MyISAM`,
		`INSERT INTO t (v) VALUES ('a')`, `INSERT INTO m VALUES ('a')`, `BEGIN`, `INSERT INTO t (v) VALUES ('a')`, `SAVEPOINT a`, `INSERT INTO t (v) VALUES ('a')`, `ROLLBACK TO a`, `COMMIT`,
		`SET gtid_next = 'aaaaaaaa-8080-7f7f-0000-ffffffffffff:2'`, `BEGIN`, `COMMIT`, `SET gtid_next = AUTOMATIC`,
		`SET binlog_format = STATEMENT`, `INSERT INTO t (v) VALUES ('a')`, `INSERT INTO m VALUES (RAND())`, `FLUSH TABLES`, `DROP TABLE t`, `LOAD DATA INFILE 'LOAD' INTO TABLE m`,
		`FLUSH BINARY LOGS`,
	}},
	{"56-gtid-next", []string{`INSERT INTO d8.m (v) VALUES ('a')`, `FLUSH BINARY LOGS`}},
}

var rows56 = []string{
	`CREATE DATABASE d1`, `USE d1`, `CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v TEXT)`, `CREATE TABLE m (v TEXT) ENGINE=MyISAM`,
	`INSERT INTO t (v) VALUES ('a')`, `INSERT INTO m VALUES ('a')`, `CREATE TABLE s SELECT * FROM t`, `CREATE TABLE s2 LIKE t`,
	`BEGIN`, `INSERT INTO t (v) VALUES ('a')`, `INSERT INTO m VALUES ('a')`, `SAVEPOINT a`, `INSERT INTO t (v) VALUES ('b')`, `ROLLBACK TO a`, `COMMIT`,
	`BEGIN`, `INSERT INTO t (v) VALUES ('a')`, `INSERT INTO m VALUES ('a')`, `ROLLBACK`,
	`SET binlog_rows_query_log_events = ON`, `INSERT INTO t (v) VALUES ('a')`, `INSERT INTO m VALUES ('b')`,
	`XA START 'one'`, `INSERT INTO t (v) VALUES ('a')`, `XA END 'one'`, `XA PREPARE 'one'`, `XA COMMIT 'one'`,
	`XA START 'two'`, `INSERT INTO t (v) VALUES ('a')`, `INSERT INTO m VALUES ('b')`, `XA END 'two'`, `XA ROLLBACK 'two'`,
	`SET GLOBAL log_bin_use_v1_row_events = ON`, `INSERT INTO t (v) VALUES ('v1')`, `UPDATE t SET v = 'v'`, `DELETE FROM m`, `SET GLOBAL log_bin_use_v1_row_events = OFF`,
	`DROP TABLE t, m, s, s2`, `DROP DATABASE d1`, `FLUSH BINARY LOGS`,
}

var statements56 = []string{
	`CREATE DATABASE d1`, `USE d1`, `CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v TEXT)`, `CREATE TABLE m (id INT PRIMARY KEY AUTO_INCREMENT, v TEXT) ENGINE=MyISAM`,
	`INSERT INTO t (v) VALUES ('a')`, `INSERT INTO m (v) VALUES (RAND())`, `SET @a = 1`, `INSERT INTO t (v) VALUES (@a)`, `INSERT INTO m (v) VALUES (@a)`,
	`BEGIN`, `INSERT INTO t (v) VALUES ('a')`, `INSERT INTO m (v) VALUES ('a')`, `SAVEPOINT a`, `INSERT INTO t (v) VALUES ('b')`, `rollback work to savepoint a`, `COMMIT`,
	`BEGIN`, `INSERT INTO t (v) VALUES ('a')`, `SAVEPOINT a`, `INSERT INTO m (v) VALUES ('a')`, "rollback\tto a", `COMMIT`,
	`BEGIN`, `INSERT INTO t (v) VALUES ('a')`, `INSERT INTO m (v) VALUES ('a')`, `rollback and chain`, `INSERT INTO t (v) VALUES ('a')`, `commit work`,
	`BEGIN`, `INSERT INTO m (v) VALUES ('a')`, `INSERT INTO t (v) VALUES ('a')`, `ROLLBACK`,
	`CREATE TEMPORARY TABLE tt (id INT)`, `INSERT INTO tt VALUES (1)`, `BEGIN`, `INSERT INTO t (v) SELECT id FROM tt`, `DROP TEMPORARY TABLE tt`, `ROLLBACK`,
	`LOAD DATA INFILE 'LOAD' INTO TABLE t (v)`, `LOAD DATA INFILE 'LOAD' INTO TABLE m (v)`, `?LOAD DATA INFILE 'LOAD' INTO TABLE m (id)`,
	`CREATE TABLE s SELECT UUID() AS u`, `CREATE PROCEDURE p(x INT) INSERT INTO m (v) VALUES (x)`, `CALL p(7)`,
	`?INSERT INTO m (id, v) VALUES (100, 1), (100, 2)`,
	`DROP DATABASE d1`, `FLUSH BINARY LOGS`,
}

// scenariosMaria run on a MariaDB.
func scenariosMaria(prefix string) []scenario {
	xa := []string{
		`CREATE DATABASE d4`, `USE d4`, `CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v TEXT)`, `CREATE TABLE m (v TEXT) ENGINE=MyISAM`,
		`XA START 'one'`, `INSERT INTO t (v) VALUES ('a')`, `XA END 'one'`, `XA PREPARE 'one'`, `XA COMMIT 'one'`,
		`XA START 'g','b',7`, `INSERT INTO t (v) VALUES ('a')`, `XA END 'g','b',7`, `XA PREPARE 'g','b',7`, `XA ROLLBACK 'g','b',7`,
		`XA START 'phase'`, `INSERT INTO t (v) VALUES ('a')`, `XA END 'phase'`, `XA COMMIT 'phase' ONE PHASE`,
		`XA START 'early'`, `INSERT INTO t (v) VALUES ('a')`, `XA END 'early'`, `XA ROLLBACK 'early'`,
		`XA START 'my'`, `INSERT INTO m VALUES ('a')`, `XA END 'my'`, `XA PREPARE 'my'`, `XA COMMIT 'my'`,
		`XA START 'both'`, `INSERT INTO m VALUES ('a')`, `INSERT INTO t (v) VALUES ('b')`, `XA END 'both'`, `XA ROLLBACK 'both'`,
		`XA START 'both2'`, `INSERT INTO m VALUES ('a')`, `INSERT INTO t (v) VALUES ('b')`, `XA END 'both2'`, `XA PREPARE 'both2'`, `XA COMMIT 'both2'`,
		`XA START 'empty'`, `XA END 'empty'`, `XA PREPARE 'empty'`, `XA COMMIT 'empty'`,
		`SET binlog_format = STATEMENT`, `XA START 'stmt'`, `INSERT INTO t (v) VALUES ('b')`, `XA END 'stmt'`, `XA PREPARE 'stmt'`, `XA ROLLBACK 'stmt'`,
		`DROP DATABASE d4`, `FLUSH BINARY LOGS`,
	}
	maria := slices.Concat(rowsMaria, []string{
		`SET STATEMENT binlog_alter_two_phase = 1 FOR ALTER TABLE t ADD c INT`, `CREATE SEQUENCE sq`, `SELECT NEXTVAL(sq)`,
		`CREATE OR REPLACE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB`, `CREATE TABLE h (id INT) WITH SYSTEM VERSIONING`, `INSERT INTO h VALUES (1)`,
		`SET gtid_domain_id = 7`, `INSERT INTO t VALUES (1)`, `SET gtid_domain_id = 0`, `SET skip_replication = 1`, `INSERT INTO t VALUES (2)`, `SET skip_replication = 0`,
		`SET binlog_annotate_row_events = OFF`, `INSERT INTO t VALUES (3)`,
		`DROP DATABASE d1`, `FLUSH BINARY LOGS`,
	})
	return []scenario{
		{prefix + "-row", maria},
		{prefix + "-statement", slices.Concat([]string{`SET binlog_format = STATEMENT`}, statements56)},
		{prefix + "-mixed", slices.Concat([]string{`SET binlog_format = MIXED`}, statements56)},
		{prefix + "-xa", xa},
		{prefix + "-compressed", slices.Concat([]string{`SET GLOBAL log_bin_compress = ON`, `SET GLOBAL log_bin_compress_min_len = 10`},
			rowsMaria, []string{`INSERT INTO t (v) VALUES (REPEAT('x', 100000))`, `DROP DATABASE d1`},
			[]string{`SET binlog_format = STATEMENT`}, statements56[:len(statements56)-1], []string{`SET GLOBAL log_bin_compress = OFF`, `FLUSH BINARY LOGS`})},
		{prefix + "-nochecksum", []string{
			`SET GLOBAL binlog_checksum = NONE`, `CREATE DATABASE d9`, `CREATE TABLE d9.t (id INT)`, `INSERT INTO d9.t VALUES (1)`,
			`SET GLOBAL binlog_checksum = CRC32`,
		}},
		{prefix + "-stop", []string{`INSERT INTO d9.t VALUES (2)`, `restart`}},
	}
}

var rowsMaria = []string{
	`CREATE DATABASE d1`, `USE d1`, `CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT)`, `CREATE TABLE m (v TEXT) ENGINE=MyISAM`,
	`INSERT INTO t (v) VALUES ('a')`, `INSERT INTO m VALUES ('a')`, `CREATE TABLE s SELECT * FROM t`, `CREATE TABLE s2 LIKE t`,
	`CREATE TABLE ar (v TEXT) ENGINE=Aria`, `INSERT INTO ar VALUES ('a')`,
	`BEGIN`, `INSERT INTO t (v) VALUES ('a')`, `INSERT INTO m VALUES ('a')`, `SAVEPOINT a`, `INSERT INTO t (v) VALUES ('b')`, `ROLLBACK TO a`, `COMMIT`,
	`BEGIN`, `INSERT INTO t (v) VALUES ('a')`, `SAVEPOINT a`, `INSERT INTO m VALUES ('x')`, `ROLLBACK TO a`, `INSERT INTO t (v) VALUES ('b')`, `COMMIT`,
	`BEGIN`, `INSERT INTO t (v) VALUES ('a')`, `INSERT INTO m VALUES ('a')`, `ROLLBACK`, `BEGIN`, `INSERT INTO t (v) VALUES ('never')`, `ROLLBACK`,
	`CREATE TEMPORARY TABLE tt (id INT)`, `INSERT INTO tt VALUES (1)`, `INSERT INTO t (v) SELECT id FROM tt`, `DROP TEMPORARY TABLE tt`,
	`CREATE TABLE x1 (id INT)`, `CREATE TABLE x2 (id INT)`, `/* a comment */ DROP TABLE x1, x2`, `CREATE TABLE x3 (id INT)`, `?DROP TABLE x3, x4`,
	`CREATE USER u1 IDENTIFIED BY 'secret'`, `GRANT SELECT ON d1.* TO u1`, `DROP USER u1`, `ANALYZE TABLE t`, `OPTIMIZE TABLE t`, `FLUSH TABLES`,
	`CREATE PROCEDURE p() INSERT INTO t (v) VALUES ('p1')`, `CALL p()`, `BEGIN`, `CALL p()`, `COMMIT`,
	`LOAD DATA INFILE 'LOAD' INTO TABLE t (v)`, `LOAD DATA INFILE 'LOAD' INTO TABLE m`, `UPDATE t SET v = 'u'`, `DELETE FROM m`,
	`BEGIN`, `COMMIT`, `BEGIN`, `INSERT INTO t (v) VALUES ('interleaved')`, "other:INSERT INTO d1.t (v) VALUES ('other')", `COMMIT`,
	`BEGIN`, `INSERT INTO t (v) VALUES (REPEAT('big', 50000))`, `DELETE FROM t WHERE id = 1`, `COMMIT`,
}

// long makes a QUERY event longer than MaxWhole.
var long = func() string {
	b := make([]byte, MaxWhole+1000)
	for i := range b {
		b[i] = 'l'
	}
	return string(b)
}()
