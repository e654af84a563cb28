package sql

import (
	"unicode"
	"unicode/utf8"
)

// like matches text against a pattern of LIKE without regard to case: % is any run of characters, _ is one character,
// and a backslash takes the meaning from the character after it. It takes up to length of the text times length of the
// pattern.
func like(text, pattern string) bool {
	p := compileLike(pattern)
	// Greedy: after a mismatch, the last % takes one character more. Earlier ones need never be revisited.
	ti, pi, star, resume := 0, 0, -1, 0
	for ti < len(text) {
		c, size := decode(text[ti:])
		switch {
		case pi < len(p) && p[pi] == anyRun:
			star, resume = pi, ti
			pi++
		case pi < len(p) && (p[pi] == anyOne || p[pi] == c):
			ti += size
			pi++
		case star >= 0:
			_, size := decode(text[resume:])
			resume += size
			ti, pi = resume, star+1
		default:
			return false
		}
	}
	for pi < len(p) && p[pi] == anyRun {
		pi++
	}
	return pi == len(p)
}

const (
	anyOne rune = -1
	anyRun rune = -2
)

// decode takes a character off the front of s, in lower case; bytes that are not UTF-8 equal themselves only.
func decode(s string) (rune, int) {
	c, size := utf8.DecodeRuneInString(s)
	if size == 1 && c == utf8.RuneError {
		return rune(s[0]) | 1<<24, 1
	}
	return unicode.ToLower(c), size
}

func compileLike(pattern string) []rune {
	var out []rune
	escaped := false
	for i := 0; i < len(pattern); {
		c, size := decode(pattern[i:])
		i += size
		switch {
		case escaped:
			escaped = false
		case c == '\\' && i < len(pattern):
			escaped = true
			continue
		case c == '%':
			c = anyRun
		case c == '_':
			c = anyOne
		}
		out = append(out, c)
	}
	return out
}
