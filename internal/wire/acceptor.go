package wire

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// Account is what the server role needs to know of an account.
type Account struct {
	Verifier   Verifier
	RequireTLS bool // refuse this account without TLS
	// Host is what the account's name has for a host, and ID tells it from others that had
	// the same name: for Session.AccountHost and AccountID.
	Host string
	ID   uint64
}

// Accounts finds accounts. It must be safe for concurrent use and should take
// the same time for known and unknown names.
type Accounts interface {
	// Account finds the account for a user name and the address (without port)
	// from which the user comes; false if there is none.
	Account(user, host string) (Account, bool)
}

// AcceptorConfig says how sessions are opened.
type AcceptorConfig struct {
	// Version is the server version of greetings. It begins with a digit, and
	// clients draw conclusions from it (see protocol notes A2 and B2).
	Version string
	// VersionNow, if set, is asked for each greeting in place of Version, for
	// servers whose version changes while they run. It must keep Version's rule.
	VersionNow func() string
	Accounts   Accounts
	// TLS is offered to clients if set: see LoadServerTLS, and package keys.
	TLS *tls.Config
	// RSAKey decrypts passwords of clients without TLS. Without it such clients
	// can log in only where the digest of their password is known (Verifier).
	RSAKey *rsa.PrivateKey
	// RequireTLS refuses every client without TLS (error 3159).
	RequireTLS bool
	// AllowNative lets accounts that have a verifier for it log in with
	// mysql_native_password.
	AllowNative bool
	// HandshakeTimeout bounds the time from accept to the end of the login; 10 s
	// if zero (MySQL's connect_timeout).
	HandshakeTimeout time.Duration
	// Admit, if set, tells whether the login of a client may be looked at at all.
	Admit func(nc net.Conn) bool
	// Open, if set, makes of a login that is right what it asks for; its error, an *Error, refuses it.
	Open func(nc net.Conn, s *Session) error
	// LoggedIn, if set, is told of each login that is right, before the client is.
	LoggedIn func(nc net.Conn)
	// Failed, if set, is told of each login whose name or password is wrong. Delay, which is set
	// then, too, waits until such a client may hear of it: after as many failures as there were,
	// and so many more.
	Failed      func(nc net.Conn)
	Delay       func(ctx context.Context, nc net.Conn, more int)
	ReadBuffer  int // bytes, see NewConn
	WriteBuffer int // bytes
}

// Acceptor opens sessions. It is safe for concurrent use; it starts no
// goroutines and has nothing to close.
type Acceptor struct {
	cfg       AcceptorConfig
	publicKey []byte // PEM
	caps      uint32
	cache     digestCache
	secret    [sha256.Size]byte // shapes the answers to unknown users
	lastID    atomic.Uint32
}

const defaultHandshakeTimeout = 10 * time.Second

// advertised are the server's capabilities, but for TLS. No query attributes,
// so that COM_QUERY is plain text; no compression, no session tracking, no local
// files, no multiple statements.
const advertised = ClientLongPassword | ClientFoundRows | ClientLongFlag | ClientConnectWithDB | ClientNoSchema |
	ClientODBC | ClientIgnoreSpace | ClientProtocol41 | ClientInteractive | ClientIgnoreSigpipe | ClientTransactions |
	ClientSecureConnection | ClientMultiResults | ClientPSMultiResults | ClientPluginAuth | ClientConnectAttrs |
	ClientPluginAuthLenenc | ClientDeprecateEOF

// NewAcceptor checks the configuration.
func NewAcceptor(cfg AcceptorConfig) (*Acceptor, error) {
	if cfg.Version == "" || cfg.Version[0] < '0' || cfg.Version[0] > '9' {
		return nil, fmt.Errorf("wire: server version %q must begin with a digit: clients refuse it otherwise", cfg.Version)
	}
	if cfg.Accounts == nil {
		return nil, errors.New("wire: no accounts given")
	}
	if cfg.RequireTLS && cfg.TLS == nil {
		return nil, errors.New("wire: TLS is required but not configured")
	}
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = defaultHandshakeTimeout
	}
	a := &Acceptor{cfg: cfg, caps: advertised}
	if cfg.TLS != nil {
		a.caps |= ClientSSL
	}
	if cfg.RSAKey != nil {
		var err error
		if a.publicKey, err = publicKeyPEM(&cfg.RSAKey.PublicKey); err != nil {
			return nil, err
		}
	}
	_, _ = rand.Read(a.secret[:])
	return a, nil
}

// Session is a client that has logged in.
type Session struct {
	*Conn
	ID         uint32 // connection id, unique in this process until it wraps
	User, Host string // Host is the address without port
	// AccountHost is Account.Host of the account with which the client has logged in.
	AccountHost string
	AccountID   uint64 // Account.ID
	Database    string
	Plugin      string // authentication plugin that was used
	Attributes  []Attribute
	Collation   uint16 // as the client sent it; any value
	MaxPacket   uint32
	Version     string // the server version that the client was told

	caps  uint32          // those both sides have
	nonce [nonceSize]byte // of the greeting

	counted, delayed bool // its failure was, in the login
}

// failed counts the login as one that failed, once.
func (a *Acceptor) failed(s *Session) {
	if a.cfg.Failed != nil && !s.counted {
		s.counted = true
		a.cfg.Failed(s.raw)
	}
}

// delay holds the client up, once.
func (a *Acceptor) delay(ctx context.Context, s *Session, more int) {
	if a.cfg.Failed != nil && !s.delayed {
		s.delayed = true
		a.cfg.Delay(ctx, s.raw, more)
	}
}

// Attribute is the value of a connect attribute, "" if the client sent none.
func (s *Session) Attribute(name string) string {
	for _, a := range s.Attributes {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}

// Reject answers a connection with an error in place of the greeting (too many
// connections, shutting down) and closes it. It never waits for long.
func Reject(nc net.Conn, e *Error) {
	c := NewConn(nc, minBuf, 2*minBuf)
	defer c.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Second))
	if c.WritePacket(e.appendTo(nil, false)) == nil {
		_ = c.Flush()
	}
}

// Accept takes a fresh connection through greeting, TLS and login, within the
// handshake timeout or until ctx is done. On failure it has told the client,
// where there is something to tell, and closed nc.
//
// The buffers of a connection that has not logged in are small, and grow only
// with what it sends, 80 KiB at most.
func (a *Acceptor) Accept(ctx context.Context, nc net.Conn) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.HandshakeTimeout)
	defer cancel()
	c := NewConn(nc, minBuf, 2*minBuf)
	stop := c.CloseOn(ctx)
	id := a.nextID()
	s, err := a.login(ctx, c, id)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("login from %s: %w", nc.RemoteAddr(), err)
	}
	c.r.exact = false
	c.r.size = max(orDefault(a.cfg.ReadBuffer, defaultReadBuf), minBuf)
	c.r.buf, c.r.pos, c.r.end, c.r.big = nil, 0, 0, nil // exact: nothing is buffered
	if err := c.SetWriteBuffer(orDefault(a.cfg.WriteBuffer, defaultWriteBuf)); err != nil {
		_ = c.Close()
		return nil, err
	}
	return s, nil
}

func (a *Acceptor) nextID() uint32 {
	for {
		if id := a.lastID.Add(1); id != 0 {
			return id
		}
	}
}

func (a *Acceptor) login(ctx context.Context, c *Conn, id uint32) (*Session, error) {
	c.r.exact = true
	s := &Session{Conn: c, ID: id, Host: hostOf(c.raw), Version: a.cfg.Version}
	if a.cfg.VersionNow != nil {
		s.Version = a.cfg.VersionNow()
	}
	return s, a.conclude(ctx, s, a.handshake(ctx, s))
}

// conclude tells the client why its login has failed, where there is something to tell, and
// returns that; nil: it has not.
func (a *Acceptor) conclude(ctx context.Context, s *Session, err error) error {
	var refusal *Error
	if IsCode(err, ErAccessDenied) {
		a.failed(s)
		a.delay(ctx, s, 0)
	}
	if errors.As(err, &refusal) {
		if s.WriteError(refusal) == nil {
			_ = s.Flush()
		}
	} else if errors.Is(err, ErrMalformed) {
		if s.WriteError(Errorf(ErHandshake, "Bad handshake")) == nil {
			_ = s.Flush()
		}
	}
	return err
}

func hostOf(nc net.Conn) string {
	addr := nc.RemoteAddr()
	if addr == nil || addr.Network() == "unix" || addr.Network() == "pipe" {
		return "localhost"
	}
	if h, _, err := net.SplitHostPort(addr.String()); err == nil {
		return h
	}
	return addr.String()
}

func (a *Acceptor) handshake(ctx context.Context, s *Session) error {
	s.nonce = newNonce()
	g := Greeting{
		Version: s.Version, ConnectionID: s.ID, Nonce: s.nonce[:], Capabilities: a.caps,
		Collation: byte(CollationUTF8MB49), Status: StatusAutocommit, Plugin: PluginCachingSHA2,
	}
	if a.cfg.AllowNative && g.IsMariaDB() {
		// What MariaDB says; its tools give up at a plugin that they do not have.
		g.Plugin = PluginNative
	}
	if err := s.WritePacket(g.appendTo(nil)); err != nil {
		return err
	}
	if err := s.Flush(); err != nil {
		return err
	}
	l, err := a.readLogin(ctx, s)
	if err != nil {
		return err
	}
	s.caps = l.caps & a.caps
	return a.admit(ctx, s, l, g.Plugin)
}

// admit checks a login, which says what the session is, and tells the client that it is right. See
// authenticate for greeted.
func (a *Acceptor) admit(ctx context.Context, s *Session, l *login, greeted string) error {
	s.User, s.Database, s.Attributes = l.user, l.database, l.attributes
	s.Collation, s.MaxPacket = l.collation, l.maxPacket
	if a.cfg.RequireTLS && !s.secure() {
		return Errorf(ErSecureTransportRequired,
			"Connections using insecure transport are prohibited while --require_secure_transport=ON.")
	}
	if err := a.authenticate(ctx, s, l, greeted); err != nil {
		return err
	}
	if a.cfg.Open != nil {
		if err := a.cfg.Open(s.raw, s); err != nil {
			return err
		}
	}
	if a.cfg.LoggedIn != nil {
		a.cfg.LoggedIn(s.raw)
	}
	return s.flushOK()
}

func (s *Session) flushOK() error {
	if err := s.WriteOK(OK{Status: StatusAutocommit}); err != nil {
		return err
	}
	return s.Flush()
}

// readLogin reads the login, and starts TLS before it if the client asks for it.
func (a *Acceptor) readLogin(ctx context.Context, s *Session) (*login, error) {
	p, err := s.ReadPacket(maxLogin)
	if err != nil {
		return nil, fmt.Errorf("read login: %w", err)
	}
	l, err := parseLoginHead(p)
	if err != nil {
		return nil, err
	}
	if l.caps&ClientProtocol41 != 0 {
		s.caps = ClientProtocol41 // so that errors carry an SQLSTATE
	}
	if l.caps&ClientSSL != 0 {
		if a.cfg.TLS == nil || len(p) != sslRequestSize {
			return nil, fmt.Errorf("request for TLS: %w", ErrMalformed)
		}
		if err := s.startTLS(ctx, a.cfg.TLS, true); err != nil {
			return nil, err
		}
		if p, err = s.ReadPacket(maxLogin); err != nil {
			return nil, fmt.Errorf("read login: %w", err)
		}
		if l, err = parseLoginHead(p); err != nil {
			return nil, err
		}
	}
	if need := ClientProtocol41 | ClientSecureConnection; l.caps&need != need {
		return nil, unsupportedClient()
	}
	return parseLogin(p)
}

func unsupportedClient() *Error {
	return Errorf(ErNotSupportedAuthMode,
		"Client does not support authentication protocol requested by server; consider upgrading MySQL client")
}

// decoy is the account that an unknown user is checked against: it admits
// nobody, but demands the same steps as some account might. Which steps depends
// on the name alone, so that asking twice tells nothing. The same idea as
// MySQL's decoy_user.
func (a *Acceptor) decoy(user string) Account {
	mac := hmac.New(sha256.New, a.secret[:])
	mac.Write([]byte(user))
	sum := mac.Sum(nil)
	// Most accounts have one form or the other.
	if a.cfg.AllowNative && sum[0]&1 != 0 {
		v := Verifier{native: new([20]byte)}
		copy(v.native[:], sum[1:])
		return Account{Verifier: v}
	}
	return Account{Verifier: Verifier{salted: saltedText([]byte(cryptAlphabet[:nonceSize]), cryptRounds, cryptAlphabet[:shaCryptLen])}}
}
