package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"kingbus/internal/config"
	"kingbus/internal/variable"
)

func configCommand(p process) *cobra.Command {
	return group(&cobra.Command{
		Use: "config", Short: "Describe all settings, check a file with them, and change what holds for all nodes",
		Example: "  kingbus config check /etc/kingbus/kingbus.yaml\n  kingbus config docs\n  kingbus config show\n  kingbus config set binlog_expire_logs_seconds=604800",
	}, configShowCommand(p), configSetCommand(p), configResetCommand(p), configDocsCommand(p), &cobra.Command{
		Use: "check FILE", Short: "Say what kingbus serve --config FILE would say of its settings, and do nothing", Args: cobra.ExactArgs(1),
		Long: `Say what kingbus serve --config FILE would say of its settings, with the environment
as it is here, and do nothing. Passwords and certificates are read, too.`,
		Example: "  kingbus config check /etc/kingbus/kingbus.yaml",
		RunE:    func(_ *cobra.Command, args []string) error { return checkConfig(p, args[0]) },
	})
}

func configDocsCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use: "docs", Short: "Print every setting, with its default: docs/configuration.md", Args: cobra.NoArgs,
		Example: "  kingbus config docs | less\n  kingbus config docs --json",
	}
	asJSON := cmd.Flags().Bool("json", false, "print them as JSON")
	cmd.RunE = func(*cobra.Command, []string) error {
		if *asJSON {
			return withCode(exitFailed, writeJSON(p.stdout, settingDocs()))
		}
		return withCode(exitFailed, writeConfigDocs(p.stdout))
	}
	return cmd
}

// settingDoc is a setting as `kingbus config docs --json` prints it.
type settingDoc struct {
	Key      string `json:"key"` // in the file, and the flag without its dashes
	Variable string `json:"variable"`
	Value    string `json:"value,omitempty"` // its kind
	Default  string `json:"default"`
	Help     string `json:"help"`
	// VariableOnly: it is neither a flag nor in the file, since it is a password.
	VariableOnly bool `json:"variable_only"`
	// OfCommands: it means nothing to a node, but to the commands that ask one.
	OfCommands bool `json:"of_commands"`
}

func settingDocs() []settingDoc {
	var out []settingDoc
	for _, s := range config.Settings() {
		out = append(out, settingDoc{s.Key, s.Env(), s.Value, s.Default, s.Help, s.Secret, s.Command})
	}
	return out
}

// checkConfig finds out what a start would find out before it touches anything.
func checkConfig(p process, file string) error {
	cfg, err := config.Load(config.Input{Environ: p.environ, File: file})
	if err != nil {
		return withCode(exitUsage, err)
	}
	warnings, err := cfg.CheckServe()
	if err != nil {
		return withCode(exitUsage, err)
	}
	if _, err := newNode(cfg, slog.New(slog.DiscardHandler)); err != nil {
		return withCode(exitUsage, err)
	}
	for _, w := range warnings {
		fmt.Fprintln(p.stderr, "warning:", w)
	}
	_, err = fmt.Fprintf(p.stdout, "%s is fine\n", file)
	return withCode(exitFailed, err)
}

// writeConfigDocs writes docs/configuration.md.
func writeConfigDocs(out io.Writer) error {
	var b strings.Builder
	b.WriteString(`# Settings

Made by ` + "`kingbus config docs`" + `. Each setting of a node is a flag of ` + "`kingbus serve`" + `, an environment variable, and a key of the YAML file that ` + "`--config`" + ` or KINGBUS_CONFIG names; a flag wins over the
environment, that over the file. ` + "`kingbus config check FILE`" + ` says what is wrong with a file. What holds for the whole cluster is changed on-line, on any node: accounts and the source (see the README), and some variables, with SET PERSIST; they are on top of the settings that name them here, and RESET PERSIST takes that back.

| setting | variable | default | what |
| --- | --- | --- | --- |
`)
	cell := strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;")
	for _, s := range config.Settings() {
		name := "`--" + s.Key + "`"
		if s.Value != "" {
			name = "`--" + s.Key + " " + s.Value + "`"
		}
		if s.Command {
			name += ", of the commands that ask a node"
		}
		if s.Secret {
			name = s.Key + ", not as a flag, nor in the file"
		}
		def := s.Default
		if def != "" {
			def = "`" + def + "`"
		}
		help := s.Help
		for _, d := range variable.Definitions() {
			if d.Setting == s.Key {
				help += fmt.Sprintf("; on-line, for all nodes: `%s`", strings.Join(append([]string{d.Name}, d.Aliases...), "`, `"))
				if d.Unit != "" {
					help += ", in " + d.Unit
				}
			}
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", cell.Replace(name), s.Env(), cell.Replace(def), cell.Replace(help))
	}
	_, err := io.WriteString(out, b.String())
	return err
}
