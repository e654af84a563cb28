package gtid

import (
	"fmt"
	"strconv"
)

// MaxText is the longest text in bytes that ParseSet looks at.
const MaxText = 64 << 20

// ParseSet reads MySQL's text for sets:
//
//	set   = entry *( "," entry )       empty entries are allowed
//	entry = uuid *( ":" part )
//	part  = tag | number [ "-" number ]
//
// A UUID may also have no dashes at all, or braces around it. A tag holds for
// the numbers after it, up to the next tag or entry; numbers before the first
// tag are untagged. White space may stand between any two tokens. Entries and
// intervals may come in any order and overlap; an interval that ends before it
// starts is empty, and a UUID or tag without numbers stands for nothing. All
// that is what MySQL 9.7 takes (testdata/text.golden).
func ParseSet(text string) (Set, error) {
	if len(text) > MaxText {
		return Set{}, fmt.Errorf("%w set: %d bytes of text, more than %d", ErrMalformed, len(text), MaxText)
	}
	p := parser{text: text}
	var b builder
	for {
		p.space()
		for p.take(',') {
			p.space()
		}
		if p.end() {
			return b.set(), nil
		}
		if err := p.entry(&b); err != nil {
			return Set{}, err
		}
	}
}

// parser reads text from pos on.
type parser struct {
	text string
	pos  int
}

func (p *parser) errorf(format string, args ...any) error {
	return fmt.Errorf("%w: %s, at byte %d: %q", ErrMalformed, fmt.Sprintf(format, args...), p.pos, clip(p.text[p.pos:]))
}

func (p *parser) end() bool { return p.pos == len(p.text) }

// peek returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.end() {
		return 0
	}
	return p.text[p.pos]
}

func (p *parser) take(c byte) bool {
	if p.end() || p.text[p.pos] != c {
		return false
	}
	p.pos++
	return true
}

// space skips what MySQL's my_isspace calls white space.
func (p *parser) space() {
	for !p.end() {
		if c := p.text[p.pos]; c != ' ' && (c < '\t' || c > '\r') {
			return
		}
		p.pos++
	}
}

func (p *parser) uuid() (UUID, error) {
	var u UUID
	rest := p.text[p.pos:]
	switch {
	case u.parse(rest):
		p.pos += uuidTextSize
	case len(rest) >= uuidTextSize+2 && rest[0] == '{' && rest[uuidTextSize+1] == '}' && u.parse(rest[1:]):
		p.pos += uuidTextSize + 2
	case len(rest) >= 2*len(u) && u.parseHex(rest):
		p.pos += 2 * len(u)
	default:
		return u, p.errorf("expected a UUID")
	}
	return u, nil
}

// entry reads one UUID with its tags and intervals, up to a comma or the end.
func (p *parser) entry(b *builder) error {
	u, err := p.uuid()
	if err != nil {
		return err
	}
	at := -1 // index of the current SID in the builder
	p.space()
	for p.take(':') {
		p.space()
		if c := p.peek(); isTagByte(c) && !isDigit(c) {
			tag, err := p.tag()
			if err != nil {
				return err
			}
			at = b.sid(SID{u, tag})
			p.space()
			continue
		}
		if at < 0 {
			at = b.sid(SID{UUID: u})
		}
		iv, err := p.interval()
		if err != nil {
			return err
		}
		if iv.start < iv.end {
			b.add(at, iv)
		}
	}
	if !p.end() && p.peek() != ',' {
		return p.errorf("expected \":\" or \",\"")
	}
	return nil
}

func (p *parser) tag() (string, error) {
	from := p.pos
	for isTagByte(p.peek()) {
		p.pos++
	}
	tag, err := ParseTag(p.text[from:p.pos])
	if err != nil {
		p.pos = from
		return "", p.errorf("bad tag")
	}
	return tag, nil
}

// interval reads "number" or "number-number" and the white space after it.
func (p *parser) interval() (interval, error) {
	from, err := p.number(MinGNO)
	if err != nil {
		return interval{}, err
	}
	to := from
	p.space()
	if p.take('-') {
		p.space()
		if to, err = p.number(0); err != nil {
			return interval{}, err
		}
		p.space()
	}
	return interval{from, to + 1}, nil
}

func (p *parser) number(least int64) (int64, error) {
	from := p.pos
	for isDigit(p.peek()) {
		p.pos++
	}
	digits := p.text[from:p.pos]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < least || n > MaxGNO {
		p.pos = from
		return 0, p.errorf("expected a transaction number from %d to %d", least, int64(MaxGNO))
	}
	return n, nil
}

// gtid reads the whole text as one GTID.
func (p *parser) gtid() (GTID, error) {
	p.space()
	var g GTID
	var err error
	if g.SID.UUID, err = p.uuid(); err != nil {
		return g, err
	}
	p.space()
	if !p.take(':') {
		return g, p.errorf("expected \":\"")
	}
	p.space()
	if c := p.peek(); isTagByte(c) && !isDigit(c) {
		if g.SID.Tag, err = p.tag(); err != nil {
			return g, err
		}
		p.space()
		if !p.take(':') {
			return g, p.errorf("expected \":\"")
		}
		p.space()
	}
	if g.GNO, err = p.number(MinGNO); err != nil {
		return g, err
	}
	p.space()
	if !p.end() {
		return g, p.errorf("unexpected text after the GTID")
	}
	return g, nil
}

// String returns the form that MySQL prints: one entry per UUID, sorted, the
// untagged intervals first, entries separated by comma and newline.
func (s Set) String() string { return string(s.AppendText(nil)) }

// AppendText appends String to dst.
func (s Set) AppendText(dst []byte) []byte {
	for i, e := range s.sids {
		switch {
		case i == 0:
			dst = e.sid.UUID.appendText(dst)
		case e.sid.UUID != s.sids[i-1].sid.UUID:
			dst = append(dst, ",\n"...)
			dst = e.sid.UUID.appendText(dst)
		}
		if e.sid.Tag != "" {
			dst = append(dst, ':')
			dst = append(dst, e.sid.Tag...)
		}
		for _, iv := range e.list {
			dst = append(dst, ':')
			dst = strconv.AppendInt(dst, iv.start, 10)
			if iv.end-1 > iv.start {
				dst = append(dst, '-')
				dst = strconv.AppendInt(dst, iv.end-1, 10)
			}
		}
	}
	return dst
}
