package wire

import (
	"bytes"
	"strings"
	"testing"
)

// TestShaCrypt compares with crypt(3), as `openssl passwd -5` gives it.
func TestShaCrypt(t *testing.T) {
	for _, tt := range []struct{ password, salt, want string }{
		{"Hello world!", "saltstring", "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"},
		{"a", "saltstring", "7cz4bTeQ7MnNssphNhFVrITtuJYY/1tdvLL2uzLvOk8"},
		{strings.Repeat("x", 31), "saltstring", "7eexM9i/RwH3zSTlXIzQVgVOeOcfAEH1bze54mX5hU9"},
		{strings.Repeat("y", 32), "saltstring", "GUQSvojIsMq6HqqTCG7051n02Tj5MN9nHz8lOi3PBe4"},
		{strings.Repeat("long ", 20), "saltstring", "/wxcVJz7Qr19PW92t5pves/U9MCcoKQ30mMqKoPvbe4"},
		{"This is just a test", "toolongsaltstrin", "Un/5jzAHMgOGZ5.mWJpuVolil07guHPvOW8mGRcvxa5"},
	} {
		if got := shaCrypt([]byte(tt.password), []byte(tt.salt), 5000); got != tt.want {
			t.Errorf("%q\ngot  %s\nwant %s", tt.password, got, tt.want)
		}
	}
}

func TestScrambles(t *testing.T) {
	nonce := []byte("abcdefghijklmnopqrst")
	v := verifier(t, secret, VerifierForms{Digest: true, Native: true})
	for _, tt := range []struct {
		password string
		want     bool
	}{{secret, true}, {secret + "x", false}, {"x", false}, {"", false}} {
		pw := []byte(tt.password)
		if got := checkNative(scrambleNative(pw, nonce), nonce, v.native); got != tt.want {
			t.Errorf("native %q: %v", tt.password, got)
		}
		if got := checkSHA2(scrambleSHA2(pw, nonce), nonce, v.digest); got != tt.want {
			t.Errorf("sha2 %q: %v", tt.password, got)
		}
		if got := v.checkPassword(pw); got != tt.want {
			t.Errorf("password %q: %v", tt.password, got)
		}
		other := []byte("ABCDEFGHIJKLMNOPQRST")
		if checkNative(scrambleNative(pw, other), nonce, v.native) || checkSHA2(scrambleSHA2(pw, other), nonce, v.digest) {
			t.Errorf("%q: an answer to another nonce was taken", tt.password)
		}
		if tt.password == "" {
			continue
		}
		sent, err := encryptPassword(&testKeys().PublicKey, pw, nonce)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := decryptPassword(testKeys(), sent, nonce); !ok || string(got) != tt.password+"\x00" {
			t.Errorf("RSA: got %q, %v", got, ok)
		}
	}
	if _, err := encryptPassword(&testKeys().PublicKey, bytes.Repeat([]byte("x"), 300), nonce); err == nil {
		t.Error("a password beyond what RSA takes was taken")
	}
}

func TestNonces(t *testing.T) {
	seen := make(map[[nonceSize]byte]bool)
	for range 1000 {
		n := newNonce()
		if bytes.ContainsAny(n[:], "\x00$") || seen[n] || bytes.ContainsFunc(n[:], func(r rune) bool { return r > 0x7f }) {
			t.Fatalf("nonce %q", n)
		}
		seen[n] = true
	}
}

func TestVerifierForms(t *testing.T) {
	native, err := ParseVerifier("*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19") // SELECT PASSWORD('password') of old
	if err != nil {
		t.Fatal(err)
	}
	nonce := []byte("abcdefghijklmnopqrst")
	if !checkNative(scrambleNative([]byte("password"), nonce), nonce, native.native) {
		t.Error("the native form does not fit its password")
	}
	for _, also := range []VerifierForms{{}, {Digest: true}, {Native: true}, {Digest: true, Native: true}} {
		v := verifier(t, secret, also)
		back, err := ParseVerifier(v.Strings()...)
		if err != nil || strings.Join(back.Strings(), " ") != strings.Join(v.Strings(), " ") {
			t.Errorf("%+v: %v, %v", also, back.Strings(), err)
		}
		if strings.Contains(v.String(), "$") {
			t.Error("String shows the secrets")
		}
	}
	binarySalt := "$A$005$" + strings.Repeat("\x01", nonceSize) + strings.Repeat("a", shaCryptLen)
	v, err := ParseVerifier(binarySalt)
	if err != nil {
		t.Fatal(err)
	}
	if s := v.Strings()[0]; !strings.HasPrefix(s, "0x244124303035240101") {
		t.Errorf("got %q", s)
	} else if again, err := ParseVerifier(s); err != nil || again.salted != binarySalt {
		t.Errorf("got %q, %v", again.salted, err)
	}
	good := verifier(t, secret, VerifierForms{Digest: true, Native: true}).Strings()
	for _, bad := range [][]string{
		nil, {""}, {"secret"}, {"*123"}, {good[0] + "x"}, {good[0][:60]}, {good[1] + "0"}, {good[2] + "0"}, {"$D$xyz"}, {"$B$"}, {"0x2"}, {"0x"},
		{"$A$000$" + good[0][7:]}, {"$A$0x5$" + good[0][7:]}, {good[0], good[0]}, {good[1], good[1]}, {good[2], good[2]},
	} {
		if _, err := ParseVerifier(bad...); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for _, bad := range []string{"", "a\x00b", strings.Repeat("x", maxPassword+1)} {
		if _, err := NewVerifier([]byte(bad), VerifierForms{}); err == nil {
			t.Errorf("password %q was taken", bad)
		}
	}
	var zero Verifier
	if zero.checkPassword(nil) || zero.checkPassword([]byte("x")) {
		t.Error("the zero Verifier admits somebody")
	}
}
