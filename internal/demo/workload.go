package demo

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// The workload is a small shop. Every writer has orders and documents of its own, so that writers seldom wait for each
// other, but all of them update the same customers. Tables stop growing after a while.

const (
	customers = 500
	maxOrders = 1000 // per writer
	maxDocs   = 100  // per writer
	maxLedger = 2000 // per writer
)

// schema is what the writers need.
func schema() string {
	return `CREATE DATABASE shop;
CREATE TABLE shop.customers (id INT PRIMARY KEY, name VARCHAR(80) NOT NULL, balance DECIMAL(14,2) NOT NULL DEFAULT 0, note TEXT, seen DATETIME(6)) CHARACTER SET utf8mb4;
CREATE TABLE shop.orders (id BIGINT PRIMARY KEY, customer INT NOT NULL, state ENUM('open','paid','sent') NOT NULL DEFAULT 'open', total DECIMAL(12,2), made TIMESTAMP(6) NOT NULL, KEY (customer));
CREATE TABLE shop.items (order_id BIGINT, line INT, product VARCHAR(60) NOT NULL, price DECIMAL(10,2) NOT NULL, PRIMARY KEY (order_id, line));
CREATE TABLE shop.ledger (id BIGINT AUTO_INCREMENT PRIMARY KEY, writer INT NOT NULL, customer INT NOT NULL, amount DECIMAL(12,2) NOT NULL, booked TIMESTAMP(6) NOT NULL, KEY (writer));
CREATE TABLE shop.documents (id BIGINT PRIMARY KEY, body MEDIUMBLOB, about JSON);
CREATE TABLE shop.heartbeat (id INT PRIMARY KEY, beat BIGINT NOT NULL, written TIMESTAMP(6) NOT NULL);
INSERT INTO shop.heartbeat VALUES (1, 0, NOW(6));
INSERT INTO shop.customers (id, name) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < ` + fmt.Sprint(customers) + `) SELECT i, CONCAT('Größe & Söhne № ', i) FROM n;`
}

// writer makes the statements of one connection.
type writer struct {
	id                int
	rng               *rand.Rand
	firstOrder, order int64 // the orders [firstOrder, order) exist
	firstDoc, doc     int64
	ledger            int
}

func newWriter(id int) *writer {
	base := int64(id) * 1_000_000_000
	return &writer{id: id, rng: rand.New(rand.NewPCG(uint64(id), 20_26)), firstOrder: base, order: base, firstDoc: base, doc: base}
}

// next returns the statements of the next transaction, which end outside of any transaction.
func (w *writer) next() string {
	switch n := w.rng.IntN(100); {
	case w.order-w.firstOrder > maxOrders:
		return w.deleteOrders()
	case w.ledger > maxLedger:
		w.ledger -= 200
		return fmt.Sprintf("DELETE FROM shop.ledger WHERE writer = %d ORDER BY id LIMIT 200", w.id)
	case n < 35 || w.order == w.firstOrder:
		return w.newOrder("COMMIT")
	case n < 60:
		return w.pay()
	case n < 80:
		return fmt.Sprintf("UPDATE shop.customers SET seen = NOW(6), note = '%s' WHERE id = %d", w.text(80), w.customer())
	case n < 88:
		return fmt.Sprintf("UPDATE shop.orders SET state = 'sent', total = NULL WHERE id = %d", w.someOrder())
	case n < 92:
		return w.manyRows()
	case n < 96:
		return w.document()
	case n < 98: // leaves nothing in the binlog
		order := w.order
		sql := w.newOrder("ROLLBACK")
		w.order = order
		return sql
	default: // leaves the second half
		return fmt.Sprintf("BEGIN; SAVEPOINT s; DELETE FROM shop.items WHERE order_id = %d; ROLLBACK TO s; UPDATE shop.items SET price = price + 1 WHERE order_id = %[1]d; COMMIT", w.someOrder())
	}
}

func (w *writer) newOrder(end string) string {
	id, customer := w.order, w.customer()
	w.order++
	var rows []string
	for line := range 1 + w.rng.IntN(5) {
		rows = append(rows, fmt.Sprintf("(%d, %d, '%s', %d.%02d)", id, line, w.text(40), w.rng.IntN(1000), w.rng.IntN(100)))
	}
	return fmt.Sprintf("BEGIN; INSERT INTO shop.orders (id, customer, made) VALUES (%d, %d, NOW(6)); INSERT INTO shop.items VALUES %s; "+
		"UPDATE shop.orders SET total = (SELECT SUM(price) FROM shop.items WHERE order_id = %[1]d) WHERE id = %[1]d; %[4]s", id, customer, strings.Join(rows, ", "), end)
}

func (w *writer) pay() string {
	w.ledger++
	customer, cents := w.customer(), w.rng.IntN(10_000)
	return fmt.Sprintf("BEGIN; UPDATE shop.orders SET state = 'paid' WHERE id = %d; INSERT INTO shop.ledger (writer, customer, amount, booked) VALUES (%d, %d, %d / 100, NOW(6)); "+
		"UPDATE shop.customers SET balance = balance + %[4]d / 100 WHERE id = %[3]d; COMMIT", w.someOrder(), w.id, customer, cents)
}

func (w *writer) manyRows() string {
	from := w.someOrder()
	return fmt.Sprintf("UPDATE shop.items SET price = price * 1.01 WHERE order_id BETWEEN %d AND %d", from, from+40)
}

// document inserts a value of up to some 20 KB, and removes an old one when there are many.
func (w *writer) document() string {
	id := w.doc
	w.doc++
	sql := fmt.Sprintf("INSERT INTO shop.documents VALUES (%d, REPEAT(RANDOM_BYTES(100), %d), JSON_OBJECT('made', NOW(6), 'text', '%s', 'list', JSON_ARRAY(1, NULL, 2.5)))", id, 1+w.rng.IntN(200), w.text(60))
	if w.doc-w.firstDoc > maxDocs {
		sql = fmt.Sprintf("BEGIN; DELETE FROM shop.documents WHERE id = %d; %s; COMMIT", w.firstDoc, sql)
		w.firstDoc++
	}
	return sql
}

func (w *writer) deleteOrders() string {
	from := w.firstOrder
	w.firstOrder += 10
	return fmt.Sprintf("BEGIN; DELETE FROM shop.items WHERE order_id >= %d AND order_id < %d; DELETE FROM shop.orders WHERE id >= %[1]d AND id < %[2]d; COMMIT", from, w.firstOrder)
}

func (w *writer) customer() int { return 1 + w.rng.IntN(customers) }

// someOrder returns one that exists, if there is any.
func (w *writer) someOrder() int64 {
	return w.firstOrder + w.rng.Int64N(max(1, w.order-w.firstOrder))
}

// text returns a text of at most n letters, that needs no quoting.
func (w *writer) text(n int) string {
	letters := []rune("abcdefghijklmnopqrstuvwxyz  äöüß€😀中文")
	text := make([]rune, 1+w.rng.IntN(n))
	for i := range text {
		text[i] = letters[w.rng.IntN(len(letters))]
	}
	return string(text)
}

// ddl returns the nth statement that changes a definition (or fills a table that one made). They come round every six,
// with other names.
func ddl(n int) string {
	k := n / 6
	switch n % 6 {
	case 0:
		return fmt.Sprintf("CREATE TABLE shop.campaign_%d (id INT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(200))", k)
	case 1:
		return fmt.Sprintf("INSERT INTO shop.campaign_%d (text) SELECT name FROM shop.customers ORDER BY id LIMIT 100", k)
	case 2:
		return fmt.Sprintf("ALTER TABLE shop.campaign_%d ADD COLUMN price DECIMAL(8,2) DEFAULT 1.5, ADD INDEX (text)", k)
	case 3:
		return fmt.Sprintf("CREATE TABLE shop.winners_%d SELECT id, name, balance FROM shop.customers ORDER BY balance DESC LIMIT 10", k)
	case 4:
		if k%2 == 0 {
			return "ALTER TABLE shop.orders ADD INDEX by_state (state)"
		}
		return "ALTER TABLE shop.orders DROP INDEX by_state"
	default:
		if k == 0 {
			return "CREATE VIEW shop.open_orders AS SELECT * FROM shop.orders WHERE state = 'open'"
		}
		return fmt.Sprintf("DROP TABLE shop.campaign_%d, shop.winners_%[1]d", k-1)
	}
}
