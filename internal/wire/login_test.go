package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// accounts is a fixed set of accounts.
type accounts map[string]Account

func (a accounts) Account(user, host string) (Account, bool) {
	acc, ok := a[user]
	return acc, ok
}

// liveAccounts can change while sessions log in.
type liveAccounts struct{ atomic.Pointer[accounts] }

func (a *liveAccounts) Account(user, host string) (Account, bool) {
	return a.Load().Account(user, host)
}

func verifier(t testing.TB, password string, also VerifierForms) Verifier {
	t.Helper()
	v, err := NewVerifier([]byte(password), also)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// testServer accepts sessions and answers a few statements, so that both roles
// of this package talk to each other.
type testServer struct {
	addr     string
	acceptor *Acceptor
	sessions chan *Session // those that logged in
	failures chan error    // the others
	wrapper  atomic.Pointer[func(net.Conn) net.Conn]
}

// wrap puts something around the connections to come.
func (s *testServer) wrap(f func(net.Conn) net.Conn) { s.wrapper.Store(&f) }

func startServer(t testing.TB, cfg AcceptorConfig, tweaks ...func(*Acceptor)) *testServer {
	t.Helper()
	if cfg.Version == "" {
		cfg.Version = "9.7.4-kingbus"
	}
	a, err := NewAcceptor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, tweak := range tweaks {
		tweak(a)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{addr: ln.Addr().String(), acceptor: a, sessions: make(chan *Session, 100), failures: make(chan error, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			if f := s.wrapper.Load(); f != nil {
				nc = (*f)(nc)
			}
			wg.Go(func() {
				sess, err := a.Accept(ctx, nc)
				if err != nil {
					s.failures <- err
					return
				}
				defer sess.Close()
				defer sess.CloseOn(ctx)()
				for sess != nil {
					s.sessions <- sess
					sess = s.answerStatements(ctx, sess)
				}
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		ln.Close()
		wg.Wait()
	})
	return s
}

// answerStatements returns the session that comes after a change of user.
func (srv *testServer) answerStatements(ctx context.Context, s *Session) *Session {
	for {
		cmd, p, err := s.ReadCommand(1 << 20)
		if err != nil {
			return nil
		}
		switch cmd {
		case ComQuit:
			return nil
		case ComChangeUser:
			next, err := srv.acceptor.ChangeUser(ctx, s, p)
			if err != nil {
				srv.failures <- err
			}
			return next
		case ComPing:
			err = s.WriteOK(OK{Status: StatusAutocommit})
		case ComQuery:
			err = answerQuery(s, string(p))
		case ComStmtPrepare:
			err = s.WritePrepared(7, 2, []Column{StringColumn("s", 10), IntColumn("i", false)})
		default:
			err = s.WriteError(Errorf(ErUnknownCom, "Unknown command"))
		}
		if err != nil || s.Flush() != nil {
			return nil
		}
	}
}

func answerQuery(s *Session, sql string) error {
	switch sql {
	case "rows":
		w, err := s.TextResult([]Column{StringColumn("name", 60), IntColumn("n", true)})
		if err != nil {
			return err
		}
		for i := range 3 {
			if err := w.Row(fmt.Sprint("row ", i), uint64(i)); err != nil {
				return err
			}
		}
		if err := w.Row(nil, int64(-1)); err != nil {
			return err
		}
		return w.End(StatusAutocommit, 2)
	case "empty":
		w, err := s.TextResult([]Column{StringColumn("name", 60)})
		if err != nil {
			return err
		}
		return w.End(StatusAutocommit, 0)
	case "big":
		w, err := s.TextResult([]Column{StringColumn("blob", 60)})
		if err != nil {
			return err
		}
		if err := w.Row(make([]byte, MaxPacketPayload+10)); err != nil {
			return err
		}
		return w.End(StatusAutocommit, 0)
	case "half":
		w, err := s.TextResult([]Column{StringColumn("name", 60)})
		if err != nil {
			return err
		}
		if err := w.Row("x"); err != nil {
			return err
		}
		return s.WriteError(Errorf(ErUnknown, "broke off"))
	case "hang":
		_, err := s.ReadPacket(1)
		return err
	case "":
		return s.WriteError(Errorf(ErEmptyQuery, "Query was empty"))
	}
	return s.WriteOK(OK{Affected: 3, LastInsertID: 1 << 33, Status: StatusAutocommit, Warnings: 1, Info: sql})
}

const secret = "s3cret"

func clientConfig(addr, user string) ClientConfig {
	return ClientConfig{Address: addr, User: user, Password: []byte(secret), TLSMode: TLSDisabled,
		Attributes: ReplicaAttributes("kingbus", "9.7.4", "")}
}

// TestLoginMatrix logs our client in to our server: each kind of account, each
// TLS mode, with and without RSA, at first, and in the place of somebody else.
func TestLoginMatrix(t *testing.T) {
	serverTLS, pool := testTLS()
	accts := accounts{
		"salted": {Verifier: verifier(t, secret, VerifierForms{})},
		"digest": {Verifier: verifier(t, secret, VerifierForms{Digest: true})},
		"both":   {Verifier: verifier(t, secret, VerifierForms{Native: true})},
	}
	native, err := ParseVerifier(accts["both"].Verifier.Strings()[1])
	if err != nil {
		t.Fatal(err)
	}
	accts["native"] = Account{Verifier: native}
	accts["tlsonly"] = Account{Verifier: accts["digest"].Verifier, RequireTLS: true}

	refused := func(code uint16) func(error) bool {
		return func(err error) bool { return IsCode(err, code) }
	}
	is := func(target error) func(error) bool {
		return func(err error) bool { return errors.Is(err, target) }
	}
	tests := []struct {
		name   string
		user   string
		server func(*AcceptorConfig)
		client func(*ClientConfig)
		plugin string
		fail   func(error) bool
	}{
		{name: "salted plain", user: "salted", fail: is(ErrInsecurePassword)},
		{name: "salted RSA", user: "salted", client: func(c *ClientConfig) { c.GetServerPublicKey = true }, plugin: PluginCachingSHA2},
		{name: "salted RSA pinned", user: "salted", client: func(c *ClientConfig) { c.ServerPublicKey = &testKeys().PublicKey }, plugin: PluginCachingSHA2},
		{name: "salted no RSA key", user: "salted", server: func(c *AcceptorConfig) { c.RSAKey = nil },
			client: func(c *ClientConfig) { c.GetServerPublicKey = true }, fail: refused(ErAccessDenied)},
		{name: "salted preferred", user: "salted", client: func(c *ClientConfig) { c.TLSMode = TLSPreferred }, plugin: PluginCachingSHA2},
		{name: "salted preferred without TLS", user: "salted", server: func(c *AcceptorConfig) { c.TLS = nil },
			client: func(c *ClientConfig) { c.TLSMode = TLSPreferred }, fail: is(ErrInsecurePassword)},
		{name: "salted required", user: "salted", client: func(c *ClientConfig) { c.TLSMode = TLSRequired }, plugin: PluginCachingSHA2},
		{name: "required without TLS", user: "salted", server: func(c *AcceptorConfig) { c.TLS = nil },
			client: func(c *ClientConfig) { c.TLSMode = TLSRequired }, fail: is(ErrTLSRequired)},
		{name: "verify-ca", user: "salted", client: func(c *ClientConfig) {
			c.TLSMode, c.TLS = TLSVerifyCA, &tls.Config{RootCAs: pool, ServerName: "another.example"}
		}, plugin: PluginCachingSHA2},
		{name: "verify-identity", user: "salted", client: func(c *ClientConfig) {
			c.TLSMode, c.TLS = TLSVerifyIdentity, &tls.Config{RootCAs: pool}
		}, plugin: PluginCachingSHA2},
		{name: "verify-identity wrong name", user: "salted", client: func(c *ClientConfig) {
			c.TLSMode, c.TLS = TLSVerifyIdentity, &tls.Config{RootCAs: pool, ServerName: "another.example"}
		}, fail: func(err error) bool { return err != nil && !IsCode(err, ErAccessDenied) }},
		{name: "verify-identity unknown CA", user: "salted", client: func(c *ClientConfig) {
			c.TLSMode = TLSVerifyIdentity
		}, fail: func(err error) bool { return err != nil && !IsCode(err, ErAccessDenied) }},
		{name: "verify-ca without CA", user: "salted", client: func(c *ClientConfig) { c.TLSMode = TLSVerifyCA },
			fail: func(err error) bool { return err != nil }},
		{name: "digest plain", user: "digest", plugin: PluginCachingSHA2},
		{name: "digest TLS", user: "digest", client: func(c *ClientConfig) { c.TLSMode = TLSRequired }, plugin: PluginCachingSHA2},
		{name: "native plain", user: "native", plugin: PluginNative},
		{name: "native TLS", user: "native", client: func(c *ClientConfig) { c.TLSMode = TLSRequired }, plugin: PluginNative},
		{name: "native not allowed", user: "native", server: func(c *AcceptorConfig) { c.AllowNative = false },
			client: func(c *ClientConfig) { c.GetServerPublicKey = true }, fail: refused(ErAccessDenied)},
		{name: "both", user: "both", client: func(c *ClientConfig) { c.GetServerPublicKey = true }, plugin: PluginCachingSHA2},
		{name: "account wants TLS", user: "tlsonly", fail: refused(ErAccessDenied)},
		{name: "account has TLS", user: "tlsonly", client: func(c *ClientConfig) { c.TLSMode = TLSRequired }, plugin: PluginCachingSHA2},
		{name: "server wants TLS", user: "digest", server: func(c *AcceptorConfig) { c.RequireTLS = true }, fail: refused(ErSecureTransportRequired)},
	}
	for _, wrong := range []string{"salted", "digest", "native", "both", "nobody", ""} {
		tests = append(tests, struct {
			name   string
			user   string
			server func(*AcceptorConfig)
			client func(*ClientConfig)
			plugin string
			fail   func(error) bool
		}{name: "wrong password " + wrong, user: wrong, client: func(c *ClientConfig) {
			c.Password, c.GetServerPublicKey = []byte("wrong"), true
		}, fail: refused(ErAccessDenied)})
		tests = append(tests, tests[len(tests)-1])
		tests[len(tests)-1].name = "no password " + wrong
		tests[len(tests)-1].client = func(c *ClientConfig) { c.Password = nil }
	}
	for _, tt := range tests {
		check := func(t *testing.T, change bool) {
			cfg := AcceptorConfig{Accounts: accts, TLS: serverTLS, RSAKey: testKeys(), AllowNative: true}
			if tt.server != nil {
				tt.server(&cfg)
			}
			srv := startServer(t, cfg)
			cc := clientConfig(srv.addr, tt.user)
			if tt.client != nil {
				tt.client(&cc)
			}
			var c *Client
			var err error
			if change {
				first := cc
				first.User, first.Password, first.Database = "digest", []byte(secret), "before"
				if c, err = Dial(testContext(t), first); err == nil {
					defer c.Close()
					<-srv.sessions
					err = c.ChangeUser(testContext(t), tt.user, cc.Password, "")
				}
			} else if c, err = Dial(testContext(t), cc); err == nil {
				defer c.Close()
			}
			if tt.fail != nil {
				if !tt.fail(err) {
					t.Fatalf("got %v", err)
				}
				if e := (*Error)(nil); errors.As(err, &e) && e.Code == ErAccessDenied {
					yes := "YES"
					if len(cc.Password) == 0 {
						yes = "NO"
					}
					want := fmt.Sprintf("Access denied for user '%s'@'127.0.0.1' (using password: %s)", tt.user, yes)
					if e.Message != want || e.State != "28000" {
						t.Errorf("got  %s %s\nwant 28000 %s", e.State, e.Message, want)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s := <-srv.sessions
			if c.Plugin() != tt.plugin || s.Plugin != tt.plugin {
				t.Errorf("plugin: client %s, server %s, want %s", c.Plugin(), s.Plugin, tt.plugin)
			}
			if s.User != tt.user || s.Host != "127.0.0.1" || s.Database != "" || s.Attribute("_client_role") != "binary_log_listener" {
				t.Errorf("session %q@%q %v", s.User, s.Host, s.Attributes)
			}
			if got, want := s.Secure(), cc.TLSMode != TLSDisabled; got != want {
				t.Errorf("secure: %v, want %v", got, want)
			}
			checkStatements(t, c)
		}
		t.Run(tt.name, func(t *testing.T) { check(t, false) })
		t.Run(tt.name+" as another", func(t *testing.T) { check(t, true) })
	}
}

func checkStatements(t *testing.T, c *Client) {
	t.Helper()
	ctx := testContext(t)
	if err := c.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	res, err := c.Query(ctx, "rows")
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%s %s %q %v", res.Columns[0].Name, res.Columns[1].Name, res.Rows, res.OK.Warnings)
	if want := `name n [["row 0" "0"] ["row 1" "1"] ["row 2" "2"] ["" "-1"]] 2`; got != want || res.Rows[3][0] != nil {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if res, err = c.Query(ctx, "empty"); err != nil || len(res.Rows) != 0 || len(res.Columns) != 1 {
		t.Errorf("empty: %+v, %v", res, err)
	}
	if _, err := c.Query(ctx, ""); !IsCode(err, ErEmptyQuery) {
		t.Errorf("empty query: %v", err)
	}
	if _, err := c.Query(ctx, "half"); !IsCode(err, ErUnknown) {
		t.Errorf("error after a row: %v", err)
	}
	ok, err := c.Exec(ctx, "SET x")
	if want := (OK{Affected: 3, LastInsertID: 1 << 33, Status: StatusAutocommit, Warnings: 1, Info: "SET x"}); err != nil || ok != want {
		t.Errorf("got  %+v, %v\nwant %+v", ok, err, want)
	}
	if _, err := c.Do(ctx, []byte{ComRegisterReplica}); !IsCode(err, ErUnknownCom) {
		t.Errorf("unknown command: %v", err)
	}
}

// TestFastPath: after one full authentication the account logs in without TLS
// and RSA, until its password changes.
func TestFastPath(t *testing.T) {
	serverTLS, _ := testTLS()
	var live liveAccounts
	live.Store(&accounts{"u": {Verifier: verifier(t, secret, VerifierForms{})}})
	srv := startServer(t, AcceptorConfig{Accounts: &live, TLS: serverTLS, RSAKey: testKeys()})
	try := func(mode TLSMode, password string) error {
		cfg := clientConfig(srv.addr, "u")
		cfg.TLSMode, cfg.Password = mode, []byte(password)
		c, err := Dial(testContext(t), cfg)
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := try(TLSDisabled, secret); !errors.Is(err, ErrInsecurePassword) {
		t.Fatalf("cache empty: %v", err)
	}
	if err := try(TLSRequired, secret); err != nil {
		t.Fatal(err)
	}
	if err := try(TLSDisabled, secret); err != nil {
		t.Fatalf("cache filled: %v", err)
	}
	if err := try(TLSRequired, "wrong"); !IsCode(err, ErAccessDenied) {
		t.Fatalf("wrong password: %v", err)
	}
	live.Store(&accounts{"u": {Verifier: verifier(t, "another", VerifierForms{})}})
	if err := try(TLSDisabled, secret); !errors.Is(err, ErrInsecurePassword) {
		t.Fatalf("password changed: %v", err)
	}
}

// TestOldResultStyle speaks without DeprecateEOF, as 5.6 does.
func TestOldResultStyle(t *testing.T) {
	srv := startServer(t, AcceptorConfig{Accounts: accounts{"u": {Verifier: verifier(t, secret, VerifierForms{Digest: true})}}},
		func(a *Acceptor) { a.caps &^= ClientDeprecateEOF })
	c, err := Dial(testContext(t), clientConfig(srv.addr, "u"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s := <-srv.sessions; s.DeprecateEOF() {
		t.Fatal("DeprecateEOF is on")
	}
	checkStatements(t, c)
}

func TestResultBounds(t *testing.T) {
	srv := startServer(t, AcceptorConfig{Accounts: accounts{"u": {Verifier: verifier(t, secret, VerifierForms{Digest: true})}}})
	cfg := clientConfig(srv.addr, "u")
	cfg.MaxResult = 20 << 20
	c, err := Dial(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	res, err := c.Query(testContext(t), "big")
	if err != nil || len(res.Rows[0][0]) != MaxPacketPayload+10 {
		t.Fatalf("row of more than one packet: %v", err)
	}
	cfg.MaxResult = 1 << 20
	small, err := Dial(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	if _, err := small.Query(testContext(t), "big"); !errors.Is(err, ErrResultTooLarge) {
		t.Fatalf("got %v", err)
	}
	if err := small.Ping(testContext(t)); err == nil {
		t.Fatal("the session lived on in mid-result")
	}
}

func TestCancel(t *testing.T) {
	srv := startServer(t, AcceptorConfig{Accounts: accounts{"u": {Verifier: verifier(t, secret, VerifierForms{Digest: true})}}})
	c, err := Dial(testContext(t), clientConfig(srv.addr, "u"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		_, err := c.Query(ctx, "hang")
		done <- err
	}()
	<-srv.sessions
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func TestDialTimesOutOnASilentServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cfg := clientConfig(ln.Addr().String(), "u")
	cfg.ConnectTimeout = 50 * time.Millisecond
	if _, err := Dial(context.Background(), cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

// TestHalfHandshake: clients that stop anywhere in the login are thrown out.
func TestHalfHandshake(t *testing.T) {
	serverTLS, _ := testTLS()
	srv := startServer(t, AcceptorConfig{Accounts: accounts{}, TLS: serverTLS, HandshakeTimeout: 50 * time.Millisecond})
	head := (&login{caps: offered | ClientSSL}).appendHead(nil)
	for _, tt := range []struct {
		name string
		send []byte
	}{
		{"nothing", nil},
		{"half a header", []byte{1, 0}},
		{"a header", []byte{0xff, 0xff, 0, 1}},
		{"SSLRequest", append([]byte{32, 0, 0, 1}, head...)},
	} {
		nc, err := net.Dial("tcp", srv.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Write(tt.send); err != nil {
			t.Fatal(err)
		}
		if err := <-srv.failures; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, err := io.Copy(io.Discard, nc); err != nil {
			t.Logf("%s: %v", tt.name, err) // a reset is as good as an end
		}
		nc.Close()
	}
}
