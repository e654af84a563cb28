package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"kingbus/internal/mysqltest"
)

// update rewrites the golden packets in testdata from real servers and clients:
// go test ./internal/wire -run 'Replicas|OnMySQL|OnMaria|OnOur' -update
var update = flag.Bool("update", false, "rewrite the recorded packets in testdata")

// recorder copies what is read from a connection.
type recorder struct {
	net.Conn
	mu  sync.Mutex
	got bytes.Buffer
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.mu.Lock()
	r.got.Write(p[:n])
	r.mu.Unlock()
	return n, err
}

func (r *recorder) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.got.Bytes())
}

// recordingDial dials, and keeps what the server says.
func recordingDial(rec **recorder) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		*rec = &recorder{Conn: nc}
		return *rec, nil
	}
}

// saveGolden writes packets, one per line in hex: sequence number, payload.
func saveGolden(t *testing.T, name string, stream []byte) {
	t.Helper()
	if !*update {
		return
	}
	var out strings.Builder
	for len(stream) >= headerSize {
		n := int(stream[0]) | int(stream[1])<<8 | int(stream[2])<<16
		if len(stream) < headerSize+n {
			break
		}
		fmt.Fprintf(&out, "%d %s\n", stream[3], hex.EncodeToString(stream[headerSize:headerSize+n]))
		stream = stream[headerSize+n:]
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", name+".hex"), []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// loadGolden reads the payloads of such a file.
func loadGolden(t testing.TB, name string) [][]byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out [][]byte
	for lines := bufio.NewScanner(f); lines.Scan(); {
		_, text, _ := strings.Cut(lines.Text(), " ")
		p, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// recordServer logs in, runs statements of each kind of answer, and keeps it all.
func recordServer(t *testing.T, name string, cfg ClientConfig) {
	t.Helper()
	var rec *recorder
	cfg.Dial = recordingDial(&rec)
	cfg.TLSMode, cfg.GetServerPublicKey = TLSDisabled, true
	c, err := Dial(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	saveGolden(t, name+"-login", rec.bytes())
	ctx := testContext(t)
	for i, q := range goldenQueries {
		before := len(rec.bytes())
		_, err := c.Query(ctx, q)
		if err != nil && !strings.Contains(q, "no_such") {
			t.Fatal(err)
		}
		saveGolden(t, fmt.Sprintf("%s-query%d", name, i), rec.bytes()[before:])
	}
	before := len(rec.bytes())
	prepareAndRun(t, c)
	saveGolden(t, name+"-prepared", rec.bytes()[before:])
}

var goldenQueries = []string{
	"SELECT 'text', NULL, 18446744073709551615, -5, '' FROM DUAL",
	"SELECT 1 FROM DUAL WHERE FALSE",
	"SET @x = 1",
	"SELECT @@global.no_such_variable",
}

// prepareAndRun executes a prepared statement with one of each kind of parameter.
func prepareAndRun(t *testing.T, c *Client) {
	t.Helper()
	const sql = "SELECT CAST(? AS SIGNED), CAST(? AS CHAR), ?, CAST(? AS UNSIGNED)"
	read := func() []byte {
		p, err := c.read(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if err := c.command(append([]byte{ComStmtPrepare}, sql...)); err != nil {
		t.Fatal(err)
	}
	cur := NewCursor(read()[1:])
	id := cur.U32()
	packets := 8 // four parameters, four columns
	if c.caps&ClientDeprecateEOF == 0 {
		packets = 10
	}
	for range packets {
		read()
	}
	if err := c.command(append([]byte{ComStmtExecute}, goldenExecute(id)...)); err != nil {
		t.Fatal(err)
	}
	packets = 1 + 4 + 1 + 1 // count, columns, row, end
	if c.caps&ClientDeprecateEOF == 0 {
		packets++
	}
	for range packets {
		read()
	}
}

// goldenExecute runs it with -7, "abc", NULL and the largest uint64.
func goldenExecute(id uint32) []byte {
	p := []byte{byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24), 0, 1, 0, 0, 0}
	p = append(p, 1<<2, 1) // the third is NULL; types follow
	p = append(p, TypeLongLong, 0, TypeVarString, 0, TypeNull, 0, TypeLongLong, 0x80)
	p = append(p, 0xf9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	p = AppendLenEncString(p, "abc")
	return append(p, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
}

// TestReplicasOnOurServer has real replicas of each kind log in to the server
// role: their client libraries differ in what they send.
func TestReplicasOnOurServer(t *testing.T) {
	const (
		mysqlTo   = "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%s, SOURCE_USER='%s', SOURCE_PASSWORD='%s'"
		oldTo     = "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%s, MASTER_USER='%s', MASTER_PASSWORD='%s'"
		startNew  = "; START REPLICA IO_THREAD"
		startOld  = "; START SLAVE IO_THREAD"
		rsaSuffix = ", SOURCE_SSL=0, GET_SOURCE_PUBLIC_KEY=1"
	)
	tests := []struct {
		flavour mysqltest.Flavour
		name    string
		change  string
		user    string
		plugin  string
		secure  bool
	}{
		{mysqltest.MySQL97, "tls", mysqlTo + ", SOURCE_SSL=1" + startNew, "salted", PluginCachingSHA2, true},
		{mysqltest.MySQL97, "rsa", mysqlTo + rsaSuffix + startNew, "salted", PluginCachingSHA2, false},
		{mysqltest.MySQL97, "native", mysqlTo + rsaSuffix + startNew, "native", PluginNative, false},
		{mysqltest.MySQL56, "native", oldTo + startOld, "both", PluginNative, false},
		{mysqltest.MariaDB1011, "native", oldTo + ", MASTER_SSL=0" + startOld, "both", PluginNative, false},
		{mysqltest.MariaDB118, "native", oldTo + ", MASTER_SSL=0" + startOld, "both", PluginNative, false},
		{mysqltest.MariaDB118, "tls", oldTo + ", MASTER_SSL=1, MASTER_SSL_VERIFY_SERVER_CERT=0" + startOld, "both", PluginNative, true},
	}
	both := verifier(t, secret, VerifierForms{Native: true})
	native, err := ParseVerifier(both.Strings()[1])
	if err != nil {
		t.Fatal(err)
	}
	accts := accounts{
		"salted": {Verifier: verifier(t, secret, VerifierForms{})},
		"both":   {Verifier: both},
		"native": {Verifier: native},
	}
	serverTLS, _ := testTLS()
	instances := make(map[mysqltest.Flavour]*mysqltest.Instance)
	for _, tt := range tests {
		inst := instances[tt.flavour]
		if inst == nil {
			inst = mysqltest.Start(t, mysqltest.Options{Flavour: tt.flavour})
			instances[tt.flavour] = inst
		}
		t.Run(string(tt.flavour)+" "+tt.name, func(t *testing.T) {
			recorders := make(chan *recorder, 100)
			srv := startServer(t, AcceptorConfig{Accounts: accts, TLS: serverTLS, RSAKey: testKeys(), AllowNative: true})
			srv.wrap(func(nc net.Conn) net.Conn {
				r := &recorder{Conn: nc}
				recorders <- r
				return r
			})
			_, port, _ := strings.Cut(srv.addr, ":")
			if err := inst.Exec(testContext(t), fmt.Sprintf(tt.change, port, tt.user, secret)); err != nil {
				t.Fatal(err)
			}
			defer func() {
				stop := "STOP REPLICA; RESET REPLICA ALL"
				if strings.Contains(tt.change, "MASTER") {
					stop = "STOP SLAVE; RESET SLAVE ALL"
				}
				if err := inst.Exec(testContext(t), stop); err != nil {
					t.Error(err)
				}
			}()
			select {
			case s := <-srv.sessions:
				if s.Plugin != tt.plugin || s.Secure() != tt.secure || s.User != tt.user {
					t.Errorf("session %+v", s)
				}
				t.Logf("collation %d, largest packet %d, capabilities %#x, attributes %q", s.Collation, s.MaxPacket, s.caps, s.Attributes)
			case err := <-srv.failures:
				t.Fatal(err)
			case <-testContext(t).Done():
				t.Fatal("no login")
			}
			if r := <-recorders; !tt.secure {
				saveGolden(t, "replica-"+string(tt.flavour)+"-"+tt.name, r.bytes())
			}
		})
	}
}
