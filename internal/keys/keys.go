// Package keys makes and keeps the key material that a server needs before
// anybody has configured any: a certificate authority of its own, a TLS
// certificate, and the RSA key that clients without TLS encrypt passwords with.
// MySQL does the same at its first start, under the same file names.
package keys

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Names of the files in a key folder. All are PEM; those with a private key
// have mode 0600.
const (
	CAFile         = "ca.pem"
	CAKeyFile      = "ca-key.pem"
	CertFile       = "server-cert.pem"
	KeyFile        = "server-key.pem"
	PrivateKeyFile = "private_key.pem" // RSA, for passwords
	PublicKeyFile  = "public_key.pem"  // its public half, for clients
)

// validity of the certificates. Clients that check them are meant to get real
// ones in time; for all others they must simply not run out.
const validity = 10 * 365 * 24 * time.Hour

// Material is what a key folder holds.
type Material struct {
	CAPEM    []byte          // certificate of the authority, for clients that verify
	CAKey    crypto.Signer   // to issue further certificates with
	Server   tls.Certificate // with Leaf, whose NotAfter is worth a warning in time
	Password *rsa.PrivateKey // decrypts passwords
}

// Ensure loads the material in dir, or makes it if dir does not exist. hosts are
// the names and addresses to issue the server's certificate for, beside
// localhost and this machine's name.
//
// The folder appears complete or not at all: it is written under another name,
// synced and renamed. A folder that lacks a file is an error, since to replace
// keys that clients may have pinned is the operator's choice.
func Ensure(dir string, hosts []string, now time.Time) (*Material, error) {
	m, err := Load(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	if _, statErr := os.Stat(dir); !errors.Is(statErr, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (restore the file, or remove the folder to have all keys made anew)", err)
	}
	names := append([]string{"localhost", "127.0.0.1", "::1"}, hosts...)
	if h, err := os.Hostname(); err == nil {
		names = append(names, h)
	}
	if m, err = New(names, now); err != nil {
		return nil, err
	}
	if err := m.save(dir); err != nil {
		return nil, fmt.Errorf("save keys: %w", err)
	}
	return m, nil
}

// New makes everything anew, in memory. All keys are RSA: the TLS library of 5.5
// and 5.6 knows nothing else, neither in a certificate nor in its signature.
func New(hosts []string, now time.Time) (*Material, error) {
	m := &Material{}
	caKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	serverKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make TLS key: %w", err)
	}
	if m.Password, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, fmt.Errorf("make RSA key: %w", err)
	}
	m.CAKey = caKey
	ca := template("kingbus CA", now)
	ca.IsCA, ca.BasicConstraintsValid = true, true
	ca.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	m.CAPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	leaf := template("kingbus server", now)
	leaf.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	addHosts(leaf, hosts)
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, serverKey.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("make server certificate: %w", err)
	}
	m.Server = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: serverKey}
	if m.Server.Leaf, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make server certificate: %w", err)
	}
	return m, nil
}

func template(name string, now time.Time) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // crypto/rand does not fail
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-24 * time.Hour), // clocks differ
		NotAfter:     now.Add(validity),
	}
}

func addHosts(c *x509.Certificate, hosts []string) {
	seen := make(map[string]bool)
	for _, h := range hosts {
		if h == "" || seen[h] {
			continue
		}
		seen[h] = true
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
}

// save writes the folder beside its place and renames it.
func (m *Material) save(dir string) (err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(tmp)
		}
	}()
	files, err := m.files()
	if err != nil {
		return err
	}
	for name, f := range files {
		if err := writeSynced(filepath.Join(tmp, name), f); err != nil {
			return err
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil { // the public files may be read by all
		return err
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

type file struct {
	text []byte
	mode fs.FileMode
}

func (m *Material) files() (map[string]file, error) {
	private := func(key crypto.PrivateKey) (file, error) {
		if k, ok := key.(*rsa.PrivateKey); ok { // the form that old programs can read too
			return file{pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}), 0o600}, nil
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return file{pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600}, err
	}
	caKey, err1 := private(m.CAKey)
	serverKey, err2 := private(m.Server.PrivateKey)
	password, err3 := private(m.Password)
	public, err4 := x509.MarshalPKIXPublicKey(m.Password.Public())
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	return map[string]file{
		CAFile:         {m.CAPEM, 0o644},
		CAKeyFile:      caKey,
		CertFile:       {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.Server.Certificate[0]}), 0o644},
		KeyFile:        serverKey,
		PrivateKeyFile: password,
		PublicKeyFile:  {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o644},
	}, nil
}

func writeSynced(path string, content file) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, content.mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content.text)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Load reads the material in dir. A missing file, or dir itself, is
// fs.ErrNotExist. The private files must not be open to others.
func Load(dir string) (*Material, error) {
	m := &Material{}
	var err error
	if m.CAPEM, err = os.ReadFile(filepath.Join(dir, CAFile)); err != nil {
		return nil, fmt.Errorf("load keys: %w", err)
	}
	key, err := loadPrivate(filepath.Join(dir, CAKeyFile))
	if err != nil {
		return nil, err
	}
	m.CAKey = key
	if m.Server, err = loadServer(dir); err != nil {
		return nil, err
	}
	if key, err = loadPrivate(filepath.Join(dir, PrivateKeyFile)); err != nil {
		return nil, err
	}
	rsaKey, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("load keys: %s must hold an RSA key, it is a %T", PrivateKeyFile, key)
	}
	m.Password = rsaKey
	return m, nil
}

func loadServer(dir string) (tls.Certificate, error) {
	keyPath := filepath.Join(dir, KeyFile)
	if _, err := loadPrivate(keyPath); err != nil { // for its checks
		return tls.Certificate{}, err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, CertFile), keyPath)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load keys: %w", err)
	}
	return pair, nil
}

func loadPrivate(path string) (crypto.Signer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("load keys: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("load keys: others may read %s: run chmod 600 on it", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load keys: %w", err)
	}
	block, _ := pem.Decode(bytes.TrimSpace(text))
	if block == nil {
		return nil, fmt.Errorf("load keys: %s holds no PEM block", path)
	}
	if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load keys: %s: %w", path, err)
	}
	signer, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("load keys: %s: a %T cannot sign", path, k)
	}
	return signer, nil
}
