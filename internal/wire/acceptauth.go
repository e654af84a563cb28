package wire

import (
	"context"
	"fmt"
)

// authenticate checks the login against the account. Every refusal is the same
// error 1045, and an unknown user goes through the steps of a known one. The greeting
// named the plugin greeted; "" is no greeting, but a change of user, which has the client answer anew.
func (a *Acceptor) authenticate(ctx context.Context, s *Session, l *login, greeted string) error {
	if a.cfg.Admit != nil && !a.cfg.Admit(s.raw) {
		return Errorf(ErConCount, "Too many connections from this address wait to hear that their login has failed")
	}
	acc, known := a.cfg.Accounts.Account(l.user, s.Host)
	if !known {
		acc = a.decoy(l.user)
	}
	v := &acc.Verifier

	// A client without plugins answers for mysql_native_password.
	plugin, answer := l.plugin, l.answer
	if l.caps&ClientPluginAuth == 0 {
		plugin = PluginNative
	}
	want := a.choosePlugin(v, plugin)
	nonce := s.nonce // see changeuser.go
	// A client that prefers a plugin other than the greeting's sends nothing for
	// a start, as its nonce has not come yet (client_mpvio_read_packet).
	waiting := l.caps&ClientPluginAuth != 0 && plugin != greeted && len(answer) == 0
	if want != plugin || waiting {
		if l.caps&ClientPluginAuth == 0 {
			return unsupportedClient()
		}
		var err error
		if answer, err = switchAuth(s, want, nonce[:]); err != nil {
			return err
		}
	}
	s.Plugin = want

	withPassword := len(answer) > 0 && !(len(answer) == 1 && answer[0] == 0)
	good := false
	if withPassword {
		var err error
		switch want {
		case PluginNative:
			// Compared with something in any case, for the time that it takes.
			good = v.hasNative() && checkNative(answer, nonce[:], v.native)
		default:
			if good, err = a.checkSHA2(ctx, s, l.user, v, answer, nonce[:]); err != nil {
				return err
			}
		}
	}
	if !good || !known || acc.RequireTLS && !s.secure() {
		return accessDenied(l.user, s.Host, withPassword)
	}
	s.AccountHost, s.AccountID = acc.Host, acc.ID
	return nil
}

// choosePlugin settles on the client's plugin if the account can use it, and on
// one of the account's otherwise.
func (a *Acceptor) choosePlugin(v *Verifier, client string) string {
	native := a.cfg.AllowNative && v.hasNative()
	if native && (client == PluginNative || !v.hasSHA2()) {
		return PluginNative
	}
	return PluginCachingSHA2
}

// switchAuth sends Protocol::AuthSwitchRequest and reads the new answer.
func switchAuth(s *Session, plugin string, nonce []byte) ([]byte, error) {
	p := append([]byte{headerEOF}, plugin...)
	p = append(append(p, 0), nonce...)
	if err := s.WritePacket(append(p, 0)); err != nil {
		return nil, err
	}
	return s.ask()
}

// ask sends what was written and reads the client's reply, which the caller may keep.
func (s *Session) ask() ([]byte, error) {
	if err := s.Flush(); err != nil {
		return nil, err
	}
	p, err := s.ReadPacket(maxAuth)
	if err != nil {
		return nil, fmt.Errorf("read authentication: %w", err)
	}
	return append([]byte(nil), p...), nil
}

// checkSHA2 is the server side of caching_sha2_password (sha2_password.cc,
// caching_sha2_password_authenticate): quick if the digest is known and fits,
// else with the password itself.
func (a *Acceptor) checkSHA2(ctx context.Context, s *Session, user string, v *Verifier, answer, nonce []byte) (bool, error) {
	digest := a.cache.get(user, v)
	if digest != nil && checkSHA2(answer, nonce, digest) {
		return true, s.WritePacket([]byte{headerMoreData, 3}) // fast_auth_success, then OK
	}
	if len(answer) != 32 {
		return false, nil // not an answer of this plugin
	}
	// If the digest is known, what is asked for next tells that the password is wrong: it counts
	// as a failure, and comes as late as one. If it is not, perhaps as there is no such user,
	// nothing is known yet; but it comes as late, so that it tells nothing of that either.
	if digest != nil {
		a.failed(s)
		a.delay(ctx, s, 0)
	} else {
		a.delay(ctx, s, 1)
	}
	if err := s.WritePacket([]byte{headerMoreData, 4}); err != nil { // perform_full_authentication
		return false, err
	}
	password, err := a.readPassword(s, nonce)
	if err != nil || password == nil {
		return false, err
	}
	defer clear(password)
	if !v.checkPassword(password) {
		return false, nil
	}
	a.cache.put(user, v, password)
	return true, nil
}

// readPassword reads the password as full authentication sends it: in clear
// under TLS, RSA-encrypted otherwise, after the client has asked for the key or
// because it has it. nil is a client that does something else.
func (a *Acceptor) readPassword(s *Session, nonce []byte) ([]byte, error) {
	p, err := s.ask()
	if err != nil {
		return nil, err
	}
	if !s.secure() {
		if a.cfg.RSAKey == nil {
			return nil, nil
		}
		if len(p) == 1 && p[0] == 2 { // request_public_key
			if err := s.WritePacket(append([]byte{headerMoreData}, a.publicKey...)); err != nil {
				return nil, err
			}
			if p, err = s.ask(); err != nil {
				return nil, err
			}
		}
		var ok bool
		if p, ok = decryptPassword(a.cfg.RSAKey, p, nonce); !ok {
			return nil, nil
		}
	}
	if n := len(p); n < 2 || n > maxPassword+1 || p[n-1] != 0 {
		return nil, nil
	}
	return p[:len(p)-1], nil
}
