package demo

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"kingbus/internal/mysqltest"
)

const sourcePasswordFile = "source.password"

// serverArgs are the options of source and replica. Files are small so that some rotations are seen, and go after a
// while so that a demo that runs for hours does not fill the disk.
func serverArgs() []string {
	return []string{"--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--max-binlog-size=8M", "--binlog-expire-logs-seconds=300",
		"--replica-checkpoint-period=100"} // ms; so old is the position that SHOW REPLICA STATUS gives
}

// prepareSource makes the account of kingbus and the tables.
func (d *demo) prepareSource(ctx context.Context) error {
	password, _, err := d.folder.newPassword(sourcePasswordFile)
	if err != nil {
		return err
	}
	user := mysqltest.User{Name: sourceUser, Password: password, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}
	if err := d.source.CreateUser(ctx, user); err != nil {
		return err
	}
	return d.source.Exec(ctx, schema())
}

// startReplica makes a replica follow kingbus, as it would follow a MySQL. With several nodes it has them all in its
// failover list, so that it moves to another one by itself.
func (d *demo) startReplica(ctx context.Context, replica *mysqltest.Instance, node *kingbus) error {
	host, port, err := net.SplitHostPort(node.mysql)
	if err != nil {
		return err
	}
	failover := "SOURCE_RETRY_COUNT=86400"
	var list string
	if len(d.nodes) > 1 {
		failover = "SOURCE_RETRY_COUNT=2, SOURCE_CONNECTION_AUTO_FAILOVER=1"
		for _, k := range d.nodes {
			h, p, err := net.SplitHostPort(k.mysql)
			if err != nil {
				return err
			}
			// Equal weights: it stays where it is when a node comes back.
			list += fmt.Sprintf("DO asynchronous_connection_failover_add_source('', '%s', %s, '', 50); ", h, p)
		}
	}
	return replica.Exec(ctx, fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='%s', SOURCE_PORT=%s, SOURCE_USER='%s', SOURCE_PASSWORD='%s', "+
		"SOURCE_AUTO_POSITION=1, SOURCE_SSL=1, SOURCE_CONNECT_RETRY=1, %s, SOURCE_HEARTBEAT_PERIOD=1; %sSTART REPLICA",
		host, port, replicaUser, d.password, failover, list))
}

// writeScripts makes what a user can call to look around: the mysql client may lie in a cache folder, where nobody would
// find it.
func (d *demo) writeScripts(ctx context.Context) error {
	for _, inst := range d.servers() {
		if err := os.Symlink(inst.ErrorLog, d.folder.file(inst.Name+".log")); err != nil {
			return err
		}
		mysql := inst.Tool(ctx, "mysql", "--socket="+inst.Socket, "--user=root")
		if err := d.folder.script(inst.Name, "", mysql.Args); err != nil {
			return err
		}
	}
	password := fmt.Sprintf("MYSQL_PWD=%s; export MYSQL_PWD\n", d.password)
	for _, k := range d.nodes {
		if err := d.folder.script(k.name+"-status", "", []string{d.cfg.Kingbus, "status", "--admin-listen", k.admin, "--data-dir", k.data}); err != nil {
			return err
		}
		host, port, err := net.SplitHostPort(k.mysql)
		if err != nil {
			return err
		}
		login := []string{"--host=" + host, "--port=" + port, "--user=" + replicaUser}
		if err := d.folder.script(k.name, password, d.source.Tool(ctx, "mysql", login...).Args); err != nil {
			return err
		}
		binlog := append(login, "--read-from-remote-server", "--verbose")
		if err := d.folder.script(k.name+"-binlog", password, d.source.Tool(ctx, "mysqlbinlog", binlog...).Args); err != nil {
			return err
		}
	}
	return nil
}

// keepLogs copies the logs to where close does not remove them, and shows their last lines.
func (d *demo) keepLogs() {
	if d.folder == nil {
		return
	}
	type log struct{ name, path string }
	var logs []log
	for _, inst := range d.servers() {
		logs = append(logs, log{inst.Name + ".log", inst.ErrorLog})
	}
	for _, k := range d.nodes {
		logs = append(logs, log{k.name + ".log", k.log})
	}
	dir, err := os.MkdirTemp("", "kingbus-demo-logs-")
	if err != nil {
		d.view.notice("the logs could not be kept: %v", err)
		return
	}
	kept := 0
	for _, l := range logs {
		text, err := os.ReadFile(l.path)
		if err != nil {
			continue // never started
		}
		if err := os.WriteFile(filepath.Join(dir, l.name), text, 0o600); err != nil {
			d.view.notice("%s could not be kept: %v", l.name, err)
			continue
		}
		kept++
		d.view.line("\nThe end of %s:\n%s", l.name, indent(lastLines(l.path, 8)))
	}
	if kept == 0 {
		_ = os.Remove(dir)
		return
	}
	d.view.line("\nThe logs are kept in %s", dir)
}
