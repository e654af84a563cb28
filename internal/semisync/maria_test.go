package semisync

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"kingbus/internal/hook"
	"kingbus/internal/mysqltest"
)

// TestMariaSource: MariaDB has semi-sync built in, and the names of old. It waits for
// kingbus, over a restart; it falls back when the disk hangs, and comes back.
func TestMariaSource(t *testing.T) {
	for _, flavour := range []mysqltest.Flavour{mysqltest.MariaDB1011, mysqltest.MariaDB118} {
		t.Run(string(flavour), func(t *testing.T) {
			t.Parallel()
			var disk sync.RWMutex // locked: the disk hangs
			r := newRigOf(t, flavour, ModeAuto, func() { disk.RLock(); defer disk.RUnlock() })
			hooks := hook.Set{Storage: []hook.Storage{r.replica}, RelayIO: []hook.RelayIO{r.replica}}
			const forever = "SET GLOBAL ~wait_point = 'AFTER_SYNC'; SET GLOBAL ~timeout = 4294967295; SET GLOBAL ~enabled = 1"
			// It is announced although it is off: it may be switched on at any time.
			r.await("it is seen that semi-sync is off", func() bool { return r.replica.Status().State == StateDisabled })
			r.exec("CREATE DATABASE d; CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB) ENGINE=InnoDB; CREATE TABLE d.m (a INT) ENGINE=MyISAM")
			r.exec(forever)
			r.await("it is seen that the source waits", func() bool { return r.replica.Status().State == StateWaiting })
			for i := range 20 {
				r.exec(fmt.Sprintf("INSERT INTO d.t (b) VALUES ('%d'); INSERT INTO d.m VALUES (%d)", i, i))
			}
			r.exec("INSERT INTO d.t (b) VALUES (REPEAT('x', 300000)); FLUSH LOGS; INSERT INTO d.t (b) VALUES ('behind'); ALTER TABLE d.t ADD c INT; XA START 'x'; INSERT INTO d.t (b) VALUES ('xa'); XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'")
			r.concurrently(8, 25)
			if yes, no := r.count("yes_tx"), r.count("no_tx"); no != "0" || yes == "0" || r.count("status") != "ON" {
				t.Errorf("yes_tx %s, no_tx %s, status %s", yes, no, r.count("status"))
			}
			r.sameEnd("SHOW MASTER STATUS")

			// A commit waits for kingbus to come back.
			r.stop()
			committed := make(chan error, 1)
			go func() { committed <- r.src.Exec(context.Background(), "INSERT INTO d.t (b) VALUES ('waits')") }()
			r.await("a commit waits", func() bool { return r.count("wait_sessions") == "1" })
			r.follow(hooks)
			if err := <-committed; err != nil {
				t.Error(err)
			}
			if err := r.src.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.exec(forever)
			r.await("a semi-sync replica again", func() bool { return r.count("clients") == "1" })
			r.concurrently(4, 10)

			r.await("it is seen that the source waits", func() bool { return r.replica.Status().State == StateWaiting })
			r.exec("SET GLOBAL ~timeout = 300")
			fell := r.replica.Status().FellBack
			disk.Lock()
			for i := range 3 {
				r.exec(fmt.Sprintf("INSERT INTO d.t (b) VALUES ('%d')", i))
			}
			r.await("it is seen that the source has fallen back", func() bool { return r.replica.Status().State == StateAsync })
			disk.Unlock()
			r.await("the source waits again", func() bool { return r.count("status") == "ON" })
			r.await("it is seen that the source waits", func() bool { return r.replica.Status().State == StateWaiting })
			if got := r.replica.Status().FellBack; got != fell+1 {
				t.Errorf("it fell back %d times", got-fell)
			}
		})
	}
}
