package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"kingbus/internal/keys"
)

// prometheus scrapes the metrics as a Prometheus does: with its Accept headers, and the token
// from its configuration (authorization: credentials_file).
func (r *clientRig) prometheus(t *testing.T) {
	token, err := keys.ReadToken(r.p.tokenFile())
	if err != nil {
		t.Fatal(err)
	}
	scrape := func(accept, token string) (*http.Response, []byte) {
		req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", r.p.adminPort), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		req.Header.Set("User-Agent", "Prometheus/3.5.0")
		req.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", "10")
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := r.p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, body
	}
	// scrape.go of Prometheus 3 and 2 (acceptHeader), and one that was told to take text only.
	for name, accept := range map[string]string{
		"3":    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
		"2":    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
		"text": "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := scrape(accept, token)
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%s: %s", resp.Status, body)
			}
			kind := resp.Header.Get("Content-Type")
			if strings.HasPrefix(kind, "application/openmetrics-text") {
				if !bytes.HasSuffix(body, []byte("# EOF\n")) {
					t.Error("no end")
				}
				return
			}
			if expfmt.ResponseFormat(resp.Header).FormatType() != expfmt.TypeTextPlain {
				t.Errorf("content type %q", kind)
			}
			parser := expfmt.NewTextParser(model.UTF8Validation)
			families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"kingbus_source_links_total", "kingbus_client_connections_refused_total", "go_goroutines"} {
				if families[name] == nil || len(families[name].Metric) == 0 {
					t.Errorf("no %s among %d", name, len(families))
				}
			}
			for name, f := range families {
				if strings.HasPrefix(name, "kingbus_") && f.GetHelp() == "" {
					t.Errorf("%s has no help", name)
				}
			}
		})
	}
	for _, bad := range []string{"", "wrong"} {
		if resp, body := scrape("*/*", bad); resp.StatusCode != http.StatusUnauthorized || bytes.Contains(body, []byte("kingbus_")) {
			t.Errorf("with the token %q: %s", bad, resp.Status)
		}
	}
}
