package wire

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// nonceSize is the length of the random string that a server has passwords
// mixed with (SCRAMBLE_LENGTH).
const nonceSize = 20

// newNonce makes a nonce as generate_user_salt does: seven-bit bytes, neither
// NUL nor '$', since clients treat it as a C string.
func newNonce() [nonceSize]byte {
	var n [nonceSize]byte
	_, _ = rand.Read(n[:]) // never fails: crypto/rand
	for i := range n {
		n[i] &= 0x7f
		if n[i] == 0 || n[i] == '$' {
			n[i]++
		}
	}
	return n
}

// scrambleNative is the client's answer under mysql_native_password
// (sql/auth/password.cc): SHA1(pw) XOR SHA1(nonce, SHA1(SHA1(pw))).
func scrambleNative(password, nonce []byte) []byte {
	if len(password) == 0 {
		return nil
	}
	h1 := sha1.Sum(password)
	h2 := sha1.Sum(h1[:])
	mask := sha1.Sum(append(append([]byte(nil), nonce...), h2[:]...))
	subtle.XORBytes(h1[:], h1[:], mask[:])
	return h1[:]
}

// checkNative tests such an answer against the stored SHA1(SHA1(pw)).
func checkNative(answer, nonce []byte, stored *[sha1.Size]byte) bool {
	if len(answer) != sha1.Size {
		return false
	}
	h1 := sha1.Sum(append(append([]byte(nil), nonce...), stored[:]...))
	subtle.XORBytes(h1[:], h1[:], answer)
	h2 := sha1.Sum(h1[:])
	return subtle.ConstantTimeCompare(h2[:], stored[:]) == 1
}

// scrambleSHA2 is the client's first answer under caching_sha2_password
// (sql/auth/sha2_password_common.cc): SHA256(pw) XOR SHA256(SHA256(SHA256(pw)), nonce).
func scrambleSHA2(password, nonce []byte) []byte {
	if len(password) == 0 {
		return []byte{0}
	}
	h1 := sha256.Sum256(password)
	h2 := sha256.Sum256(h1[:])
	mask := sha256.Sum256(append(h2[:], nonce...))
	subtle.XORBytes(h1[:], h1[:], mask[:])
	return h1[:]
}

// checkSHA2 tests such an answer against SHA256(SHA256(pw)).
func checkSHA2(answer, nonce []byte, digest *[sha256.Size]byte) bool {
	if len(answer) != sha256.Size {
		return false
	}
	h1 := sha256.Sum256(append(append([]byte(nil), digest[:]...), nonce...))
	subtle.XORBytes(h1[:], h1[:], answer)
	h2 := sha256.Sum256(h1[:])
	return subtle.ConstantTimeCompare(h2[:], digest[:]) == 1
}

// xorNonce mixes a NUL-terminated password with the nonce, repeated.
func xorNonce(b, nonce []byte) {
	if len(nonce) == 0 {
		return
	}
	for i := range b {
		b[i] ^= nonce[i%len(nonce)]
	}
}

// encryptPassword is what a client sends where it has the server's RSA key
// instead of TLS: RSA-OAEP (SHA-1) of the password, with its NUL, mixed with the
// nonce.
func encryptPassword(key *rsa.PublicKey, password, nonce []byte) ([]byte, error) {
	plain := append(append(make([]byte, 0, len(password)+1), password...), 0)
	xorNonce(plain, nonce)
	out, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, key, plain, nil)
	clear(plain)
	if err != nil {
		return nil, fmt.Errorf("wire: encrypt password: %w", err)
	}
	return out, nil
}

// decryptPassword undoes encryptPassword. What comes out still has its NUL.
func decryptPassword(key *rsa.PrivateKey, cipher, nonce []byte) ([]byte, bool) {
	plain, err := rsa.DecryptOAEP(sha1.New(), nil, key, cipher, nil)
	if err != nil {
		return nil, false
	}
	xorNonce(plain, nonce)
	return plain, true
}

// ParsePublicKey reads an RSA public key in PEM form (PKIX, or PKCS #1), as
// servers send it and as a server's public_key.pem contains it.
func ParsePublicKey(text []byte) (*rsa.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("wire: RSA public key: no PEM block found")
	}
	if block.Type == "RSA PUBLIC KEY" {
		key, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("wire: RSA public key: %w", err)
		}
		return key, nil
	}
	any, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("wire: RSA public key: %w", err)
	}
	key, ok := any.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("wire: RSA public key: it is a %T", any)
	}
	return key, nil
}

// publicKeyPEM is the form in which a server sends its key.
func publicKeyPEM(key *rsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("wire: RSA public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}
