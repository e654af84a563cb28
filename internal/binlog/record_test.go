package binlog

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"kingbus/internal/mysqltest"
)

var update = flag.Bool("update", false, "write the golden files with what real servers say")

// golden is one binlog file and what its server says of it.
type golden struct {
	name   string
	file   []byte
	events [][]string // rows of SHOW BINLOG EVENTS: pos, type, server id, end, info
	ends   []uint64   // where the file ended after each statement that wrote to it, but for ROTATE and STOP
}

func goldenPath(name string) string { return filepath.Join("testdata", name+".golden.gz") }

// write stores the events as lines of quoted fields, then the ends, then the
// file.
func (g *golden) write(t *testing.T) {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	for _, row := range g.events {
		fmt.Fprintf(z, "event %q\n", row)
	}
	fmt.Fprintf(z, "ends %d\nfile\n", g.ends)
	z.Write(g.file)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenPath(g.name), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readGolden(t testing.TB, path string) *golden {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	g := &golden{name: strings.TrimSuffix(filepath.Base(path), ".golden.gz")}
	for {
		line, rest, ok := bytes.Cut(all, []byte("\n"))
		if !ok {
			t.Fatalf("%s: no file in it", path)
		}
		all = rest
		text := string(line)
		switch kind, _, _ := strings.Cut(text, " "); kind {
		case "event":
			var row []string
			for text = text[len("event ["):]; text != "]"; text = strings.TrimPrefix(text, " ") {
				q, err := strconv.QuotedPrefix(text)
				if err != nil {
					t.Fatalf("%s: %q: %v", path, text, err)
				}
				field, _ := strconv.Unquote(q)
				row, text = append(row, field), text[len(q):]
			}
			g.events = append(g.events, row)
		case "ends":
			for _, n := range strings.Fields(strings.Trim(text, "ends []")) {
				end, err := strconv.ParseUint(n, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				g.ends = append(g.ends, end)
			}
		case "file":
			g.file = all
			return g
		}
	}
}

func goldens(t testing.TB) []*golden {
	paths, err := filepath.Glob(goldenPath("*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	var all []*golden
	for _, p := range paths {
		all = append(all, readGolden(t, p))
	}
	return all
}

// recorder runs scenarios on a server.
type recorder struct {
	t      *testing.T
	server *mysqltest.Instance
	main   *mysqltest.Session
	other  *mysqltest.Session
	load   string
}

func newRecorder(t *testing.T, opts mysqltest.Options) *recorder {
	r := &recorder{t: t, server: mysqltest.Start(t, opts)}
	r.load = filepath.Join(r.server.Dir, "load.txt")
	var lines strings.Builder
	for n := range 10 {
		fmt.Fprintf(&lines, "%d\n", n)
	}
	if err := os.WriteFile(r.load, []byte(lines.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	r.connect()
	t.Cleanup(r.disconnect)
	return r
}

func (r *recorder) connect() {
	var err error
	for _, s := range []**mysqltest.Session{&r.main, &r.other} {
		if *s, err = r.server.Session(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *recorder) disconnect() {
	for _, s := range []*mysqltest.Session{r.main, r.other} {
		if err := s.Close(); err != nil {
			r.t.Error(err)
		}
	}
}

// status returns the current file and its end.
func (r *recorder) status() (string, uint64) {
	sql := "SHOW BINARY LOG STATUS"
	if r.server.Server.Flavour != mysqltest.MySQL97 {
		sql = "SHOW MASTER STATUS"
	}
	rows, err := r.server.Query(r.t.Context(), sql)
	if err != nil || len(rows) != 1 {
		r.t.Fatal(rows, err)
	}
	pos, err := strconv.ParseUint(rows[0][1], 10, 64)
	if err != nil {
		r.t.Fatal(err)
	}
	return rows[0][0], pos
}

// run runs a scenario and returns the last file that it finished.
func (r *recorder) run(s scenario) *golden {
	g := &golden{name: s.name}
	if err := r.server.Exec(r.t.Context(), "FLUSH BINARY LOGS"); err != nil {
		r.t.Fatal(err)
	}
	r.disconnect()
	r.connect() // forget variables
	file, pos := r.status()
	finished := ""
	for _, sql := range s.sql {
		r.statement(sql)
		nowFile, now := r.status()
		switch {
		case nowFile != file:
			finished = file
			if sql != s.sql[len(s.sql)-1] {
				g.ends = nil // the one that counts comes later
			}
		case now != pos:
			g.ends = append(g.ends, now)
		}
		file, pos = nowFile, now
	}
	var err error
	if g.file, err = os.ReadFile(filepath.Join(r.server.DataDir, finished)); err != nil {
		r.t.Fatal(err)
	}
	rows, err := r.server.Query(r.t.Context(), "SHOW BINLOG EVENTS IN '"+finished+"'")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, row := range rows {
		info := row[5]
		if len(info) > 3000 { // a long statement
			info = info[:3000] + "..."
		}
		g.events = append(g.events, append(slices.Clone(row[1:5]), info))
	}
	return g
}

// notWithGTIDs are the errors for what GTIDs, or their absence, forbid.
var notWithGTIDs = []int{1781, 1785, 1787, 3748}

func (r *recorder) statement(sql string) {
	sql = strings.ReplaceAll(sql, "LOAD'", r.load+"'")
	if sql == "restart" {
		r.disconnect()
		if err := r.server.Restart(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		r.connect()
		return
	}
	session := r.main
	if rest, ok := strings.CutPrefix(sql, "other:"); ok {
		session, sql = r.other, rest
	}
	sql, mustFail := strings.CutPrefix(sql, "?")
	sql, mayFail := strings.CutPrefix(sql, "~")
	err := session.Exec(r.t.Context(), sql)
	var refused *mysqltest.SQLError
	if errors.As(err, &refused) && (mayFail || slices.Contains(notWithGTIDs, refused.Code)) {
		return
	}
	if (err != nil) != mustFail {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

// TestAgainstServers fills binlogs on real servers and checks them as TestGolden
// checks the golden files. With -update it writes those.
func TestAgainstServers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts MySQL servers")
	}
	gtid56 := []string{"--gtid-mode=ON", "--enforce-gtid-consistency", "--log-slave-updates"}
	for _, tc := range []struct {
		name      string
		opts      mysqltest.Options
		scenarios []scenario
	}{
		{"9.7", mysqltest.Options{Flavour: mysqltest.MySQL97}, slices.Concat(scenarios97, off(scenarios97))},
		{"5.6", mysqltest.Options{Flavour: mysqltest.MySQL56}, scenarios56},
		{"5.6 with GTIDs", mysqltest.Options{Flavour: mysqltest.MySQL56, Args: gtid56}, scenarios56GTID},
		{"MariaDB 10.11", mysqltest.Options{Flavour: mysqltest.MariaDB1011}, scenariosMaria("maria1011")},
		{"MariaDB 11.8", mysqltest.Options{Flavour: mysqltest.MariaDB118}, scenariosMaria("maria118")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRecorder(t, tc.opts)
			for _, s := range tc.scenarios {
				g := r.run(s)
				if *update {
					g.write(t)
				}
				t.Run(s.name, func(t *testing.T) { checkGolden(t, g) })
			}
		})
	}
}
