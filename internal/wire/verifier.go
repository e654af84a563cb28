package wire

import (
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// maxPassword is the longest password in bytes (MAX_PLAINTEXT_LENGTH).
const maxPassword = 256

// Verifier is what is stored of a password: enough to check it, not enough to
// log in with. Its text forms are those of MySQL's mysql.user, so that accounts
// can be taken over from a real server without knowing their passwords:
//
//	$A$005$<20 bytes salt><43 characters>   caching_sha2_password
//	0x244124…                               the same in hex, as SHOW CREATE USER prints it on request
//	*<40 hex digits>                        mysql_native_password: SHA1(SHA1(pw))
//	$D$<64 hex digits>                      kingbus's own: SHA256(SHA256(pw))
//
// The first is salted and slow to guess, and the one to prefer. But it can only
// check a password, so the first login of an account at each node since its
// start must bring the password itself, over TLS or RSA-encrypted; after that a
// digest is remembered in memory (MySQL behaves alike). The $D$ form is that
// digest, stored: it lets a client that can do neither TLS nor RSA log in at any
// node at any time, and it falls to guessing as fast as SHA-256 can be computed.
//
// The zero Verifier admits nobody. There are no accounts without a password.
type Verifier struct {
	salted string // the $A$ form
	digest *[sha256.Size]byte
	native *[sha1.Size]byte
}

// VerifierForms chooses what NewVerifier stores beside the salted form.
type VerifierForms struct {
	Digest bool // $D$
	Native bool // *…: for clients before 5.7.23 and others that know only mysql_native_password
}

// cryptRounds is MySQL's caching_sha2_password_digest_rounds at its default.
const cryptRounds = 5000

// NewVerifier makes a verifier for a password of 1 to 256 bytes without NUL.
func NewVerifier(password []byte, also VerifierForms) (Verifier, error) {
	if len(password) == 0 || len(password) > maxPassword || strings.IndexByte(string(password), 0) >= 0 {
		return Verifier{}, fmt.Errorf("wire: a password has 1 to %d bytes, and no NUL among them", maxPassword)
	}
	var salt [nonceSize]byte
	_, _ = rand.Read(salt[:])
	for i := range salt {
		salt[i] = cryptAlphabet[salt[i]&0x3f]
	}
	v := Verifier{salted: saltedText(salt[:], cryptRounds, shaCrypt(password, salt[:], cryptRounds))}
	if also.Digest {
		d := passwordDigest(password)
		v.digest = &d
	}
	if also.Native {
		h := sha1.Sum(password)
		h = sha1.Sum(h[:])
		v.native = &h
	}
	return v, nil
}

func passwordDigest(password []byte) [sha256.Size]byte {
	h := sha256.Sum256(password)
	return sha256.Sum256(h[:])
}

// ParseVerifier makes a verifier of one or more text forms, each at most once.
func ParseVerifier(forms ...string) (Verifier, error) {
	var v Verifier
	for _, f := range forms {
		if err := v.parse(f); err != nil {
			return Verifier{}, err
		}
	}
	if len(forms) == 0 {
		return Verifier{}, errors.New("wire: password verifier: none given")
	}
	return v, nil
}

func (v *Verifier) parse(f string) error {
	if text, ok := strings.CutPrefix(f, "0x"); ok {
		raw, err := hex.DecodeString(text)
		if err != nil {
			return fmt.Errorf("wire: password verifier: %w", err)
		}
		f = string(raw)
	}
	twice := false
	switch {
	case strings.HasPrefix(f, "$A$"):
		twice = v.salted != ""
		if _, _, _, ok := splitSalted(f); !ok {
			return errors.New("wire: password verifier: not a caching_sha2_password authentication string " +
				"($A$, three digits, $, 20 bytes of salt, 43 characters)")
		}
		v.salted = f
	case strings.HasPrefix(f, "$D$"):
		twice = v.digest != nil
		v.digest = new([sha256.Size]byte)
		if n, err := hex.Decode(v.digest[:], clip(f[3:], 2*sha256.Size)); err != nil || n != sha256.Size || len(f) != 3+2*sha256.Size {
			return errors.New("wire: password verifier: $D$ must be followed by 64 hex digits")
		}
	case strings.HasPrefix(f, "*"):
		twice = v.native != nil
		v.native = new([sha1.Size]byte)
		if n, err := hex.Decode(v.native[:], clip(f[1:], 2*sha1.Size)); err != nil || n != sha1.Size || len(f) != 1+2*sha1.Size {
			return errors.New("wire: password verifier: * must be followed by 40 hex digits")
		}
	default:
		return errors.New("wire: password verifier: unknown form; it begins with $A$, 0x24, $D$ or *")
	}
	if twice {
		return errors.New("wire: password verifier: two of the same form")
	}
	return nil
}

func clip(s string, n int) []byte { return []byte(s[:min(len(s), n)]) }

// Strings gives the text forms, for ParseVerifier. A salted form whose salt has
// bytes that are not printable comes in hex.
func (v Verifier) Strings() []string {
	var out []string
	if v.salted != "" {
		s := v.salted
		if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
			s = "0x" + strings.ToUpper(hex.EncodeToString([]byte(s)))
		}
		out = append(out, s)
	}
	if v.digest != nil {
		out = append(out, "$D$"+hex.EncodeToString(v.digest[:]))
	}
	if v.native != nil {
		out = append(out, "*"+strings.ToUpper(hex.EncodeToString(v.native[:])))
	}
	return out
}

// String hides the secrets from logs.
func (v Verifier) String() string { return "verifier(hidden)" }

// hasSHA2 and hasNative say which plugins the account can use.
func (v *Verifier) hasSHA2() bool   { return v.salted != "" || v.digest != nil }
func (v *Verifier) hasNative() bool { return v.native != nil }

// checkPassword tests a password in clear. It takes the time of the salted form
// whether there is one or not.
func (v *Verifier) checkPassword(password []byte) bool {
	salt, rounds, want, ok := splitSalted(v.salted)
	if !ok {
		salt, rounds, want = strings.Repeat(".", nonceSize), cryptRounds, strings.Repeat(".", shaCryptLen)
	}
	got := shaCrypt(password, []byte(salt), rounds)
	good := subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1 && ok
	if !ok && v.digest != nil {
		d := passwordDigest(password)
		good = subtle.ConstantTimeCompare(d[:], v.digest[:]) == 1
	}
	return good
}

func saltedText(salt []byte, rounds int, hash string) string {
	return fmt.Sprintf("$A$%03X$%s%s", rounds/1000, salt, hash)
}

// splitSalted takes the $A$ form apart: rounds are three hex digits, in
// thousands (sha2_password.cc, deserialize).
func splitSalted(s string) (salt string, rounds int, hash string, ok bool) {
	const prefix = len("$A$005$")
	if len(s) != prefix+nonceSize+shaCryptLen || s[:3] != "$A$" || s[prefix-1] != '$' {
		return "", 0, "", false
	}
	n, err := strconv.ParseUint(s[3:6], 16, 12)
	if err != nil || n < 1 {
		return "", 0, "", false
	}
	return s[prefix : prefix+nonceSize], int(n) * 1000, s[prefix+nonceSize:], true
}

// digestCache remembers digests of passwords that a full authentication has
// proved, so that the next login of the account is fast and needs no encryption.
// It is keyed by the stored form: a changed password is another key.
type digestCache struct {
	mu struct {
		sync.Mutex
		m map[cacheKey][sha256.Size]byte
	}
}

type cacheKey struct{ user, salted string }

const maxCached = 4096 // accounts

func (c *digestCache) get(user string, v *Verifier) *[sha256.Size]byte {
	if v.digest != nil {
		return v.digest
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d, ok := c.mu.m[cacheKey{user, v.salted}]; ok {
		return &d
	}
	return nil
}

func (c *digestCache) put(user string, v *Verifier, password []byte) {
	if v.salted == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.m == nil {
		c.mu.m = make(map[cacheKey][sha256.Size]byte)
	}
	if len(c.mu.m) >= maxCached {
		for k := range c.mu.m { // any one: the account only pays one full authentication
			delete(c.mu.m, k)
			break
		}
	}
	c.mu.m[cacheKey{user, v.salted}] = passwordDigest(password)
}
