package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"kingbus/internal/admin"
	"kingbus/internal/mysqltest"
)

// cluster is nodes that follow one source, and the wires between them.
type cluster struct {
	t        *testing.T
	dir      string
	src      *mysqltest.Instance
	net      *network
	settings []string
	names    []string // of the members, in the order in which they came
	nodes    map[string]*node
}

// node is one process of a cluster.
type node struct {
	*process
	listen  string // where it listens for the others
	address string // what the others dial: a front of the network
}

// newCluster starts a cluster that follows src, and waits until it is ready.
func newCluster(t *testing.T, dir string, src *mysqltest.Instance, size int, settings ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: dir, src: src, net: newNetwork(t), settings: settings, nodes: map[string]*node{}}
	listen, address := map[string]string{}, map[string]string{}
	var initial []string
	for i := range size {
		name := fmt.Sprintf("n%d", i+1)
		c.names = append(c.names, name)
		listen[name] = fmt.Sprintf("127.0.0.1:%d", freePort(t))
		address[name] = c.net.front(t, name, listen[name])
		initial = append(initial, name+"="+address[name])
	}
	var founding []string
	if size > 1 { // else it begins by itself
		founding = []string{"--initial-cluster", strings.Join(initial, ",")}
	}
	for _, name := range c.names {
		c.nodes[name] = c.newNode(name, listen[name], address[name], founding...)
		c.nodes[name].start()
	}
	for _, name := range c.names {
		c.nodes[name].await(name+" is ready", func(s admin.Status) bool { return s.Ready })
	}
	return c
}

func (c *cluster) newNode(name, listen, address string, more ...string) *node {
	args := append([]string{"--node-name", name, "--peer-listen", listen, "--peer-advertise", address}, c.settings...)
	return &node{newProcess(c.t, c.dir, name, c.src, append(args, more...)...), listen, address}
}

// add starts one more node, has another one take it in, and waits until it votes.
func (c *cluster) add(name string, asked *node) {
	c.t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(c.t))
	n := c.newNode(name, listen, c.net.front(c.t, name, listen), "--join")
	c.names, c.nodes[name] = append(c.names, name), n
	n.start()
	n.await("it waits to be added", func(s admin.Status) bool { return s.Cluster.Role == admin.RoleWaiting })
	c.t.Log(asked.insist("node", "add", name, n.address))
	n.await("ready, as a voter", func(s admin.Status) bool {
		m, is := s.Cluster.Member(name)
		return s.Ready && is && !m.Learner
	})
}

// insist runs a command against this node until it succeeds, and returns what it
// prints. It may fail while leadership changes, and each may be repeated.
func (n *node) insist(args ...string) string {
	n.t.Helper()
	for late := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		out, err := n.run(args...)
		if err == nil {
			return out
		}
		n.t.Logf("%v, asked of %s: %v: %s", args, n.name, err, out)
		if time.Now().After(late) {
			n.t.Fatal("it does not succeed")
		}
	}
}

// fit are the nodes that can answer: they run and are not frozen.
func (c *cluster) fit() []*node {
	var fit []*node
	for _, name := range c.names {
		if n := c.nodes[name]; n.running() && !n.frozen && !n.died() {
			fit = append(fit, n)
		}
	}
	return fit
}

// leader returns who leads, nil if nobody says so. One that was cut off may believe
// that it does still: the higher term is right.
func (c *cluster) leader() *node {
	var leader *node
	var term uint64
	for _, n := range c.fit() {
		if s, err := n.status(); err == nil && s.Node.Leader && s.Node.Term > term {
			leader, term = n, s.Node.Term
		}
	}
	return leader
}

// awaitLeader waits until somebody leads whom all fit nodes know, and is connected
// to the source.
func (c *cluster) awaitLeader() *node {
	c.t.Helper()
	for late := time.Now().Add(patience); time.Now().Before(late); time.Sleep(20 * time.Millisecond) {
		leader := c.leader()
		if leader == nil {
			continue
		}
		known := true
		for _, n := range c.fit() {
			s, err := n.status()
			known = known && err == nil && s.Cluster.Leader == leader.name && (n != leader || s.Source.Connected)
		}
		if known {
			return leader
		}
	}
	c.t.Fatal("there is no leader that all know and that follows the source")
	return nil
}

// follow makes rep a replica of a node, with all nodes in the server's own failover
// list.
func (c *cluster) follow(ctx context.Context, rep *mysqltest.Instance, name string) {
	c.t.Helper()
	var list strings.Builder
	for _, name := range c.names {
		fmt.Fprintf(&list, "DO asynchronous_connection_failover_add_source('', '127.0.0.1', %d, '', 50); ", c.nodes[name].mysqlPort)
	}
	err := rep.Exec(ctx, fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='replica', SOURCE_PASSWORD='%s', "+
		"SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=2, SOURCE_AUTO_POSITION=1, SOURCE_CONNECTION_AUTO_FAILOVER=1; %sSTART REPLICA",
		c.nodes[name].mysqlPort, password, list.String()))
	if err != nil {
		c.t.Fatal(err)
	}
}
