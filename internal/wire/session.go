package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
)

// ReadCommand begins a new exchange and reads the next command, of at most max
// bytes: its first byte and what follows, valid until the next read. io.EOF
// means that the client is gone. It flushes nothing. After SplitSequence only
// the numbers of the reading half begin anew.
func (s *Session) ReadCommand(max int) (cmd byte, payload []byte, err error) {
	s.r.seq = 0
	if !s.split {
		s.w.seq = 0
	}
	p, err := s.ReadPacket(max)
	if err != nil {
		return 0, nil, err
	}
	if len(p) == 0 {
		return 0, nil, fmt.Errorf("empty command: %w", ErrMalformed)
	}
	return p[0], p[1:], nil
}

// TooLarge is the error with which a server answers a *TooLargeError before it
// closes.
func TooLarge() *Error {
	return Errorf(ErNetPacketTooLarge, "Got a packet bigger than 'max_allowed_packet' bytes")
}

// Secure reports whether the session is encrypted or does not leave the machine.
func (s *Session) Secure() bool { return s.secure() }

// DeprecateEOF reports whether result sets end with OK in place of EOF.
func (s *Session) DeprecateEOF() bool { return s.caps&ClientDeprecateEOF != 0 }

// WriteOK writes an OK packet. Like everything below it waits for Flush.
func (s *Session) WriteOK(o OK) error { return s.WritePacket(o.appendTo(nil, headerOK)) }

// WriteEOF writes an EOF packet of the five-byte form: the end of a dump
// (fe 00 00 02 00), whatever the client's capabilities.
func (s *Session) WriteEOF(status, warnings uint16) error {
	p := [5]byte{headerEOF}
	binary.LittleEndian.PutUint16(p[1:], warnings)
	binary.LittleEndian.PutUint16(p[3:], status)
	return s.WritePacket(p[:])
}

// WriteError writes an error packet; its text is cut at 511 bytes, as MySQL's.
func (s *Session) WriteError(e *Error) error {
	return s.WritePacket(e.appendTo(nil, s.caps&ClientProtocol41 != 0))
}

// endPart ends a list of definitions or rows, in the client's style. last says
// whether it ends the result: only then a DeprecateEOF client expects anything.
func (s *Session) endPart(last bool, status, warnings uint16) error {
	if !s.DeprecateEOF() {
		return s.WriteEOF(status, warnings)
	}
	if !last {
		return nil
	}
	o := OK{Status: status, Warnings: warnings}
	return s.WritePacket(o.appendTo(nil, headerEOF))
}

// ResultWriter writes the rows of a result set.
type ResultWriter struct {
	s      *Session
	cols   []Column
	binary bool
	buf    []byte
}

// TextResult begins the answer to COM_QUERY: column count, columns, and then
// Row for each row, and End. An error may take End's place.
func (s *Session) TextResult(cols []Column) (*ResultWriter, error) {
	return s.result(cols, false)
}

// BinaryResult begins the answer to COM_STMT_EXECUTE, whose rows are encoded by
// the columns' types: integers, TypeDouble, dates and times, and strings of all
// kinds.
func (s *Session) BinaryResult(cols []Column) (*ResultWriter, error) {
	return s.result(cols, true)
}

func (s *Session) result(cols []Column, binary bool) (*ResultWriter, error) {
	if len(cols) == 0 {
		return nil, fmt.Errorf("wire: a result set needs columns")
	}
	if err := s.WritePacket(AppendLenEnc(nil, uint64(len(cols)))); err != nil {
		return nil, err
	}
	w := &ResultWriter{s: s, cols: cols, binary: binary}
	return w, s.writeColumns(cols)
}

func (s *Session) writeColumns(cols []Column) error {
	var buf []byte
	for i := range cols {
		buf = cols[i].appendTo(buf[:0])
		if err := s.WritePacket(buf); err != nil {
			return err
		}
	}
	return s.endPart(false, StatusAutocommit, 0)
}

// Binary tells whether rows are encoded by the columns' types.
func (w *ResultWriter) Binary() bool { return w.binary }

// Row writes a row. Values are nil (NULL), string, []byte, int, int64, uint64,
// bool, float64 or Temporal; their number is that of the columns.
func (w *ResultWriter) Row(values ...any) error {
	if len(values) != len(w.cols) {
		return fmt.Errorf("wire: row of %d values for %d columns", len(values), len(w.cols))
	}
	var err error
	if w.binary {
		w.buf, err = appendBinaryRow(w.buf[:0], w.cols, values)
	} else {
		w.buf, err = appendTextRow(w.buf[:0], values)
	}
	if err != nil {
		return err
	}
	return w.s.WritePacket(w.buf)
}

// End ends the result set.
func (w *ResultWriter) End(status, warnings uint16) error { return w.s.endPart(true, status, warnings) }

func appendTextRow(b []byte, values []any) (_ []byte, err error) {
	for _, v := range values {
		if v == nil {
			b = append(b, 0xfb)
		} else if b, err = appendText(b, v); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// appendText appends a value's text, length-encoded.
func appendText(b []byte, v any) ([]byte, error) {
	var scratch [32]byte
	switch v := v.(type) {
	case string:
		return AppendLenEncString(b, v), nil
	case []byte:
		return AppendLenEncString(b, v), nil
	case Temporal:
		return AppendLenEncString(b, string(v)), nil
	case int:
		return AppendLenEncString(b, strconv.AppendInt(scratch[:0], int64(v), 10)), nil
	case int64:
		return AppendLenEncString(b, strconv.AppendInt(scratch[:0], v, 10)), nil
	case uint64:
		return AppendLenEncString(b, strconv.AppendUint(scratch[:0], v, 10)), nil
	case float64:
		return AppendLenEncString(b, strconv.AppendFloat(scratch[:0], v, 'g', -1, 64)), nil
	case bool:
		if v {
			return append(b, 1, '1'), nil
		}
		return append(b, 1, '0'), nil
	}
	return nil, fmt.Errorf("wire: no encoding for a value of type %T", v)
}

// appendBinaryRow encodes Protocol::BinaryResultsetRow: 0, NULL bitmap with an
// offset of two bits, then the values that are not NULL.
func appendBinaryRow(b []byte, cols []Column, values []any) ([]byte, error) {
	b = append(b, headerOK)
	bitmap := len(b)
	b = append(b, make([]byte, (len(cols)+7+2)/8)...)
	for i, v := range values {
		if v == nil {
			b[bitmap+(i+2)/8] |= 1 << ((i + 2) % 8)
			continue
		}
		var err error
		if b, err = appendBinaryValue(b, &cols[i], v); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func appendBinaryValue(b []byte, col *Column, v any) ([]byte, error) {
	switch col.Type {
	case TypeTiny, TypeShort, TypeLong, TypeLongLong:
		if n, ok := integer(v, col); ok {
			le := binary.LittleEndian
			switch col.Type {
			case TypeTiny:
				return append(b, byte(n)), nil
			case TypeShort:
				return le.AppendUint16(b, uint16(n)), nil
			case TypeLong:
				return le.AppendUint32(b, uint32(n)), nil
			}
			return le.AppendUint64(b, n), nil
		}
	case TypeDouble:
		if f, ok := v.(float64); ok {
			return binary.LittleEndian.AppendUint64(b, math.Float64bits(f)), nil
		}
	case TypeDate, TypeDatetime, TypeTimestamp, TypeTime:
		if t, ok := v.(Temporal); ok {
			if b, ok = appendTemporal(b, col.Type, t); ok {
				return b, nil
			}
		}
	case TypeVarString, TypeString, TypeVarchar, TypeBlob, TypeLongBlob, TypeMediumBlob, TypeTinyBlob, TypeNewDecimal, TypeDecimal, TypeJSON:
		return appendText(b, v)
	}
	return nil, fmt.Errorf("wire: no binary encoding of %v (%T) in column %q of type %d", v, v, col.Name, col.Type)
}

// integer gives the two's complement of an integer value, if the column has
// room for it. A 64-bit column takes either sign's full range.
func integer(v any, col *Column) (uint64, bool) {
	bits := uint(64)
	switch col.Type {
	case TypeTiny:
		bits = 8
	case TypeShort:
		bits = 16
	case TypeLong:
		bits = 32
	}
	var n int64
	switch v := v.(type) {
	case bool:
		if v {
			n = 1
		}
	case int:
		n = int64(v)
	case int64:
		n = v
	case uint64:
		if v > math.MaxInt64 {
			return v, bits == 64
		}
		n = int64(v)
	default:
		return 0, false
	}
	if bits == 64 {
		return uint64(n), true
	}
	low, high := int64(-1)<<(bits-1), int64(1)<<(bits-1)
	if col.Flags&FlagUnsigned != 0 {
		low, high = 0, int64(1)<<bits
	}
	return uint64(n), low <= n && n < high
}
