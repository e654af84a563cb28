package wire

import "fmt"

// maxAuthRounds bounds the packets that a server may send between login and OK.
const maxAuthRounds = 10

// authenticate sends the login and answers until the server says OK.
func (c *Client) authenticate(l *login) error {
	nonce := c.greeting.Nonce
	c.plugin = c.greeting.Plugin
	if c.plugin == "" {
		c.plugin = PluginNative
	}
	if !knownPlugin(c.plugin) {
		// The default of the server need not be the account's: name one that we
		// know, and the server switches to what it wants.
		c.plugin = PluginNative
	}
	answer, err := c.answer(nonce)
	if err != nil {
		return err
	}
	l.caps, l.answer, l.plugin, l.attributes = c.caps, answer, c.plugin, c.cfg.attributes()
	p, err := l.appendTo(nil)
	if err != nil {
		return err
	}
	if err := c.send(p); err != nil {
		return err
	}
	return c.answerUntilOK(nonce)
}

// answerUntilOK goes on when the login, or a change of user, has been sent.
func (c *Client) answerUntilOK(nonce []byte) error {
	switched := false
	for range maxAuthRounds {
		p, err := c.conn.ReadPacket(maxAuth)
		if err != nil {
			return fmt.Errorf("read answer to login: %w", err)
		}
		if len(p) == 0 {
			return fmt.Errorf("login: empty packet: %w", ErrMalformed)
		}
		switch p[0] {
		case headerOK:
			_, err := ParseOK(p)
			return err
		case headerError:
			return ParseError(p)
		case headerEOF:
			if switched {
				return fmt.Errorf("login: a second switch of the authentication method: %w", ErrMalformed)
			}
			switched = true
			if nonce, err = c.switchPlugin(p[1:]); err != nil {
				return err
			}
		case headerMoreData:
			if err := c.moreData(p[1:], nonce); err != nil {
				return err
			}
		case headerNextFactor:
			return fmt.Errorf("the account needs a second factor: %w", ErrAuthUnsupported)
		default:
			return fmt.Errorf("login: unexpected packet 0x%02x: %w", p[0], ErrMalformed)
		}
	}
	return fmt.Errorf("login: the server does not come to an end: %w", ErrMalformed)
}

func (c *Client) send(p []byte) error {
	if err := c.conn.WritePacket(p); err != nil {
		return err
	}
	return c.conn.Flush()
}

func knownPlugin(name string) bool {
	return name == PluginNative || name == PluginCachingSHA2 || name == PluginSHA256
}

// answer is the first message of the current plugin.
func (c *Client) answer(nonce []byte) ([]byte, error) {
	pw := c.cfg.Password
	switch c.plugin {
	case PluginNative:
		return scrambleNative(pw, nonce), nil
	case PluginCachingSHA2:
		return scrambleSHA2(pw, nonce), nil
	}
	switch { // sha256_password
	case len(pw) == 0:
		return []byte{0}, nil
	case c.conn.secure():
		return append(append([]byte(nil), pw...), 0), nil
	case c.cfg.ServerPublicKey != nil:
		return encryptPassword(c.cfg.ServerPublicKey, pw, nonce)
	case c.cfg.GetServerPublicKey:
		c.keyAsked = true
		return []byte{1}, nil // "send me your key"
	}
	return nil, fmt.Errorf("%s: %w", c.plugin, ErrInsecurePassword)
}

// switchPlugin follows Protocol::AuthSwitchRequest; p is without its first byte.
func (c *Client) switchPlugin(p []byte) (nonce []byte, err error) {
	if len(p) == 0 {
		return nil, fmt.Errorf("the account has a password of before MySQL 4.1 (%s): %w", pluginOld, ErrAuthUnsupported)
	}
	name, nonce, err := parseAuthSwitch(p)
	if err != nil {
		return nil, err
	}
	switch {
	case name == pluginClear:
		return nil, fmt.Errorf("the server asks for the password in clear (%s): %w", name, ErrAuthUnsupported)
	case !knownPlugin(name):
		return nil, fmt.Errorf("the account uses %q; known are %s, %s and %s: %w",
			name, PluginCachingSHA2, PluginNative, PluginSHA256, ErrAuthUnsupported)
	case len(nonce) != nonceSize:
		return nil, fmt.Errorf("authentication switch: nonce of %d bytes: %w", len(nonce), ErrMalformed)
	}
	c.plugin = name
	answer, err := c.answer(nonce)
	if err != nil {
		return nil, err
	}
	return nonce, c.send(answer)
}

// moreData answers what the plugin's server side says after the first message.
func (c *Client) moreData(p, nonce []byte) error {
	const (
		fastOK   = 3
		fullAuth = 4
	)
	switch {
	case c.plugin == PluginCachingSHA2 && len(p) == 1 && p[0] == fastOK:
		return nil // OK follows
	case c.plugin == PluginCachingSHA2 && len(p) == 1 && p[0] == fullAuth:
		return c.fullAuth(nonce)
	case c.keyAsked: // only then: a key pushed upon us could be anybody's
		c.keyAsked = false
		key, err := ParsePublicKey(p)
		if err != nil {
			return err
		}
		b, err := encryptPassword(key, c.cfg.Password, nonce)
		if err != nil {
			return err
		}
		return c.send(b)
	}
	return fmt.Errorf("login: unexpected data for %s: %w", c.plugin, ErrMalformed)
}

// fullAuth sends the password itself: over TLS, or encrypted, or not at all.
func (c *Client) fullAuth(nonce []byte) error {
	if c.conn.secure() {
		p := append(append([]byte(nil), c.cfg.Password...), 0)
		err := c.send(p)
		clear(p)
		return err
	}
	if c.cfg.ServerPublicKey != nil {
		b, err := encryptPassword(c.cfg.ServerPublicKey, c.cfg.Password, nonce)
		if err != nil {
			return err
		}
		return c.send(b)
	}
	if !c.cfg.GetServerPublicKey {
		return fmt.Errorf("%s: %w", c.plugin, ErrInsecurePassword)
	}
	c.keyAsked = true
	return c.send([]byte{2}) // "send me your key"
}
