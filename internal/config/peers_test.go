package config

import (
	"strings"
	"testing"
)

func TestPeers(t *testing.T) {
	const initial = "n1=10.0.0.1:8407, n2=db2:8407"
	tls := map[string]string{"peer-cert": "c", "peer-key": "k", "peer-ca": "a"}
	for _, tc := range []struct {
		name  string
		flags map[string]string
		want  string // address that is advertised, or a part of the error
		warn  string
	}{
		{"no peers", nil, "", ""},
		{"on an address", map[string]string{"peer-listen": "127.0.0.1:8407"}, "127.0.0.1:8407", ""},
		{"on localhost", map[string]string{"peer-listen": "localhost:8407"}, "localhost:8407", ""},
		{"in clear", map[string]string{"peer-listen": "10.0.0.1:8407"}, "10.0.0.1:8407", "neither authenticated nor encrypted"},
		{"TLS", merge(tls, map[string]string{"peer-listen": "10.0.0.1:8407"}), "10.0.0.1:8407", ""},
		{"all addresses", map[string]string{"peer-listen": "0.0.0.0:8407"}, "--peer-advertise", ""},
		{"all addresses, IPv6", map[string]string{"peer-listen": "[::]:8407"}, "--peer-advertise", ""},
		{"all addresses, in short", map[string]string{"peer-listen": ":8407"}, "--peer-advertise", ""},
		{"any port", map[string]string{"peer-listen": "127.0.0.1:0"}, "--peer-advertise", ""},
		{"advertised", map[string]string{"peer-listen": ":8407", "peer-advertise": "db1:8407"}, "db1:8407", "neither authenticated"},
		{"in the list", map[string]string{"peer-listen": ":8407", "initial-cluster": initial, "node-name": "n2"}, "db2:8407", "neither authenticated"},
		{"advertised and in the list", map[string]string{"peer-listen": ":8407", "initial-cluster": initial, "node-name": "n2", "peer-advertise": "x:1"}, "x:1", "neither authenticated"},
		{"not in the list", map[string]string{"peer-listen": ":8407", "initial-cluster": initial, "node-name": "n3"}, `does not name this node, "n3", only n1, n2`, ""},
		{"list without peers", map[string]string{"initial-cluster": initial, "node-name": "n1"}, "--initial-cluster is for a node that has peers", ""},
		{"join without peers", map[string]string{"join": "true"}, "--join is for a node that has peers", ""},
		{"address without peers", map[string]string{"peer-advertise": "h:1"}, "--peer-listen", ""},
		{"TLS without peers", tls, "--peer-listen", ""},
		{"join and list", map[string]string{"peer-listen": ":8407", "initial-cluster": initial, "node-name": "n1", "join": "true"}, "exclude each other", ""},
		{"no CA", map[string]string{"peer-listen": "127.0.0.1:1", "peer-cert": "c", "peer-key": "k"}, "given together", ""},
		{"only a CA", map[string]string{"peer-listen": "127.0.0.1:1", "peer-ca": "c"}, "given together", ""},
		{"short timeout", map[string]string{"heartbeat": "100ms", "election-timeout": "199ms"}, "at least twice", ""},
		{"rather short timeout", map[string]string{"heartbeat": "100ms", "election-timeout": "499ms"}, "", "less than five times"},
		{"acknowledge what is not", map[string]string{"semi-sync": "off", "acknowledge": "quorum+1"}, "nothing is acknowledged then", ""},
		{"timeout", map[string]string{"heartbeat": "100ms", "election-timeout": "500ms"}, "", ""},
		{"nothing at all", map[string]string{"node-name": "", "peer-listen": "", "peer-advertise": "", "initial-cluster": ""}, "", ""},
	} {
		c, err := Load(Input{Flags: merge(tc.flags, map[string]string{"data-dir": "d"})})
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		warnings, err := c.CheckServe()
		got := c.Peers.Advertise
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != tc.want || !strings.Contains(got, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
		if err == nil && CheckNodeName(c.Peers.Name) != nil {
			t.Errorf("%s: the node's name is %q", tc.name, c.Peers.Name)
		}
		all := strings.Join(warnings, "\n")
		if !strings.Contains(all, tc.warn) || tc.warn == "" && (strings.Contains(all, "peers") || strings.Contains(all, "timeout")) {
			t.Errorf("%s: warnings %q, want %q", tc.name, all, tc.warn)
		}
	}
}

func merge(maps ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range maps {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

func TestHostNodeName(t *testing.T) {
	for host, want := range map[string]string{
		"db1.example.com": "db1", "db1": "db1", "": "node", ".": "node", "-": "node", "my host": "my-host", "bücher": "b-cher", "_x": "x",
		strings.Repeat("a", 80): strings.Repeat("a", 64),
	} {
		if got := hostNodeName(host); got != want || CheckNodeName(got) != nil {
			t.Errorf("%q: got %q, want %q", host, got, want)
		}
	}
}
