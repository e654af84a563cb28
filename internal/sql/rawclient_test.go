package sql

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// rawClient is just enough of a MySQL client to record what a real server answers: user root without password, over a
// Unix socket. It shares no code with the rest of kingbus, so that it can be the judge of it.
type rawClient struct {
	conn net.Conn
	seq  byte
}

func dialRaw(socket string) (*rawClient, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	c := &rawClient{conn: conn}
	if _, err := c.read(); err != nil { // greeting
		return nil, err
	}
	// LONG_PASSWORD, LONG_FLAG, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, PLUGIN_AUTH; utf8mb4_0900_ai_ci
	login := binary.LittleEndian.AppendUint32(nil, 1|4|0x200|0x2000|0x8000|0x80000)
	login = binary.LittleEndian.AppendUint32(login, 1<<24)
	login = append(login, 255)
	login = append(login, make([]byte, 23)...)
	login = append(login, "root\x00\x00caching_sha2_password\x00"...)
	if err := c.write(login); err != nil {
		return nil, err
	}
	answer, err := c.read()
	if err != nil {
		return nil, err
	}
	if answer[0] != 0 {
		return nil, fmt.Errorf("login refused: %q", answer)
	}
	return c, nil
}

func (c *rawClient) write(payload []byte) error {
	head := []byte{byte(len(payload)), byte(len(payload) >> 8), byte(len(payload) >> 16), c.seq}
	c.seq++
	_, err := c.conn.Write(append(head, payload...))
	return err
}

func (c *rawClient) read() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return nil, err
	}
	c.seq = head[3] + 1
	payload := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
	if _, err := io.ReadFull(c.conn, payload); err != nil {
		return nil, err
	}
	if len(payload) == 0 {
		return nil, errors.New("empty packet")
	}
	return payload, nil
}

// takeLenenc takes a length-encoded string off the front of b; nil means NULL.
func takeLenenc(b []byte) (value *string, rest []byte) {
	n, skip := uint64(b[0]), 1
	switch b[0] {
	case 0xfb:
		return nil, b[1:]
	case 0xfc:
		n, skip = uint64(binary.LittleEndian.Uint16(b[1:])), 3
	case 0xfd:
		n, skip = uint64(b[1])|uint64(b[2])<<8|uint64(b[3])<<16, 4
	}
	s := string(b[skip : skip+int(n)])
	return &s, b[skip+int(n):]
}

// query answers as the server did; a refusal is an *Error.
func (c *rawClient) query(text string) (*ResultSet, error) {
	c.seq = 0
	if err := c.write(append([]byte{3}, text...)); err != nil {
		return nil, err
	}
	p, err := c.read()
	if err != nil {
		return nil, err
	}
	switch p[0] {
	case 0xff:
		return nil, &Error{Code: binary.LittleEndian.Uint16(p[1:]), State: string(p[4:9]), Message: string(p[9:])}
	case 0:
		return nil, nil
	}
	rs := &ResultSet{}
	for range int(p[0]) {
		if p, err = c.read(); err != nil {
			return nil, err
		}
		var name *string
		for range 5 {
			name, p = takeLenenc(p)
		}
		_, p = takeLenenc(p) // org name
		flags := binary.LittleEndian.Uint16(p[8:])
		rs.Columns = append(rs.Columns, Column{
			Name: *name, Charset: binary.LittleEndian.Uint16(p[1:]), Length: binary.LittleEndian.Uint32(p[3:]),
			Type: ColumnType(p[7]), Nullable: flags&1 == 0, Unsigned: flags&32 != 0, Decimals: p[10],
		})
	}
	if _, err = c.read(); err != nil { // EOF
		return nil, err
	}
	for {
		if p, err = c.read(); err != nil {
			return nil, err
		}
		if p[0] == 0xfe && len(p) < 9 {
			return rs, nil
		}
		if p[0] == 0xff {
			return nil, &Error{Code: binary.LittleEndian.Uint16(p[1:]), State: string(p[4:9]), Message: string(p[9:])}
		}
		var row []Value
		for range rs.Columns {
			var v *string
			if v, p = takeLenenc(p); v == nil {
				row = append(row, Null)
			} else {
				row = append(row, String(strings.Clone(*v)))
			}
		}
		rs.Rows = append(rs.Rows, row)
	}
}
