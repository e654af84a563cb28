package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Result is the answer to a query.
type Result struct {
	Columns []Column   // nil if the statement returns no rows
	Rows    [][][]byte // per row and column; NULL is nil
	OK      OK
}

// Query runs a statement under the text protocol and reads its whole result, of
// at most MaxResult bytes. An *Error leaves the session usable; any other error
// (also a done ctx, whose error it then is) closes it.
func (c *Client) Query(ctx context.Context, sql string) (*Result, error) {
	var res *Result
	err := c.exchange(ctx, func() (err error) {
		if err = c.command(append([]byte{ComQuery}, sql...)); err == nil {
			res, err = c.readResult()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// Exec runs a statement that returns no rows. Rows are an error, and close the
// session.
func (c *Client) Exec(ctx context.Context, sql string) (OK, error) {
	var ok OK
	err := c.exchange(ctx, func() (err error) {
		if err = c.command(append([]byte{ComQuery}, sql...)); err == nil {
			ok, err = c.readOK()
		}
		return err
	})
	return ok, err
}

// Ping asks for a sign of life.
func (c *Client) Ping(ctx context.Context) error {
	return c.exchange(ctx, func() error {
		if err := c.command([]byte{ComPing}); err != nil {
			return err
		}
		_, err := c.readOK()
		return err
	})
}

// Do sends a command that is answered with OK or an error, such as
// COM_REGISTER_SLAVE. The payload begins with the command byte.
func (c *Client) Do(ctx context.Context, payload []byte) (OK, error) {
	var ok OK
	err := c.exchange(ctx, func() (err error) {
		if err = c.command(payload); err == nil {
			ok, err = c.readOK()
		}
		return err
	})
	return ok, err
}

// Command sends a command, such as a dump request, and leaves it to the caller
// to read what comes from Conn. The payload begins with the command byte.
func (c *Client) Command(payload []byte) error { return c.command(payload) }

func (c *Client) command(payload []byte) error {
	c.conn.ResetSequence()
	return c.send(payload)
}

// exchange runs f such that ctx can break it off. Anything but a server error
// leaves the connection out of step, so it is closed.
func (c *Client) exchange(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	stop := c.conn.CloseOn(ctx)
	err := f()
	if !stop() {
		return context.Cause(ctx)
	}
	if _, isServer := err.(*Error); err != nil && !isServer {
		_ = c.conn.Close()
	}
	return err
}

// read reads a packet of an answer.
func (c *Client) read(max int) ([]byte, error) {
	p, err := c.conn.ReadPacket(max)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if len(p) == 0 {
		return nil, fmt.Errorf("empty answer: %w", ErrMalformed)
	}
	if p[0] == headerError {
		return nil, ParseError(p)
	}
	return p, nil
}

func (c *Client) readOK() (OK, error) {
	p, err := c.read(c.cfg.MaxResult)
	if err != nil {
		return OK{}, err
	}
	if p[0] != headerOK {
		return OK{}, fmt.Errorf("answer begins with 0x%02x where OK is due: %w", p[0], ErrMalformed)
	}
	return c.parseOK(p)
}

func (c *Client) parseOK(p []byte) (OK, error) {
	ok, err := ParseOK(p)
	if err == nil && ok.Status&StatusMoreResults != 0 {
		return OK{}, fmt.Errorf("more than one result, which was not asked for: %w", ErrMalformed)
	}
	return ok, err
}

// readResult reads Protocol::COM_QUERY_Response.
func (c *Client) readResult() (*Result, error) {
	p, err := c.read(c.cfg.MaxResult)
	if err != nil {
		return nil, err
	}
	switch p[0] {
	case headerOK:
		ok, err := c.parseOK(p)
		return &Result{OK: ok}, err
	case headerLocalFile:
		return nil, fmt.Errorf("the server asks for a local file: refused: %w", ErrMalformed)
	}
	cur := NewCursor(p)
	n, _ := cur.LenEnc()
	if cur.Err() != nil || cur.Len() > 0 || n == 0 || n > 4096 { // MAX_FIELDS
		return nil, fmt.Errorf("result of %d columns: %w", n, ErrMalformed)
	}
	res := &Result{Columns: make([]Column, 0, n)}
	left := c.cfg.MaxResult
	for range n {
		if p, err = c.readPart(&left); err != nil {
			return nil, err
		}
		col, err := ParseColumn(p)
		if err != nil {
			return nil, err
		}
		res.Columns = append(res.Columns, col)
	}
	if c.caps&ClientDeprecateEOF == 0 {
		if p, err = c.readPart(&left); err != nil {
			return nil, err
		}
		if !IsEOF(p) {
			return nil, fmt.Errorf("no EOF after the columns: %w", ErrMalformed)
		}
	}
	return res, c.readRows(res, &left)
}

// readPart reads a packet of a result, counting it against what is left of
// MaxResult. Each costs some memory beyond its bytes.
func (c *Client) readPart(left *int) ([]byte, error) {
	const overhead = 64
	p, err := c.read(*left)
	if tooLarge := (*TooLargeError)(nil); errors.As(err, &tooLarge) {
		return nil, fmt.Errorf("%w: limit is %d bytes", ErrResultTooLarge, c.cfg.MaxResult)
	}
	if err != nil {
		return nil, err
	}
	if *left -= len(p) + overhead; *left < 0 {
		return nil, fmt.Errorf("%w: limit is %d bytes", ErrResultTooLarge, c.cfg.MaxResult)
	}
	return p, nil
}

func (c *Client) readRows(res *Result, left *int) error {
	for {
		p, err := c.readPart(left)
		if err != nil {
			return err
		}
		if p[0] == headerEOF && len(p) < MaxPacketPayload && (c.caps&ClientDeprecateEOF != 0 || IsEOF(p)) {
			return c.endRows(res, p)
		}
		*left -= 24 * len(res.Columns)
		row, err := ParseTextRow(append([]byte(nil), p...), len(res.Columns))
		if err != nil {
			return err
		}
		res.Rows = append(res.Rows, row)
	}
}

func (c *Client) endRows(res *Result, p []byte) (err error) {
	if c.caps&ClientDeprecateEOF != 0 {
		res.OK, err = c.parseOK(p)
		return err
	}
	cur := NewCursor(p[1:])
	res.OK.Warnings = cur.U16()
	res.OK.Status = cur.U16()
	if cur.Err() == nil && res.OK.Status&StatusMoreResults != 0 {
		cur.Fail()
	}
	return cur.Err()
}
