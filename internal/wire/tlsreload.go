package wire

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
)

// ReloadServerTLS is LoadServerTLS for files that are replaced while the server runs: each
// handshake uses them as they are. What cannot be used (a certificate is there already, and
// its key not yet) is told, and passed over until it changes.
func ReloadServerTLS(f TLSFiles, told func(leaf *x509.Certificate, err error)) (*tls.Config, error) {
	cfg, err := LoadServerTLS(f)
	if err != nil {
		return nil, err
	}
	r := &tlsReloader{files: f, now: cfg, told: told}
	r.seen = r.stamp()
	outer := cfg.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.config(), nil }
	return outer, nil
}

type tlsReloader struct {
	files TLSFiles
	told  func(*x509.Certificate, error)

	mu   sync.Mutex
	now  *tls.Config
	seen string // stamp of the files that were loaded, or could not be
}

// stamp changes with the files.
func (r *tlsReloader) stamp() string {
	out := ""
	for _, name := range []string{r.files.Cert, r.files.Key, r.files.CA} {
		if st, err := os.Stat(name); name != "" && err == nil {
			out += fmt.Sprintln(st.Size(), st.ModTime().UnixNano())
		} else {
			out += "-\n"
		}
	}
	return out
}

func (r *tlsReloader) config() *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	stamp := r.stamp()
	if stamp == r.seen {
		return r.now
	}
	cfg, err := LoadServerTLS(r.files)
	if r.seen = stamp; err != nil {
		r.told(nil, err)
		return r.now
	}
	r.now = cfg
	r.told(cfg.Certificates[0].Leaf, nil)
	return cfg
}
