package gtid

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"kingbus/internal/mysqltest"
)

var update = flag.Bool("update", false, "write testdata/text.golden with the answers of a real MySQL 9.7")

// textCases are what testdata/text.golden holds MySQL's answers to: lines of
// the text and of what GTID_SUBTRACT(text, ”) made of it, or "error 1772", both
// quoted as in Go.
var textCases = []string{
	"", " ", "\n\t", ",", " , ,", u1, u1 + " ", u1 + ",", u1 + ":1", strings.ToUpper(u2) + ":1",
	u1 + ":1-1", u1 + ":5-3", u1 + ":5-0", u1 + ":5-4", u1 + ":5-3:7", u1 + ":1-5:7", u1 + ":7:1-5", u1 + ":1-5:6:4-9",
	u1 + ":1,\n" + u1 + ":2", u2 + ":1," + u1 + ":2", " " + u1 + " : 1 - 5 : 7 ,, " + u2 + ":1 ,",
	u1 + ":1-5:7:tag:1-3:9, " + u2 + ":4", u1 + ":tag:1:_b:2:a:3", u1 + ":TAG:1:tag:2", u1 + ":tag:1," + u1 + ":1",
	u1 + ":1-9223372036854775806", u1 + ":1-9223372036854775807", u1 + ":9223372036854775806", u1 + ":9223372036854775807",
	u1 + ":99999999999999999999", u1 + ":0", u1 + ":0-5", u1 + ":-5", u1 + ":1--5", u1 + ":1-", u1 + ":", u1 + "::1", u1 + ":1:",
	u1 + ":tag", u1 + ":tag:", u1 + ":tag,", u1 + ":tag 1", u1 + ":1 2", u1 + ":1;" + u2 + ":1", u1 + ":1 " + u2 + ":1",
	u1[1:] + ":1", "x", u1 + ":010", u1 + ":0x10", u1 + ":1-0x10", u1 + ":+1", u1 + ":1-+5", u1 + ":00001", u1 + ":1_000",
	u1 + ":\v1", u1 + ":\f1\r", u1 + ":1\x00", u1 + ":tag:tag2:1", u1 + ":tag::1", u1 + ": tag : 1", u1 + ":ta g:1",
	u1 + ":" + strings.Repeat("a", 32) + ":1", u1 + ":" + strings.Repeat("a", 33) + ":1", u1 + ":9a:1", u1 + ":a-b:1", u1 + ":ä:1",
	u1 + ":a:1:2-3:B:4:a:5", "{" + u1 + "}:1", strings.ReplaceAll(u1, "-", "") + ":1", "+" + u1 + ":1", u1 + ":1\n," + u2 + ":1",
	"\u00a0" + u1 + ":1", u1 + ":1,x", u1 + ":e:1", u1 + ":1e1", u1 + ":tag:5-3:7", u1 + ":tag:5-3", u1 + ":tag:1-3:1",
	"{" + strings.ReplaceAll(u1, "-", "") + "}:1", "{" + u1 + ":1", u1 + "}:1", u1[:35] + ":1", strings.ReplaceAll(u1, "-", "")[1:] + ":1",
	strings.Replace(u1, "-", "", 1) + ":1", "{" + u1 + "} : 1", u1 + ":tag:1,{" + u2 + "}:a", u1 + ":tag,:1", u1 + ":1-\n5", u1 + ":1\n-5",
}

const goldenFile = "testdata/text.golden"

func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`, "\x00", `\0`).Replace(s) + "'"
}

// realAnswers asks a server what it makes of textCases, in the form of the
// golden file.
func realAnswers(t *testing.T, s *mysqltest.Instance) []byte {
	var out []byte
	for _, text := range textCases {
		got, err := s.QueryValue(t.Context(), "SELECT GTID_SUBTRACT("+quote(text)+", '')")
		var refused *mysqltest.SQLError
		if errors.As(err, &refused) {
			got = fmt.Sprintf("error %d", refused.Code)
		} else if err != nil {
			t.Fatal(err)
		}
		out = fmt.Appendf(out, "%q %q\n", text, got)
	}
	return out
}

func TestTextGolden(t *testing.T) {
	b, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
	if len(lines) != len(textCases) {
		t.Fatalf("%s has %d lines, want %d: run the tests with -update", goldenFile, len(lines), len(textCases))
	}
	for _, line := range lines {
		quoted, err := strconv.QuotedPrefix(string(line))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := strconv.Unquote(quoted)
		want, err := strconv.Unquote(string(line[len(quoted)+1:]))
		if err != nil {
			t.Fatal(err)
		}
		set, err := ParseSet(text)
		got := set.String()
		if err != nil {
			got = "error 1772"
		}
		if got != want {
			t.Errorf("ParseSet(%q) = %q (%v), MySQL: %q", text, got, err, want)
		}
	}
}

// TestAgainstMySQL compares with a real server: the golden file, and
// arithmetic with random sets.
func TestAgainstMySQL(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a MySQL server")
	}
	s := mysqltest.Start(t, mysqltest.Options{Flavour: mysqltest.MySQL97})
	answers := realAnswers(t, s)
	if *update {
		if err := os.WriteFile(goldenFile, answers, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(goldenFile); err != nil || !bytes.Equal(answers, want) {
		t.Errorf("%s is not what this server says (%v); run with -update and look at the difference", goldenFile, err)
	}

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var sql strings.Builder
	type pair struct{ a, b Set }
	var pairs []pair
	for range 300 {
		p := pair{randomSet(r), randomSet(r)}
		if r.IntN(3) == 0 {
			p.b.AddSet(p.a) // so that subsets occur
		}
		pairs = append(pairs, p)
		a, b := quote(p.a.String()), quote(p.b.String())
		fmt.Fprintf(&sql, "SELECT GTID_SUBTRACT(%s, %s), GTID_SUBSET(%[1]s, %[2]s), GTID_SUBTRACT(%[1]s, GTID_SUBTRACT(%[1]s, %[2]s));\n", a, b)
	}
	rows, err := s.Query(t.Context(), sql.String())
	if err != nil || len(rows) != len(pairs) {
		t.Fatalf("%d rows, %v, want %d", len(rows), err, len(pairs))
	}
	for i, p := range pairs {
		subset := "0"
		if p.b.ContainsSet(p.a) {
			subset = "1"
		}
		for k, got := range []string{p.a.Subtract(p.b).String(), subset, p.a.Intersect(p.b).String()} {
			if got != rows[i][k] {
				t.Errorf("a = %q\nb = %q\n%s = %q, MySQL: %q", p.a, p.b, []string{"a-b", "a in b", "a and b"}[k], got, rows[i][k])
			}
		}
	}
}

func randomSet(r *rand.Rand) Set {
	var b builder
	for range r.IntN(12) {
		start := 1 + r.Int64N(20)
		b.add(b.sid(modelSIDs[r.IntN(len(modelSIDs))]), interval{start, start + 1 + r.Int64N(6)})
	}
	return b.set()
}
