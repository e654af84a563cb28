package wire

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
)

// COM_CHANGE_USER logs in anew on a connection that is there (connection pools do so):
//
//	u8 0x11, user NUL, u8 length, answer, database NUL, u16 collation, plugin NUL,
//	[lenenc length of all attributes, then lenenc name and value of each]
//
// The answer is one to the greeting's nonce. A server of today does not look at it and sends an
// AuthSwitchRequest, whichever plugin the client has named; the rest is as at a first login. Clients
// from before the plugins (5.5.7) cannot be asked so, and are refused.
//
// The nonce is that of the greeting each time. With native passwords clients do not look at what comes
// now: MySQL's answer to the greeting's (native_password_auth_client), and MariaDB's to the last that
// has come with another plugin (libmariadb keeps it in scramble_buff). A new one for caching_sha2_password, as
// MySQL sends it, would mean two to look for then.

// ChangeUser answers COM_CHANGE_USER, of which ReadCommand has given the payload: the client logs in
// anew, as it did at first, within the handshake timeout or until ctx is done. Who it is then is in
// the session returned, which takes the place of s on the same connection. On failure it has told the
// client, where there is something to tell, and closed the connection, as MySQL does.
func (a *Acceptor) ChangeUser(ctx context.Context, s *Session, payload []byte) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.HandshakeTimeout)
	defer cancel()
	next := &Session{Conn: s.Conn, ID: s.ID, Host: s.Host, Version: s.Version, caps: s.caps, nonce: s.nonce}
	stop := s.CloseOn(ctx)
	err := a.conclude(ctx, next, a.changeUser(ctx, next, s.MaxPacket, payload))
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("change of user from %s: %w", s.raw.RemoteAddr(), err)
	}
	return next, nil
}

func (a *Acceptor) changeUser(ctx context.Context, s *Session, maxPacket uint32, payload []byte) error {
	if s.caps&ClientPluginAuth == 0 {
		return unsupportedClient()
	}
	l, err := parseChangeUser(payload, s.caps)
	if err != nil {
		return Errorf(ErUnknownCom, "Unknown command") // MySQL's answer
	}
	l.maxPacket = maxPacket
	return a.admit(ctx, s, l, "")
}

// parseChangeUser decodes a COM_CHANGE_USER behind its first byte, of a client with plugins. The
// answer is left out. Nothing in the result points into p.
func parseChangeUser(p []byte, caps uint32) (*login, error) {
	if len(p) > maxLogin {
		return nil, fmt.Errorf("change of user: %d bytes: %w", len(p), ErrMalformed)
	}
	c := NewCursor(p)
	l := &login{caps: caps, user: string(c.NulBytes())}
	c.Bytes(int(c.U8()))
	l.database = string(c.NulBytes())
	l.collation = c.U16()
	l.plugin = string(c.NulBytes())
	if caps&ClientConnectAttrs != 0 && c.Len() > 0 {
		l.attributes = parseAttributes(&c)
	}
	if err := c.Err(); err != nil {
		return nil, fmt.Errorf("change of user: %w", err)
	}
	return l, nil
}

// appendChangeUser encodes a COM_CHANGE_USER with its first byte, and no answer.
func (l *login) appendChangeUser(b []byte) ([]byte, error) {
	if strings.ContainsRune(l.user+l.database, 0) {
		return nil, fmt.Errorf("wire: a NUL in the name of a user or database: %w", ErrMalformed)
	}
	b = append(append(append(b, ComChangeUser), l.user...), 0, 0)
	b = append(append(b, l.database...), 0)
	b = binary.LittleEndian.AppendUint16(b, l.collation)
	b = append(append(b, l.plugin...), 0)
	return l.appendAttributes(b)
}

// ChangeUser logs in anew as somebody else, with the other settings of the configuration as they
// are. An *Error leaves the session of no use: the server closes it.
func (c *Client) ChangeUser(ctx context.Context, user string, password []byte, database string) error {
	return c.exchange(ctx, func() error {
		c.cfg.User, c.cfg.Password, c.cfg.Database = user, password, database
		l := &login{caps: c.caps, collation: c.cfg.Collation, user: user, database: database, plugin: c.plugin, attributes: c.cfg.attributes()}
		p, err := l.appendChangeUser(nil)
		if err != nil {
			return err
		}
		if err := c.command(p); err != nil {
			return err
		}
		return c.answerUntilOK(c.greeting.Nonce)
	})
}
