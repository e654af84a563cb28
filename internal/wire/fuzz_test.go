package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
)

// addGolden seeds with every recorded packet whose file name begins with one of
// the prefixes.
func addGolden(f *testing.F, names ...string) {
	for _, n := range names {
		for _, p := range loadGolden(f, n) {
			f.Add(p)
		}
	}
}

// FuzzPackets: both ways of reading give the same payloads of any bytes, and
// what was read is framed again into the same bytes.
func FuzzPackets(f *testing.F) {
	f.Add(append(frame(0, []byte("one")), frame(1, pattern(700))...), 3)
	f.Add([]byte{0, 0, 0, 0}, 1)
	f.Add([]byte{0xff, 0xff, 0xff, 0}, 1)
	f.Fuzz(func(t *testing.T, stream []byte, piece int) {
		whole := NewConn(&bytesConn{in: bytes.NewReader(stream)}, minBuf, 0)
		parts := NewConn(&bytesConn{in: bytes.NewReader(stream)}, minBuf, 0)
		bc := &bytesConn{}
		back := NewConn(bc, 0, minBuf)
		back.SplitSequence()
		if piece = piece % 2000; piece < 1 {
			piece = 1
		}
		read := 0
		for {
			want, wantErr := whole.ReadPacket(1 << 20)
			want = bytes.Clone(want)
			err := parts.NextPayload()
			var got []byte
			for err == nil {
				p := make([]byte, piece)
				var n int
				n, err = parts.Read(p)
				got = append(got, p[:n]...)
			}
			if wantErr != nil {
				var tooLarge *TooLargeError
				if err == io.EOF && len(got) > 0 && !errors.As(wantErr, &tooLarge) {
					t.Fatalf("ReadPacket: %v, but Read got %d bytes", wantErr, len(got))
				}
				break
			}
			if err != io.EOF || !bytes.Equal(got, want) {
				t.Fatalf("ReadPacket: %d bytes, Read: %d bytes, %v", len(want), len(got), err)
			}
			read += headerSize + len(want)
			if err := back.WritePacket(want); err != nil {
				t.Fatal(err)
			}
		}
		if err := back.Flush(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(bc.out.Bytes(), stream[:read]) {
			t.Fatalf("framed again:\ngot  %x\nwant %x", bc.out.Bytes(), stream[:read])
		}
	})
}

func FuzzGreeting(f *testing.F) {
	for _, s := range goldenServers {
		f.Add(loadGolden(f, s+"-login")[0])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		g, err := ParseGreeting(p)
		if err != nil || len(g.Nonce) != nonceSize || g.Capabilities&ClientPluginAuth == 0 {
			return
		}
		again, err := ParseGreeting(g.appendTo(nil))
		if err != nil || !reflect.DeepEqual(g, again) {
			t.Errorf("got %+v, %v\nwant %+v", again, err, g)
		}
	})
}

func FuzzLogin(f *testing.F) {
	for _, n := range []string{"mysql-9.7-rsa", "mysql-9.7-native", "mysql-5.6-native", "mariadb-10.11-native", "mariadb-11.8-native"} {
		f.Add(loadGolden(f, "replica-"+n)[0])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		head, err := parseLoginHead(p)
		if err != nil || head.caps&ClientProtocol41 == 0 {
			return
		}
		l, err := parseLogin(p)
		if err != nil {
			return
		}
		b, err := l.appendTo(nil)
		if err != nil {
			return // names with NUL cannot come out of parsing, but the answer may be too long to be written
		}
		again, err := parseLogin(b)
		if err != nil || again.user != l.user || !bytes.Equal(again.answer, l.answer) || again.database != l.database ||
			len(again.attributes) != len(l.attributes) {
			t.Errorf("got %+v, %v\nwant %+v", again, err, l)
		}
	})
}

func FuzzChangeUser(f *testing.F) {
	caps := offered
	l := login{caps: caps, user: "u", database: "d", plugin: PluginCachingSHA2, attributes: []Attribute{{"a", "b"}}}
	p, err := l.appendChangeUser(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p[1:])
	f.Add([]byte("u\x00\x03abcd\x00\x2d\x00plugin\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		l, err := parseChangeUser(p, caps)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Error(err)
			}
			return
		}
		b, err := l.appendChangeUser(nil)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseChangeUser(b[1:], caps); err != nil || !reflect.DeepEqual(again, l) {
			t.Errorf("got %+v, %v\nwant %+v", again, err, l)
		}
	})
}

func FuzzAuthSwitch(f *testing.F) {
	addGolden(f, "mysql-9.7-login")
	f.Add([]byte(PluginNative + "\x00abcdefghijklmnopqrst\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		name, nonce, err := parseAuthSwitch(p)
		if err == nil && len(name)+1+len(nonce) > len(p) {
			t.Errorf("%q: %q, %q", p, name, nonce)
		}
		// And within the login: nothing of it may panic, or say the password in clear.
		bc := &bytesConn{in: bytes.NewReader(frame(0, append([]byte{headerEOF}, p...)))}
		c := &Client{conn: NewConn(bc, 0, 0), greeting: &Greeting{Nonce: make([]byte, nonceSize)}, caps: offered,
			cfg: ClientConfig{User: "u", Password: []byte("the secret word")}}
		_ = c.authenticate(&login{})
		if bytes.Contains(bc.out.Bytes(), []byte("the secret word")) {
			t.Errorf("%q makes us say the password", p)
		}
	})
}

func FuzzError(f *testing.F) {
	addGolden(f, "mysql-9.7-query3", "mariadb-11.8-query3")
	f.Fuzz(func(t *testing.T, p []byte) {
		err := ParseError(p)
		var e *Error
		if !errors.As(err, &e) {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v", err)
			}
			return
		}
		if len(e.appendTo(nil, true)) > 3+6+maxErrorMessage {
			t.Errorf("%d bytes", len(e.appendTo(nil, true)))
		}
	})
}

// FuzzResult reads any bytes as the answer to a query, in both styles.
func FuzzResult(f *testing.F) {
	for _, s := range goldenServers {
		for _, q := range []string{"-query0", "-query1", "-query2", "-query3"} {
			var stream []byte
			for i, p := range loadGolden(f, s+q) {
				stream = append(stream, frame(byte(i), p)...)
			}
			f.Add(stream, goldenCaps(f, s)&ClientDeprecateEOF != 0)
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, deprecate bool) {
		c := replay(0, nil)
		c.conn = NewConn(&bytesConn{in: bytes.NewReader(stream)}, minBuf, 0)
		c.cfg.MaxResult = 1 << 20
		if deprecate {
			c.caps |= ClientDeprecateEOF
		}
		res, err := c.readResult()
		if err != nil {
			return
		}
		for _, row := range res.Rows {
			if len(row) != len(res.Columns) {
				t.Errorf("row of %d values for %d columns", len(row), len(res.Columns))
			}
		}
	})
}

func FuzzColumn(f *testing.F) {
	addGolden(f, "mysql-9.7-query0", "mysql-5.6-query0")
	f.Fuzz(func(t *testing.T, p []byte) {
		col, err := ParseColumn(p)
		if err != nil {
			return
		}
		again, err := ParseColumn(col.appendTo(nil))
		if err != nil || again != col {
			t.Errorf("got %+v, %v\nwant %+v", again, err, col)
		}
	})
}

func FuzzExecute(f *testing.F) {
	f.Add(goldenExecute(1), 4, []byte{}, false)
	f.Add(append(make([]byte, 10), 1, TypeDatetime, 0, TypeTime, 0, 7, 0xea, 7, 1, 31, 12, 0, 0, 12, 1, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0), 2, []byte{}, false)
	f.Add(append(make([]byte, 10), 0, 7), 2, []byte{TypeTiny, 0x80, TypeString, 0}, true)
	f.Fuzz(func(t *testing.T, p []byte, params int, types []byte, longed bool) {
		if params < 0 || params > 1<<16 {
			return
		}
		var previous []uint16
		for c := NewCursor(types); c.Len() > 1; {
			previous = append(previous, c.U16())
		}
		var long map[uint16][]byte
		if longed {
			long = map[uint16][]byte{1: []byte("long")}
		}
		e, err := ParseExecute(p, params, previous, long)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Error(err)
			}
			return
		}
		if len(e.Args) != params || params > 0 && len(e.Types) != params {
			t.Errorf("%d values of %d types for %d parameters", len(e.Args), len(e.Types), params)
		}
		for i, v := range e.Args {
			moment, ok := v.(Temporal)
			if !ok {
				continue
			}
			b, ok := appendTemporal(nil, byte(e.Types[i]), moment)
			if !ok {
				t.Fatalf("%s cannot be encoded", moment)
			}
			c := NewCursor(b)
			if again := readTemporal(&c, byte(e.Types[i])); again != moment && again != "-"+moment && moment != "-"+again {
				t.Errorf("%s is read again as %s", moment, again)
			}
		}
	})
}

func FuzzVerifier(f *testing.F) {
	for _, s := range verifier(f, secret, VerifierForms{Digest: true, Native: true}).Strings() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVerifier(s)
		if err != nil {
			return
		}
		again, err := ParseVerifier(v.Strings()...)
		if err != nil || !reflect.DeepEqual(v, again) {
			t.Errorf("%q: %v, %v", s, again.Strings(), err)
		}
	})
}
