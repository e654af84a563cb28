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

// startReplica makes the replica follow kingbus, as it would follow a MySQL.
func (d *demo) startReplica(ctx context.Context) error {
	host, port, err := net.SplitHostPort(d.kingbus.mysql)
	if err != nil {
		return err
	}
	return d.replica.Exec(ctx, fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='%s', SOURCE_PORT=%s, SOURCE_USER='%s', SOURCE_PASSWORD='%s', "+
		"SOURCE_AUTO_POSITION=1, SOURCE_SSL=1, SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=86400, SOURCE_HEARTBEAT_PERIOD=1; START REPLICA",
		host, port, replicaUser, d.kingbus.password))
}

// writeScripts makes what a user can call to look around: the mysql client may lie in a cache folder, where nobody would
// find it.
func (d *demo) writeScripts(ctx context.Context) error {
	for name, inst := range map[string]*mysqltest.Instance{"source": d.source, "replica": d.replica} {
		if err := os.Symlink(inst.ErrorLog, d.folder.file(name+".log")); err != nil {
			return err
		}
		mysql := inst.Tool(ctx, "mysql", "--socket="+inst.Socket, "--user=root")
		if err := d.folder.script(name, "", mysql.Args); err != nil {
			return err
		}
	}
	if err := d.folder.script("kingbus-status", "", []string{d.cfg.Kingbus, "status", "--admin-listen", d.kingbus.admin}); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(d.kingbus.mysql)
	if err != nil {
		return err
	}
	login := []string{"--host=" + host, "--port=" + port, "--user=" + replicaUser}
	password := fmt.Sprintf("MYSQL_PWD=%s; export MYSQL_PWD\n", d.kingbus.password)
	if err := d.folder.script("kingbus", password, d.replica.Tool(ctx, "mysql", login...).Args); err != nil {
		return err
	}
	binlog := append(login, "--read-from-remote-server", "--verbose")
	return d.folder.script("kingbus-binlog", password, d.replica.Tool(ctx, "mysqlbinlog", binlog...).Args)
}

// keepLogs copies the logs to where close does not remove them, and shows their last lines.
func (d *demo) keepLogs() {
	if d.folder == nil {
		return
	}
	logs := map[string]string{"kingbus.log": d.folder.file("kingbus.log")}
	for name, inst := range map[string]*mysqltest.Instance{"source.log": d.source, "replica.log": d.replica} {
		if inst != nil {
			logs[name] = inst.ErrorLog
		}
	}
	dir, err := os.MkdirTemp("", "kingbus-demo-logs-")
	if err != nil {
		d.view.notice("the logs could not be kept: %v", err)
		return
	}
	kept := 0
	for _, name := range []string{"source.log", "replica.log", "kingbus.log"} {
		text, err := os.ReadFile(logs[name])
		if err != nil {
			continue // never started
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			d.view.notice("%s could not be kept: %v", name, err)
			continue
		}
		kept++
		d.view.line("\nThe end of %s:\n%s", name, indent(lastLines(logs[name], 8)))
	}
	if kept == 0 {
		_ = os.Remove(dir)
		return
	}
	d.view.line("\nThe logs are kept in %s", dir)
}
