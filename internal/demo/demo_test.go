package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain doubles as the process that TestOwnerKilled kills.
func TestMain(m *testing.M) {
	if program := os.Getenv("DEMO_TEST_OWN"); program != "" {
		own(program)
		return
	}
	goleak.VerifyTestMain(m)
}

// output collects what the demo writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// buildKingbus builds the real program.
func buildKingbus(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kingbus")
	if out, err := exec.Command("go", "build", "-o", path, "kingbus/cmd/kingbus").CombinedOutput(); err != nil {
		t.Fatalf("build kingbus: %v\n%s", err, out)
	}
	return path
}

// The whole way, as with --seconds, with the leader killed in the middle; then a replica that was changed behind its back
// must not pass.
func TestDemo(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(plural(nodes, "node"), func(t *testing.T) {
			t.Parallel()
			testDemo(t, nodes)
		})
	}
}

func testDemo(t *testing.T, nodes int) {
	var out output
	cfg := Config{Kingbus: buildKingbus(t), Duration: 6 * time.Second, Rate: 200, Writers: 2, Nodes: nodes, Replicas: min(nodes, 2), Kill: true, Out: &out}
	d := newDemo(cfg)
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(out.String())
		}
	})
	ctx := t.Context()
	if err := d.start(ctx); err != nil {
		t.Fatal(err)
	}
	var before []string
	for _, k := range d.nodes {
		before = append(before, fmt.Sprintf("kill -9 %d", k.process().pid))
	}
	if err := d.run(ctx); err != nil {
		t.Fatalf("run: %v", err)
	}
	wanted := append(before, "EQUAL: ", "ended: signal: killed", "restarted once", "the demo itself does kill -9 ", ") and has caught up, ")
	if nodes > 1 {
		wanted = append(wanted, ", the leader, ended", " DOWN ", " leads now, ", "the logs of the 3 nodes are the same")
	}
	for _, want := range wanted {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	scripts := map[string]string{"source": d.source.UUID}
	for _, inst := range d.replicas {
		scripts[inst.Name] = inst.UUID
	}
	for i, k := range d.nodes {
		scripts[k.name] = d.watch.now().nodes[i].status.Node.ServerUUID
	}
	for name, want := range scripts {
		text, err := exec.Command(d.folder.file(name), "-e", "SELECT @@server_uuid").CombinedOutput()
		if err != nil || want == "" || !strings.Contains(string(text), want) {
			t.Errorf("script %s: got %s (%v), want the uuid %s", name, text, err, want)
		}
	}
	testDifferences(t, d)
	var pids []int
	for _, k := range d.nodes {
		pids = append(pids, k.process().pid)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
	paths := []string{d.folder.path}
	for _, inst := range d.servers() {
		paths = append(paths, inst.Dir)
	}
	for _, path := range paths {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("kingbus (pid %d) still runs: %v", pid, err)
		}
	}
}

func testDifferences(t *testing.T, d *demo) {
	t.Helper()
	for _, tc := range []struct{ sql, want string }{
		{"SET sql_log_bin = 0; UPDATE shop.customers SET balance = balance + 0.01 WHERE id = 7", "`shop`.`customers`"},
		{"INSERT INTO shop.ledger (writer, customer, amount, booked) VALUES (1, 1, 1, NOW(6))", "transactions of its own: " + d.replicas[0].UUID},
	} {
		if err := d.replicas[0].Exec(t.Context(), tc.sql); err != nil {
			t.Fatal(err)
		}
		_, err := d.verify(t.Context())
		if !errors.Is(err, ErrNotEqual) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("after %s: got %v, want a difference with %q", tc.sql, err, tc.want)
		}
	}
}

func TestInterrupted(t *testing.T) {
	program := filepath.Join(t.TempDir(), "kingbus")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Run(ctx, Config{Kingbus: program, Duration: time.Second, Rate: 1, Writers: 1, Nodes: 3, Replicas: 2, Out: &output{}})
	if !errors.Is(err, ErrInterrupted) {
		t.Errorf("got %v, want ErrInterrupted", err)
	}
}

func TestConfig(t *testing.T) {
	good := Config{Kingbus: "/bin/sh", Rate: 1, Writers: 1, Nodes: 3, Replicas: 2, Out: &output{}}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no rate":         func(c *Config) { c.Rate = 0 },
		"much too fast":   func(c *Config) { c.Rate = MaxRate + 1 },
		"no writers":      func(c *Config) { c.Writers = 0 },
		"many writers":    func(c *Config) { c.Writers = MaxWriters + 1 },
		"no nodes":        func(c *Config) { c.Nodes = 0 },
		"many nodes":      func(c *Config) { c.Nodes = MaxNodes + 1 },
		"no replicas":     func(c *Config) { c.Replicas = 0 },
		"many replicas":   func(c *Config) { c.Replicas = MaxReplicas + 1 },
		"negative pause":  func(c *Config) { c.KillEvery = -1 },
		"negative time":   func(c *Config) { c.Duration = -1 },
		"missing program": func(c *Config) { c.Kingbus = "/nowhere/kingbus" },
	} {
		c := good
		change(&c)
		if err := c.check(); !errors.Is(err, ErrUsage) {
			t.Errorf("%s: got %v, want ErrUsage", name, err)
		}
	}
}

// fakeKingbus makes a kingbus of a shell script.
func fakeKingbus(t interface{ Fatal(...any) }, dir, script string) *kingbus {
	k := &kingbus{name: "kingbus", path: filepath.Join(dir, "program"), log: filepath.Join(dir, "kingbus.log"), notice: func(string, ...any) {}, delay: time.Millisecond}
	if err := os.WriteFile(k.path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKingbusThatCannotRun(t *testing.T) {
	k := fakeKingbus(t, t.TempDir(), "echo the disk is gone; exit 3")
	err := k.run(t.Context())
	if starts := k.process().starts; err == nil || !strings.Contains(err.Error(), "the disk is gone") || starts != maxQuick {
		t.Errorf("got %v after %d starts, want what the log says after %d", err, starts, maxQuick)
	}
	k.path = "/nowhere/kingbus"
	if err := k.run(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want os.ErrNotExist", err)
	}
}

// own starts a program as kingbus and makes a folder, says which, and waits to be killed.
func own(program string) {
	f, err := newFolder()
	if err != nil {
		fmt.Println(err)
		return
	}
	k := &kingbus{name: "kingbus", path: program, log: f.file("kingbus.log"), notice: func(string, ...any) {}, delay: time.Second}
	go func() { _ = k.run(context.Background()) }()
	for {
		if p := k.process(); p.alive {
			fmt.Println(p.pid, f.path)
			break
		}
		time.Sleep(time.Millisecond) // nothing tells us
	}
	select {}
}

// Whoever kills the demo leaves neither processes nor folders.
func TestOwnerKilled(t *testing.T) {
	k := fakeKingbus(t, t.TempDir(), "exec sleep 1000")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DEMO_TEST_OWN="+k.path)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(stdout).ReadString('\n')
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
	fields := strings.Fields(line)
	if readErr != nil || len(fields) != 2 {
		t.Fatalf("the process said %q (%v), want a pid and a folder", line, readErr)
	}
	pid, err := strconv.Atoi(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		_, statErr := os.Stat(fields[1])
		if ended(pid) && errors.Is(statErr, os.ErrNotExist) {
			return
		}
		if !pause(ctx, 10*time.Millisecond) {
			t.Fatalf("pid %d ended: %v; folder %s: %v", pid, ended(pid), fields[1], statErr)
		}
	}
}

// ended says whether a process is gone, or a zombie that its new parent does not wait for.
func ended(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}
