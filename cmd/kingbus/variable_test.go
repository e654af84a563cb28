package main

import "testing"

// TestConfigSet: variables are shown, changed and taken back with any node, for all of them.
func TestConfigSet(t *testing.T) {
	n1 := newMember(t, "n1", "--retain-age=1h").start()
	n1.settled(1)
	n2 := newMember(t, "n2", "--join").start()
	n1.want(0, []string{"n2 is a voter now"}, "node", "add", "n2", n2.addr)
	n1.want(0, []string{"binlog_expire_logs_seconds                   3600     seconds", "this node, --retain-age"}, "config", "show")
	n2.want(0, []string{"it is so on all nodes"}, "config", "set", "binlog_expire_logs_seconds=7200", "rpl_semi_sync_master_timeout=250")
	n1.want(0, []string{"7200", "the cluster; this node says 3600"}, "config", "show")
	n2.want(0, []string{"7200", "the cluster; this node says 0"}, "config", "show")
	n1.want(exitFailed, []string{"no such variable", "kingbus config show"}, "config", "set", "nosuch=1")
	n1.want(exitFailed, []string{"is from 0 to 4294967295 seconds", "what to do"}, "config", "set", "binlog_expire_logs_seconds=1h")
	n1.want(exitUsage, []string{"NAME=VALUE"}, "config", "set", "binlog_expire_logs_seconds")
	n1.want(exitUsage, []string{"twice"}, "config", "set", "kingbus_retain_size=1", "kingbus_retain_size=2")
	n1.want(0, []string{"as the settings of each node say"}, "config", "reset", "binlog_expire_logs_seconds")
	n2.want(0, []string{`"own": "0"`, `"value": "250"`}, "config", "show", "--json")
	n1.want(0, []string{"this node, --retain-age"}, "config", "show")
}
