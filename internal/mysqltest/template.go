package mysqltest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// templateVersion is part of the cached template's name; raise it when the recipe below changes.
const templateVersion = "2"

var unsafeRE = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// template returns a data folder in which nobody has written yet, with root@localhost without password, no other
// account that can log in and no server uuid. It must be copied, never run.
func (s *Server) template(ctx context.Context, progress Progress) (string, error) {
	name := fmt.Sprintf("template-%s-%s-%s-%s", s.Flavour, runtime.GOARCH, unsafeRE.ReplaceAllString(s.Version, "_"), templateVersion)
	dir, err := cached(ctx, name, progress, func(dir string) error {
		progress.say("initialising a data folder for %s", s.Flavour)
		data := filepath.Join(dir, "data")
		var err error
		switch {
		case s.datadir != "":
			err = s.adoptData(ctx, data)
		case s.Flavour.MariaDB():
			err = s.bootstrapMariaDB(ctx, data)
		default:
			err = s.runOnce(ctx, "", "--initialize-insecure", "--datadir="+data, "--skip-log-bin",
				"--innodb-flush-method=nosync", "--innodb-redo-log-capacity=16M")
		}
		if err != nil {
			return fmt.Errorf("mysqltest: initialise %s: %w", s.Flavour, err)
		}
		// Every instance gets a uuid of its own.
		if err := os.Remove(filepath.Join(data, "auto.cnf")); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("mysqltest: %w", err)
		}
		return nil
	})
	return filepath.Join(dir, "data"), err
}

// bootstrapMariaDB does what mariadb-install-db does: it pipes the SQL files that come with the server into a server
// without networking.
func (s *Server) bootstrapMariaDB(ctx context.Context, data string) error {
	if err := os.Mkdir(data, 0o755); err != nil {
		return err
	}
	var sql strings.Builder
	sql.WriteString("CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\nSET @auth_root_socket=NULL, @skip_auth_anonymous=1;\n")
	// The files' names began with mysql_ before 11.x.
	for _, file := range []string{"*_system_tables.sql", "*_performance_tables.sql", "*_system_tables_data.sql",
		"fill_help_tables.sql", "maria_add_gis_sp_bootstrap.sql", "*_sys_schema.sql"} {
		found, _ := filepath.Glob(filepath.Join(s.share, file))
		if len(found) != 1 {
			return fmt.Errorf("%d files %s in %s, want 1", len(found), file, s.share)
		}
		text, err := os.ReadFile(found[0])
		if err != nil {
			return err
		}
		sql.Write(text)
		sql.WriteString("\n")
	}
	sql.WriteString("DELETE FROM global_priv WHERE Host <> 'localhost';\nDELETE FROM proxies_priv WHERE Host <> 'localhost';\n")
	return s.runOnce(ctx, sql.String(), "--bootstrap", "--datadir="+data, "--skip-log-bin",
		"--innodb-flush-method=nosync", "--enforce-storage-engine=", "--max-allowed-packet=8M", "--net-buffer-length=16K")
}

// adoptData takes the data folder that came with MySQL 5.6, and drops the anonymous accounts, which would shadow
// accounts of the form name@'%' for logins from this machine.
func (s *Server) adoptData(ctx context.Context, data string) error {
	if err := copyTree(ctx, s.datadir, data); err != nil {
		return err
	}
	return s.runOnce(ctx, "DELETE FROM mysql.user WHERE User = '' OR Host <> 'localhost';\nDELETE FROM mysql.db;\n",
		"--bootstrap", "--datadir="+data, "--innodb-flush-method=nosync")
}

// runOnce runs mysqld until it ends by itself.
func (s *Server) runOnce(ctx context.Context, stdin string, args ...string) error {
	args = append(append([]string{"--no-defaults"}, asRoot()...), args...)
	if strings.Contains(strings.Join(args, " "), "--bootstrap") {
		args = append(args, "--socket=", "--skip-networking")
	}
	cmd := s.command(ctx, args...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w:\n%s", filepath.Base(s.mysqld), err, lastLines(string(out), 15))
	}
	return nil
}

// asRoot returns the option without which mysqld refuses to run as root.
func asRoot() []string {
	if os.Getuid() == 0 {
		return []string{"--user=root"}
	}
	return nil
}

// copyTree copies a folder, sharing blocks where the file system can.
func copyTree(ctx context.Context, from, to string) error {
	out, err := exec.CommandContext(ctx, "cp", "-R", "--preserve=mode", "--reflink=auto", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy %s: %w: %s", from, err, lastLines(string(out), 3))
	}
	return nil
}
