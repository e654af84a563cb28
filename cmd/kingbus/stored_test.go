package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"testing"

	"kingbus/internal/admin"
	"kingbus/internal/wire"
)

// dump has a client pull a file of the node, from its beginning on, until its session ends,
// which ended tells.
func (d *daemon) dump(user, file string) (session uint32, ended <-chan struct{}) {
	d.t.Helper()
	c, err := wire.Dial(d.t.Context(), wire.ClientConfig{Address: d.mysql, User: user, Password: []byte(secret), TLSMode: wire.TLSRequired, ReadTimeout: patience})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Exec(d.t.Context(), "SET @source_binlog_checksum = 'CRC32'"); err != nil {
		d.t.Fatal(err)
	}
	request := binary.LittleEndian.AppendUint32([]byte{wire.ComBinlogDump}, 4)
	request = binary.LittleEndian.AppendUint16(request, 0) // flags
	request = binary.LittleEndian.AppendUint32(request, 4711)
	if err := c.Command(append(request, file...)); err != nil {
		d.t.Fatal(err)
	}
	c.Conn().SplitSequence()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := c.Conn().ReadPacket(1 << 20); err != nil {
				return
			}
		}
	}()
	return c.Greeting().ConnectionID, done
}

// serveStored starts a node that has two binlog files, no source, and an account "repl".
func serveStored(t *testing.T) *daemon {
	t.Helper()
	dir, _ := makeFolder(t)
	return serveNode(t, dir, "--node-name", "n1", "--replica-user", "repl", "--replica-password-file", writeFile(t, "pw", secret+"\n"))
}

func TestReplicaCommands(t *testing.T) {
	d := serveStored(t)
	d.want(0, []string{"no replica is connected to this node, n1"}, "replica", "list")
	session, ended := d.dump("repl", "binlog.000001")
	d.awaitStatus("the replica", func(st admin.Status) bool { return len(st.Replicas) == 1 && st.Replicas[0].LagBytes == 0 })
	d.want(0, []string{"1 connected to this node, n1", "SESSION", fmt.Sprintf("  %d ", session), "4711", "waiting for more"}, "replica", "list")
	r := d.want(0, nil, "replica", "list", "--json")
	var listed admin.Replicas
	if err := json.Unmarshal([]byte(r.stdout), &listed); err != nil || len(listed.Replicas) != 1 || listed.Replicas[0].Session != session {
		t.Errorf("%v: %s", err, r.stdout)
	}
	d.want(exitUsage, []string{"no session"}, "replica", "kill", "x")
	d.want(exitFailed, []string{"no client", "kingbus replica list"}, "replica", "kill", "4000000")
	d.want(0, []string{"has ended"}, "replica", "kill", fmt.Sprint(session))
	<-ended
	d.awaitStatus("no replica", func(st admin.Status) bool { return len(st.Replicas) == 0 })
}
