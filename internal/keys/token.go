package keys

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// TokenFile is the file with the token for the HTTP API, in the folder of Ensure.
const TokenFile = "admin-token"

// minToken is how many characters a token has at least.
const minToken = 16

// EnsureToken returns the token in dir, which exists, and makes one if there is none.
func EnsureToken(dir string) (string, error) {
	path := filepath.Join(dir, TokenFile)
	token, err := ReadToken(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	token = hex.EncodeToString(b[:])
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) { // a process died here
		return "", fmt.Errorf("make a token for the HTTP API: %w", err)
	}
	if err := writeSynced(tmp, file{[]byte(token + "\n"), 0o600}); err != nil {
		return "", fmt.Errorf("make a token for the HTTP API: %w", err)
	}
	if err := errors.Join(os.Rename(tmp, path), syncDir(dir)); err != nil {
		return "", fmt.Errorf("make a token for the HTTP API: %w", err)
	}
	return token, nil
}

// Token is what a file with a token holds. It is safe for concurrent use.
type Token struct {
	path string
	told func(error)

	mu   sync.Mutex
	now  string
	seen fs.FileInfo // of the file that was read, or could not be; nil: it was not there
}

// OpenToken reads a file with a token, which may be replaced later. told hears of it then: nil,
// or why what is there cannot be used; the old one counts until that is mended.
func OpenToken(path string, told func(error)) (*Token, error) {
	t := &Token{path: path, told: told}
	t.seen, _ = os.Stat(path) // before it is read: what comes between is read again
	var err error
	t.now, err = ReadToken(path)
	return t, err
}

// Value returns the token as it is now.
func (t *Token) Value() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	st, err := os.Stat(t.path)
	if err != nil {
		st = nil
	}
	same := (st == nil) == (t.seen == nil)
	if st != nil && t.seen != nil {
		same = os.SameFile(st, t.seen) && st.Size() == t.seen.Size() && st.ModTime().Equal(t.seen.ModTime())
	}
	if same {
		return t.now
	}
	t.seen = st
	token, err := ReadToken(t.path)
	if err == nil {
		t.now = token
	}
	t.told(err)
	return t.now
}

// ReadToken reads a file with a token: one line. A missing file is fs.ErrNotExist.
func ReadToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("token for the HTTP API: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if len(token) < minToken || len(token) > 1024 || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("token for the HTTP API: %s does not hold one line of at least %d characters (letters, digits, signs)", path, minToken)
	}
	return token, nil
}
