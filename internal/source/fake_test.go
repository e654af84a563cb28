package source

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"kingbus/internal/binlog"
	"kingbus/internal/binlogtest"
	"kingbus/internal/gtid"
	"kingbus/internal/wire"
)

// fake is a source that does what a test wants. Its fields may be changed under
// mu while it runs.
type fake struct {
	t   testing.TB
	ln  net.Listener
	acc *wire.Acceptor
	wg  sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	files   []fakeFile
	answers map[string]any // statement → value, or *wire.Error
	said    map[string]bool
	dumps   []dumpRequest // those that came
	sum     binlog.Checksum
	byGTID  bool // wants COM_BINLOG_DUMP_GTID
	// edit changes what is sent: the payloads (with the status byte) of dump n,
	// counted from 0. The connection is closed behind them if it says so.
	edit func(n int, payloads [][]byte) (_ [][]byte, hangUp bool)
	// limit is after how many bytes dump n is cut; negative is never.
	limit func(n int) int
}

type fakeFile struct {
	name string
	data []byte // with the magic
}

type dumpRequest struct {
	byGTID bool
	file   string
	pos    uint64
	set    gtid.Set
	server uint32
}

const fakeUUID = "aaaaaaaa-1111-2222-3333-444444444444"

var fakeVerifier = sync.OnceValue(func() wire.Verifier {
	v, err := wire.NewVerifier([]byte(replPassword), wire.VerifierForms{Digest: true})
	if err != nil {
		panic(err)
	}
	return v
})

type fakeAccounts struct{}

func (fakeAccounts) Account(user, host string) (wire.Account, bool) {
	return wire.Account{Verifier: fakeVerifier()}, user == replUser
}

func newFake(t testing.TB, version string) *fake {
	t.Helper()
	acc, err := wire.NewAcceptor(wire.AcceptorConfig{Version: version, Accounts: fakeAccounts{}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, ln: ln, acc: acc, conns: map[net.Conn]struct{}{}, said: map[string]bool{}, sum: binlog.ChecksumCRC32, byGTID: true}
	f.answers = map[string]any{
		"SELECT UNIX_TIMESTAMP()":        "1700000000",
		"SELECT @@GLOBAL.SERVER_ID":      "11",
		"SELECT VERSION()":               version,
		"SELECT @@GLOBAL.SERVER_UUID":    fakeUUID,
		"SELECT @@GLOBAL.GTID_MODE":      "ON",
		"SELECT @@GLOBAL.GTID_EXECUTED":  fakeUUID + ":1-1000000",
		"SELECT @@GLOBAL.GTID_OWNED":     "",
		"SELECT @@GLOBAL.GTID_PURGED":    "",
		"SELECT @@GLOBAL.LOG_BIN":        "1",
		"SELECT @source_binlog_checksum": "CRC32",
	}
	f.wg.Add(1)
	go f.accept()
	t.Cleanup(func() {
		ln.Close()
		f.hangUp()
		f.wg.Wait()
	})
	return f
}

func (f *fake) config(s Stream) Config {
	addr := f.ln.Addr().(*net.TCPAddr)
	return Config{
		Stream: s, Host: "127.0.0.1", Port: uint16(addr.Port), User: replUser, TLSMode: wire.TLSDisabled,
		Password: func() ([]byte, error) { return []byte(replPassword), nil },
	}
}

// change sets fields while it runs.
func (f *fake) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fake) requests() []dumpRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]dumpRequest(nil), f.dumps...)
}

// hangUp closes all connections.
func (f *fake) hangUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.Close()
	}
}

func (f *fake) accept() {
	defer f.wg.Done()
	for {
		nc, err := f.ln.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.conns[nc] = struct{}{}
		f.mu.Unlock()
		f.wg.Add(1)
		go func() {
			defer f.wg.Done()
			f.serve(nc)
			nc.Close()
			f.mu.Lock()
			delete(f.conns, nc)
			f.mu.Unlock()
		}()
	}
}

// cutter closes the connection after so many bytes written.
type cutter struct {
	net.Conn
	left int // negative: no limit
}

func (c *cutter) Write(p []byte) (int, error) {
	if c.left < 0 {
		return c.Conn.Write(p)
	}
	n := min(len(p), c.left)
	c.left -= n
	_, err := c.Conn.Write(p[:n])
	if err == nil && n < len(p) {
		c.Conn.Close()
		err = errors.New("cut")
	}
	return n, err
}

func (f *fake) serve(nc net.Conn) {
	cut := &cutter{Conn: nc, left: -1}
	s, err := f.acc.Accept(context.Background(), cut)
	if err != nil {
		return
	}
	for {
		cmd, p, err := s.ReadCommand(1 << 20)
		if err != nil {
			return
		}
		switch cmd {
		case wire.ComQuery:
			err = f.query(s, string(p))
		case wire.ComRegisterReplica:
			err = s.WriteOK(wire.OK{})
		case wire.ComBinlogDump, wire.ComBinlogDumpGTID:
			f.dump(s, cut, cmd, p)
			return
		default:
			return
		}
		if err == nil {
			err = s.Flush()
		}
		if err != nil {
			return
		}
	}
}

func (f *fake) query(s *wire.Session, sql string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said[sql] = true
	if v, ok := f.answers[sql]; ok {
		if e, ok := v.(*wire.Error); ok {
			return s.WriteError(e)
		}
		return rows(s, 1, [][]any{{v}})
	}
	switch {
	case strings.HasPrefix(sql, "SET "):
		return s.WriteOK(wire.OK{})
	case sql == "SHOW BINARY LOGS":
		var out [][]any
		for _, file := range f.files {
			out = append(out, []any{file.name, uint64(len(file.data))})
		}
		return rows(s, 2, out)
	case sql == "SHOW GLOBAL VARIABLES":
		out := [][]any{{"report_password", "hush"}, {"gtid_strict_mode", "OFF"}}
		if mode, ok := f.answers["SELECT @@GLOBAL.GTID_MODE"].(string); ok {
			out = append(out, []any{"gtid_mode", mode})
		}
		return rows(s, 2, out)
	}
	return s.WriteError(wire.Errorf(wire.ErParse, "unexpected statement %s", sql))
}

func rows(s *wire.Session, columns int, values [][]any) error {
	var cols []wire.Column
	for i := range columns {
		cols = append(cols, wire.StringColumn(fmt.Sprint("c", i), 1000))
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

func parseDump(cmd byte, p []byte) (d dumpRequest, ok bool) {
	if cmd == wire.ComBinlogDump {
		if len(p) < 10 {
			return d, false
		}
		return dumpRequest{file: string(p[10:]), pos: uint64(binary.LittleEndian.Uint32(p)), server: binary.LittleEndian.Uint32(p[6:])}, true
	}
	if len(p) < 10 {
		return d, false
	}
	d = dumpRequest{byGTID: true, server: binary.LittleEndian.Uint32(p[2:])}
	n := int(binary.LittleEndian.Uint32(p[6:]))
	if len(p) < 10+n+12 {
		return d, false
	}
	d.file, p = string(p[10:10+n]), p[10+n:]
	d.pos = binary.LittleEndian.Uint64(p)
	set, err := gtid.DecodeSet(p[12:])
	d.set = set
	return d, err == nil && int(binary.LittleEndian.Uint32(p[8:])) == len(p)-12
}

// dump serves the files as MySQL does, as far as edit and limit let it.
func (f *fake) dump(s *wire.Session, cut *cutter, cmd byte, p []byte) {
	d, ok := parseDump(cmd, p)
	f.mu.Lock()
	if !ok {
		f.t.Errorf("bad dump request % x", p)
	}
	n := len(f.dumps)
	f.dumps = append(f.dumps, d)
	payloads, err := f.payloads(d)
	edit, hangUp := f.edit, false
	if f.limit != nil {
		cut.left = f.limit(n)
	}
	f.mu.Unlock()
	if err != nil {
		_ = s.WriteError(wire.Errorf(wire.ErSourceFatalReadingBinlog, "%v", err))
		_ = s.Flush()
		return
	}
	if edit != nil {
		payloads, hangUp = edit(n, payloads)
	}
	for _, p := range payloads {
		if s.WritePacket(p) != nil {
			return
		}
	}
	if s.Flush() != nil || hangUp {
		return
	}
	_, _ = io.Copy(io.Discard, cut.Conn) // until the client leaves
}

// payloads are the packets of a dump, from its position to the end.
func (f *fake) payloads(d dumpRequest) ([][]byte, error) {
	first := -1
	for i := range f.files {
		if f.files[i].name == d.file {
			first = i
		}
	}
	if first < 0 {
		return nil, errors.New("Could not find first log file name in binary log index file")
	}
	if d.pos > uint64(len(f.files[first].data)) {
		return nil, errors.New("Client requested source to start replication from position > file size")
	}
	var out [][]byte
	pos, sum := d.pos, f.sum
	for _, file := range f.files[first:] {
		rotate := binlog.AppendRotate([]byte{0}, binlog.Header{ServerID: 11, Flags: binlog.FlagArtificial}, binlog.Rotate{Position: pos, Name: file.name}, sum)
		out = append(out, rotate)
		at := uint64(binlog.MagicSize)
		for at < uint64(len(file.data)) {
			h, err := binlog.ParseHeader(file.data[at:])
			if err != nil {
				return nil, err
			}
			ev := append([]byte{0}, file.data[at:at+uint64(h.Length)]...)
			if at == binlog.MagicSize {
				fd, err := binlog.ParseFormatDescription(ev[1:])
				if err != nil {
					return nil, err
				}
				sum = fd.Checksum
				if pos > at {
					if !d.byGTID { // end_log_pos and created
						clear(ev[1+13 : 1+17])
						clear(ev[1+19+52 : 1+19+56])
						binlog.UpdateChecksum(ev[1:])
					}
					out = append(out, ev)
				}
			}
			if at >= pos {
				out = append(out, ev)
			}
			at += uint64(h.Length)
		}
		pos = binlog.MagicSize
	}
	return out, nil
}

// someFiles makes n files of transactions of the given sizes.
func someFiles(n int, sum binlog.Checksum, sizes ...int) []fakeFile {
	uuid, _ := gtid.ParseUUID(fakeUUID)
	w := &binlogtest.Writer{UUID: uuid, ServerID: 11, Time: 1700000000, Checksum: sum}
	var files []fakeFile
	for i := range n {
		w.Time += 10
		b := w.Begin(nil)
		for _, size := range sizes {
			b = w.Transaction(b, size)
		}
		if i < n-1 {
			b = w.Rotate(b, fakeName(i+1))
		}
		files = append(files, fakeFile{fakeName(i), append([]byte(binlog.Magic), b...)})
	}
	return files
}

func fakeName(i int) string { return fmt.Sprintf("binlog.%06d", i+1) }

// heartbeat is the payload of one.
func heartbeat(name string, pos uint64) []byte {
	return binlog.AppendHeartbeatV2([]byte{0}, 11, binlog.Heartbeat{Name: name, Position: pos}, binlog.ChecksumCRC32)
}
