// Package account is about who may log in, from where, and what they may do: accounts as
// MySQL has them, of a user name and a pattern of hosts, kept in the settings of the cluster
// with hashes of passwords only.
package account

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"kingbus/internal/wire"
)

// Privileges is a set of privileges.
type Privileges uint8

// The privileges. Of MySQL's there are those that a binlog server has a use for.
const (
	// ReplicationSlave: read the binlog.
	ReplicationSlave Privileges = 1 << iota
	// ReplicationClient: see where the binlog and the replication stand.
	ReplicationClient
	// Super: everything else, the accounts among it.
	Super

	// All of them.
	All = ReplicationSlave | ReplicationClient | Super
)

var privilegeNames = []string{"REPLICATION SLAVE", "REPLICATION CLIENT", "SUPER"}

// ParsePrivilege reads the name of one, as in GRANT; ALL and ALL PRIVILEGES are all, USAGE
// is none.
func ParsePrivilege(name string) (Privileges, error) {
	name = strings.ToUpper(name)
	switch name {
	case "ALL", "ALL PRIVILEGES":
		return All, nil
	case "USAGE":
		return 0, nil
	case "REPLICATION REPLICA": // MariaDB
		return ReplicationSlave, nil
	case "BINLOG MONITOR": // MariaDB
		return ReplicationClient, nil
	}
	if i := slices.Index(privilegeNames, name); i >= 0 {
		return 1 << i, nil
	}
	return 0, fmt.Errorf("there is no privilege %.64s in kingbus; there are %s", name, strings.Join(privilegeNames, ", "))
}

// Names returns the names of the privileges in a set.
func (p Privileges) Names() []string {
	out := []string{}
	for i, name := range privilegeNames {
		if p&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// String lists them as in GRANT; none is USAGE.
func (p Privileges) String() string {
	if p&All == 0 {
		return "USAGE"
	}
	return strings.Join(p.Names(), ", ")
}

// Account is an account.
type Account struct {
	User string
	// Host is a pattern of addresses, without names: as MySQL has it with
	// skip_name_resolve. % and _ are wildcards, address/mask is a network, localhost are the
	// addresses of the machine itself.
	Host string
	// Plugin is the one that it is for: of a client that knows several.
	Plugin     string
	Verifier   wire.Verifier
	Privileges Privileges
	RequireTLS bool
	Locked     bool // nobody can log in
	// ID is random, made with the account: who has logged in has nothing of another one that
	// has the name later. 0: of a node's own settings.
	ID uint64
}

// Name returns 'user'@'host'.
func (a Account) Name() string { return Name(a.User, a.Host) }

// Name returns 'user'@'host'.
func Name(user, host string) string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	return quote(user) + "@" + quote(host)
}

// Lengths of names, in characters of MySQL's and bytes of ours.
const (
	MaxUser = 32
	MaxHost = 255
)

// CheckName checks the name of an account that is to be made.
func CheckName(user, host string) error {
	switch {
	case user == "":
		return errors.New("kingbus has no anonymous accounts: an account needs a user name")
	case len([]rune(user)) > MaxUser:
		return &NameError{user, "user name", MaxUser}
	case len(host) > MaxHost:
		return &NameError{host, "host name", MaxHost}
	case !utf8.ValidString(user), !utf8.ValidString(host):
		return errors.New("the name of an account is not UTF-8: SET NAMES utf8mb4")
	case strings.ContainsRune(host, '@'):
		return errors.New("the host of an account has an @ in it")
	case strings.ContainsFunc(user+host, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("the name of an account has a control character in it")
	case host == "":
		return errors.New("an account needs a host; '%' is any")
	}
	if _, err := parseHost(host); err != nil {
		return err
	}
	return nil
}

// NameError is a name that is too long.
type NameError struct {
	Name, What string
	Max        int
}

func (e *NameError) Error() string {
	return fmt.Sprintf("String '%.70s' is too long for %s (should be no longer than %d)", e.Name, e.What, e.Max)
}

// KeyPrefix begins the keys of accounts among the settings of the cluster.
const KeyPrefix = "account/"

// Key is that of an account among the settings of the cluster.
func Key(user, host string) string { return KeyPrefix + user + "@" + host }

// stored is an account as a value of the settings.
type stored struct {
	User       string   `json:"user"`
	Host       string   `json:"host"`
	Plugin     string   `json:"plugin"`
	Verifier   []string `json:"verifier"` // as in wire.Verifier
	Privileges []string `json:"privileges"`
	RequireTLS bool     `json:"require_tls,omitempty"`
	Locked     bool     `json:"locked,omitempty"`
	ID         uint64   `json:"id,string"`
}

// Encode returns the account as a value of the settings.
func (a Account) Encode() json.RawMessage {
	b, _ := json.Marshal(stored{a.User, a.Host, a.Plugin, a.Verifier.Strings(), a.Privileges.Names(), a.RequireTLS, a.Locked, a.ID}) // cannot fail
	return b
}

// Decode reads a value of the settings.
func Decode(b json.RawMessage) (Account, error) {
	var s stored
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // it could restrict the account
	if err := d.Decode(&s); err != nil {
		return Account{}, fmt.Errorf("account: %w", err)
	}
	a := Account{User: s.User, Host: s.Host, Plugin: s.Plugin, RequireTLS: s.RequireTLS, Locked: s.Locked, ID: s.ID}
	var err error
	if a.Verifier, err = wire.ParseVerifier(s.Verifier...); err != nil {
		return Account{}, fmt.Errorf("account %s: %w", a.Name(), err)
	}
	for _, name := range s.Privileges {
		p, err := ParsePrivilege(name)
		if err != nil {
			return Account{}, fmt.Errorf("account %s: %w", a.Name(), err)
		}
		a.Privileges |= p
	}
	if err := CheckName(a.User, a.Host); err != nil {
		return Account{}, fmt.Errorf("account %s: %w", a.Name(), err)
	}
	return a, nil
}

// Table is a set of accounts.
type Table struct {
	byUser map[string][]entry // the most specific host first
}

type entry struct {
	Account
	host host
}

// NewTable makes one. Of two with the same name the last counts.
func NewTable(accounts ...Account) *Table {
	t := &Table{byUser: map[string][]entry{}}
	for _, a := range accounts {
		h, err := parseHost(a.Host)
		if err != nil {
			continue // CheckName refuses it
		}
		of := slices.DeleteFunc(t.byUser[a.User], func(e entry) bool { return e.Host == a.Host })
		t.byUser[a.User] = append(of, entry{a, h})
	}
	for _, of := range t.byUser {
		slices.SortStableFunc(of, func(a, b entry) int { return a.host.compare(b.host) })
	}
	return t
}

// Find returns the account for who comes from an address: the one with the most specific host.
func (t *Table) Find(user, address string) (Account, bool) {
	addr, _ := netip.ParseAddr(address)
	for _, e := range t.byUser[user] {
		if e.host.matches(address, addr.Unmap().WithZone("")) {
			return e.Account, true
		}
	}
	return Account{}, false
}

// Get returns the account of a name.
func (t *Table) Get(user, host string) (Account, bool) {
	for _, e := range t.byUser[user] {
		if e.Host == host {
			return e.Account, true
		}
	}
	return Account{}, false
}

// All returns the accounts, by name.
func (t *Table) All() []Account {
	var out []Account
	for _, of := range t.byUser {
		for _, e := range of {
			out = append(out, e.Account)
		}
	}
	slices.SortFunc(out, func(a, b Account) int { return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Host, b.Host)) })
	return out
}

// host is a parsed pattern of hosts.
type host struct {
	text    string
	network netip.Prefix // or
	like    bool         // it has wildcards
}

// parseHost reads a pattern. A network has a mask, or a length as from MySQL 8.0.23 on.
func parseHost(s string) (host, error) {
	h := host{text: strings.ToLower(s), like: strings.ContainsAny(s, "%_")}
	address, mask, ok := strings.Cut(s, "/")
	if !ok {
		return h, nil
	}
	bad := fmt.Errorf("%.64q is no network: it is like 192.0.2.0/255.255.255.0 or 192.0.2.0/24", s)
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return h, bad
	}
	bits, err := strconv.Atoi(mask)
	if m, merr := netip.ParseAddr(mask); merr == nil && m.Is4() && addr.Is4() {
		b := m.As4()
		n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		for bits, err = 0, nil; bits < 32 && n&(1<<31) != 0; bits++ {
			n <<= 1
		}
		if n != 0 {
			return h, bad
		}
	}
	if err != nil {
		return h, bad
	}
	h.network = netip.PrefixFrom(addr, bits)
	if !h.network.IsValid() || h.network.Masked() != h.network {
		return h, bad
	}
	h.like = false
	return h, nil
}

func (h host) matches(address string, addr netip.Addr) bool {
	switch {
	case h.network.IsValid():
		return h.network.Contains(addr)
	case h.text == "localhost":
		return addr.IsLoopback()
	case h.like:
		return like(h.text, strings.ToLower(address)) || addr.Is4() && like(h.text, addr.String())
	}
	if own, err := netip.ParseAddr(h.text); err == nil {
		return own.Unmap() == addr
	}
	return h.text == strings.ToLower(address)
}

// like matches a pattern with % and _, in time that grows with the product of both lengths.
func like(pattern, s string) bool {
	star, from := -1, 0
	p := 0
	for i := 0; i < len(s); {
		switch {
		case p < len(pattern) && pattern[p] == '%':
			star, from = p, i
			p++
		case p < len(pattern) && (pattern[p] == '_' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "%") == ""
}

// compare orders by how specific a host is (ACL_compare in sql/auth/sql_auth_cache.cc):
// addresses, networks from the narrowest on, then patterns by where the first wildcard is.
func (h host) compare(o host) int {
	rank := func(h host) (int, int) {
		switch {
		case h.network.IsValid():
			return 1, -h.network.Bits()
		case h.like:
			return 2, -strings.IndexAny(h.text, "%_")
		}
		return 0, 0
	}
	a, n := rank(h)
	b, m := rank(o)
	return cmp.Or(cmp.Compare(a, b), cmp.Compare(n, m), cmp.Compare(len(o.text), len(h.text)), cmp.Compare(h.text, o.text))
}

// NewID returns the ID of a new account.
func NewID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:]) | 1
}

// Errors of NewVerifier.
var (
	ErrPlugin   = errors.New("there is no such authentication plugin")
	ErrPassword = errors.New("the password cannot be used")
	ErrHash     = errors.New("the hash does not have the form that the plugin wants")
)

// Identity is how an account logs in.
type Identity struct {
	Plugin   string
	Verifier wire.Verifier
}

// NewIdentity makes what is stored of a password, or takes over a hash. Without a plugin it
// is for an account that has one already: see On.
func NewIdentity(plugin, password, hash string) (Identity, error) {
	if plugin == "" && hash == "" {
		v, err := wire.NewVerifier([]byte(password), wire.VerifierForms{Native: true})
		if err != nil {
			return Identity{}, fmt.Errorf("%w: it has 1 to 256 bytes, and no NUL", ErrPassword)
		}
		return Identity{"", v}, nil
	}
	plugin, v, err := NewVerifier(plugin, password, hash)
	return Identity{plugin, v}, err
}

// On gives an account the identity. As with MySQL it keeps its plugin if none was named.
func (i Identity) On(a *Account) {
	if i.Plugin != "" {
		a.Plugin, a.Verifier = i.Plugin, i.Verifier
		return
	}
	if a.Plugin == "" {
		a.Plugin = wire.PluginCachingSHA2
	}
	forms := slices.DeleteFunc(i.Verifier.Strings(), func(f string) bool { return strings.HasPrefix(f, "*") != (a.Plugin == wire.PluginNative) })
	a.Verifier, _ = wire.ParseVerifier(forms...) // it has both forms
}

// NewVerifier makes what is stored of a password, or takes over a hash, as MySQL has it for
// the plugin; "" is caching_sha2_password.
func NewVerifier(plugin, password, hash string) (string, wire.Verifier, error) {
	if plugin == "" {
		plugin = wire.PluginCachingSHA2
	}
	if plugin != wire.PluginCachingSHA2 && plugin != wire.PluginNative {
		return "", wire.Verifier{}, fmt.Errorf("%w as %.64q: it is %s or %s", ErrPlugin, plugin, wire.PluginCachingSHA2, wire.PluginNative)
	}
	forms := []string{hash}
	if hash == "" {
		v, err := wire.NewVerifier([]byte(password), wire.VerifierForms{Native: true})
		if err != nil {
			return "", v, fmt.Errorf("%w: it has 1 to 256 bytes, and no NUL", ErrPassword)
		}
		forms = v.Strings()
	}
	// One form only: that of the plugin.
	forms = slices.DeleteFunc(forms, func(f string) bool { return strings.HasPrefix(f, "*") != (plugin == wire.PluginNative) })
	v, err := wire.ParseVerifier(forms...)
	if err != nil {
		return "", v, fmt.Errorf("%w: %w", ErrHash, err)
	}
	return strings.Clone(plugin), v, nil
}
