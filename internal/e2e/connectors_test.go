package e2e

import (
	"context"
	"fmt"
	"testing"

	mysql "kingbus/internal/wire"
)

// variables is what Connector/J asks for when it connects: com.mysql.cj.NativeSession's
// loadServerVariables, as captures of 8.0.17 against a server of 8.0 show it; 9.x has the same.
const variables = "SELECT  @@session.auto_increment_increment AS auto_increment_increment, @@character_set_client AS character_set_client, @@character_set_connection AS character_set_connection, " +
	"@@character_set_results AS character_set_results, @@character_set_server AS character_set_server, @@collation_server AS collation_server, @@collation_connection AS collation_connection, " +
	"@@init_connect AS init_connect, @@interactive_timeout AS interactive_timeout, @@license AS license, @@lower_case_table_names AS lower_case_table_names, @@max_allowed_packet AS max_allowed_packet, " +
	"@@net_write_timeout AS net_write_timeout, @@performance_schema AS performance_schema, @@sql_mode AS sql_mode, @@system_time_zone AS system_time_zone, @@time_zone AS time_zone, " +
	"@@transaction_isolation AS transaction_isolation, @@wait_timeout AS wait_timeout"

// logins are what connectors send when they connect, and between the statements of a program.
var logins = map[string][]string{
	"Connector/J 9": {
		"/* mysql-connector-j-9.1.0 (Revision: 0) */" + variables, "SET character_set_results = NULL", "SET autocommit=1", "SET sql_mode='ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
		"SELECT @@session.transaction_read_only", "SET SESSION TRANSACTION READ ONLY", "SET SESSION TRANSACTION READ WRITE", "SELECT @@session.transaction_isolation", "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
		"SET autocommit=0", "COMMIT", "ROLLBACK", "SET autocommit=1", "/* ping */ SELECT 1", "SHOW WARNINGS", "SELECT DATABASE()", "SET NAMES utf8mb4", "SET SESSION SQL_SELECT_LIMIT=10", "SET SESSION SQL_SELECT_LIMIT=DEFAULT", "SELECT VERSION()",
	},
	// A capture of 5.1.45 against a server of 8.2.
	"Connector/J 5.1": {
		"/* mysql-connector-java-5.1.45 ( Revision: 9131eefa398531c7dc98776e8a3fe839e544c5b2 ) */SELECT  @@session.auto_increment_increment AS auto_increment_increment, @@character_set_client AS character_set_client, " +
			"@@character_set_connection AS character_set_connection, @@character_set_results AS character_set_results, @@character_set_server AS character_set_server, @@collation_server AS collation_server, @@init_connect AS init_connect, " +
			"@@interactive_timeout AS interactive_timeout, @@license AS license, @@lower_case_table_names AS lower_case_table_names, @@max_allowed_packet AS max_allowed_packet, @@net_buffer_length AS net_buffer_length, " +
			"@@net_write_timeout AS net_write_timeout, @@have_query_cache AS have_query_cache, @@sql_mode AS sql_mode, @@system_time_zone AS system_time_zone, @@time_zone AS time_zone, @@transaction_isolation AS transaction_isolation, @@wait_timeout AS wait_timeout",
		"SHOW WARNINGS", "SET NAMES latin1", "SET character_set_results = NULL", "SET autocommit=1", "SET sql_mode='NO_ENGINE_SUBSTITUTION,STRICT_TRANS_TABLES'", "SELECT @@session.transaction_read_only",
	},
	// MySQLConnectionAbstract._post_connection and the properties of lib/mysql/connector/abstracts.py.
	"Connector/Python 9": {
		"SET NAMES 'utf8mb4' COLLATE 'utf8mb4_0900_ai_ci'", "SET @@session.autocommit = OFF", "SET @@session.time_zone = '+00:00'", "SET @@session.sql_mode = 'ANSI_QUOTES,STRICT_TRANS_TABLES'", "SELECT @@session.autocommit", "SELECT @@session.time_zone",
		"SELECT @@session.sql_mode", "SELECT DATABASE()", "START TRANSACTION READ ONLY", "ROLLBACK", "SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "START TRANSACTION WITH CONSISTENT SNAPSHOT", "COMMIT", "ROLLBACK", "SHOW WARNINGS",
	},
}

// connectors: each statement is answered without an error, in the columns of the source.
func (r *clientRig) connectors(t *testing.T) {
	ctx := context.Background()
	for name, statements := range logins {
		t.Run(name, func(t *testing.T) {
			var shapes [2][]string
			for i, port := range []int{r.src.Port, r.p.mysqlPort} {
				c, err := mysql.Dial(ctx, mysql.ClientConfig{Address: fmt.Sprintf("127.0.0.1:%d", port), User: opsUser, Password: []byte(password), TLSMode: mysql.TLSRequired, ReadTimeout: patience})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				for _, s := range statements {
					res, err := c.Query(ctx, s)
					if err != nil {
						t.Fatalf("%s: %v", s, err)
					}
					shape := s
					if s != "SHOW WARNINGS" { // a 9.7 may warn
						shape += fmt.Sprintf(": %d rows", len(res.Rows))
					}
					for _, col := range res.Columns {
						shape += fmt.Sprintf(", %s of type %d", col.Name, col.Type)
					}
					shapes[i] = append(shapes[i], shape)
				}
				for _, cmd := range []byte{mysql.ComResetConnection, mysql.ComPing} {
					if _, err := c.Do(ctx, []byte{cmd}); err != nil {
						t.Errorf("command %d: %v", cmd, err)
					}
				}
			}
			for i := range shapes[0] {
				if shapes[0][i] != shapes[1][i] {
					t.Errorf("%s\nwant %s", shapes[1][i], shapes[0][i])
				}
			}
		})
	}
}
