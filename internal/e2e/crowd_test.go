package e2e

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kingbus/internal/admin"
	"kingbus/internal/mysqltest"
	mysql "kingbus/internal/wire"
)

// crowdSize is how many connections the crowd has, if it may open so many files.
const crowdSize = 8000

// crowdVariable in the environment makes the test binary a crowd: its value is the server's
// address, and behind a space how many addresses the crowd comes from.
const crowdVariable = "KINGBUS_E2E_CROWD"

// crowd is the other process: connections that say nothing, and come back a while after the
// server has closed them. It goes on until its standard input ends, and says on its standard
// output how many have ever been opened, and how many are open.
func crowd(order string) int {
	var addr string
	var addresses int
	if _, err := fmt.Sscan(order, &addr, &addresses); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	// Fails without the privilege; then it has to do with what it has.
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 2 * crowdSize, Max: 2 * crowdSize})
	var first, open atomic.Int64
	for i := range crowdSize {
		go func() {
			for once := true; ; {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%addresses))}}
				if nc, err := d.Dial("tcp", addr); err == nil {
					if once {
						first.Add(1)
						once = false
					}
					open.Add(1)
					_, _ = io.Copy(io.Discard, nc)
					open.Add(-1)
					_ = nc.Close()
				}
				time.Sleep(3*time.Second + rand.N(3*time.Second)) // it is a crowd, not a flood
			}
		}()
	}
	go func() {
		for {
			fmt.Println(first.Load(), open.Load())
			time.Sleep(100 * time.Millisecond)
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// startCrowd starts the process, and waits until all of it have been at the door. open tells
// how many the server has let stand there.
func startCrowd(t *testing.T, addr string, addresses int) (open func() int64, stop func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", crowdVariable, addr, addresses))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var now atomic.Int64
	all, read := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(read)
		var first, open int64
		for lines, late := bufio.NewScanner(out), false; lines.Scan(); {
			if _, err := fmt.Sscan(lines.Text(), &first, &open); err != nil {
				continue
			}
			now.Store(open)
			if first == crowdSize && !late {
				late = true
				close(all)
			}
		}
	}()
	stop = sync.OnceFunc(func() {
		_ = in.Close()
		<-read
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	select {
	case <-all:
	case <-read:
		t.Fatal("the crowd has ended")
	case <-time.After(patience):
		t.Fatal("the crowd does not come")
	}
	return now.Load, stop
}

// TestCrowd: thousands of silent connections, those that hold half a login or a giant one, and
// replicas that take nothing, cost a node little memory, and keep nobody else out.
func TestCrowd(t *testing.T) {
	ctx := context.Background()
	dir := evidence(t)
	src := startSource(t, dir, mysqltest.Options{Name: "source", Args: []string{"--max-allowed-packet=64M", "--max-binlog-size=16M"}})
	if err := src.Exec(ctx, `CREATE DATABASE e2e; CREATE TABLE e2e.t (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB);
		INSERT INTO e2e.t (b) VALUES (REPEAT('a', 1000000)); INSERT INTO e2e.t (b) SELECT b FROM e2e.t; INSERT INTO e2e.t (b) SELECT b FROM e2e.t;
		INSERT INTO e2e.t (b) SELECT b FROM e2e.t; INSERT INTO e2e.t (b) SELECT b FROM e2e.t; INSERT INTO e2e.t (b) SELECT b FROM e2e.t`); err != nil {
		t.Fatal(err)
	}
	rep := mysqltest.Start(t, mysqltest.Options{Name: "replica", Args: []string{"--max-allowed-packet=64M", "--skip-log-bin"}})
	p := newProcess(t, dir, "kingbus", src)
	p.start()
	p.follow(ctx, rep, "SOURCE_AUTO_POSITION=1")
	same(t, p, src, rep)
	stop := watchMemory(p.cmd.Process.Pid)
	addr := fmt.Sprintf("127.0.0.1:%d", p.mysqlPort)

	closed := holdLogins(t, addr)
	const slow = 40
	slowReaders(t, addr, firstFile(t, src), slow)
	p.await("all slow readers are served", func(s admin.Status) bool { return len(s.Replicas) == slow+1 })

	t.Run("few addresses", func(t *testing.T) {
		open, stop := startCrowd(t, addr, 3) // a quarter of the room each, at most
		defer stop()
		for range 10 {
			c, err := logIn(ctx, addr)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
		}
		if n := open(); n > 750 {
			t.Errorf("%d of the crowd are in", n)
		}
	})
	t.Run("many addresses", func(t *testing.T) {
		_, stop := startCrowd(t, addr, 40)
		defer stop()
		for range 10 { // the house is full all the time, and those who fill it make room
			c, err := logIn(ctx, addr)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
		}
		if err := rep.Exec(ctx, "STOP REPLICA"); err != nil {
			t.Fatal(err)
		}
		if err := src.Exec(ctx, "INSERT INTO e2e.t (b) VALUES ('last')"); err != nil {
			t.Fatal(err)
		}
		if err := rep.Exec(ctx, "START REPLICA"); err != nil {
			t.Fatal(err)
		}
		same(t, p, src, rep)
	})
	for what, c := range closed {
		select {
		case <-c:
		case <-time.After(patience):
			t.Errorf("a connection that %s stays open", what)
		}
	}
	s, err := p.status()
	if err != nil {
		t.Fatal(err)
	}
	peak := stop()
	t.Logf("%d connections were refused; %d MB of anonymous memory at the peak", s.Clients.Refused, peak>>20)
	if s.Clients.Refused < crowdSize {
		t.Errorf("%d connections were refused", s.Clients.Refused)
	}
	if peak > maxAnonymous {
		t.Errorf("kingbus took %d MB of anonymous memory, more than %d", peak>>20, maxAnonymous>>20)
	}
	p.stop()
}

func logIn(ctx context.Context, addr string) (*mysql.Client, error) {
	return mysql.Dial(ctx, mysql.ClientConfig{Address: addr, User: "replica", Password: []byte(password), TLSMode: mysql.TLSRequired, ReadTimeout: patience})
}

// holdLogins opens connections that never finish to log in; each channel is closed when the
// server has closed the connection.
func holdLogins(t *testing.T, addr string) map[string]<-chan struct{} {
	t.Helper()
	closed := map[string]<-chan struct{}{}
	for what, begin := range map[string][]byte{
		"says nothing":             nil,
		"holds half a header":      {32, 0},
		"holds half a login":       {32, 0, 0, 1, 0x85, 0xa2},
		"announces a giant":        {0xff, 0xff, 0xff, 1, 0x85, 0xa2},
		"trickles in a giant":      {0xff, 0xff, 0xff, 1},
		"trickles in a login":      {200, 0, 0, 1},
		"wants TLS and is silent":  {32, 0, 0, 1, 0x05, 0xae, 0x0f, 0, 0, 0, 0, 1, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"wants TLS and talks on":   append([]byte{32, 0, 0, 1, 0x05, 0xae, 0x0f, 0, 0, 0, 0, 1, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 100)...),
		"sends one packet at once": append([]byte{0xff, 0xff, 0xff, 1}, make([]byte, 1<<20)...),
	} {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c := make(chan struct{})
		closed[what] = c
		var writer sync.WaitGroup
		writer.Go(func() {
			if _, err := nc.Write(begin); err != nil {
				return
			}
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for strings.HasPrefix(what, "trickles") {
				select {
				case <-tick.C:
				case <-c:
					return
				}
				if _, err := nc.Write([]byte{0}); err != nil {
					return
				}
			}
		})
		go func() {
			_, _ = io.Copy(io.Discard, nc) // until the server closes it, in whatever way
			close(c)
		}()
		t.Cleanup(func() {
			_ = nc.Close()
			<-c
			writer.Wait()
		})
	}
	return closed
}

// slowReaders ask for all of the binlog, and take nothing of it.
func slowReaders(t *testing.T, addr, file string, n int) {
	t.Helper()
	for i := range n {
		c, err := logIn(context.Background(), addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Exec(context.Background(), "SET @source_binlog_checksum = @@global.binlog_checksum"); err != nil {
			t.Fatal(err)
		}
		p := binary.LittleEndian.AppendUint32([]byte{mysql.ComBinlogDump}, 4)
		p = binary.LittleEndian.AppendUint16(p, 0)
		p = binary.LittleEndian.AppendUint32(p, uint32(1000+i))
		if err := c.Command(append(p, file...)); err != nil {
			t.Fatal(err)
		}
	}
}
