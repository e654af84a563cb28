package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"kingbus/internal/mysqltest"
)

// spec is what a set of binlogs holds. Its name and version name the cached folder.
type spec struct {
	name         string
	transactions int
	what         string // for people
	schema       string
	// work makes the transactions: one script for each connection, run at the same time.
	work func(sp spec) []string
}

// specVersion is part of a cached set's name; raise it when what is made below changes.
const specVersion = "2"

// specs returns the three sets: transactions of a shop, of a batch job, and a single huge one.
func specs(quick bool) (oltp, batch, huge spec) {
	oltp = spec{"oltp", 200_000, "200,000 transactions of about 5 KB", oltpSchema, oltpWork}
	batch = spec{"batch", 1000, "1,000 transactions of about 1 MB", batchSchema, batchWork}
	huge = spec{"huge", 2048, "one transaction of 2 GB", hugeSchema, hugeWork} // 2048 rows
	if quick {
		oltp = spec{"oltp", 20_000, "20,000 transactions of about 5 KB", oltpSchema, oltpWork}
		batch = spec{"batch", 100, "100 transactions of about 1 MB", batchSchema, batchWork}
		huge = spec{"huge", 205, "one transaction of 200 MB", hugeSchema, hugeWork}
	}
	return oltp, batch, huge
}

// All text is cut out of one row of 64 KiB of hexadecimal digits.
const textSchema = `CREATE DATABASE bench; USE bench;
CREATE TABLE text (t MEDIUMTEXT CHARACTER SET latin1 NOT NULL);
INSERT INTO text WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 512) SELECT /*+ SET_VAR(group_concat_max_len=100000) */ GROUP_CONCAT(SHA2(i, 512) SEPARATOR '') FROM n;
`

// writers is how many connections write the small transactions. Each has accounts and orders of its own: they never wait
// for each other's rows.
const writers = 4

// A transfer between two accounts, an order of one to four lines, and now and then a change of an older order.
const oltpSchema = textSchema + `
CREATE TABLE account (id INT PRIMARY KEY, balance DECIMAL(14,2) NOT NULL, touched TIMESTAMP(6) NOT NULL, note VARCHAR(1000) CHARACTER SET latin1 NOT NULL);
CREATE TABLE orders (id BIGINT PRIMARY KEY, account INT NOT NULL, placed DATETIME(3) NOT NULL, state TINYINT NOT NULL, body VARCHAR(4000) CHARACTER SET latin1 NOT NULL);
CREATE TABLE line (order_id BIGINT, line TINYINT, product INT NOT NULL, amount DECIMAL(10,2) NOT NULL, remark VARCHAR(400) CHARACTER SET latin1 NOT NULL, PRIMARY KEY (order_id, line));
DELIMITER //
CREATE PROCEDURE work(writer INT, transactions INT)
BEGIN
	DECLARE i, a, b, l INT DEFAULT 0;
	DECLARE o BIGINT;
	DECLARE x MEDIUMTEXT CHARACTER SET latin1;
	SELECT t INTO x FROM text;
	INSERT INTO account WITH RECURSIVE n AS (SELECT 0 AS k UNION ALL SELECT n.k + 1 FROM n WHERE n.k < 1999)
		SELECT /*+ SET_VAR(cte_max_recursion_depth=10000) */ writer * 2000 + n.k, 1000, NOW(6), SUBSTRING(x, 1 + n.k * 29, 100 + n.k % 600) FROM n;
	WHILE i < transactions DO
		SET o = writer * 1000000000 + i, a = writer * 2000 + FLOOR(RAND() * 2000), b = writer * 2000 + FLOOR(RAND() * 2000);
		START TRANSACTION;
		UPDATE account SET balance = balance - 1 - i % 7, touched = NOW(6) WHERE id = a;
		UPDATE account SET balance = balance + 1 + i % 7, touched = NOW(6) WHERE id = b;
		INSERT INTO orders VALUES (o, a, NOW(3), 0, SUBSTRING(x, 1 + FLOOR(RAND() * 60000), 300 + FLOOR(RAND() * 2400)));
		SET l = i % 4;
		WHILE l >= 0 DO
			INSERT INTO line VALUES (o, l, FLOOR(RAND() * 100000), RAND() * 1000, SUBSTRING(x, 1 + FLOOR(RAND() * 60000), FLOOR(RAND() * 200)));
			SET l = l - 1;
		END WHILE;
		IF i % 4 = 3 THEN UPDATE orders SET state = 1 WHERE id = o - 2; END IF;
		COMMIT;
		SET i = i + 1;
	END WHILE;
END//
DELIMITER ;
`

func oltpWork(sp spec) []string {
	var out []string
	for w := range writers {
		out = append(out, fmt.Sprintf("CALL bench.work(%d, %d)", w, sp.transactions/writers))
	}
	return out
}

// A job that writes a thousand rows at a time. The table is emptied now and then.
const batchSchema = textSchema + `
CREATE TABLE big (id BIGINT AUTO_INCREMENT PRIMARY KEY, made TIMESTAMP(6) NOT NULL, n INT NOT NULL, body VARCHAR(2000) CHARACTER SET latin1 NOT NULL);
CREATE TABLE seq (i INT PRIMARY KEY);
INSERT INTO seq WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 969) SELECT i FROM n;
DELIMITER //
CREATE PROCEDURE work(transactions INT)
BEGIN
	DECLARE i INT DEFAULT 0;
	DECLARE x MEDIUMTEXT CHARACTER SET latin1;
	SELECT t INTO x FROM text;
	WHILE i < transactions DO
		INSERT INTO big (made, n, body) SELECT NOW(6), seq.i, SUBSTRING(x, 1 + (seq.i * 61 + i * 17) % 60000, 500 + (seq.i * 7 + i) % 1000) FROM seq;
		SET i = i + 1;
		IF i % 50 = 0 THEN TRUNCATE big; END IF;
	END WHILE;
END//
DELIMITER ;
`

func batchWork(sp spec) []string {
	return []string{fmt.Sprintf("CALL bench.work(%d)", sp.transactions)}
}

// One transaction, of rows of 1 MB.
const hugeSchema = textSchema + `
CREATE TABLE huge (id INT PRIMARY KEY, body LONGTEXT CHARACTER SET latin1 NOT NULL);
DELIMITER //
CREATE PROCEDURE work(n INT)
BEGIN
	DECLARE i INT DEFAULT 0;
	DECLARE x MEDIUMTEXT CHARACTER SET latin1;
	SELECT t INTO x FROM text;
	START TRANSACTION;
	WHILE i < n DO
		INSERT INTO huge VALUES (i, REPEAT(SUBSTRING(x, 1 + i * 5, 50000), 20));
		SET i = i + 1;
	END WHILE;
	COMMIT;
END//
DELIMITER ;
`

func hugeWork(sp spec) []string { return []string{fmt.Sprintf("CALL bench.work(%d)", sp.transactions)} }

// dataset is a set of binlogs in the cache: the files of a stopped server, its index of them and its uuid.
type dataset struct {
	spec
	dir   string
	files []string // names, oldest first
	bytes int64    // of all files
}

// sourceArgs are the options of the server that makes a set and of the one that serves it: beside GTIDs, the defaults
// of 9.7 for everything about the binlog.
func sourceArgs(more ...string) []string {
	return append([]string{"--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--server-id=1"}, more...)
}

// dataset returns the set, making it if it is not in the cache.
func (b *bench) dataset(ctx context.Context, sp spec) (*dataset, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s-%d-%s-%s", sp.name, sp.transactions, regexp.MustCompile(`[^0-9A-Za-z.-]+`).ReplaceAllString(b.serverVersion, "_"), specVersion)
	final := filepath.Join(cache, name)
	if b.cfg.Fresh {
		if err := os.RemoveAll(final); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(final); err != nil {
		b.say("making binlogs: %s (once; kept in %s)", sp.what, final)
		if err := b.makeSet(ctx, sp, final); err != nil {
			return nil, fmt.Errorf("make the binlogs of set %s: %w", sp.name, err)
		}
	}
	return openSet(sp, final)
}

// cacheDir is beside that of package mysqltest.
func cacheDir() (string, error) {
	dir := os.Getenv("KINGBUS_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("%w; set KINGBUS_CACHE to a folder in which 5 GB of binlogs can be kept", err)
		}
		dir = filepath.Join(base, "kingbus")
	}
	dir = filepath.Join(dir, "bench")
	return dir, os.MkdirAll(dir, 0o755)
}

func openSet(sp spec, dir string) (*dataset, error) {
	s := &dataset{spec: sp, dir: dir}
	found, err := filepath.Glob(filepath.Join(dir, "binlog.[0-9]*"))
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("no binlogs in %s (%v): remove that folder", dir, err)
	}
	for _, path := range found { // sorted
		st, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, filepath.Base(path))
		s.bytes += st.Size()
	}
	return s, nil
}

// makeSet has a server write the binlogs, and moves them to dir, which appears in one go.
func (b *bench) makeSet(ctx context.Context, sp spec, dir string) (err error) {
	began := time.Now()
	inst, err := mysqltest.Launch(ctx, mysqltest.Options{Name: "maker of " + sp.name, Args: sourceArgs(
		"--innodb-flush-log-at-trx-commit=0", "--innodb-redo-log-capacity=1G", "--innodb-buffer-pool-size=512M", "--binlog-cache-size=4M")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inst.Close()) }()
	if err := inst.Exec(ctx, sp.schema); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, script := range sp.work(sp) {
		g.Go(func() error { return inst.Exec(gctx, script) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := inst.Stop(); err != nil { // cleanly: the last file is closed with a STOP and never written again
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".tmp")
	if err != nil {
		return err
	}
	s, err := adopt(sp, inst.DataDir, tmp)
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	b.say("  %.3f GB in %d files after %v", float64(s.bytes)/1e9, len(s.files), time.Since(began).Round(time.Second))
	return nil
}

// adopt takes what makes up a set out of a data folder.
func adopt(sp spec, data, dir string) (*dataset, error) {
	for _, pattern := range []string{"binlog.*", "auto.cnf"} {
		found, err := filepath.Glob(filepath.Join(data, pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			if err := linkOrCopy(path, filepath.Join(dir, filepath.Base(path))); err != nil {
				return nil, err
			}
		}
	}
	return openSet(sp, dir)
}

// linkOrCopy gives a file a second name, or copies it where that cannot be.
func linkOrCopy(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(in)
	return errors.Join(err, out.Close())
}

// origin is a real server with the binlogs of a set: the source, and what kingbus is compared with.
type origin struct {
	*dataset
	inst *mysqltest.Instance
	pid  int
	last string // its newest file
	end  uint64 // and the position at its end
}

// openSource starts a server on the binlogs of a set. Its tables are those of an empty server: nobody reads them, and
// the set stays small. The binlog files are the cached ones themselves; a server never writes to files of before.
func (b *bench) openSource(ctx context.Context, s *dataset) (*origin, error) {
	inst, err := mysqltest.Launch(ctx, mysqltest.Options{Name: "source with " + s.name, Args: sourceArgs()})
	if err != nil {
		return nil, err
	}
	o := &origin{dataset: s, inst: inst}
	if err := o.prepare(ctx, b.password); err != nil {
		return nil, errors.Join(fmt.Errorf("source with set %s: %w", s.name, err), inst.Close())
	}
	return o, nil
}

func (o *origin) prepare(ctx context.Context, password string) error {
	if err := o.inst.Stop(); err != nil {
		return err
	}
	for _, pattern := range []string{"binlog.*", "auto.cnf"} {
		own, err := filepath.Glob(filepath.Join(o.inst.DataDir, pattern))
		if err != nil {
			return err
		}
		for _, path := range own {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	for _, name := range o.files {
		if err := linkOrCopy(filepath.Join(o.dir, name), filepath.Join(o.inst.DataDir, name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"binlog.index", "auto.cnf"} { // these are written to
		text, err := os.ReadFile(filepath.Join(o.dir, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(o.inst.DataDir, name), text, 0o640); err != nil {
			return err
		}
	}
	if err := o.inst.Start(ctx); err != nil {
		return err
	}
	if err := o.inst.CreateUser(ctx, mysqltest.User{Name: account, Password: password, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}); err != nil {
		return err
	}
	files, err := o.inst.BinlogFiles(ctx)
	if err != nil || len(files) == 0 {
		return fmt.Errorf("%d binlog files: %w", len(files), err)
	}
	last := files[len(files)-1]
	o.last, o.end = last.Name, uint64(last.Size)
	text, err := os.ReadFile(filepath.Join(o.inst.Dir, "mysqld.pid"))
	if err != nil {
		return err
	}
	_, err = fmt.Sscan(strings.TrimSpace(string(text)), &o.pid)
	return err
}

func (o *origin) addr() string { return o.inst.Addr() }
func (o *origin) close() error { return o.inst.Close() }
