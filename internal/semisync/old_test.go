package semisync

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/cluster"
	"kingbus/internal/gtid"
	"kingbus/internal/hook"
	"kingbus/internal/server"
	"kingbus/internal/source"
	"kingbus/internal/sql"
	"kingbus/internal/stream"
	"kingbus/internal/vfs"
	"kingbus/internal/wire"
)

// MySQL 5.5 is not to be had: a source and a replica that talk as it does, after its
// source (plugin/semisync, sql/slave.cc, sql/sql_repl.cc of 5.5). Both know the names of
// old only, and neither checksums, uuids nor GTIDs. The source's dump thread does not
// send on before it has the answer.

const (
	oldFile    = "mysql-bin.000007"
	oldVersion = "5.5.62-log"
)

// oldEvents is a file of 5.5, event by event: some transactions, one of them with
// several statements, a DDL, and a ROTATE.
func oldEvents() (events [][]byte) {
	// The post-header lengths of 5.5, 27 of them.
	lengths := []byte{0x38, 0x0d, 0, 8, 0, 0x12, 0, 4, 4, 4, 4, 0x12, 0, 0, 0x54, 0, 4, 0x1a, 8, 0, 0, 0, 8, 8, 8, 2, 0}
	pos := uint32(binlog.MagicSize)
	add := func(t binlog.EventType, body []byte) {
		ev := append(make([]byte, binlog.HeaderSize), body...)
		pos += uint32(len(ev))
		binlog.Header{Timestamp: 1500000000, Type: t, ServerID: 5, Length: uint32(len(ev)), LogPos: pos}.Put(ev)
		events = append(events, ev)
	}
	query := func(text string) { add(binlog.TypeQuery, append(make([]byte, 13+1), text...)) }
	fd := binlog.AppendFormatDescription(nil, binlog.Header{Timestamp: 1500000000, ServerID: 5}, binlog.FormatDescription{BinlogVersion: 4, ServerVersion: oldVersion, HeaderLengths: lengths})
	add(binlog.TypeFormatDescription, fd[binlog.HeaderSize:])
	query("CREATE TABLE t (a INT)")
	for i := range 3 {
		query("BEGIN")
		for range i + 1 {
			query("INSERT INTO t VALUES (1)")
		}
		add(binlog.TypeXID, make([]byte, 8))
	}
	add(binlog.TypeRotate, append(binary.LittleEndian.AppendUint64(nil, binlog.MagicSize), "mysql-bin.000008"...))
	return events
}

// oldServer is a source of 5.5.
type oldServer struct {
	t      *testing.T
	events [][]byte
	// asks chooses the events that ask, the fake ROTATE being number -1.
	asks     func(n int) bool
	answers  atomic.Uint64
	announce atomic.Bool // the replica has said that it is semi-synchronous
	done     chan struct{}
}

type oldAccount struct{ wire.Verifier }

func (a oldAccount) Account(user, _ string) (wire.Account, bool) {
	return wire.Account{Verifier: a.Verifier}, user == "repl"
}

func newOldAccount(t *testing.T) oldAccount {
	v, err := wire.NewVerifier([]byte("p"), wire.VerifierForms{Native: true, Digest: true})
	if err != nil {
		t.Fatal(err)
	}
	return oldAccount{v}
}

func (o *oldServer) listen() (port uint16) {
	o.t.Helper()
	acc, err := wire.NewAcceptor(wire.AcceptorConfig{Version: oldVersion, Accounts: newOldAccount(o.t), AllowNative: true})
	if err != nil {
		o.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		o.t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer nc.Close()
				if s, err := acc.Accept(context.Background(), nc); err == nil {
					o.serve(s)
				}
			})
		}
	})
	o.t.Cleanup(func() { ln.Close(); group.Wait() })
	return uint16(ln.Addr().(*net.TCPAddr).Port)
}

func (o *oldServer) serve(s *wire.Session) {
	for {
		cmd, p, err := s.ReadCommand(1 << 16)
		if err != nil {
			return
		}
		switch cmd {
		case wire.ComQuery:
			err = o.query(s, string(p))
		case wire.ComRegisterReplica:
			err = s.WriteOK(wire.OK{})
		case wire.ComBinlogDump:
			o.dump(s)
			return
		default:
			return
		}
		if err != nil || s.Flush() != nil {
			return
		}
	}
}

func (o *oldServer) query(s *wire.Session, sql string) error {
	rows := func(columns int, values ...[]any) error {
		cols := make([]wire.Column, columns)
		for i := range cols {
			cols[i] = wire.StringColumn("c", 1000)
		}
		w, err := s.TextResult(cols)
		if err != nil {
			return err
		}
		for _, v := range values {
			if err := w.Row(v...); err != nil {
				return err
			}
		}
		return w.End(0, 0)
	}
	size := uint64(binlog.MagicSize)
	for _, ev := range o.events {
		size += uint64(len(ev))
	}
	switch sql {
	case "SELECT UNIX_TIMESTAMP()":
		return rows(1, []any{"1500000000"})
	case "SELECT @@GLOBAL.SERVER_ID":
		return rows(1, []any{"5"})
	case "SELECT VERSION()":
		return rows(1, []any{oldVersion})
	case "SELECT @@GLOBAL.LOG_BIN", "SELECT @@global.rpl_semi_sync_master_enabled":
		return rows(1, []any{"1"})
	case "SHOW BINARY LOGS":
		return rows(2, []any{oldFile, size})
	case "SHOW GLOBAL VARIABLES":
		return rows(2, []any{"version", oldVersion})
	case "SHOW GLOBAL STATUS WHERE Variable_name IN ('rpl_semi_sync_master_status', 'rpl_semi_sync_master_no_times')":
		return rows(2, []any{"Rpl_semi_sync_master_status", "ON"}, []any{"Rpl_semi_sync_master_no_times", "0"})
	case "SET @rpl_semi_sync_replica = 1, @rpl_semi_sync_slave = 1":
		o.announce.Store(true)
		return s.WriteOK(wire.OK{})
	case "SET @master_heartbeat_period = 500000000, @source_heartbeat_period = 500000000", "SET @slave_uuid = '" + o.uuid(sql) + "', @replica_uuid = '" + o.uuid(sql) + "'":
		return s.WriteOK(wire.OK{})
	}
	// It has no binlog_checksum, no uuid, no new names.
	return s.WriteError(wire.Errorf(wire.ErUnknownSystemVariable, "Unknown system variable in %s", sql))
}

// uuid is the one that the statement names, if it names one.
func (o *oldServer) uuid(sql string) string {
	var u string
	_, _ = fmt.Sscanf(sql, "SET @slave_uuid = '%36s", &u)
	return u
}

// dump sends the file, each event on its own, and waits for the answer of those that ask.
func (o *oldServer) dump(s *wire.Session) {
	s.SplitSequence()
	rotate := binlog.AppendRotate(nil, binlog.Header{ServerID: 5, Flags: binlog.FlagArtificial}, binlog.Rotate{Position: binlog.MagicSize, Name: oldFile}, binlog.ChecksumNone)
	pos := uint64(binlog.MagicSize)
	for n := -1; n < len(o.events); n++ {
		ev := rotate
		if n >= 0 {
			ev = o.events[n]
			pos += uint64(len(ev))
		}
		flag := byte(0)
		if o.asks(n) {
			flag = flagAsk
		}
		if err := s.WritePacket(append([]byte{0, magic, flag}, ev...)); err != nil {
			o.t.Errorf("send event %d: %v", n, err)
			return
		}
		if err := s.Flush(); err != nil {
			o.t.Errorf("send event %d: %v", n, err)
			return
		}
		if flag == 0 {
			continue
		}
		s.SetWriteSequence(1)
		s.SetReadSequence(0)
		_ = s.SetDeadline(time.Now().Add(patience))
		answer, err := s.ReadPacket(1 << 10)
		want := append(binary.LittleEndian.AppendUint64([]byte{magic}, pos), oldFile...)
		if err != nil || !bytes.Equal(answer, want) {
			o.t.Errorf("the answer for event %d is %x, %v; want %x", n, answer, err, want)
			return
		}
		o.answers.Add(1)
	}
	<-o.done
}

// TestOldForms: a 5.5 source gets each answer before it sends on, whatever asks; and a
// 5.5 replica finds a semi-sync source.
func TestOldForms(t *testing.T) {
	for name, asks := range map[string]func(n int) bool{
		// What a source flags that has fallen back, or never was on.
		"every event asks": func(int) bool { return true },
		"ends of transactions ask": func(n int) bool {
			return n > 0 && n < len(oldEvents())-1 && (n == 1 || binlog.EventType(oldEvents()[n][4]) == binlog.TypeXID)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := &oldServer{t: t, events: oldEvents(), asks: asks, done: make(chan struct{})}
			var total uint64
			for n := -1; n < len(o.events); n++ {
				if asks(n) {
					total++
				}
			}
			discard := slog.New(slog.DiscardHandler)
			r := &rig{t: t, replica: NewReplica(ModeAuto, ChainSettings{}, files{}, discard)}
			var binlogs later
			waits := NewSource(WaitSettings{Enabled: true, Timeout: time.Hour, Replicas: 1, NoReplica: true}, &binlogs, discard)
			defer waits.Close()
			var hooks hook.Set
			r.replica.Observe(&hooks)
			waits.Observe(&hooks)
			st, err := stream.Open(stream.Config{FS: vfs.NewMem(1), Dir: "/kingbus", Hooks: hooks, Peering: cluster.Peering{Heartbeat: 10 * time.Millisecond}})
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			r.st = st
			binlogs.Store(st)
			port := o.listen()
			defer close(o.done)
			p, err := source.New(source.Config{
				Stream: source.Adapt(st), Host: "127.0.0.1", Port: port, User: "repl", Hooks: hooks,
				Password: func() ([]byte, error) { return []byte("p"), nil }, TLSMode: wire.TLSDisabled, Heartbeat: 500 * time.Millisecond,
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ran := make(chan struct{})
			go func() { defer close(ran); _ = p.Run(ctx) }()
			defer func() { cancel(); <-ran }()

			r.await("all answers", func() bool { return o.answers.Load() == total })
			r.await("the state of the source", func() bool { return r.replica.Status().State == StateWaiting })
			r.await("all of the file", func() bool { return st.Status().Transactions == 4 })
			if !o.announce.Load() {
				t.Error("the replica did not say what it is")
			}
			oldReplica(t, st, hooks, waits, o.events)
		})
	}
}

// later is a stream that the hooks know before it is there.
type later struct{ atomic.Pointer[stream.Stream] }

func (l *later) FileNumber(name string) (uint32, bool) {
	if st := l.Load(); st != nil {
		return st.FileNumber(name)
	}
	return 0, false
}

func (l *later) Executed() gtid.Set { return l.Load().Executed() }

// oldReplica asks kingbus for the binlog as 5.5 does, answers as it does, and compares
// what it gets.
func oldReplica(t *testing.T, st *stream.Stream, hooks hook.Set, waits *Source, events [][]byte) {
	t.Helper()
	srv, err := server.New(server.Config{
		Stream: server.Binlog(st), Accounts: newOldAccount(t), AllowNative: true, Hooks: hooks,
		Variables: []sql.Variable{{Name: "rpl_semi_sync_master_enabled", Type: sql.VarBool, Default: sql.Bool(true)}}, Status: waits.StatusVariables, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	defer func() { _ = srv.Close(); <-served }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := wire.Dial(ctx, wire.ClientConfig{Address: ln.Addr().String(), User: "repl", Password: []byte("p"), TLSMode: wire.TLSDisabled})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for sql, columns := range map[string]int{"SELECT UNIX_TIMESTAMP()": 1, "SHOW VARIABLES LIKE 'SERVER_ID'": 2, "SHOW VARIABLES LIKE 'rpl_semi_sync_master_enabled'": 2} {
		res, err := c.Query(ctx, sql)
		if err != nil || len(res.Rows) != 1 || len(res.Rows[0]) != columns {
			t.Fatalf("%s: %v, %v", sql, res, err)
		}
	}
	for _, sql := range []string{"SET @master_heartbeat_period= 1799999979520", "SET @rpl_semi_sync_slave= 1"} {
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	register := binary.LittleEndian.AppendUint32([]byte{wire.ComRegisterReplica}, 99)
	if _, err := c.Do(ctx, append(register, make([]byte, 3+2+4+4)...)); err != nil {
		t.Fatal(err)
	}
	request := binary.LittleEndian.AppendUint32([]byte{wire.ComBinlogDump}, binlog.MagicSize)
	request = binary.LittleEndian.AppendUint16(request, 0)
	request = append(binary.LittleEndian.AppendUint32(request, 99), oldFile...)
	if err := c.Command(request); err != nil {
		t.Fatal(err)
	}
	conn := c.Conn()
	conn.SplitSequence()
	_ = conn.SetDeadline(time.Now().Add(patience))
	pos := uint64(binlog.MagicSize)
	for n := -1; n < len(events); n++ {
		packet, err := conn.ReadPacket(1 << 20)
		if err != nil || len(packet) < 3 || packet[0] != 0 || packet[1] != magic {
			t.Fatalf("packet %d: %x, %v", n, packet, err)
		}
		if n >= 0 {
			if !bytes.Equal(packet[3:], events[n]) {
				t.Fatalf("event %d is %x, want %x", n, packet[3:], events[n])
			}
			pos += uint64(len(events[n]))
		}
		if packet[2]&flagAsk == 0 {
			continue
		}
		conn.SetReadSequence(1)
		conn.SetWriteSequence(0)
		if err := conn.WritePacket(append(binary.LittleEndian.AppendUint64([]byte{magic}, pos), oldFile...)); err != nil {
			t.Fatal(err)
		}
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	late := time.After(patience)
	for waits.Status().YesTx != 4 {
		select {
		case <-late:
			t.Fatalf("the answers are not counted: %+v", waits.Status())
		case <-time.After(time.Millisecond):
		}
	}
	if got := waits.Status(); got.NoTx != 0 || got.Clients != 1 || got.Refused != 0 || !got.On {
		t.Errorf("%+v", got)
	}
}
