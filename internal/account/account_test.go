package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"

	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

func verifier(t *testing.T, password string) wire.Verifier {
	t.Helper()
	v, err := wire.NewVerifier([]byte(password), wire.VerifierForms{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestFind: of several accounts of a user the one with the most specific host counts.
func TestFind(t *testing.T) {
	var all []Account
	for _, host := range []string{"%", "10.%", "10.0.0.%", "10.0.0.0/255.255.255.0", "10.0.0.0/25", "10.0.0.7", "localhost", "192.168.1._", "::1", "2001:db8::/32"} {
		all = append(all, Account{User: "u", Host: host})
	}
	table := NewTable(append(all, Account{User: "v", Host: "10.0.0.7"})...)
	for address, want := range map[string]string{
		"10.0.0.7": "10.0.0.7", "10.0.0.8": "10.0.0.0/25", "10.0.0.200": "10.0.0.0/255.255.255.0", "10.0.1.1": "10.%", "11.0.0.1": "%",
		"::ffff:10.0.0.7": "10.0.0.7", "127.0.0.1": "localhost", "127.1.2.3": "localhost", "192.168.1.5": "192.168.1._", "192.168.1.55": "%",
		"::1": "localhost", "2001:db8::7": "2001:db8::/32", "2001:db9::7": "%", "": "%",
	} {
		if a, ok := table.Find("u", address); !ok || a.Host != want {
			t.Errorf("from %q: %q, %v, want %q", address, a.Host, ok, want)
		}
	}
	for _, who := range [][2]string{{"v", "10.0.0.8"}, {"U", "10.0.0.7"}, {"", "10.0.0.7"}} {
		if a, ok := table.Find(who[0], who[1]); ok {
			t.Errorf("%v: %v", who, a)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, bad := range [][2]string{{"", "%"}, {strings.Repeat("u", 33), "%"}, {"u", ""}, {"u", strings.Repeat("h", 256)}, {"u\n", "%"}, {"u\xe4", "%"}, {"u", "a@b"}, {"u", "10.0.0.0/255.0.255.0"},
		{"u", "10.0.0.1/24"}, {"u", "10.0.0.0/33"}, {"u", "x/24"}, {"u", "10.0.0.0/"}, {"u", "10.0.0.0/255.255.255.0/1"}} {
		if err := CheckName(bad[0], bad[1]); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	for _, good := range [][2]string{{strings.Repeat("ü", 32), "%"}, {"u@h", "a_b%.example.org"}, {"u", "10.0.0.0/8"}, {"u", "0.0.0.0/0.0.0.0"}, {"u", "fe80::/10"}} {
		if err := CheckName(good[0], good[1]); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

// settings is what a Store needs, in memory; changes may be overtaken by others.
type settings struct {
	mu       sync.Mutex
	now      stream.Settings
	overtake func()
}

func (s *settings) Settings() stream.Settings { s.mu.Lock(); defer s.mu.Unlock(); return s.now }

func (s *settings) AwaitSettings(context.Context, uint64) (stream.Settings, error) {
	return s.Settings(), nil
}

func (s *settings) ChangeSettings(_ context.Context, revision uint64, values map[string]json.RawMessage) error {
	if f := s.overtake; f != nil {
		s.overtake = nil
		f()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision != s.now.Revision {
		return stream.ErrSettingsChanged
	}
	next := map[string]json.RawMessage{}
	for k, v := range s.now.Values {
		next[k] = v
	}
	for k, v := range values {
		if next[k] = v; v == nil {
			delete(next, k)
		}
	}
	s.now = stream.Settings{Revision: revision + 1, Values: next}
	return nil
}

func TestStore(t *testing.T) {
	s := &settings{}
	own := Account{User: "own", Host: "%", Verifier: verifier(t, "o"), Privileges: ReplicationSlave}
	store := NewStore(s, slog.New(slog.DiscardHandler), own)
	add := func(user, host string, change func(*Account)) error {
		return store.Change(t.Context(), func(table *Table) ([]Change, error) {
			a := Account{User: user, Host: host, Plugin: wire.PluginCachingSHA2, Verifier: verifier(t, "p"), Privileges: ReplicationClient}
			if change != nil {
				change(&a)
			}
			if _, there := table.Get(user, host); there {
				return nil, errors.New("there already")
			}
			return []Change{{Account: a}}, nil
		})
	}
	if err := add("a", "10.%", nil); err != nil {
		t.Fatal(err)
	}
	got, ok := store.Account("a", "10.1.1.1")
	if !ok || got.Host != "10.%" || got.RequireTLS || store.Privileges("a", "10.%", 0) != ReplicationClient {
		t.Errorf("%+v, %v", got, ok)
	}
	if _, ok := store.Account("a", "11.1.1.1"); ok {
		t.Error("from elsewhere")
	}
	if p := store.Privileges("own", "%", 0); p != ReplicationSlave {
		t.Errorf("of its own account: %v", p)
	}
	if err := store.Change(t.Context(), func(*Table) ([]Change, error) { return []Change{{own, true}}, nil }); !errors.Is(err, ErrOwn) {
		t.Errorf("its own account was dropped: %v", err)
	}
	if store.Privileges("a", "10.%", 7) != 0 {
		t.Error("a session of an earlier account of the name has privileges")
	}
	// Two at once: the second decides anew.
	s.overtake = func() {
		if err := add("b", "%", func(a *Account) { a.Locked = true }); err != nil {
			t.Error(err)
		}
	}
	if err := add("b", "%", nil); err == nil || err.Error() != "there already" {
		t.Errorf("the second of two: %v", err)
	}
	if _, ok := store.Account("b", "1.1.1.1"); ok {
		t.Error("a locked account can log in")
	}
	// What an older version cannot read admits nobody, and breaks nothing.
	s.now = stream.Settings{Revision: 99, Values: map[string]json.RawMessage{"account/x@%": []byte(`{"user":"x","host":"%","only_on_mondays":true}`), "account/a@10.%": s.now.Values["account/a@10.%"], "other": []byte("1")}}
	if _, ok := store.Account("x", "1.1.1.1"); ok || len(store.Table().All()) != 2 {
		t.Errorf("accounts %v", store.Table().All())
	}
}

// TestIdentity: a new password leaves the plugin as it is, as with MySQL.
func TestIdentity(t *testing.T) {
	for _, plugin := range []string{wire.PluginNative, wire.PluginCachingSHA2} {
		a := Account{Plugin: plugin}
		i, err := NewIdentity("", "new", "")
		if err != nil {
			t.Fatal(err)
		}
		i.On(&a)
		if forms := a.Verifier.Strings(); a.Plugin != plugin || len(forms) != 1 || strings.HasPrefix(forms[0], "*") != (plugin == wire.PluginNative) {
			t.Errorf("%s: %s, %q", plugin, a.Plugin, forms)
		}
		if i, err = NewIdentity(wire.PluginNative, "new", ""); err != nil {
			t.Fatal(err)
		}
		if i.On(&a); a.Plugin != wire.PluginNative {
			t.Errorf("%s", a.Plugin)
		}
	}
}

func TestEncode(t *testing.T) {
	a := Account{User: "u", Host: "10.%", Plugin: "mysql_native_password", Verifier: verifier(t, "p"), Privileges: All, RequireTLS: true, Locked: true, ID: NewID()}
	b, err := Decode(a.Encode())
	if err != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("%+v, %v", b, err)
	}
	if strings.Contains(string(a.Encode()), `"p"`) {
		t.Error("the password is in it")
	}
	if got := fmt.Sprint(Privileges(0), "; ", All, "; ", a.Name()); got != "USAGE; REPLICATION SLAVE, REPLICATION CLIENT, SUPER; 'u'@'10.%'" {
		t.Error(got)
	}
}

// FuzzHost: no pattern, and no address, breaks anything, and addresses match themselves.
func FuzzHost(f *testing.F) {
	for _, s := range []string{"%", "10.%", "10.0.0.0/24", "::1", "a_%b%%", "localhost"} {
		f.Add(s, "10.0.0.1")
	}
	f.Fuzz(func(t *testing.T, pattern, address string) {
		table := NewTable(Account{User: "u", Host: pattern}, Account{User: "u", Host: "10.9.8.7"})
		table.Find("u", address)
		if a, ok := table.Find("u", "10.9.8.7"); !ok || a.Host != "10.9.8.7" && !strings.Contains(pattern, ":") {
			t.Errorf("beside %q: %v", pattern, a)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"user":"u","host":"%","plugin":"caching_sha2_password","verifier":["*0123456789012345678901234567890123456789"],"privileges":["SUPER"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Decode(b)
		if err != nil {
			return
		}
		if again, err := Decode(a.Encode()); err != nil || !reflect.DeepEqual(a, again) {
			t.Errorf("%s: %+v, %+v, %v", b, a, again, err)
		}
	})
}
