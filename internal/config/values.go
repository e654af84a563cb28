package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// setValue is the text of a setting and where it stands.
type setValue struct {
	key    string
	text   string
	origin origin
}

// origin ranks where a value came from; the higher one wins.
type origin int

const (
	fromDefault origin = iota
	fromFile
	fromEnv
	fromFlag
)

func text(field func(*Config) *string) func(*Config, setValue) error {
	return func(c *Config, v setValue) error {
		if strings.IndexByte(v.text, 0) >= 0 {
			return errors.New("it has a NUL byte in it")
		}
		*field(c) = v.text
		return nil
	}
}

func address(field func(*Config) *string) func(*Config, setValue) error {
	return func(c *Config, v setValue) error {
		if _, _, err := splitAddress(v.text); err != nil {
			return err
		}
		*field(c) = v.text
		return nil
	}
}

// splitAddress reads host:port. An empty host stands for all addresses.
func splitAddress(s string) (host string, port uint16, err error) {
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not HOST:PORT, like 127.0.0.1:3307 or [::1]:3307", s)
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q has no port number from 0 to 65535 after the colon", s)
	}
	return host, uint16(n), nil
}

func joinHostPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

const sourceForm = "the form is mysql://USER@HOST:PORT"

// setSource reads the URL of the source. No error repeats the text, which may
// hold a password that does not belong there.
func setSource(c *Config, v setValue) error {
	if v.text == "" {
		return nil
	}
	rest, ok := strings.CutPrefix(v.text, "mysql://")
	if !ok {
		return fmt.Errorf("it does not begin with mysql://; %s", sourceForm)
	}
	at := strings.LastIndexByte(rest, '@')
	if at <= 0 {
		return fmt.Errorf("it names no user; %s", sourceForm)
	}
	user, host := rest[:at], strings.TrimSuffix(rest[at+1:], "/")
	if strings.Contains(user, ":") {
		return fmt.Errorf("it holds a password, which other users of this machine could see: put the password into a file and name that with --source-password-file, or set KINGBUS_SOURCE_PASSWORD; %s", sourceForm)
	}
	user, err := url.PathUnescape(user)
	if err != nil {
		return fmt.Errorf("the user's name has a %% that is not followed by two hexadecimal digits; %s", sourceForm)
	}
	if strings.ContainsAny(host, "/?#") {
		return fmt.Errorf("there is something behind the address; %s", sourceForm)
	}
	if !strings.Contains(host, ":") || strings.HasSuffix(host, "]") { // no port
		host = net.JoinHostPort(strings.Trim(host, "[]"), "3306")
	}
	name, port, err := splitAddress(host)
	if err != nil || name == "" || port == 0 || strings.ContainsAny(name, " \t\r\n\x00%") {
		return fmt.Errorf("its address cannot be read; %s", sourceForm)
	}
	c.Source.User, c.Source.Host, c.Source.Port = user, name, port
	return nil
}

func parseTLSVersion(s string) (uint16, error) {
	switch s {
	case "1.0":
		return tls.VersionTLS10, nil
	case "1.1":
		return tls.VersionTLS11, nil
	case "1.2":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("%q is not one of 1.0, 1.1, 1.2, 1.3", s)
}

func number(field func(*Config) *int, least, most int) func(*Config, setValue) error {
	return func(c *Config, v setValue) error {
		n, err := strconv.Atoi(v.text)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%q is not a number from %d to %d", v.text, least, most)
		}
		*field(c) = n
		return nil
	}
}

func boolean(field func(*Config) *bool) func(*Config, setValue) error {
	return func(c *Config, v setValue) error {
		b, err := strconv.ParseBool(strings.ToLower(v.text))
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", v.text)
		}
		*field(c) = b
		return nil
	}
}

func duration(field func(*Config) *time.Duration, least, most time.Duration) func(*Config, setValue) error {
	return func(c *Config, v setValue) error {
		d, err := time.ParseDuration(v.text)
		if err != nil {
			return fmt.Errorf("%q is not a duration like 30s, 15m or 168h", v.text)
		}
		if d < least || d > most {
			return fmt.Errorf("%s is not between %s and %s", d, least, most)
		}
		*field(c) = d
		return nil
	}
}

func size(field func(*Config) *uint64) func(*Config, setValue) error {
	return func(c *Config, v setValue) error {
		n, err := ParseSize(v.text)
		if err != nil {
			return err
		}
		*field(c) = n
		return nil
	}
}

// units of sizes, by lower-case name. One letter means what it means to MySQL.
func unit(name string) (uint64, bool) {
	switch strings.ToLower(name) {
	case "", "b":
		return 1, true
	case "kb":
		return 1e3, true
	case "mb":
		return 1e6, true
	case "gb":
		return 1e9, true
	case "tb":
		return 1e12, true
	case "k", "kib":
		return 1 << 10, true
	case "m", "mib":
		return 1 << 20, true
	case "g", "gib":
		return 1 << 30, true
	case "t", "tib":
		return 1 << 40, true
	}
	return 0, false
}

// ParseSize reads a number of bytes: 1048576, 64MiB, 10GB, 1.5TiB. kB, MB, GB
// and TB are powers of 1000, KiB … and K, M, G, T powers of 1024.
func ParseSize(s string) (uint64, error) {
	bad := fmt.Errorf("%q is not a size like 10GB, 64MiB or 1048576", s)
	cut := strings.LastIndexAny(s, "0123456789.") + 1
	factor, ok := unit(strings.TrimSpace(s[cut:]))
	if !ok {
		return 0, bad
	}
	if n, err := strconv.ParseUint(s[:cut], 10, 64); err == nil {
		if n > math.MaxInt64/factor {
			return 0, fmt.Errorf("%q is more than any disk has", s)
		}
		return n * factor, nil
	}
	if strings.Trim(s[:cut], "0123456789.") != "" { // neither sign nor exponent
		return 0, bad
	}
	f, err := strconv.ParseFloat(s[:cut], 64)
	if err != nil {
		return 0, bad
	}
	if f *= float64(factor); f >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is more than any disk has", s)
	}
	return uint64(f), nil
}
