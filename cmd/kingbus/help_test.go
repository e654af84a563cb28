package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// commands returns all commands that are ours, with the root.
func commands(t *testing.T) (all []*cobra.Command) {
	t.Helper()
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		all = append(all, cmd)
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(rootCommand(process{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}))
	if len(all) < 30 {
		t.Fatalf("only %d commands", len(all))
	}
	return all
}

// TestEveryHelp: whoever asks for help finds an example, whose commands and flags there are.
func TestEveryHelp(t *testing.T) {
	for _, cmd := range commands(t) {
		var out bytes.Buffer
		root := cmd.Root()
		root.SetOut(&out)
		root.SetArgs(append(strings.Fields(cmd.CommandPath())[1:], "--help"))
		if err := root.Execute(); err != nil {
			t.Errorf("%s --help: %v", cmd.CommandPath(), err)
		}
		if !strings.Contains(out.String(), "Examples:") || cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s --help: %s", cmd.CommandPath(), out.String())
		}
		example := strings.ReplaceAll(cmd.Example, "\\\n", "")
		if !strings.Contains(example, cmd.CommandPath()) {
			t.Errorf("%s has an example of something else: %s", cmd.CommandPath(), example)
		}
		for line := range strings.Lines(example) {
			line, _, _ = strings.Cut(line, "#")
			line, _, _ = strings.Cut(line, "|")
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "kingbus" {
				continue
			}
			for i, w := range words {
				words[i] = strings.Trim(w, `"`)
			}
			of, rest, err := root.Find(words[1:])
			if err != nil || of == root || !of.Runnable() {
				t.Errorf("an example of %s: %s: %v", cmd.CommandPath(), line, err)
				continue
			}
			if err := of.ParseFlags(rest); err != nil {
				t.Errorf("an example of %s: %s: %v", cmd.CommandPath(), line, err)
			} else if err := of.ValidateArgs(of.Flags().Args()); err != nil {
				t.Errorf("an example of %s: %s: %v", cmd.CommandPath(), line, err)
			}
		}
	}
}

// TestEveryListing: what shows something can show it to programs.
func TestEveryListing(t *testing.T) {
	listings := 0
	for _, cmd := range commands(t) {
		switch name := cmd.Name(); name {
		case "list", "show", "status", "verify", "inspect", "docs", "purge":
			if cmd.HasSubCommands() {
				continue
			}
			if listings++; cmd.Flags().Lookup("json") == nil {
				t.Errorf("%s has no --json", cmd.CommandPath())
			}
		}
	}
	if listings < 9 {
		t.Errorf("only %d listings", listings)
	}
}

// TestRootHelp: all commands are listed, and all exit codes.
func TestRootHelp(t *testing.T) {
	r := call(t, nil, "--help")
	for _, want := range []string{"serve", "status", "source", "replica", "node", "binlog", "user", "config", "verify", "export", "inspect", "recover", "version", "completion"} {
		if !strings.Contains(r.stdout, "\n  "+want+" ") {
			t.Errorf("no %s in\n%s", want, r.stdout)
		}
	}
	for _, code := range []int{0, exitFailed, exitUsage, exitStore, exitDamage, exitKilled, exitRefused} {
		if !strings.Contains(r.stdout, "\n  "+string(rune('0'+code))+"  ") {
			t.Errorf("no exit code %d in\n%s", code, r.stdout)
		}
	}
}
