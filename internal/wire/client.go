package wire

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sort"
	"time"
)

// ClientConfig says how to reach a server and who is calling.
type ClientConfig struct {
	Network string // "tcp" if empty, or "unix"
	Address string // host:port, or the socket's path
	// Dial replaces net.Dialer, for tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	User       string
	Password   []byte
	Database   string            // optional
	Attributes map[string]string // see ReplicaAttributes
	Collation  uint16            // CollationUTF8MB4 if zero; a first login says the low byte only

	TLSMode TLSMode
	// TLS holds CA, certificate and versions: see LoadClientTLS. Who is verified
	// is decided by TLSMode alone; ServerName defaults to the host of Address.
	TLS *tls.Config

	// Without TLS, caching_sha2_password and sha256_password send the password
	// encrypted with the server's RSA key: with ServerPublicKey if it is given,
	// or else with one requested from the server if GetServerPublicKey allows
	// that. Whoever can alter the traffic can answer the request with a key of
	// his own and read the password.
	ServerPublicKey    *rsa.PublicKey
	GetServerPublicKey bool

	ConnectTimeout time.Duration // for dialling and login together; 10 s if zero
	ReadTimeout    time.Duration // see Conn.SetTimeouts; zero is none
	WriteTimeout   time.Duration
	ReadBuffer     int    // bytes, see NewConn
	WriteBuffer    int    // bytes
	MaxPacket      uint32 // largest payload that we declare to take; 1 GiB if zero
	MaxResult      int    // bytes of one result set; 16 MiB if zero
}

// ReplicaAttributes are the connect attributes of a MySQL replica. Channel is
// the name of the replication channel, usually "". program appears in the
// source's performance_schema.session_connect_attrs.
func ReplicaAttributes(program, version, channel string) map[string]string {
	return map[string]string{
		"_client_name":                     "libmysql",
		"_client_role":                     "binary_log_listener",
		"_client_version":                  version,
		"_client_replication_channel_name": channel,
		"program_name":                     program,
	}
}

const (
	defaultConnectTimeout = 10 * time.Second
	defaultMaxPacket      = 1 << 30
	defaultMaxResult      = 16 << 20
)

// Client is a session on a MySQL server. Its methods are not to be used by two
// goroutines at once, except Close.
type Client struct {
	conn     *Conn
	cfg      ClientConfig
	greeting *Greeting
	caps     uint32 // those in force
	plugin   string
	keyAsked bool // the server's RSA key was requested and has not come yet
}

// Dial connects and logs in. Errors of the server are *Error; a done ctx gives
// ctx's error, at once.
func Dial(ctx context.Context, cfg ClientConfig) (*Client, error) {
	cfg = cfg.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	nc, err := dial(ctx, cfg.Network, cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", cfg.Address, err)
	}
	c := &Client{conn: NewConn(nc, cfg.ReadBuffer, cfg.WriteBuffer), cfg: cfg}
	stop := c.conn.CloseOn(ctx)
	err = c.login(ctx)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = c.conn.Close()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("log in to %s as %q: %w", cfg.Address, cfg.User, err)
	}
	c.conn.r.exact = false
	c.conn.r.earlyErr = true
	c.conn.SetTimeouts(cfg.ReadTimeout, cfg.WriteTimeout)
	return c, nil
}

func (cfg ClientConfig) withDefaults() ClientConfig {
	if cfg.Network == "" {
		cfg.Network = "tcp"
	}
	if cfg.Collation == 0 {
		cfg.Collation = CollationUTF8MB4
	}
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	if cfg.MaxPacket == 0 {
		cfg.MaxPacket = defaultMaxPacket
	}
	cfg.MaxResult = orDefault(cfg.MaxResult, defaultMaxResult)
	return cfg
}

// Conn is the connection, for streaming what follows Command.
func (c *Client) Conn() *Conn { return c.conn }

// Greeting is what the server said of itself.
func (c *Client) Greeting() *Greeting { return c.greeting }

// Plugin is the authentication plugin that the login went through.
func (c *Client) Plugin() string { return c.plugin }

// Close ends the session, without COM_QUIT, as a replica does. Idempotent.
func (c *Client) Close() error { return c.conn.Close() }

// Quit says COM_QUIT and closes.
func (c *Client) Quit() error {
	return errors.Join(c.Command([]byte{ComQuit}), c.Close())
}

// offered are the capabilities that the client asks for where the server has
// them. Not ClientLocalFiles, so that no server can ask for our files; no query
// attributes, so that COM_QUERY is plain text; no compression; no session
// tracking; no multiple results.
const offered = ClientLongPassword | ClientLongFlag | ClientProtocol41 | ClientTransactions | ClientSecureConnection |
	ClientPluginAuth | ClientConnectAttrs | ClientPluginAuthLenenc | ClientDeprecateEOF

// login goes from the greeting to the final OK. Until then nothing is read
// ahead: a byte that came before TLS is then seen by TLS, which refuses it.
func (c *Client) login(ctx context.Context) error {
	c.conn.r.exact = true
	p, err := c.conn.ReadPacket(maxGreeting)
	if err != nil {
		return fmt.Errorf("read greeting: %w", err)
	}
	if c.greeting, err = ParseGreeting(p); err != nil {
		return err
	}
	g := c.greeting
	if need := ClientProtocol41 | ClientSecureConnection; g.Capabilities&need != need {
		return fmt.Errorf("server %q knows only the login of before MySQL 4.1: %w", g.Version, ErrAuthUnsupported)
	}
	c.caps = offered & g.Capabilities
	if c.cfg.Database != "" {
		c.caps |= ClientConnectWithDB & g.Capabilities
	}
	l := &login{maxPacket: c.cfg.MaxPacket, collation: c.cfg.Collation, user: c.cfg.User, database: c.cfg.Database}
	if err := c.upgrade(ctx, l); err != nil {
		return err
	}
	return c.authenticate(l)
}

// upgrade starts TLS where the mode asks for it and the server has it.
func (c *Client) upgrade(ctx context.Context, l *login) error {
	mode := c.cfg.TLSMode
	if mode == TLSDisabled {
		return nil
	}
	if c.greeting.Capabilities&ClientSSL == 0 {
		if mode == TLSPreferred {
			return nil
		}
		return ErrTLSRequired
	}
	host := c.cfg.Address
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	cfg, err := clientTLS(c.cfg.TLS, mode, host)
	if err != nil {
		return err
	}
	c.caps |= ClientSSL
	l.caps = c.caps
	if err := c.conn.WritePacket(l.appendHead(nil)); err != nil {
		return err
	}
	if err := c.conn.Flush(); err != nil {
		return err
	}
	return c.conn.startTLS(ctx, cfg, false)
}

func (cfg *ClientConfig) attributes() []Attribute {
	out := make([]Attribute, 0, len(cfg.Attributes))
	for k, v := range cfg.Attributes {
		out = append(out, Attribute{k, v})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}
