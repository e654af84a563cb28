package wire

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kingbus/internal/keys"
	"kingbus/internal/mysqltest"
)

func createUser(t *testing.T, inst *mysqltest.Instance, name, plugin string) {
	t.Helper()
	u := mysqltest.User{Name: name, Password: secret, Plugin: plugin, Grants: "REPLICATION SLAVE, REPLICATION CLIENT"}
	if err := inst.CreateUser(testContext(t), u); err != nil {
		t.Fatal(err)
	}
}

// checkRealServer runs what a replica runs.
func checkRealServer(t *testing.T, c *Client) {
	t.Helper()
	ctx := testContext(t)
	if err := c.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	res, err := c.Query(ctx, "SELECT 'a', NULL, 12, ''")
	if err != nil {
		t.Fatal(err)
	}
	row := res.Rows[0]
	if string(row[0]) != "a" || row[1] != nil || string(row[2]) != "12" || row[3] == nil || len(row[3]) != 0 || len(res.Columns) != 4 {
		t.Errorf("got %q", row)
	}
	if res, err = c.Query(ctx, "SELECT 1 FROM DUAL WHERE FALSE"); err != nil || len(res.Rows) != 0 || len(res.Columns) != 1 {
		t.Errorf("no rows: %+v, %v", res, err)
	}
	if _, err = c.Exec(ctx, "SET @master_binlog_checksum = @@global.binlog_checksum"); err != nil {
		t.Error(err)
	}
	if _, err := c.Query(ctx, "SELECT @@global.no_such_variable"); !IsCode(err, ErUnknownSystemVariable) {
		t.Errorf("unknown variable: %v", err)
	}
	if _, err := c.Query(ctx, "SELEC"); !IsCode(err, ErParse) {
		t.Errorf("syntax error: %v", err)
	}
}

func tryLogin(t *testing.T, cfg ClientConfig) error {
	t.Helper()
	c, err := Dial(testContext(t), cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	checkRealServer(t, c)
	return c.Quit()
}

// TestClientOnMySQL97 logs in to a real 9.7 in every way it offers.
func TestClientOnMySQL97(t *testing.T) {
	inst := mysqltest.Start(t, mysqltest.Options{})
	createUser(t, inst, "sha2", PluginCachingSHA2)
	createUser(t, inst, "sha256", PluginSHA256)
	if err := inst.Exec(testContext(t), "SET sql_log_bin=0; CREATE USER nopw@'%' IDENTIFIED WITH caching_sha2_password BY ''"); err != nil {
		t.Fatal(err)
	}
	keyText, err := os.ReadFile(filepath.Join(inst.DataDir, "public_key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePublicKey(keyText)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := LoadClientTLS(TLSFiles{CA: filepath.Join(inst.DataDir, "ca.pem")})
	if err != nil {
		t.Fatal(err)
	}
	named := func(name string) *tls.Config {
		c := ca.Clone()
		c.ServerName = name
		return c
	}
	mySQLName := certificateName(t, filepath.Join(inst.DataDir, "server-cert.pem"))
	anyError := func(err error) bool { return err != nil && !IsCode(err, ErAccessDenied) }
	ok := func(err error) bool { return err == nil }
	insecure := func(err error) bool { return errors.Is(err, ErrInsecurePassword) }
	denied := func(err error) bool { return IsCode(err, ErAccessDenied) }

	steps := []struct {
		name, user string
		set        func(*ClientConfig)
		want       func(error) bool
	}{
		// The order matters: the server remembers sha2 from the first success on.
		{"plain, cache empty", "sha2", nil, insecure},
		{"RSA", "sha2", func(c *ClientConfig) { c.GetServerPublicKey = true }, ok},
		{"plain, cache filled", "sha2", nil, ok},
		{"wrong password, RSA", "sha2", func(c *ClientConfig) { c.Password, c.GetServerPublicKey = []byte("wrong"), true }, denied},
		{"flush", "", nil, nil},
		{"RSA pinned", "sha2", func(c *ClientConfig) { c.ServerPublicKey = key }, ok},
		{"flush", "", nil, nil},
		{"RSA, another's key", "sha2", func(c *ClientConfig) { c.ServerPublicKey = &testKeys().PublicKey }, denied},
		{"TLS", "sha2", func(c *ClientConfig) { c.TLSMode = TLSRequired }, ok},
		{"TLS again", "sha2", func(c *ClientConfig) { c.TLSMode = TLSPreferred }, ok},
		{"wrong password, TLS", "sha2", func(c *ClientConfig) { c.Password, c.TLSMode = []byte("wrong"), TLSRequired }, denied},
		{"verify-ca", "sha2", func(c *ClientConfig) { c.TLSMode, c.TLS = TLSVerifyCA, ca }, ok},
		{"verify-ca, another CA", "sha2", func(c *ClientConfig) {
			_, pool := testTLS()
			c.TLSMode, c.TLS = TLSVerifyCA, &tls.Config{RootCAs: pool}
		}, anyError},
		{"verify-identity", "sha2", func(c *ClientConfig) { c.TLSMode, c.TLS = TLSVerifyIdentity, named(mySQLName) }, ok},
		{"verify-identity, wrong name", "sha2", func(c *ClientConfig) { c.TLSMode, c.TLS = TLSVerifyIdentity, ca }, anyError},
		{"sha256 plain", "sha256", nil, insecure},
		{"sha256 RSA", "sha256", func(c *ClientConfig) { c.GetServerPublicKey = true }, ok},
		{"sha256 RSA pinned", "sha256", func(c *ClientConfig) { c.ServerPublicKey = key }, ok},
		{"sha256 TLS", "sha256", func(c *ClientConfig) { c.TLSMode = TLSRequired }, ok},
		{"sha256 wrong password", "sha256", func(c *ClientConfig) { c.Password, c.TLSMode = []byte("wrong"), TLSRequired }, denied},
		{"no password", "nopw", func(c *ClientConfig) { c.Password = nil }, ok},
		{"no password where one is due", "sha2", func(c *ClientConfig) { c.Password = nil }, denied},
		{"unknown user", "nobody", func(c *ClientConfig) { c.TLSMode = TLSRequired }, denied},
		{"unix socket", "sha2", func(c *ClientConfig) { c.Network, c.Address = "unix", inst.Socket }, ok},
		{"database", "sha2", func(c *ClientConfig) { c.Database = "information_schema" }, ok},
		{"unknown database", "sha2", func(c *ClientConfig) { c.Database = "nowhere" }, func(err error) bool { return IsCode(err, ErDBAccessDenied, ErBadDB) }},
	}
	for _, s := range steps {
		if s.user == "" {
			if err := inst.Exec(testContext(t), "FLUSH PRIVILEGES"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			cfg := clientConfig(inst.Addr(), s.user)
			if s.set != nil {
				s.set(&cfg)
			}
			if err := tryLogin(t, cfg); !s.want(err) {
				t.Errorf("got %v", err)
			}
		})
	}

	// What the server sees of us.
	c, err := Dial(testContext(t), clientConfig(inst.Addr(), "sha2"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rows, err := inst.Query(testContext(t), fmt.Sprintf("SELECT ATTR_NAME, ATTR_VALUE FROM performance_schema.session_connect_attrs "+
		"WHERE PROCESSLIST_ID = %d ORDER BY ATTR_NAME", c.Greeting().ConnectionID))
	if err != nil || !slices.ContainsFunc(rows, func(r []string) bool { return r[0] == "_client_role" && r[1] == "binary_log_listener" }) {
		t.Errorf("connect attributes: %q, %v", rows, err)
	}
	if got := c.Greeting().Version; !strings.HasPrefix(got, "9.") && !strings.HasPrefix(got, "8.4") {
		t.Errorf("version %q", got)
	}

	recordServer(t, "mysql-9.7", clientConfig(inst.Addr(), "sha2"))

	// The dump's first event, streamed.
	checkDump(t, c)
	verifierFromServer(t, inst)
}

// certificateName is the common name, which is all that MySQL's own certificates have.
func certificateName(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert.Subject.CommonName
}

// checkDump asks for the binlog without waiting and reads it to its EOF.
func checkDump(t *testing.T, c *Client) {
	t.Helper()
	if _, err := c.Exec(testContext(t), "SET @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'CRC32'"); err != nil {
		t.Fatal(err)
	}
	dump := []byte{ComBinlogDump, 4, 0, 0, 0, 1, 0, 0xff, 0xff, 0, 0}
	if err := c.Command(dump); err != nil {
		t.Fatal(err)
	}
	for events := 0; ; events++ {
		if err := c.Conn().NextPayload(); err != nil {
			t.Fatal(err)
		}
		p, _ := c.Conn().Peek(9)
		switch {
		case len(p) > 0 && p[0] == headerOK:
			continue
		case IsEOF(p):
			if events < 2 {
				t.Errorf("%d events", events)
			}
			return
		default:
			t.Fatalf("got %x: %v", p, ParseError(p))
		}
	}
}

// verifierFromServer takes an account over from the server without its
// password, in the form that SHOW CREATE USER prints.
func verifierFromServer(t *testing.T, inst *mysqltest.Instance) {
	t.Helper()
	text, err := inst.QueryValue(testContext(t), "SELECT CONCAT('0x', HEX(authentication_string)) FROM mysql.user WHERE user='sha2'")
	if err != nil {
		t.Fatal(err)
	}
	v, err := ParseVerifier(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if !v.checkPassword([]byte(secret)) || v.checkPassword([]byte("wrong")) {
		t.Errorf("%s does not verify the password", text)
	}
	// And back: the server takes a verifier of ours.
	ours := verifier(t, secret, VerifierForms{})
	if err := inst.Exec(testContext(t), fmt.Sprintf("SET sql_log_bin=0; CREATE USER ours@'%%' IDENTIFIED WITH caching_sha2_password AS '%s'", ours.Strings()[0])); err != nil {
		t.Fatal(err)
	}
	cfg := clientConfig(inst.Addr(), "ours")
	cfg.TLSMode = TLSRequired
	if err := tryLogin(t, cfg); err != nil {
		t.Errorf("the server does not verify by ours: %v", err)
	}
}

func TestClientOnMySQL56(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := keys.Ensure(dir, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	files := TLSFiles{CA: filepath.Join(dir, keys.CAFile), Cert: filepath.Join(dir, keys.CertFile), Key: filepath.Join(dir, keys.KeyFile),
		MinVersion: tls.VersionTLS10}
	inst := mysqltest.Start(t, mysqltest.Options{Flavour: mysqltest.MySQL56,
		Args: []string{"--ssl-ca=" + files.CA, "--ssl-cert=" + files.Cert, "--ssl-key=" + files.Key}})
	createUser(t, inst, "native", PluginNative)
	old, err := LoadClientTLS(TLSFiles{CA: files.CA, MinVersion: files.MinVersion})
	if err != nil {
		t.Fatal(err)
	}
	for mode := TLSPreferred; mode <= TLSVerifyIdentity; mode++ {
		cfg := clientConfig(inst.Addr(), "native")
		cfg.TLSMode, cfg.TLS = mode, old
		if err := tryLogin(t, cfg); err != nil {
			t.Errorf("%v: %v", mode, err)
		}
	}
	cfg := clientConfig(inst.Addr(), "native")
	cfg.TLSMode = TLSRequired
	if err := tryLogin(t, cfg); err == nil {
		t.Error("TLS 1.0 was spoken without being allowed")
	}
	cfg = clientConfig(inst.Addr(), "native")
	cfg.Password = []byte("wrong")
	if err := tryLogin(t, cfg); !IsCode(err, ErAccessDenied) {
		t.Errorf("wrong password: %v", err)
	}
	recordServer(t, "mysql-5.6", clientConfig(inst.Addr(), "native"))
	c, err := Dial(testContext(t), clientConfig(inst.Addr(), "native"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	checkDump(t, c)
	checkOldReplicaTLS(t, inst, files)
}

// checkOldReplicaTLS has a 5.6 replica log in to the server role under TLS 1.0.
func checkOldReplicaTLS(t *testing.T, inst *mysqltest.Instance, files TLSFiles) {
	t.Helper()
	server, err := LoadServerTLS(files)
	if err != nil {
		t.Fatal(err)
	}
	srv := startServer(t, AcceptorConfig{TLS: server, AllowNative: true,
		Accounts: accounts{"u": {Verifier: verifier(t, secret, VerifierForms{Native: true})}}})
	_, port, _ := strings.Cut(srv.addr, ":")
	if err := inst.Exec(testContext(t), fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%s, MASTER_USER='u', MASTER_PASSWORD='%s', "+
		"MASTER_SSL=1, MASTER_SSL_CA='%s'; START SLAVE IO_THREAD", port, secret, files.CA)); err != nil {
		t.Fatal(err)
	}
	select {
	case s := <-srv.sessions:
		if state := s.TLSState(); state == nil || state.Version != tls.VersionTLS10 {
			t.Errorf("TLS of the replica: %+v", state)
		}
	case err := <-srv.failures:
		t.Error(err)
	case <-testContext(t).Done():
		t.Error("no login")
	}
	if err := inst.Exec(testContext(t), "STOP SLAVE"); err != nil {
		t.Error(err)
	}
}

func TestClientOnMariaDB(t *testing.T) {
	for _, flavour := range []mysqltest.Flavour{mysqltest.MariaDB1011, mysqltest.MariaDB118} {
		t.Run(string(flavour), func(t *testing.T) {
			inst := mysqltest.Start(t, mysqltest.Options{Flavour: flavour})
			createUser(t, inst, "native", PluginNative)
			for _, mode := range []TLSMode{TLSDisabled, TLSPreferred} {
				cfg := clientConfig(inst.Addr(), "native")
				cfg.TLSMode = mode
				if err := tryLogin(t, cfg); err != nil {
					t.Errorf("%v: %v", mode, err)
				}
			}
			cfg := clientConfig(inst.Addr(), "native")
			cfg.Password = []byte("wrong")
			if err := tryLogin(t, cfg); !IsCode(err, ErAccessDenied) {
				t.Errorf("wrong password: %v", err)
			}
			recordServer(t, string(flavour), clientConfig(inst.Addr(), "native"))
			c, err := Dial(testContext(t), clientConfig(inst.Addr(), "native"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if !c.Greeting().IsMariaDB() {
				t.Errorf("version %q", c.Greeting().Version)
			}
			checkDump(t, c)
		})
	}
}

// TestMySQLClientOnOurServer runs the real mysql client against the server role.
func TestMySQLClientOnOurServer(t *testing.T) {
	server, err := mysqltest.Find(testContext(t), mysqltest.MySQL97, nil)
	if errors.Is(err, mysqltest.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	serverTLS, _ := testTLS()
	accts := accounts{
		"salted": {Verifier: verifier(t, secret, VerifierForms{})},
		"digest": {Verifier: verifier(t, secret, VerifierForms{Digest: true})},
		"both":   {Verifier: verifier(t, secret, VerifierForms{Native: true})},
	}
	tests := []struct {
		name, user, password string
		args                 []string
		want                 string // in the output
		plugin               string
	}{
		{"TLS", "salted", secret, []string{"--ssl-mode=REQUIRED"}, "row 2\t2", PluginCachingSHA2},
		{"RSA", "both", secret, []string{"--ssl-mode=DISABLED", "--get-server-public-key"}, "row 2\t2", PluginCachingSHA2},
		{"plain, cache empty", "salted", secret, []string{"--ssl-mode=DISABLED"}, "ERROR 2061", ""},
		{"plain, digest", "digest", secret, []string{"--ssl-mode=DISABLED"}, "row 2\t2", PluginCachingSHA2},
		{"wrong password, TLS", "salted", "wrong", []string{"--ssl-mode=REQUIRED"}, "ERROR 1045 (28000): Access denied for user 'salted'@'127.0.0.1' (using password: YES)", ""},
		{"wrong password, RSA", "salted", "wrong", []string{"--ssl-mode=DISABLED", "--get-server-public-key"}, "ERROR 1045 (28000)", ""},
		{"no password", "salted", "", []string{"--ssl-mode=DISABLED"}, "(using password: NO)", ""},
		{"unknown user", "nobody", secret, []string{"--ssl-mode=REQUIRED"}, "ERROR 1045 (28000)", ""},
		{"native first, account without it", "salted", secret, []string{"--ssl-mode=REQUIRED", "--default-auth=" + PluginNative}, "row 2\t2", PluginCachingSHA2},
		{"native", "both", secret, []string{"--ssl-mode=DISABLED", "--default-auth=" + PluginNative}, "row 2\t2", PluginNative},
		{"native, wrong password", "both", "wrong", []string{"--ssl-mode=DISABLED", "--default-auth=" + PluginNative}, "ERROR 1045 (28000)", ""},
		{"sha256 first", "salted", secret, []string{"--ssl-mode=REQUIRED", "--default-auth=" + PluginSHA256}, "row 2\t2", PluginCachingSHA2},
	}
	for i, tt := range append(tests, tests...) {
		// In front of a MariaDB's binlog the greeting names another plugin.
		name, version := tt.name, ""
		if i >= len(tests) {
			name, version = "as MariaDB: "+name, "10.11.19-MariaDB"
			if tt.user == "both" && tt.plugin != "" {
				tt.plugin = PluginNative
			}
		}
		t.Run(name, func(t *testing.T) {
			srv := startServer(t, AcceptorConfig{Version: version, Accounts: accts, TLS: serverTLS, RSAKey: testKeys(), AllowNative: true})
			host, port, _ := strings.Cut(srv.addr, ":")
			args := append([]string{"--protocol=TCP", "--host=" + host, "--port=" + port, "--user=" + tt.user, "--password=" + tt.password}, tt.args...)
			out := runTool(t, server, append(args, "-N", "-e", "rows")...)
			if !strings.Contains(out, tt.want) {
				t.Fatalf("got  %s\nwant %s", out, tt.want)
			}
			if tt.plugin != "" {
				if s := <-srv.sessions; s.Plugin != tt.plugin || s.Attribute("_client_name") != "libmysql" {
					t.Errorf("plugin %s, want %s; attributes %v", s.Plugin, tt.plugin, s.Attributes)
				}
			}
		})
	}
}

func runTool(t *testing.T, server *mysqltest.Server, args ...string) string {
	t.Helper()
	ctx := testContext(t)
	out, err := server.Tool(ctx, "mysql", args...).CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("mysql client: %v: %s", err, out)
	}
	return string(out) // a refused login is an exit status too
}
