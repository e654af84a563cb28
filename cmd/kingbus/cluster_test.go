package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kingbus/internal/admin"
	"kingbus/internal/cluster"
)

// member is a node of a cluster in these tests, through all its lives.
type member struct {
	*daemon
	t          *testing.T
	name, addr string
	dir        string
	args       []string // beside those that every member has
}

func newMember(t *testing.T, name string, args ...string) *member {
	return &member{t: t, name: name, addr: freeAddress(t), dir: t.TempDir(), args: args}
}

// settings are what every member has. The times are short, so that the tests are.
func (m *member) settings() []string {
	return append([]string{"--node-name", m.name, "--peer-listen", m.addr, "--heartbeat", "20ms", "--election-timeout", "200ms"}, m.args...)
}

func (m *member) start() *member {
	m.t.Helper()
	m.daemon = serveNode(m.t, m.dir, m.settings()...)
	return m
}

// settled waits until a node sees n members, all of them up, and a leader.
func (m *member) settled(n int) admin.Status {
	m.t.Helper()
	return m.awaitStatus(fmt.Sprintf("%d members that are up, and a leader", n), func(st admin.Status) bool {
		c := st.Cluster
		up := len(c.Members) == n && c.Leader != ""
		for _, m := range c.Members {
			up = up && m.Up
		}
		return up && st.Ready
	})
}

// three starts a cluster of three with settings that all have, and returns its
// members when all see each other.
func three(t *testing.T, settings ...string) []*member {
	t.Helper()
	var all []*member
	var list []string
	for _, name := range []string{"n1", "n2", "n3"} {
		m := newMember(t, name)
		all = append(all, m)
		list = append(list, name+"="+m.addr)
	}
	for _, m := range all {
		m.args = slices.Concat(settings, []string{"--initial-cluster", strings.Join(list, ",")})
	}
	all[0].start()
	st := all[0].awaitStatus("the state of a node that waits", func(admin.Status) bool { return true })
	if c := st.Cluster; c.Role != admin.RoleWaiting || !c.Stale || c.ID != 0 || st.Ready {
		t.Errorf("alone: %+v, %v", c, st.Reasons)
	}
	all[0].want(0, []string{"NOT READY", "belongs to no cluster yet", "waits to be taken in"}, "status")
	for _, m := range all[1:] {
		m.start()
	}
	for _, m := range all {
		m.settled(3)
	}
	return all
}

// others returns the members but one.
func others(all []*member, name string) []*member {
	return slices.DeleteFunc(slices.Clone(all), func(m *member) bool { return m.name == name })
}

func find(all []*member, name string) *member {
	return all[slices.IndexFunc(all, func(m *member) bool { return m.name == name })]
}

func TestCluster(t *testing.T) {
	t.Parallel()
	all := three(t)
	var ids []uint64
	for _, m := range all {
		r := m.want(0, []string{"ready", "3 nodes, 3 of which vote", "NAME", "n1", "n2", "n3", "leader", "voter"}, "status")
		if strings.Contains(r.stdout, "NO") {
			t.Errorf("something is wrong in\n%s", r.stdout)
		}
		t.Logf("status of %s:\n%s", m.name, r.stdout)
		m.want(0, []string{"3 nodes, 3 of which vote", "n1", "n2", "n3", all[0].addr, all[1].addr, all[2].addr}, "node", "list")
		var c admin.Cluster
		r = m.want(0, nil, "node", "list", "--json")
		if err := json.Unmarshal([]byte(r.stdout), &c); err != nil || c.Name != m.name || c.Address != m.addr || len(c.Members) != 3 {
			t.Errorf("as JSON: %v, %s", err, r.stdout)
		}
		ids = append(ids, c.ID)
	}
	if ids[0] == 0 || ids[1] != ids[0] || ids[2] != ids[0] {
		t.Errorf("the nodes belong to clusters %v", ids)
	}

	// Leadership goes where it is sent, whoever is asked. An election may come
	// in between on a machine that is busy.
	for _, m := range all {
		to := others(all, m.settled(3).Cluster.Leader)[0]
		if r := m.call("node", "transfer", to.name); r.code == 0 && !strings.Contains(r.stdout, to.name+" leads now") {
			t.Errorf("transfer: %+v", r)
		}
	}
	all[0].want(exitFailed, []string{`"n9": no node of the cluster has that name`}, "node", "transfer", "n9")

	// A node dies, and then a second one. The last one serves what it has.
	gone := others(all, all[0].settled(3).Cluster.Leader)[0]
	rest := others(all, gone.name)
	gone.kill()
	for _, m := range rest {
		m.awaitStatus("the loss of "+gone.name, func(st admin.Status) bool {
			lost, ok := st.Cluster.Member(gone.name)
			return ok && !lost.Up && st.Cluster.Leader != "" && st.Ready
		})
		m.want(0, []string{"NO ", "down: "}, "node", "list")
		if _, body := m.get("/metrics"); !strings.Contains(body, `kingbus_cluster_peer_up{peer="`+gone.name+`"} 0`) || !strings.Contains(body, "kingbus_cluster_has_leader 1") {
			t.Errorf("metrics:\n%s", body)
		}
		if !slices.ContainsFunc(m.logged("no connection to a peer; trying on"), func(l map[string]any) bool {
			return l["node"] == m.name && l["peer"] == gone.name && l["address"] != nil && l["last_entry"] != nil && l["error"] != nil
		}) {
			t.Errorf("%s does not log that it lacks %s", m.name, gone.name)
		}
	}
	last := rest[0]
	last.want(exitFailed, []string{"not compared: " + gone.name, "compared this node with " + rest[1].name}, "verify")
	rest[1].kill()
	st := last.awaitStatus("the loss of the leader", func(st admin.Status) bool { return st.Cluster.Stale })
	if c := st.Cluster; st.Ready || c.StaleSince.IsZero() || c.Role == admin.RoleLeader || c.Leader != "" {
		t.Errorf("the last one: %+v", c)
	}
	if code, body := last.get("/readyz"); code != 503 || !strings.Contains(body, "no leader is known since 2") {
		t.Errorf("the last one: %d %s", code, body)
	}
	last.want(0, []string{"NO LEADER", "NOT READY: no leader is known"}, "status")
	// They come back with the list of the first start.
	for _, m := range []*member{gone, rest[1]} {
		m.start()
	}
	for _, m := range all {
		m.settled(3)
	}
	for _, m := range all { // twice a second it is looked who leads
		told := func() bool {
			log := m.log.String()
			return strings.Contains(log, `"msg":"following the leader"`) || strings.Contains(log, `"msg":"this node leads"`)
		}
		for late := time.Now().Add(30 * time.Second); !told(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(late) {
				t.Fatalf("the log of %s does not tell who leads:\n%s", m.name, m.log.String())
			}
		}
	}

	// One more, and less again.
	n4 := newMember(t, "n4", "--join").start()
	if code, body := n4.get("/readyz"); code != 503 || !strings.Contains(body, "kingbus node add n4 "+n4.addr) {
		t.Errorf("a node that waits: %d %s", code, body)
	}
	n4.stop()
	r := call(t, nil, "serve", "--data-dir", n4.dir, "--mysql-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	if r.code != exitFailed || !strings.Contains(r.stderr, "waits for a cluster to take it in") {
		t.Errorf("a node that waits, without peers: %+v", r)
	}
	n4.start()
	all[1].want(exitFailed, []string{`calls itself "n4", not "n5"`}, "node", "add", "n5", n4.addr)
	all[1].want(exitUsage, []string{"HOST:PORT"}, "node", "add", "n4", "nowhere")
	all[1].want(0, []string{"n4 (" + n4.addr + ") is a learner of the cluster now", "n4 has caught up, and stays a learner"}, "node", "add", "n4", n4.addr, "--learner")
	n4.awaitStatus("the role of a learner", func(st admin.Status) bool { return st.Cluster.Role == admin.RoleLearner && st.Ready })
	all[2].want(0, []string{"n4 is a voter now", "has 4 voters and can lose 1 of them, no more than with 3"}, "node", "add", "n4", n4.addr)
	all[2].want(0, []string{"n4 is a voter now"}, "node", "add", "n4", n4.addr)
	n4.want(0, []string{"n4 is a voter now"}, "node", "promote", "n4")
	for _, m := range append(all, n4) {
		m.settled(4)
	}
	all[0].want(0, []string{"compared this node with n2, n3, n4: ", "no difference"}, "verify")
	var v cluster.Verified
	if r := n4.want(0, nil, "verify", "--json"); json.Unmarshal([]byte(r.stdout), &v) != nil || len(v.Nodes) != 3 || v.To == 0 {
		t.Errorf("verify --json: %s", r.stdout)
	}

	all[0].want(0, []string{"n4 (" + n4.addr + ") was removed. The cluster has 3 voters and can lose 1 of them.", "exit code 6"}, "node", "remove", "n4")
	if code := n4.wait(); code != exitRefused {
		t.Errorf("the removed node ended with code %d", code)
	}
	if log := n4.log.String(); !strings.Contains(log, "this node was removed from the cluster") || strings.Contains(log, "nobody can know what is on disk") {
		t.Errorf("the removed node says\n%s", log)
	}
	r = call(t, nil, append([]string{"serve", "--data-dir", n4.dir, "--mysql-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, n4.settings()...)...)
	if r.code != exitRefused || !strings.Contains(r.stderr, "this node was removed from the cluster; to take it in again, empty its data folder") {
		t.Errorf("the removed node, started again: code %d\n%s", r.code, r.stderr)
	}
	all[1].want(0, []string{"n4 was removed before"}, "node", "remove", "n4")
	all[1].want(exitFailed, []string{`"n9": no node`}, "node", "remove", "n9")
	for _, m := range all {
		m.settled(3)
		if code := m.stop(); code != 0 {
			t.Errorf("%s stopped with code %d", m.name, code)
		}
		m.start()
	}
	for _, m := range all {
		m.settled(3)
	}

	// A node is removed by way of itself, be it the leader or not.
	leader := find(all, all[0].settled(3).Cluster.Leader)
	leader.want(0, []string{leader.name + " (" + leader.addr + ") was removed. The cluster has 2 voters and needs all of them"}, "node", "remove", leader.name)
	if code := leader.wait(); code != exitRefused {
		t.Errorf("the removed leader ended with code %d", code)
	}
	all = others(all, leader.name)
	for _, m := range all {
		m.settled(2)
	}
	last = find(all, all[0].settled(2).Cluster.Leader)
	gone = others(all, last.name)[0]
	gone.want(0, []string{"was removed. The cluster has one voter."}, "node", "remove", gone.name)
	if code := gone.wait(); code != exitRefused {
		t.Errorf("the removed follower ended with code %d", code)
	}
	if st := last.settled(1); st.Cluster.Role != admin.RoleLeader {
		t.Errorf("the last one: %+v", st.Cluster)
	}
	last.want(exitFailed, []string{"it is the only voter"}, "node", "remove", last.name)
}

// A node with data gets company, over TLS; leadership goes over at a clean stop;
// damage on a disk is found; and when the majority is lost, one goes on alone.
func TestGrowAndRecover(t *testing.T) {
	t.Parallel()
	dir, files := makeFolder(t)
	tls := peerTLS(t)
	// So long that nobody but who is handed leadership comes to it.
	n1 := newMember(t, "n1", append(tls, "--election-timeout", "20s")...)
	n2 := newMember(t, "n2", append(tls, "--election-timeout", "20s", "--join")...)
	n1.dir = dir
	n1.start()
	if st := n1.settled(1); st.Cluster.Stale || st.Cluster.Role != admin.RoleLeader {
		t.Errorf("alone: %+v", st.Cluster)
	}
	if r := n1.want(0, []string{"ready", "leader in term"}, "status"); strings.Contains(r.stdout, "cluster") {
		t.Errorf("a node for itself says too much:\n%s", r.stdout)
	}
	n2.start()
	clear := newMember(t, "n3", "--join").start()
	n1.want(exitFailed, []string{"--peer-cert/--peer-key/--peer-ca on both"}, "node", "add", "n3", clear.addr)
	n1.want(0, []string{"n2 is a voter now", "has 2 voters and needs all of them"}, "node", "add", "n2", n2.addr)
	for _, m := range []*member{n1, n2} {
		m.settled(2)
	}
	n2.awaitStatus("all of the binlog", func(st admin.Status) bool { return st.Stream.Transactions == 600 })
	for name, want := range files {
		if r := n2.call("export", "--file", name, "--out", "-"); r.stdout != string(want) {
			t.Errorf("%s: n2 has %d bytes that differ from the %d of n1: %s", name, len(r.stdout), len(want), r.stderr)
		}
	}

	// A byte on the disk of n2 goes bad. It is found, and fetched again.
	event := files["binlog.000001"][len(files["binlog.000001"])/2:][:64]
	n2.damage(event)
	r := n1.want(exitDamage, []string{"compared this node with n2", "DIFFERENT: n2, entries "}, "verify")
	t.Logf("verify:\n%s%s", r.stdout, r.stderr)
	for late := time.Now().Add(patience); n1.call("verify").code != 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("the damage is not repaired")
		}
	}

	if code := n1.stop(); code != 0 {
		t.Errorf("n1 stopped with code %d", code)
	}
	n2.awaitStatus("the leadership that n1 has handed over", func(st admin.Status) bool { return st.Cluster.Leader == "n2" })
	n1.start() // so that n2 need not lead alone
	n1.settled(2)
	n1.want(0, []string{"compared this node with n2"}, "verify")
	for _, m := range []*member{n1, n2} {
		m.kill()
	}
	if r := call(t, nil, "inspect", n2.dir); r.code != 0 || !strings.Contains(r.stdout, "member n2 ("+n2.addr+")") {
		t.Errorf("inspect: %+v", r)
	}
	if r := call(t, nil, "export", "--data-dir", n2.dir, "--file", "binlog.000001", "--out", "-"); r.stdout != string(files["binlog.000001"]) {
		t.Errorf("export from the folder: code %d, %d bytes, %s", r.code, len(r.stdout), r.stderr)
	}

	r = call(t, nil, "serve", "--data-dir", n2.dir, "--mysql-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	if r.code != exitFailed || !strings.Contains(r.stderr, "belongs to a cluster of 2 nodes, which cannot reach this one: give --peer-listen") {
		t.Errorf("without peers: %+v", r)
	}

	n2.recover()
	n2.args = append(tls, "--join") // which means nothing any more
	n2.start()
	if st := n2.settled(1); st.Stream.Transactions != 600 || st.Cluster.Role != admin.RoleLeader {
		t.Errorf("after the recovery: %+v", st)
	}
	// The other one belongs to another cluster now, until its folder is empty.
	n1.args = append(tls, "--join")
	n1.start()
	n2.want(exitFailed, []string{"it belongs to another cluster; to take it in, empty its data folder first"}, "node", "add", "n1", n1.addr)
	n1.kill()
	n1.dir = t.TempDir()
	n1.start()
	n2.want(0, []string{"n1 is a voter now"}, "node", "add", "n1", n1.addr)
	n2.want(0, []string{"compared this node with n1", "no difference"}, "verify")
}

// damage changes a byte of an event on the disk.
func (m *member) damage(event []byte) {
	m.t.Helper()
	segments, err := filepath.Glob(filepath.Join(m.dir, "log", "*.seg"))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, name := range segments {
		at := bytes.Index(read(m.t, name), event)
		if at < 0 {
			continue
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			m.t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte{event[20] ^ 1}, int64(at+20)); err != nil {
			m.t.Fatal(err)
		}
		return
	}
	m.t.Fatal("the event is in no segment")
}

// recover makes a cluster of its own of a stopped node, after all the refusals.
func (m *member) recover() {
	t := m.t
	t.Helper()
	nobody := t.TempDir()
	if r := call(t, nil, "recover", "--data-dir", nobody); r.code != exitFailed || !strings.Contains(r.stderr, "no data folder of kingbus") {
		t.Errorf("of an empty folder: %+v", r)
	}
	if names, err := os.ReadDir(nobody); err != nil || len(names) > 0 {
		t.Errorf("it left %v, %v", names, err)
	}
	plan := []string{"n1 (", "n2 (", "this node, the only voter", "ends at binlog.000002:", "11111111-2222-3333-4444-555555555555:1-600", "WHAT CAN BE LOST"}
	identity := read(t, filepath.Join(m.dir, "node"))
	r := call(t, nil, "recover", "--data-dir", m.dir)
	t.Logf("recover:\n%s%s", r.stdout, r.stderr)
	for _, want := range append(plan, "--"+recoverFlag, "nothing was changed") {
		if !strings.Contains(r.stdout+r.stderr, want) {
			t.Errorf("no %q in\n%s%s", want, r.stdout, r.stderr)
		}
	}
	if r.code != exitFailed {
		t.Errorf("without a terminal: exit code %d", r.code)
	}
	for _, answer := range []string{"yes", "", "recover"} {
		if now := read(t, filepath.Join(m.dir, "node")); !bytes.Equal(now, identity) {
			t.Errorf("before the answer %q: the folder was changed: %s", answer, now)
		}
		keyboard, terminal := openTerminal(t)
		if _, err := keyboard.WriteString(answer + "\n"); err != nil {
			t.Fatal(err)
		}
		r = callWith(t, terminal, nil, "recover", "--data-dir", m.dir)
		if done := r.code == 0; done != (answer == "recover") || done != strings.Contains(r.stdout, "Start this node") || done == strings.Contains(r.stderr, "nothing was changed") {
			t.Errorf("answer %q: %+v", answer, r)
		}
	}
	for _, want := range append(plan, "Remove the data folders of the other nodes: n1 (", "--join", "kingbus node add") {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in\n%s", want, r.stdout)
		}
	}
	if now := read(t, filepath.Join(m.dir, "node")); bytes.Equal(now, identity) {
		t.Error("the folder has the old cluster id")
	}
	// A script can do it again, should it have been broken off, and look first.
	identity = read(t, filepath.Join(m.dir, "node"))
	for _, args := range [][]string{{"--json"}, {"--json", "--" + recoverFlag}} {
		var found recovered
		r := call(t, nil, append([]string{"recover", "--data-dir", m.dir}, args...)...)
		if err := json.Unmarshal([]byte(r.stdout), &found); err != nil {
			t.Fatalf("as JSON: %v: %+v", err, r)
		}
		sure := len(args) > 1
		if found.Done != sure || (r.code == 0) != sure || bytes.Equal(read(t, filepath.Join(m.dir, "node")), identity) == sure || strings.Contains(r.stderr, "--"+recoverFlag) == sure {
			t.Errorf("%v: %+v", args, r)
		}
		// The id is made when it is done: what is only a plan names none, nor next steps.
		if strings.Contains(r.stdout, "new_cluster_id") != sure || strings.Contains(r.stderr, "Start this node") != sure || strings.Contains(r.stderr, fmt.Sprint(found.NewCluster)) != sure {
			t.Errorf("%v: %+v", args, r)
		}
		if found.Cluster == 0 || found.NewCluster == found.Cluster || len(found.Members) != 1 || found.Members[0].ID != found.RaftID || found.LastEntry == 0 || found.End.File != "binlog.000002" || found.Executed.IsEmpty() {
			t.Errorf("%v: %+v", args, found)
		}
	}
}

// openTerminal returns both ends of a terminal.
func openTerminal(t *testing.T) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	return keyboard, terminal
}

// peerTLS returns settings with a certificate for 127.0.0.1 and its authority.
func peerTLS(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	save := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	sign := func(c, by *x509.Certificate, key, byKey *ecdsa.PrivateKey) []byte {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), byKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	caKey, key := newKey(), newKey()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return []string{
		"--peer-ca", save("ca.pem", "CERTIFICATE", sign(ca, ca, caKey, caKey)),
		"--peer-cert", save("node.pem", "CERTIFICATE", sign(leaf, ca, key, caKey)),
		"--peer-key", save("node.key", "PRIVATE KEY", private),
	}
}
