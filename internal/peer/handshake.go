package peer

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// startTLS completes TLS's handshake over the line.
func (c *Conn) startTLS(t *tls.Conn) error {
	err := t.Handshake()
	if err == nil {
		c.overTLS(t)
		return nil
	}
	var notTLS tls.RecordHeaderError
	switch {
	case !errors.As(err, &notTLS):
		return fmt.Errorf("TLS with the peer: %w", err)
	case strings.HasPrefix(magic, string(notTLS.RecordHeader[:])):
		return ErrPeerClear
	}
	return fmt.Errorf("%w, and no TLS either: its first bytes are %q: check the address", ErrNotPeer, notTLS.RecordHeader[:])
}

// say writes bytes of the handshake.
func (c *Conn) say(b []byte) error {
	c.vec = append(c.vec[:0], b)
	if err := c.send(); err != nil {
		return fmt.Errorf("write to peer: %w", err)
	}
	return nil
}

// hear reads the other end's introduction: the body of its frame.
func (c *Conn) hear() ([]byte, error) {
	b, err := c.in.Peek(preambleSize)
	if bad := checkPreamble(b); bad != nil {
		return nil, bad
	}
	if err != nil {
		return nil, c.failRead(err)
	}
	_, _ = c.in.Discard(preambleSize) // it is there
	b, err = c.readFrame(maxHello)
	if err == io.EOF {
		err = c.failRead(err)
	}
	return b, err
}

// answer is the server's part of the handshake. On an error the peer has been told what it can understand; farewell is due.
func (c *Conn) answer(cfg *tls.Config, welcome func(Hello) (Hello, error)) (Hello, error) {
	if cfg != nil {
		if err := c.startTLS(tls.Server(c.line, cfg)); err != nil {
			if errors.Is(err, ErrPeerClear) {
				// A fatal alert, unexpected_message: by its first bytes the peer knows TLS.
				_, _ = c.line.Write([]byte{21, 3, 1, 0, 2, 2, 10})
			}
			return Hello{}, err
		}
	}
	said, err := c.hear()
	if err != nil {
		if errors.Is(err, ErrPeerTLS) || errors.Is(err, ErrVersion) {
			_ = c.say(appendPreamble(nil)) // by which the peer knows what this is
		}
		return Hello{}, err
	}
	h, err := parseHello(said)
	if err == nil && (h.Kind < KindControl || h.Kind > KindCall) {
		err = fmt.Errorf("connections of %v are not known here: upgrade this node", h.Kind)
	}
	var yes []byte
	if err == nil {
		var answer Hello
		if answer, err = welcome(h); err == nil {
			yes, err = encodeAnswer(answer)
		}
	}
	if err != nil {
		return h, c.refuse(h, err)
	}
	return h, c.say(introduction(yes))
}

// refuse tells the peer why, and returns that.
func (c *Conn) refuse(h Hello, why error) error {
	var no *Refusal
	if !errors.As(why, &no) {
		no = &Refusal{Code: codeError, Text: why.Error()}
	}
	b, err := encodeRefusal(no)
	if err == nil {
		err = c.say(introduction(b))
	}
	return errors.Join(fmt.Errorf("refused %v from node %d: %w", h.Kind, h.From, why), err)
}

// farewell closes so that what was said last arrives: to close on bytes that were not read would reset the connection, and the
// peer might never see it. It takes a second at most.
func farewell(nc net.Conn) {
	if half, ok := nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = nc.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.CopyN(io.Discard, nc, 2*maxHello)
	}
	_ = nc.Close()
}
