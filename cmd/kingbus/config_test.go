package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConfigDocs: docs/configuration.md is what the program says.
func TestConfigDocs(t *testing.T) {
	r := call(t, nil, "config", "docs")
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	if r.code != 0 || r.stdout != string(page) {
		t.Errorf("docs/configuration.md is not what the program says: run `make docs`")
	}
	for _, want := range []string{"| `--data-dir DIR` | `KINGBUS_DATA_DIR` |", "| `--retain-force` |", "KINGBUS_SOURCE_PASSWORD"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in it", want)
		}
	}
}

func TestConfigCheck(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	good := writeFile(t, "good.yaml", "data-dir: "+dir+"\nretain-age: 48h\n")
	if r := call(t, nil, "config", "check", good); r.code != 0 || !strings.Contains(r.stdout, "is fine") {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it has made the data folder")
	}
	for text, want := range map[string]string{
		"data-dir: d\nretain-agee: 48h\n":                                                   "retain-agee",
		"data-dir: d\nretain-age: soon\n":                                                   "retain-age",
		"retain-age: 48h\n":                                                                 "no data folder",
		"data-dir: d\nsource: mysql://u@h\n":                                                "no password for the source",
		"data-dir: d\nstart: 'gtid:rubbish'\n":                                              "rubbish",
		"data-dir: d\nsource-tls-ca: /no/such/ca.pem\n":                                     "/no/such/ca.pem",
		"data-dir: d\ntls-cert: /no/such/cert.pem\ntls-key: /no/such/key.pem\n":             "/no/such/cert.pem",
		"data-dir: d\nadmin-tls-cert: /no/such/cert.pem\nadmin-tls-key: /no/such/key.pem\n": "/no/such/cert.pem",
		"{": "yaml",
	} {
		if r := call(t, nil, "config", "check", writeFile(t, "bad.yaml", text)); r.code != exitUsage || !strings.Contains(strings.ToLower(r.stderr), want) {
			t.Errorf("%q: %+v", text, r)
		}
	}
	if r := call(t, nil, "config", "check", "/no/such/file"); r.code != exitUsage {
		t.Errorf("%+v", r)
	}
}
