package server

import (
	"strings"
	"testing"

	"kingbus/internal/mysqltest"
	"kingbus/internal/wire"
)

// TestIntervalSame: dates are counted as a real 9.7 counts them.
func TestIntervalSame(t *testing.T) {
	inst := mysqltest.Start(t, mysqltest.Options{Name: "source"})
	exec(t, inst, "CREATE USER '"+testUser+"'@'%' IDENTIFIED BY '"+strings.ReplaceAll(testPassword, "'", "''")+"'")
	r := newRig(t)
	a, b := dial(t, inst.Addr(), testUser, testPassword, wire.TLSRequired), r.dial()
	defer a.Close()
	defer b.Close()
	for _, s := range []string{
		"'2026-03-31' - INTERVAL 1 MONTH", "'2024-02-29' + INTERVAL 1 YEAR", "'2026-11-28 10:00:00' - INTERVAL 36 HOUR", "'2026-11-28' - INTERVAL 1 SECOND", "'2026-11-28' + INTERVAL 0 MINUTE",
		"'2026-11-28 10:00:00' - INTERVAL 7 DAY", "DATE_SUB('2026-01-01', INTERVAL 1 WEEK)", "DATE_ADD('2026-01-31', INTERVAL 1 QUARTER)", "INTERVAL 1 DAY + '2026-01-01'",
		"'2026-01-01' - INTERVAL -1 DAY", "'2026-01-01' - INTERVAL NULL DAY", "NULL - INTERVAL 1 DAY", "'9999-12-31' + INTERVAL 1 DAY", "'2026-01-01 00:00:00' + INTERVAL 1.5 SECOND",
		"'2026-01-01 00:00:00' + INTERVAL 1 MICROSECOND", "'2026-01-01 12:00:00' + INTERVAL (1 + 1) HOUR", "'rubbish' - INTERVAL 1 DAY", "'2026-01-01' + INTERVAL 100000000 DAY",
		"'2026-01-01' + INTERVAL 86400000000 MICROSECOND", "'2026-01-01' + INTERVAL 8640000000000 MICROSECOND", "'2026-01-01' - INTERVAL 1e300 SECOND", "'2026-01-01' + INTERVAL 9223372036854775807 YEAR",
	} {
		_, want := answerText(t, a, "SELECT "+s)
		_, got := answerText(t, b, "SELECT "+s)
		if got != want {
			t.Errorf("%s: %q, 9.7 says %q", s, got, want)
		}
	}
	if _, got := answerText(t, b, "SELECT UNIX_TIMESTAMP(NOW() - INTERVAL 2 DAY) - UNIX_TIMESTAMP(NOW()) = -2 * 86400"); got != "1\n" {
		t.Errorf("two days before now: %s", got)
	}
	if _, got := answerText(t, b, "SELECT INTERVAL 1 DAY"); !strings.Contains(got, "1064") && !strings.Contains(got, "1235") {
		t.Errorf("an interval alone: %s", got)
	}
}
