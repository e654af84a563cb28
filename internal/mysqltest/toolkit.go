package mysqltest

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Toolkit is percona-toolkit, with a perl and its modules of its own.
type Toolkit struct {
	root   string
	loader []string
}

// FindToolkit returns percona-toolkit from the cache, or from the Debian archive that this machine's apt is configured
// for: about half a minute and 30 MB. The error wraps ErrUnavailable if it cannot be had.
func FindToolkit(ctx context.Context, progress Progress) (*Toolkit, error) {
	src := debianSource{suite: "unstable", packages: []string{"percona-toolkit"}}
	dir, err := cached(ctx, "percona-toolkit-"+runtime.GOARCH+layout, progress, func(dir string) error {
		progress.say("fetching percona-toolkit from the Debian archive")
		if err := fetchDebian(ctx, dir, src, progress); err != nil {
			return fmt.Errorf("mysqltest: percona-toolkit: %w: %w", ErrUnavailable, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	t := &Toolkit{root: filepath.Join(dir, "root")}
	t.loader, err = loaderOf(t.root)
	return t, err
}

// Command builds a run of a tool, such as pt-heartbeat.
func (t *Toolkit) Command(ctx context.Context, tool string, args ...string) *exec.Cmd {
	return t.Perl(ctx, append([]string{filepath.Join(t.root, "usr/bin", tool)}, args...)...)
}

// Perl builds a run of the toolkit's perl, which has DBI and DBD::mysql.
func (t *Toolkit) Perl(ctx context.Context, args ...string) *exec.Cmd {
	argv := append(append([]string{}, t.loader...), filepath.Join(t.root, "usr/bin/perl"))
	argv = append(argv, args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var libs []string
	for _, pattern := range []string{"usr/share/perl5", "usr/share/perl/5.*", "usr/lib/*/perl5/5.*", "usr/lib/*/perl/5.*", "usr/lib/*/perl-base"} {
		found, _ := filepath.Glob(filepath.Join(t.root, pattern))
		libs = append(libs, found...)
	}
	plugins, _ := filepath.Glob(filepath.Join(t.root, "usr/lib/*/libmariadb3/plugin"))
	cmd.Env = append(cleanEnv(), "PERL5LIB="+strings.Join(libs, ":"), "MARIADB_PLUGIN_DIR="+strings.Join(plugins, ""))
	return cmd
}
