package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"kingbus/internal/config"
)

// settingFlags makes flags of settings, those of a node if no keys are given, and
// --config. What it returns loads them once the command line has been parsed.
func settingFlags(cmd *cobra.Command, p process, keys ...string) func() (*config.Config, error) {
	return settingFlagsOr(cmd, p, "", keys...)
}

// settingFlagsOr is settingFlags with a file for when nothing is given: config.Input's Fallback.
func settingFlagsOr(cmd *cobra.Command, p process, fallback string, keys ...string) func() (*config.Config, error) {
	flags := cmd.Flags()
	flags.SortFlags = false
	file := flags.String("config", "", "YAML file with settings, each under the name of its flag (or set KINGBUS_CONFIG)")
	values := map[string]*flagValue{}
	for _, s := range config.Settings() {
		if s.Secret || len(keys) > 0 && !slices.Contains(keys, s.Key) || len(keys) == 0 && s.Command {
			continue
		}
		v := &flagValue{text: s.Default, kind: s.Value}
		values[s.Key] = v
		f := flags.VarPF(v, s.Key, "", fmt.Sprintf("%s [$%s]", s.Help, s.Env()))
		if s.Switch {
			f.NoOptDefVal = "true"
		}
	}
	return func() (*config.Config, error) {
		in := config.Input{Flags: map[string]string{}, Environ: p.environ, File: *file, Fallback: fallback}
		for key, v := range values {
			if v.given {
				in.Flags[key] = v.text
			}
		}
		c, err := config.Load(in)
		return c, withCode(exitUsage, err)
	}
}

// flagValue is a flag that keeps its text; package config understands it.
type flagValue struct {
	text, kind string
	given      bool
}

func (v *flagValue) String() string { return v.text }
func (v *flagValue) Type() string   { return v.kind }
func (v *flagValue) Set(s string) error {
	v.text, v.given = s, true
	return nil
}
