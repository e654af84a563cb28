package server

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"kingbus/internal/wire"
)

func TestParseDump(t *testing.T) {
	for _, c := range []struct {
		name    string
		payload []byte
		want    dumpRequest
		code    uint16
	}{
		{"file", dumpPayload("binlog.000007", 1234, 3, 42)[1:], dumpRequest{file: "binlog.000007", pos: 1234, flags: 3, serverID: 42}, 0},
		{"no name", dumpPayload("", 4, 0, 0)[1:], dumpRequest{pos: 4}, 0},
		{"NUL behind the name", dumpPayload("binlog.000007\x00", 4, 0, 0)[1:], dumpRequest{file: "binlog.000007", pos: 4}, 0},
		{"short", []byte{4, 0, 0, 0, 0, 0, 1, 0, 0}, dumpRequest{}, wire.ErMalformedPacket},
		{"empty", nil, dumpRequest{}, wire.ErMalformedPacket},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseDump(c.payload)
			checkParsed(t, got, c.want, err, c.code)
		})
	}
}

func TestParseDumpGTID(t *testing.T) {
	set := mustSet(t, sourceUUID+":1-5:7")
	tagged := mustSet(t, sourceUUID+":tag:1-5")
	huge := binary.LittleEndian.AppendUint32(dumpGTIDPayload("", 4, 0, 1, nil)[1:19], 1<<31)
	for _, c := range []struct {
		name    string
		payload []byte
		want    dumpRequest
		code    uint16
	}{
		{"set", dumpGTIDPayload("", 4, 2, 42, set.AppendBinary(nil))[1:], dumpRequest{pos: 4, flags: 2, serverID: 42, have: set, gtidMode: true}, 0},
		{"tags", dumpGTIDPayload("", 4, 2, 42, tagged.AppendBinary(nil))[1:], dumpRequest{pos: 4, flags: 2, serverID: 42, have: tagged, gtidMode: true}, 0},
		{"file", dumpGTIDPayload("b.000001", 1<<33, 0, 1, set.AppendBinary(nil))[1:], dumpRequest{file: "b.000001", pos: 1 << 33, serverID: 1, have: set, gtidMode: true}, 0},
		{"NULs for a name", dumpGTIDPayload(strings.Repeat("\x00", 13), 4, 0, 1, set.AppendBinary(nil))[1:], dumpRequest{pos: 4, serverID: 1, have: set, gtidMode: true}, 0},
		{"long name", dumpGTIDPayload(strings.Repeat("x", 513), 4, 0, 1, set.AppendBinary(nil))[1:], dumpRequest{}, wire.ErMalformedPacket},
		{"no set", dumpGTIDPayload("", 4, 0, 1, nil)[1:], dumpRequest{}, wire.ErMalformedGTIDSetEncoding},
		{"bad set", dumpGTIDPayload("", 4, 0, 1, []byte("not a set"))[1:], dumpRequest{}, wire.ErMalformedGTIDSetEncoding},
		{"set beyond the packet", huge, dumpRequest{}, wire.ErMalformedPacket},
		{"empty", nil, dumpRequest{}, wire.ErMalformedPacket},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseDumpGTID(c.payload)
			checkParsed(t, got, c.want, err, c.code)
		})
	}
}

func checkParsed(t *testing.T, got, want dumpRequest, err *wire.Error, code uint16) {
	t.Helper()
	switch {
	case code == 0 && err != nil, code != 0 && (err == nil || err.Code != code):
		t.Errorf("error: got %v, want code %d", err, code)
	case !got.have.Equal(want.have):
		t.Errorf("set: got %v, want %v", got.have, want.have)
	}
	got.have = want.have
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParseRegister(t *testing.T) {
	build := func(host, user, password string) []byte {
		p := binary.LittleEndian.AppendUint32(nil, 42)
		for _, s := range []string{host, user, password} {
			p = wire.AppendLenEncString(p, s)
		}
		return append(p, 0xea, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	got, err := parseRegister(build("replica", "repl", "secret"))
	if want := (registration{serverID: 42, host: "replica", user: "repl", password: "secret", port: 3306}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for name, payload := range map[string][]byte{
		"long host": build(strings.Repeat("h", 300), "", ""), "long user": build("", strings.Repeat("u", 100), ""),
		"long password": build("", "", strings.Repeat("p", 100)), "short": {1, 2, 3}, "empty": nil,
	} {
		if _, err := parseRegister(payload); err == nil || err.Code != wire.ErUnknown {
			t.Errorf("%s: got %v, want error %d", name, err, wire.ErUnknown)
		}
	}
}

func FuzzCommands(f *testing.F) {
	f.Add(dumpPayload("binlog.000007", 1234, 3, 42)[1:])
	f.Add(dumpGTIDPayload("binlog.000007", 4, 3, 42, encodeSet(f, sourceUUID+":1-5,"+sourceUUID+":tag:7"))[1:])
	f.Add([]byte(register(42))[1:])
	f.Fuzz(func(t *testing.T, payload []byte) {
		keep := bytes.Clone(payload)
		if r, err := parseDump(payload); err == nil && (len(r.file) > len(payload) || strings.Contains(r.file, "\x00")) {
			t.Errorf("file %q", r.file)
		}
		if r, err := parseDumpGTID(payload); err == nil {
			again, err := parseDumpGTID(dumpGTIDPayload(r.file, r.pos, r.flags, r.serverID, r.have.AppendBinary(nil))[1:])
			if err != nil || !again.have.Equal(r.have) || again.file != r.file || again.pos != r.pos {
				t.Errorf("got %v and then %v, %v", r, again, err)
			}
		}
		_, _ = parseRegister(payload)
		if !bytes.Equal(keep, payload) {
			t.Error("a parser has changed its input")
		}
	})
}
