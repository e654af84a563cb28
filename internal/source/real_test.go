package source

import (
	"testing"

	"kingbus/internal/mysqltest"
)

func TestFirst(t *testing.T) {
	for _, f := range []mysqltest.Flavour{mysqltest.MySQL97, mysqltest.MySQL56} {
		t.Run(string(f), func(t *testing.T) {
			r := newRig(t, mysqltest.Options{Flavour: f}, nil)
			r.exec("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB; INSERT INTO d.t VALUES (1,'a'),(2,'b')")
			r.start()
			r.caughtUp()
			r.exec("INSERT INTO d.t VALUES (3,'c'); FLUSH LOGS; INSERT INTO d.t VALUES (4,'d')")
			r.compare("")
			r.stop()
			r.exec("INSERT INTO d.t VALUES (5,'c'); FLUSH LOGS; INSERT INTO d.t VALUES (6,'d')")
			r.start().compare("")
			if err := r.inst.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.exec("INSERT INTO d.t VALUES (7,'c')")
			r.compare("")
		})
	}
}
