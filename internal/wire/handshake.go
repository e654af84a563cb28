package wire

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// Limits of the login phase, in bytes.
const (
	maxGreeting  = 4 << 10
	maxLogin     = 80 << 10 // connect attributes alone may have 64 KiB
	maxAuth      = 8 << 10  // any other packet of the authentication
	maxAttrs     = 64 << 10
	maxAttrCount = 256
)

// Greeting is the server's first packet (Protocol::HandshakeV10):
//
//	u8 10, version NUL, u32 connection id, nonce[0:8], 0, u16 capabilities (low),
//	u8 collation, u16 status, u16 capabilities (high), u8 length of nonce + NUL,
//	10 reserved, nonce[8:] NUL, plugin NUL
type Greeting struct {
	Version      string // as "9.7.4" or "5.5.5-10.11.19-MariaDB"
	ConnectionID uint32
	Nonce        []byte // 20 bytes
	Capabilities uint32
	Collation    byte
	Status       uint16
	Plugin       string // default authentication plugin; "" before 5.5.7
}

// IsMariaDB reports whether the version names MariaDB.
func (g *Greeting) IsMariaDB() bool { return strings.Contains(g.Version, "MariaDB") }

// ParseGreeting decodes a greeting. A server that refuses the connection sends
// an error in its place: that is returned as *Error.
func ParseGreeting(p []byte) (*Greeting, error) {
	if len(p) > 0 && p[0] == headerError {
		return nil, ParseError(p)
	}
	c := NewCursor(p)
	if v := c.U8(); v != 10 {
		return nil, fmt.Errorf("wire: greeting has protocol version %d, only 10 is spoken: %w", v, ErrMalformed)
	}
	g := &Greeting{}
	g.Version = string(c.NulBytes())
	g.ConnectionID = c.U32()
	g.Nonce = slices.Clone(c.Bytes(8))
	c.U8()
	g.Capabilities = uint32(c.U16())
	if g.Capabilities&ClientProtocol41 == 0 && c.Err() == nil {
		return g, nil // before 4.1; the caller refuses for want of ClientProtocol41
	}
	g.Collation = c.U8()
	g.Status = c.U16()
	g.Capabilities |= uint32(c.U16()) << 16
	c.U8() // length of the nonce: 21, or 0 without plugins, and so not needed
	c.Bytes(10)
	if g.Capabilities&ClientSecureConnection != 0 {
		g.Nonce = append(g.Nonce, c.Bytes(nonceSize-8)...)
		c.U8()
	}
	if g.Capabilities&ClientPluginAuth != 0 && c.Len() > 0 {
		g.Plugin = string(c.nulOrRest()) // some servers of 5.5 forgot the NUL
	}
	if err := c.Err(); err != nil {
		return nil, fmt.Errorf("greeting: %w", err)
	}
	return g, nil
}

// appendTo encodes the greeting.
func (g *Greeting) appendTo(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, 10)
	b = append(append(b, g.Version...), 0)
	b = le.AppendUint32(b, g.ConnectionID)
	b = append(append(b, g.Nonce[:8]...), 0)
	b = le.AppendUint16(b, uint16(g.Capabilities))
	b = append(b, g.Collation)
	b = le.AppendUint16(b, g.Status)
	b = le.AppendUint16(b, uint16(g.Capabilities>>16))
	b = append(b, byte(len(g.Nonce)+1))
	b = append(b, make([]byte, 10)...)
	b = append(append(b, g.Nonce[8:]...), 0)
	return append(append(b, g.Plugin...), 0)
}

// Attribute is a connect attribute: what a client says about itself.
type Attribute struct{ Name, Value string }

// login is the client's answer (Protocol::HandshakeResponse41):
//
//	u32 capabilities, u32 largest packet, u8 collation, 23 zero bytes,
//	user NUL, answer (lenenc, or u8 length), [database NUL], [plugin NUL],
//	[lenenc length of all attributes, then lenenc name and value of each]
//
// An SSLRequest is its first 32 bytes alone.
type login struct {
	caps       uint32
	maxPacket  uint32
	collation  uint16 // a login has one byte of it, a change of user both
	user       string
	answer     []byte
	database   string
	plugin     string
	attributes []Attribute
}

const sslRequestSize = 32

// appendHead encodes the part that an SSLRequest has too.
func (l *login) appendHead(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, l.caps)
	b = binary.LittleEndian.AppendUint32(b, l.maxPacket)
	b = append(b, byte(l.collation))
	return append(b, make([]byte, 23)...)
}

func (l *login) appendTo(b []byte) ([]byte, error) {
	if strings.ContainsRune(l.user+l.database, 0) {
		return nil, fmt.Errorf("wire: a NUL in the name of a user or database: %w", ErrMalformed)
	}
	b = l.appendHead(b)
	b = append(append(b, l.user...), 0)
	if l.caps&ClientPluginAuthLenenc != 0 {
		b = AppendLenEncString(b, l.answer)
	} else if len(l.answer) <= 0xff {
		b = append(append(b, byte(len(l.answer))), l.answer...)
	} else {
		return nil, fmt.Errorf("wire: the password is too long for this server: %w", ErrMalformed)
	}
	if l.caps&ClientConnectWithDB != 0 {
		b = append(append(b, l.database...), 0)
	}
	if l.caps&ClientPluginAuth != 0 {
		b = append(append(b, l.plugin...), 0)
	}
	return l.appendAttributes(b)
}

func (l *login) appendAttributes(b []byte) ([]byte, error) {
	if l.caps&ClientConnectAttrs == 0 {
		return b, nil
	}
	var attrs []byte
	for _, a := range l.attributes {
		attrs = AppendLenEncString(AppendLenEncString(attrs, a.Name), a.Value)
	}
	if len(attrs) > maxAttrs {
		return nil, fmt.Errorf("wire: connect attributes exceed %d bytes", maxAttrs)
	}
	return AppendLenEncString(b, attrs), nil
}

// parseLoginHead decodes what an SSLRequest and a login begin with. A client of
// before 4.1 has another layout: only its lack of ClientProtocol41 can be seen.
func parseLoginHead(p []byte) (*login, error) {
	c := NewCursor(p)
	l := &login{caps: uint32(c.U16())}
	if c.Err() == nil && l.caps&ClientProtocol41 == 0 {
		return l, nil
	}
	l.caps |= uint32(c.U16()) << 16
	l.maxPacket = c.U32()
	l.collation = uint16(c.U8())
	c.Bytes(23)
	if err := c.Err(); err != nil {
		return nil, fmt.Errorf("login: %w", err)
	}
	return l, nil
}

// parseLogin decodes a login whose client speaks protocol 4.1 with secure
// passwords (parseLoginHead tells). Nothing in the result points into p.
func parseLogin(p []byte) (*login, error) {
	l, err := parseLoginHead(p)
	if err != nil {
		return nil, err
	}
	if len(p) < sslRequestSize {
		return nil, fmt.Errorf("login: %w", ErrMalformed)
	}
	c := NewCursor(p[sslRequestSize:])
	l.user = string(c.NulBytes())
	if l.caps&ClientPluginAuthLenenc != 0 {
		l.answer = slices.Clone(c.LenEncBytes())
	} else {
		l.answer = slices.Clone(c.Bytes(int(c.U8())))
	}
	if l.caps&ClientConnectWithDB != 0 && c.Len() > 0 {
		l.database = string(c.NulBytes())
	}
	if l.caps&ClientPluginAuth != 0 && c.Len() > 0 {
		l.plugin = string(c.nulOrRest()) // some connectors leave the last NUL out
	}
	if l.caps&ClientConnectAttrs != 0 && c.Len() > 0 {
		l.attributes = parseAttributes(&c)
	}
	if err := c.Err(); err != nil {
		return nil, fmt.Errorf("login: %w", err)
	}
	return l, nil
}

func parseAttributes(c *Cursor) []Attribute {
	a := NewCursor(c.LenEncBytes())
	if a.Len() > maxAttrs {
		c.Fail()
		return nil
	}
	var out []Attribute
	for a.Len() > 0 {
		name := string(a.LenEncBytes())
		value := string(a.LenEncBytes())
		if a.Err() != nil || len(out) == maxAttrCount {
			c.Fail()
			return nil
		}
		out = append(out, Attribute{name, value})
	}
	return out
}

// parseAuthSwitch decodes Protocol::AuthSwitchRequest without its first byte:
// plugin NUL, nonce NUL.
func parseAuthSwitch(p []byte) (plugin string, nonce []byte, err error) {
	c := NewCursor(p)
	plugin = string(c.NulBytes())
	nonce = slices.Clone(c.Rest())
	if err := c.Err(); err != nil {
		return "", nil, fmt.Errorf("authentication switch: %w", err)
	}
	if n := len(nonce); n > 0 && nonce[n-1] == 0 {
		nonce = nonce[:n-1]
	}
	return plugin, nonce, nil
}
