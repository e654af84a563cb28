package mysqltest

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// SQLError is what a server answered instead of a result.
type SQLError struct {
	Code    int    // e.g. 1146
	State   string // e.g. "42S02"
	Message string
}

func (e *SQLError) Error() string {
	return fmt.Sprintf("ERROR %d (%s): %s", e.Code, e.State, e.Message)
}

// sqlErrorRE is how the mysql client prints an error in batch mode.
var sqlErrorRE = regexp.MustCompile(`(?m)^ERROR (\d+) \((\w{5})\)(?: at line \d+)?: (.*)$`)

func parseSQLError(text string) error {
	m := sqlErrorRE.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	code, _ := strconv.Atoi(m[1]) // the expression admits digits only
	return &SQLError{Code: code, State: m[2], Message: m[3]}
}

// Tool builds a run of a client program of the instance's flavour, with the options that Server.Tool gives it and no
// others: it does not say where to connect to.
func (i *Instance) Tool(ctx context.Context, name string, args ...string) *exec.Cmd {
	return i.Server.Tool(ctx, name, args...)
}

// client builds a run of the mysql client as root over the socket, in batch mode.
func (i *Instance) client(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{"--socket=" + i.Socket, "--user=root", "--batch", "--skip-column-names", "--default-character-set=utf8mb4", "--max-allowed-packet=1G"}, args...)
	if i.Server.Flavour == MySQL56 {
		// The newer client asks for a collation that 5.6 does not know, and gets latin1.
		args = append(args, "--init-command=SET NAMES utf8mb4")
	}
	return i.Tool(ctx, "mysql", args...)
}

// Exec runs one or more statements, separated by semicolons, as root in a session of its own. It stops at the first
// error, which is an *SQLError if it came from the server.
func (i *Instance) Exec(ctx context.Context, sql string) error {
	_, err := i.run(ctx, sql)
	return err
}

// Query is Exec that returns the rows of all results, one after another. A NULL reads "NULL", as the mysql client prints
// it; where that matters select QUOTE(column), which puts quotes around everything else.
func (i *Instance) Query(ctx context.Context, sql string) ([][]string, error) {
	out, err := i.run(ctx, sql)
	if err != nil {
		return nil, err
	}
	return parseBatch(out), nil
}

func (i *Instance) run(ctx context.Context, sql string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := i.client(ctx)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(sql), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if serr := parseSQLError(stderr.String()); serr != nil {
			return "", fmt.Errorf("%s: %s: %w", i.Name, abbreviate(sql), serr)
		}
		return "", fmt.Errorf("%s: %s: %w: %s", i.Name, abbreviate(sql), err, lastLines(stderr.String(), 3))
	}
	return stdout.String(), nil
}

func abbreviate(sql string) string {
	sql = strings.Join(strings.Fields(sql), " ")
	if len(sql) > 200 {
		sql = sql[:200] + "…"
	}
	return sql
}

// parseBatch reads the output of mysql --batch: one line per row, columns separated by tabs, with \t, \n, \0 and \\
// standing for what would break that.
func parseBatch(out string) [][]string {
	var rows [][]string
	for line := range strings.Lines(out) {
		row := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		for c := range row {
			row[c] = unescapeBatch(row[c])
		}
		rows = append(rows, row)
	}
	return rows
}

func unescapeBatch(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for k := 0; k < len(s); k++ {
		if s[k] != '\\' || k+1 == len(s) {
			b.WriteByte(s[k])
			continue
		}
		k++
		switch s[k] {
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case '0':
			b.WriteByte(0)
		default:
			b.WriteByte(s[k])
		}
	}
	return b.String()
}

// QueryValue returns the first column of the first row.
func (i *Instance) QueryValue(ctx context.Context, sql string) (string, error) {
	rows, err := i.Query(ctx, sql)
	if err != nil {
		return "", err
	}
	if len(rows) == 0 {
		return "", fmt.Errorf("%s: %s: no rows", i.Name, abbreviate(sql))
	}
	return rows[0][0], nil
}
