package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"kingbus/internal/account"
)

// users is a set of accounts.
type users struct{ accounts []account.Account }

func (u *users) Table() *account.Table   { return account.NewTable(u.accounts...) }
func (u *users) Own(user, _ string) bool { return user == "own" }
func (u *users) Change(_ context.Context, decide func(*account.Table) ([]account.Change, error)) error {
	changes, err := decide(u.Table())
	if err != nil {
		return err
	}
	for _, c := range changes {
		if u.Own(c.User, c.Host) {
			return account.ErrOwn
		}
		var left []account.Account
		for _, a := range u.accounts {
			if a.User != c.User || a.Host != c.Host {
				left = append(left, a)
			}
		}
		if !c.Drop {
			left = append(left, c.Account)
		}
		u.accounts = left
	}
	return nil
}

// TestUsers: accounts are made, shown, changed and dropped, and no answer has a hash.
func TestUsers(t *testing.T) {
	all := &users{accounts: []account.Account{{User: "own", Host: "%", Privileges: account.ReplicationSlave}}}
	s, err := New(Config{Token: always(testToken), Status: sample, Binlog: exporter{}, Group: &group{}, Users: all, Follow: newFollow(), Dumps: &dumps{}, Variables: newVariables()})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, body string) (int, string) {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Host = "localhost"
		r.Header.Set("Content-Type", "application/json")
		Authorize(r, testToken)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	for _, tc := range []struct {
		method, path, body string
		code               int
		says               string
	}{
		{"POST", "/api/v1/users", `{"user":"u","password":"p","privileges":["replication slave"],"require_tls":true}`, 204, ""},
		{"POST", "/api/v1/users", `{"user":"u","password":"p"}`, 409, "already"},
		{"POST", "/api/v1/users", `{"user":"v","host":"10.%","hash":"*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19","plugin":"mysql_native_password"}`, 204, ""},
		{"POST", "/api/v1/users", `{"user":"w"}`, 400, "password cannot be used"},
		{"POST", "/api/v1/users", `{"user":"w","password":"p","plugin":"pam"}`, 400, "no such authentication plugin"},
		{"POST", "/api/v1/users", `{"user":"w","hash":"p"}`, 400, "hash"},
		{"POST", "/api/v1/users", `{"user":"w","password":"p","privileges":["select"]}`, 400, "no privilege SELECT"},
		{"POST", "/api/v1/users", `{"user":"","password":"p"}`, 400, "anonymous"},
		{"POST", "/api/v1/users", `{"user":"w","password":"p","admin":true}`, 400, "admin"},
		{"POST", "/api/v1/users", `rubbish`, 400, "not an account"},
		{"PATCH", "/api/v1/users/u/%25", `{"privileges":["all"],"locked":true,"require_tls":false}`, 204, ""},
		{"PATCH", "/api/v1/users/u/%25", `{"user":"x"}`, 400, "keeps its name"},
		{"PATCH", "/api/v1/users/u/10.%25", `{"locked":true}`, 404, "no account 'u'@'10.%'"},
		{"PATCH", "/api/v1/users/own/%25", `{"locked":true}`, 409, "--replica-user"},
		{"PATCH", "/api/v1/users/v/10.%25", `{"password":"new"}`, 204, ""},
		{"DELETE", "/api/v1/users/x/%25", ``, 404, "no account"},
	} {
		if code, body := ask(tc.method, tc.path, tc.body); code != tc.code || !strings.Contains(body, tc.says) {
			t.Errorf("%s %s %s: %d %s", tc.method, tc.path, tc.body, code, body)
		}
	}
	code, body := ask("GET", "/api/v1/users", "")
	var got []User
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != http.StatusOK || len(got) != 3 {
		t.Fatalf("%d %s", code, body)
	}
	if u := got[1]; u.User != "u" || u.Host != "%" || len(u.Privileges) != 3 || u.RequireTLS || !u.Locked || u.OfNode {
		t.Errorf("%+v", u)
	}
	if v := got[2]; v.Plugin != "mysql_native_password" || !got[0].OfNode {
		t.Errorf("%+v, %+v", v, got[0])
	}
	if strings.Contains(body, "$A$") || strings.Contains(body, "*2470") {
		t.Errorf("a hash is shown: %s", body)
	}
	if code, body := ask("DELETE", "/api/v1/users/u/%25", ""); code != 204 || len(all.accounts) != 2 {
		t.Errorf("%d %s", code, body)
	}
}
