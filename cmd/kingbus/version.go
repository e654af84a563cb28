package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"kingbus/internal/cluster"
)

// version is set by the linker (see the Makefile); without it the build's own
// information tells.
var version string

// versionText returns the version of the program, like "v1.2.3" or "devel
// 71d1340c9a2b (changed)".
func versionText() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	text := "devel"
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			text += " " + s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			text += " (changed)"
		}
	}
	return text
}

func versionCommand(p process) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of the program and of the newest data format that it writes",
		Example: "  kingbus version",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(p.stdout, "kingbus %s\n%s %s/%s\ndata format %d\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH, cluster.Format)
			return withCode(exitFailed, err)
		},
	}
}
