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
	exec(t, rec.inst, "CHANGE REPLICATION SOURCE TO SOURCE_HOST='nowhere', SOURCE_USER='u', SOURCE_PORT=1, SOURCE_AUTO_POSITION=1; SET sql_log_bin = 0; GRANT SELECT ON performance_schema.* TO "+testUser)
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
		"SHOW ENGINES":                                                  false,
		"SHOW STORAGE ENGINES":                                          false,
		"SHOW PLUGINS":                                                  false,
		"SHOW COLLATION":                                                true,
		"SHOW COLLATION LIKE 'utf8mb4_0900_ai_ci'":                      true,
		"SHOW CHARACTER SET":                                            true,
		"SHOW CHARSET LIKE 'utf8mb4'":                                   true,
		"SHOW DATABASES":                                                false,
		"SHOW SCHEMAS LIKE 'performance\\_schema'":                      true,
		"SHOW TABLES":                                                   true,
		"SHOW GRANTS":                                                   false,
		"SHOW GRANTS FOR CURRENT_USER()":                                false,
		"SHOW WARNINGS":                                                 true,
		"SHOW ERRORS":                                                   true,
		"SHOW COUNT(*) WARNINGS":                                        true,
		"SHOW COUNT(*) ERRORS":                                          true,
		"SHOW VARIABLES":                                                false,
		"SHOW GLOBAL VARIABLES LIKE 'binlog_%'":                         true,
		"SHOW SESSION VARIABLES WHERE Variable_name = 'gtid_mode' OR Value = 'nosuch'": true,
		"SHOW STATUS":                              false,
		"SHOW GLOBAL STATUS LIKE 'nosuch'":         true,
		"SHOW REPLICA STATUS FOR CHANNEL ''":       false,
		"SHOW REPLICA STATUS FOR CHANNEL 'nosuch'": true,
		"SHOW BINLOG EVENTS IN":                    true,
		"SHOW NOSUCH":                              true,
		"SELECT * FROM performance_schema.replication_connection_status":                                                              false,
		"SELECT * FROM performance_schema.replication_connection_configuration":                                                       false,
		"SELECT * FROM performance_schema.replication_applier_status":                                                                 false,
		"SELECT * FROM performance_schema.replication_applier_configuration":                                                          true,
		"SELECT * FROM performance_schema.replication_applier_status_by_coordinator":                                                  true,
		"SELECT * FROM performance_schema.replication_applier_status_by_worker":                                                       false,
		"SELECT * FROM performance_schema.global_variables":                                                                           false,
		"SELECT * FROM performance_schema.session_variables LIMIT 0":                                                                  true,
		"SELECT * FROM performance_schema.global_status":                                                                              false,
		"SELECT * FROM performance_schema.persisted_variables":                                                                        true,
		"SELECT * FROM performance_schema.processlist":                                                                                false,
		"SELECT * FROM information_schema.processlist":                                                                                false,
		"SELECT * FROM information_schema.plugins":                                                                                    false,
		"SELECT * FROM performance_schema.nosuch AS n WHERE EXISTS (SELECT 1)":                                                        true,
		"SELECT service_state FROM performance_schema.replication_connection_status":                                                  true,
		"SELECT s.SERVICE_state, s.channel_name AS c FROM performance_schema.replication_connection_status s WHERE s.channel_name=''": true,
		"SELECT COUNT(*) FROM performance_schema.replication_connection_status":                                                       true,
		"SELECT COUNT(*) n FROM performance_schema.replication_connection_status WHERE service_state = 'NO'":                          true,
		"SELECT COUNT(*), channel_name FROM performance_schema.replication_connection_status":                                         true,
		"SELECT COUNT(host) FROM performance_schema.replication_connection_configuration":                                             true,
		"SELECT MAX(count_received_heartbeats) FROM performance_schema.replication_connection_status":                                 true,
		"SELECT nosuch FROM performance_schema.replication_connection_status":                                                         true,
		"SELECT a.host FROM performance_schema.replication_connection_configuration":                                                  true,
		"SELECT a.* FROM performance_schema.replication_connection_configuration":                                                     true,
		"SELECT x.host FROM performance_schema.replication_connection_configuration AS x":                                             true,
		"SELECT host, port, user FROM performance_schema.replication_connection_configuration ORDER BY host DESC LIMIT 1":             true,
		"SELECT host, * FROM performance_schema.replication_connection_configuration":                                                 true,
		"SELECT t.* FROM performance_schema.replication_applier_configuration t":                                                      true,
		"SELECT * FROM performance_schema.replication_applier_status WHERE x":                                                         true,
		"SELECT channel_name, service_state FROM performance_schema.replication_connection_status ORDER BY 3":                         true,
		"SELECT channel_name, service_state FROM performance_schema.replication_connection_status ORDER BY 1, service_state ASC":      true,
		"SELECT variable_name, variable_value FROM performance_schema.global_variables WHERE variable_name IN ('gtid_mode', 'log_bin', 'server_uuid', 'binlog_format') AND variable_name <> 'server_uuid' ORDER BY variable_name DESC": true,
		"SELECT variable_value AS v FROM performance_schema.global_variables WHERE variable_name = 'binlog_row_image'":                                                                                                                 true,
		"SELECT DISTINCT service_state FROM performance_schema.replication_connection_status":                                                                                                                                          true,
		"SELECT host FROM replication_connection_configuration":                                                                                                                                                                        true,
		"SELECT host FROM performance_schema.replication_connection_configuration WHERE COUNT(*) = 1":                                                                                                                                  true,
		"SELECT host FROM performance_schema.replication_connection_configuration LIMIT 0":                                                                                                                                             true,
		"SELECT host FROM performance_schema.replication_connection_configuration WHERE port > 1":                                                                                                                                      true,
	} {
		t.Run(sql, func(t *testing.T) {
			for _, c := range []*wire.Client{a, b} { // what SHOW WARNINGS shows must not depend on the order
				answerText(t, c, "DO 0")
			}
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
