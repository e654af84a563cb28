package wire

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// OK is the answer to a command that returns no rows (Protocol::OK_Packet).
type OK struct {
	Affected     uint64
	LastInsertID uint64
	Status       uint16
	Warnings     uint16
	Info         string
}

// appendTo encodes an OK packet; with DeprecateEOF one also ends a result set,
// under the first byte 0xfe.
func (o *OK) appendTo(b []byte, header byte) []byte {
	b = AppendLenEnc(append(b, header), o.Affected)
	b = AppendLenEnc(b, o.LastInsertID)
	b = binary.LittleEndian.AppendUint16(b, o.Status)
	b = binary.LittleEndian.AppendUint16(b, o.Warnings)
	return append(b, o.Info...)
}

// ParseOK decodes an OK packet. Session state changes are not looked at: this
// package never asks for them.
func ParseOK(p []byte) (OK, error) {
	c := NewCursor(p)
	if h := c.U8(); h != headerOK && h != headerEOF {
		c.Fail()
	}
	var o OK
	o.Affected, _ = c.LenEnc()
	o.LastInsertID, _ = c.LenEnc()
	o.Status = c.U16()
	o.Warnings = c.U16()
	o.Info = string(c.Rest())
	if err := c.Err(); err != nil {
		return OK{}, fmt.Errorf("OK packet: %w", err)
	}
	return o, nil
}

// IsEOF reports whether a payload is an EOF packet (Protocol::EOF_Packet): what
// ends a dump, also with DeprecateEOF.
func IsEOF(p []byte) bool { return len(p) > 0 && len(p) < 9 && p[0] == headerEOF }

// IsError reports whether a payload is an error packet: ParseError decodes it.
func IsError(p []byte) bool { return len(p) > 0 && p[0] == headerError }

// ParseError decodes an error packet (Protocol::ERR_Packet): 0xff, u16 code,
// ['#', SQLSTATE], text. The result is an *Error, or ErrMalformed.
func ParseError(p []byte) error {
	c := NewCursor(p)
	if c.U8() != headerError {
		c.Fail()
	}
	e := &Error{Code: c.U16()}
	text := c.Rest()
	if err := c.Err(); err != nil {
		return fmt.Errorf("error packet: %w", err)
	}
	if len(text) >= 6 && text[0] == '#' {
		e.State = string(text[1:6])
		text = text[6:]
	}
	e.Message = strings.TrimRight(string(text), "\x00")
	return e
}

// appendTo encodes an error packet. Before the client has said that it speaks
// protocol 4.1 the SQLSTATE is left out.
func (e *Error) appendTo(b []byte, protocol41 bool) []byte {
	b = binary.LittleEndian.AppendUint16(append(b, headerError), e.Code)
	if protocol41 {
		state := e.State
		if len(state) != 5 {
			state = defaultState
		}
		b = append(append(b, '#'), state...)
	}
	text := e.Message
	if len(text) > maxErrorMessage {
		text = strings.ToValidUTF8(text[:maxErrorMessage], "")
	}
	return append(b, text...)
}

// Column describes a column of a result set (Protocol::ColumnDefinition41).
type Column struct {
	Schema, Table, OrgTable string // "" for values that come from no table
	Name, OrgName           string
	Charset                 uint16 // collation id; CollationBinary for numbers
	Length                  uint32 // largest width, in bytes
	Type                    byte   // TypeVarString, TypeLongLong, …
	Flags                   uint16
	Decimals                byte
}

// StringColumn is a column of text of up to length characters (utf8mb4).
func StringColumn(name string, length uint32) Column {
	return Column{Name: name, Charset: CollationUTF8MB4, Length: 4 * length, Type: TypeVarString, Decimals: 31}
}

// IntColumn is a column of 64-bit integers.
func IntColumn(name string, unsigned bool) Column {
	c := Column{Name: name, Charset: CollationBinary, Length: 21, Type: TypeLongLong, Flags: FlagBinary | FlagNotNull}
	if unsigned {
		c.Flags |= FlagUnsigned
	}
	return c
}

func (c *Column) appendTo(b []byte) []byte {
	for _, s := range [...]string{"def", c.Schema, c.Table, c.OrgTable, c.Name, c.OrgName} {
		b = AppendLenEncString(b, s)
	}
	le := binary.LittleEndian
	b = append(b, 0x0c) // length of the fixed part
	b = le.AppendUint16(b, c.Charset)
	b = le.AppendUint32(b, c.Length)
	b = append(b, c.Type)
	b = le.AppendUint16(b, c.Flags)
	return append(b, c.Decimals, 0, 0)
}

// ParseColumn decodes a column definition.
func ParseColumn(p []byte) (Column, error) {
	c := NewCursor(p)
	var col Column
	c.LenEncBytes() // catalog, always "def"
	col.Schema = string(c.LenEncBytes())
	col.Table = string(c.LenEncBytes())
	col.OrgTable = string(c.LenEncBytes())
	col.Name = string(c.LenEncBytes())
	col.OrgName = string(c.LenEncBytes())
	c.LenEnc()
	col.Charset = c.U16()
	col.Length = c.U32()
	col.Type = c.U8()
	col.Flags = c.U16()
	col.Decimals = c.U8()
	if err := c.Err(); err != nil {
		return Column{}, fmt.Errorf("column definition: %w", err)
	}
	return col, nil
}

// ParseTextRow decodes a row of n columns (Protocol::ResultsetRow); NULL is a
// nil slice. The values point into p.
func ParseTextRow(p []byte, n int) ([][]byte, error) {
	if n < 0 || n > len(p) {
		return nil, fmt.Errorf("row: %w", ErrMalformed) // a value has at least one byte
	}
	c := NewCursor(p)
	row := make([][]byte, n)
	for i := range row {
		row[i] = c.LenEncBytes()
	}
	if c.Err() != nil || c.Len() > 0 {
		return nil, fmt.Errorf("row: %w", ErrMalformed)
	}
	return row, nil
}
