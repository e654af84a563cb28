package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Temporal is a date, a date and time, or a time, as text: "2026-01-31",
// "2026-01-31 12:00:00.000000" (the fraction has up to six digits, or is not
// there), "-25:02:03.000000".
type Temporal string

// Most that a parameter may be; MySQL takes what is more for zero
// (Item_param::set_time), but for hours of a TIME.
const maxTimeHours = 838

// readTemporal decodes a value (manual page "Binary Protocol Value"): its length,
// which leaves out what is zero at the end, and
//
//	date:  u16 year, u8 month, u8 day, u8 hour, u8 minute, u8 second, u32 microseconds
//	time:  u8 negative, u32 days, u8 hours, u8 minutes, u8 seconds, u32 microseconds
func readTemporal(c *Cursor, typ byte) Temporal {
	n := int(c.U8())
	whole, seconds := 11, 7
	if typ == TypeTime {
		whole, seconds = 12, 8
	}
	if n != 0 && n != whole && n != seconds && (n != 4 || typ == TypeTime) {
		c.Fail()
		return ""
	}
	var b [12]byte
	copy(b[:], c.Bytes(n))
	le := binary.LittleEndian
	clock, micros := b[seconds-3:seconds], le.Uint32(b[whole-4:whole])
	if typ == TypeTime {
		hours := uint64(le.Uint32(b[1:]))*24 + uint64(clock[0])
		switch {
		case clock[1] > 59 || clock[2] > 59 || micros > 999999:
			return "00:00:00.000000"
		case hours > maxTimeHours:
			hours, clock[1], clock[2], micros = maxTimeHours, 59, 59, 0
		}
		sign := ""
		if b[0] != 0 {
			sign = "-"
		}
		return Temporal(fmt.Sprintf("%s%02d:%02d:%02d.%06d", sign, hours, clock[1], clock[2], micros))
	}
	year := le.Uint16(b[:])
	if year > 9999 || b[2] > 12 || b[3] > 31 || clock[0] > 23 || clock[1] > 59 || clock[2] > 59 || micros > 999999 {
		year, micros, b = 0, 0, [12]byte{}
	}
	text := fmt.Sprintf("%04d-%02d-%02d", year, b[2], b[3])
	if typ != TypeDate {
		text += fmt.Sprintf(" %02d:%02d:%02d.%06d", clock[0], clock[1], clock[2], micros)
	}
	return Temporal(text)
}

// Fits tells whether a column of type TypeDate, TypeDatetime, TypeTimestamp or TypeTime can
// have it for a value.
func (t Temporal) Fits(typ byte) bool {
	_, ok := appendTemporal(nil, typ, t)
	return ok
}

// appendTemporal encodes a value of a column of type TypeDate, TypeDatetime,
// TypeTimestamp or TypeTime; false if the text is none.
func appendTemporal(b []byte, typ byte, t Temporal) ([]byte, bool) {
	text, negative := strings.CutPrefix(string(t), "-")
	text, fraction, _ := strings.Cut(text, ".")
	var n [7]uint32 // year, month, day, and the clock; or the clock
	at := 0
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '-' || r == ':' || r == ' ' }) {
		v, err := strconv.ParseUint(part, 10, 16)
		if err != nil || at > 5 || at > 0 && v > math.MaxUint8 {
			return b, false
		}
		n[at] = uint32(v)
		at++
	}
	micros, err := strconv.ParseUint((fraction + "000000")[:6], 10, 32)
	if err != nil {
		return b, false
	}
	le := binary.LittleEndian
	var v []byte
	if typ == TypeTime {
		if at != 3 || strings.Contains(text, "-") {
			return b, false
		}
		v = append(v, 0)
		if negative {
			v[0] = 1
		}
		v = le.AppendUint32(v, n[0]/24)
		v = append(v, byte(n[0]%24), byte(n[1]), byte(n[2]))
	} else {
		if at != 3 && at != 6 {
			return b, false
		}
		v = append(le.AppendUint16(v, uint16(n[0])), byte(n[1]), byte(n[2]), byte(n[3]), byte(n[4]), byte(n[5]))
	}
	zero := func(b []byte) bool { return strings.Trim(string(b), "\x00") == "" }
	switch {
	case micros > 0:
		v = le.AppendUint32(v, uint32(micros))
	case zero(v):
		v = nil
	case typ != TypeTime && zero(v[4:]):
		v = v[:4]
	}
	return append(append(b, byte(len(v))), v...), true
}
