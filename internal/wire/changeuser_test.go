package wire

import "testing"

// TestChangeUserNonce: there is one nonce for a connection. With native passwords clients answer to that
// of the greeting whatever comes (MySQL's), or to the last one that came for another plugin (MariaDB's).
func TestChangeUserNonce(t *testing.T) {
	srv := startServer(t, AcceptorConfig{AllowNative: true, Accounts: accounts{
		"sha2":   {Verifier: verifier(t, secret, VerifierForms{Digest: true})},
		"native": {Verifier: Verifier{native: verifier(t, secret, VerifierForms{Native: true}).native}},
	}})
	for _, mariadb := range []bool{false, true} {
		c, err := Dial(testContext(t), clientConfig(srv.addr, "native"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		known := c.greeting.Nonce
		for _, user := range []string{"native", "sha2", "native", "sha2", "sha2", "native"} {
			l := login{caps: c.caps, user: user, plugin: c.plugin}
			p, err := l.appendChangeUser(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.command(p); err != nil {
				t.Fatal(err)
			}
			if p, err = c.conn.ReadPacket(maxAuth); err != nil || p[0] != headerEOF {
				t.Fatalf("%s: %x, %v", user, p, err)
			}
			var nonce []byte
			if c.plugin, nonce, err = parseAuthSwitch(p[1:]); err != nil {
				t.Fatal(err)
			}
			if user == "native" {
				nonce = known
			} else if mariadb {
				known = nonce
			}
			answer, err := c.answer(nonce)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.send(answer); err != nil {
				t.Fatal(err)
			}
			if err := c.answerUntilOK(nonce); err != nil {
				t.Fatalf("%s, MariaDB's: %v: %v", user, mariadb, err)
			}
		}
	}
}

// TestChangeUserRefused: what cannot be read, and who knows no plugins, is told so, and the
// connection ends.
func TestChangeUserRefused(t *testing.T) {
	srv := startServer(t, AcceptorConfig{AllowNative: true, Accounts: accounts{"both": {Verifier: verifier(t, secret, VerifierForms{Native: true, Digest: true})}}})
	for _, payload := range []string{
		"both",
		"both\x00\x00\x00",
		"both\x00\x00\x00\x2d\x00" + PluginNative,
		"both\x00\x00\x00\x2d\x00" + PluginNative + "\x00\x05",
		"both\x00\x00\x00\x2d\x00" + string(make([]byte, maxLogin)),
	} {
		c, err := Dial(testContext(t), clientConfig(srv.addr, "both"))
		if err != nil {
			t.Fatal(err)
		}
		<-srv.sessions
		if _, err := c.Do(testContext(t), append([]byte{ComChangeUser}, payload...)); !IsCode(err, ErUnknownCom) {
			t.Errorf("%.40q: %v, want error 1047", payload, err)
		}
		if err := c.Ping(testContext(t)); err == nil {
			t.Errorf("%.40q: the connection goes on", payload)
		}
		_ = c.Close()
		if err := <-srv.failures; err == nil {
			t.Errorf("%.40q: no error", payload)
		}
	}
	if err := srv.acceptor.changeUser(testContext(t), &Session{caps: ClientProtocol41}, 0, []byte("both\x00\x00\x00")); !IsCode(err, ErNotSupportedAuthMode) {
		t.Errorf("a client without plugins: %v", err)
	}
}
