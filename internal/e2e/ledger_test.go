package e2e

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"kingbus/internal/mysqltest"
)

// ledger writes transactions with numbers of their own, and remembers what is in
// each and which of them the source has called committed. The table has no unique
// key, so that nothing but correct replication keeps a row from coming twice. Each
// writer counts its transactions in a row of another table, too.
type ledger struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	written map[int]entry
	acked   map[int]bool
}

// entry is what a transaction writes: some rows, and the exclusive or of their
// checksums.
type entry struct {
	rows int
	sum  uint32
}

// perWriter is more than the transactions that a writer makes.
const perWriter = 10_000_000

// startLedger starts writers, which are connections, and go on when the source
// restarts.
func startLedger(t *testing.T, src *mysqltest.Instance, writers int) *ledger {
	t.Helper()
	sql := `CREATE DATABASE book; CREATE TABLE book.counter (writer INT PRIMARY KEY, n BIGINT NOT NULL);
		CREATE TABLE book.tx (id BIGINT NOT NULL, part INT NOT NULL, data LONGBLOB NOT NULL, KEY (id));`
	for i := range writers {
		sql += fmt.Sprintf(" INSERT INTO book.counter VALUES (%d, 0);", i)
	}
	if err := src.Exec(context.Background(), sql); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &ledger{cancel: cancel, written: map[int]entry{}, acked: map[int]bool{}}
	for i := range writers {
		l.wg.Go(func() { l.write(ctx, src, i) })
	}
	t.Cleanup(l.stop)
	return l
}

func (l *ledger) write(ctx context.Context, src *mysqltest.Instance, writer int) {
	rng := rand.New(rand.NewPCG(uint64(writer), 11))
	var s *mysqltest.Session
	for n := 1; ctx.Err() == nil; n++ {
		if s == nil {
			var err error
			if s, err = src.Session(ctx); err != nil {
				s = nil
				n--
				pause(ctx, 200*time.Millisecond)
				continue
			}
		}
		id := writer*perWriter + n
		sql, e := transaction(rng, writer, id)
		l.mu.Lock()
		l.written[id] = e
		l.mu.Unlock()
		if err := s.Exec(ctx, sql); err != nil { // it may be committed or not
			_ = s.Close()
			s = nil
			continue
		}
		l.mu.Lock()
		l.acked[id] = true
		l.mu.Unlock()
		if rng.IntN(500) == 0 {
			_ = s.Exec(ctx, fmt.Sprintf("CREATE TABLE IF NOT EXISTS book.w%d (a INT PRIMARY KEY); DROP TABLE book.w%[1]d", writer))
		}
		pause(ctx, time.Duration(rng.IntN(20))*time.Millisecond)
	}
	if s != nil {
		_ = s.Close()
	}
}

// transaction makes one, of one small row up to several hundred KB.
func transaction(rng *rand.Rand, writer, id int) (string, entry) {
	rows, size := 1, rng.IntN(2000)
	switch rng.IntN(100) {
	case 0:
		size = rng.IntN(700_000)
	case 1, 2:
		rows, size = 1+rng.IntN(200), rng.IntN(3000)
	case 3, 4, 5, 6, 7, 8, 9, 10:
		rows = 2 + rng.IntN(4)
	}
	var sql strings.Builder
	var sum uint32
	sql.WriteString("BEGIN; ")
	for part := range rows {
		word := fmt.Sprintf("%d.%d;", id, part)
		times := size/len(word) + 1
		sum ^= crc32.ChecksumIEEE(bytes.Repeat([]byte(word), times))
		fmt.Fprintf(&sql, "INSERT INTO book.tx VALUES (%d, %d, REPEAT('%s', %d)); ", id, part, word, times)
		if part == 0 && rng.IntN(40) == 0 {
			fmt.Fprintf(&sql, "SAVEPOINT s; INSERT INTO book.tx VALUES (%d, -1, 'is rolled back'); ROLLBACK TO s; ", id)
		}
	}
	fmt.Fprintf(&sql, "UPDATE book.counter SET n = n + 1 WHERE writer = %d; COMMIT", writer)
	return sql.String(), entry{rows, sum}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (l *ledger) stop() {
	l.cancel()
	l.wg.Wait()
}

// check looks for every transaction on a server: one that was called committed is
// there, whole and once; others may be, and then they, too, are whole and once.
func (l *ledger) check(t *testing.T, inst *mysqltest.Instance) {
	t.Helper()
	ctx := context.Background()
	rows, err := inst.Query(ctx, "SELECT id, COUNT(*), COUNT(DISTINCT part), BIT_XOR(CRC32(data)) FROM book.tx GROUP BY id")
	if err != nil {
		t.Fatal(err)
	}
	wrong := 0
	report := func(format string, args ...any) {
		if wrong++; wrong <= 20 {
			t.Errorf("%s: transaction %s", inst.Name, fmt.Sprintf(format, args...))
		}
	}
	there, perWriters := map[int]bool{}, map[int]int{}
	for _, row := range rows {
		id, _ := strconv.Atoi(row[0])
		there[id] = true
		perWriters[id/perWriter]++
		e, known := l.written[id]
		if want := []string{row[0], strconv.Itoa(e.rows), strconv.Itoa(e.rows), strconv.FormatUint(uint64(e.sum), 10)}; !known || fmt.Sprint(row) != fmt.Sprint(want) {
			report("%d: id, rows, different rows and checksum are %v, should be %v (acknowledged: %v)", id, row, want, l.acked[id])
		}
	}
	for id := range l.acked {
		if !there[id] {
			report("%d, which the source called committed, is missing", id)
		}
	}
	counters, err := inst.Query(ctx, "SELECT writer, n FROM book.counter")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range counters {
		if writer, _ := strconv.Atoi(row[0]); row[1] != strconv.Itoa(perWriters[writer]) {
			report("counter of writer %d is %s, there are %d", writer, row[1], perWriters[writer])
		}
	}
	t.Logf("%s: %d transactions, of which %d were acknowledged to writers; wrong: %d", inst.Name, len(rows), len(l.acked), wrong)
}
