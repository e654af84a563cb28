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

func TestBinlogCommands(t *testing.T) {
	d := serveStored(t)
	d.want(0, []string{"FILE           SIZE", "binlog.000001  ", "2023-11-14T22:13:20Z", "finished", "current", "2 files, "}, "binlog", "list")
	r := d.want(0, nil, "binlog", "list", "--json")
	var listed admin.Binlogs
	if err := json.Unmarshal([]byte(r.stdout), &listed); err != nil || len(listed.Files) != 2 || !listed.Files[1].Current {
		t.Errorf("%v: %s", err, r.stdout)
	}
	for _, args := range [][]string{{}, {"--to", "x", "--before", "1h"}, {"--before", "yesterday"}, {"--before", "-1h"}} {
		d.want(exitUsage, []string{"--before"}, append([]string{"binlog", "purge"}, args...)...)
	}
	d.want(exitFailed, []string{"no such binlog file", "what to do: `kingbus binlog list`"}, "binlog", "purge", "--to", "binlog.000009")
	d.want(0, []string{"nothing was removed; the oldest file is binlog.000001"}, "binlog", "purge", "--before", "2000-01-31T00:00:00Z")
	d.want(0, []string{"nothing would be removed; the oldest file would be binlog.000001"}, "binlog", "purge", "--before", "2000-01-31T00:00:00Z", "--dry-run")
	d.want(0, []string{"would remove 1 file, binlog.000001, ", "; the oldest file would be binlog.000002\n"}, "binlog", "purge", "--to", "binlog.000002", "--dry-run")

	// What a connected replica reads stays. It reads the second file, so the first one can go.
	session, ended := d.dump("repl", "binlog.000001")
	d.awaitStatus("the replica", func(st admin.Status) bool { return len(st.Replicas) == 1 && st.Replicas[0].LagBytes == 0 })
	d.want(0, []string{"binlog.000001\nbinlog.000002\n"}, "__complete", "binlog", "purge", "--to", "")
	d.want(0, []string{fmt.Sprint(session)}, "__complete", "replica", "kill", "")
	d.want(0, []string{"n1"}, "__complete", "node", "transfer", "")
	d.want(0, []string{"repl@%"}, "__complete", "user", "drop", "")
	d.want(0, []string{"removed 1 file, binlog.000001, ", "; the oldest file is binlog.000002\n"}, "binlog", "purge", "--before", "1m")
	if st := d.awaitStatus("", func(admin.Status) bool { return true }); len(st.Stream.Files) != 1 {
		t.Errorf("left: %+v", st.Stream.Files)
	}
	d.want(0, nil, "replica", "kill", fmt.Sprint(session))
	<-ended
	r = d.want(0, nil, "binlog", "purge", "--before", "1m", "--json")
	var purged admin.Purged
	if err := json.Unmarshal([]byte(r.stdout), &purged); err != nil || len(purged.Removed) != 0 || purged.Oldest != "binlog.000002" {
		t.Errorf("%v: %s", err, r.stdout)
	}
}
