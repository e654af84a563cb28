package keys

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
)

// ReloadTLS makes a configuration of files that are replaced while the process runs: each
// handshake uses them as they are. load makes it, with a certificate. What it cannot use (a
// certificate is there already, and its key not yet) is told, and passed over until the files
// change. A server takes the result as it is, a client its PresentTLS at each connection.
func ReloadTLS(files []string, load func() (*tls.Config, error), told func(leaf *x509.Certificate, err error)) (*tls.Config, error) {
	r := &tlsReloader{files: files, load: load, told: told}
	r.seen = r.stamp() // before they are read: what comes between is read again
	var err error
	if r.now, err = load(); err != nil {
		return nil, err
	}
	outer := r.now.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.config(), nil }
	return outer, nil
}

// PresentTLS returns a configuration as it is at present, if it is one of ReloadTLS; others are
// returned as they are, nil too.
func PresentTLS(cfg *tls.Config) *tls.Config {
	if cfg != nil && cfg.GetConfigForClient != nil {
		if now, err := cfg.GetConfigForClient(&tls.ClientHelloInfo{}); err == nil && now != nil {
			return now
		}
	}
	return cfg
}

type tlsReloader struct {
	files []string
	load  func() (*tls.Config, error)
	told  func(*x509.Certificate, error)

	mu   sync.Mutex
	now  *tls.Config
	seen string // stamp of the files that were loaded, or could not be
}

// stamp changes with the files.
func (r *tlsReloader) stamp() string {
	out := ""
	for _, name := range r.files {
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
	cfg, err := r.load()
	if r.seen = stamp; err != nil {
		r.told(nil, err)
		return r.now
	}
	r.now = cfg
	r.told(cfg.Certificates[0].Leaf, nil)
	return cfg
}
