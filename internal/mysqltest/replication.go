package mysqltest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// User is an account to create, valid from every host.
type User struct {
	Name     string
	Password string
	Plugin   string // authentication plugin, e.g. "caching_sha2_password"; the server's default if empty
	Grants   string // privileges on *.*, e.g. "REPLICATION SLAVE, REPLICATION CLIENT"; none if empty
}

// CreateUser makes an account. It is not written to the binlog, so that accounts made on a source and on its replica do
// not get into each other's way.
func (i *Instance) CreateUser(ctx context.Context, u User) error {
	name, password := quote(u.Name)+"@'%'", quote(u.Password)
	create := "CREATE USER " + name + " IDENTIFIED BY " + password
	switch {
	case u.Plugin == "":
	case i.Server.Flavour.MariaDB():
		create = "CREATE USER " + name + " IDENTIFIED VIA " + u.Plugin + " USING PASSWORD(" + password + ")"
	case i.Server.Flavour == MySQL56 && u.Plugin == "sha256_password":
		create = "CREATE USER " + name + " IDENTIFIED WITH sha256_password; SET old_passwords = 2; SET PASSWORD FOR " + name + " = PASSWORD(" + password + ")"
	case i.Server.Flavour == MySQL56: // mysql_native_password, its default
	default:
		create = "CREATE USER " + name + " IDENTIFIED WITH " + u.Plugin + " BY " + password
	}
	sql := "SET sql_log_bin = 0; " + create
	if u.Grants != "" {
		sql += "; GRANT " + u.Grants + " ON *.* TO " + name
	}
	return i.Exec(ctx, sql)
}

// quote makes a string literal that is the same in every SQL mode but ANSI_QUOTES and NO_BACKSLASH_ESCAPES.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'"
}

// BinlogFile is one row of SHOW BINARY LOGS.
type BinlogFile struct {
	Name string
	Size int64 // bytes
}

// BinlogFiles lists the binlog files, oldest first; they lie in DataDir.
func (i *Instance) BinlogFiles(ctx context.Context) ([]BinlogFile, error) {
	rows, err := i.Query(ctx, "SHOW BINARY LOGS")
	if err != nil {
		return nil, err
	}
	var files []BinlogFile
	for _, row := range rows {
		if len(row) < 2 {
			return nil, fmt.Errorf("%s: SHOW BINARY LOGS: row %q", i.Name, row)
		}
		size, err := strconv.ParseInt(row[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: SHOW BINARY LOGS: %w", i.Name, err)
		}
		files = append(files, BinlogFile{row[0], size})
	}
	return files, nil
}

// GTIDExecuted returns the set of GTIDs that the server has executed (MariaDB: gtid_current_pos), without line breaks.
func (i *Instance) GTIDExecuted(ctx context.Context) (string, error) {
	variable := "@@GLOBAL.gtid_executed"
	if i.Server.Flavour.MariaDB() {
		variable = "@@GLOBAL.gtid_current_pos"
	}
	set, err := i.QueryValue(ctx, "SELECT "+variable)
	return strings.ReplaceAll(set, "\n", ""), err
}

// Await runs a query again and again until its rows satisfy the condition, and returns those rows. An error of the query
// ends it, and so does the context; then the error tells the rows that were seen last.
func (i *Instance) Await(ctx context.Context, query string, condition func(rows [][]string) bool) ([][]string, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var rows [][]string
	for {
		got, err := i.Query(ctx, query)
		if ctx.Err() != nil {
			return rows, fmt.Errorf("%s: waited in vain for %s: %w; last seen: %q", i.Name, abbreviate(query), ctx.Err(), rows)
		}
		if err != nil {
			return nil, err
		}
		if rows = got; condition(rows) {
			return rows, nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
