package peer

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write testdata anew; only for a new version of the protocol")

func TestKind(t *testing.T) {
	for k, want := range map[Kind]string{KindControl: "control", KindData: "data", KindFetch: "fetch", KindCall: "call", 0: "Kind(0)", 9: "Kind(9)"} {
		if got := k.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestCheckPreamble(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want error
		text string
	}{
		{"KBPEER\x01\x00", nil, ""},
		{"KBPEER\x01", nil, ""}, // more may come
		{"", nil, ""},
		{"KBPEER\x02\x00", ErrVersion, "version 2, this node version 1"},
		{"KBPEER\x01\x01", ErrVersion, "version 257, this node version 1"},
		{"KBPEER\x00\x00", ErrVersion, "version 0"},
		{"KBPEEX\x01\x00", ErrNotPeer, "not a kingbus peer"},
		{"HTTP/1.1", ErrNotPeer, `"HTTP/1.1"`},
		{"\x00", ErrNotPeer, ""},
		{"\x16\x03\x01\x02\x00\x01\x00\x01", ErrPeerTLS, "the peer speaks TLS, this node does not: set --peer-cert/--peer-key/--peer-ca on both"},
		{"\x15\x03\x01\x00\x02\x02\x0a", ErrPeerTLS, ""},
		{"\x16\x02\x01\x02\x00\x01\x00\x01", ErrNotPeer, ""},
		{"\x16", ErrNotPeer, ""},
	} {
		err := checkPreamble([]byte(tt.in))
		if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%q: got %v, want %v with %q", tt.in, err, tt.want, tt.text)
		}
	}
}

func TestParseAnswer(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Hello
		err  string
	}{
		{"\x00{}", Hello{}, ""},
		{"\x00" + `{"kind":2,"cluster":"18446744073709551615","from":"3","new":[1]}`, Hello{Kind: 2, Cluster: 1<<64 - 1, From: 3}, ""},
		{"\x00" + `{"name":"` + strings.Repeat("n", 255) + `"}`, Hello{Name: strings.Repeat("n", 255)}, ""},
		{"\x00" + `{"name":"` + strings.Repeat("n", 256) + `"}`, Hello{}, "malformed hello: a name of 256 and an address of 0 bytes: at most 255 each"},
		{"\x00" + `{"address":"` + strings.Repeat("n", 256) + `"}`, Hello{}, "malformed hello: a name of 0 and an address of 256 bytes"},
		{"\x00" + `{"from":3}`, Hello{}, "malformed hello"},
		{"\x00" + `{"kind":256}`, Hello{}, "malformed hello"},
		{"\x00{}{}", Hello{}, "malformed hello"},
		{"\x00", Hello{}, "malformed hello"},
		{"", Hello{}, "malformed answer: it is empty"},
		{"\x02{}", Hello{}, "malformed answer: it is neither yes nor no, but 2"},
		{"\x01", Hello{}, "malformed refusal"},
		{"\x01[]", Hello{}, "malformed refusal"},
		{"\x01" + `{"code":"left","text":"node 3 was removed"}`, Hello{}, "node 3 was removed (left)"},
		{"\x01" + `{"text":"a\u001b[2J\nb"}`, Hello{}, "a [2J b ()"},
	} {
		got, err := parseAnswer([]byte(tt.in))
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.HasPrefix(err.Error(), tt.err) {
			t.Errorf("%.40q: got %+v, %v\nwant %+v, %s", tt.in, got, err, tt.want, tt.err)
		}
		var no *Refusal
		if errors.As(err, &no) != (strings.HasPrefix(tt.in, "\x01{")) {
			t.Errorf("%.40q: refused: %v", tt.in, err)
		}
	}
}

func TestRefusalIsBounded(t *testing.T) {
	long := Refusal{Code: strings.Repeat("c", 10_000), Text: "x" + strings.Repeat("ß", 10_000)}
	b, err := encodeRefusal(&long)
	if err != nil {
		t.Fatal(err)
	}
	_, err = parseAnswer(b)
	var no *Refusal
	if !errors.As(err, &no) || len(no.Code) != maxCode || len(no.Text) != maxText-1 || !utf8.ValidString(no.Text) {
		t.Errorf("got %v", err)
	}
	if len(long.Code) != 10_000 {
		t.Error("the caller's was cut")
	}
	worst := Refusal{Text: strings.Repeat("<", 10_000)} // JSON makes 6 bytes of each
	if b, err := encodeRefusal(&worst); err != nil || len(b) > maxHello {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestHelloTooLong(t *testing.T) {
	for _, h := range []Hello{{Name: strings.Repeat("n", 256)}, {Address: strings.Repeat("n", 256)}} {
		if _, err := encodeHello(h); err == nil {
			t.Error("taken")
		}
		if _, _, err := Dial(context.Background(), Config{}, "127.0.0.1:1", h); err == nil || !strings.Contains(err.Error(), "256") {
			t.Errorf("got %v", err)
		}
	}
	h := Hello{Name: strings.Repeat("<", 255), Address: strings.Repeat("\x00", 255)}
	if b, err := encodeHello(h); err != nil || len(b) > maxHello {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

var goldenAnswer = Hello{Kind: KindData, Cluster: 7, From: 2, To: 1, Name: "two", Address: "two.example:3307", MinFormat: 1, MaxFormat: 2, Last: 41}

func goldenFile(t testing.TB, name string, today []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, today, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGolden plays both roles against the recorded bytes of the other.
func TestGolden(t *testing.T) {
	must := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return introduction(b)
	}
	refusal := &Refusal{Code: "cluster", Text: "this node belongs to cluster 7"}
	says := goldenFile(t, "v1-client", must(encodeHello(hello)))
	yes := goldenFile(t, "v1-welcome", must(encodeAnswer(goldenAnswer)))
	no := goldenFile(t, "v1-refusal", must(encodeRefusal(refusal)))
	for _, tt := range []struct {
		name   string
		server []byte
		refuse error
	}{{"welcome", yes, nil}, {"refusal", no, refusal}} {
		nc := newBytesConn(tt.server)
		cfg := Config{Dial: func(context.Context, string, string) (net.Conn, error) { return nc, nil }}
		c, got, err := Dial(testContext(t), cfg, "a:1", hello)
		var r *Refusal
		if tt.refuse == nil && (err != nil || c == nil || got != goldenAnswer) {
			t.Errorf("%s: got %+v, %v", tt.name, got, err)
		}
		if tt.refuse != nil && (!errors.As(err, &r) || *r != *refusal || c != nil) {
			t.Errorf("%s: got %v", tt.name, err)
		}
		if !bytes.Equal(nc.out.Bytes(), says) {
			t.Errorf("%s: the client says now\n%q\nwant\n%q", tt.name, nc.out.Bytes(), says)
		}

		nc = newBytesConn(says)
		h, err := newConn(Config{}.withDefaults(), nc).answer(nil, func(Hello) (Hello, error) { return goldenAnswer, tt.refuse })
		if !errors.Is(err, tt.refuse) || h != hello {
			t.Errorf("%s: got %+v, %v", tt.name, h, err)
		}
		if !bytes.Equal(nc.out.Bytes(), tt.server) {
			t.Errorf("%s: the server says now\n%q\nwant\n%q", tt.name, nc.out.Bytes(), tt.server)
		}
	}
}

// FuzzReadFrame: what is read is what would have been written, whatever comes.
func FuzzReadFrame(f *testing.F) {
	f.Add(append(frame([]byte("hello")), frame(nil)...))
	f.Add(make([]byte, 24))
	f.Add([]byte{0, 0, 1, 0, 1, 2, 3, 4, 5})
	f.Fuzz(func(t *testing.T, in []byte) {
		const most = 1000
		c, nc := reading(in, most), newBytesConn(nil)
		w := newConn(Config{MaxFrame: most}.withDefaults(), nc)
		for {
			b, err := c.ReadFrame()
			if err != nil {
				break
			}
			if err := w.WriteFrame(b); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(in, nc.out.Bytes()) {
			t.Errorf("written again: %x", nc.out.Bytes())
		}
	})
}

// FuzzHandshake feeds both roles with anything at all, and with anything in a frame.
func FuzzHandshake(f *testing.F) {
	for _, name := range []string{"v1-client", "v1-welcome", "v1-refusal"} {
		b := goldenFile(f, name, nil)
		f.Add(b)
		f.Add(b[preambleSize+frameHeader:])
	}
	f.Add([]byte("\x16\x03\x01\x02\x00\x01\x00\x01"))
	f.Add([]byte("KBPEER\x02\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, in := range [][]byte{body, introduction(body)} {
			nc := newBytesConn(in)
			h, err := newConn(Config{}.withDefaults(), nc).answer(nil, (&node{}).Welcome)
			if out := nc.out.Bytes(); err == nil {
				if h.check() != nil || h.Kind < KindControl || h.Kind > KindCall {
					t.Errorf("welcomed %+v", h)
				}
				if got, err := newConn(Config{}.withDefaults(), newBytesConn(out)).greet(nil, "", nil); err != nil || got.Name != "server" {
					t.Errorf("the client does not understand the server: %+v, %v", got, err)
				}
			}
			nc = newBytesConn(in)
			h, err = newConn(Config{}.withDefaults(), nc).greet(nil, "", nil)
			if err != nil {
				continue
			}
			b, err := encodeAnswer(h)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := parseAnswer(b); err != nil || again != h {
				t.Errorf("got %+v, %v\nwant %+v", again, err, h)
			}
		}
	})
}
