package wire

import (
	"encoding/binary"
	"fmt"
	"math"
)

// WritePrepared answers COM_STMT_PREPARE (Protocol::COM_STMT_PREPARE_OK): the
// statement's id, its number of parameters, and its columns, which may be none
// if they are known only when it runs.
func (s *Session) WritePrepared(id uint32, params int, cols []Column) error {
	if params < 0 || params > math.MaxUint16 || len(cols) > math.MaxUint16 {
		return fmt.Errorf("wire: statement of %d parameters and %d columns", params, len(cols))
	}
	le := binary.LittleEndian
	p := le.AppendUint32([]byte{headerOK}, id)
	p = le.AppendUint16(p, uint16(len(cols)))
	p = le.AppendUint16(p, uint16(params))
	if err := s.WritePacket(append(p, 0, 0, 0)); err != nil {
		return err
	}
	if params > 0 {
		list := make([]Column, params)
		for i := range list {
			list[i] = Column{Name: "?", Charset: CollationBinary, Type: TypeVarString, Flags: FlagBinary}
		}
		if err := s.writeColumns(list); err != nil {
			return err
		}
	}
	if len(cols) == 0 {
		return nil
	}
	return s.writeColumns(cols)
}

// Execute is a decoded COM_STMT_EXECUTE.
type Execute struct {
	Statement uint32
	Types     []uint16 // per parameter: type, and 0x8000 if unsigned; give it to the next ParseExecute
	Args      []any    // nil, int64, uint64, float64, Temporal or []byte (which points into the payload, or is long data)
}

// ParseLongData decodes the payload of COM_STMT_SEND_LONG_DATA: the statement's
// id, the number of the parameter from 0, and a piece of its value, which points
// into the payload.
func ParseLongData(payload []byte) (id uint32, param uint16, piece []byte, err error) {
	c := NewCursor(payload)
	id, param, piece = c.U32(), c.U16(), c.Rest()
	return id, param, piece, c.Err()
}

// ExecuteStatement is the statement's id in the payload of COM_STMT_EXECUTE,
// STMT_CLOSE, STMT_RESET, STMT_FETCH and STMT_SEND_LONG_DATA.
func ExecuteStatement(payload []byte) (uint32, error) {
	c := NewCursor(payload)
	id := c.U32()
	return id, c.Err()
}

// ParseExecute decodes the payload of COM_STMT_EXECUTE (without its command
// byte) for a statement with the given number of parameters. A client may send
// the parameters' types only the first time: previous are those of the last
// execution, if any. long are the values, by number of the parameter, that came
// with COM_STMT_SEND_LONG_DATA: the payload has no others for these.
func ParseExecute(payload []byte, params int, previous []uint16, long map[uint16][]byte) (*Execute, error) {
	c := NewCursor(payload)
	e := &Execute{Statement: c.U32(), Types: previous}
	c.U8()  // cursor type: cursors are not opened, which a server may decide
	c.U32() // iteration count, always 1
	if params > 0 {
		nulls := c.Bytes((params + 7) / 8)
		if c.U8() == 1 {
			e.Types = make([]uint16, 0, min(params, c.Len()))
			for range params {
				if c.Err() != nil {
					break
				}
				e.Types = append(e.Types, c.U16())
			}
		}
		if c.Err() != nil || len(e.Types) != params {
			return nil, fmt.Errorf("execute: %w", ErrMalformed)
		}
		e.Args = make([]any, params)
		for i := range e.Args {
			if v, ok := long[uint16(i)]; ok {
				e.Args[i] = v
			} else if nulls[i/8]&(1<<(i%8)) == 0 {
				e.Args[i] = binaryArg(&c, e.Types[i])
			}
		}
	}
	if err := c.Err(); err != nil {
		return nil, fmt.Errorf("execute: %w", err)
	}
	return e, nil
}

// binaryArg decodes one value (manual page "Binary Protocol Value").
func binaryArg(c *Cursor, typ uint16) any {
	const unsigned = 0x8000
	number := func(signed int64, plain uint64) any {
		if typ&unsigned != 0 {
			return plain
		}
		return signed
	}
	switch byte(typ) {
	case TypeTiny:
		v := c.U8()
		return number(int64(int8(v)), uint64(v))
	case TypeShort, TypeYear:
		v := c.U16()
		return number(int64(int16(v)), uint64(v))
	case TypeLong, TypeInt24:
		v := c.U32()
		return number(int64(int32(v)), uint64(v))
	case TypeLongLong:
		v := c.U64()
		return number(int64(v), v)
	case TypeFloat:
		return float64(math.Float32frombits(c.U32()))
	case TypeDouble:
		return math.Float64frombits(c.U64())
	case TypeNull:
		return nil
	case TypeDate, TypeDatetime, TypeTimestamp, TypeTime:
		return readTemporal(c, byte(typ))
	case TypeDecimal, TypeNewDecimal, TypeVarchar, TypeVarString, TypeString, TypeEnum, TypeSet, TypeJSON,
		TypeTinyBlob, TypeMediumBlob, TypeLongBlob, TypeBlob, TypeBit, TypeGeometry:
		if v := c.LenEncBytes(); v != nil {
			return v
		}
		c.Fail()
		return nil
	}
	c.Fail()
	return nil
}
