package wire

import "crypto/sha256"

// cryptAlphabet is the base-64 alphabet of crypt(3).
const cryptAlphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

const shaCryptLen = 43 // characters that encode a SHA-256 digest

// shaCrypt is the SHA-256 variant of Ulrich Drepper's "Unix crypt using SHA-256
// and SHA-512", the digest alone, as my_crypt_genhash (sha2_password.cc,
// crypt_genhash_impl.cc) uses it for caching_sha2_password: the salt is up to
// 20 bytes long there, where crypt(3) takes 16.
func shaCrypt(password, salt []byte, rounds int) string {
	// Digest B: password, salt, password.
	h := sha256.New()
	h.Write(password)
	h.Write(salt)
	h.Write(password)
	var digest [sha256.Size]byte
	h.Sum(digest[:0])

	// Digest A: password, salt, B cut to the password's length, and then for
	// each bit of that length B or the password.
	h.Reset()
	h.Write(password)
	h.Write(salt)
	writeRepeated(h.Write, digest[:], len(password))
	for n := len(password); n > 0; n >>= 1 {
		if n&1 != 0 {
			h.Write(digest[:])
		} else {
			h.Write(password)
		}
	}
	var a [sha256.Size]byte
	h.Sum(a[:0])

	// Sequences P and S, of the lengths of password and salt.
	h.Reset()
	for range len(password) {
		h.Write(password)
	}
	h.Sum(digest[:0])
	p := repeated(digest[:], len(password))
	h.Reset()
	for range 16 + int(a[0]) {
		h.Write(salt)
	}
	h.Sum(digest[:0])
	s := repeated(digest[:], len(salt))

	for i := range rounds {
		h.Reset()
		if i&1 != 0 {
			h.Write(p)
		} else {
			h.Write(a[:])
		}
		if i%3 != 0 {
			h.Write(s)
		}
		if i%7 != 0 {
			h.Write(p)
		}
		if i&1 != 0 {
			h.Write(a[:])
		} else {
			h.Write(p)
		}
		h.Sum(a[:0])
	}
	return cryptEncode(&a)
}

func writeRepeated(write func([]byte) (int, error), b []byte, n int) {
	for ; n > len(b); n -= len(b) {
		_, _ = write(b)
	}
	_, _ = write(b[:n])
}

func repeated(b []byte, n int) []byte {
	out := make([]byte, 0, n)
	writeRepeated(func(p []byte) (int, error) { out = append(out, p...); return len(p), nil }, b, n)
	return out
}

// cryptEncode writes the digest in crypt's order of bytes: three at a time from
// ten interleaved columns, then the last two.
func cryptEncode(d *[sha256.Size]byte) string {
	out := make([]byte, 0, shaCryptLen)
	emit := func(v uint32, n int) {
		for range n {
			out = append(out, cryptAlphabet[v&0x3f])
			v >>= 6
		}
	}
	for i := range 10 {
		a := i * 21
		emit(uint32(d[a%30])<<16|uint32(d[(a+10)%30])<<8|uint32(d[(a+20)%30]), 4)
	}
	emit(uint32(d[31])<<8|uint32(d[30]), 3)
	return string(out)
}
