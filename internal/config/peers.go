package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"kingbus/internal/cluster"
	"kingbus/internal/wire"
)

// Peers is this node's part in a cluster. Listen is "" if it has none.
type Peers struct {
	// Name is the node's; CheckServe makes one of the host's if there is none.
	Name   string
	Listen string // host:port
	// Advertise is host:port that the others dial. CheckServe finds it if it was not
	// given.
	Advertise string
	// Initial are the members of a new cluster; Join lets an empty folder wait to
	// be taken in by one.
	Initial []cluster.Member
	Join    bool
	TLS     wire.TLSFiles // all three files, or none: then in clear
	// Heartbeat and Election are Raft's times.
	Heartbeat, Election time.Duration
}

// nodeNameRE: a name is an argument and a part of a URL, so it begins neither
// with a dash nor with a dot.
var nodeNameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// CheckNodeName tells what is wrong with the name of a node.
func CheckNodeName(name string) error {
	if !nodeNameRE.MatchString(name) {
		return fmt.Errorf("%.80q is no name for a node: 1 to 64 letters, digits, dots, underscores and dashes, beginning with a letter or digit", name)
	}
	return nil
}

func nodeName(c *Config, v setValue) error {
	if v.text == "" { // as if it was not given
		return nil
	}
	c.Peers.Name = v.text
	return CheckNodeName(v.text)
}

// hostNodeName makes a node's name of the host's: its first label. What a name
// must not hold becomes a dash, so that no host name keeps a node from starting.
func hostNodeName(host string) string {
	label, _, _ := strings.Cut(host, ".")
	name := strings.Map(func(r rune) rune {
		if !nodeNameRE.MatchString("a" + string(r)) {
			return '-'
		}
		return r
	}, label)
	name = strings.TrimLeft(name, "-_")
	if name == "" {
		return "node"
	}
	return name[:min(len(name), 64)]
}

// CheckPeerAddress tells why other nodes could not dial an address.
func CheckPeerAddress(s string) error {
	host, port, err := splitAddress(s)
	switch {
	case err != nil:
		return err
	case isWildcard(host):
		return fmt.Errorf("%q names no machine that others could dial", s)
	case port == 0:
		return fmt.Errorf("%q has no port that others could dial", s)
	case len(s) > 255 || strings.ContainsAny(s, " \t\r\n\x00,="):
		return fmt.Errorf("%.80q is not HOST:PORT, like db1.example:8407", s)
	}
	return nil
}

// isWildcard tells whether a host stands for all addresses of a machine.
func isWildcard(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.Unmap().IsUnspecified()
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// optional leaves a setting alone whose text is empty, so that a variable can be
// set to nothing.
func optional(set func(*Config, setValue) error) func(*Config, setValue) error {
	return func(c *Config, v setValue) error {
		if v.text == "" {
			return nil
		}
		return set(c, v)
	}
}

func peerAddress(c *Config, v setValue) error {
	c.Peers.Advertise = v.text
	return CheckPeerAddress(v.text)
}

func initialCluster(c *Config, v setValue) error {
	members, err := cluster.ParseMembers(v.text)
	if err != nil {
		return err
	}
	for _, m := range members {
		if err := CheckNodeName(m.Name); err != nil {
			return err
		}
		if err := CheckPeerAddress(m.Address); err != nil {
			return err
		}
	}
	c.Peers.Initial = members
	return nil
}

// checkPeers demands what a node among others needs, and finds its name and the
// address that the others dial.
func (c *Config) checkPeers() (warnings []string, err error) {
	p := &c.Peers
	if p.Name == "" {
		host, _ := os.Hostname() // without one the name is just a poor one
		p.Name = hostNodeName(host)
	}
	if p.Election < 2*p.Heartbeat {
		return nil, fmt.Errorf("--election-timeout %s with --heartbeat %s: it has to be at least twice as long", p.Election, p.Heartbeat)
	}
	if p.Election < 5*p.Heartbeat {
		warnings = append(warnings, fmt.Sprintf("--election-timeout %s is less than five times --heartbeat %s: a few heartbeats that come late will cost the cluster its leader", p.Election, p.Heartbeat))
	}
	if p.Listen == "" {
		given := ""
		switch {
		case p.Initial != nil:
			given = "initial-cluster"
		case p.Join:
			given = "join"
		case p.Advertise != "":
			given = "peer-advertise"
		case p.TLS != wire.TLSFiles{}:
			given = "peer-cert, --peer-key or --peer-ca"
		default:
			return warnings, nil
		}
		return nil, fmt.Errorf("--%s is for a node that has peers: give --peer-listen HOST:PORT, too", given)
	}
	if p.Join && p.Initial != nil {
		return nil, errors.New("--join and --initial-cluster exclude each other: --initial-cluster is for the first start of the nodes that begin a cluster, --join for a node that comes to it later")
	}
	if err := p.findAddress(); err != nil {
		return nil, err
	}
	files := []string{p.TLS.Cert, p.TLS.Key, p.TLS.CA}
	switch {
	case !slices.Contains(files, ""):
	case slices.ContainsFunc(files, func(name string) bool { return name != "" }):
		return nil, errors.New("--peer-cert, --peer-key and --peer-ca must be given together")
	default:
		if host, _, _ := splitAddress(p.Listen); !isLoopback(host) {
			warnings = append(warnings, "peers are neither authenticated nor encrypted: whoever reaches "+p.Listen+" can read the binlog and break the cluster. Use that only in a network that nobody else reaches, or give --peer-cert, --peer-key and --peer-ca")
		}
	}
	return warnings, nil
}

// findAddress decides what the others dial.
func (p *Peers) findAddress() error {
	if p.Initial != nil {
		i := slices.IndexFunc(p.Initial, func(m cluster.Member) bool { return m.Name == p.Name })
		if i < 0 {
			var names []string
			for _, m := range p.Initial {
				names = append(names, m.Name)
			}
			return fmt.Errorf("--initial-cluster does not name this node, %q, only %s: set --node-name to the one that this node is", p.Name, strings.Join(names, ", "))
		}
		if p.Advertise == "" {
			p.Advertise = p.Initial[i].Address
		}
	}
	if p.Advertise != "" {
		return nil
	}
	if err := CheckPeerAddress(p.Listen); err != nil {
		return fmt.Errorf("--peer-listen %s: %w; tell them with --peer-advertise HOST:PORT where they reach this node", p.Listen, err)
	}
	p.Advertise = p.Listen
	return nil
}
