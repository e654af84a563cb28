package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// script plays a server, or a client, that sends what it likes. It runs in its
// own goroutine and ends when the connection does.
func scriptedServer(t *testing.T, play func(c *Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		c := NewConn(nc, 0, 0)
		defer c.Close()
		play(c)
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

func greeting(caps uint32) []byte {
	g := Greeting{Version: "9.7.4", ConnectionID: 1, Nonce: []byte("abcdefghijklmnopqrst"), Capabilities: caps,
		Plugin: PluginCachingSHA2}
	return g.appendTo(nil)
}

func say(c *Conn, packets ...[]byte) {
	for _, p := range packets {
		_ = c.WritePacket(p)
	}
	_ = c.Flush()
}

// TestClientRefuses: what a server, or whoever sits in between, may not get from us.
func TestClientRefuses(t *testing.T) {
	const plain = offered &^ ClientSSL
	nonce := "tsrqponmlkjihgfedcba\x00"
	ownKey, err := publicKeyPEM(&testKeys().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	moreData := func(b ...byte) []byte { return append([]byte{headerMoreData}, b...) }
	// after plays a server that says packets once the login has come, and then
	// reports whether the client sent anything more.
	after := func(leak *[]byte, packets ...[]byte) func(*Conn) {
		return func(c *Conn) {
			say(c, greeting(plain))
			if _, err := c.ReadPacket(maxLogin); err != nil {
				return
			}
			say(c, packets...)
			p, err := c.ReadPacket(maxAuth)
			if err == nil {
				*leak = bytes.Clone(p)
			}
		}
	}
	var leak []byte
	tests := []struct {
		name string
		play func(*Conn)
		cfg  func(*ClientConfig)
		want error
	}{
		{"clear password", after(&leak, []byte("\xfe"+pluginClear+"\x00")), nil, ErrAuthUnsupported},
		{"clear password with nonce", after(&leak, []byte("\xfe"+pluginClear+"\x00"+nonce)), nil, ErrAuthUnsupported},
		{"old password", after(&leak, []byte{headerEOF}), nil, ErrAuthUnsupported},
		{"old password by name", after(&leak, []byte("\xfe"+pluginOld+"\x00"+nonce)), nil, ErrAuthUnsupported},
		{"unknown plugin", after(&leak, []byte("\xfeauth_gssapi_client\x00"+nonce)), nil, ErrAuthUnsupported},
		{"second factor", after(&leak, []byte{headerNextFactor, 'x', 0}), nil, ErrAuthUnsupported},
		{"short nonce", after(&leak, []byte("\xfe"+PluginNative+"\x00abc\x00")), nil, ErrMalformed},
		{"switch cut short", after(&leak, []byte("\xfe"+PluginNative)), nil, ErrMalformed},
		{"empty packet", after(&leak, nil), nil, ErrMalformed},
		{"junk", after(&leak, []byte{0x42}), nil, ErrMalformed},
		{"full authentication in clear", after(&leak, moreData(4)), nil, ErrInsecurePassword},
		{"full authentication in clear, TLS preferred", after(&leak, moreData(4)),
			func(c *ClientConfig) { c.TLSMode = TLSPreferred }, ErrInsecurePassword},
		{"sha256_password in clear", after(&leak, []byte("\xfe"+PluginSHA256+"\x00"+nonce)), nil, ErrInsecurePassword},
		{"key pushed upon us", after(&leak, moreData(ownKey...)), func(c *ClientConfig) { c.GetServerPublicKey = true }, ErrMalformed},
		{"key pushed upon us beside a pinned one", after(&leak, moreData(ownKey...)), func(c *ClientConfig) {
			c.GetServerPublicKey, c.ServerPublicKey = true, &testKeys().PublicKey
		}, ErrMalformed},
		{"no TLS", after(&leak), func(c *ClientConfig) { c.TLSMode = TLSRequired }, ErrTLSRequired},
		{"no TLS to verify", after(&leak), func(c *ClientConfig) { c.TLSMode = TLSVerifyIdentity }, ErrTLSRequired},
		{"before 4.1", func(c *Conn) { say(c, greeting(ClientSecureConnection)) }, nil, ErrAuthUnsupported},
		{"protocol 9", func(c *Conn) { say(c, []byte("\x093.23\x00")) }, nil, ErrMalformed},
		{"huge greeting", func(c *Conn) { say(c, make([]byte, maxGreeting+1)) }, nil, &TooLargeError{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leak = nil
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			cfg := clientConfig(scriptedServer(t, tt.play), "u")
			if tt.cfg != nil {
				tt.cfg(&cfg)
			}
			c, err := Dial(ctx, cfg)
			if c != nil {
				c.Close()
			}
			var tooLarge *TooLargeError
			if errors.As(tt.want, &tooLarge) {
				if !errors.As(err, &tooLarge) {
					t.Errorf("got %v", err)
				}
			} else if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if leak != nil {
				t.Errorf("the client sent %q", leak)
			}
		})
	}
}

func TestClientRefusesEndlessLogin(t *testing.T) {
	addr := scriptedServer(t, func(c *Conn) {
		say(c, greeting(offered))
		if _, err := c.ReadPacket(maxLogin); err != nil {
			return
		}
		for range 1000 {
			say(c, []byte{headerMoreData, 3})
		}
		_, _ = c.ReadPacket(1)
	})
	c, err := Dial(testContext(t), clientConfig(addr, "u"))
	if c != nil {
		c.Close()
	}
	if !errors.Is(err, ErrMalformed) {
		t.Errorf("got %v", err)
	}
}

// TestInjectionIntoClientTLS: an OK that somebody put behind the greeting, in
// clear, must not be taken for the answer to a login under TLS.
func TestInjectionIntoClientTLS(t *testing.T) {
	addr := scriptedServer(t, func(c *Conn) {
		say(c, greeting(offered|ClientSSL), []byte{headerOK, 0, 0, 2, 0, 0, 0})
		_, _ = io.Copy(io.Discard, c.NetConn())
	})
	cfg := clientConfig(addr, "u")
	cfg.TLSMode = TLSRequired
	c, err := Dial(testContext(t), cfg)
	if c != nil {
		c.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "TLS handshake") {
		t.Errorf("got %v", err)
	}
}

// TestServerRefuses: what a client may not do before it has logged in.
func TestServerRefuses(t *testing.T) {
	serverTLS, _ := testTLS()
	login41 := func(caps uint32, answer string) []byte {
		l := login{caps: caps, user: "u", answer: []byte(answer), plugin: PluginCachingSHA2}
		p, err := l.appendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	sslRequest := (&login{caps: offered | ClientSSL}).appendHead(nil)
	tests := []struct {
		name  string
		noTLS bool
		send  []byte
		code  uint16 // of the answer; 0 if there need not be one
		check func(error) bool
	}{
		{name: "before 4.1", send: []byte{5, 0, 0, 0, 0, 'u', 0, 'p', 0}, code: ErNotSupportedAuthMode},
		{name: "before secure passwords", send: login41(ClientProtocol41, "abcdefgh"), code: ErNotSupportedAuthMode},
		{name: "no plugins, no native account", send: login41(ClientProtocol41|ClientSecureConnection, "abcdefghijabcdefghij"), code: ErNotSupportedAuthMode},
		{name: "empty", send: nil, code: ErHandshake},
		{name: "cut short", send: login41(offered, "x")[:33], code: ErHandshake},
		{name: "answer longer than the packet", send: append((&login{caps: offered}).appendHead(nil), 'u', 0, 0xfe, 255, 255, 255, 255, 255, 255, 255, 127), code: ErHandshake},
		{name: "SSL without TLS", noTLS: true, send: sslRequest, code: ErHandshake},
		{name: "SSL and login in one packet", send: login41(offered|ClientSSL, ""), code: ErHandshake},
		{name: "short answer", send: login41(offered, "abc"), code: ErAccessDenied},
		{name: "long answer", send: login41(offered, strings.Repeat("a", 4000)), code: ErAccessDenied},
		{name: "too large", send: make([]byte, maxLogin+1), check: func(err error) bool {
			var tooLarge *TooLargeError
			return errors.As(err, &tooLarge)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := AcceptorConfig{Accounts: accounts{"u": {Verifier: verifier(t, secret, VerifierForms{Digest: true})}}, TLS: serverTLS}
			if tt.noTLS {
				cfg.TLS = nil
			}
			srv := startServer(t, cfg)
			nc, err := net.Dial("tcp", srv.addr)
			if err != nil {
				t.Fatal(err)
			}
			c := NewConn(nc, 0, 0)
			defer c.Close()
			if _, err := c.ReadPacket(maxGreeting); err != nil {
				t.Fatal(err)
			}
			say(c, tt.send)
			err = <-srv.failures
			if tt.check != nil && !tt.check(err) {
				t.Errorf("server: %v", err)
			}
			if tt.code != 0 {
				p, err := c.ReadPacket(maxAuth)
				if err != nil || !IsCode(ParseError(p), tt.code) {
					t.Errorf("got %q, %v; want error %d", p, err, tt.code)
				}
			}
		})
	}
}

// TestInjectionIntoServerTLS: a login in clear right behind the SSLRequest, as
// an attacker would send on behalf of the client, is never taken for part of
// what comes under TLS.
func TestInjectionIntoServerTLS(t *testing.T) {
	serverTLS, _ := testTLS()
	srv := startServer(t, AcceptorConfig{Accounts: accounts{}, TLS: serverTLS})
	nc, err := net.Dial("tcp", srv.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := NewConn(nc, 0, 0)
	defer c.Close()
	if _, err := c.ReadPacket(maxGreeting); err != nil {
		t.Fatal(err)
	}
	l := login{caps: offered | ClientSSL, user: "u", plugin: PluginCachingSHA2}
	p, err := l.appendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	say(c, l.appendHead(nil), p)
	if err := <-srv.failures; err == nil || !strings.Contains(err.Error(), "TLS handshake") {
		t.Errorf("got %v", err)
	}
}

// TestEagerClientHello: libmysql sends its ClientHello without waiting; it may
// arrive together with the SSLRequest.
func TestEagerClientHello(t *testing.T) {
	serverTLS, _ := testTLS()
	srv := startServer(t, AcceptorConfig{Accounts: accounts{"u": {Verifier: verifier(t, secret, VerifierForms{})}}, TLS: serverTLS})
	cfg := clientConfig(srv.addr, "u")
	cfg.TLSMode = TLSRequired
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &joinWrites{Conn: nc}, err
	}
	c, err := Dial(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// joinWrites holds the first write back and sends it with the second.
type joinWrites struct {
	net.Conn
	held   []byte
	joined bool
}

func (j *joinWrites) Write(p []byte) (int, error) {
	if j.joined {
		return j.Conn.Write(p)
	}
	if j.held == nil {
		j.held = bytes.Clone(p)
		return len(p), nil
	}
	j.joined = true
	if _, err := j.Conn.Write(append(j.held, p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// TestUnknownUsersLookLikeKnownOnes: the packets of a refused login have the
// same shape whether the account exists or not.
func TestUnknownUsersLookLikeKnownOnes(t *testing.T) {
	native, err := ParseVerifier("*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19")
	if err != nil {
		t.Fatal(err)
	}
	srv := startServer(t, AcceptorConfig{RSAKey: testKeys(), AllowNative: true, Accounts: accounts{
		"sha2":   {Verifier: verifier(t, secret, VerifierForms{})},
		"native": {Verifier: native},
	}})
	shape := func(user, plugin string) string {
		nc, err := net.Dial("tcp", srv.addr)
		if err != nil {
			t.Fatal(err)
		}
		c := &Client{conn: NewConn(nc, 0, 0), plugin: plugin, cfg: clientConfig("", user)}
		c.cfg.Password, c.cfg.GetServerPublicKey = []byte("wrong"), true
		defer c.Close()
		p, err := c.conn.ReadPacket(maxGreeting)
		if err != nil {
			t.Fatal(err)
		}
		g, err := ParseGreeting(p)
		if err != nil {
			t.Fatal(err)
		}
		nonce := g.Nonce
		l := login{caps: offered, user: user, plugin: plugin}
		if l.answer, err = c.answer(nonce); err != nil {
			t.Fatal(err)
		}
		if p, err = l.appendTo(nil); err != nil {
			t.Fatal(err)
		}
		say(c.conn, p)
		var out strings.Builder
		for {
			p, err := c.conn.ReadPacket(maxAuth)
			if err != nil {
				<-srv.failures // it has room for so many only
				return out.String()
			}
			out.WriteByte(p[0])
			switch p[0] {
			case headerError:
				out.Write(p[1:9])
			case headerEOF:
				out.Write(p[1:10])
				nonce, err = c.switchPlugin(p[1:])
			case headerMoreData:
				err = c.moreData(p[1:], nonce)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, plugin := range []string{PluginCachingSHA2, PluginNative} {
		known := map[string]bool{shape("sha2", plugin): true, shape("native", plugin): true}
		seen := map[string]bool{}
		for nobody := 'a'; nobody <= 'z'; nobody++ {
			nobody := string(nobody)
			s := shape(nobody, plugin)
			seen[s] = true
			if !known[s] {
				t.Errorf("%s: the answer to an unknown user looks like %q, to known ones like %v", plugin, s, known)
			}
			if again := shape(nobody, plugin); again != s {
				t.Errorf("%s: asked again, the answer changes from %q to %q", plugin, s, again)
			}
		}
		if len(seen) != len(known) {
			t.Errorf("%s: unknown users look like %v, known ones like %v", plugin, seen, known)
		}
	}
}

func TestReject(t *testing.T) {
	addr := scriptedServer(t, func(c *Conn) { Reject(c.NetConn(), Errorf(ErConCount, "Too many connections")) })
	c, err := Dial(testContext(t), clientConfig(addr, "u"))
	if c != nil {
		c.Close()
	}
	var e *Error
	if !errors.As(err, &e) || e.Code != ErConCount || e.Message != "Too many connections" {
		t.Errorf("got %v", err)
	}
}

// TestEarlyError: a server that closes idle sessions says so before it has seen
// the next command, with a number that is out of turn.
func TestEarlyError(t *testing.T) {
	sent := make(chan struct{})
	addr := scriptedServer(t, func(c *Conn) {
		say(c, greeting(offered))
		if _, err := c.ReadPacket(maxLogin); err != nil {
			return
		}
		say(c, []byte{headerOK, 0, 0, 2, 0, 0, 0})
		c.ResetSequence()
		say(c, Errorf(ErClientInteractionTimeout, "inactive").appendTo(nil, true))
		close(sent)
		_, _ = io.Copy(io.Discard, c.NetConn())
	})
	c, err := Dial(testContext(t), clientConfig(addr, "u"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-sent
	if err := c.Ping(testContext(t)); !IsCode(err, ErClientInteractionTimeout) {
		t.Errorf("got %v", err)
	}
}

// TestClientRefusesResults: answers to a query that no honest server gives.
func TestClientRefusesResults(t *testing.T) {
	col := StringColumn("c", 1)
	def := col.appendTo(nil)
	end := []byte{headerEOF, 0, 0, 2, 0, 0, 0}
	for name, answer := range map[string][][]byte{
		"local file":       {[]byte("\xfb/etc/passwd")},
		"no columns":       {{0xfc, 0, 0}},
		"too many columns": {{0xfd, 0xff, 0xff, 0xff}},
		"bad column":       {{1}, {3, 'd'}},
		"short row":        {{1}, def, {}},
		"bad row":          {{1}, def, {5, 'x'}},
		"long row":         {{1}, def, {1, 'x', 1, 'y'}},
		"more results":     {{1}, def, {headerEOF, 0, 0, byte(StatusMoreResults), 0, 0, 0}},
		"two results":      {{headerOK, 0, 0, byte(StatusMoreResults), 0, 0, 0}},
		"bad OK":           {{headerOK, 0xfe}},
	} {
		addr := scriptedServer(t, func(c *Conn) {
			say(c, greeting(offered))
			if _, err := c.ReadPacket(maxLogin); err != nil {
				return
			}
			say(c, []byte{headerOK, 0, 0, 2, 0, 0, 0})
			c.ResetSequence()
			if _, err := c.ReadPacket(100); err != nil {
				return
			}
			say(c, append(answer, end)...)
			_, _ = io.Copy(io.Discard, c.NetConn())
		})
		c, err := Dial(testContext(t), clientConfig(addr, "u"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Query(testContext(t), "SELECT 1"); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
		if err := c.Ping(testContext(t)); err == nil {
			t.Errorf("%s: the session lived on", name)
		}
		c.Close()
	}
}

func TestCommonNameCountsOnlyWithoutAlternatives(t *testing.T) {
	cfg, _ := testTLS()
	withNames := *cfg.Certificates[0].Leaf
	if err := verifyName(&withNames, "kingbus server"); err == nil {
		t.Error("the common name was taken in spite of alternative names")
	}
	old := withNames
	old.DNSNames, old.IPAddresses, old.Extensions = nil, nil, nil
	old.Subject.CommonName = "db1.example"
	if err := verifyName(&old, "DB1.example"); err != nil {
		t.Errorf("common name: %v", err)
	}
	for _, name := range []string{"db2.example", "example", ""} {
		if err := verifyName(&old, name); err == nil {
			t.Errorf("%q was taken for db1.example", name)
		}
	}
}

func TestTLSModeNames(t *testing.T) {
	for m := TLSPreferred; m <= TLSVerifyIdentity; m++ {
		for _, s := range []string{m.String(), strings.ToUpper(strings.ReplaceAll(m.String(), "-", "_"))} {
			if got, err := ParseTLSMode(s); err != nil || got != m {
				t.Errorf("%q: got %v, %v", s, got, err)
			}
		}
	}
	if _, err := ParseTLSMode("yes"); err == nil {
		t.Error("\"yes\" was taken for a TLS mode")
	}
}
