package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// open makes a pool of the driver that most Go programs use.
func (r *clientRig) open(t *testing.T, change func(*mysql.Config)) *sql.DB {
	t.Helper()
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr = opsUser, password, "tcp", fmt.Sprintf("127.0.0.1:%d", r.p.mysqlPort)
	cfg.TLSConfig, cfg.ParseTime, cfg.Logger = "skip-verify", true, &mysql.NopLogger{}
	if change != nil {
		change(cfg)
	}
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(c)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// driver is go-sql-driver/mysql, with prepared statements and without, with TLS and without.
func (r *clientRig) driver(t *testing.T) {
	for name, change := range map[string]func(*mysql.Config){
		"prepared":     nil,
		"interpolated": func(c *mysql.Config) { c.InterpolateParams = true },
		"without TLS":  func(c *mysql.Config) { c.TLSConfig = "" },
		"native":       func(c *mysql.Config) { c.TLSConfig, c.User = "", legacyUser },
		"found rows":   func(c *mysql.Config) { c.ClientFoundRows, c.ColumnsWithAlias, c.CheckConnLiveness = true, true, false },
		"long data":    func(c *mysql.Config) { c.MaxAllowedPacket = 1 << 16 },
	} {
		t.Run(name, func(t *testing.T) { useDriver(t, r.open(t, change), name == "interpolated") })
	}
	t.Run("cancel", r.cancel)
	t.Run("killed", r.killed)
}

func useDriver(t *testing.T, db *sql.DB, interpolated bool) {
	ctx := context.Background()
	db.SetMaxOpenConns(30)
	db.SetMaxIdleConns(30)
	db.SetConnMaxLifetime(20 * time.Millisecond)
	if err := db.PingContext(ctx); err != nil {
		t.Fatal(err)
	}
	shared, err := db.Prepare("SELECT CONCAT(?, '-', ?), ? IS NULL, ? + 1")
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			for range 10 {
				var text string
				var null bool
				var sum int64
				if err := shared.QueryRowContext(ctx, "it's", i, nil, i).Scan(&text, &null, &sum); err != nil || text != fmt.Sprintf("it's-%d", i) || !null || sum != int64(i)+1 {
					t.Errorf("%q, %v, %d, %v", text, null, sum, err)
					return
				}
				if err := db.PingContext(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	eventually(t, "a connection is given up for its age", func() bool { return db.Ping() == nil && db.Stats().MaxLifetimeClosed > 0 })

	// Values of all types come back as they went.
	at := time.Date(2026, 1, 31, 1, 2, 3, 123456000, time.UTC)
	for _, v := range []any{int64(math.MinInt64), "text", []byte("bytes"), 1.5, true, strings.Repeat("x", 100_000)} {
		var got string
		if err := db.QueryRowContext(ctx, "SELECT CONCAT(?)", v).Scan(&got); err != nil {
			t.Errorf("%T: %v", v, err)
		}
		want := fmt.Sprint(v)
		switch v := v.(type) {
		case []byte:
			want = string(v)
		case bool:
			want = "1"
		}
		if got != want {
			t.Errorf("%T: %.60q, want %.60q", v, got, want)
		}
	}
	var text string
	if err := db.QueryRowContext(ctx, "SELECT CONCAT(?)", at).Scan(&text); err != nil || text != "2026-01-31 01:02:03.123456" {
		t.Errorf("time: %q, %v", text, err)
	}
	var largest uint64
	if err := db.QueryRowContext(ctx, "SELECT ?", uint64(math.MaxUint64)).Scan(&largest); err != nil || largest != math.MaxUint64 {
		t.Errorf("uint64: %d, %v", largest, err)
	}
	var now, moment time.Time
	var uuid sql.NullString
	if err := db.QueryRowContext(ctx, "SELECT NOW(6), @@server_uuid WHERE ? = 5", 5).Scan(&now, &uuid); err != nil || time.Since(now).Abs() > 24*time.Hour || !uuid.Valid {
		t.Errorf("now: %v, %v, %v", now, uuid, err)
	}
	if !interpolated { // which makes text of it
		if err := db.QueryRowContext(ctx, "SELECT ?", at).Scan(&text); err == nil {
			moment, err = time.Parse("2006-01-02 15:04:05.999999", text)
			if err != nil || !moment.Equal(at) {
				t.Errorf("time: %q, %v", text, err)
			}
		} else {
			t.Error(err)
		}
	}
	// What is for replication, with a value and without, as rows.
	for _, q := range []struct {
		text string
		args []any
	}{{"SHOW BINARY LOGS", nil}, {"SHOW BINLOG EVENTS LIMIT ?", []any{3}}, {"SHOW VARIABLES WHERE Variable_name IN (?, ?)", []any{"gtid_mode", "server_id"}}, {"SHOW REPLICA STATUS", nil}, {"SHOW PROCESSLIST", nil},
		{"SELECT CHANNEL_NAME, SERVICE_STATE FROM performance_schema.replication_connection_status WHERE CHANNEL_NAME = ?", []any{""}}} {
		st, err := db.PrepareContext(ctx, q.text)
		if err != nil {
			t.Errorf("%s: %v", q.text, err)
			continue
		}
		rows, err := st.QueryContext(ctx, q.args...)
		if err != nil {
			t.Errorf("%s: %v", q.text, err)
			continue
		}
		columns, _ := rows.Columns()
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		n := 0
		for ; rows.Next(); n++ {
			if err := rows.Scan(values...); err != nil {
				t.Errorf("%s: %v", q.text, err)
			}
		}
		if err := rows.Err(); err != nil || n == 0 || len(columns) == 0 {
			t.Errorf("%s: %d rows of %d columns, %v", q.text, n, len(columns), err)
		}
		_ = st.Close()
	}
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("SET @a = ?", 7); err != nil {
		t.Error(err)
	}
	var a int
	if err := tx.QueryRow("SELECT @a").Scan(&a); err != nil || a != 7 {
		t.Errorf("@a is %d, %v", a, err)
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	var refusal *mysql.MySQLError
	if _, err := db.ExecContext(ctx, "INSERT INTO t VALUES (?)", 1); !errors.As(err, &refusal) || refusal.Number != 1235 {
		t.Errorf("INSERT: %v", err)
	}
}

// processes are the sessions of the user whose statement begins as given.
func processes(t *testing.T, db *sql.DB, statement string) int {
	t.Helper()
	var n int
	if err := db.QueryRow("SELECT COUNT(*) FROM information_schema.processlist WHERE INFO LIKE CONCAT(?, '%')", statement).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("%s: it did not come about", what)
		}
	}
}

// cancel: a context that is cancelled ends the wait at once. The driver sends no KILL, it
// closes the connection; kingbus notices, and ends the statement.
func (r *clientRig) cancel(t *testing.T) {
	db, watch := r.open(t, nil), r.open(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := make(chan error, 1)
	const wait = "SELECT WAIT_FOR_EXECUTED_GTID_SET(?)"
	go func() {
		var n int
		failed <- db.QueryRowContext(ctx, wait, "11111111-1111-1111-1111-111111111111:1").Scan(&n)
	}()
	eventually(t, "the statement waits", func() bool { return processes(t, watch, wait) == 1 })
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	eventually(t, "the statement has ended", func() bool { return processes(t, watch, wait) == 0 })
	if err := db.Ping(); err != nil {
		t.Errorf("the pool after that: %v", err)
	}
}

// killed: a pool whose connections are killed goes on with new ones.
func (r *clientRig) killed(t *testing.T) {
	db, other := r.open(t, nil), r.open(t, nil)
	db.SetMaxOpenConns(1)
	var before, after uint64
	if err := db.QueryRow("SELECT CONNECTION_ID()").Scan(&before); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(fmt.Sprintf("KILL %d", before)); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec("KILL ?", before); err == nil { // no parameter may be there
		t.Error("KILL is prepared with a parameter")
	}
	eventually(t, "another connection", func() bool { return db.QueryRow("SELECT CONNECTION_ID()").Scan(&after) == nil })
	if after == before {
		t.Error("the session lives")
	}
}
