package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kingbus/internal/wire"
)

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	file := write(t, "k.yaml", "mysql-listen: file:1\nmax-connections: 7\n", 0o600)
	flags := map[string]string{"mysql-listen": "flag:3"}
	env := []string{"KINGBUS_MYSQL_LISTEN=env:2", "KINGBUS_LOG_LEVEL=debug"}
	for _, tc := range []struct {
		name string
		in   Input
		want string
	}{
		{"default", Input{}, "127.0.0.1:3307"},
		{"file", Input{File: file}, "file:1"},
		{"file by variable", Input{Environ: []string{"KINGBUS_CONFIG=" + file}}, "file:1"},
		{"environment over file", Input{File: file, Environ: env}, "env:2"},
		{"flag over all", Input{File: file, Environ: env, Flags: flags}, "flag:3"},
	} {
		c, err := Load(tc.in)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if c.MySQLListen != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, c.MySQLListen, tc.want)
		}
	}
	c, err := Load(Input{File: file, Environ: env})
	if err != nil || c.MaxConnections != 7 || c.LogLevel != slog.LevelDebug {
		t.Errorf("mixed origins: got %+v, %v", c, err)
	}
}

// Every setting can be given in all three ways, with the same effect.
func TestEverySettingEverywhere(t *testing.T) {
	samples := map[string]string{
		"data-dir": "/d", "mysql-listen": "0.0.0.0:1", "admin-listen": "127.0.0.2:2", "admin-token-file": "t", "admin-tls-cert": "i", "admin-tls-key": "j", "admin-tls-ca": "k", "admin": "https://h:8307", "source": "mysql://u@h:3",
		"source-tls": "verify-identity", "source-tls-ca": "a", "source-tls-cert": "b", "source-tls-key": "c", "source-tls-min-version": "1.0",
		"source-heartbeat": "1m30s", "semi-sync": "on", "acknowledge": "quorum+2", "acknowledge-timeout": "5s", "acknowledge-on-timeout": "hold", "replica-semi-sync": "false", "replica-semi-sync-timeout": "2s", "replica-semi-sync-count": "3", "replica-semi-sync-no-replica": "false",
		"start": "binlog.000007", "replica-user": "r", "tls-cert": "d", "tls-key": "e", "max-connections": "12",
		"node-name": "n1", "peer-listen": "0.0.0.0:8407", "peer-advertise": "h:8407", "initial-cluster": "n1=h1:8407,n2=h2:8407", "join": "true",
		"peer-cert": "f", "peer-key": "g", "peer-ca": "h", "heartbeat": "50ms", "election-timeout": "2s",
		"retain-size": "10GB", "retain-age": "168h", "retain-force": "true", "disk-reserve": "1GiB", "log-format": "json", "log-level": "warn", "shutdown-timeout": "3s", "slow-commit": "2s",
	}
	for _, s := range Settings() {
		if strings.Contains(s.Key, "password") {
			continue
		}
		sample := samples[s.Key]
		if sample == "" {
			t.Errorf("no sample for %s", s.Key)
			continue
		}
		plain, err := Load(Input{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, in := range []Input{
			{Flags: map[string]string{s.Key: sample}},
			{Environ: []string{s.Env() + "=" + sample}},
			{File: write(t, "k.yaml", s.Key+": "+sample+"\n", 0o600)},
		} {
			c, err := Load(in)
			if err != nil {
				t.Fatalf("%s: %v", s.Key, err)
			}
			got = append(got, fmt.Sprintf("%+v", *c))
		}
		if got[0] != got[1] || got[1] != got[2] {
			t.Errorf("%s: flag, environment and file differ:\n%s\n%s\n%s", s.Key, got[0], got[1], got[2])
		}
		if got[0] == fmt.Sprintf("%+v", *plain) {
			t.Errorf("%s=%s changes nothing", s.Key, sample)
		}
		if s.Help == "" || strings.HasSuffix(s.Help, ".") {
			t.Errorf("%s: help text %q", s.Key, s.Help)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   Input
		want []string
	}{
		{"unknown variable", Input{Environ: []string{"KINGBUS_MYSQL_LISTN=x"}}, []string{"KINGBUS_MYSQL_LISTN", `did you mean "KINGBUS_MYSQL_LISTEN"`}},
		{"bad flag", Input{Flags: map[string]string{"log-format": "xml"}}, []string{"--log-format", "xml"}},
		{"bad variable", Input{Environ: []string{"KINGBUS_RETAIN_SIZE=lots"}}, []string{"KINGBUS_RETAIN_SIZE", `"lots" is not a size`}},
		{"no such file", Input{File: "/nonexistent.yaml"}, []string{"--config", "no such file"}},
		{"TLS mode", Input{Flags: map[string]string{"source-tls": "yes"}}, []string{"--source-tls: TLS mode", "verify-ca"}},
		{"negative age", Input{Flags: map[string]string{"retain-age": "-1h"}}, []string{"--retain-age"}},
		{"no connections", Input{Flags: map[string]string{"max-connections": "0"}}, []string{"--max-connections"}},
		{"port", Input{Flags: map[string]string{"mysql-listen": "127.0.0.1:99999"}}, []string{"port number"}},
		{"no port", Input{Flags: map[string]string{"mysql-listen": "127.0.0.1"}}, []string{"HOST:PORT"}},
		{"node name", Input{Flags: map[string]string{"node-name": "n 1"}}, []string{"--node-name", "64 letters"}},
		{"node name like a flag", Input{Flags: map[string]string{"node-name": "-n"}}, []string{"beginning with a letter"}},
		{"node name like a folder", Input{Flags: map[string]string{"node-name": ".."}}, []string{"beginning with a letter"}},
		{"long node name", Input{Flags: map[string]string{"node-name": strings.Repeat("n", 65)}}, []string{"64 letters"}},
		{"peers without a port", Input{Flags: map[string]string{"peer-listen": "127.0.0.1"}}, []string{"HOST:PORT"}},
		{"advertised wildcard", Input{Flags: map[string]string{"peer-advertise": "[::]:8407"}}, []string{"--peer-advertise", "names no machine"}},
		{"advertised nobody", Input{Flags: map[string]string{"peer-advertise": ":8407"}}, []string{"names no machine"}},
		{"advertised port", Input{Flags: map[string]string{"peer-advertise": "h:0"}}, []string{"no port"}},
		{"members", Input{Flags: map[string]string{"initial-cluster": "n1=h:1,n2"}}, []string{"--initial-cluster", "NAME=HOST:PORT"}},
		{"members twice", Input{Flags: map[string]string{"initial-cluster": "n1=h:1,n1=h:2"}}, []string{"same name"}},
		{"name of a member", Input{Flags: map[string]string{"initial-cluster": "n/1=h:1"}}, []string{"no name for a node"}},
		{"address of a member", Input{Environ: []string{"KINGBUS_INITIAL_CLUSTER=n1=h"}}, []string{"KINGBUS_INITIAL_CLUSTER", "HOST:PORT"}},
		{"wildcard of a member", Input{Flags: map[string]string{"initial-cluster": "n1=0.0.0.0:1"}}, []string{"names no machine"}},
		{"heartbeat", Input{Flags: map[string]string{"heartbeat": "1ms"}}, []string{"--heartbeat", "between"}},
	} {
		_, err := Load(tc.in)
		if err == nil {
			t.Errorf("%s: no error", tc.name)
			continue
		}
		for _, w := range tc.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: got %q, want %q in it", tc.name, err, w)
			}
		}
	}
}

func TestForeignVariables(t *testing.T) {
	for _, name := range []string{
		"KINGBUS_SERVICE_HOST", "KINGBUS_SERVICE_PORT", "KINGBUS_SERVICE_PORT_MYSQL", "KINGBUS_PORT", "KINGBUS_PORT_3307_TCP",
		"KINGBUS_PORT_3307_TCP_PROTO", "KINGBUS_ADMIN_SERVICE_HOST", "KINGBUS_ADMIN_PORT_8307_TCP_ADDR", "KINGBUS_TEST_MYSQLD", "KINGBUS_CACHE", "PATH",
	} {
		if _, err := Load(Input{Environ: []string{name + "=tcp://10.0.0.1:3307"}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFileErrors(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"unknown key", "data-dir: /d\nmysql_listen: x:1\n", []string{":2: \"mysql_listen\" is not a setting (did you mean \"mysql-listen\"?)", ">   2 | mysql_listen: x:1"}},
		{"bad value", "# comment\nlog-level: loud\n", []string{":2: log-level: \"loud\" is not one of", ">   2 | log-level: loud"}},
		{"twice", "start: oldest\nstart: current\n", []string{":2:"}},
		{"list", "- a\n- b\n", []string{":1:", "KEY: VALUE"}},
		{"nested", "source:\n  host: h\n", []string{":1:", "one plain value"}},
		{"nothing", "source:\n", []string{":1:", "one plain value"}},
		{"syntax", "start: \"oldest\nlog-level: info\n", []string{".yaml:1:"}},
		{"two documents", "start: oldest\n---\nstart: current\n", []string{"second document"}},
		{"alias", "start: &a oldest\nlog-level: *a\n", []string{"one plain value"}},
		{"password", "source-password: hunter2\n", []string{":1:", "source-password-file", "KINGBUS_SOURCE_PASSWORD"}},
	} {
		_, err := Load(Input{File: write(t, "k.yaml", tc.text, 0o600)})
		if err == nil {
			t.Errorf("%s: no error", tc.name)
			continue
		}
		for _, w := range tc.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: got\n%s\nwant %q in it", tc.name, err, w)
			}
		}
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "{}\n", "start: 'oldest' # comment\n", "{start: oldest, log-level: info}\n"} {
		if _, err := Load(Input{File: write(t, "k.yaml", text, 0o600)}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestSource(t *testing.T) {
	for _, tc := range []struct {
		text, user, addr string
	}{
		{"mysql://repl@db.example:3310", "repl", "db.example:3310"},
		{"mysql://repl@db.example", "repl", "db.example:3306"},
		{"mysql://repl@[::1]:3310/", "repl", "[::1]:3310"},
		{"mysql://repl@[::1]", "repl", "[::1]:3306"},
		{"mysql://a%40b%3Ac@h:1", "a@b:c", "h:1"},
	} {
		c, err := Load(Input{Flags: map[string]string{"source": tc.text}})
		if err != nil || c.Source.User != tc.user || c.Source.Addr() != tc.addr {
			t.Errorf("%s: got %q at %q, %v; want %q at %q", tc.text, c.Source.User, c.Source.Addr(), err, tc.user, tc.addr)
		}
	}
	for _, text := range []string{
		"hunter2", "mysql://hunter2", "mysql://u:hunter2@h:1", "mysql://u:hunter2@h:x", "postgres://u:hunter2@h", "mysql://u@h:1/hunter2",
		"mysql://u@h:1?password=hunter2", "mysql://u%zz:hunter2@h", "mysql://:hunter2@h:1", "mysql://u@:1", "mysql://@h:1", "mysql://u@h:0",
	} {
		_, err := Load(Input{Flags: map[string]string{"source": text}})
		if err == nil {
			t.Errorf("%s: no error", text)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows the password: %v", text, err)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "1048576": 1 << 20, "10GB": 10e9, "64MiB": 64 << 20, "64 MiB": 64 << 20, "1.5k": 1536, "2T": 2 << 40, "1tib": 1 << 40, "5B": 5, "3kB": 3000,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "GB", "-1", "+1", "1e9", "10 GB x", "10XB", "99999999TB", "1.2.3", "0x10", "NaN", "18446744073709551616"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

func TestPasswords(t *testing.T) {
	file := write(t, "pw", "from-file\n", 0o600)
	open := write(t, "open", "from-file\r\n", 0o644)
	base := map[string]string{"data-dir": t.TempDir(), "source": "mysql://u@h:1"}
	with := func(more map[string]string) map[string]string {
		out := map[string]string{}
		for _, m := range []map[string]string{base, more} {
			for k, v := range m {
				out[k] = v
			}
		}
		return out
	}
	yaml := write(t, "k.yaml", "source-password-file: "+file+"\n", 0o600)
	env := []string{"KINGBUS_SOURCE_PASSWORD=from-env"}
	for _, tc := range []struct {
		name string
		in   Input
		want string // password, or a part of the error
		warn string
	}{
		{"file", Input{Flags: with(map[string]string{"source-password-file": file})}, "from-file", ""},
		{"readable by all", Input{Flags: with(map[string]string{"source-password-file": open})}, "from-file", "chmod 600"},
		{"environment", Input{Flags: base, Environ: env}, "from-env", ""},
		{"flag over environment", Input{Flags: with(map[string]string{"source-password-file": file}), Environ: env}, "from-file", ""},
		{"environment over YAML", Input{Flags: base, Environ: env, File: yaml}, "from-env", ""},
		{"both", Input{Flags: base, Environ: append(env, "KINGBUS_SOURCE_PASSWORD_FILE="+file)}, "both KINGBUS_SOURCE_PASSWORD and", ""},
		{"none", Input{Flags: base}, "no password for the source", ""},
		{"empty", Input{Flags: with(map[string]string{"source-password-file": write(t, "e", "\n", 0o600)})}, "it is empty", ""},
		{"two lines", Input{Flags: with(map[string]string{"source-password-file": write(t, "e", "hunter2\nx\n", 0o600)})}, "one line", ""},
		{"too long", Input{Flags: with(map[string]string{"source-password-file": write(t, "e", strings.Repeat("hunter2", 5000), 0o600)})}, "longer than", ""},
		{"folder", Input{Flags: with(map[string]string{"source-password-file": t.TempDir()})}, "is a folder", ""},
		{"missing", Input{Flags: with(map[string]string{"source-password-file": "/nonexistent"})}, "no such file", ""},
	} {
		c, err := Load(tc.in)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		warnings, err := c.CheckServe()
		got := c.Source.Password.Reveal()
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != tc.want || !strings.Contains(got, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
		if strings.Contains(got, "hunter2") {
			t.Errorf("%s: the error shows the password: %s", tc.name, got)
		}
		if all := strings.Join(warnings, "\n"); !strings.Contains(all, tc.warn) || tc.warn == "" && strings.Contains(all, "chmod") {
			t.Errorf("%s: warnings %q, want %q", tc.name, all, tc.warn)
		}
	}
}

func TestCheckServe(t *testing.T) {
	for _, tc := range []struct {
		flags map[string]string
		env   []string
		want  string
	}{
		{map[string]string{}, nil, "--data-dir"},
		{map[string]string{"data-dir": "d"}, []string{"KINGBUS_SOURCE_PASSWORD=x"}, "no source"},
		{map[string]string{"data-dir": "d", "replica-user": "r"}, nil, "--replica-password-file"},
		{map[string]string{"data-dir": "d"}, []string{"KINGBUS_REPLICA_PASSWORD=x"}, "--replica-user"},
		{map[string]string{"data-dir": "d", "tls-cert": "c"}, nil, "--tls-key"},
		{map[string]string{"data-dir": "d", "source-tls-key": "c"}, nil, "--source-tls-cert"},
		{map[string]string{"data-dir": "d"}, nil, ""},
	} {
		c, err := Load(Input{Flags: tc.flags, Environ: tc.env})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.CheckServe()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%v: got %v, want %q in it", tc.flags, err, tc.want)
		}
	}
}

func TestSecretHides(t *testing.T) {
	c := Config{Source: Source{Password: NewSecret("hunter2")}, Replica: Replica{Password: NewSecret("hunter2")}}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", c, "secret", c.Source.Password)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c, "secret", c.Source.Password)
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		log.String(), string(b), fmt.Sprint(c), fmt.Sprintf("%v %+v %#v", c, c, c),
		fmt.Sprintf("%v %+v %#v %s %q %x %d", c.Source.Password, c.Source.Password, c.Source.Password, c.Source.Password, c.Source.Password, c.Source.Password, c.Source.Password),
	} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "68756e74657232") {
			t.Errorf("the password shows in %s", text)
		}
	}
}

// A file that seems to hold a password is not quoted in errors.
func TestNoExcerptOfPasswords(t *testing.T) {
	for _, text := range []string{
		"source-password: hunter2\n", "password: hunter2\n", "source-password: |\n  hunter2\n", "source: mysql://u:hunter2@h:1\n",
		"log-level: loud\nsource-password: hunter2\n", "replica_password: 'hunter2'\nstart: \"x\n", "\"source-password\": hunter2\n",
		"hunter2\n", "\"hunter2\n", "- hunter2\n", "{hunter2\n",
	} {
		_, err := Load(Input{File: write(t, "k.yaml", text, 0o600)})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	c, err := Load(Input{})
	if err != nil {
		t.Fatal(err)
	}
	if c.MySQLListen != "127.0.0.1:3307" || c.Admin.Listen != "127.0.0.1:8307" || c.Source.TLS != wire.TLSPreferred ||
		c.DiskReserve != 64<<20 || c.ShutdownTimeout != 10*time.Second || c.LogFormat != "text" || c.Source.Addr() != "" {
		t.Errorf("got %+v", c)
	}
}

func FuzzParseFile(f *testing.F) {
	for _, s := range []string{"start: oldest\n", "- a\n", "a: {b: [c]}\n", "x: &a 1\ny: *a\n", "? a\n: b\n", "<<: {a: b}\n", "--- |\n x\n", "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<12 {
			return
		}
		settings, err := parseFile("k.yaml", b)
		if err != nil && !strings.HasPrefix(err.Error(), "k.yaml") {
			t.Errorf("error without the file's name: %v", err)
		}
		if err == nil && settings == nil {
			t.Error("neither settings nor an error")
		}
	})
}
