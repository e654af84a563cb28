package config

import (
	"strings"
	"testing"
)

// TestAdmin: the token goes nowhere in clear, neither from a node nor from who asks one.
func TestAdmin(t *testing.T) {
	tls := map[string]string{"admin-tls-cert": "c", "admin-tls-key": "k"}
	with := func(more map[string]string) map[string]string {
		out := map[string]string{"admin-listen": "10.0.0.1:8307"}
		for _, m := range []map[string]string{tls, more} {
			for k, v := range m {
				out[k] = v
			}
		}
		return out
	}
	for _, tc := range []struct {
		name        string
		flags       map[string]string
		load        string // error of Load
		serve, asks string // and of CheckServe and CheckAsk
		url         string
	}{
		{"by default", nil, "", "", "", ""},
		{"all addresses", map[string]string{"admin-listen": ":8307"}, "", "no TLS", "no TLS", ""},
		{"another address", map[string]string{"admin-listen": "10.0.0.1:8307"}, "", "--admin-tls-cert", "no TLS", ""},
		{"with TLS", with(nil), "", "", "", ""},
		{"with TLS and client certificates", with(map[string]string{"admin-tls-ca": "a"}), "", "", "", ""},
		{"certificate without key", map[string]string{"admin-tls-cert": "c"}, "", "together", "together", ""},
		{"authority without certificate", map[string]string{"admin-tls-ca": "a"}, "", "--admin-tls-cert", "--admin-tls-cert", ""},
		{"a node to ask", map[string]string{"admin": "https://db1:8307/", "admin-tls-ca": "a", "admin-listen": "10.0.0.1:8307"}, "", "--admin-tls-ca", "", "https://db1:8307"},
		{"in clear, here", map[string]string{"admin": "http://[::1]:8307"}, "", "", "", "http://[::1]:8307"},
		{"in clear, elsewhere", map[string]string{"admin": "http://db1:8307"}, "use https", "", "", ""},
		{"no port", map[string]string{"admin": "https://db1"}, "HOST:PORT", "", "", ""},
		{"no scheme", map[string]string{"admin": "db1:8307"}, "https://HOST:PORT", "", "", ""},
		{"a password", map[string]string{"admin": "https://u:hidden@db1:8307"}, "https://HOST:PORT", "", "", ""},
		{"a path", map[string]string{"admin": "https://db1:8307/x"}, "https://HOST:PORT", "", "", ""},
	} {
		is := func(what string, err error, want string) {
			t.Helper()
			if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden")) {
				t.Errorf("%s: %s: %v, want %q", tc.name, what, err, want)
			}
		}
		c, err := Load(Input{Flags: tc.flags})
		if is("Load", err, tc.load); err != nil {
			continue
		}
		is("CheckAsk", c.CheckAsk(), tc.asks)
		if c.Admin.URL != tc.url {
			t.Errorf("%s: asks %q", tc.name, c.Admin.URL)
		}
		c.DataDir = t.TempDir()
		_, err = c.CheckServe()
		is("CheckServe", err, tc.serve)
	}
}
