package server

import (
	"fmt"
	"strings"
	"testing"

	"kingbus/internal/wire"
)

// answerText is the answer to a statement: its columns with all that a client learns of
// them, and its rows or its error.
func answerText(t *testing.T, c *wire.Client, sql string) (columns, rows string) {
	t.Helper()
	res, err := c.Query(t.Context(), sql)
	if err != nil {
		return "", strings.TrimPrefix(err.Error(), "query: ")
	}
	var b strings.Builder
	for _, col := range res.Columns {
		fmt.Fprintf(&b, "%s type=%d charset=%d length=%d decimals=%d flags=%#x\n", col.Name, col.Type, col.Charset, col.Length, col.Decimals, col.Flags)
	}
	var out strings.Builder
	for _, row := range res.Rows {
		for i, v := range row {
			if i > 0 {
				out.WriteByte('\t')
			}
			if v == nil {
				out.WriteString("NULL")
			} else {
				out.Write(v)
			}
		}
		out.WriteByte('\n')
	}
	return b.String(), out.String()
}

// TestShowSame: what kingbus shows is what the source shows whose binlog it has: columns
// with their types, and values where they mean the same.
func TestShowSame(t *testing.T) {
	rec := newRecording(t)
	exec(t, rec.inst, "SET SESSION binlog_transaction_compression = ON; BEGIN; INSERT INTO d.t (b) VALUES ('in a payload'); INSERT INTO d.t (b) VALUES ('too'); COMMIT; "+
		"SET SESSION binlog_format = STATEMENT; INSERT INTO d.t (b) VALUES (CONCAT('s', @@server_id)); ALTER TABLE d.t ADD c INT")
	rec.reload(t)
	r := newRig(t, func(c *Config) {
		c.Replication = func() *Replication {
			return &Replication{Host: "nowhere", User: "u", Port: 1, Running: "No", ByGTID: true}
		}
	})
	rec.feed(r, 1<<16)
	exec(t, rec.inst, "CHANGE REPLICATION SOURCE TO SOURCE_HOST='nowhere', SOURCE_USER='u', SOURCE_PORT=1, SOURCE_AUTO_POSITION=1")
	a, b := dial(t, rec.inst.Addr(), testUser, testPassword, wire.TLSRequired), dial(t, r.addr, testUser, testPassword, wire.TLSRequired)
	defer a.Close()
	defer b.Close()
	last := rec.names[len(rec.names)-1]
	for sql, values := range map[string]bool{
		"SHOW BINLOG EVENTS":                                            true,
		"SHOW BINLOG EVENTS IN '" + last + "'":                          true,
		"SHOW BINLOG EVENTS IN '" + rec.names[1] + "' LIMIT 3":          true,
		"SHOW BINLOG EVENTS IN '" + last + "' LIMIT 9, 8":               true,
		"SHOW BINLOG EVENTS IN '" + last + "' LIMIT 0":                  true,
		"SHOW BINLOG EVENTS IN '" + last + "' LIMIT 1000, 8":            true,
		"SHOW BINLOG EVENTS IN '" + last + "' FROM 127":                 true,
		"SHOW BINLOG EVENTS IN '" + last + "' FROM 4 LIMIT 2":           true,
		"SHOW BINLOG EVENTS IN '" + last + "' FROM 3":                   true,
		"SHOW BINLOG EVENTS IN '" + last + "' FROM 128":                 true,
		"SHOW BINLOG EVENTS IN '" + last + "' FROM 99999999":            true,
		fmt.Sprintf("SHOW BINLOG EVENTS IN '%s' FROM %d", last, r.size): true,
		"SHOW BINLOG EVENTS IN 'nosuch.000001'":                         true,
		"SHOW BINARY LOGS":                                              true,
		"SHOW BINARY LOG STATUS":                                        true,
		"SHOW REPLICAS":                                                 true,
		"SHOW PROCESSLIST":                                              false,
		"SHOW FULL PROCESSLIST":                                         false,
		"SHOW REPLICA STATUS":                                           false,
	} {
		t.Run(sql, func(t *testing.T) {
			wantColumns, want := answerText(t, a, sql)
			columns, got := answerText(t, b, sql)
			a, b := strings.Split(wantColumns, "\n"), strings.Split(columns, "\n")
			if len(a) != len(b) {
				t.Fatalf("columns\n%swant\n%s", columns, wantColumns)
			}
			for i := range a {
				// As wide as the set that the replica has retrieved.
				if a[i] != b[i] && !strings.HasPrefix(a[i], "Retrieved_Gtid_Set") {
					t.Errorf("column %s\nwant   %s", b[i], a[i])
				}
			}
			if values && got != want {
				t.Errorf("rows\n%swant\n%s", got, want)
			}
		})
	}
}
