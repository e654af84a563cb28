package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// fileValue is the value of a key in the YAML file.
type fileValue struct {
	text string
	line int
}

// settingsFile is a YAML file as it was read.
type settingsFile struct {
	name   string
	text   string
	values map[string]fileValue
}

// explain makes an error about the value of a key.
func (f *settingsFile) explain(key string, err error) error {
	return f.errorAt(f.values[key].line, fmt.Sprintf("%s: %v", key, err))
}

// secretRE finds what looks like a password, however it came into the file.
var secretRE = regexp.MustCompile(`(?im)(password|secret)["']?\s*:|mysql://[^@\s]*:[^@\s]*@`)

// showable tells whether errors may quote the file: not if it seems to hold a
// password, nor if it looks like no file of settings at all, since it may be a
// password file that was named by mistake.
func (f *settingsFile) showable() bool {
	if secretRE.MatchString(f.text) {
		return false
	}
	for line := range strings.Lines(f.text) {
		key, _, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok && slices.ContainsFunc(Settings(), func(s Setting) bool { return s.Key == key }) {
			return true
		}
	}
	return false
}

// errorAt makes an error with file, line and excerpt.
func (f *settingsFile) errorAt(line int, message string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: %s", f.name, line, message)
	if !f.showable() {
		return errors.New(b.String())
	}
	lines := strings.Split(strings.TrimRight(f.text, "\n"), "\n")
	for n := max(1, line-2); n <= min(line+1, len(lines)); n++ {
		mark := ' '
		if n == line {
			mark = '>'
		}
		fmt.Fprintf(&b, "\n%c %3d | %.200s", mark, n, strings.TrimRight(lines[n-1], "\r"))
	}
	return errors.New(b.String())
}

// readFile reads the YAML file: one map of settings to plain values. The text
// of a value counts as it stands, so that 010 or no mean the same here as in a
// flag.
func readFile(name string) (*settingsFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	defer f.Close()
	b := make([]byte, maxFile+1)
	n, err := readFull(f, b)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	if n > maxFile {
		return nil, fmt.Errorf("--config: %s has more than %d bytes, that is no file of settings", name, maxFile)
	}
	return parseFile(name, b[:n])
}

func parseFile(name string, text []byte) (*settingsFile, error) {
	f := &settingsFile{name: name, text: string(text), values: map[string]fileValue{}}
	parsed, err := parser.ParseBytes(text, 0)
	if err != nil {
		if at := yaml.Error(nil); errors.As(err, &at) && at.GetToken() != nil && at.GetToken().Position != nil {
			return nil, f.errorAt(at.GetToken().Position.Line, at.GetMessage())
		}
		return nil, fmt.Errorf("%s: it cannot be read as YAML: %w", name, err)
	}
	seen := false
	for _, doc := range parsed.Docs {
		if doc.Body == nil {
			continue
		}
		if _, ok := doc.Body.(*ast.NullNode); ok {
			continue
		}
		line := doc.Body.GetToken().Position.Line
		if seen {
			return nil, f.errorAt(line, "there is a second document; one file holds one list of settings")
		}
		seen = true
		m, ok := doc.Body.(ast.MapNode)
		if !ok {
			return nil, f.errorAt(line, "this is not a list of settings of the form KEY: VALUE")
		}
		for it := m.MapRange(); it.Next(); {
			if err := f.add(it.Key(), it.Value()); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

func (f *settingsFile) add(k ast.MapKeyNode, v ast.Node) error {
	key, line := k.GetToken().Value, k.GetToken().Position.Line
	setting, names := Setting{}, []string{}
	for _, s := range Settings() {
		if s.Key == key {
			setting = s
		}
		if !s.Secret {
			names = append(names, s.Key)
		}
	}
	switch {
	case setting.Key == "":
		return f.errorAt(line, fmt.Sprintf("%q is not a setting%s", key, suggest(key, names)))
	case setting.Secret:
		return f.errorAt(line, fmt.Sprintf("%s does not belong into this file: put the password into a file of its own and name that with %s-file, or set %s", key, key, setting.Env()))
	}
	if _, twice := f.values[key]; twice {
		return f.errorAt(line, fmt.Sprintf("%s stands here for the second time", key))
	}
	text, ok := plainText(v)
	if !ok {
		return f.errorAt(line, fmt.Sprintf("%s needs one plain value", key))
	}
	f.values[key] = fileValue{text: text, line: line}
	return nil
}

// plainText returns the text of a scalar.
func plainText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimSpace(n.Value.Value), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// readFull reads until the end or until b is full.
func readFull(r io.Reader, b []byte) (int, error) {
	n, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}

// suggest returns `, did you mean "x"?` if one of the names is close.
func suggest(wrong string, names []string) string {
	fold := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "-")) }
	best, at := 3, ""
	for _, n := range names {
		if d := distance(fold(wrong), fold(n)); d < best {
			best, at = d, n
		}
	}
	if at == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", at)
}

// distance is Levenshtein's, of texts that are short because they were bounded.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
