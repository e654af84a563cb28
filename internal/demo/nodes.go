package demo

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	sourceUser  = "kingbus" // as whom kingbus logs in at the source
	replicaUser = "replica" // as whom replicas log in at kingbus
)

// newNodes makes the nodes, of one cluster if they are several. password is of replicaUser.
func newNodes(cfg Config, f *folder, source string, notice func(string, ...any)) (nodes []*kingbus, password string, err error) {
	password, passwordFile, err := f.newPassword("replica.password")
	if err != nil {
		return nil, "", err
	}
	var initial []string
	for i := range cfg.Nodes {
		k := &kingbus{
			name: "kingbus", path: cfg.Kingbus, notice: notice, delay: restartDelay,
			client: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		}
		addresses := []*string{&k.mysql, &k.admin}
		if cfg.Nodes > 1 {
			k.name, k.delay = fmt.Sprintf("n%d", i+1), restartDelayCluster
			addresses = append(addresses, &k.peer)
		}
		for _, addr := range addresses {
			if *addr, err = freeAddress(); err != nil {
				return nil, "", err
			}
		}
		k.log = f.file(k.name + ".log")
		initial = append(initial, k.name+"="+k.peer)
		nodes = append(nodes, k)
	}
	for _, k := range nodes {
		k.data = f.file(k.name + ".data")
		k.args = []string{"serve", "--data-dir", k.data,
			"--mysql-listen", k.mysql, "--admin-listen", k.admin,
			"--source", "mysql://" + sourceUser + "@" + source, "--source-password-file", f.file(sourcePasswordFile),
			"--replica-user", replicaUser, "--replica-password-file", passwordFile,
			"--retain-size", "1GiB", "--shutdown-timeout", "5s"}
		if k.peer != "" {
			k.args = append(k.args, "--node-name", k.name, "--peer-listen", k.peer, "--initial-cluster", strings.Join(initial, ","))
		}
	}
	return nodes, password, nil
}

// freeAddress returns a loopback address on which nobody listens. The port is from below the range out of which Linux
// gives ports to outgoing connections, so that it is still free when kingbus comes back.
func freeAddress() (string, error) {
	var err error
	for range 100 {
		n, rerr := rand.Int(rand.Reader, big.NewInt(12_000))
		if rerr != nil {
			return "", rerr
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(20_000+int(n.Int64())))
		var l net.Listener
		if l, err = net.Listen("tcp4", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", fmt.Errorf("no free port on 127.0.0.1: %w", err)
}

// placeReplicas returns for each replica on which node it begins: the first one on the leader, the next ones on the
// others in turn, so that at least one is on a node that does not lead.
func (d *demo) placeReplicas(ctx context.Context) []*kingbus {
	leader := 0
	for i, k := range d.nodes {
		if st, err := k.status(ctx); err == nil && st.Node.Leader {
			leader = i
		}
	}
	places := make([]*kingbus, d.cfg.Replicas)
	for i := range places {
		places[i] = d.nodes[(leader+i)%len(d.nodes)]
	}
	return places
}
